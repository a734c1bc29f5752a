//! Commands: checked on the state, decided by policy, durable, applied; then answered. One at a time, so that what was
//! checked still holds when it is appended.

use super::error::ApiError;
use super::reading::decided;
use super::{Api, Caller, blocking, nodes, services, whole};
use crate::ca::ssh::{HOST_SECONDS_MAX, HostRequest};
use crate::login::password;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use custody_core::event::certificate::{Authority, Issued};
use custody_core::event::{Draft, EventId, Outcome, Target, Timestamp};
use custody_core::log::ProducerError;
use custody_core::policy::request::Action;
use custody_core::policy::{Decision, What, decide};
use custody_core::state::change::{COMMANDS, Change, ChangeDraft, ChangeRefused, LIST_MAX, check, is_name};
use custody_core::state::follow::Replica;
use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The answer to a command.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    /// It is durable and applied.
    Done {
        /// The event's id.
        id: EventId,
        /// Its index in the log.
        index: u64,
    },
    /// A node's host key was certified.
    Enrolled(Enrolled),
    /// A token was made: a service account's, or one by which an agent may join.
    Token(services::Token),
}

/// What a node's sshd needs.
#[derive(Debug, Serialize)]
pub struct Enrolled {
    host_certificate: String,
    host_ssh: String,
    target_ssh: String,
    index: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetPassword {
    name: String,
    #[serde(deserialize_with = "super::login::secret")]
    password: Zeroizing<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enroll {
    name: String,
    host_public_key: String,
}

/// `POST /v1/commands/{name}`
pub(super) async fn command(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Answer>, ApiError> {
    let body = whole(body).await?;
    // What was begun is finished, also when the client goes away: an event without its answer is fine, half a step
    // isn't.
    let task = tokio::spawn(async move {
        match name.as_str() {
            "set-password" => set_password(&api, &caller, &body).await,
            "enroll-node" => enroll(&api, &caller, &body).await,
            "create-service" => services::create(&api, &caller, &body).await.map(Answer::Token),
            "rotate-service" => services::rotate(&api, &caller, &body).await.map(Answer::Token),
            "create-node-token" => nodes::create_token(&api, &caller, &body).await.map(Answer::Token),
            name if COMMANDS.contains(&name) => change(&api, &caller, Change::parse(name, &body)?).await,
            _ => Err(ApiError::Missing("there is no such command: see docs/api.md".to_owned())),
        }
    });
    task.await.map_err(|error| ApiError::failed("carried out a command", error))?.map(Json)
}

async fn change(api: &Api, caller: &Caller, change: Change) -> Result<Answer, ApiError> {
    check_name(change.name())?;
    if let Change::CreateUser { roles, .. } | Change::SetRoles { roles, .. } = &change {
        check_roles(roles)?;
    }
    let _turn = api.changing.lock().await;
    let decision = allowed(api, caller, change.what(), change.target()).await?;
    checked(api, caller, &change)?;
    let removed = if let Change::RemoveService { name } = &change { Some(name.clone()) } else { None };
    let (id, index) = carry_out(api, caller, change, decision).await?;
    if let Some(name) = removed {
        services::retire(api, &name).await;
    }
    Ok(Answer::Done { id, index })
}

/// The password's hash is stored before the event that makes it count: a crash between them leaves the old one.
async fn set_password(api: &Arc<Api>, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
    // A parser's message could quote the password.
    let SetPassword { name, password } = serde_json::from_slice(body)
        .map_err(|_| ApiError::Invalid("set-password: the body isn't {name, password}".to_owned()))?;
    check_name(&name)?;
    let hash = {
        let _turn = api
            .context
            .passwords
            .turn()
            .await
            .map_err(|error| ApiError::failed("hashed a password", error))?;
        // Only those who may set it get this far on our time: ask first, decide for good below.
        let target = What::Administer { action: Action::SetPassword, name: name.clone() };
        match api.may(caller, target) {
            Ok(()) => Some(blocking("hashed a password", move || password::hash_password(&password)).await?),
            Err(_) => None,
        }
    };
    let _turn = api.changing.lock().await;
    api.caught_up().await?;
    let before =
        api.context.replica.read(|state| state.users().get(&name).and_then(|user| user.password_version));
    let before = before.unwrap_or(0);
    let preview = Change::SetPassword { name: name.clone(), secret_version: before.saturating_add(1) };
    let decision = allowed(api, caller, preview.what(), preview.target()).await?;
    checked(api, caller, &preview)?;
    let hash =
        hash.ok_or_else(|| ApiError::Conflict("the policy changed meanwhile: try again".to_owned()))?;
    let hash = hash.map_err(|error| ApiError::Invalid(error.to_string()))?;
    let (secrets, user) = (Arc::clone(&api.context.secrets), name.clone());
    let version = blocking("stored a password", move || secrets.put(&user, before, &hash))
        .await?
        .map_err(|error| ApiError::failed("stored a password", error))?;
    let change = Change::SetPassword { name: name.clone(), secret_version: version };
    let (id, index) = carry_out(api, caller, change, decision).await?;
    let secrets = Arc::clone(&api.context.secrets);
    if let Err(error) = blocking("retired a password", move || secrets.retire_below(&name, version)).await? {
        tracing::warn!(%error, "an old password hash couldn't be removed; it counts no longer");
    }
    Ok(Answer::Done { id, index })
}

async fn enroll(api: &Api, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
    let Enroll { name, host_public_key } = parse("enroll-node", body)?;
    check_name(&name)?;
    let public_key = PublicKey::from_openssh(host_public_key.trim())
        .map_err(|error| ApiError::Invalid(format!("host_public_key is no OpenSSH public key: {error}")))?;
    let _turn = api.changing.lock().await;
    let target = Target { kind: "node".to_owned(), name: name.clone(), ..Target::default() };
    let what = What::Administer { action: Action::EnrollNode, name: name.clone() };
    let decision = allowed(api, caller, what, target.clone()).await?;
    if name.ends_with(".custody") || api.context.own_names.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
        return Err(ApiError::Invalid(format!(
            "{name} is a name of the proxy's own, so no node's key is certified for it: add the node under another name"
        )));
    }
    if api.context.replica.read(|state| state.nodes().get(&name).is_none()) {
        return Err(ApiError::Missing(format!(
            "there is no node {name}: add it first with `custody node add`"
        )));
    }
    let request = HostRequest {
        public_key,
        // Not the host of its address: whoever may add this node could have himself certified under another's name.
        names: vec![name.clone(), format!("{name}.custody")],
        key_id: decision.id.to_string(),
        valid_seconds: HOST_SECONDS_MAX,
    };
    let authorities = &api.context.authorities;
    let issued = authorities
        .ssh_host
        .issue(api.now().seconds(), &request)
        .map_err(|error| ApiError::Invalid(error.to_string()))?;
    let told = Issued {
        authority: Authority::HostSsh,
        key: issued.key_fingerprint.clone(),
        principals: issued.principals.clone(),
        serial: issued.serial.to_string(),
        subject: name,
        valid_from: Timestamp::from_seconds(issued.valid_after),
        valid_until: Timestamp::from_seconds(issued.valid_before.saturating_sub(1)),
    };
    let told = Draft::new(caller.actor(), told)
        .cause(decision.id)
        .source(caller.source.clone())
        .target(target)
        .outcome(Outcome::Success);
    let (_decision, told) = api.context.producer.append((decision, told)).await?;
    applied(&api.context.replica, told.index()).await?;
    let line = |key: &PublicKey| key.to_openssh().map_err(|error| ApiError::failed("wrote a key", error));
    Ok(Answer::Enrolled(Enrolled {
        host_certificate: issued
            .certificate
            .to_openssh()
            .map_err(|error| ApiError::failed("wrote a certificate", error))?,
        host_ssh: line(&authorities.ssh_host.public_key())?,
        target_ssh: line(&authorities.ssh_target.public_key())?,
        index: told.index(),
    }))
}

pub(super) fn parse<'a, T: Deserialize<'a>>(command: &str, body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Invalid(format!("{command}: {error}")))
}

/// Names go into the decision's event, so what can't be one goes no further.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    if is_name(name) {
        return Ok(());
    }
    Err(ApiError::Invalid(format!(
        "«{}» can't be a name: use a–z, 0–9, «.», «_», «-», at most 63, first a letter or digit",
        name.chars().take(64).collect::<String>().escape_debug()
    )))
}

