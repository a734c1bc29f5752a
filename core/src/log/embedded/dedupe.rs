//! Which numbers of which producers the log has: each is taken once.
//!
//! For each boot of a producer the last number is kept, and where the most recent ones stand; whether a repeat
//! has the same bytes is looked up in the log itself.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::log::{FIRST_SEQ, ProducerKey};

/// Numbers of one boot whose places are remembered: more than any producer has under way.
const RECENT_MAX: usize = 4_096;
/// Places that are remembered in all, whatever the number of boots; 16 bytes each.
const RECENT_TOTAL_MAX: usize = 1 << 20;

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// It is the next one, after `gap` that were skipped.
    New { gap: u64 },
    /// It stands at this index already.
    Known { index: u64 },
    /// It is below the last one, and isn't remembered.
    Backwards { last: u64 },
}

#[derive(Debug, Default)]
struct Stream {
    last: Option<u64>,
    /// Number and index, both ascending.
    recent: VecDeque<(u64, u64)>,
    /// The newest index: which stream to forget first.
    newest: u64,
}

/// All numbers that were taken.
#[derive(Debug, Default)]
pub(super) struct Dedupe {
    /// By boot, which is random: more than one name under it is somebody's mistake, or malice.
    places: HashMap<Uuid, Vec<(Box<str>, usize)>>,
    streams: Vec<Stream>,
    remembered: usize,
    /// What was taken since the last [`Dedupe::settle`], to be undone if it doesn't become durable: the stream and its
    /// last number before.
    unsettled: Vec<(usize, Option<u64>)>,
}

impl Dedupe {
    pub fn new() -> Dedupe {
        Dedupe::default()
    }

    /// What `key`'s number means now.
    pub fn judge(&self, key: &ProducerKey) -> Number {
        let stream = self.place(&key.id, key.boot).and_then(|place| self.streams.get(place));
        let Some((stream, last)) = stream.and_then(|stream| Some((stream, stream.last?))) else {
            return Number::New { gap: key.seq - FIRST_SEQ };
        };
        if key.seq > last {
            return Number::New { gap: key.seq - last - 1 };
        }
        match stream.recent.binary_search_by_key(&key.seq, |(seq, _)| *seq) {
            Ok(at) => stream
                .recent
                .get(at)
                .map_or(Number::Backwards { last }, |&(_, index)| Number::Known { index }),
            Err(_) => Number::Backwards { last },
        }
    }

    /// Takes a new number for the entry at `index`.
    pub fn take(&mut self, key: &ProducerKey, index: u64) {
        let unsettled = self.note(&key.id, key.boot, key.seq, index);
        self.unsettled.push(unsettled);
    }

    /// Takes the number of an entry that the log has.
    pub fn recover(&mut self, producer: &str, boot: Uuid, seq: u64, index: u64) {
        let (place, _) = self.note(producer, boot, seq, index);
        self.trim(place);
        self.forget();
    }

    /// How much is unsettled, for [`Dedupe::undo`].
    pub fn mark(&self) -> usize {
        self.unsettled.len()
    }

    /// Gives back what was taken since `mark`.
    pub fn undo(&mut self, mark: usize) {
        while self.unsettled.len() > mark {
            let Some((place, before)) = self.unsettled.pop() else { return };
            if let Some(stream) = self.streams.get_mut(place) {
                stream.last = before;
                if stream.recent.pop_back().is_some() {
                    self.remembered -= 1;
                }
            }
        }
    }

    /// What was taken is durable.
    pub fn settle(&mut self) {
        while let Some((place, _)) = self.unsettled.pop() {
            self.trim(place);
        }
        self.forget();
    }

    fn place(&self, name: &str, boot: Uuid) -> Option<usize> {
        self.places.get(&boot)?.iter().find(|(known, _)| **known == *name).map(|(_, place)| *place)
    }

