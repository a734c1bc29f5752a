//! The list of all event types: one line each, and everything else (parsing, schemas, docs) follows from it.

use super::*;
use serde::de::DeserializeOwned;

/// The data of one type of event.
pub trait EventData: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// `family.past-participle`.
    const TYPE: &'static str;
    /// Version of the data's shape.
    const VERSION: u32;
    /// The family that `TYPE` names.
    const FAMILY: Family;
    /// A plausible instance, for schemas, documentation and the tests of every reader.
    fn example() -> Self;
}

/// What the schemas and the documentation are generated from.
pub struct TypeInfo {
    /// `family.past-participle`.
    pub name: &'static str,
    /// Version of its data.
    pub version: u32,
    /// Its family.
    pub family: Family,
    /// JSON Schema of the data; its description is the type's docstring.
    pub schema: fn() -> schemars::Schema,
    /// Canonical bytes of an example in a whole envelope.
    pub example: fn() -> Result<Vec<u8>, canonical::CanonicalError>,
}

fn example_event<D: EventData>() -> Result<Vec<u8>, canonical::CanonicalError> {
    let fixed = |n: u128| EventId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n));
    let person = Actor::Person(Person {
        certificate: Some("7310384917230117".to_owned()),
        identity_provider: "local".to_owned(),
        mfa: false,
        roles: vec!["operator".to_owned()],
        user: "alice".to_owned(),
    });
    let mut draft = Draft::new(person, D::example());
    draft.id = fixed(2);
    let producer = ProducerRef {
        boot: fixed(1).0,
        id: "custody".to_owned(),
        kind: who::usual(D::FAMILY, D::TYPE),
        seq: 41,
    };
    canonical::event_bytes(&draft.numbered(producer, Timestamp::from_nanos(1_764_028_800_123_456_789)))
}

