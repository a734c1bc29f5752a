//! Child processes with deadlines, which die with their owner and are known by their ids.

use crate::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

/// A server that runs as long as this value lives.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts `command`; `name` is for messages.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|e| panic!("{name} can't be started: {e}"));
        Self { child, name: name.to_owned() }
    }

    /// Starts a server that must not outlive this process, however that ends: tests share servers in a `static`, which
    /// is never dropped. The kernel kills it (prctl(2), `PR_SET_PDEATHSIG`, by way of setpriv(1)). It has a process group
    /// of its own, so that a Ctrl-C is for the tests only.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start_bound(name: &str, program: &Path, complete: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0);
        complete(&mut command);
        let child = spawn_for_good(command).unwrap_or_else(|e| panic!("{name} can't be started: {e}"));
        Self { child, name: name.to_owned() }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    ///
    /// # Panics
    /// When the operating system can't say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until this very process listens on `port` of loopback.
    ///
    /// # Panics
    /// When it ends first, or doesn't in time.
    pub fn wait_for_listener(&mut self, port: u16) {
        let pid = self.pid();
        let name = self.name.clone();
        wait::until_true(&format!("{name} listens on port {port}"), wait::DEADLINE, || {
            if let Some(status) = self.ended() {
                panic!("{name} ended with {status} before it listened on port {port}");
            }
            listens(pid, port)
        });
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill_now(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a killed child can be waited for");
    }

    /// SIGTERM, then waits.
    ///
    /// # Panics
    /// When it hasn't ended within `deadline`.
    pub fn stop(&mut self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let name = self.name.clone();
        wait::until(&format!("{name} ends after SIGTERM"), deadline, || self.ended())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Spawns from a thread that ends with this process: the kernel takes the end of the thread that made a child for the
/// end of its parent, and each test has a thread of its own.
fn spawn_for_good(command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in incoming {
                // Whoever ordered waits for it.
                drop(answer.send(command.spawn()));
            }
        });
        orders
    });
    let (answer, spawned) = mpsc::channel();
    SPAWNER.send((command, answer)).expect("its thread never ends");
    spawned.recv().expect("it answers")
}

/// Sends a signal to a process that may be gone already.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // ESRCH: it is gone, which is as good.
        let _gone = kill_process(pid, signal);
    }
}

/// A port of loopback that nobody listens on, and that this process hasn't given out yet. Whoever uses it checks by
/// process id that the listener is his. It lies below those that the kernel takes for outgoing connections: a server that
/// is killed and started again finds it free, and a client that knocks meanwhile isn't connected with itself. And below
/// those of the demo (`demo/lib.sh`), which may run at the same time.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("no other thread has panicked here");
    let mut random = std::iter::repeat_with(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let port = random
        .by_ref()
        .take(1000)
        .filter_map(|number| u16::try_from(10_000 + number % 14_000).ok())
        .find(|port| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("loopback has a free port");
    given.insert(port);
    port
}

/// Whether process `pid` holds a listening TCP socket on `port`.
#[must_use]
pub fn listens(pid: u32, port: u16) -> bool {
    let inodes = listening_inodes(port);
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| {
        let Ok(link) = std::fs::read_link(file.path()) else { return false };
        link.to_str()
            .and_then(|l| l.strip_prefix("socket:["))
            .and_then(|l| l.strip_suffix(']'))
            .is_some_and(|inode| inodes.contains(inode))
    })
}

/// Inodes of the sockets that listen on `port` (proc(5): column 1 is the local address in hex, 3 the state, 9 the inode).
fn listening_inodes(port: u16) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..]
                && local.ends_with(&format!(":{port:04X}"))
            {
                found.insert(inode.to_owned());
            }
        }
    }
    found
}

/// The children of a process, by their parent's id in /proc.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|p: u32| (child, p)));
    }
    let mut found = vec![];
    let mut open = vec![pid];
    while let Some(next) = open.pop() {
        let children = parents.iter().filter(|(_, p)| *p == next).map(|(c, _)| *c);
        open.extend(children.clone());
        found.extend(children);
    }
    found
}

/// What a command said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; 128 + n when signal n ended it, as a shell says it.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Said {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The same, when it has ended well.
    ///
    /// # Panics
    /// When it hasn't.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "exit code {}: {}\n{}", self.code, self.err, self.text());
        self
    }
}

/// Runs `command` with `input` and waits for its end and for the end of its output.
///
/// # Panics
/// When it hasn't ended after `deadline` (it is killed), or can't be started.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Said {
    use std::os::unix::process::ExitStatusExt;
    let line = describe(command);
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{line}: can't be started: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let input = input.to_vec();
    // A command may end without reading its input: that it can't be written is no failure of the test.
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > deadline {
            late = true;
            for pid in descendants(child.id()) {
                send(pid, Signal::KILL);
            }
            drop(child.kill());
            break child.wait().expect("a killed child can be waited for");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = start.elapsed();
    assert!(!late, "{line}: hadn't ended after {deadline:?}");
    let out = out.join().expect("reader").expect("output can be read");
    let err = err.join().expect("reader").expect("errors can be read");
    feed.join().expect("writer");
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(-1);
    Said { code, out, err: String::from_utf8_lossy(&err).into_owned(), took }
}

fn describe(command: &Command) -> String {
    let words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect();
    words.join(std::ffi::OsStr::new(" ")).to_string_lossy().into_owned()
}
