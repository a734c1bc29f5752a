//! Key exchange: mlkem768x25519-sha256 (draft-ietf-sshm-mlkem-hybrid-kex) and curve25519-sha256 (RFC 8731),
//! the exchange hash and what is derived from it (RFC 4253 sections 7.2 and 8). Pure but for randomness.
//!
//! All methods have one shape: the client sends a public value, the server answers with one of its own, and
//! both hash with SHA-256.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use zeroize::Zeroizing;

use super::cipher::{Cipher, IV_LEN, KEY_LEN_MAX, KeyMaterial};
use super::error::{Error, PeerMisbehaved};
use super::wire::Put;

/// Length of SHA-256, of the exchange hash and so of the session id, bytes.
pub const HASH_LEN: usize = 32;
const X25519_LEN: usize = 32;
/// ML-KEM-768's encapsulation key (FIPS 203 table 3), bytes.
const ML_KEM_PUBLIC_LEN: usize = 1184;
/// ML-KEM-768's ciphertext, bytes.
const ML_KEM_CIPHERTEXT_LEN: usize = 1088;

/// A key exchange method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KexAlgorithm {
    /// mlkem768x25519-sha256: safe against a quantum computer as long as either half is.
    MlKem768X25519,
    /// curve25519-sha256
    Curve25519,
    /// curve25519-sha256@libssh.org: the same under its older name.
    Curve25519LibSsh,
}

impl KexAlgorithm {
    /// All of them, in our order of preference.
    pub const ALL: [Self; 3] = [Self::MlKem768X25519, Self::Curve25519, Self::Curve25519LibSsh];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MlKem768X25519 => "mlkem768x25519-sha256",
            Self::Curve25519 => "curve25519-sha256",
            Self::Curve25519LibSsh => "curve25519-sha256@libssh.org",
        }
    }

    fn bad_public_value(self) -> Error {
        PeerMisbehaved::BadPublicValue { algorithm: self.name() }.into()
    }
}

/// K in the form in which it is hashed: an mpint for X25519 (RFC 8731 section 3.1), a string for the hybrid.
pub struct SharedSecret {
    encoded: Zeroizing<Vec<u8>>,
}

impl SharedSecret {
    fn mpint(secret: &[u8]) -> Self {
        // Room for length and sign, so that the buffer never moves and leaves a copy behind.
        let mut encoded = Zeroizing::new(Vec::with_capacity(4 + 1 + secret.len()));
        encoded.put_mpint(secret);
        Self { encoded }
    }

    fn hybrid(ml_kem: &[u8], x25519: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(ml_kem);
        hash.update(x25519);
        let mut encoded = Zeroizing::new(Vec::with_capacity(4 + HASH_LEN));
        encoded.put_string(hash.finish().as_ref());
        Self { encoded }
    }
}

/// The client's secrets between its public value and the server's answer.
pub struct ClientEphemeral {
    algorithm: KexAlgorithm,
    x25519: PrivateKey,
    ml_kem: Option<DecapsulationKey>,
}

/// Starts an exchange as the client: gives its secrets and the public value C_INIT.
///
/// # Errors
/// [`Error::Crypto`].
pub fn client_start(algorithm: KexAlgorithm) -> Result<(ClientEphemeral, Vec<u8>), Error> {
    let failed = |_| Error::Crypto("make a key pair for the key exchange");
    let x25519 = PrivateKey::generate(&X25519).map_err(failed)?;
    let (mut init, ml_kem) = match algorithm {
        KexAlgorithm::MlKem768X25519 => {
            let key = DecapsulationKey::generate(&ML_KEM_768).map_err(failed)?;
            let public = key.encapsulation_key().and_then(|public| public.key_bytes()).map_err(failed)?;
            (public.as_ref().to_vec(), Some(key))
        }
        KexAlgorithm::Curve25519 | KexAlgorithm::Curve25519LibSsh => (Vec::new(), None),
    };
    init.extend_from_slice(x25519.compute_public_key().map_err(failed)?.as_ref());
    Ok((ClientEphemeral { algorithm, x25519, ml_kem }, init))
}

