//! What a client's messages come to before anything is decided: there is no log here, so nothing is allowed.

use super::*;
use crate::ssh::message::forward::{Listening, Opening, Spot};
use crate::ssh::relay::{Outbox, Relay};
use custody_core::clock::{ManualClock, SystemClock};
use custody_core::event::EventId;
use custody_core::event::connection::Place as Spoken;
use std::path::Path;
use tempfile::TempDir;

/// The numbers by which client and target call the session channel; ours is 0.
const CLIENT: u32 = 3;
const TARGET: u32 = 7;
const WINDOW: u32 = 1 << 20;
const PACKET: u32 = 32 << 10;

/// What went out, in order.
#[derive(Default)]
struct Out(Vec<(Side, Vec<u8>)>);

impl Outbox for Out {
    fn put(&mut self, to: Side, payload: &[u8]) {
        self.0.push((to, payload.to_vec()));
    }
}

struct World {
    passage: Passage,
    relay: Relay,
    out: Out,
    _dir: TempDir,
}

impl World {
    /// With one session channel.
    fn new() -> Self {
        Self::by(Arc::new(SystemClock::new()))
    }

    /// By this clock.
    fn by(clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path(), uuid::Uuid::from_u128(1), 0, Level::Terminal).unwrap();
        let passage = Passage::new(recorder, clock, &Extensions::every());
        let mut world = Self { passage, relay: Relay::new(), out: Out::default(), _dir: dir };
        world.open(b"session", CLIENT, b"");
        world.say(
            Side::Target,
            Message::ChannelOpenConfirmation {
                recipient: 0,
                sender: TARGET,
                window: WINDOW,
                max_packet: PACKET,
                data: b"",
            },
        );
        world.out.0.clear();
        world
    }

    fn say(&mut self, from: Side, message: Message<'_>) {
        self.relay.accept(from, &mut message.to_payload(), &mut self.passage, &mut self.out).unwrap();
    }

    fn open(&mut self, kind: &[u8], sender: u32, data: &[u8]) {
        let open = Message::ChannelOpen { kind, sender, window: WINDOW, max_packet: PACKET, data };
        self.say(Side::Client, open);
    }

    fn ask(&mut self, request: Request<'_>) {
        self.say(Side::Client, Message::ChannelRequest { recipient: 0, want_reply: true, request });
    }

    /// Has the channel's program run, as if there had been leave for it.
    fn run(&mut self) {
        let program = self.passage.channels.values_mut().next().unwrap();
        program.running = Some(EventId::new());
        program.input = Some(Sha256::new());
    }

    /// What went to a side since the last call.
    fn went(&mut self, to: Side) -> Vec<Vec<u8>> {
        let all = std::mem::take(&mut self.out.0).into_iter();
        let (those, others): (Vec<_>, Vec<_>) = all.partition(|(side, _)| *side == to);
        self.out.0 = others;
        those.into_iter().map(|(_, payload)| payload).collect()
    }

    /// What is to be decided: the kind of program, its command, whether it has a terminal.
    fn asked(&mut self) -> Vec<(Kind, Option<String>, bool)> {
        let asks = self.passage.take_asks().into_iter().map(|ask| ask.requested);
        asks.map(|asked| (asked.kind, asked.command.map(|command| command.to_text()), asked.terminal))
            .collect()
    }

    /// Nothing is to be decided: the channel ended with a line that says this.
    #[track_caller]
    fn ended_with(&mut self, text: &str) {
        assert!(self.asked().is_empty());
        let close = Message::Close { recipient: TARGET }.to_payload();
        assert_eq!(self.went(Side::Target).last(), Some(&close));
        let told = self.went(Side::Client).concat();
        assert!(told.windows(text.len()).any(|part| part == text.as_bytes()), "{told:?}");
    }
}

fn pty() -> Request<'static> {
    Request::Pty { term: b"xterm", columns: 80, rows: 24, width: 0, height: 0, modes: b"\0" }
}

const SFTP: Request<'static> = Request::Subsystem { name: b"sftp" };

/// What the frames of a recording say, and when.
fn recorded(path: &Path) -> Vec<(u64, Direction, recording::Kind<'static>)> {
    let frames = recording::Reader::open(path).unwrap().map(Result::unwrap);
    frames.map(|frame| (frame.time_ns, frame.direction, frame.kind)).collect()
}

