//! The agents that are there, and the sessions that they wait for.
//!
//! A session's connection to a watched node takes three steps, each a type: [`Agents::expect`] gives [`Expecting`] once
//! the node's agent waits for exactly that connection; only then is it opened. [`Expecting::seen`] gives [`Seen`] once the
//! log holds the agent's word that the node's kernel has seen it come in; only then does the session log in.

use super::refusals::{Refusal, Refusals};
use custody_core::event::{EventId, SessionId};
use custody_core::ingest::message::{Expected, Told};
use custody_core::policy::networks::Reach;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long an agent may take to wait for a connection, and a node's kernel to see it come in.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long an agent may take to hold a session to what it may reach from now on; it may be started again meanwhile.
const HELD_MAX: Duration = Duration::from_secs(10);

/// Messages that wait for an agent; one that doesn't read them is as good as gone.
const TOLD_WAITING_MAX: usize = 1_024;

/// Why a session can't be watched. `Display` is for the person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwatched {
    /// No agent is connected.
    #[error(
        "the agent of {0} isn't there, so nobody would see what the session does: tell your administrator"
    )]
    NotThere(String),
    /// It can't watch.
    #[error("the agent of {node} can't watch the session: {reason}")]
    Refused {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// It didn't answer.
    #[error("the agent of {0} didn't answer in time")]
    Silent(String),
    /// Its kernel saw no such connection.
    #[error(
        "the agent of {0} hasn't seen the session's connection come in: is there address translation on the way to it, or was its sshd started within a session?"
    )]
    NotSeen(String),
}

/// How far a session's connection is, as its agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    Asked,
    Expecting,
    Refused(String),
    Seen,
}

struct Waiting {
    node: String,
    progress: watch::Sender<Progress>,
    /// What it may reach.
    reach: Reach,
    /// How often that has changed, and when last, by the monotonic clock.
    change: u64,
    since: Duration,
    /// Over which connection the agent was told which change.
    told: Option<(u64, u64)>,
    /// The change that it holds the session to, by its own word.
    held: u64,
}

impl Waiting {
    /// Tells the agent what the session may reach, unless this connection has heard it; one that has no room for it hears it
    /// next time.
    fn tell(&mut self, session: SessionId, link: &Link) {
        let news = Some((link.number, self.change));
        if self.told != news {
            let told = Told::Reach { change: self.change, session, reach: self.reach.clone() };
            if link.to.try_send(told).is_ok() {
                self.told = news;
            }
        }
    }
}

struct Link {
    /// Which connection it is: of two by one agent, the later counts.
    number: u64,
    to: mpsc::Sender<Told>,
    readiness: watch::Sender<Readiness>,
}

/// Whether an agent can watch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Readiness {
    /// It has just come, and will say.
    Coming,
    Ready,
    /// Not for now, and why.
    Unready(String),
}

#[derive(Default)]
struct Inner {
    next: u64,
    links: BTreeMap<String, Link>,
    sessions: BTreeMap<SessionId, Waiting>,
    /// Agents that are gone: not connected, or the log takes nothing of what they send.
    gone: BTreeMap<String, Gone>,
    /// What the log refuses of agents.
    refusals: Refusals,
}

impl Inner {
    /// Nothing is opened to a node whose agent's evidence wouldn't arrive.
    fn is_taken_from(&self, node: &str) -> Result<(), Unwatched> {
        match self.refusals.standing(node) {
            Some((refusal, _)) => Err(Unwatched::Refused {
                node: node.to_owned(),
                reason: format!("the log takes nothing from it: {refusal}"),
            }),
            None => Ok(()),
        }
    }

    /// A connection is over. Gives whether it was the one that counts. An agent that is gone already, since nothing of it was
    /// taken, stays so since then.
    fn ended(&mut self, node: &str, number: u64, now: Duration) -> bool {
        let counts = self.links.get(node).is_some_and(|link| link.number == number);
        if counts {
            self.links.remove(node);
            self.gone.entry(node.to_owned()).or_insert(Gone { since: now, told: false });
        }
        counts
    }
}

