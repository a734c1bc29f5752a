//! The log in one directory, with one writer.
//!
//! ```text
//! <directory>/segments/<first index, 20 digits>.seg   the records: the truth
//! <directory>/checkpoint                              the newest signed checkpoint
//! <directory>/lock                                    held by the process that writes; holds its pid
//! <directory>/importing                               stands while entries are brought that nothing vouches for yet
//! ```

mod dedupe;
pub mod durable;
pub mod import;
mod preallocate;
mod queue;
mod recover;
pub mod salvage;
pub(crate) mod scan;
mod segment;
mod statistics;
mod time;
mod unfinished;
mod view;
mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::durable::{Disk, RealDisk};
use self::preallocate::Preallocation;
pub use self::preallocate::RESERVE_BYTES;
use self::queue::Queue;
pub use self::recover::{OpenError, Recovery};
pub use self::scan::{Mark, ScanError};
use self::statistics::Counters;
pub use self::statistics::{Distribution, SYNC_BOUNDS_NS, Statistics, WRITE_BOUNDS_EVENTS};
pub use self::time::STEP_MAX;
use self::time::Timekeeper;
use self::view::View;
use self::writer::Writer;
use super::{
    Checkpoint, Claim, EVENT_BYTES_MAX, Entry, Hash, Log, PRODUCER_ID_BYTES_MAX, Pending, ReadError, Record,
    Signer, SubmitError, VerifierKey,
};
use crate::clock::Clock;

/// Records in one batch; a batch is held in memory whole at recovery.
pub const BATCH_RECORDS_MAX: usize = 4_096;

/// How a log is opened.
pub struct Options {
    /// Signs checkpoints. The name of its key is the log's origin.
    pub signer: Arc<dyn Signer>,
    /// Tells the time of appending.
    pub clock: Arc<dyn Clock>,
    /// A segment that is this long gets a successor; bytes.
    pub segment_bytes: u64,
    /// How much may wait to be written before [`SubmitError::Overloaded`]; bytes.
    pub queue_bytes_max: usize,
}

impl Options {
    /// What a server uses: segments of 64 MiB, 64 MiB waiting.
    #[must_use]
    pub fn new(signer: Arc<dyn Signer>, clock: Arc<dyn Clock>) -> Options {
        Options { signer, clock, segment_bytes: 64 << 20, queue_bytes_max: 64 << 20 }
    }
}

/// A log in a directory of this machine. See [`Log`] for what it promises.
pub struct EmbeddedLog {
    queue: Arc<Queue>,
    view: Arc<View>,
    counters: Arc<Counters>,
    size: watch::Receiver<u64>,
    checkpoint: watch::Receiver<Checkpoint>,
    clock_ahead: watch::Receiver<Option<Duration>>,
    filled: watch::Receiver<bool>,
    key: VerifierKey,
    recovery: Recovery,
    /// The thread, until somebody waited for its end.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Unlocked when it is dropped, after the writer has ended.
    _lock: File,
}

impl EmbeddedLog {
    /// Opens the log in `directory`, or starts a new one if there is none; recovers it after a crash.
    ///
    /// # Errors
    /// See [`OpenError`]. What can't be explained by a crash is refused, and nothing is changed then.
    pub fn open(directory: &Path, options: Options) -> Result<EmbeddedLog, OpenError> {
        EmbeddedLog::open_on(Arc::new(RealDisk), directory, options)
    }

    fn open_on(disk: Arc<dyn Disk>, directory: &Path, options: Options) -> Result<EmbeddedLog, OpenError> {
        let segments = directory.join("segments");
        durable::create_directories(&segments)
            .map_err(|source| OpenError::Io { path: segments.clone(), source })?;
        let lock = lock(directory)?;
        import::finished(directory)?;
        let opened = recover::open(&*disk, directory, &*options.signer)?;

        let queue = Arc::new(Queue::new(options.queue_bytes_max));
        let view = Arc::new(View::new(disk.clone(), segments, opened.published));
        let counters = Arc::new(Counters::new(opened.disk_bytes));
        let (size, size_seen) = watch::channel(view.size());
        let (checkpoint, checkpoint_seen) = watch::channel(opened.checkpoint);
        let (clock_ahead, clock_ahead_seen) = watch::channel(None);
        let (filled, filled_seen) = watch::channel(false);
        let writer = Writer {
            disk,
            directory: directory.to_owned(),
            segment_bytes: options.segment_bytes,
            time: Timekeeper::new(options.clock, opened.last_appended),
            queue: queue.clone(),
            view: view.clone(),
            counters: counters.clone(),
            dedupe: opened.dedupe,
            segment: opened.segment,
            preallocation: Preallocation::default(),
            epoch: opened.epoch,
            size,
            checkpoint,
            filled,
            clock_ahead,
            signed_at: None,
            signing_took: Duration::ZERO,
            signing_fails: false,
            sign: Vec::new(),
            buffer: Vec::new(),
            signer: options.signer.clone(),
        };
        let writer = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
        Ok(EmbeddedLog {
            queue,
            view,
            counters,
            size: size_seen,
            checkpoint: checkpoint_seen,
            clock_ahead: clock_ahead_seen,
            filled: filled_seen,
            key: options.signer.verifier_key(),
            recovery: opened.recovery,
            writer: Mutex::new(Some(writer)),
            _lock: lock,
        })
    }