/// OpenSSH's client drops each stream but standard error, its server every one. A target's root could show the auditor what
/// nobody was shown, and a client tell of input that no program got.
#[test]
fn a_stream_that_nobody_takes_goes_no_further_and_is_not_told() {
    let mut world = World::new();
    world.run();
    let (typed, shown) = ([b'i'; 1024], [b'o'; 1024]);
    let forged = b"forged";
    world.say(Side::Client, Message::Data { recipient: 0, data: &typed });
    for stream in [0, STDERR, 2, u32::MAX] {
        world.say(Side::Client, Message::ExtendedData { recipient: 0, stream, data: forged });
    }
    world.say(Side::Client, Message::Data { recipient: 0, data: &typed });
    let input = Message::Data { recipient: TARGET, data: &typed }.to_payload();
    assert_eq!(world.went(Side::Target), vec![input; 2]);
    let given_back = Message::WindowAdjust { recipient: CLIENT, bytes: 6 }.to_payload();
    assert_eq!(world.went(Side::Client), vec![given_back; 4]);

    world.say(Side::Target, Message::Data { recipient: 0, data: &shown });
    world.say(Side::Target, Message::ExtendedData { recipient: 0, stream: STDERR, data: b"warning" });
    for stream in [0, 2, u32::MAX] {
        world.say(Side::Target, Message::ExtendedData { recipient: 0, stream, data: forged });
    }
    let output = Message::Data { recipient: CLIENT, data: &shown }.to_payload();
    let errors = Message::ExtendedData { recipient: CLIENT, stream: STDERR, data: b"warning" }.to_payload();
    assert_eq!(world.went(Side::Client), [output, errors]);
    let given_back = Message::WindowAdjust { recipient: TARGET, bytes: 6 }.to_payload();
    assert_eq!(world.went(Side::Target), vec![given_back; 3]);

    let frames = recorded(world.passage.recorder().path());
    let frames: Vec<_> = frames.into_iter().map(|(_, direction, kind)| (direction, kind)).collect();
    let data = |bytes: &[u8]| recording::Kind::Data(bytes.to_vec().into());
    assert_eq!(frames, [(Direction::Output, data(&shown)), (Direction::ErrorOutput, data(b"warning"))]);

    let request = Request::ExitStatus { status: 0 };
    world.say(Side::Target, Message::ChannelRequest { recipient: 0, want_reply: false, request });
    for side in Side::BOTH {
        world.say(side, Message::Close { recipient: 0 });
    }
    let mut ends = world.passage.take_ends();
    let Some(End::Program { outcome: Ok(told), .. }) = ends.pop() else { panic!("it ended well") };
    assert_eq!((told.bytes_in, told.bytes_out, told.bytes_err), (2048, 1024, 7));
    assert_eq!(told.input_sha256, Some(to_hex(&Sha256::digest([b'i'; 2048]))));
    assert_eq!(told.output_sha256, Some(to_hex(&Sha256::digest(shown))));
}

/// A real terminal's input may be a password. dropbear's client doesn't ask whether it gets one.
#[test]
fn what_goes_into_a_terminal_that_nobody_hears_of_has_no_hash() {
    for (asks, told) in [(false, false), (true, true)] {
        let mut world = World::new();
        world.say(Side::Client, Message::ChannelRequest { recipient: 0, want_reply: asks, request: pty() });
        if asks {
            world.say(Side::Target, Message::ChannelFailure { recipient: 0 });
        }
        world.run();
        for _ in 0..2 {
            world.say(Side::Client, Message::Data { recipient: 0, data: &[b'i'; 1024] });
        }
        let request = Request::ExitStatus { status: 0 };
        world.say(Side::Target, Message::ChannelRequest { recipient: 0, want_reply: false, request });
        for side in Side::BOTH {
            world.say(side, Message::Close { recipient: 0 });
        }
        let mut ends = world.passage.take_ends();
        let Some(End::Program { outcome: Ok(ended), .. }) = ends.pop() else { panic!("it ended well") };
        assert_eq!((ended.bytes_in, ended.input_sha256.is_some()), (2048, told));
    }
}

