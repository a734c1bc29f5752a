//! The ring's reader. The kernel wakes once for what comes into an empty ring: read until `next` gives nothing before waiting again.

use super::error::SensorError;
use super::load::open_map;
use super::pins::Generation;
use super::record::{Record, decode};
use aya::maps::ring_buf::RingBufItem;
use aya::maps::{MapData, RingBuf};
use std::convert::Infallible;
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
    /// Gives the next record's bytes to `take`; `None`: there is none now, and there may be one later. The record leaves the
    /// kernel's buffer when `take` has succeeded, and stays the next one when it hasn't.
    ///
    /// # Errors
    /// That of `take`.
    pub fn next_bytes<T, E>(&mut self, take: impl FnOnce(&[u8]) -> Result<T, E>) -> Option<Result<T, E>> {
        while let Some((ring, _)) = self.before.last_mut() {
            if let Some(item) = ring.next() {
                return Some(taken(item, take));
            }
            let emptied = self.before.pop();
            if emptied.is_some_and(|(_, old)| old.remove().is_err()) {
                // Detached and read to its end, it does no harm: the next start removes it.
                continue;
            }
        }
        self.ring.next().map(|item| taken(item, take))
    }
}

fn taken<T, E>(item: RingBufItem<'_>, take: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T, E> {
    let taken = take(&item);
    if taken.is_err() {
        // Its end is what moves the reader's place.
        std::mem::forget(item);
    }
    taken
}

impl Iterator for RecordReader {
    type Item = Record;

    /// The next record; `None`: there is none now, and there may be one later.
    fn next(&mut self) -> Option<Record> {
        self.next_bytes(|bytes| Ok::<_, Infallible>(decode(bytes))).map(|Ok(record)| record)
    }
}

impl AsFd for RecordReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
