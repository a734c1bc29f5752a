//! The state, now and at any time of the past, and the little of it that everybody who is logged in sees.

use super::error::ApiError;
use super::reading::Telling;
use super::{Api, Caller, blocking};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use custody_core::event::Timestamp;
use custody_core::policy::What;
use custody_core::state::State;
use custody_core::state::replay::replay;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who the caller is.
#[derive(Serialize)]
pub struct WhoAmI {
    user: String,
    roles: Vec<String>,
    valid_until: Timestamp,
}

/// `GET /v1/whoami`
pub async fn whoami(caller: Caller) -> Json<WhoAmI> {
    let valid_until = Timestamp::from_seconds(caller.shown.valid_until);
    Json(WhoAmI { user: caller.shown.user, roles: caller.roles, valid_until })
}

/// A node as users see it.
#[derive(Serialize)]
pub struct Node {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    labels: BTreeMap<String, String>,
}

/// `GET /v1/nodes[?at=]`: names and labels for everybody who is logged in. Where a node is, is for those who may read
/// the state, and so are the nodes of the past.
pub async fn nodes(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Vec<Node>>, ApiError> {
    let Query(Asked { at }) = asked.map_err(|rejected| ApiError::Invalid(rejected.body_text()))?;
    let list = |state: &State, shows_addresses: bool| {
        let nodes = state.nodes().iter().map(|(name, node)| Node {
            name: name.to_owned(),
            address: shows_addresses.then(|| node.address.clone()),
            labels: node.labels.clone(),
        });
        nodes.collect()
    };
    if let Some(at) = at {
        api.read(&caller, What::ReadState, "nodes", &format!("at={at}"), Telling::Aggregated).await?;
        return Ok(Json(list(&past(&api, at).await?, true)));
    }
    api.caught_up().await?;
    let shows_addresses = api.may(&caller, What::ReadState).is_ok();
    Ok(Json(api.context.replica.read(|state| list(state, shows_addresses))))
}

/// The state after all that was appended at `at` or before.
pub(super) async fn past(api: &Api, at: Timestamp) -> Result<State, ApiError> {
    let turn = Arc::clone(&api.replaying).acquire_owned().await;
    let turn = turn.map_err(|error| ApiError::failed("derived a state", error))?;
    let log = Arc::clone(&api.context.log);
    blocking("derived a state", move || {
        let _turn = turn;
        replay(&*log, Some(at), |_, _| ())
    })
    .await?
    .map_err(|error| ApiError::failed("derived a state", error))
}

/// When: of `GET /v1/state` and `GET /v1/nodes`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    at: Option<Timestamp>,
}

/// `GET /v1/state[?at=]`: the whole state as canonical JSON.
pub async fn state(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Query(Asked { at }) = asked.map_err(|rejected| ApiError::Invalid(rejected.body_text()))?;
    let query = at.map(|at| format!("at={at}")).unwrap_or_default();
    api.read(&caller, What::ReadState, "state", &query, Telling::Aggregated).await?;
    let past = match at {
        Some(at) => Some(past(&api, at).await?),
        None => {
            api.caught_up().await?;
            None
        }
    };
    let document = blocking("wrote the state", move || {
        let state = past.unwrap_or_else(|| api.context.replica.read(Clone::clone));
        state.canonical().map_err(|error| ApiError::failed("wrote the state", error))
    })
    .await??;
    Ok(([(CONTENT_TYPE, "application/json")], document))
}
