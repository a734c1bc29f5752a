//! Processes, as the kernel of a node saw them.

use crate::event::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which process it was: `pid` and `started_us` together name no other one until the node boots again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// What the process calls itself, at most 15 bytes (proc(5), `comm`).
    pub name: ByteString,
    /// The process that it descends from.
    pub parent: u32,
    /// Its number, that of its thread group, as the node's first PID namespace counts.
    pub pid: u32,
    /// When it began, in microseconds since the node booted.
    pub started_us: u64,
    /// The user in whose name it acts.
    pub uid: u32,
}

impl Process {
    pub(super) fn example() -> Self {
        Self { name: "curl".into(), parent: 4117, pid: 4121, started_us: 81_220_417, uid: 1000 }
    }
}

/// A program file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Executable {
    /// The device that it lies on, `major:minor`.
    pub device: String,
    /// Its number on that device, decimal.
    pub inode: String,
    /// Where it lies. Cut at the front where the kernel couldn't tell all of it; `path_cut` says so.
    pub path: ByteString,
    /// The path isn't the whole one: only its end could be told.
    #[serde(skip_serializing_if = "is_false", default)]
    pub path_cut: bool,
    /// SHA-256 of its content, hex; absent where it was gone or another file before it could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// No name leads to it any more: it lies in memory only, or was deleted.
    #[serde(skip_serializing_if = "is_false", default)]
    pub unlinked: bool,
}

impl Executable {
    pub(super) fn example() -> Self {
        Self {
            device: "8:1".into(),
            inode: "262411".into(),
            path: "/usr/bin/curl".into(),
            path_cut: false,
            sha256: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
            unlinked: false,
        }
    }
}

/// Whether to leave a field out.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
pub(super) fn is_false(value: &bool) -> bool {
    !*value
}
