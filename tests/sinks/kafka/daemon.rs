//! The sink as people have it: in the configuration of a daemon, by `custody sinks`.

use super::topic::{TOPIC, stored};
use custody_tests::servers::{Kafka, World};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long an end may take: what is under way has five seconds, connections have three, and the log has to be closed.
const END: Duration = Duration::from_secs(20);

/// A world that delivers to a broker.
fn world(kafka: &Kafka) -> World {
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure(&format!(
        "[[sink]]\nname = \"stream\"\n[sink.kafka]\nbrokers = [\"{}\"]\ntopic = \"{TOPIC}\"\ntimeout_seconds = 5\n",
        kafka.bootstrap()
    ));
    world.custodyd.start();
    world
}

fn verify(world: &World) {
    let said = world.admin.custody(&["sinks", "verify", "stream"]).ok().text();
    assert!(said.contains("proven") && !said.contains("MISSING") && !said.contains("DUPLICATED"), "{said}");
}

/// How many events aren't confirmed.
fn lag(world: &World) -> u64 {
    let sinks: Value = serde_json::from_str(&world.admin.custody(&["sinks", "ls", "--json"]).text()).unwrap();
    sinks[0]["lag_events"].as_u64().unwrap()
}

/// H9: a broker that stands still keeps nobody from stopping the daemon, and what was under way is delivered afterwards.
#[test]
fn the_daemon_ends_beside_a_broker_that_stands_still_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let mut world = world(&kafka);
    until_true("it delivers", DEADLINE, || lag(&world) < 5);
    kafka.brokers[0].service.pause();
    world.ssh(&[], "echo while it stands still", b"").ok();
    assert!(lag(&world) > 5, "nothing is under way");
    let begun = Instant::now();
    world.custodyd.stop();
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
    kafka.brokers[0].service.resume();
    world.custodyd.start();
    until_true("it delivers again", DEADLINE * 2, || lag(&world) < 5);
    verify(&world);
    world.custodyd.stop();
}

#[test]
fn a_session_is_in_kafka_and_proven_also_when_both_were_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let mut world = world(&kafka);
    world.ssh(&[], "echo delivered", b"").ok();
    verify(&world);
    world.ssh(&[], "echo killed", b"").ok();
    world.custodyd.kill_now();
    kafka.brokers[0].service.kill_now();
    kafka.start();
    world.custodyd.start();
    world.ssh(&[], "echo again", b"").ok();
    verify(&world);
    let said = world.admin.custody(&["sinks", "replay", "stream", "--from", "0"]).ok().text();
    assert!(said.contains("All of it is there"), "{said}");
    verify(&world);

    // A session's events have its key, and so stand in one partition.
    let records = stored(&kafka);
    let indexes: BTreeSet<u64> = records.iter().map(super::topic::Stored::index).collect();
    assert_eq!(indexes.len(), records.len(), "each once");
    let of_sessions: Vec<_> =
        records.iter().filter(|record| record.value.contains("\"session\":\"")).collect();
    assert!(!of_sessions.is_empty());
    for record in of_sessions {
        assert!(record.value.contains(&format!("\"session\":\"{}\"", record.key)), "{record:?}");
        let others = records.iter().filter(|other| other.key == record.key);
        assert!(others.map(|other| other.partition).all(|partition| partition == record.partition));
    }
    world.custodyd.stop();
}
