//! The agent as a whole: started, run, stopped.

use crate::evidence::{Beat, Scribe, ScribeError, Shared, Telling};
use crate::link::identity::{Identity, IdentityError};
use crate::link::{Link, keep_connected};
use crate::sensor::{Coverage, Found, Sensor, SensorError, SensorOptions, Tier, Watched};
use crate::sessions::{Sessions, running};
use crate::spool::SpoolError;
use crate::spool::reserve::{self, RESERVE_BYTES};
use custody_core::event::node;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How long the last events may take to reach the log at a stop: they stay in the spool.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked where the paths of restrictions lead.
const LOOK_AT_PATHS: Duration = Duration::from_millis(500);

/// How to run.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Where key, certificate, spool and sessions lie.
    pub data: PathBuf,
    /// Where the programs are pinned, on a bpffs; by the node's name below /sys/fs/bpf where it isn't said.
    pub pins: Option<PathBuf>,
    /// How much of the disk the spool may take, in bytes.
    pub spool_bytes: u64,
    /// The kernel's buffer, in bytes: a power of two.
    pub ring_bytes: u32,
    /// How long sessions may go on without the agent.
    pub heartbeat_limit: Duration,
    /// Whose files are watched, where that can be.
    pub watched: Vec<PathBuf>,
    /// Only by these means.
    pub tier: Option<Tier>,
}

