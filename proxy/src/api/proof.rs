//! One event and what proves it.

use super::error::ApiError;
use super::events::entry_line;
use super::reading::Telling;
use super::subscriber::Subscriber;
use super::{Api, Caller, blocking};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use custody_core::log::proof::ProofFile;
use custody_core::log::{Entry, Hash, ReadError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/events/{index}`
pub(super) async fn event(
    Shared(api): Shared<Arc<Api>>,
    subscriber: Subscriber,
    Path(index): Path<String>,
    uri: Uri,
) -> Result<impl IntoResponse, ApiError> {
    no_parameters(&uri)?;
    let index = number(&index)?;
    api.read(&subscriber, subscriber.what(), "event", &format!("index={index}"), Telling::Aggregated).await?;
    let entry = entry(&api, index).await?;
    Ok(([(CONTENT_TYPE, "application/json")], entry_line(&entry)))
}

/// `GET /v1/events/{index}/proof`: a C2SP tlog-proof of the event under a checkpoint that covers it.
pub(super) async fn proof(
    Shared(api): Shared<Arc<Api>>,
    subscriber: Subscriber,
    Path(index): Path<String>,
    uri: Uri,
) -> Result<impl IntoResponse, ApiError> {
    no_parameters(&uri)?;
    let index = number(&index)?;
    api.read(&subscriber, subscriber.what(), "proof", &format!("index={index}"), Telling::Aggregated).await?;
    let log = Arc::clone(&api.context.log);
    if index >= log.size() {
        return Err(ReadError::OutOfRange { wanted: index, size: log.size() }.into());
    }
    let mut checkpoint = log.checkpoint();
    if checkpoint.size() <= index {
        checkpoint = log.sign_now().await.map_err(|error| {
            ApiError::Unavailable(format!("no checkpoint covers entry {index} yet: {error}"))
        })?;
    }
    let text = blocking("made a proof", move || {
        let hashes = log.inclusion_proof(index, checkpoint.size())?;
        Ok::<_, ReadError>(ProofFile::new(index, hashes, &checkpoint).to_string())
    });
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text.await??))
}

/// `GET /v1/checkpoint`: the newest signed checkpoint.
pub async fn checkpoint(Shared(api): Shared<Arc<Api>>, _caller: Caller) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], api.context.log.checkpoint().to_string())
}

/// Of `GET /v1/consistency`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    old: u64,
    new: u64,
}

/// `GET /v1/consistency?old=N&new=M`: the proof that the log of N entries is a prefix of the one of M (RFC 6962,
/// section 2.1.2). Anybody who is logged in: hashes tell nothing.
pub async fn consistency(
    Shared(api): Shared<Arc<Api>>,
    _caller: Caller,
    asked: Result<Query<Sizes>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(Sizes { old, new }) = asked.map_err(|rejected| ApiError::Invalid(rejected.body_text()))?;
    let log = Arc::clone(&api.context.log);
    let covered = log.checkpoint().size();
    if old > new {
        return Err(ApiError::Invalid("old is at most new".to_owned()));
    }
    if new > covered {
        return Err(ApiError::Missing(format!(
            "the log isn't proved up to {new} entries yet: the newest checkpoint covers {covered}"
        )));
    }
    let hashes = blocking("made a proof", move || log.consistency_proof(old, new)).await??;
    let hashes: Vec<String> = hashes.into_iter().map(Hash::to_base64).collect();
    Ok(Json(json!({ "old": old, "new": new, "hashes": hashes })))
}

async fn entry(api: &Api, index: u64) -> Result<Entry, ApiError> {
    let log = Arc::clone(&api.context.log);
    let size = log.size();
    let mut entries = blocking("read the log", move || log.read(index, 1, 1)).await??;
    entries.pop().ok_or_else(|| ReadError::OutOfRange { wanted: index, size }.into())
}

fn number(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::Invalid("an event's index is a whole number: 0, 1, 2 …".to_owned()))
}

/// One event is told in one way; whoever asks for another must not take this one for it.
fn no_parameters(uri: &Uri) -> Result<(), ApiError> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(ApiError::Invalid(
            "one event and its proof take no parameters: format and filters go with /v1/events".to_owned(),
        )),
    }
}
