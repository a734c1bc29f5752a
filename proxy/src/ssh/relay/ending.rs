//! What the proxy says and does by itself on a channel: a line of text, and the end.

use super::channel::{Admitted, Channel, Phase, Ports};
use super::gate::{Gate, Outbox, Refusal, Side, Verdict};
use super::{ChannelId, Relay, RelayError};
use crate::ssh::message::{Message, Request, STDERR};

/// How a channel that we end looks to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending<'a> {
    /// One clear line for the user, with its line end (`\r\n` for terminals).
    pub line: &'a str,
    /// What the client is told of the remote command's end; only sessions have one.
    pub exit: Exit,
}

/// Bytes of ours that were put into a channel's stream to its client, for the recording: the gate never sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The channel, which may be gone by now.
    pub channel: ChannelId,
    /// Whether they stand in its standard error; else in its standard output.
    pub on_stderr: bool,
    /// The bytes, as many as went.
    pub bytes: Vec<u8>,
}

/// The end of a remote command, as the proxy tells it (RFC 4254, section 6.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing is told; ssh then exits with 255.
    Silent,
    /// `exit-status`.
    Status(u32),
    /// `exit-signal`: the signal's name without `SIG`.
    Signal(&'static str),
}

impl Ending<'_> {
    /// The same for a CHANNEL_OPEN, which has no stderr yet.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal::prohibited(self.line.trim_end())
    }
}

impl Relay {
    /// Puts text of ours into the stderr of a channel's client, as far as its window allows, and returns how
    /// many bytes went: 0 if the channel isn't open, or its output has ended. The bytes come out of the
    /// client's window; what the target may send stays right, as later adjusts are corrected.
    pub fn notice(&mut self, channel: ChannelId, text: &str, out: &mut dyn Outbox) -> usize {
        let said = &mut self.said;
        self.table.get_mut(channel).map_or(0, |channel| channel.notice(text.as_bytes(), out, said))
    }

    /// Puts data of ours into a channel's stream to its client, behind all that the target has said so far; all of it or,
    /// where its window has no room or something waits to go before it, nothing. Whether it went. The bytes are
    /// accounted for as in [`Relay::notice`].
    pub fn insert(&mut self, channel: ChannelId, data: &[u8], out: &mut dyn Outbox) -> bool {
        let said = &mut self.said;
        self.table.get_mut(channel).is_some_and(|channel| channel.insert(data, out, said))
    }

    /// What [`Relay::notice`], [`Relay::insert`] and ends of channels have put into streams since the last call, in its
    /// order. It goes to the client with the next write: whoever records what the client gets, records this before.
    pub fn take_said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// Ends one channel: the client gets the line, the exit and CLOSE, the target CLOSE; what still comes is
    /// swallowed until both have closed. One whose CHANNEL_OPEN isn't answered yet is refused with the line.
    /// Whether there was such a channel that hadn't been ended before.
    ///
    /// # Errors
    /// As [`Relay::accept`]: messages that waited behind a held CHANNEL_OPEN move now.
    pub fn end_channel(
        &mut self,
        id: ChannelId,
        ending: &Ending<'_>,
        gate: &mut dyn Gate,
        out: &mut dyn Outbox,
    ) -> Result<bool, RelayError> {
        let Some(channel) = self.table.get_mut(id) else { return Ok(false) };
        match channel.phase {
            Phase::Ended | Phase::Refused => return Ok(false),
            Phase::Asked => {
                // It is the first of its side's line; refusing it there keeps the line's order.
                let from = channel.opener;
                let verdict = Verdict::Refuse(ending.refusal());
                self.release_global(from, verdict, gate, out)?;
                return Ok(true);
            }
            Phase::Offered | Phase::Open => {}
        }
        channel.end(ending, out, &mut self.said);
        self.settle(id, gate, out)?;
        Ok(true)
    }

    /// Ends all channels, and refuses whatever is asked for from now on. The session layer then flushes and
    /// disconnects both legs.
    ///
    /// # Errors
    /// As [`Relay::accept`].
    pub fn end_all(
        &mut self,
        ending: &Ending<'_>,
        gate: &mut dyn Gate,
        out: &mut dyn Outbox,
    ) -> Result<(), RelayError> {
        self.ended = true;
        let ids: Vec<ChannelId> = self.table.iter().map(|channel| channel.id).collect();
        for id in ids {
            self.end_channel(id, ending, gate, out)?;
        }
        for side in Side::BOTH {
            if self.globals.at(side).is_held() {
                let verdict = Verdict::Refuse(ending.refusal());
                self.release_global(side, verdict, gate, out)?;
            }
        }
        Ok(())
    }
}

