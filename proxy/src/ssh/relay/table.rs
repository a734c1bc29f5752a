//! The channels of one connection. A channel's slot is *our* number for it on both legs: found at once, and
//! not for a peer to choose.

use super::channel::Channel;
use super::{CHANNELS_MAX, ChannelId, RelayError, Side};

/// The slots.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<Box<Channel>>>,
    free: Vec<u32>,
    opened: u64,
}

impl Table {
    /// Names the next channel and its slot; `None` if there are [`CHANNELS_MAX`] already.
    pub(super) fn reserve(&mut self) -> Option<ChannelId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < CHANNELS_MAX => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let serial = self.opened;
        self.opened += 1;
        Some(ChannelId { serial, slot })
    }

    /// Puts a channel into the slot that was reserved for it.
    pub(super) fn insert(&mut self, channel: Channel) {
        let slot = channel.id.slot as usize;
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Box::new(channel));
        }
    }

    /// The channel with our number `slot`.
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Channel> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Whether there ever was a channel with our number `slot`.
    pub(super) fn was_used(&self, slot: u32) -> bool {
        (slot as usize) < self.slots.len()
    }

    /// The channel `id`, unless it is gone.
    pub(super) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.at_mut(id.slot).filter(|channel| channel.id == id)
    }

    /// The channel `id`, unless it is gone.
    pub(super) fn get(&self, id: ChannelId) -> Option<&Channel> {
        self.slots.get(id.slot as usize)?.as_deref().filter(|channel| channel.id == id)
    }

    /// Empties the channel's slot.
    pub(super) fn remove(&mut self, id: ChannelId) -> Option<Box<Channel>> {
        let place = self.slots.get_mut(id.slot as usize)?;
        if place.as_ref()?.id != id {
            return None;
        }
        self.free.push(id.slot);
        place.take()
    }

    /// A peer may not use a number of its own for two channels at once: checks that `number` is free.
    pub(super) fn check_number(&self, side: Side, number: u32) -> Result<(), RelayError> {
        let taken = self.iter().any(|channel| {
            let end = channel.ends.at(side);
            end.number == Some(number) && !end.is_over()
        });
        if taken {
            return Err(RelayError::misbehaved(
                side,
                "a channel number that is not in use",
                format!("sender channel {number} again"),
            ));
        }
        Ok(())
    }

    /// The channels there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.slots.iter().filter_map(Option::as_deref)
    }
}
