//! How much is sent at once: no more than the destination takes, and no more than arrives in time. Over a slow line a batch that
//! never does so as a whole would be begun anew for ever.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a destination is believed that it takes no more than it took: it, or somebody before it, may have been set up anew.
const BELIEVED: Duration = Duration::from_secs(3_600);
/// The same, of one who only said that it is busy: perhaps it was.
const GUESSED: Duration = Duration::from_secs(60);

/// The part of a batch's bytes that is read of the log at least.
const READ_LEAST: usize = 16;
/// What is read of the log at least where less arrives in time, in bytes: so many events that it is the line that ends the batch.
const READ_SHORT: usize = 256 << 10;

/// The longest batch that is tried, in bytes; one event is, whatever its length.
#[derive(Debug)]
pub(super) struct Pace {
    /// What no batch is longer than, in bytes.
    limit: usize,
    /// How long the first one is, in bytes.
    first: usize,
    /// How long an answer may take.
    timeout: Duration,
    /// What of the log is read for a batch, in bytes.
    read: AtomicUsize,
    /// How many events make a whole one, about.
    events: AtomicUsize,
    now: Mutex<Lengths>,
}

#[derive(Debug)]
struct Lengths {
    /// What arrives in time, in bytes.
    bytes: usize,
    /// The longest that the destination takes, by its own words.
    most: Bound,
    /// The longest that it isn't too busy for.
    burst: Bound,
    doubt: Doubt,
}

/// Whether a destination that says that it is busy means the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    Nothing,
    /// One event is tried alone.
    Asking,
    /// That one arrived, at that moment: perhaps it was the length, or it isn't busy any more.
    Suspected(Instant),
}

/// A length in bytes that is believed for a while and then tried to be twice as much.
#[derive(Debug)]
struct Bound {
    bytes: usize,
    /// When it became shorter, or was last tried to be longer.
    since: Instant,
    believed: Duration,
}

impl Bound {
    fn new(bytes: usize, believed: Duration) -> Self {
        Self { bytes, since: Instant::now(), believed }
    }

    fn lower(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
        self.since = Instant::now();
    }

    fn relax(&mut self, limit: usize, at: Instant) {
        if self.bytes < limit && at.saturating_duration_since(self.since) >= self.believed {
            self.bytes = self.bytes.saturating_mul(2).min(limit);
            self.since = at;
        }
    }
}

impl Lengths {
    fn longest(&self) -> usize {
        self.bytes.min(self.most.bytes).min(self.burst.bytes)
    }
}

impl Pace {
    pub(super) fn new(limit: usize, first: usize, timeout: Duration) -> Self {
        let (most, burst) = (Bound::new(limit, BELIEVED), Bound::new(limit, GUESSED));
        let first = first.min(limit);
        let now = Lengths { bytes: first, most, burst, doubt: Doubt::Nothing };
        Self {
            limit,
            first,
            timeout,
            read: AtomicUsize::new(limit),
            events: AtomicUsize::new(usize::MAX),
            now: Mutex::new(now),
        }
    }

    fn now(&self) -> MutexGuard<'_, Lengths> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of the log is read for a batch, in bytes: a little more than becomes one, so that it is what a request takes that ends it.
    /// What is left over is read again.
    pub(super) fn to_read(&self) -> usize {
        let whole = self.read.load(Relaxed);
        self.part(whole).max(READ_SHORT.min(whole))
    }

    /// How many events are a whole batch, by those that were: no more than `most`, and fewer where they are long.
    pub(super) fn events(&self, most: usize) -> usize {
        self.part(self.events.load(Relaxed)).clamp(1, most.max(1))
    }

    /// Of what would become the longest batch, what becomes one that arrives.
    fn part(&self, whole: usize) -> usize {
        match self.room() {
            room if room >= self.limit => whole,
            room => {
                usize::try_from(whole as u128 * room as u128 / self.limit.max(1) as u128).unwrap_or(whole)
            }
        }
    }

