//! Operating the log: how it does, its keys, its clock, its projections. What changes something is decided, and an event
//! before it takes effect.

use super::error::ApiError;
use super::reading::{Telling, about};
use super::{Api, Caller, whole};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use custody_core::event::log::{ClockConfirmed, KeyAdded, KeyRetired};
use custody_core::event::{Draft, EventData, Outcome, Target, decision};
use custody_core::log::Durable;
use custody_core::policy::What;
use custody_core::policy::request::Action;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// What the daemon lets the API do with its log.
pub trait Operations: Send + Sync + 'static {
    /// Whether the log's disk is so full that nothing is appended: changes are seen at the next append.
    fn is_full(&self) -> bool;
    /// By how much the machine's clock is ahead of the log's time, which doesn't follow it.
    fn clock_ahead(&self) -> Option<Duration>;
    /// Lets the log's time follow the machine's clock.
    fn confirm_clock(&self);
    /// Makes a signing key that signs nothing yet; gives its verifier key.
    ///
    /// # Errors
    /// One line: what doesn't work.
    fn generate_key(&self) -> Result<String, String>;
    /// From now on these keys sign the checkpoints.
    ///
    /// # Errors
    /// One line: what doesn't work.
    fn sign_with(&self, keys: &[String]) -> Result<(), String>;
}

/// Of `GET /v1/log`.
#[derive(Serialize)]
pub struct Status {
    checkpoint: u64,
    clock_ahead_seconds: Option<u64>,
    entries: u64,
    full: bool,
    gaps: u64,
    keys: Vec<String>,
    origin: String,
    projection_lag: u64,
    refused: u64,
    unknown: u64,
    unknown_gaps: u64,
    up: bool,
}

