//! Which numbers of which producers the log has: each is taken once.
//!
//! For each boot of a producer the last number is kept, and where the most recent ones stand; whether a repeat
//! has the same bytes is looked up in the log itself. A batch is contiguous in both, so a run of numbers that stand one
//! behind the other takes no more memory than one of them.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::log::{FIRST_SEQ, ProducerKey};

/// Runs of one boot that are remembered: more than any producer has under way.
const RUNS_MAX: usize = 4_096;
/// Runs of one boot that are remembered however many boots there are: who was cut off sends again what it sent last.
const RUNS_KEPT: usize = 4;
/// Runs that are remembered in all, if that isn't less than twice [`RUNS_KEPT`] for each boot; 24 bytes each.
const RUNS_TOTAL_MAX: usize = 1 << 19;

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

/// Numbers that stand one behind the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The first of them.
    seq: u64,
    /// Where it stands.
    index: u64,
    /// How many there are; never zero.
    length: u64,
}

impl Run {
    /// Where `seq` stands, if it is one of them.
    fn index_of(&self, seq: u64) -> Option<u64> {
        let offset = seq.checked_sub(self.seq).filter(|offset| *offset < self.length)?;
        self.index.checked_add(offset)
    }

    /// Whether this number at this index comes right behind them.
    fn is_followed_by(&self, seq: u64, index: u64) -> bool {
        self.seq.checked_add(self.length) == Some(seq) && self.index.checked_add(self.length) == Some(index)
    }
}

#[derive(Debug, Default)]
struct Stream {
    last: Option<u64>,
    /// The newest at the end; numbers and indexes ascend.
    runs: VecDeque<Run>,
}

impl Stream {
    /// Adds the largest number so far; gives how many runs there are more.
    fn push(&mut self, seq: u64, index: u64) -> usize {
        self.last = Some(seq);
        match self.runs.back_mut() {
            Some(run) if run.is_followed_by(seq, index) => {
                run.length += 1;
                0
            }
            _ => {
                self.runs.push_back(Run { seq, index, length: 1 });
                1
            }
        }
    }

    /// Takes back the largest number, before which `before` was; gives how many runs there are fewer.
    fn pop(&mut self, before: Option<u64>) -> usize {
        self.last = before;
        match self.runs.back_mut() {
            Some(run) if run.length > 1 => {
                run.length -= 1;
                0
            }
            _ => usize::from(self.runs.pop_back().is_some()),
        }
    }

    /// Forgets all but the newest `kept` runs; gives how many there are fewer.
    fn keep(&mut self, kept: usize) -> usize {
        let excess = self.runs.len().saturating_sub(kept);
        self.runs.drain(..excess);
        excess
    }
}