/// Nor does it leap with one that is set ahead.
#[test]
fn a_clock_that_is_set_back_makes_no_moment_of_the_rest_of_a_recording() {
    let hours = |count: u64| Nanos(count * 3_600_000_000_000);
    let clock = Arc::new(ManualClock::new(hours(5)));
    let mut world = World::by(clock.clone());
    for set_to in [5, 4, 9, 1] {
        clock.set_wall(hours(set_to));
        clock.advance(Duration::from_secs(10));
        world.say(Side::Target, Message::Data { recipient: 0, data: b"x" });
    }
    clock.advance(Duration::from_secs(10));
    let (recorder, _, _) = world.passage.finish();
    let (path, now) = (recorder.path().to_owned(), recorder.last_ns());
    recorder.seal(now).unwrap();
    let seconds = recorded(&path).into_iter().map(|(at, _, _)| (at - hours(5).0) / 1_000_000_000);
    assert_eq!(seconds.collect::<Vec<_>>(), [10, 20, 30, 40, 50], "the last is the end");
}

/// The same where it was set back before anything passed.
#[test]
fn a_recording_goes_on_from_its_start_though_the_clock_is_behind_that() {
    let dir = tempfile::tempdir().unwrap();
    let started = 3_600_000_000_000;
    let recorder = Recorder::create(dir.path(), uuid::Uuid::from_u128(1), started, Level::Terminal).unwrap();
    let clock = Arc::new(ManualClock::new(Nanos(7)));
    let passage = Passage::new(recorder, clock.clone(), &Extensions::every());
    clock.advance(Duration::from_secs(10));
    assert_eq!(passage.now(), started + 10_000_000_000);
}

#[test]
fn what_comes_before_a_program_is_asked_for_never_reaches_the_target() {
    let mut world = World::new();
    let data = b"\0\0\0\x05\x01\0\0\0\x03";
    world.say(Side::Client, Message::Data { recipient: 0, data });
    world.say(Side::Client, Message::Data { recipient: 0, data });
    world.say(Side::Client, Message::ExtendedData { recipient: 0, stream: STDERR, data });
    assert!(world.went(Side::Target).is_empty());
    let given_back = Message::WindowAdjust { recipient: CLIENT, bytes: 9 }.to_payload();
    assert_eq!(world.went(Side::Client), vec![given_back; 3]);
    assert_eq!(world.passage.take_notices().len(), 1, "it is told once");

    world.ask(SFTP);
    world.say(Side::Client, Message::Data { recipient: 0, data });
    assert_eq!(world.asked(), [(Kind::Subsystem, Some("sftp".to_owned()), false)]);
    assert!(world.went(Side::Target).is_empty() && world.went(Side::Client).is_empty(), "it waits for that");
}

/// libssh2 ended the commands of scp with a zero byte for years; OpenSSH reads them without.
#[test]
fn a_zero_byte_at_the_end_is_none_of_a_command_and_one_elsewhere_refuses_it() {
    let table = [
        (Request::Exec { command: b"reboot\0" }, Kind::Exec, "reboot"),
        (Request::Exec { command: b"scp -t /x\0" }, Kind::Exec, "scp -t /x"),
        (Request::Subsystem { name: b"sftp\0" }, Kind::Subsystem, "sftp"),
    ];
    for (request, kind, command) in table {
        let mut world = World::new();
        world.ask(request);
        assert_eq!(world.asked(), [(kind, Some(command.to_owned()), false)]);
    }
    for request in [
        Request::Exec { command: b"true\0; reboot" },
        Request::Exec { command: b"reboot\0\0" },
        Request::Subsystem { name: b"sftp\0x" },
    ] {
        let mut world = World::new();
        world.ask(request);
        world.ended_with("custody: a zero byte stands in what is asked for");
    }
    // The name of a request with one at its end is none that is known here, though OpenSSH knows it.
    let mut world = World::new();
    world.ask(Request::Other { name: b"subsystem\0", data: b"\0\0\0\x04sftp" });
    assert!(world.asked().is_empty() && world.went(Side::Target).is_empty());
}

