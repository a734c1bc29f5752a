//! AES in counter mode (RFC 4344 section 4) with encrypt-then-MAC: for clients and targets that have no cipher
//! that authenticates.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::cipher::{BLOCK_LEN_AES, Cipher, KeyMaterial, LENGTH_LEN, Tag};
use super::error::{Error, PeerMisbehaved};
use super::mac::Mac;

/// One direction's keys. Counter mode encrypts and decrypts alike.
pub(super) struct CtrEtm {
    cipher: EncryptingKey,
    /// X of RFC 4344 section 4: the next block's counter, modulo 2^128.
    counter: u128,
    mac_key: hmac::Key,
    mac: Mac,
}

impl CtrEtm {
    pub(super) fn new(cipher: Cipher, mac: Mac, material: &KeyMaterial) -> Result<Self, Error> {
        let algorithm = if cipher == Cipher::Aes128Ctr { &AES_128 } else { &AES_256 };
        let key = material.key.get(..cipher.key_len()).unwrap_or_default();
        let cipher = UnboundCipherKey::new(algorithm, key)
            .and_then(EncryptingKey::ctr)
            .map_err(|_| Error::Crypto("set up AES-CTR"))?;
        Ok(Self { cipher, counter: u128::from_be_bytes(material.iv), mac_key: mac.key(&material.mac), mac })
    }

    pub(super) fn mac(&self) -> Mac {
        self.mac
    }

    /// The length field stays in the clear.
    pub(super) fn seal(&mut self, sequence: u32, packet: &mut [u8]) -> Result<Tag, Error> {
        self.keystream(packet).ok_or(Error::Crypto("seal a packet"))?;
        Ok(Tag::new(self.authenticate(sequence, packet).as_ref()))
    }

    pub(super) fn open(&mut self, sequence: u32, packet: &mut [u8], tag: &[u8]) -> Result<(), Error> {
        verify_slices_are_equal(self.authenticate(sequence, packet).as_ref(), tag)
            .map_err(|_| PeerMisbehaved::Tag { sequence })?;
        self.keystream(packet).ok_or(Error::Crypto("open a packet"))
    }

    /// MAC(key, sequence number ‖ packet length ‖ what is encrypted).
    fn authenticate(&self, sequence: u32, packet: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac_key);
        context.update(&sequence.to_be_bytes());
        context.update(packet);
        context.sign()
    }

    fn keystream(&mut self, packet: &mut [u8]) -> Option<()> {
        let body = packet.get_mut(LENGTH_LEN..)?;
        let blocks = body.len() / BLOCK_LEN_AES;
        // Packets are whole blocks, so no rest of a block's key stream is ever left over.
        if !body.len().is_multiple_of(BLOCK_LEN_AES) {
            return None;
        }
        let iv = EncryptionContext::Iv128(FixedLength::from(self.counter.to_be_bytes()));
        self.cipher.less_safe_encrypt(body, iv).ok()?;
        self.counter = self.counter.wrapping_add(blocks as u128);
        Some(())
    }
}
