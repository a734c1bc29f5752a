//! The topic: made if it isn't there, and looked at if it is. What is there already isn't changed.

use crate::aside::Waiting;
use crate::client::{Asker, Context, broken_settings, code, refused, words};
use crate::settings::Settings;
use custody_sinks::sink::Trouble;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long one question may take before it is asked again.
const STEP: Duration = Duration::from_secs(1);
/// How long is listened to what happened.
const HEAR: Duration = Duration::from_millis(10);
/// How long brokers that don't let us in may take to think better of it: one of several may be wrong.
const DOUBT: Duration = Duration::from_secs(2);
/// The longest record with an event: 65,535 bytes, and what stands beside it.
const RECORD_BYTES: i64 = 68 << 10;
/// The longest packed set of records that a topic of ours takes, in bytes: Kafka's own default.
const SET_BYTES_MAX: &str = "1048588";
/// Copies where there are brokers for them.
const REPLICATION: usize = 3;

/// What is known of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The numbers of its partitions.
    pub partitions: Vec<i32>,
    /// The longest packed set of records that it takes, in bytes; `None` where nobody may ask.
    pub set_bytes_max: Option<usize>,
}

/// What was told of topics already: once is enough.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeSet<String>>);

impl Told {
    /// Held only to look.
    fn is_new(&self, text: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned())
    }

    fn warn(&self, topic: &str, text: &str) {
        if self.is_new(text) {
            tracing::warn!("Kafka's topic {topic}: {text}");
        }
    }
}

/// Everything that asking and making needs.
pub struct Making<'a> {
    /// What is configured.
    pub settings: &'a Settings,
    /// What all clients have in common.
    pub client: &'a ClientConfig,
    /// Asks.
    pub asker: &'a Asker,
    /// Drives what only comes as a future.
    pub runtime: &'a Handle,
    /// What was told already.
    pub told: &'a Told,
    /// Whether anybody waits.
    pub waiting: &'a Waiting,
}

/// A partition: its copies, and whether one of them leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: i32,
    /// How many copies it has.
    pub copies: usize,
    /// Whether it has a leader.
    pub is_led: bool,
}

/// The topic's partitions, and how many brokers there are; no partitions where it isn't there. Blocks.
///
/// # Errors
/// The brokers' last word, when they don't say within `limit`.
pub fn partitions(
    asker: &Asker,
    topic: &str,
    limit: Duration,
    waiting: &Waiting,
) -> Result<(Vec<Partition>, usize), Trouble> {
    let begun = Instant::now();
    loop {
        let asked = asker.fetch_metadata(Some(topic), STEP.min(limit));
        // What connections tell is heard only so: each line that is logged is an event like an error.
        while asker.poll(HEAR).is_some() {}
        let error = match asked {
            Ok(metadata) => {
                let brokers = metadata.brokers().len();
                let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
                    return Ok((vec![], brokers));
                };
                match found.error().map(Code::from) {
                    None => {
                        let partition = |partition: &rdkafka::metadata::MetadataPartition| Partition {
                            id: partition.id(),
                            copies: partition.replicas().len(),
                            is_led: partition.leader() >= 0,
                        };
                        return Ok((found.partitions().iter().map(partition).collect(), brokers));
                    }
                    Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok((vec![], brokers)),
                    // It is just being made.
                    Some(code @ Code::LeaderNotAvailable) => code,
                    Some(code) => return Err(refused(code)),
                }
            }
            Err(error) => code(&error),
        };
        if let Some(denied) = asker.context().denied().filter(|_| begun.elapsed() > DOUBT) {
            return Err(denied);
        }
        if begun.elapsed() > limit || !waiting.is_waited_for() {
            let reason = asker.context().reason(&format!("no broker answers ({})", words(error)));
            return Err(Trouble::Refused { reason, retry_after: None });
        }
    }
}

