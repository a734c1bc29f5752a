//! The state: who exists, who may do what, what is live. A fold of the log and nothing else.
//!
//! [`State::apply`] is pure, total and deterministic: no clock, no hash-map order, no I/O. Whatever an entry holds, it
//! is applied, counted as unknown, or refused with a reason; never does it stop the fold.

pub mod certificates;
pub mod change;
pub mod decisions;
mod exact;
pub mod follow;
pub mod locks;
pub mod log;
pub mod nodes;
pub mod policies;
pub mod producers;
pub mod recordings;
pub mod refused;
pub mod replay;
pub mod restrictions;
pub mod roles;
pub mod services;
pub mod sessions;
pub mod sinks;
#[cfg(test)]
pub(crate) mod story;
#[cfg(test)]
mod tests;
pub mod users;
mod view;

use self::certificates::Certificates;
use self::decisions::{BOOTSTRAP, Decisions};
use self::locks::Locks;
use self::log::LogName;
use self::nodes::Nodes;
use self::policies::Policies;
use self::producers::Producers;
use self::refused::{Refused, Unknown};
use self::restrictions::Restrictions;
use self::roles::Roles;
use self::services::Services;
use self::sessions::Sessions;
use self::sinks::Sinks;
use self::users::Users;
use self::view::{DataView, EventView, Header};
use crate::event::canonical::{self, CanonicalError, Json};
use crate::event::who::may_say_type;
use crate::event::{
    EventData as _, EventId, Family, Payload, ProducerKind, Timestamp, connection, node, session,
};
use crate::policy::Circumstances;
use crate::policy::request::{Action, administered, entity_text};
use serde::Serialize;

/// The entry isn't the next one; the state is unchanged. Whoever folds reads the log in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {got} was to be applied, and the state waits for entry {expected}: read the log from there")]
pub struct OutOfOrder {
    /// The index that comes next.
    pub expected: u64,
    /// The one that was given.
    pub got: u64,
}

/// All that replay gives.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    appended: Timestamp,
    certificates: Certificates,
    decisions: Decisions,
    locks: Locks,
    log: Option<LogName>,
    nodes: Nodes,
    policies: Policies,
    producers: Producers,
    refused: Refused,
    restrictions: Restrictions,
    /// The latest event that changed who may do what.
    #[serde(skip)]
    rights_changed: Option<EventId>,
    roles: Roles,
    services: Services,
    sessions: Sessions,
    sinks: Sinks,
    size: u64,
    unknown: Unknown,
    users: Users,
}

/// An entry's place in the log: its index and when it was appended.
type Place = (u64, Timestamp);

/// Families whose events change who may do what.
const CHANGE_RIGHTS: [Family; 7] = [
    Family::Lock,
    Family::User,
    Family::Role,
    Family::Policy,
    Family::Node,
    Family::Service,
    Family::Restriction,
];

/// Types of which only the header is read, since the state doesn't hold what they say.
const PASSED_OVER: [&str; 4] = ["log.read", "log.sealed", "login.failed", "login.succeeded"];

impl State {
    /// The latest event that changed who may do what: a lock, a user, a role, a policy, a node.
    #[must_use]
    pub fn rights_changed(&self) -> Option<EventId> {
        self.rights_changed
    }

    /// Before the first entry: nobody exists and nothing is allowed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries were applied: the index of the next one.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When the last applied entry was appended.
    #[must_use]
    pub fn appended(&self) -> Timestamp {
        self.appended
    }

    /// Certificates that haven't run out.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Decisions that allow something and weren't used up.
    #[must_use]
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Locks.
    #[must_use]
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The log's name and keys, once its first event was applied.
    #[must_use]
    pub fn log(&self) -> Option<&LogName> {
        self.log.as_ref()
    }

