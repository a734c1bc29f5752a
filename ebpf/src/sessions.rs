//! The sessions that this node knows: whose they are, and what they may reach. They lie in a file too, so that an agent
//! that is started again knows whose processes still run, and goes on refusing in the name of the same restrictions.

use crate::sensor::{
    AllowList, FileRules, NetRule, PathRule, PolicyRules, Ports, Sensor, SensorError, Tuple,
};
use custody_core::event::{Actor, SessionId};
use custody_core::ingest::message::Expected;
use custody_core::log::durable;
use custody_core::policy::files::{self, Use};
use custody_core::policy::networks::{Reach, Rule};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How many sessions are remembered: beyond it the oldest that have ended are forgotten. What the kernel still tells of those, or holds
/// to their policies, is what connections do that their processes have left behind.
const SESSIONS_MAX: usize = 10_000;
/// How many of those that have ended stand in the file, which is written for each session that begins: an agent that is started again finds
/// the last of what they did in the kernel's buffer.
const ENDED_KEPT_MAX: usize = 256;
/// The numbers of policies end before this, and begin anew.
const POLICIES_END: u32 = u32::MAX / 2;

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Whose it is.
    pub actor: Actor,
    /// The account here.
    pub login: String,
    /// Whether its connection is over; what it left running goes on.
    pub over: bool,
    /// The number by which the kernel knows what it may reach.
    pub policy: u32,
    /// What it may reach.
    pub reach: Reach,
    /// Its connection, the proxy's end and this one.
    pub from: std::net::SocketAddr,
    /// This node's end.
    pub to: std::net::SocketAddr,
    /// Whether its connection has come in. It has, or never will, where an earlier run waited for it: nobody does any more. So that stands in
    /// no file, which somebody could change before he has the agent started anew.
    #[serde(skip, default = "of_an_earlier_run")]
    accepted: bool,
    /// Whether it is over and has left nothing running, so that it never will run anything.
    #[serde(skip)]
    ended: bool,
}

const fn of_an_earlier_run() -> bool {
    true
}

impl Session {
    /// Whether it is over and has left nothing running.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Its connection as the kernel knows it.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        Tuple::new(self.to, self.from)
    }
}

/// A restriction that the kernel knows by a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Restriction {
    /// Its name.
    pub name: String,
    /// Whether a session that tries ends.
    pub ends_session: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    next_policy: u32,
    /// Their numbers are their places, counted from 1.
    restrictions: Vec<Restriction>,
    sessions: BTreeMap<SessionId, Session>,
}

/// What is kept of them.
#[derive(Serialize)]
struct Keeping<'a> {
    next_policy: u32,
    restrictions: &'a [Restriction],
    sessions: BTreeMap<SessionId, &'a Session>,
}

/// The sessions that have processes, as the kernel knows them.
///
/// # Errors
/// Its map can't be read.
pub fn running(sensor: &Sensor) -> Result<BTreeSet<SessionId>, SensorError> {
    Ok(sensor.tagged()?.into_keys().map(|id| SessionId(Uuid::from_bytes(id))).collect())
}

/// All of them.
#[derive(Debug)]
pub struct Sessions {
    path: PathBuf,
    kept: Kept,
    /// Numbers under which the kernel had policies at the start, which may be those of sessions that aren't known here.
    held: BTreeSet<u32>,
}

/// All of them, as they were at a moment: to be kept without a lock on them.
#[derive(Debug)]
#[must_use]
pub struct Snapshot {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Snapshot {
    /// Keeps it durably in the file, in the place of what was there.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&self) -> io::Result<()> {
        let aside = self.path.with_extension("new");
        durable::write_file(&aside, &self.bytes, 0o600)?;
        durable::rename(&aside, &self.path)
    }
}

