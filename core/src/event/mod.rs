//! What happened: one envelope around typed data, one file for each family of events.
//!
//! An event is written once (see [`canonical`]); those bytes are hashed, stored, sent and verified, and nobody
//! re-encodes them. Fields stand in sorted order in every struct, since that order *is* the canonical form.

mod actor;
pub mod bytestring;
pub mod canonical;
pub mod fields;
mod head;
pub mod hex;
mod registry;
pub mod time;
pub mod who;

pub mod certificate;
pub mod command;
pub mod connection;
pub mod decision;
pub mod file;
pub mod lock;
pub mod log;
pub mod login;
pub mod node;
pub mod node_file;
pub mod policy;
pub mod process;
pub mod producer;
pub mod recording;
pub mod restriction;
pub mod role;
pub mod service;
pub mod session;
pub mod sink;
pub mod socket;
pub mod user;

pub use actor::{Actor, Person, System};
pub use bytestring::ByteString;
pub use head::{Head, Text};
pub use registry::{EventData, Family, Payload, TYPES, TypeInfo};
pub use time::Timestamp;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh one: UUIDv7, so that ids sort by the time at which they were made.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_type! {
    /// The identity of an event, chosen by its producer: what `cause` points at.
    EventId
}
uuid_type! {
    /// The identity of a session: one authenticated connection of a person to one target.
    SessionId
}

impl SessionId {
    /// When it was made, to the millisecond, as a UUIDv7 tells it (RFC 9562, 5.7); the epoch for an id of another
    /// kind. The path of the session's recording follows from it.
    #[must_use]
    pub fn made_at(self) -> Timestamp {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |time| time.to_unix());
        Timestamp::from_nanos(Timestamp::from_seconds(seconds).nanos().saturating_add(u64::from(nanos)))
    }
}

/// What kind of program made an event; [`who`] says which families each may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProducerKind {
    /// The `log` role: state, certificate authorities, API.
    Log,
    /// What faces users and targets.
    Proxy,
    /// An agent on a target.
    Node,
    /// A witness of the log.
    Witness,
}

/// Which program numbered the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProducerRef {
    /// A fresh UUID for each start of the program.
    pub boot: Uuid,
    /// The program's name, e.g. `proxy-1`.
    pub id: String,
    /// Its kind.
    pub kind: ProducerKind,
    /// The number of the event within `boot`: 0, 1, 2 … without gaps.
    pub seq: u64,
}

/// Where from.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// IP address.
    pub address: String,
    /// What the client says it is, e.g. `SSH-2.0-OpenSSH_9.2p1`: a claim, not a proof.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<ByteString>,
    /// TCP port.
    pub port: u16,
}

/// What is reached or changed.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// Address and port that the proxy connects to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// `node`, `user`, `role`, `policy`, `lock`, `session`, `log`.
    pub kind: String,
    /// The account at the target.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub login: Option<ByteString>,
    /// Its name in Custody.
    pub name: String,
}

/// How it came out; absent in an event that stands before its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It happened as asked.
    Success,
    /// It was tried and failed.
    Failure,
    /// Policy or a lock said no.
    Denied,
}

/// An event as it is written. `D` is the typed data, or [`RawValue`] when read back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub struct Envelope<D> {
    /// On whose behalf.
    pub actor: Actor,
    /// The event that made this one happen: the story reads backwards.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<EventId>,
    /// What happened, typed for each `type`.
    pub data: D,
    /// This event.
    pub id: EventId,
    /// How it came out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
    /// Who numbered it.
    pub producer: ProducerRef,
    /// The session it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<SessionId>,
    /// Where from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Source>,
    /// What is reached or changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<Target>,
    /// The producer's clock.
    pub time: Timestamp,
    /// `family.past-participle`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of this type's `data`.
    pub version: u32,
}

/// Reads JSON, which is text: that is checked as a whole, which is cheaper than piece by piece.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_str(str::from_utf8(bytes).map_err(serde_json::Error::custom)?)
}

/// An event read back from the log; types and versions that this program doesn't know are carried.
pub type Event = Envelope<Box<RawValue>>;

impl Event {
    /// Reads an envelope.
    ///
    /// # Errors
    /// When the bytes aren't an event; they stay valid evidence all the same.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        read(bytes)
    }

    /// The typed data, or [`Payload::Unknown`] for a type or version that is newer than this program.
    #[must_use]
    pub fn payload(&self) -> Payload {
        Payload::parse(&self.kind, self.version, self.data.get())
    }
}

/// An event that isn't numbered yet. Its id is already known, so that later ones can name it as their cause.
#[derive(Clone, Debug)]
#[must_use = "a draft is no evidence until a producer has appended it"]
pub struct Draft<D> {
    /// See [`Envelope::id`].
    pub id: EventId,
    /// See [`Envelope::actor`].
    pub actor: Actor,
    /// See [`Envelope::cause`].
    pub cause: Option<EventId>,
    /// See [`Envelope::session`].
    pub session: Option<SessionId>,
    /// See [`Envelope::source`].
    pub source: Option<Source>,
    /// See [`Envelope::target`].
    pub target: Option<Target>,
    /// See [`Envelope::outcome`].
    pub outcome: Option<Outcome>,
    /// See [`Envelope::data`].
    pub data: D,
}

impl<D: EventData> Draft<D> {
    /// An event of `actor` with nothing but its data.
    pub fn new(actor: Actor, data: D) -> Self {
        Self {
            id: EventId::new(),
            actor,
            cause: None,
            session: None,
            source: None,
            target: None,
            outcome: None,
            data,
        }
    }

    /// Names the event that made this one happen.
    pub fn cause(mut self, cause: EventId) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Puts it into a session.
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Says where from.
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Says what is reached or changed.
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Says how it came out.
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// Numbers it.
    pub fn numbered(self, producer: ProducerRef, time: Timestamp) -> Envelope<D> {
        Envelope {
            actor: self.actor,
            cause: self.cause,
            data: self.data,
            id: self.id,
            outcome: self.outcome,
            producer,
            session: self.session,
            source: self.source,
            target: self.target,
            time,
            kind: D::TYPE.to_owned(),
            version: D::VERSION,
        }
    }
}
