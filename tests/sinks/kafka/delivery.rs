//! One broker that fails in every way, and a sink that does.

use super::topic::{Stored, TOPIC, add, alter, check, delete, make, settings, settled, shape, sink, stored};
use crate::campaign::{Source, events};
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::delivery::Verdict;
use custody_core::log::Entry;
use custody_sinks::item::Item;
use custody_sinks::sink::{Answer, Sink as _};
use custody_sinks_kafka::Compression;
use custody_tests::servers::Kafka;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::wait::{DEADLINE, until, until_true};
use std::time::{Duration, Instant};

/// A broker behind a proxy.
fn behind_a_proxy(dir: &std::path::Path) -> (Kafka, Flaky) {
    let mut kafka = Kafka::prepare(dir, 1, &[]);
    let proxy = Flaky::tcp(kafka.brokers[0].service.port());
    kafka.advertise(0, proxy.port);
    kafka.start();
    (kafka, proxy)
}

/// The broker is killed three times, the delivery more often; connections are cut in the middle of answers, before them, all
/// at once; answers are late.
#[test]
fn each_event_is_in_kafka_once_whatever_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kafka, proxy) = behind_a_proxy(dir.path());
    let address = format!("127.0.0.1:{}", proxy.port);
    let source = Source::new();
    let some = events(9_000) / 9;
    for round in 0..9 {
        let run = source.deliver(sink(settings(&address)));
        source.grow(some / 2);
        match round % 3 {
            0 => proxy.next(3, Fault::Cut),
            1 => proxy.next(3, Fault::Swallow),
            _ => proxy.next(20, Fault::Delay(Duration::from_millis(50))),
        }
        source.grow(some - some / 2);
        if round % 3 == 0 {
            let confirmed = || run.control.health().numbers().confirmed > 0;
            until_true("something is delivered", DEADLINE * 2, confirmed);
            kafka.brokers[0].service.kill_now();
            source.grow(100);
            kafka.start();
        }
        if round % 3 == 1 {
            proxy.end_connections();
        }
        // In the middle of whatever it does.
        source.kill(run);
    }
    proxy.set(Fault::Pass);
    let run = source.deliver(sink(settings(&address)));
    source.delivered(&run);
    check(&kafka, &source);
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    // Once more, from the beginning: all of it is there.
    source.runtime.block_on(run.control.replay(0..source.log.size())).unwrap();
    until_true("the replay is over", DEADLINE * 4, || {
        source.runtime.block_on(run.control.replaying()).unwrap().is_none()
    });
    assert!(run.control.health().numbers().found >= source.log.size());
    check(&kafka, &source);
    source.stop(run);
}

/// An acknowledgement that is lost leaves a doubt, and the doubt is cleared by looking.
#[test]
fn what_was_committed_and_not_acknowledged_is_found_and_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (kafka, proxy) = behind_a_proxy(dir.path());
    let source = Source::new();
    let run = source.deliver(sink(settings(&format!("127.0.0.1:{}", proxy.port))));
    source.grow(50);
    source.delivered(&run);
    // The broker does all that it is asked to, and its answers are lost, until the delivery has given it up.
    for _ in 0..3 {
        let before = run.control.health().numbers().retries;
        source.grow(500);
        proxy.set(Fault::Swallow);
        source.grow(100);
        until_true("it was in vain", DEADLINE, || run.control.health().numbers().retries > before);
        proxy.set(Fault::Pass);
    }
    source.delivered(&run);
    assert!(run.control.health().numbers().looked_up > 0, "{:?}", run.control.health().numbers());
    check(&kafka, &source);
    source.stop(run);
}

/// A line that doesn't carry a whole batch in the time that a broker has for it.
#[test]
fn over_a_slow_line_batches_become_as_short_as_it_carries() {
    let dir = tempfile::tempdir().unwrap();
    let (kafka, proxy) = behind_a_proxy(dir.path());
    let mut settings = settings(&format!("127.0.0.1:{}", proxy.port));
    settings.compression = Compression::None;
    settings.timeout_seconds = 2;
    let source = Source::new();
    source.grow(2_000);
    let entries = source.log.read(0, usize::MAX, usize::MAX).unwrap();
    let all: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
    // The whole takes three times as long, and more for what each record has beside the event.
    proxy
        .set(Fault::Slow(u32::try_from(all).unwrap() / 3 / u32::try_from(settings.timeout_seconds).unwrap()));
    let run = source.deliver(sink(settings));
    source.delivered(&run);
    let numbers = run.control.health().numbers();
    assert!(numbers.retries > 0, "it wasn't slow: {numbers:?}");
    check(&kafka, &source);
    source.stop(run);
}

