//! OpenSSH's own regression tests, which `setup/openssh/install.sh` fetches: scripts that start an sshd with what they
//! test and call `ssh`, `sftp` and `scp`. Each runs directly, as its authors mean it, or with the proxy between the
//! client and that sshd (`tests/strangers/openssh/ssh.sh`).

use super::setup;
use super::sshd::path;
use super::world::World;
use crate::process::descendants;
use crate::root;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What replaces what in a script.
pub type Edit = (&'static str, &'static str);

/// How long a script may take: most of that some of them sleep.
const DEADLINE: Duration = Duration::from_secs(300);
/// What clients and servers have for a key exchange: the one that takes least CPU.
const KEX: &str = "KexAlgorithms curve25519-sha256";
/// The script that tries each by itself.
const TRIES_KEX: &str = "rekey";
/// A bash that sshd starts reads ~/.bashrc, which may do anything, unless another shell is around it.
const NO_BASHRC: &str = "SetEnv SHLVL=2";
/// The script that has such lines itself: the first counts.
const SETS_ENVIRONMENT: &str = "envpass";
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// Where the scripts lie, edited, and what they need.
#[derive(Debug)]
pub struct Regress {
    dir: PathBuf,
    /// `TrustedUserCAKeys`: what the proxy shows a target.
    target_ca: PathBuf,
}

/// How a script came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code: 0 when all was well.
    pub code: Option<i32>,
    /// What it said line by line, but for what differs from run to run.
    pub lines: Vec<String>,
    /// Standard error, and what ssh and sshd logged where a check failed: for people.
    pub details: String,
    /// How long it took.
    pub took: Duration,
}