/// An agent that isn't there, or as good as that.
#[derive(Clone, Debug)]
struct Gone {
    /// Since when, by the monotonic clock.
    since: Duration,
    /// An event says so.
    told: bool,
}

/// All agents of this installation's nodes.
#[derive(Default)]
pub struct Agents {
    /// Whoever holds the lock sees and changes everything; nothing is awaited under it.
    inner: Mutex<Inner>,
}

/// A connection's place among the agents.
pub struct Linked {
    agents: Arc<Agents>,
    node: String,
    number: u64,
    /// What is to be said to the agent. Ends when another connection of the same agent takes its place.
    pub told: mpsc::Receiver<Told>,
}

impl Agents {
    fn with<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> T {
        what(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An agent has connected, and hears first which sessions live, and what these may reach: it may have missed the end of
    /// others, and changes. One that was connected before is let go. One of which the log refuses what it sends isn't back by
    /// this: it would come and go for ever, and its sessions go on without evidence.
    pub fn connected(self: &Arc<Self>, node: &str) -> Linked {
        let (to, told) = mpsc::channel(TOLD_WAITING_MAX);
        let number = self.with(|inner| {
            inner.next += 1;
            let number = inner.next;
            if inner.refusals.standing(node).is_none() {
                inner.gone.remove(node);
            }
            let readiness = watch::Sender::new(Readiness::Coming);
            let here = inner.sessions.iter().filter(|(_, waiting)| waiting.node == node);
            // Nothing else waits yet.
            let _told = to.try_send(Told::Live { sessions: here.map(|(session, _)| *session).collect() });
            let link = Link { number, to, readiness };
            let here = inner.sessions.iter_mut().filter(|(_, waiting)| waiting.node == node);
            here.for_each(|(session, waiting)| waiting.tell(*session, &link));
            inner.links.insert(node.to_owned(), link);
            number
        });
        Linked { agents: Arc::clone(self), node: node.to_owned(), number, told }
    }

    /// These have agents, as the log says, which must come back: to be called once, at the start.
    pub fn await_return(&self, nodes: impl IntoIterator<Item = String>, now: Duration) {
        self.with(|inner| {
            for node in nodes {
                if !inner.links.contains_key(&node) {
                    inner.gone.entry(node).or_insert(Gone { since: now, told: false });
                }
            }
        });
    }

    /// Whether a node's agent is connected.
    #[must_use]
    pub fn is_there(&self, node: &str) -> bool {
        self.with(|inner| inner.links.contains_key(node))
    }

    /// Agents that have been gone since `before` or longer, and of which no event says so yet.
    #[must_use]
    pub fn lost(&self, before: Duration) -> Vec<String> {
        self.with(|inner| {
            let lost = inner.gone.iter().filter(|(_, gone)| !gone.told && gone.since <= before);
            lost.map(|(node, _)| node.clone()).collect()
        })
    }

    /// A node's sessions that nobody but its agent holds to what they may do.
    #[must_use]
    pub fn restrained(&self, node: &str) -> BTreeSet<SessionId> {
        self.with(|inner| {
            let restrained = |waiting: &Waiting| waiting.node == node && waiting.reach != Reach::default();
            let sessions = inner.sessions.iter().filter(|(_, waiting)| restrained(waiting));
            sessions.map(|(session, _)| *session).collect()
        })
    }

    /// An event says that an agent is gone.
    pub fn told_lost(&self, node: &str) {
        self.with(|inner| {
            if let Some(gone) = inner.gone.get_mut(node) {
                gone.told = true;
            }
        });
    }

    /// Why the log takes nothing of a node's agent, where that is so, and the event that tells of it.
    pub(super) fn refusal(&self, node: &str) -> Option<(Refusal, Option<EventId>)> {
        self.with(|inner| inner.refusals.standing(node).map(|(refusal, event)| (refusal.clone(), event)))
    }

    /// That event; without one it couldn't be told, and is to be the next time.
    pub(super) fn told_refusal(&self, node: &str, refusal: &Refusal, event: Option<EventId>) {
        self.with(|inner| inner.refusals.told(node, refusal, event));
    }

    /// Waits until a node's agent can watch: one that has just come says so in a moment.
    async fn ready(&self, node: &str) -> Result<(), Unwatched> {
        let not_there = || Unwatched::NotThere(node.to_owned());
        let readiness = self.with(|inner| {
            inner.is_taken_from(node)?;
            Ok::<_, Unwatched>(inner.links.get(node).map(|link| link.readiness.subscribe()))
        })?;
        let mut readiness = readiness.ok_or_else(not_there)?;
        let said = readiness.wait_for(|readiness| *readiness != Readiness::Coming);
        match tokio::time::timeout(ANSWER_MAX, said).await {
            Ok(Ok(readiness)) => match &*readiness {
                Readiness::Unready(reason) => {
                    Err(Unwatched::Refused { node: node.to_owned(), reason: reason.clone() })
                }
                Readiness::Coming | Readiness::Ready => Ok(()),
            },
            // It was let go, with its connection.
            Ok(Err(_)) => Err(not_there()),
            Err(_) => Err(Unwatched::Silent(node.to_owned())),
        }
    }

    /// Has a node's agent wait for a session's connection.
    ///
    /// # Errors
    /// See [`Unwatched`]; then no connection may be opened.
    pub async fn expect(self: &Arc<Self>, node: &str, expected: Expected) -> Result<Expecting, Unwatched> {
        self.ready(node).await?;
        let session = expected.session;
        let (progress, mut seen) = watch::channel(Progress::Asked);
        let reach = expected.reach.clone();
        let asked = self.with(|inner| {
            inner.is_taken_from(node)?;
            let link = inner.links.get(node).ok_or_else(|| Unwatched::NotThere(node.to_owned()))?;
            let sent = link.to.try_send(Told::Expect(Box::new(expected)));
            sent.map_err(|_| Unwatched::Silent(node.to_owned()))?;
            let told = Some((link.number, 0));
            let node = node.to_owned();
            let waiting = Waiting { node, progress, reach, change: 0, since: Duration::ZERO, told, held: 0 };
            inner.sessions.insert(session, waiting);
            Ok::<_, Unwatched>(())
        });
        asked?;
        // From here on dropping it takes it back.
        let expecting = Expecting {
            guard: Guard { agents: Arc::clone(self), session, node: node.to_owned() },
            seen: seen.clone(),
        };
        let answered = seen.wait_for(|progress| *progress != Progress::Asked);
        match tokio::time::timeout(ANSWER_MAX, answered).await {
            Ok(Ok(progress)) => match &*progress {
                Progress::Refused(reason) => {
                    Err(Unwatched::Refused { node: node.to_owned(), reason: reason.clone() })
                }
                Progress::Asked | Progress::Expecting | Progress::Seen => Ok(()),
            },
            // It was let go, with its connection.
            Ok(Err(_)) => Err(Unwatched::NotThere(node.to_owned())),
            Err(_) => Err(Unwatched::Silent(node.to_owned())),
        }
        .map(|()| expecting)
    }

    /// Whether a session is watched, or is about to be.
    #[must_use]
    pub fn watches(&self, session: SessionId) -> bool {
        self.with(|inner| inner.sessions.contains_key(&session))
    }

    /// Tells the agents of live sessions what these may reach at `now` of the monotonic clock, where that has changed. Gives
    /// the sessions whose agent hasn't said in time that it holds them to a change, each with its node: they must end.
    #[must_use]
    pub fn reach_changed(
        &self,
        now: Duration,
        mut reach: impl FnMut(SessionId) -> Option<Reach>,
    ) -> Vec<(SessionId, String)> {
        self.with(|inner| {
            let mut unheld = Vec::new();
            for (session, waiting) in &mut inner.sessions {
                if let Some(reach) = reach(*session).filter(|reach| *reach != waiting.reach) {
                    waiting.reach = reach;
                    waiting.change = waiting.change.saturating_add(1);
                    waiting.since = now;
                }
                if let Some(link) = inner.links.get(&waiting.node) {
                    waiting.tell(*session, link);
                }
                if waiting.held < waiting.change && now.saturating_sub(waiting.since) > HELD_MAX {
                    unheld.push((*session, waiting.node.clone()));
                }
            }
            unheld
        })
    }

    fn progressed(&self, node: &str, session: SessionId, to: Progress) {
        self.with(|inner| {
            let waiting = inner.sessions.get(&session).filter(|waiting| waiting.node == node);
            if let Some(waiting) = waiting {
                waiting.progress.send_if_modified(|progress| {
                    let forward = matches!(
                        (&*progress, &to),
                        (Progress::Asked, _) | (Progress::Expecting, Progress::Seen)
                    );
                    if forward {
                        *progress = to;
                    }
                    forward
                });
            }
        });
    }
}

impl Linked {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The agent waits for a session's connection.
    pub fn expecting(&self, session: SessionId) {
        self.agents.progressed(&self.node, session, Progress::Expecting);
    }

    /// It can't.
    pub fn refused(&self, session: SessionId, reason: String) {
        self.agents.progressed(&self.node, session, Progress::Refused(reason));
    }

    /// It holds a session to what it may reach since that change.
    pub fn held(&self, session: SessionId, change: u64) {
        self.agents.with(|inner| {
            let waiting = inner.sessions.get_mut(&session).filter(|waiting| waiting.node == self.node);
            if let Some(waiting) = waiting {
                waiting.held = waiting.held.max(change);
            }
        });
    }

    /// Whether it is the one that watches a session.
    #[must_use]
    pub fn watches(&self, session: SessionId) -> bool {
        self.agents
            .with(|inner| inner.sessions.get(&session).is_some_and(|waiting| waiting.node == self.node))
    }

    /// The log holds the agent's word that the node's kernel has seen a session's connection.
    pub fn seen(&self, session: SessionId) {
        self.agents.progressed(&self.node, session, Progress::Seen);
    }

    /// Whether it can watch, or why not.
    pub fn ready(&self, unready: Option<String>) {
        self.agents.with(|inner| {
            if let Some(link) = inner.links.get(&self.node).filter(|link| link.number == self.number) {
                link.readiness.send_replace(unready.map_or(Readiness::Ready, Readiness::Unready));
            }
        });
    }

    /// Something that it sent is in the log: it is there, whatever was refused before.
    pub(super) fn taken(&self) {
        self.agents.with(|inner| {
            let counts = inner.links.get(&self.node).is_some_and(|link| link.number == self.number);
            if counts && inner.refusals.over(&self.node) {
                inner.gone.remove(&self.node);
            }
        });
    }

    /// The connection is over, at `now` of the monotonic clock: the agent has a while to come back.
    pub fn ended(self, now: Duration) {
        self.agents.with(|inner| inner.ended(&self.node, self.number, now));
    }

    /// It is over since the log refuses what came over it, and the agent has a while to send something that is taken: to come back
    /// isn't enough. Gives whether that is to be told.
    pub(super) fn ended_refused(self, now: Duration, refusal: &Refusal) -> bool {
        self.agents.with(|inner| {
            if inner.ended(&self.node, self.number, now) {
                inner.refusals.stands(&self.node, refusal.clone());
            }
            inner.refusals.is_news(&self.node, refusal)
        })
    }
}

/// Takes a session from those that are waited for, and lets the agent know.
struct Guard {
    agents: Arc<Agents>,
    session: SessionId,
    node: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.agents.with(|inner| {
            inner.sessions.remove(&self.session);
            if let Some(link) = inner.links.get(&self.node) {
                // An agent that doesn't read finds out by the session's end in its kernel.
                let _full = link.to.try_send(Told::Over { session: self.session });
            }
        });
    }
}

/// The node's agent waits for the session's connection: only its own word makes one.
#[must_use = "a connection that is waited for is to be opened"]
pub struct Expecting {
    guard: Guard,
    seen: watch::Receiver<Progress>,
}

impl Expecting {
    /// Waits until the log holds the agent's word that the connection came in.
    ///
    /// # Errors
    /// When it doesn't in time: the connection must be closed.
    pub async fn seen(mut self) -> Result<Seen, Unwatched> {
        let came = self.seen.wait_for(|progress| *progress == Progress::Seen);
        match tokio::time::timeout(ANSWER_MAX, came).await {
            Ok(Ok(_)) => Ok(Seen { _guard: self.guard }),
            Ok(Err(_)) | Err(_) => Err(Unwatched::NotSeen(self.guard.node.clone())),
        }
    }
}

/// The session is watched: the log holds the agent's word for it. Dropped at the session's end.
#[must_use = "a session is watched as long as this lives"]
pub struct Seen {
    _guard: Guard,
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::Actor;

