//! What belongs to the connection as a whole: channel opens, global requests, and the answers to those.
//! Of each side they are one line, in which nothing overtakes (RFC 4254, sections 4 and 5.1).

use super::channel::{Channel, Phase, Ports, Step};
use super::gate::{Gate, Outbox, Refusal, Side, Verdict};
use super::line::{Line, Wait};
use super::replies::{Asker, Local, Replies};
use super::{ChannelId, Ending, PACKET_BYTES_MAX, Relay, RelayError};
use crate::ssh::message::{self, Message, open_failure};
use std::collections::VecDeque;

/// One side's opens and global messages.
#[derive(Debug, Default)]
pub(super) struct Global {
    line: Line,
    /// The channel of the CHANNEL_OPEN that is first in the line and held.
    opening: Option<ChannelId>,
    /// The replies that this side waits for.
    replies: Replies,
    /// What stands in our own successful ones among them, in their order.
    answers: VecDeque<Vec<u8>>,
}

impl Global {
    /// Whether the first message waits for the gate with this ticket.
    pub(super) fn holds(&self, serial: u64) -> bool {
        self.line.wait == Wait::Gate(serial)
    }

    /// Whether the first message waits for the gate.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.line.wait, Wait::Gate(_))
    }
}

impl Refusal {
    pub(super) fn message(&self, recipient: u32) -> Message<'_> {
        Message::ChannelOpenFailure {
            recipient,
            reason: self.reason,
            description: self.text.as_bytes(),
            language: b"",
        }
    }
}

impl Relay {
    /// Asks `side` whether it is alive, by a global request that every SSH answers (if only with failure);
    /// [`Gate::alive`] hears of the answer.
    ///
    /// # Errors
    /// It left too many requests unanswered.
    pub fn keep_alive(&mut self, side: Side, out: &mut dyn Outbox) -> Result<(), RelayError> {
        self.globals.at_mut(side.other()).replies.ask(side)?;
        let request = Message::GlobalRequest { name: b"keepalive@openssh.com", want_reply: true, data: b"" };
        out.put(side, &request.to_payload());
        Ok(())
    }

    pub(super) fn accept_global(
        &mut self,
        from: Side,
        payload: &mut [u8],
        gate: &mut dyn Gate,
        out: &mut dyn Outbox,
    ) -> Result<(), RelayError> {
        let message = Message::parse(payload).map_err(|why| RelayError::malformed(from, why))?;
        if let Message::RequestSuccess { .. } | Message::RequestFailure = message {
            match self.globals.at_mut(from.other()).replies.replied() {
                Some(Asker::Peer) => {}
                Some(Asker::Us) => {
                    gate.alive(from);
                    return Ok(());
                }
                // It answers what nobody asked, which every implementation passes over.
                None => return Ok(()),
            }
        }
        if self.globals.at(from).line.is_empty() {
            if let Step::Wait(wait) = self.step_global(from, payload, None, gate, out)? {
                let line = &mut self.globals.at_mut(from).line;
                line.push(from, payload, &mut self.held)?;
                line.wait = wait;
            }
            Ok(())
        } else {
            self.globals.at_mut(from).line.push(from, payload, &mut self.held)
        }
    }

    /// Decides the first message of a side's line, and moves what waited behind it.
    pub(super) fn release_global(
        &mut self,
        from: Side,
        verdict: Verdict,
        gate: &mut dyn Gate,
        out: &mut dyn Outbox,
    ) -> Result<(), RelayError> {
        let mut decided = Some(verdict);
        loop {
            let Some((mut payload, _)) = self.globals.at_mut(from).line.take(&mut self.held) else {
                return Ok(());
            };
            if let Step::Wait(wait) = self.step_global(from, &mut payload, decided.take(), gate, out)? {
                self.globals.at_mut(from).line.put_back(payload, wait, &mut self.held);
                return Ok(());
            }
        }
    }

