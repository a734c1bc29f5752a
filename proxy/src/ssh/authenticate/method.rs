//! The signature algorithms of the method `publickey`, and the check of a signature.

use crate::ssh::certificate::LoginCertificate;
use crate::ssh::field::Fields;
use russh::keys::signature::Verifier;
use russh::keys::ssh_key::Signature;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};

/// A signature algorithm that a login may name: certificates only. Clients are told of the algorithms in
/// [`USER_SIGNATURE_ALGORITHMS`](crate::ssh::transport::leg::USER_SIGNATURE_ALGORITHMS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Method {
    /// The type that the certificate's blob must begin with.
    pub(super) blob_type: &'static [u8],
    /// The algorithm that the signature's blob must name.
    pub(super) signature: Algorithm,
}

/// The algorithm of that name, if it is one that we take.
pub(super) fn method(name: &[u8]) -> Option<Method> {
    let (blob_type, signature): (&[u8], _) = match name {
        b"ssh-ed25519-cert-v01@openssh.com" => (b"ssh-ed25519-cert-v01@openssh.com", Algorithm::Ed25519),
        b"ecdsa-sha2-nistp256-cert-v01@openssh.com" => {
            (b"ecdsa-sha2-nistp256-cert-v01@openssh.com", Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })
        }
        b"ecdsa-sha2-nistp384-cert-v01@openssh.com" => {
            (b"ecdsa-sha2-nistp384-cert-v01@openssh.com", Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 })
        }
        b"ecdsa-sha2-nistp521-cert-v01@openssh.com" => {
            (b"ecdsa-sha2-nistp521-cert-v01@openssh.com", Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 })
        }
        b"rsa-sha2-256-cert-v01@openssh.com" => {
            (b"ssh-rsa-cert-v01@openssh.com", Algorithm::Rsa { hash: Some(HashAlg::Sha256) })
        }
        b"rsa-sha2-512-cert-v01@openssh.com" => {
            (b"ssh-rsa-cert-v01@openssh.com", Algorithm::Rsa { hash: Some(HashAlg::Sha512) })
        }
        b"sk-ssh-ed25519-cert-v01@openssh.com" => {
            (b"sk-ssh-ed25519-cert-v01@openssh.com", Algorithm::SkEd25519)
        }
        b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" => {
            (b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", Algorithm::SkEcdsaSha2NistP256)
        }
        _ => return None,
    };
    Some(Method { blob_type, signature })
}

/// What is wrong with a signature; for the log, never for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// Not a signature's fields, or something behind them.
    #[error("the signature is malformed")]
    Malformed,
    /// Of another algorithm than the request names.
    #[error("the signature is of another algorithm than the request names")]
    OtherAlgorithm,
    /// Not by the certified key over this request in this session.
    #[error("the signature isn't by the certified key over this request")]
    Wrong,
    /// The security key wasn't touched, and the certificate doesn't waive it.
    #[error("the security key wasn't touched")]
    NotTouched,
    /// The security key didn't ask for PIN or finger, and the certificate wants it.
    #[error("the security key didn't verify its user")]
    NotVerified,
}

/// Bits of a security key's flags (CTAP2 authenticator data, OpenSSH PROTOCOL.u2f).
const FLAG_USER_PRESENT: u8 = 0x01;
const FLAG_USER_VERIFIED: u8 = 0x04;

/// Checks a signature blob by the certificate's key over `signed`.
pub(super) fn verify(
    method: &Method,
    certificate: &LoginCertificate,
    signed: &[u8],
    blob: &[u8],
) -> Result<(), SignatureFault> {
    let named = Fields::new(blob).string().ok_or(SignatureFault::Malformed)?;
    if named != method.signature.as_str().as_bytes() {
        return Err(SignatureFault::OtherAlgorithm);
    }
    let signature = Signature::try_from(blob).map_err(|_| SignatureFault::Malformed)?;
    // The library doesn't mind bytes behind a signature; one signature has one encoding here.
    if Vec::try_from(signature.clone()).ok().as_deref() != Some(blob) {
        return Err(SignatureFault::Malformed);
    }
    certificate.key.verify(signed, &signature).map_err(|_| SignatureFault::Wrong)?;
    if matches!(method.signature, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
        // The last five bytes: flags, counter.
        let flags = signature.as_bytes().iter().rev().nth(4).copied().ok_or(SignatureFault::Malformed)?;
        if flags & FLAG_USER_PRESENT == 0 && !certificate.extensions.no_touch_required {
            return Err(SignatureFault::NotTouched);
        }
        if flags & FLAG_USER_VERIFIED == 0 && certificate.verify_required {
            return Err(SignatureFault::NotVerified);
        }
    }
    Ok(())
}
