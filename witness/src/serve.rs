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
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::add_checkpoint::{AddCheckpoint, BODY_BYTES_MAX};
use crate::origin_hash;
use crate::watched::{Answer, Watched};

/// Tiles that are made at once, for whoever asks: each may read 256 entries of 64 KiB.
const RENDERS_AT_ONCE: usize = 4;
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
    rendering: Arc<Semaphore>,
}

impl Witness {
    /// Of these logs; `reader` is the lower-case hex SHA-256 of the token with which their entries are read.
    #[must_use]
    pub fn new(key: CosignerKey, logs: Vec<Arc<Watched>>, reader: Option<&str>) -> Witness {
        let logs = logs.into_iter().map(|log| (origin_hash(log.origin()), log)).collect();
        let rendering = Arc::new(Semaphore::new(RENDERS_AT_ONCE));
        Witness { key, logs, reader: reader.and_then(hash_from_hex), rendering }
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
    let place = Arc::clone(&witness.rendering).acquire_owned().await;
    let made = spawn_blocking(move || {
        // Held as long as it takes, also when whoever asked is gone.
        let _place = place;
        how(&copy, tile, copy.size())
    });
    match made.await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Source, http_client};
    use crate::watched::Watch;
    use custody_core::clock::SystemClock;
    use custody_core::event::log::Created;
    use custody_core::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp, canonical};
    use custody_core::log::embedded::import::Import;
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::{Checkpoint, Cosigner, Nanos, Signer as _};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);

    fn counted(log: &dyn Log, tile: Tile, size: u64) -> Result<Option<Vec<u8>>, ReadError> {
        MOST.fetch_max(NOW.fetch_add(1, SeqCst) + 1, SeqCst);
        // Long enough for others to be there as well, if they may.
        std::thread::sleep(Duration::from_millis(20));
        NOW.fetch_sub(1, SeqCst);
        tile::render(log, tile, size)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_asks_for_tiles_has_a_few_made_at_a_time() {
        let scratch = tempfile::TempDir::new().unwrap();
        let signer = Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap();
        let cosigner = Cosigner::new(Arc::new(Ed25519Signer::from_seed("w.test", &[9; 32]).unwrap()));
        let producer =
            ProducerRef { boot: uuid::Uuid::nil(), id: "p".into(), kind: ProducerKind::Log, seq: 0 };
        let created = Draft::new(Actor::system("test"), Created::example());
        let event = canonical::event_bytes(&created.numbered(producer, Timestamp::from_seconds(1))).unwrap();
        let key = signer.verifier_key();
        let mut import = Import::begin(&scratch.path().join("log"), &key, &mut |_, _, _| {}).unwrap();
        import.push(Nanos(1), &event).unwrap();
        import.seal(&Checkpoint::sign(1, import.root(), &signer).unwrap()).unwrap();
        drop(import);
        let watch = Watch {
            key,
            source: Some(Source::new(http_client(None).unwrap(), "http://127.0.0.1:9", None).unwrap()),
            copy: true,
            accepted: Vec::new(),
            silence: Duration::from_secs(60),
        };
        let watched =
            Watched::open(scratch.path(), watch, cosigner.clone(), Arc::new(SystemClock::new()), None);
        let witness = Witness::new(cosigner.key().clone(), vec![Arc::new(watched.unwrap())], None);
        let (log, tile) = (origin_hash("custody.test/log"), Tile { level: Some(0), number: 0, width: 1 });
        let asked = (0..40).map(|_| rendered(&witness, &log, tile, counted));
        let answers = futures_util::future::join_all(asked).await;
        assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK));
        assert!((1..=RENDERS_AT_ONCE).contains(&MOST.load(SeqCst)), "{MOST:?} at once");
    }
}
