//! `custodyd witness`: watches logs of others, cosigns them, keeps its own copies, and raises alarms.

use crate::config::{self, ConfigError};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use custody_core::clock::{Clock, SystemClock};
use custody_core::event::hex::hash_from_hex;
use custody_core::log::note::NoteError;
use custody_core::log::{Cosigner, Signer, VerifierKey, durable};
use custody_proxy::api::tls;
use custody_proxy::balancer::Balancers;
use custody_proxy::ca::store::{FileKeyStore, KeyAlgorithm, KeyStore, PublicPart};
use custody_witness::alarm::Webhook;
use custody_witness::origin_hash;
use custody_witness::serve::{self, Witness};
use custody_witness::source::{Source, http_client};
use custody_witness::watched::{Watch, Watched};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The name of a witness's key in its key store.
const KEY: &str = "witness";

/// `custodyd witness`
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Role {
    #[command(subcommand)]
    command: Option<Command>,
    /// The witness's configuration
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Make the witness's key, and print what logs pin
    Init {
        /// The witness's configuration
        #[arg(long)]
        config: PathBuf,
    },
}

/// Runs the role.
pub async fn run(role: Role) -> anyhow::Result<()> {
    match (role.command, role.config) {
        (Some(Command::Init { config }), _) => init(&Config::read(&config)?),
        (None, Some(config)) => serve(Config::read(&config)?).await,
        (None, None) => bail!("say with --config what is to be witnessed"),
    }
}

/// Everything that a witness is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Its name: a URL without scheme, as logs and auditors know it.
    name: String,
    /// Where it keeps its key, what it has cosigned, and its copies.
    data: PathBuf,
    /// Where it listens.
    listen: SocketAddr,
    /// The certificate chain in PEM; without one it serves plain HTTP.
    tls_certificate: Option<PathBuf>,
    /// The certificate's key in PEM.
    tls_key: Option<PathBuf>,
    /// The SHA-256, in hex, of the token with which its copies' entries are read; nobody reads them without one.
    reader_token_sha256: Option<String>,
    /// Where alarms are POSTed.
    webhook: Option<String>,
    /// A PEM file with the authorities that the webhook's certificate is checked against.
    webhook_ca: Option<PathBuf>,
    /// How often each log is read, in seconds.
    #[serde(default = "default_poll_seconds")]
    poll_seconds: u64,
    /// The logs.
    #[serde(rename = "log")]
    logs: Vec<WatchedLog>,
}

/// `[[log]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchedLog {
    /// Its verifier key; the key's name is its origin.
    key: String,
    /// Where it is served: the prefix of `/checkpoint` and `/tile/…`.
    url: Option<String>,
    /// A PEM file with the authorities that its certificate is checked against.
    ca: Option<PathBuf>,
    /// A file with the token that lets its entries be read.
    token_file: Option<PathBuf>,
    /// Whether its entries are copied and looked at before they are cosigned.
    #[serde(default)]
    copy: bool,
    /// How long nothing may be heard of it, in seconds.
    #[serde(default = "default_silence_seconds")]
    silence_seconds: u64,
    /// Indices of events that aren't in order, and that somebody has looked at and accepted.
    #[serde(default)]
    accept: Vec<u64>,
}

const fn default_poll_seconds() -> u64 {
    3
}

const fn default_silence_seconds() -> u64 {
    45
}

impl Config {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        config::read(path, Self::check)
    }

    fn check(&self) -> Result<(), String> {
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return Err("tls_certificate and tls_key go together".to_owned());
        }
        if self.reader_token_sha256.as_deref().is_some_and(|hash| hash_from_hex(hash).is_none()) {
            return Err("reader_token_sha256 must be 64 lower-case hex digits".to_owned());
        }
        if self.poll_seconds == 0 || self.logs.iter().any(|log| log.silence_seconds == 0) {
            return Err("poll_seconds and silence_seconds must be at least 1".to_owned());
        }
        if self.logs.is_empty() {
            return Err("no [[log]] is named: there is nothing to witness".to_owned());
        }
        Ok(())
    }
}

