//! A witness's own copy of a log, as it grows: fetched, looked at event by event, held against the log's signature, and
//! only then kept.

use std::path::Path;

use custody_core::clock::Clock;
use custody_core::log::embedded::OpenError;
use custody_core::log::embedded::import::{CopiedLog, Import, ImportError};
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Checkpoint, Hash, Log as _, Nanos, ReadError, VerifierKey};

use tokio::task::block_in_place;

use crate::inspect::{Finding, Inspector};
use crate::source::{BUNDLE_ENTRIES, FetchError, Fetched, Source, width};

/// Why the copy didn't get further.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The log doesn't give what it should have.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An event that no log of Custody holds. The copy was taken back to its last seal.
    #[error("entry {index} is not in order: {reason}")]
    Broken {
        /// Which.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// The entries that the log gives aren't those that it signed, or its signature is over another past. The copy was
    /// taken back to what was in order.
    #[error("the first {size} entries, as the log gives them, don't have the root that it signed for them")]
    Rewritten {
        /// The size of the checkpoint.
        size: u64,
    },
    /// The copy itself.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The copy can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// An event that isn't in order and is kept all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// Which.
    pub index: u64,
    /// What is odd.
    pub what: String,
}

/// A copy with what is known of its events.
pub struct LogCopy {
    import: Import,
    inspector: Inspector,
    /// Indices of broken events that somebody has looked at and accepted.
    accepted: Vec<u64>,
}

impl LogCopy {
    /// Opens the copy in `directory`, or begins one, of the log whose key is `key`. Each event is looked at again.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(directory: &Path, key: &VerifierKey, accepted: Vec<u64>) -> Result<LogCopy, OpenError> {
        let mut inspector = Inspector::new();
        let import = Import::begin(directory, key, &mut |index, appended, bytes| {
            // It was judged when it was copied; this is for the numbers.
            drop(inspector.look(index, appended, bytes, appended));
        })?;
        Ok(LogCopy { import, inspector, accepted })
    }

    /// How many entries there are, sealed or not.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.import.size()
    }

    /// The root that the log had at `size` entries, as far as the copy goes.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn root_at(&self, size: u64) -> Result<Hash, ReadError> {
        self.import.root_at(size)
    }

    /// What is sealed, for readers.
    #[must_use]
    pub fn log(&self) -> Option<CopiedLog> {
        self.import.log()
    }

    /// Brings the copy up to `checkpoint`, which the log signed, and seals it. Gives what was odd on the way.
    /// Needs a runtime with several threads. A copy that is that long already isn't touched; whether it is the same history is [`LogCopy::root_at`]'s to say.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub async fn up_to(
        &mut self,
        source: &Source,
        checkpoint: &Checkpoint,
        clock: &dyn Clock,
    ) -> Result<Vec<Noticed>, CopyError> {
        let mut noticed = Vec::new();
        while self.size() < checkpoint.size() {
            let entries = source.next(self.size(), checkpoint.size()).await?;
            noticed.extend(block_in_place(|| self.keep(&entries, clock.wall()))?);
        }
        if self.size() == checkpoint.size() {
            block_in_place(|| self.seal(checkpoint))?;
        }
        Ok(noticed)
    }

    fn keep(&mut self, entries: &[Fetched], now: Nanos) -> Result<Vec<Noticed>, CopyError> {
        let mut noticed = Vec::new();
        for Fetched { appended, bytes } in entries {
            let index = self.size();
            match self.inspector.look(index, *appended, bytes, now) {
                None => {}
                Some(Finding::Odd(what)) => noticed.push(Noticed { index, what }),
                Some(Finding::Broken(what)) if self.accepted.contains(&index) => {
                    noticed.push(Noticed { index, what: format!("{what}; it was accepted") });
                }
                Some(Finding::Broken(reason)) => {
                    self.take_back()?;
                    return Err(CopyError::Broken { index, reason });
                }
            }
            self.import.push(*appended, bytes)?;
        }
        Ok(noticed)
    }

    fn seal(&mut self, checkpoint: &Checkpoint) -> Result<(), CopyError> {
        match self.import.seal(checkpoint) {
            Ok(()) => Ok(()),
            Err(ImportError::Root { size, .. }) => {
                self.take_back()?;
                Err(CopyError::Rewritten { size })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Back to the last seal: nothing that isn't under the log's signature is kept.
    fn take_back(&mut self) -> Result<(), CopyError> {
        let mut inspector = Inspector::new();
        self.import.rewind(&mut |index, appended, bytes| {
            drop(inspector.look(index, appended, bytes, appended));
        })?;
        self.inspector = inspector;
        Ok(())
    }
}

/// The first index at which `source`, as a log of `size` entries, gives something else than `copy`; `None` if all that
/// both have is the same. Compares hashes of 256 entries first and reads the entries only where they differ.
///
/// # Errors
/// See [`CopyError`]; only for what can't be fetched or read.
pub async fn first_difference(
    copy: &CopiedLog,
    source: &Source,
    size: u64,
) -> Result<Option<u64>, CopyError> {
    let shared = size.min(copy.size());
    let full = shared / BUNDLE_ENTRIES;
    for tile in 0..full.div_ceil(BUNDLE_ENTRIES) {
        // As wide as the served log has it: narrower ones may be gone.
        let theirs = source.hashes(1, tile, width(tile, size / BUNDLE_ENTRIES)).await?;
        for (number, theirs) in (tile * BUNDLE_ENTRIES..full).zip(theirs) {
            if copy.nodes(8, number..number + 1)?.first() != Some(&theirs)
                && let Some(index) = differs_in(copy, source, number, size).await?
            {
                return Ok(Some(index));
            }
        }
    }
    for number in full..shared.div_ceil(BUNDLE_ENTRIES) {
        if let Some(index) = differs_in(copy, source, number, size).await? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The first entry of bundle `number` that is another one in `source`, as a log of `size` entries.
///
/// # Errors
/// See [`CopyError`].
pub async fn differs_in(
    copy: &CopiedLog,
    source: &Source,
    number: u64,
    size: u64,
) -> Result<Option<u64>, CopyError> {
    let first = number * BUNDLE_ENTRIES;
    let theirs = source.entries(number, width(number, size)).await?;
    let mut ours = copy.read(first, theirs.len(), usize::MAX)?;
    // A copy that is shorter has nothing to say about the rest.
    ours.truncate(theirs.len());
    let different =
        ours.iter().zip(&theirs).find(|(ours, theirs)| leaf_hash(&ours.bytes) != leaf_hash(theirs));
    Ok(different.map(|(ours, _)| ours.index))
}
