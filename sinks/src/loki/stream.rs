//! The few streams that events are sorted into.

use super::configuration::HOUR;
use super::nanos;
use custody_core::clock::Nanos;
use custody_core::event::{Family, Head, Outcome, ProducerKind};
use std::time::Duration;

/// How long a time a stream for what is old may be of: the first of these that is no longer than a line may lie behind its stream's newest.
const OLD: [Duration; 5] = [
    HOUR,
    Duration::from_secs(30 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(60),
];

/// Where an event belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Of an event that was appended lately, by what is few: a family that this program doesn't know has no stream of its own, or
    /// its name would be anybody's.
    Live { family: Option<Family>, outcome: Option<Outcome>, producer: Option<ProducerKind> },
    /// Of what is older than Loki takes in the others: a span of time in which no line lies too far behind another.
    Backfill {
        begins: Nanos,
        /// Letters of that moment which tell it from others: with the minute where an hour has several.
        letters: usize,
    },
}

impl Stream {
    /// Of an event that was appended lately.
    pub fn live(head: Option<&Head<'_>>) -> Self {
        Self::Live {
            family: head.and_then(|head| Family::of(&head.kind)),
            outcome: head.and_then(|head| head.outcome),
            producer: head.map(|head| head.producer.kind),
        }
    }

    /// Where a line may lie so far `behind` its stream's newest.
    pub fn backfill(appended: Nanos, behind: Duration) -> Self {
        let span = OLD.into_iter().find(|span| *span <= behind).unwrap_or(Duration::from_secs(60));
        let begins = Nanos(appended.0 - appended.0 % nanos(span).max(1));
        Self::Backfill { begins, letters: if span == HOUR { 13 } else { 16 } }
    }

    /// As Loki's push protocol has them: sorted by name.
    pub fn labels(self, job: &str) -> String {
        match self {
            Self::Backfill { begins, letters } => {
                let begins = begins.to_string();
                let hour = begins.get(..letters).unwrap_or(&begins);
                format!("{{hour=\"{hour}\", job=\"{job}\", origin=\"backfill\"}}")
            }
            Self::Live { family, outcome, producer } => {
                let family = family
                    .map_or_else(|| "other".to_owned(), |family| format!("{family:?}").to_ascii_lowercase());
                let outcome = match outcome {
                    None => "none",
                    Some(Outcome::Success) => "success",
                    Some(Outcome::Failure) => "failure",
                    Some(Outcome::Denied) => "denied",
                };
                let producer = match producer {
                    None => "none",
                    Some(ProducerKind::Log) => "log",
                    Some(ProducerKind::Proxy) => "proxy",
                    Some(ProducerKind::Node) => "node",
                    Some(ProducerKind::Witness) => "witness",
                };
                format!(
                    "{{family=\"{family}\", job=\"{job}\", outcome=\"{outcome}\", producer=\"{producer}\"}}"
                )
            }
        }
    }
}
