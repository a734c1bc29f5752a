//! The agent beside a stock sshd: what its kernel sees becomes events of the session, and without it there is none.

use custody_tests::clock::SetClock;
use custody_tests::load::Counter;
use custody_tests::process::run;
use custody_tests::root;
use custody_tests::servers::agent::{nothing_is_missing, unpin};
use custody_tests::servers::custodyd::Entry;
use custody_tests::servers::flaky::Flaky;
use custody_tests::servers::{Agent, NameServer, World, python};
use custody_tests::wait::{self, DEADLINE};
use rustix::process::Signal;
use serde_json::Value;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

/// A world whose target `web-1` is watched, and has to be.
pub fn watched() -> (World, Agent) {
    let world = World::start();
    world.demand_agent("required");
    let mut agent = Agent::join(&world, "web-1", "");
    agent.start(&world);
    (world, agent)
}

/// All that the node's kernel saw of the sessions of bob, once the newest of them has ended and its last process too.
fn seen(world: &World) -> Vec<Entry> {
    wait::until("the session's first process has ended, as its kernel saw it", DEADLINE, || {
        let entries = world.entries("");
        let newest = entries.iter().rfind(|e| e.kind() == "node.session-accepted")?;
        let (session, pid) = (newest.session()?, &newest.event["data"]["pid"]);
        let is_its_end = |e: &&Entry| {
            e.kind() == "command.exited"
                && e.session() == Some(session)
                && e.event["data"]["process"]["pid"] == *pid
        };
        entries.iter().find(is_its_end)?;
        Some(entries.into_iter().filter(|e| e.event["producer"]["kind"] == "node").collect())
    })
}

fn of_kind<'a>(entries: &'a [Entry], kind: &str) -> Vec<&'a Entry> {
    entries.iter().filter(|e| e.kind() == kind).collect()
}

/// Executions of a program by its path.
fn executions<'a>(entries: &'a [Entry], given: &str) -> Vec<&'a Value> {
    let executed = of_kind(entries, "command.executed").into_iter().map(|e| &e.event["data"]);
    executed.filter(|data| data["given"] == given).collect()
}

