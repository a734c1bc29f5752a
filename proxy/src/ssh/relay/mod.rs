//! Passes messages of the connection protocol between two authenticated legs, with only their channel
//! numbers mapped (RFC 4254).
//!
//! Windows, half-closes, unknown requests, replies and their order stay end to end: the relay buffers a
//! message, not a window. Each message is shown to a [`Gate`] just before it moves, which lets it pass,
//! refuses it, or holds it while something becomes durable. What is held holds up nothing but the later
//! messages of the same channel and side. Opens and global requests of a side form one line, so that a held
//! CHANNEL_OPEN isn't overtaken by `no-more-sessions@openssh.com`.
//!
//! Pure data: no sockets, no clock. The session layer puts payloads in and takes payloads out.

mod channel;
mod ending;
mod error;
mod gate;
mod global;
mod line;
mod replies;
mod table;

#[cfg(test)]
mod tests;

pub use ending::{Ending, Exit, Said};
pub use error::RelayError;
pub use gate::{ChannelId, Gate, Gating, Outbox, Passage, Refusal, Side, Ticket, Verdict};
pub use line::{HELD_BYTES_MAX, LINE_BYTES_MAX};

use super::message::Message;
use channel::{Admitted, Phase, Ports, Step};
use gate::Pair;
use global::Global;
use line::Wait;
use table::Table;

/// Most channels that one connection may have at once. Ansible and editors use tens; sshd's own limit for
/// sessions is ten (MaxSessions), forwards come on top.
pub const CHANNELS_MAX: usize = 1_000;

/// Most bytes of data in one message that we let a peer ask for. OpenSSH uses 32 KiB; the transport's
/// buffers are made for this.
pub const PACKET_BYTES_MAX: u32 = 64 << 10;

/// The channels and orders of one connection.
#[derive(Debug, Default)]
pub struct Relay {
    table: Table,
    /// Opens, global requests and their answers, by who sends them.
    globals: Pair<Global>,
    /// Bytes that all lines hold.
    held: usize,
    tickets: u64,
    /// We have ended everything; whatever is asked for is refused.
    ended: bool,
    /// Whether a side isn't OpenSSH.
    strangers: Pair<bool>,
    /// What we have put into streams to the client.
    said: Vec<Said>,
}

/// What became of a held message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Released {
    /// It moved as decided.
    Moved,
    /// It was dropped meanwhile with its channel: what was decided about it did not happen.
    Gone,
}

/// One live channel, as [`Relay::channels`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelView<'a> {
    /// Its name for the session layer.
    pub id: ChannelId,
    /// Its type: `session`, `direct-tcpip` …
    pub kind: &'a [u8],
    /// Who asked for it.
    pub opener: Side,
    /// Whether it is confirmed and we haven't ended it.
    pub open: bool,
}

impl Relay {
    /// A connection without channels.
    #[must_use]
    pub fn new() -> Self {
        Relay::default()
    }

    /// Says that a side isn't OpenSSH. It gets nothing that OpenSSH says to its like only: it thinks that we are, and what
    /// strangers do with it varies. sshj answers `eow@openssh.com`, though no answer is wanted.
    pub fn set_stranger(&mut self, side: Side) {
        *self.strangers.at_mut(side) = true;
    }

    /// Takes the payload of one packet that `from` sent, number 80 to 127, and moves what can move. The
    /// payload may be changed in place.
    ///
    /// # Errors
    /// See [`RelayError`]: all but `Unimplemented` end the connection.
    pub fn accept(
        &mut self,
        from: Side,
        payload: &mut [u8],
        gate: &mut dyn Gate,
        out: &mut dyn Outbox,
    ) -> Result<(), RelayError> {
        let message = Message::parse(payload).map_err(|why| RelayError::malformed(from, why))?;
        if *self.strangers.at(from.other()) && message.is_for_openssh_only() {
            return Ok(());
        }
        let Some(number) = message.recipient() else {
            return self.accept_global(from, payload, gate, out);
        };
        if let Message::ChannelOpenConfirmation { sender, .. } = message {
            self.table.check_number(from, sender)?;
        }
        let Some(channel) = self.table.at_mut(number) else {
            if self.table.was_used(number) && !message.answers_open() {
                // It crossed the CLOSE, or was sent behind it: it concerns nobody any more. OpenSSH passes over it, too.
                return Ok(());
            }
            return Err(RelayError::misbehaved(
                from,
                "the number of a channel that is open",
                format!("{} for channel {number}", message.name()),
            ));
        };
        let id = channel.id;
        let ports = &mut Ports { gate, out, tickets: &mut self.tickets, said: &mut self.said };
        if channel.phase == Phase::Ended {
            channel.swallow(from, &message, ports)?;
            self.free_if_over(id, gate);
            return Ok(());
        }
        if channel.admit(from, &message)? == Admitted::Meaningless {
            return Ok(());
        }
        if channel.ends.at(from).line.is_empty() {
            let step = channel.step(from, payload, Wait::Clear, None, ports)?;
            let line = &mut channel.ends.at_mut(from).line;
            match step {
                Step::Done => {}
                Step::Wait(wait) => {
                    line.push(from, payload, &mut self.held)?;
                    line.wait = wait;
                }
                Step::WaitAs(payload, wait) => line.put_back(payload, wait, &mut self.held),
            }
        } else {
            channel.ends.at_mut(from).line.push(from, payload, &mut self.held)?;
        }
        self.settle(id, gate, out)
    }