impl Sessions {
    /// Opens the file, or begins one.
    ///
    /// # Errors
    /// The system's; a file that isn't what this program wrote.
    pub fn open(path: &Path) -> io::Result<Self> {
        let kept = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), kept, held: BTreeSet::new() })
    }

    /// A session.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.kept.sessions.get(&id)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.kept.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// The restriction that the kernel knows by that number.
    #[must_use]
    pub fn restriction(&self, number: u32) -> Option<&Restriction> {
        self.kept.restrictions.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The kernel has policies of these numbers already: no session gets one of them.
    pub fn leave_alone(&mut self, held: BTreeSet<u32>) {
        self.held = held;
    }

    /// A number by which the kernel is to know what a session may reach: none has it, and none that comes gets it.
    pub fn new_policy(&mut self) -> u32 {
        let taken = |number: u32| {
            self.held.contains(&number) || self.kept.sessions.values().any(|session| session.policy == number)
        };
        let policy = free(self.kept.next_policy, taken);
        self.kept.next_policy = policy.saturating_add(1);
        policy
    }

    /// A session is expected, under that policy: to be remembered ([`Sessions::snapshot`]) before the kernel waits for it. Gives the
    /// numbers of policies that nobody needs any more.
    pub fn expect(&mut self, expected: Expected, policy: u32) -> Vec<u32> {
        let Expected { actor, from, login, reach, session, to } = expected;
        let (over, accepted, ended) = (false, false, false);
        let entry = Session { actor, login, over, policy, reach, from, to, accepted, ended };
        self.kept.sessions.insert(session, entry);
        self.forget()
    }

    /// A session's connection has come in: the kernel has told it, after it had marked its process.
    pub fn accepted(&mut self, id: SessionId) {
        if let Some(session) = self.kept.sessions.get_mut(&id) {
            session.accepted = true;
        }
    }

    /// It can't be remembered, so it isn't expected.
    pub fn unexpect(&mut self, id: SessionId) {
        self.kept.sessions.remove(&id);
    }

    /// What a session may reach has changed: to be remembered ([`Sessions::snapshot`]).
    pub fn reach(&mut self, id: SessionId, reach: Reach) {
        if let Some(session) = self.kept.sessions.get_mut(&id) {
            session.reach = reach;
        }
    }

    /// All of them as they are now, but for the oldest that have ended. Whoever takes two keeps them in that order.
    ///
    /// # Errors
    /// Never for what stands here; the writer could say so.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        let Kept { next_policy, restrictions, sessions } = &self.kept;
        let mut left_out =
            sessions.values().filter(|session| session.ended).count().saturating_sub(ENDED_KEPT_MAX);
        let mut keeping = Keeping { next_policy: *next_policy, restrictions, sessions: BTreeMap::new() };
        for (id, session) in sessions {
            if session.ended && left_out > 0 {
                left_out -= 1;
            } else {
                keeping.sessions.insert(*id, session);
            }
        }
        let bytes = serde_json::to_vec(&keeping).map_err(io::Error::other)?;
        Ok(Snapshot { path: self.path.clone(), bytes })
    }

    /// A session's connection is over. It needn't be durable: what is over is merely forgotten sooner.
    pub fn over(&mut self, id: SessionId) {
        if let Some(session) = self.kept.sessions.get_mut(&id) {
            session.over = true;
        }
    }

    /// These live, as far as they are known here, whatever was known of them, and all others are over; gives those of which that wasn't known.
    pub fn only(&mut self, live: &BTreeSet<SessionId>) -> Vec<SessionId> {
        let mut over = Vec::new();
        for (id, session) in &mut self.kept.sessions {
            let is_over = !live.contains(id);
            if is_over && !session.over {
                over.push(*id);
            }
            session.over = is_over;
            session.ended &= is_over;
        }
        over
    }

    /// Whether all have ended, so that nobody needs to know which have processes.
    #[must_use]
    pub fn have_ended(&self) -> bool {
        self.kept.sessions.values().all(|session| session.ended)
    }

    /// Looks at all of them by those that have processes. One that is over and has none has ended, and is held to nothing any more; gives those
    /// that live, and have none though their connection has come in: what they run is watched by nobody.
    pub fn look(&mut self, running: &BTreeSet<SessionId>) -> Vec<SessionId> {
        let mut unwatched = Vec::new();
        for (id, session) in self.kept.sessions.iter_mut().filter(|(id, _)| !running.contains(id)) {
            if session.over {
                session.ended = true;
                // It may be long, and there may be thousands of them.
                session.reach = Reach::default();
            } else if session.accepted {
                unwatched.push(*id);
            }
        }
        unwatched
    }

    /// What the kernel is to hold a session to. Restrictions that have no number yet get one.
    pub fn rules(&mut self, reach: &Reach) -> PolicyRules {
        let allowed = reach.allow.as_ref().map(|rules| self.net_rules(rules));
        PolicyRules {
            denied: self.net_rules(&reach.deny),
            allowed,
            ends_session: reach.ends_session,
            files: self.file_rules(&reach.files),
        }
    }

    fn file_rules(&mut self, usable: &Use) -> FileRules {
        let mut rules = |rules: &[files::Rule]| -> Vec<PathRule> {
            let rule = |rule: &files::Rule| PathRule {
                id: self.number(&rule.restriction, rule.ends_session),
                path: PathBuf::from(&rule.path),
            };
            rules.iter().map(rule).collect()
        };
        let (denied_programs, denied_paths) = (rules(&usable.deny_programs), rules(&usable.deny_paths));
        let allowed = usable.allow_programs.iter().map(|list| AllowList {
            id: self.number(&list.restriction, list.ends_session),
            paths: list.paths.iter().map(PathBuf::from).collect(),
        });
        FileRules { denied_programs, denied_paths, allowed_programs: allowed.collect() }
    }

    fn net_rules(&mut self, rules: &[Rule]) -> Vec<NetRule> {
        rules.iter().map(|rule| self.net_rule(rule)).collect()
    }

    /// The number by which the kernel knows a restriction.
    fn number(&mut self, name: &str, ends_session: bool) -> u32 {
        let wanted = Restriction { name: name.to_owned(), ends_session };
        let known = self.kept.restrictions.iter().position(|known| *known == wanted);
        let place = known.unwrap_or_else(|| {
            self.kept.restrictions.push(wanted);
            self.kept.restrictions.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX / 2).saturating_add(1)
    }

    fn net_rule(&mut self, rule: &Rule) -> NetRule {
        let ports = rule.ports.iter().map(|(low, high)| Ports { low: *low, high: *high, protocol: None });
        NetRule {
            id: self.number(&rule.restriction, rule.ends_session),
            address: rule.network.network(),
            prefix: rule.network.prefix_len(),
            ports: ports.collect(),
        }
    }

    /// Forgets the oldest sessions that have ended, where there are too many; gives their policies.
    fn forget(&mut self) -> Vec<u32> {
        let too_many = self.kept.sessions.len().saturating_sub(SESSIONS_MAX);
        let ended = self.kept.sessions.iter().filter(|(_, session)| session.ended);
        let oldest: Vec<_> = ended.map(|(id, session)| (*id, session.policy)).take(too_many).collect();
        for (id, _) in &oldest {
            self.kept.sessions.remove(id);
        }
        oldest.into_iter().map(|(_, policy)| policy).collect()
    }
}

