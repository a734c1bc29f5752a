//! Host keys (RFC 4253 section 6.6, RFC 5656, RFC 8332, RFC 8709, OpenSSH's PROTOCOL.certkeys): which the
//! proxy shows to users, and what a target shows to the proxy. Encodings are `ssh-key`'s, signatures are made
//! and checked by `aws-lc-rs`.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, ED25519,
    EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, Ed25519KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
};
use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{self, Certificate, EcdsaCurve, HashAlg, PrivateKey, PublicKey};
use zeroize::Zeroizing;

pub use russh::keys::PublicKeyOrCertificate;

use super::error::{ApiMisuse, Error, PeerIncompatible, PeerMisbehaved, printable};
use super::wire::{Put, Reader, WireError};

/// How the host signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// ssh-ed25519
    Ed25519,
    /// ecdsa-sha2-nistp256
    EcdsaP256,
    /// ecdsa-sha2-nistp384
    EcdsaP384,
    /// ecdsa-sha2-nistp521
    EcdsaP521,
    /// rsa-sha2-256
    RsaSha256,
    /// rsa-sha2-512
    RsaSha512,
}

impl Scheme {
    const ALL: [Self; 6] =
        [Self::Ed25519, Self::EcdsaP256, Self::EcdsaP384, Self::EcdsaP521, Self::RsaSha512, Self::RsaSha256];

    /// Name of the signature format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::RsaSha256 => "rsa-sha2-256",
            Self::RsaSha512 => "rsa-sha2-512",
        }
    }
}

/// A host key algorithm as it is negotiated: how the host signs, and whether its key comes in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostKeyAlgorithm {
    /// How it signs.
    pub scheme: Scheme,
    /// Whether the key comes in an OpenSSH certificate.
    pub certificate: bool,
}

impl HostKeyAlgorithm {
    /// What we take from targets when nothing is known of them: certificates first, Ed25519 first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        [true, false]
            .into_iter()
            .flat_map(|certificate| Scheme::ALL.map(|scheme| Self { scheme, certificate }))
            .collect()
    }

    /// The same, but what a key of the pinned kind can sign comes first, so that a target with several keys
    /// shows the one that was pinned.
    #[must_use]
    pub fn pinned_first(pinned: &ssh_key::Algorithm) -> Vec<Self> {
        let mut order = Self::all();
        order.sort_by_key(|algorithm| algorithm.certificate || !algorithm.scheme.signs_with(pinned));
        order
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.scheme, self.certificate) {
            (scheme, false) => scheme.name(),
            (Scheme::Ed25519, true) => "ssh-ed25519-cert-v01@openssh.com",
            (Scheme::EcdsaP256, true) => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            (Scheme::EcdsaP384, true) => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            (Scheme::EcdsaP521, true) => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            (Scheme::RsaSha256, true) => "rsa-sha2-256-cert-v01@openssh.com",
            (Scheme::RsaSha512, true) => "rsa-sha2-512-cert-v01@openssh.com",
        }
    }

    /// The name that stands in the key blob: for RSA it isn't the algorithm's (RFC 8332 section 3).
    fn blob_name(self) -> &'static str {
        match (self.scheme, self.certificate) {
            (Scheme::RsaSha256 | Scheme::RsaSha512, false) => "ssh-rsa",
            (Scheme::RsaSha256 | Scheme::RsaSha512, true) => "ssh-rsa-cert-v01@openssh.com",
            _ => self.name(),
        }
    }
}

impl Scheme {
    fn signs_with(self, key: &ssh_key::Algorithm) -> bool {
        use ssh_key::Algorithm;
        match (self, self.ecdsa()) {
            (_, Some(ecdsa)) => *key == Algorithm::Ecdsa { curve: ecdsa.curve },
            (Self::Ed25519, None) => *key == Algorithm::Ed25519,
            (_, None) => matches!(key, Algorithm::Rsa { .. }),
        }
    }

