//! A whole API in a temporary directory, and people who ask it.

use crate::api::follow::KEEP_ALIVE;
use crate::api::operate::Operations;
use crate::api::{ApiContext, Reader, serve_with, tls};
use crate::balancer::Balancers;
use crate::ca::Authorities;
use crate::ca::store::FileKeyStore;
use crate::ingest::join::Joining;
use crate::login::password::{PasswordVerification, hash_password};
use crate::login::prove::PasswordLogin;
use crate::login::rate::{LoginLimiter, LoginLimits};
use crate::login::secrets::SecretStore;
use custody_core::clock::{Clock, SystemClock};
use custody_core::delivery::Running;
use custody_core::event::login::Failed;
use custody_core::event::{Draft, ProducerKind, log};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::{CosignedCheckpoints, Log, Numbering, Producer, Signer as _};
use custody_core::policy::defaults::genesis;
use custody_core::search::{Effort, Search};
use custody_core::state::follow::Replica;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub const ADMIN: &str = "root";
pub const PASSWORD: &str = "correct horse battery staple";
/// What the one configured reader shows.
pub const READER_TOKEN: &str = "a token of 32 characters or more.";
pub const SSH_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS";

pub struct World {
    pub dir: TempDir,
    pub address: SocketAddr,
    /// Without TLS, the log alone.
    pub log_address: SocketAddr,
    pub log: Arc<EmbeddedLog>,
    pub proxy: Producer,
    pub replica: Arc<Replica>,
    pub search: Arc<Search>,
    pub authorities: Arc<Authorities>,
    pub clock: Arc<dyn Clock>,
    pub recordings: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    pub served: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// A log whose keys are in its signer: what the daemon does with files, and no more, is missing.
struct Operated {
    log: Arc<EmbeddedLog>,
    full: Arc<AtomicBool>,
}

impl Operations for Operated {
    fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }
    fn clock_ahead(&self) -> Option<Duration> {
        *self.log.clock_ahead().borrow()
    }
    fn confirm_clock(&self) {
        self.log.confirm_clock();
    }
    fn generate_key(&self) -> Result<String, String> {
        let key = Ed25519Signer::from_seed(self.log.origin(), &[8; 32]).map_err(|error| error.to_string())?;
        Ok(key.verifier_key().to_string())
    }
    fn sign_with(&self, _keys: &[String]) -> Result<(), String> {
        Ok(())
    }
}

/// A person with a certificate, or a stranger.
#[derive(Clone)]
pub struct Person {
    pub http: Client,
    pub url: String,
}

/// What becomes of the log before somebody sees it.
pub type Seen = Box<dyn FnOnce(Arc<dyn Log>) -> Arc<dyn Log>>;

/// What a world may have otherwise than usual.
pub struct Plan {
    pub clock: Arc<dyn Clock>,
    pub limits: LoginLimits,
    pub login_seconds: u64,
    /// What the search projection follows.
    pub indexed: Seen,
    /// What the API reads.
    pub read: Seen,
    /// How much is done for a page with a filter.
    pub effort: Effort,
    /// After what time a subscription says that it lives.
    pub keep_alive: Duration,
    pub sinks: Vec<Arc<dyn Running>>,
    /// Whether the log's disk is full.
    pub full: Arc<AtomicBool>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            limits: LoginLimits::default(),
            login_seconds: 3600,
            indexed: Box::new(|log| log),
            read: Box::new(|log| log),
            effort: Effort::default(),
            keep_alive: KEEP_ALIVE,
            sinks: vec![],
            full: Arc::default(),
        }
    }
}

impl World {
    pub async fn new() -> Self {
        Self::planned(Plan::default()).await
    }

    pub async fn with_limits(limits: LoginLimits) -> Self {
        Self::planned(Plan { limits, ..Plan::default() }).await
    }

