//! What is configured.

use custody_sinks::secret::Secrets;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// `[sink.kafka]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Some of the brokers, `HOST:PORT` each; they tell of the others.
    pub brokers: Vec<String>,
    /// The topic. It is made if it isn't there.
    #[serde(default = "topic")]
    pub topic: String,
    /// TLS, with this table.
    pub tls: Option<Tls>,
    /// What the brokers want to be shown.
    pub sasl: Option<Sasl>,
    /// Partitions of a topic that is made.
    #[serde(default = "partitions")]
    pub partitions: u16,
    /// Copies of each partition of a topic that is made: three where there are three brokers or more.
    pub replication: Option<u8>,
    /// Of a topic that is made: how many brokers must have what is acknowledged. One less than there are copies, and at
    /// least one.
    pub min_in_sync: Option<u8>,
    /// How records are packed.
    #[serde(default)]
    pub compression: Compression,
    /// Events in one transaction, at most: so many are looked up at once after a crash.
    #[serde(default = "transaction_events")]
    pub transaction_events: usize,
    /// How long brokers may take for one thing, in seconds.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// By what the brokers know this sink and shut out whoever was it before. Made of the log's origin and the sink's name
    /// if it isn't said.
    pub transactional_id: Option<String>,
}

fn topic() -> String {
    "custody.events".to_owned()
}

const fn partitions() -> u16 {
    12
}

/// Where the brokers haven't written yet how one ended, the next is tried again after 20 ms: few, and long ones.
const fn transaction_events() -> usize {
    40_000
}

const fn timeout_seconds() -> u64 {
    30
}

/// TLS to the brokers. Their certificates must have the names by which they are connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the authorities that their certificates are checked against; the machine's own without one.
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate that we show, and those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// The name of the secret that is its key, in PEM.
    pub key: Option<String>,
}

/// A user and a password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How it is shown.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// The name of the secret that is the password.
    pub secret: String,
}

/// How a password is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// As it is (RFC 4616).
    Plain,
    /// RFC 5802 with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// RFC 5802 with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// How records are packed on the wire and on the brokers' disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not.
    None,
    /// RFC 1952.
    Gzip,
    /// Cheap, and known to all clients.
    #[default]
    Lz4,
    /// Snappy.
    Snappy,
    /// The smallest; brokers from 2.1 on.
    Zstd,
}

impl Compression {
    /// Its name in librdkafka.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

impl Settings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What doesn't.
    pub fn check(&self) -> Result<(), String> {
        if self.brokers.is_empty() {
            return Err("brokers = [] names none: write [\"kafka-1.example:9092\"]".to_owned());
        }
        if let Some(broker) = self.brokers.iter().find(|broker| !is_address(broker)) {
            return Err(format!("brokers: \"{broker}\" must be HOST:PORT"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let topic = self.topic.as_str();
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(plain) || [".", ".."].contains(&topic)
        {
            return Err(format!("topic = \"{topic}\" must be 1 to 249 letters, digits, . _ or -"));
        }
        if !(1..=10_000).contains(&self.partitions) {
            return Err(format!("partitions = {} must be 1 to 10000", self.partitions));
        }
        if self.replication == Some(0) || self.min_in_sync == Some(0) {
            return Err("replication and min_in_sync must be 1 or more".to_owned());
        }
        if let (Some(replication), Some(min)) = (self.replication, self.min_in_sync)
            && min > replication
        {
            return Err(format!(
                "min_in_sync = {min} can't be more than replication = {replication}: nothing would be acknowledged"
            ));
        }
        if !(100..=100_000).contains(&self.transaction_events) {
            return Err(format!("transaction_events = {} must be 100 to 100000", self.transaction_events));
        }
        // The brokers' default for the longest transaction is a quarter of an hour, and ours is twice this and a bit.
        if !(1..=300).contains(&self.timeout_seconds) {
            return Err(format!("timeout_seconds = {} must be 1 to 300", self.timeout_seconds));
        }
        if let Some(Tls { certificate, key, .. }) = &self.tls
            && certificate.is_some() != key.is_some()
        {
            return Err("tls: certificate and key go together".to_owned());
        }
        if self.tls.is_none() && self.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == Mechanism::Plain) {
            return Err("sasl: plain without tls shows the password to the network: add tls = {}, or use scram-sha-512".into());
        }
        if self.transactional_id.as_deref().is_some_and(|id| id.is_empty() || id.contains(char::is_control)) {
            return Err("transactional_id must be some text in one line".to_owned());
        }
        Ok(())
    }

    /// How long brokers may take for one thing.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// What all clients have in common; credentials are read now.
    ///
    /// # Errors
    /// What is wrong with a credential, in one line that doesn't tell it.
    pub(crate) fn client(&self, secrets: &Secrets) -> Result<ClientConfig, String> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), None) => "ssl",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        let timeout_ms = self.timeout().as_millis().to_string();
        config
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "custody")
            .set("security.protocol", protocol)
            .set("socket.timeout.ms", timeout_ms)
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("socket.connection.setup.timeout.ms", "10000")
            // Who was away for an hour is found again within seconds.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("log.connection.close", "false");
        if let Some(tls) = &self.tls {
            config
                .set("enable.ssl.certificate.verification", "true")
                .set("ssl.endpoint.identification.algorithm", "https");
            if let Some(ca) = &tls.ca {
                // librdkafka's own message would be about a line of OpenSSL's.
                std::fs::metadata(ca).map_err(|error| format!("tls: {}: {error}", ca.display()))?;
                config.set("ssl.ca.location", ca.display().to_string());
            }
            if let Some(certificate) = &tls.certificate {
                std::fs::metadata(certificate)
                    .map_err(|error| format!("tls: {}: {error}", certificate.display()))?;
                config.set("ssl.certificate.location", certificate.display().to_string());
            }
            if let Some(key) = &tls.key {
                config.set("ssl.key.pem", secrets.read(key)?.as_str());
            }
        }
        if let Some(sasl) = &self.sasl {
            let mechanism = match sasl.mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            config
                .set("sasl.mechanism", mechanism)
                .set("sasl.username", sasl.user.as_str())
                .set("sasl.password", secrets.read(&sasl.secret)?.as_str());
        }
        Ok(config)
    }
}

