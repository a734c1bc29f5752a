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
    /// It is connected, and nothing of it has arrived.
    #[error(
        "the agent of {0} is connected, and nothing that it sees reaches the log, so nobody would see what the session does: tell your administrator"
    )]
    Untaken(String),
    /// Its kernel saw no such connection.
    #[error(
        "the agent of {0} hasn't seen the session's connection come in: is there address translation on the way to it, was its sshd started within a session, or does the process that listens there serve connections itself?"
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
    /// What it has said of whether it can watch.
    said: Readiness,
    /// The same, as sessions may go by it.
    readiness: watch::Sender<Readiness>,
}

impl Link {
    /// Lets sessions go by what it has said. That it can watch counts once something of it was taken: what it sees may never arrive.
    fn publish(&self, is_taken: bool) {
        self.readiness.send_replace(match &self.said {
            Readiness::Ready if !is_taken => Readiness::Coming,
            said => said.clone(),
        });
    }
}

/// Whether an agent can watch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Readiness {
    /// It has just come: it will say, and send something.
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
    /// Agents that are gone: not connected, or nothing of them was taken since. To connect brings none back: its connections could come and
    /// go for ever without any evidence by them, where long packets get lost or its disk can't be read.
    gone: BTreeMap<String, Gone>,
    /// What the log refuses of agents.
    refusals: Refusals,
}

impl Inner {
    /// Why the log takes nothing of a node's agent, where that is so: waiting is of no use.
    fn is_refused(&self, node: &str) -> Result<(), Unwatched> {
        match self.refusals.standing(node) {
            Some((refusal, _)) => Err(Unwatched::Refused {
                node: node.to_owned(),
                reason: format!("the log takes nothing from it: {refusal}"),
            }),
            None => Ok(()),
        }
    }

    /// Nothing is opened to a node whose agent's evidence wouldn't arrive.
    fn is_taken_from(&self, node: &str) -> Result<(), Unwatched> {
        self.is_refused(node)?;
        // Of one that isn't connected, there is another word for it.
        if self.gone.contains_key(node) && self.links.contains_key(node) {
            return Err(Unwatched::Untaken(node.to_owned()));
        }
        Ok(())
    }

    /// An agent counts as gone from `now` on; one that does already, since then.
    fn goes(&mut self, node: &str, now: Duration) {
        self.gone.entry(node.to_owned()).or_insert(Gone { since: now, told: false });
    }