    /// Moves one message of a side's line.
    fn step_global(
        &mut self,
        from: Side,
        payload: &mut [u8],
        decided: Option<Verdict>,
        gate: &mut dyn Gate,
        out: &mut dyn Outbox,
    ) -> Result<Step, RelayError> {
        let message = Message::parse(payload).map_err(|why| RelayError::malformed(from, why))?;
        let opening = match message {
            Message::ChannelOpen { .. } => match self.opening(from, &message, out)? {
                Some(id) => Some(id),
                None => return Ok(Step::Done),
            },
            _ => None,
        };
        let is_answer = matches!(message, Message::RequestSuccess { .. } | Message::RequestFailure);
        let verdict = match decided {
            Some(verdict) => verdict,
            None if self.ended && !is_answer => {
                Verdict::Refuse(Refusal::prohibited("this session has ended"))
            }
            None => {
                let mut ports = Ports { gate, out, tickets: &mut self.tickets, said: &mut self.said };
                match ports.see(from, opening, true, &message) {
                    Ok(verdict) => verdict,
                    Err(wait) => {
                        self.globals.at_mut(from).opening = opening;
                        return Ok(Step::Wait(wait));
                    }
                }
            }
        };
        let verdict = match verdict {
            Verdict::End { line, exit } if !is_answer => {
                Verdict::Refuse(Ending { line: &line, exit }.refusal())
            }
            verdict => verdict,
        };
        let to = from.other();
        match (message, opening) {
            (Message::ChannelOpen { kind, sender, max_packet, .. }, Some(id)) => match verdict {
                Verdict::Pass => {
                    if let Some(channel) = self.table.get_mut(id) {
                        channel.phase = Phase::Offered;
                    }
                    let kind_bytes = kind.len();
                    message::set_open(payload, kind_bytes, id.slot, max_packet.min(PACKET_BYTES_MAX))
                        .map_err(|why| RelayError::malformed(from, why))?;
                    out.put(to, payload);
                }
                Verdict::Refuse(refusal) => {
                    out.put(from, &refusal.message(sender).to_payload());
                    self.free(id, gate);
                }
                Verdict::Satisfy | Verdict::Answer(_) | Verdict::Replace { .. } | Verdict::End { .. } => {
                    return Err(RelayError::ApiMisuse {
                        expect: "Pass or Refuse",
                        got: "another verdict for CHANNEL_OPEN",
                    });
                }
            },
            (Message::GlobalRequest { want_reply, .. }, _) => {
                let Global { replies, answers, .. } = self.globals.at_mut(from);
                let (local, answer) = match verdict {
                    Verdict::Replace { .. } => {
                        return Err(RelayError::ApiMisuse {
                            expect: "only data replaced",
                            got: "GLOBAL_REQUEST",
                        });
                    }
                    Verdict::Pass => (None, None),
                    Verdict::Refuse(_) | Verdict::End { .. } => (Some(Local::Failure), None),
                    Verdict::Satisfy => (Some(Local::Success), Some(Vec::new())),
                    Verdict::Answer(answer) => (Some(Local::Success), Some(answer)),
                };
                match (want_reply, local) {
                    (true, None) => replies.pass(from)?,
                    (true, Some(local)) => {
                        replies.answer(from, local)?;
                        answers.extend(answer);
                    }
                    (false, _) => {}
                }
                if local.is_none() {
                    out.put(to, payload);
                }
                self.answer_due(from, out);
            }
            (answer, _) => {
                if verdict != Verdict::Pass {
                    return Err(RelayError::ApiMisuse { expect: "answers passed", got: answer.name() });
                }
                match answer {
                    // Without what may stand behind it: nobody knows what that means to its receiver.
                    Message::RequestFailure => out.put(to, &answer.to_payload()),
                    _ => out.put(to, payload),
                }
                self.globals.at_mut(to).replies.delivered();
                self.answer_due(to, out);
            }
        }
        Ok(Step::Done)
    }

    /// The channel that a CHANNEL_OPEN asks for: the one it was held with, or a new one. `None`: there are
    /// too many, and `from` was told so.
    fn opening(
        &mut self,
        from: Side,
        message: &Message<'_>,
        out: &mut dyn Outbox,
    ) -> Result<Option<ChannelId>, RelayError> {
        if let Some(id) = self.globals.at_mut(from).opening.take() {
            return Ok(Some(id));
        }
        let Message::ChannelOpen { kind, sender, window, max_packet, .. } = *message else { return Ok(None) };
        self.table.check_number(from, sender)?;
        let Some(id) = self.table.reserve() else {
            let refusal = Refusal {
                reason: open_failure::RESOURCE_SHORTAGE,
                text: "too many channels on this connection".to_owned(),
            };
            out.put(from, &refusal.message(sender).to_payload());
            return Ok(None);
        };
        self.table.insert(Channel::new(id, kind, from, sender, window, max_packet));
        Ok(Some(id))
    }

    /// Sends `asker` the answers of ours whose turn it is.
    fn answer_due(&mut self, asker: Side, out: &mut dyn Outbox) {
        let Global { replies, answers, .. } = self.globals.at_mut(asker);
        while let Some(local) = replies.due() {
            let payload = match local {
                Local::Success => {
                    let data = answers.pop_front().unwrap_or_default();
                    Message::RequestSuccess { data: &data }.to_payload()
                }
                Local::Failure => Message::RequestFailure.to_payload(),
            };
            out.put(asker, &payload);
        }
    }
}
