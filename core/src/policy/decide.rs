//! `decide(state, request) -> Decision`, pure: the same state and request give the same answer for ever.

use super::defaults::ADMIN;
use super::request::{Request, RequestError, What, entity_text};
use super::{Compiled, RecordingLevel};
use crate::event::canonical::Json;
use crate::event::{EventId, SessionId, Timestamp, decision};
use crate::state::State;
use crate::state::locks::Lock;
use cedar_policy::{AuthorizationError, Authorizer};

/// How many characters of an error of Cedar stand in evidence.
const ERROR_CHARS_MAX: usize = 300;

/// How many errors stand in evidence.
const ERRORS_MAX: usize = 16;

/// How many policies stand in evidence, so that the event keeps its limit.
const POLICIES_MAX: usize = 256;

/// What was decided.
#[derive(Clone, Debug)]
#[must_use = "a decision that isn't made durable allows nothing"]
pub struct Decision {
    /// The evidence, to be appended before anything follows from it.
    pub made: decision::Made,
    /// How much of the session is to be recorded: the most that a deciding permit asks for.
    pub recording: RecordingLevel,
    /// The lock that decided, if one did.
    pub lock: Option<String>,
}

impl Decision {
    /// Whether it was allowed. Leave to act needs the durable event all the same.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.made.allowed
    }
}

/// Why a live session may not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLongerAllowed {
    /// There is no such live session.
    #[error("the session {0} isn't live")]
    NotLive(SessionId),
    /// What opened it can't be decided again: fail closed.
    #[error("the circumstances under which the session was opened can't be read")]
    Unreadable,
    /// Somebody had it ended.
    #[error("{reason}")]
    EndRequested {
        /// What the people concerned are told.
        reason: String,
        /// The `session.end-requested`.
        cause: EventId,
    },
    /// Policy or a lock says no by now.
    #[error("{reason}")]
    Denied {
        /// One line for people.
        reason: String,
        /// The event that took the right away: the lock's, or the latest change of rights.
        cause: Option<EventId>,
    },
}

/// What decided, before it is written down.
struct Verdict {
    allowed: bool,
    reason: String,
    policies: Vec<String>,
    errors: Vec<String>,
    recording: RecordingLevel,
    lock: Option<String>,
}

impl Verdict {
    fn no(reason: String) -> Self {
        Self {
            allowed: false,
            reason,
            policies: Vec::new(),
            errors: Vec::new(),
            recording: RecordingLevel::default(),
            lock: None,
        }
    }
}

/// Decides `request` on `state`. Locks come first, then that the user and the node exist, then policy; what isn't
/// allowed is denied, and a `forbid` that fails to evaluate denies. Whatever policy says, only who holds the role `admin`
/// gives or takes it.
pub fn decide(state: &State, request: &Request) -> Decision {
    let Verdict { allowed, reason, mut policies, mut errors, recording, lock } = verdict(state, request);
    policies.sort();
    policies.truncate(POLICIES_MAX);
    errors.sort();
    errors.truncate(ERRORS_MAX);
    let (kind, id) = request.what.resource();
    let made = decision::Made {
        action: request.what.action().name().to_owned(),
        allowed,
        context: Json(request.context()),
        errors,
        policies,
        principal: entity_text(request.what.principal(), &request.user),
        reason,
        resource: entity_text(kind, &id),
        state: state.size(),
    };
    Decision { made, recording, lock }
}

/// Whether a live session may go on at `now`: `ssh:connect` decided again with the circumstances under which it was
/// opened, on the roles, policies, nodes and locks of this moment. Hours and the certificate's age are those of the
/// opening: passing time alone ends no session; locks run out by `now`.
///
/// # Errors
/// Why not, in a line that the user may see.
pub fn still_allowed(state: &State, session: SessionId, now: Timestamp) -> Result<(), NoLongerAllowed> {
    let live = state
        .sessions()
        .get(session)
        .filter(|session| session.is_live())
        .ok_or(NoLongerAllowed::NotLive(session))?;
    if let Some(end) = &live.end_requested {
        return Err(NoLongerAllowed::EndRequested { reason: end.reason.clone(), cause: end.event });
    }
    let (Some(circumstances), Some(user)) = (live.opened.circumstances, live.user()) else {
        return Err(NoLongerAllowed::Unreadable);
    };
    let request = Request {
        user: user.to_owned(),
        what: What::Connect {
            node: live.opened.node.clone(),
            login: crate::event::ByteString::from_text(&live.opened.login),
        },
        session: Some(session),
        circumstances,
    };
    let verdict = match matching_lock(state, &request, now) {
        Some((name, lock)) => locked(name, lock),
        None => by_policy(state, &request),
    };
    if verdict.allowed {
        return Ok(());
    }
    let lock = verdict.lock.as_deref().and_then(|name| state.locks().get(name));
    let cause = lock.map(|lock| lock.event).or(state.rights_changed());
    Err(NoLongerAllowed::Denied { reason: verdict.reason, cause })
}

