//! Follows the state, and ends live sessions whose right is gone: a lock, another role, another policy, a node or a
//! user that was removed.

use super::Access;
use super::live::EndCause;
use super::open::no_paths;
use crate::ingest::agents::Agents;
use custody_core::event::session::EndReason;
use custody_core::event::{EventId, SessionId, Timestamp};
use custody_core::policy::networks::{self, Reach};
use custody_core::policy::{NoLongerAllowed, still_allowed};
use custody_core::state::State;
use custody_core::state::locks::Subject;
use custody_core::state::sessions::Phase;
use std::sync::Arc;
use std::time::Duration;

/// How often rights are looked at though nothing was appended: locks begin and run out by time, too.
const EVERY: Duration = Duration::from_secs(5);
/// The shortest time between two looks, so that a busy log doesn't make the proxy decide all day. A lock ends what it
/// matches within a second.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// Whether a live session must end now, and why.
fn judge(access: &Access, session: SessionId) -> Option<EndCause> {
    let now = Timestamp::from(access.clock.wall());
    if let Some((detail, cause)) = access.replica.read(|state| unkept(state, session)) {
        return Some(EndCause { reason: EndReason::Locked, detail, cause });
    }
    if let Some(detail) = access.replica.read(|state| unrestrained(&access.agents, state, session)) {
        return Some(EndCause { reason: EndReason::Locked, detail, cause: None });
    }
    let why = access.replica.read(|state| still_allowed(state, session, now)).err()?;
    let cause = match &why {
        // Its request isn't applied yet, or its end is.
        NoLongerAllowed::NotLive(_) => return None,
        NoLongerAllowed::EndRequested { reason, cause } => {
            let detail = format!("the session was ended: {reason}");
            return Some(EndCause { reason: EndReason::Terminated, detail, cause: Some(*cause) });
        }
        NoLongerAllowed::Denied { cause, .. } => *cause,
        NoLongerAllowed::Unreadable => None,
    };
    Some(EndCause { reason: EndReason::Locked, detail: format!("access was taken away: {why}"), cause })
}

/// What a live session is kept from, which its node can't keep from it; and the event that says so.
fn unkept(state: &State, id: SessionId) -> Option<(String, Option<EventId>)> {
    let node = &state.sessions().get(id)?.opened.node;
    let why = state.nodes().get(node).and_then(no_paths)?;
    let denied = reach_now(state, id)?.files.deny_paths;
    let by = denied.first().map(|rule| rule.restriction.as_str())?;
    let cause = state.restrictions().get(by).map(|restriction| restriction.event);
    Some((format!("{by} keeps files from it, and {node} can't keep files from being opened: {why}"), cause))
}

/// That a session which goes unwatched would have to be watched by now.
fn unrestrained(agents: &Agents, state: &State, id: SessionId) -> Option<String> {
    let session = state.sessions().get(id)?;
    // One that hasn't started yet is refused where it is to be watched.
    let unwatched = matches!(session.phase, Phase::Started { .. }) && !agents.watches(id);
    if !unwatched || reach_now(state, id)? == Reach::default() {
        return None;
    }
    let node = &session.opened.node;
    Some(format!("it is restricted in what it may do, and no agent of {node} is there to hold it to that"))
}

/// What a live session may reach now.
fn reach_now(state: &State, id: SessionId) -> Option<Reach> {
    let opened = &state.sessions().get(id)?.opened;
    let user = opened.actor.user()?;
    let roles = state.users().get(user).map(|user| &user.roles);
    let (node, login) = (Some(opened.node.as_str()), Some(opened.login.as_str()));
    Some(networks::reach(state, &Subject { user, roles, node, login, session: Some(id) }))
}

/// Looks once at a session that has just been put on the list: what changed between its decision and now, nobody
/// else has seen for it. `index` is that of its `session.requested`.
pub async fn look_at_new(access: &Access, session: SessionId, index: u64) {
    // A replica that has stopped ends all sessions by itself.
    let _stopped = access.replica.at_least(index).await;
    if let Some(cause) = judge(access, session) {
        access.live.end(session, cause);
    }
}

/// Watches until the state follows the log no longer; then every session ends, since nobody would see a lock.
pub async fn watch(access: Arc<Access>) {
    let mut changes = access.replica.changes();
    let mut seen = None;
    loop {
        let applied = *changes.borrow_and_update();
        let rights = access.replica.read(State::rights_changed);
        let now = access.clock.monotonic();
        // Deciding is dear where many sessions live: it is done when rights have changed, and now and then.
        let due = seen.is_none_or(|(before, at)| before != rights || now.saturating_sub(at) >= EVERY);
        if due {
            seen = Some((rights, now));
            for session in access.live.sessions() {
                if let Some(cause) = judge(&access, session) {
                    access.live.end(session, cause);
                }
            }
            let unheld = access
                .replica
                .read(|state| access.agents.reach_changed(now, |session| reach_now(state, session)));
            for (session, node) in unheld {
                let detail = format!(
                    "what it may do has changed, and the agent of {node} hasn't said that it holds it to that"
                );
                access.live.end(session, EndCause { reason: EndReason::Locked, detail, cause: None });
            }
        }
        if applied.stopped {
            let detail = "the state no longer follows the audit log".to_owned();
            let cause = EndCause { reason: EndReason::LogUnavailable, detail, cause: None };
            for session in access.live.sessions() {
                access.live.end(session, cause.clone());
            }
            return;
        }
        tokio::time::sleep(AT_MOST_EVERY).await;
        // A time-out is the other reason to look again.
        let _quiet = tokio::time::timeout(EVERY, changes.changed()).await;
    }
}
