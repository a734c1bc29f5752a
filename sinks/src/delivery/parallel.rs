//! Many small computations on two threads, where somebody waits for them: one alone reads, hashes and encodes more slowly than a fast
//! destination takes. Two and no more, however many cores there are: sessions have the others.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many a thread takes at once.
const PIECE: usize = 256;

/// What `each` makes of them, in their order; by itself where nobody waits or they are few.
///
/// # Panics
/// Where `each` does.
pub(super) fn map<T: Send, U: Send>(
    items: Vec<T>,
    is_waited_for: bool,
    each: impl Fn(T) -> U + Sync,
) -> Vec<U> {
    if !is_waited_for || items.len() < 2 * PIECE {
        return items.into_iter().map(each).collect();
    }
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
            done.push((number, piece.into_iter().map(&each).collect::<Vec<U>>()));
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
    fn all_of_them_come_in_their_order() {
        for many in [0, 1, PIECE, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 10 * PIECE + 7] {
            let items: Vec<usize> = (0..many).collect();
            let expected: Vec<String> = items.iter().map(usize::to_string).collect();
            for is_waited_for in [false, true] {
                assert_eq!(map(items.clone(), is_waited_for, |item| item.to_string()), expected);
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
        let names: BTreeSet<String> = threads.iter().map(|id| format!("{id:?}")).collect();
        assert_eq!(names.len(), 2);
    }

    #[test]
    #[should_panic(expected = "item 700")]
    fn a_panic_comes_through() {
        map((0..1_000).collect(), true, |item: usize| assert!(item != 700, "item {item}"));
    }
}