    /// RFC 5656 section 6.2.1: each curve has its hash.
    fn ecdsa(self) -> Option<Ecdsa> {
        let (curve, signing, verification, number_len): (_, &'static EcdsaSigningAlgorithm, _, _) = match self
        {
            Self::EcdsaP256 => {
                (EcdsaCurve::NistP256, &ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED, 32)
            }
            Self::EcdsaP384 => {
                (EcdsaCurve::NistP384, &ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED, 48)
            }
            Self::EcdsaP521 => {
                (EcdsaCurve::NistP521, &ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED, 66)
            }
            Self::Ed25519 | Self::RsaSha256 | Self::RsaSha512 => return None,
        };
        Some(Ecdsa { curve, signing, verification, number_len })
    }
}

/// What an ECDSA scheme is made of.
struct Ecdsa {
    curve: EcdsaCurve,
    signing: &'static EcdsaSigningAlgorithm,
    verification: &'static EcdsaVerificationAlgorithm,
    /// Length of r and of s in the fixed form, bytes.
    number_len: usize,
}

/// Longest fixed form of an ECDSA signature (P-521: twice 66), bytes.
const ECDSA_FIXED_LEN_MAX: usize = 132;

/// One of the proxy's own host keys, with its certificate if it has one.
pub struct HostKey {
    signer: Signer,
    blob: Vec<u8>,
    certificate: Option<Vec<u8>>,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Scheme, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl HostKey {
    /// Takes an Ed25519, ECDSA (P-256, P-384, P-521) or RSA (2,048 bits at least) key that isn't encrypted.
    ///
    /// # Errors
    /// [`ApiMisuse::HostKey`] if the key is of another kind or inconsistent, or if the certificate is not a
    /// host certificate of this very key.
    pub fn new(key: &PrivateKey, certificate: Option<&Certificate>) -> Result<Self, Error> {
        let bad = |what| Error::from(ApiMisuse::HostKey(what));
        let signer = match key.key_data() {
            KeypairData::Ed25519(pair) => Signer::Ed25519(
                Ed25519KeyPair::from_seed_and_public_key(
                    &*Zeroizing::new(pair.private.to_bytes()),
                    pair.public.as_ref(),
                )
                .map_err(|_| bad("its two Ed25519 halves don't belong together"))?,
            ),
            KeypairData::Ecdsa(pair) => {
                let scheme = match pair.curve() {
                    EcdsaCurve::NistP256 => Scheme::EcdsaP256,
                    EcdsaCurve::NistP384 => Scheme::EcdsaP384,
                    EcdsaCurve::NistP521 => Scheme::EcdsaP521,
                };
                let signing = scheme.ecdsa().ok_or(bad("its curve isn't known"))?.signing;
                let (private, public) = (pair.private_key_bytes(), pair.public_key_bytes());
                let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, private, public);
                Signer::Ecdsa(scheme, pair.map_err(|_| bad("its two ECDSA halves don't belong together"))?)
            }
            KeypairData::Rsa(pair) => Signer::Rsa(rsa_key_pair(pair)?),
            _ => return Err(bad("only unencrypted Ed25519, ECDSA and RSA keys can be host keys")),
        };
        let blob = key.public_key().to_bytes().map_err(|_| bad("its public half can't be encoded"))?;
        let certificate = certificate
            .map(|certificate| {
                if certificate.public_key() != key.public_key().key_data() {
                    return Err(bad("the certificate is for another key"));
                }
                if certificate.cert_type() != ssh_key::certificate::CertType::Host {
                    return Err(bad("the certificate is not a host certificate"));
                }
                certificate.to_bytes().map_err(|_| bad("the certificate can't be encoded"))
            })
            .transpose()?;
        Ok(Self { signer, blob, certificate })
    }

    /// What it can be offered for, certificates first.
    #[must_use]
    pub fn algorithms(&self) -> Vec<HostKeyAlgorithm> {
        let schemes: &[Scheme] = match &self.signer {
            Signer::Ed25519(_) => &[Scheme::Ed25519],
            Signer::Ecdsa(scheme, _) => std::slice::from_ref(scheme),
            Signer::Rsa(_) => &[Scheme::RsaSha512, Scheme::RsaSha256],
        };
        let forms: &[bool] = if self.certificate.is_some() { &[true, false] } else { &[false] };
        forms
            .iter()
            .flat_map(|&certificate| {
                schemes.iter().map(move |&scheme| HostKeyAlgorithm { scheme, certificate })
            })
            .collect()
    }

