//! What lies where in the topic: read once from end to end, and then any window of the log is a few short stretches.
//!
//! Records of a partition are nearly in the order of their times, and need not be: what was sent again lies at the end, and
//! others may put there what they like. So the map keeps, of each few records, between which times and which indexes they
//! claim to be. It grows at its end, since what is in Kafka never changes.

use crate::record::Claim;
use custody_core::clock::Nanos;
use custody_sinks::sink::Window;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

/// Records that are looked at as one: a hundred bytes of memory for them.
const BLOCK_RECORDS: usize = 128;

/// Some records of a partition that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    /// The first one's offset.
    first: i64,
    /// The last one's.
    last: i64,
    /// How many there are; others lie between them where transactions end.
    records: usize,
    /// Between which times, and of those that claim one, between which indexes.
    claims: Option<Claims>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Claims {
    times: RangeInclusive<Nanos>,
    indexes: Option<RangeInclusive<u64>>,
}

/// Records that have to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first one's offset.
    pub first: i64,
    /// The last one's.
    pub last: i64,
    /// How many there are.
    pub records: usize,
}

/// What is known of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The oldest offset that there was when it was last asked: what lay before is deleted.
    pub low: i64,
    /// Where reading began.
    start: i64,
    /// Everything before is known.
    pub next: i64,
    /// The time of the first record.
    first: Option<Nanos>,
    blocks: Vec<Block>,
}

impl Part {
    /// Nothing of it is read yet.
    #[must_use]
    pub fn new(low: i64, start: i64) -> Self {
        Self { low, start, next: start, first: None, blocks: Vec::new() }
    }

    /// The next record, and what it claims; nothing where it is another log's.
    pub fn add(&mut self, offset: i64, claim: Option<&Claim>) {
        self.next = offset.saturating_add(1);
        let time = claim.map(|claim| claim.appended);
        self.first = self.first.or(time);
        match self.blocks.last_mut().filter(|block| block.records < BLOCK_RECORDS) {
            Some(block) => block.add(offset, claim),
            None => {
                let mut block = Block { first: offset, last: offset, records: 0, claims: None };
                block.add(offset, claim);
                self.blocks.push(block);
            }
        }
    }

    /// Everything before is known: what wasn't handed over is nobody's record.
    pub fn is_known_up_to(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// Whether records that may belong to the window are deleted.
    #[must_use]
    pub fn may_have_lost(&self, window: &Window) -> bool {
        // What lay before what was read is older than all windows that are asked for; what is deleted is older than what
        // is left, where nobody has put records there out of order.
        self.low > 0
            && self.start <= self.low
            && self.first.is_none_or(|first| window.appended.start <= first)
    }

    /// Whether the map still fits what the brokers have.
    #[must_use]
    pub fn fits(&self, low: i64, high: i64) -> bool {
        high >= self.next && self.blocks.first().is_none_or(|block| block.first >= low)
    }

    /// Where records lie that may belong to the window.
    #[must_use]
    pub fn stretches(&self, window: &Window) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut follows = false;
        for block in &self.blocks {
            if !block.concerns(window) {
                follows = false;
                continue;
            }
            match stretches.last_mut().filter(|_| follows) {
                Some(stretch) => {
                    stretch.last = block.last;
                    stretch.records += block.records;
                }
                None => {
                    stretches.push(Stretch { first: block.first, last: block.last, records: block.records })
                }
            }
            follows = true;
        }
        stretches
    }
}

impl Block {
    fn add(&mut self, offset: i64, claim: Option<&Claim>) {
        self.last = offset;
        self.records += 1;
        let Some(claim) = claim else { return };
        let time = claim.appended;
        let claims = self.claims.get_or_insert(Claims { times: time..=time, indexes: None });
        claims.times = (*claims.times.start()).min(time)..=(*claims.times.end()).max(time);
        if let Some(index) = claim.index {
            let indexes = claims.indexes.take().unwrap_or(index..=index);
            claims.indexes = Some((*indexes.start()).min(index)..=(*indexes.end()).max(index));
        }
    }

    fn concerns(&self, window: &Window) -> bool {
        self.claims.as_ref().is_some_and(|claims| {
            meet(&claims.times, &window.appended)
                || claims.indexes.as_ref().is_some_and(|indexes| meet(indexes, &window.indexes))
        })
    }
}

