//! What stores find an event by: the envelope without its data, read where it lies.

use super::{ByteString, EventId, Outcome, ProducerKind, SessionId, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::ops::Deref;

/// A part of an [`Event`](super::Event) that isn't kept: reading it takes half as long, which is much of what delivering an event takes.
#[derive(Clone, Debug, Deserialize)]
pub struct Head<'a> {
    #[serde(borrow)]
    actor: Actor<'a>,
    /// See [`Envelope::cause`](super::Envelope::cause).
    pub cause: Option<EventId>,
    /// See [`Envelope::id`](super::Envelope::id).
    pub id: EventId,
    /// See [`Envelope::outcome`](super::Envelope::outcome).
    pub outcome: Option<Outcome>,
    /// See [`Envelope::producer`](super::Envelope::producer).
    #[serde(borrow)]
    pub producer: Producer<'a>,
    /// See [`Envelope::session`](super::Envelope::session).
    pub session: Option<SessionId>,
    /// See [`Envelope::source`](super::Envelope::source).
    #[serde(borrow)]
    pub source: Option<Source<'a>>,
    /// See [`Envelope::target`](super::Envelope::target).
    #[serde(borrow)]
    pub target: Option<Target<'a>>,
    /// See [`Envelope::time`](super::Envelope::time).
    pub time: Timestamp,
    /// See [`Envelope::kind`](super::Envelope::kind).
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// See [`Envelope::version`](super::Envelope::version).
    pub version: u32,
}

/// A text in the event's bytes, or what it stands for where it is escaped there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<Text<'a>> for Cow<'a, str> {
    fn from(text: Text<'a>) -> Self {
        text.0
    }
}

/// Of an actor, what tells a person from a part of Custody, and the person.
#[derive(Clone, Debug, Deserialize)]
struct Actor<'a> {
    identity_provider: Option<IgnoredAny>,
    mfa: Option<IgnoredAny>,
    roles: Option<IgnoredAny>,
    #[serde(borrow)]
    user: Option<Text<'a>>,
}

/// Of [`ProducerRef`](super::ProducerRef).
#[derive(Clone, Debug, Deserialize)]
pub struct Producer<'a> {
    /// Its name.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Its kind.
    pub kind: ProducerKind,
}

/// Of [`Source`](super::Source).
#[derive(Clone, Debug, Deserialize)]
pub struct Source<'a> {
    /// IP address.
    #[serde(borrow)]
    pub address: Text<'a>,
}

/// Of [`Target`](super::Target).
#[derive(Clone, Debug, Deserialize)]
pub struct Target<'a> {
    /// What it is.
    #[serde(borrow)]
    pub kind: Text<'a>,
    /// The account at it.
    pub login: Option<ByteString>,
    /// Its name in Custody.
    #[serde(borrow)]
    pub name: Text<'a>,
}

impl<'a> Head<'a> {
    /// Reads it; the rest of the event isn't looked at, but for being JSON.
    ///
    /// # Errors
    /// When the bytes aren't an event; they stay valid evidence all the same.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        super::read(bytes)
    }

    /// The user's name, where a person acts.
    #[must_use]
    pub fn user(&self) -> Option<&Text<'a>> {
        let Actor { identity_provider, mfa, roles, user } = &self.actor;
        let is_person = identity_provider.is_some() && mfa.is_some() && roles.is_some();
        user.as_ref().filter(|_| is_person)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, TYPES};

    #[track_caller]
    fn assert_same(bytes: &[u8]) {
        let (head, event) = (Head::parse(bytes).unwrap(), Event::parse(bytes).unwrap());
        assert_eq!((head.cause, head.id, head.outcome), (event.cause, event.id, event.outcome));
        assert_eq!((&*head.producer.id, head.producer.kind), (&*event.producer.id, event.producer.kind));
        assert_eq!((head.session, head.time, head.version), (event.session, event.time, event.version));
        assert_eq!(&*head.kind, event.kind);
        assert_eq!(head.user().map(|user| &**user), event.actor.user());
        assert_eq!(
            head.source.as_ref().map(|source| &*source.address),
            event.source.as_ref().map(|source| &*source.address)
        );
        let target = head.target.as_ref().map(|of| (&*of.kind, of.login.as_ref(), &*of.name));
        assert_eq!(target, event.target.as_ref().map(|of| (&*of.kind, of.login.as_ref(), &*of.name)));
    }

    #[test]
    fn it_says_what_the_whole_event_says() {
        for info in TYPES {
            let example = String::from_utf8((info.example)().unwrap()).unwrap();
            assert_same(example.as_bytes());
            // Escaped, and of nobody whose identity is proven.
            assert_same(example.replace("alice", r#"al\u0069ce \"\u00e4\""#).as_bytes());
            assert_same(example.replace("\"identity_provider\"", "\"system\"").as_bytes());
        }
    }

    #[test]
    fn what_is_no_event_has_none() {
        for no_event in [&b""[..], b"{}", b"null", b"\xff", b"[1]", br#"{"type":"login.succeeded"}"#] {
            assert!(Head::parse(no_event).is_err(), "{no_event:?}");
        }
    }
}
