//! The ciphers: none before the first keys, then AES-GCM (RFC 5647, as OpenSSH negotiates it),
//! chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305), or, for peers that have neither, AES in
//! counter mode with a MAC ([`super::ctr_mac`]).
//!
//! A packet here is `length (4 bytes) ‖ padding length ‖ payload ‖ padding`, and a tag after it.

use aws_lc_rs::aead::chacha20_poly1305_openssh as chacha;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ctr_mac::CtrMac;
use super::error::{Error, PeerMisbehaved};
use super::mac::{MAC_LEN_MAX, Mac};

/// Length of the packet length field, bytes.
pub const LENGTH_LEN: usize = 4;
/// Length of the tag of every cipher that authenticates by itself, bytes.
const TAG_LEN: usize = 16;
/// Longest tag: HMAC-SHA-512's, bytes.
pub const TAG_LEN_MAX: usize = MAC_LEN_MAX;
/// Longest key (chacha20-poly1305 takes two of 32), bytes.
pub const KEY_LEN_MAX: usize = 64;
/// Length of GCM's initial IV: 4 fixed bytes and the invocation counter of 8.
const GCM_IV_LEN: usize = 12;
/// Longest initial IV: counter mode's whole first block, bytes.
pub const IV_LEN_MAX: usize = 16;
/// Block of AES, bytes.
pub(super) const BLOCK_LEN_AES: usize = 16;

/// A cipher that can be negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// aes128-gcm@openssh.com
    Aes128Gcm,
    /// aes256-gcm@openssh.com
    Aes256Gcm,
    /// chacha20-poly1305@openssh.com
    ChaCha20Poly1305,
    /// aes128-ctr
    Aes128Ctr,
    /// aes256-ctr
    Aes256Ctr,
}

impl Cipher {
    /// All of them, in our order of preference: AES-GCM runs at twice the speed where there is AES-NI; counter
    /// mode is for those who have nothing else.
    pub const ALL: [Self; 5] =
        [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305, Self::Aes256Ctr, Self::Aes128Ctr];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes128-gcm@openssh.com",
            Self::Aes256Gcm => "aes256-gcm@openssh.com",
            Self::ChaCha20Poly1305 => "chacha20-poly1305@openssh.com",
            Self::Aes128Ctr => "aes128-ctr",
            Self::Aes256Ctr => "aes256-ctr",
        }
    }

    /// Whether it needs a MAC beside it.
    #[must_use]
    pub fn needs_mac(self) -> bool {
        matches!(self, Self::Aes128Ctr | Self::Aes256Ctr)
    }

    /// How many bytes of key it takes from the exchange.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes128Ctr => 16,
            Self::Aes256Gcm | Self::Aes256Ctr => 32,
            Self::ChaCha20Poly1305 => 64,
        }
    }

    /// How many bytes of initial IV it takes from the exchange: chacha20's nonce is the sequence number.
    #[must_use]
    pub fn iv_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => GCM_IV_LEN,
            Self::ChaCha20Poly1305 => 0,
            Self::Aes128Ctr | Self::Aes256Ctr => IV_LEN_MAX,
        }
    }
}

/// What protects one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// The cipher.
    pub cipher: Cipher,
    /// The MAC, for a cipher that [needs one](Cipher::needs_mac).
    pub mac: Option<Mac>,
}

/// What authenticates one packet.
pub struct Tag {
    bytes: [u8; TAG_LEN_MAX],
    len: usize,
}

impl Tag {
    /// No tag: before the first NEWKEYS.
    const NONE: Self = Self { bytes: [0; TAG_LEN_MAX], len: 0 };

    /// Of these bytes, at most [`TAG_LEN_MAX`].
    pub(super) fn new(tag: &[u8]) -> Self {
        let mut bytes = [0; TAG_LEN_MAX];
        bytes.iter_mut().zip(tag).for_each(|(byte, value)| *byte = *value);
        Self { bytes, len: tag.len().min(TAG_LEN_MAX) }
    }
}

impl AsRef<[u8]> for Tag {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// What the key exchange derives for one direction.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    /// The key; a cipher takes the first [`Cipher::key_len`] bytes.
    pub key: [u8; KEY_LEN_MAX],
    /// The initial IV; a cipher takes the first [`Cipher::iv_len`] bytes.
    pub iv: [u8; IV_LEN_MAX],
    /// The MAC's key; a MAC takes the first [`Mac::len`] bytes.
    pub mac: [u8; MAC_LEN_MAX],
}

