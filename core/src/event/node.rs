//! Nodes: the servers that are reached.

use super::process::Process;
use crate::event::{ByteString, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands before a node's name in the id of its agent as a producer, so that no node can be called as another
/// producer.
const PRODUCER: &str = "node/";

/// The id, as a producer, of the agent of a node.
#[must_use]
pub fn producer(node: &str) -> String {
    format!("{PRODUCER}{node}")
}

/// The node whose agent has this id as a producer.
#[must_use]
pub fn of_producer(id: &str) -> Option<&str> {
    id.strip_prefix(PRODUCER)
}

/// A node was made known, or its record replaced.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// Host and port of its sshd.
    pub address: String,
    /// Whether its sessions are watched by an agent.
    #[serde(skip_serializing_if = "Agent::is_none", default)]
    pub agent: Agent,
    /// A pinned host key in OpenSSH's form; without one the node must show a certificate of the host CA.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_key: Option<String>,
    /// Labels that policies may ask for.
    pub labels: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
}

impl Added {
    pub(super) fn example() -> Self {
        Self {
            address: "192.0.2.10:22".into(),
            agent: Agent::None,
            host_key: None,
            labels: BTreeMap::from([("env".into(), "prod".into())]),
            name: "web-1".into(),
        }
    }
}

/// A node was removed: what is live there ends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Its name.
    pub name: String,
}

impl Removed {
    pub(super) fn example() -> Self {
        Self { name: "web-1".into() }
    }
}

/// Something answered at a node's address with a host key that isn't trusted; nothing was sent to it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HostKeyRefused {
    /// What was expected: a fingerprint, or the host CA's.
    pub expected: String,
    /// The fingerprint that was shown.
    pub got: String,
    /// Why it isn't trusted.
    pub reason: String,
}

impl HostKeyRefused {
    pub(super) fn example() -> Self {
        Self {
            expected: "a certificate of SHA256:1pVkMKGMhwUhHTW2ZNDBJmXz5iEWNeSkaB0jTOVZxnE".into(),
            got: "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8".into(),
            reason: "the key is not pinned and carries no certificate".into(),
        }
    }
}

/// How a node is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Agent {
    /// There is none, and sessions go unwatched.
    #[default]
    None,
    /// Sessions are watched while it is there, and go on unwatched when it isn't.
    Optional,
    /// Without it there are no sessions.
    Required,
}

impl Agent {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// A token was made by which an agent may join once in the node's name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// When it runs out.
    pub expires: Timestamp,
    /// The node's name.
    pub name: String,
    /// The version of its hash in the secret store.
    pub secret_version: u64,
}

impl TokenCreated {
    pub(super) fn example() -> Self {
        Self { expires: Timestamp::from_seconds(1_764_032_400), name: "web-1".into(), secret_version: 1 }
    }
}

/// An agent used a token: from here on its key speaks for the node, and no other does. `cause` is the event that made
/// the token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Enrolled {
    /// The Ed25519 public key by which it signs its events, 32 bytes in hex.
    pub key: String,
    /// The node's name.
    pub name: String,
}

impl Enrolled {
    pub(super) fn example() -> Self {
        Self {
            key: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".into(),
            name: "web-1".into(),
        }
    }
}

/// By which means an agent watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Programs of the kernel's security module (KRSI): they see files too, and refuse calls.
    Lsm,
    /// Tracepoints, hooks of control groups, and signals: no files.
    Tracepoint,
}

/// An agent is there, and what it can do: told at each of its starts, after it has tried each thing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// The kernel's release (uname(2)).
    pub kernel: String,
    /// What it can't see or refuse on this kernel: the feature, and why.
    pub limits: BTreeMap<String, String>,
    /// The program's version.
    pub program: String,
    /// By which means it watches.
    pub tier: Tier,
}

impl Joined {
    pub(super) fn example() -> Self {
        Self {
            kernel: "6.12.48+deb13-cloud-amd64".into(),
            limits: BTreeMap::from([("mount".into(), "the kernel has no hook sb_mount".into())]),
            program: "custodyd 0.1.0".into(),
            tier: Tier::Lsm,
        }
    }
}

/// An agent that was there isn't any more; where it is required, the node's sessions end.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// The node's name.
    pub name: String,
    /// Why, in one line.
    pub reason: String,
}

impl Lost {
    pub(super) fn example() -> Self {
        Self { name: "web-1".into(), reason: "nothing was heard of it for 5 s".into() }
    }
}

/// The node's kernel saw the session's connection come in: this process and all that descend from it are watched.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionAccepted {
    /// The process of the SSH server that has the connection.
    pub pid: u32,
}

impl SessionAccepted {
    pub(super) fn example() -> Self {
        Self { pid: 4102 }
    }
}

/// Something was done that changes what the node's kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KernelChange {
    /// A module was loaded.
    ModuleLoaded,
    /// The kernel itself was reached, past its own rules: its memory, the processor's registers, its tracing, another kernel in its place.
    KernelReached,
    /// The clock was set, or adjusted: what that came to, the agent tells by itself (`producer.clock-stepped`).
    ClockSet,
    /// A BPF program was loaded.
    ProgramLoaded,
    /// A file system was mounted.
    Mounted,
    /// A process was attached to by another (ptrace(2)).
    Traced,
    /// A process took other users' rights.
    UsersChanged,
    /// A process took other groups' rights.
    GroupsChanged,
    /// A socket was made whose packets aren't followed: a raw one, or of a family that is neither IP nor Unix.
    SocketMade,
}

/// A process did something that changes what the node's kernel does, or whom it obeys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KernelChanged {
    /// What.
    pub change: KernelChange,
    /// On what: a module's name, a mount point, a process, or by what.
    pub on: ByteString,
    /// The process.
    pub process: Process,
}

impl KernelChanged {
    pub(super) fn example() -> Self {
        Self { change: KernelChange::ModuleLoaded, on: "overlay".into(), process: Process::example() }
    }
}
