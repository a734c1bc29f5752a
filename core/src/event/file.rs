//! Files that pass through the proxy: each by its name, with what was moved of it and how the target answered.
//!
//! A request is told before the target hears of it; what became of it, afterwards. Contents stand in no event: their
//! length and SHA-256 do.

use crate::event::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest path that stands whole in an event, in bytes: Linux's PATH_MAX. A longer one is cut and marked with its
/// full length.
pub const PATH_BYTES_MAX: usize = 4096;

/// By which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// SFTP version 3 (draft-ietf-secsh-filexfer-02).
    Sftp,
    /// The protocol of `scp -t` and `scp -f`, rcp's.
    Scp,
}

/// What is done to a file or a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A file is opened and read.
    Read,
    /// A file is opened and written.
    Write,
    /// A file is opened for both.
    ReadWrite,
    /// A directory is listed.
    List,
    /// A directory is made.
    Mkdir,
    /// A directory is removed.
    Rmdir,
    /// A file is removed.
    Remove,
    /// A name becomes another: from `path` to `to`.
    Rename,
    /// A symbolic link `path` is made that leads to `to`.
    Symlink,
    /// A second name `to` is given to the file `path`.
    Hardlink,
    /// Mode, owner, times or size are set.
    SetAttributes,
    /// The target copies from the file `path` to the file `to`; nothing of it passes the proxy.
    Copy,
}

/// Attributes that a request sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attributes {
    /// Time of the last access, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accessed: Option<u32>,
    /// The owning group's number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gid: Option<u32>,
    /// Permission bits, octal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// Time of the last change, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub modified: Option<u32>,
    /// Size in bytes, to which the file is cut or grown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// The owner's number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
}

impl Attributes {
    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// Writes go to its end.
    Append,
    /// It is made if it isn't there.
    Create,
    /// It is emptied.
    Truncate,
    /// It must not be there.
    Exclusive,
}

/// An operation on a file was asked for and allowed; the target hasn't heard of it yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requested {
    /// The path as the client wrote it, where it isn't the one in `path`; its first 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<ByteString>,
    /// Attributes that it sets.
    #[serde(skip_serializing_if = "Attributes::is_empty", default)]
    pub attributes: Attributes,
    /// The channel's number within the session.
    pub channel: u32,
    /// How it is opened.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub flags: Vec<Flag>,
    /// What is done.
    pub operation: Operation,
    /// What it is done to; absolute, `.` and `..` resolved by their names, unless `relative` says otherwise.
    pub path: ByteString,
    /// Where `path` was cut: its full length in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path_bytes: Option<u64>,
    /// By which protocol.
    pub protocol: Protocol,
    /// Whether `path` counts from a directory that the proxy doesn't know, or leads there: `..` stands behind a name, which may be a
    /// link, or it is where a relative link leads.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub relative: bool,
    /// The other name of a rename, a link or a copy; where a symbolic link leads, as it was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<ByteString>,
    /// Where `to` was cut: its full length in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_bytes: Option<u64>,
}

impl Requested {
    pub(super) fn example() -> Self {
        Self {
            asked: None,
            attributes: Attributes { mode: Some("0644".into()), ..Attributes::default() },
            channel: 0,
            flags: vec![Flag::Create, Flag::Truncate],
            operation: Operation::Write,
            path: "/srv/www/index.html".into(),
            path_bytes: None,
            protocol: Protocol::Sftp,
            relative: false,
            to: None,
            to_bytes: None,
        }
    }
}

/// What moved of a file, one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// How many bytes.
    pub bytes: u64,
    /// Where in the file they begin, if not at its start.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub offset: u64,
    /// Whether they are not one piece from the file's start on: a part was asked for, or parts came in no order.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub partial: bool,
    /// SHA-256 of them in the order of their place in the file, hex; absent where they aren't one piece.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An operation on a file is over, as the target told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Completed {
    /// The channel's number within the session.
    pub channel: u32,
    /// How many names were listed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entries: Option<u64>,
    /// Permission bits, octal, where the protocol told them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// By scp only: the name that was sent along. The file is `path`, or stands by this name in it if that is a
    /// directory: only the target knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<ByteString>,
    /// What was done.
    pub operation: Operation,
    /// As in the request.
    pub path: ByteString,
    /// By which protocol.
    pub protocol: Protocol,
    /// What moved from the target to the client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read: Option<Moved>,
    /// Whether `path` counts from a directory that the proxy doesn't know, or leads there: `..` stands behind a name, which may be a
    /// link, or it is where a relative link leads.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub relative: bool,
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<ByteString>,
    /// What moved from the client to the target.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub written: Option<Moved>,
}

impl Completed {
    pub(super) fn example() -> Self {
        Self {
            channel: 0,
            entries: None,
            mode: Some("0644".into()),
            name: None,
            operation: Operation::Write,
            path: "/srv/www/index.html".into(),
            protocol: Protocol::Sftp,
            read: None,
            relative: false,
            to: None,
            written: Some(Moved {
                bytes: 5,
                offset: 0,
                partial: false,
                sha256: Some("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".into()),
            }),
        }
    }
}

/// An operation on a file failed, or its end never came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The channel's number within the session.
    pub channel: u32,
    /// As in `file.completed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<ByteString>,
    /// What was tried.
    pub operation: Operation,
    /// As in the request.
    pub path: ByteString,
    /// By which protocol.
    pub protocol: Protocol,
    /// What had moved from the target to the client by then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read: Option<Moved>,
    /// Why: what the target said, or that it said nothing.
    pub reason: ByteString,
    /// Whether `path` counts from a directory that the proxy doesn't know, or leads there: `..` stands behind a name, which may be a
    /// link, or it is where a relative link leads.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub relative: bool,
    /// The target's status (draft-ietf-secsh-filexfer-02, section 7): 2 no such file, 3 permission denied, 4 failure …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u32>,
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<ByteString>,
    /// What had moved from the client to the target by then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub written: Option<Moved>,
}

impl Failed {
    pub(super) fn example() -> Self {
        Self {
            channel: 0,
            name: None,
            operation: Operation::Read,
            path: "/root/missing".into(),
            protocol: Protocol::Sftp,
            read: None,
            reason: "No such file".into(),
            relative: false,
            status: Some(2),
            to: None,
            written: None,
        }
    }
}

/// Something on a channel for files isn't understood: from here on what passes there may be told incompletely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unparsed {
    /// The channel's number within the session.
    pub channel: u32,
    /// By which protocol it should have been.
    pub protocol: Protocol,
    /// What isn't understood.
    pub reason: String,
}

impl Unparsed {
    pub(super) fn example() -> Self {
        Self { channel: 0, protocol: Protocol::Sftp, reason: "a packet of type 23 isn't known".into() }
    }
}
