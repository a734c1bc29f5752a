//! Asking is not telling: reads are decided each time, and told in the log at most once a minute for each reader and
//! purpose. Otherwise the log would feed on those who look at it.

use super::error::ApiError;
use super::{Api, Caller};
use custody_core::event::{Actor, Draft, EventData, Outcome, Source, Target, Timestamp, decision, log};
use custody_core::policy::{Decision, Request, What, decide};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

/// How long one event speaks for the same reader and purpose.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// Readers and purposes that are remembered; beyond it all are told again.
const REMEMBERED_MAX: usize = 10_000;
/// How much of a question stands in its event, in characters.
const QUERY_CHARS_MAX: usize = 512;

/// When a read was last told, by the monotonic clock: one that somebody sets back must not keep reads untold.
#[derive(Debug, Default)]
pub(super) struct ReadLedger {
    told: BTreeMap<(String, &'static str, bool), Duration>,
}

impl ReadLedger {
    /// Whether this read is to be told at `now`.
    fn is_due(&self, key: &(String, &'static str, bool), now: Duration) -> bool {
        self.told.get(key).is_none_or(|then| now.saturating_sub(*then) >= TOLD_FOR)
    }

    /// It was told at `now`: to be called once that is durable.
    fn told(&mut self, key: (String, &'static str, bool), now: Duration) {
        if self.told.len() >= REMEMBERED_MAX {
            self.told.clear();
        }
        self.told.insert(key, now);
    }
}

/// Somebody whose identity is proved: what is decided and told needs of him.
pub(super) trait Asks: Send + Sync {
    /// On whose behalf events are.
    fn actor(&self) -> Actor;
    /// The name under which reads are counted: a user's, or with a colon in it, which no user has.
    fn name(&self) -> String;
    /// Where from.
    fn source(&self) -> &Source;
    /// The request that policy decides about, at `now`.
    fn request(&self, what: What, now: Timestamp) -> Request;
}

impl Asks for Caller {
    fn actor(&self) -> Actor {
        Caller::actor(self)
    }

    fn name(&self) -> String {
        self.shown.user.clone()
    }

    fn source(&self) -> &Source {
        &self.source
    }

    fn request(&self, what: What, now: Timestamp) -> Request {
        Caller::request(self, what, now)
    }
}

/// How often a read is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Once a minute for a reader and purpose.
    Aggregated,
    /// This one, whatever was told before.
    Always,
}

impl Api {
    /// Decides a read of the log or the state, and makes sure that it has been told. What is read may be handed out
    /// afterwards.
    pub(super) async fn read(
        &self,
        caller: &impl Asks,
        what: What,
        purpose: &'static str,
        query: &str,
        telling: Telling,
    ) -> Result<(), ApiError> {
        let now = self.now();
        let (kind, name) = what.resource();
        let target = Target { kind: kind.to_ascii_lowercase(), name, ..Target::default() };
        let request = caller.request(what, now);
        let Decision { made, .. } = self.context.replica.read(|state| decide(state, &request));
        let key = (caller.name(), purpose, made.allowed);
        let passed = self.context.clock.monotonic();
        let is_due = telling == Telling::Always
            || self.reads.lock().unwrap_or_else(PoisonError::into_inner).is_due(&key, passed);
        let (allowed, reason) = (made.allowed, made.reason.clone());
        if is_due {
            let decided = decided(caller, made, target.clone());
            if allowed {
                let query = query.chars().take(QUERY_CHARS_MAX).collect();
                let read = log::Read { purpose: purpose.to_owned(), query };
                let read = about(caller, read, target).cause(decided.id);
                let _durable = self.context.producer.append((decided, read)).await?;
            } else {
                let _durable = self.context.producer.append(decided).await?;
            }
            self.reads.lock().unwrap_or_else(PoisonError::into_inner).told(key, passed);
        }
        if allowed { Ok(()) } else { Err(ApiError::Denied(reason)) }
    }

    /// Makes sure that the reading of a reader from outside has been told. The configuration allowed it, so there is
    /// nothing to decide. A person's name has no colon.
    pub(super) async fn read_as_reader(&self, name: &str, purpose: &'static str) -> Result<(), ApiError> {
        let passed = self.context.clock.monotonic();
        let actor = format!("reader:{name}");
        let key = (actor.clone(), purpose, true);
        if self.reads.lock().unwrap_or_else(PoisonError::into_inner).is_due(&key, passed) {
            let read = log::Read { purpose: purpose.to_owned(), query: String::new() };
            let _durable = self.context.producer.append(Draft::new(Actor::system(&actor), read)).await?;
            self.reads.lock().unwrap_or_else(PoisonError::into_inner).told(key, passed);
        }
        Ok(())
    }

    /// Whether a read would be allowed now; tells nothing, so that nothing may be handed out on its word but less.
    pub(super) fn may(&self, caller: &impl Asks, what: What) -> Result<(), String> {
        let request = caller.request(what, self.now());
        let Decision { made, .. } = self.context.replica.read(|state| decide(state, &request));
        if made.allowed { Ok(()) } else { Err(made.reason) }
    }
}

/// A decision's event.
pub(super) fn decided(caller: &impl Asks, made: decision::Made, target: Target) -> Draft<decision::Made> {
    let outcome = if made.allowed { Outcome::Success } else { Outcome::Denied };
    about(caller, made, target).outcome(outcome)
}

/// An event on the caller's behalf about `target`.
pub(super) fn about<D: EventData>(caller: &impl Asks, data: D, target: Target) -> Draft<D> {
    Draft::new(caller.actor(), data).source(caller.source().clone()).target(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::clock::{Clock as _, ManualClock, Nanos};

    #[test]
    fn a_clock_that_is_set_back_keeps_no_read_untold() {
        let clock = ManualClock::new(Nanos(1_764_028_800_000_000_000));
        let (mut ledger, key) = (ReadLedger::default(), ("ana".to_owned(), "search", true));
        ledger.told(key.clone(), clock.monotonic());
        clock.set_wall(Nanos(0));
        clock.advance(TOLD_FOR);
        assert!(ledger.is_due(&key, clock.monotonic()));
    }

    #[test]
    fn told_once_a_minute_for_each_reader_purpose_and_answer() {
        let mut ledger = ReadLedger::default();
        let at = Duration::from_secs;
        let key = |user: &str, allowed| (user.to_owned(), "search", allowed);
        assert!(ledger.is_due(&key("ana", true), at(100)));
        ledger.told(key("ana", true), at(100));
        assert!(!ledger.is_due(&key("ana", true), at(159)));
        assert!(ledger.is_due(&key("ana", false), at(101)));
        assert!(ledger.is_due(&key("bob", true), at(101)));
        assert!(ledger.is_due(&key("ana", true), at(160)));
        for n in 0..REMEMBERED_MAX + 5 {
            ledger.told(key(&n.to_string(), true), at(200));
            assert!(ledger.told.len() <= REMEMBERED_MAX);
        }
    }
}
