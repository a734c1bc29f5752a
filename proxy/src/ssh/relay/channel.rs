//! One channel between two peers: what each may send, and how its messages move.
//!
//! A message is judged twice. When it arrives, [`Channel::admit`] checks that its sender may send it, by
//! what that sender has said and been told. When its turn comes, perhaps much later, [`Channel::step`] asks
//! the gate and delivers it.

use super::gate::{Gate, Gating, Outbox, Pair, Passage, Side, Ticket, Verdict};
use super::line::{Line, Wait};
use super::replies::{Asker, Local, Replies};
use super::{ChannelId, Ending, PACKET_BYTES_MAX, RelayError, Said};
use crate::ssh::message::{self, Message};

/// How far a channel has come, by what has been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The CHANNEL_OPEN is held by the gate; the answerer knows nothing of it.
    Asked,
    /// The answerer has the CHANNEL_OPEN.
    Offered,
    /// The opener has the CHANNEL_OPEN_CONFIRMATION.
    Open,
    /// The opener has a CHANNEL_OPEN_FAILURE: nothing is left of it.
    Refused,
    /// We ended it. All that still comes is swallowed until each peer has sent its CLOSE.
    Ended,
}

/// One peer's side of a channel. `in` is what the peer sent us, `out` what it was sent.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The peer's own number for the channel; `None` for an answerer that hasn't confirmed.
    pub(super) number: Option<u32>,
    /// Bytes that the peer can still take.
    pub(super) room: u32,
    /// Most bytes of data that the peer takes in one message, capped at [`PACKET_BYTES_MAX`].
    pub(super) max_packet: u32,
    /// Bytes that the peer may still send, by all that it was told.
    pub(super) credit: u64,
    /// Bytes of our own that the peer was sent and that its next adjusts will count; the other peer
    /// mustn't be told of them, as it never sent them.
    pub(super) ours: u64,
    pub(super) eof_in: bool,
    pub(super) eof_out: bool,
    pub(super) close_in: bool,
    pub(super) close_out: bool,
    /// The replies that this peer waits for.
    pub(super) replies: Replies,
    /// Messages of this peer that wait.
    pub(super) line: Line,
}

impl End {
    /// Whether this peer has nothing more to do with the channel, and may use its number again.
    pub(super) fn is_over(&self) -> bool {
        self.close_in && self.close_out
    }

    pub(super) fn put(
        &self,
        side: Side,
        message: impl FnOnce(u32) -> Message<'static>,
        out: &mut dyn Outbox,
    ) {
        if let (Some(number), false) = (self.number, self.close_out) {
            out.put(side, &message(number).to_payload());
        }
    }
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) kind: Box<[u8]>,
    pub(super) opener: Side,
    pub(super) phase: Phase,
    /// What the answerer said to the CHANNEL_OPEN, as soon as it arrived.
    pub(super) answer: Option<bool>,
    pub(super) ends: Pair<End>,
}

/// What a message is that its sender may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It moves when its turn comes.
    Moves,
    /// It says nothing: it came behind its sender's CLOSE, or answers what nobody asked. Every implementation passes over
    /// that, and so some send it.
    Meaningless,
}

/// What became of a message whose turn it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It was delivered, answered, or dropped.
    Done,
    /// It must wait, and everything behind it.
    Wait(Wait),
    /// This payload has taken its place and must wait, and everything behind it.
    WaitAs(Vec<u8>, Wait),
}

/// What moving a message needs from outside.
pub(super) struct Ports<'a> {
    pub(super) gate: &'a mut dyn Gate,
    pub(super) out: &'a mut dyn Outbox,
    pub(super) tickets: &'a mut u64,
    pub(super) said: &'a mut Vec<Said>,
}

impl Ports<'_> {
    /// Asks the gate about a message, with a ticket of its own.
    pub(super) fn see(
        &mut self,
        from: Side,
        channel: Option<ChannelId>,
        global: bool,
        message: &Message<'_>,
    ) -> Result<Verdict, Wait> {
        *self.tickets += 1;
        let ticket = Ticket { side: from, channel, global, serial: *self.tickets };
        match self.gate.see(Passage { from, channel, ticket }, message) {
            Gating::Decided(verdict) => Ok(verdict),
            Gating::Hold => Err(Wait::Gate(ticket.serial)),
        }
    }
}