macro_rules! events {
    ($($family:ident = $tag:literal { $($variant:ident: $module:ident::$data:ident = $name:literal v $version:literal,)* })*) => {
        /// The first part of an event's type; its number stands in the log's records, so that a reader can pass over
        /// whole families unparsed. Numbers are never used again for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Family { $(#[doc = concat!("Events of the family ", stringify!($family), ".")] $family = $tag,)* }

        impl Family {
            /// Its number in records.
            #[must_use]
            pub const fn tag(self) -> u8 {
                self as u8
            }
        }

        impl Family {
            /// The family with that number in records, where this program knows it.
            #[must_use]
            pub const fn of_tag(tag: u8) -> Option<Self> {
                match tag {
                    $($tag => Some(Self::$family),)*
                    _ => None,
                }
            }

            /// The family that a type's name begins with, where this program knows it.
            #[must_use]
            pub fn of(name: &str) -> Option<Self> {
                let (family, _) = name.split_once('.')?;
                $(if family.eq_ignore_ascii_case(stringify!($family)) && family.bytes().all(|b| b.is_ascii_lowercase()) {
                    return Some(Self::$family);
                })*
                None
            }
        }

        /// The typed data of an event.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum Payload {
            $($(#[doc = concat!("`", $name, "`")] $variant($module::$data),)*)*
            /// A type, version or shape that this program doesn't know: carried and verified, never dropped.
            Unknown,
        }

        impl Payload {
            pub(crate) fn parse(kind: &str, version: u32, data: &str) -> Self {
                match (kind, version) {
                    $($(($name, 1..=$version) => serde_json::from_str(data).map_or(Self::Unknown, Self::$variant),)*)*
                    _ => Self::Unknown,
                }
            }
        }

        $($(impl EventData for $module::$data {
            const TYPE: &'static str = $name;
            const VERSION: u32 = $version;
            const FAMILY: Family = Family::$family;
            fn example() -> Self {
                $module::$data::example()
            }
        })*)*

        /// Every type of event.
        pub const TYPES: &[TypeInfo] = &[$($(TypeInfo {
            name: $name,
            version: $version,
            family: Family::$family,
            schema: || schemars::schema_for!($module::$data),
            example: example_event::<$module::$data>,
        },)*)*];
    };
}

events! {
    Login = 1 {
        LoginSucceeded: login::Succeeded = "login.succeeded" v 1,
        LoginFailed: login::Failed = "login.failed" v 2,
    }
    Certificate = 2 {
        CertificateIssued: certificate::Issued = "certificate.issued" v 1,
    }
    Session = 3 {
        SessionRequested: session::Requested = "session.requested" v 1,
        SessionStarted: session::Started = "session.started" v 1,
        SessionEndRequested: session::EndRequested = "session.end-requested" v 1,
        SessionEnded: session::Ended = "session.ended" v 1,
    }
    Command = 4 {
        CommandRequested: command::Requested = "command.requested" v 1,
        CommandCompleted: command::Completed = "command.completed" v 1,
        CommandFailed: command::Failed = "command.failed" v 1,
        CommandExecuted: command::Executed = "command.executed" v 1,
        CommandExited: command::Exited = "command.exited" v 1,
        CommandDenied: command::Denied = "command.denied" v 1,
    }
    Decision = 5 {
        DecisionMade: decision::Made = "decision.made" v 1,
    }
    Lock = 6 {
        LockCreated: lock::Created = "lock.created" v 1,
        LockLifted: lock::Lifted = "lock.lifted" v 1,
    }
    User = 7 {
        UserCreated: user::Created = "user.created" v 1,
        UserChanged: user::Changed = "user.changed" v 1,
        UserRemoved: user::Removed = "user.removed" v 1,
        UserPasswordSet: user::PasswordSet = "user.password-set" v 1,
    }
    Role = 8 {
        RoleCreated: role::Created = "role.created" v 1,
        RoleRemoved: role::Removed = "role.removed" v 1,
    }
    Policy = 9 {
        PolicyUploaded: policy::Uploaded = "policy.uploaded" v 1,
        PolicyRemoved: policy::Removed = "policy.removed" v 1,
    }
    Node = 10 {
        NodeAdded: node::Added = "node.added" v 1,
        NodeRemoved: node::Removed = "node.removed" v 1,
        NodeHostKeyRefused: node::HostKeyRefused = "node.host-key-refused" v 1,
        NodeTokenCreated: node::TokenCreated = "node.token-created" v 1,
        NodeEnrolled: node::Enrolled = "node.enrolled" v 1,
        NodeJoined: node::Joined = "node.joined" v 1,
        NodeLost: node::Lost = "node.lost" v 1,
        NodeSessionAccepted: node::SessionAccepted = "node.session-accepted" v 1,
        NodeKernelChanged: node::KernelChanged = "node.kernel-changed" v 1,
    }
    Producer = 11 {
        ProducerStarted: producer::Started = "producer.started" v 1,
        ProducerStopped: producer::Stopped = "producer.stopped" v 1,
        ProducerRefused: producer::Refused = "producer.refused" v 1,
        ProducerGap: producer::Gap = "producer.gap" v 1,
        ProducerSigned: producer::Signed = "producer.signed" v 1,
        ProducerDropped: producer::Dropped = "producer.dropped" v 1,
        ProducerClockStepped: producer::ClockStepped = "producer.clock-stepped" v 1,
    }
    Recording = 12 {
        RecordingAnchored: recording::Anchored = "recording.anchored" v 1,
        RecordingSealed: recording::Sealed = "recording.sealed" v 1,
        RecordingViewed: recording::Viewed = "recording.viewed" v 1,
    }
    Log = 13 {
        LogCreated: log::Created = "log.created" v 1,
        LogSealed: log::Sealed = "log.sealed" v 1,
        LogRead: log::Read = "log.read" v 1,
        LogCosigned: log::Cosigned = "log.cosigned" v 1,
        LogUnwitnessed: log::Unwitnessed = "log.unwitnessed" v 1,
        LogKeyAdded: log::KeyAdded = "log.key-added" v 1,
        LogKeyRetired: log::KeyRetired = "log.key-retired" v 1,
        LogTimestamped: log::Timestamped = "log.timestamped" v 1,
        LogClockRefused: log::ClockRefused = "log.clock-refused" v 1,
        LogClockConfirmed: log::ClockConfirmed = "log.clock-confirmed" v 1,
        LogFilled: log::Filled = "log.filled" v 1,
        LogRecovered: log::Recovered = "log.recovered" v 1,
        LogEpochBegun: log::EpochBegun = "log.epoch-begun" v 1,
    }
    Sink = 14 {
        SinkRejected: sink::Rejected = "sink.rejected" v 1,
        SinkStalled: sink::Stalled = "sink.stalled" v 1,
        SinkResumed: sink::Resumed = "sink.resumed" v 1,
        SinkPaused: sink::Paused = "sink.paused" v 1,
        SinkReleased: sink::Released = "sink.released" v 1,
        SinkReplayBegun: sink::ReplayBegun = "sink.replay-begun" v 1,
        SinkRedriveBegun: sink::RedriveBegun = "sink.redrive-begun" v 1,
        SinkCancelled: sink::Cancelled = "sink.cancelled" v 1,
        SinkVerified: sink::Verified = "sink.verified" v 1,
    }
    Service = 15 {
        ServiceCreated: service::Created = "service.created" v 1,
        ServiceChanged: service::Changed = "service.changed" v 1,
        ServiceTokenSet: service::TokenSet = "service.token-set" v 1,
        ServiceRemoved: service::Removed = "service.removed" v 1,
    }
    Connection = 17 {
        ConnectionRequested: connection::Requested = "connection.requested" v 1,
        ConnectionCompleted: connection::Completed = "connection.completed" v 2,
        ConnectionFailed: connection::Failed = "connection.failed" v 1,
        ConnectionRefused: connection::Refused = "connection.refused" v 1,
        ConnectionListenRequested: connection::ListenRequested = "connection.listen-requested" v 1,
        ConnectionListenOpened: connection::ListenOpened = "connection.listen-opened" v 1,
        ConnectionListenClosed: connection::ListenClosed = "connection.listen-closed" v 1,
        ConnectionOpened: socket::Opened = "connection.opened" v 1,
        ConnectionAccepted: socket::Accepted = "connection.accepted" v 1,
        ConnectionDaemonReached: socket::DaemonReached = "connection.daemon-reached" v 1,
        ConnectionUnreached: socket::Unreached = "connection.unreached" v 1,
        ConnectionClosed: socket::Closed = "connection.closed" v 1,
        ConnectionDenied: socket::Denied = "connection.denied" v 1,
    }
    File = 16 {
        FileRequested: file::Requested = "file.requested" v 1,
        FileCompleted: file::Completed = "file.completed" v 1,
        FileFailed: file::Failed = "file.failed" v 1,
        FileUnparsed: file::Unparsed = "file.unparsed" v 1,
        FileOpened: node_file::Opened = "file.opened" v 1,
        FileCreated: node_file::Created = "file.created" v 1,
        FileTruncated: node_file::Truncated = "file.truncated" v 1,
        FileRenamed: node_file::Renamed = "file.renamed" v 1,
        FileLinked: node_file::Linked = "file.linked" v 1,
        FileDeleted: node_file::Deleted = "file.deleted" v 1,
        FilePermissionChanged: node_file::PermissionChanged = "file.permission-changed" v 1,
        FileOwnerChanged: node_file::OwnerChanged = "file.owner-changed" v 1,
        FileAttributeChanged: node_file::AttributeChanged = "file.attribute-changed" v 1,
        FileDenied: node_file::Denied = "file.denied" v 1,
    }
    Restriction = 18 {
        RestrictionCreated: restriction::Created = "restriction.created" v 1,
        RestrictionLifted: restriction::Lifted = "restriction.lifted" v 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_canonical_by_an_independent_crate_and_comes_back() {
        for info in TYPES {
            let bytes = (info.example)().unwrap();
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let theirs = serde_json_canonicalizer::to_string(&value).unwrap();
            assert_eq!(std::str::from_utf8(&bytes).unwrap(), theirs, "{}", info.name);
            let event = Event::parse(&bytes).unwrap();
            assert!(!matches!(event.payload(), Payload::Unknown), "{} doesn't parse as itself", info.name);
            assert_eq!(canonical::event_bytes(&event).unwrap(), bytes, "{}", info.name);
        }
    }

    #[test]
    fn what_is_newer_is_carried() {
        let bytes = (TYPES[0].example)().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for newer in [
            text.replace("login.succeeded", "login.teleported"),
            text.replace(r#""version":1"#, r#""version":2"#),
        ] {
            let event = Event::parse(newer.as_bytes()).unwrap();
            assert!(matches!(event.payload(), Payload::Unknown));
            assert_eq!(canonical::event_bytes(&event).unwrap(), newer.as_bytes());
        }
    }

    #[test]
    fn names_start_with_their_family() {
        for info in TYPES {
            let family = format!("{:?}", info.family).to_lowercase();
            assert!(info.name.starts_with(&format!("{family}.")), "{}", info.name);
            assert_eq!(Family::of(info.name), Some(info.family));
            assert_eq!(Family::of_tag(info.family.tag()), Some(info.family));
        }
        for other in ["", "login", "Login.succeeded", "galaxy.formed", ".x"] {
            assert_eq!(Family::of(other), None, "{other}");
        }
    }
}