    /// So many events and bytes of the log became so much of a batch: an event is longer where it goes than in the log, mostly.
    pub(super) fn was_read(&self, events: usize, bytes: usize, encoded: usize) {
        let whole = |part: usize| self.limit.saturating_mul(part).checked_div(encoded).unwrap_or(usize::MAX);
        let read = whole(bytes);
        let read = read.saturating_add(read / 16).clamp(self.limit.div_ceil(READ_LEAST), self.limit);
        self.read.store(read, Relaxed);
        self.events.store(whole(events), Relaxed);
    }

    /// What is made ready for one sending, in bytes.
    pub(super) fn room(&self) -> usize {
        self.now().longest()
    }

    /// What is sent at once, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let now = self.now();
        match now.doubt {
            Doubt::Asking => 1,
            _ => now.longest(),
        }
    }

    /// The destination doesn't take so many bytes.
    pub(super) fn was_too_large(&self, bytes: usize) {
        self.now().most.lower(bytes.saturating_sub(1));
    }

    /// A batch of so many bytes didn't arrive in time. One of half its length is next.
    pub(super) fn was_late(&self, bytes: usize) {
        let mut now = self.now();
        now.bytes = now.bytes.min(bytes / 2);
    }

    /// A batch of so many bytes was refused again and again, and not for its length. One event is next. Where that arrives and the next
    /// long one is refused again and again, it is the length all the same.
    pub(super) fn was_refused(&self, bytes: usize) {
        let mut now = self.now();
        if let Doubt::Suspected(since) = now.doubt
            && since.elapsed() < GUESSED
        {
            now.burst.lower(bytes / 2);
        }
        now.doubt = Doubt::Asking;
    }

    /// One event alone is refused as well: it isn't the length.
    pub(super) fn one_was_refused(&self) {
        let mut now = self.now();
        if now.doubt == Doubt::Asking {
            now.doubt = Doubt::Nothing;
        }
    }

    /// One event didn't arrive in time either: it isn't the length. It begins anew.
    pub(super) fn one_was_late(&self) {
        self.now().bytes = self.first;
    }

    /// A batch was answered for after so long. If there was more, which was `cut` off behind so many bytes: twice as many are next, if
    /// that is far from being late: what a sink does within that time may have shorter times of its own. A little more, if it is in good
    /// time: a destination may need the same for any length.
    pub(super) fn arrived(&self, bytes: usize, took: Duration, cut: Option<usize>) {
        self.arrived_at(bytes, took, cut, Instant::now());
    }

    fn arrived_at(&self, bytes: usize, took: Duration, cut: Option<usize>, at: Instant) {
        let mut now = self.now();
        if now.doubt == Doubt::Asking {
            now.doubt = Doubt::Suspected(at);
            return;
        }
        let Some(cut) = cut.filter(|_| took <= self.timeout / 4) else { return };
        // What was sent is shorter, for no part of an event is.
        let bytes = bytes.max(cut);
        let longer = if took <= self.timeout / 32 {
            bytes.saturating_mul(2)
        } else {
            bytes.saturating_add(bytes / 8 + 1)
        };
        now.most.relax(self.limit, at);
        now.burst.relax(self.limit, at);
        let longest = now.most.bytes.min(now.burst.bytes);
        now.bytes = now.bytes.max(longer.min(longest));
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
            let pace = Pace::new(most, most, 30 * second);
            let mut late = 0;
            for _ in 0..100 {
                let bytes = pace.bytes();
                let took = Duration::from_secs_f64(bytes as f64 / f64::from(rate));
                if took > pace.timeout {
                    late += 1;
                    pace.was_late(bytes);
                } else {
                    pace.arrived(bytes, took, Some(bytes));
                }
            }
            assert!(late <= 10, "{rate}: {late} were too long");
            let whole = pace.bytes() == most;
            assert_eq!(whole, rate > 400_000, "{rate}: {} bytes", pace.bytes());
            // It becomes fast again.
            for _ in 0..20 {
                pace.arrived(pace.bytes(), second / 10, Some(1));
            }
            assert_eq!(pace.bytes(), most);
        }
    }

    #[test]
    fn as_much_of_the_log_is_read_as_becomes_a_batch() {
        let pace = Pace::new(1_000, 1_000, Duration::from_secs(30));
        assert_eq!((pace.to_read(), pace.events(500)), (1_000, 500), "nothing is known yet");
        for ((events, bytes, encoded), read, enough) in [
            ((10, 400, 1_000), 425, 10),
            ((5, 200, 500), 425, 10),
            ((9, 1_000, 10), 1_000, 500),
            ((1, 3, 4_000), 63, 1),
            // All of it was held back.
            ((9, 100, 0), 1_000, 500),
        ] {
            pace.was_read(events, bytes, encoded);
            assert_eq!((pace.to_read(), pace.events(500)), (read, enough), "{bytes} became {encoded}");
        }
    }

    #[test]
    fn what_is_too_large_is_not_tried_again_however_fast_it_was() {
        let pace = Pace::new(1 << 20, 1 << 20, Duration::from_secs(30));
        pace.was_too_large(1_000);
        assert_eq!(pace.bytes(), 999);
        pace.arrived(999, Duration::ZERO, Some(999));
        assert_eq!(pace.bytes(), 999);
        pace.was_late(999);
        assert_eq!(pace.bytes(), 499);
    }

    #[test]
    fn a_limit_is_tried_anew_after_a_while() {
        let pace = Pace::new(1 << 20, 1 << 20, Duration::from_secs(30));
        pace.was_too_large(1_000);
        let later = Instant::now() + BELIEVED;
        pace.arrived_at(999, Duration::ZERO, Some(999), later);
        assert_eq!(pace.bytes(), 1_998);
        pace.arrived_at(1_998, Duration::ZERO, Some(1_998), later);
        assert_eq!(pace.bytes(), 1_998, "once in a while");
        pace.was_too_large(1_998);
        assert_eq!(pace.bytes(), 1_997);
    }

    /// A limiter that takes so much at once.
    #[test]
    fn what_refuses_for_the_length_without_saying_so_gets_what_it_takes() {
        let limit = 1 << 20;
        for burst in [1_000, 30_000, 600_000] {
            let pace = Pace::new(limit, limit, Duration::from_secs(30));
            let mut refused = 0;
            for _ in 0..200 {
                let bytes = pace.bytes().max(200);
                if bytes > burst {
                    refused += 1;
                    pace.was_refused(bytes);
                } else {
                    pace.arrived(bytes, Duration::ZERO, Some(bytes));
                }
            }
            assert!(refused <= 12, "{burst}: {refused} times");
            assert!((burst / 2..=burst).contains(&pace.bytes()), "{burst}: {}", pace.bytes());
            let later = Instant::now() + GUESSED;
            pace.arrived_at(pace.bytes(), Duration::ZERO, Some(1), later);
            assert!(pace.bytes() > burst, "it is tried anew: {}", pace.bytes());
        }
    }

    #[test]
    fn an_outage_says_nothing_of_the_length() {
        let pace = Pace::new(1 << 20, 1 << 20, Duration::from_secs(30));
        pace.was_too_large(900_000);
        // Several batches are refused, and one event; or it is over when that is tried.
        for one_is_refused in [true, false] {
            pace.was_refused(300);
            pace.was_refused(899_999);
            assert_eq!(pace.bytes(), 1);
            if one_is_refused {
                pace.one_was_refused();
            } else {
                pace.arrived(200, Duration::from_secs(20), Some(1));
            }
            assert_eq!(pace.bytes(), 899_999);
        }
    }

    #[test]
    fn a_destination_that_needs_the_same_time_for_any_length_gets_long_batches_again() {
        let (most, second) = (1 << 18, Duration::from_secs(1));
        let pace = Pace::new(most, most, 30 * second);
        let event = 700;
        for _ in 0..12 {
            pace.was_late(pace.bytes());
        }
        for _ in 0..100 {
            let room = pace.bytes();
            pace.arrived((room / event).max(1) * event, 2 * second, Some(room));
        }
        assert_eq!(pace.bytes(), most);
        // Nothing arrived for a while, not even one event.
        pace.was_late(1_000);
        pace.one_was_late();
        assert_eq!(pace.bytes(), most);
    }
}