impl Channel {
    fn notice(&mut self, text: &[u8], out: &mut dyn Outbox, said: &mut Vec<Said>) -> usize {
        let end = self.ends.at_mut(Side::Client);
        let (Some(recipient), Phase::Open, false, false) =
            (end.number, self.phase, end.eof_out, end.close_out)
        else {
            return 0;
        };
        let (text, _) = text.split_at(text.len().min(end.room as usize));
        if end.max_packet == 0 {
            return 0;
        }
        for data in text.chunks(end.max_packet as usize) {
            out.put(Side::Client, &Message::ExtendedData { recipient, stream: STDERR, data }.to_payload());
        }
        end.room -= text.len() as u32;
        end.ours += text.len() as u64;
        if !text.is_empty() {
            said.push(Said { channel: self.id, on_stderr: true, bytes: text.to_vec() });
        }
        text.len()
    }

    fn insert(&mut self, data: &[u8], out: &mut dyn Outbox, said: &mut Vec<Said>) -> bool {
        let waits = !self.ends.at(Side::Target).line.is_empty();
        let end = self.ends.at_mut(Side::Client);
        let (Some(recipient), Phase::Open, false, false) =
            (end.number, self.phase, end.eof_out || waits, end.close_out)
        else {
            return false;
        };
        if data.len() > end.room as usize || end.max_packet == 0 {
            return false;
        }
        for data in data.chunks(end.max_packet as usize) {
            out.put(Side::Client, &Message::Data { recipient, data }.to_payload());
        }
        end.room -= data.len() as u32;
        end.ours += data.len() as u64;
        said.push(Said { channel: self.id, on_stderr: false, bytes: data.to_vec() });
        true
    }

    /// Ends an offered or open channel. What waits on it must be dropped then.
    pub(super) fn end(&mut self, ending: &Ending<'_>, out: &mut dyn Outbox, said: &mut Vec<Said>) {
        let session = self.kind.as_ref() == b"session" && self.opener == Side::Client;
        if self.phase == Phase::Offered {
            let opener = self.ends.at_mut(self.opener);
            if let Some(recipient) = opener.number {
                let refusal = ending.refusal();
                out.put(self.opener, &refusal.message(recipient).to_payload());
            }
            opener.close_in = true;
            opener.close_out = true;
            let answerer = self.ends.at_mut(self.opener.other());
            if self.answer == Some(false) {
                answerer.close_in = true;
                answerer.close_out = true;
            }
        } else if session {
            self.notice(ending.line.as_bytes(), out, said);
            let end = self.ends.at_mut(Side::Client);
            if let (Some(recipient), false) = (end.number, end.close_out) {
                if !end.eof_out {
                    out.put(Side::Client, &Message::Eof { recipient }.to_payload());
                    end.eof_out = true;
                }
                let request = match ending.exit {
                    Exit::Silent => None,
                    Exit::Status(status) => Some(Request::ExitStatus { status }),
                    Exit::Signal(name) => Some(Request::ExitSignal {
                        name: name.as_bytes(),
                        core_dumped: false,
                        message: ending.line.trim_end().as_bytes(),
                        language: b"",
                    }),
                };
                if let Some(request) = request {
                    let message = Message::ChannelRequest { recipient, want_reply: false, request };
                    out.put(Side::Client, &message.to_payload());
                }
            }
        }
        for side in Side::BOTH {
            self.close(side, out);
        }
        self.phase = Phase::Ended;
    }

    /// Sends CLOSE to a peer that has a number for the channel, once.
    fn close(&mut self, side: Side, out: &mut dyn Outbox) {
        let end = self.ends.at_mut(side);
        if end.number.is_some() {
            end.put(side, |recipient| Message::Close { recipient }, out);
            end.close_out = true;
        }
    }

    /// Takes note of what a peer still sends on a channel that we ended, and of nothing else.
    pub(super) fn swallow(
        &mut self,
        from: Side,
        message: &Message<'_>,
        ports: &mut Ports<'_>,
    ) -> Result<(), RelayError> {
        if self.admit(from, message)? == Admitted::Meaningless {
            return Ok(());
        }
        match message {
            // The answer to an offer that we have withdrawn.
            Message::ChannelOpenConfirmation { .. } => self.close(from, ports.out),
            Message::ChannelOpenFailure { .. } => {
                let end = self.ends.at_mut(from);
                end.close_in = true;
                end.close_out = true;
            }
            _ => {}
        }
        Ok(())
    }
}
