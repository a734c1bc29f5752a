//! When the machine was started, by the time of day: what makes a time of day of the kernel's times, and shows that
//! somebody has set the clock.

use custody_core::clock::Clock;
use custody_core::event::Timestamp;
use custody_core::event::producer::ClockStepped;
use std::time::Duration;

/// A clock that is set by less isn't told. Nothing else moves the two clocks apart: both are slewed alike.
const STEP_MIN: Duration = Duration::from_millis(100);
/// Between two looks at one clock so little time passes that the other was read at the same moment.
const MOMENT: Duration = Duration::from_millis(1);
/// After so many looks that were interrupted the last one has to do.
const LOOKS_MAX: u32 = 16;

/// When the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booted(Timestamp);

impl Booted {
    /// As both clocks have it now.
    pub fn now(clock: &dyn Clock) -> Self {
        Self::seen(clock).0
    }

    /// As it was written down.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(Timestamp::from_nanos(nanos))
    }

    /// To be written down: nanoseconds since 1970.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0.nanos()
    }

    /// The same, and how long the machine has run.
    fn seen(clock: &dyn Clock) -> (Self, Duration) {
        let look = || (clock.monotonic(), clock.wall(), clock.monotonic());
        let mut seen = look();
        for _ in 1..LOOKS_MAX {
            if seen.2.saturating_sub(seen.0) <= MOMENT {
                break;
            }
            seen = look();
        }
        let (ran, wall, _) = seen;
        (Self(Timestamp::from_nanos(wall.0.saturating_sub(nanos(ran)))), ran)
    }

    /// The time of day so many nanoseconds after the start.
    #[must_use]
    pub fn at(self, since_boot: u64) -> Timestamp {
        Timestamp::from_nanos(self.0.nanos().saturating_add(since_boot))
    }

    /// Whether somebody has set the clock; if so this follows it.
    pub fn stepped(&mut self, clock: &dyn Clock) -> Option<ClockStepped> {
        let (now, ran) = Self::seen(clock);
        let by = Duration::from_nanos(now.0.nanos().abs_diff(self.0.nanos()));
        let ran = nanos(ran);
        let stepped = (by >= STEP_MIN).then(|| ClockStepped { from: self.at(ran), to: now.at(ran) });
        if stepped.is_some() {
            *self = now;
        }
        stepped
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::clock::{ManualClock, Nanos};

    #[test]
    fn a_clock_that_is_set_is_told_once_and_one_that_runs_is_not() {
        let clock = ManualClock::new(Nanos(1_000_000_000_000));
        let mut booted = Booted::now(&clock);
        assert_eq!(booted.at(7), Timestamp::from_nanos(1_000_000_000_007));
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(booted.stepped(&clock), None);
        let was = clock.wall();
        let set = Nanos(was.0 - 60_000_000_000);
        clock.set_wall(set);
        assert_eq!(booted.stepped(&clock), Some(ClockStepped { from: was.into(), to: set.into() }));
        assert_eq!(booted.stepped(&clock), None);
        assert_eq!(booted.at(3_600_000_000_000), set.into());
        clock.set_wall(set.saturating_add(Duration::from_millis(99)));
        assert_eq!(booted.stepped(&clock), None, "so little is not");
    }
}