    pub async fn planned(plan: Plan) -> Self {
        let Plan { clock, limits, login_seconds, indexed, read, effort, keep_alive, sinks, full } = plan;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let signer = Arc::new(Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());
        let log = Arc::new(EmbeddedLog::open(&at("log"), Options::new(signer, clock.clone())).unwrap());
        let shared: Arc<dyn Log> = log.clone();
        let numbering = |id: &str, kind| Numbering {
            log: shared.clone(),
            clock: clock.clone(),
            id: id.into(),
            kind,
            previous: None,
            program: "test".into(),
        };

        let secrets = Arc::new(SecretStore::open(&at("secrets")).unwrap());
        let version = secrets.put(ADMIN, 0, &hash_password(PASSWORD).unwrap()).unwrap();
        let created =
            log::Created { origin: log.origin().into(), verifier_key: log.verifier_key().to_string() };
        let g = genesis(created, ADMIN, version);
        let first = ((g.created, g.decision, g.role), (g.policy, g.user, g.password));
        let producer =
            Arc::new(Producer::start(numbering("custody", ProducerKind::Log), first).await.unwrap());
        let proxy = numbering("proxy", ProducerKind::Proxy);
        let proxy = Producer::start(proxy, Vec::<Draft<Failed>>::new()).await.unwrap();

        let replica = Arc::new(Replica::new());
        let (follower, followed) = (replica.clone(), shared.clone());
        std::thread::spawn(move || follower.follow(&*followed));
        let search = Search::open(&at("projections"), indexed(shared.clone())).unwrap();
        let search = Arc::new(search.with_effort(effort));
        let keys = Arc::new(FileKeyStore::open(&at("keys")).unwrap());
        let now = clock.wall().0 / 1_000_000_000;
        let authorities = Arc::new(Authorities::open(keys, &at("ca"), now).unwrap());
        let names = ["localhost".to_owned()];
        let server =
            authorities.x509_server.issue(now, &names, &["127.0.0.1".parse().unwrap()], 3600).unwrap();
        let shown = Arc::new(tls::Shown::new(server).unwrap());
        let config = tls::server_config(&shown, authorities.x509_client.certificate()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log_http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let log_address = log_http.local_addr().unwrap();
        let recordings = at("recordings");
        let context = ApiContext {
            log: read(shared),
            producer: producer.clone(),
            replica: replica.clone(),
            search: search.clone(),
            authorities: authorities.clone(),
            passwords: Arc::new(PasswordLogin::new(
                PasswordVerification::new().unwrap(),
                secrets.clone(),
                LoginLimiter::new(limits),
                replica.clone(),
                clock.clone(),
            )),
            joining: Arc::new(Joining {
                authority: authorities.x509_agent.clone(),
                secrets: secrets.clone(),
                producer: producer.clone(),
                replica: replica.clone(),
                clock: clock.clone(),
                joining: tokio::sync::Mutex::new(()),
            }),
            secrets,
            clock: clock.clone(),
            recordings: recordings.clone(),
            ssh_address: "127.0.0.1:3022".into(),
            own_names: vec!["Proxy.test".into()],
            login_seconds,
            operations: Arc::new(Operated { log: log.clone(), full }),
            cosigned: Arc::new(CosignedCheckpoints::open(&at("log"), log.verifier_key()).unwrap()),
            admission: Arc::default(),
            sinks,
            readers: vec![Reader { name: "north".into(), token_sha256: Sha256::digest(READER_TOKEN).into() }],
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let secured = tls::Secured::new(Some(config), Balancers::default());
        let served =
            tokio::spawn(serve_with(keep_alive, listener, secured, Some(log_http), context, async {
                // A sender that is gone says the same.
                let _said = stopped.await;
            }));
        Self {
            dir,
            address,
            log_address,
            log,
            proxy,
            replica,
            search,
            authorities,
            clock,
            recordings,
            stop: Some(stop),
            served,
        }
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub fn builder(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.authorities.x509_server.pem().as_bytes()).unwrap();
        Client::builder().tls_certs_only([ca]).https_only(true).no_proxy().timeout(Duration::from_secs(20))
    }

    pub fn person(&self, pem: Option<&str>) -> Person {
        let mut builder = self.builder();
        if let Some(pem) = pem {
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        Person { http: builder.build().unwrap(), url: format!("https://{}", self.address) }
    }

    pub fn stranger(&self) -> Person {
        self.person(None)
    }

    pub async fn try_login(&self, user: &str, password: &str) -> (StatusCode, String, String) {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let body =
            json!({ "user": user, "password": password, "ssh_public_key": SSH_KEY, "x509_request": request });
        let answer = self.stranger().request_post("/v1/login").json(&body).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap(), key.serialize_pem())
    }

    pub async fn login(&self, user: &str, password: &str) -> Person {
        let (status, body, key) = self.try_login(user, password).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        self.person(Some(&format!("{}\n{key}", body["x509_certificate"].as_str().unwrap())))
    }

    pub async fn admin(&self) -> Person {
        self.login(ADMIN, PASSWORD).await
    }

    /// An operator who may read nothing but his own.
    pub async fn operator(&self, admin: &Person) -> Person {
        admin.done("create-role", json!({ "name": "operator" })).await;
        admin.done("create-user", json!({ "name": "ana", "roles": ["operator"] })).await;
        admin.done("set-password", json!({ "name": "ana", "password": PASSWORD })).await;
        self.login("ana", PASSWORD).await
    }

    /// The whole log as text.
    pub fn everything(&self) -> String {
        let entries = self.log.read(0, usize::MAX, usize::MAX).unwrap();
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.bytes).into_owned()).collect()
    }

    /// All events of a type, in order.
    pub fn told(&self, kind: &str) -> Vec<Value> {
        let entries = self.log.read(0, usize::MAX, usize::MAX).unwrap();
        let events = entries.iter().map(|entry| serde_json::from_slice::<Value>(&entry.bytes).unwrap());
        events.filter(|event| event["type"] == kind).collect()
    }
}

impl Person {
    pub fn request(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub fn request_post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.request(path).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    pub async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = self.request_post(path).json(&body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub async fn command(&self, name: &str, body: Value) -> (StatusCode, Value) {
        self.post(&format!("/v1/commands/{name}"), body).await
    }

    pub async fn done(&self, name: &str, body: Value) -> Value {
        let (status, answer) = self.command(name, body).await;
        assert_eq!(status, StatusCode::OK, "{name}: {answer}");
        answer
    }

    /// One page of entries with the next cursor.
    pub async fn page(&self, query: &str) -> (Vec<Value>, String) {
        let answer = self
            .request(&format!("/v1/events?{query}"))
            .header("accept", "application/x-ndjson")
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let cursor = answer.headers().get("custody-cursor").map(|v| v.to_str().unwrap().to_owned());
        let body = answer.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        (body.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), cursor.unwrap())
    }
}