/// The first number from `next` on that isn't taken; there are more numbers than policies.
fn free(next: u32, taken: impl Fn(u32) -> bool) -> u32 {
    (next..POLICIES_END).chain(0..next).find(|number| !taken(*number)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(session: SessionId, restriction: &str) -> Expected {
        let rule = Rule {
            ends_session: true,
            network: "198.51.100.0/24".parse().unwrap(),
            ports: vec![(443, 443)],
            restriction: restriction.into(),
        };
        Expected {
            actor: Actor::system("test"),
            from: "192.0.2.1:40000".parse().unwrap(),
            login: "root".into(),
            reach: Reach { deny: vec![rule], ..Reach::default() },
            session,
            to: "192.0.2.2:22".parse().unwrap(),
        }
    }

    #[test]
    fn they_are_known_after_a_restart_and_restrictions_keep_their_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.json");
        let (one, two) = (SessionId::new(), SessionId::new());
        let mut sessions = Sessions::open(&path).unwrap();
        let first = expected(one, "a");
        let rules = sessions.rules(&first.reach);
        let policy = sessions.new_policy();
        assert!(sessions.expect(first, policy).is_empty());
        sessions.snapshot().unwrap().keep().unwrap();
        drop(sessions);
        let mut sessions = Sessions::open(&path).unwrap();
        let second = expected(two, "b");
        let other = sessions.rules(&second.reach);
        let policy = sessions.new_policy();
        sessions.expect(second, policy);
        assert_ne!(rules.denied[0].id, other.denied[0].id);
        assert_eq!(sessions.restriction(rules.denied[0].id).unwrap().name, "a");
        assert_eq!(sessions.restriction(other.denied[0].id).unwrap().name, "b");
        assert_ne!(sessions.get(one).unwrap().policy, sessions.get(two).unwrap().policy);
        assert_eq!(sessions.restriction(0), None);
    }

    /// Its files may be new, and the kernel's policies those of sessions that it doesn't know: what these left running would else be held to
    /// what a new one may reach.
    #[test]
    fn a_number_that_the_kernel_has_is_given_to_no_session() {
        let directory = tempfile::tempdir().unwrap();
        let mut sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
        sessions.leave_alone(BTreeSet::from([0, 1, 3]));
        let policy = sessions.new_policy();
        assert_eq!(policy, 2);
        sessions.expect(expected(SessionId::new(), "a"), policy);
        assert_eq!(sessions.new_policy(), 4);
        // Behind the last number there is the first, and what a session has stays its own.
        sessions.kept.next_policy = POLICIES_END - 1;
        assert_eq!(sessions.new_policy(), POLICIES_END - 1);
        assert_eq!(sessions.new_policy(), 4);
        assert_eq!(free(POLICIES_END, |number| number < 7), 7);
    }

    #[test]
    fn what_cannot_be_remembered_is_not_expected() {
        let directory = tempfile::tempdir().unwrap();
        let mut sessions = Sessions::open(&directory.path().join("gone/sessions.json")).unwrap();
        let id = SessionId::new();
        let policy = sessions.new_policy();
        sessions.expect(expected(id, "a"), policy);
        assert!(sessions.snapshot().unwrap().keep().is_err());
        sessions.unexpect(id);
        assert_eq!(sessions.get(id), None);
        assert_ne!(sessions.new_policy(), policy);
    }

    /// So many sessions that are over.
    fn over(sessions: &mut Sessions, count: usize) -> Vec<SessionId> {
        let ids: Vec<SessionId> = (0..count).map(|_| SessionId::new()).collect();
        for (id, policy) in ids.iter().zip(0..) {
            sessions.expect(expected(*id, "a"), policy);
            sessions.over(*id);
        }
        ids
    }

    /// Its policy would go with it, and what it left running could do nothing any more.
    #[test]
    fn what_has_left_something_running_is_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
        let ids = over(&mut sessions, SESSIONS_MAX + 1);
        assert_eq!(sessions.iter().count(), SESSIONS_MAX + 1, "of none it is known that it has ended");
        assert!(sessions.look(&BTreeSet::from([ids[0]])).is_empty());
        let forgotten = sessions.expect(expected(SessionId::new(), "a"), 20_000);
        assert_eq!(forgotten, [1, 2]);
        assert!(sessions.get(ids[0]).is_some() && sessions.get(ids[1]).is_none());
    }

    /// It is written for each session that begins. Whoever left something running needs his restrictions after a start, too.
    #[test]
    fn the_file_has_what_lives_or_runs_and_few_of_those_that_have_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.json");
        let mut sessions = Sessions::open(&path).unwrap();
        let ids = over(&mut sessions, ENDED_KEPT_MAX + 9);
        let live = SessionId::new();
        sessions.expect(expected(live, "a"), 20_000);
        assert!(!sessions.have_ended());
        sessions.look(&BTreeSet::from([ids[0], live]));
        assert_eq!(sessions.iter().count(), ENDED_KEPT_MAX + 10, "what they did may still be told");
        sessions.snapshot().unwrap().keep().unwrap();
        let read = Sessions::open(&path).unwrap();
        let kept: Vec<SessionId> = read.iter().map(|(id, _)| id).collect();
        assert_eq!(kept, [&ids[..1], &ids[9..], &[live]].concat());
        let held: Vec<SessionId> =
            read.iter().filter(|(_, session)| session.reach != Reach::default()).map(|(id, _)| id).collect();
        assert_eq!(held, [ids[0], live], "what has ended is held to nothing");
    }

    /// Whoever is root where the kernel refuses him nothing takes the programs away, with the marks of all processes, and has the agent started
    /// anew. What is only expected has no process yet.
    #[test]
    fn what_lives_without_a_process_is_missed_once_its_connection_has_come_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.json");
        let mut sessions = Sessions::open(&path).unwrap();
        let ids @ [expects, accepted, ended] = [(); 3].map(|()| SessionId::new());
        for (id, policy) in ids.into_iter().zip(0..) {
            sessions.expect(expected(id, "a"), policy);
        }
        let none = BTreeSet::new();
        assert!(sessions.look(&none).is_empty());
        sessions.accepted(accepted);
        sessions.accepted(ended);
        sessions.over(ended);
        assert!(sessions.look(&BTreeSet::from([accepted, ended])).is_empty());
        assert_eq!(sessions.look(&none), [accepted]);
        assert!(sessions.get(ended).unwrap().has_ended());
        sessions.snapshot().unwrap().keep().unwrap();
        drop(sessions);
        // Nobody waits any more for what an earlier run expected.
        let mut sessions = Sessions::open(&path).unwrap();
        assert_eq!(sessions.look(&BTreeSet::from([accepted])), [expects]);
        // What the file says of it counts for nothing where the log says that it lives.
        assert!(sessions.only(&BTreeSet::from(ids)).is_empty());
        assert_eq!(sessions.look(&none), ids);
    }

    #[test]
    fn those_that_live_no_longer_are_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
        let (one, two, three) = (SessionId::new(), SessionId::new(), SessionId::new());
        for id in [one, two, three] {
            let policy = sessions.new_policy();
            sessions.expect(expected(id, "a"), policy);
        }
        sessions.over(three);
        assert_eq!(sessions.only(&BTreeSet::from([one, SessionId::new()])), [two]);
        let over: Vec<_> = sessions.iter().filter(|(_, session)| session.over).map(|(id, _)| id).collect();
        assert_eq!(over, [two, three]);
    }
}
