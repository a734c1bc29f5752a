//! Producers: the last number of each, so that what is missing shows.

use super::view::ProducerView;
use crate::event::ProducerKind;
use crate::event::producer::{Gap, Previous};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

/// How many producers are told apart; a log has a handful, and one that invents names can't fill the memory.
pub const PRODUCERS_MAX: usize = 4096;

/// How many boots of a producer are kept, the newest: an older one says nothing more.
pub const BOOTS_MAX: usize = 16;

/// How many gaps may wait to be told, the oldest; all are counted.
pub const GAPS_MAX: usize = 1024;

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
    /// How often it had forgotten what it told: whether numbers were skipped then, and how many, isn't known.
    pub unknown_gaps: u64,
}

impl Producer {
    fn forget(&mut self) {
        if self.boots.len() > BOOTS_MAX {
            let oldest = self.boots.iter().min_by_key(|(_, boot)| boot.index).map(|(id, _)| *id);
            oldest.and_then(|id| self.boots.remove(&id));
        }
    }
}

/// All producers by id.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Producers {
    by_id: BTreeMap<String, Producer>,
    /// Gaps of which no `producer.gap` speaks yet, in the order in which they showed.
    gaps: VecDeque<Gap>,
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
    pub fn previous(&self, id: &str) -> Option<Previous> {
        let newest = self.by_id.get(id)?.boots.iter().max_by_key(|(_, boot)| boot.index)?;
        Some(Previous { boot: *newest.0, seq: newest.1.seq })
    }

    /// Gaps that no event tells yet: for whoever tells them.
    pub fn untold_gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter()
    }

    /// Numbers that were skipped, of all producers.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.by_id.values().fold(0, |sum, producer| sum.saturating_add(producer.gaps))
    }

    /// Gaps of unknown size, of all producers: [`Self::gaps`] counts nothing for them.
    #[must_use]
    pub fn unknown_gaps(&self) -> u64 {
        self.by_id.values().fold(0, |sum, producer| sum.saturating_add(producer.unknown_gaps))
    }

    pub(super) fn spoke(&mut self, index: u64, who: &ProducerView<'_>) {
        if !self.by_id.contains_key(&*who.id) {
            if self.by_id.len() >= PRODUCERS_MAX {
                self.untold = self.untold.saturating_add(1);
                return;
            }
            let fresh = Producer { boots: BTreeMap::new(), gaps: 0, kind: who.kind, unknown_gaps: 0 };
            self.by_id.insert(who.id.to_string(), fresh);
        }
        let Some(producer) = self.by_id.get_mut(&*who.id) else { return };
        let expected = producer.boots.get(&who.boot).map_or(0, |boot| boot.seq.saturating_add(1));
        let boot = producer.boots.entry(who.boot).or_insert(Boot { gaps: 0, index, seq: 0, stopped: false });
        boot.index = index;
        boot.seq = boot.seq.max(who.seq);
        producer.forget();
        self.missed(index, who, who.boot, expected, who.seq);
    }

    /// A boot begins and names the one before: what that one said and the log hasn't got is lost. A node that names none,
    /// though the log knows one, has lost its spool, with whatever hadn't reached the log; or its machine was started again,
    /// with whatever its kernel hadn't told.
    pub(super) fn started(&mut self, index: u64, who: &ProducerView<'_>, previous: Option<Previous>) {
        let Some(Previous { boot, seq }) = previous else {
            if who.kind == ProducerKind::Node {
                self.forgot(index, who);
            }
            return;
        };
        let Some(known) = self.by_id.get(&*who.id) else { return };
        let expected = known.boots.get(&boot).map_or(0, |boot| boot.seq.saturating_add(1));
        self.missed(index, who, boot, expected, seq.saturating_add(1));
    }

    /// Whoever ended its last boot in order had told everything: nothing was left that could come after it.
    fn forgot(&mut self, index: u64, who: &ProducerView<'_>) {
        let Some(known) = self.by_id.get_mut(&*who.id) else { return };
        let others = known.boots.iter().filter(|(boot, _)| **boot != who.boot);
        let Some((boot, last)) = others.max_by_key(|(_, boot)| boot.index) else { return };
        if last.stopped {
            return;
        }
        let (boot, first) = (*boot, last.seq.saturating_add(1));
        known.unknown_gaps = known.unknown_gaps.saturating_add(1);
        if self.gaps.len() < GAPS_MAX {
            let producer = who.id.to_string();
            self.gaps.push_back(Gap { boot, count: 0, first, index, producer, unknown: true });
        }
    }

    /// Numbers from `expected` on and below `next` are missing.
    fn missed(&mut self, index: u64, who: &ProducerView<'_>, boot: Uuid, expected: u64, next: u64) {
        let count = next.saturating_sub(expected);
        if count == 0 {
            return;
        }
        let Some(producer) = self.by_id.get_mut(&*who.id) else { return };
        producer.gaps = producer.gaps.saturating_add(count);
        let known = producer.boots.entry(boot).or_insert(Boot { gaps: 0, index, seq: 0, stopped: false });
        known.gaps = known.gaps.saturating_add(count);
        // What is missing is told once: a later start that names the same end finds it known.
        known.seq = known.seq.max(next.saturating_sub(1));
        producer.forget();
        if self.gaps.len() < GAPS_MAX {
            let (first, producer) = (expected, who.id.to_string());
            self.gaps.push_back(Gap { boot, count, first, index, producer, unknown: false });
        }
    }

    /// A gap was told. The log tells those that its numbering shows; others tell what they lost themselves.
    pub(super) fn gap_told(&mut self, who: &ProducerView<'_>, gap: &Gap) -> Result<(), &'static str> {
        if who.kind != ProducerKind::Log && who.id != gap.producer {
            return Err("a producer tells its own gaps only");
        }
        if let Some(place) = self.gaps.iter().position(|untold| untold == gap) {
            self.gaps.remove(place);
        }
        Ok(())
    }

    pub(super) fn stopped(&mut self, who: &ProducerView<'_>) {
        let boot = self.by_id.get_mut(&*who.id).and_then(|producer| producer.boots.get_mut(&who.boot));
        if let Some(boot) = boot {
            boot.stopped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(boot: u128, seq: u64) -> ProducerView<'static> {
        ProducerView { boot: Uuid::from_u128(boot), id: "web-1".into(), kind: ProducerKind::Node, seq }
    }

    fn gap(boot: u128, first: u64, count: u64, index: u64) -> Gap {
        let (boot, producer) = (Uuid::from_u128(boot), "web-1".into());
        Gap { boot, count, first, index, producer, unknown: false }
    }

    #[test]
    fn each_jump_is_one_gap_with_its_exact_count_until_it_is_told() {
        let mut producers = Producers::default();
        for (index, seq) in [(0, 0), (1, 1), (2, 5), (3, 6), (4, 8)] {
            producers.spoke(index, &who(1, seq));
        }
        let gaps: Vec<_> = producers.untold_gaps().cloned().collect();
        assert_eq!(gaps, [gap(1, 2, 3, 2), gap(1, 7, 1, 4)]);
        assert_eq!(producers.gaps(), 4);
        let log = ProducerView { kind: ProducerKind::Log, id: "custody".into(), ..who(2, 0) };
        producers.gap_told(&log, &gaps[0]).unwrap();
        assert_eq!(producers.untold_gaps().cloned().collect::<Vec<_>>(), gaps[1..]);
        assert_eq!(producers.gaps(), 4, "told, and still missing");
    }

    #[test]
    fn a_boot_that_begins_late_has_a_gap_and_so_has_a_tail_that_is_lost() {
        let mut producers = Producers::default();
        producers.spoke(0, &who(1, 2));
        assert_eq!(producers.untold_gaps().cloned().collect::<Vec<_>>(), [gap(1, 0, 2, 0)]);
        producers.spoke(1, &who(2, 0));
        let previous = |boot, seq| Some(Previous { boot: Uuid::from_u128(boot), seq });
        producers.started(1, &who(2, 0), previous(1, 9));
        assert_eq!(producers.untold_gaps().last().cloned(), Some(gap(1, 3, 7, 1)));
        producers.started(2, &who(3, 0), previous(1, 9));
        producers.started(2, &who(3, 0), previous(2, 0));
        assert_eq!(producers.untold_gaps().count(), 2, "nothing is missing twice");
        producers.started(3, &who(4, 0), previous(99, 4));
        assert_eq!(producers.untold_gaps().last().cloned(), Some(gap(99, 0, 5, 3)), "a whole boot");
    }

    #[test]
    fn a_node_that_has_forgotten_what_it_told_is_a_gap_unless_it_had_ended_in_order() {
        let mut producers = Producers::default();
        producers.spoke(0, &who(1, 0));
        producers.started(0, &who(1, 0), None);
        assert_eq!(producers.untold_gaps().count(), 0, "its first boot");
        producers.spoke(1, &who(1, 1));
        producers.spoke(2, &who(2, 0));
        producers.started(2, &who(2, 0), None);
        let forgotten = Gap { unknown: true, ..gap(1, 2, 0, 2) };
        assert_eq!(producers.untold_gaps().cloned().collect::<Vec<_>>(), [forgotten]);
        assert_eq!((producers.gaps(), producers.unknown_gaps()), (0, 1));
        producers.spoke(3, &who(2, 1));
        producers.stopped(&who(2, 1));
        producers.spoke(4, &who(3, 0));
        producers.started(4, &who(3, 0), None);
        assert_eq!(producers.untold_gaps().count(), 1, "all of it was told");
        let other = ProducerView { kind: ProducerKind::Proxy, ..who(4, 0) };
        producers.spoke(5, &other);
        producers.started(5, &other, None);
        assert_eq!(producers.untold_gaps().count(), 1, "others have no spool");
        assert_eq!(producers.unknown_gaps(), 1);
    }

    #[test]
    fn gaps_of_unknown_size_are_counted_for_each_producer_told_or_not() {
        let mut producers = Producers::default();
        let other = ProducerView { id: "web-2".into(), ..who(100, 0) };
        producers.spoke(0, &other);
        producers.started(0, &other, None);
        // More than may wait to be told.
        let boots = GAPS_MAX as u64 + 3;
        for boot in 0..=boots {
            producers.spoke(1 + boot, &who(u128::from(boot), 0));
            producers.started(1 + boot, &who(u128::from(boot), 0), None);
        }
        assert_eq!(producers.untold_gaps().count(), GAPS_MAX);
        let first = producers.untold_gaps().next().cloned().unwrap();
        producers.gap_told(&who(u128::from(boots), 1), &first).unwrap();
        assert_eq!(producers.unknown_gaps(), boots);
        let shown = |id: &str| serde_json::to_value(producers.get(id)).unwrap()["unknown_gaps"].as_u64();
        assert_eq!((shown("web-1"), shown("web-2")), (Some(boots), Some(0)));
    }

    #[test]
    fn who_invents_numbers_and_boots_fills_no_memory() {
        let mut producers = Producers::default();
        for n in 0..u64::from(u16::MAX) {
            producers.spoke(n, &who(u128::from(n), u64::MAX - n));
        }
        assert!(producers.untold_gaps().count() <= GAPS_MAX);
        assert!(producers.get("web-1").unwrap().boots.len() <= BOOTS_MAX);
        assert_eq!(producers.gaps(), u64::MAX);
    }

    #[test]
    fn nobody_tells_gaps_of_others_but_the_log() {
        let mut producers = Producers::default();
        let other = ProducerView { id: "web-2".into(), ..who(5, 0) };
        assert!(producers.gap_told(&other, &gap(1, 2, 3, 2)).is_err());
        assert!(producers.gap_told(&who(1, 3), &gap(1, 2, 3, 2)).is_ok());
    }
}