fn meet<T: Ord>(known: &RangeInclusive<T>, wanted: &Range<T>) -> bool {
    known.start() < &wanted.end && known.end() >= &wanted.start
}

/// All partitions, from a time on.
#[derive(Clone, Debug)]
pub struct Map {
    /// Records that lie before it are older.
    pub since: Nanos,
    /// By their numbers.
    pub parts: BTreeMap<i32, Part>,
}

/// Whether a claim belongs to a window: by what it says, or by its time.
#[must_use]
pub fn belongs(claim: &Claim, window: &Window) -> bool {
    window.appended.contains(&claim.appended)
        || claim.index.is_some_and(|index| window.indexes.contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(index: Option<u64>, appended: u64) -> Claim {
        Claim { index, leaf: None, appended: Nanos(appended) }
    }

    fn window(indexes: Range<u64>, appended: Range<u64>) -> Window {
        Window { indexes, appended: Nanos(appended.start)..Nanos(appended.end) }
    }

    /// One record at each second offset, as where each transaction has one record.
    fn part(claims: &[Option<Claim>]) -> Part {
        let mut part = Part::new(0, 0);
        for (offset, claim) in (0..).step_by(2).zip(claims) {
            part.add(offset, claim.as_ref());
        }
        part
    }

    #[test]
    fn a_window_is_a_short_stretch() {
        let claims: Vec<_> = (0..1_000).map(|n| Some(claim(Some(n), 10 * n))).collect();
        let part = part(&claims);
        assert_eq!(part.next, 1_999);
        assert_eq!(
            part.stretches(&window(300..310, 3_000..3_100)),
            [Stretch { first: 512, last: 766, records: 128 }]
        );
        let all = part.stretches(&window(0..1_000, 0..10_000));
        assert_eq!(all, [Stretch { first: 0, last: 1_998, records: 1_000 }]);
        assert_eq!(part.stretches(&window(1_000..2_000, 10_000..20_000)), []);
    }

    #[test]
    fn what_is_deleted_may_have_been_in_a_window() {
        let early = window(0..10, 0..100);
        let late = window(10..20, 100..200);
        assert!(!Part::new(0, 0).may_have_lost(&early));
        assert!(Part::new(7, 7).may_have_lost(&late), "nothing is left");
        let mut part = Part::new(7, 7);
        part.add(7, Some(&claim(Some(5), 50)));
        assert!(part.may_have_lost(&early) && !part.may_have_lost(&late));
        assert!(!Part::new(7, 9).may_have_lost(&early), "older ones are left");
    }

    #[test]
    fn a_map_of_another_topic_or_of_what_is_deleted_does_not_fit() {
        let part = part(&[Some(claim(Some(0), 0)), Some(claim(Some(1), 1))]);
        assert!(part.fits(0, 3) && part.fits(0, 9));
        assert!(!part.fits(0, 2), "it was longer");
        assert!(!part.fits(1, 3), "its beginning is deleted");
    }

    proptest! {
        /// Whoever lies in a window by time or index is in a stretch, however records are mixed; and each is in one.
        #[test]
        fn no_record_of_a_window_is_passed_over(
            claims in prop::collection::vec(prop::option::of((prop::option::of(0..400_u64), 0..400_u64)), 1..700),
            (from, length) in (0..400_u64, 0..100_u64),
        ) {
            let claims: Vec<Option<Claim>> =
                claims.into_iter().map(|found| found.map(|(index, time)| claim(index, time))).collect();
            let part = part(&claims);
            let window = window(from..from + length, from..from + length);
            let stretches = part.stretches(&window);
            for pair in stretches.windows(2) {
                prop_assert!(pair[0].last < pair[1].first);
            }
            let inside = |offset: i64| stretches.iter().any(|s| (s.first..=s.last).contains(&offset));
            for (offset, claim) in (0..).step_by(2).zip(&claims) {
                if claim.as_ref().is_some_and(|claim| belongs(claim, &window)) {
                    prop_assert!(inside(offset), "{offset}: {claim:?}");
                }
            }
            let records = (0..).step_by(2).zip(&claims).filter(|(offset, _)| inside(*offset)).count();
            prop_assert_eq!(records, stretches.iter().map(|stretch| stretch.records).sum::<usize>());
        }
    }
}
