//! Files that processes touched, as the kernel of a node saw them: what the types `file.opened`, `renamed`, `deleted`
//! and `permission-changed` say.

use super::process::{Process, is_false};
use crate::event::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file by its name and by what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// The device that it lies on, `major:minor`.
    pub device: String,
    /// Its number on that device, decimal.
    pub inode: String,
    /// Where it lies, as the process sees it.
    pub path: ByteString,
    /// The path isn't the whole one: only its end could be told.
    #[serde(skip_serializing_if = "is_false", default)]
    pub path_cut: bool,
}

impl Named {
    fn example() -> Self {
        Self { device: "8:1".into(), inode: "131090".into(), path: "/etc/shadow".into(), path_cut: false }
    }
}

/// What a file was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// Both.
    ReadWrite,
}

/// A file was opened. One process that opens the same for the same again and again is told once in a while, with the
/// count.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// What for.
    pub access: Access,
    /// How often since it was told last.
    pub count: u64,
    /// The file.
    pub file: Named,
    /// The process.
    pub process: Process,
}

impl Opened {
    pub(super) fn example() -> Self {
        Self { access: Access::Read, count: 1, file: Named::example(), process: Process::example() }
    }
}

/// A file has another name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Renamed {
    /// The file, by its name before.
    pub file: Named,
    /// The process.
    pub process: Process,
    /// Its name now.
    pub to: ByteString,
}

impl Renamed {
    pub(super) fn example() -> Self {
        Self { file: Named::example(), process: Process::example(), to: "/etc/shadow.old".into() }
    }
}

/// A file has a second name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Linked {
    /// The file, by the name that it had.
    pub file: Named,
    /// The process.
    pub process: Process,
    /// Its second name.
    pub to: ByteString,
}

impl Linked {
    pub(super) fn example() -> Self {
        Self { file: Named::example(), process: Process::example(), to: "/tmp/s".into() }
    }
}

/// A name of a file is gone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// The file.
    pub file: Named,
    /// The process.
    pub process: Process,
}

impl Deleted {
    pub(super) fn example() -> Self {
        Self { file: Named::example(), process: Process::example() }
    }
}

/// A file's permission bits were changed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PermissionChanged {
    /// The file.
    pub file: Named,
    /// Its permission bits now, octal.
    pub mode: String,
    /// The process.
    pub process: Process,
}

impl PermissionChanged {
    pub(super) fn example() -> Self {
        Self { file: Named::example(), mode: "4755".into(), process: Process::example() }
    }
}
