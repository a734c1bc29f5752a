//! Users. Passwords' hashes lie in the secret store: events carry the version only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A user was made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// The name, for good.
    pub name: String,
    /// Roles, sorted.
    pub roles: Vec<String>,
}

impl Created {
    pub(super) fn example() -> Self {
        Self { name: "alice".into(), roles: vec!["operator".into()] }
    }
}

/// A user's roles were set anew.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// The user.
    pub name: String,
    /// All roles that the user has from now on, sorted.
    pub roles: Vec<String>,
}

impl Changed {
    pub(super) fn example() -> Self {
        Self { name: "alice".into(), roles: vec!["admin".into(), "operator".into()] }
    }
}

/// A user was removed: what is live ends, and the name proves nothing any more.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// The user.
    pub name: String,
}

impl Removed {
    pub(super) fn example() -> Self {
        Self { name: "alice".into() }
    }
}

/// A password was set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PasswordSet {
    /// The user.
    pub name: String,
    /// The version of the secret that counts from now on.
    pub secret_version: u64,
}

impl PasswordSet {
    pub(super) fn example() -> Self {
        Self { name: "alice".into(), secret_version: 1 }
    }
}
