//! No evidence, no effect.

use crate::node::{Node, Session, options};
use custody_node::sensor::{Denial, Record, Tier};
use std::process::Command;
use std::time::{Duration, Instant};

const CONNECT: &str = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 9)))";

/// Whether the session can start a program.
fn runs(session: &mut Session) -> bool {
    session.run("/bin/true && echo ran; true") == "ran"
}

#[test]
fn a_closed_agent_lets_no_program_start_and_no_connection_open() {
    let mut node = Node::start();
    let mut session = node.session();
    assert!(runs(&mut session));
    // A Python that runs already: it needs no exec to connect.
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let wait = format!("import os, time\nwhile not os.path.exists('{}'): time.sleep(0.01)", gate.display());
    session.start(&format!("python3 -c \"{wait}\n{CONNECT}\" </dev/null >/dev/null &"));
    node.wait_for("python", |record| matches!(record, Record::Executed(executed) if executed.args.get(1).is_some_and(|arg| arg == b"-c")));
    node.sensor().close(true).unwrap();
    std::fs::File::create(&gate).unwrap();
    assert!(!runs(&mut session));
    node.wait_for("the denied connection", |record| {
        matches!(record, Record::ConnectionDenied(connection) if connection.denial == Some(Denial::Closed))
    });
    assert!(Command::new("/bin/true").status().unwrap().success(), "others are let alone");
    if node.sensor().coverage().tier == Tier::Lsm {
        node.wait_for(
            "the refusal",
            |record| matches!(record, Record::ExecRefused(refused) if refused.given == b"/bin/true"),
        );
    } else {
        let refused = |record: &Record| matches!(record, Record::Executed(executed) if executed.denial == Some(Denial::Closed) && executed.args == [b"/bin/true"]);
        let Record::Executed(refused) = node.wait_for("the refused execution", refused) else {
            unreachable!()
        };
        node.wait_for("its end", |record| {
            matches!(record, Record::Exited(exited) if exited.who.pid == refused.who.pid && exited.status == 9)
        });
    }
    node.sensor().close(false).unwrap();
    assert!(runs(&mut session));
}

#[test]
fn a_heartbeat_that_is_too_old_refuses_until_the_next() {
    let mut options = options();
    options.heartbeat_limit = Duration::from_millis(300);
    let mut node = Node::with(options);
    let end = Instant::now() + Duration::from_secs(60);
    let mut session = node.session();
    while runs(&mut session) {
        assert!(Instant::now() < end, "the heartbeat grows old and nothing is refused");
    }
    node.sensor().heartbeat().unwrap();
    assert!(runs(&mut session));
}
