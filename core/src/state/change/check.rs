//! Whether a command makes sense on a state.

use super::keep::keep_an_admin;
use super::near::or_perhaps;
use super::{Change, ChangeRefused, LABEL_BYTES_MAX, LIST_MAX, TEXT_BYTES_MAX, is_name};
use crate::event::{SessionId, Timestamp, lock, restriction::Network};
use crate::policy::defaults::ADMIN;
use crate::policy::{Circumstances, files, networks};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// Whether `change` makes sense on `state` when it is asked for as `asked` says. Pure; whether somebody *may* is for policy
/// to say.
///
/// # Errors
/// See [`ChangeRefused`]; each says what to do.
pub fn check(state: &State, change: &Change, asked: &Circumstances) -> Result<(), ChangeRefused> {
    check_alone(state, change, asked.time)?;
    keep_an_admin(state, change, asked)
}

/// All but whether it could be undone.
fn check_alone(state: &State, change: &Change, now: Timestamp) -> Result<(), ChangeRefused> {
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
            check_roles(state, roles)
        }
        Change::RemoveUser { name } => check_user(state, name),
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
        Change::AddNode { name, address, agent: _, host_key, labels, replace } => {
            if !replace && state.nodes().get(name).is_some() {
                return conflict(format!(
                    "there is a node {name} already: with `replace` (`--replace`) all is said anew, its pinned key, labels and agent too"
                ));
            }
            check_node_name(state, name)?;
            check_address(address)?;
            host_key.as_deref().map_or(Ok(()), check_host_key)?;
            check_labels(labels)
        }
        Change::RemoveNode { name } => exists("node", name, state.nodes().get(name).is_some()),
        Change::CreateLock { name, matches, reason, expires } => {
            check_lock(state, name, matches, *expires, now)?;
            check_text("reason", reason)
        }
        Change::LiftLock { name } => exists("lock", name, state.locks().get(name).is_some()),
        Change::EndSession { name, reason } => {
            let id: Option<SessionId> = name.parse().ok();
            // Ids have other spellings too, and by none of those the event would count.
            if let Some(id) = id.map(|id| id.to_string()).filter(|id| id != name) {
                return invalid(format!("write the session's id as {id}"));
            }
            let session = id.and_then(|id| state.sessions().get(id));
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
        Change::CreateNodeToken { name, expires, secret_version } => {
            exists("node", name, state.nodes().get(name).is_some())?;
            let before = state.nodes().token_version(name);
            if *secret_version <= before {
                return conflict(format!(
                    "the token of {name} has version {before}, so {secret_version} is too old"
                ));
            }
            check_expiry(*expires, now)
        }
        Change::CreateRestriction {
            name,
            matches,
            allow,
            allow_programs,
            deny,
            deny_paths,
            deny_programs,
            reason,
            ends_session: _,
        } => {
            if state.restrictions().get(name).is_some() {
                return conflict(format!("there is a restriction {name} already"));
            }
            check_matches(state, "restriction", matches)?;
            check_networks(allow)?;
            check_networks(deny)?;
            let paths = [allow_programs, deny_programs, deny_paths];
            paths.iter().try_for_each(|paths| check_paths(paths))?;
            if allow.is_empty() && deny.is_empty() && paths.iter().all(|paths| paths.is_empty()) {
                let what = "allow or deny networks or programs, or deny paths";
                return invalid(format!("the restriction restricts nothing: {what}"));
            }
            check_text("reason", reason)
        }
        Change::LiftRestriction { name } => {
            exists("restriction", name, state.restrictions().get(name).is_some())
        }
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
    check_matches(state, "lock", matches)?;
    if expires.is_some_and(|expires| expires <= now) {
        return invalid("the lock would have run out already".to_owned());
    }
    Ok(())
}

/// What is named must be there: a lock that fits nobody would pass for one that holds. Accounts at targets aren't known.
fn check_matches(state: &State, what: &str, matches: &lock::Matches) -> Result<(), ChangeRefused> {
    if *matches == lock::Matches::default() {
        return invalid(format!("the {what} matches nothing: give a user, role, node, login or session"));
    }
    let lock::Matches { login, node, role, session, user } = matches;
    let texts = [login, node, role, user];
    if texts.into_iter().flatten().any(|text| text.is_empty() || text.len() > LABEL_BYTES_MAX) {
        return invalid(format!("what a {what} matches has 1 to {LABEL_BYTES_MAX} bytes"));
    }
    let missing = |kind: &str, wrong: &str, perhaps: String| {
        let wrong = wrong.chars().take(64).collect::<String>();
        conflict(format!(
            "the {what} would match nothing, for there is no {kind} {}{perhaps}",
            wrong.escape_debug()
        ))
    };
    let people = || {
        let services = state.services().iter().map(|(name, _)| name);
        state.users().iter().map(|(name, _)| name).chain(services)
    };
    if let Some(user) = user
        && !people().any(|name| name == user)
    {
        return missing("user", user, or_perhaps(user, people()));
    }
    if let Some(role) = role
        && state.roles().get(role).is_none()
    {
        return missing("role", role, or_perhaps(role, state.roles().iter().map(|(name, _)| name)));
    }
    if let Some(node) = node
        && state.nodes().get(node).is_none()
    {
        return missing("node", node, or_perhaps(node, state.nodes().iter().map(|(name, _)| name)));
    }
    if let Some(session) = session
        && state.sessions().get(*session).is_none()
    {
        return missing("session", &session.to_string(), String::new());
    }
    Ok(())
}

fn check_networks(networks: &[Network]) -> Result<(), ChangeRefused> {
    if networks.len() > LIST_MAX {
        return invalid(format!("{} networks are too many: at most {LIST_MAX}", networks.len()));
    }
    networks.iter().try_for_each(|network| match networks::parse(network) {
        Ok(_) => Ok(()),
        Err(why) => invalid(why.to_string()),
    })
}

fn check_paths(paths: &[String]) -> Result<(), ChangeRefused> {
    if paths.len() > LIST_MAX {
        return invalid(format!("{} paths are too many: at most {LIST_MAX}", paths.len()));
    }
    paths.iter().try_for_each(|path| match files::parse(path) {
        Ok(_) => Ok(()),
        Err(why) => invalid(why.to_string()),
    })
}

/// What people type before `.custody` is a node's name, and with it they mean the same one: a name that has it in itself
/// would lead to another node, or to none. Those that were added once go on being what they are.
fn check_node_name(state: &State, name: &str) -> Result<(), ChangeRefused> {
    match name.strip_suffix(".custody") {
        Some(meant) if state.nodes().get(name).is_none() => invalid(format!(
            "{name} can't be a node's name: who types it means the node {meant}, for .custody stands behind each name; leave it off"
        )),
        _ => Ok(()),
    }
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