/// Roles that are to be given go into the decision's event too.
fn check_roles(roles: &BTreeSet<String>) -> Result<(), ApiError> {
    if roles.len() > LIST_MAX {
        return Err(ApiError::Invalid(format!("{} roles are too many: at most {LIST_MAX}", roles.len())));
    }
    roles.iter().try_for_each(|role| check_name(role))
}

pub(super) fn checked(api: &Api, caller: &Caller, change: &Change) -> Result<(), ChangeRefused> {
    let asked = caller.request(change.what(), api.now()).circumstances;
    api.context.replica.read(|state| check(state, change, &asked))
}

/// The decision that allows it, still to be appended with what it allows. One that doesn't is appended here.
pub(super) async fn allowed(
    api: &Api,
    caller: &Caller,
    what: What,
    target: Target,
) -> Result<Draft<custody_core::event::decision::Made>, ApiError> {
    api.caught_up().await?;
    let request = caller.request(what, api.now());
    let Decision { made, .. } = api.context.replica.read(|state| decide(state, &request));
    let (is_allowed, reason) = (made.allowed, made.reason.clone());
    let decision = decided(caller, made, target);
    if is_allowed {
        return Ok(decision);
    }
    let _durable = api.context.producer.append(decision).await?;
    Err(ApiError::Denied(reason))
}

