//! How a sink does, for people and for metrics: numbers that anybody may read at any time.

use custody_core::delivery::Numbers;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Over how long a time it is measured how fast it goes, in milliseconds.
const RATE_MILLIS: u64 = 5_000;
/// How many events in a row are believed to be refused for what they are. Behind a wrong key, a clock that is off or another's mapping
/// each event is, and a sink that made dead letters of all of them would seem well.
const REFUSED_MAX: usize = 16;

/// Counted since the program started, but for the position.
#[derive(Debug, Default)]
pub struct Health {
    next: AtomicU64,
    /// When the last confirmed event was appended, nanoseconds since the epoch.
    confirmed_appended: AtomicU64,
    confirmed: AtomicU64,
    bytes: AtomicU64,
    rejected: AtomicU64,
    /// Those of what is new since something was taken.
    refused: AtomicUsize,
    dead_letters: AtomicU64,
    retries: AtomicU64,
    looked_up: AtomicU64,
    found: AtomicU64,
    replays: AtomicU64,
    rate: Mutex<Rate>,
    /// What doesn't work of what is new. That others get through is no sign that one that is held up does.
    troubles: Mutex<BTreeMap<At, Ailing>>,
    /// What doesn't work of an errand. It is told apart: what is new arrives all the same, and so the sink doesn't stall.
    errand_trouble: Mutex<Option<String>>,
    /// Since when an answer of any kind is awaited; nothing while nobody asks.
    awaited: Mutex<Option<Instant>>,
    /// How long it may be awaited.
    stall: Duration,
}

/// How fast it goes: measured now and then.
#[derive(Debug, Default)]
struct Rate {
    /// When it was measured last, and what was confirmed by then.
    last: Option<(Instant, u64)>,
    per_second: u64,
}

/// What somebody is at when something works or doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// The delivery itself: its files, and the log.
    Loop,
    /// The batch of what is new that begins with that event.
    Batch(u64),
    /// Whatever is new: it is refused.
    Everything,
    /// What the destination makes of what it has taken.
    Sink,
    /// A replay or a redrive.
    Errand,
}

/// Since when what doesn't work.
#[derive(Clone, Debug)]
pub struct Ailing {
    /// Since when.
    pub since: Instant,
    /// What went wrong last.
    pub reason: String,
}

impl Health {
    /// Of a sink whose destination counts as ailing after so long a silence.
    pub(crate) fn new(stall: Duration) -> Self {
        Self { stall, ..Self::default() }
    }

