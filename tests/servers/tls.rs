//! Certificates for servers of the tests.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::path::{Path, PathBuf};

/// A CA, and certificates of it: a server's for `localhost` and `127.0.0.1`, and a client's. All in PEM.
#[derive(Debug)]
pub struct Identity {
    /// The CA's certificate.
    pub ca: String,
    /// The server's.
    pub certificate: String,
    key: String,
    /// The client's certificate.
    pub client_certificate: String,
    /// And its key.
    pub client_key: String,
}

impl Identity {
    /// A new CA, and certificates by it.
    ///
    /// # Panics
    /// When the keys can't be made.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Custody's tests");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a CA");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let key = KeyPair::generate().expect("a key");
        let server =
            CertificateParams::new(names).expect("names").signed_by(&key, &ca).expect("a certificate");
        let client_key = KeyPair::generate().expect("a key");
        let client = CertificateParams::default().signed_by(&client_key, &ca).expect("a certificate");
        Self {
            ca: ca.pem(),
            certificate: server.pem(),
            key: key.serialize_pem(),
            client_certificate: client.pem(),
            client_key: client_key.serialize_pem(),
        }
    }

    /// Writes `ca.pem`, `server.pem` and `server.key` into a folder, and gives their paths.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn write(&self, dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
        std::fs::create_dir_all(dir).expect("a folder for certificates");
        let write = |name: &str, text: &str| {
            let file = dir.join(name);
            std::fs::write(&file, text).expect("a certificate or key");
            file
        };
        (write("ca.pem", &self.ca), write("server.pem", &self.certificate), write("server.key", &self.key))
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}
