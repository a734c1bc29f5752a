//! The tamper-evident log: what it promises, and the parts that keep the promise.
//!
//! An entry's bytes are hashed into a Merkle tree ([`tree`]), the tree's size and root are signed
//! ([`checkpoint`]), and anybody can check offline that an event stands in the log ([`proof`]) and that a
//! directory holds what was signed ([`verify`]). [`embedded`] keeps all of it in one directory.

pub mod bundle;
pub mod checkpoint;
pub mod claim;
pub mod cosignature;
pub mod cosigned;
pub mod embedded;
pub mod keys;
pub mod note;
mod path;
pub mod producer;
pub mod proof;
pub mod served;
pub mod tile;
pub mod times;
pub mod tree;
pub mod verify;

use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

pub use self::checkpoint::Checkpoint;
pub use self::claim::{Claim, Counter};
pub use self::cosignature::{Cosigner, CosignerKey};
pub use self::cosigned::CosignedCheckpoints;
pub use self::embedded::{Distribution, SYNC_BOUNDS_NS, Statistics, WRITE_BOUNDS_EVENTS, durable};
pub use self::note::{Signer, VerifierKey};
pub use self::producer::{Batch, Durable, Numbering, Producer, ProducerError, Submitted};
pub use self::tree::Hash;
use self::tree::TreeError;
pub use crate::clock::Nanos;

/// The limit of a tlog-tiles entry, whose length is a `u16`.
pub const EVENT_BYTES_MAX: usize = 65_535;
/// A producer's id is a short name; its length is one byte in the record.
pub const PRODUCER_ID_BYTES_MAX: usize = 128;
/// The number of the first event of each boot of a producer. Another first number is reported as a gap.
pub const FIRST_SEQ: u64 = 0;

/// Which event of which producer this is. The log takes each key once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerKey {
    /// The producer's name, 1 to [`PRODUCER_ID_BYTES_MAX`] bytes.
    pub id: String,
    /// One run of the producer.
    pub boot: Uuid,
    /// Counts the events of this boot from [`FIRST_SEQ`] without gaps.
    pub seq: u64,
}

impl fmt::Display for ProducerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.id, self.boot, self.seq)
    }
}

/// What a producer hands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it comes from.
    pub producer: ProducerKey,
    /// The event's family: lets a fold skip entries without parsing them.
    pub tag: u8,
    /// The canonical event, 1 to [`EVENT_BYTES_MAX`] bytes. The log never looks into it. Shared with those who read it
    /// back soon.
    pub bytes: Bytes,
}

/// The log's word that a record is durable. Only the log makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[allow(clippy::manual_non_exhaustive, reason = "not even this crate makes one outside this module")]
pub struct Receipt {
    /// The entry's index.
    pub index: u64,
    /// When it was appended, by the log's clock; later than all before it.
    pub appended: Nanos,
    /// How many numbers of this producer's boot were skipped right before this one: a gap, to be told.
    pub gap: u64,
    /// Whether the log had this record already; then this is the old place.
    pub repeat: bool,
    made_by_the_log: (),
}

/// One entry as readers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// When it was appended; never decreases with the index, and grows with it in logs that this program wrote.
    pub appended: Nanos,
    /// The event's family.
    pub tag: u8,
    /// The canonical event.
    pub bytes: Bytes,
}

/// Why a batch wasn't taken. No number is used up and nothing is in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// More waits to be written than is allowed: slow down, try again.
    #[error("the log is overloaded: {queued_bytes} bytes wait to be written; try again later")]
    Overloaded {
        /// How much waits.
        queued_bytes: usize,
    },
    /// The disk (or a quota) is full. While that is so, one batch at a time is taken, to see whether there is room again.
    #[error("the log's disk is full: nothing was appended; free space on it")]
    DiskFull,
    /// A record breaks a limit, or the batch does.
    #[error("record {position} of the batch can't be appended: {reason}")]
    Invalid {
        /// The record's position in the batch.
        position: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The log takes nothing more until it is opened again.
    #[error("the log has stopped: {0}")]
    Stopped(String),
}

