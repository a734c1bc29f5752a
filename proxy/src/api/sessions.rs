//! Sessions and their recordings. Everybody sees his own; others' are for those who may read the state. A recording
//! leaves only by a [`Permit`], which stands for a durable decision and a durable `recording.viewed`.

use super::error::ApiError;
use super::reading::{Telling, about, decided};
use super::{Api, Caller, blocking};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use custody_core::event::{SessionId, Target, Timestamp, recording};
use custody_core::policy::permit::{NoPermit, Permit, View};
use custody_core::policy::{Decision, What, decide};
use custody_core::recording::recording_path;
use custody_core::state::State;
use custody_core::state::sessions::{Phase, Session};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Sessions in one list, the newest ones.
const LIST_MAX: usize = 1000;
/// A recording leaves in pieces of so many bytes.
const PIECE_BYTES: u64 = 256 * 1024;
/// What a look may be for.
const PURPOSES: [&str; 5] = ["play", "export", "search", "verify", WATCH];
/// The look at a session that is live, as it happens.
const WATCH: &str = "watch";
/// How often a live recording is looked at for more.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is decided whether its viewer may still see it.
pub(super) const MAY_LOOK: Duration = Duration::from_secs(1);

/// Of `GET /v1/sessions`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    live: bool,
    at: Option<Timestamp>,
}

/// `GET /v1/sessions[?live=true][&at=]`: the newest thousand, oldest first.
pub async fn list(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let Query(Asked { live, at }) = asked.map_err(|rejected| ApiError::Invalid(rejected.body_text()))?;
    let query = match at {
        Some(at) => format!("live={live}&at={at}"),
        None if live => "live=true".to_owned(),
        None => String::new(),
    };
    let sees_all = sees_all(&api, &caller, &query).await?;
    let user = caller.shown.user.as_str();
    let list = |state: &State| {
        let seen = |(_, session): &(SessionId, &Session)| sees_all || session.user() == Some(user);
        let show = |(id, session): (SessionId, &Session)| shown(id, session);
        let mut found: Vec<_> = if live {
            state.sessions().live().rev().filter(seen).take(LIST_MAX).map(show).collect()
        } else {
            state.sessions().iter().rev().filter(seen).take(LIST_MAX).map(show).collect()
        };
        found.reverse();
        found
    };
    Ok(Json(match at {
        Some(at) => list(&super::state::past(&api, at).await?),
        None => {
            api.caught_up().await?;
            api.context.replica.read(list)
        }
    }))
}

/// `GET /v1/sessions/{id}`, with its recording's anchors.
pub async fn one(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = parse(&id)?;
    api.caught_up().await?;
    let is_own = api.context.replica.read(|state| owner(state, id)) == Some(caller.shown.user.clone());
    if !is_own && !sees_all(&api, &caller, &format!("session={id}")).await? {
        return Err(missing(id));
    }
    api.context
        .replica
        .read(|state| state.sessions().get(id).map(|session| detailed(id, session)))
        .map(Json)
        .ok_or_else(|| missing(id))
}

