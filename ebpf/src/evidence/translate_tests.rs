use super::super::numbering::{Numbering, SignedEvents};
use super::super::scribe::spooled;
use super::*;
use crate::sensor::{
    BpfUsed, ClockSet, IdsChanged, KernelReached, ModuleLoaded, Mounted, SocketMade, Traced, Tuple,
    UnixConnected,
};
use crate::spool::{BATCH_BYTES_MAX, LIMIT_BYTES_MIN, Spool};
use custody_core::clock::{ManualClock, Nanos};
use custody_core::event::{Event, Payload};

fn translation<'a>(sessions: &'a Sessions, known: &'a mut Known) -> Translation<'a> {
    let booted = Booted::now(&ManualClock::new(Nanos(1_000_000_000_000)));
    Translation { node: "web-1", sessions, known, booted }
}

fn signed(batch: Batch) -> Vec<SignedEvents> {
    let key = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    batch.sign(&key, Timestamp::from_seconds(1)).unwrap().0
}

fn told(record: Record) -> Event {
    let directory = tempfile::tempdir().unwrap();
    let sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
    let mut known = Known::default();
    let mut translation = translation(&sessions, &mut known);
    let mut batch = Numbering::begin("web-1").batch();
    translation.tell(&record, &mut batch).unwrap();
    let parts = signed(batch);
    Event::parse(&parts[0][0]).unwrap()
}

#[test]
fn arguments_come_back_byte_by_byte_and_a_cut_is_told() {
    let args: Vec<Vec<u8>> = vec![b"echo".to_vec(), vec![], b"a\xffz\n\x1b".to_vec()];
    let executed = Executed { args: args.clone(), argc: 3, args_total: 12, ..Executed::default() };
    let event = told(Record::Executed(Box::new(executed)));
    let Payload::CommandExecuted(data) = event.payload() else { unreachable!() };
    let back: Vec<_> = data.arguments.iter().map(|one| one.as_bytes().to_vec()).collect();
    assert_eq!((back, data.arguments_cut), (args, false));
    // All of it must be escaped: five bytes of JSON for each.
    let hostile =
        Executed { args: vec![vec![0xff; 32_000]], argc: 1, args_total: 32_001, ..Executed::default() };
    let event = told(Record::Executed(Box::new(hostile)));
    let Payload::CommandExecuted(data) = event.payload() else { unreachable!() };
    assert!(
        data.arguments_cut && data.arguments_bytes == 32_001 && data.arguments[0].as_bytes().len() >= 8_000
    );
}

#[test]
fn a_wait_status_is_an_exit_status_or_a_signal() {
    let who = Subject { start: 1_000_000, time: 3_500_000, ..Subject::default() };
    let exited = |status| ended(&Exited { who: who.clone(), status, executed: None });
    let three = exited(768);
    assert_eq!(
        (three.exit_status, three.signal, three.core_dumped, three.duration_us),
        (Some(3), None, false, 2_500)
    );
    let core = exited(139);
    assert_eq!((core.exit_status, core.signal, core.core_dumped), (None, Some(11), true));
    assert_eq!(exited(9).signal, Some(9));
}

#[test]
fn addresses_of_ipv4_stand_as_such() {
    let of = Connection {
        remote: "198.51.100.7".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets(),
        remote_port: 443,
        protocol: 6,
        ..connection()
    };
    let event = told(Record::ConnectionOpened(of));
    let Payload::ConnectionOpened(data) = event.payload() else { unreachable!() };
    assert_eq!((data.ends.remote.address.as_str(), data.ends.local), ("198.51.100.7", None));
}

fn connection() -> Connection {
    Connection {
        who: Subject::default(),
        local: [0; 16],
        local_port: 0,
        remote: [0; 16],
        remote_port: 0,
        protocol: 6,
        unconnected: false,
        in_place: false,
        ends_session: false,
        error: 0,
        denial: None,
        net_namespace: 0,
        cookie: 0,
        opened: 0,
        sent: 0,
        received: 0,
        datagrams: 0,
    }
}

