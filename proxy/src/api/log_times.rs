//! When each entry was appended, for those who copy the log: as its entries, for the same readers.

use super::error::ApiError;
use super::identity::Peer;
use super::log::{FOREVER_FOR_ONE, may_read_entries};
use super::{Api, Caller, blocking};
use axum::Extension;
use axum::extract::State as Shared;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use axum::response::IntoResponse;
use custody_core::log::times;
use std::sync::Arc;

/// `GET /log/appended/<N>[.p/<W>]`: see [`times`].
pub async fn appended(
    Shared(api): Shared<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    caller: Result<Caller, ApiError>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<impl IntoResponse, ApiError> {
    let path = uri.path().strip_prefix("/log/").unwrap_or_default();
    let tile = times::parse_path(path).ok_or_else(|| {
        ApiError::Missing("that is no bundle: see docs/witness.md for their names".to_owned())
    })?;
    may_read_entries(&api, &peer, caller, &headers).await?;
    let place = Arc::clone(&api.rendering).acquire_owned().await;
    let log = Arc::clone(&api.context.log);
    let covered = log.checkpoint().size();
    let bytes = blocking("read times", move || {
        // They are read to their end, also for a client that is gone.
        let _place = place;
        times::render(&*log, tile, covered)
    });
    let bytes = bytes.await??;
    let bytes = bytes.ok_or_else(|| {
        ApiError::Missing(format!("{path} isn't there yet: the newest checkpoint covers {covered} entries"))
    })?;
    Ok(([(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, FOREVER_FOR_ONE)], bytes))
}
