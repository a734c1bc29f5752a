//! The order of replies. RFC 4254 (sections 4 and 5.4) ties a reply to its request by order alone, so an
//! answer of our own must wait until all earlier requests have been answered by the far side.

use super::{RelayError, Side};
use std::collections::VecDeque;

/// Most requests of one side, on one channel or global, that may wait for their reply.
/// Stock clients have a handful; each costs two bytes here.
pub(super) const REPLIES_WAITING_MAX: usize = 16_384;

/// An answer of our own to a request that the far side never saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    Success,
    Failure,
}

/// Who asked a question that was sent to the answering side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Peer,
    Us,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Remote,
    Local(Local),
}

/// The replies that one side (the asker) waits for, and the questions that the other side (the answerer)
/// was asked. Invariant: the first thing that the asker waits for, if any, is remote.
#[derive(Debug, Default)]
pub(super) struct Replies {
    waiting: VecDeque<Waiting>,
    asked: VecDeque<Asker>,
}

impl Replies {
    /// The asker's request goes to the answerer.
    pub(super) fn pass(&mut self, asker: Side) -> Result<(), RelayError> {
        self.room(asker)?;
        self.waiting.push_back(Waiting::Remote);
        self.asked.push_back(Asker::Peer);
        Ok(())
    }

    /// The asker's request goes no further; [`Replies::due`] gives the answer in its turn.
    pub(super) fn answer(&mut self, asker: Side, local: Local) -> Result<(), RelayError> {
        self.room(asker)?;
        self.waiting.push_back(Waiting::Local(local));
        Ok(())
    }

    /// A question of our own goes to the answerer.
    pub(super) fn ask(&mut self, answerer: Side) -> Result<(), RelayError> {
        self.room(answerer)?;
        self.asked.push_back(Asker::Us);
        Ok(())
    }

    /// The answerer replied. `None`: it wasn't asked.
    pub(super) fn replied(&mut self) -> Option<Asker> {
        self.asked.pop_front()
    }

    /// A reply of the answerer's reached the asker.
    pub(super) fn delivered(&mut self) {
        if let Some(Waiting::Remote) = self.waiting.front() {
            self.waiting.pop_front();
        }
    }

    /// The next local answer whose turn it is.
    pub(super) fn due(&mut self) -> Option<Local> {
        match self.waiting.front() {
            Some(&Waiting::Local(local)) => {
                self.waiting.pop_front();
                Some(local)
            }
            _ => None,
        }
    }

    fn room(&self, blamed: Side) -> Result<(), RelayError> {
        if self.waiting.len().max(self.asked.len()) < REPLIES_WAITING_MAX {
            return Ok(());
        }
        Err(RelayError::LimitExceeded {
            side: blamed,
            what: "requests without a reply",
            max: REPLIES_WAITING_MAX,
        })
    }
}
