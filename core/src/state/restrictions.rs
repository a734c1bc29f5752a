//! Restrictions of what sessions may reach, run and touch.

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
    /// Where anything stands here, nothing else may be run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_programs: Vec<String>,
    /// What may not be reached.
    pub deny: Vec<Network>,
    /// What may not be touched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_paths: Vec<String>,
    /// What may not be run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_programs: Vec<String>,
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
        if self.0.contains_key(&data.name) {
            return Err("a restriction has this name");
        }
        if data.matches == Matches::default() {
            return Err("the restriction matches nothing");
        }
        let made = Restriction {
            allow: data.allow,
            allow_programs: data.allow_programs,
            deny: data.deny,
            deny_paths: data.deny_paths,
            deny_programs: data.deny_programs,
            ends_session: data.ends_session,
            event,
            matches: data.matches,
            reason: data.reason,
            since: index,
        };
        self.0.insert(data.name, made);
        Ok(())
    }

    pub(super) fn lifted(&mut self, data: &Lifted) -> Result<(), &'static str> {
        self.0.remove(&data.name).map(drop).ok_or("there is no such restriction")
    }
}

#[cfg(test)]
mod tests {
    use crate::state::change::{Change, check};
    use crate::state::story::{Story, circumstances};
    use serde_json::json;

    #[test]
    fn a_restriction_restricts_something_by_absolute_paths() {
        let story = Story::with_policy("");
        let table = [
            (json!({}), "restricts nothing"),
            (json!({"deny_programs": ["curl"]}), "no absolute path"),
            (json!({"deny_paths": ["/etc/../root"]}), "write the path without it"),
            (json!({"allow_programs": vec!["/bin/sh"; 65]}), "too many"),
            (json!({"allow_programs": ["/usr/bin/"], "deny_paths": ["/etc/shadow"]}), ""),
        ];
        for (mut body, expected) in table {
            body["name"] = json!("r");
            body["matches"] = json!({"user": "alice"});
            body["reason"] = json!("x");
            let change = Change::parse("create-restriction", body.to_string().as_bytes()).unwrap();
            let said = check(&story.state, &change, &circumstances());
            let said = said.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{body}: {said}");
        }
    }
}