    /// Decides a held message; it and what waited behind it move. `Released::Gone`: it is no longer there.
    ///
    /// # Errors
    /// As [`Relay::accept`].
    pub fn release(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        gate: &mut dyn Gate,
        out: &mut dyn Outbox,
    ) -> Result<Released, RelayError> {
        let from = ticket.side;
        if ticket.global {
            if !self.globals.at(from).holds(ticket.serial) {
                return Ok(Released::Gone);
            }
            self.release_global(from, verdict, gate, out)?;
            return Ok(Released::Moved);
        }
        let Some(channel) = ticket.channel.and_then(|id| self.table.get_mut(id)) else {
            return Ok(Released::Gone);
        };
        let id = channel.id;
        let line = &mut channel.ends.at_mut(from).line;
        if line.wait != Wait::Gate(ticket.serial) {
            return Ok(Released::Gone);
        }
        let Some((mut payload, _)) = line.take(&mut self.held) else { return Ok(Released::Gone) };
        let ports = &mut Ports { gate, out, tickets: &mut self.tickets, said: &mut self.said };
        let step = channel.step(from, &mut payload, Wait::Clear, Some(verdict), ports)?;
        let line = &mut channel.ends.at_mut(from).line;
        match step {
            Step::Done => {}
            Step::Wait(wait) => line.put_back(payload, wait, &mut self.held),
            Step::WaitAs(payload, wait) => line.put_back(payload, wait, &mut self.held),
        }
        self.settle(id, gate, out)?;
        Ok(Released::Moved)
    }

    /// The channels there are, also those that are only asked for and those that we ended.
    pub fn channels(&self) -> impl Iterator<Item = ChannelView<'_>> {
        self.table.iter().map(|channel| ChannelView {
            id: channel.id,
            kind: &channel.kind,
            opener: channel.opener,
            open: channel.phase == Phase::Open,
        })
    }

    /// One live channel; `None` once it is gone.
    #[must_use]
    pub fn channel(&self, id: ChannelId) -> Option<ChannelView<'_>> {
        self.table.get(id).map(|channel| ChannelView {
            id,
            kind: &channel.kind,
            opener: channel.opener,
            open: channel.phase == Phase::Open,
        })
    }

    /// Bytes that wait for the gate or for a window, with what keeping them costs.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Moves what waits on a channel as far as it goes, or drops it if the channel was ended. What moves one
    /// way can make room the other way.
    fn settle(&mut self, id: ChannelId, gate: &mut dyn Gate, out: &mut dyn Outbox) -> Result<(), RelayError> {
        let Some(channel) = self.table.get_mut(id) else { return Ok(()) };
        let mut moved = true;
        while moved {
            moved = false;
            for from in Side::BOTH {
                while channel.phase != Phase::Ended && channel.ends.at(from).line.is_ready() {
                    let line = &mut channel.ends.at_mut(from).line;
                    let Some((mut payload, waited)) = line.take(&mut self.held) else { break };
                    let ports = &mut Ports { gate, out, tickets: &mut self.tickets, said: &mut self.said };
                    match channel.step(from, &mut payload, waited, None, ports)? {
                        Step::Done => moved = true,
                        Step::Wait(wait) => {
                            channel.ends.at_mut(from).line.put_back(payload, wait, &mut self.held);
                            break;
                        }
                        Step::WaitAs(payload, wait) => {
                            channel.ends.at_mut(from).line.put_back(payload, wait, &mut self.held);
                            break;
                        }
                    }
                }
            }
        }
        if channel.phase == Phase::Ended {
            for side in Side::BOTH {
                channel.ends.at_mut(side).line.clear(&mut self.held);
            }
        }
        self.free_if_over(id, gate);
        Ok(())
    }

    fn free_if_over(&mut self, id: ChannelId, gate: &mut dyn Gate) {
        if self.table.get_mut(id).is_some_and(|channel| channel.is_over()) {
            self.free(id, gate);
        }
    }

    fn free(&mut self, id: ChannelId, gate: &mut dyn Gate) {
        if let Some(mut channel) = self.table.remove(id) {
            for side in Side::BOTH {
                channel.ends.at_mut(side).line.clear(&mut self.held);
            }
            gate.closed(id);
        }
    }
}
