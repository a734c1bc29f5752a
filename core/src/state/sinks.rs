//! Sinks that somebody holds, and sinks that were told to stall. Everything else about a sink is its position, which isn't state.

use crate::event::Timestamp;
use crate::event::sink::{Paused, Released, Resumed, Stalled};
use serde::Serialize;
use std::collections::BTreeMap;

/// How many sinks can be held at once: more than anybody configures.
pub const PAUSED_MAX: usize = 1024;
/// Of how many sinks is remembered that they stall. One that was taken out of the configuration meanwhile stays among them.
pub const STALLED_MAX: usize = 1024;

/// Held sinks by name, and the stalls of others.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sinks {
    paused: BTreeMap<String, String>,
    stalled: BTreeMap<String, Stall>,
}

/// That a sink stalls, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stall {
    /// The first event that wasn't delivered then. A sink that has come further has delivered since, whether or not that was told.
    pub next: u64,
    /// When it was told.
    pub since: Timestamp,
}

impl Sinks {
    /// Why somebody holds the sink, if somebody does.
    #[must_use]
    pub fn paused(&self, sink: &str) -> Option<&str> {
        self.paused.get(sink).map(String::as_str)
    }

    /// That the sink stalls, if that was told and it wasn't told since that it goes on.
    #[must_use]
    pub fn stall(&self, sink: &str) -> Option<Stall> {
        self.stalled.get(sink).copied()
    }

    pub(super) fn pause(&mut self, data: Paused) -> Result<(), &'static str> {
        if self.paused.len() >= PAUSED_MAX && !self.paused.contains_key(&data.sink) {
            return Err("too many sinks are held already");
        }
        self.paused.insert(data.sink, data.reason);
        Ok(())
    }

    pub(super) fn release(&mut self, data: &Released) -> Result<(), &'static str> {
        self.paused.remove(&data.sink).map(drop).ok_or("nobody holds this sink")
    }

    /// It was told so at that time. One that stalls already does so since before, unless it has come further in between.
    pub(super) fn stalled(&mut self, at: Timestamp, data: Stalled) -> Result<(), &'static str> {
        if self.stalled.len() >= STALLED_MAX && !self.stalled.contains_key(&data.sink) {
            return Err("too many sinks stall already");
        }
        let told = Stall { next: data.next, since: at };
        let known = self.stalled.entry(data.sink).or_insert(told);
        if told.next > known.next {
            *known = told;
        }
        Ok(())
    }

    /// It goes on, whether or not it was told to stall.
    pub(super) fn resumed(&mut self, data: &Resumed) {
        self.stalled.remove(&data.sink);
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, now, replayed};
    use super::*;
    use crate::event::ProducerKind;

    #[test]
    fn held_until_released() {
        let mut sinks = Sinks::default();
        let pause = |sink: &str| Paused { reason: "moving".into(), sink: sink.into() };
        sinks.pause(pause("loki")).unwrap();
        assert_eq!((sinks.paused("loki"), sinks.paused("kafka")), (Some("moving"), None));
        sinks.release(&Released { sink: "loki".into() }).unwrap();
        assert_eq!(sinks.paused("loki"), None);
        assert!(sinks.release(&Released { sink: "loki".into() }).is_err());
        for n in 0..PAUSED_MAX {
            sinks.pause(pause(&n.to_string())).unwrap();
        }
        assert!(sinks.pause(pause("one more")).is_err());
    }

    fn stalled(sink: &str) -> Stalled {
        stalled_at(40, sink)
    }

    fn stalled_at(next: u64, sink: &str) -> Stalled {
        Stalled { next, reason: "connection refused".into(), sink: sink.into() }
    }

    #[test]
    fn stalled_since_it_was_told_first_until_it_is_told_to_go_on() {
        let mut story = Story::begun();
        let first = story.caused(ProducerKind::Log, None, stalled("loki"));
        story.caused(ProducerKind::Log, None, stalled("loki"));
        assert_eq!(story.state.sinks().stall("loki"), Some(Stall { next: 40, since: now(first) }));
        assert_eq!(story.state.sinks().stall("kafka"), None);
        let shown = |story: &Story| story.state.canonical().unwrap();
        assert_eq!(shown(&story), replayed(&story.entries).canonical().unwrap());
        let resumed = Resumed { next: 1040, sink: "loki".into(), stalled_seconds: 61 };
        // A program that died between the two may say it of one that the log doesn't know to stall.
        for _ in 0..2 {
            let index = story.caused(ProducerKind::Log, None, resumed.clone());
            assert_eq!(story.reason(index), None);
            assert_eq!(story.state.sinks().stall("loki"), None);
        }
        let index = story.caused(ProducerKind::Proxy, None, stalled("loki"));
        assert_eq!(story.reason(index), Some("its producer may not say that"));
        assert_eq!(shown(&story), replayed(&story.entries).canonical().unwrap());
    }

    #[test]
    fn no_more_sinks_are_remembered_than_there_may_be() {
        let mut sinks = Sinks::default();
        for n in 0..STALLED_MAX {
            sinks.stalled(now(0), stalled(&n.to_string())).unwrap();
        }
        assert!(sinks.stalled(now(0), stalled("one more")).is_err());
        sinks.stalled(now(1), stalled("7")).unwrap();
        assert_eq!(sinks.stall("7"), Some(Stall { next: 40, since: now(0) }));
    }

    /// Earlier programs didn't tell of the end of a stall that a restart had ended.
    #[test]
    fn one_that_has_come_further_stalls_since_it_was_told_there() {
        let mut sinks = Sinks::default();
        for (time, next) in [(0, 40), (1, 40), (2, 41), (3, 7)] {
            sinks.stalled(now(time), stalled_at(next, "loki")).unwrap();
        }
        assert_eq!(sinks.stall("loki"), Some(Stall { next: 41, since: now(2) }));
    }
}
