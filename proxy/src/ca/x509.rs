//! The X.509 authorities (ECDSA P-256): our servers', the users' client certificates', and one for targets.
//!
//! Like the SSH ones they issue from key, time and request, and append nothing: the caller makes
//! `certificate.issued` durable from [`IssuedX509`] before it hands a certificate out.

use super::ssh::{BACKDATED_SECONDS, IssueError};
use super::store::{KeyStore, PublicPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use custody_core::event::Timestamp;
use custody_core::event::certificate::{self, Issued};
use custody_core::event::hex::{hash_from_hex, to_hex};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

/// Validity of an authority's own certificate: ten years.
const AUTHORITY_SECONDS: u64 = 3653 * 24 * 3600;

/// Longest validity of a server's certificate: 398 days, as browsers have it.
pub const SERVER_SECONDS_MAX: u64 = 398 * 24 * 3600;

/// Longest validity of a user's certificate: a week. It can't be called back but by a lock.
pub const CLIENT_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Longest validity of an agent's certificate: 90 days; it gets another one in good time.
pub const AGENT_SECONDS_MAX: u64 = 90 * 24 * 3600;

/// Longest common name (X.520 `ub-common-name`).
pub const COMMON_NAME_CHARS_MAX: usize = 64;

/// Longest signing request that is read, in bytes.
pub const SIGNING_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// 9999-12-31T23:59:59Z: the last second that X.509 can express.
const LAST_SECOND: u64 = 253_402_300_799;

/// A certificate that was issued, and what its event says of it.
#[derive(Debug, Clone)]
pub struct IssuedX509 {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The same as PEM.
    pub pem: String,
    /// Its number in lower-case hex, without separators: 16 random bytes, positive.
    pub serial: String,
    /// Its common name.
    pub common_name: String,
    /// SHA-256 of the certified SubjectPublicKeyInfo, lower-case hex.
    pub key_sha256: String,
    /// The authority's common name.
    pub authority: String,
    /// First second of validity, since 1970.
    pub not_before: u64,
    /// Last second of validity, since 1970.
    pub not_after: u64,
}

impl IssuedX509 {
    /// What `certificate.issued` says of it; it is good for its common name.
    ///
    /// # Errors
    /// Never for what an authority here has issued.
    pub fn told(&self, authority: certificate::Authority) -> Result<Issued, IssueError> {
        let unreadable = || IssueError::Crypto("a certificate's own number or hash can't be read".to_owned());
        let key = hash_from_hex(&self.key_sha256).ok_or_else(unreadable)?;
        let serial = u128::from_str_radix(&self.serial, 16).map_err(|_| unreadable())?;
        Ok(Issued {
            authority,
            // As OpenSSH writes fingerprints: base64 without padding.
            key: format!("SHA256:{}", STANDARD_NO_PAD.encode(key)),
            principals: vec![self.common_name.clone()],
            serial: serial.to_string(),
            subject: self.common_name.clone(),
            valid_from: Timestamp::from_seconds(self.not_before),
            valid_until: Timestamp::from_seconds(self.not_after),
        })
    }
}

/// A server's key and certificate for rustls. The key is made for the certificate and lives in memory only.
#[derive(Debug)]
pub struct ServerIdentity {
    /// What was issued.
    pub issued: IssuedX509,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

/// One X.509 authority: the name of its key in a store, its public half and its certificate.
#[derive(Clone)]
struct Authority {
    key: StoredKey,
    certificate: CertificateDer<'static>,
    pem: String,
    common_name: &'static str,
}

/// Signs the certificates of our own servers: API and log.
#[derive(Clone)]
pub struct ServerAuthority(Authority);

/// Signs users' client certificates. Only our API trusts it.
#[derive(Clone)]
pub struct ClientAuthority(Authority);

/// Signs what a proxy shows to databases. Only they trust it.
#[derive(Clone)]
pub struct TargetAuthority(Authority);

/// Signs what nodes' agents show to the `log` role. Only that trusts it.
#[derive(Clone)]
pub struct AgentAuthority(Authority);

macro_rules! authority {
    ($type:ty) => {
        impl $type {
            pub(super) fn new(
                store: Arc<dyn KeyStore>,
                name: &'static str,
                public: &PublicPart,
                published: Option<&[u8]>,
                now: u64,
            ) -> Result<Self, IssueError> {
                Authority::new(store, name, public, published, now).map(Self)
            }

            /// The authority's certificate: what is to be trusted.
            pub fn certificate(&self) -> &CertificateDer<'static> {
                &self.0.certificate
            }

            /// The same as PEM.
            pub fn pem(&self) -> &str {
                &self.0.pem
            }
        }
    };
}
authority!(ServerAuthority);
authority!(ClientAuthority);
authority!(TargetAuthority);
authority!(AgentAuthority);

impl ServerAuthority {
    /// Makes a key and a certificate for a server of ours that goes by these names and addresses, at `now` (seconds
    /// since 1970), valid for `valid_seconds`, at most [`SERVER_SECONDS_MAX`].
    ///
    /// # Errors
    /// [`IssueError`]; nothing was issued.
    pub fn issue(
        &self,
        now: u64,
        names: &[String],
        addresses: &[IpAddr],
        valid_seconds: u64,
    ) -> Result<ServerIdentity, IssueError> {
        let first = names.first().cloned().or_else(|| addresses.first().map(IpAddr::to_string));
        let first =
            first.ok_or_else(|| IssueError::Request("a server needs a name or an address".to_owned()))?;
        let not_after = validity(now, valid_seconds, SERVER_SECONDS_MAX)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(crypto)?;
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
        // A common name is for people only; names are looked for in the alternative names (RFC 9525).
        let common_name: String = first.chars().take(COMMON_NAME_CHARS_MAX).collect();
        let issued = self.0.sign(params, &key, common_name, now, not_after)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        Ok(ServerIdentity { issued, key })
    }
}

impl ClientAuthority {
    /// Issues a user's client certificate at `now` (seconds since 1970) for the key of a PKCS#10 request (DER), which
    /// must be signed by that key (ECDSA P-256). Nothing else of the request counts: the common name is `user`.
    ///
    /// # Errors
    /// [`IssueError`]; nothing was issued.
    pub fn issue(
        &self,
        now: u64,
        signing_request: &[u8],
        user: &str,
        valid_seconds: u64,
    ) -> Result<IssuedX509, IssueError> {
        let not_after = validity(now, valid_seconds, CLIENT_SECONDS_MAX)?;
        let chars = user.chars().count();
        if chars == 0 || chars > COMMON_NAME_CHARS_MAX || user.chars().any(char::is_control) {
            return Err(IssueError::Request(format!(
                "a user's name has 1 to {COMMON_NAME_CHARS_MAX} characters and no controls"
            )));
        }
        let key = proved_key(signing_request).map_err(|why| IssueError::Request(why.to_owned()))?;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.0.sign(params, &key, user.to_owned(), now, not_after)
    }
}

impl AgentAuthority {
    /// Issues the certificate of a node's agent at `now` (seconds since 1970) for the Ed25519 key of a PKCS#10 request
    /// (DER), which must be signed by that key. Nothing else of the request counts: the common name is the node's.
    /// Gives the key as well, 32 bytes.
    ///
    /// # Errors
    /// [`IssueError`]; nothing was issued.
    pub fn issue(
        &self,
        now: u64,
        signing_request: &[u8],
        node: &str,
        valid_seconds: u64,
    ) -> Result<(IssuedX509, [u8; 32]), IssueError> {
        let not_after = validity(now, valid_seconds, AGENT_SECONDS_MAX)?;
        let key = proved_agent_key(signing_request).map_err(|why| IssueError::Request(why.to_owned()))?;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok((self.0.sign(params, &key, node.to_owned(), now, not_after)?, key.0))
    }
}

impl Authority {
    fn new(
        store: Arc<dyn KeyStore>,
        name: &'static str,
        public: &PublicPart,
        published: Option<&[u8]>,
        now: u64,
    ) -> Result<Self, IssueError> {
        let PublicPart::EcdsaP256(point) = public else {
            return Err(IssueError::Crypto(format!("key {name:?} is not an ECDSA P-256 key")));
        };
        let key = StoredKey { store, name, point: point.clone() };
        let common_name = common_name(name);
        let certificate = match published.and_then(|pem| still_good(pem, &key, now)) {
            Some(certificate) => certificate,
            // Made anew with the same key and name: what the old one verified, the new one does too.
            None => self_signed(&key, common_name, now)?,
        };
        let pem = to_pem(&certificate);
        Ok(Self { key, certificate, pem, common_name })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        common_name: String,
        now: u64,
        not_after: u64,
    ) -> Result<IssuedX509, IssueError> {
        let not_before = now.saturating_sub(BACKDATED_SECONDS);
        let serial = random_serial()?;
        set_validity(&mut params, not_before, not_after)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = named(&common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(authority_params(self.common_name), &self.key);
        let certificate = params.signed_by(key, &issuer).map_err(crypto)?;
        let spki = key.subject_public_key_info();
        Ok(IssuedX509 {
            pem: certificate.pem(),
            certificate: certificate.into(),
            serial: to_hex(&serial),
            common_name,
            key_sha256: to_hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki).as_ref()),
            authority: self.common_name.to_owned(),
            not_before,
            not_after,
        })
    }
}

