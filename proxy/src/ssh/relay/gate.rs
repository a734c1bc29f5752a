//! What the relay asks of the session layer: a decision on each message, and a place for what goes out.

use super::Exit;
use crate::ssh::message::{Message, open_failure};
use std::fmt;

/// The two ends that the relay stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The user's SSH client.
    Client,
    /// The target's sshd.
    Target,
}

impl Side {
    /// Both, in a fixed order.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Target];

    /// The one at the other end.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Target,
            Side::Target => Side::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Client => "client",
            Side::Target => "target",
        })
    }
}

/// Names one channel of one connection. Never used again in that connection, though its number on the
/// wire is: an id that is kept too long finds nothing, not somebody else's channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    pub(super) serial: u64,
    pub(super) slot: u32,
}

impl ChannelId {
    /// 0 for the connection's first channel, 1 for its second …
    #[must_use]
    pub fn serial(self) -> u64 {
        self.serial
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serial.fmt(f)
    }
}

/// Names one message at the gate; with it a held one is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(super) side: Side,
    pub(super) channel: Option<ChannelId>,
    /// Whether the message waits in the side's line of opens and global requests.
    pub(super) global: bool,
    pub(super) serial: u64,
}

/// Where a message comes from and where it belongs.
#[derive(Debug, Clone, Copy)]
pub struct Passage {
    /// Who sent it.
    pub from: Side,
    /// Its channel; `None` for global requests and their answers. A CHANNEL_OPEN has one already.
    pub channel: Option<ChannelId>,
    /// To be kept if the answer is [`Gating::Hold`].
    pub ticket: Ticket,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the other side, changed in its channel numbers only.
    Pass,
    /// It goes no further. A CHANNEL_OPEN is answered with CHANNEL_OPEN_FAILURE, a request that wants a
    /// reply with failure in its turn; data are withheld and given back to their sender's window.
    Refuse(Refusal),
    /// It goes no further, and a request that wants a reply is told success in its turn; data as above.
    /// Not possible for a CHANNEL_OPEN.
    Satisfy,
    /// Only for data: these go on in their place. `given_back` of the sender's bytes never will, and are given back to
    /// its window; what is missing besides is kept by the gate, and comes with a later message. `added` of `data` are the
    /// gate's own, which the sender never sent.
    Replace {
        /// What goes on.
        data: Vec<u8>,
        /// Bytes of the sender's that go nowhere.
        given_back: u32,
        /// Bytes that the sender didn't send.
        added: u32,
    },
    /// It goes no further, and nothing behind it either: its channel is ended as by
    /// [`Relay::end_channel`](super::Relay::end_channel), a request that wants a reply being told success
    /// first. This is how to refuse a command or a shell with a text: a client that is told failure quits
    /// without showing what stands on stderr. A CHANNEL_OPEN or global request is refused with the line.
    End {
        /// One clear line for the user, with its line end.
        line: String,
        /// What the client is told of the command's end.
        exit: Exit,
    },
    /// As [`Verdict::Satisfy`], with these bytes in the answer. Only for global requests, which alone have room
    /// for them (RFC 4254, section 4).
    Answer(Vec<u8>),
}

/// What the sender of a refused CHANNEL_OPEN is told (requests have no room for a text: use
/// [`Relay::notice`](super::Relay::notice) or [`Verdict::End`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`open_failure`].
    pub reason: u32,
    /// One clear line.
    pub text: String,
}

impl Refusal {
    /// Refused by policy, with one clear line.
    pub fn prohibited(text: impl Into<String>) -> Self {
        Refusal { reason: open_failure::ADMINISTRATIVELY_PROHIBITED, text: text.into() }
    }
}

/// The gate's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gating {
    /// Decided at once.
    Decided(Verdict),
    /// Not yet: the message, and all later ones of that channel and side, wait until
    /// [`Relay::release`](super::Relay::release) is called with the ticket. Other channels go on.
    Hold,
}

impl Gating {
    /// The usual answer.
    pub const PASS: Gating = Gating::Decided(Verdict::Pass);
}

/// The one place where every message passes before it is delivered. The session layer implements it.
pub trait Gate {
    /// Sees a message just before it would move, once, in the order in which its side sent it on its
    /// channel (or, for opens and global requests, at all). Whatever has to be recorded of it is recorded
    /// when this returns; whatever has to be durable first makes it answer [`Gating::Hold`].
    ///
    /// Only requests, opens and data can be refused or satisfied; to do so to the rest (answers, EOF, CLOSE,
    /// window adjusts) is [`RelayError::ApiMisuse`](super::RelayError::ApiMisuse).
    /// Messages of a channel that we ended are not shown: they go nowhere.
    fn see(&mut self, passage: Passage, message: &Message<'_>) -> Gating;

    /// The channel is no more: closed both ways, refused, or ended by us and let go by both peers.
    /// Tickets that it still held are void. After [`Relay::end_all`](super::Relay::end_all) it may be one
    /// that the gate never saw, as what is asked for then is refused without asking it.
    fn closed(&mut self, channel: ChannelId);

    /// A side answered a [`Relay::keep_alive`](super::Relay::keep_alive) of ours.
    fn alive(&mut self, side: Side) {
        // Hearing anything at all is proof enough for most callers.
        let _ = side;
    }
}

/// Takes what goes out, in order, one packet's payload at a time.
pub trait Outbox {
    /// Puts `payload` into the packets that go `to` that side. Must not fail: what can fail is the
    /// connection, later.
    fn put(&mut self, to: Side, payload: &[u8]);
}

/// One of something for each side.
#[derive(Debug, Default)]
pub(super) struct Pair<T> {
    client: T,
    target: T,
}

impl<T> Pair<T> {
    pub(super) fn at(&self, side: Side) -> &T {
        match side {
            Side::Client => &self.client,
            Side::Target => &self.target,
        }
    }

    pub(super) fn at_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        }
    }
}
