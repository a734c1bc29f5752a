//! The relay between simulated peers.

mod hostile;
mod model;
mod pitfalls;
mod replace;

use super::*;
use crate::ssh::message::{Message, Request};
use std::collections::{BTreeMap, VecDeque};

/// What went out, in order.
#[derive(Default)]
pub(super) struct Out {
    pub(super) sent: VecDeque<(Side, Vec<u8>)>,
}

impl Outbox for Out {
    fn put(&mut self, to: Side, payload: &[u8]) {
        self.sent.push_back((to, payload.to_vec()));
    }
}

/// Decides a message, by what it is.
type Decide = Box<dyn FnMut(Passage, &Message<'_>) -> Gating>;

/// A gate made of a closure, which keeps the tickets of what it held.
pub(super) struct Scripted {
    decide: Decide,
    pub(super) held: VecDeque<Ticket>,
    /// The messages of `held`, in the same order.
    pub(super) held_messages: VecDeque<Vec<u8>>,
    /// What each CHANNEL_OPEN carried.
    pub(super) opens: BTreeMap<ChannelId, Vec<u8>>,
    pub(super) closed: Vec<ChannelId>,
    pub(super) alive: Vec<Side>,
    pub(super) channels: Vec<ChannelId>,
}

impl Gate for Scripted {
    fn see(&mut self, passage: Passage, message: &Message<'_>) -> Gating {
        if let (Message::ChannelOpen { data, .. }, Some(id)) = (message, passage.channel) {
            self.channels.push(id);
            self.opens.insert(id, data.to_vec());
        }
        let gating = (self.decide)(passage, message);
        if gating == Gating::Hold {
            self.held.push_back(passage.ticket);
            self.held_messages.push_back(message.to_payload());
        }
        gating
    }

    fn closed(&mut self, channel: ChannelId) {
        self.closed.push(channel);
    }

    fn alive(&mut self, side: Side) {
        self.alive.push(side);
    }
}

/// A relay, its gate and what went out.
pub(super) struct Bench {
    pub(super) relay: Relay,
    pub(super) gate: Scripted,
    pub(super) out: Out,
}

impl Bench {
    pub(super) fn new(decide: impl FnMut(Passage, &Message<'_>) -> Gating + 'static) -> Self {
        let gate = Scripted {
            decide: Box::new(decide),
            held: VecDeque::new(),
            held_messages: VecDeque::new(),
            opens: BTreeMap::new(),
            closed: Vec::new(),
            alive: Vec::new(),
            channels: Vec::new(),
        };
        Bench { relay: Relay::new(), gate, out: Out::default() }
    }

    /// A relay that lets everything pass.
    pub(super) fn open_gate() -> Self {
        Bench::new(|_, _| Gating::PASS)
    }

    pub(super) fn send(&mut self, from: Side, message: Message<'_>) -> Result<(), RelayError> {
        self.relay.accept(from, &mut message.to_payload(), &mut self.gate, &mut self.out)
    }

    pub(super) fn release(&mut self, ticket: Ticket, verdict: Verdict) -> Result<Released, RelayError> {
        self.relay.release(ticket, verdict, &mut self.gate, &mut self.out)
    }

    /// Takes the held message number `at`.
    pub(super) fn held_at(&mut self, at: usize) -> (Ticket, Vec<u8>) {
        (self.gate.held.remove(at).unwrap(), self.gate.held_messages.remove(at).unwrap())
    }

    /// What the model calls a channel: it stands in its CHANNEL_OPEN.
    pub(super) fn logical(&self, id: ChannelId) -> u64 {
        u64::from_be_bytes(self.gate.opens[&id][..8].try_into().unwrap())
    }

    /// The next message that went out, which must go to `to`.
    pub(super) fn next(&mut self, to: Side) -> Vec<u8> {
        let (side, payload) = self.out.sent.pop_front().expect("something went out");
        assert_eq!(side, to, "{:?}", Message::parse(&payload));
        payload
    }

    /// Expects `message` to be the next that went out.
    pub(super) fn expect(&mut self, to: Side, message: Message<'_>) {
        let payload = self.next(to);
        assert_eq!(Message::parse(&payload), Ok(message));
    }

    pub(super) fn nothing(&self) {
        assert!(self.out.sent.is_empty(), "{:?}", self.out.sent);
    }

    /// Opens a session: the client calls it `client`, the target `target`; returns our number.
    pub(super) fn session(&mut self, client: u32, target: u32) -> u32 {
        self.session_with(client, target, 1 << 20, 32 << 10)
    }

    pub(super) fn session_with(&mut self, client: u32, target: u32, window: u32, max_packet: u32) -> u32 {
        let open = Message::ChannelOpen { kind: b"session", sender: client, window, max_packet, data: b"" };
        self.send(Side::Client, open).unwrap();
        let payload = self.next(Side::Target);
        let Ok(Message::ChannelOpen { sender: ours, .. }) = Message::parse(&payload) else {
            panic!("an open");
        };
        let confirmation = Message::ChannelOpenConfirmation {
            recipient: ours,
            sender: target,
            window,
            max_packet,
            data: b"",
        };
        self.send(Side::Target, confirmation).unwrap();
        let payload = self.next(Side::Client);
        let confirmed = Message::parse(&payload).unwrap();
        assert_eq!(confirmed.recipient(), Some(client));
        ours
    }
}

pub(super) fn exec(recipient: u32, command: &[u8], want_reply: bool) -> Message<'_> {
    Message::ChannelRequest { recipient, want_reply, request: Request::Exec { command } }
}

pub(super) fn prohibited() -> Verdict {
    Verdict::Refuse(Refusal::prohibited("no"))
}
