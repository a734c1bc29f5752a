//! The exchange hash and what is derived from it (RFC 4253 sections 7.2 and 8; RFC 5656 section 4). Pure.

use aws_lc_rs::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use zeroize::Zeroizing;

use super::cipher::{IV_LEN_MAX, KEY_LEN_MAX, KeyMaterial, Protection};
use super::kex::SharedSecret;
use super::mac::MAC_LEN_MAX;

/// Longest hash of a key exchange method (SHA-512), bytes.
pub const HASH_LEN_MAX: usize = 64;

/// The hash that belongs to a key exchange method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl HashAlgorithm {
    pub(super) fn digest(self) -> &'static Algorithm {
        match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        }
    }
}

/// An exchange hash H: as long as the hash of its method. The first of a connection is its session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeHash {
    algorithm: HashAlgorithm,
    bytes: [u8; HASH_LEN_MAX],
}

impl ExchangeHash {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.digest().output_len()).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn for_test(algorithm: HashAlgorithm, byte: u8) -> Self {
        Self { algorithm, bytes: [byte; HASH_LEN_MAX] }
    }
}

/// What both sides hash (RFC 5656 section 4, RFC 8731 section 3.1).
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the names are the RFC's
pub struct Transcript<'a> {
    pub client_version: &'a [u8],
    pub server_version: &'a [u8],
    pub client_kexinit: &'a [u8],
    pub server_kexinit: &'a [u8],
    pub host_key: &'a [u8],
    pub client_public: &'a [u8],
    pub server_public: &'a [u8],
}

impl Transcript<'_> {
    /// The exchange hash H.
    #[must_use]
    pub fn hash(&self, algorithm: HashAlgorithm, secret: &SharedSecret) -> ExchangeHash {
        let mut hash = Context::new(algorithm.digest());
        for field in [
            self.client_version,
            self.server_version,
            self.client_kexinit,
            self.server_kexinit,
            self.host_key,
            self.client_public,
            self.server_public,
        ] {
            hash.update(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(field);
        }
        hash.update(secret.encoded());
        ExchangeHash { algorithm, bytes: finish(hash) }
    }
}

fn finish(hash: Context) -> [u8; HASH_LEN_MAX] {
    let mut out = [0; HASH_LEN_MAX];
    for (byte, value) in out.iter_mut().zip(hash.finish().as_ref()) {
        *byte = *value;
    }
    out
}

/// Which way a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From client to server.
    ToServer,
    /// From server to client.
    ToClient,
}

/// Derives one direction's keys and IV (RFC 4253 section 7.2), by the hash of the exchange's own method.
#[must_use]
pub fn derive(
    secret: &SharedSecret,
    hash: &ExchangeHash,
    session_id: &ExchangeHash,
    protection: Protection,
    direction: Direction,
) -> KeyMaterial {
    let (iv_letter, key_letter, mac_letter) = match direction {
        Direction::ToServer => (b'A', b'C', b'E'),
        Direction::ToClient => (b'B', b'D', b'F'),
    };
    let mut material = KeyMaterial { key: [0; KEY_LEN_MAX], iv: [0; IV_LEN_MAX], mac: [0; MAC_LEN_MAX] };
    let mac_len = protection.mac.map_or(0, |mac| mac.len());
    for (letter, out) in [
        (iv_letter, material.iv.get_mut(..protection.cipher.iv_len())),
        (key_letter, material.key.get_mut(..protection.cipher.key_len())),
        (mac_letter, material.mac.get_mut(..mac_len)),
    ] {
        expand(secret, hash, session_id, letter, out.unwrap_or_default());
    }
    material
}

/// K1 = HASH(K ‖ H ‖ letter ‖ session id), Kn = HASH(K ‖ H ‖ K1 ‖ … ‖ Kn-1); `out` gets K1 ‖ K2 ‖ ….
fn expand(secret: &SharedSecret, hash: &ExchangeHash, session_id: &ExchangeHash, letter: u8, out: &mut [u8]) {
    let digest = hash.algorithm.digest();
    let mut done = 0;
    while done < out.len() {
        let mut context = Context::new(digest);
        context.update(secret.encoded());
        context.update(hash.as_bytes());
        let (before, rest) = out.split_at_mut(done);
        if before.is_empty() {
            context.update(&[letter]);
            context.update(session_id.as_bytes());
        } else {
            context.update(before);
        }
        let block = Zeroizing::new(finish(context));
        for (byte, value) in rest.iter_mut().zip(block.iter().take(digest.output_len())) {
            *byte = *value;
        }
        done = (done + digest.output_len()).min(out.len());
    }
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