/// All numbers that were taken.
#[derive(Debug, Default)]
pub(super) struct Dedupe {
    /// By boot, which is random: more than one name under it is somebody's mistake, or malice.
    places: HashMap<Uuid, Vec<(Box<str>, usize)>>,
    streams: Vec<Stream>,
    /// Runs in all of them.
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
        let behind = stream.runs.partition_point(|run| run.seq <= key.seq);
        let run = behind.checked_sub(1).and_then(|at| stream.runs.get(at));
        match run.and_then(|run| run.index_of(key.seq)) {
            Some(index) => Number::Known { index },
            None => Number::Backwards { last },
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
            if let Some(stream) = self.streams.get_mut(place).filter(|stream| stream.last != before) {
                self.remembered -= stream.pop(before);
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
        // A log that others wrote may hold a number twice: the first counts.
        if before.is_none_or(|last| seq > last) {
            self.remembered += stream.push(seq, index);
        }
        (place, before)
    }

    /// Forgets the oldest of a stream that has many. Nothing of it is unsettled.
    fn trim(&mut self, place: usize) {
        if let Some(stream) = self.streams.get_mut(place) {
            self.remembered -= stream.keep(RUNS_MAX);
        }
    }

    /// Keeps memory bounded where there are many streams: each keeps its newest. Only called when nothing is unsettled.
    fn forget(&mut self) {
        let kept_max = RUNS_KEPT.saturating_mul(self.streams.len());
        if self.remembered <= RUNS_TOTAL_MAX.max(2 * kept_max) {
            return;
        }
        // Rare, and it makes room for a quarter at least, or for as many as each keeps.
        let mut kept = RUNS_MAX;
        loop {
            let left: usize = self.streams.iter().map(|stream| stream.runs.len().min(kept)).sum();
            if kept <= RUNS_KEPT || left <= RUNS_TOTAL_MAX - RUNS_TOTAL_MAX / 4 {
                break;
            }
            kept /= 2;
        }
        for stream in &mut self.streams {
            self.remembered -= stream.keep(kept);
            stream.runs.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u64) -> ProducerKey {
        ProducerKey { id: "p".to_owned(), boot: Uuid::from_u128(1), seq }
    }

    #[test]
    fn a_boot_that_is_alone_is_remembered_whole_by_one_run() {
        let mut dedupe = Dedupe::new();
        for seq in 0..100_000 {
            if seq % 2 == 0 {
                dedupe.recover("p", Uuid::from_u128(1), seq, seq + 7);
            } else {
                dedupe.take(&key(seq), seq + 7);
            }
        }
        dedupe.settle();
        assert_eq!(dedupe.remembered, 1);
        for seq in [0, 1, 4_711, 99_999] {
            assert_eq!(dedupe.judge(&key(seq)), Number::Known { index: seq + 7 });
        }
        assert_eq!(dedupe.judge(&key(100_000)), Number::New { gap: 0 });
    }

    #[test]
    fn one_boot_takes_little_memory_and_what_is_forgotten_is_refused_not_taken_twice() {
        let mut dedupe = Dedupe::new();
        let count = 3 * RUNS_MAX as u64;
        for seq in 0..count {
            // Something of others stands between any two of them.
            if seq < count / 2 {
                dedupe.recover("p", Uuid::from_u128(1), seq, 2 * seq);
            } else {
                dedupe.take(&key(seq), 2 * seq);
            }
        }
        dedupe.settle();
        assert_eq!(dedupe.remembered, RUNS_MAX);
        let oldest = count - RUNS_MAX as u64;
        assert_eq!(dedupe.judge(&key(oldest - 1)), Number::Backwards { last: count - 1 });
        assert_eq!(dedupe.judge(&key(oldest)), Number::Known { index: 2 * oldest });
        assert_eq!(dedupe.judge(&key(count)), Number::New { gap: 0 });
    }

    /// As agents write that are all under way: none stands right behind its own.
    #[test]
    fn many_boots_take_bounded_memory_and_each_is_remembered() {
        let mut dedupe = Dedupe::new();
        let (boots, each) = (300_u64, 4_096_u64);
        for seq in 0..each {
            for boot in 0..boots {
                dedupe.recover("p", Uuid::from_u128(u128::from(boot)), seq, seq * boots + boot);
            }
        }
        assert!(dedupe.remembered <= RUNS_TOTAL_MAX, "{}", dedupe.remembered);
        for boot in 0..boots {
            let key = |seq| ProducerKey { boot: Uuid::from_u128(u128::from(boot)), ..key(seq) };
            for seq in each - 100..each {
                assert_eq!(dedupe.judge(&key(seq)), Number::Known { index: seq * boots + boot });
            }
            assert_eq!(dedupe.judge(&key(0)), Number::Backwards { last: each - 1 });
            assert_eq!(dedupe.judge(&key(each)), Number::New { gap: 0 });
        }
    }

    /// A boot that has ended long ago may still be sent again: its agent was away.
    #[test]
    fn a_boot_that_is_silent_is_remembered_by_its_end_however_many_come_after_it() {
        let mut dedupe = Dedupe::new();
        let (boots, each) = ((RUNS_TOTAL_MAX / RUNS_KEPT / 2) as u64, 4 * RUNS_KEPT as u64);
        let index_of = |boot: u64, seq: u64| 2 * (boot * each + seq);
        for boot in 0..boots {
            for seq in 0..each {
                dedupe.recover("p", Uuid::from_u128(u128::from(boot)), seq, index_of(boot, seq));
            }
        }
        assert!(dedupe.remembered <= RUNS_TOTAL_MAX, "{}", dedupe.remembered);
        for boot in [0, 1, boots / 2, boots - 1] {
            for seq in each - RUNS_KEPT as u64..each {
                let key = ProducerKey { boot: Uuid::from_u128(u128::from(boot)), ..key(seq) };
                assert_eq!(dedupe.judge(&key), Number::Known { index: index_of(boot, seq) });
            }
        }
    }

    #[test]
    fn of_a_number_that_stands_twice_the_first_counts() {
        let mut dedupe = Dedupe::new();
        for (seq, index) in [(0, 0), (5, 1), (2, 2), (5, 3), (6, 4)] {
            dedupe.recover("p", Uuid::from_u128(1), seq, index);
        }
        assert_eq!(dedupe.judge(&key(5)), Number::Known { index: 1 });
        assert_eq!(dedupe.judge(&key(2)), Number::Backwards { last: 6 });
        assert_eq!(dedupe.judge(&key(6)), Number::Known { index: 4 });
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
        // Of two that follow one another only the second.
        dedupe.take(&key(1), 1);
        let mark = dedupe.mark();
        dedupe.take(&key(2), 2);
        dedupe.undo(mark);
        assert_eq!(dedupe.judge(&key(2)), Number::New { gap: 0 });
        assert_eq!(dedupe.judge(&key(1)), Number::Known { index: 1 });
        assert_eq!(dedupe.remembered, 1);
    }
}
