//! A log whose files give something else than it has.

use super::Story;
use custody_core::log::{
    Checkpoint, Entry, Hash, Log, Pending, ReadError, Record, Statistics, SubmitError, VerifierKey,
};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// What is read instead.
pub trait Misread: Send + Sync + 'static {
    /// What is given in the place of the entries that were read from that index on.
    fn read(&self, log: &dyn Log, from: u64, entries: Vec<Entry>) -> Result<Vec<Entry>, ReadError>;

    /// In the place of [`Log::nodes`].
    fn nodes(&self, log: &dyn Log, height: u32, range: Range<u64>) -> Result<Vec<Hash>, ReadError> {
        log.nodes(height, range)
    }
}

/// Has a story's log read so from now on.
pub fn misread<M: Misread>(story: &mut Story, misread: M) -> Arc<M> {
    let misread = Arc::new(misread);
    story.log = Arc::new(Misreading { log: Arc::clone(&story.log), misread: Arc::clone(&misread) });
    misread
}

struct Misreading<M> {
    log: Arc<dyn Log>,
    misread: Arc<M>,
}

impl<M: Misread> Log for Misreading<M> {
    fn submit(&self, batch: Vec<Record>) -> Result<Pending, SubmitError> {
        self.log.submit(batch)
    }

    fn size(&self) -> u64 {
        self.log.size()
    }

    fn follow(&self) -> watch::Receiver<u64> {
        self.log.follow()
    }

    fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        self.misread.read(&*self.log, from, self.log.read(from, max_entries, max_bytes)?)
    }

    fn checkpoint(&self) -> Checkpoint {
        self.log.checkpoint()
    }

    fn checkpoints(&self) -> watch::Receiver<Checkpoint> {
        self.log.checkpoints()
    }

    fn sign_now(&self) -> Pending<Checkpoint> {
        self.log.sign_now()
    }

    fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        self.log.inclusion_proof(index, size)
    }

    fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        self.log.consistency_proof(old, new)
    }

    fn nodes(&self, height: u32, range: Range<u64>) -> Result<Vec<Hash>, ReadError> {
        self.misread.nodes(&*self.log, height, range)
    }

    fn root(&self, size: u64) -> Result<Hash, ReadError> {
        self.log.root(size)
    }

    fn verifier_key(&self) -> &VerifierKey {
        self.log.verifier_key()
    }

    fn statistics(&self) -> Statistics {
        self.log.statistics()
    }
}
