//! rsyslog from Debian: receives syslog over TCP or TLS, and ships to Elasticsearch and Kafka as its users have it.

use super::service::Service;
use super::sshd::path;
use super::tls::Identity;
use crate::process::free_port;
use std::path::{Path, PathBuf};

/// A receiver that writes each message as it came, a line each.
#[derive(Debug)]
pub struct Rsyslog {
    /// Its process.
    pub service: Service,
    received: PathBuf,
}

impl Rsyslog {
    /// Takes RFC 6587's octet counting over plain TCP. Lines in its own language come before what writes it: further actions,
    /// e.g. `action(type="omkafka" …)`, of which the template `raw` is the message as it came; after `stop` nothing is written.
    #[must_use]
    pub fn tcp(dir: &Path, lines: &[&str]) -> Self {
        Self::prepare(dir, "", "", lines)
    }

    /// The same over TLS (RFC 5425), with this identity. It asks clients for no certificate.
    ///
    /// # Panics
    /// When its files can't be written.
    #[must_use]
    pub fn tls(dir: &Path, identity: &Identity, lines: &[&str]) -> Self {
        Self::tls_for(dir, identity, "anon", lines)
    }

    /// The same, for clients with a certificate of the same CA only.
    ///
    /// # Panics
    /// As [`Rsyslog::tls`].
    #[must_use]
    pub fn tls_for_known(dir: &Path, identity: &Identity, lines: &[&str]) -> Self {
        Self::tls_for(dir, identity, "x509/certvalid", lines)
    }

    fn tls_for(dir: &Path, identity: &Identity, clients: &str, lines: &[&str]) -> Self {
        let (ca, certificate, key) = identity.write(dir);
        let global = format!(
            "global(defaultNetstreamDriver=\"ossl\" defaultNetstreamDriverCAFile=\"{}\" \
             defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\")",
            path(&ca),
            path(&certificate),
            path(&key),
        );
        let driver =
            format!("StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"{clients}\"");
        Self::prepare(dir, &global, &driver, lines)
    }

    fn prepare(dir: &Path, global: &str, driver: &str, lines: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for rsyslog");
        let port = free_port();
        let received = dir.join("received");
        // An event and its header fit; its own limit is 8 KiB.
        let text = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"128k\" oversizemsg.report=\"on\")\n{global}\n\
             module(load=\"imtcp\" {driver})\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"raw\" type=\"list\") {{ property(name=\"rawmsg\") }}\n\
             template(name=\"line\" type=\"list\") {{ property(name=\"rawmsg\") constant(value=\"\\n\") }}\n\
             {}\naction(type=\"omfile\" file=\"{}\" template=\"line\")\n",
            path(dir),
            lines.join("\n"),
            path(&received),
        );
        let config = dir.join("rsyslog.conf");
        std::fs::write(&config, text).expect("rsyslog's configuration");
        let service = Service::new("rsyslog", dir, "/usr/sbin/rsyslogd".into(), port).arguments([
            "-n",
            "-iNONE",
            "-f",
            path(&config),
        ]);
        Self { service, received }
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        self.service.start(|| true);
    }

    /// What it has received in all its lives, as far as it is written whole.
    #[must_use]
    pub fn received(&self) -> Vec<String> {
        let bytes = std::fs::read(&self.received).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }
}
