//! Producers: the last number of each, so that what is missing shows.

use crate::event::{ProducerKind, ProducerRef};
use serde::Serialize;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many producers are told apart; a log has a handful, and one that invents names can't fill the memory.
pub const PRODUCERS_MAX: usize = 4096;

/// How many boots of a producer are kept, the newest: an older one says nothing more.
pub const BOOTS_MAX: usize = 16;

/// One run of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// Numbers that were skipped.
    pub gaps: u64,
    /// The index of its last event.
    pub index: u64,
    /// The last number.
    pub seq: u64,
    /// Whether it said that it ended in order.
    pub stopped: bool,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Producer {
    /// The newest boots.
    pub boots: BTreeMap<Uuid, Boot>,
    /// Numbers that were skipped, in all boots.
    pub gaps: u64,
    /// What kind of program.
    pub kind: ProducerKind,
}

/// All producers by id.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Producers {
    by_id: BTreeMap<String, Producer>,
    /// Events of producers beyond [`PRODUCERS_MAX`].
    untold: u64,
}

impl Producers {
    /// A producer.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Producer> {
        self.by_id.get(id)
    }

    /// All producers by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (id.as_str(), producer))
    }

    /// The last boot of a producer and its last number: what its next start names as the boot before.
    #[must_use]
    pub fn previous(&self, id: &str) -> Option<crate::event::producer::Previous> {
        let newest = self.by_id.get(id)?.boots.iter().max_by_key(|(_, boot)| boot.index)?;
        Some(crate::event::producer::Previous { boot: *newest.0, seq: newest.1.seq })
    }

    pub(super) fn spoke(&mut self, index: u64, who: &ProducerRef) {
        if !self.by_id.contains_key(&who.id) {
            if self.by_id.len() >= PRODUCERS_MAX {
                self.untold = self.untold.saturating_add(1);
                return;
            }
            let fresh = Producer { boots: BTreeMap::new(), gaps: 0, kind: who.kind };
            self.by_id.insert(who.id.clone(), fresh);
        }
        let Some(producer) = self.by_id.get_mut(&who.id) else { return };
        let expected = producer.boots.get(&who.boot).map_or(0, |boot| boot.seq.saturating_add(1));
        let skipped = who.seq.saturating_sub(expected);
        producer.gaps = producer.gaps.saturating_add(skipped);
        let boot = producer.boots.entry(who.boot).or_insert(Boot { gaps: 0, index, seq: 0, stopped: false });
        boot.gaps = boot.gaps.saturating_add(skipped);
        boot.index = index;
        boot.seq = boot.seq.max(who.seq);
        if producer.boots.len() > BOOTS_MAX {
            let oldest = producer.boots.iter().min_by_key(|(_, boot)| boot.index).map(|(id, _)| *id);
            oldest.and_then(|id| producer.boots.remove(&id));
        }
    }

    pub(super) fn stopped(&mut self, who: &ProducerRef) {
        let boot = self.by_id.get_mut(&who.id).and_then(|producer| producer.boots.get_mut(&who.boot));
        if let Some(boot) = boot {
            boot.stopped = true;
        }
    }
}