/// `GET /v1/log`: how the log does.
pub async fn status(Shared(api): Shared<Arc<Api>>, caller: Caller) -> Result<Json<Status>, ApiError> {
    api.read(&caller, What::ReadState, "log-status", "", Telling::Aggregated).await?;
    let context = &api.context;
    let entries = context.log.size();
    let indexed = context.search.progress().borrow().next;
    Ok(Json(context.replica.read(|state| Status {
        checkpoint: context.log.checkpoint().size(),
        clock_ahead_seconds: context.operations.clock_ahead().map(|ahead| ahead.as_secs()),
        entries,
        full: context.operations.is_full(),
        gaps: state.producers().gaps(),
        keys: state.log().map(|log| log.keys.clone()).unwrap_or_default(),
        origin: context.log.origin().to_owned(),
        projection_lag: entries.saturating_sub(indexed),
        refused: state.refused().count(),
        unknown: state.unknown().count(),
        unknown_gaps: state.producers().unknown_gaps(),
        up: api.takes_events().is_ok(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    reason: String,
    /// A verifier key, to be retired.
    #[serde(default)]
    key: Option<String>,
}

/// What an operation did.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Done {
    /// The log's time follows the clock.
    ClockConfirmed {
        /// The event's index.
        index: u64,
        /// By how much it was ahead.
        ahead_seconds: u64,
    },
    /// The log's keys are these.
    Keys {
        /// The event's index.
        index: u64,
        /// All that sign now.
        keys: Vec<String>,
    },
    /// Projections are smaller.
    Compacted {
        /// Bytes before.
        before: u64,
        /// Bytes after.
        after: u64,
    },
}

/// `POST /v1/log/{operation}`
pub async fn operate(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    Path(operation): Path<String>,
    body: Body,
) -> Result<Json<Done>, ApiError> {
    let body = whole(body).await?;
    let asked: Asked = serde_json::from_slice(if body.is_empty() { b"{}" } else { &body })
        .map_err(|error| ApiError::Invalid(format!("{operation}: {error}")))?;
    if asked.reason.len() > REASON_BYTES_MAX {
        return Err(ApiError::Invalid(format!("a reason has at most {REASON_BYTES_MAX} bytes")));
    }
    // What was begun is finished, also when the client goes away.
    let task = tokio::spawn(async move {
        let _turn = api.changing.lock().await;
        match operation.as_str() {
            "confirm-clock" => confirm_clock(&api, &caller).await,
            "add-key" => add_key(&api, &caller, asked.reason).await,
            "retire-key" => match asked.key {
                Some(key) => retire_key(&api, &caller, key, asked.reason).await,
                None => Err(ApiError::Invalid("retire-key: say which key".to_owned())),
            },
            "compact-projections" => compact(&api, &caller).await,
            _ => Err(ApiError::Missing("there is no such operation: see docs/api.md".to_owned())),
        }
    });
    task.await.map_err(|error| ApiError::failed("operated the log", error))?.map(Json)
}

async fn confirm_clock(api: &Api, caller: &Caller) -> Result<Done, ApiError> {
    let ahead_seconds = api.context.operations.clock_ahead().map_or(0, |ahead| ahead.as_secs());
    // The event is stamped with the time that was trusted until now; the next one follows the clock.
    let done = append(api, caller, ClockConfirmed { ahead_seconds }).await?;
    api.context.operations.confirm_clock();
    Ok(Done::ClockConfirmed { index: done.index(), ahead_seconds })
}

async fn add_key(api: &Api, caller: &Caller, reason: String) -> Result<Done, ApiError> {
    let decision = allowed(api, caller).await?;
    let operations = Arc::clone(&api.context.operations);
    let verifier_key = super::blocking("made a key", move || operations.generate_key())
        .await?
        .map_err(|error| ApiError::failed("made a key", error))?;
    let done = append_with(api, caller, decision, KeyAdded { reason, verifier_key }).await?;
    sign_with_the_states_keys(api, done.index()).await
}

async fn retire_key(api: &Api, caller: &Caller, key: String, reason: String) -> Result<Done, ApiError> {
    let keys = api.context.replica.read(|state| state.log().map(|log| log.keys.clone()).unwrap_or_default());
    if !keys.contains(&key) {
        return Err(ApiError::Missing(format!("the log has no such key; its keys are {}", keys.join(", "))));
    }
    if keys.len() == 1 {
        return Err(ApiError::Conflict("the last key can't be retired: add its successor first".to_owned()));
    }
    // It covers the successor's event and is signed by both: what carries an auditor's trust over.
    let unavailable = |error| ApiError::Unavailable(format!("no checkpoint could be signed: {error}"));
    let checkpoint = api.context.log.sign_now().await.map_err(unavailable)?;
    let parsed =
        custody_core::log::VerifierKey::parse(&key).map_err(|error| ApiError::Invalid(error.to_string()))?;
    if checkpoint.note().verify(&parsed).is_err() {
        return Err(ApiError::Conflict(
            "the newest checkpoint isn't signed by that key: try again".to_owned(),
        ));
    }
    let retired = KeyRetired { checkpoint: checkpoint.to_string(), reason, verifier_key: key };
    let done = append(api, caller, retired).await?;
    sign_with_the_states_keys(api, done.index()).await
}

/// The fold has judged the event: whatever keys it holds now are those that sign.
async fn sign_with_the_states_keys(api: &Api, index: u64) -> Result<Done, ApiError> {
    api.context.replica.at_least(index).await?;
    let keys = api.context.replica.read(|state| state.log().map(|log| log.keys.clone()).unwrap_or_default());
    let (operations, signing) = (Arc::clone(&api.context.operations), keys.clone());
    super::blocking("changed the log's keys", move || operations.sign_with(&signing))
        .await?
        .map_err(|error| ApiError::failed("changed the log's keys", error))?;
    Ok(Done::Keys { index, keys })
}

async fn compact(api: &Api, caller: &Caller) -> Result<Done, ApiError> {
    let _durable = api.context.producer.append(allowed(api, caller).await?).await?;
    let (before, after) = api.context.search.compact().await?;
    Ok(Done::Compacted { before, after })
}

fn log_target() -> Target {
    let (kind, name) = What::ReadLog.resource();
    Target { kind: kind.to_ascii_lowercase(), name, ..Target::default() }
}

/// The decision that allows it, still to be appended with what it allows.
async fn allowed(api: &Api, caller: &Caller) -> Result<Draft<decision::Made>, ApiError> {
    let (_, name) = What::ReadLog.resource();
    let what = What::Administer { action: Action::OperateLog, name };
    super::commands::allowed(api, caller, what, log_target()).await
}

async fn append<D: EventData>(api: &Api, caller: &Caller, data: D) -> Result<Durable<D>, ApiError> {
    let decision = allowed(api, caller).await?;
    append_with(api, caller, decision, data).await
}

async fn append_with<D: EventData>(
    api: &Api,
    caller: &Caller,
    decision: Draft<decision::Made>,
    data: D,
) -> Result<Durable<D>, ApiError> {
    let draft = about(caller, data, log_target()).cause(decision.id).outcome(Outcome::Success);
    let (_decision, done) = api.context.producer.append((decision, draft)).await?;
    Ok(done)
}
