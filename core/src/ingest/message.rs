//! Messages: a byte that says of which kind, and JSON; a batch of events as it is.

use crate::event::{Actor, SessionId};
use crate::log::EVENT_BYTES_MAX;
use crate::policy::networks::Reach;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// How many events one batch may have.
pub const BATCH_EVENTS_MAX: usize = 4_096;

/// The longest reason of the other side that is passed on, in characters: a node's root may be anybody, and what is too long for
/// an event would keep a session's end out of the log.
pub const REASON_CHARS_MAX: usize = 500;

const EVENTS: u8 = 1;
const JSON: u8 = 2;
const REFUSED: u8 = 3;

/// What an agent says.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAgent {
    /// Events in the order of their numbers, the last of them a `producer.signed` that speaks of all others.
    Events(Vec<Vec<u8>>),
    /// Anything else.
    Said(Said),
}

/// What an agent says besides its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Said {
    /// It is there.
    Alive,
    /// It waits for that session's connection: from now on that can be opened.
    Expecting {
        /// The session.
        session: SessionId,
    },
    /// It can't wait for that session's connection.
    Refused {
        /// The session.
        session: SessionId,
        /// Why, in one line.
        reason: String,
    },
    /// It holds a session to what it may reach, as a [`Told::Reach`] has said.
    Held {
        /// The number of that change.
        change: u64,
        /// The session.
        session: SessionId,
    },
    /// It can't: the session may do nothing any more, as far as the kernel can see to that.
    Unheld {
        /// The number of that change.
        change: u64,
        /// Why, in one line.
        reason: String,
        /// The session.
        session: SessionId,
    },
    /// New sessions can't be watched: why, in one line. Until it says `ready`.
    Unready {
        /// Why.
        reason: String,
    },
    /// Sessions can be watched.
    Ready,
    /// It wants another certificate for its key.
    Renew {
        /// A PKCS#10 request, DER in base64.
        signing_request: String,
    },
}

/// What the `log` role says to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Told {
    /// It is there.
    Alive,
    /// So many events of this connection, from its first on, are durable (or refused for good, which is an event too).
    Acknowledged {
        /// How many.
        events: u64,
    },
    /// A session's connection is about to be opened.
    Expect(Box<Expected>),
    /// These sessions live, as far as they are watched by this agent, and no others: the first word of a connection.
    Live {
        /// The sessions.
        sessions: BTreeSet<SessionId>,
    },
    /// A session is over: its connection won't come any more. What it left running stays watched.
    Over {
        /// The session.
        session: SessionId,
    },
    /// What a session may reach, where that has changed, or where it isn't known whether the agent has heard it. It answers with
    /// [`Said::Held`] or [`Said::Unheld`].
    Reach {
        /// Counts the session's changes.
        change: u64,
        /// The session.
        session: SessionId,
        /// What it may reach now.
        reach: Reach,
    },
    /// Another certificate.
    Certificate {
        /// PEM.
        certificate: String,
    },
}

/// A session's connection that is about to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Whose session it is.
    pub actor: Actor,
    /// The proxy's end.
    pub from: SocketAddr,
    /// The account at the node.
    pub login: String,
    /// What the session may reach.
    pub reach: Reach,
    /// The session.
    pub session: SessionId,
    /// The node's end.
    pub to: SocketAddr,
}

/// A message that no other side of ours sends.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It ends too early, or too late.
    #[error("a message is cut short")]
    Cut,
    /// Too many events in one batch, or one that is too long.
    #[error("a batch breaks a limit: {BATCH_EVENTS_MAX} events of {EVENT_BYTES_MAX} bytes")]
    TooMuch,
    /// Its kind is unknown.
    #[error("a message is of the unknown kind {0}")]
    Kind(u8),
    /// It isn't what it should be.
    #[error("a message can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The log's last word: it takes nothing more of this agent, and why.
    #[error("the log takes nothing from this agent: {0}")]
    Refused(String),
}