/// A key that the store holds, as rcgen wants to see it.
#[derive(Clone)]
struct StoredKey {
    store: Arc<dyn KeyStore>,
    name: &'static str,
    point: Vec<u8>,
}

impl PublicKeyData for StoredKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for StoredKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.store.sign(self.name, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A key that proved itself by the signature of a request.
struct ProvedKey(Vec<u8>);

impl PublicKeyData for ProvedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// Whether [`ClientAuthority::issue`] takes the key of this PKCS#10 request (DER), asked before anybody is proved.
///
/// # Errors
/// Why it doesn't.
pub fn check_signing_request(der: &[u8]) -> Result<(), &'static str> {
    proved_key(der).map(drop)
}

/// The key of a PKCS#10 request (RFC 2986), once its signature has been checked.
fn proved_key(der: &[u8]) -> Result<ProvedKey, &'static str> {
    if der.len() > SIGNING_REQUEST_BYTES_MAX {
        return Err("the signing request is too long");
    }
    let Ok((rest, request)) = X509CertificationRequest::from_der(der) else {
        return Err("the signing request isn't PKCS#10 DER");
    };
    let info = &request.certification_request_info;
    let key = &info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    // 1.2.840.10045.2.1 id-ecPublicKey, .3.1.7 prime256v1; 1.2.840.10045.4.3.2 ecdsa-with-SHA256
    let expected = rest.is_empty()
        && key.algorithm.algorithm.to_id_string() == "1.2.840.10045.2.1"
        && curve.is_some_and(|oid| oid.to_id_string() == "1.2.840.10045.3.1.7")
        && request.signature_algorithm.algorithm.to_id_string() == "1.2.840.10045.4.3.2";
    if !expected {
        return Err("the signing request must be by an ECDSA P-256 key with SHA-256");
    }
    let point: &[u8] = &key.subject_public_key.data;
    let verifier =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point);
    match verifier.verify(info.raw, &request.signature_value.data) {
        Ok(()) => Ok(ProvedKey(point.to_vec())),
        Err(_) => Err("the signing request isn't signed by its own key"),
    }
}