impl Channel {
    /// A channel that `opener` asks for with its own `number`, `window` and `max_packet`.
    pub(super) fn new(
        id: ChannelId,
        kind: &[u8],
        opener: Side,
        number: u32,
        window: u32,
        max_packet: u32,
    ) -> Self {
        let mut ends = Pair::<End>::default();
        let asking = ends.at_mut(opener);
        asking.number = Some(number);
        asking.room = window;
        asking.max_packet = max_packet.min(PACKET_BYTES_MAX);
        ends.at_mut(opener.other()).credit = u64::from(window);
        Channel { id, kind: kind.into(), opener, phase: Phase::Asked, answer: None, ends }
    }

    /// Whether both peers have nothing more to do with the channel, so that its slot can be used again.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Refused || Side::BOTH.iter().all(|&side| self.ends.at(side).is_over())
    }

    /// Checks that `from` may send `message` now, and notes that it did.
    pub(super) fn admit(&mut self, from: Side, message: &Message<'_>) -> Result<Admitted, RelayError> {
        let misbehaved = |expect, got: String| Err(RelayError::PeerMisbehaved { side: from, expect, got });
        if self.ends.at(from).close_in {
            return Ok(Admitted::Meaningless);
        }
        match *message {
            Message::ChannelOpenConfirmation { sender, window, max_packet, .. } => {
                self.admit_answer(from, message)?;
                self.answer = Some(true);
                let end = self.ends.at_mut(from);
                end.number = Some(sender);
                end.room = window;
                end.max_packet = max_packet.min(PACKET_BYTES_MAX);
                self.ends.at_mut(from.other()).credit = u64::from(window);
                return Ok(Admitted::Moves);
            }
            Message::ChannelOpenFailure { .. } => {
                self.admit_answer(from, message)?;
                self.answer = Some(false);
                return Ok(Admitted::Moves);
            }
            _ => {}
        }
        let usable = if from == self.opener {
            matches!(self.phase, Phase::Open | Phase::Ended)
        } else {
            self.answer == Some(true)
        };
        if !usable {
            return misbehaved("messages on confirmed channels only", message.name().to_owned());
        }
        match *message {
            Message::Data { .. } | Message::ExtendedData { .. } => {
                let bytes = message.window_bytes();
                let max_packet = self.ends.at(from.other()).max_packet as usize;
                let end = self.ends.at_mut(from);
                if end.eof_in {
                    return misbehaved(
                        "no data after CHANNEL_EOF",
                        format!("{} of {bytes} bytes", message.name()),
                    );
                }
                if bytes > max_packet {
                    return misbehaved(
                        "data within the maximum packet",
                        format!("{bytes} bytes of {max_packet}"),
                    );
                }
                match end.credit.checked_sub(bytes as u64) {
                    Some(credit) => end.credit = credit,
                    None => {
                        return misbehaved(
                            "data within the window",
                            format!("{bytes} bytes of {}", end.credit),
                        );
                    }
                }
            }
            // A second EOF says nothing new; OpenSSH takes it, so it passes.
            Message::Eof { .. } => self.ends.at_mut(from).eof_in = true,
            Message::Close { .. } => self.ends.at_mut(from).close_in = true,
            Message::ChannelSuccess { .. } | Message::ChannelFailure { .. } => {
                let asker = self.ends.at_mut(from.other()).replies.replied();
                if asker != Some(Asker::Peer) {
                    return Ok(Admitted::Meaningless);
                }
            }
            _ => {}
        }
        Ok(Admitted::Moves)
    }

    fn admit_answer(&self, from: Side, message: &Message<'_>) -> Result<(), RelayError> {
        let offered = matches!(self.phase, Phase::Offered | Phase::Ended);
        if from == self.opener || !offered || self.answer.is_some() {
            return Err(RelayError::misbehaved(from, "one answer to a CHANNEL_OPEN", message.name()));
        }
        Ok(())
    }

    /// Moves one message of `from` as far as it goes. `wait` is what it waited for, `decided` what the gate
    /// said since; without either the gate is asked.
    pub(super) fn step(
        &mut self,
        from: Side,
        payload: &mut [u8],
        wait: Wait,
        decided: Option<Verdict>,
        ports: &mut Ports<'_>,
    ) -> Result<Step, RelayError> {
        let message = Message::parse(payload).map_err(|why| RelayError::malformed(from, why))?;
        if let Wait::Room { sent } = wait {
            let bytes = message.window_bytes();
            return self.flow(from, payload, bytes, sent, ports.out);
        }
        let verdict = match decided {
            Some(verdict) => verdict,
            None => match ports.see(from, Some(self.id), false, &message) {
                Ok(verdict) => verdict,
                Err(wait) => return Ok(Step::Wait(wait)),
            },
        };
        match verdict {
            Verdict::Pass => {}
            Verdict::Refuse(_) => {
                self.stop(from, &message, Local::Failure, ports.out)?;
                return Ok(Step::Done);
            }
            Verdict::Satisfy | Verdict::Answer(_) => {
                self.stop(from, &message, Local::Success, ports.out)?;
                return Ok(Step::Done);
            }
            Verdict::Replace { data, given_back, added } => {
                return self.replace(from, &message, &data, given_back, added, ports.out);
            }
            Verdict::End { line, exit } => {
                if let Message::ChannelRequest { .. } = message {
                    self.stop(from, &message, Local::Success, ports.out)?;
                }
                self.end(&Ending { line: &line, exit }, ports.out, ports.said);
                return Ok(Step::Done);
            }
        }
        match message {
            Message::Data { data, .. } | Message::ExtendedData { data, .. } => {
                let bytes = data.len();
                self.flow(from, payload, bytes, 0, ports.out)
            }
            Message::WindowAdjust { bytes, .. } => {
                self.adjust(from, bytes, ports.out)?;
                Ok(Step::Done)
            }
            Message::ChannelOpenConfirmation { max_packet, .. } => {
                self.phase = Phase::Open;
                let number = self.ends.at(self.opener).number.unwrap_or_default();
                message::set_confirmation(payload, number, self.id.slot, max_packet.min(PACKET_BYTES_MAX))
                    .map_err(|why| RelayError::malformed(from, why))?;
                ports.out.put(self.opener, payload);
                Ok(Step::Done)
            }
            Message::ChannelOpenFailure { .. } => {
                self.phase = Phase::Refused;
                self.forward(from, payload, ports.out)?;
                Ok(Step::Done)
            }
            Message::Eof { .. } => {
                self.ends.at_mut(from.other()).eof_out = true;
                self.forward(from, payload, ports.out)?;
                Ok(Step::Done)
            }
            Message::Close { .. } => {
                self.forward(from, payload, ports.out)?;
                self.ends.at_mut(from.other()).close_out = true;
                Ok(Step::Done)
            }
            Message::ChannelRequest { want_reply, .. } => {
                if want_reply {
                    self.ends.at_mut(from).replies.pass(from)?;
                }
                self.forward(from, payload, ports.out)?;
                Ok(Step::Done)
            }
            Message::ChannelSuccess { .. } | Message::ChannelFailure { .. } => {
                self.forward(from, payload, ports.out)?;
                self.ends.at_mut(from.other()).replies.delivered();
                self.answer_due(from.other(), ports.out);
                Ok(Step::Done)
            }
            // Those without a recipient never come here.
            Message::GlobalRequest { .. }
            | Message::RequestSuccess { .. }
            | Message::RequestFailure
            | Message::ChannelOpen { .. } => {
                Err(RelayError::ApiMisuse { expect: "a channel's message", got: "a global one" })
            }
        }
    }

    /// Hands the payload on with the other peer's number.
    fn forward(&self, from: Side, payload: &mut [u8], out: &mut dyn Outbox) -> Result<(), RelayError> {
        let to = from.other();
        message::set_recipient(payload, self.ends.at(to).number.unwrap_or_default())
            .map_err(|why| RelayError::malformed(from, why))?;
        out.put(to, payload);
        Ok(())
    }

    /// Delivers data as far as the receiver has room. It always has, unless text of ours took some.
    fn flow(
        &mut self,
        from: Side,
        payload: &mut [u8],
        bytes: usize,
        sent: usize,
        out: &mut dyn Outbox,
    ) -> Result<Step, RelayError> {
        let to = from.other();
        let left = bytes.saturating_sub(sent);
        let End { room, max_packet, .. } = *self.ends.at(to);
        // What took the place of another message may be longer than one may be.
        if sent == 0 && left <= room.min(max_packet) as usize {
            // The usual way: nothing copied, four bytes changed.
            self.forward(from, payload, out)?;
            self.ends.at_mut(to).room = room.saturating_sub(left as u32);
            return Ok(Step::Done);
        }
        self.flow_pieces(from, payload, bytes, sent, out)
    }

    /// Delivers what there is room for, in messages as long as the receiver takes.
    fn flow_pieces(
        &mut self,
        from: Side,
        payload: &[u8],
        bytes: usize,
        sent: usize,
        out: &mut dyn Outbox,
    ) -> Result<Step, RelayError> {
        let to = from.other();
        let left = bytes.saturating_sub(sent);
        let end = self.ends.at_mut(to);
        let room = end.room;
        if end.close_in {
            // It will never make room again, and has said that it listens no more.
            return Ok(Step::Done);
        }
        let message = Message::parse(payload).map_err(|why| RelayError::malformed(from, why))?;
        let part = left.min(room as usize);
        let recipient = end.number.unwrap_or_default();
        let (Message::Data { data, .. } | Message::ExtendedData { data, .. }) = message else {
            return Err(RelayError::ApiMisuse { expect: "only data flowing", got: message.name() });
        };
        let data = data.get(sent..sent + part).unwrap_or_default();
        // A peer that takes no data at all in one message gets none.
        for data in data.chunks(end.max_packet.max(1) as usize).filter(|_| end.max_packet > 0) {
            let piece = match message {
                Message::ExtendedData { stream, .. } => Message::ExtendedData { recipient, stream, data },
                _ => Message::Data { recipient, data },
            };
            out.put(to, &piece.to_payload());
        }
        end.room = end.room.saturating_sub(part as u32);
        if part == left { Ok(Step::Done) } else { Ok(Step::Wait(Wait::Room { sent: sent + part })) }
    }

    /// Delivers other data in the place of a message's; see [`Verdict::Replace`].
    fn replace(
        &mut self,
        from: Side,
        message: &Message<'_>,
        data: &[u8],
        given_back: u32,
        added: u32,
        out: &mut dyn Outbox,
    ) -> Result<Step, RelayError> {
        let Message::Data { .. } = message else {
            return Err(RelayError::ApiMisuse { expect: "only data replaced", got: message.name() });
        };
        if given_back > 0 {
            let end = self.ends.at_mut(from);
            end.credit += u64::from(given_back);
            end.put(from, |recipient| Message::WindowAdjust { recipient, bytes: given_back }, out);
        }
        if data.is_empty() {
            return Ok(Step::Done);
        }
        let to = from.other();
        let end = self.ends.at_mut(to);
        end.ours += u64::from(added);
        let mut payload = Message::Data { recipient: end.number.unwrap_or_default(), data }.to_payload();
        let whole = data.len() <= end.max_packet as usize && data.len() <= end.room as usize;
        if whole {
            return self.flow(from, &mut payload, data.len(), 0, out);
        }
        // Longer than one message may be: cut by what its receiver takes.
        match self.flow_pieces(from, &payload, data.len(), 0, out)? {
            Step::Wait(wait) => Ok(Step::WaitAs(payload, wait)),
            step => Ok(step),
        }
    }

    /// Passes a window adjust of `from` on, without the bytes that the other peer never sent.
    fn adjust(&mut self, from: Side, bytes: u32, out: &mut dyn Outbox) -> Result<(), RelayError> {
        let end = self.ends.at_mut(from);
        end.room = end.room.checked_add(bytes).ok_or_else(|| {
            RelayError::misbehaved(from, "a window below 2^32 bytes", format!("{} + {bytes}", end.room))
        })?;
        let ours = end.ours.min(u64::from(bytes)) as u32;
        end.ours -= u64::from(ours);
        let theirs = bytes - ours;
        if theirs > 0 || bytes == 0 {
            let to = from.other();
            let other = self.ends.at_mut(to);
            other.credit += u64::from(theirs);
            other.put(to, |recipient| Message::WindowAdjust { recipient, bytes: theirs }, out);
        }
        Ok(())
    }

    /// Drops a message, answering it in its turn or giving its bytes back.
    fn stop(
        &mut self,
        from: Side,
        message: &Message<'_>,
        local: Local,
        out: &mut dyn Outbox,
    ) -> Result<(), RelayError> {
        match *message {
            Message::Data { data, .. } | Message::ExtendedData { data, .. } => {
                let end = self.ends.at_mut(from);
                end.credit += data.len() as u64;
                let bytes = data.len() as u32;
                if bytes > 0 {
                    end.put(from, |recipient| Message::WindowAdjust { recipient, bytes }, out);
                }
                Ok(())
            }
            Message::ChannelRequest { want_reply, .. } => {
                if want_reply {
                    self.ends.at_mut(from).replies.answer(from, local)?;
                    self.answer_due(from, out);
                }
                Ok(())
            }
            _ => Err(RelayError::ApiMisuse { expect: "only requests and data stopped", got: message.name() }),
        }
    }

    /// Sends `asker` the answers of ours whose turn it is.
    fn answer_due(&mut self, asker: Side, out: &mut dyn Outbox) {
        let end = self.ends.at_mut(asker);
        while let Some(local) = end.replies.due() {
            let message = |recipient| match local {
                Local::Success => Message::ChannelSuccess { recipient },
                Local::Failure => Message::ChannelFailure { recipient },
            };
            end.put(asker, message, out);
        }
    }
}
