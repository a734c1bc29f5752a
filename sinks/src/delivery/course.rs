//! What is done of a part of the log, when batches are done in any order.

use custody_core::clock::Nanos;
use std::collections::BTreeMap;
use std::ops::Range;

/// The end of something that is done: its last leaf and when that was appended.
pub(super) type End = ([u8; 32], Nanos);

/// One way through the log, from its beginning to its end; without an end for as long as the log grows.
#[derive(Debug)]
pub(super) struct Course {
    /// Everything below is done.
    next: u64,
    /// The next one to be read.
    read: u64,
    /// Where it ends.
    to: Option<u64>,
    /// Everything below may have been sent before.
    in_doubt_below: u64,
    /// Done, but for something before it: start → end.
    done: BTreeMap<u64, (u64, End)>,
}

impl Course {
    pub fn new(from: u64, to: Option<u64>, in_doubt_below: u64) -> Self {
        Self { next: from, read: from, to, in_doubt_below, done: BTreeMap::new() }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn to(&self) -> Option<u64> {
        self.to
    }

    /// What is to be read next of a log of `size` entries, if anything.
    pub fn wanted(&self, size: u64) -> Option<u64> {
        (self.read < self.to.unwrap_or(size).min(size)).then_some(self.read)
    }

    /// How many were read from the first one on that isn't done.
    pub fn ahead(&self) -> u64 {
        self.read - self.next
    }

    pub fn was_read(&mut self, to: u64) {
        self.read = to;
    }

    pub fn is_in_doubt(&self, index: u64) -> bool {
        index < self.in_doubt_below
    }

    /// Everything that isn't done and lies below may have been sent before, by an earlier run.
    pub fn in_doubt_below(&self) -> u64 {
        self.in_doubt_below
    }

    /// A batch is done. If all before it are, the course moves, and its new end is given.
    pub fn is_done(&mut self, batch: Range<u64>, end: End) -> Option<End> {
        self.done.insert(batch.start, (batch.end, end));
        let mut moved = None;
        while let Some((to, end)) = self.done.remove(&self.next) {
            self.next = to;
            moved = Some(end);
        }
        moved
    }

    pub fn is_over(&self) -> bool {
        self.to.is_some_and(|to| self.next >= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: End = ([0; 32], Nanos(0));

    #[test]
    fn it_moves_only_over_what_is_done() {
        let mut course = Course::new(10, None, 15);
        assert_eq!((course.wanted(10), course.wanted(11)), (None, Some(10)));
        course.was_read(40);
        assert_eq!(course.ahead(), 30);
        assert_eq!(course.is_done(20..30, END), None);
        assert_eq!(course.next(), 10);
        assert_eq!(course.is_done(10..20, ([1; 32], Nanos(1))), Some(END));
        assert_eq!((course.next(), course.ahead()), (30, 10));
        assert!(course.is_in_doubt(14) && !course.is_in_doubt(15));
        assert!(!course.is_over());
    }

    #[test]
    fn a_replay_ends() {
        let mut course = Course::new(0, Some(5), 5);
        assert_eq!(course.wanted(100), Some(0));
        course.was_read(5);
        assert_eq!(course.wanted(100), None);
        assert!(course.is_done(0..5, END).is_some() && course.is_over());
    }
}
