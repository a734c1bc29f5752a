//! Leave to act: what a durable decision that allows is turned into, and the one effect uses up.

use crate::event::{
    EventData, EventId, SessionId, Target, command, connection, decision, file, recording, session,
};
use crate::log::Durable;
use std::marker::PhantomData;

/// An effect that needs leave, with the event that announces it.
pub trait Effect {
    /// What must be durable, besides the decision, before the effect.
    type Announced: EventData;
    /// The Cedar actions that allow it.
    const ACTIONS: &'static [&'static str];
}

/// To open a connection to a target.
#[derive(Debug)]
pub enum Connect {}
impl Effect for Connect {
    type Announced = session::Requested;
    const ACTIONS: &'static [&'static str] = &["ssh:connect"];
}

/// To hand a program's request to the target.
#[derive(Debug)]
pub enum Run {}
impl Effect for Run {
    type Announced = command::Requested;
    const ACTIONS: &'static [&'static str] = &["ssh:shell", "ssh:exec", "ssh:subsystem"];
}

/// To have the target connect to somewhere.
#[derive(Debug)]
pub enum Forward {}
impl Effect for Forward {
    type Announced = connection::Requested;
    const ACTIONS: &'static [&'static str] = &["ssh:forward"];
}

/// To let the target open connections to the client: by a listener, to its agent, to its X server.
#[derive(Debug)]
pub enum Listen {}
impl Effect for Listen {
    type Announced = connection::ListenRequested;
    const ACTIONS: &'static [&'static str] = &["ssh:listen", "ssh:agent", "ssh:x11"];
}

/// To hand a request about a file to the target.
#[derive(Debug)]
pub enum Touch {}
impl Effect for Touch {
    type Announced = file::Requested;
    const ACTIONS: &'static [&'static str] = &["ssh:sftp-read", "ssh:sftp-write"];
}

/// To let pass on a channel for files what isn't understood.
#[derive(Debug)]
pub enum PassUnparsed {}
impl Effect for PassUnparsed {
    type Announced = file::Unparsed;
    const ACTIONS: &'static [&'static str] = &["ssh:sftp-write"];
}

/// To hand out a recording.
#[derive(Debug)]
pub enum View {}
impl Effect for View {
    type Announced = recording::Viewed;
    const ACTIONS: &'static [&'static str] = &["session:view"];
}

/// Leave for one effect. It holds the session and the target that were decided on, so that the effect takes
/// them from here and can't be about something else.
///
/// ```
/// use custody_core::policy::permit::{Connect, Permit};
/// fn connect(permit: Permit<Connect>) -> String { permit.target().name.clone() }
/// ```
/// A decision is no leave; only a durable one that allows becomes one:
///
/// ```compile_fail
/// use custody_core::{event::decision::Made, policy::permit::{Connect, Permit}};
/// fn connect(decision: Made) -> String { let permit: Permit<Connect> = decision.into(); permit.target().name.clone() }
/// ```
/// It is used up by the effect,
///
/// ```
/// use custody_core::policy::permit::{Permit, Run};
/// fn run(permit: Permit<Run>) { drop(permit); }
/// ```
/// ```compile_fail
/// use custody_core::policy::permit::{Permit, Run};
/// fn run(permit: Permit<Run>) { drop(permit); drop(permit); }
/// ```
/// and leave for one effect is none for another:
///
/// ```compile_fail
/// use custody_core::policy::permit::{Connect, Permit, Run};
/// fn run(_: Permit<Run>) {}
/// fn mixed(permit: Permit<Connect>) { run(permit); }
/// ```
#[must_use = "leave that is not used was decided and recorded for nothing"]
#[derive(Debug)]
pub struct Permit<E: Effect> {
    announced: EventId,
    session: Option<SessionId>,
    target: Target,
    effect: PhantomData<E>,
}

impl<E: Effect> Permit<E> {
    /// The event that announced the effect: the cause of what follows.
    #[must_use]
    pub fn announced(&self) -> EventId {
        self.announced
    }

    /// The session that it is for.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The target that was decided on.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// Why a durable decision is no leave.
#[derive(Debug, thiserror::Error)]
pub enum NoPermit {
    /// Policy said no.
    #[error("{0}")]
    Denied(String),
    /// The two events don't belong together: a mistake in this program.
    #[error(
        "the decision {decision} allows {action}, and the event that was announced is not its consequence: report this"
    )]
    Unrelated {
        /// The decision.
        decision: EventId,
        /// What it decided about.
        action: String,
    },
}

impl<E: Effect> TryFrom<(Durable<decision::Made>, Durable<E::Announced>)> for Permit<E> {
    type Error = NoPermit;

    fn try_from(
        (decision, announced): (Durable<decision::Made>, Durable<E::Announced>),
    ) -> Result<Self, NoPermit> {
        let made = decision.data();
        if !made.allowed {
            return Err(NoPermit::Denied(made.reason.clone()));
        }
        let (left, right) = (decision.envelope(), announced.envelope());
        let target = match (&left.target, &right.target) {
            (Some(decided), Some(announced)) if decided == announced => decided.clone(),
            _ => Target::default(),
        };
        let related = right.cause == Some(left.id)
            && left.session == right.session
            && !target.kind.is_empty()
            && E::ACTIONS.contains(&made.action.as_str());
        if !related {
            return Err(NoPermit::Unrelated { decision: left.id, action: made.action.clone() });
        }
        Ok(Self { announced: right.id, session: right.session, target, effect: PhantomData })
    }
}
