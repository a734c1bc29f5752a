//! The HTTPS API: what people, programs and the browser ask of the `log` role.
//!
//! Evidence before effect holds here too: a certificate, a change and a recording leave only once the event that
//! says so is durable, and a read is decided and told. One file for each kind of question.

mod commands;
mod cursor;
mod error;
mod events;
mod follow;
mod format;
mod identity;
mod log;
mod log_times;
mod login;
mod metrics;
mod nodes;
pub mod operate;
mod place;
mod proof;
mod reading;
mod refused;
mod services;
mod sessions;
mod sinks;
mod sources;
mod state;
mod subscriber;
pub mod tls;

#[cfg(test)]
mod tests;

pub use error::ApiError;
pub use identity::{Caller, Peer};
pub use log::Reader;

use crate::ca::Authorities;
use crate::ingest::join::Joining;
use crate::login::prove::PasswordLogin;
use crate::login::secrets::SecretStore;
use crate::ssh::admission::Admission;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use cursor::Cursors;
use custody_core::clock::Clock;
use custody_core::delivery::Running;
use custody_core::event::Timestamp;
use custody_core::log::{CosignedCheckpoints, Log, Producer};
use custody_core::search::Search;
use custody_core::state::follow::Replica;
use follow::Places;
use reading::ReadLedger;
use refused::Refusals;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// The longest body of a request, in bytes: a policy document is the largest thing that anybody sends.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// How long a body may take to arrive, in seconds.
pub const BODY_SECONDS_MAX: u64 = 30;

/// States of the past that are derived at once: each may read the whole log.
const REPLAYS_AT_ONCE: usize = 1;

/// What the API has of the rest of Custody.
pub struct ApiContext {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The `log` role's own events.
    pub producer: Arc<Producer>,
    /// State, folded from the log. Somebody runs [`Replica::follow`].
    pub replica: Arc<Replica>,
    /// The search projection.
    pub search: Arc<Search>,
    /// All authorities.
    pub authorities: Arc<Authorities>,
    /// Proves people by their passwords.
    pub passwords: Arc<PasswordLogin>,
    /// Where password hashes lie, hashes of tokens, and the key of cursors.
    pub secrets: Arc<SecretStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where recordings lie.
    pub recordings: PathBuf,
    /// What people connect to by SSH, `host:port`.
    pub ssh_address: String,
    /// Names of the SSH proxy itself: no node's host certificate has one.
    pub own_names: Vec<String>,
    /// How long a login lasts, in seconds.
    pub login_seconds: u64,
    /// What may be done with the log.
    pub operations: Arc<dyn operate::Operations>,
    /// The newest cosigned checkpoint.
    pub cosigned: Arc<CosignedCheckpoints>,
    /// Who begins SSH connections, and who was turned away.
    pub admission: Arc<Admission>,
    /// How nodes' agents join.
    pub joining: Arc<Joining>,
    /// Where the log's events are delivered to.
    pub sinks: Vec<Arc<dyn Running>>,
    /// Who else may read all entries, by token.
    pub readers: Vec<Reader>,
}

/// The context with what the API holds for itself.
pub struct Api {
    context: ApiContext,
    /// Whoever holds this is the only one who changes state: check, decide, append and apply are one step.
    changing: tokio::sync::Mutex<()>,
    turns: sinks::Turns,
    replaying: Arc<Semaphore>,
    rendering: Arc<Semaphore>,
    places: Arc<Places>,
    /// A subscription says at least so often that it lives.
    keep_alive: Duration,
    cursors: Cursors,
    reads: Mutex<ReadLedger>,
    refusals: Refusals,
    /// Up to where events were counted for metrics: at least all that there were at the start.
    counted: AtomicU64,
    closing: watch::Receiver<bool>,
}

impl Api {
    fn now(&self) -> Timestamp {
        self.context.clock.wall().into()
    }

    /// Waits until the state holds everything that is durable now.
    async fn caught_up(&self) -> Result<(), ApiError> {
        match self.context.log.size().checked_sub(1) {
            Some(last) => Ok(self.context.replica.at_least(last).await?),
            None => Ok(()),
        }
    }

    /// Whether the log still takes events: its writer is gone once it has failed.
    fn log_is_alive(&self) -> bool {
        self.context.log.follow().has_changed().is_ok()
    }

    /// Whether the log takes events now, and if not, why.
    fn takes_events(&self) -> Result<(), ApiError> {
        if !self.log_is_alive() {
            return Err(ApiError::Unavailable(
                "the log has stopped: restart custodyd to recover it".to_owned(),
            ));
        }
        if self.context.operations.is_full() {
            return Err(ApiError::Unavailable("the log's disk is full: free space on it".to_owned()));
        }
        Ok(())
    }
}

