//! What somebody may do who may write to the topic, or delete from it.

use super::topic::{add, delete_before, settings, sink, stored};
use crate::campaign::Source;
use custody_core::delivery::{Findings, Report};
use custody_tests::servers::Kafka;
use custody_tests::wait::DEADLINE;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

fn named(findings: &Findings) -> Vec<Option<u64>> {
    let mut indexes: Vec<_> = findings.first.iter().map(|finding| finding.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

#[test]
fn records_that_were_added_altered_repeated_or_deleted_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::prepare(dir.path(), 1, &[]);
    kafka.start();
    let source = Source::new();
    // More than one window of the proof.
    source.grow(5_000);
    let run = source.deliver(sink(settings(&kafka.bootstrap())));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");

    let all = stored(&kafka);
    let record = |index: u64| all.iter().find(|record| record.index() == index).unwrap().clone();
    let mut altered = record(40);
    altered.value = altered.value.replace("tests", "nobody");
    add(&kafka, &altered);
    add(&kafka, &record(3_050));
    let mut strange = record(60);
    strange.headers.clear();
    add(&kafka, &strange);
    let mut future = record(4_070);
    future.headers.insert("custody-index".to_owned(), "999999".to_owned());
    add(&kafka, &future);
    // At another time, and so in another part of the log than it claims.
    let mut moved = record(80);
    moved.timestamp = record(4_900).timestamp;
    add(&kafka, &moved);
    // Another log's, which is none of our business.
    let mut other = record(90);
    other.headers.insert("custody-origin".to_owned(), "another.log".to_owned());
    add(&kafka, &other);
    not_even_text(&kafka);
    let report = source.prove(&run);
    assert!(!report.is_proven());
    assert_eq!(named(&report.altered), [Some(40), Some(80)], "{report:?}");
    assert_eq!(named(&report.duplicated), [Some(3_050)], "{report:?}");
    let extra = named(&report.extra);
    assert!(extra.contains(&None) && extra.contains(&Some(999_999)), "{extra:?}");
    assert!(!extra.contains(&Some(90)) && report.missing.count == 0, "{report:?}");

    let report = deleted(&kafka, &source, &run, &all);
    assert!(!report.is_proven() && report.missing.count == 0, "{report:?}");
    assert!(report.unproven.iter().any(|part| part.reason.contains("deleted")), "{report:?}");
    source.stop(run);
}

/// Deletes the first hundred records of a partition.
fn deleted(
    kafka: &Kafka,
    source: &Source,
    run: &crate::campaign::Run<custody_sinks_kafka::Kafka>,
    all: &[super::topic::Stored],
) -> Report {
    let last = all.iter().filter(|record| record.partition == all[0].partition).nth(100).unwrap();
    delete_before(kafka, source, last.partition, last.offset);
    source.prove(run)
}

/// A header whose name isn't text: clients in Rust stumble over it.
fn not_even_text(kafka: &Kafka) {
    let mut command = Command::new("kcat");
    command.args(["-b", &kafka.bootstrap(), "-P", "-t", super::topic::TOPIC, "-p", "0", "-H"]);
    command.arg(OsStr::from_bytes(b"\xff\xfe=x"));
    custody_tests::process::run(&mut command, b"{}", DEADLINE).ok();
}