/// Why the agent doesn't run (any more).
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The kernel.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Evidence.
    #[error(transparent)]
    Scribe(#[from] ScribeError),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No thread.
    #[error("no thread can be started: {0}")]
    Thread(#[from] io::Error),
    /// A mistake in this program.
    #[error("the scribe ended by itself: report this")]
    Gone,
}

/// Runs until `stop`, or until evidence can't be kept any more. The programs stay attached: what still runs in sessions
/// is refused from then on, until the agent is there again.
///
/// # Errors
/// See [`AgentError`].
pub async fn run(options: AgentOptions, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    let identity = Identity::new(&options.data);
    let membership = identity.membership()?;
    let key = Arc::new(identity.key()?);
    let node = membership.node.clone();
    let (spool, recovery) = reserve::open(
        &options.data.join("spool"),
        options.spool_bytes,
        &options.data.join("reserve"),
        RESERVE_BYTES,
    )?;
    if recovery.cut_bytes > 0 || recovery.missing > 0 {
        tracing::warn!(
            "the spool was cut off: {} bytes belonged to no whole event, {} events are missing",
            recovery.cut_bytes,
            recovery.missing
        );
    }
    let path = options.data.join("sessions.json");
    let sessions = Sessions::open(&path).map_err(|source| AgentError::File { path, source })?;
    // The key by itself too: of a file that is opened by its number it may not be known where it lies.
    let own = vec![options.data.clone(), identity.key_file()];
    let sensor = Sensor::start(SensorOptions {
        pins: options.pins.unwrap_or_else(|| PathBuf::from(format!("/sys/fs/bpf/custody-{node}"))),
        ring_bytes: options.ring_bytes,
        heartbeat_limit: options.heartbeat_limit,
        watched: options.watched.clone(),
        own: own.clone(),
        tier: options.tier,
    })?;
    let joined = joined(sensor.coverage());
    tracing::info!("the sessions of {node} are watched by {:?}", sensor.coverage().tier);
    for (feature, why) in &joined.limits {
        tracing::warn!("this kernel can't: {feature}: {why}");
    }
    let shared = Arc::new(Shared {
        node,
        sensor: Mutex::new(sensor),
        sessions: Mutex::new(sessions),
        changing: Mutex::new(()),
        spool: Mutex::new(spool),
        spooled: watch::Sender::new(()),
        unready: watch::Sender::new(None),
        beat: Beat::default(),
        connected: AtomicBool::default(),
    });
    take_up_policies(&shared)?;
    let (tell, tellings) = channel();
    let (ended, scribe_ended) = oneshot::channel();
    let (sharing, says, data) = (Arc::clone(&shared), joined.clone(), options.data);
    std::thread::Builder::new().name("scribe".to_owned()).spawn(move || {
        // In its thread: where the spool is full it waits for what is sent from there.
        let scribe = Scribe::begin(sharing, key, &data, says);
        // Whoever would hear of it may be gone.
        let _gone = ended.send(scribe.and_then(|scribe| scribe.run(&tellings)));
    })?;
    let looking = Arc::downgrade(&shared);
    std::thread::Builder::new().name("paths".to_owned()).spawn(move || look_at_paths(&looking))?;
    let (looking, watched) = (Arc::downgrade(&shared), options.watched);
    std::thread::Builder::new()
        .name("watched".to_owned())
        .spawn(move || look_at_watched(&looking, &watched, &own))?;
    let link = Link::new(Arc::clone(&shared), identity, joined, tell.clone());
    let linking = tokio::spawn(keep_connected(link));
    tokio::pin!(scribe_ended, stop);
    tokio::select! {
        ended = &mut scribe_ended => return ended.map_err(|_| AgentError::Gone)?.map_err(AgentError::from),
        () = &mut stop => {}
    }
    if tell.send(Telling::Stop).is_err() {
        tracing::warn!("the scribe has ended already");
    }
    let ended = scribe_ended.await.map_err(|_| AgentError::Gone)?;
    let drained = async {
        loop {
            let empty = {
                let spool = shared.spool();
                spool.first() == spool.next()
            };
            if empty {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(LAST_WORDS, drained).await.is_err() {
        tracing::warn!("the log hasn't got the last events yet: they are in the spool, for the next start");
    }
    linking.abort();
    Ok(ended?)
}

/// Lets the kernel know what sessions of earlier runs may reach: programs that were attached anew don't. One that can't be
/// held to that may do nothing any more, and the others go on: the log hears of it when it asks for it again. Those that are over and have
/// left nothing running need none of it.
fn take_up_policies(shared: &Shared) -> Result<(), SensorError> {
    let mut sessions = shared.sessions();
    let mut sensor = shared.sensor();
    // Of those that live without any process the log hears when it has said which live.
    sessions.look(&running(&sensor)?);
    // What an agent with other files has left running keeps its policies: no session of ours gets their numbers. Nor do connections lose
    // theirs that are still there of a session that has ended.
    let needed: BTreeSet<u32> = sessions.iter().map(|(_, session)| session.policy).collect();
    sessions.leave_alone(sensor.keep_policies(&needed)?);
    let held = sessions.iter().filter(|(_, session)| !session.has_ended());
    let held: Vec<_> = held.map(|(id, session)| (id, session.policy, session.reach.clone())).collect();
    for (session, policy, reach) in held {
        let rules = sessions.rules(&reach);
        let found = Found::of(&rules.files);
        let set = found.and_then(|found| {
            sensor.set_policy_of(policy, &rules, &found).map_err(|error| error.to_string())
        });
        if let Err(error) = set {
            tracing::error!(%session, "what the session may reach can't be enforced, so it may do nothing: {error}");
            sensor.drop_policy(policy)?;
        }
    }
    Ok(())
}

/// Has the restrictions of paths hold for what these lead to, as long as the agent runs. In a thread of its own: looking a path up
/// may take long, and the heartbeat must not wait for it.
fn look_at_paths(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let paths = shared.sensor().paths();
        if !paths.is_empty() {
            let found = Found::look(paths.iter().map(PathBuf::as_path));
            if let Err(error) = shared.sensor().found(&found) {
                tracing::error!("what the paths of restrictions lead to now isn't restricted: {error}");
            }
        }
        drop(shared);
        std::thread::sleep(LOOK_AT_PATHS);
    }
}

/// Has what the paths to watch lead to be watched, likewise: a home that doesn't answer holds up no restriction.
fn look_at_watched(shared: &Weak<Shared>, watched: &[PathBuf], own: &[PathBuf]) {
    let mut complained = false;
    loop {
        std::thread::sleep(LOOK_AT_PATHS);
        let looked = Watched::look(watched, own);
        let Some(shared) = shared.upgrade() else { return };
        let done = looked.and_then(|looked| shared.sensor().watch(&looked));
        // Once for as long as it lasts.
        if let Err(error) = &done
            && !complained
        {
            tracing::error!("what the watched paths lead to now isn't watched: {error}");
        }
        complained = done.is_err();
    }
}

/// What the agent says of itself.
fn joined(coverage: &Coverage) -> node::Joined {
    let limits = coverage.features.iter();
    let limits = limits.filter_map(|(feature, can)| Some((feature.clone(), can.as_ref().err()?.clone())));
    node::Joined {
        kernel: coverage.kernel.clone(),
        limits: limits.collect(),
        program: concat!("custodyd ", env!("CARGO_PKG_VERSION")).to_owned(),
        tier: match coverage.tier {
            Tier::Lsm => node::Tier::Lsm,
            Tier::Tracepoint => node::Tier::Tracepoint,
        },
    }
}
