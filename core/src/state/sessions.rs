//! Sessions: each is the fold of its events, from the request to its one end.

use super::recordings::Recording;
use crate::event::{Actor, Event, EventId, SessionId, Source, Timestamp, command, connection, session};
use crate::policy::Circumstances;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many commands of one session are shown as open at once; more are counted.
pub const OPEN_COMMANDS_MAX: usize = 256;

/// How much one session may have on offer for its target: listeners, and requests for an agent or an X server.
pub const OFFERS_MAX: usize = 1024;

/// How much of a text of others is kept, in characters; the whole stands in the event.
const TEXT_CHARS_MAX: usize = 256;

/// How a session began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// Who.
    pub actor: Actor,
    /// When the log took the request.
    pub at: Timestamp,
    /// Under which circumstances it was allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circumstances: Option<Circumstances>,
    /// The decision that allowed it.
    pub decision: EventId,
    /// The index of `session.requested`.
    pub index: u64,
    /// The account at the target.
    pub login: String,
    /// The node.
    pub node: String,
    /// The producer that tells of it.
    pub producer: String,
    /// `ssh`.
    pub protocol: String,
    /// How much is recorded: a name of [`crate::policy::RecordingLevel`].
    pub recording: String,
    /// Where from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// How far a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Allowed; the target hasn't answered.
    Requested,
    /// The target has taken it.
    Started {
        /// When the log took `session.started`.
        at: Timestamp,
        /// `SHA256:…` of the target's host key.
        host_key: String,
        /// Serial number of the session's certificate.
        serial: String,
    },
    /// It is over.
    Ended {
        /// When the log took `session.ended`.
        at: Timestamp,
        /// Bytes from the client.
        bytes_in: u64,
        /// Bytes to the client.
        bytes_out: u64,
        /// One line for people.
        detail: String,
        /// The index of `session.ended`.
        index: u64,
        /// Why.
        reason: session::EndReason,
        /// When it had started, where it had.
        #[serde(skip_serializing_if = "Option::is_none")]
        started: Option<Timestamp>,
    },
}

/// A program that runs, as far as the proxy knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenCommand {
    /// When the log took the request.
    pub at: Timestamp,
    /// The beginning of the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The index of `command.requested`.
    pub index: u64,
    /// What kind.
    pub kind: command::Kind,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// That somebody has a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndRequest {
    /// The `session.end-requested`.
    pub event: EventId,
    /// What the people concerned are told.
    pub reason: String,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// How many programs were asked for.
    pub commands: u64,
    /// How many connections were asked for, either way.
    pub connections: u64,
    /// The index of its latest event.
    pub last_evidence: u64,
    /// Who had it ended, and why, before its end is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_requested: Option<EndRequest>,
    /// What the client offered to the target: the events that said so.
    #[serde(skip)]
    offers: BTreeSet<EventId>,
    /// Programs that run, by channel; empty once it has ended.
    pub open_commands: BTreeMap<u32, OpenCommand>,
    /// How it began.
    pub opened: Opened,
    /// How far it is.
    pub phase: Phase,
    /// What proves its recording.
    pub recording: Recording,
}

impl Session {
    /// The user's name.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.opened.actor.user()
    }

    /// Whether its end wasn't told yet.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Ended { .. })
    }
}

/// All sessions by id, which sorts by the time of their request.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    #[serde(skip)]
    live: BTreeSet<SessionId>,
}

const NO_SESSION: &str = "there is no such session";
const ENDED: &str = "the session has ended";