    /// A connection is over. Gives whether it was the one that counts.
    fn ended(&mut self, node: &str, number: u64, now: Duration) -> bool {
        let counts = self.links.get(node).is_some_and(|link| link.number == number);
        if counts {
            self.links.remove(node);
            self.goes(node, now);
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
    /// others, and changes. One that was connected before is let go. At `now` of the monotonic clock: from then on it has a while until
    /// something of it is taken, unless that while has begun already.
    pub fn connected(self: &Arc<Self>, node: &str, now: Duration) -> Linked {
        let (to, told) = mpsc::channel(TOLD_WAITING_MAX);
        let number = self.with(|inner| {
            inner.next += 1;
            let number = inner.next;
            inner.goes(node, now);
            let readiness = watch::Sender::new(Readiness::Coming);
            let here = inner.sessions.iter().filter(|(_, waiting)| waiting.node == node);
            // Nothing else waits yet.
            let _told = to.try_send(Told::Live { sessions: here.map(|(session, _)| *session).collect() });
            let link = Link { number, to, said: Readiness::Coming, readiness };
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
                    inner.goes(&node, now);
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

    /// An event says that an agent is gone. One that came back while that was written is let go: it connects anew, and the log hears
    /// that it is there after it has heard that it is lost.
    pub fn told_lost(&self, node: &str) {
        self.with(|inner| match inner.gone.get_mut(node) {
            Some(gone) => gone.told = true,
            None if inner.links.remove(node).is_some() => {
                inner.gone.insert(node.to_owned(), Gone { since: Duration::ZERO, told: true });
            }
            None => {}
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

    /// Waits until a node's agent can watch: one that has just come says so in a moment, and something of it is taken.
    async fn ready(&self, node: &str) -> Result<(), Unwatched> {
        let not_there = || Unwatched::NotThere(node.to_owned());
        let readiness = self.with(|inner| {
            inner.is_refused(node)?;
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
            Err(_) => {
                let untaken = self.with(|inner| inner.is_taken_from(node)).err();
                Err(untaken.unwrap_or_else(|| Unwatched::Silent(node.to_owned())))
            }
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

    /// Whether a session is watched, or is about to be; not by an agent that counts as lost.
    #[must_use]
    pub fn watches(&self, session: SessionId) -> bool {
        self.with(|inner| {
            let is_lost = |node: &String| inner.gone.get(node).is_some_and(|gone| gone.told);
            inner.sessions.get(&session).is_some_and(|waiting| !is_lost(&waiting.node))
        })
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

    /// It can't hold a session to what it may do, and why. Gives whether the session must end for that: one whose connection wasn't seen yet
    /// isn't watched, and begins so or not at all.
    pub fn unheld(&self, session: SessionId, reason: &str) -> bool {
        self.agents.with(|inner| {
            let waiting = inner.sessions.get(&session).filter(|waiting| waiting.node == self.node);
            waiting.is_some_and(|waiting| {
                waiting.progress.send_if_modified(|progress| {
                    let is_awaited = matches!(progress, Progress::Asked | Progress::Expecting);
                    if is_awaited {
                        *progress = Progress::Refused(reason.to_owned());
                    }
                    is_awaited
                });
                *waiting.progress.borrow() == Progress::Seen
            })
        })
    }

    /// The log holds the agent's word that the node's kernel has seen a session's connection.
    pub fn seen(&self, session: SessionId) {
        self.agents.progressed(&self.node, session, Progress::Seen);
    }

    /// Whether it can watch, or why not.
    pub fn ready(&self, unready: Option<String>) {
        self.agents.with(|inner| {
            let is_taken = !inner.gone.contains_key(&self.node);
            let link = inner.links.get_mut(&self.node).filter(|link| link.number == self.number);
            if let Some(link) = link {
                link.said = unready.map_or(Readiness::Ready, Readiness::Unready);
                link.publish(is_taken);
            }
        });
    }

    /// Something that it sent is in the log: it is there, whatever was refused before.
    pub fn taken(&self) {
        self.agents.with(|inner| {
            let link = inner.links.get(&self.node).filter(|link| link.number == self.number);
            let Some(link) = link else { return };
            inner.refusals.over(&self.node);
            if inner.gone.remove(&self.node).is_some() {
                link.publish(true);
            }
        });
    }

    /// The connection is over, at `now` of the monotonic clock: the agent has a while to come back, and to have something taken.
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
        let told = |progress: &Progress| matches!(progress, Progress::Seen | Progress::Refused(_));
        let refused = match tokio::time::timeout(ANSWER_MAX, self.seen.wait_for(told)).await {
            Ok(Ok(progress)) => match &*progress {
                Progress::Refused(reason) => Some(reason.clone()),
                Progress::Asked | Progress::Expecting | Progress::Seen => None,
            },
            Ok(Err(_)) | Err(_) => return Err(Unwatched::NotSeen(self.guard.node.clone())),
        };
        match refused {
            None => Ok(Seen { _guard: self.guard }),
            Some(reason) => Err(Unwatched::Refused { node: self.guard.node.clone(), reason }),
        }
    }
}

/// The session is watched: the log holds the agent's word for it. Dropped at the session's end.
#[must_use = "a session is watched as long as this lives"]
pub struct Seen {
    _guard: Guard,
}

#[cfg(test)]
#[path = "agents_tests.rs"]
mod tests;
