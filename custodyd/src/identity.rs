//! The certificate that the API's listener shows, to people and to nodes' agents: in the log before it is shown, and another one in its
//! place when half of its time is over, since no start may come for years.

use crate::run::SERVER_SECONDS;
use custody_core::clock::Clock;
use custody_core::event::certificate::{Authority, Issued};
use custody_core::event::{Actor, Draft, Outcome};
use custody_core::log::Producer;
use custody_proxy::api::tls::Shown;
use custody_proxy::ca::x509::{ServerAuthority, ServerIdentity};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether another certificate is due. A clock that somebody sets right again may make one due at once.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What makes certificates for the listener.
pub struct Issuing {
    /// Who signs.
    pub authority: ServerAuthority,
    /// The names and addresses of the listener.
    pub names: Vec<String>,
    /// The `log` role's own events.
    pub producer: Arc<Producer>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// The listener's certificate.
pub struct Identity {
    issuing: Issuing,
    shown: Arc<Shown>,
    /// The first and the last second at which the one that is shown is good, since 1970.
    validity: (u64, u64),
}

impl Issuing {
    fn now(&self) -> u64 {
        self.clock.wall().0 / 1_000_000_000
    }

    /// Another key with its certificate, of which the log holds the event when this returns.
    async fn issue(&self) -> anyhow::Result<ServerIdentity> {
        let addresses: Vec<IpAddr> = self.names.iter().filter_map(|name| name.parse().ok()).collect();
        let names = self.names.iter().filter(|name| name.parse::<IpAddr>().is_err());
        let names: Vec<String> = names.cloned().collect();
        let server = self.authority.issue(self.now(), &names, &addresses, SERVER_SECONDS)?;
        let told = server.issued.told(Authority::ServerX509)?;
        let x509 = Issued { principals: self.names.clone(), ..told };
        let draft = Draft::new(Actor::system("custodyd"), x509).outcome(Outcome::Success);
        let _durable = self.producer.append(draft).await?;
        Ok(server)
    }
}

impl Identity {
    /// With a certificate of its own.
    ///
    /// # Errors
    /// When none can be issued, or the log doesn't take its event.
    pub async fn begin(issuing: Issuing) -> anyhow::Result<Self> {
        let server = issuing.issue().await?;
        let validity = (server.issued.not_before, server.issued.not_after);
        Ok(Self { issuing, shown: Arc::new(Shown::new(server)?), validity })
    }

    /// What the listener shows.
    pub fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    /// Shows another certificate in good time, as long as the program runs.
    pub async fn renew_in_time(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.renew_if_due().await {
                Ok(true) => {
                    tracing::info!("the API shows another certificate: the old one's time is half over");
                }
                Ok(false) => {}
                // There is time left to mend it.
                Err(error) => {
                    tracing::error!("no other certificate for the API, will be tried again: {error:#}");
                }
            }
        }
    }

    /// Gives whether another one is shown now. An error leaves the one before.
    async fn renew_if_due(&mut self) -> anyhow::Result<bool> {
        if !is_due(self.issuing.now(), self.validity) {
            return Ok(false);
        }
        let server = self.issuing.issue().await?;
        let validity = (server.issued.not_before, server.issued.not_after);
        self.shown.replace(server)?;
        self.validity = validity;
        Ok(true)
    }
}

/// Whether half of its time is over; or it isn't good yet, since the clock was ahead when it was made.
pub fn is_due(now: u64, (from, until): (u64, u64)) -> bool {
    !(from..from.midpoint(until)).contains(&now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::clock::{ManualClock, Nanos};
    use custody_core::event::{ProducerKind, producer};
    use custody_core::log::embedded::{EmbeddedLog, Options};
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::{Log, Numbering};
    use custody_proxy::ca::Authorities;
    use custody_proxy::ca::store::FileKeyStore;

    const START: Nanos = Nanos(1_800_000_000_000_000_000);

    #[test]
    fn a_certificate_is_due_for_renewal_from_half_of_its_time_on_and_while_it_is_not_good_yet() {
        let due = [99, 100, 149, 150, 200, 201].map(|now| is_due(now, (100, 200)));
        assert_eq!(due, [true, false, false, true, true, true]);
    }

    #[tokio::test]
    async fn another_certificate_is_shown_in_time_without_a_start_and_is_in_the_log_before() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let manual = Arc::new(ManualClock::new(START));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
        let signer = Arc::new(Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());
        let options = Options::new(signer, Arc::clone(&clock));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&at("log"), options).unwrap());
        let numbering = Numbering {
            log: Arc::clone(&log),
            clock: Arc::clone(&clock),
            id: "custody".into(),
            kind: ProducerKind::Log,
            previous: None,
            program: "test".into(),
        };
        let nothing = Vec::<Draft<producer::Started>>::new();
        let producer = Arc::new(Producer::start(numbering, nothing).await.unwrap());
        let keys = Arc::new(FileKeyStore::open(&at("keys")).unwrap());
        let authorities = Authorities::open(keys, &at("ca"), START.0 / 1_000_000_000).unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let authority = authorities.x509_server.clone();
        let mut identity = Identity::begin(Issuing { authority, names, producer, clock }).await.unwrap();
        let first = identity.shown().current();
        let issued = log.size();
        let half = Duration::from_secs(SERVER_SECONDS / 2);
        let day = Duration::from_secs(24 * 3600);
        manual.advance(half - day);
        assert!(!identity.renew_if_due().await.unwrap());
        assert_eq!((identity.shown().current().cert.clone(), log.size()), (first.cert.clone(), issued));
        manual.advance(day);
        assert!(identity.renew_if_due().await.unwrap());
        let second = identity.shown().current();
        assert_ne!(second.cert, first.cert);
        let told = log.read(issued, 2, usize::MAX).unwrap();
        let told: Vec<_> = told.iter().map(|entry| String::from_utf8_lossy(&entry.bytes)).collect();
        assert!(told.len() == 1 && told[0].contains("\"certificate.issued\""), "{told:?}");
        assert!(!identity.renew_if_due().await.unwrap(), "once");
        manual.advance(half + half);
        assert!(identity.renew_if_due().await.unwrap(), "also when the time of one is over");
        manual.set_wall(START);
        assert!(identity.renew_if_due().await.unwrap(), "a clock that was ahead is set right");
        assert!(!identity.renew_if_due().await.unwrap());
    }
}
