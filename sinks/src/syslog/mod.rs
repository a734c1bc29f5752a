//! Syslog: messages of RFC 5424 over TLS (RFC 5425), or over plain TCP to a collector on this machine.
//!
//! Syslog has no acknowledgement; that TCP took a message says nothing of the receiver. But the end of a connection does:
//! a receiver answers our `close_notify` with its own (RFC 5425, 4.4), which it can only once its TLS has taken every
//! record before; and a program that ends with unread data resets the connection instead of closing it (RFC 1122,
//! 4.2.2.13). So each batch has a connection of its own, and is confirmed by its orderly end ([`connection`]). Whatever
//! ends otherwise is sent again: at least once, since nothing can be read back.

mod addresses;
mod connection;
mod message;
#[cfg(test)]
mod tests;
mod tls;

pub use self::tls::Settings as TlsSettings;

use self::connection::Receiver;
use self::message::{Header, frame};
use crate::format::{Format, logged};
use crate::item::Item;
use crate::secret::Secrets;
use crate::sink::{Answer, Found, Limits, Sink, Trouble, Unproven, Window};
use custody_core::mapping::{self, Severity};
use serde::Deserialize;
use std::net::IpAddr;
use std::time::Duration;

/// What RFC 5424 (7.2.2) gives to documentation; its owners get their own from IANA.
const ENTERPRISE: u32 = 32_473;
/// "log audit" (RFC 5424, table 1).
const FACILITY: u8 = 13;
const FACILITY_MAX: u8 = 23;
/// What rsyslog and many others take as they are installed.
const MESSAGE_BYTES: usize = 8_192;
/// Header and structured data fit into it with room for the beginning of an event.
const MESSAGE_BYTES_MIN: usize = 1_024;
/// No receiver takes more; an event has at most 65,535 bytes, and some more in another format.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// `[sink.syslog]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it is, `host:port`; the port of syslog over TLS is 6514.
    pub server: String,
    /// By what messages travel.
    #[serde(default)]
    pub transport: Transport,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsSettings,
    /// What a message holds.
    #[serde(default)]
    pub format: Format,
    /// The facility, 0 to 23.
    #[serde(default = "facility")]
    pub facility: u8,
    /// The private enterprise number in the structured data's name.
    #[serde(default = "enterprise")]
    pub enterprise: u32,
    /// What stands as the sender's name; the host in the log's origin without one.
    pub hostname: Option<String>,
    /// The longest message, in bytes; what is longer is cut, and says so.
    #[serde(default = "message_bytes")]
    pub message_bytes_max: usize,
}

/// By what messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 5425.
    #[default]
    Tls,
    /// RFC 6587 with octet counting: anybody in between can read and change it, so only to this machine.
    Tcp,
}

const fn facility() -> u8 {
    FACILITY
}

const fn enterprise() -> u32 {
    ENTERPRISE
}

const fn message_bytes() -> usize {
    MESSAGE_BYTES
}

impl Settings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What doesn't.
    pub fn check(&self) -> Result<(), String> {
        let Some((host, port)) = self.server.rsplit_once(':') else {
            return Err(format!("server = \"{}\" must be host:port", self.server));
        };
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(format!("server = \"{}\" must be host:port", self.server));
        }
        if self.transport == Transport::Tcp {
            if !is_this_machine(host) {
                return Err(format!(
                    "server = \"{}\": without TLS only to this machine (127.0.0.1, ::1, localhost); set transport = \"tls\"",
                    self.server
                ));
            }
            if self.tls != TlsSettings::default() {
                return Err("transport = \"tcp\" has no use for tls: leave one of them out".to_owned());
            }
        }
        if self.facility > FACILITY_MAX {
            return Err(format!("facility = {} must be 0 to {FACILITY_MAX}", self.facility));
        }
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&self.message_bytes_max) {
            return Err(format!(
                "message_bytes_max = {} must be {MESSAGE_BYTES_MIN} to {MESSAGE_BYTES_MAX}",
                self.message_bytes_max
            ));
        }
        if let Some(name) = &self.hostname
            && (name.is_empty() || name.len() > message::HOSTNAME_BYTES_MAX || !message::is_printable(name))
        {
            return Err(format!("hostname = \"{name}\" must be 1 to 255 printable ASCII characters"));
        }
        self.tls.check(host_of(&self.server))
    }
}

/// The host of `host:port`, without an IPv6 address's brackets.
fn host_of(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_this_machine(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Delivers to a syslog receiver.
pub struct Syslog {
    receiver: Receiver,
    format: Format,
    header: Header,
}

impl Syslog {
    /// For the log with that origin.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, origin: &str) -> Self {
        let hostname = settings.hostname.unwrap_or_else(|| message::hostname(origin));
        Self {
            header: Header {
                facility: settings.facility,
                enterprise: settings.enterprise,
                hostname,
                origin: origin.to_owned(),
                bytes_max: settings.message_bytes_max,
            },
            format: settings.format,
            receiver: Receiver::new(settings.server, settings.transport, settings.tls, secrets),
        }
    }
}

impl Sink for Syslog {
    /// A message with its length before it (RFC 5425, 4.3).
    type Encoded = Vec<u8>;

    fn limits(&self) -> Limits {
        Limits {
            // The end of a connection and the beginning of the next cost time, in which nothing is sent.
            batch_events: 8_000,
            batch_bytes: 8 << 20,
            // In two seconds over a line of a megabit.
            first_bytes: 256 << 10,
            // In the log's order. And receivers may mix up what comes over several connections at once: when rsyslog 8.2302 first has
            // two over TLS, it writes lines of one in the place of the other's now and then, and ends both in order.
            in_flight: 1,
            takes_turns: true,
            // A connection for each batch: two a second at most while little happens.
            linger: Duration::from_millis(500),
            timeout: Duration::from_secs(30),
        }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        Ok(())
    }

    fn encode(&self, item: &Item) -> Result<Vec<u8>, String> {
        let logged = logged(item, &self.header.origin);
        let body = self.format.of(&logged);
        let head = item.head();
        let about = match &head {
            Some(head) => (&*head.kind, Severity::of(head)),
            None => ("", mapping::severity(&logged)),
        };
        Ok(frame(self.header.message(&logged, about, item.redacted, &body)))
    }

    fn bytes(encoded: &Vec<u8>) -> usize {
        encoded.len()
    }

    async fn send(&self, batch: &[&Vec<u8>]) -> Result<Vec<Answer>, Trouble> {
        let mut bytes = Vec::with_capacity(batch.iter().map(|frame| frame.len()).sum());
        for frame in batch {
            bytes.extend_from_slice(frame);
        }
        self.receiver.take(&bytes).await?;
        Ok(vec![Answer::Stored; batch.len()])
    }

    async fn read_back(&self, _: &Window) -> Result<Found, Unproven> {
        Err(Unproven::Never("syslog has no way to ask a receiver what it holds"))
    }
}