fn verdict(state: &State, request: &Request) -> Verdict {
    match matching_lock(state, request, request.circumstances.time) {
        Some((name, lock)) => locked(name, lock),
        None => by_policy(state, request),
    }
}

fn matching_lock<'a>(state: &'a State, request: &Request, now: Timestamp) -> Option<(&'a str, &'a Lock)> {
    request.about(state, |subject| state.locks().matching(subject, now))
}

fn locked(name: &str, lock: &Lock) -> Verdict {
    Verdict { lock: Some(name.to_owned()), ..Verdict::no(format!("locked by {name}: {}", lock.reason)) }
}

fn by_policy(state: &State, request: &Request) -> Verdict {
    let (kind, is_there) = match request.what.principal() {
        "Service" => ("service account", state.services().get(&request.user).is_some()),
        _ => ("user", state.users().get(&request.user).is_some()),
    };
    if !is_there {
        return Verdict::no(short(&format!("there is no {kind} {}, or no longer", request.user)));
    }
    if let Some((node, _)) = request.what.place()
        && state.nodes().get(node).is_none()
    {
        return Verdict::no(short(&format!("there is no node {node}, or no longer")));
    }
    match by_cedar(state, request) {
        Ok(verdict) if verdict.allowed && oversteps(state, request) => {
            Verdict::no(format!("only who holds the role {ADMIN} gives it to somebody or takes it away"))
        }
        Ok(verdict) => verdict,
        Err(error) => Verdict { errors: vec![short(&error.to_string())], ..Verdict::no(error.to_string()) },
    }
}

/// Whether somebody would give the role `admin`, or take it, who doesn't hold it: leave to set roles isn't leave to do
/// everything.
fn oversteps(state: &State, request: &Request) -> bool {
    let What::GiveRoles { name, roles, .. } = &request.what else { return false };
    let holds = |user: &str| state.users().get(user).is_some_and(|user| user.roles.contains(ADMIN));
    roles.contains(ADMIN) != holds(name) && !holds(&request.user)
}

fn by_cedar(state: &State, request: &Request) -> Result<Verdict, RequestError> {
    let compiled: &Compiled = state.policies().compiled();
    let (cedar, entities) = request.to_cedar(state)?;
    let answer = Authorizer::new().is_authorized(&cedar, &compiled.set, &entities);
    let deciding: Vec<String> = answer.diagnostics().reason().map(ToString::to_string).collect();
    let failed: Vec<(String, String)> = answer
        .diagnostics()
        .errors()
        .map(|AuthorizationError::PolicyEvaluationError(error)| {
            (error.policy_id().to_string(), short(&format!("{}: {}", error.policy_id(), error.inner())))
        })
        .collect();
    // Cedar skips a policy that fails. For a permit that is the safe side; for a forbid it isn't.
    let mut erring: Vec<String> =
        failed.iter().map(|(id, _)| id.clone()).filter(|id| compiled.forbids.contains(id)).collect();
    erring.sort();
    let errors = failed.into_iter().map(|(_, text)| text).collect();
    let mut verdict = if !erring.is_empty() {
        let reason = format!("denied because {} forbids and could not be evaluated", listed(&erring));
        let forbidding = deciding.into_iter().filter(|id| compiled.forbids.contains(id));
        Verdict { policies: erring.into_iter().chain(forbidding).collect(), ..Verdict::no(reason) }
    } else if answer.decision() == cedar_policy::Decision::Allow {
        let recording = deciding.iter().filter_map(|id| compiled.recording.get(id)).max().copied();
        let reason = format!("allowed by {}", listed(&deciding));
        let recording = recording.unwrap_or_default();
        Verdict { allowed: true, policies: deciding, recording, ..Verdict::no(reason) }
    } else if deciding.is_empty() {
        Verdict::no(format!("no policy allows {} to {}", request.user, request.what.action().name()))
    } else {
        let reason = format!("denied by {}", listed(&deciding));
        Verdict { policies: deciding, ..Verdict::no(reason) }
    };
    verdict.errors = errors;
    Ok(verdict)
}

/// The first few names, sorted.
fn listed(ids: &[String]) -> String {
    let mut sorted: Vec<&str> = ids.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let more = sorted.len().saturating_sub(4);
    sorted.truncate(4);
    match more {
        0 => sorted.join(", "),
        more => format!("{} and {more} more", sorted.join(", ")),
    }
}

fn short(error: &str) -> String {
    error.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS_MAX).collect()
}
