//! A sensor for a test, with pins of its own, and sessions on it.

use custody_node::sensor::{PolicyRules, Record, RecordReader, Sensor, SensorOptions, Tier, Tuple, let_go};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Far longer than anything takes; under emulation everything takes long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many records are shown of those that lack one.
const SHOWN: usize = 100;
/// The policy of sessions that a test says nothing of.
pub const POLICY: u32 = 7;

/// A sensor and what it has told.
pub struct Node {
    pub sensor: Option<Sensor>,
    pub reader: Option<RecordReader>,
    pub records: Vec<Record>,
    pub options: SensorOptions,
}

/// A shell behind a connection that the sensor expected.
pub struct Session {
    pub id: [u8; 16],
    pub socket: TcpStream,
    lines: BufReader<TcpStream>,
    pub shell: Child,
}

pub fn tier() -> Option<Tier> {
    match std::env::var("CUSTODY_TIER").as_deref() {
        Ok("lsm") => Some(Tier::Lsm),
        Ok("tracepoint") => Some(Tier::Tracepoint),
        _ => None,
    }
}

pub fn options() -> SensorOptions {
    SensorOptions {
        pins: PathBuf::from(format!("/sys/fs/bpf/custody-test-{}-{}", std::process::id(), next())),
        ring_bytes: 1 << 20,
        heartbeat_limit: Duration::from_secs(3600),
        watched: Vec::new(),
        own: Vec::new(),
        tier: tier(),
    }
}

/// A number that no other test of this process has.
pub fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn session_id() -> [u8; 16] {
    let mut id = [0x5e; 16];
    id[..4].copy_from_slice(&next().to_be_bytes());
    id
}

impl Node {
    pub fn start() -> Node {
        Node::with(options())
    }

    pub fn with(options: SensorOptions) -> Node {
        // One at a time: the first mounts the bpffs.
        static STARTING: Mutex<()> = Mutex::new(());
        let starting = STARTING.lock();
        let mut sensor = Sensor::start(options.clone()).unwrap();
        drop(starting);
        let reader = sensor.reader().unwrap();
        sensor.set_policy(POLICY, &PolicyRules::default()).unwrap();
        Node { sensor: Some(sensor), reader: Some(reader), records: Vec::new(), options }
    }

    /// Whether it is the tier of LSM hooks; if not, that it says so of a feature.
    pub fn has(&mut self, feature: &str) -> bool {
        let coverage = self.sensor().coverage();
        let outcome = &coverage.features[feature];
        assert_eq!(outcome.is_ok(), coverage.tier == Tier::Lsm, "{feature}: {outcome:?}");
        outcome.is_ok()
    }

    /// Says that a feature is there, whatever the tier.
    pub fn has_in_both(&mut self, feature: &str) {
        let outcome = &self.sensor().coverage().features[feature];
        assert_eq!(*outcome, Ok(()), "{feature}");
    }

    pub fn sensor(&mut self) -> &mut Sensor {
        self.sensor.as_mut().unwrap()
    }

    pub fn session(&mut self) -> Session {
        self.session_at(IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST), POLICY)
    }

    /// A session whose listener is at one address and is called at another.
    pub fn session_at(&mut self, listen: IpAddr, call: IpAddr, policy: u32) -> Session {
        let listener = TcpListener::bind((listen, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = TcpStream::connect(SocketAddr::new(call, port)).unwrap();
        let id = session_id();
        let tuple = Tuple::new(SocketAddr::new(call, port), socket.local_addr().unwrap());
        self.sensor().expect(tuple, id, policy).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let out = OwnedFd::from(accepted.try_clone().unwrap());
        let err = OwnedFd::from(accepted.try_clone().unwrap());
        let shell =
            Command::new("/bin/sh").stdin(OwnedFd::from(accepted)).stdout(out).stderr(err).spawn().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(socket.try_clone().unwrap());
        let mut session = Session { id, socket, lines, shell };
        assert_eq!(session.run("true"), "");
        self.wait_for(
            "the accept",
            |record| matches!(record, Record::Accepted(accepted) if accepted.who.session == id),
        );
        session
    }

    /// As if the agent had been killed: everything stays attached. Gives how to start it again.
    pub fn abandon(mut self) -> SensorOptions {
        self.sensor = None;
        self.reader = None;
        self.options.clone()
    }

    /// Takes what the ring has now.
    pub fn drain(&mut self) {
        while let Some(record) = self.reader.as_mut().unwrap().next() {
            let_go(&record);
            self.records.push(record);
        }
    }

    /// Waits until the records so far fulfil a condition.
    pub fn wait_until<T>(&mut self, what: &str, mut found: impl FnMut(&[Record]) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            self.drain();
            if let Some(found) = found(&self.records) {
                return found;
            }
            let last = &self.records[self.records.len().saturating_sub(SHOWN)..];
            assert!(Instant::now() < end, "{what} didn't come; there were {}, {last:#?}", self.records.len());
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut [PollFd::new(self.reader.as_ref().unwrap(), PollFlags::IN)], Some(&second)).unwrap();
        }
    }

    /// Waits for a record.
    pub fn wait_for(&mut self, what: &str, mut is: impl FnMut(&Record) -> bool) -> Record {
        self.wait_until(what, |records| records.iter().find(|record| is(record)).cloned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(sensor) = self.sensor.take() {
            sensor.detach().unwrap();
        }
    }
}

impl Session {
    /// Runs a line of shell to its end; gives what it printed.
    pub fn run(&mut self, line: &str) -> String {
        self.start(line);
        self.socket.write_all(b"echo; echo __done__\n").unwrap();
        let mut printed = String::new();
        loop {
            let mut got = Vec::new();
            assert_ne!(
                self.lines.read_until(b'\n', &mut got).unwrap(),
                0,
                "the session's shell has ended after {line:?}: {printed}"
            );
            let got = String::from_utf8_lossy(&got);
            if got == "__done__\n" {
                return printed.trim_end_matches('\n').to_owned();
            }
            printed.push_str(&got);
        }
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the session's shell has ended");
        line
    }

    /// Gives a line to the shell, without waiting for it.
    pub fn start(&mut self, line: &str) {
        self.socket.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Runs a Python program; gives what it printed.
    pub fn python(&mut self, program: &str) -> String {
        let line = format!("python3 - <<'END_OF_PROGRAM'\n{program}\nEND_OF_PROGRAM");
        self.run(&line)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have been killed by what was tested.
        self.shell.kill().unwrap();
        self.shell.wait().unwrap();
    }
}
