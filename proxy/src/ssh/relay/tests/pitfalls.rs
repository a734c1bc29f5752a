//! The faults that others had, and those of the trial that this design comes from.

use super::*;
use crate::ssh::message::open_failure;

fn hold_execs(_: Passage, message: &Message<'_>) -> Gating {
    match message {
        Message::ChannelRequest { request: Request::Exec { .. }, .. } => Gating::Hold,
        _ => Gating::PASS,
    }
}

/// Bytes right behind a held exec request arrive behind it, whole; a channel beside goes on.
#[test]
fn data_behind_a_held_exec_wait_for_it() {
    let mut b = Bench::new(hold_execs);
    let one = b.session(0, 10);
    let two = b.session(1, 11);
    b.send(Side::Client, exec(one, b"cat", true)).unwrap();
    b.send(Side::Client, Message::Data { recipient: one, data: b"x" }).unwrap();
    b.send(Side::Client, Message::Eof { recipient: one }).unwrap();
    b.nothing();
    b.send(Side::Client, Message::Data { recipient: two, data: b"beside" }).unwrap();
    b.expect(Side::Target, Message::Data { recipient: 11, data: b"beside" });
    // The other direction of the same channel isn't held either.
    b.send(Side::Target, Message::Data { recipient: one, data: b"banner" }).unwrap();
    b.expect(Side::Client, Message::Data { recipient: 0, data: b"banner" });
    let ticket = b.gate.held.pop_front().unwrap();
    assert_eq!(b.release(ticket, Verdict::Pass), Ok(Released::Moved));
    b.expect(Side::Target, exec(10, b"cat", true));
    b.expect(Side::Target, Message::Data { recipient: 10, data: b"x" });
    b.expect(Side::Target, Message::Eof { recipient: 10 });
    b.nothing();
    assert_eq!(b.relay.held_bytes(), 0);
    assert_eq!(b.release(ticket, Verdict::Pass), Ok(Released::Gone), "a ticket counts once");
    b.nothing();
}

/// 30 requests on one channel, each held, ten of them refused: the client hears the answers in its order.
#[test]
fn refusals_wait_for_their_turn_on_one_channel() {
    let mut b = Bench::new(hold_execs);
    let ours = b.session(0, 10);
    for n in 0..30u8 {
        b.send(Side::Client, exec(ours, &[n], true)).unwrap();
    }
    // Refusing every third from the start: those can't be told before the ones that passed are answered.
    for n in 0..30u8 {
        let ticket = b.gate.held.pop_front().unwrap();
        let verdict = if n % 3 == 0 { prohibited() } else { Verdict::Pass };
        assert_eq!(b.release(ticket, verdict), Ok(Released::Moved));
    }
    b.expect(Side::Client, Message::ChannelFailure { recipient: 0 });
    for n in (0..30u8).filter(|n| n % 3 != 0) {
        b.expect(Side::Target, exec(10, &[n], true));
    }
    b.nothing();
    for n in (1..30u8).filter(|n| n % 3 != 0) {
        b.send(Side::Target, Message::ChannelSuccess { recipient: ours }).unwrap();
        b.expect(Side::Client, Message::ChannelSuccess { recipient: 0 });
        if n % 3 == 2 && n < 29 {
            b.expect(Side::Client, Message::ChannelFailure { recipient: 0 });
        }
    }
    b.nothing();
}

/// 30 channels with an exec held each; released in another order, ten refused.
#[test]
fn thirty_channels_held_at_once() {
    let mut b = Bench::new(hold_execs);
    let ours: Vec<u32> = (0..30).map(|n| b.session(n, 100 + n)).collect();
    for (n, &channel) in ours.iter().enumerate() {
        b.send(Side::Client, exec(channel, &[n as u8], true)).unwrap();
    }
    b.nothing();
    let tickets: Vec<Ticket> = b.gate.held.drain(..).collect();
    for n in (0..30u32).rev() {
        let refused = n % 3 == 0;
        let verdict = if refused { prohibited() } else { Verdict::Pass };
        assert_eq!(b.release(tickets[n as usize], verdict), Ok(Released::Moved));
        if refused {
            b.expect(Side::Client, Message::ChannelFailure { recipient: n });
        } else {
            b.expect(Side::Target, exec(100 + n, &[n as u8], true));
        }
    }
    b.nothing();
}

