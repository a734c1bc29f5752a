//! What goes into a session is kept sealed: it holds passwords that no echo betrays, so only auditors read it.
//!
//! Each recording has a key of its own. That key is sealed to each auditor's public key by HPKE (RFC 9180, base mode,
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM), the input by AES-256-GCM with the key. The proxy forgets the
//! key at the session's end: afterwards nobody but an auditor has it.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What HPKE's `info` begins with; the session's 16 bytes follow.
const INFO: &[u8] = b"custody recording input v1";
/// DER before the 32 bytes of an X25519 public key (RFC 8410 section 4).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];
/// DER before the 32 bytes of an X25519 private key (RFC 8410 section 7).
const PRIVATE_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];
/// Bytes of a recording's key.
const KEY_BYTES: usize = 32;
/// Bytes of HPKE's encapsulated secret.
const ENCAPSULATED_BYTES: usize = 32;
/// Bytes in front of a sealed chunk: its number.
const NUMBER_BYTES: usize = 8;
/// Bytes that sealing adds to a chunk: its number and the tag.
pub(super) const SEALING_BYTES: usize = NUMBER_BYTES + 16;

/// Why something can't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// No X25519 public key in PEM.
    #[error("it is no X25519 public key in PEM: make a pair with `openssl genpkey -algorithm X25519`")]
    PublicKey,
    /// No X25519 private key in PEM.
    #[error("it is no X25519 private key in PEM (PKCS#8), as `openssl genpkey -algorithm X25519` makes it")]
    PrivateKey,
    /// The library failed, most likely for want of random numbers.
    #[error("it can't be sealed: no random numbers")]
    Crypto,
    /// Sealed to others.
    #[error("it is sealed to other keys than this one")]
    OtherKey,
    /// The bytes aren't what was sealed.
    #[error("a sealed piece was altered, or stands in another session or channel than its own")]
    Altered,
}

/// An auditor's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auditor {
    public: [u8; 32],
}

impl Auditor {
    /// Reads a public key as `openssl pkey -pubout` writes it.
    ///
    /// # Errors
    /// [`SealError::PublicKey`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SealError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| SealError::PublicKey)?;
        let public = der.as_ref().strip_prefix(&PUBLIC_PREFIX).and_then(|key| key.try_into().ok());
        Ok(Self { public: public.ok_or(SealError::PublicKey)? })
    }

    /// SHA-256 of the key's DER: `openssl pkey -pubin -in KEY -outform DER | sha256sum`.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        Sha256::new().chain_update(PUBLIC_PREFIX).chain_update(self.public).finalize().into()
    }
}

/// Seals one recording's input.
pub(super) struct Sealer {
    key: LessSafeKey,
    session: Uuid,
    next: u64,
}

impl Sealer {
    /// With a new key, and that key sealed to each auditor: a frame's body each.
    pub(super) fn new(session: Uuid, auditors: &[Auditor]) -> Result<(Self, Vec<Vec<u8>>), SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|_| SealError::Crypto)?;
        let seal = |auditor: &Auditor| {
            let public = HpkePublicKey(auditor.public.to_vec());
            let (encapsulated, sealed) = SUITE.seal(&info(session), b"", key.as_slice(), &public)?;
            Ok([&auditor.id(), encapsulated.0.as_slice(), &sealed].concat())
        };
        let sealed: Result<_, rustls::Error> = auditors.iter().map(seal).collect();
        Ok((Self { key: cipher(key.as_slice())?, session, next: 0 }, sealed.map_err(|_| SealError::Crypto)?))
    }

    /// A piece of a channel's input, as a frame's body: [`SEALING_BYTES`] longer than `bytes`.
    pub(super) fn seal(&mut self, channel: u32, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(SealError::Crypto)?;
        let mut body = Vec::with_capacity(bytes.len() + SEALING_BYTES);
        body.extend_from_slice(&number.to_le_bytes());
        body.extend_from_slice(bytes);
        let aad = Aad::from(about(self.session, channel));
        let (_, sealed) = body.split_at_mut(NUMBER_BYTES);
        let tag = self.key.seal_in_place_separate_tag(nonce(number), aad, sealed);
        body.extend_from_slice(tag.map_err(|_| SealError::Crypto)?.as_ref());
        Ok(body)
    }
}

/// An auditor's private key: opens what was sealed to it.
#[derive(Clone)]
pub struct Identity {
    private: Arc<Zeroizing<[u8; 32]>>,
    auditor: Auditor,
}

impl Identity {
    /// Reads a private key as `openssl genpkey -algorithm X25519` writes it.
    ///
    /// # Errors
    /// [`SealError::PrivateKey`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SealError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SealError::PrivateKey)?;
        let private = der.secret_pkcs8_der().strip_prefix(&PRIVATE_PREFIX);
        let private: [u8; 32] = private.and_then(|key| key.try_into().ok()).ok_or(SealError::PrivateKey)?;
        let private = Zeroizing::new(private);
        let key = aws_lc_rs::agreement::PrivateKey::from_private_key(
            &aws_lc_rs::agreement::X25519,
            private.as_slice(),
        );
        let key = key.map_err(|_| SealError::PrivateKey)?;
        let public = key.compute_public_key().map_err(|_| SealError::PrivateKey)?;
        let public = public.as_ref().try_into().map_err(|_| SealError::PrivateKey)?;
        Ok(Self { private: Arc::new(private), auditor: Auditor { public } })
    }

    /// What others seal to.
    #[must_use]
    pub fn auditor(&self) -> &Auditor {
        &self.auditor
    }
}

/// Opens one recording's input with the frames as they come.
pub struct Opener {
    session: Uuid,
    identity: Identity,
    key: Option<LessSafeKey>,
}

