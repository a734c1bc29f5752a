//! Whether a peer is still there and does what it began: a leg's timers while a session lives. Pure.

use std::time::Duration;

/// Silence after which a peer is asked whether it is there. Shorter than the idle timers of common NATs and
/// firewalls (300 s and more), so that an idle session also keeps its place in them.
const ASK_AFTER: Duration = Duration::from_secs(120);
/// Silence after which it isn't: it was asked three times.
const GONE_AFTER: Duration = Duration::from_secs(480);
/// How long a key exchange may take while its leg is read. Nothing else moves meanwhile, and OpenSSH gives up sooner.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Ask the peer whether it is there.
    Ask,
    /// It didn't answer: end the session.
    Gone,
    /// It doesn't end a key exchange: end the session.
    ExchangeOverdue,
}

/// One leg's timers. Times are durations since any fixed moment of the owner's choice.
#[derive(Debug)]
pub struct Vigil {
    heard: Duration,
    asked: u32,
    exchange: Option<Exchange>,
}

/// A key exchange that runs.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    /// How long it has run, but for the time in which its leg wasn't read.
    ran: Duration,
    /// Up to when that was reckoned.
    at: Duration,
}

impl Vigil {
    /// A leg that was just heard.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { heard: now, asked: 0, exchange: None }
    }

    /// Bytes have come.
    pub fn heard(&mut self, now: Duration) {
        (self.heard, self.asked) = (now, 0);
    }

    /// To be asked about once a second. `listening` is false while the leg isn't read, as the other one is full: its
    /// silence says nothing then, nor that it doesn't go on with an exchange.
    pub fn due(&mut self, now: Duration, listening: bool, in_exchange: bool) -> Due {
        self.exchange = in_exchange.then(|| {
            let Exchange { ran, at } = self.exchange.unwrap_or(Exchange { ran: Duration::ZERO, at: now });
            let passed = if listening { now.saturating_sub(at) } else { Duration::ZERO };
            Exchange { ran: ran.saturating_add(passed), at: now }
        });
        if self.exchange.is_some_and(|exchange| exchange.ran >= EXCHANGE_TIMEOUT) {
            return Due::ExchangeOverdue;
        }
        if !listening {
            self.heard(now);
            return Due::Nothing;
        }
        let silence = now.saturating_sub(self.heard);
        if silence >= GONE_AFTER {
            return Due::Gone;
        }
        if silence >= ASK_AFTER * (self.asked + 1) {
            self.asked += 1;
            return Due::Ask;
        }
        Due::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What is due at each second up to `end`, but for nothing.
    fn course(
        vigil: &mut Vigil,
        range: std::ops::Range<u64>,
        listening: bool,
        in_exchange: bool,
    ) -> Vec<(u64, Due)> {
        range
            .map(|at| (at, vigil.due(seconds(at), listening, in_exchange)))
            .filter(|(_, due)| *due != Due::Nothing)
            .collect()
    }

    #[test]
    fn the_silent_are_asked_three_times_and_then_gone() {
        let mut vigil = Vigil::new(seconds(0));
        let asked = course(&mut vigil, 0..481, true, false);
        assert_eq!(asked, [(120, Due::Ask), (240, Due::Ask), (360, Due::Ask), (480, Due::Gone)]);
    }

    #[test]
    fn whoever_answers_is_asked_again_later() {
        let mut vigil = Vigil::new(seconds(0));
        assert_eq!(course(&mut vigil, 0..121, true, false), [(120, Due::Ask)]);
        vigil.heard(seconds(121));
        assert_eq!(course(&mut vigil, 121..242, true, false), [(241, Due::Ask)]);
    }

    #[test]
    fn a_leg_that_is_not_read_is_not_silent() {
        let mut vigil = Vigil::new(seconds(0));
        assert_eq!(course(&mut vigil, 0..5000, false, false), []);
        assert_eq!(course(&mut vigil, 5000..5120, true, false), [(5119, Due::Ask)]);
    }

    #[test]
    fn a_key_exchange_ends_in_time_or_the_session_does() {
        let mut vigil = Vigil::new(seconds(0));
        assert_eq!(course(&mut vigil, 0..50, true, true), []);
        assert_eq!(course(&mut vigil, 50..51, true, false), [], "it ended");
        assert_eq!(course(&mut vigil, 51..112, true, true), [(111, Due::ExchangeOverdue)]);
    }

    #[test]
    fn a_leg_that_is_not_read_has_the_time_of_its_exchange_left() {
        let mut vigil = Vigil::new(seconds(0));
        assert_eq!(course(&mut vigil, 0..50, true, true), []);
        assert_eq!(course(&mut vigil, 50..5000, false, true), []);
        assert_eq!(course(&mut vigil, 5000..5011, true, true), [(5010, Due::ExchangeOverdue)]);
    }
}