    /// The numbers now.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        Numbers {
            bytes: self.bytes.load(Relaxed),
            confirmed: self.confirmed.load(Relaxed),
            confirmed_appended: self.confirmed_appended.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            found: self.found.load(Relaxed),
            per_second: self.rate().per_second,
            looked_up: self.looked_up.load(Relaxed),
            next: self.next.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            retries: self.retries.load(Relaxed),
            replay_trouble: self.errand_trouble().clone(),
            replays: self.replays.load(Relaxed),
            trouble: self.ailing().map(|ailing| ailing.reason),
        }
    }

    /// What doesn't work, and since when: what went wrong last, or that no answer came for long.
    #[must_use]
    pub fn ailing(&self) -> Option<Ailing> {
        let oldest = self.troubles().values().min_by_key(|ailing| ailing.since).cloned();
        oldest.or_else(|| {
            let since = (*self.awaited()).filter(|since| since.elapsed() >= self.stall)?;
            Some(Ailing { since, reason: format!("no answer for {} s", since.elapsed().as_secs()) })
        })
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<At, Ailing>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn errand_trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.errand_trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures how fast it goes, unless it has just been measured.
    pub(crate) fn measure(&self, now: Instant) {
        let (mut rate, confirmed) = (self.rate(), self.confirmed.load(Relaxed));
        let Some((at, before)) = rate.last else {
            rate.last = Some((now, confirmed));
            return;
        };
        let millis = u64::try_from(now.duration_since(at).as_millis()).unwrap_or(u64::MAX);
        if millis >= RATE_MILLIS {
            rate.per_second = (confirmed - before).saturating_mul(1_000) / millis;
            rate.last = Some((now, confirmed));
        }
    }

    fn awaited(&self) -> MutexGuard<'_, Option<Instant>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer is awaited from now on, if none was before.
    pub(crate) fn asks(&self) {
        self.awaited().get_or_insert_with(Instant::now);
    }

    /// An answer of some kind came: the next one is awaited.
    pub(crate) fn heard(&self, at: At) {
        if at != At::Errand
            && let Some(since) = &mut *self.awaited()
        {
            *since = Instant::now();
        }
    }

    /// Nobody asks any more.
    pub(crate) fn rests(&self) {
        *self.awaited() = None;
    }

    /// An attempt came to nothing.
    pub(crate) fn failed(&self, at: At, reason: &str) {
        self.retries.fetch_add(1, Relaxed);
        self.note_trouble(at, Instant::now(), reason);
    }

    /// What was begun then isn't done yet, and goes on: nothing has to be tried again for that. It is trouble once what is new has waited
    /// for it as long as a stall is; an errand may take the time that it takes.
    pub(crate) fn takes_long(&self, at: At, begun: Instant, reason: &str) {
        if at == At::Errand {
            self.well(at);
        } else if begun.elapsed() >= self.stall {
            self.note_trouble(at, begun, reason);
        }
    }

    /// Something doesn't work: since before, or since then.
    fn note_trouble(&self, at: At, since: Instant, reason: &str) {
        if at == At::Errand {
            *self.errand_trouble() = Some(reason.to_owned());
            return;
        }
        let mut troubles = self.troubles();
        let mut since = troubles.get(&at).map_or(since, |ailing| ailing.since);
        if at == At::Loop {
            // No batch is under way any more, and what they waited for goes on.
            since = troubles.values().map(|ailing| ailing.since).min().unwrap_or(since);
            troubles.clear();
        }
        troubles.insert(at, Ailing { since, reason: reason.to_owned() });
    }

    /// Something was confirmed: that it was there already, where nothing was sent.
    pub(crate) fn confirmed(&self, at: At, events: usize, bytes: usize) {
        self.confirmed.fetch_add(events as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        if bytes > 0 {
            self.refused.store(0, Relaxed);
            self.well(At::Everything);
        }
        self.well(at);
    }

    /// What is wrong with what the destination makes of it, or that nothing is.
    pub(crate) fn ails(&self, reason: Option<String>) {
        let mut troubles = self.troubles();
        match reason {
            None => drop(troubles.remove(&At::Sink)),
            Some(reason) => {
                let since = troubles.get(&At::Sink).map_or_else(Instant::now, |ailing| ailing.since);
                troubles.insert(At::Sink, Ailing { since, reason });
            }
        }
    }

    /// So many events can't even be written as the destination takes them.
    pub(crate) fn unsent(&self, events: usize) {
        self.rejected.fetch_add(events as u64, Relaxed);
    }

    /// A batch has its end: so many of its events were taken and so many refused, the last of them for that reason. The position moves
    /// over what is refused, or one who can make such events would keep all others from arriving; but it is told where nothing arrives.
    pub(crate) fn ended(&self, at: At, taken: usize, refused: usize, reason: Option<&str>) {
        self.well(at);
        self.rejected.fetch_add(refused as u64, Relaxed);
        let (At::Batch(_), 0, Some(reason)) = (at, taken, reason) else { return };
        let before = self.refused.fetch_add(refused, Relaxed);
        if before.saturating_add(refused) > REFUSED_MAX {
            let since = Instant::now();
            let ailing = Ailing { since, reason: format!("it refuses each event: {reason}") };
            self.troubles().entry(At::Everything).or_insert(ailing);
        }
    }

    /// Whatever didn't work works, or nobody is at it any more.
    pub(crate) fn well(&self, at: At) {
        match at {
            At::Errand => *self.errand_trouble() = None,
            at => {
                let mut troubles = self.troubles();
                troubles.remove(&at);
                troubles.remove(&At::Loop);
            }
        }
    }

    /// A replay has come to its end.
    pub(crate) fn replayed(&self) {
        self.replays.fetch_add(1, Relaxed);
        self.well(At::Errand);
    }

    pub(crate) fn looked_up(&self, events: usize, found: usize) {
        self.looked_up.fetch_add(events as u64, Relaxed);
        self.found.fetch_add(found as u64, Relaxed);
    }

    pub(crate) fn set_dead_letters(&self, count: usize) {
        self.dead_letters.store(count as u64, Relaxed);
    }

    /// Everything below `next` is confirmed, and the last of it was appended then.
    pub(crate) fn moved(&self, next: u64, appended: Option<u64>) {
        self.next.store(next, Relaxed);
        if let Some(appended) = appended {
            self.confirmed_appended.store(appended, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_fast_it_goes_is_measured_over_some_seconds() {
        let (health, begun) = (Health::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        health.measure(begun);
        health.confirmed(At::Loop, 10_000, 0);
        health.measure(after(1));
        assert_eq!(health.numbers().per_second, 0, "too soon");
        health.measure(after(10));
        assert_eq!(health.numbers().per_second, 1_000);
        health.measure(after(20));
        assert_eq!(health.numbers().per_second, 0);
    }

    #[test]
    fn a_destination_that_refuses_each_event_is_told() {
        let health = Health::new(Duration::from_secs(10));
        let trouble = || health.numbers().trouble;
        for batch in 0..4 {
            assert_eq!(trouble(), None);
            health.ended(At::Batch(batch), 0, 5, Some("400"));
        }
        let since = health.ailing().unwrap().since;
        health.ended(At::Batch(4), 0, 1_000, Some("400"));
        assert_eq!(trouble().as_deref(), Some("it refuses each event: 400"));
        assert_eq!(health.ailing().unwrap().since, since);
        // What somebody sends once more may be all refused, and what is there already be found.
        health.ended(At::Errand, 0, 1_000, Some("400"));
        health.confirmed(At::Errand, 1_000, 0);
        health.ended(At::Batch(5), 0, 0, None);
        assert!(trouble().is_some());
        health.confirmed(At::Batch(6), 1, 100);
        health.ended(At::Batch(6), 1, 1_000, Some("400"));
        assert_eq!(trouble(), None);
        assert_eq!(health.numbers().rejected, 3_020);
    }

    #[test]
    fn what_takes_long_is_trouble_once_what_is_new_has_waited_for_it() {
        let health = Health::new(Duration::from_secs(10));
        let now = Instant::now();
        let earlier = now.checked_sub(Duration::from_secs(11)).unwrap();
        health.takes_long(At::Batch(0), now, "it is being read");
        assert_eq!(health.numbers().trouble, None);
        health.takes_long(At::Batch(0), earlier, "it is being read");
        assert_eq!(health.numbers().trouble.as_deref(), Some("it is being read"));
        assert_eq!((health.ailing().unwrap().since, health.numbers().retries), (earlier, 0));
        // What kept an errand from it before doesn't any more.
        health.failed(At::Errand, "no connection");
        health.takes_long(At::Errand, earlier, "it is being read");
        assert_eq!(health.numbers().replay_trouble, None);
    }

    #[test]
    fn a_batch_that_is_held_up_is_no_less_so_when_others_get_through() {
        let health = Health::new(Duration::from_secs(10));
        let ailing = || health.ailing().map(|ailing| ailing.reason);
        health.failed(At::Batch(0), "held up");
        let since = health.ailing().unwrap().since;
        health.failed(At::Batch(10), "busy");
        health.confirmed(At::Batch(10), 10, 0);
        health.failed(At::Batch(0), "held up still");
        assert_eq!(ailing().as_deref(), Some("held up still"));
        assert_eq!(health.ailing().unwrap().since, since);
        // The delivery begins anew, and with it every batch; since when nothing gets through stays.
        health.failed(At::Loop, "a full disk");
        assert_eq!((health.ailing().unwrap().since, ailing().as_deref()), (since, Some("a full disk")));
        health.failed(At::Batch(0), "held up");
        health.confirmed(At::Batch(0), 10, 0);
        assert_eq!(ailing(), None);
    }
}
