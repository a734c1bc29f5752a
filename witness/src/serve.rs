//! A witness over HTTP: `POST /add-checkpoint` (C2SP tlog-witness) for logs; for everybody else, read only, what it has.
//!
//! ```text
//! POST /add-checkpoint
//! GET  /<SHA-256 of the origin, hex>/checkpoint             cosigned
//! GET  /<…>/tile/<L>/<N>[.p/<W>]                            of its copy (C2SP tlog-tiles)
//! GET  /<…>/tile/entries/<N>[.p/<W>], /<…>/appended/<N>[.p/<W>]      with the readers' token
//! GET  /status, /metrics, /healthz
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use custody_core::event::hex::{hash_from_hex, to_hex};
use custody_core::log::tile::{self, Tile};
use custody_core::log::{CosignerKey, Log, ReadError, times};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use crate::add_checkpoint::{AddCheckpoint, BODY_BYTES_MAX};
use crate::origin_hash;
use crate::watched::{Answer, Watched};

/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// A full tile never changes; a partial one is what it is for ever, too.
const FOREVER: &str = "public, max-age=31536000, immutable";
const FOREVER_FOR_ONE: &str = "private, max-age=31536000, immutable";
const NEVER: &str = "no-store";

/// A witness: the logs that it watches, and who may read its copies.
pub struct Witness {
    /// Its own key, for those who ask.
    pub key: CosignerKey,
    logs: BTreeMap<String, Arc<Watched>>,
    /// SHA-256 of the token with which entries are read; without one nobody reads them.
    reader: Option<[u8; 32]>,
}

impl Witness {
    /// Of these logs; `reader` is the lower-case hex SHA-256 of the token with which their entries are read.
    #[must_use]
    pub fn new(key: CosignerKey, logs: Vec<Arc<Watched>>, reader: Option<&str>) -> Witness {
        let logs = logs.into_iter().map(|log| (origin_hash(log.origin()), log)).collect();
        Witness { key, logs, reader: reader.and_then(hash_from_hex) }
    }

    /// The logs.
    pub fn logs(&self) -> impl Iterator<Item = &Arc<Watched>> {
        self.logs.values()
    }

    fn may_read(&self, headers: &HeaderMap) -> bool {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        match (self.reader, token) {
            (Some(wanted), Some(token)) => {
                let got: [u8; 32] = Sha256::digest(token.as_bytes()).into();
                aws_lc_rs::constant_time::verify_slices_are_equal(&got, &wanted).is_ok()
            }
            _ => false,
        }
    }
}

/// The routes, for whoever has a listener.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/{log}/checkpoint", get(checkpoint))
        .route("/{log}/tile/{*path}", get(tiles))
        .route("/{log}/appended/{*path}", get(appended))
        .with_state(witness)
}

