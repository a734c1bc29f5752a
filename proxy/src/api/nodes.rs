//! Nodes' agents: a token by which one may join once, and the joining itself.

use super::commands::{check_name, parse};
use super::error::ApiError;
use super::services::{Token, give};
use super::{Api, Caller, Peer, identity, whole};
use crate::ingest::join::{self, JoinError};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, State as Shared};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use custody_core::event::{Source, Timestamp};
use custody_core::state::change::Change;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long a token is good for when nobody says, in minutes.
const MINUTES_DEFAULT: u64 = 60;
/// The longest that one may be good for, in minutes: a week.
const MINUTES_MAX: u64 = 7 * 24 * 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default = "minutes")]
    minutes: u64,
}

const fn minutes() -> u64 {
    MINUTES_DEFAULT
}

/// `POST /v1/commands/create-node-token`
pub(super) async fn create_token(api: &Arc<Api>, caller: &Caller, body: &[u8]) -> Result<Token, ApiError> {
    let Create { name, minutes } = parse("create-node-token", body)?;
    check_name(&name)?;
    if !(1..=MINUTES_MAX).contains(&minutes) {
        return Err(ApiError::Invalid(format!("a token is good for 1 to {MINUTES_MAX} minutes")));
    }
    let expires = Timestamp::from_seconds(api.now().seconds().saturating_add(minutes * 60));
    let before = api.context.replica.read(|state| state.nodes().token_version(&name));
    let minted = join::mint(&name).ok_or_else(|| ApiError::failed("made a token", "no random bytes"))?;
    let change = |secret_version| Change::CreateNodeToken { name: name.clone(), expires, secret_version };
    give(api, caller, join::secret_owner(&name), minted, (before, expires), change).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    /// PKCS#10, DER in base64.
    signing_request: String,
    #[serde(deserialize_with = "super::login::secret")]
    token: Zeroizing<String>,
}

/// What an agent gets that has joined.
#[derive(Serialize)]
pub(super) struct Joined {
    /// Its certificate, PEM.
    certificate: String,
    /// Whose agent it is.
    node: String,
    /// The log's origin.
    origin: String,
}

/// Where a request comes from whose sender nobody knows yet.
pub(super) struct Stranger(Source);

impl FromRequestParts<Arc<Api>> for Stranger {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>();
        let peer = peer.ok_or(ApiError::Unproved("the connection's other end is unknown"))?;
        Ok(Self(identity::source(peer.address, &parts.headers)))
    }
}

/// `POST /v1/nodes/join`
pub(super) async fn join(
    Shared(api): Shared<Arc<Api>>,
    Stranger(source): Stranger,
    body: Body,
) -> Result<Json<Joined>, ApiError> {
    let body = whole(body).await?;
    // A parser's message could quote the token.
    let Join { signing_request, token } = serde_json::from_slice(&body)
        .map_err(|_| ApiError::Invalid("join: the body isn't {signing_request, token}".to_owned()))?;
    let request = BASE64_STANDARD.decode(signing_request);
    let request = request.map_err(|_| ApiError::Invalid("join: signing_request isn't base64".to_owned()))?;
    // What was begun is finished, also when the agent goes away.
    let joining = Arc::clone(&api.context.joining);
    let task = tokio::spawn(async move { joining.join(&token, &request, source).await });
    let joined = task.await.map_err(|error| ApiError::failed("let an agent join", error))?;
    let (node, certificate) = joined.map_err(|error| match error {
        JoinError::Token => ApiError::Denied(error.to_string()),
        JoinError::Request(why) => ApiError::Invalid(why),
        JoinError::NoEvidence(cause) => ApiError::NoEvidence(cause),
        JoinError::Stopped(stopped) => stopped.into(),
        JoinError::Failed(why) => ApiError::failed("let an agent join", why),
    })?;
    Ok(Json(Joined { certificate, node, origin: api.context.log.origin().to_owned() }))
}
