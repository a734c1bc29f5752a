//! What is missing shows: gaps in a producer's numbering are events with exact counts.

use custody_core::clock::SystemClock;
use custody_core::event::producer::{Previous, Started, Stopped};
use custody_core::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp, canonical};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::{Log, ProducerKey, Record};
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// An event of the node agent `web-1` under this number.
fn record<D: EventData>(boot: Uuid, seq: u64, data: D) -> Record {
    let producer = ProducerRef { boot, id: "web-1".to_owned(), kind: ProducerKind::Node, seq };
    let envelope = Draft::new(Actor::system("web-1"), data).numbered(producer, Timestamp::from_seconds(1));
    let bytes = canonical::event_bytes(&envelope).unwrap().into();
    Record { producer: ProducerKey { id: "web-1".to_owned(), boot, seq }, tag: D::FAMILY.tag(), bytes }
}

#[test]
fn each_gap_is_told_once_with_its_exact_count() {
    let mut world = World::start();
    world.custodyd.stop();
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    {
        let signer = layout::log_signer(&world.custodyd.data(), "custody.test/log");
        let options = Options::new(Arc::new(signer), Arc::new(SystemClock::new()));
        let log = EmbeddedLog::open(&world.custodyd.data().join("log"), options).unwrap();
        let started = |previous| Started { previous, program: "agent".to_owned() };
        // Numbers 1 to 3 are missing, and of the first boot the numbers 6 to 9, as the second one says.
        for record in [
            record(first, 0, started(None)),
            record(first, 4, Stopped {}),
            record(first, 5, Stopped {}),
            record(second, 0, started(Some(Previous { boot: first, seq: 9 }))),
        ] {
            let receipts = log.submit(vec![record]).unwrap().wait_blocking().unwrap();
            assert_eq!(receipts.len(), 1);
        }
        log.close();
    }
    world.custodyd.start();
    world.event("type=producer.gap", "the second gap is told", |entry| entry.event["data"]["count"] == 4);
    let told: Vec<_> =
        world.entries("type=producer.gap").into_iter().map(|e| e.event["data"].clone()).collect();
    let gap = |first_missing: u64, count: u64, index: &serde_json::Value| json!({ "boot": first, "count": count, "first": first_missing, "index": index, "producer": "web-1" });
    assert_eq!(told, [gap(1, 3, &told[0]["index"]), gap(6, 4, &told[1]["index"])]);
    let shown =
        world.entries("type=producer").into_iter().find(|e| json!(e.index) == told[0]["index"]).unwrap();
    assert_eq!(shown.event["producer"]["seq"], 4, "the event that showed the gap is named");
    assert!(world.admin.custody(&["log", "status"]).text().contains("missing      7 "));

    // Told is told: not again at the next start.
    world.custodyd.stop();
    world.custodyd.start();
    world.ssh(&[], "true", b"").ok();
    assert_eq!(world.entries("type=producer.gap").len(), 2);
    let metrics = world.admin.request("/metrics", &[]).text();
    assert!(metrics.contains("custody_producers_missing_events 7\n"), "{metrics}");
}
