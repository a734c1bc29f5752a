//! What an OpenSSH certificate must be before anything believes it.
//!
//! The format is OpenSSH's PROTOCOL.certkeys. A certificate passes only if a trusted authority's *key* signed it
//! with a modern algorithm, it is of the right type, valid now, names at least one principal, and every critical
//! option is one that we know and honour. Everything is checked here and nowhere else; who holds a
//! [`LoginCertificate`] or a [`HostCertificate`] holds the proof that it was.

use super::field::Fields;
use russh::keys::signature::Verifier;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Certificate, Fingerprint, HashAlg, PublicKey};
use russh::keys::{Algorithm, EcdsaCurve};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Largest certificate that is looked at. OpenSSH's own have 400 to 2,500 bytes; 256 principals fit easily.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Fewest bits of an RSA key, of a user or of an authority (OpenSSH's `RequiredRSASize` allows 1,024; NIST SP
/// 800-131A has asked for 2,048 since 2014).
pub const RSA_BITS_MIN: usize = 2048;

/// Most bits of an RSA key: bounds what a stranger can make us compute.
pub const RSA_BITS_MAX: usize = 4096;

/// What a peer is told of any refusal, always the same: the reason is for the log.
pub const REFUSED: &str = "certificate refused";

/// Why a certificate isn't believed. The text is for the log; a peer gets [`REFUSED`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no certificate of a kind that we read, or not in the one canonical encoding.
    #[error("not a well-formed OpenSSH certificate: {0}")]
    Malformed(&'static str),
    /// More than [`CERTIFICATE_BYTES_MAX`].
    #[error("certificate of {bytes} bytes, at most {CERTIFICATE_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The certified key is of a kind that isn't taken (DSA, unknown names).
    #[error("key of type {algorithm:?} isn't accepted: use Ed25519, ECDSA or RSA")]
    KeyType {
        /// The name of its type.
        algorithm: String,
    },
    /// An RSA key, of the user or the authority, that is too short or too long.
    #[error("RSA key of {bits} bits: {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted")]
    KeySize {
        /// Its length.
        bits: usize,
    },
    /// Signed by a key that isn't among the trusted authorities.
    #[error("signed by {authority}, which is none of the trusted authorities")]
    UntrustedAuthority {
        /// SHA-256 fingerprint of the key that signed.
        authority: Fingerprint,
    },
    /// The authority signed with an algorithm that is no longer safe (`ssh-rsa` is SHA-1), or not its own.
    #[error("the authority's signature is of type {algorithm:?}, which isn't accepted")]
    AuthoritySignatureType {
        /// The name of the algorithm.
        algorithm: String,
    },
    /// The authority's signature isn't over these bytes.
    #[error("the authority's signature is wrong")]
    BadSignature,
    /// A host certificate where a user's is needed, or the other way round.
    #[error("certificate of type {got:?} where {expected:?} is needed")]
    WrongType {
        /// What is needed.
        expected: CertType,
        /// What was shown.
        got: CertType,
    },
    /// Its time has not come.
    #[error("valid only from {valid_after} on, now is {now} (seconds since 1970)")]
    NotYetValid {
        /// First second of validity.
        valid_after: u64,
        /// When it was looked at.
        now: u64,
    },
    /// Its time is over.
    #[error("expired at {valid_before}, now is {now} (seconds since 1970): log in again")]
    Expired {
        /// First second in which it isn't valid.
        valid_before: u64,
        /// When it was looked at.
        now: u64,
    },
    /// It names nobody: old OpenSSH took that for everybody, 10.3 for nobody, and so do we.
    #[error("names no principal")]
    NoPrincipal,
    /// It names others.
    #[error("is for {named:?}, not for {wanted:?}")]
    WrongPrincipal {
        /// Whom it would have to name.
        wanted: Vec<String>,
        /// Whom it names.
        named: Vec<String>,
    },
    /// A critical option that we don't know: PROTOCOL.certkeys says to refuse.
    #[error("unknown critical option {name:?}")]
    UnknownCriticalOption {
        /// Its name.
        name: String,
    },
    /// `source-address` isn't a list of addresses and networks.
    #[error("critical option source-address is malformed: {list:?}")]
    SourceAddressMalformed {
        /// The list as it stands.
        list: String,
    },
    /// Shown from an address that `source-address` doesn't name.
    #[error("shown from {source_ip}, but valid only from {list:?}")]
    SourceAddressNotAllowed {
        /// Where it was shown from.
        source_ip: IpAddr,
        /// The list as it stands.
        list: String,
    },
}

impl Refusal {
    /// What the peer may be told: the same for every reason.
    pub fn outward(&self) -> &'static str {
        REFUSED
    }
}

