//! The sink as people have it: in the configuration of a daemon, by `custody sinks`.

use super::topic::{TOPIC, stored};
use custody_tests::servers::{Kafka, World};
use std::collections::BTreeSet;

#[test]
fn a_session_is_in_kafka_and_proven_also_when_both_were_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure(&format!(
        "[[sink]]\nname = \"stream\"\n[sink.kafka]\nbrokers = [\"{}\"]\ntopic = \"{TOPIC}\"\ntimeout_seconds = 5\n",
        kafka.bootstrap()
    ));
    world.custodyd.start();
    world.ssh(&[], "echo delivered", b"").ok();
    let verify = |world: &World| {
        let said = world.admin.custody(&["sinks", "verify", "stream"]).ok().text();
        assert!(
            said.contains("proven") && !said.contains("MISSING") && !said.contains("DUPLICATED"),
            "{said}"
        );
    };
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
