//! Connections through a session that carry no program: forwards, remote forwards, the agent, X11.
//!
//! A forward that the client asks for is decided, and `connection.requested` is durable before the target hears of
//! it. What the client offers to the target (a remote forward, its agent, its X server) is decided once, as
//! `connection.listen-requested`; each connection that the target opens by it is a `connection.requested` of its own,
//! durable before the client hears of it.

use crate::event::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest host name or path of a socket that stands in an event, in bytes; longer ones are refused.
pub const PLACE_BYTES_MAX: usize = 256;

/// Which way a connection goes, and what is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// From the client through the target to a host or a socket (`ssh -L`, `-D`, `-W`).
    Forward,
    /// To the client: it came in where the client had asked the target to listen (`ssh -R`).
    Accepted,
    /// To the client's agent (`ssh -A`).
    Agent,
    /// To the client's X server (`ssh -X`).
    X11,
}

/// What is asked of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Offer {
    /// To listen, and to bring what comes in to the client (`ssh -R`).
    Listen,
    /// To let programs use the client's agent (`ssh -A`).
    Agent,
    /// To let programs show windows on the client's X server (`ssh -X`).
    X11,
}

/// Where a connection leads, or where it is waited for: as whoever asked wrote it, before any name was looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// A name or an address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<ByteString>,
    /// The path of a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<ByteString>,
    /// A TCP port; 0 where the target may choose one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u32>,
}

impl Place {
    /// A host's port.
    #[must_use]
    pub fn tcp(host: &[u8], port: u32) -> Self {
        Self { host: Some(ByteString::cut(host, PLACE_BYTES_MAX)), path: None, port: Some(port) }
    }

    /// A Unix socket.
    #[must_use]
    pub fn socket(path: &[u8]) -> Self {
        Self { host: None, path: Some(ByteString::cut(path, PLACE_BYTES_MAX)), port: None }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { path: Some(path), .. } => write!(f, "{path}"),
            Self { host: Some(host), port: Some(port), .. } => write!(f, "{host}:{port}"),
            _ => Ok(()),
        }
    }
}

/// A connection is about to be opened; the side that it leads to hasn't heard of it yet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Requested {
    /// The channel's number within the session.
    pub channel: u32,
    /// Which way it goes.
    pub kind: Kind,
    /// Where it comes from, as the side that opens it says: a name or an address, and a port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<Place>,
    /// Where it leads; of one that came in, where the target listens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<Place>,
}

impl Requested {
    pub(super) fn example() -> Self {
        Self {
            channel: 2,
            kind: Kind::Forward,
            origin: Some(Place::tcp(b"127.0.0.1", 50_412)),
            place: Some(Place::tcp(b"db.internal", 5432)),
        }
    }
}

/// A connection was opened, and is closed again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Completed {
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// The channel's number within the session.
    pub channel: u32,
    /// How long it was open, in milliseconds.
    pub duration_ms: u64,
    /// SHA-256 of the bytes from the client, hex; where they are 1,024 or more. Fewer may be a password, and could be
    /// guessed from their hash.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input_sha256: Option<String>,
    /// The same of the bytes to the client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_sha256: Option<String>,
}

impl Completed {
    pub(super) fn example() -> Self {
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned();
        Self {
            bytes_in: 310,
            bytes_out: 48_112,
            channel: 2,
            duration_ms: 1_250,
            input_sha256: None,
            output_sha256: Some(hash),
        }
    }
}

/// A connection or a listener that was allowed never came about.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The channel's number within the session; absent for a listener.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub channel: Option<u32>,
    /// The reason code of whoever refused it (RFC 4254, 5.1): 1 prohibited, 2 connect failed, 3 unknown channel type,
    /// 4 resource shortage.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<u32>,
    /// Why, in its words or in ours.
    pub reason: ByteString,
}

impl Failed {
    pub(super) fn example() -> Self {
        Self { channel: Some(2), code: Some(2), reason: "Connection refused".into() }
    }
}

/// Something was refused before policy was asked: by the certificate, or because nobody had asked for it. Told for
/// the first of them in a session.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// Who wanted it: `client` or `target`.
    pub by: String,
    /// Where it should have led, where that could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<Place>,
    /// Why.
    pub reason: String,
    /// What was asked for: the type of a channel or the name of a request.
    pub what: ByteString,
}

impl Refused {
    pub(super) fn example() -> Self {
        Self {
            by: "target".into(),
            place: Some(Place::tcp(b"127.0.0.1", 8080)),
            reason: "the client hasn't asked for it".into(),
            what: "forwarded-tcpip".into(),
        }
    }
}

/// The client offers to take connections that the target opens; the target hasn't heard of it yet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ListenRequested {
    /// The channel that asked, of an agent or an X server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub channel: Option<u32>,
    /// What is offered.
    pub offer: Offer,
    /// Where the target is to listen; its port is 0 where the target may choose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<Place>,
}

impl ListenRequested {
    pub(super) fn example() -> Self {
        Self { channel: None, offer: Offer::Listen, place: Some(Place::tcp(b"localhost", 0)) }
    }
}

/// The target listens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ListenOpened {
    /// Where; its port is the one that was allocated.
    pub place: Place,
}

impl ListenOpened {
    pub(super) fn example() -> Self {
        Self { place: Place::tcp(b"localhost", 38_211) }
    }
}

/// Why a target no longer listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ListenEnd {
    /// The client cancelled it.
    Cancelled,
    /// The session ended.
    SessionEnded,
}

/// The target no longer listens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ListenClosed {
    /// Connections that came in.
    pub connections: u64,
    /// Where it listened.
    pub place: Place,
    /// Why it is over.
    pub reason: ListenEnd,
}

impl ListenClosed {
    pub(super) fn example() -> Self {
        Self { connections: 3, place: Place::tcp(b"localhost", 38_211), reason: ListenEnd::Cancelled }
    }
}
