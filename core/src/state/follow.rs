//! The state that a program works with: it follows the log, and whoever made an event waits until it was applied.

use super::State;
use super::replay::{ReplayError, next_batch};
use crate::log::Log;
use std::sync::{Mutex, PoisonError, RwLock};
use tokio::sync::watch;

/// How far a [`Replica`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many entries were applied.
    pub size: u64,
    /// Whether it follows no longer: what is read from it is old, and it won't get newer.
    pub stopped: bool,
}

/// The replica follows the log no longer, so what was waited for won't come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state no longer follows the log: {applied} entries are applied, {wanted} were waited for")]
pub struct Stopped {
    /// How many entries were applied.
    pub applied: u64,
    /// What was waited for.
    pub wanted: u64,
}

/// A state that follows a log. It has no thread of its own: its owner gives [`Replica::follow`] one.
#[derive(Debug)]
pub struct Replica {
    /// Whoever holds this is the only one who folds, so that each entry is applied once.
    folding: Mutex<()>,
    /// Written for a batch of entries at a time; readers see whole batches.
    state: RwLock<State>,
    applied: watch::Sender<Applied>,
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

impl Replica {
    /// One that has applied nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            folding: Mutex::new(()),
            state: RwLock::new(State::new()),
            applied: watch::Sender::new(Applied::default()),
        }
    }

    /// Reads the state. Entries wait to be applied while `what` runs: keep it short.
    pub fn read<T>(&self, what: impl FnOnce(&State) -> T) -> T {
        what(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many entries were applied.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.applied.borrow().size
    }

    /// How far it is, and each change of it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Waits until the entry `index` was applied.
    ///
    /// # Errors
    /// [`Stopped`] when that won't happen any more.
    pub async fn at_least(&self, index: u64) -> Result<(), Stopped> {
        let wanted = index.saturating_add(1);
        let mut changes = self.changes();
        let enough = |applied: &Applied| applied.size >= wanted || applied.stopped;
        let applied = match changes.wait_for(enough).await {
            Ok(applied) => *applied,
            // The sender lives as long as `self`.
            Err(_) => Applied { stopped: true, ..Applied::default() },
        };
        if applied.size >= wanted { Ok(()) } else { Err(Stopped { applied: applied.size, wanted }) }
    }

    /// Applies all entries that are durable now, and says how many are applied then. `progress` is told how many are
    /// applied and how many there are, once for each batch.
    ///
    /// # Errors
    /// See [`ReplayError`]. What came before stays applied.
    pub fn catch_up(&self, log: &dyn Log, mut progress: impl FnMut(u64, u64)) -> Result<u64, ReplayError> {
        let _only_one = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        let size = log.size();
        let mut done = self.size();
        while done < size {
            let batch = next_batch(log, done, size)?;
            done = {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                for entry in &batch {
                    state.apply(entry)?;
                }
                state.size()
            };
            self.applied.send_modify(|applied| applied.size = done);
            progress(done, size);
        }
        Ok(done)
    }

    /// Follows `log` until it ends: to be run by the owner on a thread of its own, since reading may block on the disk.
    /// Those who wait are told when it returns.
    ///
    /// # Errors
    /// See [`ReplayError`]; the replica is of no use then.
    pub fn follow(&self, log: &dyn Log) -> Result<(), FollowError> {
        let followed = self.follow_to_the_end(log);
        self.stop();
        followed
    }

    /// Tells those who wait that nothing more will be applied: for an owner that calls [`Replica::catch_up`] itself.
    pub fn stop(&self) {
        self.applied.send_modify(|applied| applied.stopped = true);
    }

    fn follow_to_the_end(&self, log: &dyn Log) -> Result<(), FollowError> {
        let waiting = tokio::runtime::Builder::new_current_thread().build()?;
        let mut size = log.follow();
        loop {
            size.borrow_and_update();
            self.catch_up(log, |_, _| ())?;
            if waiting.block_on(size.changed()).is_err() {
                self.catch_up(log, |_, _| ())?;
                return Ok(());
            }
        }
    }
}

/// Why a replica can't follow.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The log can't be read or applied.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// There is no way to wait for the log.
    #[error("the state can't wait for the log: {0}")]
    Waiting(#[from] std::io::Error),
}
