//! Restrictions of what sessions may reach.

use super::locks::{Subject, fits};
use crate::event::restriction::{Created, Lifted, Network};
use crate::event::{EventId, lock::Matches};
use serde::Serialize;
use std::collections::BTreeMap;

/// A restriction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restriction {
    /// Where anything stands here, nothing else may be reached.
    pub allow: Vec<Network>,
    /// What may not be reached.
    pub deny: Vec<Network>,
    /// Whether a session that tries ends.
    pub ends_session: bool,
    /// The event that made it.
    pub event: EventId,
    /// Whose sessions.
    pub matches: Matches,
    /// What it is for.
    pub reason: String,
    /// The index of the event that made it.
    pub since: u64,
}

/// All that hold, by name.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Restrictions(BTreeMap<String, Restriction>);

impl Restrictions {
    /// A restriction.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Restriction> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Restriction)> {
        self.0.iter().map(|(name, restriction)| (name.as_str(), restriction))
    }

    /// Those that hold for a session, by name.
    pub fn of<'a>(&'a self, subject: &'a Subject<'a>) -> impl Iterator<Item = (&'a str, &'a Restriction)> {
        self.iter().filter(move |(_, restriction)| fits(&restriction.matches, subject))
    }

    pub(super) fn created(&mut self, index: u64, event: EventId, data: Created) -> Result<(), &'static str> {
        let Created { allow, deny, ends_session, matches, name, reason } = data;
        if self.0.contains_key(&name) {
            return Err("a restriction has this name");
        }
        if matches == Matches::default() {
            return Err("the restriction matches nothing");
        }
        let made = Restriction { allow, deny, ends_session, event, matches, reason, since: index };
        self.0.insert(name, made);
        Ok(())
    }

    pub(super) fn lifted(&mut self, data: &Lifted) -> Result<(), &'static str> {
        self.0.remove(&data.name).map(drop).ok_or("there is no such restriction")
    }
}
