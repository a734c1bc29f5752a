//! Waiting for conditions: no test sleeps for a fixed time and hopes.

use std::time::{Duration, Instant};

/// How long anything that happens on one machine may take before a test gives up, on a busy machine too.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between one asking and the next. It becomes longer: what takes its time isn't there sooner for being asked for all the time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// Asks `condition` until it gives a value.
///
/// # Panics
/// With `what` when it hasn't after `deadline`.
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    until_ok(what, deadline, || condition().ok_or(String::new()))
}

/// [`until`] for something that tells what it lacks.
///
/// # Panics
/// With `what` and with what it lacks when it hasn't given a value after `deadline`.
pub fn until_ok<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(lacks) => {
                assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}\n{lacks}")
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(LAST_PAUSE);
    }
}

/// [`until`] for something that is so or not.
///
/// # Panics
/// With `what` when it isn't so after `deadline`.
pub fn until_true(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    until(what, deadline, || condition().then_some(()));
}
