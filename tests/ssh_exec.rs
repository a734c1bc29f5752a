//! Commands without a terminal: each ends through the proxy as it does straight to the same sshd.
//! The numbers are those of the kinds of fault that other proxies had.

use custody_tests::process::{Running, Said, run};
use custody_tests::servers::World;
use custody_tests::servers::world::OPERATORS;
use custody_tests::wait::{self, DEADLINE};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `ssh … COMMAND` as a shell line, so that pipes and redirections are those that people type.
fn line(world: &World, proxied: bool, template: &str) -> Said {
    let command = if proxied { world.proxied() } else { world.web.direct() };
    let mut ssh = vec![command.get_program().to_str().unwrap().to_owned()];
    ssh.extend(command.get_args().map(|a| a.to_str().unwrap().to_owned()));
    let host = if proxied { "root@web-1.custody" } else { "root@127.0.0.1" };
    let script = template.replace("SSH", &ssh.join(" ")).replace("HOST", host);
    let mut shell = Command::new("bash");
    // SHELL: see `Home::ssh_command`.
    shell.args(["-o", "pipefail", "-c", &script]).env_remove("SSH_AUTH_SOCK").env("SHELL", "/bin/sh");
    // Hundreds of megabytes go through some.
    run(&mut shell, b"", Duration::from_secs(300))
}

/// Runs a line both ways and expects the same code and the same bytes.
#[track_caller]
fn same(world: &World, template: &str) -> Said {
    let direct = line(world, false, template);
    let proxied = line(world, true, template);
    assert_eq!(
        proxied.code,
        direct.code,
        "{template}: exit code\n{}\n{}",
        proxied.err,
        world.custodyd.output()
    );
    assert_eq!(proxied.out, direct.out, "{template}: output\n{}", proxied.err);
    proxied
}

/// A ControlMaster connection through the proxy, kept open in the background.
pub(super) struct Master<'a> {
    world: &'a World,
    socket: String,
    _process: Running,
}

impl<'a> Master<'a> {
    pub(super) fn open(world: &'a World) -> Self {
        let socket = world.dir().join("mux").display().to_string();
        let mut command = world.proxied();
        command.args(["-M", "-N", "-S", &socket, "root@web-1.custody"]).stdin(Stdio::null());
        let process = Running::start("ssh -M", &mut command);
        wait::until_true("the control socket is there", DEADLINE, || Path::new(&socket).exists());
        Self { world, socket, _process: process }
    }

    pub(super) fn command(&self, command: &str) -> Command {
        let mut ssh = self.ssh(&[]);
        ssh.arg(command);
        ssh
    }

    /// `ssh -O FORWARD …` and the like.
    pub(super) fn control(&self, what: &str, arguments: &[&str]) -> Command {
        let mut ssh = self.world.proxied();
        ssh.args(["-S", &self.socket, "-O", what]).args(arguments).arg("root@web-1.custody");
        ssh
    }

    /// Another client of this connection.
    pub(super) fn ssh(&self, arguments: &[&str]) -> Command {
        let mut ssh = self.world.proxied();
        // When the master can't open a channel, ssh makes a connection of its own: here it must not.
        ssh.args([
            "-S",
            &self.socket,
            "-o",
            "ControlMaster=no",
            "-o",
            "ProxyCommand=false",
            "-o",
            "ProxyUseFdpass=no",
        ]);
        ssh.args(arguments).arg("root@web-1.custody");
        ssh
    }
}

/// The yardstick itself: a failure here is the machine's or the harness's, not the proxy's.
#[test]
fn the_sshd_that_all_is_held_against_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut sshd = custody_tests::servers::Sshd::prepare(dir.path());
    sshd.start(&custody_tests::servers::Host::default());
    let said = run(sshd.direct().args(["root@127.0.0.1", "cat; exit 7"]), b"hi", DEADLINE);
    assert_eq!((said.code, said.text().as_str()), (7, "hi"), "{}\n{}", said.err, sshd.log());
}