/// As long as the kernel tells a path.
const LONGEST: usize = 4_096 + 256;

/// A record of each kind, whatever a session can choose in it filled with that byte.
fn each_kind(byte: u8) -> Vec<Record> {
    let path = || vec![byte; LONGEST];
    let who = || Subject { comm: vec![byte; 15], ..Subject::default() };
    let executed = |denial| {
        Record::Executed(Box::new(Executed {
            who: who(),
            path: path(),
            given: path(),
            interpreter: Some(vec![byte; 256]),
            cwd: path(),
            args: vec![vec![byte; 32_768]],
            argc: 1,
            args_total: 32_769,
            tty: vec![byte; 24],
            denial,
            ..Executed::default()
        }))
    };
    let file = || FileEvent {
        who: who(),
        path: path(),
        renamed_to: Some(path()),
        text: Some(vec![byte; 255]),
        group: 0,
        inode: 1,
        device: 1,
        mode: 0,
        count: 1,
        cut: false,
        refused: false,
        unreachable: false,
        denied: Some((Tried::Open, Denial::Unresolved)),
    };
    let of = || Connection { who: who(), ..connection() };
    let denial = Denial::Unresolved;
    vec![
        Record::Accepted(Accepted {
            who: who(),
            tuple: Tuple { local: [0; 16], local_port: 0, remote: [0; 16], remote_port: 0 },
        }),
        executed(None),
        executed(Some(denial)),
        Record::ExecRefused(ExecRefused {
            who: who(),
            given: vec![byte; 255],
            given_cut: true,
            path: path(),
            path_cut: false,
            denial,
        }),
        Record::Exited(Exited { who: who(), status: 0, executed: None }),
        Record::ConnectionOpened(of()),
        Record::ConnectionFailed(of()),
        Record::ConnectionClosed(of()),
        Record::ConnectionAccepted(of()),
        Record::ConnectionDenied(of()),
        Record::FileOpened(file()),
        Record::FileRenamed(file()),
        Record::FileLinked(file()),
        Record::FileDeleted(file()),
        Record::FileCreated(file()),
        Record::FileTruncated(file()),
        Record::FileModeChanged(file()),
        Record::FileOwnerChanged(file()),
        Record::FileAttributeChanged(file()),
        Record::FileDenied(file()),
        Record::UsersChanged(IdsChanged { who: who(), old: [0; 4], new: [u32::MAX; 4] }),
        Record::GroupsChanged(IdsChanged { who: who(), old: [0; 4], new: [u32::MAX; 4] }),
        Record::ModuleLoaded(ModuleLoaded { who: who(), name: vec![byte; 64] }),
        Record::KernelReached(KernelReached { who: who(), by: "kexec" }),
        Record::ClockSet(ClockSet { who: who(), by: "adjtimex" }),
        Record::BpfUsed(BpfUsed { who: who(), command: 5, refused: false }),
        Record::Traced(Traced {
            who: who(),
            target: 1,
            target_comm: vec![byte; 64],
            target_session: None,
            refused: false,
            stopped: false,
        }),
        Record::SocketMade(SocketMade { who: who(), family: 17, kind: 3, protocol: 3 }),
        Record::UnixConnected(UnixConnected { who: who(), name: vec![byte; 128] }),
        Record::Mounted(Mounted {
            who: who(),
            kind: vec![byte; 64],
            source: vec![byte; 128],
            flags: 0,
            refused: false,
        }),
    ]
}

