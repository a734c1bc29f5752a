//! Waiting for conditions: no test sleeps for a fixed time and hopes.

use std::time::{Duration, Instant};

/// How long anything that happens on one machine may take before a test gives up, on a busy machine too.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks `condition` until it gives a value.
///
/// # Panics
/// With `what` when it hasn't after `deadline`.
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// [`until`] for something that is so or not.
///
/// # Panics
/// With `what` when it isn't so after `deadline`.
pub fn until_true(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    until(what, deadline, || condition().then_some(()));
}