impl Regress {
    /// Fetches nothing: takes what setup has put there. `algorithms` are the names that scripts may try one by one.
    ///
    /// # Panics
    /// When it isn't there.
    #[must_use]
    pub fn prepare(world: &World, algorithms: &[&str]) -> Self {
        let dir = world.dir().join("regress");
        std::fs::create_dir(&dir).expect("a folder");
        let fetched = setup::folder("openssh/install.sh", &["--print"]).join("regress");
        for entry in std::fs::read_dir(&fetched).expect("the scripts").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "sh") {
                std::fs::copy(entry.path(), dir.join(entry.file_name())).expect("a copy");
            }
        }
        // Where a script asks what this OpenSSH was built with.
        std::fs::write(dir.join("config.h"), "#define HAVE_STRUCT_IN6_ADDR 1\n").expect("config.h");
        std::fs::write(dir.join("algorithms"), format!("ssh-ed25519\n{}\n", algorithms.join("\n")))
            .expect("algorithms");
        super::sshd::keygen(&["-q", "-t", "ed25519", "-N", "", "-f", path(&dir.join("ssh-ed25519"))]);
        let host_key = dir.join("ssh-ed25519.pub");
        world.admin.custody(&["node", "add", "regress", "127.0.0.1:1", "--host-key", path(&host_key)]);
        let enroll = ["node", "enroll", "regress", "--host-key-pub", path(&host_key), "--out", path(&dir)];
        world.admin.custody(&enroll);
        Self { target_ca: dir.join("custody_target_ca.pub"), dir }
    }

    /// Edits a script's copy.
    ///
    /// # Panics
    /// When it has no such text: it is another version then, and the edit must be thought over.
    pub fn edit(&self, script: &str, edits: &[Edit]) {
        let file = self.dir.join(format!("{script}.sh"));
        let mut text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{script}.sh: {e}"));
        for (from, to) in edits {
            assert!(text.contains(from), "{script}.sh has another text than «{from}»");
            text = text.replace(from, to);
        }
        std::fs::write(&file, text).expect("an edited script");
    }

    /// Leaves out of a script's copy what stands from one text up to another.
    ///
    /// # Panics
    /// As [`Regress::edit`].
    pub fn cut(&self, script: &str, from: &str, to: &str) {
        let file = self.dir.join(format!("{script}.sh"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{script}.sh: {e}"));
        let parts = text.split_once(from).and_then(|(head, rest)| Some((head, rest.split_once(to)?.1)));
        let (head, tail) = parts.unwrap_or_else(|| panic!("{script}.sh has another text than «{from}»"));
        std::fs::write(&file, format!("{head}{to}{tail}")).expect("an edited script");
    }

    /// The names of all scripts that test something.
    ///
    /// # Panics
    /// When the folder is gone.
    #[must_use]
    pub fn scripts(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.dir).expect("the scripts");
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let scripts = names.filter_map(|name| Some(name.strip_suffix(".sh")?.to_owned()));
        scripts
            .filter(|name| {
                name != "test-exec"
                    && !name.ends_with("-wrapper")
                    && !["ssh2putty", "valgrind-unit"].contains(&name.as_str())
            })
            .collect()
    }

    /// Runs a script; with a world, through its proxy.
    ///
    /// # Panics
    /// When it can't be run at all.
    #[must_use]
    pub fn run(&self, script: &str, through: Option<&World>) -> Outcome {
        let way = if through.is_some() { "through" } else { "directly" };
        // What the scripts call OBJ: short, since sockets lie in it.
        let dir = self.dir.join(format!("{script}-{way}"));
        std::fs::create_dir(&dir).expect("a folder");
        let ports = Ports::claim();
        let strangers = root().join("tests/strangers/openssh");
        for (name, program) in [
            ("netcat", PathBuf::from("/usr/bin/nc.openbsd")),
            ("mkdtemp", strangers.join("mkdtemp.sh")),
            // That nobody else may write into a folder that sshd is confined to: sshd looks at that itself.
            ("check-perm", PathBuf::from("/bin/true")),
        ] {
            assert!(program.exists(), "{} isn't there: run `make setup` first", program.display());
            std::os::unix::fs::symlink(program, dir.join(name)).expect("a link");
        }
        for key in ["ssh-ed25519", "ssh-ed25519.pub"] {
            std::fs::copy(self.dir.join(key), dir.join(key)).expect("a copy");
        }
        let mut command = Command::new("sh");
        command.arg(self.dir.join("test-exec.sh")).arg(&dir).arg(self.dir.join(format!("{script}.sh")));
        command.current_dir(&dir).env("OBJ", &dir).env("BUILDDIR", &self.dir).env("TEST_SHELL", "sh");
        command.env("ALGORITHMS", self.dir.join("algorithms")).env("BASE", ports.base.to_string());
        command.env("TEST_SSH_PORT", ports.sshd().to_string()).env("TEST_SSH_UNSAFE_PERMISSIONS", "1");
        // ssh starts a ProxyCommand by it: a bash whose standard input is a socket takes that for rshd's and reads
        // ~/.bashrc, and what that prints would be compared.
        command.env("SHELL", "/bin/sh");
        for (variable, program) in [("SSH", "ssh.sh"), ("SFTP", "sftp.sh"), ("SCP", "scp.sh")] {
            command.env(format!("TEST_SSH_{variable}"), strangers.join(program));
        }
        command.env("TEST_SSH_SSHD", "/usr/sbin/sshd").env("TEST_SSH_SFTPSERVER", SFTP_SERVER);
        command.env("TEST_SSH_SSH_CONFOPTS", KEX);
        let kex = if script == TRIES_KEX { "" } else { KEX };
        let environment = if script == SETS_ENVIRONMENT { "" } else { NO_BASHRC };
        let of_server = format!("TrustedUserCAKeys {}\n{kex}\n{environment}", self.target_ca.display());
        command.env("TEST_SSH_SSHD_CONFOPTS", of_server);
        for variable in ["SSH_AUTH_SOCK", "SUDO", "TMPDIR", "CUSTODY_LINES"] {
            command.env_remove(variable);
        }
        let _inetd = through.map(|world| {
            let lines = dir.join("lines");
            self.lead(world, script, &ports, &lines);
            command.env("CUSTODY_LINES", &lines);
            Inetd::start(ports.inetd(), &self.dir, &dir)
        });
        let (code, took) = finish(&mut command, &dir);
        let said = std::fs::read_to_string(dir.join("out")).unwrap_or_default();
        let lines = said.replace(path(&dir), "OBJ");
        // What `ls -l` shows has a time in it.
        let lines = lines.lines().filter(|line| !line.starts_with("-r")).map(str::to_owned).collect();
        let mut details = String::new();
        for file in ["err", "failed-regress.log", "failed-ssh.log", "failed-sshd.log"] {
            let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
            let from = text.char_indices().nth_back(4_000).map_or(0, |(at, _)| at);
            details += &format!("--- {file}\n{}\n", &text[from..]);
        }
        Outcome { code, lines, details, took }
    }

    /// The nodes at which a script's servers are, and the lines that lead a client there: its listening sshd, and `sshd -i`.
    fn lead(&self, world: &World, script: &str, ports: &Ports, lines: &Path) {
        let (home, host_key) = (world.operator.dir.display(), self.dir.join("ssh-ed25519.pub"));
        for (kind, port) in [("listener", ports.sshd()), ("inetd", ports.inetd())] {
            let (name, address) = (format!("{script}-on-{kind}"), format!("127.0.0.1:{port}"));
            world.admin.custody(&["node", "add", &name, &address, "--host-key", path(&host_key)]);
            let text = format!(
                "Host *\nProxyCommand \"{}\" connect 127.0.0.1:{} {name}\nProxyUseFdpass yes\n\
                 HostKeyAlias 127.0.0.1\nUserKnownHostsFile {home}/known_hosts\nIdentityFile {home}/id\n\
                 CertificateFile {home}/id-cert.pub\nIdentitiesOnly yes\n",
                crate::program("custody").display(),
                world.custodyd.ssh_port,
            );
            std::fs::write(format!("{}.{kind}", lines.display()), text).expect("lines of ssh_config");
        }
    }
}

