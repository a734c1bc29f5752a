mod besieged;
mod cluster;
mod daemon;
mod delivery;
mod secured;
mod tampering;
mod topic;

use custody_tests::servers::Kafka;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::wait::{DEADLINE, until_true};
use std::time::Duration;

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("event {number}")).collect()
}

fn started(dir: &std::path::Path, brokers: usize) -> Kafka {
    let mut kafka = Kafka::prepare(dir, brokers, &[]);
    kafka.start();
    kafka
}

#[test]
fn what_kafka_has_acknowledged_is_there_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = started(dir.path(), 1);
    kafka.produce("events", &numbered(0..100), DEADLINE).ok();
    assert_eq!(kafka.consume("events"), numbered(0..100));
    kafka.brokers[0].service.kill_now();
    kafka.start();
    until_true("the partition is led again", DEADLINE, || kafka.leader("events", 0) == Some(0));
    kafka.produce("events", &numbered(100..110), DEADLINE).ok();
    assert_eq!(kafka.consume("events"), numbered(0..110));
}

/// One test, since three brokers take a while: the leader dies, one of three remains, all come back.
#[test]
fn three_brokers_go_on_without_their_leader_and_acknowledge_nothing_when_two_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = started(dir.path(), 3);
    kafka.produce("events", &numbered(0..100), DEADLINE).ok();
    until_true("all three have it", DEADLINE, || kafka.in_sync("events", 0) == 3);
    let first = kafka.leader("events", 0).unwrap();
    kafka.brokers[first].service.kill_now();
    kafka.produce("events", &numbered(100..200), DEADLINE).ok();
    let second = kafka.leader("events", 0).unwrap();
    assert_ne!(second, first);
    kafka.brokers[second].service.kill_now();
    let said = kafka.produce("events", &numbered(200..201), Duration::from_secs(5));
    assert_ne!(said.code, 0, "one of three acknowledged: {}", said.err);
    kafka.start();
    until_true("all three have it again", DEADLINE * 2, || kafka.in_sync("events", 0) == 3);
    kafka.produce("events", &numbered(201..300), DEADLINE).ok();
    let mut events = kafka.consume("events");
    // What wasn't acknowledged may be there or not.
    events.retain(|event| event != "event 200");
    assert_eq!(events, [numbered(0..200), numbered(201..300)].concat());
}

#[test]
fn a_proxy_between_client_and_broker_sees_all_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    let proxy = Flaky::tcp(kafka.brokers[0].service.port());
    kafka.advertise(0, proxy.port);
    kafka.start();
    kafka.produce("events", &numbered(0..10), DEADLINE).ok();
    proxy.set(Fault::Swallow);
    let said = kafka.produce("events", &numbered(10..11), Duration::from_secs(3));
    assert_ne!(said.code, 0, "no acknowledgement came through");
    assert!(proxy.counts().swallowed > 0);
    proxy.set(Fault::Pass);
    kafka.produce("events", &numbered(11..20), DEADLINE).ok();
    let mut events = kafka.consume("events");
    events.retain(|event| event != "event 10");
    assert_eq!(events, [numbered(0..10), numbered(11..20)].concat());
}
