//! Has witnesses cosign the log: each newest checkpoint, within a second or so, and a heartbeat when nothing is new, so
//! that silence means something.
//!
//! A cosignature goes into `log/cosigned` and beside the checkpoint that readers get. It becomes a `log.cosigned` as
//! well, at most once in ten seconds for each witness, and only if it covers something that isn't itself a
//! `log.cosigned` or `log.sealed`: so the log doesn't feed on itself, and an idle log stays still.

use custody_core::clock::Clock;
use custody_core::event::{Actor, Draft, Event, Family, log};
use custody_core::log::cosignature::Cosigned;
use custody_core::log::cosigned::Health;
use custody_core::log::{Checkpoint, CosignedCheckpoints, Entry, Log, Producer};
use custody_witness::client::{Answer, Witness};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::spawn_blocking;

/// Between two submissions to a witness.
const INTERVAL: Duration = Duration::from_secs(1);
/// A submission at least so often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Between two `log.cosigned` of a witness.
const TOLD: Duration = Duration::from_secs(10);
/// After a failure: doubled each time up to the second of these.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Answers that lead to another question, in one submission: the first may say where to begin, and it may move meanwhile.
const QUESTIONS_MAX: u32 = 3;
/// Entries that are looked through at once.
const READ_ENTRIES: usize = 1_024;
const READ_BYTES: usize = 4 << 20;

