//! How much is sent at once: no more than the destination takes, and no more than arrives in time. Over a slow line a batch that
//! never does so as a whole would be begun anew for ever.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The longest batch that is tried, in bytes; one event is, whatever its length.
#[derive(Debug)]
pub(super) struct Pace {
    bytes: AtomicUsize,
    /// The longest that the destination is known to take.
    most: AtomicUsize,
    /// How long an answer may take.
    timeout: Duration,
}

impl Pace {
    pub(super) fn new(most: usize, timeout: Duration) -> Self {
        Self { bytes: AtomicUsize::new(most), most: AtomicUsize::new(most), timeout }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed).min(self.most.load(Relaxed))
    }

    /// The destination doesn't take so many bytes, and never will.
    pub(super) fn was_too_large(&self, bytes: usize) {
        self.most.fetch_min(bytes.saturating_sub(1), Relaxed);
    }

    /// A batch of so many bytes didn't arrive in time. One of half its length is next.
    pub(super) fn was_late(&self, bytes: usize) {
        self.bytes.fetch_min(bytes / 2, Relaxed);
    }

    /// A batch that was as long as it may be was answered for after so long. One of twice its length is next, if that is far from
    /// being late: what a sink does within that time may have shorter times of its own.
    pub(super) fn arrived(&self, bytes: usize, took: Duration) {
        if took <= self.timeout / 32 {
            self.bytes.fetch_max(bytes.saturating_mul(2).min(self.most.load(Relaxed)), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_line_gets_what_it_can_carry_and_a_fast_one_all() {
        let second = Duration::from_secs(1);
        let most = 12 << 20;
        for rate in [2_000, 40_000, 1 << 20, 1 << 30] {
            let pace = Pace::new(most, 30 * second);
            let mut late = 0;
            for _ in 0..100 {
                let bytes = pace.bytes();
                let took = Duration::from_secs_f64(bytes as f64 / f64::from(rate));
                if took > pace.timeout {
                    late += 1;
                    pace.was_late(bytes);
                } else {
                    pace.arrived(bytes, took);
                }
            }
            assert!(late <= 10, "{rate}: {late} were too long");
            let whole = pace.bytes() == most;
            assert_eq!(whole, rate > 400_000, "{rate}: {} bytes", pace.bytes());
            // It becomes fast again.
            for _ in 0..20 {
                pace.arrived(pace.bytes(), second / 10);
            }
            assert_eq!(pace.bytes(), most);
        }
    }

    #[test]
    fn what_is_too_large_is_not_tried_again_however_fast_it_was() {
        let pace = Pace::new(1 << 20, Duration::from_secs(30));
        pace.was_too_large(1_000);
        assert_eq!(pace.bytes(), 999);
        pace.arrived(999, Duration::ZERO);
        assert_eq!(pace.bytes(), 999);
        pace.was_late(999);
        assert_eq!(pace.bytes(), 499);
    }
}
