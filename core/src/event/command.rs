//! Commands that the proxy was asked to run. What the kernel saw running is another fact, told by a node.

use crate::event::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest command that stands whole in an event, in bytes; a longer one is cut, and marked with its
/// full length and SHA-256.
pub const COMMAND_BYTES_MAX: usize = 32 * 1024;

/// What kind of program a channel asked for (RFC 4254, 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A login shell.
    Shell,
    /// One command.
    Exec,
    /// A subsystem, e.g. `sftp`.
    Subsystem,
}

/// A program was asked for and allowed; the target hasn't heard of it yet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Requested {
    /// What the client asked for, where its certificate forces `command` in the place of whatever is asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<Asked>,
    /// The channel's number within the session.
    pub channel: u32,
    /// The command line or the subsystem's name; absent for a shell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<ByteString>,
    /// Where `command` was cut: its full length in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command_bytes: Option<u64>,
    /// Where `command` was cut: SHA-256 of the whole, hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command_sha256: Option<String>,
    /// Variables that the client set for it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub environment: Vec<Variable>,
    /// What kind.
    pub kind: Kind,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// What a client asked for and didn't get: the target's server tells the forced command of it
/// (`SSH_ORIGINAL_COMMAND`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Asked {
    /// The command line or the subsystem's name, its first 1,024 bytes; absent for a shell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<ByteString>,
    /// What kind.
    pub kind: Kind,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Variable {
    /// Its name.
    pub name: ByteString,
    /// Its value, where it can't be a secret: locale and terminal. What else clients send is named only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<ByteString>,
}

impl Requested {
    pub(super) fn example() -> Self {
        Self {
            asked: None,
            channel: 0,
            command: Some("systemctl restart nginx".into()),
            command_bytes: None,
            command_sha256: None,
            environment: vec![Variable { name: "LANG".into(), value: Some("C.UTF-8".into()) }],
            kind: Kind::Exec,
            terminal: false,
        }
    }
}

/// A program ended, as the target told it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Completed {
    /// Bytes of its standard error.
    pub bytes_err: u64,
    /// Bytes that it was sent.
    pub bytes_in: u64,
    /// Bytes of its standard output.
    pub bytes_out: u64,
    /// The channel's number within the session.
    pub channel: u32,
    /// Its exit status (RFC 4254, 6.10).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_status: Option<u32>,
    /// SHA-256 of what it was sent, hex; for a command without a terminal that was sent 1,024 bytes or more. Less may be
    /// a password, and could be guessed from its hash.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input_sha256: Option<String>,
    /// SHA-256 of its standard output, hex, where it has no terminal and the recording isn't known to hold all of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_sha256: Option<String>,
    /// The signal that ended it, without `SIG`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<ByteString>,
}

impl Completed {
    pub(super) fn example() -> Self {
        Self {
            bytes_err: 0,
            bytes_in: 0,
            bytes_out: 512,
            channel: 0,
            exit_status: Some(0),
            input_sha256: None,
            output_sha256: None,
            signal: None,
        }
    }
}

/// A program that was allowed never ran, or its end never came.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The channel's number within the session.
    pub channel: u32,
    /// Why.
    pub reason: String,
}

impl Failed {
    pub(super) fn example() -> Self {
        Self { channel: 0, reason: "the target refused the request".into() }
    }
}
