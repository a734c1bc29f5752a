//! Certificates of syslog over TLS: read anew for each connection, so that a new one counts without a restart.

use crate::authorities::Version;
use crate::secret::Secrets;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{RootCertStore, WantsVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// `tls` of `[sink.syslog]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A PEM file with the authorities that the receiver's certificate is checked against; the machine's own without one.
    pub ca: Option<PathBuf>,
    /// The name that its certificate must have, where it isn't the host of `server`.
    pub server_name: Option<String>,
    /// A PEM file with our certificate and those between it and its authority.
    pub certificate: Option<PathBuf>,
    /// The name of the secret that holds its private key, PEM.
    pub key: Option<String>,
    /// Take TCP's orderly end for a confirmation where the receiver doesn't send the `close_notify` that RFC 5425 (4.4)
    /// demands. Somebody in the network can then swallow messages unnoticed.
    pub trusts_tcp_close: bool,
}

impl Settings {
    /// Whether they make sense.
    pub(super) fn check(&self, host: &str) -> Result<(), String> {
        let name = self.server_name.as_deref().unwrap_or(host);
        if ServerName::try_from(name).is_err() {
            return Err(format!("\"{name}\" is no host's name: set tls.server_name"));
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err(
                "tls.certificate and tls.key belong together: the file and the name of the secret".to_owned()
            );
        }
        Ok(())
    }
}

/// What a connection's TLS is made from.
#[derive(PartialEq, Eq)]
struct Material {
    ca: Option<Vec<u8>>,
    /// Of the machine's own, without `ca`.
    authorities: Version,
    identity: Option<(Vec<u8>, Zeroizing<String>)>,
}

/// Makes the configuration, anew when something that it is made from has changed.
pub(super) struct Tls {
    settings: Settings,
    secrets: Secrets,
    kept: Mutex<Option<(Material, Arc<ClientConfig>)>>,
}

impl Tls {
    pub(super) fn new(settings: Settings, secrets: Secrets) -> Self {
        Self { settings, secrets, kept: Mutex::new(None) }
    }

    /// The name that the receiver's certificate must have.
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, String> {
        let name = self.settings.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).map_err(|_| format!("\"{name}\" is no host's name"))
    }

    pub(super) fn trusts_tcp_close(&self) -> bool {
        self.settings.trusts_tcp_close
    }

    /// # Errors
    /// What is wrong with a file or a secret, for a person to mend.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let material = self.read()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_from, config)) = &*kept
            && *made_from == material
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build(&material)?);
        *kept = Some((material, Arc::clone(&config)));
        Ok(config)
    }

    fn read(&self) -> Result<Material, String> {
        let ca = self.settings.ca.as_deref().map(read).transpose()?;
        let identity = match (&self.settings.certificate, &self.settings.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, self.secrets.read(key)?)),
            _ => None,
        };
        let of = self.settings.ca.as_deref();
        let authorities = Version::of(of).map_err(|error| named(of.unwrap_or(Path::new("")), &error))?;
        Ok(Material { ca, authorities, identity })
    }

    fn build(&self, material: &Material) -> Result<ClientConfig, String> {
        let builder: rustls::ConfigBuilder<ClientConfig, WantsVerifier> =
            ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?;
        let builder = match (&material.ca, &self.settings.ca) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(pem, path)? {
                    roots.add(authority).map_err(|error| named(path, &error))?;
                }
                builder.with_root_certificates(roots)
            }
            _ => builder
                .with_platform_verifier()
                .map_err(|error| format!("this machine's authorities can't be read: {error}"))?,
        };
        let (Some((certificate, key)), Some(path), Some(name)) =
            (&material.identity, &self.settings.certificate, &self.settings.key)
        else {
            return Ok(builder.with_no_client_auth());
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| format!("the secret {name} is no private key in PEM"))?;
        builder
            .with_client_auth_cert(certificates(certificate, path)?, key)
            .map_err(|error| named(path, &error))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| named(path, &error))
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| named(path, &"no PEM certificate in it"))
}

fn named(path: &Path, reason: &dyn std::fmt::Display) -> String {
    format!("{}: {reason}", path.display())
}