/// An Ed25519 key that proved itself by the signature of a request.
struct ProvedAgentKey([u8; 32]);

impl PublicKeyData for ProvedAgentKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// The Ed25519 key of a PKCS#10 request (RFC 2986, RFC 8410), once its signature has been checked.
fn proved_agent_key(der: &[u8]) -> Result<ProvedAgentKey, &'static str> {
    if der.len() > SIGNING_REQUEST_BYTES_MAX {
        return Err("the signing request is too long");
    }
    let Ok((rest, request)) = X509CertificationRequest::from_der(der) else {
        return Err("the signing request isn't PKCS#10 DER");
    };
    let info = &request.certification_request_info;
    let is_ed25519 = |oid: String| oid == "1.3.101.112";
    let key: Option<[u8; 32]> = (&*info.subject_pki.subject_public_key.data).try_into().ok();
    let (Some(key), true) = (
        key,
        rest.is_empty()
            && is_ed25519(info.subject_pki.algorithm.algorithm.to_id_string())
            && is_ed25519(request.signature_algorithm.algorithm.to_id_string()),
    ) else {
        return Err("the signing request must be by an Ed25519 key");
    };
    let verifier = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key);
    match verifier.verify(info.raw, &request.signature_value.data) {
        Ok(()) => Ok(ProvedAgentKey(key)),
        Err(_) => Err("the signing request isn't signed by its own key"),
    }
}

