//! The relay between two peers that keep RFC 4254, each with a model of its own of what it may do. They do
//! random legal things while the gate holds, refuses and releases at random. Whatever was sent must arrive,
//! once, in order, but for what the gate stopped; replies must answer what they are for; windows must agree;
//! in the end no slot is left.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A small generator whose whole state is the seed that proptest prints (splitmix64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// One peer's view of one channel.
#[derive(Debug)]
struct Own {
    /// What both peers and the test call the channel.
    logical: u64,
    opener: bool,
    theirs: Option<u32>,
    /// Bytes that I may send, and the most at once.
    credit: u64,
    max_packet: u32,
    /// Bytes that I have granted and not got.
    room: u64,
    /// Bytes got and not granted again.
    consumed: u32,
    eof_sent: bool,
    eof_got: bool,
    close_sent: bool,
    close_got: bool,
    /// My requests that wait for a reply; the other's that I must answer.
    waiting: VecDeque<u64>,
    to_answer: VecDeque<u64>,
}

#[derive(Debug)]
struct Peer {
    /// By my own numbers, the lowest free one first, as OpenSSH has them.
    channels: BTreeMap<u32, Own>,
    opens_to_answer: VecDeque<(u64, u32, u32, u32)>,
    waiting: VecDeque<u64>,
    to_answer: VecDeque<u64>,
}

/// What a message was, apart from channel numbers.
type Item = Vec<u8>;

/// What the gate stopped, shared with it.
#[derive(Default)]
struct Stopped {
    items: BTreeSet<Item>,
    /// How requests end that never reach the other peer.
    replies: BTreeMap<u64, bool>,
    opens: BTreeSet<u64>,
}

struct World {
    dice: Dice,
    bench: Bench,
    client: Peer,
    target: Peer,
    stopped: Rc<RefCell<Stopped>>,
    /// What each side sent and what the other got, by channel (`None`: globals and opens).
    sent: BTreeMap<(Option<u64>, Side), Vec<Item>>,
    got: BTreeMap<(Option<u64>, Side), Vec<Item>>,
    next: u64,
    /// Channels that we ended: their streams are cut.
    ended: BTreeSet<u64>,
    /// Channels that the client closed first, perhaps while output waited for its window.
    client_closed: BTreeSet<u64>,
    /// How many pairs of windows were compared.
    compared: usize,
}

/// The true answer of a peer to request `id`.
fn agrees(id: u64) -> bool {
    !id.is_multiple_of(3)
}

fn id_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

/// The message without channel numbers, windows and sizes.
fn item(message: &Message<'_>) -> Item {
    match *message {
        Message::ChannelOpen { kind, data, .. } => {
            Message::ChannelOpen { kind, sender: 0, window: 0, max_packet: 0, data }.to_payload()
        }
        Message::ChannelOpenConfirmation { data, .. } => {
            Message::ChannelOpenConfirmation { recipient: 0, sender: 0, window: 0, max_packet: 0, data }
                .to_payload()
        }
        other => {
            let mut payload = other.to_payload();
            if other.recipient().is_some() {
                crate::ssh::message::set_recipient(&mut payload, 0).unwrap();
            }
            payload
        }
    }
}

/// Joins neighbouring data of one stream: where a message was cut says nothing.
fn joined(items: impl Iterator<Item = Item>) -> Vec<Item> {
    let mut all: Vec<Item> = Vec::new();
    for next in items {
        let join =
            match (all.last().map(|last| Message::parse(last).unwrap()), Message::parse(&next).unwrap()) {
                (Some(Message::Data { data: a, .. }), Message::Data { data: b, .. }) => {
                    Some(Message::Data { recipient: 0, data: &[a, b].concat() }.to_payload())
                }
                (
                    Some(Message::ExtendedData { stream: s, data: a, .. }),
                    Message::ExtendedData { stream, data: b, .. },
                ) if s == stream => {
                    Some(Message::ExtendedData { recipient: 0, stream, data: &[a, b].concat() }.to_payload())
                }
                _ => None,
            };
        match join {
            Some(join) => *all.last_mut().unwrap() = join,
            None => all.push(next),
        }
    }
    all
}

