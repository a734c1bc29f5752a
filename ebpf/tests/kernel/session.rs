//! Which processes are a session's.

use crate::node::{Node, POLICY, session_id};
use custody_node::sensor::{Record, Sensor, SensorError, Tier, Tuple, probe};
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn ran(records: &[Record], argument: &str) -> bool {
    records.iter().any(|record| matches!(record, Record::Executed(executed) if executed.args.iter().any(|arg| arg == argument.as_bytes())))
}

#[test]
fn what_a_session_runs_is_told_and_what_others_run_is_not() {
    let mut node = Node::start();
    let mut session = node.session();
    let mut other =
        std::process::Command::new("/bin/sh").args(["-c", "/bin/echo not of the session"]).spawn().unwrap();
    other.wait().unwrap();
    session.run("/bin/echo of the session");
    let id = session.id;
    node.wait_until("echo", |records| ran(records, "session").then_some(()));
    assert!(!ran(&node.records, "not"));
    assert!(node.records.iter().all(|record| record.who().unwrap().session == id));
}

#[test]
fn every_family_of_listener_and_caller_is_recognised() {
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    for (listen, call) in
        [(v4, v4), (v6, v6), (any6, v4), (any6, v6), (IpAddr::V4(Ipv4Addr::UNSPECIFIED), v4)]
    {
        let mut node = Node::start();
        let mut session = node.session_at(listen, call, POLICY);
        session.run("/bin/echo here");
        node.wait_until("echo", |records| ran(records, "here").then_some(()));
    }
}

#[test]
fn a_listener_that_reads_before_it_forks_is_not_of_the_session() {
    let mut node = Node::start();
    let mut session = node.session();
    // A listener outside of sessions, in a process of its own.
    let mut outside = std::process::Command::new("python3")
        .args(["-c", LISTENER])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(outside.stdout.take().unwrap()).lines();
    let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
    let mut client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let tuple = Tuple::new(client.peer_addr().unwrap(), client.local_addr().unwrap());
    let id = session_id();
    node.sensor().expect(tuple, id, POLICY).unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "read by the listener");
    client.write_all(b"y").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "read by the child");
    outside.wait().unwrap();
    let accepted = node.wait_for(
        "the accept",
        |record| matches!(record, Record::Accepted(accepted) if accepted.who.session == id),
    );
    assert_ne!(accepted.who().unwrap().pid, outside.id());
    session.run("/bin/echo settled");
    node.wait_until("echo", |records| ran(records, "settled").then_some(()));
    let own: Vec<&Record> =
        node.records.iter().filter(|record| record.who().unwrap().session == id).collect();
    assert!(own.iter().all(|record| record.who().unwrap().pid != outside.id()), "{own:#?}");
}

#[test]
fn a_process_of_one_session_never_becomes_another_s() {
    let mut node = Node::start();
    let mut session = node.session();
    session.start(&format!("python3 -c \"{LISTENER}\""));
    let mut lines = std::io::BufReader::new(session.socket.try_clone().unwrap()).lines();
    let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
    let mut client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let tuple = Tuple::new(client.peer_addr().unwrap(), client.local_addr().unwrap());
    let other = session_id();
    node.sensor().expect(tuple, other, POLICY).unwrap();
    for (sent, said) in [(b"x", "read by the listener"), (b"y", "read by the child")] {
        client.write_all(sent).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), said);
    }
    node.wait_until("what the listener runs", |records| ran(records, "listener").then_some(()));
    assert!(node.records.iter().all(|record| record.who().unwrap().session == session.id));
    assert!(!node.sensor().tagged().unwrap().contains_key(&other));
}

const LISTENER: &str = "import os, socket\n\
     l = socket.create_server(('127.0.0.1', 0))\n\
     print(l.getsockname()[1], flush=True)\n\
     s, _ = l.accept()\n\
     s.recv(1); print('read by the listener', flush=True)\n\
     r, w = os.pipe()\n\
     if os.fork() == 0: l.close(); os.read(r, 1); s.recv(1); print('read by the child', flush=True); os._exit(0)\n\
     s.close(); os.write(w, b'x'); os.wait(); os.system('/bin/echo of the listener >/dev/null')";

#[test]
fn an_agent_within_a_session_tells_nothing_of_itself() {
    let mut node = Node::start();
    // Where sessions may not reach for the programs, an agent within one can't either: the service manager starts it.
    if node.sensor().coverage().features["bpf deny"].is_ok() {
        return;
    }
    let mut session = node.session();
    let options = node.abandon();
    // The test program again, as the agent, started by the session's shell.
    let agent = std::env::current_exe().unwrap();
    session.start(&format!(
        "CUSTODY_TEST_PINS={} exec {} --exact restart::agent --nocapture",
        options.pins.display(),
        agent.display()
    ));
    let mut printed = String::new();
    let mut lines = std::io::BufReader::new(session.socket.try_clone().unwrap());
    while !printed.contains("ready") {
        printed.clear();
        assert_ne!(lines.read_line(&mut printed).unwrap(), 0);
    }
    let id = session.id;
    let (pid, count) = (session.shell.id(), 50);
    drop(session);
    let mut node = Node::with(options);
    node.drain();
    // Fork, exec and start of what it is: as every process. Of what it did as the agent (maps, threads, files, sockets): nothing.
    let own = node
        .records
        .iter()
        .filter(|record| record.who().is_some_and(|who| who.session == id && who.pid == pid))
        .count();
    assert!(own < count, "{own}");
}