/// Answers an exchange as the server: gives the public value S_REPLY and the shared secret.
///
/// # Errors
/// [`PeerMisbehaved::BadPublicValue`] (wrong length, invalid, or an all-zero secret), [`Error::Crypto`].
pub fn server_answer(algorithm: KexAlgorithm, init: &[u8]) -> Result<(Vec<u8>, SharedSecret), Error> {
    let bad = || algorithm.bad_public_value();
    let failed = |_| Error::Crypto("answer the key exchange");
    let x25519 = PrivateKey::generate(&X25519).map_err(failed)?;
    let ours = x25519.compute_public_key().map_err(failed)?;
    match algorithm {
        KexAlgorithm::MlKem768X25519 => {
            let (ml_kem, theirs) = init.split_at_checked(ML_KEM_PUBLIC_LEN).ok_or_else(bad)?;
            let key = EncapsulationKey::new(&ML_KEM_768, ml_kem).map_err(|_| bad())?;
            let classical = x25519_agree(algorithm, &x25519, theirs)?;
            // Fails for a key whose coefficients aren't reduced (FIPS 203 section 7.2).
            let (ciphertext, secret) = key.encapsulate().map_err(|_| bad())?;
            let reply = [ciphertext.as_ref(), ours.as_ref()].concat();
            Ok((reply, SharedSecret::hybrid(secret.as_ref(), &*classical)))
        }
        KexAlgorithm::Curve25519 | KexAlgorithm::Curve25519LibSsh => {
            let secret = x25519_agree(algorithm, &x25519, init)?;
            Ok((ours.as_ref().to_vec(), SharedSecret::mpint(&*secret)))
        }
    }
}

impl ClientEphemeral {
    /// Ends the exchange with the server's public value.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadPublicValue`] (wrong length, invalid, or an all-zero secret).
    pub fn finish(self, reply: &[u8]) -> Result<SharedSecret, Error> {
        let bad = || self.algorithm.bad_public_value();
        let Some(key) = &self.ml_kem else {
            return Ok(SharedSecret::mpint(&*x25519_agree(self.algorithm, &self.x25519, reply)?));
        };
        let (ciphertext, theirs) = reply.split_at_checked(ML_KEM_CIPHERTEXT_LEN).ok_or_else(bad)?;
        let classical = x25519_agree(self.algorithm, &self.x25519, theirs)?;
        let secret = key.decapsulate(Ciphertext::from(ciphertext)).map_err(|_| bad())?;
        Ok(SharedSecret::hybrid(secret.as_ref(), &*classical))
    }
}

fn x25519_agree(
    algorithm: KexAlgorithm,
    ours: &PrivateKey,
    theirs: &[u8],
) -> Result<Zeroizing<[u8; X25519_LEN]>, Error> {
    agree(ours, UnparsedPublicKey::new(&X25519, theirs), algorithm.bad_public_value(), |secret| {
        // RFC 8731 section 3: an all-zero secret means that the peer chose a point of small order. The library
        // refuses it too; said here so that it never depends on that. The fold has no early end.
        if secret.iter().fold(0, |any, byte| any | byte) == 0 {
            return Err(algorithm.bad_public_value());
        }
        <[u8; X25519_LEN]>::try_from(secret).map(Zeroizing::new).map_err(|_| algorithm.bad_public_value())
    })
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
    /// The exchange hash H. The first of a connection is its session id.
    #[must_use]
    pub fn hash(&self, secret: &SharedSecret) -> [u8; HASH_LEN] {
        let mut hash = Context::new(&SHA256);
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
        hash.update(&secret.encoded);
        finish(hash)
    }
}

fn finish(hash: Context) -> [u8; HASH_LEN] {
    let mut out = [0; HASH_LEN];
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

/// Derives one direction's key and IV (RFC 4253 section 7.2).
#[must_use]
pub fn derive(
    secret: &SharedSecret,
    hash: &[u8; HASH_LEN],
    session_id: &[u8; HASH_LEN],
    cipher: Cipher,
    direction: Direction,
) -> KeyMaterial {
    let (iv_letter, key_letter) = match direction {
        Direction::ToServer => (b'A', b'C'),
        Direction::ToClient => (b'B', b'D'),
    };
    let mut material = KeyMaterial { key: [0; KEY_LEN_MAX], iv: [0; IV_LEN] };
    expand(secret, hash, session_id, iv_letter, &mut material.iv);
    if let Some(key) = material.key.get_mut(..cipher.key_len()) {
        expand(secret, hash, session_id, key_letter, key);
    }
    material
}

/// K1 = HASH(K ‖ H ‖ letter ‖ session id), Kn = HASH(K ‖ H ‖ K1 ‖ … ‖ Kn-1); `out` gets K1 ‖ K2 ‖ ….
fn expand(secret: &SharedSecret, hash: &[u8], session_id: &[u8], letter: u8, out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        let mut context = Context::new(&SHA256);
        context.update(&secret.encoded);
        context.update(hash);
        let (before, rest) = out.split_at_mut(done);
        if before.is_empty() {
            context.update(&[letter]);
            context.update(session_id);
        } else {
            context.update(before);
        }
        let block = Zeroizing::new(finish(context));
        for (byte, value) in rest.iter_mut().zip(block.iter()) {
            *byte = *value;
        }
        done = (done + HASH_LEN).min(out.len());
    }
}

#[cfg(test)]
#[path = "kex_tests.rs"]
mod tests;