/// Why an append didn't end with receipts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log has another event under this number. Not appended; somebody numbers wrongly, or lies.
    #[error("{producer} is in the log already, at index {index}, with other bytes: refused")]
    Conflict {
        /// The number.
        producer: ProducerKey,
        /// Where the first one stands (or would have stood, in the same write).
        index: u64,
    },
    /// The number is smaller than the last one and isn't among those remembered. Not appended.
    #[error("{producer} comes after number {last} and is skipped or too old to be compared: refused")]
    Backwards {
        /// The number.
        producer: ProducerKey,
        /// The largest number that this boot has used.
        last: u64,
    },
    /// The disk (or a quota) is full; what was half written is taken back. Not appended. Later batches may be.
    #[error("the log's disk is full: nothing was appended; free space on it")]
    DiskFull,
    /// The log stopped before it wrote this. Not appended.
    #[error("the log has stopped: {0}")]
    Stopped(String),
    /// Writing or syncing failed: whether the batch is in the log will only be known after a restart.
    #[error("the log failed while it wrote this, so its fate is unknown: {0}")]
    Unknown(String),
}

impl AppendError {
    /// Whether the records may turn up in the log all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, AppendError::Unknown(_))
    }
}

/// Why entries or proofs can't be given.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk doesn't give it back.
    #[error("entry {index} can't be read from {path}: {source}")]
    Io {
        /// The first entry that is missing.
        index: u64,
        /// The segment.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What the disk gives back isn't what was written.
    #[error("entry {index} is damaged: {path}, byte {position}: {reason}")]
    Damaged {
        /// The first damaged entry.
        index: u64,
        /// The segment.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What doesn't fit.
        reason: &'static str,
    },
    /// There is no such entry or size yet.
    #[error("no such entry or size: wanted {wanted}, the log has {size}")]
    OutOfRange {
        /// What was asked.
        wanted: u64,
        /// What there is.
        size: u64,
    },
}

impl From<TreeError> for ReadError {
    fn from(error: TreeError) -> ReadError {
        match error {
            TreeError::OutOfRange { wanted, size } => ReadError::OutOfRange { wanted, size },
            TreeError::TileNeeded(tile) => {
                ReadError::OutOfRange { wanted: tile * tree::TILE_LEAVES, size: 0 }
            }
        }
    }
}

/// What was submitted and will be answered. Dropping it cancels nothing.
#[derive(Debug)]
#[must_use = "a record is durable only when this says so"]
pub struct Pending<T = Vec<Receipt>> {
    answer: oneshot::Receiver<Result<T, AppendError>>,
}

impl<T> Pending<T> {
    /// A question, and the side that answers it: for whoever implements [`Log`].
    pub(crate) fn new() -> (oneshot::Sender<Result<T, AppendError>>, Pending<T>) {
        let (sender, answer) = oneshot::channel();
        (sender, Pending { answer })
    }

    /// Waits on this thread; for code without a runtime. Don't call it on a runtime's worker thread.
    ///
    /// # Errors
    /// As the future.
    pub fn wait_blocking(mut self) -> Result<T, AppendError> {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| Err(AppendError::Unknown("its writer is gone".to_owned())))
        })
    }
}

