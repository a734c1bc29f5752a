//! The SSH authorities (Ed25519). Three, never one: what people hold, what a proxy holds for one session, and hosts.
//!
//! Issuing is a function of key, time and request but for the serial and the nonce, which are random. Nothing is
//! appended here: the caller makes `certificate.issued` durable from [`IssuedSsh`] before it hands a certificate out.

use super::store::{KeyStore, KeyStoreError, PublicPart};
use crate::ssh::certificate::{Refusal, check_key};
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey, signature};
use std::net::IpAddr;
use std::sync::Arc;

/// How far certificates are back-dated, for machines whose clock is behind.
pub const BACKDATED_SECONDS: u64 = 60;

/// Longest validity of a login's certificate: a week. It can't be called back but by a lock.
pub const LOGIN_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Longest validity of a session's certificate: it is needed only until the target has let the proxy in.
pub const SESSION_SECONDS_MAX: u64 = 3600;

/// Longest validity of a host's certificate: two years.
pub const HOST_SECONDS_MAX: u64 = 2 * 366 * 24 * 3600;

/// Most principals, and longest text, of a certificate that we issue.
const PRINCIPALS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256;

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request asks for what this authority doesn't give.
    #[error("no certificate issued: {0}")]
    Request(String),
    /// The key to be certified isn't accepted.
    #[error("no certificate issued: {0}")]
    Key(#[from] Refusal),
    /// The authority's key.
    #[error("no certificate issued: {0}")]
    Store(#[from] KeyStoreError),
    /// No random numbers, or the library failed.
    #[error("no certificate issued: the cryptographic library failed ({0})")]
    Crypto(String),
}

/// A certificate that was issued, and what its event says of it.
#[derive(Debug, Clone)]
pub struct IssuedSsh {
    /// The certificate, signed.
    pub certificate: Certificate,
    /// Its number: random, never 0.
    pub serial: u64,
    /// Its key id.
    pub key_id: String,
    /// Whom or what it names.
    pub principals: Vec<String>,
    /// SHA-256 fingerprint of the certified key, as `SHA256:…`.
    pub key_fingerprint: String,
    /// SHA-256 fingerprint of the authority's key, as `SHA256:…`.
    pub authority_fingerprint: String,
    /// First second of validity, since 1970.
    pub valid_after: u64,
    /// First second in which it is no longer valid, since 1970.
    pub valid_before: u64,
}

/// Extensions that a certificate can have (PROTOCOL.certkeys).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// A terminal.
    Pty,
    /// TCP and Unix socket forwarding.
    PortForwarding,
    /// The agent.
    AgentForwarding,
    /// X11.
    X11Forwarding,
    /// `~/.ssh/rc`.
    UserRc,
}

impl Permission {
    /// All of them, as `ssh-keygen` gives by default.
    pub const ALL: [Self; 5] =
        [Self::Pty, Self::PortForwarding, Self::AgentForwarding, Self::X11Forwarding, Self::UserRc];

    /// The extension's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pty => "permit-pty",
            Self::PortForwarding => "permit-port-forwarding",
            Self::AgentForwarding => "permit-agent-forwarding",
            Self::X11Forwarding => "permit-X11-forwarding",
            Self::UserRc => "permit-user-rc",
        }
    }
}

/// One SSH authority: the name of its key in a store, and its public half.
#[derive(Clone)]
struct Authority {
    store: Arc<dyn KeyStore>,
    name: &'static str,
    public: Ed25519PublicKey,
}

/// Signs the certificates that people hold after `custody login`. Only proxies trust it.
#[derive(Clone)]
pub struct ClientAuthority(Authority);

/// Signs what a proxy holds for one session. Only targets trust it (`TrustedUserCAKeys`).
#[derive(Clone)]
pub struct TargetAuthority(Authority);

/// Signs host keys: of nodes, and of the proxy itself.
#[derive(Clone)]
pub struct HostAuthority(Authority);

/// What a person gets at login.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// The person's key.
    pub public_key: PublicKey,
    /// The user: the certificate's one principal.
    pub user: String,
    /// The login's id, for the key id.
    pub key_id: String,
    /// How long it is valid from now on, in seconds; at most [`LOGIN_SECONDS_MAX`].
    pub valid_seconds: u64,
    /// Where it may be shown from; empty: from anywhere.
    pub source_addresses: Vec<IpAddr>,
    /// What it permits.
    pub permissions: Vec<Permission>,
}

