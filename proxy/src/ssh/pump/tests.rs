//! The pump between a person's client and a target's server, both of which do what a test says.

mod world;

use super::*;
use crate::session::close::{self, Moved};
use crate::ssh::message::{Message, Request, STDERR};
use custody_core::clock::{Clock as _, ManualClock, Nanos, SystemClock};
use custody_core::recording::{Level, Reader};
use std::path::Path;
use tokio::sync::watch::Sender;
use world::{Ends, Peer, World};

const ALL: &str = "@id(\"all\") permit(principal, action, resource);";
/// All windows are larger than anything that is said.
const WINDOW: u32 = u32::MAX >> 1;
const PACKET: u32 = 32 << 10;
/// What is put into one message.
static BLOCK: [u8; PACKET as usize] = [b'x'; PACKET as usize];
/// Nothing here takes as long.
const DEADLINE: Duration = Duration::from_secs(120);

async fn in_time<T>(scenario: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, scenario).await.expect("it comes to an end")
}

/// Nobody says that the session must end.
fn endless() -> (Sender<Option<EndCause>>, watch::Receiver<Option<EndCause>>) {
    watch::channel(None)
}

fn open(kind: &[u8], sender: u32, data: &[u8]) -> Vec<u8> {
    Message::ChannelOpen { kind, sender, window: WINDOW, max_packet: PACKET, data }.to_payload()
}

/// The target's answer to the open of our channel `ours`.
fn confirmed(ours: u32) -> Message<'static> {
    let sender = 100 + ours;
    Message::ChannelOpenConfirmation {
        recipient: ours,
        sender,
        window: WINDOW,
        max_packet: PACKET,
        data: b"",
    }
}

/// Something that the client asks of the target's channel to our `ours`.
fn ask(ours: u32, request: Request<'_>) -> Vec<u8> {
    Message::ChannelRequest { recipient: ours, want_reply: true, request }.to_payload()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// SSH_FXP_OPEN, for reading.
fn sftp_open(id: u32, path: &[u8]) -> Vec<u8> {
    string(&[&[3][..], &id.to_be_bytes(), &string(path), &1_u32.to_be_bytes(), &[0; 4]].concat())
}

/// `direct-tcpip` to a database.
fn tunnel() -> Vec<u8> {
    [string(b"db.internal"), 6379_u32.to_be_bytes().to_vec(), string(b"127.0.0.1"), vec![0; 4]].concat()
}

impl Peer {
    fn say_all(&mut self, payloads: &[Vec<u8>]) {
        for payload in payloads {
            self.socket.leg.send(payload).unwrap();
        }
        self.socket.write().unwrap();
    }
}

impl Pump<'_> {
    /// Hears once what lies in a side's socket.
    async fn turn(&mut self, side: Side) {
        self.legs[at(side)].stream.readable().await.unwrap();
        self.read(side).unwrap();
        self.settle().unwrap();
    }

    /// A session channel, open on both sides: the first of its connection.
    async fn open_channel(&mut self, near: &mut Peer, far: &mut Peer) {
        near.say_all(&[open(b"session", 0, b"")]);
        self.turn(Side::Client).await;
        far.say(confirmed(0));
        self.turn(Side::Target).await;
    }

    /// Moves what a target says without end, which never hears our KEXINIT, until the pump takes no more. How many bytes of
    /// data it has said.
    async fn flood(&mut self, far: &mut Peer, bytes: u64) -> usize {
        let mut said = 0;
        while self.may_read(Side::Target) && self.bytes_out < bytes {
            if far.socket.leg.output().is_empty() {
                far.say(Message::Data { recipient: 0, data: &BLOCK });
                said += BLOCK.len();
            }
            let has_output = !far.socket.leg.output().is_empty();
            tokio::select! {
                biased;
                readable = self.legs[1].stream.readable() => {
                    readable.unwrap();
                    self.read(Side::Target).unwrap();
                    self.settle().unwrap();
                }
                writable = far.socket.stream.writable(), if has_output => {
                    writable.unwrap();
                    far.socket.write().unwrap();
                }
            }
        }
        said
    }
}