impl Sessions {
    /// A session.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    /// All sessions by id: the oldest first; from the back the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (SessionId, &Session)> {
        self.by_id.iter().map(|(id, session)| (*id, session))
    }

    /// Sessions whose end wasn't told yet.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = (SessionId, &Session)> {
        self.live.iter().filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }

    /// How many there are, the ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there never was one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn evidence(&mut self, index: u64, id: SessionId) {
        if let Some(session) = self.by_id.get_mut(&id) {
            session.last_evidence = index;
        }
    }

    pub(super) fn requested(
        &mut self,
        (index, at): (u64, Timestamp),
        event: &Event,
        data: session::Requested,
        (decision, circumstances): (EventId, Option<Circumstances>),
    ) -> Result<(), &'static str> {
        let id = event.session.ok_or(NO_SESSION)?;
        let target = event.target.as_ref().ok_or("it names no target")?;
        if self.by_id.contains_key(&id) {
            return Err("a session has this id");
        }
        let mut source = event.source.clone();
        if let Some(client) = source.as_mut().and_then(|source| source.client.as_mut()) {
            *client = crate::event::ByteString::cut(client.as_bytes(), TEXT_CHARS_MAX);
        }
        let opened = Opened {
            actor: event.actor.clone(),
            at,
            circumstances,
            decision,
            index,
            login: target.login.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: target.name.clone(),
            producer: event.producer.id.clone(),
            protocol: cut(&data.protocol),
            recording: cut(&data.recording),
            source,
        };
        let session = Session {
            commands: 0,
            connections: 0,
            end_requested: None,
            offers: BTreeSet::new(),
            last_evidence: index,
            open_commands: BTreeMap::new(),
            opened,
            phase: Phase::Requested,
            recording: Recording::default(),
        };
        self.by_id.insert(id, session);
        self.live.insert(id);
        Ok(())
    }

    pub(super) fn started(
        &mut self,
        at: Timestamp,
        id: Option<SessionId>,
        data: session::Started,
    ) -> Result<(), &'static str> {
        let session = self.live_mut(id)?;
        if session.phase != Phase::Requested {
            return Err("the session has started already");
        }
        session.phase = Phase::Started { at, host_key: cut(&data.host_key), serial: cut(&data.serial) };
        Ok(())
    }

    pub(super) fn ended(
        &mut self,
        (index, at): (u64, Timestamp),
        id: Option<SessionId>,
        data: &session::Ended,
    ) -> Result<(), &'static str> {
        let session = self.live_mut(id)?;
        let started = match session.phase {
            Phase::Started { at, .. } => Some(at),
            Phase::Requested | Phase::Ended { .. } => None,
        };
        session.phase = Phase::Ended {
            at,
            bytes_in: data.bytes_in,
            bytes_out: data.bytes_out,
            detail: cut(&data.detail),
            index,
            reason: data.reason,
            started,
        };
        session.open_commands.clear();
        session.offers.clear();
        session.end_requested = None;
        session.opened.circumstances = None;
        id.map(|id| self.live.remove(&id));
        Ok(())
    }

    pub(super) fn command_requested(
        &mut self,
        (index, at): (u64, Timestamp),
        id: Option<SessionId>,
        data: &command::Requested,
    ) -> Result<(), &'static str> {
        let session = self.live_mut(id)?;
        session.commands = session.commands.saturating_add(1);
        if session.open_commands.len() < OPEN_COMMANDS_MAX {
            let command = data.command.as_ref().map(|command| cut(&command.to_text()));
            let open = OpenCommand { at, command, index, kind: data.kind, terminal: data.terminal };
            session.open_commands.insert(data.channel, open);
        }
        Ok(())
    }

    /// Its session may have ended: what was still being decided then is told behind that to have failed.
    pub(super) fn command_ended(&mut self, id: Option<SessionId>, channel: u32) -> Result<(), &'static str> {
        let session = id.and_then(|id| self.by_id.get_mut(&id)).ok_or(NO_SESSION)?;
        session.open_commands.remove(&channel);
        Ok(())
    }

    /// Somebody has it ended; the first who does counts.
    pub(super) fn end_requested(
        &mut self,
        id: Option<SessionId>,
        event: EventId,
        reason: &str,
    ) -> Result<(), &'static str> {
        let session = self.live_mut(id)?;
        session.end_requested.get_or_insert_with(|| EndRequest { event, reason: cut(reason) });
        Ok(())
    }

    /// Its node's kernel refused it something, and it ends for that.
    pub(super) fn denied(
        &mut self,
        id: Option<SessionId>,
        event: EventId,
        restriction: Option<&str>,
    ) -> Result<(), &'static str> {
        let by = restriction.unwrap_or("a restriction");
        self.end_requested(id, event, &format!("it tried what {by} doesn't let it do"))
    }

    /// The client offered something to the target: a listener, its agent, its X server.
    pub(super) fn offered(&mut self, id: Option<SessionId>, offer: EventId) -> Result<(), &'static str> {
        let session = self.live_mut(id)?;
        if session.offers.len() >= OFFERS_MAX {
            return Err("the session has offered too much");
        }
        session.offers.insert(offer);
        Ok(())
    }

    /// The target no longer listens.
    pub(super) fn withdrawn(
        &mut self,
        id: Option<SessionId>,
        offer: Option<EventId>,
    ) -> Result<(), &'static str> {
        let session = self.live_mut(id)?;
        offer.map(|offer| session.offers.remove(&offer));
        Ok(())
    }

    /// A connection of a session: one that the client asked for, or one by what the client had offered.
    pub(super) fn connection_requested(
        &mut self,
        id: Option<SessionId>,
        kind: connection::Kind,
        cause: Option<EventId>,
    ) -> Result<(), &'static str> {
        let session = self.live_mut(id)?;
        let offered = cause.is_some_and(|cause| session.offers.contains(&cause));
        if kind != connection::Kind::Forward && !offered {
            return Err("the client has offered nothing of the kind");
        }
        session.connections = session.connections.saturating_add(1);
        Ok(())
    }

    /// The recording of a session, which may have ended: seals come last.
    pub(super) fn recording_mut(&mut self, id: Option<SessionId>) -> Result<&mut Recording, &'static str> {
        let id = id.ok_or(NO_SESSION)?;
        self.by_id.get_mut(&id).map(|session| &mut session.recording).ok_or(NO_SESSION)
    }

    fn live_mut(&mut self, id: Option<SessionId>) -> Result<&mut Session, &'static str> {
        let session = id.and_then(|id| self.by_id.get_mut(&id)).ok_or(NO_SESSION)?;
        if session.is_live() { Ok(session) } else { Err(ENDED) }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_CHARS_MAX { text.to_owned() } else { text.chars().take(TEXT_CHARS_MAX).collect() }
}
