//! Messages on their way: those that a side has said, and what the relay says then.

use super::{at, leg_end, relay_end};
use crate::session::live::EndCause;
use crate::session::passage::Passage;
use crate::ssh::relay::{Outbox, Relay, RelayError, Side};
use crate::ssh::socket::LegSocket;
use crate::ssh::transport::error::Error as LegError;
use crate::ssh::transport::leg::{Event, Incoming, Leg};

/// Hears one side's messages, one by one.
pub(super) struct Heard<'a> {
    pub relay: &'a mut Relay,
    pub passage: &'a mut Passage,
    pub other: &'a mut Leg,
    pub side: Side,
    /// Payloads for the side that is being heard, each after its length: its leg is borrowed by the message.
    pub back: &'a mut Vec<u8>,
    pub bytes: &'a mut u64,
}

impl Heard<'_> {
    pub fn all(&mut self, leg: &mut Leg, incoming: &mut Incoming<'_>) -> Result<(), EndCause> {
        let side = self.side;
        loop {
            let moved = match leg.next(incoming).map_err(|error| leg_end(side, &error))? {
                None => return Ok(()),
                Some(Event::Message(payload)) => {
                    *self.bytes += payload.len() as u64;
                    let mut out =
                        Towards { side: side.other(), leg: self.other, back: self.back, failed: None };
                    let moved = self.relay.accept(side, payload, self.passage, &mut out);
                    if let Some(error) = out.failed {
                        return Err(leg_end(side.other(), &error));
                    }
                    moved
                }
                Some(Event::Ready | Event::HostKey(_)) => Ok(()),
            };
            match moved {
                Ok(()) => {}
                Err(RelayError::Unimplemented { .. }) => {
                    // RFC 4253, 11.4. The sequence number is the transport's to know; a peer that sends such a
                    // message after login gets nothing from an answer, and stock sshd's clients don't wait for it.
                    tracing::debug!("a message that isn't implemented was passed over");
                }
                Err(error) => return Err(relay_end(&error)),
            }
            let mut rest = self.back.as_slice();
            while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                let (payload, behind) = behind.split_at(length.min(behind.len()));
                leg.send(payload).map_err(|error| leg_end(side, &error))?;
                rest = behind;
            }
            self.back.clear();
        }
    }
}

/// What the relay says while one leg is being heard.
struct Towards<'a> {
    side: Side,
    leg: &'a mut Leg,
    back: &'a mut Vec<u8>,
    failed: Option<LegError>,
}

impl Outbox for Towards<'_> {
    fn put(&mut self, to: Side, payload: &[u8]) {
        if to == self.side {
            if let Err(error) = self.leg.send(payload) {
                self.failed.get_or_insert(error);
            }
        } else if let Ok(length) = u32::try_from(payload.len()) {
            self.back.extend_from_slice(&length.to_le_bytes());
            self.back.extend_from_slice(payload);
        }
    }
}

/// What the relay says while neither leg is being heard.
pub(super) struct Both<'a> {
    legs: &'a mut [LegSocket; 2],
    failed: Option<(Side, LegError)>,
}

impl<'a> Both<'a> {
    pub fn new(legs: &'a mut [LegSocket; 2]) -> Self {
        Self { legs, failed: None }
    }

    pub fn end(self) -> Result<(), EndCause> {
        self.failed.map_or(Ok(()), |(side, error)| Err(leg_end(side, &error)))
    }
}

impl Outbox for Both<'_> {
    fn put(&mut self, to: Side, payload: &[u8]) {
        if let Err(error) = self.legs[at(to)].leg.send(payload) {
            self.failed.get_or_insert((to, error));
        }
    }
}
