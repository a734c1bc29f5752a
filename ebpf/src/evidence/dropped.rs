//! What the kernel saw and couldn't tell: counted there, and told here, each once.
//!
//! The counts go on for as long as the programs are attached. How much of them was told lies in a file that is written
//! before the event that tells it, with the event's number: so a start knows whether the event came about.

use crate::sensor::Counters;
use crate::sensor::layout::kind;
use custody_core::event::producer::Previous;
use custody_core::log::durable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

type Totals = BTreeMap<String, u64>;

/// How much was told.
#[derive(Debug)]
pub struct Dropped {
    path: PathBuf,
    told: Totals,
}

#[derive(Serialize, Deserialize)]
struct Planned {
    /// The number of the event that tells it.
    event: Previous,
    /// What is told with it.
    after: Totals,
    /// What had been told before it.
    before: Totals,
}

/// What is to be told now.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    /// How many of each kind.
    pub counts: BTreeMap<String, u64>,
    after: Totals,
}

impl Due {
    /// How many they are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Dropped {
    /// Opens the file; `spooled` is the last event that the spool has had.
    ///
    /// # Errors
    /// The system's; a file that isn't what this program wrote.
    pub fn open(path: &Path, spooled: Option<Previous>) -> io::Result<Self> {
        let told = match std::fs::read(path) {
            Ok(bytes) => {
                let planned: Planned = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
                let came_about = spooled
                    .is_some_and(|last| last.boot == planned.event.boot && last.seq >= planned.event.seq);
                // Of an earlier run than the last one it came about too, or that run would have told it again.
                let earlier = spooled.is_some_and(|last| last.boot > planned.event.boot);
                if came_about || earlier { planned.after } else { planned.before }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Totals::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), told })
    }

    /// What isn't told yet. Counts that have become smaller are those of programs that were attached anew.
    #[must_use]
    pub fn due(&self, counters: &Counters) -> Option<Due> {
        let mut after = Totals::new();
        for (number, name) in kind::NAMES {
            after.insert(name.to_owned(), counters.lost.get(&number).copied().unwrap_or_default());
        }
        for (program, count) in &counters.skipped {
            after.insert(format!("skipped {program}"), *count);
        }
        let untold = |(name, total): (&String, &u64)| {
            let told = self.told.get(name).copied().unwrap_or_default();
            let count = total.checked_sub(told).unwrap_or(*total);
            (count > 0).then(|| (name.clone(), count))
        };
        let counts: BTreeMap<_, _> = after.iter().filter_map(untold).collect();
        (!counts.is_empty()).then_some(Due { counts, after })
    }

    /// The event of that number will tell it: durable when this returns.
    ///
    /// # Errors
    /// The system's: then it mustn't be told yet.
    pub fn plan(&self, due: &Due, event: Previous) -> io::Result<()> {
        let planned = Planned { event, after: due.after.clone(), before: self.told.clone() };
        let bytes = serde_json::to_vec(&planned).map_err(io::Error::other)?;
        let aside = self.path.with_extension("new");
        durable::write_file(&aside, &bytes, 0o600)?;
        durable::rename(&aside, &self.path)
    }

    /// It was told.
    pub fn told(&mut self, due: Due) {
        self.told = due.after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn counters(executed: u64) -> Counters {
        Counters { lost: BTreeMap::from([(kind::EXECUTED, executed)]), ..Counters::default() }
    }

    #[test]
    fn what_is_lost_is_told_once_whenever_the_agent_dies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dropped.json");
        let event = Previous { boot: Uuid::from_u128(1), seq: 7 };
        let mut dropped = Dropped::open(&path, None).unwrap();
        assert_eq!(dropped.due(&counters(0)), None);
        let due = dropped.due(&counters(3)).unwrap();
        assert_eq!((due.total(), due.counts["executed"]), (3, 3));
        dropped.plan(&due, event).unwrap();
        // Killed before the spool had the event: it is still to be told.
        let again = Dropped::open(&path, Some(Previous { seq: 6, ..event })).unwrap();
        assert_eq!(again.due(&counters(3)).unwrap().total(), 3);
        // Killed after that: it isn't.
        let again = Dropped::open(&path, Some(event)).unwrap();
        assert_eq!(again.due(&counters(3)), None);
        dropped.told(due);
        assert_eq!(dropped.due(&counters(5)).unwrap().total(), 2);
        assert_eq!(dropped.due(&counters(1)).unwrap().total(), 1, "attached anew");
    }
}
