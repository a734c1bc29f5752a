//! Keys and signatures of Standard Webhooks 1.0.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::clock::Nanos;
use custody_core::event::hex::to_hex;
use zeroize::Zeroizing;

const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";
const SHARED: &str = "whsec_";
const SEED_BYTES: usize = 32;
/// The standard's bounds.
const SHARED_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a secret is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither of the two forms.
    #[error("no key of a webhook: whsk_ (Ed25519) or whsec_ (HMAC) and base64")]
    Form,
    /// Not of the length that the standard asks for.
    #[error("not as long as the standard asks for: 32 or 64 bytes for whsk_, 24 to 64 for whsec_")]
    Length,
    /// A private key whose public half isn't its own.
    #[error("its public half isn't its own")]
    Halves,
    /// One that both sides know.
    #[error("a shared secret has no public half: give it to the receiver itself")]
    Shared,
    /// There is no randomness.
    #[error("no key can be made: the system gives no random bytes")]
    Random,
}

/// A key that signs.
pub(super) enum Key {
    /// `v1a`
    Ed25519(Ed25519KeyPair),
    /// `v1`
    Hmac(Box<hmac::Key>),
}

impl Key {
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let decoded = |text: &str| STANDARD.decode(text).map(Zeroizing::new).map_err(|_| KeyError::Form);
        if let Some(text) = text.strip_prefix(SHARED) {
            let bytes = decoded(text)?;
            if !SHARED_BYTES.contains(&bytes.len()) {
                return Err(KeyError::Length);
            }
            return Ok(Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))));
        }
        let bytes = decoded(text.strip_prefix(PRIVATE).ok_or(KeyError::Form)?)?;
        // The seed, and in the longer form the public half behind it.
        let (seed, public) = bytes.split_at_checked(SEED_BYTES).ok_or(KeyError::Length)?;
        let pair = match public.len() {
            0 => Ed25519KeyPair::from_seed_unchecked(seed),
            SEED_BYTES => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            _ => return Err(KeyError::Length),
        };
        pair.map(Self::Ed25519).map_err(|_| KeyError::Halves)
    }

    fn signature(&self, content: &[u8]) -> String {
        match self {
            Self::Ed25519(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(content))),
            Self::Hmac(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, content))),
        }
    }
}

/// A new private key, `whsk_…`.
///
/// # Errors
/// [`KeyError::Random`].
pub fn make() -> Result<Zeroizing<String>, KeyError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    SystemRandom::new().fill(&mut *seed).map_err(|_| KeyError::Random)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| KeyError::Random)?;
    let mut bytes = Zeroizing::new(seed.to_vec());
    bytes.extend_from_slice(pair.public_key().as_ref());
    Ok(Zeroizing::new(format!("{PRIVATE}{}", STANDARD.encode(&*bytes))))
}

/// What receivers check with, `whpk_…`, of a private key.
///
/// # Errors
/// See [`KeyError`].
pub fn public(text: &str) -> Result<String, KeyError> {
    match Key::parse(text)? {
        Key::Ed25519(pair) => Ok(format!("{PUBLIC}{}", STANDARD.encode(pair.public_key().as_ref()))),
        Key::Hmac(_) => Err(KeyError::Shared),
    }
}

/// A body with what is signed beside it.
pub(super) struct Message<'b> {
    /// The same for the same body, however often it is sent; without a dot, which ends it in what is signed.
    pub(super) id: String,
    /// When it is sent, in seconds.
    pub(super) timestamp: u64,
    pub(super) body: &'b [u8],
}

impl<'b> Message<'b> {
    pub(super) fn new(origin: &str, now: Nanos, body: &'b [u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(origin.as_bytes());
        hash.update(&[0]);
        hash.update(body);
        let mut id = to_hex(hash.finish().as_ref());
        id.truncate(32);
        Self { id: format!("custody_{id}"), timestamp: now.0 / 1_000_000_000, body }
    }

    /// One signature for each key, with blanks between.
    pub(super) fn signatures(&self, keys: &[Key]) -> Result<String, String> {
        if keys.is_empty() {
            return Err("no key to sign with".to_owned());
        }
        let mut content = format!("{}.{}.", self.id, self.timestamp).into_bytes();
        content.extend_from_slice(self.body);
        let signatures: Vec<String> = keys.iter().map(|key| key.signature(&content)).collect();
        Ok(signatures.join(" "))
    }
}
