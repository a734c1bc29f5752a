//! Peers that break the protocol: a clear error, never a panic.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::Config;

#[track_caller]
fn refused(b: &mut Bench, from: Side, message: Message<'_>) {
    match b.send(from, message) {
        Err(RelayError::PeerMisbehaved { side, .. }) => assert_eq!(side, from),
        other => panic!("{message:?} gave {other:?}"),
    }
}

fn open(sender: u32) -> Message<'static> {
    Message::ChannelOpen { kind: b"session", sender, window: 100, max_packet: 50, data: b"" }
}

fn confirmation(recipient: u32, sender: u32) -> Message<'static> {
    Message::ChannelOpenConfirmation { recipient, sender, window: 100, max_packet: 50, data: b"" }
}

#[test]
fn unknown_channels() {
    let mut b = Bench::open_gate();
    refused(&mut b, Side::Client, Message::Data { recipient: 0, data: b"" });
    refused(&mut b, Side::Target, Message::Close { recipient: u32::MAX });
    refused(&mut b, Side::Target, confirmation(0, 0));
}

#[test]
fn before_the_confirmation() {
    for message in [Message::Data { recipient: 0, data: b"x" }, Message::Close { recipient: 0 }] {
        for from in Side::BOTH {
            let mut b = Bench::open_gate();
            b.send(Side::Client, open(3)).unwrap();
            refused(&mut b, from, message);
        }
    }
    // The opener can't answer itself, nor the target twice.
    let mut b = Bench::open_gate();
    b.send(Side::Client, open(3)).unwrap();
    refused(&mut b, Side::Client, confirmation(0, 3 + 1));
    b.send(Side::Target, confirmation(0, 9)).unwrap();
    refused(&mut b, Side::Target, confirmation(0, 10));
}

/// While the open is held the target has heard of nothing, so it can't answer.
#[test]
fn an_answer_to_a_held_open() {
    let mut b = Bench::new(|_, _| Gating::Hold);
    b.send(Side::Client, open(3)).unwrap();
    refused(&mut b, Side::Target, confirmation(0, 9));
}

/// Behind a CLOSE nothing has an effect, be the channel still there or gone; what was never open is another thing.
#[test]
fn after_eof_and_close() {
    let mut b = Bench::open_gate();
    let ours = b.session_with(0, 7, 100, 50);
    b.send(Side::Client, Message::Eof { recipient: ours }).unwrap();
    refused(&mut b, Side::Client, Message::Data { recipient: ours, data: b"x" });
    refused(&mut b, Side::Client, Message::ExtendedData { recipient: ours, stream: 1, data: b"" });
    b.send(Side::Client, Message::Close { recipient: ours }).unwrap();
    b.out.sent.clear();
    let late = |b: &mut Bench| {
        for message in [
            Message::Close { recipient: ours },
            Message::Eof { recipient: ours },
            Message::WindowAdjust { recipient: ours, bytes: 7 },
            Message::Data { recipient: ours, data: b"late" },
            Message::ChannelFailure { recipient: ours },
            exec(ours, b"x", true),
        ] {
            b.send(Side::Client, message).unwrap();
            b.nothing();
        }
    };
    late(&mut b);
    b.send(Side::Target, Message::Close { recipient: ours }).unwrap();
    b.expect(Side::Client, Message::Close { recipient: 0 });
    assert_eq!(b.relay.channels().count(), 0);
    late(&mut b);
    refused(&mut b, Side::Client, confirmation(ours, 9));
    refused(&mut b, Side::Client, Message::Eof { recipient: ours + 1 });
}

