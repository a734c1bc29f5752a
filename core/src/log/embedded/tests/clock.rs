//! The log's time when the machine's clock is set (L7).

use super::*;
use crate::clock::{ManualClock, Nanos};
use std::time::Duration;

const NOON: Nanos = Nanos(1_800_000_000_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn time_grows_in_a_log_and_over_a_restart() {
    let place = Place::new();
    let clock = Arc::new(ManualClock::new(NOON));
    {
        let log = place.open_at(clock.clone());
        assert_eq!(append(&log, vec![record(1, 0)]).unwrap()[0].appended, NOON);
        clock.set_wall(Nanos(NOON.0 - HOUR.as_nanos() as u64));
        let receipts = append(&log, vec![record(1, 1), record(1, 2)]).unwrap();
        assert_eq!([0, 1].map(|n| receipts[n].appended), [1, 2].map(|n| Nanos(NOON.0 + n)));
    }
    let log = place.open_at(clock);
    assert_eq!(append(&log, vec![record(1, 3)]).unwrap()[0].appended, Nanos(NOON.0 + 3));
    let read = log.read(0, 10, usize::MAX).unwrap();
    assert!(read.windows(2).all(|pair| pair[0].appended < pair[1].appended));
}

#[test]
fn a_leap_is_reported_and_not_followed_until_confirmed() {
    let place = Place::new();
    let clock = Arc::new(ManualClock::new(NOON));
    let log = place.open_at(clock.clone());
    append_all(&log, 1, 0..1);
    clock.set_wall(NOON.saturating_add(24 * HOUR));
    assert_eq!(append(&log, vec![record(1, 1)]).unwrap()[0].appended, Nanos(NOON.0 + 1));
    assert_eq!(*log.clock_ahead().borrow(), Some(24 * HOUR));
    log.confirm_clock();
    assert_eq!(append(&log, vec![record(1, 2)]).unwrap()[0].appended, NOON.saturating_add(24 * HOUR));
    assert_eq!(*log.clock_ahead().borrow(), None);
}

#[test]
fn a_clock_that_stands_still_keeps_nobody_from_a_checkpoint() {
    let place = Place::new();
    let log = place.open_at(Arc::new(ManualClock::new(NOON)));
    for seq in 0..3 {
        append(&log, vec![record(1, seq)]).unwrap();
        assert_eq!(log.sign_now().wait_blocking().unwrap().size(), seq + 1);
    }
}
