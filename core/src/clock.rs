//! The only place that asks the time.
//!
//! Everything else is given a [`Clock`], so that tests drive it and a fold can't ask it by accident.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since 1970-01-01T00:00:00Z; as `u64` they last until the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// This time plus `span`, at most the largest time there is.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Nanos {
        Nanos(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it isn't after it.
    #[must_use]
    pub fn saturating_since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339, UTC, nanoseconds.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(timestamp) => write!(f, "{timestamp:.9}"),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

/// What a clock can say.
pub trait Clock: Send + Sync + 'static {
    /// The time of day. May jump in both directions: somebody sets it.
    fn wall(&self) -> Nanos;
    /// Time since some fixed moment. Never jumps, never goes back, and goes on while the machine sleeps: who wakes up
    /// finds the time of day where it expected it.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock; its monotonic side counts from the machine's start.
    #[must_use]
    pub fn new() -> SystemClock {
        SystemClock
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    fn wall(&self) -> Nanos {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(span) => Nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
            // A clock before 1970 is wrong; the log's own rule (time never decreases) takes it from here.
            Err(_) => Nanos(0),
        }
    }

    fn monotonic(&self) -> Duration {
        // CLOCK_BOOTTIME, since CLOCK_MONOTONIC stands still during a suspend.
        let now = clock_gettime(ClockId::Boottime);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Duration::from_secs(part(now.tv_sec)).saturating_add(Duration::from_nanos(part(now.tv_nsec)))
    }
}

/// A clock that moves only when it is told to: for tests and for replaying what might have been.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(Nanos, Duration)>,
}

impl ManualClock {
    /// A clock that stands at `wall`.
    #[must_use]
    pub fn new(wall: Nanos) -> ManualClock {
        ManualClock { now: Mutex::new((wall, Duration::ZERO)) }
    }

    /// Time passes: both sides move on.
    pub fn advance(&self, span: Duration) {
        self.change(|now| *now = (now.0.saturating_add(span), now.1.saturating_add(span)));
    }

    /// Somebody sets the time of day; no time passes.
    pub fn set_wall(&self, wall: Nanos) {
        self.change(|now| now.0 = wall);
    }

    fn change(&self, how: impl FnOnce(&mut (Nanos, Duration))) {
        how(&mut self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn read(&self) -> (Nanos, Duration) {
        *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Nanos {
        self.read().0
    }

    fn monotonic(&self) -> Duration {
        self.read().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanos_are_shown_as_rfc_3339_with_all_nine_digits() {
        assert_eq!(Nanos(1_700_000_000_000_000_001).to_string(), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(Nanos(0).to_string(), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn the_machine_s_clock_goes_on() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        assert!(before > Duration::ZERO, "it counts from the machine's start");
        std::thread::sleep(Duration::from_millis(2));
        let passed = clock.monotonic() - before;
        assert!(passed >= Duration::from_millis(2) && passed < Duration::from_secs(60), "{passed:?}");
    }

    #[test]
    fn a_manual_clock_tells_passing_time_from_setting_it() {
        let clock = ManualClock::new(Nanos(100));
        clock.advance(Duration::from_nanos(5));
        clock.set_wall(Nanos(7));
        assert_eq!((clock.wall(), clock.monotonic()), (Nanos(7), Duration::from_nanos(5)));
    }
}
