//! The log's own time: no two entries have the same, it grows with the index, and it doesn't follow a clock that leaps
//! ahead. So an entry's time is its place too, wherever entries are sorted by time.
//!
//! A leap would be final: since time never decreases, one wrong minute in the year 2099 would stamp everything
//! after it.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Nanos};

/// A forward step that isn't followed until somebody confirms it.
pub const STEP_MAX: Duration = Duration::from_secs(5 * 60);

/// Makes times of appending.
pub(super) struct Timekeeper {
    clock: Arc<dyn Clock>,
    last: Nanos,
    /// The newest time that was given out, used or not.
    reached: Nanos,
    /// The clock's reading that is trusted: time of day and monotonic time.
    trusted: (Nanos, Duration),
}

impl Timekeeper {
    /// `last` is the newest time in the log. The clock's first reading is trusted: there is nothing to compare
    /// it with, since a machine may have been off for any time.
    pub fn new(clock: Arc<dyn Clock>, last: Nanos) -> Timekeeper {
        let trusted = (clock.wall(), clock.monotonic());
        Timekeeper { clock, last, reached: last, trusted }
    }

    /// The time for what is appended now, later than all that was [`used`](Self::used); and by how much the clock is
    /// ahead if it isn't followed.
    pub fn now(&mut self) -> (Nanos, Option<Duration>) {
        let (wall, monotonic) = (self.clock.wall(), self.clock.monotonic());
        let expected = self.trusted.0.saturating_add(monotonic.saturating_sub(self.trusted.1));
        let ahead = wall.saturating_since(expected);
        let leapt = ahead > STEP_MAX;
        // One that was set back is waited for, and is no measure meanwhile: put right again it has not leapt.
        let set_back = expected.saturating_since(wall) > STEP_MAX && wall < self.reached;
        if !leapt && !set_back {
            self.trusted = (wall, monotonic);
        }
        let next = Nanos(self.last.0.saturating_add(1));
        let time = next.max(if leapt { expected } else { wall });
        self.reached = self.reached.max(time);
        (time, leapt.then_some(ahead))
    }

    /// An entry has this time: the next one's will be later.
    pub fn used(&mut self, time: Nanos) {
        self.last = self.last.max(time);
    }

    /// Somebody says that the clock is right.
    pub fn confirm(&mut self) {
        self.trusted = (self.clock.wall(), self.clock.monotonic());
    }

    /// The clock's monotonic time.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const HOUR: Duration = Duration::from_secs(3_600);
    const NOON: Nanos = Nanos(1_800_000_000_000_000_000);

    fn keeper(last: Nanos) -> (Arc<ManualClock>, Timekeeper) {
        let clock = Arc::new(ManualClock::new(NOON));
        let keeper = Timekeeper::new(clock.clone(), last);
        (clock, keeper)
    }

    #[test]
    fn time_follows_the_clock_and_long_silence_is_no_step() {
        let (clock, mut keeper) = keeper(Nanos(0));
        assert_eq!(keeper.now(), (NOON, None));
        clock.advance(HOUR);
        assert_eq!(keeper.now(), (NOON.saturating_add(HOUR), None));
    }

    #[test]
    fn time_grows_whatever_the_clock_does() {
        let last = NOON.saturating_add(HOUR);
        let (clock, mut keeper) = keeper(last);
        let after = |nanos| Nanos(last.0 + nanos);
        assert_eq!(keeper.now().0, after(1), "the log is ahead of the clock");
        keeper.used(after(3));
        clock.set_wall(Nanos(5));
        assert_eq!(keeper.now().0, after(4));
        clock.advance(HOUR);
        assert_eq!(keeper.now().0, after(4));
        keeper.used(Nanos(1));
        assert_eq!(keeper.now().0, after(4));
    }

    #[test]
    fn a_leap_is_not_followed_until_confirmed() {
        let (clock, mut keeper) = keeper(Nanos(0));
        assert_eq!(keeper.now(), (NOON, None));
        clock.set_wall(NOON.saturating_add(24 * HOUR));
        assert_eq!(keeper.now(), (NOON, Some(24 * HOUR)));
        clock.advance(Duration::from_secs(10));
        assert_eq!(keeper.now(), (NOON.saturating_add(Duration::from_secs(10)), Some(24 * HOUR)));
        keeper.confirm();
        let after = NOON.saturating_add(24 * HOUR + Duration::from_secs(10));
        assert_eq!(keeper.now(), (after, None));
    }

    #[test]
    fn a_leap_that_is_taken_back_leaves_no_trace() {
        let (clock, mut keeper) = keeper(Nanos(0));
        clock.set_wall(NOON.saturating_add(HOUR));
        assert_eq!(keeper.now(), (NOON, Some(HOUR)));
        clock.set_wall(NOON.saturating_add(Duration::from_secs(1)));
        assert_eq!(keeper.now(), (NOON.saturating_add(Duration::from_secs(1)), None));
    }

    #[test]
    fn a_clock_that_is_set_back_and_put_right_has_not_leapt() {
        let (clock, mut keeper) = keeper(Nanos(0));
        assert_eq!(keeper.now(), (NOON, None));
        clock.set_wall(Nanos(NOON.0 - HOUR.as_nanos() as u64));
        assert_eq!(keeper.now().1, None);
        clock.advance(Duration::from_secs(10));
        let right = NOON.saturating_add(Duration::from_secs(10));
        clock.set_wall(right);
        assert_eq!(keeper.now(), (right, None));
        // Also when it was wrong for long; what goes beyond is a leap all the same.
        keeper.used(right);
        clock.advance(HOUR / 2);
        clock.set_wall(Nanos(NOON.0 - HOUR.as_nanos() as u64));
        assert_eq!(keeper.now(), (Nanos(right.0 + 1), None));
        clock.advance(HOUR / 2);
        let right = right.saturating_add(HOUR);
        clock.set_wall(right.saturating_add(HOUR));
        assert_eq!(keeper.now(), (right, Some(HOUR)));
        clock.set_wall(right);
        assert_eq!(keeper.now(), (right, None));
    }

    #[test]
    fn a_clock_that_was_set_back_for_good_is_the_measure_once_the_log_has_waited_for_it() {
        let (clock, mut keeper) = keeper(NOON);
        clock.set_wall(Nanos(NOON.0 - HOUR.as_nanos() as u64));
        assert_eq!(keeper.now(), (Nanos(NOON.0 + 1), None));
        clock.advance(HOUR + Duration::from_secs(1));
        let now = NOON.saturating_add(Duration::from_secs(1));
        assert_eq!(keeper.now(), (now, None));
        clock.set_wall(now.saturating_add(HOUR));
        assert_eq!(keeper.now(), (now, Some(HOUR)));
    }

    #[test]
    fn a_small_step_is_followed() {
        let (clock, mut keeper) = keeper(Nanos(0));
        clock.set_wall(NOON.saturating_add(STEP_MAX));
        assert_eq!(keeper.now(), (NOON.saturating_add(STEP_MAX), None));
    }
}
