//! Network connections of processes, as the kernel of a node saw them: what the types `connection.opened`, `accepted`,
//! `closed`, `unreached` and `denied` say.

use super::process::Process;
use crate::event::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An address and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// An address; one of IPv4 that a socket of IPv6 uses stands as that of IPv4.
    pub address: String,
    /// A port.
    pub port: u16,
}

/// How it is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP (and MPTCP).
    Tcp,
    /// UDP.
    Udp,
    /// Another protocol over IP.
    Other,
}

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The other end called a process of the session that listens.
    Inbound,
    /// The session's process called.
    Outbound,
}

/// Both ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ends {
    /// This node's end, where it was known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub local: Option<Endpoint>,
    /// The name by which the session knew the other end: what it had asked a name server for when that answered with the
    /// address, the last such name before the connection began. It is what the session was told by whoever answers there,
    /// and no proof of who has the address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// How it is spoken.
    pub protocol: Protocol,
    /// The other end.
    pub remote: Endpoint,
}

impl Ends {
    fn example() -> Self {
        Self {
            local: Some(Endpoint { address: "192.0.2.10".into(), port: 41_822 }),
            name: Some("www.example.com".into()),
            protocol: Protocol::Tcp,
            remote: Endpoint { address: "198.51.100.7".into(), port: 443 },
        }
    }
}

/// A process has a connection: of TCP, an established one; of UDP, a socket that was given its peer or a first
/// datagram to it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// Both ends.
    pub ends: Ends,
    /// The process.
    pub process: Process,
}

impl Opened {
    pub(super) fn example() -> Self {
        Self { ends: Ends::example(), process: Process::example() }
    }
}

/// A connection came in where a process listens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// Both ends.
    pub ends: Ends,
    /// The process that listens.
    pub process: Process,
}

impl Accepted {
    pub(super) fn example() -> Self {
        Self { ends: Ends::example(), process: Process::example() }
    }
}

/// A process has reached a daemon of its node by a Unix socket: what that does for it is done by others, outside of the
/// session.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DaemonReached {
    /// The socket's path; of one in the abstract namespace its name, with the zero byte before it.
    pub path: ByteString,
    /// The process.
    pub process: Process,
}

impl DaemonReached {
    pub(super) fn example() -> Self {
        Self { path: "/run/docker.sock".into(), process: Process::example() }
    }
}

/// A process wanted a connection and got none.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Unreached {
    /// Both ends.
    pub ends: Ends,
    /// Why, as the kernel numbers it (errno(3)); 0: it was given up, or there was no way to the address, so that nothing
    /// was sent.
    pub errno: u32,
    /// The process.
    pub process: Process,
}

impl Unreached {
    pub(super) fn example() -> Self {
        Self { ends: Ends::example(), errno: 111, process: Process::example() }
    }
}

/// A connection is closed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Closed {
    /// Bytes that came in; of datagrams those that reached the socket.
    pub bytes_in: u64,
    /// Bytes that went out.
    pub bytes_out: u64,
    /// Who had called; absent in what older agents told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direction: Option<Direction>,
    /// How long it was open, in microseconds.
    pub duration_us: u64,
    /// Both ends.
    pub ends: Ends,
    /// The process that had opened it, or listened.
    pub process: Process,
}

impl Closed {
    pub(super) fn example() -> Self {
        Self {
            bytes_in: 48_112,
            bytes_out: 310,
            direction: Some(Direction::Outbound),
            duration_us: 1_250_000,
            ends: Ends::example(),
            process: Process::example(),
        }
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Denial {
    /// A network that is denied.
    Denied,
    /// Networks are allowed by a list, and it is in none of them.
    NotAllowed,
    /// There was no room for its event, or nobody who takes it: no evidence, no effect.
    NoEvidence,
    /// It was open when its network became denied, and was taken down.
    TakenDown,
}

/// A connection was refused by the node's kernel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Denied {
    /// Who called; absent in what older agents told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direction: Option<Direction>,
    /// Both ends.
    pub ends: Ends,
    /// Whether the session ends for it.
    #[serde(skip_serializing_if = "super::process::is_false", default)]
    pub ends_session: bool,
    /// The process.
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
            direction: Some(Direction::Outbound),
            ends: Ends::example(),
            ends_session: false,
            process: Process::example(),
            reason: Denial::Denied,
            restriction: Some("no-internet".into()),
        }
    }
}
