//! Key exchange methods: mlkem768x25519-sha256 (draft-ietf-sshm-mlkem-hybrid-kex), sntrup761x25519-sha512
//! (draft-ietf-sshm-ntruprime-ssh), curve25519-sha256 (RFC 8731) and ecdh-sha2-nistp256, -384 and -521 (RFC 5656).
//! Pure but for randomness.
//!
//! All have one shape: the client sends a public value, the server answers with one of its own.

use aws_lc_rs::agreement::{
    self, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey, X25519, agree,
};
use aws_lc_rs::digest::Context;
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

use super::derive::{HASH_LEN_MAX, HashAlgorithm};
use super::error::{Error, PeerMisbehaved};
use super::kem::{self, Kem};
use super::wire::Put;

/// First byte of an uncompressed point (SEC 1 section 2.3.3).
const POINT_UNCOMPRESSED: u8 = 4;

/// A key exchange method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KexAlgorithm {
    /// mlkem768x25519-sha256: safe against a quantum computer as long as either half is.
    MlKem768X25519,
    /// sntrup761x25519-sha512: the same with what OpenSSH had from 9.0 on.
    Sntrup761X25519,
    /// sntrup761x25519-sha512@openssh.com: the same under its older name.
    Sntrup761X25519OpenSsh,
    /// curve25519-sha256
    Curve25519,
    /// curve25519-sha256@libssh.org: the same under its older name.
    Curve25519LibSsh,
    /// ecdh-sha2-nistp256
    EcdhP256,
    /// ecdh-sha2-nistp384
    EcdhP384,
    /// ecdh-sha2-nistp521
    EcdhP521,
}

impl KexAlgorithm {
    /// All of them, in our order of preference. Targets are offered all.
    pub const ALL: [Self; 8] = [
        Self::MlKem768X25519,
        Self::Sntrup761X25519,
        Self::Sntrup761X25519OpenSsh,
        Self::Curve25519,
        Self::Curve25519LibSsh,
        Self::EcdhP256,
        Self::EcdhP384,
        Self::EcdhP521,
    ];

    /// What clients are offered by default: every one of the last eight years has one of these, but where a
    /// policy (FIPS 140 mode) takes them away. Auditors mark NIST's curves down.
    pub const MODERN: [Self; 5] = [
        Self::MlKem768X25519,
        Self::Sntrup761X25519,
        Self::Sntrup761X25519OpenSsh,
        Self::Curve25519,
        Self::Curve25519LibSsh,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MlKem768X25519 => "mlkem768x25519-sha256",
            Self::Sntrup761X25519 => "sntrup761x25519-sha512",
            Self::Sntrup761X25519OpenSsh => "sntrup761x25519-sha512@openssh.com",
            Self::Curve25519 => "curve25519-sha256",
            Self::Curve25519LibSsh => "curve25519-sha256@libssh.org",
            Self::EcdhP256 => "ecdh-sha2-nistp256",
            Self::EcdhP384 => "ecdh-sha2-nistp384",
            Self::EcdhP521 => "ecdh-sha2-nistp521",
        }
    }

    /// The hash of its exchange hash, and of the derivation of keys (RFC 5656 section 6.2.1).
    #[must_use]
    pub fn hash(self) -> HashAlgorithm {
        match self {
            Self::MlKem768X25519 | Self::Curve25519 | Self::Curve25519LibSsh | Self::EcdhP256 => {
                HashAlgorithm::Sha256
            }
            Self::EcdhP384 => HashAlgorithm::Sha384,
            Self::EcdhP521 | Self::Sntrup761X25519 | Self::Sntrup761X25519OpenSsh => HashAlgorithm::Sha512,
        }
    }

    /// The curve of its classical half, and the length of a public value on it, bytes.
    fn curve(self) -> (&'static agreement::Algorithm, usize) {
        match self {
            Self::MlKem768X25519
            | Self::Sntrup761X25519
            | Self::Sntrup761X25519OpenSsh
            | Self::Curve25519
            | Self::Curve25519LibSsh => (&X25519, 32),
            Self::EcdhP256 => (&ECDH_P256, 65),
            Self::EcdhP384 => (&ECDH_P384, 97),
            Self::EcdhP521 => (&ECDH_P521, 133),
        }
    }

    /// The other half of a hybrid.
    fn kem(self) -> Option<Kem> {
        match self {
            Self::MlKem768X25519 => Some(Kem::MlKem768),
            Self::Sntrup761X25519 | Self::Sntrup761X25519OpenSsh => Some(Kem::Sntrup761),
            _ => None,
        }
    }

    fn bad_public_value(self) -> Error {
        PeerMisbehaved::BadPublicValue { algorithm: self.name() }.into()
    }
}

/// K in the form in which it is hashed: an mpint (RFC 5656 section 4, RFC 8731 section 3.1), but a string for
/// the hybrid.
pub struct SharedSecret {
    encoded: Zeroizing<Vec<u8>>,
}

