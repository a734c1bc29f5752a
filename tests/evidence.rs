//! Evidence before effect, as it can be seen from outside: the log's order beside the target's.

use super::ssh_exec::Master;
use custody_tests::process::{Running, run};
use custody_tests::servers::World;
use custody_tests::servers::files::{FILES, Way, client};
use custody_tests::wait::{self, DEADLINE};
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn each_effect_has_its_evidence_before_it_and_its_end_after() {
    let world = World::start();
    let mark = world.dir().join("seen-by-the-command");
    // The command itself asks the API what the log holds while it runs.
    let home = &world.admin.dir;
    let ask = format!(
        "curl --silent --cacert {ca} --cert {home}/client.pem --key {home}/client.key -H 'Accept: application/x-ndjson' \
         '{url}/v1/events?limit=1000' >{mark}",
        ca = home.join("ca.pem").display(),
        home = home.display(),
        url = world.custodyd.url(),
        mark = mark.display(),
    );
    world.ssh(&[], &ask, b"").ok();
    let seen = std::fs::read_to_string(&mark).unwrap();
    let then: Vec<serde_json::Value> = seen.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |kind: &str| {
        then.iter()
            .find(|e| e["event"]["type"] == kind)
            .unwrap_or_else(|| panic!("no {kind} while the command ran"))
    };
    let (session, command) = (of("session.requested"), of("command.requested"));
    assert_eq!(command["event"]["data"]["command"], ask.as_str());
    assert_eq!(command["event"]["session"], session["event"]["session"]);
    assert!(!seen.contains("command.completed"), "the end stands before it");
    for effect in [session, command] {
        let decision = then
            .iter()
            .find(|e| e["event"]["id"] == effect["event"]["cause"])
            .expect("its cause is in the log");
        assert_eq!(decision["event"]["type"], "decision.made");
        assert_eq!(decision["event"]["data"]["allowed"], true);
        assert!(decision["index"].as_u64() < effect["index"].as_u64());
        assert!(effect["event"].get("outcome").is_none(), "an outcome before the effect");
    }

    let id = session["event"]["session"].as_str().unwrap().to_owned();
    world.event(&format!("type=session.ended&session={id}"), "the session's end", |_| true);
    let story: Vec<String> =
        world.entries(&format!("session={id}")).iter().map(|e| e.kind().to_owned()).collect();
    let position =
        |kind: &str| story.iter().position(|k| k == kind).unwrap_or_else(|| panic!("{kind} in {story:?}"));
    assert!(position("session.requested") < position("session.started"));
    assert!(position("session.started") < position("command.requested"));
    assert!(position("command.requested") < position("command.completed"));
    assert_eq!(story.iter().filter(|k| *k == "session.ended").count(), 1);
}

/// Numbers of each producer have no gaps, causes point backwards, ids are there once.
#[test]
fn the_log_as_a_whole_is_in_order() {
    let mut world = World::start();
    for n in 0..3 {
        world.ssh(&[], &format!("exit {n}"), b"");
    }
    world.custodyd.stop();
    world.custodyd.start();
    world.ssh(&[], "true", b"").ok();
    let entries = world.entries("");
    let mut next = std::collections::BTreeMap::new();
    let mut ids = std::collections::BTreeSet::new();
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(entry.index, n as u64);
        let producer = &entry.event["producer"];
        let key = (producer["id"].to_string(), producer["boot"].to_string());
        let expected = next.entry(key).or_insert(0);
        assert_eq!(producer["seq"].as_u64(), Some(*expected), "a gap at {n}");
        *expected += 1;
        if let Some(cause) = entry.event["cause"].as_str() {
            assert!(
                ids.contains(cause),
                "{} at {n} names a cause that stands after it, or nowhere",
                entry.kind()
            );
        }
        assert!(ids.insert(entry.event["id"].as_str().unwrap().to_owned()), "an id twice");
    }
    assert_eq!(entries[0].kind(), "log.created");
    assert!(entries.iter().filter(|e| e.kind() == "producer.started").count() >= 2);
    assert!(entries.iter().any(|e| e.kind() == "producer.stopped"), "the stop in order isn't told");
}

/// The log can't take events any more (its disk says EIO): new effects are refused with a line, and nothing runs.
#[test]
fn without_a_log_nothing_happens() {
    let mut world = World::start();
    world.ssh(&[], "true", b"").ok();
    let mark = world.dir().join("effect");
    let tracer = trace(&world, "fdatasync:error=EIO");
    let said = world.ssh(&[], &format!("touch {}", mark.display()), b"");
    assert_ne!(said.code, 0);
    assert!(!said.err.trim().is_empty(), "nobody told the user why");
    assert!(!mark.exists(), "an effect without evidence");
    let answer = world.admin.post("create-role", &serde_json::json!({"name": "late", "description": ""}));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(world.admin.request("/healthz", &[]).status, 503);
    drop(tracer);
    world.custodyd.kill_now();
    world.custodyd.start();
    world.ssh(&[], &format!("touch {}", mark.display()), b"").ok();
    assert!(mark.exists());
    assert_eq!(world.admin.custody(&["verify", world.custodyd.data().to_str().unwrap()]).code, 0);
}

