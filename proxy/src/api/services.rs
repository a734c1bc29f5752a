//! Service accounts' tokens: made here, shown once, kept as a hash. The hash is stored before the event that makes it
//! count, and the token leaves after it: a crash between them leaves the old one in force.

use super::commands::{allowed, carry_out, check_name, checked, parse};
use super::error::ApiError;
use super::reading::Asks as _;
use super::subscriber::{mint, secret_owner};
use super::{Api, Caller, blocking};
use crate::login::token::Minted;
use custody_core::event::{EventId, Timestamp};
use custody_core::state::change::Change;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long a token is good for when nobody says, in days.
const DAYS_DEFAULT: u64 = 365;
/// The longest that one may be good for, in days: five years.
const DAYS_MAX: u64 = 1_826;
/// The longest that a replaced token may go on, in hours: a month.
const KEPT_HOURS_MAX: u64 = 31 * 24;
const DAY_SECONDS: u64 = 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    roles: BTreeSet<String>,
    #[serde(default = "days")]
    days: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    name: String,
    #[serde(default = "days")]
    days: u64,
    /// How long the token before goes on.
    #[serde(default)]
    keep_hours: u64,
}

const fn days() -> u64 {
    DAYS_DEFAULT
}

/// What the owner of a service account gets.
#[derive(Debug, Serialize)]
pub(super) struct Token {
    expires: Timestamp,
    id: EventId,
    index: u64,
    /// Shown here and nowhere else.
    #[serde(serialize_with = "shown")]
    token: Zeroizing<String>,
}

fn shown<S: serde::Serializer>(token: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token)
}

/// `POST /v1/commands/create-service`
pub(super) async fn create(api: &Arc<Api>, caller: &Caller, body: &[u8]) -> Result<Token, ApiError> {
    let Create { name, roles, days } = parse("create-service", body)?;
    check_name(&name)?;
    let expires = expiry(api, days)?;
    let change = move |secret_version| Change::CreateService {
        name: name.clone(),
        roles: roles.clone(),
        expires,
        secret_version,
    };
    give_to_service(api, caller, 0, expires, change).await
}

/// `POST /v1/commands/rotate-service`
pub(super) async fn rotate(api: &Arc<Api>, caller: &Caller, body: &[u8]) -> Result<Token, ApiError> {
    let Rotate { name, days, keep_hours } = parse("rotate-service", body)?;
    check_name(&name)?;
    if keep_hours > KEPT_HOURS_MAX {
        return Err(ApiError::Invalid(format!("keep_hours is at most {KEPT_HOURS_MAX}")));
    }
    let expires = expiry(api, days)?;
    let until = Timestamp::from_seconds(api.now().seconds().saturating_add(keep_hours * 3_600));
    let previous_until = (keep_hours > 0).then_some(until);
    let before =
        api.context.replica.read(|state| state.services().get(&name).map(|service| service.token.version));
    let change = move |secret_version| Change::RotateService {
        name: name.clone(),
        expires,
        previous_until,
        secret_version,
    };
    give_to_service(api, caller, before.unwrap_or(0), expires, change).await
}

fn expiry(api: &Api, days: u64) -> Result<Timestamp, ApiError> {
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(ApiError::Invalid(format!("a token is good for 1 to {DAYS_MAX} days")));
    }
    Ok(Timestamp::from_seconds(api.now().seconds().saturating_add(days * DAY_SECONDS)))
}

async fn give_to_service(
    api: &Arc<Api>,
    caller: &Caller,
    before: u64,
    expires: Timestamp,
    change: impl Fn(u64) -> Change,
) -> Result<Token, ApiError> {
    let name = change(before).name().to_owned();
    let token = give(api, caller, secret_owner(&name), mint(&name)?, (before, expires), change).await?;
    retire(api, &name).await;
    Ok(token)
}

/// Decides, stores the hash of a new token, appends what makes it count, and only then gives the token. `owner` is its
/// owner in the secret store, `before` the version that counts so far.
pub(super) async fn give(
    api: &Arc<Api>,
    caller: &Caller,
    owner: String,
    minted: Minted,
    (before, expires): (u64, Timestamp),
    change: impl Fn(u64) -> Change,
) -> Result<Token, ApiError> {
    let _turn = api.changing.lock().await;
    let preview = change(before.saturating_add(1));
    let decision = allowed(api, caller, preview.what(), preview.target()).await?;
    checked(api, caller, &preview)?;
    let (secrets, hash) = (Arc::clone(&api.context.secrets), minted.hash.clone());
    let version = blocking("stored a token's hash", move || secrets.put(&owner, before, &hash))
        .await?
        .map_err(|error| ApiError::failed("stored a token's hash", error))?;
    let (id, index) = carry_out(api, caller, change(version), decision).await?;
    tracing::info!("{} made a token for {}", caller.name(), preview.name());
    Ok(Token { expires, id, index, token: minted.token })
}

/// Forgets the hashes that no longer count.
pub(super) async fn retire(api: &Api, name: &str) {
    let kept = api.context.replica.read(|state| {
        let service = state.services().get(name)?;
        service.tokens().map(|token| token.version).min()
    });
    let (secrets, owner) = (Arc::clone(&api.context.secrets), secret_owner(name));
    let retired =
        blocking("retired a token's hash", move || secrets.retire_below(&owner, kept.unwrap_or(u64::MAX)));
    match retired.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "an old token's hash couldn't be removed; it counts no longer");
        }
        Err(error) => tracing::warn!(%error, "an old token's hash couldn't be removed; it counts no longer"),
    }
}
