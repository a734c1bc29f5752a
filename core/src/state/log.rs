//! The log about itself: its name, and the keys that sign its checkpoints.

use crate::event::log::{Created, EpochBegun, KeyAdded, KeyRetired};
use serde::Serialize;

/// How many keys may sign at once: a rotation needs two, a second algorithm two more.
pub const KEYS_MAX: usize = 4;

/// The log's name and keys, as its events say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogName {
    /// The keys (C2SP signed-note) that sign its checkpoints, the oldest first; never none.
    pub keys: Vec<String>,
    /// The origin.
    pub origin: String,
}

impl LogName {
    pub(super) fn created(data: Created) -> Self {
        Self { keys: vec![data.verifier_key], origin: data.origin }
    }

    pub(super) fn key_added(&mut self, data: KeyAdded) -> Result<(), &'static str> {
        if self.keys.contains(&data.verifier_key) {
            return Err("the key signs already");
        }
        if self.keys.len() >= KEYS_MAX {
            return Err("too many keys sign already");
        }
        let name = data.verifier_key.split_once('+').map(|(name, _)| name);
        if name != Some(self.origin.as_str()) {
            return Err("a key of the log is named like the log");
        }
        self.keys.push(data.verifier_key);
        Ok(())
    }

    pub(super) fn key_retired(&mut self, data: &KeyRetired) -> Result<(), &'static str> {
        let place = self.keys.iter().position(|key| *key == data.verifier_key).ok_or("no such key signs")?;
        if self.keys.len() == 1 {
            return Err("the last key can't be retired");
        }
        self.keys.remove(place);
        Ok(())
    }

    /// Another name and key; what was there before stays.
    pub(super) fn epoch_begun(&mut self, index: u64, data: EpochBegun) -> Result<(), &'static str> {
        if data.size != index {
            return Err("an epoch begins right behind what it keeps");
        }
        if data.previous_origin != self.origin {
            return Err("the epoch before has another name");
        }
        *self = Self { keys: vec![data.verifier_key], origin: data.origin };
        Ok(())
    }
}