impl World {
    fn new(seed: u64) -> Self {
        let stopped = Rc::new(RefCell::new(Stopped::default()));
        let note = Rc::clone(&stopped);
        let mut dice = Dice(seed ^ 0xfeed);
        let decide = move |_: Passage, message: &Message<'_>| {
            if dice.roll(5) == 0 {
                return Gating::Hold;
            }
            if dice.roll(6) != 0 {
                return Gating::PASS;
            }
            Gating::Decided(stop(&mut note.borrow_mut(), message, dice.roll(2) == 0))
        };
        let peer = || Peer {
            channels: BTreeMap::new(),
            opens_to_answer: VecDeque::new(),
            waiting: VecDeque::new(),
            to_answer: VecDeque::new(),
        };
        World {
            dice: Dice(seed),
            bench: Bench::new(decide),
            client: peer(),
            target: peer(),
            stopped,
            sent: BTreeMap::new(),
            got: BTreeMap::new(),
            next: 1,
            ended: BTreeSet::new(),
            client_closed: BTreeSet::new(),
            compared: 0,
        }
    }

    fn peer(&mut self, side: Side) -> &mut Peer {
        match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        // No data of a peer's may look like text of ours.
        while self.next.to_be_bytes().contains(&b'N') {
            self.next += 1;
        }
        self.next
    }

    fn send(&mut self, from: Side, logical: Option<u64>, message: Message<'_>) {
        // Adjusts are changed on the way; windows are compared instead.
        if !matches!(message, Message::WindowAdjust { .. }) {
            self.sent.entry((logical, from)).or_default().push(item(&message));
        }
        self.bench.send(from, message).unwrap();
        self.deliver();
    }

    /// Gives the peers what went out.
    fn deliver(&mut self) {
        while let Some((to, payload)) = self.bench.out.sent.pop_front() {
            self.receive(to, &payload);
        }
    }

    fn receive(&mut self, to: Side, payload: &[u8]) {
        let message = Message::parse(payload).unwrap();
        let stopped = Rc::clone(&self.stopped);
        let ended = self.ended.clone();
        let peer = self.peer(to);
        let mut logical = None;
        // Answers and texts of ours aren't part of the other peer's stream.
        let mut ours = false;
        if let Some(number) = message.recipient() {
            let own = peer.channels.get_mut(&number).expect("a channel that this peer has");
            logical = Some(own.logical);
            assert!(!own.close_got, "nothing after CLOSE: {message:?}");
            assert!(own.theirs.is_some() || own.opener, "confirmed");
            match message {
                Message::ChannelOpenConfirmation { sender, window, max_packet, data, .. } => {
                    assert_eq!(id_of(data), own.logical);
                    assert!(own.theirs.is_none() && max_packet <= PACKET_BYTES_MAX);
                    own.theirs = Some(sender);
                    own.credit = u64::from(window);
                    own.max_packet = max_packet;
                }
                Message::ChannelOpenFailure { .. } => {
                    assert!(own.theirs.is_none());
                    ours = stopped.borrow().opens.contains(&own.logical);
                    peer.channels.remove(&number);
                }
                Message::WindowAdjust { bytes, .. } => {
                    own.credit += u64::from(bytes);
                    assert!(own.credit <= u64::from(u32::MAX));
                    ours = true;
                }
                Message::Data { data, .. } | Message::ExtendedData { data, .. } => {
                    assert!(!own.eof_got, "nothing after EOF");
                    own.room = own.room.checked_sub(data.len() as u64).expect("within the window");
                    own.consumed += data.len() as u32;
                    // A text may be cut anywhere, so it is all N; the peers' own data have none.
                    ours = data.starts_with(b"N");
                }
                Message::Eof { .. } => own.eof_got = true,
                Message::Close { .. } => own.close_got = true,
                Message::ChannelRequest { want_reply, request: Request::Exec { command }, .. } => {
                    if want_reply {
                        own.to_answer.push_back(id_of(command));
                    }
                }
                Message::ChannelSuccess { .. } | Message::ChannelFailure { .. } => {
                    let id = own.waiting.pop_front().expect("a request that waits");
                    let local = stopped.borrow().replies.get(&id).copied();
                    ours = local.is_some();
                    let success = matches!(message, Message::ChannelSuccess { .. });
                    assert_eq!(success, local.unwrap_or(agrees(id)), "the reply is for request {id}");
                }
                Message::ChannelRequest { .. } => {
                    assert!(ended.contains(&own.logical), "only ours are of another kind");
                }
                _ => unreachable!(),
            }
            if peer.channels.get(&number).is_some_and(|own| own.close_got && own.close_sent) {
                peer.channels.remove(&number);
            }
        } else {
            match message {
                Message::GlobalRequest { want_reply, data, .. } => {
                    if want_reply {
                        peer.to_answer.push_back(id_of(data));
                    }
                }
                Message::RequestSuccess { .. } | Message::RequestFailure => {
                    let id = peer.waiting.pop_front().expect("a request that waits");
                    let local = stopped.borrow().replies.get(&id).copied();
                    ours = local.is_some();
                    let success = matches!(message, Message::RequestSuccess { .. });
                    assert_eq!(success, local.unwrap_or(agrees(id)), "the reply is for request {id}");
                    if let (Message::RequestSuccess { data }, None) = (message, local) {
                        assert_eq!(id_of(data), id);
                    }
                }
                Message::ChannelOpen { sender, window, max_packet, data, .. } => {
                    assert!(max_packet <= PACKET_BYTES_MAX);
                    peer.opens_to_answer.push_back((id_of(data), sender, window, max_packet));
                }
                _ => unreachable!(),
            }
        }
        if !ours {
            self.got.entry((logical, to.other())).or_default().push(item(&message));
        }
    }

    /// One random legal thing of one peer. `closing`: nothing new is begun.
    fn act(&mut self, side: Side, closing: bool) {
        let mut dice = self.dice.clone();
        let what = dice.roll(14);
        let fresh = self.fresh();
        let id = fresh.to_be_bytes();
        let peer = self.peer(side);
        let numbers: Vec<u32> = peer.channels.keys().copied().collect();
        let at = numbers.get(dice.roll(numbers.len().max(1) as u64) as usize).copied();
        let (window, max_packet) = (dice.roll(300) as u32, 1 + dice.roll(100_000) as u32);
        let (size, coin) = (dice.roll(80) as usize, dice.roll(2) == 0);
        self.dice = dice;
        let peer = self.peer(side);
        match what {
            0 if !closing && peer.channels.len() < 6 => {
                let number = (0..).find(|n| !peer.channels.contains_key(n)).unwrap();
                peer.channels.insert(number, Own::new(fresh, true, None, 0, 0, window));
                let kind = b"session";
                self.send(
                    side,
                    None,
                    Message::ChannelOpen { kind, sender: number, window, max_packet, data: &id },
                );
            }
            1 => {
                let Some((logical, theirs, credit, their_max)) = peer.opens_to_answer.pop_front() else {
                    return;
                };
                if coin && size % 2 == 0 {
                    let (reason, language) = (2, &b""[..]);
                    let description = &logical.to_be_bytes()[..];
                    let failure =
                        Message::ChannelOpenFailure { recipient: theirs, reason, description, language };
                    return self.send(side, Some(logical), failure);
                }
                let number = (0..).find(|n| !peer.channels.contains_key(n)).unwrap();
                let own = Own::new(logical, false, Some(theirs), u64::from(credit), their_max, window);
                peer.channels.insert(number, own);
                let data = &logical.to_be_bytes()[..];
                let (recipient, sender) = (theirs, number);
                self.send(
                    side,
                    Some(logical),
                    Message::ChannelOpenConfirmation { recipient, sender, window, max_packet, data },
                );
            }
            2 if !closing => {
                if coin {
                    peer.waiting.push_back(fresh);
                }
                self.send(side, None, Message::GlobalRequest { name: b"g", want_reply: coin, data: &id });
            }
            3 => {
                let Some(id) = peer.to_answer.pop_front() else { return };
                let data = id.to_be_bytes();
                let answer = if agrees(id) {
                    Message::RequestSuccess { data: &data }
                } else {
                    Message::RequestFailure
                };
                self.send(side, None, answer);
            }
            _ => {
                let Some(number) = at else { return };
                let Some(own) = peer.channels.get_mut(&number) else { return };
                let (Some(recipient), false) = (own.theirs, own.close_sent) else { return };
                let logical = Some(own.logical);
                match what {
                    4..=7 if !own.eof_sent && !closing => {
                        let bytes = size.min(own.credit as usize).min(own.max_packet as usize);
                        own.credit -= bytes as u64;
                        let data: Vec<u8> = id.iter().copied().cycle().skip(3).take(bytes).collect();
                        self.send(
                            side,
                            logical,
                            match coin {
                                true => Message::Data { recipient, data: &data },
                                false => Message::ExtendedData { recipient, stream: 1, data: &data },
                            },
                        );
                    }
                    8 | 9 if own.consumed > 0 => {
                        let bytes = std::mem::take(&mut own.consumed);
                        own.room += u64::from(bytes);
                        self.send(side, logical, Message::WindowAdjust { recipient, bytes });
                    }
                    10 if !closing => {
                        if coin {
                            own.waiting.push_back(fresh);
                        }
                        self.send(side, logical, exec(recipient, &id, coin));
                    }
                    11 => {
                        let Some(id) = own.to_answer.pop_front() else { return };
                        let answer = match agrees(id) {
                            true => Message::ChannelSuccess { recipient },
                            false => Message::ChannelFailure { recipient },
                        };
                        self.send(side, logical, answer);
                    }
                    12 if !own.eof_sent && size % 8 == 0 => {
                        own.eof_sent = true;
                        self.send(side, logical, Message::Eof { recipient });
                    }
                    13 if own.close_got || (size % 8 == 0 && !closing) => {
                        own.close_sent = true;
                        let early = !own.close_got;
                        if own.close_got {
                            peer.channels.remove(&number);
                        }
                        if early && side == Side::Client {
                            self.client_closed.extend(logical);
                        }
                        self.send(side, logical, Message::Close { recipient });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Releases one of the held messages, not always the oldest.
    fn release(&mut self, pass: bool) {
        let held = self.bench.gate.held.len() as u64;
        if held == 0 {
            return;
        }
        let at = self.dice.roll(held) as usize;
        let (ticket, message) = self.bench.held_at(at);
        let verdict = match Message::parse(&message) {
            Ok(message) if !pass && self.dice.roll(3) == 0 => {
                stop(&mut self.stopped.borrow_mut(), &message, self.dice.roll(2) == 0)
            }
            _ => Verdict::Pass,
        };
        let released = self.bench.release(ticket, verdict).unwrap();
        assert!(released == Released::Moved || !self.ended.is_empty(), "only an end voids a ticket");
        self.deliver();
    }

    /// Everything comes to rest, with all channels still open that are.
    fn rest(&mut self) {
        for _ in 0..4_000 {
            let side = if self.dice.roll(2) == 0 { Side::Client } else { Side::Target };
            // Only answers, adjusts, and CLOSE for CLOSE.
            self.settle_one(side);
            self.release(true);
        }
        assert!(self.bench.gate.held.is_empty());
    }

    fn settle_one(&mut self, side: Side) {
        let before = self.dice.clone();
        // Closing peers begin nothing; EOF and CLOSE of their own are harmless to what is compared.
        self.act(side, true);
        if self.dice.0 == before.0 {
            self.dice.roll(2);
        }
    }

    fn close_all(&mut self) {
        for side in Side::BOTH {
            let numbers: Vec<u32> = self.peer(side).channels.keys().copied().collect();
            for number in numbers {
                let Some(own) = self.peer(side).channels.get_mut(&number) else { continue };
                let (Some(recipient), false) = (own.theirs, own.close_sent) else { continue };
                own.close_sent = true;
                let (logical, got) = (own.logical, own.close_got);
                if got {
                    self.peer(side).channels.remove(&number);
                }
                self.send(side, Some(logical), Message::Close { recipient });
                while !self.bench.gate.held.is_empty() {
                    self.release(true);
                }
            }
        }
    }

    fn check_windows(&mut self) {
        for number in self.client.channels.keys() {
            let c = &self.client.channels[number];
            let Some(t) = self.target.channels.values().find(|t| t.logical == c.logical) else { continue };
            if c.theirs.is_none() || [c.close_sent, c.close_got, t.close_sent, t.close_got].contains(&true) {
                continue;
            }
            assert_eq!((c.consumed, t.consumed), (0, 0), "all is granted again");
            assert_eq!((c.credit, t.credit), (t.room, c.room), "windows agree on {}", c.logical);
            self.compared += 1;
        }
    }

    fn check_streams(&self) {
        let stopped = self.stopped.borrow();
        for (key, sent) in &self.sent {
            if key.0.is_some_and(|logical| self.ended.contains(&logical)) {
                continue;
            }
            let expected = joined(sent.iter().filter(|item| !stopped.items.contains(*item)).cloned());
            let got = joined(self.got.get(key).into_iter().flatten().cloned());
            let cut = key.0.is_some_and(|logical| self.client_closed.contains(&logical));
            if cut && expected != got && key.1 == Side::Target {
                // Output that no longer had room when the client closed is dropped, and nothing else.
                assert!(is_cut(&expected, &got), "{key:?}\n{expected:?}\n{got:?}");
                continue;
            }
            assert_eq!(expected, got, "{key:?}");
        }
        for key in self.got.keys() {
            assert!(self.sent.contains_key(key), "nothing out of nothing: {key:?}");
        }
    }
}

/// Whether `got` is `sent` with bytes of data missing, all else in order.
fn is_cut(sent: &[Item], got: &[Item]) -> bool {
    let others = |items: &[Item]| -> Vec<Item> {
        items.iter().filter(|item| !matches!(item[0], 94 | 95)).cloned().collect()
    };
    others(sent) == others(got)
}

/// Stops what can be stopped, and notes it.
fn stop(note: &mut Stopped, message: &Message<'_>, success: bool) -> Verdict {
    match *message {
        // Empty data are all alike, so they can't be told apart afterwards.
        Message::Data { data, .. } | Message::ExtendedData { data, .. } if data.len() >= 8 => {
            note.items.insert(item(message));
            prohibited()
        }
        Message::ChannelRequest { request: Request::Exec { command: id }, .. }
        | Message::GlobalRequest { data: id, .. } => {
            note.items.insert(item(message));
            note.replies.insert(id_of(id), success);
            if success { Verdict::Satisfy } else { prohibited() }
        }
        Message::ChannelOpen { data, .. } => {
            note.items.insert(item(message));
            note.opens.insert(id_of(data));
            prohibited()
        }
        _ => Verdict::Pass,
    }
}

impl Own {
    fn new(logical: u64, opener: bool, theirs: Option<u32>, credit: u64, max_packet: u32, room: u32) -> Self {
        Own {
            logical,
            opener,
            theirs,
            credit,
            max_packet,
            room: u64::from(room),
            consumed: 0,
            eof_sent: false,
            eof_got: false,
            close_sent: false,
            close_got: false,
            waiting: VecDeque::new(),
            to_answer: VecDeque::new(),
        }
    }
}

/// Returns how many windows were compared.
fn run(seed: u64, steps: usize, notices: bool, ends: bool) -> usize {
    let mut w = World::new(seed);
    for _ in 0..steps {
        let side = if w.dice.roll(2) == 0 { Side::Client } else { Side::Target };
        w.act(side, false);
        if w.dice.roll(3) == 0 {
            w.release(false);
        }
        let some = w.dice.roll(40);
        let ids: Vec<ChannelId> = w.bench.relay.channels().map(|channel| channel.id).collect();
        let id = ids.get(w.dice.roll(ids.len().max(1) as u64) as usize).copied();
        if let (Some(id), true, true) = (id, some < 4, notices) {
            w.bench.relay.notice(id, "NNNNNNNNNNNNNNNNNNNNN", &mut w.bench.out);
            w.deliver();
        }
        if let (Some(id), true, true) = (id, some == 9, ends) {
            let logical = w.bench.logical(id);
            w.ended.insert(logical);
            w.stopped.borrow_mut().opens.insert(logical);
            w.stopped.borrow_mut().items.insert(
                Message::ChannelOpen {
                    kind: b"session",
                    sender: 0,
                    window: 0,
                    max_packet: 0,
                    data: &logical.to_be_bytes(),
                }
                .to_payload(),
            );
            let ending = Ending { line: "NOTICE end", exit: Exit::Signal("TERM") };
            w.bench.relay.end_channel(id, &ending, &mut w.bench.gate, &mut w.bench.out).unwrap();
            w.deliver();
        }
    }
    w.rest();
    w.check_windows();
    w.close_all();
    w.rest();
    if !ends {
        w.check_streams();
    }
    assert_eq!(w.bench.relay.held_bytes(), 0);
    assert_eq!(w.bench.relay.channels().count(), 0, "all slots are free");
    let mut closed = w.bench.gate.closed.clone();
    closed.sort();
    let mut seen = w.bench.gate.channels.clone();
    seen.sort();
    assert_eq!(closed, seen, "each channel is closed once");
    assert!(w.client.channels.is_empty() && w.target.channels.is_empty());
    if !ends {
        assert!(w.client.waiting.is_empty() && w.target.waiting.is_empty(), "all is answered");
    }
    w.compared
}

/// The model compares something: channels are still open when all has come to rest.
#[test]
fn windows_are_compared() {
    let compared: usize = (0..20).map(|seed| run(seed, 300, true, false)).sum();
    assert!(compared > 20, "{compared}");
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, cases: 96, ..Config::default() })]

    #[test]
    fn streams_replies_and_windows(seed: u64, steps in 50usize..600) {
        run(seed, steps, false, false);
    }

    #[test]
    fn with_text_of_ours(seed: u64, steps in 50usize..600) {
        run(seed, steps, true, false);
    }

    #[test]
    fn with_ends_of_ours(seed: u64, steps in 50usize..600) {
        run(seed, steps, true, true);
    }
}
