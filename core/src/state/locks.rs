//! Locks. Whether one has run out is asked with a time that the asker brings: the fold has no clock.

use crate::event::lock::{Created, Lifted, Matches};
use crate::event::{EventId, SessionId, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lock {
    /// The event that made it: the cause of what it ends.
    pub event: EventId,
    /// When it runs out by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it matches.
    pub matches: Matches,
    /// What the people concerned are told.
    pub reason: String,
    /// The index of the event that made it.
    pub since: u64,
}

/// Who or what may be locked.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The user.
    pub user: &'a str,
    /// The roles held now; none for somebody who isn't a user.
    pub roles: Option<&'a BTreeSet<String>>,
    /// The node that is to be reached.
    pub node: Option<&'a str>,
    /// The account there.
    pub login: Option<&'a str>,
    /// The session.
    pub session: Option<SessionId>,
}

/// All locks that weren't lifted, by name; those that have run out are among them.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Locks(BTreeMap<String, Lock>);

impl Lock {
    /// Whether it still counts at `now`: to the very moment at which it expires, and no longer.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether all that it names fits, and it names something.
    #[must_use]
    pub fn fits(&self, subject: &Subject<'_>) -> bool {
        fits(&self.matches, subject)
    }
}

/// Whether all that `matches` names fits the subject; what names nothing fits nobody.
#[must_use]
pub fn fits(matches: &Matches, subject: &Subject<'_>) -> bool {
    let Matches { login, node, role, session, user } = matches;
    let same = |wanted: &Option<String>, got: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| got == Some(wanted))
    };
    *matches != Matches::default()
        && same(login, subject.login)
        && same(node, subject.node)
        && same(user, Some(subject.user))
        && session.is_none_or(|wanted| subject.session == Some(wanted))
        && role.as_ref().is_none_or(|role| subject.roles.is_some_and(|roles| roles.contains(role)))
}

impl Locks {
    /// A lock.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Lock> {
        self.0.get(name)
    }

    /// All locks, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Lock)> {
        self.0.iter().map(|(name, lock)| (name.as_str(), lock))
    }

    /// The first lock by name that counts at `now` and fits.
    #[must_use]
    pub fn matching(&self, subject: &Subject<'_>, now: Timestamp) -> Option<(&str, &Lock)> {
        self.iter().find(|(_, lock)| lock.is_active(now) && lock.fits(subject))
    }

    /// The next moment after `now` at which a lock runs out: what it held back is allowed from then on.
    #[must_use]
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.values().filter_map(|lock| lock.expires).filter(|expires| *expires > now).min()
    }

    pub(super) fn created(&mut self, index: u64, event: EventId, data: Created) -> Result<(), &'static str> {
        if self.0.contains_key(&data.name) {
            return Err("a lock has this name");
        }
        if data.matches == Matches::default() {
            return Err("the lock matches nothing");
        }
        let Created { expires, matches, name, reason } = data;
        self.0.insert(name, Lock { event, expires, matches, reason, since: index });
        Ok(())
    }

    pub(super) fn lifted(&mut self, data: &Lifted) -> Result<(), &'static str> {
        self.0.remove(&data.name).map(drop).ok_or("there is no such lock")
    }
}
