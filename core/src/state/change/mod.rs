//! Every change of the state is a command: checked on the state, decided by policy, and then an event. Nothing else
//! writes.

mod check;
mod keep;
mod near;
#[cfg(test)]
mod tests;

pub use check::check;

use crate::event::restriction::Network;
use crate::event::{Actor, Draft, EventData, EventId, Outcome, Target, Timestamp};
use crate::event::{lock, node, policy, restriction, role, service, session, user};
use crate::policy::request::{Action, What, administered};
use crate::policy::validate::PolicyError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The longest free text (a reason, a description), in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// How many labels a node may have, and roles a user.
pub const LIST_MAX: usize = 64;

/// The longest value of a label, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// A command: the body of `POST /v1/commands/<name>`, where the name is that of the variant in kebab-case. Tagged by
/// `command` when it stands alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// Makes a user.
    CreateUser {
        /// The name, for good.
        name: String,
        /// Roles from the start.
        #[serde(default)]
        roles: BTreeSet<String>,
    },
    /// Sets all roles of a user.
    SetRoles {
        /// The user.
        name: String,
        /// All roles from now on.
        roles: BTreeSet<String>,
    },
    /// Removes a user for good.
    RemoveUser {
        /// The user.
        name: String,
    },
    /// Says which version of a user's password counts; the hash lies in the secret store.
    SetPassword {
        /// The user.
        name: String,
        /// The version.
        secret_version: u64,
    },
    /// Makes a role.
    CreateRole {
        /// Its name.
        name: String,
        /// What it is for.
        #[serde(default)]
        description: String,
    },
    /// Removes a role from everybody.
    RemoveRole {
        /// Its name.
        name: String,
    },
    /// Puts a policy document in place of the one with that name, if any.
    UploadPolicy {
        /// The document's name.
        name: String,
        /// Cedar text.
        text: String,
    },
    /// Removes a policy document.
    RemovePolicy {
        /// The document's name.
        name: String,
    },
    /// Makes a node known.
    AddNode {
        /// Its name.
        name: String,
        /// Host and port of its sshd.
        address: String,
        /// Whether its sessions are watched by an agent.
        #[serde(default)]
        agent: node::Agent,
        /// A pinned host key, OpenSSH's form.
        #[serde(default)]
        host_key: Option<String>,
        /// Labels.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// Whether this may be said of a node that is known: what isn't said here is gone then.
        #[serde(default)]
        replace: bool,
    },
    /// Removes a node.
    RemoveNode {
        /// Its name.
        name: String,
    },
    /// Locks.
    CreateLock {
        /// The lock's name; one is made up if it is missing.
        #[serde(default = "fresh_lock_name")]
        name: String,
        /// What it matches.
        matches: lock::Matches,
        /// What the people concerned are told.
        reason: String,
        /// When it runs out by itself.
        #[serde(default)]
        expires: Option<Timestamp>,
    },
    /// Lifts a lock.
    LiftLock {
        /// The lock's name.
        name: String,
    },
    /// Ends a live session.
    EndSession {
        /// The session's id.
        name: String,
        /// What the people concerned are told.
        reason: String,
    },
    /// Makes a service account; the hash of its token lies in the secret store.
    CreateService {
        /// The name, for good.
        name: String,
        /// Roles from the start.
        #[serde(default)]
        roles: BTreeSet<String>,
        /// When its token runs out.
        expires: Timestamp,
        /// The version of the token's hash.
        secret_version: u64,
    },
    /// Sets all roles of a service account.
    SetServiceRoles {
        /// The service account.
        name: String,
        /// All roles from now on.
        roles: BTreeSet<String>,
    },
    /// Puts another token in the place of a service account's.
    RotateService {
        /// The service account.
        name: String,
        /// When the new token runs out.
        expires: Timestamp,
        /// How long the one before still counts.
        #[serde(default)]
        previous_until: Option<Timestamp>,
        /// The version of the new token's hash.
        secret_version: u64,
    },
    /// Removes a service account for good.
    RemoveService {
        /// The service account.
        name: String,
    },
    /// Lets an agent join once in a node's name; the hash of its token lies in the secret store.
    CreateNodeToken {
        /// The node.
        name: String,
        /// When the token runs out.
        expires: Timestamp,
        /// The version of its hash.
        secret_version: u64,
    },
    /// Restricts what sessions may reach, run and touch on their nodes.
    CreateRestriction {
        /// Its name.
        name: String,
        /// Whose sessions.
        matches: lock::Matches,
        /// Where anything stands here, nothing else may be reached.
        #[serde(default)]
        allow: Vec<Network>,
        /// Programs: where anything stands here, nothing else may be run.
        #[serde(default)]
        allow_programs: Vec<String>,
        /// What may not be reached.
        #[serde(default)]
        deny: Vec<Network>,
        /// What may not be touched.
        #[serde(default)]
        deny_paths: Vec<String>,
        /// What may not be run.
        #[serde(default)]
        deny_programs: Vec<String>,
        /// Whether a session that tries ends.
        #[serde(default)]
        ends_session: bool,
        /// What it is for.
        reason: String,
    },
    /// Lifts a restriction.
    LiftRestriction {
        /// Its name.
        name: String,
    },
}