/// A target that doesn't answer our KEXINIT may say all that a huge window allows, and a client that takes nothing of it
/// costs some MiB all the same. Nothing is lost, and it goes on once the client takes it.
#[tokio::test]
async fn a_target_that_withholds_its_kexinit_fills_no_memory() {
    in_time(async {
        let world = World::new(ALL).await;
        let Ends { mut near, client, target, mut far } = world.connected(16 << 10).await;
        let mut passage = world.passage(Level::None);
        let mut pump = Pump::new(&world.access, &world.session, [client, target], &mut passage);
        pump.open_channel(&mut near, &mut far).await;
        let said = pump.flood(&mut far, 64 << 20).await;
        assert!(pump.legs[1].leg.awaits_kexinit());
        let waits = pump.legs[0].leg.output().len();
        assert!(
            waits > BEFORE_KEXINIT_BYTES_MAX && waits <= BEFORE_KEXINIT_BYTES_MAX + (256 << 10),
            "{waits}"
        );

        let (_stays, mut end) = endless();
        tokio::select! {
            cause = pump.run(&mut end) => panic!("{cause:?}"),
            () = near.until_data(said) => {}
            () = far.until_gone() => panic!("the proxy has let go"),
        }
        assert_eq!(near.data().len(), said);
    })
    .await;
}

/// Each side exchanges keys by its own will, with two MiB on their way from one to the other.
#[tokio::test]
async fn both_sides_may_exchange_keys_in_the_middle_of_a_transfer() {
    in_time(async {
        let world = World::new(ALL).await;
        let Ends { mut near, client, target, mut far } = world.connected(16 << 10).await;
        let mut passage = world.passage(Level::None);
        let mut pump = Pump::new(&world.access, &world.session, [client, target], &mut passage);
        pump.open_channel(&mut near, &mut far).await;
        let mut said = pump.flood(&mut far, 512 << 10).await;
        assert!(pump.legs[1].leg.awaits_kexinit());
        near.socket.leg.start_rekey().unwrap();
        near.socket.write().unwrap();
        while said < 2 << 20 {
            far.socket.leg.send(&Message::Data { recipient: 0, data: &BLOCK }.to_payload()).unwrap();
            said += BLOCK.len();
        }

        let (_stays, mut end) = endless();
        tokio::select! {
            cause = pump.run(&mut end) => panic!("{cause:?}"),
            () = near.until_data(said) => {}
            () = far.until_gone() => panic!("the proxy has let go"),
        }
        assert_eq!(near.data().len(), said);
        assert!(near.socket.leg.exchanges() >= 2 && far.socket.leg.exchanges() >= 2);
    })
    .await;
}

/// What waits behind a command is more than a leg keeps while it exchanges keys: the decision waits for the exchange.
#[tokio::test]
async fn a_decision_lets_nothing_go_in_the_middle_of_a_key_exchange() {
    in_time(async {
        let world = World::new(ALL).await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::None);
        let mut pump = Pump::new(&world.access, &world.session, [client, target], &mut passage);
        pump.open_channel(&mut near, &mut far).await;
        near.say_all(&[ask(0, Request::Exec { command: b"cat" })]);
        let said = 48 * BLOCK.len();
        while pump.relay.held_bytes() < said {
            if near.socket.leg.output().is_empty() && pump.bytes_in < said as u64 {
                near.say(Message::Data { recipient: 0, data: &BLOCK });
            }
            let has_output = !near.socket.leg.output().is_empty();
            tokio::select! {
                biased;
                () = pump.turn(Side::Client) => {}
                writable = near.socket.stream.writable(), if has_output => {
                    writable.unwrap();
                    near.socket.write().unwrap();
                }
            }
        }
        far.socket.leg.start_rekey().unwrap();
        far.socket.write().unwrap();
        pump.turn(Side::Target).await;
        assert!(!pump.legs[1].leg.can_send());

        let (_stays, mut end) = endless();
        tokio::select! {
            cause = pump.run(&mut end) => panic!("{cause:?}"),
            () = async {
                // Whatever is submitted before this is durable with it, and known at the next turn.
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                    world.durable().await;
                }
                far.until_data(said).await;
            } => {}
        }
    })
    .await;
}

