//! Every change of the state is a command: checked on the state, decided by policy, and then an event. Nothing else
//! writes.

use super::State;
use super::locks::{Subject, fits};
use crate::event::{Actor, Draft, EventData, EventId, Outcome, Target, Timestamp};
use crate::event::{lock, node, policy, role, service, session, user};
use crate::policy::defaults::ADMIN;
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
    /// Makes a node known, or replaces its record.
    AddNode {
        /// Its name.
        name: String,
        /// Host and port of its sshd.
        address: String,
        /// A pinned host key, OpenSSH's form.
        #[serde(default)]
        host_key: Option<String>,
        /// Labels.
        #[serde(default)]
        labels: BTreeMap<String, String>,
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
}

fn fresh_lock_name() -> String {
    format!("lock-{}", Uuid::now_v7().simple())
}

/// Names of all commands, as in the API's paths.
pub const COMMANDS: [&str; 17] = [
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
            | Self::RemoveService { name } => name,
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
        }
    }

    /// What policy is asked.
    #[must_use]
    pub fn what(&self) -> What {
        What::Administer { action: self.action(), name: self.name().to_owned() }
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
            Self::AddNode { name, address, host_key, labels } => {
                ChangeDraft::NodeAdded(made.of(node::Added { address, host_key, labels, name }))
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

/// Whether `change` makes sense on `state` at `now`. Pure; whether somebody *may* is for policy to say.
///
/// # Errors
/// See [`ChangeRefused`]; each says what to do.
pub fn check(state: &State, change: &Change, now: Timestamp) -> Result<(), ChangeRefused> {
    let name = change.name();
    if !is_name(name) {
        return invalid(format!(
            "«{}» can't be a name: use a–z, 0–9, «.», «_», «-», at most 63, first a letter or digit",
            name.chars().take(64).collect::<String>().escape_debug()
        ));
    }
    match change {
        Change::CreateUser { name, roles } => {
            check_new_name(state, name)?;
            check_roles(state, roles)
        }
        Change::SetRoles { name, roles } => {
            check_user(state, name)?;
            check_roles(state, roles)?;
            keep_an_admin(state, now, |user, held| if user == name { roles.contains(ADMIN) } else { held })
        }
        Change::RemoveUser { name } => {
            check_user(state, name)?;
            keep_an_admin(state, now, |user, held| held && user != name)
        }
        Change::SetPassword { name, secret_version } => {
            check_user(state, name)?;
            let before = state.users().get(name).and_then(|user| user.password_version).unwrap_or(0);
            if *secret_version <= before {
                return conflict(format!(
                    "the password of {name} has version {before}, so {secret_version} is too old"
                ));
            }
            Ok(())
        }
        Change::CreateRole { name, description } => {
            if state.roles().get(name).is_some() {
                return conflict(format!("there is a role {name} already"));
            }
            check_text("description", description)
        }
        Change::RemoveRole { name } => {
            exists("role", name, state.roles().get(name).is_some())?;
            if name == ADMIN {
                return conflict(format!(
                    "the role {ADMIN} can't be removed: nobody could change anything any more"
                ));
            }
            Ok(())
        }
        Change::UploadPolicy { name, text } => Ok(state.policies().check(name, text)?),
        Change::RemovePolicy { name } => exists("policy", name, state.policies().get(name).is_some()),
        Change::AddNode { name: _, address, host_key, labels } => {
            check_address(address)?;
            host_key.as_deref().map_or(Ok(()), check_host_key)?;
            check_labels(labels)
        }
        Change::RemoveNode { name } => exists("node", name, state.nodes().get(name).is_some()),
        Change::CreateLock { name, matches, reason, expires } => {
            check_lock(state, name, matches, *expires, now)?;
            check_text("reason", reason)?;
            keep_an_admin(state, now, |user, held| {
                let roles = state.users().get(user).map(|user| &user.roles);
                held && !fits(matches, &Subject { user, roles, node: None, login: None, session: None })
            })
        }
        Change::LiftLock { name } => exists("lock", name, state.locks().get(name).is_some()),
        Change::EndSession { name, reason } => {
            let session = name.parse().ok().and_then(|id| state.sessions().get(id));
            exists("session", name, session.is_some())?;
            if session.is_some_and(|session| !session.is_live()) {
                return conflict(format!("the session {name} has ended already"));
            }
            check_text("reason", reason)
        }
        Change::CreateService { name, roles, expires, secret_version: _ } => {
            check_new_name(state, name)?;
            check_service_roles(state, roles)?;
            check_expiry(*expires, now)
        }
        Change::SetServiceRoles { name, roles } => {
            check_service(state, name)?;
            check_service_roles(state, roles)
        }
        Change::RotateService { name, expires, previous_until: _, secret_version } => {
            check_service(state, name)?;
            let before = state.services().get(name).map_or(0, |service| service.token.version);
            if *secret_version <= before {
                return conflict(format!(
                    "the token of {name} has version {before}, so {secret_version} is too old"
                ));
            }
            check_expiry(*expires, now)
        }
        Change::RemoveService { name } => check_service(state, name),
    }
}

fn invalid<T>(what: String) -> Result<T, ChangeRefused> {
    Err(ChangeRefused::Invalid(what))
}

fn conflict<T>(what: String) -> Result<T, ChangeRefused> {
    Err(ChangeRefused::Conflict(what))
}

fn exists(kind: &'static str, name: &str, there: bool) -> Result<(), ChangeRefused> {
    if there { Ok(()) } else { Err(ChangeRefused::Missing { kind, name: name.to_owned() }) }
}

fn check_user(state: &State, name: &str) -> Result<(), ChangeRefused> {
    exists("user", name, state.users().get(name).is_some())
}

/// Users and service accounts share their names, so that a lock on one never means another.
fn check_new_name(state: &State, name: &str) -> Result<(), ChangeRefused> {
    let (user, service) = (state.users().get(name).is_some(), state.services().get(name).is_some());
    if user || service {
        let kind = if user { "user" } else { "service account" };
        return conflict(format!("there is a {kind} {name} already"));
    }
    if state.users().knows(name) || state.services().knows(name) {
        return conflict(format!(
            "{name} was somebody once, and a name is somebody's for good: choose another"
        ));
    }
    Ok(())
}

fn check_service(state: &State, name: &str) -> Result<(), ChangeRefused> {
    exists("service account", name, state.services().get(name).is_some())
}

fn check_service_roles(state: &State, roles: &BTreeSet<String>) -> Result<(), ChangeRefused> {
    if roles.contains(ADMIN) {
        return conflict(format!(
            "a service account reads events and nothing else, so the role {ADMIN} isn't for it"
        ));
    }
    check_roles(state, roles)
}

fn check_expiry(expires: Timestamp, now: Timestamp) -> Result<(), ChangeRefused> {
    if expires <= now {
        return invalid("the token would have run out already".to_owned());
    }
    Ok(())
}

fn check_roles(state: &State, roles: &BTreeSet<String>) -> Result<(), ChangeRefused> {
    if roles.len() > LIST_MAX {
        return invalid(format!("{} roles are too many: at most {LIST_MAX}", roles.len()));
    }
    match roles.iter().find(|role| state.roles().get(role).is_none()) {
        Some(role) if is_name(role) => conflict(format!("there is no role {role}: create it first")),
        Some(_) => invalid("one of the roles isn't a name".to_owned()),
        None => Ok(()),
    }
}

/// Somebody must be left who holds the role `admin` and isn't locked; else nobody could undo it.
fn keep_an_admin(
    state: &State,
    now: Timestamp,
    still: impl Fn(&str, bool) -> bool,
) -> Result<(), ChangeRefused> {
    let free = |name: &str, roles: &BTreeSet<String>| {
        let subject = Subject { user: name, roles: Some(roles), node: None, login: None, session: None };
        state.locks().matching(&subject, now).is_none()
    };
    let admins = |after: bool| {
        state.users().iter().any(|(name, user)| {
            let held = user.roles.contains(ADMIN);
            free(name, &user.roles) && if after { still(name, held) } else { held }
        })
    };
    if admins(false) && !admins(true) {
        return conflict(format!(
            "nobody would be left who holds the role {ADMIN} and isn't locked: give it to somebody else first"
        ));
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<(), ChangeRefused> {
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return invalid(format!("the {what} must be one line of at most {TEXT_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn check_lock(
    state: &State,
    name: &str,
    matches: &lock::Matches,
    expires: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), ChangeRefused> {
    if state.locks().get(name).is_some() {
        return conflict(format!("there is a lock {name} already"));
    }
    if *matches == lock::Matches::default() {
        return invalid("the lock matches nothing: give a user, role, node, login or session".to_owned());
    }
    let lock::Matches { login, node, role, session: _, user } = matches;
    let texts = [login, node, role, user];
    if texts.into_iter().flatten().any(|text| text.is_empty() || text.len() > LABEL_BYTES_MAX) {
        return invalid(format!("what a lock matches has 1 to {LABEL_BYTES_MAX} bytes"));
    }
    if expires.is_some_and(|expires| expires <= now) {
        return invalid("the lock would have run out already".to_owned());
    }
    Ok(())
}

/// `host:port`; an IPv6 address stands in brackets.
fn check_address(address: &str) -> Result<(), ChangeRefused> {
    let wrong = || {
        invalid(format!(
            "«{}» is no address: write host:port, e.g. 192.0.2.10:22 or [2001:db8::1]:22",
            address.chars().take(64).collect::<String>().escape_debug()
        ))
    };
    if address.parse::<std::net::SocketAddr>().is_ok_and(|socket| socket.port() != 0) {
        return Ok(());
    }
    let Some((host, port)) = address.rsplit_once(':') else { return wrong() };
    let port_ok = !port.starts_with(['+', '0']) && port.parse::<u16>().is_ok();
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
    };
    if port_ok && host.len() <= 253 && host.trim_end_matches('.').split('.').all(label_ok) {
        Ok(())
    } else {
        wrong()
    }
}

/// A line `type base64 [comment]` whose key names the same type inside (RFC 4253, 6.6).
fn check_host_key(line: &str) -> Result<(), ChangeRefused> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let wrong =
        |why: &str| invalid(format!("the host key {why}: write it as in /etc/ssh/ssh_host_ed25519_key.pub"));
    if line.len() > 8192 || line.chars().any(char::is_control) {
        return wrong("isn't one line of at most 8192 bytes");
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(kind), Some(key)) = (words.next(), words.next()) else { return wrong("has no type and key") };
    let Ok(blob) = BASE64_STANDARD.decode(key) else { return wrong("isn't base64") };
    let inner = blob
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?));
    if inner != Some(kind.as_bytes()) {
        return wrong("isn't of the type that stands before it");
    }
    if kind.contains("-cert-") {
        return wrong("is a certificate, and a key is pinned");
    }
    Ok(())
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ChangeRefused> {
    if labels.len() > LIST_MAX {
        return invalid(format!("{} labels are too many: at most {LIST_MAX}", labels.len()));
    }
    for (key, value) in labels {
        if !is_name(key) || value.len() > LABEL_BYTES_MAX || value.chars().any(char::is_control) {
            return invalid(format!(
                "the label «{}» isn't right: its key is a name, its value one line of at most {LABEL_BYTES_MAX} bytes",
                key.chars().take(64).collect::<String>().escape_debug()
            ));
        }
    }
    Ok(())
}