/// `no-more-sessions` behind a held open doesn't overtake it.
#[test]
fn a_held_open_is_not_overtaken() {
    let mut b = Bench::new(|_, message| match message {
        Message::ChannelOpen { .. } => Gating::Hold,
        _ => Gating::PASS,
    });
    let open =
        Message::ChannelOpen { kind: b"session", sender: 4, window: 100, max_packet: 1 << 20, data: b"" };
    let no_more =
        Message::GlobalRequest { name: b"no-more-sessions@openssh.com", want_reply: false, data: b"" };
    b.send(Side::Client, open).unwrap();
    b.send(Side::Client, no_more).unwrap();
    b.nothing();
    // The target's own line isn't held.
    let keys = Message::GlobalRequest { name: b"hostkeys-00@openssh.com", want_reply: false, data: b"k" };
    b.send(Side::Target, keys).unwrap();
    b.expect(Side::Client, keys);
    let ticket = b.gate.held.pop_front().unwrap();
    assert_eq!(b.release(ticket, Verdict::Pass), Ok(Released::Moved));
    b.expect(
        Side::Target,
        Message::ChannelOpen {
            kind: b"session",
            sender: 0,
            window: 100,
            max_packet: PACKET_BYTES_MAX,
            data: b"",
        },
    );
    b.expect(Side::Target, no_more);
    b.nothing();
}

/// The reader leaves early: eow, with which OpenSSH ends `yes | head`, passes both ways.
#[test]
fn eow_passes() {
    let mut b = Bench::open_gate();
    let ours = b.session(3, 9);
    let eow =
        |recipient| Message::ChannelRequest { recipient, want_reply: false, request: Request::EndOfWrite };
    b.send(Side::Client, eow(ours)).unwrap();
    b.expect(Side::Target, eow(9));
    b.send(Side::Target, eow(ours)).unwrap();
    b.expect(Side::Client, eow(3));
}

/// What OpenSSH says to its like only, because it takes us for one, doesn't reach others.
#[test]
fn strangers_hear_nothing_that_is_for_openssh_only() {
    let mut b = Bench::open_gate();
    b.relay.set_stranger(Side::Client);
    let ours = b.session(3, 9);
    let eow =
        |recipient| Message::ChannelRequest { recipient, want_reply: false, request: Request::EndOfWrite };
    b.send(Side::Target, eow(ours)).unwrap();
    b.nothing();
    b.send(Side::Client, eow(ours)).unwrap();
    b.expect(Side::Target, eow(9));
    let no_more =
        Message::GlobalRequest { name: b"no-more-sessions@openssh.com", want_reply: false, data: b"" };
    b.send(Side::Client, no_more).unwrap();
    b.expect(Side::Target, no_more);
    b.relay.set_stranger(Side::Target);
    b.send(Side::Client, no_more).unwrap();
    b.nothing();
}

/// The target refuses the 11th channel: the client gets the target's own reason, the slot is used again.
#[test]
fn the_eleventh_channel_is_refused_by_the_target() {
    let mut b = Bench::open_gate();
    let ours: Vec<u32> = (0..10).map(|n| b.session(n, n)).collect();
    let open = Message::ChannelOpen { kind: b"session", sender: 10, window: 1, max_packet: 1, data: b"" };
    b.send(Side::Client, open).unwrap();
    let payload = b.next(Side::Target);
    let Ok(Message::ChannelOpen { sender, .. }) = Message::parse(&payload) else { panic!("an open") };
    let failure = |recipient| Message::ChannelOpenFailure {
        recipient,
        reason: open_failure::CONNECT_FAILED,
        description: b"open failed",
        language: b"",
    };
    b.send(Side::Target, failure(sender)).unwrap();
    b.expect(Side::Client, failure(10));
    assert_eq!(b.gate.closed, [b.gate.channels[10]]);
    assert_eq!(b.relay.channels().count(), 10);
    assert_eq!(b.session(10, 10), sender, "the slot is used again");
    b.send(Side::Client, Message::Data { recipient: ours[0], data: b"lives" }).unwrap();
    b.expect(Side::Target, Message::Data { recipient: 0, data: b"lives" });
    assert_ne!(b.gate.channels[10], b.gate.channels[11], "the id isn't");
}