impl Opener {
    /// For the recording of `session`.
    #[must_use]
    pub fn new(session: Uuid, identity: Identity) -> Self {
        Self { session, identity, key: None }
    }

    /// Takes a [`Kind::KeySealed`](super::Kind::KeySealed); one for somebody else is passed over.
    ///
    /// # Errors
    /// [`SealError::Altered`].
    pub fn key(&mut self, body: &[u8]) -> Result<(), SealError> {
        let (auditor, rest) = body.split_first_chunk::<32>().ok_or(SealError::Altered)?;
        if *auditor != self.identity.auditor.id() {
            return Ok(());
        }
        let (encapsulated, sealed) =
            rest.split_first_chunk::<ENCAPSULATED_BYTES>().ok_or(SealError::Altered)?;
        let private = HpkePrivateKey::from(self.identity.private.to_vec());
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let key = SUITE.open(&encapsulated, &info(self.session), b"", sealed, &private);
        self.key = Some(cipher(Zeroizing::new(key.map_err(|_| SealError::Altered)?).as_slice())?);
        Ok(())
    }

    /// Opens a [`Kind::SealedData`](super::Kind::SealedData).
    ///
    /// # Errors
    /// [`SealError::OtherKey`], [`SealError::Altered`].
    pub fn open(&self, channel: u32, body: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.key.as_ref().ok_or(SealError::OtherKey)?;
        let (number, sealed) = body.split_first_chunk::<NUMBER_BYTES>().ok_or(SealError::Altered)?;
        let mut bytes = sealed.to_vec();
        let aad = Aad::from(about(self.session, channel));
        let opened = key.open_in_place(nonce(u64::from_le_bytes(*number)), aad, &mut bytes);
        let length = opened.map_err(|_| SealError::Altered)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn cipher(key: &[u8]) -> Result<LessSafeKey, SealError> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Crypto)?))
}

fn info(session: Uuid) -> Vec<u8> {
    [INFO, session.as_bytes()].concat()
}

/// A number is used once with a key, as 96 bits, big-endian.
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some(low) = nonce.last_chunk_mut() {
        *low = number.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

/// What a piece is bound to: its session and its channel (4 bytes, little-endian).
fn about(session: Uuid, channel: u32) -> [u8; 20] {
    let mut about = [0; 20];
    let (head, tail) = about.split_at_mut(16);
    head.copy_from_slice(session.as_bytes());
    tail.copy_from_slice(&channel.to_le_bytes());
    about
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: Uuid = Uuid::from_u128(7);
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
                           MC4CAQAwBQYDK2VuBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n\
                           -----END PRIVATE KEY-----\n";
    /// RFC 7748 section 6.1: Alice's public key to the private key above.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
                          MCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n\
                          -----END PUBLIC KEY-----\n";

    fn opener(session: Uuid, keys: &[Vec<u8>]) -> Opener {
        let mut opener = Opener::new(session, Identity::from_pem(PRIVATE.as_bytes()).unwrap());
        keys.iter().for_each(|key| opener.key(key).unwrap());
        opener
    }

    fn other() -> Auditor {
        Auditor { public: SUITE.generate_key_pair().unwrap().0.0.try_into().unwrap() }
    }

    #[test]
    fn keys_are_what_openssl_writes() {
        let identity = Identity::from_pem(PRIVATE.as_bytes()).unwrap();
        assert_eq!(identity.auditor(), &Auditor::from_pem(PUBLIC.as_bytes()).unwrap());
        for rubbish in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", PRIVATE] {
            assert_eq!(Auditor::from_pem(rubbish.as_bytes()).unwrap_err(), SealError::PublicKey);
        }
        for rubbish in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", PUBLIC] {
            let Err(error) = Identity::from_pem(rubbish.as_bytes()) else { panic!("{rubbish}") };
            assert_eq!(error, SealError::PrivateKey);
        }
    }

    #[test]
    fn each_auditor_opens_it_and_nobody_else() {
        let auditor = Auditor::from_pem(PUBLIC.as_bytes()).unwrap();
        let (mut sealer, keys) = Sealer::new(SESSION, &[other(), auditor]).unwrap();
        let sealed = sealer.seal(3, b"a password").unwrap();
        assert_eq!(sealed.len(), 10 + SEALING_BYTES);
        assert_eq!(opener(SESSION, &keys).open(3, &sealed).unwrap(), b"a password");
        assert_eq!(opener(SESSION, &keys[..1]).open(3, &sealed).unwrap_err(), SealError::OtherKey);
        assert_eq!(opener(SESSION, &keys).open(4, &sealed).unwrap_err(), SealError::Altered);
        let elsewhere = Opener::new(Uuid::from_u128(8), Identity::from_pem(PRIVATE.as_bytes()).unwrap())
            .key(&keys[1])
            .unwrap_err();
        assert_eq!(elsewhere, SealError::Altered);
        assert_ne!(sealer.seal(3, b"a password").unwrap(), sealed, "a number each");
    }

    proptest! {
        #[test]
        fn what_was_altered_is_not_opened(at in any::<prop::sample::Index>(), flip in 1..=255_u8, bytes: Vec<u8>) {
            let auditor = Auditor::from_pem(PUBLIC.as_bytes()).unwrap();
            let (mut sealer, keys) = Sealer::new(SESSION, &[auditor]).unwrap();
            let mut sealed = sealer.seal(0, &bytes).unwrap();
            let opener = opener(SESSION, &keys);
            prop_assert_eq!(opener.open(0, &sealed).unwrap(), bytes);
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert_eq!(opener.open(0, &sealed).unwrap_err(), SealError::Altered);
            sealed.truncate(at);
            prop_assert_eq!(opener.open(0, &sealed).unwrap_err(), SealError::Altered);
        }
    }
}