impl SharedSecret {
    /// K of a classical exchange, from its big-endian bytes.
    pub(super) fn mpint(secret: &[u8]) -> Self {
        // Room for length and sign, so that the buffer never moves and leaves a copy behind.
        let mut encoded = Zeroizing::new(Vec::with_capacity(4 + 1 + secret.len()));
        encoded.put_mpint(secret);
        Self { encoded }
    }

    /// K of a hybrid: a string, the hash over both secrets.
    fn hybrid(hash: HashAlgorithm, kem: &[u8], x25519: &[u8]) -> Self {
        let mut hash = Context::new(hash.digest());
        hash.update(kem);
        hash.update(x25519);
        let mut encoded = Zeroizing::new(Vec::with_capacity(4 + HASH_LEN_MAX));
        encoded.put_string(hash.finish().as_ref());
        Self { encoded }
    }

    /// As it is hashed.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

/// The client's secrets between its public value and the server's answer.
pub struct ClientEphemeral {
    algorithm: KexAlgorithm,
    private: PrivateKey,
    kem: Option<kem::PrivateKey>,
}

/// Starts an exchange as the client: gives its secrets and the public value C_INIT (Q_C).
///
/// # Errors
/// [`Error::Crypto`].
pub fn client_start(algorithm: KexAlgorithm) -> Result<(ClientEphemeral, Vec<u8>), Error> {
    let failed = |_: Unspecified| Error::Crypto("make a key pair for the key exchange");
    let private = PrivateKey::generate(algorithm.curve().0).map_err(failed)?;
    let (mut init, kem) = match algorithm.kem() {
        None => (Vec::new(), None),
        Some(kem) => {
            let (key, public) = kem.generate().ok_or_else(|| failed(Unspecified))?;
            (public, Some(key))
        }
    };
    init.extend_from_slice(private.compute_public_key().map_err(failed)?.as_ref());
    Ok((ClientEphemeral { algorithm, private, kem }, init))
}

/// Answers an exchange as the server: gives the public value S_REPLY (Q_S) and the shared secret.
///
/// # Errors
/// [`PeerMisbehaved::BadPublicValue`] (wrong length, invalid, or an all-zero secret), [`Error::Crypto`].
pub fn server_answer(algorithm: KexAlgorithm, init: &[u8]) -> Result<(Vec<u8>, SharedSecret), Error> {
    let bad = || algorithm.bad_public_value();
    let failed = |_| Error::Crypto("answer the key exchange");
    let private = PrivateKey::generate(algorithm.curve().0).map_err(failed)?;
    let ours = private.compute_public_key().map_err(failed)?;
    let Some(kem) = algorithm.kem() else {
        let secret = classical(algorithm, &private, init)?;
        return Ok((ours.as_ref().to_vec(), SharedSecret::mpint(&secret)));
    };
    let (public, theirs) = init.split_at_checked(kem.public_len()).ok_or_else(bad)?;
    let classical = classical(algorithm, &private, theirs)?;
    let (ciphertext, secret) = kem.encapsulate(public).ok_or_else(bad)?;
    let reply = [&ciphertext, ours.as_ref()].concat();
    Ok((reply, SharedSecret::hybrid(algorithm.hash(), secret.as_slice(), &classical)))
}

impl ClientEphemeral {
    /// Ends the exchange with the server's public value.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadPublicValue`] (wrong length, invalid, or an all-zero secret).
    pub fn finish(self, reply: &[u8]) -> Result<SharedSecret, Error> {
        let bad = || self.algorithm.bad_public_value();
        let (Some(kem), Some(key)) = (self.algorithm.kem(), &self.kem) else {
            return Ok(SharedSecret::mpint(&classical(self.algorithm, &self.private, reply)?));
        };
        let (ciphertext, theirs) = reply.split_at_checked(kem.ciphertext_len()).ok_or_else(bad)?;
        let classical = classical(self.algorithm, &self.private, theirs)?;
        let secret = key.decapsulate(ciphertext).ok_or_else(bad)?;
        Ok(SharedSecret::hybrid(self.algorithm.hash(), secret.as_slice(), &classical))
    }
}

/// The shared secret of the classical half: X25519's, or the x coordinate of the common point.
fn classical(algorithm: KexAlgorithm, ours: &PrivateKey, theirs: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (curve, public_len) = algorithm.curve();
    // One form of a point only: RFC 5656 section 3.1 leaves compressed ones to those who want them. That it lies
    // on the curve and isn't infinity is checked by the library.
    let uncompressed = std::ptr::eq(curve, &X25519) || theirs.first() == Some(&POINT_UNCOMPRESSED);
    if theirs.len() != public_len || !uncompressed {
        return Err(algorithm.bad_public_value());
    }
    agree(ours, UnparsedPublicKey::new(curve, theirs), algorithm.bad_public_value(), |secret| {
        // RFC 8731 section 3: an all-zero secret means that the peer chose a point of small order. The library
        // refuses it too; said here so that it never depends on that. The fold has no early end.
        if secret.iter().fold(0, |any, byte| any | byte) == 0 {
            return Err(algorithm.bad_public_value());
        }
        Ok(Zeroizing::new(secret.to_vec()))
    })
}

#[cfg(test)]
#[path = "kex_tests.rs"]
mod tests;
