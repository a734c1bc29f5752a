//! What all our clients of librdkafka hear, and what its errors mean.

use custody_sinks::sink::Trouble;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use rdkafka::{ClientConfig, Message as _};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A client that asks and reads.
pub type Asker = BaseConsumer<Context>;

/// Made with a group's name, since librdkafka hands over records only then; it is never joined, and nothing is committed.
const GROUP: &str = "custody";

/// What librdkafka writes before why a transaction failed. It says it nowhere else where that is no record's fault.
const TRANSACTION_FAILED: &str = "TXNERR";

/// How many clients there are. OpenSSL cleans up when the process ends, under the hands of whoever still uses it.
static LIVING: Mutex<usize> = Mutex::new(0);
static FEWER: Condvar = Condvar::new();

/// Waits until all clients are closed, for so long at most: what a program does last, after it has dropped its sinks.
pub fn wait_until_closed(limit: Duration) {
    let living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
    // Whether all are closed or the time is over: there is nothing else to be done.
    drop(FEWER.wait_timeout_while(living, limit, |living| *living > 0));
}

/// What one client hears. It is dropped after the client is closed.
#[derive(Debug)]
pub struct Context {
    heard: Mutex<Heard>,
    acknowledged: Arc<Acknowledged>,
}

impl Default for Context {
    fn default() -> Self {
        Self::telling(Arc::default())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        *living = living.saturating_sub(1);
        FEWER.notify_all();
    }
}

/// The last offset of each partition that brokers have acknowledged to us: all in-sync replicas have it. Whoever reads less
/// was shown less than there is, by a broker that doesn't know yet that it leads no longer.
#[derive(Debug, Default)]
pub struct Acknowledged(Mutex<BTreeMap<i32, i64>>);

impl Acknowledged {
    /// Held for a few instructions.
    fn offsets(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now.
    pub fn now(&self) -> BTreeMap<i32, i64> {
        self.offsets().clone()
    }

    /// Nothing is known any more: the topic may be another one.
    pub fn forget(&self) {
        self.offsets().clear();
    }
}

#[derive(Debug, Default)]
struct Heard {
    /// What went wrong last.
    last: Option<String>,
    /// That the brokers don't let us in, and how they say it.
    denied: Option<String>,
    /// Up to where each partition is fetched and handed over.
    fetched: BTreeMap<i32, i64>,
    /// Records that were given to librdkafka and not answered yet.
    open: usize,
    /// Records of the transaction that are acknowledged.
    stored: usize,
    /// What was answered to those that aren't stored: the place in the batch, and why.
    failed: Vec<(usize, Code)>,
}

impl Heard {
    fn failed_with(&mut self, reason: &str, is_denied: bool) {
        let reason = one_line(reason);
        if is_denied {
            self.denied = Some(reason.clone());
        }
        self.last = Some(reason);
    }
}

impl Context {
    /// Of a client that is to tell what is acknowledged.
    pub fn telling(acknowledged: Arc<Acknowledged>) -> Self {
        *LIVING.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self { heard: Mutex::default(), acknowledged }
    }

    /// Held for a few instructions, and never while librdkafka is called.
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the brokers don't let us in, if they said so.
    pub fn denied(&self) -> Option<Trouble> {
        let reason = self.heard().denied.clone()?;
        Some(Trouble::Denied { reason })
    }

    /// What went wrong last, to explain a `what` that came to nothing.
    pub fn reason(&self, what: &str) -> String {
        match &self.heard().last {
            Some(last) => format!("{what}: {last}"),
            None => what.to_owned(),
        }
    }

    /// Up to where each partition is fetched, where all of that was handed over when this was told.
    pub fn fetched(&self) -> BTreeMap<i32, i64> {
        self.heard().fetched.clone()
    }

    /// A transaction begins: of it nothing is stored yet.
    pub fn begins(&self) {
        self.heard().stored = 0;
    }

    /// How many records of the transaction are acknowledged.
    pub fn stored(&self) -> usize {
        self.heard().stored
    }

