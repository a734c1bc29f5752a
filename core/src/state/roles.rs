//! Roles.

use crate::event::role;
use serde::Serialize;
use std::collections::BTreeMap;

/// All roles: name → what it is for.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Roles(BTreeMap<String, String>);

impl Roles {
    /// What a role is for.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether all of them exist.
    pub fn have_all<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> bool {
        names.into_iter().all(|name| self.0.contains_key(name))
    }

    /// All roles with what they are for, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, description)| (name.as_str(), description.as_str()))
    }

    pub(super) fn created(&mut self, data: role::Created) -> Result<(), &'static str> {
        if self.0.contains_key(&data.name) {
            return Err("a role has this name");
        }
        self.0.insert(data.name, data.description);
        Ok(())
    }

    pub(super) fn removed(&mut self, data: &role::Removed) -> Result<(), &'static str> {
        self.0.remove(&data.name).map(drop).ok_or("there is no such role")
    }
}
