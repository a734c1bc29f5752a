//! The ring's reader. The kernel wakes once for what comes into an empty ring: read until `next` gives nothing before waiting again.

use super::error::SensorError;
use super::load::open_map;
use super::pins::Generation;
use super::record::{Record, decode};
use aya::maps::{MapData, RingBuf};
use std::os::fd::{AsFd, BorrowedFd};

/// Owns the ring: there is one reader at a time.
pub struct RecordReader {
    ring: RingBuf<MapData>,
    /// Rings of generations that were handed over from: read to their end first, then removed.
    before: Vec<(RingBuf<MapData>, Generation)>,
}

impl RecordReader {
    pub(super) fn open(generation: &Generation, left: Vec<Generation>) -> Result<RecordReader, SensorError> {
        let mut before = Vec::new();
        for old in left {
            if old.map("records").exists() {
                before.push((open_map(&old, "records")?, old));
            } else {
                old.remove()?;
            }
        }
        Ok(RecordReader { ring: open_map(generation, "records")?, before })
    }
}

impl RecordReader {
    /// Gives the next record's bytes to `take`, and lets it go from the ring only when that has succeeded; `None`: there is none now. An
    /// agent that is killed in between finds that one record again, as the first.
    ///
    /// # Errors
    /// What `take` says; the record stays.
    pub fn next_bytes<T, E>(&mut self, take: impl FnOnce(&[u8]) -> Result<T, E>) -> Option<Result<T, E>> {
        self.leave_empty_rings();
        let ring = self.before.last_mut().map_or(&mut self.ring, |(ring, _)| ring);
        let item = ring.next()?;
        let taken = take(&item);
        if taken.is_err() {
            // Dropping it would release it.
            std::mem::forget(item);
        }
        Some(taken)
    }

    /// As [`RecordReader::next_bytes`], with the record decoded.
    ///
    /// # Errors
    /// What `keep` says; the record stays.
    pub fn keep<T, E>(&mut self, keep: impl FnOnce(Record) -> Result<T, E>) -> Option<Result<T, E>> {
        self.next_bytes(|bytes| keep(decode(bytes)))
    }

    /// Old generations' rings that have been read to their end go with what else is left of them.
    fn leave_empty_rings(&mut self) {
        while let Some((ring, _)) = self.before.last_mut() {
            if let Some(item) = ring.next() {
                std::mem::forget(item);
                return;
            }
            let emptied = self.before.pop();
            if emptied.is_some_and(|(_, old)| old.remove().is_err()) {
                // Detached and read to its end, it does no harm: the next start removes it.
                continue;
            }
        }
    }
}

impl Iterator for RecordReader {
    type Item = Record;

    /// The next record; `None`: there is none now, and there may be one later.
    fn next(&mut self) -> Option<Record> {
        self.keep(Ok::<Record, std::convert::Infallible>).and_then(Result::ok)
    }
}

impl AsFd for RecordReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