/// GCM's nonce: fixed field and invocation counter (RFC 5647 section 7.1).
struct GcmNonce {
    fixed: [u8; 4],
    counter: u64,
}

impl GcmNonce {
    fn new(iv: [u8; IV_LEN_MAX]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = iv;
        let counter = [e, f, g, h, i, j, k, l];
        Self { fixed: [a, b, c, d], counter: u64::from_be_bytes(counter) }
    }

    /// The nonce of the next invocation. The counter starts anywhere and runs modulo 2^64, as the RFC has it;
    /// that no value comes twice is seen to by the bound on packets under one key (packet.rs).
    fn next(&mut self) -> Nonce {
        let mut nonce = [0; GCM_IV_LEN];
        let (fixed, counter) = nonce.split_at_mut(4);
        fixed.copy_from_slice(&self.fixed);
        counter.copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

fn gcm(cipher: Cipher, material: &KeyMaterial) -> Result<Box<(LessSafeKey, GcmNonce)>, Error> {
    let algorithm = if cipher == Cipher::Aes128Gcm { &AES_128_GCM } else { &AES_256_GCM };
    let key = material.key.get(..cipher.key_len()).unwrap_or_default();
    let key = UnboundKey::new(algorithm, key).map_err(|_| Error::Crypto("set up AES-GCM"))?;
    Ok(Box::new((LessSafeKey::new(key), GcmNonce::new(material.iv))))
}

/// Seals packets of one direction.
pub struct Sealer(Sealing);

enum Sealing {
    Clear,
    Gcm(Box<(LessSafeKey, GcmNonce)>),
    ChaCha(Box<chacha::SealingKey>),
    CtrMac(Box<CtrMac>),
}

/// Opens packets of one direction.
pub struct Opener(Opening);

enum Opening {
    Clear,
    Gcm(Box<(LessSafeKey, GcmNonce)>),
    ChaCha(Box<chacha::OpeningKey>),
    CtrMac(Box<CtrMac>),
}

fn ctr_mac(protection: Protection, material: &KeyMaterial) -> Result<Box<CtrMac>, Error> {
    let mac = protection.mac.ok_or(Error::Crypto("set up AES-CTR without a MAC"))?;
    CtrMac::new(protection.cipher, mac, material).map(Box::new)
}

impl Sealer {
    /// No cipher: before the first NEWKEYS.
    #[must_use]
    pub fn clear() -> Self {
        Self(Sealing::Clear)
    }

    /// What was agreed on, with these keys.
    ///
    /// # Errors
    /// [`Error::Crypto`] if the library can't set it up.
    pub fn new(protection: Protection, material: &KeyMaterial) -> Result<Self, Error> {
        let cipher = protection.cipher;
        Ok(Self(match cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => Sealing::Gcm(gcm(cipher, material)?),
            Cipher::ChaCha20Poly1305 => Sealing::ChaCha(Box::new(chacha::SealingKey::new(&material.key))),
            Cipher::Aes128Ctr | Cipher::Aes256Ctr => Sealing::CtrMac(ctr_mac(protection, material)?),
        }))
    }

    /// Bytes of the tag.
    #[must_use]
    pub fn tag_len(&self) -> usize {
        match &self.0 {
            Sealing::Clear => 0,
            Sealing::Gcm(_) | Sealing::ChaCha(_) => TAG_LEN,
            Sealing::CtrMac(keys) => keys.mac().len(),
        }
    }

    /// Multiple of which a packet must be, and whether its length field counts.
    #[must_use]
    pub fn block(&self) -> (usize, bool) {
        match self.0 {
            Sealing::Clear => (8, true),
            Sealing::Gcm(_) => (BLOCK_LEN_AES, false),
            Sealing::CtrMac(ref keys) => (BLOCK_LEN_AES, !keys.mac().is_over_encrypted()),
            Sealing::ChaCha(_) => (8, false),
        }
    }

    /// Encrypts a packet (with its length field, without tag) in place and gives its tag.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn seal(&mut self, sequence: u32, packet: &mut [u8]) -> Result<Tag, Error> {
        match &mut self.0 {
            Sealing::Clear => Ok(Tag::NONE),
            Sealing::Gcm(gcm) => {
                let (key, nonce) = &mut **gcm;
                let (length, body) =
                    packet.split_first_chunk_mut::<LENGTH_LEN>().ok_or(Error::Crypto("seal a packet"))?;
                let tag = key
                    .seal_in_place_separate_tag(nonce.next(), Aad::from(*length), body)
                    .map_err(|_| Error::Crypto("seal a packet"))?;
                Ok(Tag::new(tag.as_ref()))
            }
            Sealing::ChaCha(key) => {
                if packet.len() < LENGTH_LEN {
                    return Err(Error::Crypto("seal a packet"));
                }
                let mut tag = [0; TAG_LEN];
                key.seal_in_place(sequence, packet, &mut tag);
                Ok(Tag::new(&tag))
            }
            Sealing::CtrMac(keys) => keys.seal(sequence, packet),
        }
    }
}

