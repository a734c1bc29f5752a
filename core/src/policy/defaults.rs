//! What a log begins with: one decision that nobody made, and what it allows.

use crate::event::canonical::Json;
use crate::event::{Actor, Draft, Outcome, Target, decision, log, policy, role, user};
use crate::policy::request::entity_text;
use crate::state::decisions::BOOTSTRAP;

/// The role whose members administer.
pub const ADMIN: &str = "admin";

/// The document that says what the role `admin` may. It gives no access to nodes: whoever administers writes a
/// policy for that, and it stands in the log.
pub const ADMIN_POLICY: &str = r#"@id("admins-administer")
@description("Members of the role admin change users, roles, policies, nodes and locks.")
permit(principal in Role::"admin", action in Action::"admin", resource);

@id("admins-read")
@description("Members of the role admin read the log and the state, and see recordings.")
permit(principal in Role::"admin", action in Action::"read", resource);
"#;

/// What `custodyd init` appends, in this order and as the first entries of the log.
#[derive(Clone, Debug)]
#[must_use = "a log without these allows nothing"]
pub struct Genesis {
    /// Index 0.
    pub created: Draft<log::Created>,
    /// The bootstrap's decision: the cause of what follows.
    pub decision: Draft<decision::Made>,
    /// The role `admin`.
    pub role: Draft<role::Created>,
    /// What it may.
    pub policy: Draft<policy::Uploaded>,
    /// The first user.
    pub user: Draft<user::Created>,
    /// Its password.
    pub password: Draft<user::PasswordSet>,
}

/// The genesis of a log, with its first administrator.
pub fn genesis(created: log::Created, admin: &str, secret_version: u64) -> Genesis {
    let actor = || Actor::system(BOOTSTRAP);
    let target =
        |kind: &str, name: &str| Target { kind: kind.into(), name: name.into(), ..Target::default() };
    let origin = created.origin.clone();
    let made = decision::Made {
        action: BOOTSTRAP.into(),
        allowed: true,
        context: Json(serde_json::json!({})),
        errors: Vec::new(),
        policies: Vec::new(),
        principal: format!("System::\"{BOOTSTRAP}\""),
        reason: "a new log begins with one administrator".into(),
        resource: entity_text("Log", &origin),
        state: 0,
    };
    let decision = Draft::new(actor(), made).target(target("log", &origin)).outcome(Outcome::Success);
    let cause = decision.id;
    let role = role::Created { description: "Administers Custody".into(), name: ADMIN.into() };
    let policy = policy::Uploaded { name: ADMIN.into(), text: ADMIN_POLICY.into() };
    let user = user::Created { name: admin.into(), roles: vec![ADMIN.into()] };
    let password = user::PasswordSet { name: admin.into(), secret_version };
    Genesis {
        created: Draft::new(actor(), created).target(target("log", &origin)).outcome(Outcome::Success),
        role: Draft::new(actor(), role).cause(cause).target(target("role", ADMIN)).outcome(Outcome::Success),
        policy: Draft::new(actor(), policy)
            .cause(cause)
            .target(target("policy", ADMIN))
            .outcome(Outcome::Success),
        user: Draft::new(actor(), user).cause(cause).target(target("user", admin)).outcome(Outcome::Success),
        password: Draft::new(actor(), password)
            .cause(cause)
            .target(target("user", admin))
            .outcome(Outcome::Success),
        decision,
    }
}
