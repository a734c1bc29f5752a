//! Of which events the log says that a sink refused them.

use custody_core::event::{Event, Family, Payload};
use custody_core::log::{Log, ReadError};
use std::collections::BTreeMap;

/// How much of the log is read at once.
const ENTRIES: usize = 1_000;
const BYTES: usize = 4 << 20;

/// Of which events the log says that a sink refused them. The file lies beside the log, where nobody would notice who else
/// writes into it: what it says alone proves nothing.
///
/// Ranges that don't touch, the last of each by its first.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<u64, u64>);

impl Told {
    /// Of events from `from` on: what tells of one comes after it.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read(log: &dyn Log, sink: &str, from: u64) -> Result<Self, ReadError> {
        let (mut told, mut next) = (Self::default(), from);
        while let Some(behind) = told.read_on(log, sink, next)? {
            next = behind;
        }
        Ok(told)
    }

    /// Takes in what a part of the log tells, from `from` on. Gives where the next part begins, and nothing at the log's end.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read_on(&mut self, log: &dyn Log, sink: &str, from: u64) -> Result<Option<u64>, ReadError> {
        let entries = log.read(from, ENTRIES, BYTES)?;
        for entry in entries.iter().filter(|entry| entry.tag == Family::Sink.tag()) {
            if let Ok(event) = Event::parse(&entry.bytes)
                && let Payload::SinkRejected(rejected) = event.payload()
                && rejected.sink == sink
                // Else nobody knows which of them.
                && rejected.last.checked_sub(rejected.first).map(|more| more + 1) == Some(rejected.count)
            {
                self.add(rejected.first, rejected.last);
            }
        }
        Ok(entries.last().map(|last| last.index + 1))
    }

    /// Takes in what it overlaps, and what it touches.
    fn add(&mut self, mut first: u64, mut last: u64) {
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back()
            && to.saturating_add(1) >= first
        {
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
    }

    /// Whether it says so of this one.
    #[must_use]
    pub fn of(&self, index: u64) -> bool {
        self.0.range(..=index).next_back().is_some_and(|(_, last)| index <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_was_told_is_known_whatever_its_order_and_overlaps(
            ranges in proptest::collection::vec((0_u64..60, 0_u64..9), 0..20),
        ) {
            let mut told = Told::default();
            ranges.iter().for_each(|(first, more)| told.add(*first, first + more));
            for index in 0..70 {
                let among = ranges.iter().any(|(first, more)| (*first..=first + more).contains(&index));
                proptest::prop_assert_eq!(told.of(index), among);
            }
            let apart = told.0.iter().zip(told.0.keys().skip(1)).all(|((_, last), next)| last + 1 < *next);
            proptest::prop_assert!(apart);
        }
    }

    #[test]
    fn what_was_told_of_all_there_can_be_is_one_range() {
        let mut told = Told::default();
        told.add(3, u64::MAX);
        told.add(0, 2);
        assert!(told.of(0) && told.of(u64::MAX) && told.0.len() == 1);
    }
}
