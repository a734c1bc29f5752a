//! Certificate authorities: two sides with an authority each, and one for hosts and servers.
//!
//! *Client* authorities sign what people hold, and only proxies trust them; *target* authorities sign what a proxy
//! holds for one session, and only targets trust them. With one for both, anyone could walk past the proxy with
//! the certificate from his login. The types keep them apart: a function that wants one can't be given the other.

mod certifier;
pub(crate) mod private_file;
pub mod ssh;
pub mod store;
pub mod x509;

pub use certifier::{CertifyError, LocalCertifier, SessionCertifier, SessionCredential};
pub use private_file::PrivateFileError;
pub use ssh::IssueError;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{KeyAlgorithm, KeyStore, KeyStoreError, PublicPart};

/// Names of the keys in the store.
pub const SSH_CLIENT_CA: &str = "ssh-client-ca";
/// Signs what a proxy holds for one session.
pub const SSH_TARGET_CA: &str = "ssh-target-ca";
/// Signs host keys.
pub const SSH_HOST_CA: &str = "ssh-host-ca";
/// Signs our own servers' certificates.
pub const X509_SERVER_CA: &str = "x509-server-ca";
/// Signs users' client certificates.
pub const X509_CLIENT_CA: &str = "x509-client-ca";
/// Signs what nodes' agents show to the `log` role.
pub const X509_AGENT_CA: &str = "x509-agent-ca";
/// Signs what a proxy shows to databases.
pub const X509_TARGET_CA: &str = "x509-target-ca";
/// The proxy's own SSH host key; not an authority's.
pub const SSH_PROXY_HOST_KEY: &str = "ssh-proxy-host";

/// The authorities' keys, and how the files of their public parts end.
const PUBLISHED: [(&str, &str); 7] = [
    (SSH_CLIENT_CA, "pub"),
    (SSH_TARGET_CA, "pub"),
    (SSH_HOST_CA, "pub"),
    (X509_SERVER_CA, "pem"),
    (X509_CLIENT_CA, "pem"),
    (X509_TARGET_CA, "pem"),
    (X509_AGENT_CA, "pem"),
];

/// All authorities of one installation.
#[derive(Clone)]
pub struct Authorities {
    /// SSH, for people's logins.
    pub ssh_client: ssh::ClientAuthority,
    /// SSH, for sessions at targets.
    pub ssh_target: ssh::TargetAuthority,
    /// SSH, for hosts.
    pub ssh_host: ssh::HostAuthority,
    /// X.509, for our servers.
    pub x509_server: x509::ServerAuthority,
    /// X.509, for users.
    pub x509_client: x509::ClientAuthority,
    /// X.509, for databases.
    pub x509_target: x509::TargetAuthority,
    /// X.509, for nodes' agents.
    pub x509_agent: x509::AgentAuthority,
    /// The names of those that this opening made: each is worth an event. Empty but at the first start.
    pub made: Vec<&'static str>,
}