/// Runs a script to its end, with its output in files: what it leaves running may hold them open.
fn finish(command: &mut Command, dir: &Path) -> (Option<i32>, Duration) {
    let file = |name: &str| File::create(dir.join(name)).expect("a file");
    let begun = Instant::now();
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    let mut child = command.spawn().expect("a shell");
    let code = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status.code();
        }
        if begun.elapsed() > DEADLINE {
            for pid in descendants(child.id()).into_iter().chain([child.id()]) {
                crate::process::send(pid, Signal::KILL);
            }
            child.wait().expect("a killed child can be waited for");
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let took = begun.elapsed();
    // An sshd that a script has left.
    let pid = std::fs::read_to_string(dir.join("pidfile")).ok().and_then(|pid| pid.trim().parse().ok());
    if let Some(pid) = pid {
        crate::process::send(pid, Signal::TERM);
    }
    (code, took)
}

/// A hundred ports that nobody uses: the scripts count on from the one that they are given. They lie below those that
/// tests and the kernel give out.
#[derive(Debug)]
struct Ports {
    /// The first one is this times a hundred.
    base: u16,
}

static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

impl Ports {
    fn claim() -> Self {
        let mut claimed = CLAIMED.lock().expect("no other thread has panicked here");
        let from = (uuid::Uuid::new_v4().as_u128() % 80) as u16;
        let mut bases = (0..80).map(|n| 20 + (from + n) % 80);
        let free = |base: &u16| {
            (0..100).all(|n| TcpListener::bind(("127.0.0.1", base * 100 + n)).is_ok())
                && !claimed.contains(base)
        };
        let base = bases.find(free).expect("a hundred ports in a row that are free");
        claimed.insert(base);
        Self { base }
    }

    const fn sshd(&self) -> u16 {
        self.base * 100 + 90
    }

    const fn inetd(&self) -> u16 {
        self.base * 100 + 80
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        if let Ok(mut claimed) = CLAIMED.lock() {
            claimed.remove(&self.base);
        }
    }
}

/// Starts an `sshd -i` for each connection, with the configuration that the script has written by then: what its own
/// ProxyCommand would start.
struct Inetd {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Inetd {
    fn start(port: u16, scripts: &Path, dir: &Path) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, scripts, dir) = (Arc::clone(&stop), scripts.to_owned(), dir.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let mut sshd = Command::new("sh");
                sshd.arg(scripts.join("sshd-log-wrapper.sh")).arg(dir.join("sshd.log"));
                sshd.args(["/usr/sbin/sshd", "-i", "-f"]).arg(dir.join("sshd_proxy")).current_dir(&dir);
                let fd = OwnedFd::from(stream);
                let copy = fd.try_clone().expect("a descriptor");
                let sshd = sshd.stdin(fd).stdout(copy).stderr(Stdio::null()).spawn();
                std::thread::spawn(move || drop(sshd.expect("sshd").wait()));
            }
        });
        Self { port, stop }
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It waits for a connection.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Runs jobs side by side, so many at once: most of them sleep most of the time.
///
/// # Panics
/// When one does.
pub fn side_by_side<J: Sync, R: Send>(jobs: &[J], at_once: usize, run: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(0..jobs.len());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let at = next.lock().expect("no panic in it").next();
                    let Some(at) = at else { return };
                    let result = run(&jobs[at]);
                    done.lock().expect("no panic in it").push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic in it");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
