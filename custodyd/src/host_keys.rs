//! What the SSH listener shows: its host keys, each with a certificate of the host CA that is in the log before it is
//! shown, and those that come into use later.

use crate::config::Config;
use crate::identity::{LOOK_EVERY, is_due};
use crate::keys::about;
use crate::run::SERVER_SECONDS;
use anyhow::Context as _;
use custody_core::clock::Clock;
use custody_core::event::certificate::Authority;
use custody_core::event::{Actor, Draft, Outcome};
use custody_core::log::Producer;
use custody_proxy::ca::ssh::HostRequest;
use custody_proxy::ca::store::{FileKeyStore, KeyAlgorithm, KeyStore as _, host_key_file};
use custody_proxy::ca::{Authorities, SSH_PROXY_HOST_KEY};
use custody_proxy::ssh::accept::Entrance;
use custody_proxy::ssh::transport::host_key::HostKey;
use custody_proxy::ssh::transport::kex::KexAlgorithm;
use custody_proxy::ssh::transport::leg::ServerConfig;
use custody_proxy::ssh::transport::mac::Mac;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a failure to certify the keys again is left alone: a key before the one that failed may have its certificate, and its event.
const AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// What it takes to certify the listener's keys again.
pub struct Renewal {
    /// What names them.
    pub config: Config,
    /// Where the proxy's own key lies.
    pub keys: Arc<FileKeyStore>,
    /// Who signs.
    pub authorities: Arc<Authorities>,
    /// The `log` role's own events.
    pub producer: Arc<Producer>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What shows them.
    pub entrance: Arc<Entrance>,
}

impl Renewal {
    /// Shows other certificates when half of the time of those before is over, as long as the program runs. The ones that are shown at the
    /// beginning were made at `since`, in seconds since 1970. Configured keys are read again, as at a start.
    pub async fn in_time(self, mut since: u64) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.clock.wall().0 / 1_000_000_000;
            if !is_due(now, (since, since.saturating_add(SERVER_SECONDS))) {
                continue;
            }
            match ssh_server(&self.config, &self.keys, &self.authorities, &self.producer, now).await {
                Ok(server) => {
                    self.entrance.show(Arc::new(server));
                    since = now;
                    tracing::info!("the SSH proxy shows other certificates: the old ones' time is half over");
                }
                // There is time left to mend it.
                Err(error) => {
                    tracing::error!("no other certificates for SSH, will be tried again: {error:#}");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// The listener's side of the transport. `now` is in seconds since 1970.
pub async fn ssh_server(
    config: &Config,
    keys: &FileKeyStore,
    authorities: &Authorities,
    producer: &Producer,
    now: u64,
) -> anyhow::Result<ServerConfig> {
    if keys.load(SSH_PROXY_HOST_KEY)?.is_none() {
        let _public = keys.generate(SSH_PROXY_HOST_KEY, KeyAlgorithm::Ed25519)?;
    }
    let read = |path: &Path| host_key_file(path).with_context(|| format!("the host key {}", path.display()));
    // Configured ones first: of two of a kind the first is shown, and clients know the one of the host that was here
    // before.
    let mut private = Vec::new();
    for path in &config.ssh.host_keys {
        private.push(read(path)?);
    }
    private.push(keys.host_private_key(SSH_PROXY_HOST_KEY)?);

    let mut host_keys = Vec::new();
    for key in &private {
        let request = HostRequest {
            public_key: key.public_key().clone(),
            // The last is what `ssh -J` calls nodes: at the proxy, it is the proxy that answers for them.
            names: config.ssh.names.iter().cloned().chain(["*.custody".to_owned()]).collect(),
            key_id: format!("{}-proxy", config.name),
            valid_seconds: SERVER_SECONDS,
        };
        let issued = authorities.ssh_host.issue(now, &request)?;
        let draft = Draft::new(Actor::system("custodyd"), about(Authority::HostSsh, &issued))
            .outcome(Outcome::Success);
        let _durable = producer.append(draft).await?;
        host_keys.push(HostKey::new(key, Some(&issued.certificate))?);
    }
    let mut server = ServerConfig::new(host_keys);
    for path in &config.ssh.upcoming_host_keys {
        server.upcoming_host_keys.push(HostKey::new(&read(path)?, None)?);
    }
    if config.ssh.nist_curves {
        server.kex = KexAlgorithm::ALL.to_vec();
    }
    if config.ssh.plain_macs {
        server.macs = Mac::ALL.to_vec();
    }
    Ok(server)
}
