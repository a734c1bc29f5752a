//! Producers: the programs that make events.

use super::Timestamp;
use super::process::is_false;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A producer's numbering begins; it names the last number of the boot before, so that a lost tail shows.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The boot before, as the producer knows it: what the log lacks of it is lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<Previous>,
    /// The program's version.
    pub program: String,
}

/// The end of an earlier numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Previous {
    /// Its boot.
    pub boot: Uuid,
    /// The last number that reached the log.
    pub seq: u64,
}

impl Started {
    pub(super) fn example() -> Self {
        Self {
            previous: Some(Previous {
                boot: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0009),
                seq: 11_207,
            }),
            program: "custodyd 0.1.0".into(),
        }
    }
}

/// A producer ended in order: its numbering ends here.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Stopped {}

impl Stopped {
    pub(super) fn example() -> Self {
        Self {}
    }
}

/// A producer tried to say what it may not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// What it tried to say: the event's type.
    pub attempted: String,
    /// Who tried.
    pub producer: String,
    /// Why it may not.
    pub reason: String,
}

impl Refused {
    pub(super) fn example() -> Self {
        Self {
            attempted: "user.created".into(),
            producer: "proxy-1".into(),
            reason: "a proxy may not speak of users".into(),
        }
    }
}

/// Events of a producer are missing: its numbering jumped, or a later boot knows of more than the log got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The boot in whose numbering they are missing.
    pub boot: Uuid,
    /// How many numbers are missing in a row.
    pub count: u64,
    /// The first number that is missing.
    pub first: u64,
    /// The index of the event that showed it.
    pub index: u64,
    /// The producer.
    pub producer: String,
    /// How many are missing isn't known, and neither whether any is: the producer has lost what it knew of that boot, which
    /// it hadn't ended in order. `count` is 0.
    #[serde(skip_serializing_if = "is_false", default)]
    pub unknown: bool,
}

impl Gap {
    pub(super) fn example() -> Self {
        Self {
            boot: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0009),
            count: 3,
            first: 11_208,
            index: 39,
            producer: "web-1".into(),
            unknown: false,
        }
    }
}

/// A producer's word, by a key that is its own, that events of this boot are as it made them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signed {
    /// The first number that it speaks of.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// The root of the Merkle tree (RFC 6962, 2.1) whose leaves are these events' bytes, hex.
    pub root: String,
    /// An Ed25519 signature (RFC 8032), hex, of the statement that [`crate::ingest::signature`] describes.
    pub signature: String,
}

impl Signed {
    pub(super) fn example() -> Self {
        Self {
            first: 11_208,
            last: 11_263,
            root: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
            signature: "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a".into(),
        }
    }
}

/// A producer's clock was set: the times of its events before this one are by the clock as it was, those after it by the
/// clock as it is. What the log says of when it took them doesn't change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClockStepped {
    /// What the clock would show.
    pub from: Timestamp,
    /// What it shows at that same moment.
    pub to: Timestamp,
}

impl ClockStepped {
    pub(super) fn example() -> Self {
        Self { from: Timestamp::from_seconds(1_764_028_800), to: Timestamp::from_seconds(1_764_025_200) }
    }
}

/// Events of a node's kernel are missing: it saw more than it could tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// How many, of each kind that the kernel tells of.
    pub counts: BTreeMap<String, u64>,
    /// Why they couldn't be told.
    pub reason: String,
}

impl Dropped {
    pub(super) fn example() -> Self {
        Self {
            counts: BTreeMap::from([("executed".into(), 3)]),
            reason: "there was no room in the kernel's buffer".into(),
        }
    }
}
