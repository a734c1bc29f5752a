//! Requests that wait for their answers.

use super::requests::Touched;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// A request that waits for its answer.
pub(super) enum Awaited {
    Open(Touched),
    Change(Touched),
    Close(u64),
    Read {
        opened: u64,
        offset: u64,
    },
    /// A READ by a handle that the target may be about to give: of the file that gets it.
    Guess {
        opened: u64,
        offset: u64,
    },
    Write(u64),
    ReadDir(u64),
    /// The name of the directory that relative paths count from.
    Home,
    Look,
}

impl Awaited {
    /// Whether others may have its id before it is answered. Answers are taken in the order of the requests then, and a
    /// target needn't keep that: of changes it would only decide which of them is said to have failed. What a handle stands
    /// for, where paths count from and what was read of which file must be sure.
    pub fn shares_its_id(&self) -> bool {
        match self {
            Self::Change(_) | Self::Close(_) | Self::Write(_) | Self::Look => true,
            Self::Open(_) | Self::Read { .. } | Self::Guess { .. } | Self::ReadDir(_) | Self::Home => false,
        }
    }
}

/// All that wait, by their ids.
#[derive(Default)]
pub(super) struct Unanswered {
    /// The oldest of each id.
    oldest: HashMap<u32, Awaited>,
    /// Those behind it that have its id, too, in their order. Hardly any client does that: phpseclib calls all changes 1.
    behind: HashMap<u32, VecDeque<Awaited>>,
    behind_count: usize,
    /// How many of all give a handle.
    opens: usize,
}

impl Unanswered {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.oldest.len() + self.behind_count
    }

    /// Whether one of them gives a handle.
    pub fn opens(&self) -> bool {
        self.opens > 0
    }

    /// The one that the next answer with this id belongs to.
    pub fn oldest(&self, id: u32) -> Option<&Awaited> {
        self.oldest.get(&id)
    }

    pub fn push(&mut self, id: u32, awaited: Awaited) {
        self.opens += usize::from(matches!(awaited, Awaited::Open(_)));
        match self.oldest.entry(id) {
            Entry::Vacant(place) => {
                place.insert(awaited);
            }
            Entry::Occupied(_) => {
                self.behind.entry(id).or_default().push_back(awaited);
                self.behind_count += 1;
            }
        }
    }

    /// An answer has come.
    pub fn take(&mut self, id: u32) -> Option<Awaited> {
        let answered = self.oldest.remove(&id)?;
        self.opens -= usize::from(matches!(answered, Awaited::Open(_)));
        if let Some(behind) = self.behind.get_mut(&id) {
            if let Some(next) = behind.pop_front() {
                self.oldest.insert(id, next);
                self.behind_count -= 1;
            }
            if behind.is_empty() {
                self.behind.remove(&id);
            }
        }
        Some(answered)
    }

    /// No answer will come: all of them, by their ids.
    pub fn take_all(&mut self) -> Vec<Awaited> {
        let mut ids: Vec<u32> = self.oldest.keys().copied().collect();
        ids.sort_unstable();
        let mut all = Vec::with_capacity(self.len());
        for id in ids {
            while let Some(awaited) = self.take(id) {
                all.push(awaited);
            }
        }
        all
    }
}