/// What it takes to have a log cosigned.
#[derive(Clone)]
pub struct Cosigning {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Tells of cosignatures.
    pub producer: Arc<Producer>,
    /// Keeps them.
    pub kept: Arc<CosignedCheckpoints>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Cosigning {
    /// Begins, a task for each witness; they end with the log.
    pub fn begin(self, witnesses: Vec<Witness>) {
        let newest = Arc::new(AtomicU64::new(0));
        if !witnesses.is_empty() {
            tokio::spawn(look_for_news(Arc::clone(&self.log), Arc::clone(&newest)));
        }
        for witness in witnesses {
            let health = self.kept.watch(witness.name());
            let (cosigning, newest) = (self.clone(), Arc::clone(&newest));
            let one = One { cosigning, witness, health, newest, known: 0, told: (0, None) };
            tokio::spawn(one.keep_cosigned());
        }
    }
}

/// One witness. At most one submission is under way.
struct One {
    cosigning: Cosigning,
    witness: Witness,
    health: Arc<Health>,
    /// One more than the index of the newest entry that is worth a `log.cosigned`.
    newest: Arc<AtomicU64>,
    /// What the witness has cosigned, as far as we know.
    known: u64,
    /// The size that the last `log.cosigned` tells, and when it was appended.
    told: (u64, Option<Duration>),
}

impl One {
    async fn keep_cosigned(mut self) {
        let mut checkpoints = self.cosigning.log.checkpoints();
        let mut pause = RETRY.0;
        loop {
            // Always the newest: what came in between is covered by it.
            let checkpoint = checkpoints.borrow_and_update().clone();
            match self.submit(&checkpoint).await {
                Ok(cosigned) => {
                    pause = RETRY.0;
                    self.keep(&checkpoint, cosigned).await;
                    tokio::time::sleep(INTERVAL).await;
                    let changed = tokio::time::timeout(HEARTBEAT - INTERVAL, checkpoints.changed()).await;
                    if let Ok(Err(_)) = changed {
                        return;
                    }
                }
                Err(reason) => {
                    self.health.failures.fetch_add(1, Relaxed);
                    tracing::warn!("checkpoint {} isn't cosigned: {reason}", checkpoint.size());
                    // Somewhat apart, so that many logs don't come back at once.
                    let jitter = Duration::from_millis(self.cosigning.clock.wall().0 / 1_000 % 500);
                    tokio::time::sleep(pause + jitter).await;
                    if checkpoints.has_changed().is_err() {
                        return;
                    }
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn submit(&mut self, checkpoint: &Checkpoint) -> Result<Cosigned, String> {
        let size = checkpoint.size();
        for _ in 0..QUESTIONS_MAX {
            let (log, known) = (Arc::clone(&self.cosigning.log), self.known.min(size));
            let proof = spawn_blocking(move || log.consistency_proof(known, size)).await;
            let proof = proof.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            match self.witness.ask(known, proof, checkpoint).await.map_err(|error| error.to_string())? {
                Answer::Cosigned(cosigned) => {
                    self.known = size;
                    return Ok(cosigned);
                }
                Answer::Conflict(theirs) if theirs > self.cosigning.log.size() => {
                    return Err(format!(
                        "the witness {} has cosigned {theirs} entries, and here are fewer: another copy of this log \
                         is running",
                        self.witness.name()
                    ));
                }
                Answer::Conflict(theirs) if theirs != known => self.known = theirs,
                Answer::Conflict(_) | Answer::BadProof => {
                    return Err(format!(
                        "the witness {} has cosigned another history of this log",
                        self.witness.name()
                    ));
                }
            }
            if self.known > size {
                return Err("it is older than what was cosigned".to_owned());
            }
        }
        Err(format!("the witness {} changes what it knows with each question", self.witness.name()))
    }

    async fn keep(&mut self, checkpoint: &Checkpoint, cosigned: Cosigned) {
        let size = checkpoint.size();
        self.health.cosigned.store(size, Relaxed);
        self.health.last_seconds.store(self.cosigning.clock.wall().0 / 1_000_000_000, Relaxed);
        self.health.cosignatures.fetch_add(1, Relaxed);
        let (kept, checkpoint, line) =
            (Arc::clone(&self.cosigning.kept), checkpoint.clone(), cosigned.clone());
        let root = checkpoint.root();
        match spawn_blocking(move || kept.add(&checkpoint, &line)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("a cosignature can't be kept: {error}"),
            Err(error) => tracing::error!("a cosignature wasn't kept: {error}"),
        }
        let now = self.cosigning.clock.monotonic();
        let due = self.told.1.is_none_or(|last| now.saturating_sub(last) >= TOLD);
        if !due || self.newest.load(Relaxed).min(size) <= self.told.0 {
            return;
        }
        let event = log::Cosigned {
            at: cosigned.at(),
            line: cosigned.line().to_string(),
            root: root.to_base64(),
            size,
            witness: self.witness.key().to_string(),
        };
        match self.cosigning.producer.append(Draft::new(Actor::system("custodyd"), event)).await {
            Ok(_durable) => self.told = (size, Some(now)),
            Err(error) => tracing::error!("a cosignature could not be recorded: {error}"),
        }
    }
}

/// Follows the log and keeps the place of the newest entry that isn't about cosigning and sealing.
async fn look_for_news(log: Arc<dyn Log>, newest: Arc<AtomicU64>) {
    let mut size = log.follow();
    // What was there before has been told, or is covered by what is told next.
    let mut next = log.size();
    newest.store(next, Relaxed);
    loop {
        let reader = Arc::clone(&log);
        let read = spawn_blocking(move || reader.read(next, READ_ENTRIES, READ_BYTES)).await;
        let entries = match read {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => return tracing::error!("cosignatures aren't recorded any more: {error}"),
            Err(error) => return tracing::error!("cosignatures aren't recorded any more: {error}"),
        };
        let Some(last) = entries.last() else {
            if size.changed().await.is_err() {
                return;
            }
            continue;
        };
        next = last.index + 1;
        if let Some(news) = entries.iter().rev().find(|entry| !is_echo(entry)) {
            newest.store(news.index + 1, Relaxed);
        }
    }
}

fn is_echo(entry: &Entry) -> bool {
    entry.tag == Family::Log.tag()
        && Event::parse(&entry.bytes)
            .is_ok_and(|event| matches!(event.kind.as_str(), "log.cosigned" | "log.sealed"))
}
