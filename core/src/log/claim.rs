//! The numbers of a producer in this process: taken when the log takes a batch, and given back when the log couldn't write
//! it. So a number that was used up is an event that is in the log, and a gap is a loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts the events of one boot of a producer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number of the next event.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// The numbers of one batch.
#[derive(Clone, Debug)]
pub struct Claim {
    counter: Arc<Counter>,
    first: u64,
    end: u64,
}

impl Claim {
    /// On the numbers from `first` on, up to `end`, which isn't among them.
    #[must_use]
    pub fn new(counter: &Arc<Counter>, first: u64, end: u64) -> Claim {
        Claim { counter: Arc::clone(counter), first, end }
    }

    /// Takes them. Whether they still were the next ones: others may have been given back meanwhile.
    pub fn take(&self) -> bool {
        self.counter.0.compare_exchange(self.first, self.end, SeqCst, SeqCst).is_ok()
    }

    /// Gives them back. Whether that was possible: not if one behind them is taken.
    pub fn give_back(&self) -> bool {
        self.counter.0.compare_exchange(self.end, self.first, SeqCst, SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_from_the_end_is_taken_again() {
        let counter = Arc::new(Counter::default());
        let claims: Vec<Claim> =
            [(0, 1), (1, 4), (4, 5)].map(|(first, end)| Claim::new(&counter, first, end)).into();
        assert!(claims.iter().all(Claim::take));
        assert_eq!(counter.next_number(), 5);
        assert!(!claims[1].give_back(), "one behind it is taken");
        assert!(claims.iter().skip(1).rev().all(Claim::give_back));
        assert_eq!(counter.next_number(), 1);
        assert!(!claims[2].take(), "it isn't the next one any more");
        assert!(claims[1].take());
    }
}