fn arguments(data: &Value) -> Vec<&str> {
    data["arguments"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn what_a_session_runs_is_seen_by_the_kernel_whatever_hid_it() {
    let (world, _agent) = watched();
    let script = r#"
        /bin/echo '' "two words" "$(printf 'a\377z')"
        echo L2Jpbi9lY2hvIGhpZGRlbgo= | /usr/bin/base64 -d | sh
        (setsid /bin/sh -c '/bin/sleep 0.1; /bin/echo detached' &)
        /bin/sh -c 'exit 3'
        sh -c 'kill -9 $$'
        exit 0
    "#;
    let said = world.ssh(&[], script, b"");
    assert_eq!(said.code, 0, "{}", said.err);
    wait::until_true("the detached command is seen", DEADLINE, || {
        executions(&world.entries("type=command.executed"), "/bin/echo").len() == 3
    });
    let entries = seen(&world);

    let session = of_kind(&world.entries(""), "session.started")[0].clone();
    assert_eq!(session.event["data"]["watched"], true);
    let accepted = of_kind(&entries, "node.session-accepted")[0];
    assert!(accepted.index < session.index, "nobody logs in before the kernel's word is in the log");
    let about = |e: &&Entry| e.kind().starts_with("command.");
    for entry in entries.iter().filter(about) {
        assert_eq!(entry.session(), session.session(), "{}", entry.line);
        assert_eq!(entry.event["actor"]["user"], "bob", "{}", entry.line);
        assert_eq!(entry.event["target"]["name"], "web-1", "{}", entry.line);
    }

    let echoes = executions(&entries, "/bin/echo");
    let said: Vec<_> = echoes.iter().map(|data| arguments(data)).collect();
    assert!(said.contains(&vec!["/bin/echo", "", "two words", r"a\xffz"]), "{said:?}");
    assert!(said.contains(&vec!["/bin/echo", "hidden"]), "{said:?}");
    assert!(said.contains(&vec!["/bin/echo", "detached"]), "{said:?}");
    let echo = echoes[0];
    let sha256 = run(Command::new("sha256sum").arg("/bin/echo"), b"", DEADLINE).ok().text();
    assert_eq!(echo["executable"]["sha256"], sha256.split_whitespace().next().unwrap());
    assert_eq!(echo["users"]["uid"], 0);

    let exited = of_kind(&entries, "command.exited");
    let with = |field: &str, value: u64| exited.iter().any(|e| e.event["data"][field] == value);
    assert!(with("exit_status", 3) && with("signal", 9), "{exited:?}");
    // Each process that ran something has ended, once.
    for execution in of_kind(&entries, "command.executed") {
        let process = &execution.event["data"]["process"];
        let ends = exited.iter().filter(|e| {
            let other = &e.event["data"]["process"];
            other["pid"] == process["pid"] && other["started_us"] == process["started_us"]
        });
        assert!(ends.count() <= 1, "{process}");
    }
    // As people read it.
    let id = session.session().unwrap();
    let tree = world.admin.custody(&["sessions", "tree", id]).text();
    assert!(tree.contains("/bin/echo hidden") && tree.contains("'exit 3' with status 3"), "{tree}");
    let played = world.admin.custody(&["play", id, "--events"]).text();
    assert!(played.contains("hidden\n") && played.contains("ran /bin/echo hidden ["), "{played}");
    // Nobody else is watched.
    let direct = world.direct(&[], "/bin/echo direct", b"");
    assert_eq!(direct.code, 0);
    assert_eq!(executions(&world.entries("type=command.executed"), "/bin/echo").len(), 3);
}

/// There a child of the process that runs the session reads first, and is gone by then.
#[test]
fn what_a_session_runs_is_seen_and_restricted_behind_a_later_openssh() {
    let (mut world, _agent) = watched();
    world.web.become_a_later_one();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    world.restrict("no-loopback", &["--deny", &format!("127.0.0.1/32={port}")]);
    let script =
        format!("/bin/echo first; (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null || /bin/echo denied");
    let said = world.ssh(&[], &format!("bash -c '{script}'"), b"");
    assert_eq!((said.code, said.text().as_str()), (0, "first\ndenied\n"), "{}", said.err);
    let entries = seen(&world);
    let echoes = executions(&entries, "/bin/echo");
    assert_eq!(echoes.iter().map(|data| arguments(data)[1]).collect::<Vec<_>>(), ["first", "denied"]);
    assert_eq!(of_kind(&entries, "connection.denied").len(), 1);
}

#[test]
fn without_its_agent_there_is_no_session_and_a_live_one_ends() {
    let (world, mut agent) = watched();
    assert_eq!(world.ssh(&[], "true", b"").code, 0);
    let mut live = world.proxied();
    live.args(["-tt", "root@web-1.custody"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut live = live.spawn().unwrap();
    live.stdin.as_mut().unwrap().write_all(b"echo begun\n").unwrap();
    world.event("type=command.requested", "the shell runs", |e| e.event["data"]["kind"] == "shell");
    agent.kill_now();
    let refused = world.ssh(&[], "true", b"");
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("the agent of web-1 isn't there"), "{}", refused.err);
    let lost = world.event("type=node.lost", "the agent is lost", |e| e.event["data"]["name"] == "web-1");
    let ended = world
        .event("type=session.ended", "the live session ends", |e| e.event["data"]["reason"] == "node-lost");
    assert_eq!(ended.event["cause"], lost.event["id"]);
    live.wait().unwrap();
    // And it comes back.
    agent.start(&world);
    let said = world.ssh(&[], "echo again", b"");
    assert_eq!((said.code, said.text().as_str()), (0, "again\n"), "{}", said.err);
}

#[test]
fn an_optional_agent_is_missed_by_nobody() {
    let world = World::start();
    world.demand_agent("optional");
    let said = world.ssh(&[], "echo unwatched", b"");
    assert_eq!((said.code, said.text().as_str()), (0, "unwatched\n"), "{}", said.err);
    let mut agent = Agent::join(&world, "web-1", "");
    agent.start(&world);
    assert_eq!(world.ssh(&[], "/bin/true", b"").code, 0);
    let started = world.entries("type=session.started");
    let watched: Vec<_> = started.iter().map(|e| e.event["data"]["watched"] == true).collect();
    assert_eq!(watched, [false, true]);
}

#[test]
fn a_connection_has_the_name_that_its_session_had_asked_for() {
    let (world, _agent) = watched();
    let names = NameServer::start(&world.dir().join("names"));
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asking = root().join("tests/escapes/ask.py");
    let reach = |before: &str| {
        let script = format!("bash -c '{before}exec 3<>/dev/tcp/127.0.1.7/{port}; exec 3>&-; /bin/true'");
        let said = world.ssh(&[], &script, b"");
        assert_eq!(said.code, 0, "{}", said.err);
    };
    reach(&format!("python3 {} udp Www.127-0-1-7.test {} && ", asking.display(), names.address));
    world.event("type=connection.closed", "the connection is closed", |e| {
        e.event["data"]["ends"]["remote"]["port"] == port
    });
    let entries = seen(&world);
    let named: Vec<(&str, Option<&str>)> = entries
        .iter()
        .filter(|entry| entry.event["data"]["ends"]["remote"]["port"] == port)
        .map(|entry| (entry.kind(), entry.event["data"]["ends"]["name"].as_str()))
        .collect();
    let name = Some("www.127-0-1-7.test");
    assert_eq!(named, [("connection.opened", name), ("connection.closed", name)]);
    // The datagrams to the name server and from it are told with their bytes.
    let asked = entries.iter().find(|entry| {
        entry.kind() == "connection.closed" && entry.event["data"]["ends"]["remote"]["port"] == 53
    });
    let data = &asked.expect("the name server's flow is told").event["data"];
    assert_eq!(data["bytes_out"], 12 + 20 + 4, "header, name, type and class: {data}");
    assert!(data["bytes_in"].as_u64() > data["bytes_out"].as_u64(), "{data}");
    // As people read it.
    let started = world.entries("type=session.started").remove(0);
    let id = started.session().unwrap();
    let shown = format!("connected to tcp://127.0.1.7:{port} (www.127-0-1-7.test)");
    for read in [&["sessions", "tree", id][..], &["play", id, "--events"]] {
        let text = world.admin.custody(read).text();
        assert!(text.contains(&shown), "{text}");
    }
    // More answers than the agent takes at a time, and nothing else, don't keep it from telling what follows.
    let asked = format!(
        "import socket\nsocket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); socket.connect(('{}', 53))\n\
         question = b'\\0\\1\\1\\0\\0\\1' + b'\\0' * 6 + b'\\4test\\0\\0\\1\\0\\1'\n\
         for i in range(2000): socket.send(question); socket.recv(512)",
        names.address
    );
    let said = world.ssh(&[], "python3 -", asked.as_bytes());
    assert_eq!(said.code, 0, "{}", said.err);
    // Another session knows the address by no name.
    reach("");
    let opened = of_kind(&seen(&world), "connection.opened").last().unwrap().event.clone();
    assert_eq!(
        (&opened["data"]["ends"]["remote"]["port"], &opened["data"]["ends"]["name"]),
        (&port.into(), &Value::Null)
    );
}

/// The group is made as Docker makes its own; the kernel counts it and tells of it as of any.
#[test]
fn what_runs_in_a_container_names_it() {
    let (world, _agent) = watched();
    let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let script = format!(
        r#"
        root=$(sed -n 's/^[^ ]* [^ ]* [^ ]* \/ \([^ ]*\) .* - cgroup2 .*/\1/p' /proc/self/mountinfo | head -1)
        group=$root/docker/{id}
        /bin/mkdir -p "$group" && echo $$ >"$group/cgroup.procs"
        /bin/cat
        /bin/echo within
        echo $$ >"$root/cgroup.procs"
        rmdir "$group"
        "#
    );
    let mut session = world.proxied();
    session.args(["root@web-1.custody", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let session = session.spawn().unwrap();
    let ran = |given: &str| {
        world.event("type=command.executed", given, |e| e.event["data"]["given"] == given).event["data"]
            .clone()
    };
    // It is there until its input ends, so whoever looks finds it.
    let cat = ran("/bin/cat");
    assert_eq!(cat["container"], serde_json::json!({"id": id, "runtime": "docker"}), "{cat}");
    assert_eq!(cat["cgroup_path"], format!("/docker/{id}"));
    let said = session.wait_with_output().unwrap();
    assert_eq!((said.status.code(), &*said.stdout), (Some(0), &b"within\n"[..]));
    // Short as it lived, its group was known by then.
    assert_eq!(ran("/bin/echo")["container"], cat["container"]);
    assert_eq!(ran("/bin/mkdir").get("container"), None);
}

/// A path doesn't say which file it leads to where a session has mounted something else there.
#[test]
fn a_program_that_sees_other_mounts_than_the_node_says_so() {
    let (world, _agent) = watched();
    let mounts =
        "mount --bind /bin/echo /bin/false && readlink /proc/self/ns/mnt && exec /bin/false elsewhere";
    let said =
        world.ssh(&[], &format!("/bin/true at-home; exec unshare -m sh -c '{mounts}'"), b"").ok().text();
    let (number, rest) = said.trim_start_matches("mnt:[").split_once("]\n").expect("a mount namespace");
    assert_eq!(rest, "elsewhere\n");
    let ran = |with: &str| {
        let event =
            world.event("type=command.executed", with, |e| arguments(&e.event["data"]).contains(&with));
        event.event["data"].clone()
    };
    let elsewhere = ran("elsewhere");
    assert_eq!(elsewhere["mount_namespace"].to_string(), number, "{elsewhere}");
    assert_eq!(elsewhere["executable"]["inode"], std::fs::metadata("/bin/echo").unwrap().ino().to_string());
    assert_eq!(ran("at-home").get("mount_namespace"), None);
}

/// Both ends that the server has of the connection are other ones than the proxy's.
#[test]
fn no_session_is_opened_behind_what_translates_addresses() {
    let (world, _agent) = watched();
    let relay = Flaky::tcp(world.web.port);
    let at = format!("127.0.0.1:{}", relay.port);
    world.admin.custody(&["node", "add", "web-1", &at, "--agent", "required", "--replace"]);
    let said = world.ssh(&[], "/bin/echo unwatched", b"");
    assert!(said.code != 0 && said.out.is_empty(), "{}", said.text());
    assert!(said.err.contains("is there address translation on the way"), "{}", said.err);
    let ended = world.event("type=session.ended", "the failure is told", |_| true);
    assert!(ended.line.contains("hasn't seen the session's connection"), "{}", ended.line);
    world.demand_agent("required");
    assert_eq!(world.ssh(&[], "/bin/echo watched", b"").ok().text(), "watched\n");
}

#[test]
fn whatever_a_session_calls_its_files_its_agent_tells_of_them_and_goes_on() {
    let (world, mut agent) = watched();
    // Each of these bytes takes six in an event: its path, the directory, what was given and the arguments.
    let script = r"
import os, shutil, tempfile
top = tempfile.mkdtemp()
os.chdir(top)
for _ in range(15): os.mkdir('\1' * 255); os.chdir('\1' * 255)
shutil.copy('/bin/true', 'true')
assert os.spawnv(os.P_WAIT, os.getcwd() + '/true', ['\1' * 32000]) == 0
shutil.rmtree(top)
";
    let said = world.ssh(&[], "python3 -", script.as_bytes());
    assert_eq!(said.code, 0, "{}", said.err);
    let told = world.event("type=command.executed", "the program is told", |e| {
        e.event["data"]["given"].as_str().is_some_and(|given| given.ends_with("/true") && given.len() > 1_000)
    });
    let data = &told.event["data"];
    for (field, mark) in [("/directory", "/directory_cut"), ("/given", "/given_cut")] {
        assert!(data.pointer(field).is_some() && data.pointer(mark).unwrap() == true, "{field}: {data}");
    }
    assert!(data["executable"]["path_cut"] == true && data["arguments_cut"] == true, "{data}");
    assert!(!agent.ended());
    assert_eq!(world.ssh(&[], "/bin/true", b"").code, 0);
    nothing_is_missing(&world);
}

#[test]
fn an_agent_that_has_lost_its_spool_says_so() {
    let (world, mut agent) = watched();
    assert_eq!(world.ssh(&[], "/bin/true", b"").code, 0);
    agent.kill_now();
    std::fs::remove_dir_all(agent.data().join("spool")).unwrap();
    agent.start(&world);
    let gap = world.event("type=producer.gap", "that something may be missing is told", |_| true);
    assert_eq!(gap.event["data"]["unknown"], true);
    assert_eq!(gap.event["data"]["producer"], "node/web-1");
}

#[test]
fn an_agent_joins_once_by_its_token_and_others_not_at_all() {
    let world = World::start();
    world.demand_agent("required");
    let token = world.admin.custody(&["node", "token", "web-1"]).text();
    let agent = Agent::join(&world, "web-1", "");
    let said = agent.try_join(&world, token.trim());
    assert!(said.code != 0 && said.err.contains("isn't good"), "a later token took its place: {}", said.err);
    let token = world.admin.custody(&["node", "token", "web-1"]).text();
    let mut wrong = token.trim().to_owned();
    let last = wrong.pop().unwrap();
    wrong.push(if last == 'A' { 'B' } else { 'A' });
    for bad in [wrong.as_str(), "custody-join~web-2~AAAA", "rubbish", ""] {
        assert_ne!(agent.try_join(&world, bad).code, 0, "{bad}");
    }
    let enrolled = world.entries("type=node.enrolled").len();
    assert_eq!(agent.try_join(&world, token.trim()).code, 0);
    assert_ne!(agent.try_join(&world, token.trim()).code, 0, "a token is good once");
    assert_eq!(world.entries("type=node.enrolled").len(), enrolled + 1);
    let everything = world.entries("").iter().map(|e| e.line.clone()).collect::<String>();
    assert!(!everything.contains(token.trim()), "tokens stand in no event");
}

#[test]
fn what_a_node_says_is_its_own_by_means_that_are_not_ours() {
    let (world, _agent) = watched();
    world.ssh(&[], "/bin/true one; /bin/true two", b"").ok();
    seen(&world);
    let lines = world.entries("").iter().map(|e| e.line.clone() + "\n").collect::<String>();
    let check = |lines: &str| {
        let script = custody_tests::root().join("docs/verify/node_signatures.py");
        run(Command::new(python::program("python")).arg(script), lines.as_bytes(), DEADLINE)
    };
    let right = check(&lines);
    assert!(
        right.code == 0 && right.text().contains("0 signatures are wrong"),
        "{}{}",
        right.text(),
        right.err
    );
    for (what, forged) in [
        ("another argument", lines.replace(r#""/bin/true","two""#, r#""/bin/true","six""#)),
        (
            "an event that is gone",
            lines.lines().filter(|l| !l.contains(r#""two""#)).map(|l| format!("{l}\n")).collect(),
        ),
    ] {
        assert_ne!(forged, lines, "{what}");
        assert_eq!(check(&forged).code, 1, "{what}");
    }
}

#[test]
fn an_agent_that_is_killed_again_and_again_loses_nothing_and_tells_nothing_twice() {
    let world = World::start();
    world.demand_agent("required");
    // Longer than a start takes on a busy machine: what is refused meanwhile is another test's.
    let mut agent = Agent::join(&world, "web-1", "heartbeat_seconds = 120");
    agent.start(&world);
    let rounds: usize = std::env::var("CUSTODY_AGENT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let counter = Counter::start(&world, "[ $((i%10)) != 0 ] || sleep 0.05");
    for _ in 0..rounds {
        counter.goes_on(100);
        agent.kill_now();
        agent.start(&world);
    }
    // Whatever waited for the log, also through the kills, gets there.
    counter.all_is_told(&world, Duration::from_secs(120));
}

#[test]
fn a_proxy_that_is_killed_gets_what_happened_meanwhile() {
    let (mut world, _agent) = watched();
    let done = world.dir().join("done");
    let script = format!(
        "setsid sh -c 'sleep 1; for i in $(seq 50); do /bin/true meanwhile-$i; done; touch {}' >/dev/null 2>&1 &",
        done.display()
    );
    assert_eq!(world.ssh(&[], &script, b"").code, 0);
    world.custodyd.kill_now();
    wait::until_true("the job has run", DEADLINE, || done.exists());
    world.custodyd.start();
    wait::until_true("the log has all of it, once", DEADLINE, || {
        let executed = world.entries("type=command.executed");
        let run = executed.iter().map(|e| arguments(&e.event["data"]).join(" "));
        run.filter(|line| line.starts_with("/bin/true meanwhile-")).count() == 50
    });
}

#[test]
fn the_last_command_before_the_cut_is_in_the_log() {
    let (world, _agent) = watched();
    let said = world.ssh(&[], "for i in $(seq 200); do /bin/true last-$i; done; kill -9 $PPID", b"");
    assert_ne!(said.code, 0);
    wait::until_true("all of it is in the log", DEADLINE, || {
        let executed = world.entries("type=command.executed");
        executed.iter().any(|e| arguments(&e.event["data"]).contains(&"last-200"))
    });
    let executed = world.entries("type=command.executed");
    assert_eq!(
        executed.iter().filter(|e| arguments(&e.event["data"]).first() == Some(&"/bin/true")).count(),
        200
    );
    let session = world.entries("type=session.started")[0].session().map(str::to_owned);
    assert!(executed.iter().all(|e| e.session().map(str::to_owned) == session));
}

#[test]
fn an_agent_that_stands_still_stops_the_session() {
    let (world, agent) = watched();
    let mut live = world.proxied();
    live.arg("root@web-1.custody").arg("while :; do /bin/true; sleep 0.05; done; echo over");
    let mut live = live.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    world.event("type=command.executed", "it runs", |e| arguments(&e.event["data"]) == ["/bin/true"]);
    custody_tests::process::send(agent.pid(), Signal::STOP);
    // Nobody takes evidence: the kernel refuses, or the proxy ends it.
    let status = wait::until("the session has ended", DEADLINE, || live.try_wait().unwrap());
    assert!(!status.success());
    custody_tests::process::send(agent.pid(), Signal::CONT);
    world.event("type=session.ended", "the end is told", |_| true);
}

#[test]
fn a_clock_that_somebody_sets_is_told_and_moves_no_evidence_in_its_order() {
    let world = World::start();
    world.demand_agent("required");
    let clock = SetClock::right(world.dir());
    let mut agent = Agent::join(&world, "web-1", "");
    agent.start_by(&world, &mut clock.custodyd());
    let said = world.ssh(&[], "/bin/echo before", b"");
    assert_eq!(said.code, 0, "{}", said.err);
    wait::until_true("it is in the log", DEADLINE, || {
        executions(&world.entries("type=command.executed"), "/bin/echo").len() == 1
    });
    clock.set("-1h");
    let stepped = world.event("type=producer.clock-stepped", "the step is told", |_| true);
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let by = time(&stepped.event["data"]["to"]).duration_since(time(&stepped.event["data"]["from"]));
    assert!((3_599..=3_601).contains(&-by.as_secs()), "{by:?}");
    let said = world.ssh(&[], "/bin/echo after", b"");
    assert_eq!(said.code, 0, "{}", said.err);
    wait::until_true("it is in the log", DEADLINE, || {
        executions(&world.entries("type=command.executed"), "/bin/echo").len() == 2
    });
    let entries = world.entries("type=command.executed");
    let echoes: Vec<_> = entries.iter().filter(|e| e.event["data"]["given"] == "/bin/echo").collect();
    let back = time(&echoes[1].event["time"]).duration_since(time(&echoes[0].event["time"]));
    assert!(back.as_secs() < -3_500, "what comes after it is told by the clock as it is: {back:?}");
    let number = |entry: &Entry| entry.event["producer"]["seq"].as_u64();
    assert!(number(echoes[0]) < number(&stepped) && number(&stepped) < number(echoes[1]));
    nothing_is_missing(&world);
}

/// Root of a session may do that where the kernel refuses neither: an agent that is started anew knows nothing of what runs.
#[test]
fn a_session_whose_marks_were_taken_from_the_kernel_ends_when_its_agent_is_started_anew() {
    let world = World::start();
    // So that it isn't missed meanwhile, however long its start takes here.
    world.demand_agent("optional");
    let mut agent = Agent::join(&world, "web-1", "tier = \"tracepoint\"");
    agent.start(&world);
    let mut live = world.proxied();
    live.args(["root@web-1.custody", "exec sleep 1000"]);
    live.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut live = live.spawn().unwrap();
    world.event("type=command.executed", "it runs", |e| arguments(&e.event["data"]) == ["sleep", "1000"]);
    // It would put them back.
    custody_tests::process::send(agent.pid(), Signal::STOP);
    unpin(agent.pins());
    agent.kill_now();
    agent.start(&world);
    let ended = world.event("type=session.ended", "the session ends", |_| true);
    assert!(ended.line.contains("no process of it is watched any more"), "{}", ended.line);
    live.wait().unwrap();
    // Others are watched as before, and outlive an agent that is started anew.
    let mut live = world.proxied();
    live.args(["root@web-1.custody", "exec sleep 2000"]);
    live.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut live = live.spawn().unwrap();
    world.event("type=command.executed", "it runs", |e| arguments(&e.event["data"]) == ["sleep", "2000"]);
    agent.kill_now();
    agent.start(&world);
    assert_eq!(world.ssh(&[], "true", b"").code, 0);
    wait::until_true("that one has ended", DEADLINE, || world.entries("type=session.ended").len() > 1);
    assert!(live.try_wait().unwrap().is_none());
    assert_eq!(world.entries("type=session.ended").len(), 2);
    live.kill().unwrap();
    live.wait().unwrap();
}
