//! The log about itself.

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