/// The common name of a certificate's subject, if it has exactly one.
#[must_use]
pub fn sole_common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

/// The published certificate, if it is this key's and has a month left.
fn still_good(pem: &[u8], key: &StoredKey, now: u64) -> Option<CertificateDer<'static>> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let (rest, parsed) = X509Certificate::from_der(&certificate).ok()?;
    let same_key = *parsed.public_key().raw == key.subject_public_key_info();
    let same_name = parsed.subject().iter_common_name().next()?.as_str().ok()? == common_name(key.name);
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    let lasts = not_after > now.saturating_add(31 * 24 * 3600);
    (rest.is_empty() && same_key && same_name && lasts && parsed.is_ca()).then_some(certificate)
}

fn self_signed(key: &StoredKey, common_name: &str, now: u64) -> Result<CertificateDer<'static>, IssueError> {
    let mut params = authority_params(common_name);
    set_validity(&mut params, now.saturating_sub(BACKDATED_SECONDS), now.saturating_add(AUTHORITY_SECONDS))?;
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    Ok(params.self_signed(key).map_err(crypto)?.into())
}

/// What an authority's own certificate says, and what rcgen needs of it to issue others.
fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The common name of an authority, by its key's name.
fn common_name(key_name: &'static str) -> &'static str {
    match key_name {
        super::X509_SERVER_CA => "Custody server CA",
        super::X509_CLIENT_CA => "Custody client CA",
        super::X509_TARGET_CA => "Custody target CA",
        super::X509_AGENT_CA => "Custody agent CA",
        other => other,
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn validity(now: u64, seconds: u64, max: u64) -> Result<u64, IssueError> {
    if !(1..=max).contains(&seconds) {
        return Err(IssueError::Request(format!("validity of {seconds} s asked for, 1 to {max} are given")));
    }
    Ok(now.saturating_add(seconds))
}

/// 16 bytes, the first of them 0x40 to 0x7f: positive, no leading zero, within the 20 octets of RFC 5280 4.1.2.2.
fn random_serial() -> Result<[u8; 16], IssueError> {
    let mut serial = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::Crypto("no random numbers".to_owned()))?;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(serial)
}

/// Sets first and last second of validity, since 1970.
fn set_validity(params: &mut CertificateParams, first: u64, last: u64) -> Result<(), IssueError> {
    // rcgen's sum would panic after the year 9999, which X.509 can't express either.
    if first > LAST_SECOND || last > LAST_SECOND {
        return Err(IssueError::Request(format!("second {last} is after the year 9999")));
    }
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(first);
    params.not_after = epoch + Duration::from_secs(last);
    Ok(())
}

fn crypto(error: rcgen::Error) -> IssueError {
    IssueError::Crypto(error.to_string())
}

/// PEM of RFC 7468: lines of 64 characters.
fn to_pem(der: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
#[path = "x509_tests.rs"]
mod tests;