/// An append-only log whose entries can be proved.
///
/// What an implementation promises:
/// - A [`Receipt`] is given only when the record and everything before it survive a crash of the machine.
/// - A batch is contiguous, and after a crash it is there whole or not at all. (Records of it that the log
///   had already keep their old places.)
/// - Order of submission is order in the log.
/// - An error whose [`AppendError::is_unknown`] is false means that the records are not in the log.
/// - A checkpoint is visible only when what it covers is durable.
pub trait Log: Send + Sync + 'static {
    /// Hands in a batch. Once this is `Ok` its fate doesn't depend on the caller any more.
    ///
    /// # Errors
    /// [`SubmitError`]: refused, not in the log.
    fn submit(&self, batch: Vec<Record>) -> Result<Pending, SubmitError>;

    /// As [`Log::submit`], and may use the space that is kept for the log's own last words when its disk is full: a
    /// quarter of a mebibyte, for saying so. A log without such a space takes it as any other, and so does one whose disk
    /// has room at that moment.
    ///
    /// # Errors
    /// As [`Log::submit`]; [`SubmitError::Overloaded`] also when another batch is in the way.
    fn submit_from_reserve(&self, batch: Vec<Record>) -> Result<Pending, SubmitError> {
        self.submit(batch)
    }

    /// As [`Log::submit`], or as [`Log::submit_from_reserve`], of a batch that was numbered by a counter of this process:
    /// its numbers are used up in the same step. A log that has to refuse the batch later, for lack of room, gives them back
    /// before it takes another one of theirs.
    ///
    /// # Errors
    /// As [`Log::submit`] or [`Log::submit_from_reserve`]; when numbers before these were given back meanwhile,
    /// [`SubmitError::DiskFull`], or from the reserve [`SubmitError::Overloaded`]: number the batch anew then.
    fn submit_claimed(
        &self,
        batch: Vec<Record>,
        claim: Claim,
        from_reserve: bool,
    ) -> Result<Pending, SubmitError> {
        let pending = if from_reserve { self.submit_from_reserve(batch)? } else { self.submit(batch)? };
        claim.take();
        Ok(pending)
    }

    /// How many entries are durable.
    fn size(&self) -> u64;

    /// The durable size, and each change of it. The last value stays when the log stops.
    fn follow(&self) -> watch::Receiver<u64>;

    /// Durable entries from index `from` on: at most `max_entries`, and no more than `max_bytes` of events
    /// unless the first alone is longer. Empty if `from` is the size (or more) or `max_entries` is zero.
    /// Blocks on the disk when it isn't about the newest entries.
    ///
    /// # Errors
    /// See [`ReadError`]. Entries before the one that can't be read are given first.
    fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, ReadError>;

    /// The newest signed checkpoint; what it covers is durable.
    fn checkpoint(&self) -> Checkpoint;

    /// The newest signed checkpoint, and each newer one.
    fn checkpoints(&self) -> watch::Receiver<Checkpoint>;

    /// A checkpoint that covers all that is durable now. Comes at once if there is one, and else within the
    /// tenth of a second that lies between two signatures.
    fn sign_now(&self) -> Pending<Checkpoint>;

    /// The audit path of entry `index` in the tree of `size` entries. May read from the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError>;

    /// The proof that the tree of `old` entries is a prefix of the one of `new`. May read from the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError>;

    /// The roots of complete subtrees of `2^height` entries, those with the numbers `range`: what tiles are made
    /// of. May read from the disk.
    ///
    /// # Errors
    /// See [`ReadError`]. A subtree that isn't complete yet is out of range.
    fn nodes(&self, height: u32, range: Range<u64>) -> Result<Vec<Hash>, ReadError>;

    /// The root of the tree of `size` entries. May read from the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn root(&self, size: u64) -> Result<Hash, ReadError>;

    /// The log's name: the first line of its checkpoints.
    fn origin(&self) -> &str {
        self.verifier_key().name()
    }

    /// The key that signs the checkpoints: what auditors pin.
    fn verifier_key(&self) -> &VerifierKey;

    /// What was counted since it was opened, for metrics.
    fn statistics(&self) -> Statistics;
}

impl Receipt {
    /// For the log alone.
    fn made(index: u64, appended: Nanos, gap: u64, repeat: bool) -> Receipt {
        Receipt { index, appended, gap, repeat, made_by_the_log: () }
    }
}
