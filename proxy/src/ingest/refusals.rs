//! What the log refuses of agents' batches: each refusal is told once, and stands until something of that agent is durable
//! again. The agent would send the same again for ever, since it gives up no evidence that nobody has.

use custody_core::event::EventId;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use uuid::Uuid;

/// Refusals of one agent that are remembered as told: one that finds ever new ones fills no memory.
const TOLD_MAX: usize = 16;

/// Why the log takes nothing of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The agent's run that numbered it, where that can be read.
    pub boot: Option<Uuid>,
    /// Why, in one line.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

#[derive(Default)]
struct OfAgent {
    standing: Option<Refusal>,
    /// Those that events tell of, or are about to; the newest last.
    told: VecDeque<(Refusal, Option<EventId>)>,
}

/// The refusals of all agents, by node.
#[derive(Default)]
pub(super) struct Refusals(BTreeMap<String, OfAgent>);

impl Refusals {
    /// The one that stands, and the event that tells of it.
    pub(super) fn standing(&self, node: &str) -> Option<(&Refusal, Option<EventId>)> {
        let of_agent = self.0.get(node)?;
        let standing = of_agent.standing.as_ref()?;
        let event = of_agent.told.iter().find(|(told, _)| told == standing).and_then(|(_, event)| *event);
        Some((standing, event))
    }

    /// It stands from now on.
    pub(super) fn stands(&mut self, node: &str, refusal: Refusal) {
        self.0.entry(node.to_owned()).or_default().standing = Some(refusal);
    }

    /// Something of the agent was taken. Gives whether a refusal stood.
    pub(super) fn over(&mut self, node: &str) -> bool {
        self.0.get_mut(node).is_some_and(|of_agent| of_agent.standing.take().is_some())
    }

    /// Whether it is to be told, by whoever asks: nobody else is asked to.
    pub(super) fn is_news(&mut self, node: &str, refusal: &Refusal) -> bool {
        let told = &mut self.0.entry(node.to_owned()).or_default().told;
        let is_news = told.iter().all(|(known, _)| known != refusal);
        if is_news {
            if told.len() >= TOLD_MAX {
                told.pop_front();
            }
            told.push_back((refusal.clone(), None));
        }
        is_news
    }

    /// It was told by this event; without one it couldn't be, and is to be told the next time.
    pub(super) fn told(&mut self, node: &str, refusal: &Refusal, event: Option<EventId>) {
        let Some(of_agent) = self.0.get_mut(node) else { return };
        if event.is_none() {
            of_agent.told.retain(|(told, _)| told != refusal);
        } else if let Some((_, by)) = of_agent.told.iter_mut().find(|(told, _)| told == refusal) {
            *by = event;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(boot: u128, reason: &str) -> Refusal {
        Refusal { boot: Some(Uuid::from_u128(boot)), reason: reason.to_owned() }
    }

    #[test]
    fn each_is_told_once_for_a_node_a_boot_and_a_reason_however_often_it_comes() {
        let mut refusals = Refusals::default();
        let first = refusal(1, "another key");
        assert!(refusals.is_news("web-1", &first));
        assert!(!refusals.is_news("web-1", &first), "somebody is about to tell it");
        refusals.told("web-1", &first, None);
        assert!(refusals.is_news("web-1", &first), "that failed, so it is to be told still");
        let event = EventId(Uuid::from_u128(9));
        refusals.told("web-1", &first, Some(event));
        refusals.stands("web-1", first.clone());
        assert_eq!(refusals.standing("web-1"), Some((&first, Some(event))));
        assert!(refusals.over("web-1") && !refusals.over("web-1"));
        assert!(!refusals.is_news("web-1", &first), "also when something was taken meanwhile");
        assert_eq!(refusals.standing("web-1"), None);
        for other in [refusal(2, "another key"), refusal(1, "other bytes")] {
            assert!(refusals.is_news("web-1", &other), "{other:?}");
        }
        assert!(refusals.is_news("web-2", &first));
    }

    #[test]
    fn who_finds_ever_new_ones_fills_no_memory() {
        let mut refusals = Refusals::default();
        for boot in 0..1_000 {
            assert!(refusals.is_news("web-1", &refusal(boot, "another key")));
        }
        assert_eq!(refusals.0["web-1"].told.len(), TOLD_MAX);
        assert!(!refusals.is_news("web-1", &refusal(999, "another key")), "the newest are remembered");
    }
}