    fn expected(session: SessionId) -> Expected {
        Expected {
            actor: Actor::system("test"),
            from: "192.0.2.1:40000".parse().unwrap(),
            login: "root".into(),
            reach: Reach::default(),
            session,
            to: "192.0.2.2:22".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn nothing_is_opened_before_the_agent_waits_nor_used_before_it_has_seen() {
        let agents = Arc::new(Agents::default());
        let session = SessionId::new();
        let none = agents.expect("web-1", expected(session)).await;
        assert_eq!(none.err(), Some(Unwatched::NotThere("web-1".into())));
        let mut linked = agents.connected("web-1");
        assert_eq!(linked.told.try_recv(), Ok(Told::Live { sessions: [].into() }));
        let other = agents.connected("web-2");
        let asking = tokio::spawn({
            let agents = Arc::clone(&agents);
            async move { agents.expect("web-1", expected(session)).await }
        });
        tokio::task::yield_now().await;
        assert!(linked.told.try_recv().is_err(), "one that has just come isn't asked before it can watch");
        linked.ready(None);
        assert!(matches!(linked.told.recv().await, Some(Told::Expect(_))));
        other.expecting(session);
        assert!(!asking.is_finished(), "another node's word counts for nothing");
        linked.expecting(session);
        let expecting = asking.await.unwrap().unwrap();
        let seeing = tokio::spawn(expecting.seen());
        other.seen(session);
        tokio::task::yield_now().await;
        assert!(!seeing.is_finished());
        linked.seen(session);
        let seen = seeing.await.unwrap().unwrap();
        drop(seen);
        assert_eq!(linked.told.recv().await, Some(Told::Over { session }));
    }

    #[tokio::test]
    async fn an_agent_that_refuses_or_cannot_is_no_agent() {
        let agents = Arc::new(Agents::default());
        let mut linked = agents.connected("web-1");
        linked.told.recv().await.unwrap();
        linked.ready(None);
        let session = SessionId::new();
        let asking = tokio::spawn({
            let agents = Arc::clone(&agents);
            async move { agents.expect("web-1", expected(session)).await }
        });
        assert!(matches!(linked.told.recv().await, Some(Told::Expect(_))));
        linked.refused(session, "no room".into());
        let refused = asking.await.unwrap().err();
        assert_eq!(refused, Some(Unwatched::Refused { node: "web-1".into(), reason: "no room".into() }));
        linked.ready(Some("the spool is full".into()));
        assert!(agents.expect("web-1", expected(session)).await.is_err());
    }

    /// What an agent is told of what a session may reach.
    fn told_reach(linked: &mut Linked) -> Option<(u64, Reach)> {
        match linked.told.try_recv() {
            Ok(Told::Reach { change, reach, .. }) => Some((change, reach)),
            Ok(Told::Live { .. }) => told_reach(linked),
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_a_session_may_reach_is_told_until_its_agent_holds_it_to_that() {
        let agents = Arc::new(Agents::default());
        let mut linked = agents.connected("web-1");
        linked.told.recv().await.unwrap();
        linked.ready(None);
        let session = SessionId::new();
        let asking = tokio::spawn({
            let agents = Arc::clone(&agents);
            async move { agents.expect("web-1", expected(session)).await }
        });
        assert!(matches!(linked.told.recv().await, Some(Told::Expect(_))));
        linked.expecting(session);
        let _expecting = asking.await.unwrap().unwrap();
        let other = || Reach { ends_session: true, ..Reach::default() };
        let at = Duration::from_secs;
        let look = |now, reach: Reach| agents.reach_changed(now, |_| Some(reach.clone()));
        assert!(look(at(100), Reach::default()).is_empty());
        assert_eq!(told_reach(&mut linked), None, "it is as the agent heard it with the session");
        assert!(look(at(101), other()).is_empty());
        assert_eq!(told_reach(&mut linked), Some((1, other())));
        // The connection ends before the agent has said that it holds: the next one hears it again, once.
        linked.ended(at(102));
        let mut linked = agents.connected("web-1");
        assert_eq!(linked.told.try_recv(), Ok(Told::Live { sessions: [session].into() }));
        assert!(look(at(103), other()).is_empty());
        assert_eq!((told_reach(&mut linked), told_reach(&mut linked)), (Some((1, other())), None));
        linked.held(session, 0);
        agents.connected("web-2").held(session, 1);
        assert_eq!(look(at(112), other()), [(session, "web-1".to_owned())], "nobody has said that it holds");
        linked.held(session, 1);
        assert!(look(at(113), other()).is_empty());
        assert!(look(at(200), Reach::default()).is_empty(), "a new change has its own time");
        assert_eq!(look(at(211), Reach::default()), [(session, "web-1".to_owned())]);
    }

    #[test]
    fn an_agent_that_is_gone_is_lost_after_a_while_unless_it_comes_back() {
        let agents = Arc::new(Agents::default());
        let first = agents.connected("web-1");
        let second = agents.connected("web-1");
        first.ended(Duration::from_secs(1));
        assert!(agents.is_there("web-1"), "the later connection counts");
        second.ended(Duration::from_secs(2));
        assert!(!agents.is_there("web-1"));
        assert!(agents.lost(Duration::from_secs(1)).is_empty());
        assert_eq!(agents.lost(Duration::from_secs(2)), ["web-1"]);
        agents.told_lost("web-1");
        assert!(agents.lost(Duration::from_secs(9)).is_empty());
        let _back = agents.connected("web-1");
        assert!(agents.lost(Duration::from_secs(9)).is_empty());
    }

    #[tokio::test]
    async fn an_agent_of_which_nothing_is_taken_is_lost_however_often_it_comes_until_something_is() {
        let agents = Arc::new(Agents::default());
        let refusal = Refusal { boot: None, reason: "a batch is signed by another key".into() };
        let at = Duration::from_secs;
        for (second, is_news) in [(1, true), (3, false), (5, false)] {
            let linked = agents.connected("web-1");
            linked.ready(None);
            assert_eq!(linked.ended_refused(at(second), &refusal), is_news);
        }
        assert!(agents.lost(at(0)).is_empty());
        let linked = agents.connected("web-1");
        linked.ready(None);
        assert_eq!(agents.lost(at(1)), ["web-1"], "since the first refusal, and though it is connected");
        let session = SessionId::new();
        let reason = format!("the log takes nothing from it: {refusal}");
        let unwatched = agents.expect("web-1", expected(session)).await.err();
        assert_eq!(unwatched, Some(Unwatched::Refused { node: "web-1".into(), reason }));
        assert!(!agents.watches(session));
        agents.told_lost("web-1");
        assert!(!linked.ended_refused(at(20), &refusal));
        assert!(agents.lost(at(20)).is_empty(), "that is told once");
        let linked = agents.connected("web-1");
        linked.taken();
        assert_eq!(agents.refusal("web-1"), None);
        linked.ended(at(30));
        assert!(agents.lost(at(29)).is_empty());
        assert_eq!(agents.lost(at(30)), ["web-1"], "from then on it is as any other");
    }

    #[test]
    fn a_refusal_over_a_connection_that_another_has_replaced_stands_for_nothing() {
        let agents = Arc::new(Agents::default());
        let refusal = Refusal { boot: None, reason: "other bytes".into() };
        let first = agents.connected("web-1");
        let _second = agents.connected("web-1");
        assert!(first.ended_refused(Duration::from_secs(1), &refusal), "it is told all the same");
        assert_eq!(agents.refusal("web-1"), None);
        assert!(agents.is_there("web-1"));
    }
}