#[test]
fn a_session_under_a_policy_that_nobody_set_is_refused() {
    let mut node = Node::start();
    let tuple = Tuple::new("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    assert!(matches!(node.sensor().expect(tuple, session_id(), 99), Err(SensorError::NoPolicy(99))));
    assert!(matches!(
        node.sensor().expect(tuple, session_id(), u32::MAX),
        Err(SensorError::ReservedPolicy(_))
    ));
    node.sensor().forget(&tuple).unwrap();
}

#[test]
fn a_forgotten_tuple_makes_no_session() {
    let mut node = Node::start();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let tuple = Tuple::new(client.peer_addr().unwrap(), client.local_addr().unwrap());
    node.sensor().expect(tuple, session_id(), POLICY).unwrap();
    node.sensor().forget(&tuple).unwrap();
    let mut shell =
        std::process::Command::new("/bin/sh").stdin(std::os::fd::OwnedFd::from(accepted)).spawn().unwrap();
    client.write_all(b"/bin/true; exit\n").unwrap();
    shell.wait().unwrap();
    let mut session = node.session();
    session.run("/bin/echo settled");
    node.wait_until("echo", |records| ran(records, "settled").then_some(()));
    assert!(node.records.iter().all(|record| record.who().unwrap().session == session.id));
}

#[test]
fn what_the_kernel_supports_is_told_without_leaving_anything() {
    let probe = probe(std::path::Path::new("/sys/fs/bpf"), crate::node::tier());
    let coverage = probe.coverage.unwrap();
    // Which tier it is, the machine decides, and whether it has modules; within it nothing may be missing.
    let missing = |(name, outcome): &(&String, &Result<(), String>)| {
        !["LSM", "module load"].contains(&name.as_str())
            && outcome.as_ref().is_err_and(|why| !why.starts_with("only the tier"))
    };
    assert_eq!(coverage.features.iter().find(missing), None);
    assert!(!std::path::Path::new(&format!("/sys/fs/bpf/probe-{}", std::process::id())).exists());
    for line in &probe.advice {
        println!("{line}");
    }
}

/// The verifier gives up after a million instructions on any way through, and kernels differ in which ways are one to them.
#[test]
fn no_program_is_near_what_a_verifier_takes() {
    const AT_MOST: u32 = 100_000;
    // Before any of them is in the kernel there is nothing to ask.
    let _node = Node::start();
    let families =
        ["session_", "process_", "socket_", "network_", "datagram_", "file_", "touch_", "act_", "call_"];
    let mut asked = 0;
    for program in aya::programs::loaded_programs() {
        // One that another test takes out of the kernel meanwhile is none.
        let Ok(program) = program else { continue };
        let name = program.name_as_str().unwrap_or_default();
        if !families.iter().any(|family| name.starts_with(family)) {
            continue;
        }
        let instructions = program.verified_instruction_count().expect("kernels since 5.16 tell it");
        assert!(instructions <= AT_MOST, "{name}: {instructions}");
        asked += 1;
    }
    assert!(asked > 10, "{asked}");
}

#[test]
fn sessions_are_listed_while_they_have_processes() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run("sleep 1000 & A=$!; sleep 1000 & B=$!");
    let id = session.id;
    assert_eq!(node.sensor().tagged().unwrap(), [(id, 3)].into());
    session.run("kill $A $B; wait");
    node.wait_until("their ends", |records| {
        (records.iter().filter(|record| matches!(record, Record::Exited(_))).count() >= 2).then_some(())
    });
    assert_eq!(node.sensor().tagged().unwrap(), [(id, 1)].into());
    drop(session);
    node.wait_until("its end", |records| {
        (records.iter().filter(|record| matches!(record, Record::Exited(_))).count() >= 3).then_some(())
    });
    assert_eq!(node.sensor().tagged().unwrap(), [].into());
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    // A kernel without LSM programs refuses the forced tier; all refuse a ring of no possible size.
    let mut options = crate::node::options();
    options.tier = Some(Tier::Lsm);
    if let Ok(sensor) = Sensor::start(options.clone()) {
        sensor.detach().unwrap();
    }
    options.ring_bytes = 3;
    assert!(matches!(Sensor::start(options.clone()), Err(SensorError::Ring(3))));
    assert!(!options.pins.exists(), "{:?}", options.pins);
}