#[test]
fn whatever_a_session_fills_a_record_with_becomes_an_event() {
    for byte in [1, b'"', b'\\', b'a', 0x7f, 0xff] {
        for record in each_kind(byte) {
            let event = told(record.clone());
            let who = record.who().unwrap();
            assert_eq!(Event::parse(&serde_json::to_vec(&event).unwrap()).unwrap().kind, event.kind);
            let cut = match event.payload() {
                Payload::CommandExecuted(data) => {
                    assert!(data.executable.path.as_bytes().len() >= 1_024);
                    let arguments: usize = data.arguments.iter().map(|one| one.as_bytes().len()).sum();
                    data.executable.path_cut
                        && data.directory_cut
                        && data.given_cut
                        && data.arguments_cut == (arguments < 32_768)
                }
                Payload::CommandDenied(data) => {
                    data.path_cut && (data.given_cut || data.arguments.is_empty())
                }
                Payload::FileRenamed(data) => data.file.path_cut && data.to_cut,
                Payload::FileLinked(data) => data.file.path_cut && data.to_cut,
                Payload::FileOpened(data) => data.file.path_cut,
                Payload::FileCreated(data) => data.file.path_cut && data.leads_to_cut,
                _ => true,
            };
            assert!(cut, "{} of {byte:#x} doesn't say what it lacks: {who:?}", event.kind);
        }
    }
}

/// Told as often as one batch has records, all of it would not fit into a frame to the log.
#[test]
fn a_path_of_a_control_group_is_told_up_to_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
    let mut known = Known::default();
    let translation = translation(&sessions, &mut known);
    let told = |bytes: usize| {
        let group = Group { path: vec![1; bytes], container: None };
        let program = Program { sha256: None, group: Some(group) };
        let mut batch = Numbering::begin("web-1").batch();
        translation.executed(&mut batch, &Executed::default(), &program, Room::WHOLE).unwrap();
        let parts = signed(batch);
        let event = Event::parse(&parts[0][0]).unwrap();
        let Payload::CommandExecuted(data) = event.payload() else { unreachable!() };
        (data.cgroup_path.as_ref().map(|path| path.as_bytes().len()), parts[0][0].len())
    };
    assert_eq!(told(GROUP_PATH_MAX).0, Some(GROUP_PATH_MAX));
    let (path, event) = told(4_080);
    assert!(path.is_none() && event < 4_096, "{event}");
}

/// The agent would end by what it can't keep, and again at each start.
#[test]
fn whatever_a_batch_is_made_of_each_of_its_parts_can_be_kept_by_the_smallest_spool() {
    let directory = tempfile::tempdir().unwrap();
    let sessions = Sessions::open(&directory.path().join("sessions.json")).unwrap();
    let mut known = Known::default();
    let mut translation = translation(&sessions, &mut known);
    let mut batch = Numbering::begin("web-1").batch();
    for record in [1, 0xff].into_iter().flat_map(each_kind).cycle().take(600) {
        translation.tell(&record, &mut batch).unwrap();
    }
    let parts = signed(batch);
    let bytes = parts.iter().flatten().map(Vec::len).sum::<usize>();
    assert!(bytes > BATCH_BYTES_MAX, "all of it would have been too much: {bytes}");
    for (at, part) in parts.iter().enumerate() {
        let (mut spool, _) = Spool::open(&directory.path().join(at.to_string()), LIMIT_BYTES_MIN).unwrap();
        let records = spooled(part, 1);
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        spool.append(&records).unwrap();
    }
}

#[test]
fn of_a_path_that_is_too_long_its_end_stays() {
    let path = [vec![1; 4_095], b"/evil".to_vec()].concat();
    let executed = Executed {
        path: path.clone(),
        given: path.clone(),
        cwd: path,
        args: vec![b"ls".to_vec()],
        argc: 1,
        args_total: 3,
        ..Executed::default()
    };
    let event = told(Record::Executed(Box::new(executed)));
    let Payload::CommandExecuted(data) = event.payload() else { unreachable!() };
    for path in [&data.executable.path, &data.given, data.directory.as_ref().unwrap()] {
        assert!(path.as_bytes().len() >= 1_024 && path.as_bytes().ends_with(b"/evil"));
    }
    assert_eq!((data.arguments.len(), data.arguments_cut), (1, false));
}