/// EOF and CLOSE in any order, status behind EOF, reply behind EOF, and the slot freed after both CLOSEs.
#[test]
fn the_end_of_a_command() {
    let mut b = Bench::open_gate();
    let ours = b.session(0, 5);
    b.send(Side::Client, exec(ours, b"true", true)).unwrap();
    b.expect(Side::Target, exec(5, b"true", true));
    b.send(Side::Target, Message::Eof { recipient: ours }).unwrap();
    b.expect(Side::Client, Message::Eof { recipient: 0 });
    b.send(Side::Target, Message::ChannelSuccess { recipient: ours }).unwrap();
    b.expect(Side::Client, Message::ChannelSuccess { recipient: 0 });
    let status = |recipient| Message::ChannelRequest {
        recipient,
        want_reply: false,
        request: Request::ExitStatus { status: 42 },
    };
    b.send(Side::Target, status(ours)).unwrap();
    b.expect(Side::Client, status(0));
    b.send(Side::Target, Message::Close { recipient: ours }).unwrap();
    b.expect(Side::Client, Message::Close { recipient: 0 });
    // In flight while the target closed.
    b.send(Side::Client, Message::Data { recipient: ours, data: b"late" }).unwrap();
    b.expect(Side::Target, Message::Data { recipient: 5, data: b"late" });
    assert!(b.gate.closed.is_empty());
    b.send(Side::Client, Message::Close { recipient: ours }).unwrap();
    b.expect(Side::Target, Message::Close { recipient: 5 });
    assert_eq!(b.gate.closed.len(), 1);
    assert_eq!(b.relay.channels().count(), 0);
}

/// Requests aren't bounded by a window: a peer that piles them up behind a held one is stopped.
#[test]
fn what_is_held_is_bounded() {
    let mut b = Bench::new(hold_execs);
    let ours = b.session(0, 0);
    let command = vec![b'x'; 32 << 10];
    let mut sent = 0;
    let error = loop {
        match b.send(Side::Client, exec(ours, &command, false)) {
            Ok(()) => sent += command.len(),
            Err(error) => break error,
        }
        assert!(sent <= LINE_BYTES_MAX);
        assert!(b.relay.held_bytes() <= LINE_BYTES_MAX);
    };
    let limit =
        |max| matches!(error, RelayError::LimitExceeded { side: Side::Client, max: m, .. } if m == max);
    assert!(limit(LINE_BYTES_MAX), "{error}");

    let mut b = Bench::new(hold_execs);
    let channels: Vec<u32> = (0..5).map(|n| b.session(n, n)).collect();
    let error = channels
        .iter()
        .flat_map(|&channel| std::iter::repeat_n(channel, 250))
        .find_map(|channel| b.send(Side::Client, exec(channel, &command, false)).err())
        .unwrap();
    let limit =
        |max| matches!(error, RelayError::LimitExceeded { side: Side::Client, max: m, .. } if m == max);
    assert!(limit(HELD_BYTES_MAX), "{error}");
}

/// Requests that nobody answers are bounded too.
#[test]
fn unanswered_requests_are_bounded() {
    let mut b = Bench::open_gate();
    let request = Message::GlobalRequest { name: b"x", want_reply: true, data: b"" };
    let count = (0..100_000).take_while(|_| b.send(Side::Client, request).is_ok()).count();
    assert_eq!(count, 16_384);
}