/// 1: the command ends, or stops reading, while the client still sends.
#[test]
fn a_command_that_stops_reading_ends_the_upload() {
    let world = World::start();
    let full = same(&world, "head -c 300M /dev/zero | SSH HOST 'cat >/dev/full'; exit ${PIPESTATUS[1]}");
    assert_eq!(full.code, 1);
    assert!(full.err.contains("No space left"), "{}", full.err);
    let left = same(
        &world,
        "head -c 300M /dev/zero | SSH HOST 'head -c1 >/dev/null; echo ok; exit 7'; exit ${PIPESTATUS[1]}",
    );
    assert_eq!((left.code, left.text().as_str()), (7, "ok\n"));

    let master = Master::open(&world);
    let mut stuck = master.command("sleep 600");
    stuck.stdin(std::fs::File::open("/dev/zero").unwrap()).stdout(Stdio::null());
    let _stuck = Running::start("an upload that nobody reads", &mut stuck);
    wait::until_true("the upload's command is known", DEADLINE, || {
        world.entries("type=command.requested").iter().any(|e| e.event["data"]["command"] == "sleep 600")
    });
    for _ in 0..5 {
        let beside = run(&mut master.command("echo beside"), b"", DEADLINE).ok();
        assert_eq!(beside.text(), "beside\n");
    }
}

/// 2: the reader leaves early, on either side.
#[test]
fn a_reader_that_leaves_ends_the_command() {
    let world = World::start();
    let mark = world.dir().join("yes-pid").display().to_string();
    let head = same(
        &world,
        &format!("timeout 60 SSH HOST 'echo $$ >{mark}; exec yes' | head -1; exit ${{PIPESTATUS[1]}}"),
    );
    assert_eq!(head.text(), "y\n");
    assert!(head.took < DEADLINE, "{:?}", head.took);
    let pid = std::fs::read_to_string(&mark).unwrap();
    wait::until_true("yes is gone at the target", DEADLINE, || !Path::new("/proc").join(pid.trim()).exists());
    let closed = same(&world, "timeout 60 SSH HOST 'exec <&-; sleep 1; echo done' </dev/zero");
    assert_eq!((closed.code, closed.text().as_str()), (0, "done\n"));
}

/// 3: bytes sent right behind the exec request, on new connections.
#[test]
fn no_byte_behind_the_request_is_lost() {
    let world = World::start();
    for round in 0..40 {
        let said = world.ssh(&[], "cat", b"x");
        assert_eq!((said.code, said.out.as_slice()), (0, b"x".as_slice()), "round {round}: {}", said.err);
    }
    let from = world.dir().join("from");
    std::fs::create_dir(&from).unwrap();
    for n in 0..50 {
        std::fs::write(from.join(format!("file {n}")), vec![b'0' + (n % 10); 1000 * usize::from(n)]).unwrap();
    }
    let to = world.dir().join("to");
    let config = world.operator.dir.join("ssh_config");
    let mut rsync = Command::new("rsync");
    rsync.arg("-a").arg("-e").arg(format!("ssh -F {} -o BatchMode=yes", config.display()));
    rsync.arg(format!("{}/", from.display())).arg(format!("root@web-1.custody:{}/", to.display()));
    run(rsync.env_remove("SSH_AUTH_SOCK"), b"", Duration::from_secs(60)).ok();
    run(Command::new("diff").arg("-r").arg(&from).arg(&to), b"", DEADLINE).ok();
}