/// The keys of the authorities that are believed, known by the SHA-256 of the key, never by a name.
#[derive(Debug, Clone, Default)]
pub struct TrustedAuthorities {
    fingerprints: Vec<Fingerprint>,
}

impl TrustedAuthorities {
    /// Trusts exactly these keys; comments don't matter.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> Self {
        Self { fingerprints: keys.into_iter().map(|key| key.fingerprint(HashAlg::Sha256)).collect() }
    }

    /// True if this key is one of them.
    pub fn contains(&self, key: &KeyData) -> bool {
        self.fingerprints.contains(&key.fingerprint(HashAlg::Sha256))
    }
}

/// What a certificate's extensions allow. Without the extension the thing is forbidden.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// `permit-pty`
    pub pty: bool,
    /// `permit-port-forwarding`
    pub port_forwarding: bool,
    /// `permit-agent-forwarding`
    pub agent_forwarding: bool,
    /// `permit-X11-forwarding`
    pub x11_forwarding: bool,
    /// `permit-user-rc`
    pub user_rc: bool,
    /// `no-touch-required`: a security key's signature counts without a touch.
    pub no_touch_required: bool,
}

impl Extensions {
    /// All that a session can have: of somebody whom no certificate restricts.
    #[must_use]
    pub fn every() -> Self {
        Self {
            pty: true,
            port_forwarding: true,
            agent_forwarding: true,
            x11_forwarding: true,
            user_rc: true,
            ..Self::default()
        }
    }

    fn of(certificate: &Certificate) -> Self {
        let all: BTreeMap<String, String> = certificate.extensions().clone().into();
        let has = |name: &str| all.contains_key(name);
        Self {
            pty: has("permit-pty"),
            port_forwarding: has("permit-port-forwarding"),
            agent_forwarding: has("permit-agent-forwarding"),
            x11_forwarding: has("permit-X11-forwarding"),
            user_rc: has("permit-user-rc"),
            no_touch_required: has("no-touch-required"),
        }
    }
}

/// Only the checks in this module make one: the proof that they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Checked;

/// A user's certificate that passed [`check_user_certificate`]. What it says is true, as far as the authority is.
///
/// It doesn't prove that the peer holds the key: see [`super::authenticate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginCertificate {
    /// The certified key.
    pub key: KeyData,
    /// SHA-256 of the certified key.
    pub key_fingerprint: Fingerprint,
    /// SHA-256 of the key that signed.
    pub authority: Fingerprint,
    /// The authority's number for it.
    pub serial: u64,
    /// The authority's free text for it.
    pub key_id: String,
    /// Whom it names; never empty.
    pub principals: Vec<String>,
    /// First second of validity, since 1970.
    pub valid_after: u64,
    /// First second in which it is no longer valid, since 1970.
    pub valid_before: u64,
    /// `force-command`: the one command that may run, whatever is asked for; to be enforced by the session.
    pub force_command: Option<String>,
    /// `source-address` as it stands; already honoured for the address it was shown from.
    pub source_address: Option<String>,
    /// `verify-required`: a security key must have asked for PIN or finger.
    pub verify_required: bool,
    /// What it allows.
    pub extensions: Extensions,
    checked: Checked,
}

/// A host's certificate that passed [`check_host_certificate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    /// The certified key: the key exchange's signature must be by it.
    pub key: KeyData,
    /// SHA-256 of the key that signed.
    pub authority: Fingerprint,
    /// The authority's number for it.
    pub serial: u64,
    /// The authority's free text for it.
    pub key_id: String,
    checked: Checked,
}

/// Reads a certificate from its wire form, as it stands in a key blob.
///
/// Stricter than OpenSSH: what doesn't encode back to the same bytes is refused, so that what was signed and what
/// was understood are the same.
///
/// # Errors
/// [`Refusal::TooLong`], [`Refusal::Malformed`] or [`Refusal::KeyType`].
pub fn parse_certificate(blob: &[u8]) -> Result<Certificate, Refusal> {
    if blob.len() > CERTIFICATE_BYTES_MAX {
        return Err(Refusal::TooLong { bytes: blob.len() });
    }
    check_layout(blob)?;
    let certificate =
        Certificate::from_bytes(blob).map_err(|_| Refusal::Malformed("a field can't be read"))?;
    match certificate.to_bytes() {
        Ok(bytes) if bytes == blob => Ok(certificate),
        _ => Err(Refusal::Malformed("not in canonical encoding")),
    }
}

