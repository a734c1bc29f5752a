//! The sessions that this node knows: whose they are, and what they may reach. They lie in a file too, so that an agent
//! that is started again knows whose processes still run, and goes on refusing in the name of the same restrictions.

use crate::sensor::{AllowList, FileRules, NetRule, PathRule, PolicyRules, Ports, SensorError, Tuple};
use custody_core::event::{Actor, SessionId};
use custody_core::ingest::message::Expected;
use custody_core::log::durable;
use custody_core::policy::files::{self, Use};
use custody_core::policy::networks::{Reach, Rule};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// How many sessions are remembered: beyond it the oldest that are over and have no process any more are forgotten.
const SESSIONS_MAX: usize = 10_000;
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
}

impl Session {
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
    /// numbers of policies that nobody needs any more; `running` says which sessions still have processes, and is asked where some
    /// must be forgotten.
    pub fn expect(
        &mut self,
        expected: Expected,
        policy: u32,
        running: impl FnOnce() -> Result<BTreeSet<SessionId>, SensorError>,
    ) -> Vec<u32> {
        let Expected { actor, from, login, reach, session, to } = expected;
        let entry = Session { actor, login, over: false, policy, reach, from, to };
        self.kept.sessions.insert(session, entry);
        self.forget(running)
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

    /// All of them as they are now. Whoever takes two keeps them in that order.
    ///
    /// # Errors
    /// Never for what stands here; the writer could say so.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        let bytes = serde_json::to_vec(&self.kept).map_err(io::Error::other)?;
        Ok(Snapshot { path: self.path.clone(), bytes })
    }

    /// A session's connection is over. It needn't be durable: what is over is merely forgotten sooner.
    pub fn over(&mut self, id: SessionId) {
        if let Some(session) = self.kept.sessions.get_mut(&id) {
            session.over = true;
        }
    }

    /// All but these are over; gives those of which that wasn't known.
    pub fn only(&mut self, live: &BTreeSet<SessionId>) -> Vec<SessionId> {
        let known = self.kept.sessions.iter_mut();
        let ended = known.filter(|(id, session)| !session.over && !live.contains(id));
        ended
            .map(|(id, session)| {
                session.over = true;
                *id
            })
            .collect()
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

    /// Forgets the oldest sessions that are over and have left nothing running, where there are too many.
    fn forget(&mut self, running: impl FnOnce() -> Result<BTreeSet<SessionId>, SensorError>) -> Vec<u32> {
        let too_many = self.kept.sessions.len().saturating_sub(SESSIONS_MAX);
        if too_many == 0 {
            return Vec::new();
        }
        let running = match running() {
            Ok(running) => running,
            Err(error) => {
                tracing::error!(
                    "which sessions have left something running isn't known, so none is forgotten: {error}"
                );
                return Vec::new();
            }
        };
        let over = self.kept.sessions.iter().filter(|(id, session)| session.over && !running.contains(id));
        let oldest: Vec<_> = over.map(|(id, session)| (*id, session.policy)).take(too_many).collect();
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
        assert!(sessions.expect(first, policy, none).is_empty());
        sessions.snapshot().unwrap().keep().unwrap();
        drop(sessions);
        let mut sessions = Sessions::open(&path).unwrap();
        let second = expected(two, "b");
        let other = sessions.rules(&second.reach);
        let policy = sessions.new_policy();
        sessions.expect(second, policy, none);
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
        sessions.expect(expected(SessionId::new(), "a"), policy, none);
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
        sessions.expect(expected(id, "a"), policy, none);
        assert!(sessions.snapshot().unwrap().keep().is_err());
        sessions.unexpect(id);
        assert_eq!(sessions.get(id), None);
        assert_ne!(sessions.new_policy(), policy);
    }

    fn none() -> Result<BTreeSet<SessionId>, SensorError> {
        Ok(BTreeSet::new())
    }

    /// Its policy would go with it, and what it left running could do nothing any more.
    #[test]
    fn what_has_left_something_running_is_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
        let ids: Vec<SessionId> = (0..=SESSIONS_MAX).map(|_| SessionId::new()).collect();
        let session = |policy| {
            let Expected { actor, from, login, reach, to, .. } = expected(SessionId::new(), "a");
            Session { actor, login, over: true, policy, reach, from, to }
        };
        sessions.kept.sessions = ids.iter().copied().zip((0..).map(session)).collect();
        let forgotten =
            sessions.expect(expected(SessionId::new(), "a"), 20_000, || Ok(BTreeSet::from([ids[0]])));
        assert_eq!(forgotten, [1, 2]);
        assert!(sessions.get(ids[0]).is_some() && sessions.get(ids[1]).is_none());
    }

    #[test]
    fn those_that_live_no_longer_are_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
        let (one, two, three) = (SessionId::new(), SessionId::new(), SessionId::new());
        for id in [one, two, three] {
            let policy = sessions.new_policy();
            sessions.expect(expected(id, "a"), policy, none);
        }
        sessions.over(three);
        assert_eq!(sessions.only(&BTreeSet::from([one, SessionId::new()])), [two]);
        let over: Vec<_> = sessions.iter().filter(|(_, session)| session.over).map(|(id, _)| id).collect();
        assert_eq!(over, [two, three]);
    }
}
