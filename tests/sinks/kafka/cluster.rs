//! Three brokers, of which some are gone or stand still.

use super::topic::{TOPIC, check, settings, sink, stored};
use crate::campaign::{Source, events};
use custody_tests::servers::Kafka;
use custody_tests::wait::{DEADLINE, until_ok, until_true};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long brokers take to agree again, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn three(dir: &std::path::Path) -> Kafka {
    let mut kafka = Kafka::prepare(dir, 3, &[]);
    kafka.start();
    kafka
}

fn led(kafka: &Kafka) {
    until_ok("all partitions are everywhere", LONG, || {
        let in_sync: Vec<_> = (0..3).map(|partition| kafka.in_sync(TOPIC, partition)).collect();
        let words = || kafka.brokers.iter().map(|broker| broker.service.last_words()).collect::<Vec<_>>();
        (in_sync == [3; 3]).then_some(()).ok_or_else(|| format!("{in_sync:?}\n{}", words().join("\n\n")))
    });
}

/// The leader dies during load; then two of three are gone, and nothing more is confirmed until they are back.
#[test]
fn nothing_is_lost_nor_confirmed_wrongly_when_brokers_die() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = three(dir.path());
    let source = Source::new();
    let some = events(6_000) / 6;
    let mut settings = settings(&kafka.bootstrap());
    settings.transaction_events = 100;
    // Less than it takes until another one leads.
    settings.timeout_seconds = 2;
    let run = source.deliver(sink(settings));
    let numbers = || run.control.health().numbers();
    source.grow(some);
    source.delivered(&run);
    led(&kafka);

    // All of them belong to no session, and so stand in one partition.
    let partition = i64::from(stored(&kafka)[0].partition);
    let first = kafka.leader(TOPIC, partition).unwrap();
    let (begun, before) = (source.log.size(), numbers());
    let is_killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It also ends where this test doesn't come so far.
        let growing = (0..500).take_while(|_| !is_killed.load(Ordering::Relaxed));
        scope.spawn(|| growing.for_each(|_| source.grow(20)));
        until_true("some of it is there", LONG, || numbers().next > begun);
        kafka.brokers[first].service.kill_now();
        assert!(numbers().next < source.log.size(), "nothing was under way: {:?}", numbers());
        is_killed.store(true, Ordering::Relaxed);
    });
    source.grow(some);
    source.delivered(&run);
    assert!(numbers().retries > before.retries, "the leader wasn't missed: {:?}", numbers());
    check(&kafka, &source);

    let second = kafka.leader(TOPIC, partition).unwrap();
    assert_ne!(second, first);
    kafka.brokers[second].service.kill_now();
    let confirmed = source.log.size();
    source.grow(some);
    let before = numbers().retries;
    until_true("it tries in vain", LONG, || numbers().retries >= before + 3);
    assert!(numbers().next <= confirmed, "one of three has confirmed: {:?}", numbers());

    kafka.start();
    source.grow(some);
    source.delivered(&run);
    led(&kafka);
    check(&kafka, &source);
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    source.stop(run);
}

/// H10: two of three stand still for longer than anything may take, again and again; what they had been sent before may land
/// when they go on.
#[test]
fn brokers_that_stand_still_make_no_hole_and_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = three(dir.path());
    let source = Source::new();
    let rounds = if events(0) > 0 { 10 } else { 4 };
    let some = events(4_000) / (2 * rounds);
    let quick = || {
        let mut settings = settings(&kafka.bootstrap());
        settings.timeout_seconds = 2;
        sink(settings)
    };
    let mut run = source.deliver(quick());
    source.grow(some);
    source.delivered(&run);
    led(&kafka);
    for round in 0..rounds {
        let two: Vec<_> = (0..3).filter(|broker| *broker != round as usize % 3).collect();
        source.grow(some / 2);
        for broker in &two {
            kafka.brokers[*broker].service.pause();
        }
        let before = run.control.health().numbers().retries;
        source.grow(some / 2);
        until_true("it gives up", LONG, || run.control.health().numbers().retries >= before + 2);
        if round % 2 == 1 {
            // What is under way lands in the middle of the next one's look, if it could.
            source.kill(run);
            run = source.deliver(quick());
        }
        for broker in &two {
            kafka.brokers[*broker].service.resume();
        }
        source.grow(some / 2);
    }
    source.delivered(&run);
    led(&kafka);
    check(&kafka, &source);
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    source.stop(run);
    until_true("nobody leads with less than it had", DEADLINE, || kafka.leader(TOPIC, 0).is_some());
    check(&kafka, &source);
}