/// Whether the caller reads the state, and so others' sessions. Told as any read; a no is none, since it shows him his own.
async fn sees_all(api: &Api, caller: &Caller, query: &str) -> Result<bool, ApiError> {
    if api.may(caller, What::ReadState).is_err() {
        return Ok(false);
    }
    match api.read(caller, What::ReadState, "sessions", query, Telling::Aggregated).await {
        Ok(()) => Ok(true),
        Err(ApiError::Denied(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

fn owner(state: &State, id: SessionId) -> Option<String> {
    state.sessions().get(id)?.user().map(str::to_owned)
}

fn parse(id: &str) -> Result<SessionId, ApiError> {
    id.parse()
        .map_err(|_| ApiError::Invalid("a session's id is a UUID: `custody sessions` lists them".to_owned()))
}

fn missing(id: SessionId) -> ApiError {
    ApiError::Missing(format!("there is no session {id}, or none that you may see"))
}

fn shown(id: SessionId, session: &Session) -> Value {
    let mut value = json!({
        "session": id,
        "user": session.user(),
        "node": session.opened.node,
        "login": session.opened.login,
        "protocol": session.opened.protocol,
        "requested": session.opened.at,
        "recording": session.opened.recording,
        "commands": session.commands,
        "live": session.is_live(),
    });
    match &session.phase {
        Phase::Requested => {}
        Phase::Started { at, .. } => value["started"] = json!(at),
        Phase::Ended { at, bytes_in, bytes_out, detail, reason, started, .. } => {
            value["started"] = json!(started);
            value["ended"] = json!(at);
            value["reason"] = json!(reason);
            value["detail"] = json!(detail);
            value["bytes_in"] = json!(bytes_in);
            value["bytes_out"] = json!(bytes_out);
        }
    }
    value
}

fn detailed(id: SessionId, session: &Session) -> Value {
    let mut value = shown(id, session);
    value["source"] = json!(session.opened.source);
    value["index"] = json!(session.opened.index);
    value["last_evidence"] = json!(session.last_evidence);
    value["open_commands"] = json!(session.open_commands);
    value["views"] = json!(session.recording.views);
    value["anchors"] = json!(session.recording.anchors);
    if let Some((index, seal)) = &session.recording.sealed {
        value["sealed"] = json!(seal);
        value["sealed"]["index"] = json!(index);
    }
    value
}

/// Of `GET /v1/sessions/{id}/recording`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Viewing {
    purpose: String,
}

/// `GET /v1/sessions/{id}/recording?purpose=play|export|search|verify|watch`. To watch is to get what a live session shows until
/// it ends.
pub async fn recording(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    asked: Result<Query<Viewing>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(Viewing { purpose }) = asked.map_err(|rejected| ApiError::Invalid(rejected.body_text()))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        return Err(ApiError::Invalid(format!("purpose is one of {}", PURPOSES.join(", "))));
    }
    let id = parse(&id)?;
    api.caught_up().await?;
    let request = caller.request(What::View { session: id }, api.now());
    let Decision { made, .. } = api.context.replica.read(|state| decide(state, &request));
    let is_known = api.context.replica.read(|state| state.sessions().get(id).is_some());
    let target = Target { kind: "session".to_owned(), name: id.to_string(), ..Target::default() };
    let allowed = made.allowed;
    let decision = decided(&caller, made, target.clone());
    if !allowed {
        let reason = decision.data.reason.clone();
        let _durable = api.context.producer.append(decision).await?;
        return Err(if is_known { ApiError::Denied(reason) } else { missing(id) });
    }
    if !is_known {
        return Err(missing(id));
    }
    if purpose == WATCH && !is_live(&api, id) {
        return Err(ApiError::Conflict(format!("the session {id} is over: `custody play {id}`")));
    }
    // There must be something to see before it is said that it was seen; opened now, so that it stays the same file.
    let (file, bytes) = open(&api, id).await?;
    let watches = purpose == WATCH;
    let viewed = about(&caller, recording::Viewed { purpose, recording: id }, target).cause(decision.id);
    let durable = api.context.producer.append((decision, viewed)).await?;
    let permit = Permit::<View>::try_from(durable).map_err(|no| match no {
        NoPermit::Denied(reason) => ApiError::Denied(reason),
        unrelated @ NoPermit::Unrelated { .. } => ApiError::failed("handed out a recording", unrelated),
    })?;
    Ok(if watches { follow(permit, api, caller, id, file) } else { hand_out(permit, file, bytes) })
}

fn is_live(api: &Api, id: SessionId) -> bool {
    api.context.replica.read(|state| state.sessions().get(id).is_some_and(Session::is_live))
}

/// The recording's file and its length at this moment: of a live session, what is there now.
async fn open(api: &Api, id: SessionId) -> Result<(File, u64), ApiError> {
    let times = api.context.replica.read(|state| state.sessions().get(id).map(|session| times(id, session)));
    let times = times.ok_or_else(|| missing(id))?;
    let recordings = api.context.recordings.clone();
    blocking("opened a recording", move || {
        for time in times {
            match File::open(recording_path(&recordings, id.0, time.nanos())) {
                Ok(file) => {
                    let bytes =
                        file.metadata().map_err(|error| ApiError::failed("opened a recording", error))?.len();
                    return Ok((file, bytes));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(ApiError::failed("opened a recording", error)),
            }
        }
        Err(ApiError::Missing(format!("the session {id} has no recording")))
    })
    .await?
}

/// Recordings lie in a folder by the day of their start. Around midnight its moments lie on both sides of it.
fn times(id: SessionId, session: &Session) -> Vec<Timestamp> {
    let mut times = vec![session.opened.at];
    match session.phase {
        Phase::Started { at, .. } | Phase::Ended { started: Some(at), .. } => times.push(at),
        Phase::Requested | Phase::Ended { .. } => {}
    }
    times.push(id.made_at());
    times
}

/// Streams the recording. The permit is used up by it.
fn hand_out(permit: Permit<View>, file: File, bytes: u64) -> Response {
    drop(permit);
    let pieces = stream::unfold((Some(file), bytes), |(file, left)| async move {
        let mut file = file?;
        if left == 0 {
            return None;
        }
        let read = blocking("read a recording", move || {
            let mut piece = Vec::with_capacity(usize::try_from(left.min(PIECE_BYTES)).unwrap_or_default());
            file.by_ref().take(left.min(PIECE_BYTES)).read_to_end(&mut piece).map(|_| (file, piece))
        });
        match read.await {
            Ok(Ok((file, piece))) if !piece.is_empty() => {
                let left = left.saturating_sub(piece.len() as u64);
                Some((Ok(Bytes::from(piece)), (Some(file), left)))
            }
            Ok(Ok(_)) => Some((Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)), (None, 0))),
            Ok(Err(error)) => Some((Err(error), (None, 0))),
            Err(error) => Some((Err(std::io::Error::other(error.to_string())), (None, 0))),
        }
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_LENGTH, HeaderValue::from(bytes)),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Streams what a live session shows until it ends, its viewer may no longer see it, or we stop. The permit is used up
/// by it.
fn follow(permit: Permit<View>, api: Arc<Api>, caller: Caller, id: SessionId, file: File) -> Response {
    drop(permit);
    let (closing, decided) = (api.closing.clone(), Instant::now());
    let looking = Looking { api, caller, id, file, decided, is_behind: false, closing };
    let pieces = stream::unfold(Some(looking), |looking| async move {
        let mut looking = looking?;
        match looking.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(looking))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Somebody looks at a live session.
struct Looking {
    api: Arc<Api>,
    caller: Caller,
    id: SessionId,
    file: File,
    /// When it was last decided that he may.
    decided: Instant,
    /// Whether there may be more by now than he has taken.
    is_behind: bool,
    closing: watch::Receiver<bool>,
}

impl Looking {
    /// What comes next; nothing once the session is over and all was shown.
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            // Before each piece, not behind the last: whoever takes them slowly never gets there.
            if *self.closing.borrow() {
                // What he has isn't to pass for all that there was.
                return if self.is_behind {
                    Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
                } else {
                    Ok(None)
                };
            }
            if self.decided.elapsed() >= MAY_LOOK {
                self.decided = Instant::now();
                let now = self.api.now();
                let is_still = self.api.context.replica.read(|state| self.caller.still(state, now)).is_ok();
                if !is_still || self.api.may(&self.caller, What::View { session: self.id }).is_err() {
                    return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
                }
            }
            // In this order: what was written before the end is then read.
            let is_live = is_live(&self.api, self.id);
            let file = self.file.try_clone()?;
            let read = blocking("read a live recording", move || {
                let mut piece = Vec::new();
                file.take(PIECE_BYTES).read_to_end(&mut piece).map(|_| piece)
            });
            let piece = read.await.map_err(|error| std::io::Error::other(error.to_string()))??;
            self.is_behind = piece.len() as u64 == PIECE_BYTES;
            if !piece.is_empty() {
                return Ok(Some(Bytes::from(piece)));
            }
            if !is_live {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
