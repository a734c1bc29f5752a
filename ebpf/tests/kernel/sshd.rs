//! Sessions by the real sshd.

use crate::node::{Node, POLICY, session_id};
use custody_node::sensor::{Record, Tuple};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An sshd with keys of its own at a free port.
struct Sshd {
    folder: tempfile::TempDir,
    daemon: Child,
    port: u16,
}

impl Sshd {
    fn start(listen: &str) -> Sshd {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for key in ["host", "user"] {
            keygen(&at.join(key));
        }
        std::fs::copy(at.join("user.pub"), at.join("authorized")).unwrap();
        std::fs::set_permissions(at.join("authorized"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::create_dir_all("/run/sshd").unwrap();
        let port = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
        let config = at.join("config");
        let mut file = std::fs::File::create(&config).unwrap();
        write!(
            file,
            "ListenAddress {listen}\nPort {port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nStrictModes no\n\
             UsePAM no\nPermitRootLogin prohibit-password\nPidFile none\n",
            at = at.display()
        )
        .unwrap();
        let log = std::fs::File::create(at.join("log")).unwrap();
        let daemon =
            Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(&config).stderr(log).spawn().unwrap();
        Sshd { folder, daemon, port }
    }

    /// Runs a command by ssh, over a relay that does as the proxy does: it tells the sensor before sshd hears of it.
    fn run(&self, node: &mut Node, address: IpAddr, command: &str) -> Outcome {
        let to = SocketAddr::new(address, self.port);
        let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let child = Command::new("/usr/bin/ssh")
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ])
            .arg("-i")
            .arg(self.folder.path().join("user"))
            .args(["-p", &relay.local_addr().unwrap().port().to_string(), "root@127.0.0.1", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (near, _) = relay.accept().unwrap();
        let far = self.connect(to);
        let id = session_id();
        node.sensor().expect(Tuple::new(to, far.local_addr().unwrap()), id, POLICY).unwrap();
        let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
        for (mut from, mut into) in [(near, far), back] {
            std::thread::spawn(move || {
                // Either end may go first.
                drop(std::io::copy(&mut from, &mut into));
                drop(into.shutdown(std::net::Shutdown::Write));
            });
        }
        let output = child.wait_with_output().unwrap();
        Outcome {
            id,
            printed: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            code: output.status.code(),
        }
    }

    fn connect(&self, to: SocketAddr) -> TcpStream {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(socket) = TcpStream::connect(to) {
                return socket;
            }
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(Instant::now() < end, "sshd doesn't listen: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

struct Outcome {
    id: [u8; 16],
    printed: String,
    code: Option<i32>,
}

fn keygen(path: &Path) {
    let done = Command::new("/usr/bin/ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(done.success());
}

/// The arguments of everything that a session ran.
fn ran(records: &[Record], session: &[u8; 16]) -> Vec<String> {
    let args = |record: &Record| match record {
        Record::Executed(executed) if executed.who.session == *session => {
            Some(executed.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    records.iter().filter_map(args).collect()
}

#[test]
fn sshd_sessions_are_told_apart_and_the_daemon_is_nobodys() {
    let mut node = Node::start();
    // OpenSSH listens on :: for IPv6 only; a listener for both is in session.rs.
    for (listen, call) in
        [("0.0.0.0", IpAddr::V4(Ipv4Addr::LOCALHOST)), ("::", IpAddr::V6(Ipv6Addr::LOCALHOST))]
    {
        let sshd = Sshd::start(listen);
        let first = sshd.run(&mut node, call, "/bin/echo from the first; exit 4");
        assert_eq!((first.printed.as_str(), first.code), ("from the first", Some(4)));
        let second = sshd.run(&mut node, call, "/bin/echo from the second");
        assert_eq!(second.printed, "from the second");
        for (outcome, word) in [(&first, "first"), (&second, "second")] {
            let line = format!("/bin/echo from the {word}");
            node.wait_until(&line, |records| ran(records, &outcome.id).contains(&line).then_some(()));
            let others: Vec<String> = ran(&node.records, &outcome.id);
            assert!(
                !others.iter().any(|line| line.starts_with("/bin/echo from") && !line.ends_with(word)),
                "{others:?}"
            );
        }
        // A connection that nobody announced is nobody's.
        let third = sshd.daemon.id();
        assert!(node.records.iter().all(|record| record.who().unwrap().pid != third));
    }
}

#[test]
fn all_of_a_session_is_told_however_it_is_cut() {
    let mut node = Node::start();
    let sshd = Sshd::start("127.0.0.1");
    let outcome = sshd.run(
        &mut node,
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        "for i in $(seq 500); do /bin/true; done; kill -9 $PPID",
    );
    let id = outcome.id;
    let trues = |records: &[Record]| ran(records, &id).iter().filter(|line| *line == "/bin/true").count();
    node.wait_until("five hundred", |records| (trues(records) == 500).then_some(()));
    let pids: Vec<u32> = node
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Executed(executed) if executed.args == [b"/bin/true"] => Some(executed.who.pid),
            _ => None,
        })
        .collect();
    node.wait_until("their ends", |records| {
        let ended = records
            .iter()
            .filter(|record| matches!(record, Record::Exited(exited) if pids.contains(&exited.who.pid)));
        (ended.count() == 500).then_some(())
    });
}