fn fresh_lock_name() -> String {
    format!("lock-{}", Uuid::now_v7().simple())
}

/// Names of all commands, as in the API's paths.
pub const COMMANDS: [&str; 20] = [
    "create-user",
    "set-roles",
    "remove-user",
    "set-password",
    "create-role",
    "remove-role",
    "upload-policy",
    "remove-policy",
    "add-node",
    "remove-node",
    "create-lock",
    "lift-lock",
    "end-session",
    "create-service",
    "set-service-roles",
    "rotate-service",
    "remove-service",
    "create-node-token",
    "create-restriction",
    "lift-restriction",
];

/// Why a command can't be carried out on this state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// What was sent is wrong in itself (HTTP 422).
    #[error("{0}")]
    Invalid(String),
    /// A policy document is wrong (HTTP 422).
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The thing doesn't exist (HTTP 404).
    #[error("there is no {kind} {name}")]
    Missing {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The state says no (HTTP 409).
    #[error("{0}")]
    Conflict(String),
}

/// A typed event that carries out a command, not yet numbered.
#[derive(Clone, Debug)]
#[must_use = "a draft changes nothing until a producer has appended it"]
#[allow(missing_docs, reason = "each variant is the event of that name")]
pub enum ChangeDraft {
    UserCreated(Draft<user::Created>),
    UserChanged(Draft<user::Changed>),
    UserRemoved(Draft<user::Removed>),
    UserPasswordSet(Draft<user::PasswordSet>),
    RoleCreated(Draft<role::Created>),
    RoleRemoved(Draft<role::Removed>),
    PolicyUploaded(Draft<policy::Uploaded>),
    PolicyRemoved(Draft<policy::Removed>),
    NodeAdded(Draft<node::Added>),
    NodeRemoved(Draft<node::Removed>),
    LockCreated(Draft<lock::Created>),
    LockLifted(Draft<lock::Lifted>),
    SessionEndRequested(Draft<session::EndRequested>),
    ServiceCreated(Draft<service::Created>),
    ServiceChanged(Draft<service::Changed>),
    ServiceTokenSet(Draft<service::TokenSet>),
    ServiceRemoved(Draft<service::Removed>),
    NodeTokenCreated(Draft<node::TokenCreated>),
    RestrictionCreated(Draft<restriction::Created>),
    RestrictionLifted(Draft<restriction::Lifted>),
}

/// Whether `name` can be the name of a user, service account, role, node, policy or lock: `[a-z0-9][a-z0-9._-]{0,62}`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let ordinary = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!(name.as_bytes(), [first, rest @ ..]
        if ordinary(*first) && rest.len() < 63 && rest.iter().all(|b| ordinary(*b) || matches!(b, b'.' | b'_' | b'-')))
}

impl Change {
    /// Reads the body of `POST /v1/commands/<command>`; unknown fields are errors.
    ///
    /// # Errors
    /// What is wrong with the body, in one line.
    pub fn parse(command: &str, body: &[u8]) -> Result<Self, ChangeRefused> {
        let wrong = |error: serde_json::Error| ChangeRefused::Invalid(format!("{command}: {error}"));
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(wrong)?;
        if fields.insert("command".to_owned(), command.into()).is_some() {
            return Err(ChangeRefused::Invalid(format!("{command}: unknown field `command`")));
        }
        serde_json::from_value(fields.into()).map_err(wrong)
    }

