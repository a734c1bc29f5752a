//! Sinks: where the log's events are delivered to. What a sink says is never the cause of more of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A destination refused events for what they are. They stand in the sink's dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// How many: each from the first to the last.
    pub count: u64,
    /// The first one's index.
    pub first: u64,
    /// The last one's index.
    pub last: u64,
    /// What the destination said of the first.
    pub reason: String,
    /// The sink's name.
    pub sink: String,
}

impl Rejected {
    pub(super) fn example() -> Self {
        Self {
            count: 1,
            first: 40,
            last: 40,
            reason: "max entry size 262144 bytes exceeded".into(),
            sink: "loki".into(),
        }
    }
}

/// Nothing has been delivered for a while, although something waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stalled {
    /// The first index that isn't delivered.
    pub next: u64,
    /// What went wrong last.
    pub reason: String,
    /// The sink's name.
    pub sink: String,
}

impl Stalled {
    pub(super) fn example() -> Self {
        Self { next: 40, reason: "connection refused".into(), sink: "loki".into() }
    }
}

/// A stalled sink delivers again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {
    /// The first index that isn't delivered.
    pub next: u64,
    /// The sink's name.
    pub sink: String,
    /// How long it had stalled.
    pub stalled_seconds: u64,
}

impl Resumed {
    pub(super) fn example() -> Self {
        Self { next: 1040, sink: "loki".into(), stalled_seconds: 61 }
    }
}

/// Somebody holds a sink: it delivers nothing until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Paused {
    /// Why.
    pub reason: String,
    /// The sink's name.
    pub sink: String,
}

impl Paused {
    pub(super) fn example() -> Self {
        Self { reason: "the store is being moved".into(), sink: "loki".into() }
    }
}

/// A paused sink may deliver again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The sink's name.
    pub sink: String,
}

impl Released {
    pub(super) fn example() -> Self {
        Self { sink: "loki".into() }
    }
}

/// Somebody has a range of the log delivered once more: what the destination has of it already isn't sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayBegun {
    /// The first index.
    pub from: u64,
    /// The sink's name.
    pub sink: String,
    /// The index after the last one.
    pub to: u64,
}

impl ReplayBegun {
    pub(super) fn example() -> Self {
        Self { from: 0, sink: "loki".into(), to: 40 }
    }
}

/// Somebody has dead letters sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RedriveBegun {
    /// How many there are.
    pub count: u64,
    /// The sink's name.
    pub sink: String,
}

impl RedriveBegun {
    pub(super) fn example() -> Self {
        Self { count: 2, sink: "loki".into() }
    }
}

/// What is done beside the delivery of what is new: one of them at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// A part of the log is delivered once more.
    Replay,
    /// Dead letters are sent again.
    Redrive,
}

/// Somebody ends a replay or a redrive where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// Which of them.
    pub errand: Errand,
    /// The sink's name.
    pub sink: String,
}

impl Cancelled {
    pub(super) fn example() -> Self {
        Self { errand: Errand::Replay, sink: "loki".into() }
    }
}

/// What a comparison of a destination with the log came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Each event stands there, once and unaltered.
    Proven,
    /// So does each but those that the destination refused: they are dead letters, and it doesn't have them.
    Incomplete,
    /// Something is wrong there, or wasn't shown.
    NotProven,
}

/// A destination was read back and compared with the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// Events that stand there with other bytes.
    pub altered: u64,
    /// Events whose other fields weren't compared, since they say that another version of the mapping has made them.
    #[serde(default)]
    pub by_original: u64,
    /// Events that stand there more than once.
    pub duplicated: u64,
    /// Events that should stand there.
    pub expected: u64,
    /// What stands there and is no event of the log, or none that the sink lets through.
    pub extra: u64,
    /// The first index that was compared.
    #[serde(default)]
    pub from: u64,
    /// Events that don't stand there, and aren't among the dead letters.
    pub missing: u64,
    /// Whether each event stands there: the destination showed everything, nothing is wrong, and it refused none.
    pub proven: bool,
    /// Events among the dead letters.
    pub rejected: u64,
    /// The sink's name.
    pub sink: String,
    /// The size of the log up to which it was compared: a signed checkpoint's.
    pub size: u64,
    /// What it came to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
}

impl Verified {
    pub(super) fn example() -> Self {
        Self {
            altered: 0,
            by_original: 0,
            duplicated: 0,
            expected: 40,
            extra: 0,
            from: 0,
            missing: 0,
            proven: true,
            rejected: 0,
            sink: "loki".into(),
            size: 40,
            verdict: Some(Verdict::Proven),
        }
    }
}