    /// One more record was given to librdkafka.
    pub fn was_sent(&self) {
        self.heard().open += 1;
    }

    /// How many have no answer yet.
    pub fn open(&self) -> usize {
        self.heard().open
    }

    /// One isn't even taken by librdkafka.
    pub fn was_refused(&self, place: usize, code: Code) {
        self.heard().failed.push((place, code));
    }

    /// Gives what failed so far, and forgets it.
    pub fn take_failed(&self) -> Vec<(usize, Code)> {
        std::mem::take(&mut self.heard().failed)
    }

    /// Whether something failed.
    pub fn has_failed(&self) -> bool {
        !self.heard().failed.is_empty()
    }
}

/// Of librdkafka's statistics, what tells how far a partition is read.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    partitions: BTreeMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    partition: i32,
    /// The next offset that will be fetched: all before it is in the queue, or has been. Copied before `fetchq_cnt` is
    /// counted (`rd_kafka_stats_emit_toppar`).
    next_offset: i64,
    /// What of it wasn't handed over yet, of all partitions together.
    fetchq_cnt: i64,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        use RDKafkaLogLevel as L;
        if fac == TRANSACTION_FAILED {
            self.heard().failed_with(message, message.contains("AUTHORIZATION_FAILED"));
        }
        match level {
            L::Emerg | L::Alert | L::Critical => tracing::error!("librdkafka: {fac}: {message}"),
            // A broker that is away is told of again and again; what it means for the delivery, that says itself.
            L::Error | L::Warning | L::Notice | L::Info | L::Debug => {
                tracing::debug!("librdkafka: {fac}: {message}");
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(Statistics { topics }) = serde_json::from_slice(statistics) else { return };
        let partitions = topics.into_values().flat_map(|topic| topic.partitions.into_values());
        let mut heard = self.heard();
        for Partition { partition, next_offset, .. } in partitions.filter(|found| found.fetchq_cnt == 0) {
            heard.fetched.insert(partition, next_offset);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {reason}");
        self.heard().failed_with(reason, error.rdkafka_error_code().is_some_and(keeps_out));
    }
}

impl ConsumerContext for Context {}

impl ProducerContext<NoCustomPartitioner> for Context {
    /// The place in the batch.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let mut heard = self.heard();
        heard.open = heard.open.saturating_sub(1);
        match result {
            // The newest counts, and not the highest: in a topic that was made again they begin anew.
            Ok(record) => {
                heard.stored += 1;
                // None where the broker had it already.
                if record.offset() >= 0 {
                    self.acknowledged.offsets().insert(record.partition(), record.offset());
                }
            }
            Err((error, record)) => {
                let code = code(error);
                tracing::debug!("not stored in partition {}: {code}", record.partition());
                heard.failed.push((place, code));
            }
        }
    }
}

/// A client that asks for offsets: of all that brokers have, also of what isn't decided.
///
/// # Errors
/// [`Trouble::Denied`]
pub fn asker(config: &ClientConfig) -> Result<Asker, Trouble> {
    let mut config = config.clone();
    config
        .set("isolation.level", "read_uncommitted")
        // Else asking for a topic would make it, with whatever the brokers' defaults are.
        .set("allow.auto.create.topics", "false");
    config.create_with_context(Context::default()).map_err(|error| broken_settings(&error))
}

/// A client that reads what is committed. `told`: it tells how far it is. `bytes`: how much of a partition is fetched at once.
///
/// # Errors
/// [`Trouble::Denied`]
pub fn reader(config: &ClientConfig, told: bool, bytes: usize) -> Result<Asker, Trouble> {
    let mut config = config.clone();
    config
        .set("group.id", GROUP)
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("allow.auto.create.topics", "false")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "50")
        .set("max.partition.fetch.bytes", bytes.to_string())
        .set("queued.max.messages.kbytes", "16384")
        .set("statistics.interval.ms", if told { "50" } else { "0" });
    config.create_with_context(Context::default()).map_err(|error| broken_settings(&error))
}