impl Making<'_> {
    /// Sees to it that the topic is there. Blocks.
    ///
    /// # Errors
    /// [`Trouble::Denied`] where it is there in a way that would lose events.
    pub fn ensure(&self) -> Result<Topic, Trouble> {
        let settings = self.settings;
        let (mut found, brokers) = partitions(self.asker, &settings.topic, settings.timeout(), self.waiting)?;
        let admin: AdminClient<Context> =
            self.client.create_with_context(Context::default()).map_err(|error| broken_settings(&error))?;
        let mut copies = found.iter().map(|partition| partition.copies).min();
        if found.is_empty() {
            self.make(&admin, brokers)?;
            // How many copies there are was told when it was made.
            (found, copies) = (self.wait_until_led()?, None);
        }
        let partitions = found.iter().map(|partition| partition.id).collect();
        let Some(configuration) = self.configuration(&admin)? else {
            self.told.warn(
                &settings.topic,
                "its settings can't be seen: allow describe-configs, or check them against docs/sinks.md",
            );
            return Ok(Topic { partitions, set_bytes_max: None });
        };
        let looked = Look { configuration: &configuration, copies: copies.filter(|_| brokers > 1) };
        if let Some(reason) = looked.refusal() {
            return Err(Trouble::Denied { reason: format!("the topic {}: {reason}", settings.topic) });
        }
        for warning in looked.warnings() {
            self.told.warn(&settings.topic, &warning);
        }
        let set_bytes_max = looked.number("max.message.bytes").and_then(|most| usize::try_from(most).ok());
        Ok(Topic { partitions, set_bytes_max })
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(STEP * 5)).operation_timeout(Some(STEP * 5))
    }

    fn make(&self, admin: &AdminClient<Context>, brokers: usize) -> Result<(), Trouble> {
        let settings = self.settings;
        let copies = settings.replication.map_or(REPLICATION.min(brokers.max(1)), usize::from);
        let in_sync = settings.min_in_sync.map_or(copies.saturating_sub(1).max(1), usize::from);
        if copies < REPLICATION && settings.replication.is_none() {
            let text = format!(
                "made with replication {copies}, since there are {brokers} brokers: what one of them loses is lost"
            );
            self.told.warn(&settings.topic, &text);
        }
        let in_sync = in_sync.to_string();
        let replication = TopicReplication::Fixed(i32::try_from(copies).unwrap_or(i32::MAX));
        let topic = NewTopic::new(&settings.topic, i32::from(settings.partitions), replication)
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("max.message.bytes", SET_BYTES_MAX)
            .set("message.timestamp.type", "CreateTime")
            .set("min.insync.replicas", &in_sync)
            .set("unclean.leader.election.enable", "false");
        let made = self.runtime.block_on(admin.create_topics([&topic], &Self::options()));
        match made.map_err(|error| refused(code(&error)))?.into_iter().next() {
            Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((name, code))) => Err(match refused(code) {
                Trouble::Refused { reason, retry_after } => Trouble::Refused {
                    reason: format!("the topic {name} can't be made: {reason}"),
                    retry_after,
                },
                Trouble::Denied { reason } => {
                    Trouble::Denied { reason: format!("the topic {name} can't be made: {reason}") }
                }
                other => other,
            }),
            None => Err(Trouble::Refused {
                reason: "the brokers don't say whether the topic is made".to_owned(),
                retry_after: None,
            }),
        }
    }

    /// A topic that was just made isn't everywhere at once.
    fn wait_until_led(&self) -> Result<Vec<Partition>, Trouble> {
        let begun = Instant::now();
        loop {
            let limit = self.settings.timeout();
            let (found, _) = partitions(self.asker, &self.settings.topic, limit, self.waiting)?;
            if !found.is_empty() && found.iter().all(|partition| partition.is_led) {
                return Ok(found);
            }
            if begun.elapsed() > limit || !self.waiting.is_waited_for() {
                let reason = "the topic is made, and not all of its partitions are led yet".to_owned();
                return Err(Trouble::Refused { reason, retry_after: None });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The topic's settings; `None` where we may not ask.
    fn configuration(
        &self,
        admin: &AdminClient<Context>,
    ) -> Result<Option<BTreeMap<String, String>>, Trouble> {
        let wanted = [ResourceSpecifier::Topic(&self.settings.topic)];
        let asked = self.runtime.block_on(admin.describe_configs(wanted.iter(), &Self::options()));
        let found = asked.map_err(|error| refused(code(&error)))?.into_iter().next();
        match found {
            Some(Ok(resource)) => {
                let entries = resource.entries.into_iter();
                Ok(Some(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()))
            }
            Some(Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => Ok(None),
            Some(Err(code)) => Err(refused(code)),
            None => Ok(None),
        }
    }
}

/// A look at a topic's settings.
struct Look<'a> {
    configuration: &'a BTreeMap<String, String>,
    /// How many copies its partitions have at least; `None` where there are no brokers for more, or it was just made.
    copies: Option<usize>,
}

impl Look<'_> {
    fn value(&self, name: &str) -> &str {
        self.configuration.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.value(name).parse().ok()
    }

    /// What would lose events, or make it impossible to tell whether they are there.
    fn refusal(&self) -> Option<String> {
        if self.value("cleanup.policy").contains("compact") {
            return Some(
                "cleanup.policy = compact keeps one event of a session and deletes the others: set it to delete".into(),
            );
        }
        if self.value("message.timestamp.type") == "LogAppendTime" {
            return Some(
                "message.timestamp.type = LogAppendTime puts the brokers' clock in the place of the time of appending, \
                 by which events are found: set it to CreateTime"
                    .into(),
            );
        }
        None
    }

    /// What may lose events one day, and may be meant so.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let in_sync = self.number("min.insync.replicas").unwrap_or(1);
        match self.copies {
            Some(1) => {
                warnings.push("replication is 1 and there are more brokers: what one loses is lost".to_owned());
            }
            Some(copies) if in_sync < 2 => warnings.push(format!(
                "min.insync.replicas is {in_sync} and replication {copies}: what one broker alone has is acknowledged; set it to 2"
            )),
            _ => {}
        }
        if self.value("unclean.leader.election.enable") == "true" {
            warnings.push(
                "unclean.leader.election.enable is true: what was acknowledged may be dropped; set it to false".into(),
            );
        }
        for (name, unit) in [("retention.ms", "milliseconds"), ("retention.bytes", "bytes a partition")] {
            if let Some(limit) = self.number(name).filter(|limit| *limit >= 0) {
                warnings.push(format!(
                    "{name} is {limit}: events are deleted after so many {unit}, and can't be proven to be there then"
                ));
            }
        }
        if let Some(most) = self.number("max.message.bytes").filter(|most| *most < RECORD_BYTES) {
            warnings.push(format!(
                "max.message.bytes is {most}: longer events become dead letters; set it to {SET_BYTES_MAX}"
            ));
        }
        for name in ["message.timestamp.difference.max.ms", "message.timestamp.before.max.ms"] {
            // A year is less than a log may be old.
            if let Some(limit) = self.number(name).filter(|limit| *limit < 366 * 86_400_000) {
                warnings.push(format!("{name} is {limit}: older events are refused; raise it"));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        let usual = [
            ("cleanup.policy", "delete"),
            ("max.message.bytes", SET_BYTES_MAX),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.type", "CreateTime"),
            ("min.insync.replicas", "2"),
            ("retention.bytes", "-1"),
            ("retention.ms", "-1"),
            ("unclean.leader.election.enable", "false"),
        ];
        usual.iter().chain(values).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_would_lose_events_is_refused_and_what_may_is_told() {
        let look = |values: &[(&str, &str)], copies| {
            let configuration = configuration(values);
            let look = Look { configuration: &configuration, copies };
            (look.refusal(), look.warnings())
        };
        assert_eq!(look(&[], Some(3)), (None, vec![]));
        assert!(look(&[("cleanup.policy", "compact,delete")], None).0.unwrap().contains("compact"));
        assert!(look(&[("message.timestamp.type", "LogAppendTime")], None).0.unwrap().contains("CreateTime"));
        for (name, value, copies, says) in [
            ("min.insync.replicas", "1", Some(3), "set it to 2"),
            ("min.insync.replicas", "1", Some(1), "replication is 1"),
            ("unclean.leader.election.enable", "true", Some(3), "set it to false"),
            ("retention.ms", "604800000", Some(3), "milliseconds"),
            ("retention.bytes", "5", Some(3), "bytes"),
            ("max.message.bytes", "20000", Some(3), "dead letters"),
            ("message.timestamp.before.max.ms", "1000", Some(3), "older"),
        ] {
            let (refusal, warnings) = look(&[(name, value)], copies);
            assert_eq!(refusal, None);
            assert!(warnings.len() == 1 && warnings[0].contains(says), "{name}: {warnings:?}");
        }
        assert_eq!(
            look(&[("min.insync.replicas", "1")], None).1,
            Vec::<String>::new(),
            "one broker, one copy"
        );
    }

    #[test]
    fn a_warning_is_told_once() {
        let told = Told::default();
        assert!(told.is_new("a") && !told.is_new("a") && told.is_new("b"));
    }
}