    /// Notes a number; gives its stream and what was its last number.
    fn note(&mut self, name: &str, boot: Uuid, seq: u64, index: u64) -> (usize, Option<u64>) {
        let place = self.place(name, boot).unwrap_or_else(|| {
            self.places.entry(boot).or_default().push((name.into(), self.streams.len()));
            self.streams.push(Stream::default());
            self.streams.len() - 1
        });
        let Some(stream) = self.streams.get_mut(place) else { return (place, None) };
        let before = stream.last;
        stream.last = Some(before.map_or(seq, |last| last.max(seq)));
        stream.recent.push_back((seq, index));
        stream.newest = index;
        self.remembered += 1;
        (place, before)
    }

    /// Forgets the oldest of a stream that has many. Nothing of it is unsettled.
    fn trim(&mut self, place: usize) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        while stream.recent.len() > RECENT_MAX {
            stream.recent.pop_front();
            self.remembered -= 1;
        }
    }

    /// Keeps memory bounded where there are many streams. Only called when nothing is unsettled.
    fn forget(&mut self) {
        if self.remembered <= RECENT_TOTAL_MAX {
            return;
        }
        // Rare, and it makes room for a quarter: those go first that were silent longest.
        let mut streams: Vec<&mut Stream> = self.streams.iter_mut().collect();
        streams.sort_by_key(|stream| stream.newest);
        let mut remembered = 0;
        for stream in streams.iter_mut().rev() {
            let room = (RECENT_TOTAL_MAX - RECENT_TOTAL_MAX / 4 - remembered).min(RECENT_MAX);
            let excess = stream.recent.len().saturating_sub(room);
            stream.recent.drain(..excess);
            stream.recent.shrink_to_fit();
            remembered += stream.recent.len();
        }
        self.remembered = remembered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u64) -> ProducerKey {
        ProducerKey { id: "p".to_owned(), boot: Uuid::from_u128(1), seq }
    }

    #[test]
    fn one_boot_takes_little_memory_and_what_is_forgotten_is_refused_not_taken_twice() {
        let mut dedupe = Dedupe::new();
        let count = 3 * RECENT_MAX as u64;
        for seq in 0..count {
            if seq < count / 2 {
                dedupe.recover("p", Uuid::from_u128(1), seq, seq);
            } else {
                dedupe.take(&key(seq), seq);
            }
        }
        dedupe.settle();
        assert_eq!(dedupe.remembered, RECENT_MAX);
        let oldest = count - RECENT_MAX as u64;
        assert_eq!(dedupe.judge(&key(oldest - 1)), Number::Backwards { last: count - 1 });
        assert_eq!(dedupe.judge(&key(oldest)), Number::Known { index: oldest });
        assert_eq!(dedupe.judge(&key(count)), Number::New { gap: 0 });
    }

    #[test]
    fn many_boots_take_bounded_memory_and_those_that_speak_are_remembered() {
        let mut dedupe = Dedupe::new();
        let boots = (RECENT_TOTAL_MAX / RECENT_MAX) as u128 + 2;
        let mut index = 0;
        for boot in 1..=boots {
            for seq in 0..RECENT_MAX as u64 {
                dedupe.recover("p", Uuid::from_u128(boot), seq, index);
                index += 1;
            }
        }
        assert!(dedupe.remembered <= RECENT_TOTAL_MAX);
        let last = RECENT_MAX as u64 - 1;
        assert_eq!(dedupe.judge(&key(last)), Number::Backwards { last }, "silent longest");
        let newest = ProducerKey { boot: Uuid::from_u128(boots), ..key(0) };
        assert_eq!(dedupe.judge(&newest), Number::Known { index: index - RECENT_MAX as u64 });
    }

    #[test]
    fn what_is_undone_was_never_taken() {
        let mut dedupe = Dedupe::new();
        dedupe.recover("p", Uuid::from_u128(1), 0, 0);
        let mark = dedupe.mark();
        dedupe.take(&key(1), 1);
        dedupe.take(&key(5), 2);
        assert_eq!(dedupe.judge(&key(5)), Number::Known { index: 2 });
        dedupe.undo(mark);
        assert_eq!(dedupe.judge(&key(1)), Number::New { gap: 0 });
        assert_eq!(dedupe.judge(&key(0)), Number::Known { index: 0 });
        assert_eq!(dedupe.remembered, 1);
    }
}