/// 4: key exchange in the middle of a transfer, started by either side.
#[test]
fn keys_are_exchanged_in_the_middle_of_a_transfer() {
    let world = World::start_with(&["RekeyLimit 2M"]);
    let file = world.dir().join("sixty");
    let make = format!("head -c 60M /dev/urandom >{0} && sha256sum <{0}", file.display());
    let hash = run(Command::new("bash").args(["-c", &make]), b"", DEADLINE).ok().text();
    let path = file.display();
    let up = line(&world, true, &format!("SSH -o RekeyLimit=1M HOST sha256sum <{path}")).ok();
    assert_eq!(up.text(), hash);
    let down = line(&world, true, &format!("SSH -o RekeyLimit=1M HOST 'cat {path}' | sha256sum")).ok();
    assert_eq!(down.text(), hash);
    let both = format!(
        "SSH -o RekeyLimit=1M HOST 'tee >(cat >&2)' <{path} 2>{path}.err | sha256sum && sha256sum <{path}.err"
    );
    let both = line(&world, true, &both).ok();
    assert_eq!(both.text(), format!("{hash}{hash}"));
}

/// 5: the last bytes, the exit status, the signal.
#[test]
fn the_end_of_the_output_and_the_status_arrive() {
    let world = World::start();
    for status in [0, 1, 7, 127, 255] {
        let said = same(&world, &format!("SSH HOST 'echo out; echo err >&2; exit {status}'"));
        assert_eq!((said.code, said.text().as_str()), (status, "out\n"));
        assert!(said.err.contains("err"));
    }
    for signal in ["TERM", "KILL", "SEGV"] {
        assert_eq!(same(&world, &format!("SSH HOST 'ulimit -c 0; kill -{signal} $$'")).code, 255, "{signal}");
    }
    let file = world.dir().join("made").display().to_string();
    for round in 0..25 {
        let slow = format!(
            "SSH HOST 'head -c 2500001 /dev/urandom | tee {file}; exit 42' | (sleep .1; sha256sum); exit ${{PIPESTATUS[0]}}"
        );
        let said = line(&world, true, &slow);
        let there = run(Command::new("bash").args(["-c", &format!("sha256sum <{file}")]), b"", DEADLINE).ok();
        assert_eq!((said.code, said.text()), (42, there.text()), "round {round}: {}", said.err);
    }
    let completed = world
        .event("type=command.completed", "the signal is in the log", |e| e.event["data"]["signal"] == "SEGV");
    assert_eq!(completed.event["data"].get("exit_status"), None);

    // Without a terminal the end of the output decides, with one the end of the shell.
    let background = same(&world, "SSH HOST 'sleep 2 & echo hi'");
    assert!(background.took >= Duration::from_secs(2), "{:?}", background.took);
    let terminal = line(&world, true, "SSH -tt HOST 'sleep 20 & echo hi' </dev/null");
    assert!(terminal.took < Duration::from_secs(15), "{:?}", terminal.took);
}

/// Bytes, words and variables that aren't what a parser expects.
#[test]
fn odd_bytes_arrive_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::start();
    let every: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(world.ssh(&[], "cat", &every).ok().out, every);
    assert_eq!(world.ssh(&[], "true", b"").ok().out, b"");
    let word = std::ffi::OsStr::from_bytes(b"printf %s '\xff\xfe\"\\' | od -An -tx1");
    let run_word = |command: &mut Command, host: &str| run(command.arg(host).arg(word), b"", DEADLINE);
    let proxied = run_word(&mut world.proxied(), "root@web-1.custody").ok();
    let direct = run_word(&mut world.web.direct(), "root@127.0.0.1").ok();
    assert_eq!(proxied.out, direct.out);
    let mut environment = world.proxied();
    environment
        .args(["-o", "SendEnv=CUSTODY_T LC_TOKEN", "root@web-1.custody", "echo $CUSTODY_T $LC_TOKEN"])
        .env("CUSTODY_T", "set")
        .env("LC_TOKEN", "hunter2");
    assert_eq!(run(&mut environment, b"", DEADLINE).ok().text(), "set hunter2\n");
    let requested = world.event("type=command.requested", "the variable is in the log", |e| {
        e.event["data"]["environment"].as_array().is_some_and(|v| v.iter().any(|v| v["name"] == "CUSTODY_T"))
    });
    for value in ["\"set\"", "hunter2"] {
        assert!(!requested.line.contains(value), "a value that may be a secret is in the log");
    }
    assert!(requested.line.contains("LC_TOKEN"));
    assert_eq!(requested.event["data"]["kind"], "exec");
}

