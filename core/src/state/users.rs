//! Users and the roles that they hold.

use crate::event::user;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The version of the password that counts; none was set without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_version: Option<u64>,
    /// Roles held now.
    pub roles: BTreeSet<String>,
    /// The index of the event that made the user.
    pub since: u64,
}

/// All users, and the names that were used once: a name is somebody's for good.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Users {
    present: BTreeMap<String, User>,
    removed: BTreeMap<String, u64>,
}

impl Users {
    /// A user who exists now.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.present.get(name)
    }

    /// All users, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &User)> {
        self.present.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Whether a user has or had this name; it can't be given again.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.present.contains_key(name) || self.removed.contains_key(name)
    }

    pub(super) fn created(&mut self, index: u64, data: user::Created) -> Result<(), &'static str> {
        if self.knows(&data.name) {
            return Err("a user has or had this name");
        }
        let roles = data.roles.into_iter().collect();
        self.present.insert(data.name, User { password_version: None, roles, since: index });
        Ok(())
    }

    pub(super) fn changed(&mut self, data: user::Changed) -> Result<(), &'static str> {
        let user = self.present.get_mut(&data.name).ok_or(NO_USER)?;
        user.roles = data.roles.into_iter().collect();
        Ok(())
    }

    pub(super) fn removed(&mut self, index: u64, data: user::Removed) -> Result<(), &'static str> {
        self.present.remove(&data.name).ok_or(NO_USER)?;
        self.removed.insert(data.name, index);
        Ok(())
    }

    pub(super) fn password_set(&mut self, data: user::PasswordSet) -> Result<(), &'static str> {
        let user = self.present.get_mut(&data.name).ok_or(NO_USER)?;
        user.password_version = Some(data.secret_version);
        Ok(())
    }

    pub(super) fn role_removed(&mut self, role: &str) {
        for user in self.present.values_mut() {
            user.roles.remove(role);
        }
    }
}

const NO_USER: &str = "there is no such user";
