//! The ciphers: none before the first keys, then AES-GCM (RFC 5647, as OpenSSH negotiates it) or
//! chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305). All authenticate, so there is no MAC.
//!
//! A packet here is `length (4 bytes) ‖ padding length ‖ payload ‖ padding`, and a tag of 16 bytes after it.

use aws_lc_rs::aead::chacha20_poly1305_openssh as chacha;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::error::{Error, PeerMisbehaved};

/// Length of the packet length field, bytes.
pub const LENGTH_LEN: usize = 4;
/// Length of the tag of every cipher that authenticates, bytes.
pub const TAG_LEN: usize = 16;
/// Longest key (chacha20-poly1305 takes two of 32), bytes.
pub const KEY_LEN_MAX: usize = 64;
/// Length of GCM's initial IV: 4 fixed bytes and the invocation counter of 8.
pub const IV_LEN: usize = 12;

/// A cipher that can be negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// aes128-gcm@openssh.com
    Aes128Gcm,
    /// aes256-gcm@openssh.com
    Aes256Gcm,
    /// chacha20-poly1305@openssh.com
    ChaCha20Poly1305,
}

impl Cipher {
    /// All of them, in our order of preference: AES-GCM runs at twice the speed where there is AES-NI.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes128-gcm@openssh.com",
            Self::Aes256Gcm => "aes256-gcm@openssh.com",
            Self::ChaCha20Poly1305 => "chacha20-poly1305@openssh.com",
        }
    }

    /// How many bytes of key it takes from the exchange.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
            Self::ChaCha20Poly1305 => 64,
        }
    }
}

/// What the key exchange derives for one direction.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    /// The key; a cipher takes the first [`Cipher::key_len`] bytes.
    pub key: [u8; KEY_LEN_MAX],
    /// The initial IV (GCM only).
    pub iv: [u8; IV_LEN],
}

/// GCM's nonce: fixed field and invocation counter (RFC 5647 section 7.1).
struct GcmNonce {
    fixed: [u8; 4],
    counter: u64,
}

impl GcmNonce {
    fn new(iv: [u8; IV_LEN]) -> Self {
        let [a, b, c, d, counter @ ..] = iv;
        Self { fixed: [a, b, c, d], counter: u64::from_be_bytes(counter) }
    }

    /// The nonce of the next invocation. The counter starts anywhere and runs modulo 2^64, as the RFC has it;
    /// that no value comes twice is seen to by the bound on packets under one key (packet.rs).
    fn next(&mut self) -> Nonce {
        let mut nonce = [0; IV_LEN];
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
}

/// Opens packets of one direction.
pub struct Opener(Opening);

enum Opening {
    Clear,
    Gcm(Box<(LessSafeKey, GcmNonce)>),
    ChaCha(Box<chacha::OpeningKey>),
}

impl Sealer {
    /// No cipher: before the first NEWKEYS.
    #[must_use]
    pub fn clear() -> Self {
        Self(Sealing::Clear)
    }

    /// `cipher` with these keys.
    ///
    /// # Errors
    /// [`Error::Crypto`] if the library can't set it up.
    pub fn new(cipher: Cipher, material: &KeyMaterial) -> Result<Self, Error> {
        Ok(Self(match cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => Sealing::Gcm(gcm(cipher, material)?),
            Cipher::ChaCha20Poly1305 => Sealing::ChaCha(Box::new(chacha::SealingKey::new(&material.key))),
        }))
    }

    /// Bytes of the tag.
    #[must_use]
    pub fn tag_len(&self) -> usize {
        if matches!(self.0, Sealing::Clear) { 0 } else { TAG_LEN }
    }

    /// Multiple of which a packet must be, and whether its length field counts.
    #[must_use]
    pub fn block(&self) -> (usize, bool) {
        match self.0 {
            Sealing::Clear => (8, true),
            Sealing::Gcm(_) => (16, false),
            Sealing::ChaCha(_) => (8, false),
        }
    }

    /// Encrypts a packet (with its length field, without tag) in place and gives its tag.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn seal(&mut self, sequence: u32, packet: &mut [u8]) -> Result<[u8; TAG_LEN], Error> {
        let mut tag = [0; TAG_LEN];
        match &mut self.0 {
            Sealing::Clear => {}
            Sealing::Gcm(gcm) => {
                let (key, nonce) = &mut **gcm;
                let (length, body) =
                    packet.split_first_chunk_mut::<LENGTH_LEN>().ok_or(Error::Crypto("seal a packet"))?;
                let sealed = key
                    .seal_in_place_separate_tag(nonce.next(), Aad::from(*length), body)
                    .map_err(|_| Error::Crypto("seal a packet"))?;
                tag.copy_from_slice(sealed.as_ref());
            }
            Sealing::ChaCha(key) => {
                if packet.len() < LENGTH_LEN {
                    return Err(Error::Crypto("seal a packet"));
                }
                key.seal_in_place(sequence, packet, &mut tag);
            }
        }
        Ok(tag)
    }
}

impl Opener {
    /// No cipher: before the first NEWKEYS.
    #[must_use]
    pub fn clear() -> Self {
        Self(Opening::Clear)
    }

    /// `cipher` with these keys.
    ///
    /// # Errors
    /// [`Error::Crypto`] if the library can't set it up.
    pub fn new(cipher: Cipher, material: &KeyMaterial) -> Result<Self, Error> {
        Ok(Self(match cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => Opening::Gcm(gcm(cipher, material)?),
            Cipher::ChaCha20Poly1305 => Opening::ChaCha(Box::new(chacha::OpeningKey::new(&material.key))),
        }))
    }

    /// Bytes of the tag.
    #[must_use]
    pub fn tag_len(&self) -> usize {
        if matches!(self.0, Opening::Clear) { 0 } else { TAG_LEN }
    }

    /// Multiple of which a packet must be, and whether its length field counts.
    #[must_use]
    pub fn block(&self) -> (usize, bool) {
        match self.0 {
            Opening::Clear => (8, true),
            Opening::Gcm(_) => (16, false),
            Opening::ChaCha(_) => (8, false),
        }
    }

    /// The packet's length as it claims it, not authenticated yet: it may only be compared with limits.
    #[must_use]
    pub fn claimed_length(&self, sequence: u32, field: [u8; LENGTH_LEN]) -> u32 {
        u32::from_be_bytes(match &self.0 {
            Opening::Clear | Opening::Gcm(_) => field,
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
        }
        Ok(())
    }
}
