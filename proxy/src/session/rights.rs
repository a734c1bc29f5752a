//! Follows the state, and ends live sessions whose right is gone: a lock, another role, another policy, a node or a
//! user that was removed.

use super::Access;
use super::live::EndCause;
use super::open::no_paths;
use crate::ingest::agents::Agents;
use custody_core::event::node::Agent;
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
    if !matches!(session.phase, Phase::Started { .. }) || agents.watches(id) {
        return None;
    }
    let node = &session.opened.node;
    if state.nodes().get(node).is_some_and(|node| node.agent == Agent::Required) {
        return Some(format!("sessions at {node} have to be watched by its agent now, and this one isn't"));
    }
    let is_restricted = reach_now(state, id)? != Reach::default();
    is_restricted.then(|| {
        format!("it is restricted in what it may do, and no agent of {node} is there to hold it to that")
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::canonical::{self, Json};
    use custody_core::event::{
        Actor, Draft, EventData, Person, ProducerKind, ProducerRef, Target, decision, log, node, session,
    };
    use custody_core::ingest::message::{Expected, Told};
    use custody_core::policy::defaults::genesis;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    /// A log that somebody else writes, and its state.
    struct Story {
        state: State,
        /// The decision that a log begins with: it allows what comes first.
        begun: EventId,
    }

    impl Story {
        fn begin() -> Self {
            let created = log::Created { origin: "test".into(), verifier_key: "key".into() };
            let first = genesis(created, "root", 1);
            let mut story = Self { state: State::new(), begun: first.decision.id };
            story.tell(ProducerKind::Log, first.created);
            story.tell(ProducerKind::Log, first.decision);
            story
        }

        fn tell<D: EventData>(&mut self, kind: ProducerKind, draft: Draft<D>) {
            let index = self.state.size();
            let producer =
                ProducerRef { boot: Uuid::from_u128(9), id: format!("{kind:?}"), kind, seq: index };
            let at = Timestamp::from_seconds(1_764_028_800 + index);
            let bytes = canonical::event_bytes(&draft.numbered(producer, at)).unwrap();
            self.state.apply_bytes(index, at, D::FAMILY.tag(), &bytes).unwrap();
            assert!(self.state.refused().at(index).is_none(), "{:?}", self.state.refused());
        }

        /// The node is there, and demands that of its agent.
        fn node(&mut self, agent: Agent) {
            let added = node::Added {
                address: "192.0.2.2:22".into(),
                agent,
                host_key: None,
                labels: BTreeMap::new(),
                name: "web-1".into(),
            };
            self.tell(ProducerKind::Log, Draft::new(Actor::system("test"), added).cause(self.begun));
        }

        /// A session of bob's that has started.
        fn session(&mut self) -> SessionId {
            let id = SessionId::new();
            let bob = Actor::Person(Person {
                certificate: None,
                identity_provider: "local".into(),
                mfa: false,
                roles: Vec::new(),
                user: "bob".into(),
            });
            let target = Target {
                address: None,
                kind: "node".into(),
                login: Some("root".into()),
                name: "web-1".into(),
            };
            let made = decision::Made {
                action: "ssh:connect".into(),
                allowed: true,
                context: Json(serde_json::json!({})),
                errors: Vec::new(),
                policies: Vec::new(),
                principal: r#"User::"bob""#.into(),
                reason: "a test".into(),
                resource: r#"Node::"web-1""#.into(),
                state: self.state.size(),
            };
            let made = Draft::new(bob.clone(), made).session(id).target(target.clone());
            let requested = session::Requested { protocol: "ssh".into(), recording: "none".into() };
            let requested = Draft::new(bob.clone(), requested).cause(made.id).session(id).target(target);
            self.tell(ProducerKind::Proxy, made);
            self.tell(ProducerKind::Proxy, requested);
            let started = <session::Started as EventData>::example();
            self.tell(ProducerKind::Proxy, Draft::new(bob, started).session(id));
            id
        }
    }

    #[tokio::test]
    async fn a_node_that_becomes_required_keeps_no_session_that_goes_unwatched() {
        let mut story = Story::begin();
        story.node(Agent::Optional);
        let [watched, unwatched] = [story.session(), story.session()];
        let agents = Arc::new(Agents::default());
        let mut linked = agents.connected("web-1", Duration::ZERO);
        linked.ready(None);
        linked.taken();
        let expected = Expected {
            actor: Actor::system("test"),
            from: "192.0.2.1:40000".parse().unwrap(),
            login: "root".into(),
            reach: Reach::default(),
            session: watched,
            to: "192.0.2.2:22".parse().unwrap(),
        };
        let waiting = async {
            while !matches!(linked.told.recv().await.unwrap(), Told::Expect(_)) {}
            linked.expecting(watched);
        };
        let (expecting, ()) = tokio::join!(agents.expect("web-1", expected), waiting);
        let _expecting = expecting.unwrap();
        let why = |story: &Story, id| unrestrained(&agents, &story.state, id);
        assert_eq!((why(&story, watched), why(&story, unwatched)), (None, None));
        story.node(Agent::Required);
        assert_eq!(why(&story, watched), None);
        assert!(why(&story, unwatched).unwrap().contains("have to be watched"));
        // As good as unwatched is one whose agent is lost.
        linked.ended(Duration::ZERO);
        assert_eq!(why(&story, watched), None, "it has a while to come back");
        agents.told_lost("web-1");
        assert!(why(&story, watched).is_some());
    }
}