/// Looks at each log again and again, each in a task of its own, until the task that waits for this is dropped.
pub async fn watch(witness: &Witness, every: Duration) {
    let mut tasks = tokio::task::JoinSet::new();
    for log in witness.logs() {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                log.round().await;
            }
        });
    }
    while let Some(Err(error)) = tasks.join_next().await {
        tracing::error!("a log isn't watched any more: {error}");
    }
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX);
    let body: Bytes = match tokio::time::timeout(BODY_PATIENCE, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return line(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"),
        Err(_) => return line(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    };
    let request = match AddCheckpoint::parse(&body) {
        Ok(request) => request,
        Err(error) => return line(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some(log) = witness.logs.get(&origin_hash(request.origin())) else {
        return line(StatusCode::NOT_FOUND, "this witness doesn't know the log");
    };
    match log.add_checkpoint(request).await {
        Answer::Cosigned(lines) => ([(CONTENT_TYPE, TEXT), (CACHE_CONTROL, NEVER)], lines).into_response(),
        Answer::Malformed(reason) => line(StatusCode::BAD_REQUEST, reason),
        Answer::NotSigned => {
            line(StatusCode::FORBIDDEN, "the checkpoint isn't signed by the key that this witness knows")
        }
        Answer::Conflict(size) => {
            (StatusCode::CONFLICT, [(CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n")).into_response()
        }
        Answer::Unprocessable(reason) => line(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        Answer::Failed => line(StatusCode::INTERNAL_SERVER_ERROR, "the witness can't keep what it would say"),
        Answer::NotYet(reason) => line(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

async fn checkpoint(State(witness): State<Arc<Witness>>, Path(log): Path<String>) -> Response {
    match witness.logs.get(&log).and_then(|log| log.cosigned()) {
        Some(checkpoint) => {
            ([(CONTENT_TYPE, TEXT), (CACHE_CONTROL, NEVER)], checkpoint.to_string()).into_response()
        }
        None => line(StatusCode::NOT_FOUND, "nothing of such a log is cosigned here"),
    }
}

async fn tiles(
    State(witness): State<Arc<Witness>>,
    Path((log, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(tile) = Tile::parse(&format!("tile/{path}")) else {
        return line(StatusCode::NOT_FOUND, "that is no tile's name");
    };
    if tile.level.is_none() && !witness.may_read(&headers) {
        return refused();
    }
    rendered(&witness, &log, tile, tile::render).await
}

async fn appended(
    State(witness): State<Arc<Witness>>,
    Path((log, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(tile) = times::parse_path(&format!("appended/{path}")) else {
        return line(StatusCode::NOT_FOUND, "that is no bundle's name");
    };
    if !witness.may_read(&headers) {
        return refused();
    }
    rendered(&witness, &log, tile, times::render).await
}

type Render = fn(&dyn Log, Tile, u64) -> Result<Option<Vec<u8>>, ReadError>;

async fn rendered(witness: &Witness, log: &str, tile: Tile, how: Render) -> Response {
    let Some(copy) = witness.logs.get(log).and_then(|log| log.copied()) else {
        return line(StatusCode::NOT_FOUND, "no copy of such a log is kept here");
    };
    let cache = if tile.level.is_some() { FOREVER } else { FOREVER_FOR_ONE };
    match spawn_blocking(move || how(&copy, tile, copy.size())).await {
        Ok(Ok(Some(bytes))) => ([(CONTENT_TYPE, BYTES), (CACHE_CONTROL, cache)], bytes).into_response(),
        Ok(Ok(None) | Err(ReadError::OutOfRange { .. })) => {
            line(StatusCode::NOT_FOUND, "not yet: the copy is shorter")
        }
        Ok(Err(error)) => {
            tracing::error!("the copy can't be read: {error}");
            line(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
        Err(_) => line(StatusCode::INTERNAL_SERVER_ERROR, "reading was cut off"),
    }
}

async fn status(State(witness): State<Arc<Witness>>) -> Response {
    let logs: Vec<_> = witness
        .logs()
        .map(|log| {
            let told = log.told();
            json!({
                "origin": log.origin(),
                "path": origin_hash(log.origin()),
                "cosigned": told.cosigned,
                "copied": told.copied,
                "submitted_seconds_ago": told.submitted_seconds_ago,
                "read_seconds_ago": told.read_seconds_ago,
                "trouble": told.trouble,
                "alarms": log.alarms().standing(),
            })
        })
        .collect();
    let body =
        axum::Json(json!({ "witness": witness.key.name(), "key": witness.key.to_string(), "logs": logs }));
    ([(CACHE_CONTROL, NEVER)], body).into_response()
}

/// A metric: its name, its kind, its help, and what it is of each log.
type Metric = (&'static str, &'static str, &'static str, fn(&Watched) -> u64);

const METRICS: [Metric; 7] = [
    ("cosigned_entries", "gauge", "Entries that are cosigned.", |log| log.told().cosigned),
    ("copied_entries", "gauge", "Entries that are copied and in order.", |log| log.told().copied),
    ("cosignatures_total", "counter", "Cosignatures since the start.", |log| log.told().cosignatures),
    ("submitted_age_seconds", "gauge", "Since a submission was last cosigned.", |log| {
        log.told().submitted_seconds_ago
    }),
    ("read_age_seconds", "gauge", "Since the log's checkpoint was last read.", |log| {
        log.told().read_seconds_ago
    }),
    ("alarms_total", "counter", "Alarms that were raised since the start.", |log| log.alarms().counts().0),
    ("alarms_untold", "gauge", "Alarms that the webhook hasn't taken yet.", |log| log.alarms().counts().1),
];

async fn metrics(State(witness): State<Arc<Witness>>) -> Response {
    let mut out = String::new();
    let origin = |log: &Watched| log.origin().replace('\\', "\\\\").replace('"', "\\\"");
    // Writing into a String can't fail.
    for (name, kind, help, value) in METRICS {
        let _infallible =
            writeln!(out, "# HELP custody_witness_{name} {help}\n# TYPE custody_witness_{name} {kind}");
        for log in witness.logs() {
            let _infallible =
                writeln!(out, "custody_witness_{name}{{log=\"{}\"}} {}", origin(log), value(log));
        }
    }
    let _infallible = writeln!(
        out,
        "# HELP custody_witness_alarm 1 while an alarm of the kind stands.\n# TYPE custody_witness_alarm gauge"
    );
    for log in witness.logs() {
        for alarm in log.alarms().standing() {
            let _infallible =
                writeln!(out, "custody_witness_alarm{{log=\"{}\",kind=\"{}\"}} 1", origin(log), alarm.alarm);
        }
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out).into_response()
}

fn line(status: StatusCode, text: &str) -> Response {
    (status, [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, NEVER)], format!("{text}\n")).into_response()
}

fn refused() -> Response {
    line(StatusCode::UNAUTHORIZED, "entries are read with the token of this witness's readers")
}

/// The hex SHA-256 by which a token is known.
#[must_use]
pub fn token_hash(token: &str) -> String {
    to_hex(&Sha256::digest(token.trim().as_bytes()))
}
