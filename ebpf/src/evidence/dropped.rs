//! What the kernel saw and couldn't tell: counted there, and told here, each once.
//!
//! The counts go on for as long as the programs are attached, at most until the machine starts again. How much of them was told lies in a file that is written
//! before the event that tells it, with the event's number: so a start knows whether the event came about.

use crate::sensor::Counters;
use crate::sensor::layout::kind;
use custody_core::event::producer::Previous;
use custody_core::log::durable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Of each kind, how many of which counts.
type Totals = BTreeMap<String, Total>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Total {
    count: u64,
    /// What counts: another one begins at zero.
    of: String,
}

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

    /// What isn't told yet.
    #[must_use]
    pub fn due(&self, counters: &Counters) -> Option<Due> {
        let mut after = Totals::new();
        let since = &counters.since;
        for (number, name) in kind::NAMES {
            let count = counters.lost.get(&number).copied().unwrap_or_default();
            after.insert(name.to_owned(), Total { count, of: format!("{} map {}", since.boot, since.map) });
        }
        for (program, count) in &counters.skipped {
            let number = since.programs.get(program).copied().unwrap_or_default();
            let of = format!("{} program {number}", since.boot);
            after.insert(format!("skipped {program}"), Total { count: *count, of });
        }
        let untold = |(name, total): (&String, &Total)| {
            let told = self.told.get(name).filter(|told| told.of == total.of).map_or(0, |told| told.count);
            let count = total.count.saturating_sub(told);
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
    use crate::sensor::Since;
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
        assert_eq!(dropped.due(&counters(2)), None, "no count goes back");
    }

    #[test]
    fn counts_that_began_anew_are_told_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut dropped = Dropped::open(&directory.path().join("dropped.json"), None).unwrap();
        let of = |boot: u128, map, program, skipped| Counters {
            skipped: BTreeMap::from([("process_exec".to_owned(), skipped)]),
            since: Since {
                boot: Uuid::from_u128(boot),
                map,
                programs: BTreeMap::from([("process_exec".to_owned(), program)]),
            },
            ..counters(5)
        };
        let mut tell = |counters: &Counters| {
            let due = dropped.due(counters);
            let total = due.as_ref().map_or(0, Due::total);
            due.into_iter().for_each(|due| dropped.told(due));
            total
        };
        assert_eq!(tell(&of(1, 1, 1, 3)), 8);
        assert_eq!(tell(&of(1, 1, 1, 4)), 1);
        // Other programs count into the same map.
        assert_eq!(tell(&of(1, 1, 2, 4)), 4);
        assert_eq!(tell(&of(1, 2, 2, 4)), 5);
        // The machine was started again: the same numbers, and other counts.
        assert_eq!(tell(&of(2, 2, 2, 4)), 9);
        assert_eq!(tell(&of(2, 2, 2, 4)), 0);
    }
}
