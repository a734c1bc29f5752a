//! Service accounts: programs that read events and nothing else. Hashes of their tokens lie in the secret store: events
//! carry the version only.

use crate::event::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A service account was made, with its first token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// When its token runs out.
    pub expires: Timestamp,
    /// The name, for good; no user has or had it.
    pub name: String,
    /// Roles, sorted.
    pub roles: Vec<String>,
    /// The version of the secret that counts.
    pub secret_version: u64,
}

impl Created {
    pub(super) fn example() -> Self {
        Self {
            expires: Timestamp::from_seconds(1_795_564_800),
            name: "siem".into(),
            roles: vec!["siem".into()],
            secret_version: 1,
        }
    }
}

/// A service account's roles were set anew.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// The service account.
    pub name: String,
    /// All roles that it has from now on, sorted.
    pub roles: Vec<String>,
}

impl Changed {
    pub(super) fn example() -> Self {
        Self { name: "siem".into(), roles: vec!["siem".into()] }
    }
}

/// A service account got a new token; the one before ends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenSet {
    /// When the new token runs out.
    pub expires: Timestamp,
    /// The service account.
    pub name: String,
    /// How long the token before still counts; not at all where it is absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous_until: Option<Timestamp>,
    /// The version of the secret that counts from now on.
    pub secret_version: u64,
}

impl TokenSet {
    pub(super) fn example() -> Self {
        Self {
            expires: Timestamp::from_seconds(1_795_564_800),
            name: "siem".into(),
            previous_until: Some(Timestamp::from_seconds(1_764_115_200)),
            secret_version: 2,
        }
    }
}

/// A service account was removed: its tokens prove nothing any more, and what it follows ends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// The service account.
    pub name: String,
}

impl Removed {
    pub(super) fn example() -> Self {
        Self { name: "siem".into() }
    }
}