/// Each request may cost an answer: whoever takes none of them isn't heard any more.
#[tokio::test]
async fn whoever_takes_nothing_is_not_heard() {
    in_time(async {
        let world = World::new(ALL).await;
        let Ends { mut near, client, target, far: _far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::None);
        let mut pump = Pump::new(&world.access, &world.session, [client, target], &mut passage);
        while pump.legs[0].leg.output().len() <= UNTAKEN_BYTES_MAX {
            assert!(
                pump.may_read(Side::Client)
                    && pump.may_read(Side::Target) == pump.legs[0].leg.output().is_empty()
            );
            pump.legs[0].leg.send_ignore(&vec![0; 200_000]).unwrap();
        }
        assert!(!pump.may_read(Side::Client));
        while !pump.may_read(Side::Client) {
            tokio::select! {
                writable = pump.legs[0].stream.writable() => {
                    writable.unwrap();
                    pump.write(Side::Client).unwrap();
                }
                heard = near.turn() => heard.unwrap(),
            }
        }
    })
    .await;
}

/// What becomes of what was being decided when its session ended: each has one end, which says so.
#[tokio::test]
async fn what_is_allowed_while_its_session_ends_is_told_to_have_failed() {
    in_time(async {
        let world = World::new(ALL).await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::None);
        let (_stays, end) = endless();
        let scenario = async {
            near.say_all(&[open(b"session", 0, b""), open(b"session", 1, b"")]);
            far.until(|message| matches!(message, Message::ChannelOpen { sender: 1, .. }).then_some(()))
                .await;
            far.say_all(&[confirmed(0).to_payload(), confirmed(1).to_payload()]);
            near.until(|message| {
                matches!(message, Message::ChannelOpenConfirmation { recipient: 1, .. }).then_some(())
            })
            .await;
            near.say_all(&[ask(1, Request::Subsystem { name: b"sftp" })]);
            far.until(|message| matches!(message, Message::ChannelRequest { .. }).then_some(())).await;

            world.gate.shut();
            let mut waits = world.gate.waits.subscribe();
            near.say_all(&[
                ask(0, Request::Exec { command: b"reboot" }),
                Message::Data { recipient: 1, data: &sftp_open(7, b"/etc/hostname") }.to_payload(),
                open(b"direct-tcpip", 2, &tunnel()),
                Message::GlobalRequest {
                    name: b"tcpip-forward",
                    want_reply: true,
                    data: &[string(b"localhost"), vec![0; 4]].concat(),
                }
                .to_payload(),
            ]);
            near.socket.flush().await.unwrap();
            waits.wait_for(|waits| *waits).await.unwrap();
            drop(near);
            far.until_gone().await;
            world.gate.open();
        };
        let relayed = relay(&world.access, &world.session, client, target, &mut passage, end);
        let (course, ()) = tokio::join!(relayed, scenario);
        assert_eq!(course.end.reason, EndReason::ClientClosed);
        world.close(passage);
        world.durable().await;

        let failed = world.events(".failed");
        for (kind, count) in [
            ("command.requested", 2),
            ("file.requested", 1),
            ("connection.requested", 1),
            // It waits behind the open, so it was never looked at.
            ("connection.listen-requested", 0),
        ] {
            let requested = world.events(kind);
            assert_eq!(requested.len(), count, "{kind}: {requested:?}");
            for requested in requested {
                let ends: Vec<_> = failed.iter().filter(|end| end["cause"] == requested["id"]).collect();
                assert_eq!(ends.len(), 1, "{requested}: {ends:?}");
                let ran = requested["data"]["kind"] == "subsystem";
                let why = ends[0]["data"]["reason"].as_str().unwrap();
                assert_eq!(why == "the session ended before it could pass", !ran, "{requested}: {why}");
            }
        }
    })
    .await;
}