#[test]
fn beyond_window_and_packet() {
    let mut b = Bench::open_gate();
    let ours = b.session_with(0, 7, 100, 50);
    refused(&mut b, Side::Client, Message::Data { recipient: ours, data: &[0; 51] });
    b.send(Side::Client, Message::Data { recipient: ours, data: &[0; 50] }).unwrap();
    b.send(Side::Client, Message::ExtendedData { recipient: ours, stream: 1, data: &[0; 50] }).unwrap();
    refused(&mut b, Side::Client, Message::Data { recipient: ours, data: &[0; 1] });
    b.send(Side::Target, Message::WindowAdjust { recipient: ours, bytes: 1 }).unwrap();
    b.send(Side::Client, Message::Data { recipient: ours, data: &[0; 1] }).unwrap();
    refused(&mut b, Side::Client, Message::WindowAdjust { recipient: ours, bytes: u32::MAX - 99 });
    // An adjust that is held doesn't count before it is delivered.
    let mut b = Bench::new(|_, message| match message {
        Message::WindowAdjust { .. } => Gating::Hold,
        _ => Gating::PASS,
    });
    let ours = b.session_with(0, 7, 1, 50);
    b.send(Side::Client, Message::Data { recipient: ours, data: b"x" }).unwrap();
    b.send(Side::Target, Message::WindowAdjust { recipient: ours, bytes: 1 }).unwrap();
    refused(&mut b, Side::Client, Message::Data { recipient: ours, data: b"y" });
}

#[test]
fn numbers_used_twice() {
    let mut b = Bench::open_gate();
    let ours = b.session(3, 7);
    refused(&mut b, Side::Client, open(3));
    b.send(Side::Client, open(4)).unwrap();
    refused(&mut b, Side::Target, confirmation(ours + 1, 7));
    // A peer that has sent and got CLOSE may use its number again, though the other hasn't closed yet.
    let mut b = Bench::new(|passage, message| match (passage.from, message) {
        (Side::Client, Message::Close { .. }) => Gating::Hold,
        _ => Gating::PASS,
    });
    let ours = b.session(3, 7);
    b.send(Side::Target, Message::Close { recipient: ours }).unwrap();
    refused(&mut b, Side::Client, open(3));
    b.send(Side::Client, Message::Close { recipient: ours }).unwrap();
    b.send(Side::Client, open(3)).unwrap();
    b.out.sent.clear();
    b.send(Side::Target, Message::Close { recipient: ours }).unwrap();
    b.nothing();
}

/// sshj answers each request that it doesn't know, also where no answer is wanted.
#[test]
fn replies_that_nobody_asked_for_go_no_further() {
    let mut b = Bench::open_gate();
    let ours = b.session(0, 7);
    b.send(Side::Target, Message::ChannelSuccess { recipient: ours }).unwrap();
    b.send(Side::Client, Message::RequestFailure).unwrap();
    b.nothing();
    b.send(Side::Client, exec(ours, b"x", false)).unwrap();
    b.expect(Side::Target, exec(7, b"x", false));
    b.send(Side::Target, Message::ChannelFailure { recipient: ours }).unwrap();
    b.nothing();
    // The request is held: the target hasn't got it.
    let mut b = Bench::new(|_, message| match message {
        Message::ChannelRequest { .. } => Gating::Hold,
        _ => Gating::PASS,
    });
    let ours = b.session(0, 7);
    b.send(Side::Client, exec(ours, b"x", true)).unwrap();
    b.send(Side::Target, Message::ChannelSuccess { recipient: ours }).unwrap();
    b.nothing();
}

#[test]
fn an_unknown_number_changes_nothing() {
    let mut b = Bench::open_gate();
    let ours = b.session(0, 7);
    let error = b.relay.accept(Side::Target, &mut [89, 0, 0, 0, 0], &mut b.gate, &mut b.out);
    assert_eq!(error, Err(RelayError::Unimplemented { side: Side::Target, number: 89 }));
    b.nothing();
    b.send(Side::Client, Message::Eof { recipient: ours }).unwrap();
    let error = b.relay.accept(Side::Target, &mut [94, 0, 0], &mut b.gate, &mut b.out);
    assert!(matches!(error, Err(RelayError::Malformed { side: Side::Target, .. })));
}