    /// The blob K_S for this algorithm; `None` if it isn't one of [`HostKey::algorithms`].
    #[must_use]
    pub fn blob(&self, algorithm: HostKeyAlgorithm) -> Option<&[u8]> {
        let offered = self.algorithms().contains(&algorithm);
        let blob = if algorithm.certificate { self.certificate.as_deref() } else { Some(&*self.blob) };
        blob.filter(|_| offered)
    }

    /// The public key itself, without certificate.
    #[must_use]
    pub fn plain_blob(&self) -> &[u8] {
        &self.blob
    }

    /// A key that shows another's public half, as a thief would.
    #[cfg(test)]
    pub(crate) fn set_blob_for_test(&mut self, blob: Vec<u8>) {
        self.blob = blob;
    }

    /// Signs `message`; gives the signature blob (name and bytes).
    ///
    /// # Errors
    /// [`ApiMisuse::HostKey`] if this key can't sign so; [`Error::Crypto`].
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::Crypto("sign with the host key");
        let mut bytes = Vec::new();
        match (&self.signer, scheme) {
            (Signer::Ed25519(pair), Scheme::Ed25519) => {
                bytes.extend_from_slice(pair.try_sign(message).map_err(failed)?.as_ref());
            }
            (Signer::Ecdsa(own, pair), _) if *own == scheme => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(failed)?;
                let signature = signature.as_ref();
                let (r, s) = signature.split_at(signature.len() / 2);
                bytes.put_mpint(r);
                bytes.put_mpint(s);
            }
            (Signer::Rsa(pair), Scheme::RsaSha256 | Scheme::RsaSha512) => {
                let padding: &'static dyn signature::RsaEncoding = match scheme {
                    Scheme::RsaSha256 => &signature::RSA_PKCS1_SHA256,
                    _ => &signature::RSA_PKCS1_SHA512,
                };
                bytes.resize(pair.public_modulus_len(), 0);
                pair.sign(padding, &SystemRandom::new(), message, &mut bytes).map_err(failed)?;
            }
            _ => return Err(ApiMisuse::HostKey("it can't sign with the algorithm asked for").into()),
        }
        let mut blob = Vec::new();
        blob.put_string(scheme.name().as_bytes());
        blob.put_string(&bytes);
        Ok(blob)
    }
}

/// The CRT exponents aren't in OpenSSH's format: they are d modulo p - 1 and q - 1.
fn rsa_key_pair(pair: &RsaKeypair) -> Result<RsaKeyPair, Error> {
    let bad =
        || Error::from(ApiMisuse::HostKey("its RSA numbers don't belong together, or are under 2048 bits"));
    let magnitude = |number: &ssh_key::Mpint| number.as_positive_bytes().map(<[u8]>::to_vec).ok_or_else(bad);
    let secret = |number: &ssh_key::Mpint| magnitude(number).map(Zeroizing::new);
    let (public, private) = (pair.public(), pair.private());
    let (d, p, q) = (secret(private.d())?, secret(private.p())?, secret(private.q())?);
    // Cloned into plain buffers that wipe themselves; the components only borrow.
    let (d_p, d_q) = (modulo_less_one(&d, &p), modulo_less_one(&d, &q));
    let q_inverse = secret(private.iqmp())?;
    let (n, e) = (magnitude(public.n())?, magnitude(public.e())?);
    RsaKeyPair::from_components(&KeyPairComponents::<&[u8], &[u8]> {
        public_key: PublicKeyComponents { n: &n, e: &e },
        d: &d,
        p: &p,
        q: &q,
        dP: &d_p,
        dQ: &d_q,
        qInv: &q_inverse,
    })
    .map_err(|_| bad())
}

