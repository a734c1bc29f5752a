//! Files that processes touched, as the kernel of a node saw them: what the types `file.opened`, `created`, `truncated`,
//! `renamed`, `linked`, `deleted`, `permission-changed`, `owner-changed`, `attribute-changed` and `denied` say.

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

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    SymbolicLink,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

/// Something was made that has a name: whatever is opened so that it comes into being is told as opened too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// The file; it has no number yet, which is 0.
    pub file: Named,
    /// What it is.
    pub kind: Kind,
    /// Where a symbolic link leads, as it was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leads_to: Option<ByteString>,
    /// `leads_to` may not be all.
    #[serde(skip_serializing_if = "is_false", default)]
    pub leads_to_cut: bool,
    /// The process.
    pub process: Process,
}

impl Created {
    pub(super) fn example() -> Self {
        Self {
            file: Named {
                device: "0:0".into(),
                inode: "0".into(),
                path: "/etc/cron.d/job".into(),
                path_cut: false,
            },
            kind: Kind::SymbolicLink,
            leads_to: Some("/tmp/job".into()),
            leads_to_cut: false,
            process: Process::example(),
        }
    }
}

/// A file was made shorter or longer by its name (truncate(2)): nothing was opened for it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Truncated {
    /// The file.
    pub file: Named,
    /// The process.
    pub process: Process,
}

impl Truncated {
    pub(super) fn example() -> Self {
        Self { file: Named::example(), process: Process::example() }
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
    /// `to` isn't the whole name: only its end could be told.
    #[serde(skip_serializing_if = "is_false", default)]
    pub to_cut: bool,
}

impl Renamed {
    pub(super) fn example() -> Self {
        Self {
            file: Named::example(),
            process: Process::example(),
            to: "/etc/shadow.old".into(),
            to_cut: false,
        }
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
    /// `to` isn't the whole name: only its end could be told.
    #[serde(skip_serializing_if = "is_false", default)]
    pub to_cut: bool,
}

impl Linked {
    pub(super) fn example() -> Self {
        Self { file: Named::example(), process: Process::example(), to: "/tmp/s".into(), to_cut: false }
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

/// A file was given to somebody.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OwnerChanged {
    /// The file.
    pub file: Named,
    /// Its group now; absent: as before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gid: Option<u32>,
    /// The process.
    pub process: Process,
    /// Whose it is now; absent: as before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
}

impl OwnerChanged {
    pub(super) fn example() -> Self {
        Self { file: Named::example(), gid: None, process: Process::example(), uid: Some(1000) }
    }
}

/// An attribute of a file was set or removed that decides who may do what: an access list, capabilities, a label
/// (xattr(7)).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AttributeChanged {
    /// Its name.
    pub attribute: ByteString,
    /// The file.
    pub file: Named,
    /// The process.
    pub process: Process,
}

impl AttributeChanged {
    pub(super) fn example() -> Self {
        Self { attribute: "security.capability".into(), file: Named::example(), process: Process::example() }
    }
}

/// What may not be done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tried {
    /// To open it to read.
    Read,
    /// To open it to write, or to write and read.
    Write,
    /// To give it another name, or its name to another.
    Rename,
    /// To give it a second name.
    Link,
    /// To take its name away.
    Delete,
    /// To change its permissions.
    ChangePermission,
    /// To change whose it is.
    ChangeOwner,
    /// To change its length.
    Truncate,
    /// To make it.
    Create,
    /// To connect to the socket that it is.
    Connect,
}

/// Why a file may not be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Denial {
    /// It is denied, or lies in a directory that is.
    Denied,
    /// Nobody has said what the session may touch.
    NotAllowed,
    /// Where it lies couldn't be made out, so a restriction may speak of it.
    Unresolved,
}

/// A file was kept from a process by the node's kernel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Denied {
    /// Whether the session ends for it.
    #[serde(skip_serializing_if = "is_false", default)]
    pub ends_session: bool,
    /// The file; of one that isn't there yet, the number is 0.
    pub file: Named,
    /// The process.
    pub process: Process,
    /// Why.
    pub reason: Denial,
    /// The restriction that says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restriction: Option<String>,
    /// What should have been done to it.
    pub tried: Tried,
}

impl Denied {
    pub(super) fn example() -> Self {
        Self {
            ends_session: false,
            file: Named::example(),
            process: Process::example(),
            reason: Denial::Denied,
            restriction: Some("no-secrets".into()),
            tried: Tried::Read,
        }
    }
}