/// What a proxy gets for one session.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// The session's own key.
    pub public_key: PublicKey,
    /// The account on the target: the certificate's one principal.
    pub login: String,
    /// The session's id: the certificate's key id, which the target's sshd logs.
    pub session: String,
    /// How long it is valid from now on, in seconds; at most [`SESSION_SECONDS_MAX`].
    pub valid_seconds: u64,
    /// The proxy's addresses as the target sees them; never empty.
    pub source_addresses: Vec<IpAddr>,
    /// What the policy permits.
    pub permissions: Vec<Permission>,
    /// The one command that may run, whatever is asked for.
    pub force_command: Option<String>,
}

/// What a host gets.
#[derive(Debug, Clone)]
pub struct HostRequest {
    /// The host's key.
    pub public_key: PublicKey,
    /// The names and addresses that it goes by; never empty.
    pub names: Vec<String>,
    /// The host's id, for the key id.
    pub key_id: String,
    /// How long it is valid from now on, in seconds; at most [`HOST_SECONDS_MAX`].
    pub valid_seconds: u64,
}

macro_rules! authority {
    ($type:ty) => {
        impl $type {
            pub(super) fn new(
                store: Arc<dyn KeyStore>,
                name: &'static str,
                public: &PublicPart,
            ) -> Option<Self> {
                match public {
                    PublicPart::Ed25519(key) => {
                        Some(Self(Authority { store, name, public: Ed25519PublicKey(*key) }))
                    }
                    PublicPart::EcdsaP256(_) => None,
                }
            }

            /// What is to be trusted; its comment is the authority's name.
            pub fn public_key(&self) -> PublicKey {
                PublicKey::new(KeyData::Ed25519(self.0.public), format!("custody-{}", self.0.name))
            }
        }
    };
}
authority!(ClientAuthority);
authority!(TargetAuthority);
authority!(HostAuthority);

impl ClientAuthority {
    /// Issues a login's certificate at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`IssueError`]; nothing was issued.
    pub fn issue(&self, now: u64, request: &LoginRequest) -> Result<IssuedSsh, IssueError> {
        let mut draft = Draft::new(CertType::User, &request.public_key, &request.key_id);
        draft.principals = std::slice::from_ref(&request.user);
        draft.valid_seconds = within(request.valid_seconds, LOGIN_SECONDS_MAX)?;
        draft.source_addresses = &request.source_addresses;
        draft.permissions = &request.permissions;
        self.0.issue(now, &draft)
    }
}

impl TargetAuthority {
    /// Issues a session's certificate at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`IssueError`]; nothing was issued.
    pub fn issue(&self, now: u64, request: &SessionRequest) -> Result<IssuedSsh, IssueError> {
        if request.source_addresses.is_empty() {
            return Err(IssueError::Request("a session's certificate needs the proxy's address".to_owned()));
        }
        let mut draft = Draft::new(CertType::User, &request.public_key, &request.session);
        draft.principals = std::slice::from_ref(&request.login);
        draft.valid_seconds = within(request.valid_seconds, SESSION_SECONDS_MAX)?;
        draft.source_addresses = &request.source_addresses;
        draft.permissions = &request.permissions;
        draft.force_command = request.force_command.as_deref();
        self.0.issue(now, &draft)
    }
}

impl HostAuthority {
    /// Issues a host's certificate at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`IssueError`]; nothing was issued.
    pub fn issue(&self, now: u64, request: &HostRequest) -> Result<IssuedSsh, IssueError> {
        let mut draft = Draft::new(CertType::Host, &request.public_key, &request.key_id);
        draft.principals = &request.names;
        draft.valid_seconds = within(request.valid_seconds, HOST_SECONDS_MAX)?;
        self.0.issue(now, &draft)
    }
}

struct Draft<'a> {
    kind: CertType,
    public_key: &'a PublicKey,
    key_id: &'a str,
    principals: &'a [String],
    valid_seconds: u64,
    source_addresses: &'a [IpAddr],
    permissions: &'a [Permission],
    force_command: Option<&'a str>,
}