/// `number mod (prime - 1)`, big endian, bit by bit: it runs once for a key, where nobody can time it.
/// `prime` is odd, so taking one off only clears its last bit.
fn modulo_less_one(number: &[u8], prime: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut modulus = Zeroizing::new(vec![0]); // one byte more, so that doubling has room
    modulus.extend_from_slice(prime);
    if let Some(last) = modulus.last_mut() {
        *last &= 0xfe;
    }
    let mut rest = Zeroizing::new(vec![0u8; modulus.len()]);
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |shift| (byte >> shift) & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let top = *byte >> 7;
            *byte = (*byte << 1) | carry;
            carry = top;
        }
        if *rest >= *modulus {
            let mut borrow = false;
            for (byte, less) in rest.iter_mut().zip(modulus.iter()).rev() {
                let (value, first) = byte.overflowing_sub(*less);
                let (value, second) = value.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (value, first || second);
            }
        }
    }
    rest
}

/// The key that a target showed, after its signature over the exchange was found right. Whether it is the
/// *right* host is the owner's to say: for a plain key, compare it with the pinned one; for a certificate,
/// check its signature and validity (`Certificate::validate_at` with the host CA's fingerprint), that it is a
/// *host* certificate, its principals, and that it has no critical option.
#[derive(Debug)]
pub struct HostKeyOffered {
    /// The negotiated algorithm.
    pub algorithm: HostKeyAlgorithm,
    /// The key or certificate as it was sent.
    pub blob: Vec<u8>,
    /// The same, decoded.
    pub key: PublicKeyOrCertificate,
}

impl HostKeyOffered {
    /// Decodes the host key of a key exchange, and sees that it is of the negotiated kind.
    ///
    /// # Errors
    /// [`PeerMisbehaved::HostKeyKind`], [`PeerIncompatible::RsaSize`].
    pub fn decode(algorithm: HostKeyAlgorithm, blob: &[u8]) -> Result<Self, Error> {
        let kind = |got: String| PeerMisbehaved::HostKeyKind { expect: algorithm.name(), got };
        let name = Reader::new(blob).string().map_err(|error| kind(error.to_string()))?;
        if name != algorithm.blob_name().as_bytes() {
            return Err(kind(printable(name)).into());
        }
        let key = decode_public(blob).map_err(|error| kind(error.to_string()))?;
        let data = key_data(&key);
        if !algorithm.scheme.signs_with(&data.algorithm()) {
            return Err(kind(data.algorithm().to_string()).into());
        }
        if let KeyData::Rsa(rsa) = data {
            let bits = bit_len(rsa.n().as_positive_bytes().unwrap_or_default());
            if !(2048..=8192).contains(&bits) {
                return Err(PeerIncompatible::RsaSize { bits }.into());
            }
        }
        Ok(Self { algorithm, blob: blob.to_vec(), key })
    }

    /// Checks the host's signature blob over `message`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::HostSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let wrong = || PeerMisbehaved::HostSignature { algorithm: self.algorithm.name() };
        verify(self.algorithm.scheme, key_data(&self.key), message, signature).ok_or_else(|| wrong().into())
    }
}

fn key_data(key: &PublicKeyOrCertificate) -> &KeyData {
    match key {
        PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data(),
        PublicKeyOrCertificate::Certificate(certificate) => certificate.public_key(),
    }
}

fn bit_len(magnitude: &[u8]) -> usize {
    magnitude.split_first().map_or(0, |(first, rest)| rest.len() * 8 + 8 - first.leading_zeros() as usize)
}

