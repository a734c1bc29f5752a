//! What was sent lately. An indexer has it some time before a search shows it: until then nothing of it is missing, and
//! nothing of it is sent again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What may have arrived of what this life has sent. What a former one sent isn't known: for a while it may be any event.
pub struct Sent {
    begun: Instant,
    /// How long it may take until a search shows what an indexer has.
    shown: Duration,
    /// How long is remembered what was sent: a search that was asked before may take its time.
    kept: Duration,
    lately: Mutex<Lately>,
}

impl Sent {
    /// Nothing yet, in a life that has begun then. A search may take as long as `answer`.
    pub fn new(shown: Duration, answer: Duration, begun: Instant) -> Self {
        Self { begun, shown, kept: shown.saturating_add(answer), lately: Mutex::default() }
    }

    /// Written before anything is sent of these.
    pub fn begin(&self, indexes: Range<u64>, now: Instant) -> UnderWay<'_> {
        UnderWay { sent: self, number: self.lately().begin(indexes, now, self.kept) }
    }

    /// Whether a search that was asked then may not show all that is there of these. A window without indexes is one of times
    /// alone, in which anything may lie.
    pub fn hides(&self, indexes: &Range<u64>, asked: Instant) -> bool {
        asked.saturating_duration_since(self.begun) < self.shown
            || self.lately().hides(indexes, asked, self.shown)
    }

    /// Held for a few instructions, never across an await.
    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch under way. It counts for as long as this lives, and then for a while: whoever stops waiting for its answer drops
/// this too, and it may arrive all the same.
#[must_use]
pub struct UnderWay<'a> {
    sent: &'a Sent,
    number: u64,
}

impl UnderWay<'_> {
    /// Nothing of it has arrived, for sure.
    pub fn forget(self) {
        self.sent.lately().forget(self.number);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.sent.lately().end(self.number, Instant::now());
    }
}

/// Batches by the number in which they were begun.
#[derive(Default)]
struct Lately {
    next: u64,
    parts: BTreeMap<u64, Part>,
}

struct Part {
    indexes: Range<u64>,
    /// When its sending came to its end; nothing while it is under way.
    ended: Option<Instant>,
}

impl Lately {
    /// Gives its number. What ended long ago is forgotten.
    fn begin(&mut self, indexes: Range<u64>, now: Instant, kept: Duration) -> u64 {
        self.parts.retain(|_, part| part.is_younger(kept, now));
        let number = self.next;
        self.next += 1;
        self.parts.insert(number, Part { indexes, ended: None });
        number
    }

    fn end(&mut self, number: u64, now: Instant) {
        if let Some(part) = self.parts.get_mut(&number) {
            part.ended = Some(now);
        }
    }

    fn forget(&mut self, number: u64) {
        self.parts.remove(&number);
    }

    fn hides(&self, indexes: &Range<u64>, asked: Instant, shown: Duration) -> bool {
        self.parts.values().any(|part| part.is_younger(shown, asked) && part.meets(indexes))
    }
}

impl Part {
    /// Whether at that time it hadn't ended for so long.
    fn is_younger(&self, age: Duration, at: Instant) -> bool {
        self.ended.is_none_or(|ended| at.saturating_duration_since(ended) < age)
    }

    fn meets(&self, indexes: &Range<u64>) -> bool {
        indexes.is_empty() || (self.indexes.start < indexes.end && indexes.start < self.indexes.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: Duration = Duration::from_secs(30);
    const KEPT: Duration = Duration::from_secs(200);

    #[test]
    fn it_counts_while_it_is_under_way_and_for_a_while_from_its_end_on() {
        let (mut lately, begun) = (Lately::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let number = lately.begin(10..20, begun, KEPT);
        assert!(lately.hides(&(10..20), at(100), SHOWN), "its acknowledgement may take longer than that");
        lately.end(number, at(100));
        for (asked, hidden) in [(90, true), (100, true), (129, true), (130, false), (150, false)] {
            assert_eq!(lately.hides(&(10..20), at(asked), SHOWN), hidden, "asked at {asked} s");
        }
        // Once more, and nothing of it arrives.
        let again = lately.begin(10..20, at(140), KEPT);
        assert!(lately.hides(&(10..20), at(140), SHOWN));
        lately.forget(again);
        lately.end(again, at(141));
        assert!(!lately.hides(&(10..20), at(142), SHOWN));
    }

    #[test]
    fn it_counts_where_it_lies() {
        let (mut lately, now) = (Lately::default(), Instant::now());
        lately.begin(10..20, now, KEPT);
        for (indexes, hidden) in [
            (0..10, false),
            (0..11, true),
            (12..13, true),
            (19..40, true),
            (20..40, false),
            (0..u64::MAX, true),
            (0..0, true),
        ] {
            assert_eq!(lately.hides(&indexes, now, SHOWN), hidden, "{indexes:?}");
        }
    }

    #[test]
    fn what_ended_long_ago_is_forgotten_and_nothing_else_is() {
        let (mut lately, begun) = (Lately::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let old = lately.begin(0..10, begun, KEPT);
        let open = lately.begin(10..20, begun, KEPT);
        lately.end(old, at(1));
        let new = lately.begin(20..30, at(200), KEPT);
        assert_eq!(lately.parts.keys().copied().collect::<Vec<_>>(), [old, open, new]);
        let newest = lately.begin(30..40, at(201), KEPT);
        assert_eq!(lately.parts.keys().copied().collect::<Vec<_>>(), [open, new, newest]);
    }

    #[test]
    fn a_life_begins_in_the_dark() {
        let begun = Instant::now();
        let sent = Sent::new(SHOWN, KEPT, begun);
        assert!(sent.hides(&(0..1), begun + SHOWN / 2));
        assert!(!sent.hides(&(0..1), begun + SHOWN));
        let sent = Sent::new(Duration::MAX, Duration::MAX, begun);
        assert!(sent.hides(&(0..1), begun + SHOWN), "no time is too long");
    }
}