/// What the other side gives as a reason, as it may stand in events, lines of the log and on a person's terminal.
#[must_use]
pub fn one_line(said: &str) -> String {
    said.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The log's last word before it ends a connection, as the body of a frame: why it takes nothing more of the agent. No message can
/// follow, so whoever reads it gets [`MessageError::Refused`].
#[must_use]
pub fn encode_refusal(reason: &str) -> Vec<u8> {
    [&[REFUSED], reason.as_bytes()].concat()
}

/// A batch of events as the body of a frame.
#[must_use]
pub fn encode_events<'a>(events: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut body = vec![EVENTS];
    for event in events {
        // An event is at most EVENT_BYTES_MAX long, which is a u16.
        body.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(event);
    }
    body
}

fn encode_json(message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    let mut body = vec![JSON];
    serde_json::to_writer(&mut body, message)?;
    Ok(body)
}

impl Said {
    /// The body of a frame.
    ///
    /// # Errors
    /// Never for what this program makes; the writer could say so.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode_json(self)
    }
}

impl Told {
    /// The body of a frame.
    ///
    /// # Errors
    /// Never for what this program makes; the writer could say so.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode_json(self)
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        match body {
            [JSON, json @ ..] => Ok(serde_json::from_slice(json)?),
            [REFUSED, reason @ ..] => Err(MessageError::Refused(one_line(&String::from_utf8_lossy(reason)))),
            [kind, ..] => Err(MessageError::Kind(*kind)),
            [] => Err(MessageError::Cut),
        }
    }
}

impl FromAgent {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        match body {
            [EVENTS, events @ ..] => Ok(Self::Events(decode_events(events)?)),
            [JSON, json @ ..] => Ok(Self::Said(serde_json::from_slice(json)?)),
            [kind, ..] => Err(MessageError::Kind(*kind)),
            [] => Err(MessageError::Cut),
        }
    }
}

fn decode_events(mut rest: &[u8]) -> Result<Vec<Vec<u8>>, MessageError> {
    let mut events = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > EVENT_BYTES_MAX || events.len() >= BATCH_EVENTS_MAX {
            return Err(MessageError::TooMuch);
        }
        let (event, after) = after.split_at_checked(length).ok_or(MessageError::Cut)?;
        events.push(event.to_vec());
        rest = after;
    }
    if rest.is_empty() { Ok(events) } else { Err(MessageError::Cut) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_come_back(events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..9)) {
            let body = encode_events(events.iter().map(Vec::as_slice));
            prop_assert_eq!(FromAgent::decode(&body).unwrap(), FromAgent::Events(events));
        }

        #[test]
        fn rubbish_is_refused_and_nothing_else(body in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(FromAgent::Events(events)) = FromAgent::decode(&body) {
                prop_assert_eq!(encode_events(events.iter().map(Vec::as_slice)), body.clone());
            }
            prop_assert!(Told::decode(&body).is_err() || body[0] == JSON);
        }
    }

    #[test]
    fn an_agent_of_which_nothing_is_taken_hears_why() {
        let told = Told::decode(&encode_refusal("a batch is signed by\nanother key")).unwrap_err();
        assert_eq!(
            told.to_string(),
            "the log takes nothing from this agent: a batch is signed by another key"
        );
        let long = Told::decode(&encode_refusal(&"x".repeat(1 << 16))).unwrap_err();
        assert!(matches!(long, MessageError::Refused(reason) if reason.len() == REASON_CHARS_MAX));
        assert!(FromAgent::decode(&encode_refusal("")).is_err(), "it is the log's to say");
    }

    #[test]
    fn what_is_said_comes_back() {
        let session = SessionId::new();
        for said in [Said::Alive, Said::Refused { session, reason: "the tuple is taken".into() }] {
            assert_eq!(FromAgent::decode(&said.encode().unwrap()).unwrap(), FromAgent::Said(said));
        }
        let told = Told::Expect(Box::new(Expected {
            actor: Actor::system("test"),
            from: "192.0.2.1:40000".parse().unwrap(),
            login: "root".into(),
            reach: Reach::default(),
            session,
            to: "[2001:db8::1]:22".parse().unwrap(),
        }));
        assert_eq!(Told::decode(&told.encode().unwrap()).unwrap(), told);
    }
}
