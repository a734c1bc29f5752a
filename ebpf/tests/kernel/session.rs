//! Which processes are a session's.

use crate::node::{Node, POLICY};
use custody_node::sensor::Record;
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