fn is_address(broker: &str) -> bool {
    let Some((host, port)) = broker.rsplit_once(':') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let bracketed = |host: &str| {
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let named = !host.is_empty() && host.chars().all(plain);
    (named || bracketed(host)) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kafka;
    use custody_sinks::sink::Sink as _;

    fn minimal() -> Settings {
        serde_json::from_str(r#"{"brokers":["127.0.0.1:9092"]}"#).unwrap()
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Result<(), String> {
        let mut settings = minimal();
        change(&mut settings);
        settings.check()
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(minimal().check(), Ok(()));
        assert_eq!(with(|s| s.brokers.push("[::1]:9092".into())), Ok(()));
        for wrong in
            ["kafka", "kafka:", ":1", "kafka:0", "http://kafka:1", "a:1,b:2", "u@k:1", "[::1:1", "[x]:1"]
        {
            assert!(with(|s| s.brokers.push(wrong.into())).unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
        assert!(with(|s| s.brokers.clear()).is_err());
        for wrong in ["", ".", "..", "a b", "é", &"a".repeat(250)] {
            assert!(with(|s| s.topic = wrong.into()).unwrap_err().contains("topic"), "{wrong}");
        }
        assert!(with(|s| s.partitions = 0).is_err());
        assert!(with(|s| (s.replication, s.min_in_sync) = (Some(2), Some(3))).is_err());
        for wrong in [0, 99, 100_001] {
            let told = with(|s| s.transaction_events = wrong).unwrap_err();
            assert!(told.contains("transaction_events") && told.contains("100000"), "{told}");
        }
        assert!(with(|s| s.timeout_seconds = 0).is_err() && with(|s| s.timeout_seconds = 301).is_err());
        assert!(with(|s| s.tls = Some(Tls { key: Some("k".into()), ..Tls::default() })).is_err());
        assert!(with(|s| s.transactional_id = Some("a\nb".into())).is_err());
        let plain = Sasl { mechanism: Mechanism::Plain, user: "u".into(), secret: "s".into() };
        assert!(with(|s| s.sasl = Some(plain.clone())).unwrap_err().contains("tls"));
        let both = |s: &mut Settings| (s.tls, s.sasl) = (Some(Tls::default()), Some(plain.clone()));
        assert_eq!(with(both), Ok(()));
        assert!(serde_json::from_str::<Settings>(r#"{"brokers":["a:1"],"password":"x"}"#).is_err());
    }

    #[test]
    fn a_transaction_has_as_many_events_as_is_said() {
        let nothing = Secrets::new(std::path::Path::new("/nowhere"));
        let events = |settings: Settings| {
            Kafka::new(settings, nothing.clone(), "tested", "custody.test/log").limits().batch_events
        };
        assert_eq!(events(minimal()), 40_000);
        let few = r#"{"brokers":["127.0.0.1:9092"],"transaction_events":100}"#;
        let few: Settings = serde_json::from_str(few).unwrap();
        assert_eq!((few.check(), events(few)), (Ok(()), 100));
    }

    #[test]
    fn credentials_come_from_the_store_and_stand_in_no_message() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(&dir.path().join("sinks"));
        let mut settings = minimal();
        settings.tls = Some(Tls::default());
        settings.sasl =
            Some(Sasl { mechanism: Mechanism::ScramSha512, user: "custody".into(), secret: "kafka".into() });
        assert!(settings.client(&secrets).unwrap_err().contains("custodyd secret put kafka"));
        for password in ["first", "second"] {
            secrets.put("kafka", password).unwrap();
            let config = settings.client(&secrets).unwrap();
            assert_eq!(config.get("sasl.password"), Some(password), "it is read anew");
            assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
            assert!(!format!("{config:?}").contains(password));
        }
        settings.tls = Some(Tls { ca: Some("/nowhere/ca.pem".into()), ..Tls::default() });
        assert!(settings.client(&secrets).unwrap_err().contains("/nowhere/ca.pem"));
    }
}