#[test]
fn channels_are_bounded() {
    let mut b = Bench::open_gate();
    for n in 0..CHANNELS_MAX as u32 {
        b.session(n, n);
    }
    let open = Message::ChannelOpen { kind: b"session", sender: 5000, window: 1, max_packet: 1, data: b"" };
    b.send(Side::Client, open).unwrap();
    let payload = b.next(Side::Client);
    let Ok(Message::ChannelOpenFailure { recipient: 5000, reason, .. }) = Message::parse(&payload) else {
        panic!("a refusal")
    };
    assert_eq!(reason, open_failure::RESOURCE_SHORTAGE);
}

/// Text of ours takes from the client's window; the target's data are cut to what is left, and the client's
/// adjust is corrected by it.
#[test]
fn a_notice_keeps_windows_right() {
    let mut b = Bench::open_gate();
    let ours = b.session_with(0, 7, 100, 40);
    let id = b.gate.channels[0];
    assert_eq!(b.relay.notice(id, &"n".repeat(60), &mut b.out), 60);
    let text = "n".repeat(60);
    b.expect(Side::Client, Message::ExtendedData { recipient: 0, stream: 1, data: &text.as_bytes()[..40] });
    b.expect(Side::Client, Message::ExtendedData { recipient: 0, stream: 1, data: &text.as_bytes()[40..] });
    // The target knows of 100; the client has room for 40.
    b.send(Side::Target, Message::Data { recipient: ours, data: &[b'a'; 30] }).unwrap();
    b.expect(Side::Client, Message::Data { recipient: 0, data: &[b'a'; 30] });
    b.send(Side::Target, Message::Data { recipient: ours, data: &[b'b'; 30] }).unwrap();
    b.expect(Side::Client, Message::Data { recipient: 0, data: &[b'b'; 10] });
    b.send(Side::Target, Message::Eof { recipient: ours }).unwrap();
    b.nothing();
    b.send(Side::Client, Message::WindowAdjust { recipient: ours, bytes: 70 }).unwrap();
    b.expect(Side::Target, Message::WindowAdjust { recipient: 7, bytes: 10 });
    b.expect(Side::Client, Message::Data { recipient: 0, data: &[b'b'; 20] });
    b.expect(Side::Client, Message::Eof { recipient: 0 });
    b.nothing();
    assert_eq!(b.relay.notice(id, "late", &mut b.out), 0, "nothing behind EOF");
}

/// A client that closes while output waits for its window: the channel ends, nothing leaks.
#[test]
fn output_without_room_does_not_keep_a_closed_channel() {
    let mut b = Bench::open_gate();
    let ours = b.session_with(0, 7, 10, 10);
    b.relay.notice(b.gate.channels[0], "0123456789", &mut b.out);
    b.next(Side::Client);
    b.send(Side::Target, Message::Data { recipient: ours, data: b"waits" }).unwrap();
    b.send(Side::Target, Message::Close { recipient: ours }).unwrap();
    b.nothing();
    b.send(Side::Client, Message::Close { recipient: ours }).unwrap();
    b.expect(Side::Target, Message::Close { recipient: 7 });
    b.expect(Side::Client, Message::Close { recipient: 0 });
    assert_eq!(b.gate.closed.len(), 1);
    assert_eq!(b.relay.held_bytes(), 0);
}

/// Withheld bytes are given back to their sender, who otherwise would stand still.
#[test]
fn withheld_data_are_given_back() {
    let mut b = Bench::new(|_, message| match message {
        Message::Data { data, .. } if data.starts_with(b"secret") => Gating::Decided(prohibited()),
        _ => Gating::PASS,
    });
    let ours = b.session_with(0, 7, 6, 6);
    for _ in 0..5 {
        b.send(Side::Client, Message::Data { recipient: ours, data: b"secret" }).unwrap();
        b.expect(Side::Client, Message::WindowAdjust { recipient: 0, bytes: 6 });
    }
    b.send(Side::Client, Message::Data { recipient: ours, data: b"public" }).unwrap();
    b.expect(Side::Target, Message::Data { recipient: 7, data: b"public" });
}

const LOCKED: Ending<'_> = Ending { line: "locked\r\n", exit: Exit::Signal("TERM") };