fn verify(scheme: Scheme, key: &KeyData, message: &[u8], blob: &[u8]) -> Option<()> {
    let mut reader = Reader::new(blob);
    let name = reader.string().ok()?;
    let signature = reader.string().ok()?;
    reader.finish().ok()?;
    // RFC 8332 section 3: the name must be the negotiated algorithm's, so that SHA-1 can't come back.
    if name != scheme.name().as_bytes() {
        return None;
    }
    match (scheme, key) {
        (Scheme::Ed25519, KeyData::Ed25519(key)) => {
            UnparsedPublicKey::new(&ED25519, key.as_ref()).verify(message, signature).ok()
        }
        (scheme, KeyData::Ecdsa(key)) => {
            let ecdsa = scheme.ecdsa()?;
            let mut numbers = Reader::new(signature);
            let mut fixed = [0; ECDSA_FIXED_LEN_MAX];
            let fixed = fixed.get_mut(..2 * ecdsa.number_len)?;
            let (r, s) = fixed.split_at_mut(ecdsa.number_len);
            for half in [r, s] {
                let number = numbers.mpint().ok()?;
                let start = half.len().checked_sub(number.len())?;
                half.get_mut(start..)?.copy_from_slice(number);
            }
            numbers.finish().ok()?;
            UnparsedPublicKey::new(ecdsa.verification, key.as_sec1_bytes()).verify(message, fixed).ok()
        }
        (Scheme::RsaSha256 | Scheme::RsaSha512, KeyData::Rsa(key)) => {
            let (n, e) = (key.n().as_positive_bytes()?, key.e().as_positive_bytes()?);
            // Some implementations drop a signature's leading zeros; OpenSSH puts them back, and so do we.
            let mut padded = vec![0; n.len().checked_sub(signature.len())?];
            padded.extend_from_slice(signature);
            let parameters = if scheme == Scheme::RsaSha256 {
                &RSA_PKCS1_2048_8192_SHA256
            } else {
                &RSA_PKCS1_2048_8192_SHA512
            };
            PublicKeyComponents { n, e }.verify(parameters, message, &padded).ok()
        }
        _ => None,
    }
}

/// Why a stranger's key or certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// The certificate's fields can't be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A certificate that a certificate signed: PROTOCOL.certkeys forbids it, and decoders recurse over it.
    #[error("a certificate whose signer is itself a certificate")]
    NestedCertificate,
    /// What `ssh-key` says.
    #[error(transparent)]
    Encoding(#[from] ssh_key::Error),
}

/// Decodes a public key or certificate from a stranger. Use this one, not `ssh-key`'s decoders: those recurse
/// into a certificate that is signed by a certificate that is signed by … until the stack ends.
///
/// # Errors
/// [`BadKey`].
pub fn decode_public(blob: &[u8]) -> Result<PublicKeyOrCertificate, BadKey> {
    let name = Reader::new(blob).string()?;
    if !is_certificate(name) {
        let key = PublicKey::from_bytes(blob)?;
        let hash_alg: Option<HashAlg> = None;
        return Ok(PublicKeyOrCertificate::PublicKey { key, hash_alg });
    }
    if is_certificate(Reader::new(signature_key(blob)?).string()?) {
        return Err(BadKey::NestedCertificate);
    }
    Ok(PublicKeyOrCertificate::Certificate(Certificate::from_bytes(blob)?))
}

fn is_certificate(name: &[u8]) -> bool {
    const MARK: &[u8] = b"-cert-v01@openssh.com";
    name.ends_with(MARK)
}

/// The field `signature key` of a certificate (PROTOCOL.certkeys).
fn signature_key(blob: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(blob);
    let name = reader.string()?;
    reader.string()?; // nonce
    // How many fields the public key has: all of them have the form of a string.
    let fields = match name {
        b"ssh-ed25519-cert-v01@openssh.com" => 1,
        b"ssh-rsa-cert-v01@openssh.com" => 2,
        b"sk-ssh-ed25519-cert-v01@openssh.com" => 2,
        b"ecdsa-sha2-nistp256-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp384-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp521-cert-v01@openssh.com" => 2,
        b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" => 3,
        _ => return Err(WireError::Rule { rule: "the kind of certificate is one that we know" }),
    };
    for _ in 0..fields {
        reader.string()?;
    }
    reader.uint64()?; // serial
    reader.uint32()?; // type
    reader.string()?; // key id
    reader.string()?; // principals
    reader.uint64()?; // valid after
    reader.uint64()?; // valid before
    reader.string()?; // critical options
    reader.string()?; // extensions
    reader.string()?; // reserved
    reader.string()
}

#[cfg(test)]
#[path = "host_key_tests.rs"]
pub(crate) mod tests;