impl Opener {
    /// No cipher: before the first NEWKEYS.
    #[must_use]
    pub fn clear() -> Self {
        Self(Opening::Clear)
    }

    /// What was agreed on, with these keys.
    ///
    /// # Errors
    /// [`Error::Crypto`] if the library can't set it up.
    pub fn new(protection: Protection, material: &KeyMaterial) -> Result<Self, Error> {
        let cipher = protection.cipher;
        Ok(Self(match cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => Opening::Gcm(gcm(cipher, material)?),
            Cipher::ChaCha20Poly1305 => Opening::ChaCha(Box::new(chacha::OpeningKey::new(&material.key))),
            Cipher::Aes128Ctr | Cipher::Aes256Ctr => Opening::CtrMac(ctr_mac(protection, material)?),
        }))
    }

    /// Bytes of the tag.
    #[must_use]
    pub fn tag_len(&self) -> usize {
        match &self.0 {
            Opening::Clear => 0,
            Opening::Gcm(_) | Opening::ChaCha(_) => TAG_LEN,
            Opening::CtrMac(keys) => keys.mac().len(),
        }
    }

    /// Multiple of which a packet must be, and whether its length field counts.
    #[must_use]
    pub fn block(&self) -> (usize, bool) {
        match self.0 {
            Opening::Clear => (8, true),
            Opening::Gcm(_) => (BLOCK_LEN_AES, false),
            Opening::CtrMac(ref keys) => (BLOCK_LEN_AES, !keys.mac().is_over_encrypted()),
            Opening::ChaCha(_) => (8, false),
        }
    }

    /// The packet's length as it claims it, not authenticated yet: it may only be compared with limits.
    #[must_use]
    pub fn claimed_length(&self, sequence: u32, field: [u8; LENGTH_LEN]) -> u32 {
        u32::from_be_bytes(match &self.0 {
            Opening::Clear | Opening::Gcm(_) => field,
            // Longer than any: what can't be read is refused.
            Opening::CtrMac(keys) => keys.length(field).unwrap_or([0xff; LENGTH_LEN]),
            Opening::ChaCha(key) => key.decrypt_packet_length(sequence, field),
        })
    }

    /// Checks a packet (with its length field) against its tag and decrypts what follows the length, in place.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Tag`]; the bytes are then worth nothing.
    pub fn open(&mut self, sequence: u32, packet: &mut [u8], tag: &[u8]) -> Result<(), Error> {
        let altered = || Error::from(PeerMisbehaved::Tag { sequence });
        match &mut self.0 {
            Opening::Clear => {}
            Opening::Gcm(gcm) => {
                let (key, nonce) = &mut **gcm;
                let (length, body) = packet.split_first_chunk_mut::<LENGTH_LEN>().ok_or_else(altered)?;
                key.open_in_place_separate_tag(nonce.next(), Aad::from(*length), tag, body)
                    .map_err(|_| altered())?;
            }
            Opening::ChaCha(key) => {
                let tag = <&[u8; TAG_LEN]>::try_from(tag).map_err(|_| altered())?;
                key.open_in_place(sequence, packet, tag).map_err(|_| altered())?;
            }
            Opening::CtrMac(keys) => keys.open(sequence, packet, tag)?,
        }
        Ok(())
    }
}
