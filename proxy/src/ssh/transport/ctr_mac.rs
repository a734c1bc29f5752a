//! AES in counter mode (RFC 4344 section 4) with a MAC: for clients and targets that have no cipher that authenticates.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::cipher::{BLOCK_LEN_AES, Cipher, KeyMaterial, LENGTH_LEN, Tag};
use super::error::{Error, PeerMisbehaved};
use super::mac::Mac;

/// One direction's keys. Counter mode encrypts and decrypts alike.
pub(super) struct CtrMac {
    cipher: EncryptingKey,
    /// X of RFC 4344 section 4: the next block's counter, modulo 2^128.
    counter: u128,
    mac_key: hmac::Key,
    mac: Mac,
}

impl CtrMac {
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

    pub(super) fn seal(&mut self, sequence: u32, packet: &mut [u8]) -> Result<Tag, Error> {
        let sealed = Error::Crypto("seal a packet");
        if self.mac.is_over_encrypted() {
            self.keystream(packet.get_mut(LENGTH_LEN..).unwrap_or_default()).ok_or(sealed)?;
            return Ok(Tag::new(self.authenticate(sequence, packet).as_ref()));
        }
        let tag = self.authenticate(sequence, packet);
        self.keystream(packet).ok_or(sealed)?;
        Ok(Tag::new(tag.as_ref()))
    }

    pub(super) fn open(&mut self, sequence: u32, packet: &mut [u8], tag: &[u8]) -> Result<(), Error> {
        let opened = Error::Crypto("open a packet");
        if self.mac.is_over_encrypted() {
            self.verify(sequence, packet, tag)?;
            return self.keystream(packet.get_mut(LENGTH_LEN..).unwrap_or_default()).ok_or(opened);
        }
        self.keystream(packet).ok_or(opened)?;
        self.verify(sequence, packet, tag)
    }

    /// The length field in the clear; `None` if the library fails.
    pub(super) fn length(&self, field: [u8; LENGTH_LEN]) -> Option<[u8; LENGTH_LEN]> {
        if self.mac.is_over_encrypted() {
            return Some(field);
        }
        // Counter mode encrypts each byte for itself: the first ones of a block can be had without the rest.
        let mut block = [0; BLOCK_LEN_AES];
        block.iter_mut().zip(field).for_each(|(byte, value)| *byte = value);
        self.encrypt(&mut block)?;
        block.first_chunk().copied()
    }

    fn verify(&self, sequence: u32, packet: &[u8], tag: &[u8]) -> Result<(), Error> {
        verify_slices_are_equal(self.authenticate(sequence, packet).as_ref(), tag)
            .map_err(|_| PeerMisbehaved::Tag { sequence }.into())
    }

    /// MAC(key, sequence number ‖ packet), the packet as it is at that time.
    fn authenticate(&self, sequence: u32, packet: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac_key);
        context.update(&sequence.to_be_bytes());
        context.update(packet);
        context.sign()
    }

    /// Encrypts or decrypts, and goes on in the key stream.
    fn keystream(&mut self, bytes: &mut [u8]) -> Option<()> {
        // Packets are whole blocks, so no rest of a block's key stream is ever left over.
        if !bytes.len().is_multiple_of(BLOCK_LEN_AES) {
            return None;
        }
        self.encrypt(bytes)?;
        self.counter = self.counter.wrapping_add((bytes.len() / BLOCK_LEN_AES) as u128);
        Some(())
    }

    fn encrypt(&self, bytes: &mut [u8]) -> Option<()> {
        let iv = EncryptionContext::Iv128(FixedLength::from(self.counter.to_be_bytes()));
        self.cipher.less_safe_encrypt(bytes, iv).ok()?;
        Some(())
    }
}
