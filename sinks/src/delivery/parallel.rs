//! Many small computations on two threads, where somebody waits for them: one alone reads, hashes and encodes more slowly than a fast
//! destination takes. Two and no more, however many cores there are: sessions have the others.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many a thread takes at once.
const PIECE: usize = 256;

/// Whether a destination waits for what is read for it, as far as the last batches tell.
#[derive(Debug, Default)]
pub(super) struct Wait {
    /// Since when a batch is being read.
    reads: Option<Instant>,
    /// Since when one lies ready, and how long it took to be.
    ready: Option<(Instant, Duration)>,
    is_waited_for: bool,
}

impl Wait {
    pub(super) const fn is_waited_for(&self) -> bool {
        self.is_waited_for
    }

    pub(super) const fn reads(&mut self, now: Instant) {
        (self.reads, self.ready) = (Some(now), None);
    }

    pub(super) fn has_read(&mut self, now: Instant) {
        self.ready = self.reads.take().map(|since| (now, now.saturating_duration_since(since)));
    }

    /// The destination is done with a batch. It would also have found one ready that had taken twice as long, as it may on one thread,
    /// before nobody waits any more: otherwise every other batch would be read by one, and waited for.
    pub(super) fn delivered(&mut self, now: Instant) {
        self.is_waited_for = match (self.reads, self.ready) {
            (Some(_), _) => true,
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
    at_once.into_iter().chain(one_by_one.into_iter().map(each))
}

fn on_two_threads<T: Send, U: Send>(items: Vec<T>, each: &(impl Fn(T) -> U + Sync)) -> Vec<U> {
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
    done.into_iter().flat_map(|(_, piece)| piece).collect()
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
        assert!(!wait.is_waited_for(), "there was nothing to read");
        wait.reads(at(0));
        wait.delivered(at(10));
        assert!(wait.is_waited_for());
        wait.has_read(at(20));
        for (reads, has_read, delivered, is_waited_for) in
            [(20, 30, 39, true), (40, 50, 60, false), (60, 70, 71, false), (71, 90, 80, true)]
        {
            wait.reads(at(reads));
            if has_read < delivered {
                wait.has_read(at(has_read));
            }
            wait.delivered(at(delivered));
            assert_eq!(wait.is_waited_for(), is_waited_for, "{reads}, {has_read}, {delivered}");
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