/// Checks a user's certificate, shown at `now` (seconds since 1970) from `source`.
///
/// # Errors
/// The first [`Refusal`], the authority's identity and signature first: before them nothing it says counts.
pub fn check_user_certificate(
    certificate: &Certificate,
    trusted: &TrustedAuthorities,
    now: u64,
    source: IpAddr,
) -> Result<LoginCertificate, Refusal> {
    check_signed(certificate, trusted, CertType::User, now)?;
    let options = certificate.critical_options();
    let mut force_command = None;
    let mut source_address = None;
    let mut verify_required = false;
    for (name, value) in options.iter() {
        match name.as_str() {
            "force-command" => force_command = Some(value.clone()),
            "source-address" => {
                check_source_address(value, source)?;
                source_address = Some(value.clone());
            }
            "verify-required" => verify_required = true,
            _ => return Err(Refusal::UnknownCriticalOption { name: name.clone() }),
        }
    }
    Ok(LoginCertificate {
        key: certificate.public_key().clone(),
        key_fingerprint: certificate.public_key().fingerprint(HashAlg::Sha256),
        authority: certificate.signature_key().fingerprint(HashAlg::Sha256),
        serial: certificate.serial(),
        key_id: certificate.key_id().to_owned(),
        principals: certificate.valid_principals().to_vec(),
        valid_after: certificate.valid_after(),
        valid_before: certificate.valid_before(),
        force_command,
        source_address,
        verify_required,
        extensions: Extensions::of(certificate),
        checked: Checked,
    })
}

/// Checks a host's certificate at `now` (seconds since 1970); it must name one of `names`.
///
/// Names are compared exactly but for ASCII case; patterns in a certificate aren't honoured.
///
/// # Errors
/// The first [`Refusal`].
pub fn check_host_certificate(
    certificate: &Certificate,
    trusted: &TrustedAuthorities,
    names: &[String],
    now: u64,
) -> Result<HostCertificate, Refusal> {
    check_signed(certificate, trusted, CertType::Host, now)?;
    // PROTOCOL.certkeys defines no critical option for hosts.
    if let Some((name, _)) = certificate.critical_options().iter().next() {
        return Err(Refusal::UnknownCriticalOption { name: name.clone() });
    }
    let named = certificate.valid_principals();
    if !named.iter().any(|have| names.iter().any(|want| have.eq_ignore_ascii_case(want))) {
        return Err(Refusal::WrongPrincipal { wanted: names.to_vec(), named: named.to_vec() });
    }
    Ok(HostCertificate {
        key: certificate.public_key().clone(),
        authority: certificate.signature_key().fingerprint(HashAlg::Sha256),
        serial: certificate.serial(),
        key_id: certificate.key_id().to_owned(),
        checked: Checked,
    })
}

/// Checks that a key is of a kind and size that is accepted, for users, hosts and authorities alike.
///
/// # Errors
/// [`Refusal::KeyType`] or [`Refusal::KeySize`].
pub fn check_key(key: &KeyData) -> Result<(), Refusal> {
    match key {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {
            Ok(())
        }
        KeyData::Rsa(rsa) => {
            let modulus = rsa.n().as_positive_bytes().unwrap_or_default();
            let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
            let bits = modulus.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0));
            if (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                Ok(())
            } else {
                Err(Refusal::KeySize { bits })
            }
        }
        other => Err(Refusal::KeyType { algorithm: other.algorithm().as_str().to_owned() }),
    }
}

/// The checks that users' and hosts' certificates share.
fn check_signed(
    certificate: &Certificate,
    trusted: &TrustedAuthorities,
    expected: CertType,
    now: u64,
) -> Result<(), Refusal> {
    let authority = certificate.signature_key();
    if !trusted.contains(authority) {
        return Err(Refusal::UntrustedAuthority { authority: authority.fingerprint(HashAlg::Sha256) });
    }
    check_key(authority)?;
    check_authority_signature(certificate)?;
    check_key(certificate.public_key())?;
    if certificate.cert_type() != expected {
        return Err(Refusal::WrongType { expected, got: certificate.cert_type() });
    }
    // PROTOCOL.certkeys: valid after <= current time < valid before.
    if now < certificate.valid_after() {
        return Err(Refusal::NotYetValid { valid_after: certificate.valid_after(), now });
    }
    if now >= certificate.valid_before() {
        return Err(Refusal::Expired { valid_before: certificate.valid_before(), now });
    }
    if certificate.valid_principals().is_empty() {
        return Err(Refusal::NoPrincipal);
    }
    Ok(())
}

fn check_authority_signature(certificate: &Certificate) -> Result<(), Refusal> {
    let signature = certificate.signature();
    let modern = match (certificate.signature_key().algorithm(), signature.algorithm()) {
        (Algorithm::Ed25519, Algorithm::Ed25519) => true,
        (Algorithm::Ecdsa { curve: key }, Algorithm::Ecdsa { curve }) => key == curve,
        (Algorithm::Rsa { .. }, Algorithm::Rsa { hash }) => hash.is_some(),
        _ => false,
    };
    if !modern {
        return Err(Refusal::AuthoritySignatureType { algorithm: signature.algorithm().as_str().to_owned() });
    }
    let bytes = certificate.to_bytes().map_err(|_| Refusal::Malformed("can't be encoded"))?;
    let signed = signed_part(&bytes).ok_or(Refusal::Malformed("no signature"))?;
    certificate.signature_key().verify(signed, signature).map_err(|_| Refusal::BadSignature)
}

