//! What the log's writer has counted since it was opened: for metrics, never for decisions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many bounds each distribution has.
const BOUNDS: usize = 15;

/// Upper bounds of a sync's duration in nanoseconds: from a fast disk's 50 µs to the second in which people complain.
pub const SYNC_BOUNDS_NS: [u64; BOUNDS] = [
    50_000,
    100_000,
    200_000,
    400_000,
    800_000,
    1_600_000,
    3_200_000,
    6_400_000,
    12_800_000,
    25_600_000,
    51_200_000,
    102_400_000,
    204_800_000,
    409_600_000,
    1_638_400_000,
];

/// Upper bounds of the events in one write.
pub const WRITE_BOUNDS_EVENTS: [u64; BOUNDS] =
    [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384];

/// How often values fell into each range. Several threads may read while one counts: the parts of a snapshot may then
/// differ by the value that is just being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many values were at most the bound of the same position and more than the one before. One more than there
    /// are bounds: the last counts what is beyond them all.
    pub counts: [u64; BOUNDS + 1],
    /// The sum of all values, in their unit.
    pub sum: u64,
}

impl Distribution {
    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A snapshot of what the writer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// How long each sync of a segment took, in nanoseconds; see [`SYNC_BOUNDS_NS`].
    pub sync_ns: Distribution,
    /// How many events each write held; see [`WRITE_BOUNDS_EVENTS`].
    pub write_events: Distribution,
    /// Batches that wait to be written.
    pub queued_batches: u64,
    /// Bytes that wait to be written, with a fixed overhead for each event.
    pub queued_bytes: u64,
    /// Durable entries.
    pub entries: u64,
    /// Bytes of records and headers in all segments. Space that was made ready ahead of the writer doesn't count.
    pub disk_bytes: u64,
}

#[derive(Debug, Default)]
struct Counted {
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Counted {
    fn add(&self, bounds: &[u64; BOUNDS], value: u64) {
        let at = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(value, Relaxed);
    }

    fn snapshot(&self) -> Distribution {
        let counts = std::array::from_fn(|at| self.counts.get(at).map_or(0, |count| count.load(Relaxed)));
        Distribution { counts, sum: self.sum.load(Relaxed) }
    }
}

/// What the writer counts into.
#[derive(Debug, Default)]
pub(super) struct Counters {
    sync_ns: Counted,
    write_events: Counted,
    disk_bytes: AtomicU64,
}

impl Counters {
    /// `disk_bytes` are in the segments already.
    pub fn new(disk_bytes: u64) -> Counters {
        Counters { disk_bytes: AtomicU64::new(disk_bytes), ..Counters::default() }
    }

    /// A write of `events` and `bytes` is durable; its sync took `sync`.
    pub fn wrote(&self, events: usize, bytes: usize, sync: Duration) {
        self.sync_ns.add(&SYNC_BOUNDS_NS, u64::try_from(sync.as_nanos()).unwrap_or(u64::MAX));
        self.write_events.add(&WRITE_BOUNDS_EVENTS, events as u64);
        self.disk_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A segment with a header of `bytes` was added.
    pub fn segment(&self, bytes: usize) {
        self.disk_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// What was counted so far; the rest is for its owner to add.
    pub fn snapshot(&self) -> Statistics {
        Statistics {
            sync_ns: self.sync_ns.snapshot(),
            write_events: self.write_events.snapshot(),
            disk_bytes: self.disk_bytes.load(Relaxed),
            ..Statistics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_under_the_first_bound_that_it_does_not_exceed() {
        let counted = Counted::default();
        for value in [0, 1, 2, 3, 4, 16_384, 16_385, u64::MAX / 2] {
            counted.add(&WRITE_BOUNDS_EVENTS, value);
        }
        let seen = counted.snapshot();
        assert_eq!((seen.counts[0], seen.counts[1], seen.counts[2]), (2, 1, 2));
        assert_eq!((seen.counts[BOUNDS - 1], seen.counts[BOUNDS]), (1, 2));
        assert_eq!((seen.count(), seen.sum), (8, 10 + 16_384 + 16_385 + u64::MAX / 2));
    }
}
