//! Sinks that somebody holds. Everything else about a sink is its position, which isn't state.

use crate::event::sink::{Paused, Released};
use serde::Serialize;
use std::collections::BTreeMap;

/// How many sinks can be held at once: more than anybody configures.
pub const PAUSED_MAX: usize = 1024;

/// Held sinks by name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sinks {
    paused: BTreeMap<String, String>,
}

impl Sinks {
    /// Why somebody holds the sink, if somebody does.
    #[must_use]
    pub fn paused(&self, sink: &str) -> Option<&str> {
        self.paused.get(sink).map(String::as_str)
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