/// Appends the decision and the change in one batch, and waits until the state holds them.
pub(super) async fn carry_out(
    api: &Api,
    caller: &Caller,
    change: Change,
    decision: Draft<custody_core::event::decision::Made>,
) -> Result<(EventId, u64), ApiError> {
    let draft = change.draft(caller.actor(), decision.id);
    let (id, index) = append(api, caller, decision, draft).await?;
    applied(&api.context.replica, index).await?;
    Ok((id, index))
}

/// Waits until the state has come to the entry `index`, and says so if it didn't take it: what is recorded and has no
/// effect isn't done.
pub(super) async fn applied(replica: &Replica, index: u64) -> Result<(), ApiError> {
    replica.at_least(index).await?;
    match replica.read(|state| state.refused().at(index).map(|refusal| refusal.reason)) {
        None => Ok(()),
        Some(reason) => Err(ApiError::Conflict(format!(
            "it was recorded as event {index} and not applied, so nothing has changed: {reason}"
        ))),
    }
}

macro_rules! append_each {
    ($api:ident, $caller:ident, $decision:ident, $change:ident: $($variant:ident)*) => {
        match $change {
            $(ChangeDraft::$variant(draft) => {
                let draft = draft.source($caller.source.clone());
                let (_decision, change) = $api.context.producer.append(($decision, draft)).await?;
                Ok((change.id(), change.index()))
            })*
        }
    };
}

async fn append(
    api: &Api,
    caller: &Caller,
    decision: Draft<custody_core::event::decision::Made>,
    change: ChangeDraft,
) -> Result<(EventId, u64), ProducerError> {
    append_each!(api, caller, decision, change:
        UserCreated UserChanged UserRemoved UserPasswordSet RoleCreated RoleRemoved PolicyUploaded PolicyRemoved
        NodeAdded NodeRemoved LockCreated LockLifted SessionEndRequested ServiceCreated ServiceChanged ServiceTokenSet ServiceRemoved
        NodeTokenCreated RestrictionCreated RestrictionLifted)
}