#[test]
fn deciding_what_cannot_be_decided_is_our_bug() {
    let mut b = Bench::new(|_, message| match message {
        Message::Eof { .. } => Gating::Decided(Verdict::Satisfy),
        _ => Gating::PASS,
    });
    let ours = b.session(0, 7);
    let error = b.send(Side::Client, Message::Eof { recipient: ours });
    assert!(matches!(error, Err(RelayError::ApiMisuse { .. })));
    b.nothing();
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, cases: 300, ..Config::default() })]

    /// Anything at all, with a gate that holds, refuses and passes at random: errors, but no panic, and what
    /// is held stays within its bound. Channel numbers are small so that many messages find a channel.
    #[test]
    fn random_messages_do_not_panic(
        steps in proptest::collection::vec((any::<bool>(), 80u8..=101, any::<[u8; 6]>()), 1..400),
        gating in proptest::collection::vec(0u8..6, 64),
    ) {
        let mut turn = 0;
        let mut b = Bench::new(move |_, message| {
            turn += 1;
            match (gating[turn % gating.len()], message) {
                (0, _) => Gating::Hold,
                (1, Message::ChannelRequest { .. } | Message::Data { .. } | Message::ChannelOpen { .. }) => {
                    Gating::Decided(prohibited())
                }
                (1, _) if turn % 7 == 0 => {
                    Gating::Decided(Verdict::End { line: "end".to_owned(), exit: Exit::Silent })
                }
                (2, Message::GlobalRequest { .. }) => Gating::Decided(Verdict::Satisfy),
                _ => Gating::PASS,
            }
        });
        for (client, number, [a, n, m, x, y, z]) in steps {
            let from = if client { Side::Client } else { Side::Target };
            let (recipient, sender) = (u32::from(n % 4), u32::from(m % 8));
            let window = u32::from(x) * u32::from(y);
            let data = vec![z; usize::from(x % 64)];
            let message = match number {
                80 => Message::GlobalRequest { name: b"g", want_reply: y % 2 == 0, data: &data },
                81 => Message::RequestSuccess { data: &data },
                82 => Message::RequestFailure,
                83 | 90 => {
                    Message::ChannelOpen { kind: b"session", sender, window, max_packet: window, data: &data }
                }
                84 | 85 | 91 => {
                    Message::ChannelOpenConfirmation { recipient, sender, window, max_packet: window, data: &data }
                }
                92 => Message::ChannelOpenFailure { recipient, reason: 1, description: &data, language: b"" },
                93 => Message::WindowAdjust { recipient, bytes: window },
                86 | 94 => Message::Data { recipient, data: &data },
                95 => Message::ExtendedData { recipient, stream: 1, data: &data },
                96 => Message::Eof { recipient },
                97 => Message::Close { recipient },
                87 | 98 => exec(recipient, &data, y % 2 == 0),
                88 | 99 => Message::ChannelSuccess { recipient },
                _ => Message::ChannelFailure { recipient },
            };
            // A real session ends at the first error; going on is harder on the state.
            b.send(from, message).ok();
            if a % 4 == 0
                && let Some(ticket) = b.gate.held.pop_front()
            {
                b.release(ticket, if a % 8 == 0 { Verdict::Pass } else { prohibited() }).ok();
            }
            if a % 32 == 1 {
                let id = b.relay.channels().next().map(|channel| channel.id);
                if let Some(id) = id {
                    b.relay.notice(id, "notice", &mut b.out);
                    let ending = Ending { line: "end", exit: Exit::Status(1) };
                    b.relay.end_channel(id, &ending, &mut b.gate, &mut b.out).ok();
                }
            }
            prop_assert!(b.relay.held_bytes() <= HELD_BYTES_MAX);
        }
        for (_, payload) in &b.out.sent {
            prop_assert!(Message::parse(payload).is_ok());
        }
        b.relay.end_all(&Ending { line: "end", exit: Exit::Silent }, &mut b.gate, &mut b.out).ok();
    }

    #[test]
    fn random_bytes_do_not_panic(packets in proptest::collection::vec(
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..64,
    )) {
        let mut b = Bench::open_gate();
        b.session(0, 0);
        for (client, mut payload) in packets {
            let from = if client { Side::Client } else { Side::Target };
            if let Some(first) = payload.first_mut() {
                *first = 80 + *first % 24;
            }
            b.relay.accept(from, &mut payload, &mut b.gate, &mut b.out).ok();
        }
    }
}