fn init(config: &Config) -> anyhow::Result<()> {
    durable::create_directories(&config.data)
        .with_context(|| format!("{} can't be made", config.data.display()))?;
    let store = FileKeyStore::open(&config.data.join("keys"))?;
    if store.load(KEY)?.is_some() {
        bail!("{} holds a witness's key already", config.data.display());
    }
    let _public = store.generate(KEY, KeyAlgorithm::Ed25519)?;
    let signer = WitnessSigner::open(Arc::new(store), &config.name)?;
    println!("The witness's key, for the logs that it watches and for whoever verifies them:");
    println!("  {}", Cosigner::new(Arc::new(signer)).key());
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let store: Arc<dyn KeyStore> = Arc::new(FileKeyStore::open(&config.data.join("keys"))?);
    let cosigner = Cosigner::new(Arc::new(WitnessSigner::open(store, &config.name)?));
    let _lock = lock(&config.data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let webhook = match &config.webhook {
        Some(url) => Some(Webhook { http: http_client(config.webhook_ca.as_deref())?, url: url.clone() }),
        None => None,
    };
    let mut logs = Vec::new();
    for log in &config.logs {
        let watch = watched(log)?;
        let origin = watch.key.name().to_owned();
        let directory = config.data.join("logs").join(origin_hash(&origin));
        let (cosigner, clock, webhook) = (cosigner.clone(), Arc::clone(&clock), webhook.clone());
        let opened = Watched::open(&directory, watch, cosigner, clock, webhook)
            .with_context(|| format!("the log {origin} can't be watched"))?;
        let told = opened.told();
        tracing::info!("watching {origin}: {} entries cosigned, {} copied", told.cosigned, told.copied);
        logs.push(Arc::new(opened));
    }
    let witness = Arc::new(Witness::new(cosigner.key().clone(), logs, config.reader_token_sha256.as_deref()));
    let tls = match (&config.tls_certificate, &config.tls_key) {
        (Some(certificate), Some(key)) => Some(server_config(certificate, key)?),
        _ => None,
    };
    let secured = tls::Secured::new(tls, Balancers::default());
    // Whoever sees it listen may stop it, and it is to stop in order.
    let stopped = crate::run::stop_signal()?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("the witness can't listen on {}", config.listen))?;
    let (stop, mut stopping) = watch::channel(false);
    let shutdown = async move {
        // A sender that is gone is a stop as well.
        let _stopped = stopping.wait_for(|stop| *stop).await;
    };
    let server = tokio::spawn(tls::serve(listener, secured, serve::router(Arc::clone(&witness)), shutdown));
    tracing::info!("the witness {} serves on {}; its key is {}", config.name, config.listen, cosigner.key());
    tokio::select! {
        () = stopped => {}
        () = serve::watch(&witness, Duration::from_secs(config.poll_seconds)) => {
            bail!("a log isn't watched any more: see above");
        }
    }
    stop.send_replace(true);
    server.await??;
    Ok(())
}

fn watched(log: &WatchedLog) -> anyhow::Result<Watch> {
    let key = VerifierKey::parse(&log.key).with_context(|| format!("the key {}", log.key))?;
    let token = match &log.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("the token in {} can't be read", path.display()))?,
        ),
        None => None,
    };
    let source = match &log.url {
        Some(url) => Some(Source::new(http_client(log.ca.as_deref())?, url, token.as_deref())?),
        None => None,
    };
    Ok(Watch {
        key,
        source,
        copy: log.copy,
        accepted: log.accept.clone(),
        silence: Duration::from_secs(log.silence_seconds),
    })
}

/// Makes this process the only one that cosigns with what is here: two would cosign two histories.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("{} can't be opened", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another witness uses {}: stop it first", data.display());
    }
    Ok(file)
}

fn server_config(certificate: &Path, key: &Path) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|_| anyhow::anyhow!("{} holds no PEM certificates", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|_| anyhow::anyhow!("{} holds no PEM private key", key.display()))?;
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Signs with the witness's key, which stays in the key store.
struct WitnessSigner {
    store: Arc<dyn KeyStore>,
    key: VerifierKey,
}

impl WitnessSigner {
    fn open(store: Arc<dyn KeyStore>, name: &str) -> anyhow::Result<Self> {
        let Some(PublicPart::Ed25519(public)) = store.load(KEY)? else {
            bail!("the witness has no key yet: make one with `custodyd witness init`");
        };
        Ok(Self { key: VerifierKey::new(name, public)?, store })
    }
}

impl Signer for WitnessSigner {
    fn verifier_key(&self) -> VerifierKey {
        self.key.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], NoteError> {
        let failed = |why: String| NoteError::Signing(self.key.name().to_owned(), why);
        let signature = self.store.sign(KEY, message).map_err(|error| failed(error.to_string()))?;
        signature.try_into().map_err(|_| failed("an Ed25519 signature has 64 bytes".to_owned()))
    }
}
