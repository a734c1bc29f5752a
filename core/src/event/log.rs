//! The log about itself.

use crate::event::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The first event of a log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// The log's origin (C2SP tlog-checkpoint): the name under which its checkpoints are signed.
    pub origin: String,
    /// The verifier key of its checkpoints (C2SP signed-note).
    pub verifier_key: String,
}

impl Created {
    pub(super) fn example() -> Self {
        Self {
            origin: "custody.example.com/log".into(),
            verifier_key: "custody.example.com/log+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
                .into(),
        }
    }
}

/// Puts time into the tree, once in each second in which something was appended.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sealed {
    /// The size of the log just before this event.
    pub size: u64,
}

impl Sealed {
    pub(super) fn example() -> Self {
        Self { size: 40 }
    }
}

/// Somebody reads the log through the API; at most one a minute and reader, and one for each subscription.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    /// `search`, `follow`, `state` …
    pub purpose: String,
    /// What was asked for.
    pub query: String,
}

impl Read {
    pub(super) fn example() -> Self {
        Self { query: "type=login&user=alice".into(), purpose: "search".into() }
    }
}

/// A witness has cosigned a checkpoint: somebody else knows from now on how long the log is and what it holds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cosigned {
    /// When the witness signed, by its own clock.
    pub at: Timestamp,
    /// The signature line (C2SP tlog-cosignature) as it stands below the checkpoint, without its newline.
    pub line: String,
    /// The root of the tree that it signed, base64 as in checkpoints.
    pub root: String,
    /// How many entries it signed.
    pub size: u64,
    /// The witness's verifier key (C2SP signed-note).
    pub witness: String,
}

impl Cosigned {
    pub(super) fn example() -> Self {
        Self {
            at: Timestamp::from_seconds(1_764_028_801),
            root: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".into(),
            size: 40,
            line: "\u{2014} witness.example.org rN4tTAAAAABpJPoBcm9vdA==".into(),
            witness: "witness.example.org+acde2d4c+BJRjFkLzSJtLaOgf1gCJHDxHTfC3LRY8Gb5ySqGiDQ4O".into(),
        }
    }
}

/// The log goes on although a configured witness couldn't say whether this is its newest copy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Unwitnessed {
    /// What happened when it was asked.
    pub reason: String,
    /// The log's size when it was opened.
    pub size: u64,
    /// The witness's name.
    pub witness: String,
}

impl Unwitnessed {
    pub(super) fn example() -> Self {
        Self { reason: "connection refused".into(), size: 40, witness: "witness.example.org".into() }
    }
}

/// A key begins to sign the checkpoints, beside those that do: a rotation's first half, or a second algorithm.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyAdded {
    /// Why.
    pub reason: String,
    /// The verifier key (C2SP signed-note); its name is the origin.
    pub verifier_key: String,
}

impl KeyAdded {
    pub(super) fn example() -> Self {
        Self { reason: "yearly rotation".into(), verifier_key: Created::example().verifier_key }
    }
}

/// A key signs no checkpoint any more: a rotation's second half.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyRetired {
    /// The newest checkpoint that it has signed, a signed note: it covers the event that added its successor, so that
    /// whoever trusts this key has a reason to trust the next one.
    pub checkpoint: String,
    /// Why.
    pub reason: String,
    /// The verifier key (C2SP signed-note).
    pub verifier_key: String,
}

impl KeyRetired {
    pub(super) fn example() -> Self {
        Self {
            checkpoint: Timestamped::example().checkpoint,
            reason: "yearly rotation".into(),
            verifier_key: Created::example().verifier_key,
        }
    }
}

/// An authority (RFC 3161) has stamped a checkpoint: it existed at that time.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Timestamped {
    /// The authority's time.
    pub at: Timestamp,
    /// The authority's address, as configured.
    pub authority: String,
    /// The checkpoint whose SHA-256 was stamped: the signed note's whole text.
    pub checkpoint: String,
    /// The authority's answer, a TimeStampResp in DER, base64.
    pub response: String,
}

impl Timestamped {
    pub(super) fn example() -> Self {
        Self {
            at: Timestamp::from_seconds(1_764_028_801),
            authority: "http://tsa.example.net/".into(),
            checkpoint: "custody.example.com/log\n40\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u{2014} custody.example.com/log x08go/kMzQ==\n".into(),
            response: "MAMCAQA=".into(),
        }
    }
}

/// The machine's clock leapt ahead; the log's time doesn't follow it until somebody confirms it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClockRefused {
    /// By how much it is ahead of the time that has passed, in seconds.
    pub ahead_seconds: u64,
}

impl ClockRefused {
    pub(super) fn example() -> Self {
        Self { ahead_seconds: 86_400 }
    }
}

/// Somebody says that the machine's clock is right: the log's time follows it from here on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClockConfirmed {
    /// By how much it was ahead, in seconds; zero if it wasn't.
    pub ahead_seconds: u64,
}

impl ClockConfirmed {
    pub(super) fn example() -> Self {
        Self { ahead_seconds: 86_400 }
    }
}

/// The disk has no room left for the log but its reserve: what can't be recorded doesn't happen from here on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Filled {
    /// Bytes that are left in the reserve.
    pub reserve_bytes: u64,
}

impl Filled {
    pub(super) fn example() -> Self {
        Self { reserve_bytes: 262_144 }
    }
}

/// What an opening of the log put in order before its first append.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Recovered {
    /// Bytes of an unfinished write that were cut off; nobody had a receipt for them.
    pub cut_bytes: u64,
    /// `crash`, `backup`, `witness` or `sink NAME`: what the log came back from.
    pub from: String,
    /// Bytes behind the last checkpoint that were written and synced again.
    pub rewritten_bytes: u64,
    /// Entries in the log.
    pub size: u64,
}

impl Recovered {
    pub(super) fn example() -> Self {
        Self { cut_bytes: 1_310, from: "crash".into(), rewritten_bytes: 0, size: 40 }
    }
}

/// The log goes on under another name, without entries that a witness has cosigned and that are lost: a fork that is
/// told instead of hidden.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EpochBegun {
    /// The checkpoint that covers what is lost, where there is one: a signed note.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<String>,
    /// The origin from here on.
    pub origin: String,
    /// The origin before.
    pub previous_origin: String,
    /// Why it goes on without them.
    pub reason: String,
    /// The root over the entries that are kept, base64 as in checkpoints.
    pub root: String,
    /// How many entries are kept: all before this event.
    pub size: u64,
    /// The verifier key (C2SP signed-note) from here on.
    pub verifier_key: String,
}

impl EpochBegun {
    pub(super) fn example() -> Self {
        Self {
            origin: "custody.example.com/log-2".into(),
            previous_origin: "custody.example.com/log".into(),
            reason: "disk and backup were lost in the same fire".into(),
            root: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".into(),
            size: 40,
            verifier_key: Created::example().verifier_key,
            lost: None,
        }
    }
}