/// At `metadata` no output is kept, and of a short one there is no hash either: it could be guessed.
#[test]
fn a_short_output_has_no_hash_and_a_long_one_has() {
    let world = World::start();
    world.policy("operators", &OPERATORS.replace("permit(", "@recording(\"metadata\")\npermit("));
    for (bytes, told) in [(1023, false), (1024, true)] {
        world.ssh(&[], &format!("head -c {bytes} /dev/zero"), b"").ok();
        let ended = world.event("type=command.completed", "the command has ended", |e| {
            e.event["data"]["bytes_out"] == bytes
        });
        assert_eq!(ended.event["data"]["output_sha256"].is_string(), told, "{bytes} bytes");
    }
}

/// 7: many channels on one connection, and the one that the target refuses.
#[test]
fn the_eleventh_channel_is_refused_and_the_ten_live_on() {
    let world = World::start_with(&["MaxSessions 10"]);
    let master = Master::open(&world);
    let mut ten: Vec<std::process::Child> = (0..10)
        .map(|n| {
            let mut command = master.command(&format!("echo ready; read line; exit {}", 20 + n));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for child in &mut ten {
        use std::io::Read;
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
    }
    let refused = run(&mut master.command("echo never"), b"", DEADLINE);
    assert_ne!(refused.code, 0);
    assert_eq!(refused.text(), "");
    for (n, child) in ten.iter_mut().enumerate() {
        use std::io::Write;
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(20 + i32::try_from(n).unwrap()));
    }
    assert_eq!(run(&mut master.command("echo again"), b"", DEADLINE).ok().text(), "again\n");
}

/// 9: the first channel isn't a shell with a terminal; and what a bad target looks like to a machine.
#[test]
fn no_terminal_is_no_terminal_and_a_bad_target_says_so_on_stderr() {
    let mut world = World::start();
    let tty = line(&world, true, "printf 'tty\\nexit 4\\n' | SSH -T HOST");
    assert_eq!(tty.code, 4, "{}", tty.err);
    assert!(tty.text().contains("not a tty"), "{}", tty.text());

    let proof = custody_tests::servers::world::HostProof::Pinned;
    let mut changed = world.add_node("changed-1", proof, &[]);
    changed.stop();
    let port = changed.port;
    std::fs::remove_file(changed.dir.join("host")).unwrap();
    let other = custody_tests::servers::Sshd::prepare(&world.dir().join("other"));
    std::fs::copy(other.dir.join("host"), changed.dir.join("host")).unwrap();
    changed.start(&custody_tests::servers::Host::default());
    assert_eq!(changed.port, port);
    let refused = run(world.proxied().args(["root@changed-1.custody", "true"]), b"", Duration::from_secs(20));
    assert_eq!((refused.code, refused.text().as_str()), (255, ""));
    assert!(refused.err.to_lowercase().contains("host key"), "the reason is told: {}", refused.err);
    let told = world.event("type=node.host-key-refused", "the changed key is in the log", |_| true);
    assert_eq!(told.event["target"]["name"], "changed-1");
    assert!(!changed.log().contains("userauth"), "nothing was sent to a target that isn't the right one");

    world.web.stop();
    let down = world.ssh(&[], "true", b"");
    assert_eq!((down.code, down.text().as_str()), (255, ""));
    assert!(down.took < Duration::from_secs(15), "{:?}", down.took);
    assert!(!down.err.is_empty(), "the reason is told");
    let ended = world.event("type=session.ended", "its end is in the log", |e| {
        e.event["data"]["reason"] == "target-unavailable"
    });
    assert!(ended.event["cause"].is_string());
}