/// Answers requests on `listener` until `shutdown` says so, and then until what is being answered is done (ten
/// seconds at most; subscriptions end at once). Where there is a `log_http` listener, it answers what is below `/log/`
/// and nothing else, without TLS.
///
/// # Errors
/// When the listener can't accept any more, or the secret store fails.
pub async fn serve(
    listener: TcpListener,
    secured: tls::Secured,
    log_http: Option<TcpListener>,
    context: ApiContext,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    serve_with(follow::KEEP_ALIVE, listener, secured, log_http, context, shutdown).await
}

/// The same with another time after which a subscription says that it lives.
async fn serve_with(
    keep_alive: Duration,
    listener: TcpListener,
    secured: tls::Secured,
    log_http: Option<TcpListener>,
    context: ApiContext,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (close, closing) = watch::channel(false);
    let cursors = Cursors::open(&context.secrets, context.log.origin()).map_err(std::io::Error::other)?;
    let counted = AtomicU64::new(context.log.size());
    let api = Arc::new(Api {
        context,
        counted,
        changing: tokio::sync::Mutex::new(()),
        turns: sinks::Turns::default(),
        replaying: Arc::new(Semaphore::new(REPLAYS_AT_ONCE)),
        rendering: Arc::new(Semaphore::new(log::RENDERS_AT_ONCE)),
        places: Arc::new(Places::default()),
        keep_alive,
        cursors,
        reads: Mutex::new(ReadLedger::default()),
        refusals: Refusals::default(),
        closing: closing.clone(),
    });
    let plain = log_http.map(|listener| {
        let plain = tls::Secured::new(None, secured.balancers.clone());
        let mut closing = closing.clone();
        let closed = async move { tls::closed(&mut closing).await };
        tokio::spawn(tls::serve(listener, plain, finish(log_routes(), Arc::clone(&api)), closed))
    });
    let closed = async move {
        shutdown.await;
        close.send_replace(true);
    };
    tls::serve(listener, secured, router(api), closed).await?;
    if let Some(plain) = plain {
        plain.await.map_err(std::io::Error::other)??;
    }
    Ok(())
}

fn log_routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/log/checkpoint", get(log::checkpoint))
        .route("/log/tile/{*path}", get(log::tile))
        .route("/log/appended/{*path}", get(log_times::appended))
}

fn router(api: Arc<Api>) -> Router {
    let routes = log_routes()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/login", post(login::login))
        .route("/v1/authorities", get(login::authorities))
        .route("/v1/whoami", get(state::whoami))
        .route("/v1/nodes", get(state::nodes))
        .route("/v1/nodes/join", post(nodes::join))
        .route("/v1/state", get(state::state))
        .route("/v1/events", get(events::events))
        .route("/v1/events/{index}", get(proof::event))
        .route("/v1/events/{index}/proof", get(proof::proof))
        .route("/v1/checkpoint", get(proof::checkpoint))
        .route("/v1/log", get(operate::status))
        .route("/v1/log/{operation}", post(operate::operate))
        .route("/v1/consistency", get(proof::consistency))
        .route("/v1/commands/{name}", post(commands::command))
        .route("/v1/sinks", get(sinks::list))
        .route("/v1/sinks/{name}/dead-letters", get(sinks::dead_letters))
        .route("/v1/sinks/{name}/{operation}", post(sinks::operate))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{id}", get(sessions::one))
        .route("/v1/sessions/{id}/recording", get(sessions::recording));
    finish(routes, api)
}

/// With answers for everything else.
fn finish(routes: Router<Arc<Api>>, api: Arc<Api>) -> Router {
    routes
        .fallback(|| async { ApiError::Missing("there is nothing at this path: see docs/api.md".to_owned()) })
        .method_not_allowed_fallback(|| async {
            (
                StatusCode::METHOD_NOT_ALLOWED,
                axum::Json(serde_json::json!({ "error": "this path takes another method" })),
            )
        })
        .with_state(api)
}

async fn healthz(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    api.takes_events().map(|()| "ok\n")
}

/// A request's whole body, bounded in length and time.
async fn whole(body: Body) -> Result<Bytes, ApiError> {
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX);
    match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // The only other fault is a connection that broke, and then nobody reads the answer.
        Ok(Err(_)) => Err(ApiError::TooLarge(BODY_BYTES_MAX)),
        Err(_) => Err(ApiError::TooSlow(BODY_SECONDS_MAX)),
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::failed(doing, error))
}