impl<'a> Draft<'a> {
    fn new(kind: CertType, public_key: &'a PublicKey, key_id: &'a str) -> Self {
        Self {
            kind,
            public_key,
            key_id,
            principals: &[],
            valid_seconds: 0,
            source_addresses: &[],
            permissions: &[],
            force_command: None,
        }
    }
}

fn within(seconds: u64, max: u64) -> Result<u64, IssueError> {
    if (1..=max).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(IssueError::Request(format!("validity of {seconds} s asked for, 1 to {max} are given")))
    }
}

/// Names and ids end up in sshd's logs and `authorized_principals`: no controls, no commas, no blanks.
fn check_text(what: &str, text: &str) -> Result<(), IssueError> {
    let bad = |character: char| character.is_control() || character.is_whitespace() || character == ',';
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(bad) {
        return Err(IssueError::Request(format!(
            "{what} {:?} is empty, longer than {TEXT_BYTES_MAX} bytes, or has blanks, commas or controls",
            text.chars().take(80).collect::<String>()
        )));
    }
    Ok(())
}

/// A serial that nobody can guess and that is never 0, which means "none".
fn random_serial() -> Result<u64, IssueError> {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IssueError::Crypto("no random numbers".to_owned()))?;
    Ok(u64::from_be_bytes(bytes).max(1))
}

impl Authority {
    fn issue(&self, now: u64, draft: &Draft<'_>) -> Result<IssuedSsh, IssueError> {
        check_key(draft.public_key.key_data())?;
        check_text("key id", draft.key_id)?;
        if draft.principals.is_empty() || draft.principals.len() > PRINCIPALS_MAX {
            return Err(IssueError::Request(format!("1 to {PRINCIPALS_MAX} names are needed")));
        }
        draft.principals.iter().try_for_each(|name| check_text("name", name))?;

        let valid_after = now.saturating_sub(BACKDATED_SECONDS);
        let valid_before = now.saturating_add(draft.valid_seconds);
        let serial = random_serial()?;
        let mut nonce = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| IssueError::Crypto("no random numbers".to_owned()))?;
        let key = draft.public_key.key_data().clone();
        let certificate = self.sign(draft, nonce, key, serial, valid_after..valid_before);
        let certificate = certificate.map_err(|error| IssueError::Crypto(error.to_string()))?;
        Ok(IssuedSsh {
            certificate,
            serial,
            key_id: draft.key_id.to_owned(),
            principals: draft.principals.to_vec(),
            key_fingerprint: draft.public_key.fingerprint(HashAlg::Sha256).to_string(),
            authority_fingerprint: KeyData::Ed25519(self.public).fingerprint(HashAlg::Sha256).to_string(),
            valid_after,
            valid_before,
        })
    }

    fn sign(
        &self,
        draft: &Draft<'_>,
        nonce: [u8; 32],
        key: KeyData,
        serial: u64,
        valid: std::ops::Range<u64>,
    ) -> Result<Certificate, russh::keys::ssh_key::Error> {
        let mut builder = Builder::new(nonce, key, valid.start, valid.end)?;
        builder.serial(serial)?.cert_type(draft.kind)?.key_id(draft.key_id)?;
        for principal in draft.principals {
            builder.valid_principal(principal)?;
        }
        // In the order of their names (PROTOCOL.certkeys).
        if let Some(command) = draft.force_command {
            builder.critical_option("force-command", command)?;
        }
        if !draft.source_addresses.is_empty() {
            // OpenSSH compares with the address as it sees it, which is never IPv4 written as IPv6.
            let list: Vec<String> =
                draft.source_addresses.iter().map(|ip| ip.to_canonical().to_string()).collect();
            builder.critical_option("source-address", list.join(","))?;
        }
        let mut permissions = draft.permissions.to_vec();
        permissions.sort_unstable();
        permissions.dedup();
        for permission in permissions {
            builder.extension(permission.name(), "")?;
        }
        builder.sign(self)
    }
}

impl signature::Signer<Signature> for Authority {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        let signature = self.store.sign(self.name, message).map_err(signature::Error::from_source)?;
        Signature::new(Algorithm::Ed25519, signature).map_err(signature::Error::from_source)
    }
}

impl From<&Authority> for KeyData {
    fn from(authority: &Authority) -> Self {
        Self::Ed25519(authority.public)
    }
}

#[cfg(test)]
#[path = "ssh_tests.rs"]
mod tests;