/// H9: what is under way when it is told to stop is not lost, and the stop doesn't wait for a broker that stands still.
#[test]
fn a_stop_is_bounded_and_what_was_not_confirmed_is_delivered_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let source = Source::new();
    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.grow(5_000);
    source.stop(run);

    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.grow(1_000);
    kafka.brokers[0].service.pause();
    source.grow(1_000);
    let begun = Instant::now();
    source.stop(run);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    kafka.brokers[0].service.resume();

    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.grow(1_000);
    kafka.brokers[0].service.kill_now();
    source.grow(1_000);
    let begun = Instant::now();
    source.stop(run);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    kafka.start();

    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.delivered(&run);
    check(&kafka, &source);
    source.stop(run);
}

/// Two processes with one sink: each shuts out the other, and looks before it sends.
#[test]
fn a_second_sink_of_that_name_makes_no_copies() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let source = Source::new();
    let first = source.deliver(sink(settings(&kafka.bootstrap())));
    source.grow(500);
    source.delivered(&first);
    let second = source.deliver(sink(settings(&kafka.bootstrap())));
    for _ in 0..10 {
        source.grow(300);
    }
    source.delivered(&second);
    source.kill(second);
    source.grow(100);
    source.delivered(&first);
    source.stop(first);
    let seen: std::collections::BTreeMap<u64, u32> =
        settled(&kafka, source.log.size()).into_iter().fold(Default::default(), |mut seen, record| {
            *seen.entry(record.index()).or_default() += 1;
            seen
        });
    assert_eq!(seen.len() as u64, source.log.size());
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

/// What the topic doesn't take is a dead letter with the broker's reason, and its neighbours arrive.
#[test]
fn an_event_that_kafka_refuses_is_a_dead_letter_and_the_others_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let source = Source::new();
    make(&kafka, &source, &[("max.message.bytes", "1400")]);
    let unpacked = || {
        let mut settings = settings(&kafka.bootstrap());
        settings.compression = Compression::None;
        sink(settings)
    };
    let dead = |run: &crate::campaign::Run<_>| source.runtime.block_on(run.control.dead_letters()).unwrap();
    let run = source.deliver(unpacked());
    source.grow(400);
    source.delivered(&run);
    let letters = dead(&run);
    assert!(
        !letters.is_empty() && letters.iter().all(|letter| letter.reason.contains("too large")),
        "{letters:?}"
    );
    let report = source.prove(&run);
    assert!(report.verdict() == Verdict::Incomplete && report.proven > 300, "{report:?}");
    assert_eq!(report.proven + report.rejected, report.size);
    let there = stored(&kafka).into_iter().filter(|record| record.index() < report.size);
    assert_eq!(there.count() as u64, report.proven);

    // Once the topic takes them, they are sent again.
    alter(&kafka, &source, "max.message.bytes", "1000000");
    until("all are taken", DEADLINE, || {
        (source.runtime.block_on(run.control.redrive()).unwrap() == 0).then_some(())
    });
    source.grow(400);
    source.delivered(&run);
    assert!(dead(&run).is_empty());

    // And what it takes may shrink under our hands.
    alter(&kafka, &source, "max.message.bytes", "1400");
    // The broker does so after it has answered.
    until_true("it takes less", DEADLINE, || {
        source.grow(100);
        source.delivered(&run);
        !dead(&run).is_empty()
    });
    let letters = dead(&run);
    assert!(letters.iter().all(|letter| letter.reason.contains("too large")), "{letters:?}");
    let report = source.prove(&run);
    assert!(report.verdict() == Verdict::Incomplete, "{report:?}");
    assert_eq!(report.proven + report.rejected, report.size);
    source.stop(run);
}

