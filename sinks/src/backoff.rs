//! How long to wait before trying again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(30);
/// The longest wait that a destination may ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// Waits that double, each shortened at random by up to a half so that many don't come back at once.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait; at least what the destination asks for.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LAST);
        self.attempts = self.attempts.saturating_add(1);
        let jittered = whole.mul_f64(0.5 + random() / 2.0);
        jittered.max(asked.unwrap_or_default().min(ASKED_MAX))
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the waits are all whole, which is no reason to stop.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_last_and_begins_anew() {
        let mut backoff = Backoff::default();
        for n in 0..100 {
            let whole = FIRST.saturating_mul(1 << n.min(16)).min(LAST);
            let wait = backoff.next(None);
            assert!(wait >= whole / 2 && wait <= whole, "{n}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }

    #[test]
    fn what_a_destination_asks_for_is_honoured_within_reason() {
        let asked = Duration::from_secs(7);
        assert_eq!(Backoff::default().next(Some(asked)), asked);
        assert_eq!(Backoff::default().next(Some(Duration::from_secs(86_400))), ASKED_MAX);
    }
}