/// The log stands still for longer than the end of a session waits for what is being decided: that has its end behind the
/// session's, which is no attack on the log.
#[tokio::test]
async fn what_is_told_behind_its_sessions_end_is_not_refused() {
    in_time(async {
        let world = World::new(ALL).await;
        world.begin().await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::None);
        let mut pump = Pump::new(&world.access, &world.session, [client, target], &mut passage);
        pump.open_channel(&mut near, &mut far).await;
        world.gate.shut();
        let mut waits = world.gate.waits.subscribe();
        near.say_all(&[ask(0, Request::Exec { command: b"reboot" })]);
        pump.turn(Side::Client).await;
        let (_stays, mut end) = endless();
        tokio::select! {
            biased;
            cause = pump.run(&mut end) => panic!("{cause:?}"),
            waited = waits.wait_for(|waits| *waits) => drop(waited.unwrap()),
        }
        let tasks = pump.let_go();
        assert_eq!(tasks.len(), 1);
        unpassed::tell(&world.access, &world.session, tasks, Duration::ZERO).await;

        let detail = "the client closed the connection".to_owned();
        let cause = EndCause { reason: EndReason::ClientClosed, detail, cause: None };
        let closed = close::close(&world.access, &world.session, &cause, Moved::default(), None);
        let mut closed = Box::pin(closed);
        tokio::select! {
            biased;
            closed = &mut closed => panic!("{closed:?}"),
            () = std::future::ready(()) => world.gate.open(),
        }
        closed.await.unwrap();
        while world.events("command.failed").is_empty() {
            world.durable().await;
        }
        let events = world.events("");
        let place = |kind: &str| events.iter().position(|event| event["type"] == kind).unwrap();
        assert!(place("command.requested") < place("session.ended"));
        assert!(place("session.ended") < place("command.failed"));
        assert_eq!(world.refused(), Vec::<&str>::new());
    })
    .await;
}

/// The same for a listener.
#[tokio::test]
async fn a_listener_that_is_allowed_while_its_session_ends_is_told_to_have_failed() {
    in_time(async {
        let world = World::new(ALL).await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::None);
        let (_stays, end) = endless();
        let scenario = async {
            world.gate.shut();
            let mut waits = world.gate.waits.subscribe();
            let data = [string(b"localhost"), 8080_u32.to_be_bytes().to_vec()].concat();
            near.say(Message::GlobalRequest { name: b"tcpip-forward", want_reply: true, data: &data });
            waits.wait_for(|waits| *waits).await.unwrap();
            drop(near);
            far.until_gone().await;
            world.gate.open();
        };
        let relayed = relay(&world.access, &world.session, client, target, &mut passage, end);
        tokio::join!(relayed, scenario);
        world.close(passage);
        world.durable().await;
        let requested = world.events("connection.listen-requested");
        let failed = world.events("connection.failed");
        assert_eq!((requested.len(), failed.len()), (1, 1));
        assert_eq!(failed[0]["cause"], requested[0]["id"]);
        assert_eq!(failed[0]["data"]["reason"], "the session ended before it could pass");
        assert!(world.events("listen-closed").is_empty());
    })
    .await;
}

/// What a recording shows of each stream, in its order.
fn recorded(path: &Path) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    for frame in Reader::open(path).unwrap() {
        let frame = frame.unwrap();
        match (frame.kind, frame.direction) {
            (Kind::Data(bytes), Direction::Output) => streams[0].extend_from_slice(&bytes),
            (Kind::Data(bytes), Direction::ErrorOutput) => streams[1].extend_from_slice(&bytes),
            _ => {}
        }
    }
    streams
}

