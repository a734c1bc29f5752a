//! How it stands with a delivery, as the log has been told: that it stalls, and that it goes on.
//!
//! Each `sink.stalled` has one `sink.resumed`, and none follows another. So a delivery that begins knows from the log whether it was
//! told to stall; what keeps it from delivering then is the same stall, whatever the reason is now. Unless it has come further since:
//! earlier programs didn't tell that a stall was over which a restart had ended.

use super::super::ToldStall;
use super::super::control::Stopped;
use super::super::words::without_quotes;
use super::Loop;
use crate::backoff::Backoff;
use crate::sink::Sink;
use custody_core::event::sink::{Resumed, Stalled};
use std::time::{Duration, Instant};

/// How it stands with it, which outlives a new beginning too.
pub(super) struct Standing {
    /// The stall that the log tells of.
    stalled: Option<Stall>,
    /// Until then nothing of that is told to a log that didn't take it.
    silent_until: Option<Instant>,
    /// Between one beginning and the next.
    pub backoff: Backoff,
}

/// A stall that the log tells of.
#[derive(Clone, Copy)]
struct Stall {
    /// Since when, as far as this program knows.
    since: Instant,
    /// How long it had lasted when this program started.
    before: Duration,
    /// Where the delivery stood: that nothing is wrong, or that nothing has failed yet, is no sign that it works.
    stood_at: u64,
    /// Whether the delivery had come further when this program started: it was over, and since when nobody knows.
    is_passed: bool,
}

impl Standing {
    /// Of a delivery that begins with `next`, and the stall that the log tells of.
    pub fn at_start(stalled: Option<ToldStall>, next: u64) -> Self {
        let stalled = stalled.map(|told| {
            let is_passed = next > told.next;
            let before = if is_passed { Duration::ZERO } else { told.before };
            Stall { since: Instant::now(), before, stood_at: next, is_passed }
        });
        Self { stalled, silent_until: None, backoff: Backoff::default() }
    }

    /// Whether the log tells that it stalls now.
    fn is_told(&self) -> bool {
        self.stalled.is_some_and(|stall| !stall.is_passed)
    }
}

impl Stall {
    fn begun(since: Instant, stood_at: u64) -> Self {
        Self { since, before: Duration::ZERO, stood_at, is_passed: false }
    }

    /// Whether it is over where nothing is wrong: it shows that by having come further, or by having nothing to deliver.
    fn is_over(&self, next: u64, size: u64) -> bool {
        next > self.stood_at || next >= size
    }

    fn seconds(&self) -> u64 {
        self.before.saturating_add(self.since.elapsed()).as_secs()
    }
}

impl<S: Sink> Loop<S> {
    /// Says so when nothing gets through for long, and when something does again.
    pub(super) async fn tell_stall(&mut self) {
        if self.standing.silent_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let sink = self.shared().name.clone();
        let next = self.main.next();
        match (self.shared().health.ailing(), self.standing.stalled) {
            (Some(ailing), _) if !self.standing.is_told() && ailing.since.elapsed() >= self.fixed.stall => {
                tracing::warn!("sink {sink} stalls at event {next}: {}", ailing.reason);
                let reason = without_quotes(&ailing.reason);
                let told = self.tell(Stalled { next, reason, sink }).await;
                self.told_standing(told, Some(Stall::begun(ailing.since, next)));
            }
            (None, Some(stall)) if stall.is_over(next, self.shared().log.size()) => {
                let stalled_seconds = stall.seconds();
                tracing::info!("sink {sink} delivers again after {stalled_seconds} s");
                let told = self.tell(Resumed { next, sink, stalled_seconds }).await;
                self.told_standing(told, None);
            }
            _ => {}
        }
    }

    /// Says that it has ended for good, unless the log tells that it stalls.
    pub(super) async fn tell_end(&mut self, reason: &str) {
        if !self.standing.is_told() {
            let (next, sink) = (self.main.next(), self.shared().name.clone());
            let told = self.tell(Stalled { next, reason: without_quotes(reason), sink }).await;
            self.told_standing(told, None);
        }
    }

    /// What the log has been told is how it stands. What it didn't take is told again, but not at each look.
    fn told_standing(&mut self, told: Result<(), Stopped>, stalled: Option<Stall>) {
        match told {
            Ok(()) => self.standing.stalled = stalled,
            Err(error) => {
                tracing::error!("sink {}: {error}; trying again", self.shared().name);
                self.standing.silent_until = Instant::now().checked_add(self.fixed.stall);
            }
        }
    }
}