/// Why the authorities can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The key store.
    #[error("can't open the certificate authorities: {0}")]
    Store(#[from] KeyStoreError),
    /// Keys that were there are gone.
    #[error("the certificate authorities' keys {} are missing: put them back from the backup of the keys", .names.join(", "))]
    Lost {
        /// Which.
        names: Vec<&'static str>,
    },
    /// A key of another kind stands under an authority's name.
    #[error("can't open the certificate authorities: key {name:?} is of another kind than that authority's")]
    OtherKind {
        /// Which.
        name: &'static str,
    },
    /// Their own certificates.
    #[error("can't open the certificate authorities: {0}")]
    Issue(#[from] IssueError),
    /// Their public parts.
    #[error("can't publish the authorities' public part in {path}: {source}")]
    Publish {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Authorities {
    /// Opens all authorities at `now` (seconds since 1970), makes those that are missing, and writes their public
    /// parts into the directory `published`: `NAME.pub` for SSH, `NAME.pem` for X.509. What lies there can be made
    /// again from the keys at any time and needs no backup.
    ///
    /// # Errors
    /// [`AuthoritiesError`]. Keys that were made before the error stay and are taken up at the next opening.
    pub fn open(store: Arc<dyn KeyStore>, published: &Path, now: u64) -> Result<Self, AuthoritiesError> {
        let mut made = Vec::new();
        let mut key = |name, algorithm| open_key(&*store, name, algorithm, &mut made);
        let ssh_client = key(SSH_CLIENT_CA, KeyAlgorithm::Ed25519)?;
        let ssh_target = key(SSH_TARGET_CA, KeyAlgorithm::Ed25519)?;
        let ssh_host = key(SSH_HOST_CA, KeyAlgorithm::Ed25519)?;
        let x509_server = key(X509_SERVER_CA, KeyAlgorithm::EcdsaP256)?;
        let x509_client = key(X509_CLIENT_CA, KeyAlgorithm::EcdsaP256)?;
        let x509_target = key(X509_TARGET_CA, KeyAlgorithm::EcdsaP256)?;
        let x509_agent = key(X509_AGENT_CA, KeyAlgorithm::EcdsaP256)?;

        let pem = |name: &str| std::fs::read(published.join(format!("{name}.pem"))).ok();
        let (server_pem, client_pem) = (pem(X509_SERVER_CA), pem(X509_CLIENT_CA));
        let (target_pem, agent_pem) = (pem(X509_TARGET_CA), pem(X509_AGENT_CA));
        let other = |name| move || AuthoritiesError::OtherKind { name };
        let new_store = || Arc::clone(&store);
        let authorities = Self {
            ssh_client: ssh::ClientAuthority::new(new_store(), SSH_CLIENT_CA, &ssh_client)
                .ok_or_else(other(SSH_CLIENT_CA))?,
            ssh_target: ssh::TargetAuthority::new(new_store(), SSH_TARGET_CA, &ssh_target)
                .ok_or_else(other(SSH_TARGET_CA))?,
            ssh_host: ssh::HostAuthority::new(new_store(), SSH_HOST_CA, &ssh_host)
                .ok_or_else(other(SSH_HOST_CA))?,
            x509_server: x509::ServerAuthority::new(
                new_store(),
                X509_SERVER_CA,
                &x509_server,
                server_pem.as_deref(),
                now,
            )?,
            x509_client: x509::ClientAuthority::new(
                new_store(),
                X509_CLIENT_CA,
                &x509_client,
                client_pem.as_deref(),
                now,
            )?,
            x509_target: x509::TargetAuthority::new(
                new_store(),
                X509_TARGET_CA,
                &x509_target,
                target_pem.as_deref(),
                now,
            )?,
            x509_agent: x509::AgentAuthority::new(
                new_store(),
                X509_AGENT_CA,
                &x509_agent,
                agent_pem.as_deref(),
                now,
            )?,
            made,
        };
        authorities.publish(published)?;
        Ok(authorities)
    }

    /// Opens those of a log that was begun, as [`open`](Self::open) does, but for missing keys: whoever trusts the old one
    /// would trust nothing of another one that is made in its place. Only an authority that is new is made: its public part
    /// isn't there where others' are.
    ///
    /// # Errors
    /// [`AuthoritiesError::Lost`] before any file is written; else as `open`.
    pub fn open_begun(
        store: Arc<dyn KeyStore>,
        published: &Path,
        now: u64,
    ) -> Result<Self, AuthoritiesError> {
        let names = lost(&*store, published)?;
        if names.is_empty() {
            Self::open(store, published, now)
        } else {
            Err(AuthoritiesError::Lost { names })
        }
    }

    fn publish(&self, directory: &Path) -> Result<(), AuthoritiesError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthoritiesError::Publish { path, source }
        };
        std::fs::create_dir_all(directory).map_err(at(directory))?;
        for (name, key) in [
            (SSH_CLIENT_CA, self.ssh_client.public_key()),
            (SSH_TARGET_CA, self.ssh_target.public_key()),
            (SSH_HOST_CA, self.ssh_host.public_key()),
        ] {
            let line = key.to_openssh().map_err(|error| IssueError::Crypto(error.to_string()))?;
            let path = directory.join(format!("{name}.pub"));
            write_whole(&path, format!("{line}\n").as_bytes()).map_err(at(&path))?;
        }
        for (name, pem) in [
            (X509_SERVER_CA, self.x509_server.pem()),
            (X509_CLIENT_CA, self.x509_client.pem()),
            (X509_TARGET_CA, self.x509_target.pem()),
            (X509_AGENT_CA, self.x509_agent.pem()),
        ] {
            let path = directory.join(format!("{name}.pem"));
            write_whole(&path, pem.as_bytes()).map_err(at(&path))?;
        }
        Ok(())
    }
}

/// The keys that must have been there and aren't.
fn lost(store: &dyn KeyStore, published: &Path) -> Result<Vec<&'static str>, KeyStoreError> {
    let is_published = |name: &str, ending: &str| published.join(format!("{name}.{ending}")).exists();
    let is_any_published = PUBLISHED.iter().any(|(name, ending)| is_published(name, ending));
    let mut lost = Vec::new();
    for (name, ending) in PUBLISHED {
        let is_new = is_any_published && !is_published(name, ending);
        if !is_new && store.load(name)?.is_none() {
            lost.push(name);
        }
    }
    Ok(lost)
}

fn open_key(
    store: &dyn KeyStore,
    name: &'static str,
    algorithm: KeyAlgorithm,
    made: &mut Vec<&'static str>,
) -> Result<PublicPart, AuthoritiesError> {
    let public = match store.load(name)? {
        Some(public) => public,
        None => {
            made.push(name);
            store.generate(name, algorithm)?
        }
    };
    match (&public, algorithm) {
        (PublicPart::Ed25519(_), KeyAlgorithm::Ed25519)
        | (PublicPart::EcdsaP256(_), KeyAlgorithm::EcdsaP256) => Ok(public),
        _ => Err(AuthoritiesError::OtherKind { name }),
    }
}

/// Replaces a public file so that readers see the old or the new one, never half. Not synced: it can be made again.
fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let aside = path.with_added_extension("new");
    std::fs::File::create(&aside)?.write_all(content)?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests;
