//! Decisions of policy: everything that decided stands in the event, so that it can be decided again.

use crate::event::canonical::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Policy said yes or no.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Made {
    /// The Cedar action's id, e.g. `ssh:connect`.
    pub action: String,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The whole Cedar context, the time included.
    pub context: Json,
    /// Policies that failed to evaluate; a `forbid` among them denies.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<String>,
    /// `@id`s of the policies that decided, sorted; on a denial without any, nothing allowed it.
    pub policies: Vec<String>,
    /// The Cedar principal, e.g. `User::"alice"`.
    pub principal: String,
    /// Why, in one line.
    pub reason: String,
    /// The Cedar resource, e.g. `Node::"web-1"`.
    pub resource: String,
    /// The size of the log that the state was folded from: entries below it were known.
    pub state: u64,
}

impl Made {
    pub(super) fn example() -> Self {
        Self {
            action: "ssh:connect".into(),
            allowed: true,
            context: Json(serde_json::json!({
                "certificate_seconds": 120, "hour": 0, "login": "root", "mfa": false,
                "source": "192.0.2.7", "time": 1_764_028_800, "weekday": 2
            })),
            errors: vec![],
            policies: vec!["operators-reach-web".into()],
            principal: "User::\"alice\"".into(),
            reason: "allowed by operators-reach-web".into(),
            resource: "Node::\"web-1\"".into(),
            state: 40,
        }
    }
}
