//! Locks: whom they match loses what is live and gets nothing new, until they are lifted or run out.

use crate::event::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a lock matches: all of the fields that are given. At least one is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matches {
    /// An account at targets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub login: Option<String>,
    /// A node by name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// Everybody with a role.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<String>,
    /// One session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<crate::event::SessionId>,
    /// A user.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
}

/// Somebody or something was locked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// When it runs out by itself; compared with the time of appending or of a request, never with a clock in the fold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<Timestamp>,
    /// What it matches.
    pub matches: Matches,
    /// The lock's name.
    pub name: String,
    /// What the people concerned are told.
    pub reason: String,
}

impl Created {
    pub(super) fn example() -> Self {
        Self {
            expires: None,
            matches: Matches { user: Some("mallory".into()), ..Matches::default() },
            name: "lock-1".into(),
            reason: "incident 4711".into(),
        }
    }
}

/// A lock was lifted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Lifted {
    /// The lock's name.
    pub name: String,
}

impl Lifted {
    pub(super) fn example() -> Self {
        Self { name: "lock-1".into() }
    }
}
