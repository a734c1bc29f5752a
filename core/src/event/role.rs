//! Roles: what users are members of and policies speak of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A role was made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// What it is for.
    pub description: String,
    /// Its name.
    pub name: String,
}

impl Created {
    pub(super) fn example() -> Self {
        Self { description: "Runs the web servers".into(), name: "operator".into() }
    }
}

/// A role was removed; users who had it no longer have it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Its name.
    pub name: String,
}

impl Removed {
    pub(super) fn example() -> Self {
        Self { name: "operator".into() }
    }
}