/// The code of any error.
pub fn code(error: &KafkaError) -> Code {
    match error {
        KafkaError::AdminOp(code) => *code,
        error => error.rdkafka_error_code().unwrap_or(Code::Unknown),
    }
}

/// What kept a client from being made. Its own words may repeat a setting's value, and values are secrets.
pub fn broken_settings(error: &KafkaError) -> Trouble {
    let reason = match error {
        KafkaError::ClientConfig(_, _, key, _) => format!("the setting {key} isn't taken by librdkafka"),
        KafkaError::ClientCreation(reason) => one_line(reason),
        error => one_line(&error.to_string()),
    };
    Trouble::Denied { reason }
}

/// Whether only a person can do something about it.
pub fn keeps_out(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
            | Code::SecurityDisabled
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::InvalidTransactionTimeout
            | Code::InvalidTopic
            | Code::InvalidTimestamp
            | Code::PolicyViolation
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::UnsupportedCompressionType
    )
}

/// What to do about it, where that isn't plain from the code.
fn advice(code: Code) -> &'static str {
    match code {
        Code::TopicAuthorizationFailed => ": allow it to describe, create, write and read the topic",
        Code::TransactionalIdAuthorizationFailed => ": allow it to describe and write its transactional id",
        Code::ClusterAuthorizationFailed => ": allow it to create the topic, or make that beforehand",
        Code::InvalidTransactionTimeout => ": timeout_seconds is too long for transaction.max.timeout.ms",
        Code::InvalidTimestamp => {
            ": the topic refuses old events; raise message.timestamp.before.max.ms and .after.max.ms"
        }
        _ => "",
    }
}

/// Trouble of which nothing was stored for sure.
pub fn refused(code: Code) -> Trouble {
    let reason = format!("{}{}", words(code), advice(code));
    match code {
        Code::MessageTimedOut => Trouble::Late { reason, in_doubt: false },
        code if keeps_out(code) => Trouble::Denied { reason },
        _ => Trouble::Refused { reason, retry_after: None },
    }
}

/// What an error is called, in one line.
pub fn words(code: Code) -> String {
    one_line(&code.to_string())
}

/// The beginning of a text, in one line.
pub fn one_line(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_to_the_end_is_told_by_the_statistics() {
        let context = Context::default();
        context.stats_raw(
            br#"{"name":"x","topics":{"t":{"topic":"t","partitions":{
                "0":{"partition":0,"next_offset":7,"fetchq_cnt":0,"more":1},
                "1":{"partition":1,"next_offset":9,"fetchq_cnt":2},
                "-1":{"partition":-1,"next_offset":-1001,"fetchq_cnt":0}}}}}"#,
        );
        assert_eq!(context.fetched(), BTreeMap::from([(0, 7), (-1, -1001)]));
        context.stats_raw(b"[]");
        assert_eq!(context.fetched().len(), 2);
    }

    #[test]
    fn errors_are_told_in_one_line_and_without_values() {
        let context = Context::default();
        assert_eq!(context.reason("no answer"), "no answer");
        context.error(KafkaError::Global(Code::BrokerTransportFailure), "refused\nby 1");
        assert_eq!(
            (context.reason("no answer").as_str(), context.denied()),
            ("no answer: refused by 1", None)
        );
        context.error(KafkaError::Global(Code::Authentication), "wrong password");
        assert!(matches!(context.denied(), Some(Trouble::Denied { reason }) if reason == "wrong password"));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("sasl.mechanism", "hush-hush");
        config.set("sasl.password", "hush-hush").set("security.protocol", "hush-hush");
        let Err(error) = asker(&config) else { panic!("it isn't a protocol") };
        assert!(!error.to_string().contains("hush") && error.to_string().contains("security.protocol"));
        assert!(matches!(refused(Code::NotEnoughReplicas), Trouble::Refused { .. }));
        let denied = refused(Code::TopicAuthorizationFailed);
        assert!(matches!(&denied, Trouble::Denied { reason } if reason.contains("allow")), "{denied}");
    }
}