/// The same in a session that lives already: no file is opened or renamed, no connection made, no program started.
#[test]
fn without_a_log_a_live_session_touches_and_reaches_nothing() {
    let world = World::start();
    world.policy("files", FILES);
    let dir = world.dir().to_owned();
    std::fs::write(dir.join("local"), "content").unwrap();
    let far = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    far.set_nonblocking(true).unwrap();
    let master = Master::open(&world);
    let mut sftp = client(&world, Way::Proxied, "sftp");
    sftp.args(["-b", "-", Way::Proxied.host()]).current_dir(&dir);
    sftp.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut sftp = sftp.spawn().unwrap();
    let mut batch = sftp.stdin.take().unwrap();
    writeln!(batch, "put local {}/before", dir.display()).unwrap();
    wait::until_true("the session works", DEADLINE, || dir.join("before").exists());
    world.event("type=file.completed", "the first file is told", |_| true);

    let tracer = trace(&world, "fdatasync:error=EIO");
    writeln!(batch, "-put local {0}/after\n-rename {0}/before {0}/renamed", dir.display()).unwrap();
    drop(batch);
    // Without a log the session itself may be over before the request comes.
    let said = sftp.wait_with_output().unwrap();
    assert!(!said.stderr.is_empty(), "nobody told the user why");
    let to = format!("127.0.0.1:{}", far.local_addr().unwrap().port());
    assert_ne!(run(&mut master.ssh(&["-W", &to]), b"", DEADLINE).code, 0);
    assert!(far.accept().is_err(), "a connection without evidence");
    let touch = format!("touch {}/touched", dir.display());
    assert_ne!(run(&mut master.command(&touch), b"", DEADLINE).code, 0);
    assert!(dir.join("before").exists());
    for name in ["after", "renamed", "touched"] {
        assert!(!dir.join(name).exists(), "{name}: an effect without evidence");
    }
    drop(tracer);
}

/// Attaches strace to the running daemon, so that a system call of all its threads fails from now on.
fn trace(world: &World, inject: &str) -> Running {
    let log = world.dir().join("strace");
    let mut command = std::process::Command::new("strace");
    command.args([
        "-f",
        "-qq",
        "-e",
        "trace=fdatasync",
        "-e",
        &format!("inject={inject}"),
        "-p",
        &world.custodyd.pid().to_string(),
        "-o",
    ]);
    let running = Running::start("strace", command.arg(&log).stderr(Stdio::null()));
    let tracer = running.pid().to_string();
    // It attaches to one thread after another, to the main one first.
    let threads = format!("/proc/{}/task", world.custodyd.pid());
    wait::until_true("strace is attached to each thread", DEADLINE, || {
        std::fs::read_dir(&threads).unwrap().flatten().all(|thread| {
            std::fs::read_to_string(thread.path().join("status")).is_ok_and(|s| {
                s.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|p| p.trim() == tracer))
            })
        })
    });
    running
}

/// SIGTERM drains: a live session may end by itself, no new one begins, and the rest ends in time.
#[test]
fn a_stop_in_order_lets_live_sessions_end() {
    let mut world = World::start();
    let mut command = world.proxied();
    command.args(["root@web-1.custody", "echo begun; sleep 2; echo ended; exit 9"]);
    let session = std::thread::spawn(move || run(&mut command, b"", DEADLINE));
    world.event("type=command.requested", "the session is live", |_| true);
    world.custodyd.stop();
    let said = session.join().unwrap();
    assert_eq!((said.code, said.text().as_str()), (9, "begun\nended\n"), "{}", said.err);
    world.custodyd.start();
    let ends = world.entries("type=session.ended");
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].event["data"]["reason"], "client-closed");
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let world = World::start();
    let mut second = std::process::Command::new(custody_tests::program("custodyd"));
    let said =
        run(second.arg("run").arg("--config").arg(world.custodyd.config()), b"", Duration::from_secs(20));
    assert_ne!(said.code, 0);
    let line = said.err.lines().last().unwrap_or_default().to_lowercase();
    assert!(
        ["another", "already", "in use", "second"].iter().any(|word| line.contains(word)),
        "{}",
        said.err
    );
    world.ssh(&[], "true", b"").ok();
}
