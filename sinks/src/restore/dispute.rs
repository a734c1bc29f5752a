//! Indexes of which destinations hold several entries, each with its own leaf hash: after the log's end was lost and its
//! indexes were used again, or since somebody wrote into a destination what was never in the log.

use super::{Copied, Ways, whole};
use crate::sink::{DOCUMENT_BYTES, Held};
use custody_core::log::Entry;
use std::collections::BTreeMap;

/// Indexes of which several entries are kept.
const INDEXES_MAX: usize = 4_096;
/// Entries that are kept of one index.
const EACH_MAX: usize = 16;
/// What all of them take, in bytes.
const BYTES_MAX: usize = 64 << 20;

/// What destinations hold otherwise than it was taken, with what was taken.
#[derive(Debug, Default)]
pub struct Disputes {
    /// Of each index the entry that was taken, and behind it the others, the earliest first.
    by_index: BTreeMap<u64, Vec<Copied>>,
    bytes: usize,
    is_full: bool,
}

impl Disputes {
    /// Compares documents that claim the index of `taken` with it.
    pub fn compare(&mut self, taken: &Entry, documents: &[Held]) {
        for document in documents {
            if document.original.as_deref() == Some(&*taken.bytes) {
                continue;
            }
            if let Ok(other) = whole(document) {
                self.add(taken, other);
            }
        }
    }

    fn add(&mut self, taken: &Entry, other: Copied) {
        let known: &[Copied] = self.by_index.get(&taken.index).map_or(&[], Vec::as_slice);
        if known.iter().any(|copied| copied.bytes == other.bytes) {
            return;
        }
        let mut bytes = DOCUMENT_BYTES + other.bytes.len();
        if known.is_empty() {
            bytes += DOCUMENT_BYTES + taken.bytes.len();
        }
        let is_crowded = known.len() >= EACH_MAX || (known.is_empty() && self.by_index.len() >= INDEXES_MAX);
        if is_crowded || self.bytes + bytes > BYTES_MAX {
            self.is_full = true;
            return;
        }
        self.bytes += bytes;
        let first = || vec![Copied { appended: taken.appended, bytes: taken.bytes.to_vec() }];
        let entries = self.by_index.entry(taken.index).or_insert_with(first);
        entries.push(other);
        if let Some((_taken, others)) = entries.split_first_mut() {
            others.sort_by_key(|copied| copied.appended);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }

    /// Whether there were more than are kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// All of them: of each index what may be its entry, first what was taken.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[Copied])> {
        self.by_index.iter().map(|(index, entries)| (*index, entries.as_slice()))
    }

    /// Adds the next entry to `ways`: `taken`, or what else may be at its index.
    pub fn follow(&self, ways: &mut Ways, taken: &Entry) {
        match self.by_index.get(&taken.index) {
            Some(entries) => ways.branch(entries),
            None => ways.push(taken.appended, &taken.bytes),
        }
    }

    /// The entries that these picks mean, one for each index, as [`Ways::giving`] gives them.
    #[must_use]
    pub fn picked(&self, picks: &[u8]) -> BTreeMap<u64, Copied> {
        let picked = self.by_index.iter().zip(picks);
        picked
            .filter_map(|((index, entries), pick)| Some((*index, entries.get(usize::from(*pick))?.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{event, held, of_event};
    use super::*;
    use custody_core::clock::Nanos;

    fn entry(index: u64, appended: u64) -> Entry {
        Entry { index, appended: Nanos(appended), tag: 0, bytes: event(index).into() }
    }

    #[test]
    fn what_is_otherwise_is_kept_behind_what_was_taken_the_earliest_first() {
        let mut disputes = Disputes::default();
        let altered = Held { original: Some(event(4)), ..held(3, 30) };
        disputes.compare(&entry(3, 30), &[held(3, 30), held(3, 31), altered]);
        assert!(disputes.is_empty(), "the same, and what proves nothing");
        disputes.compare(&entry(3, 30), &[of_event(8, 3, 35), held(3, 30), of_event(9, 3, 32)]);
        disputes.compare(&entry(3, 30), &[of_event(9, 3, 32)]);
        disputes.compare(&entry(5, 50), &[held(5, 50)]);
        let all: Vec<(u64, Vec<Vec<u8>>)> = disputes
            .iter()
            .map(|(index, entries)| (index, entries.iter().map(|copied| copied.bytes.clone()).collect()))
            .collect();
        assert_eq!(all, [(3, vec![event(3), event(9), event(8)])]);
        let picked = disputes.picked(&[2]);
        assert_eq!(picked, BTreeMap::from([(3, Copied { appended: Nanos(35), bytes: event(8) })]));
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut disputes = Disputes::default();
        for number in 0..20 {
            disputes.compare(&entry(3, 30), &[of_event(100 + number, 3, 30)]);
        }
        let kept: Vec<usize> = disputes.iter().map(|(_, entries)| entries.len()).collect();
        assert_eq!((kept, disputes.is_full()), (vec![EACH_MAX], true));
    }
}
