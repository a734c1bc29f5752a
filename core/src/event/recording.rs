//! Recordings of sessions: their content lies in files, what proves them lies here.

use crate::event::SessionId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The recording has grown: `bytes` of it are on the disk and hash to `head`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Anchored {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Hash of the last block, hex; each block holds the hash of the one before.
    pub head: String,
}

impl Anchored {
    pub(super) fn example() -> Self {
        Self {
            bytes: 20_480,
            head: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
        }
    }
}

/// The recording is complete.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sealed {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Number of frames.
    pub frames: u64,
    /// Hash of the last block, hex.
    pub head: String,
    /// SHA-256 of the whole file, hex: `sha256sum` checks it.
    pub sha256: String,
}

impl Sealed {
    pub(super) fn example() -> Self {
        let head = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned();
        Self { bytes: 20_992, frames: 133, sha256: head.clone(), head }
    }
}

/// Somebody looks at a recording; durable before the first byte of it leaves.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Viewed {
    /// How: `play`, `export` …
    pub purpose: String,
    /// Whose recording.
    pub recording: SessionId,
}

impl Viewed {
    pub(super) fn example() -> Self {
        Self {
            purpose: "play".into(),
            recording: SessionId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0005)),
        }
    }
}
