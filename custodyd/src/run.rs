//! `custodyd run`: recovers the log, derives the state, serves the API and the proxy, and drains at SIGTERM.

use crate::config::{AtStart, Config};
use crate::cosign::Cosigning;
use crate::data::DataDir;
use crate::gaps;
use crate::identity::{Identity, Issuing};
use crate::keys::{Certifier, Keyring};
use crate::operate::LogOperations;
use crate::restore::exchange::no_log;
use crate::sinks::Around;
use crate::{filled, host_keys, leaps, newest, seal, stamp};
use anyhow::{Context as _, bail};
use custody_core::clock::{Clock, SystemClock};
use custody_core::event::session::EndReason;
use custody_core::event::{Actor, ByteString, Draft, Outcome, ProducerKind, Target, log, producer};
use custody_core::log::embedded::{EmbeddedLog, Options, Recovery};
use custody_core::log::{CosignedCheckpoints, CosignerKey, Log, Numbering, Producer};
use custody_core::recording::sealed::Auditor;
use custody_core::search::Search;
use custody_core::state::follow::Replica;
use custody_core::state::sessions::Session;
use custody_proxy::api::{self, ApiContext};
use custody_proxy::ca::Authorities;
use custody_proxy::ca::store::{FileKeyStore, KeyStore};
use custody_proxy::descriptors;
use custody_proxy::ingest::agents::Agents;
use custody_proxy::ingest::intake::Intake;
use custody_proxy::ingest::join::Joining;
use custody_proxy::ingest::serve::{self, Ingest};
use custody_proxy::login::password::PasswordVerification;
use custody_proxy::login::prove::PasswordLogin;
use custody_proxy::login::rate::{LoginLimiter, LoginLimits};
use custody_proxy::login::secrets::SecretStore;
use custody_proxy::session::close::{self, Orphan};
use custody_proxy::session::live::{EndCause, LiveSessions};
use custody_proxy::session::{Access, rights};
use custody_proxy::ssh::accept::{self, Entrance};
use custody_proxy::ssh::admission::Admission;
use custody_proxy::ssh::certificate::TrustedAuthorities;
use custody_witness::client::Witness;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What `producer.started` says of this program.
pub const PROGRAM: &str = concat!("custodyd ", env!("CARGO_PKG_VERSION"));
/// How long the certificates of this daemon's own listeners are good for, in seconds; made anew at each start, and when half of that is
/// over.
pub const SERVER_SECONDS: u64 = 397 * 24 * 3600;
/// How long sessions may take to say their end after they were told to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
pub async fn run(config: Config, without_witness: bool) -> anyhow::Result<()> {
    let data = DataDir::new(&config.data);
    if !data.is_begun() {
        return Err(no_log(&data));
    }
    // Two sockets and a recording for each session, and the log and the API besides.
    let needed = 3 * config.ssh.connections_max as u64 + 256;
    if let Some(descriptors) = descriptors::raise_limit().filter(|limit| *limit < needed) {
        tracing::warn!(
            "the system allows {descriptors} open files; ssh.connections_max = {} may need {needed} (LimitNOFILE)",
            config.ssh.connections_max
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let now = clock.wall().0 / 1_000_000_000;
    let keys = Arc::new(FileKeyStore::open(&data.keys())?);
    let store: Arc<dyn KeyStore> = Arc::clone(&keys) as _;
    let authorities = Arc::new(Authorities::open_begun(Arc::clone(&store), &data.public(), now)?);
    for name in &authorities.made {
        tracing::info!("the authority {name} is new in this version: its key was made");
    }
    let signed = data.checkpoint()?;
    let keyring = Arc::new(Keyring::open(Arc::clone(&store), &config.origin, signed.as_ref())?);
    let options = Options::new(Arc::clone(&keyring) as _, Arc::clone(&clock));
    let embedded = Arc::new(EmbeddedLog::open(&data.log(), options)?);
    let recovery = embedded.recovery();
    if recovery.cut_bytes > 0 {
        tracing::warn!(
            "the log was cut off in the middle of a write: {} bytes that were never acknowledged are gone",
            recovery.cut_bytes
        );
    }
    let witnesses = witnesses(&config)?;
    let alone = if witnesses.is_empty() {
        "; no witness is configured, so nobody would notice if an older copy were put in its place"
    } else {
        ""
    };
    tracing::info!("the log {} holds {} events{alone}", config.origin, recovery.entries);
    let log: Arc<dyn Log> = Arc::clone(&embedded) as _;
    // Before the first append: what a witness knows and this directory doesn't must not be written over.
    let unwitnessed = newest::check(&witnesses, &*log, &*keyring, without_witness).await?;

    let replica = Arc::new(Replica::new());
    replica.catch_up(&*log, |done, of| tracing::debug!("state: {done} of {of} events"))?;
    match replica.read(|state| state.log().map(|log| log.origin.clone())) {
        Some(origin) if origin == config.origin => {}
        Some(origin) => {
            bail!("the log is {origin}, the configuration says {}: which one is meant?", config.origin)
        }
        None => bail!(
            "the log in {} has no beginning: `custodyd init` was cut off; remove the directory and run it again",
            data.path().display()
        ),
    }
    // A rotation that was told and then cut short takes effect now.
    keyring.sign_with(&replica.read(|state| state.log().map(|log| log.keys.clone()).unwrap_or_default()))?;
    std::thread::Builder::new().name("state".to_owned()).spawn({
        let (replica, log) = (Arc::clone(&replica), Arc::clone(&log));
        move || {
            if let Err(error) = replica.follow(&*log) {
                tracing::error!("the state no longer follows the log: {error}");
            }
        }
    })?;

    let api_listener = TcpListener::bind(config.api.listen)
        .await
        .with_context(|| format!("the API can't listen on {}", config.api.listen))?;
    let ssh_listener = TcpListener::bind(config.ssh.listen)
        .await
        .with_context(|| format!("the SSH proxy can't listen on {}", config.ssh.listen))?;

    let log_http = match &config.log_http {
        Some(log_http) => {
            let bound = TcpListener::bind(log_http.listen).await;
            Some(bound.with_context(|| format!("the log can't be served on {}", log_http.listen))?)
        }
        None => None,
    };

    let numbering = |id: String, kind| Numbering {
        previous: replica.read(|state| state.producers().previous(&id)),
        log: Arc::clone(&log),
        clock: Arc::clone(&clock),
        id,
        kind,
        program: PROGRAM.to_owned(),
    };
    let nothing = Vec::<Draft<producer::Started>>::new;
    let log_producer =
        Arc::new(Producer::start(numbering(config.name.clone(), ProducerKind::Log), nothing()).await?);
    tell_recovery(&log_producer, &data, recovery).await?;
    if !unwitnessed.is_empty() {
        let _durable = log_producer.append(unwitnessed).await?;
    }
    let proxy_producer = Arc::new(
        Producer::start(numbering(format!("{}-proxy", config.name), ProducerKind::Proxy), nothing()).await?,
    );

    // Without an error channel of its own, a projection that can't follow says so in the log of this program and in
    // the answers of the API.
    let search = Arc::new(Search::open(&data.projections(), Arc::clone(&log))?);

    let ssh_server = host_keys::ssh_server(&config, &keys, &authorities, &log_producer, now).await?;
    let identity = Identity::begin(Issuing {
        authority: authorities.x509_server.clone(),
        names: config.api.names.clone(),
        producer: Arc::clone(&log_producer),
        clock: Arc::clone(&clock),
    });
    let identity = identity.await?;
    let tls = api::tls::server_config(identity.shown(), authorities.x509_client.certificate())?;
    let agents_tls = serve::server_config(identity.shown(), &authorities.x509_agent)?;
    let admission = Arc::new(Admission::default());
    let secrets = Arc::new(SecretStore::open(&data.secrets())?);
    let passwords = Arc::new(PasswordLogin::new(
        PasswordVerification::new()?,
        Arc::clone(&secrets),
        LoginLimiter::new(LoginLimits::default()),
        Arc::clone(&replica),
        Arc::clone(&clock),
    ));
    let access = Arc::new(Access {
        proxy: Arc::clone(&proxy_producer),
        replica: Arc::clone(&replica),
        certifier: Arc::new(Certifier {
            authorities: Arc::clone(&authorities),
            producer: Arc::clone(&log_producer),
            clock: Arc::clone(&clock),
        }),
        clock: Arc::clone(&clock),
        recordings: data.recordings(),
        source_addresses: config.ssh.source_addresses.clone(),
        auditors: auditors(&config)?,
        exec_bytes_max: config.recording.exec_bytes_max,
        log_outage: config.log_outage(),
        client_authorities: Arc::new(TrustedAuthorities::new([&authorities.ssh_client.public_key()])),
        host_authorities: Arc::new(TrustedAuthorities::new([&authorities.ssh_host.public_key()])),
        live: Arc::new(LiveSessions::default()),
        admission: Arc::clone(&admission),
        agents: Arc::new(Agents::default()),
        passwords: config.ssh.keyboard_interactive.then(|| Arc::clone(&passwords)),
    });
    let orphans =
        replica.read(|state| state.sessions().live().map(|(id, session)| orphan(id, session)).collect());
    let closed = close::close_orphans(&access, orphans).await?;
    if closed > 0 {
        tracing::warn!("{closed} sessions were cut off when the proxy died; each has an end now");
    }

    let cosigned = Arc::new(
        CosignedCheckpoints::open(&data.log(), log.verifier_key())
            .context("the newest cosigned checkpoint can't be read")?,
    );
    let (stop, stopping) = watch::channel(false);
    let (stop_sinks, stopping_sinks) = watch::channel(false);
    let around = Around {
        data: &data,
        log: &log,
        producer: &log_producer,
        replica: &replica,
        clock: &clock,
        stop: stopping_sinks,
    };
    let sinks: Vec<_> = config.sinks.iter().cloned().map(|sink| around.start(sink)).collect();
    let joining = Arc::new(Joining {
        authority: authorities.x509_agent.clone(),
        secrets: Arc::clone(&secrets),
        producer: Arc::clone(&log_producer),
        replica: Arc::clone(&replica),
        clock: Arc::clone(&clock),
        joining: tokio::sync::Mutex::new(()),
    });
    let ingest = Arc::new(Ingest {
        tls: agents_tls,
        agents: Arc::clone(&access.agents),
        intake: Intake {
            log: Arc::clone(&log),
            producer: Arc::clone(&log_producer),
            replica: Arc::clone(&replica),
        },
        joining: Arc::clone(&joining),
        live: Arc::clone(&access.live),
        clock: Arc::clone(&clock),
    });
    let own_authorities = Arc::clone(&authorities);
    let context = ApiContext {
        log: Arc::clone(&log),
        producer: Arc::clone(&log_producer),
        replica: Arc::clone(&replica),
        search,
        authorities,
        passwords,
        secrets,
        clock: Arc::clone(&clock),
        recordings: data.recordings(),
        ssh_address: config.ssh_address(),
        own_names: config.ssh_names(),
        login_seconds: config.certificates.login_hours * 3600,
        operations: Arc::new(LogOperations { log: Arc::clone(&embedded), keyring }),
        cosigned: Arc::clone(&cosigned),
        admission,
        joining: Arc::clone(&joining),
        sinks: sinks.iter().map(|sink| Arc::clone(&sink.running)).collect(),
        readers: readers(&config),
    };
    let mut api_stop = stopping.clone();
    let entrance =
        Arc::new(Entrance::new(Arc::new(ssh_server), Arc::clone(&access), config.ssh.connections_max));
    let balancers = config.api.balancers().map_err(anyhow::Error::msg)?;
    let mut secured = api::tls::Secured::new(Some(tls), balancers);
    secured.ssh = Some(Arc::clone(&entrance));
    secured.ingest = Some(Arc::clone(&ingest));
    // Whoever sees it serve may stop it, and it is to stop in order.
    let stopped = stop_signal()?;
    let api = tokio::spawn(api::serve(api_listener, secured, log_http, context, async move {
        // A sender that is gone is a stop as well.
        let _stopped = api_stop.wait_for(|stop| *stop).await;
    }));
    let balancers = config.ssh.balancers().map_err(anyhow::Error::msg)?;
    let renewal = host_keys::Renewal {
        config: config.clone(),
        keys,
        authorities: own_authorities,
        producer: Arc::clone(&log_producer),
        clock: Arc::clone(&clock),
        entrance: Arc::clone(&entrance),
    };
    tokio::spawn(renewal.in_time(now));
    let ssh = tokio::spawn(accept::serve(ssh_listener, entrance, balancers, stopping));
    tokio::spawn(rights::watch(Arc::clone(&access)));
    tokio::spawn(ingest.watch());
    tokio::spawn(identity.renew_in_time());
    tokio::spawn(seal::seal_each_second(Arc::clone(&log_producer)));
    if let Some(stamping) = config.timestamping.clone() {
        tokio::spawn(stamp::stamp(stamping, Arc::clone(&log_producer)));
    }
    tokio::spawn(gaps::tell(Arc::clone(&log_producer), Arc::clone(&replica)));
    tokio::spawn(filled::tell(Arc::clone(&log_producer), Arc::clone(&embedded)));
    tokio::spawn(leaps::tell(Arc::clone(&log_producer), embedded.clock_ahead()));
    let cosigning = Cosigning {
        log: Arc::clone(&log),
        producer: Arc::clone(&log_producer),
        kept: Arc::clone(&cosigned),
        clock: Arc::clone(&clock),
    };
    cosigning.begin(witnesses.into_iter().map(|(witness, _)| witness).collect());
    tracing::info!("serving: API on {}, SSH on {}", config.api.listen, config.ssh.listen);

    stopped.await;
    tracing::info!("stopping: {} sessions are live", access.live.sessions().len());
    stop.send_replace(true);
    ssh.await?;
    drain(&access, config.drain()).await;
    stop_sinks.send_replace(true);
    for sink in sinks {
        sink.ended.await?;
    }
    for producer in [&proxy_producer, &log_producer] {
        let stopped = Draft::new(Actor::system("custodyd"), producer::Stopped {}).outcome(Outcome::Success);
        if let Err(error) = producer.append(stopped).await {
            tracing::error!("the end of a producer could not be recorded: {error}");
        }
    }
    if let Err(error) = api.await? {
        tracing::error!("the API ended with an error: {error}");
    }
    // Writing and signing what waits takes a moment: not on a thread of the runtime.
    tokio::task::spawn_blocking(move || embedded.close()).await?;
    Ok(())
}

/// Says what the opening put in order, and from what copy the log came back.
async fn tell_recovery(producer: &Producer, data: &DataDir, recovery: &Recovery) -> anyhow::Result<()> {
    let restored = data.restored_from()?;
    if recovery.cut_bytes == 0 && recovery.rewritten_bytes == 0 && restored.is_none() {
        return Ok(());
    }
    let recovered = log::Recovered {
        cut_bytes: recovery.cut_bytes,
        from: restored.unwrap_or_else(|| "crash".to_owned()),
        rewritten_bytes: recovery.rewritten_bytes,
        size: recovery.entries,
    };
    let draft = Draft::new(Actor::system("custodyd"), recovered).outcome(Outcome::Success);
    let _durable = producer.append(draft).await?;
    data.restored_is_told()?;
    Ok(())
}

/// To whom input is sealed.
fn auditors(config: &Config) -> anyhow::Result<Vec<Auditor>> {
    let read = |path: &PathBuf| {
        let pem = std::fs::read(path)?;
        Ok::<_, anyhow::Error>(Auditor::from_pem(&pem)?)
    };
    let keys = config.recording.auditors.iter();
    keys.map(|path| read(path).with_context(|| format!("the auditor's key {}", path.display()))).collect()
}

/// Who may read all entries by a token.
fn readers(config: &Config) -> Vec<api::Reader> {
    let readers = config.readers.iter();
    let known = readers.filter_map(|reader| {
        Some(api::Reader { name: reader.name.clone(), token_sha256: reader.token_hash()? })
    });
    known.collect()
}

/// SIGTERM or SIGINT, from now on.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// The configured witnesses, and whether each must be asked at a start.
fn witnesses(config: &Config) -> anyhow::Result<Vec<(Witness, AtStart)>> {
    let open = |witness: &crate::config::Witness| {
        let key = CosignerKey::parse(&witness.key)?;
        let name = key.name().to_owned();
        let opened = Witness::new(&witness.url, key, witness.ca.as_deref())
            .with_context(|| format!("the witness {name}"))?;
        Ok((opened, witness.at_start))
    };
    config.witnesses.iter().map(open).collect()
}

/// Lets sessions end by themselves for a while, then ends them.
async fn drain(access: &Access, patience: Duration) {
    if tokio::time::timeout(patience, access.live.drained()).await.is_ok() {
        return;
    }
    for session in access.live.sessions() {
        let detail = "the proxy is being stopped".to_owned();
        access.live.end(session, EndCause { reason: EndReason::ProxyStopped, detail, cause: None });
    }
    if tokio::time::timeout(LAST_WORDS, access.live.drained()).await.is_err() {
        tracing::error!(
            "{} sessions did not end in time: the next start says their end",
            access.live.sessions().len()
        );
    }
}

fn orphan(id: custody_core::event::SessionId, session: &Session) -> Orphan {
    Orphan {
        session: id,
        actor: session.opened.actor.clone(),
        target: Some(Target {
            address: None,
            kind: "node".to_owned(),
            login: Some(ByteString::from_text(&session.opened.login)),
            name: session.opened.node.clone(),
        }),
        cause: session.opened.decision,
        last_evidence: session.last_evidence,
    }
}