    /// Nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Policy documents.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Producers and their gaps.
    #[must_use]
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Events that stand in the log and weren't applied.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// What sessions may reach, run and touch.
    #[must_use]
    pub fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }

    /// Roles.
    #[must_use]
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Service accounts.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Sessions, live and ended.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Sinks that somebody holds, and those that stall.
    #[must_use]
    pub fn sinks(&self) -> &Sinks {
        &self.sinks
    }

    /// Events that this program doesn't know.
    #[must_use]
    pub fn unknown(&self) -> &Unknown {
        &self.unknown
    }

    /// Users.
    #[must_use]
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// The whole state as one canonical JSON document: equal, byte for byte, after every replay of the same entries.
    /// Integers that JSON readers would round stand as strings.
    ///
    /// # Errors
    /// Never for a state that a fold made; the writer could say so, hence the type.
    pub fn canonical(&self) -> Result<Vec<u8>, CanonicalError> {
        let mut document = serde_json::to_value(self)?;
        exact::integers(&mut document);
        canonical::to_bytes(&Json(document))
    }

    /// Applies the next entry: `index` in the log, time of appending, the record's tag, the event's bytes.
    ///
    /// # Errors
    /// [`OutOfOrder`] when it isn't the next one. Nothing that the bytes hold is an error.
    pub fn apply_bytes(
        &mut self,
        index: u64,
        appended: Timestamp,
        tag: u8,
        bytes: &[u8],
    ) -> Result<(), OutOfOrder> {
        if index != self.size {
            return Err(OutOfOrder { expected: self.size, got: index });
        }
        self.size = self.size.saturating_add(1);
        self.appended = self.appended.max(appended);
        self.certificates.passed(self.appended);
        if self.passes_over(index, tag, bytes) {
            return Ok(());
        }
        let Ok((event, data)) = EventView::parse(bytes) else {
            self.refused.add(index, "", "", "it is no event");
            return Ok(());
        };
        self.producers.spoke(index, &event.producer);
        let told = may_be_told(tag, event.producer.kind, &event.kind)
            .and_then(|()| self.apply_event((index, self.appended), &event, data, bytes));
        match told {
            Ok(()) => {
                if let Some(session) = event.session {
                    self.sessions.evidence(index, session);
                }
                let ends_a_session = event.kind == session::EndRequested::TYPE;
                if ends_a_session || CHANGE_RIGHTS.iter().any(|family| family.tag() == tag) {
                    self.rights_changed = Some(event.id);
                }
            }
            Err(reason) => self.refused.add(index, &event.kind, &event.producer.id, reason),
        }
        Ok(())
    }

    /// Whether the entry changes nothing and was counted by its header alone.
    fn passes_over(&mut self, index: u64, tag: u8, bytes: &[u8]) -> bool {
        if tag != Family::Login.tag() && tag != Family::Log.tag() {
            return false;
        }
        let Some(header) = Header::parse(bytes) else { return false };
        let passed = PASSED_OVER.contains(&&*header.kind)
            && may_be_told(tag, header.producer.kind, &header.kind).is_ok();
        if passed {
            self.producers.spoke(index, &header.producer);
            if let Some(session) = header.session {
                self.sessions.evidence(index, session);
            }
        }
        passed
    }

    fn apply_event(
        &mut self,
        place: Place,
        event: &EventView<'_>,
        data: DataView<'_>,
        bytes: &[u8],
    ) -> Result<(), &'static str> {
        let (index, _) = place;
        let payload = match data {
            DataView::Decision(made) if made.action == BOOTSTRAP => {
                return self.bootstrap(index, event, made.allowed);
            }
            DataView::Decision(made) => {
                self.decisions.made(index, event, &made);
                return Ok(());
            }
            DataView::Other(payload) => payload,
        };
        match payload {
            Payload::LoginSucceeded(_)
            | Payload::LoginFailed(_)
            | Payload::LogSealed(_)
            | Payload::LogRead(_)
            | Payload::LogCosigned(_)
            | Payload::LogUnwitnessed(_)
            | Payload::LogTimestamped(_)
            | Payload::LogClockRefused(_)
            | Payload::LogClockConfirmed(_)
            | Payload::LogFilled(_)
            | Payload::LogRecovered(_)
            | Payload::NodeHostKeyRefused(_)
            | Payload::ConnectionCompleted(_)
            | Payload::ConnectionFailed(_)
            | Payload::ConnectionRefused(_)
            | Payload::ConnectionListenOpened(_)
            | Payload::FileCompleted(_)
            | Payload::FileFailed(_)
            | Payload::FileUnparsed(_)
            | Payload::ProducerRefused(_)
            | Payload::ProducerSigned(_)
            | Payload::ProducerDropped(_)
            | Payload::ProducerClockStepped(_)
            | Payload::SinkRejected(_)
            | Payload::SinkReplayBegun(_)
            | Payload::SinkRedriveBegun(_)
            | Payload::SinkCancelled(_)
            | Payload::SinkVerified(_) => Ok(()),
            Payload::LogCreated(data) => {
                if index != 0 {
                    return Err("a log is created once, by its first event");
                }
                self.log = Some(LogName::created(data));
                Ok(())
            }
            Payload::LogKeyAdded(data) => {
                self.decided(index, event, Action::OperateLog, LOG)?;
                self.log.as_mut().ok_or(NO_LOG)?.key_added(data)
            }
            Payload::LogKeyRetired(data) => {
                self.decided(index, event, Action::OperateLog, LOG)?;
                self.log.as_mut().ok_or(NO_LOG)?.key_retired(&data)
            }
            Payload::SinkPaused(data) => {
                self.decided(index, event, Action::OperateSink, &data.sink)?;
                self.sinks.pause(data)
            }
            Payload::SinkReleased(data) => {
                self.decided(index, event, Action::OperateSink, &data.sink)?;
                self.sinks.release(&data)
            }
            Payload::SinkStalled(data) => self.sinks.stalled(place.1, data),
            Payload::SinkResumed(data) => {
                self.sinks.resumed(&data);
                Ok(())
            }
            // Nobody decides this but the one who has the machine: the state that could decide is what was lost.
            Payload::LogEpochBegun(data) => self.log.as_mut().ok_or(NO_LOG)?.epoch_begun(index, data),
            Payload::ProducerStarted(data) => {
                self.producers.started(index, &event.producer, data.previous);
                Ok(())
            }
            Payload::ProducerGap(data) => self.producers.gap_told(&event.producer, &data),
            Payload::ProducerStopped(_) => {
                self.producers.stopped(&event.producer);
                Ok(())
            }
            Payload::CertificateIssued(data) => {
                self.certificates.issued_one(index, data);
                Ok(())
            }
            Payload::SessionRequested(data) => {
                let used = self.session_decision(event, &[Action::SshConnect])?;
                self.sessions.requested(place, &view::whole(bytes)?, data, used)
            }
            Payload::SessionStarted(data) => self.sessions.started(place.1, event.session, data),
            Payload::SessionEnded(data) => self.sessions.ended(place, event.session, &data),
            Payload::CommandRequested(data) => {
                self.session_decision(event, &[Action::SshShell, Action::SshExec, Action::SshSubsystem])?;
                self.sessions.command_requested(place, event.session, &data)
            }
            Payload::CommandCompleted(data) => self.sessions.command_ended(event.session, data.channel),
            Payload::CommandFailed(data) => self.sessions.command_ended(event.session, data.channel),
            Payload::ConnectionRequested(data) => {
                if data.kind == connection::Kind::Forward {
                    self.session_decision(event, &[Action::SshForward])?;
                }
                self.sessions.connection_requested(event.session, data.kind, event.cause)
            }
            Payload::ConnectionListenClosed(_) => self.sessions.withdrawn(event.session, event.cause),
            Payload::ConnectionListenRequested(data) => {
                let action = match data.offer {
                    connection::Offer::Listen => Action::SshListen,
                    connection::Offer::Agent => Action::SshAgent,
                    connection::Offer::X11 => Action::SshX11,
                };
                self.session_decision(event, &[action])?;
                self.sessions.offered(event.session, event.id)
            }
            Payload::FileRequested(_) => {
                self.session_decision(event, &[Action::SftpRead, Action::SftpWrite]).map(drop)
            }
            Payload::RecordingAnchored(data) => {
                self.sessions.recording_mut(event.session)?.anchored(index, &data)
            }
            Payload::RecordingSealed(data) => {
                self.sessions.recording_mut(event.session)?.sealed(index, &data)
            }
            Payload::RecordingViewed(data) => {
                self.decided(index, event, Action::SessionView, &data.recording.to_string())?;
                let recording = self.sessions.recording_mut(Some(data.recording))?;
                recording.views = recording.views.saturating_add(1);
                Ok(())
            }
            Payload::NodeEnrolled(data) => self.nodes.enrolled(event.cause, data),
            Payload::NodeLost(data) => self.nodes.lost(index, &data),
            Payload::NodeJoined(data) => {
                let node = self.node_of(event)?;
                self.nodes.joined(index, &node, data)
            }
            Payload::NodeSessionAccepted(_)
            | Payload::NodeKernelChanged(_)
            | Payload::CommandExecuted(_)
            | Payload::CommandExited(_)
            | Payload::ConnectionOpened(_)
            | Payload::ConnectionAccepted(_)
            | Payload::ConnectionDaemonReached(_)
            | Payload::ConnectionUnreached(_)
            | Payload::ConnectionClosed(_)
            | Payload::FileOpened(_)
            | Payload::FileCreated(_)
            | Payload::FileTruncated(_)
            | Payload::FileRenamed(_)
            | Payload::FileLinked(_)
            | Payload::FileDeleted(_)
            | Payload::FilePermissionChanged(_)
            | Payload::FileOwnerChanged(_)
            | Payload::FileAttributeChanged(_) => self.seen_on_its_node(event),
            Payload::ConnectionDenied(data) => self.denied(event, data.restriction, data.ends_session),
            Payload::CommandDenied(data) => self.denied(event, data.restriction, data.ends_session),
            Payload::FileDenied(data) => self.denied(event, data.restriction, data.ends_session),
            // Was read above; what isn't of its shape is unknown.
            Payload::Unknown | Payload::DecisionMade(_) => {
                self.unknown.add(&event.kind);
                Ok(())
            }
            change @ (Payload::UserCreated(_)
            | Payload::UserChanged(_)
            | Payload::UserRemoved(_)
            | Payload::UserPasswordSet(_)
            | Payload::RoleCreated(_)
            | Payload::RoleRemoved(_)
            | Payload::PolicyUploaded(_)
            | Payload::PolicyRemoved(_)
            | Payload::NodeAdded(_)
            | Payload::NodeRemoved(_)
            | Payload::LockCreated(_)
            | Payload::LockLifted(_)
            | Payload::SessionEndRequested(_)
            | Payload::ServiceCreated(_)
            | Payload::ServiceChanged(_)
            | Payload::ServiceTokenSet(_)
            | Payload::ServiceRemoved(_)
            | Payload::NodeTokenCreated(_)
            | Payload::RestrictionCreated(_)
            | Payload::RestrictionLifted(_)) => self.apply_change(index, event, change),
        }
    }

    /// A node's kernel refused something to a session, which may end for it.
    fn denied(&mut self, event: &EventView<'_>, by: Option<String>, ends: bool) -> Result<(), &'static str> {
        self.seen_on_its_node(event)?;
        // One that is over has nothing to end.
        if ends && self.sessions.denied(event.session, event.id, by.as_deref()).is_ok() {
            self.rights_changed = Some(event.id);
        }
        Ok(())
    }

    /// What a command changes: each names the decision that allowed just this.
    fn apply_change(
        &mut self,
        index: u64,
        event: &EventView<'_>,
        change: Payload,
    ) -> Result<(), &'static str> {
        let appended = self.appended;
        let mut decided = |action, name: &str| self.decided(index, event, action, name);
        match change {
            Payload::UserCreated(data) => {
                decided(Action::CreateUser, &data.name)?;
                self.need_roles(&data.roles)?;
                if self.services.knows(&data.name) {
                    return Err("a service account has or had this name");
                }
                self.users.created(index, data)
            }
            Payload::UserChanged(data) => {
                decided(Action::SetRoles, &data.name)?;
                self.need_roles(&data.roles)?;
                self.users.changed(data)
            }
            Payload::UserRemoved(data) => {
                decided(Action::RemoveUser, &data.name)?;
                self.users.removed(index, data)
            }
            Payload::UserPasswordSet(data) => {
                decided(Action::SetPassword, &data.name)?;
                self.users.password_set(data)
            }
            Payload::RoleCreated(data) => {
                decided(Action::CreateRole, &data.name)?;
                self.roles.created(data)
            }
            Payload::RoleRemoved(data) => {
                decided(Action::RemoveRole, &data.name)?;
                self.users.role_removed(&data.name);
                self.services.role_removed(&data.name);
                self.roles.removed(&data)
            }
            Payload::PolicyUploaded(data) => {
                decided(Action::UploadPolicy, &data.name)?;
                self.policies.uploaded(index, data)
            }
            Payload::PolicyRemoved(data) => {
                decided(Action::RemovePolicy, &data.name)?;
                self.policies.removed(&data)
            }
            Payload::NodeAdded(data) => {
                decided(Action::AddNode, &data.name)?;
                self.nodes.added(index, data);
                Ok(())
            }
            Payload::NodeRemoved(data) => {
                decided(Action::RemoveNode, &data.name)?;
                self.nodes.removed(&data)
            }
            Payload::LockCreated(data) => {
                decided(Action::CreateLock, &data.name)?;
                self.locks.created(index, event.id, data)
            }
            Payload::LockLifted(data) => {
                decided(Action::LiftLock, &data.name)?;
                self.locks.lifted(&data)
            }
            Payload::SessionEndRequested(data) => {
                decided(Action::SessionEnd, &data.name)?;
                if event.session.is_none_or(|session| session.to_string() != data.name) {
                    return Err("it speaks of another session");
                }
                self.sessions.end_requested(event.session, event.id, &data.reason)
            }
            Payload::ServiceCreated(data) => {
                decided(Action::CreateService, &data.name)?;
                self.need_roles(&data.roles)?;
                if self.users.knows(&data.name) {
                    return Err("a user has or had this name");
                }
                self.services.created(index, appended, data)
            }
            Payload::ServiceChanged(data) => {
                decided(Action::SetServiceRoles, &data.name)?;
                self.need_roles(&data.roles)?;
                self.services.changed(data)
            }
            Payload::ServiceTokenSet(data) => {
                decided(Action::RotateService, &data.name)?;
                self.services.token_set(appended, data)
            }
            Payload::ServiceRemoved(data) => {
                decided(Action::RemoveService, &data.name)?;
                self.services.removed(index, data)
            }
            Payload::NodeTokenCreated(data) => {
                decided(Action::CreateNodeToken, &data.name)?;
                self.nodes.token_created(event.id, &data)
            }
            Payload::RestrictionCreated(data) => {
                decided(Action::CreateRestriction, &data.name)?;
                self.restrictions.created(index, event.id, data)
            }
            Payload::RestrictionLifted(data) => {
                decided(Action::LiftRestriction, &data.name)?;
                self.restrictions.lifted(&data)
            }
            _ => Err("the fold has no rule for it"),
        }
    }

    /// The node that an agent speaks for, by its name as a producer.
    fn node_of(&self, event: &EventView<'_>) -> Result<String, &'static str> {
        let name = node::of_producer(&event.producer.id).ok_or("its producer isn't a node's agent")?;
        self.nodes.get(name).map(|_| name.to_owned()).ok_or("there is no such node")
    }

    /// A node speaks of itself, and of sessions that were opened to it; also of ended ones, whose processes go on.
    fn seen_on_its_node(&self, event: &EventView<'_>) -> Result<(), &'static str> {
        let node = self.node_of(event)?;
        match event.session {
            None => Ok(()),
            Some(id) => match self.sessions.get(id) {
                Some(session) if session.opened.node == node => Ok(()),
                Some(_) => Err("the session was opened to another node"),
                None => Err("there is no such session"),
            },
        }
    }

    fn need_roles(&self, roles: &[String]) -> Result<(), &'static str> {
        if self.roles.have_all(roles) { Ok(()) } else { Err("it names a role that doesn't exist") }
    }

    /// The one decision that nobody made: it allows what `init` appends to an empty log.
    fn bootstrap(&mut self, index: u64, event: &EventView<'_>, allowed: bool) -> Result<(), &'static str> {
        let first = self.users.is_empty() && event.producer.kind == ProducerKind::Log && allowed;
        if !first {
            return Err("only an empty log is bootstrapped");
        }
        self.decisions.bootstrap(index, event.id)
    }

    /// Uses up the decision that the event names, which must allow `action` on the thing `name`.
    fn decided(
        &mut self,
        index: u64,
        event: &EventView<'_>,
        action: Action,
        name: &str,
    ) -> Result<(), &'static str> {
        let cause = event.cause.ok_or(NO_CAUSE)?;
        if self.decisions.is_bootstrap(cause, index) {
            return Ok(());
        }
        let resource = entity_text(administered(action), name);
        let fits = |allowed: &decisions::Allowed| {
            allowed.producer == ProducerKind::Log
                && allowed.action == action.name()
                && allowed.resource == resource
        };
        self.decisions.use_up(cause, fits).map(drop)
    }

    /// Uses up the decision that an event of a session names: for the same session and target.
    fn session_decision(
        &mut self,
        event: &EventView<'_>,
        actions: &[Action],
    ) -> Result<(EventId, Option<Circumstances>), &'static str> {
        let cause = event.cause.ok_or(NO_CAUSE)?;
        let target = event.target.as_ref().ok_or("it names no target")?;
        let resource = entity_text("Node", &target.name);
        let used = self.decisions.use_up(cause, |allowed| {
            event.session.is_some()
                && allowed.session == event.session
                && allowed.resource == resource
                && actions.iter().any(|action| action.name() == allowed.action)
        })?;
        Ok((cause, used.circumstances))
    }
}

/// The one log, as policy names it.
pub(crate) const LOG: &str = "log";
const NO_LOG: &str = "no log was created";
const NO_CAUSE: &str = "it names no decision that allowed it";

/// Whether a producer of this kind may say it, under this tag.
fn may_be_told(tag: u8, producer: ProducerKind, kind: &str) -> Result<(), &'static str> {
    match Family::of(kind) {
        // A family that is newer than this program: carried.
        None if Family::of_tag(tag).is_none() => Ok(()),
        Some(family) if family.tag() == tag => {
            if may_say_type(producer, family, kind) {
                Ok(())
            } else {
                Err("its producer may not say that")
            }
        }
        None | Some(_) => Err("its record's tag is that of another family"),
    }
}
