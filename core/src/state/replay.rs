//! The state at any moment of the past: the log from its first entry up to a time of appending.

use super::{OutOfOrder, State};
use crate::event::Timestamp;
use crate::log::{Entry, Log, ReadError};

/// How many entries are read at once.
pub const BATCH_ENTRIES: usize = 1024;

/// How many bytes of events are read at once: memory doesn't grow with the log.
pub const BATCH_BYTES: usize = 4 << 20;

/// Why replay stops.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log can't be read.
    #[error("the state can't be derived from the log: {0}")]
    Read(#[from] ReadError),
    /// The log gave another entry than was asked for: a mistake in this program.
    #[error("{0}")]
    OutOfOrder(#[from] OutOfOrder),
    /// The log gave nothing though it says that there is more: a mistake in this program.
    #[error("the log says that it holds {size} entries and gives none from {from} on")]
    Silent {
        /// What was asked.
        from: u64,
        /// What it says.
        size: u64,
    },
}

impl State {
    /// Applies the next entry. Pure and total: nothing that the entry holds is an error.
    ///
    /// # Errors
    /// [`OutOfOrder`] when it isn't the next one; the state is unchanged then.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), OutOfOrder> {
        self.apply_bytes(entry.index, Timestamp::from_nanos(entry.appended.0), entry.tag, &entry.bytes)
    }
}

/// The state after all entries that are durable now, or after those that were appended at `until` or before.
/// `progress` is told how many entries are applied and how many there are, once for each batch.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay(
    log: &dyn Log,
    until: Option<Timestamp>,
    mut progress: impl FnMut(u64, u64),
) -> Result<State, ReplayError> {
    let size = log.size();
    let mut state = State::new();
    while state.size() < size {
        let batch = next_batch(log, state.size(), size)?;
        for entry in &batch {
            if until.is_some_and(|until| Timestamp::from_nanos(entry.appended.0) > until) {
                return Ok(state);
            }
            state.apply(entry)?;
        }
        progress(state.size(), size);
    }
    Ok(state)
}

/// Some entries from `from` on and below `size`; never none.
pub(super) fn next_batch(log: &dyn Log, from: u64, size: u64) -> Result<Vec<Entry>, ReplayError> {
    let wanted = usize::try_from(size.saturating_sub(from)).unwrap_or(BATCH_ENTRIES).min(BATCH_ENTRIES);
    let batch = log.read(from, wanted, BATCH_BYTES)?;
    if batch.is_empty() { Err(ReplayError::Silent { from, size }) } else { Ok(batch) }
}