fn expect_locked(b: &mut Bench, client: u32, target: u32) {
    b.expect(Side::Client, Message::ExtendedData { recipient: client, stream: 1, data: b"locked\r\n" });
    b.expect(Side::Client, Message::Eof { recipient: client });
    let request =
        Request::ExitSignal { name: b"TERM", core_dumped: false, message: b"locked", language: b"" };
    b.expect(Side::Client, Message::ChannelRequest { recipient: client, want_reply: false, request });
    b.expect(Side::Client, Message::Close { recipient: client });
    b.expect(Side::Target, Message::Close { recipient: target });
}

/// An ended channel swallows what is in flight until both peers have closed, then its slot is free.
#[test]
fn an_ended_channel_swallows_until_both_close() {
    let mut b = Bench::new(hold_execs);
    let ours = b.session(0, 7);
    let id = b.gate.channels[0];
    b.send(Side::Client, exec(ours, b"held", true)).unwrap();
    let ended = b.relay.end_channel(id, &LOCKED, &mut b.gate, &mut b.out);
    assert_eq!(ended, Ok(true));
    expect_locked(&mut b, 0, 7);
    let ticket = b.gate.held.pop_front().unwrap();
    assert_eq!(b.release(ticket, Verdict::Pass), Ok(Released::Gone), "what is dropped has no effect");
    assert_eq!(b.relay.held_bytes(), 0);
    b.send(Side::Client, Message::Data { recipient: ours, data: b"in flight" }).unwrap();
    b.send(Side::Target, Message::Data { recipient: ours, data: b"in flight" }).unwrap();
    b.send(Side::Client, Message::Close { recipient: ours }).unwrap();
    assert_eq!(b.relay.channels().count(), 1);
    b.send(Side::Target, Message::Close { recipient: ours }).unwrap();
    b.nothing();
    assert_eq!(b.gate.closed, [id]);
    assert_eq!(b.relay.end_channel(id, &LOCKED, &mut b.gate, &mut b.out), Ok(false));
}

/// Ending a channel that the target hasn't answered: the client is refused, the late answer is closed.
#[test]
fn an_offer_is_withdrawn() {
    for confirmed in [true, false] {
        let mut b = Bench::open_gate();
        let open = Message::ChannelOpen { kind: b"session", sender: 4, window: 9, max_packet: 9, data: b"" };
        b.send(Side::Client, open).unwrap();
        b.next(Side::Target);
        let id = b.gate.channels[0];
        assert_eq!(b.relay.end_channel(id, &LOCKED, &mut b.gate, &mut b.out), Ok(true));
        let payload = b.next(Side::Client);
        assert!(matches!(Message::parse(&payload), Ok(Message::ChannelOpenFailure { recipient: 4, .. })));
        if confirmed {
            let late = Message::ChannelOpenConfirmation {
                recipient: 0,
                sender: 8,
                window: 1,
                max_packet: 1,
                data: b"",
            };
            b.send(Side::Target, late).unwrap();
            b.expect(Side::Target, Message::Close { recipient: 8 });
            b.send(Side::Target, Message::Close { recipient: 0 }).unwrap();
        } else {
            let late =
                Message::ChannelOpenFailure { recipient: 0, reason: 1, description: b"", language: b"" };
            b.send(Side::Target, late).unwrap();
        }
        b.nothing();
        assert_eq!(b.gate.closed, [id]);
    }
}