    /// The name of what is changed.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::CreateUser { name, .. }
            | Self::SetRoles { name, .. }
            | Self::RemoveUser { name }
            | Self::SetPassword { name, .. }
            | Self::CreateRole { name, .. }
            | Self::RemoveRole { name }
            | Self::UploadPolicy { name, .. }
            | Self::RemovePolicy { name }
            | Self::AddNode { name, .. }
            | Self::RemoveNode { name }
            | Self::CreateLock { name, .. }
            | Self::LiftLock { name }
            | Self::EndSession { name, .. }
            | Self::CreateService { name, .. }
            | Self::SetServiceRoles { name, .. }
            | Self::RotateService { name, .. }
            | Self::RemoveService { name }
            | Self::CreateNodeToken { name, .. }
            | Self::CreateRestriction { name, .. }
            | Self::LiftRestriction { name } => name,
        }
    }

    /// The action that policy decides about.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::CreateUser { .. } => Action::CreateUser,
            Self::SetRoles { .. } => Action::SetRoles,
            Self::RemoveUser { .. } => Action::RemoveUser,
            Self::SetPassword { .. } => Action::SetPassword,
            Self::CreateRole { .. } => Action::CreateRole,
            Self::RemoveRole { .. } => Action::RemoveRole,
            Self::UploadPolicy { .. } => Action::UploadPolicy,
            Self::RemovePolicy { .. } => Action::RemovePolicy,
            Self::AddNode { .. } => Action::AddNode,
            Self::RemoveNode { .. } => Action::RemoveNode,
            Self::CreateLock { .. } => Action::CreateLock,
            Self::LiftLock { .. } => Action::LiftLock,
            Self::EndSession { .. } => Action::SessionEnd,
            Self::CreateService { .. } => Action::CreateService,
            Self::SetServiceRoles { .. } => Action::SetServiceRoles,
            Self::RotateService { .. } => Action::RotateService,
            Self::RemoveService { .. } => Action::RemoveService,
            Self::CreateNodeToken { .. } => Action::CreateNodeToken,
            Self::CreateRestriction { .. } => Action::CreateRestriction,
            Self::LiftRestriction { .. } => Action::LiftRestriction,
        }
    }

    /// What policy is asked.
    #[must_use]
    pub fn what(&self) -> What {
        let (action, name) = (self.action(), self.name().to_owned());
        match self {
            Self::CreateUser { roles, .. } | Self::SetRoles { roles, .. } => {
                What::GiveRoles { action, name, roles: roles.clone() }
            }
            _ => What::Administer { action, name },
        }
    }

    /// The target that stands in the decision's event and in the change's.
    #[must_use]
    pub fn target(&self) -> Target {
        let kind = administered(self.action()).to_ascii_lowercase();
        Target { kind, name: self.name().to_owned(), ..Target::default() }
    }

    /// The event that carries it out, caused by `decision`.
    pub fn draft(self, actor: Actor, decision: EventId) -> ChangeDraft {
        let target = self.target();
        let made = Drafting { actor, decision, target };
        match self {
            Self::CreateUser { name, roles } => {
                ChangeDraft::UserCreated(made.of(user::Created { name, roles: roles.into_iter().collect() }))
            }
            Self::SetRoles { name, roles } => {
                ChangeDraft::UserChanged(made.of(user::Changed { name, roles: roles.into_iter().collect() }))
            }
            Self::RemoveUser { name } => ChangeDraft::UserRemoved(made.of(user::Removed { name })),
            Self::SetPassword { name, secret_version } => {
                ChangeDraft::UserPasswordSet(made.of(user::PasswordSet { name, secret_version }))
            }
            Self::CreateRole { name, description } => {
                ChangeDraft::RoleCreated(made.of(role::Created { description, name }))
            }
            Self::RemoveRole { name } => ChangeDraft::RoleRemoved(made.of(role::Removed { name })),
            Self::UploadPolicy { name, text } => {
                ChangeDraft::PolicyUploaded(made.of(policy::Uploaded { name, text }))
            }
            Self::RemovePolicy { name } => ChangeDraft::PolicyRemoved(made.of(policy::Removed { name })),
            Self::AddNode { name, address, agent, host_key, labels, replace: _ } => {
                ChangeDraft::NodeAdded(made.of(node::Added { address, agent, host_key, labels, name }))
            }
            Self::RemoveNode { name } => ChangeDraft::NodeRemoved(made.of(node::Removed { name })),
            Self::CreateLock { name, matches, reason, expires } => {
                ChangeDraft::LockCreated(made.of(lock::Created { expires, matches, name, reason }))
            }
            Self::LiftLock { name } => ChangeDraft::LockLifted(made.of(lock::Lifted { name })),
            Self::EndSession { name, reason } => {
                let session = name.parse().ok();
                let mut draft = made.of(session::EndRequested { name, reason });
                draft.session = session;
                ChangeDraft::SessionEndRequested(draft)
            }
            Self::CreateService { name, roles, expires, secret_version } => {
                let roles = roles.into_iter().collect();
                ChangeDraft::ServiceCreated(made.of(service::Created {
                    expires,
                    name,
                    roles,
                    secret_version,
                }))
            }
            Self::SetServiceRoles { name, roles } => {
                let roles = roles.into_iter().collect();
                ChangeDraft::ServiceChanged(made.of(service::Changed { name, roles }))
            }
            Self::RotateService { name, expires, previous_until, secret_version } => {
                let set = service::TokenSet { expires, name, previous_until, secret_version };
                ChangeDraft::ServiceTokenSet(made.of(set))
            }
            Self::RemoveService { name } => ChangeDraft::ServiceRemoved(made.of(service::Removed { name })),
            Self::CreateNodeToken { name, expires, secret_version } => {
                ChangeDraft::NodeTokenCreated(made.of(node::TokenCreated { expires, name, secret_version }))
            }
            Self::CreateRestriction {
                name,
                matches,
                allow,
                allow_programs,
                deny,
                deny_paths,
                deny_programs,
                ends_session,
                reason,
            } => ChangeDraft::RestrictionCreated(made.of(restriction::Created {
                allow,
                allow_programs,
                deny,
                deny_paths,
                deny_programs,
                ends_session,
                matches,
                name,
                reason,
            })),
            Self::LiftRestriction { name } => {
                ChangeDraft::RestrictionLifted(made.of(restriction::Lifted { name }))
            }
        }
    }
}

struct Drafting {
    actor: Actor,
    decision: EventId,
    target: Target,
}

impl Drafting {
    fn of<D: EventData>(self, data: D) -> Draft<D> {
        Draft::new(self.actor, data).cause(self.decision).target(self.target).outcome(Outcome::Success)
    }
}