/// How many fields a key has in a certificate of this type, behind the nonce (PROTOCOL.certkeys); `None` for
/// types that aren't taken.
fn key_fields(certificate_type: &[u8]) -> Option<usize> {
    match certificate_type {
        b"ssh-ed25519-cert-v01@openssh.com" => Some(1),
        b"ssh-rsa-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp256-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp384-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp521-cert-v01@openssh.com"
        | b"sk-ssh-ed25519-cert-v01@openssh.com" => Some(2),
        b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" => Some(3),
        _ => None,
    }
}

/// What stands around the signature in a certificate's bytes.
struct Layout<'a> {
    signature_key: &'a [u8],
    /// The last field, without its length.
    signature: &'a [u8],
}

fn layout(blob: &[u8]) -> Option<Layout<'_>> {
    let mut fields = Fields::new(blob);
    let key_fields = key_fields(fields.string()?)?;
    let _nonce = fields.string()?;
    for _ in 0..key_fields {
        fields.string()?;
    }
    let _serial = fields.uint64()?;
    let _type = fields.uint32()?;
    let _key_id = fields.string()?;
    let _principals = fields.string()?;
    let _valid_after = fields.uint64()?;
    let _valid_before = fields.uint64()?;
    let _critical_options = fields.string()?;
    let _extensions = fields.string()?;
    let _reserved = fields.string()?;
    let signature_key = fields.string()?;
    let signature = fields.string()?;
    fields.is_empty().then_some(Layout { signature_key, signature })
}

/// The bytes that the authority signed: all before the signature.
fn signed_part(blob: &[u8]) -> Option<&[u8]> {
    let signature = layout(blob)?.signature;
    blob.get(..blob.len().checked_sub(signature.len())?.checked_sub(4)?)
}

/// Refuses, before the library's parser sees it, what isn't laid out as a certificate, and a certificate in the
/// place of the authority's key: the library would follow such nesting with recursion as deep as a stranger likes.
fn check_layout(blob: &[u8]) -> Result<(), Refusal> {
    let certificate_type = Fields::new(blob).string().ok_or(Refusal::Malformed("no type"))?;
    if key_fields(certificate_type).is_none() {
        let algorithm = String::from_utf8_lossy(certificate_type.get(..64).unwrap_or(certificate_type));
        return Err(Refusal::KeyType { algorithm: algorithm.into_owned() });
    }
    let layout = layout(blob).ok_or(Refusal::Malformed("a field is missing or too much"))?;
    let authority_type =
        Fields::new(layout.signature_key).string().ok_or(Refusal::Malformed("no authority's key"))?;
    let plain = [
        Algorithm::Ed25519,
        Algorithm::Rsa { hash: None },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    ];
    if !plain.iter().any(|algorithm| algorithm.as_str().as_bytes() == authority_type) {
        return Err(Refusal::Malformed("the authority's key is of a type that isn't accepted"));
    }
    Ok(())
}

fn check_source_address(list: &str, source: IpAddr) -> Result<(), Refusal> {
    let malformed = || Refusal::SourceAddressMalformed { list: list.to_owned() };
    let source_ip = source.to_canonical();
    let mut allowed = false;
    // The whole list is read before it counts: one malformed entry makes it worthless, as in OpenSSH.
    for entry in list.split(',') {
        allowed |= network_contains(entry, source_ip).ok_or_else(malformed)?;
    }
    if allowed { Ok(()) } else { Err(Refusal::SourceAddressNotAllowed { source_ip, list: list.to_owned() }) }
}

/// Whether an entry, `address` or `address/bits`, holds the address; `None` if it is malformed. As in OpenSSH,
/// bits behind the mask must be zero.
fn network_contains(entry: &str, ip: IpAddr) -> Option<bool> {
    let (address, bits) = match entry.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (entry, None),
    };
    let network: IpAddr = address.parse().ok()?;
    let (value, width) = as_number(network);
    let bits = match bits {
        Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse::<u32>().ok()?,
        Some(_) => return None,
        None => width,
    };
    let host_bits = width.checked_sub(bits)?;
    let above = |number: u128| number.checked_shr(host_bits).unwrap_or(0);
    if above(value).checked_shl(host_bits).unwrap_or(0) != value {
        return None;
    }
    let (ip_value, ip_width) = as_number(ip);
    Some(ip_width == width && above(ip_value) == above(value))
}

fn as_number(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
