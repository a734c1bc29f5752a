//! Tokens: `PREFIX NAME~SECRET`, shown once. The secret store holds their SHA-256. 256 random bits can't be guessed, so the
//! hash is a plain one and no attempt is counted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use custody_core::event::hex::to_hex;
use custody_core::state::change::is_name;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const SECRET_BYTES: usize = 32;
/// What the secret store's text begins with: which hash it is.
const HASH_PREFIX: &str = "sha256:";

/// A token that is being made: what its owner gets, and what is kept of it.
pub struct Minted {
    /// The token itself.
    pub token: Zeroizing<String>,
    /// Its hash, for the secret store.
    pub hash: String,
}

/// A fresh token for `name`; `None` if the system has no randomness. `prefix` says what it is for, so that scanners for
/// secrets know it.
#[must_use]
pub fn mint(prefix: &str, name: &str) -> Option<Minted> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    aws_lc_rs::rand::fill(&mut *secret).ok()?;
    let token = Zeroizing::new(format!("{prefix}{name}~{}", URL_SAFE_NO_PAD.encode(secret.as_slice())));
    let hash = hash(&token);
    Some(Minted { token, hash })
}

/// What the secret store holds of a token.
#[must_use]
pub fn hash(token: &str) -> String {
    format!("{HASH_PREFIX}{}", to_hex(Sha256::digest(token.as_bytes()).as_slice()))
}

/// The name that a token claims, where it is one of that prefix.
#[must_use]
pub fn claimed<'a>(prefix: &str, token: &'a str) -> Option<&'a str> {
    let (name, _) = token.strip_prefix(prefix)?.split_once('~')?;
    is_name(name).then_some(name)
}
