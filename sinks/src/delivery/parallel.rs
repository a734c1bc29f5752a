//! Many small computations on two threads, where somebody waits for them: one alone reads, hashes and encodes more slowly than a fast
//! destination takes. Two for a sink and no more, however many cores there are: sessions need some, too.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many a thread takes at once.
const PIECE: usize = 256;

/// Whether a destination waits for what is read for it, as far as the last batches tell.
#[derive(Debug, Default)]
pub(super) struct Wait {
    reading: Option<Reading>,
    /// Since when one lies ready, and how long it took to be.
    ready: Option<(Instant, Duration)>,
    is_waited_for: bool,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    since: Instant,
    /// Whether it is new and there is enough of it to be read at once: else there is nothing to wait for, or nobody does.
    counts: bool,
}

impl Wait {
    pub(super) const fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// A batch is read from now on. Gives whether somebody waits for it; never for one that doesn't count.
    pub(super) const fn reads(&mut self, now: Instant, counts: bool) -> bool {
        (self.reading, self.ready) = (Some(Reading { since: now, counts }), None);
        counts && self.is_waited_for
    }

    pub(super) fn has_read(&mut self, now: Instant) {
        let read = self.reading.take().filter(|reading| reading.counts);
        self.ready = read.map(|reading| (now, now.saturating_duration_since(reading.since)));
    }

    /// The destination is done with a batch. It would also have found one ready that had taken twice as long, as it may on one thread,
    /// before nobody waits any more: otherwise every other batch would be read by one, and waited for.
    pub(super) fn delivered(&mut self, now: Instant) {
        self.is_waited_for = match (self.reading, self.ready) {
            (Some(Reading { counts: true, .. }), _) => true,
            (None, Some((since, took))) if now.saturating_duration_since(since) >= took => false,
            _ => self.is_waited_for,
        };
    }
}

/// What `each` makes of them, in their order: all at once on two threads, or each when it is asked for, where nobody waits or they are few.
///
/// # Panics
/// Where `each` does.
pub(super) fn map<T: Send, U: Send>(
    items: Vec<T>,
    is_waited_for: bool,
    each: impl Fn(T) -> U + Sync,
) -> impl Iterator<Item = U> {
    let (at_once, one_by_one) = if is_waited_for && items.len() >= 2 * PIECE {
        (on_two_threads(items, &each), Vec::new())
    } else {
        (Vec::new(), items)
    };
    at_once.into_iter().flatten().chain(one_by_one.into_iter().map(each))
}

/// In pieces, as they were taken.
fn on_two_threads<T: Send, U: Send>(items: Vec<T>, each: &(impl Fn(T) -> U + Sync)) -> Vec<Vec<U>> {
    let many = items.len();
    let left = Mutex::new((0, items.into_iter()));
    let next = || {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, items) = &mut *left;
        *number += 1;
        let piece: Vec<T> = items.take(PIECE).collect();
        (!piece.is_empty()).then_some((*number, piece))
    };
    let work = || {
        let mut done = Vec::with_capacity(many.div_ceil(PIECE));
        while let Some((number, piece)) = next() {
            done.push((number, piece.into_iter().map(each).collect::<Vec<U>>()));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        // Where there can be no other thread, this one does all of it.
        let other = thread::Builder::new().name("encode".to_owned()).spawn_scoped(scope, work).ok();
        let mut done = work();
        let others = other.map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        done.extend(others.into_iter().flatten());
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, piece)| piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Barrier;

    #[test]
    fn nobody_waits_once_one_thread_is_fast_enough() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut wait = Wait::default();
        wait.delivered(at(0));
        assert!(!wait.reads(at(0), true), "there was nothing to read");
        wait.delivered(at(10));
        wait.has_read(at(20));
        for (reads, was_waited_for, has_read, delivered) in [
            (20, true, 30, 39),
            (40, true, 50, 60),
            (60, false, 70, 71),
            (71, false, 90, 80),
            (90, true, 95, 99),
        ] {
            assert_eq!(wait.reads(at(reads), true), was_waited_for, "{reads}, {has_read}, {delivered}");
            if has_read < delivered {
                wait.has_read(at(has_read));
            }
            wait.delivered(at(delivered));
        }
    }

    /// What lingers waits itself, and what is replayed has nobody who waits for it.
    #[test]
    fn nobody_waits_for_what_does_not_count() {
        let now = Instant::now();
        let mut wait = Wait::default();
        for is_waited_for in [false, true] {
            assert!(!wait.reads(now, false), "it doesn't count");
            wait.delivered(now);
            wait.has_read(now);
            wait.delivered(now);
            assert_eq!(wait.reads(now, true), is_waited_for, "as it was before");
            wait.delivered(now);
            wait.has_read(now);
        }
    }

    #[test]
    fn all_of_them_come_in_their_order() {
        for many in [0, 1, PIECE, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 10 * PIECE + 7] {
            let items: Vec<usize> = (0..many).collect();
            let expected: Vec<String> = items.iter().map(usize::to_string).collect();
            for is_waited_for in [false, true] {
                let mapped = map(items.clone(), is_waited_for, |item| item.to_string());
                assert_eq!(mapped.collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn many_are_shared_by_two_threads() {
        let both = Barrier::new(2);
        let threads = map((0..2 * PIECE).collect(), true, |item: usize| {
            if item.is_multiple_of(PIECE) {
                // Ends only if another thread comes here too.
                both.wait();
            }
            thread::current().id()
        });
        let names: BTreeSet<String> = threads.map(|id| format!("{id:?}")).collect();
        assert_eq!(names.len(), 2);
    }

    #[test]
    #[should_panic(expected = "item 700")]
    fn a_panic_comes_through() {
        let mapped = map((0..1_000).collect(), true, |item: usize| assert!(item != 700, "item {item}"));
        mapped.for_each(drop);
    }
}
