//! Messages that wait: behind one that the gate holds, or for room in the receiver's window.

use super::{RelayError, Side};
use std::collections::VecDeque;

/// Most bytes that one line may hold. Data are bounded by the window, requests by nothing but this.
pub const LINE_BYTES_MAX: usize = 8 << 20;
/// Most bytes that all lines of a connection may hold together.
pub const HELD_BYTES_MAX: usize = 32 << 20;
/// What a waiting message costs besides its payload, in bytes, counted against both limits.
const ENTRY_BYTES: usize = 64;

/// What the first message of a line waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: it may move.
    Clear,
    /// The gate's decision; the number is its ticket's.
    Gate(u64),
    /// Room in the receiver's window. The gate has passed it, and so much of its data has gone.
    Room { sent: usize },
}

/// The messages of one side, on one channel or global, that wait for their turn. Empty means that the next
/// message may move at once.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) wait: Wait,
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { wait: Wait::Clear, queue: VecDeque::new(), bytes: 0 }
    }
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the first message may be taken.
    pub(super) fn is_ready(&self) -> bool {
        !self.queue.is_empty() && !matches!(self.wait, Wait::Gate(_))
    }

    /// Puts a message at the end; `held` is the connection's sum.
    pub(super) fn push(&mut self, from: Side, payload: &[u8], held: &mut usize) -> Result<(), RelayError> {
        let cost = payload.len() + ENTRY_BYTES;
        if self.bytes + cost > LINE_BYTES_MAX {
            return Err(RelayError::LimitExceeded {
                side: from,
                what: "bytes held on one channel",
                max: LINE_BYTES_MAX,
            });
        }
        if *held + cost > HELD_BYTES_MAX {
            return Err(RelayError::LimitExceeded {
                side: from,
                what: "bytes held on one connection",
                max: HELD_BYTES_MAX,
            });
        }
        self.bytes += cost;
        *held += cost;
        self.queue.push_back(payload.to_vec());
        Ok(())
    }

    /// Takes the first message out, and what it waited for.
    pub(super) fn take(&mut self, held: &mut usize) -> Option<(Vec<u8>, Wait)> {
        let payload = self.queue.pop_front()?;
        let cost = payload.len() + ENTRY_BYTES;
        self.bytes = self.bytes.saturating_sub(cost);
        *held = held.saturating_sub(cost);
        if self.queue.is_empty() {
            // A line that is idle again keeps nothing.
            self.queue = VecDeque::new();
        }
        Some((payload, std::mem::replace(&mut self.wait, Wait::Clear)))
    }

    /// Puts a message that was taken back to the front, waiting for `wait`.
    pub(super) fn put_back(&mut self, payload: Vec<u8>, wait: Wait, held: &mut usize) {
        let cost = payload.len() + ENTRY_BYTES;
        self.bytes += cost;
        *held += cost;
        self.queue.push_front(payload);
        self.wait = wait;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, held: &mut usize) {
        *held = held.saturating_sub(self.bytes);
        *self = Line::default();
    }
}