/// A command that is refused with a text: success, the text, an exit status, CLOSE; the target never hears
/// of the command nor of what stood behind it.
#[test]
fn a_command_refused_with_a_text() {
    for held in [false, true] {
        let verdict = Verdict::End { line: "no\r\n".to_owned(), exit: Exit::Status(1) };
        let decide = verdict.clone();
        let mut b = Bench::new(move |_, message| match message {
            Message::ChannelRequest { request: Request::Exec { .. }, .. } if held => Gating::Hold,
            Message::ChannelRequest { request: Request::Exec { .. }, .. } => Gating::Decided(decide.clone()),
            _ => Gating::PASS,
        });
        let ours = b.session(0, 7);
        b.send(Side::Client, exec(ours, b"rm", true)).unwrap();
        b.send(Side::Client, Message::Data { recipient: ours, data: b"behind" }).unwrap();
        if held {
            b.nothing();
            let ticket = b.gate.held.pop_front().unwrap();
            assert_eq!(b.release(ticket, verdict), Ok(Released::Moved));
        }
        b.expect(Side::Client, Message::ChannelSuccess { recipient: 0 });
        b.expect(Side::Client, Message::ExtendedData { recipient: 0, stream: 1, data: b"no\r\n" });
        b.expect(Side::Client, Message::Eof { recipient: 0 });
        let request = Request::ExitStatus { status: 1 };
        b.expect(Side::Client, Message::ChannelRequest { recipient: 0, want_reply: false, request });
        b.expect(Side::Client, Message::Close { recipient: 0 });
        b.expect(Side::Target, Message::Close { recipient: 7 });
        b.nothing();
        assert_eq!(b.relay.held_bytes(), 0);
        b.send(Side::Target, Message::Close { recipient: ours }).unwrap();
        b.send(Side::Client, Message::Close { recipient: ours }).unwrap();
        assert_eq!(b.gate.closed.len(), 1);
    }
}

/// A match in the output ends the channel before the chunk is delivered, and nothing behind it passes.
#[test]
fn nothing_behind_a_match_passes() {
    let mut b = Bench::new(|_, message| match message {
        Message::WindowAdjust { .. } => Gating::Hold,
        Message::Data { data: b"match", .. } => {
            Gating::Decided(Verdict::End { line: "locked\r\n".to_owned(), exit: Exit::Signal("TERM") })
        }
        _ => Gating::PASS,
    });
    let ours = b.session(0, 7);
    // Held in one line: the match and what follows are judged one by one on release.
    b.send(Side::Target, Message::WindowAdjust { recipient: ours, bytes: 1 }).unwrap();
    for data in [&b"before"[..], b"match", b"after"] {
        b.send(Side::Target, Message::Data { recipient: ours, data }).unwrap();
    }
    b.nothing();
    let ticket = b.gate.held.pop_front().unwrap();
    assert_eq!(b.release(ticket, Verdict::Pass), Ok(Released::Moved));
    b.expect(Side::Client, Message::WindowAdjust { recipient: 0, bytes: 1 });
    b.expect(Side::Client, Message::Data { recipient: 0, data: b"before" });
    expect_locked(&mut b, 0, 7);
    b.nothing();
    assert_eq!(b.relay.held_bytes(), 0);
}

/// A lock: every session gets its line and its end, held opens are refused, nothing new is opened.
#[test]
fn end_all_ends_everything() {
    let mut b = Bench::new(|_, message| match message {
        Message::ChannelOpen { kind: b"held", .. } => Gating::Hold,
        _ => Gating::PASS,
    });
    b.session(0, 10);
    b.session(1, 11);
    let open = |kind, sender| Message::ChannelOpen { kind, sender, window: 1, max_packet: 1, data: b"" };
    b.send(Side::Client, open(b"held", 2)).unwrap();
    b.send(Side::Client, Message::GlobalRequest { name: b"q", want_reply: true, data: b"" }).unwrap();
    b.nothing();
    b.relay.end_all(&LOCKED, &mut b.gate, &mut b.out).unwrap();
    expect_locked(&mut b, 0, 10);
    expect_locked(&mut b, 1, 11);
    let refused = |payload: &[u8], number| matches!(Message::parse(payload), Ok(Message::ChannelOpenFailure { recipient, .. }) if recipient == number);
    assert!(refused(&b.next(Side::Client), 2));
    b.expect(Side::Client, Message::RequestFailure);
    b.send(Side::Client, open(b"session", 3)).unwrap();
    assert!(refused(&b.next(Side::Client), 3));
    b.nothing();
}