    /// What opening it found and put in order.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// By how much the machine's clock has leapt ahead of the log's time, which doesn't follow it: somebody
    /// must say which is right. Changes are seen at the next append.
    #[must_use]
    pub fn clock_ahead(&self) -> watch::Receiver<Option<Duration>> {
        self.clock_ahead.clone()
    }

    /// Says that the machine's clock is right: the log follows it from the next append on.
    pub fn confirm_clock(&self) {
        self.queue.confirm_clock();
    }

    /// Whether the disk is so full that the log takes only what may use its reserve ([`Log::submit_from_reserve`]).
    /// Changes are seen at the next append, which is tried each time: no restart is needed once there is room again.
    #[must_use]
    pub fn filled(&self) -> watch::Receiver<bool> {
        self.filled.clone()
    }

    /// Has the log look whether there is room again, where its disk is full and nobody appends anything. What comes of it
    /// shows by [`EmbeddedLog::filled`].
    pub fn look_for_room(&self) {
        self.queue.look_for_room();
    }

    /// Why the log takes nothing more, if it has stopped.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.queue.stopped()
    }

    /// Writes what waits, signs a last checkpoint, and ends the writer. Later submissions are refused.
    /// Blocks until it is done; reading goes on to work. Dropping the log does the same.
    pub fn close(&self) {
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Log for EmbeddedLog {
    fn submit(&self, batch: Vec<Record>) -> Result<Pending, SubmitError> {
        check(&batch)?;
        self.queue.submit(batch, None, false)
    }

    fn submit_from_reserve(&self, batch: Vec<Record>) -> Result<Pending, SubmitError> {
        check(&batch)?;
        self.queue.submit(batch, None, true)
    }

    fn submit_claimed(
        &self,
        batch: Vec<Record>,
        claim: Claim,
        from_reserve: bool,
    ) -> Result<Pending, SubmitError> {
        check(&batch)?;
        self.queue.submit(batch, Some(claim), from_reserve)
    }

    fn size(&self) -> u64 {
        *self.size.borrow()
    }

    fn follow(&self) -> watch::Receiver<u64> {
        self.size.clone()
    }

    fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        self.view.read(from, max_entries, max_bytes)
    }

    fn checkpoint(&self) -> Checkpoint {
        self.checkpoint.borrow().clone()
    }

    fn checkpoints(&self) -> watch::Receiver<Checkpoint> {
        self.checkpoint.clone()
    }

    fn sign_now(&self) -> Pending<Checkpoint> {
        self.queue.sign()
    }

    fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        self.view.ask(|tree, tiles| tree.inclusion_proof(index, size, tiles))
    }

    fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        self.view.ask(|tree, tiles| tree.consistency_proof(old, new, tiles))
    }

    fn nodes(&self, height: u32, range: Range<u64>) -> Result<Vec<Hash>, ReadError> {
        self.view.ask(|tree, tiles| range.clone().map(|number| tree.node(height, number, tiles)).collect())
    }

    fn root(&self, size: u64) -> Result<Hash, ReadError> {
        self.view.ask(|tree, tiles| tree.root_at(size, tiles))
    }

    fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    fn statistics(&self) -> Statistics {
        let (queued_batches, queued_bytes) = self.queue.depth();
        Statistics { queued_batches, queued_bytes, entries: self.size(), ..self.counters.snapshot() }
    }
}

/// The limits of a batch and its records.
fn check(batch: &[Record]) -> Result<(), SubmitError> {
    let invalid = |position, reason| Err(SubmitError::Invalid { position, reason });
    if batch.is_empty() {
        return invalid(0, "the batch is empty");
    }
    if batch.len() > BATCH_RECORDS_MAX {
        return invalid(BATCH_RECORDS_MAX, "a batch has at most 4,096 records");
    }
    for (position, record) in batch.iter().enumerate() {
        if record.bytes.is_empty() {
            return invalid(position, "the event is empty");
        }
        if record.bytes.len() > EVENT_BYTES_MAX {
            return invalid(position, "the event is longer than 65,535 bytes");
        }
        if record.producer.id.is_empty() || record.producer.id.len() > PRODUCER_ID_BYTES_MAX {
            return invalid(position, "the producer's id must have 1 to 128 bytes");
        }
    }
    Ok(())
}

/// Makes this process the only one that writes to `directory`.
/// How long a writer that is just ending may keep the lock: a restart right behind a stop is an everyday thing.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path: PathBuf = directory.join("lock");
    let failed = |source: io::Error| OpenError::Io { path: path.clone(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let mut locked = file.try_lock();
    let patience = Instant::now() + LOCK_PATIENCE;
    while matches!(locked, Err(TryLockError::WouldBlock)) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = file.take(20).read_to_string(&mut pid);
            let pid =
                if read.is_ok() && !pid.trim().is_empty() { pid.trim().to_owned() } else { "unknown".into() };
            return Err(OpenError::InUse { directory: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // For people only; the lock itself is what counts.
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
