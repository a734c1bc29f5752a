//! Events that stand in the log and aren't applied, with why: what a producer may not say, what no decision allows,
//! what doesn't fit the state; and what this program doesn't know.

use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// How many of the newest refusals are listed; all are counted.
pub const REFUSALS_MAX: usize = 256;

/// How many unknown types are counted apart.
pub const UNKNOWN_TYPES_MAX: usize = 256;

/// How much of a name that others chose is kept, in characters.
const NAME_CHARS_MAX: usize = 64;

/// An event that isn't applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Its index in the log.
    pub index: u64,
    /// Who said it.
    pub producer: String,
    /// Why it isn't applied.
    pub reason: &'static str,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// All of them, counted; the newest, listed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Refused {
    count: u64,
    newest: VecDeque<Refusal>,
}

impl Refused {
    /// How many there were since the log began.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The newest, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Refusal> {
        self.newest.iter()
    }

    /// Why the entry `index` wasn't applied, if it wasn't and is among the newest.
    #[must_use]
    pub fn at(&self, index: u64) -> Option<&Refusal> {
        let place = self.newest.binary_search_by_key(&index, |refusal| refusal.index).ok()?;
        self.newest.get(place)
    }

    pub(super) fn add(&mut self, index: u64, kind: &str, producer: &str, reason: &'static str) {
        self.count = self.count.saturating_add(1);
        if self.newest.len() >= REFUSALS_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(Refusal { index, producer: cut(producer), reason, kind: cut(kind) });
    }
}

/// Types, versions and shapes that this program doesn't know, counted by type.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Unknown {
    by_type: BTreeMap<String, u64>,
    count: u64,
}

impl Unknown {
    /// How many events there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Types and how often they stand in the log; those beyond [`UNKNOWN_TYPES_MAX`] are only in [`Unknown::count`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.by_type.iter().map(|(kind, count)| (kind.as_str(), *count))
    }

    pub(super) fn add(&mut self, kind: &str) {
        self.count = self.count.saturating_add(1);
        let kind = cut(kind);
        if let Some(count) = self.by_type.get_mut(&kind) {
            *count = count.saturating_add(1);
        } else if self.by_type.len() < UNKNOWN_TYPES_MAX {
            self.by_type.insert(kind, 1);
        }
    }
}

fn cut(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}
