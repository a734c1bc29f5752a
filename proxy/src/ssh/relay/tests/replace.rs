//! Data in the place of data, and data of ours between them: windows stay right on both sides, and nothing is lost.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

const WINDOW: u32 = 64;
const PACKET: u32 = 16;

/// What happens next.
#[derive(Clone, Debug)]
enum Op {
    /// The client says so many bytes; of what lies there then, so many go nowhere and so many are kept for later.
    Client { bytes: u32, dropped: usize, kept: usize },
    /// The target says so many, and so many of ours go with them.
    Target { bytes: u32, added: u32 },
    /// So many of ours go by themselves, if they may.
    Insert(usize),
    /// A side takes what it has got, and says so.
    Take(Side),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1..=PACKET, 0..8_usize, 0..8_usize).prop_map(|(bytes, dropped, kept)| Op::Client { bytes, dropped, kept }),
        3 => (1..=PACKET, 0..24_u32).prop_map(|(bytes, added)| Op::Target { bytes, added }),
        1 => (1..40_usize).prop_map(Op::Insert),
        2 => prop::bool::ANY.prop_map(|client| Op::Take(if client { Side::Client } else { Side::Target })),
    ]
}

/// What the gate does with the next data, and what it has let pass.
#[derive(Default)]
struct Plan {
    dropped: usize,
    kept: usize,
    added: u32,
    carried: Vec<u8>,
    passed: [Vec<u8>; 2],
}

impl Plan {
    fn see(&mut self, from: Side, data: &[u8]) -> Verdict {
        if from == Side::Target {
            let added = vec![b'+'; self.added as usize];
            let data = [data, added.as_slice()].concat();
            self.passed[1].extend_from_slice(&data);
            return Verdict::Replace { data, given_back: 0, added: self.added };
        }
        let all = [std::mem::take(&mut self.carried).as_slice(), data].concat();
        let dropped = self.dropped.min(all.len());
        let kept = self.kept.min(all.len() - dropped);
        let (pass, keep) = all[dropped..].split_at(all.len() - dropped - kept);
        self.carried = keep.to_vec();
        self.passed[0].extend_from_slice(pass);
        Verdict::Replace { data: pass.to_vec(), given_back: u32::try_from(dropped).unwrap(), added: 0 }
    }
}

/// A peer's side of the channel.
struct Peer {
    /// Its number for the channel.
    number: u32,
    may_send: u32,
    room: u32,
    got: Vec<u8>,
    taken: usize,
}

impl Peer {
    fn new(number: u32) -> Self {
        Self { number, may_send: WINDOW, room: WINDOW, got: Vec::new(), taken: 0 }
    }

    fn hear(&mut self, payload: &[u8]) {
        match Message::parse(payload).unwrap() {
            Message::Data { recipient, data } => {
                assert_eq!(recipient, self.number);
                assert!(!data.is_empty() && data.len() <= PACKET as usize, "a packet of {}", data.len());
                self.room =
                    self.room.checked_sub(u32::try_from(data.len()).unwrap()).expect("its window holds");
                self.got.extend_from_slice(data);
            }
            Message::WindowAdjust { recipient, bytes } => {
                assert_eq!(recipient, self.number);
                self.may_send += bytes;
                assert!(self.may_send <= WINDOW, "more than it ever had");
            }
            other => panic!("{other:?}"),
        }
    }
}

struct World {
    bench: Bench,
    ours: u32,
    plan: Rc<RefCell<Plan>>,
    peers: [Peer; 2],
    said: u8,
}

impl World {
    fn new() -> Self {
        let plan = Rc::new(RefCell::new(Plan::default()));
        let seen = Rc::clone(&plan);
        let mut bench = Bench::new(move |passage, message| match message {
            Message::Data { data, .. } => Gating::Decided(seen.borrow_mut().see(passage.from, data)),
            _ => Gating::PASS,
        });
        let ours = bench.session_with(3, 7, WINDOW, PACKET);
        Self { bench, ours, plan, peers: [Peer::new(3), Peer::new(7)], said: 0 }
    }

    fn say(&mut self, from: Side, bytes: u32) {
        let peer = &mut self.peers[usize::from(from == Side::Target)];
        let count = bytes.min(peer.may_send);
        if count == 0 {
            return;
        }
        peer.may_send -= count;
        self.said = self.said.wrapping_add(1) % 26;
        let data = vec![b'a' + self.said; count as usize];
        self.bench.send(from, Message::Data { recipient: self.ours, data: &data }).unwrap();
    }

    fn take(&mut self, side: Side) {
        let peer = &mut self.peers[usize::from(side == Side::Target)];
        let bytes = u32::try_from(peer.got.len() - peer.taken).unwrap();
        if bytes > 0 {
            (peer.taken, peer.room) = (peer.got.len(), peer.room + bytes);
            self.bench.send(side, Message::WindowAdjust { recipient: self.ours, bytes }).unwrap();
        }
    }

    fn deliver(&mut self) {
        while let Some((to, payload)) = self.bench.out.sent.pop_front() {
            self.peers[usize::from(to == Side::Target)].hear(&payload);
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Client { bytes, dropped, kept } => {
                let mut plan = self.plan.borrow_mut();
                (plan.dropped, plan.kept) = (dropped, kept);
                drop(plan);
                self.say(Side::Client, bytes);
            }
            Op::Target { bytes, added } => {
                self.plan.borrow_mut().added = added;
                self.say(Side::Target, bytes);
            }
            Op::Insert(bytes) => {
                let data = vec![b'#'; bytes];
                let channel = self.bench.gate.channels[0];
                if self.bench.relay.insert(channel, &data, &mut self.bench.out) {
                    self.plan.borrow_mut().passed[1].extend_from_slice(&data);
                }
            }
            Op::Take(side) => self.take(side),
        }
        self.deliver();
    }
}

proptest! {
    #[test]
    fn windows_stay_right_and_nothing_is_lost(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
        }
        // What is kept comes with the next, and all is taken.
        for _ in 0..WINDOW {
            world.step(Op::Take(Side::Client));
            world.step(Op::Take(Side::Target));
            if !world.plan.borrow().carried.is_empty() {
                world.step(Op::Client { bytes: 1, dropped: 0, kept: 0 });
            }
        }
        let plan = world.plan.borrow();
        prop_assert_eq!(&plan.passed[0], &world.peers[1].got);
        prop_assert_eq!(&plan.passed[1], &world.peers[0].got);
        prop_assert_eq!(world.bench.relay.held_bytes(), 0);
        for peer in &world.peers {
            prop_assert_eq!((peer.may_send, peer.room), (WINDOW, WINDOW), "nothing of a window is lost");
        }
    }
}

/// Between messages that wait there is no place; nor where there is no room, nor behind the end.
#[test]
fn nothing_is_put_where_it_may_not_be() {
    let mut world = World::new();
    let id = world.bench.gate.channels[0];
    world.step(Op::Target { bytes: 16, added: 60 });
    assert!(!world.bench.relay.insert(id, b"#", &mut world.bench.out), "a message waits for room");
    world.step(Op::Take(Side::Client));
    assert!(!world.bench.relay.insert(id, &[b'#'; 65], &mut world.bench.out), "more than a window");
    world.bench.nothing();
    world.step(Op::Insert(20));
    world.bench.send(Side::Target, Message::Eof { recipient: world.ours }).unwrap();
    world.bench.next(Side::Client);
    assert!(!world.bench.relay.insert(id, b"#", &mut world.bench.out), "behind EOF");
    world.bench.nothing();
}
