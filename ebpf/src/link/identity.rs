//! Who the agent is: its key, which signs its events and proves it to the log, and the certificate that says whose it is.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use custody_core::log::durable;
use rcgen::CertificateParams;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

const KEY: &str = "agent.key";
const CERTIFICATE: &str = "agent.pem";
const SERVER_CA: &str = "server-ca.pem";
const JOINED: &str = "joined.json";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the key.
    #[error(
        "{0} can be read by others: set its mode to 600; whoever may have read it can sign as this node, so once the log has all that the agent has kept, stop it, remove that file and join anew, which makes another key"
    )]
    Open(PathBuf),
    /// It isn't what it should be.
    #[error("{what} in {path} can't be used: let the agent join anew with `custodyd node join`")]
    Damaged {
        /// What.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("no key can be made: the system has no randomness")]
    Randomness,
    /// A mistake in this program.
    #[error("no signing request can be made: {0}")]
    Request(#[from] rcgen::Error),
    /// TLS.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What joining gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// The node's name.
    pub node: String,
    /// The log's origin.
    pub origin: String,
    /// The API's address, `https://host:port`.
    pub server: String,
}

/// A directory with an agent's identity.
#[derive(Clone, Debug)]
pub struct Identity {
    directory: PathBuf,
}

impl Identity {
    /// What lies in `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where its key lies.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.at(KEY)
    }

    fn read(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let path = self.at(name);
        std::fs::read(&path).map(Zeroizing::new).map_err(|source| IdentityError::File { path, source })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        let (path, aside) = (self.at(name), self.at(&format!("{name}.new")));
        let written = durable::write_file(&aside, bytes, 0o600).and_then(|()| durable::rename(&aside, &path));
        written.map_err(|source| IdentityError::File { path, source })
    }

    /// Makes a key, unless there is one.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn make_key(&self) -> Result<(), IdentityError> {
        if self.at(KEY).exists() {
            return self.key().map(drop);
        }
        let key = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new());
        self.write(KEY, key.map_err(|_| IdentityError::Randomness)?.as_ref())
    }

    fn key_bytes(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let path = self.at(KEY);
        let about = std::fs::metadata(&path);
        let about = about.map_err(|source| IdentityError::File { path: path.clone(), source })?;
        if about.permissions().mode() & 0o077 != 0 {
            return Err(IdentityError::Open(path));
        }
        self.read(KEY)
    }

    /// The key that signs events.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn key(&self) -> Result<Ed25519KeyPair, IdentityError> {
        let bytes = self.key_bytes()?;
        Ed25519KeyPair::from_pkcs8(&bytes)
            .map_err(|_| IdentityError::Damaged { what: "the key", path: self.at(KEY) })
    }

    /// A request to certify the key (PKCS#10, DER).
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn signing_request(&self) -> Result<Vec<u8>, IdentityError> {
        let bytes = self.key_bytes()?;
        let key = PrivatePkcs8KeyDer::from(bytes.to_vec());
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)?;
        Ok(CertificateParams::default().serialize_request(&key)?.der().to_vec())
    }

    /// Keeps what joining gave.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn joined(
        &self,
        membership: &Membership,
        certificate: &str,
        server_ca: &[u8],
    ) -> Result<(), IdentityError> {
        self.write(SERVER_CA, server_ca)?;
        self.certified(certificate)?;
        let bytes = serde_json::to_vec(membership)
            .map_err(|error| IdentityError::File { path: self.at(JOINED), source: error.into() })?;
        self.write(JOINED, &bytes)
    }

    /// Keeps another certificate.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn certified(&self, certificate: &str) -> Result<(), IdentityError> {
        self.write(CERTIFICATE, certificate.as_bytes())
    }

    /// What joining gave.
    ///
    /// # Errors
    /// See [`IdentityError`]: most often, it hasn't joined.
    pub fn membership(&self) -> Result<Membership, IdentityError> {
        let bytes = self.read(JOINED)?;
        serde_json::from_slice(&bytes)
            .map_err(|_| IdentityError::Damaged { what: "the membership", path: self.at(JOINED) })
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, IdentityError> {
        let pem = self.read(CERTIFICATE)?;
        CertificateDer::from_pem_slice(&pem)
            .map_err(|_| IdentityError::Damaged { what: "the certificate", path: self.at(CERTIFICATE) })
    }

    /// The first and the last second at which the certificate is good, since 1970.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn validity(&self) -> Result<(u64, u64), IdentityError> {
        let damaged = || IdentityError::Damaged { what: "the certificate", path: self.at(CERTIFICATE) };
        let certificate = self.certificate()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| damaged())?;
        let seconds = |time: i64| u64::try_from(time).map_err(|_| damaged());
        let validity = parsed.validity();
        Ok((seconds(validity.not_before.timestamp())?, seconds(validity.not_after.timestamp())?))
    }

    /// How TLS is spoken with the log: it is known by its authority, and this agent shows its certificate.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn tls(&self) -> Result<Arc<rustls::ClientConfig>, IdentityError> {
        let ca = self.read(SERVER_CA)?;
        let damaged = || IdentityError::Damaged { what: "the server's authority", path: self.at(SERVER_CA) };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&ca) {
            roots.add(certificate.map_err(|_| damaged())?)?;
        }
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_bytes()?.to_vec()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![self.certificate()?], key)?;
        config.alpn_protocols = vec![custody_core::ingest::PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::new(directory.path());
        identity.make_key().unwrap();
        let before = std::fs::read(identity.at(KEY)).unwrap();
        identity.make_key().unwrap();
        assert_eq!(std::fs::read(identity.at(KEY)).unwrap(), before);
        assert!(!identity.signing_request().unwrap().is_empty());
        std::fs::set_permissions(identity.at(KEY), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(identity.key(), Err(IdentityError::Open(_))));
        assert!(matches!(identity.make_key(), Err(IdentityError::Open(_))), "joining alone doesn't help");
        // As the message says.
        std::fs::remove_file(identity.at(KEY)).unwrap();
        identity.make_key().unwrap();
        assert_ne!(std::fs::read(identity.at(KEY)).unwrap(), before);
        identity.key().unwrap();
        assert!(identity.membership().is_err(), "it hasn't joined");
    }
}