/// The answer to a file that is denied, the line that says why, and the last one of a session that is ended: the recording
/// has all that the client got.
#[tokio::test]
async fn what_the_proxy_says_by_itself_is_recorded() {
    in_time(async {
        let policy = format!(
            "{ALL}\n@id(\"no-secrets\") forbid(principal, action == Action::\"ssh:sftp-read\", resource) \
             when {{ context.path like \"/etc/*\" }};"
        );
        let world = World::new(&policy).await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::Full);
        let (stop, end) = endless();
        let scenario = async {
            near.say_all(&[open(b"session", 0, b"")]);
            far.until(|message| matches!(message, Message::ChannelOpen { .. }).then_some(())).await;
            far.say(confirmed(0));
            near.until(|message| matches!(message, Message::ChannelOpenConfirmation { .. }).then_some(()))
                .await;
            near.say_all(&[ask(0, Request::Subsystem { name: b"sftp" })]);
            far.until(|message| matches!(message, Message::ChannelRequest { .. }).then_some(())).await;
            far.say(Message::ChannelSuccess { recipient: 0 });
            near.say(Message::Data { recipient: 0, data: &sftp_open(7, b"/etc/shadow") });
            // The target says nothing.
            near.until_data(1).await;
            let detail = "the session was locked".to_owned();
            stop.send_replace(Some(EndCause { reason: EndReason::Locked, detail, cause: None }));
            tokio::join!(near.until_gone(), far.until_gone());
        };
        let relayed = relay(&world.access, &world.session, client, target, &mut passage, end);
        tokio::join!(relayed, scenario);
        let path = world.close(passage);
        assert!(far.data().is_empty(), "the target heard of it");

        let [output, errors] = recorded(&path);
        assert_eq!(output, near.data());
        assert_eq!(errors, near.errors());
        // SSH_FXP_STATUS, 7, SSH_FX_PERMISSION_DENIED
        assert_eq!(output[4..13], [101, 0, 0, 0, 7, 0, 0, 0, 3]);
        let errors = String::from_utf8(errors).unwrap();
        assert!(errors.starts_with("custody: denied: denied by no-secrets"), "{errors}");
        assert!(errors.ends_with("custody: the session was locked\r\n"), "{errors}");
    })
    .await;
}

/// What it says among the target's answers isn't the program's output: no hash of both together is told as if it were.
#[tokio::test]
async fn what_the_proxy_says_by_itself_is_in_no_hash_of_a_programs_output() {
    in_time(async {
        let policy =
            format!("{ALL}\n@id(\"no\") forbid(principal, action == Action::\"ssh:sftp-read\", resource);");
        let world = World::new(&policy).await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::Terminal);
        let (_stays, end) = endless();
        // SSH_FXP_VERSION, with an extension of 2 KiB.
        let said =
            string(&[&[2, 0, 0, 0, 3][..], &string(b"padding@example.com"), &string(&[7; 2048])].concat());
        let scenario = async {
            near.say_all(&[open(b"session", 0, b"")]);
            far.until(|message| matches!(message, Message::ChannelOpen { .. }).then_some(())).await;
            far.say(confirmed(0));
            near.until(|message| matches!(message, Message::ChannelOpenConfirmation { .. }).then_some(()))
                .await;
            near.say_all(&[ask(0, Request::Subsystem { name: b"sftp" })]);
            far.until(|message| matches!(message, Message::ChannelRequest { .. }).then_some(())).await;
            far.say(Message::ChannelSuccess { recipient: 0 });
            near.say(Message::Data { recipient: 0, data: &sftp_open(7, b"/etc/shadow") });
            near.until_data(1).await;
            let denied = near.data().len();
            far.say(Message::Data { recipient: 0, data: &said });
            near.until_data(denied + said.len()).await;
            let request = Request::ExitStatus { status: 0 };
            far.say(Message::ChannelRequest { recipient: 0, want_reply: false, request });
            far.say(Message::Close { recipient: 0 });
            near.until(|message| matches!(message, Message::Close { .. }).then_some(())).await;
            near.say(Message::Close { recipient: 0 });
            far.until(|message| matches!(message, Message::Close { .. }).then_some(())).await;
            drop(near);
            far.until_gone().await;
        };
        let relayed = relay(&world.access, &world.session, client, target, &mut passage, end);
        tokio::join!(relayed, scenario);
        world.close(passage);
        world.durable().await;
        let told = world.events("command.completed");
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["data"]["bytes_out"], said.len());
        assert!(told[0]["data"].get("output_sha256").is_none(), "{}", told[0]);
    })
    .await;
}