/// Global replies keep their order, with refusals and keep-alives of ours among them.
#[test]
fn global_replies_keep_their_order() {
    let mut b = Bench::new(|_, message| match message {
        Message::GlobalRequest { name: b"no", .. } => Gating::Decided(prohibited()),
        Message::GlobalRequest { name: b"yes", .. } => Gating::Decided(Verdict::Satisfy),
        _ => Gating::PASS,
    });
    let ask = |name| Message::GlobalRequest { name, want_reply: true, data: b"" };
    b.send(Side::Client, ask(b"one")).unwrap();
    b.send(Side::Client, ask(b"no")).unwrap();
    b.relay.keep_alive(Side::Target, &mut b.out).unwrap();
    b.send(Side::Client, ask(b"two")).unwrap();
    b.send(Side::Client, ask(b"yes")).unwrap();
    b.expect(Side::Target, ask(b"one"));
    b.expect(Side::Target, ask(b"keepalive@openssh.com"));
    b.expect(Side::Target, ask(b"two"));
    b.nothing();
    b.send(Side::Target, Message::RequestSuccess { data: b"1" }).unwrap();
    b.expect(Side::Client, Message::RequestSuccess { data: b"1" });
    b.expect(Side::Client, Message::RequestFailure);
    b.send(Side::Target, Message::RequestFailure).unwrap();
    b.nothing();
    assert_eq!(b.gate.alive, [Side::Target]);
    b.send(Side::Target, Message::RequestSuccess { data: b"2" }).unwrap();
    b.expect(Side::Client, Message::RequestSuccess { data: b"2" });
    b.expect(Side::Client, Message::RequestSuccess { data: b"" });
    b.send(Side::Target, Message::RequestFailure).unwrap();
    b.nothing();
}

/// Go's servers put a text behind a REQUEST_FAILURE: the asker gets the bare failure, and the connection lives.
#[test]
fn a_failure_with_a_text_behind_it_is_a_failure() {
    let mut b = Bench::open_gate();
    let ask = Message::GlobalRequest { name: b"tcpip-forward", want_reply: true, data: b"" };
    for from in Side::BOTH {
        b.send(from, ask).unwrap();
        b.expect(from.other(), ask);
        b.relay.accept(from.other(), &mut [82, b'x'], &mut b.gate, &mut b.out).unwrap();
        assert_eq!(b.next(from), [82]);
    }
    b.nothing();
}

/// What we say by ourselves is told to whoever records, as far as it went.
#[test]
fn what_we_put_into_streams_is_told_as_far_as_it_went() {
    let verdict = Verdict::End { line: "no\r\n".to_owned(), exit: Exit::Status(1) };
    let mut b = Bench::new(move |_, message| match message {
        Message::ChannelRequest { request: Request::Exec { .. }, .. } => Gating::Decided(verdict.clone()),
        _ => Gating::PASS,
    });
    let said = |channel, on_stderr, bytes: &[u8]| Said { channel, on_stderr, bytes: bytes.to_vec() };
    let narrow = b.session_with(0, 7, 5, 3);
    let id = b.gate.channels[0];
    assert_eq!(b.relay.notice(id, "narrow", &mut b.out), 5);
    assert_eq!(b.relay.notice(id, "no room", &mut b.out), 0);
    assert!(!b.relay.insert(id, b"no room", &mut b.out));
    b.send(Side::Client, Message::WindowAdjust { recipient: narrow, bytes: 20 }).unwrap();
    assert!(b.relay.insert(id, b"answer", &mut b.out));
    b.send(Side::Client, exec(narrow, b"rm", false)).unwrap();
    assert_eq!(
        b.relay.take_said(),
        [said(id, true, b"narro"), said(id, false, b"answer"), said(id, true, b"no\r\n")]
    );
    b.out.sent.clear();
    b.session(1, 8);
    let other = b.gate.channels[1];
    b.relay.end_all(&LOCKED, &mut b.gate, &mut b.out).unwrap();
    assert_eq!(b.relay.take_said(), [said(other, true, b"locked\r\n")]);
    assert!(b.relay.take_said().is_empty());
}