/// What was refused leaves a gap in the numbers of its partition: the broker finds it in the next transaction, which goes through all the
/// same, without a new producer.
#[test]
fn what_comes_after_an_event_that_kafka_refused_is_taken_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let source = Source::new();
    make(&kafka, &source, &[("max.message.bytes", "1400")]);
    let mut settings = settings(&kafka.bootstrap());
    settings.compression = Compression::None;
    let sink = sink(settings);
    // Of no session and no producer: all have one key, and one partition.
    let event = |index, length: usize| {
        let bytes = "x".repeat(length).into_bytes().into();
        sink.encode(&Item::new(Entry { index, appended: SystemClock::new().wall(), tag: 1, bytes })).unwrap()
    };
    source.runtime.block_on(async {
        sink.prepare().await.unwrap();
        for first in [0, 4, 8] {
            let long = sink.send(&[&event(first, 4_000)]).await.unwrap();
            assert!(matches!(long.as_slice(), [Answer::Rejected(_)]), "{long:?}");
            assert_eq!(sink.send(&[&event(first + 1, 10)]).await, Ok(vec![Answer::Stored]));
            let (short, long) = (event(first + 2, 10), event(first + 3, 4_000));
            let both = sink.send(&[&short, &long]).await.unwrap();
            assert!(matches!(both.as_slice(), [Answer::Stored, Answer::Rejected(_)]), "{both:?}");
        }
    });
    until_true("all six show", DEADLINE, || stored(&kafka).len() == 6);
}

/// A topic that would lose events isn't delivered to until somebody has changed it.
#[test]
fn a_compacted_topic_is_refused_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let source = Source::new();
    make(&kafka, &source, &[("cleanup.policy", "compact")]);
    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.grow(20);
    let trouble = || run.control.health().numbers().trouble;
    let told = until("it says so", DEADLINE, trouble);
    assert!(told.contains(TOPIC) && told.contains("compact"), "{told}");
    assert!(stored(&kafka).is_empty());
    alter(&kafka, &source, "cleanup.policy", "delete");
    source.delivered(&run);
    check(&kafka, &source);
    source.stop(run);
}

/// Brokers make a topic that somebody asks for by their own defaults: one partition, and gone after a week.
#[test]
fn a_topic_that_is_deleted_is_made_anew_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &["auto.create.topics.enable=true"]);
    kafka.start();
    let source = Source::new();
    source.grow(100);
    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.delivered(&run);
    let first = source.log.size();
    delete(&kafka, &source);
    source.grow(100);
    source.delivered(&run);
    assert_eq!(shape(&kafka, &source, "retention.ms"), (3, "-1".to_owned()));
    let all = first..source.log.size();
    let there: Vec<u64> = settled(&kafka, all.end - all.start).iter().map(Stored::index).collect();
    assert!(all.clone().all(|index| there.contains(&index)) && there.len() as u64 == all.end - all.start);
    source.stop(run);
}

/// Somebody else's transaction that is left open hides what comes after it: that is unknown, and not missing.
#[test]
fn behind_an_open_transaction_nothing_is_known() {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let source = Source::new();
    source.grow(100);
    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.delivered(&run);
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "somebody else")
        // As long as a broker allows: it isn't to end by itself.
        .set("transaction.timeout.ms", "900000")
        .create()
        .unwrap();
    other.init_transactions(DEADLINE).unwrap();
    other.begin_transaction().unwrap();
    for partition in 0..3 {
        other
            .send(BaseRecord::<(), str>::to(TOPIC).partition(partition).payload("{}"))
            .map_err(|(e, _)| e)
            .unwrap();
    }
    other.flush(DEADLINE).unwrap();
    source.grow(100);
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(!report.is_proven() && report.missing.count == 0, "{report:?}");
    assert!(report.unproven.iter().all(|part| part.reason.contains("transaction is open")), "{report:?}");
    other.abort_transaction(DEADLINE).unwrap();
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    check(&kafka, &source);
    // What was taken back is nobody's record.
    let mut first = stored(&kafka).remove(0);
    first.headers.clear();
    add(&kafka, &first);
    assert_eq!(source.prove(&run).extra.count, 1);
    source.stop(run);
}