/// The frames of what the proxy says are as far from others as they were in time.
#[tokio::test]
async fn what_the_proxy_says_after_the_clock_was_set_back_has_a_time_of_its_own() {
    in_time(async {
        let wall = SystemClock::new().wall();
        let clock = Arc::new(ManualClock::new(wall));
        let world = World::by(ALL, clock.clone()).await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::Full);
        let mut pump = Pump::new(&world.access, &world.session, [client, target], &mut passage);
        pump.open_channel(&mut near, &mut far).await;
        far.say(Message::Data { recipient: 0, data: b"said" });
        pump.turn(Side::Target).await;
        clock.set_wall(Nanos(wall.0 - 3_600_000_000_000));
        clock.advance(Duration::from_secs(10));
        pump.passage.tell(None, "told");
        pump.settle().unwrap();

        let frames = Reader::open(pump.passage.recorder().path()).unwrap().map(Result::unwrap);
        let data = frames.filter(|frame| matches!(frame.kind, Kind::Data(_)));
        let times: Vec<_> = data.map(|frame| (frame.direction, frame.time_ns)).collect();
        let [(Direction::Output, said), (Direction::ErrorOutput, told)] = times.as_slice() else {
            panic!("{times:?}")
        };
        assert_eq!(told - said, 10_000_000_000);
    })
    .await;
}

/// It has no standard error either: OpenSSH drops that on a connection, so nothing that came in it had come through.
#[tokio::test]
async fn a_connection_has_one_stream_each_way() {
    in_time(async {
        let world = World::new(ALL).await;
        let Ends { mut near, client, target, mut far } = world.connected(u64::MAX).await;
        let mut passage = world.passage(Level::Full);
        let (_stays, end) = endless();
        let scenario = async {
            near.say_all(&[open(b"direct-tcpip", 0, &tunnel())]);
            far.until(|message| matches!(message, Message::ChannelOpen { .. }).then_some(())).await;
            far.say(confirmed(0));
            near.until(|message| matches!(message, Message::ChannelOpenConfirmation { .. }).then_some(()))
                .await;
            for stream in [STDERR, 2] {
                near.say(Message::ExtendedData { recipient: 0, stream, data: b"forged" });
                far.say(Message::ExtendedData { recipient: 0, stream, data: b"forged" });
            }
            near.say(Message::Data { recipient: 0, data: b"asked" });
            far.until_data(5).await;
            far.say(Message::Data { recipient: 0, data: b"answered" });
            near.until_data(8).await;
            assert!(near.errors().is_empty() && far.errors().is_empty());
            drop(near);
            far.until_gone().await;
        };
        let relayed = relay(&world.access, &world.session, client, target, &mut passage, end);
        tokio::join!(relayed, scenario);
        let path = world.close(passage);
        world.durable().await;
        assert_eq!(recorded(&path), [b"answered".to_vec(), Vec::new()]);
        let told = world.events("connection.completed");
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["data"]["bytes_in"], 5);
        assert_eq!(told[0]["data"]["bytes_out"], 8);
    })
    .await;
}

/// Whoever looks at the ends of sessions must hear of it.
#[tokio::test]
async fn a_session_whose_recording_gets_no_seal_has_an_end_that_says_so() {
    in_time(async {
        for (reason, told, outcome) in [
            (EndReason::ClientClosed, "recording-failed", "failure"),
            (EndReason::Locked, "locked", "denied"),
        ] {
            let world = World::new(ALL).await;
            let mut passage = world.passage(Level::None);
            // More channels than a recording takes: it fails, as it does with its disk.
            let mut channels = 0..u32::MAX;
            let recorder = passage.recorder();
            assert!(channels.any(|channel| recorder.release(0, channel, Direction::Output, b"x").is_err()));
            let (recorder, _, _) = passage.finish();
            let cause = EndCause { reason, detail: "so it ended".to_owned(), cause: None };
            let moved = Moved::default();
            close::close(&world.access, &world.session, &cause, moved, Some(recorder)).await.unwrap();
            assert!(world.events("recording.sealed").is_empty());
            let ended = world.events("session.ended");
            assert_eq!(ended.len(), 1);
            assert_eq!(ended[0]["data"]["reason"], told);
            assert_eq!(ended[0]["outcome"], outcome);
            let detail = ended[0]["data"]["detail"].as_str().unwrap();
            assert!(detail.starts_with("so it ended; its recording has no seal: the recording "), "{detail}");
        }
    })
    .await;
}