#[test]
fn a_variable_is_told_without_the_zero_byte_at_its_end() {
    let mut world = World::new();
    world.ask(Request::Env { name: b"LC_ALL\0", value: b"C\0" });
    world.ask(Request::Env { name: b"LC_ALL\0X", value: b"C" });
    world.ask(Request::Env { name: b"LC_ALL", value: b"C\0X" });
    assert_eq!(world.went(Side::Target).len(), 1);
    world.say(Side::Target, Message::ChannelSuccess { recipient: 0 });
    let failure = Message::ChannelFailure { recipient: CLIENT }.to_payload();
    assert_eq!(world.went(Side::Client)[1..], [failure.clone(), failure]);
    world.ask(Request::Shell);
    let asks = world.passage.take_asks();
    let told = asks[0].requested.environment.iter();
    let told: Vec<_> = told.map(|variable| (variable.name.to_text(), variable.value.clone())).collect();
    assert_eq!(told, [("LC_ALL".to_owned(), Some(ByteString::from("C")))]);
}

/// A terminal would change the bytes behind the back of who judges them; one that was only asked for changes nothing.
#[test]
fn sftp_takes_no_terminal_unless_the_target_gave_none() {
    let mut world = World::new();
    world.ask(pty());
    world.say(Side::Target, Message::ChannelFailure { recipient: 0 });
    world.ask(SFTP);
    assert_eq!(world.asked(), [(Kind::Subsystem, Some("sftp".to_owned()), false)]);

    for is_answered in [false, true] {
        let mut world = World::new();
        world.ask(pty());
        if is_answered {
            world.say(Side::Target, Message::ChannelSuccess { recipient: 0 });
        }
        world.ask(Request::Subsystem { name: b"sftp\0" });
        world.ended_with("custody: sftp takes no terminal");
    }

    let mut world = World::new();
    world.passage.force_command(Some("internal-sftp -l INFO".to_owned()));
    world.ask(pty());
    world.ask(Request::Shell);
    world.ended_with("custody: sftp takes no terminal");
}

#[test]
fn a_terminal_is_asked_for_once_and_before_the_program() {
    let mut world = World::new();
    world.ask(pty());
    world.say(Side::Target, Message::ChannelSuccess { recipient: 0 });
    world.ask(pty());
    assert_eq!(world.went(Side::Target).len(), 1);
    let failure = Message::ChannelFailure { recipient: CLIENT }.to_payload();
    assert_eq!(world.went(Side::Client).last(), Some(&failure));
    world.ask(Request::Exec { command: b"id" });
    assert_eq!(world.asked(), [(Kind::Exec, Some("id".to_owned()), true)]);
}

/// What the client asks to be connected to, or to have listened at.
fn place(world: &mut World) -> Option<Spoken> {
    let ask = world.passage.forwards().take_asks().pop()?;
    match ask.wanted {
        forward::Wanted::Forward(requested) => requested.place,
        forward::Wanted::Offer(requested, _) => requested.place,
        forward::Wanted::Offered(..) => None,
    }
}

#[test]
fn a_place_is_judged_without_the_zero_byte_at_its_end() {
    let connect = |to| {
        let mut world = World::new();
        let opening = Opening::Direct { to, origin: (b"", 0) };
        let mut data = Vec::new();
        opening.encode(&mut data);
        world.open(opening.kind(), 4, &data);
        (place(&mut world), world.went(Side::Client))
    };
    let socket = |path| connect(Spot::Socket { path });
    assert_eq!(socket(b"/run/docker.sock\0").0, Some(Spoken::socket(b"/run/docker.sock")));
    let (asked, told) = socket(b"/run/docker.sock\0x");
    assert_eq!(asked, None);
    assert!(matches!(Message::parse(&told[0]), Ok(Message::ChannelOpenFailure { reason: 1, .. })));
    let host = |host| connect(Spot::Tcp { host, port: 22 }).0;
    assert_eq!(host(b"db.internal\0"), Some(Spoken::tcp(b"db.internal", 22)));
    assert_eq!(host(b"db\0.internal"), None);

    for (host, asked) in [(b"localhost\0".as_slice(), true), (b"local\0host".as_slice(), false)] {
        let mut world = World::new();
        let listening = Listening::Start(Spot::Tcp { host, port: 8080 });
        let mut data = Vec::new();
        listening.encode(&mut data);
        let request = Message::GlobalRequest { name: listening.name(), want_reply: false, data: &data };
        world.say(Side::Client, request);
        assert_eq!(place(&mut world), asked.then(|| Spoken::tcp(b"localhost", 8080)));
    }
}
