//! What Loki's limits do to a delivery: what it doesn't take is never taken for stored, and what it doesn't show never for absent.

use super::campaign::Source;
use super::loki::{TENANT, counted, now, sink, sink_with, started};
use custody_core::clock::{ManualClock, Nanos};
use custody_core::event::Timestamp;
use custody_sinks::loki::Settings;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::{Loki, World};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const SECOND: u64 = 1_000_000_000;

/// With arguments, which come before what its file says.
fn started_with(dir: &Path, arguments: &[&str]) -> Loki {
    let mut loki = Loki::prepare(dir, &[]);
    loki.service = loki.service.arguments(arguments);
    loki.start();
    loki
}

/// Waits until the delivery says this of what keeps it, and has confirmed nothing.
fn kept_by(source: &Source, loki: &Loki, text: &str) {
    kept_at(source, &loki.url(), text);
}

/// The same, of what stands there.
fn kept_at(source: &Source, url: &str, text: &str) {
    let run = source.deliver(sink(url));
    until_true(text, DEADLINE, || {
        run.control.health().numbers().trouble.is_some_and(|trouble| trouble.contains(text))
    });
    let numbers = run.control.health().numbers();
    assert_eq!((numbers.next, numbers.rejected), (0, 0), "{numbers:?}");
    source.kill(run);
}

/// All of it arrives, once.
fn arrives(loki: &Loki, source: &Source) {
    arrives_at(&loki.url(), source);
}

fn arrives_at(url: &str, source: &Source) {
    let run = source.deliver(sink(url));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    source.stop(run);
}

/// Once it has other limits, all of it arrives, once.
fn arrives_with(limits: &[&str], dir: &Path, mut loki: Loki, source: &Source) -> Loki {
    loki.service.stop();
    let loki = started(dir, limits);
    arrives(&loki, source);
    loki
}

/// Loki answers 204 to a push of several streams when it has taken the last of them, whatever became of the others.
#[test]
fn a_stream_that_loki_refuses_beside_one_that_it_takes_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["max_global_streams_per_user: 1"]);
    let begun = now();
    // The last of our streams exists already, and no other one may be made.
    let last = json!({ "family": "producer", "job": "custody", "outcome": "none", "producer": "log" });
    let others = json!({ "log_origin": "another.log" });
    assert_eq!(loki.push_with(TENANT, &last, (now(), "another's"), &others).unwrap().status, 204);
    let source = Source::new();
    source.grow(1_000);
    kept_by(&source, &loki, "maximum active stream limit exceeded");
    let loki = arrives_with(&[], dir.path(), loki, &source);
    loki.flush();
    assert_eq!(counted(&loki, (begun - 60 * SECOND, now() + 2 * SECOND)), source.log.size() + 1);
}

/// Nothing is refused for good by that, and nothing arrives either: tried again and again without a word, nobody would know.
#[test]
fn a_daemon_whose_loki_takes_no_more_streams_raises_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["max_global_streams_per_user: 1"]);
    let mut world = World::start();
    world.custodyd.stop();
    // The first look at Loki may take longer than a second, and would be what is told of.
    world.custodyd.configure(&format!(
        "[[sink]]\nname = \"limited\"\nstall_seconds = 5\n[sink.loki]\ntenant = \"{TENANT}\"\nendpoint = {{ url = \"{}\" }}\n",
        loki.url()
    ));
    world.custodyd.start();
    let told = world.event("type=sink.stalled", "it is told", |told| told.event["data"]["sink"] == "limited");
    // What Loki says of it may repeat what it was sent, and goes to no other sink.
    assert!(told.event["data"]["reason"].as_str().unwrap().starts_with("HTTP 429"), "{}", told.event);
    until_true("whoever looks reads why", DEADLINE, || {
        let said = world.admin.custody(&["sinks", "ls", "--json"]).text();
        let sinks: Value = serde_json::from_str(&said).unwrap();
        let trouble = sinks[0]["trouble"].as_str().unwrap_or_default();
        trouble.contains("maximum active stream limit exceeded") && sinks[0]["next"] == 0
    });
    let metrics = world.admin.request("/metrics", &[]).text();
    assert!(metrics.contains("custody_sink_up{sink=\"limited\"} 0"), "{metrics}");
}

/// It says so by 260, which looks like a success, or by what it is told to say, which looks like an event's fault.
#[test]
fn a_tenant_that_is_blocked_is_no_success() {
    for status in ["260", "422"] {
        let dir = tempfile::tempdir().unwrap();
        let status = format!("block_ingestion_status_code: {status}");
        let loki = started(dir.path(), &["block_ingestion_until: 2099-01-01T00:00:00Z", &status]);
        let source = Source::new();
        source.grow(100);
        kept_by(&source, &loki, "ingestion blocked");
        arrives_with(&[], dir.path(), loki, &source);
    }
}

/// That is for a person to change, and no event's fault.
#[test]
fn a_loki_without_structured_metadata_makes_no_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["allow_structured_metadata: false"]);
    let source = Source::new();
    source.grow(100);
    kept_by(&source, &loki, "structured metadata");
    arrives_with(&[], dir.path(), loki, &source);
}

/// Nor is that, of which each event has more.
#[test]
fn a_loki_that_takes_little_structured_metadata_makes_no_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["max_structured_metadata_entries_count: 5"]);
    let source = Source::new();
    source.grow(100);
    kept_by(&source, &loki, "too many structured metadata labels");
    arrives_with(&[], dir.path(), loki, &source);
}

/// More lines of another log with one time than a page holds: they keep nobody from knowing what is there of this one.
#[test]
fn another_log_of_the_same_job_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &[]);
    let source = Source::new();
    source.grow(100);
    let run = source.deliver(sink(&loki.url()));
    source.delivered(&run);
    source.stop(run);
    let time = source.log.read(60, 1, 0).unwrap()[0].appended.0;
    let labels = json!({ "family": "log", "job": "custody", "outcome": "none", "producer": "log" });
    let others = json!({ "log_origin": "another.log" });
    for n in 0..1_100 {
        let line = format!("another's {n}");
        assert_eq!(loki.push_with(TENANT, &labels, (time, &line), &others).unwrap().status, 204);
    }
    // All of it is in doubt.
    std::fs::remove_file(source.dir.path().join("sink/position.json")).unwrap();
    arrives(&loki, &source);
}

/// By its defaults it takes nothing that is older than a week: no event of an older log is refused for that, it waits.
#[test]
fn what_is_too_old_for_lokis_limits_waits_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["reject_old_samples: true", "reject_old_samples_max_age: 1w"]);
    let clock = Arc::new(ManualClock::new(Nanos(now() - 8 * 86_400 * SECOND)));
    let source = Source::with(clock.clone());
    source.grow(60);
    // Beside it in a batch is what Loki takes.
    clock.advance(Duration::from_secs(7 * 86_400));
    source.grow(60);
    kept_by(&source, &loki, "reject_old_samples: false");
    arrives_with(&["reject_old_samples: false"], dir.path(), loki, &source);
}

/// Where a clock is ahead, Loki takes events some time later: they are late, and not refused.
#[test]
fn what_is_in_lokis_future_arrives_when_it_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["creation_grace_period: 5s"]);
    let source = Source::with(Arc::new(ManualClock::new(Nanos(now() + 30 * SECOND))));
    source.grow(60);
    kept_by(&source, &loki, "clock");
    arrives(&loki, &source);
}

/// Of lines of one stream, those that fit into its rate are taken, and the answer is 429: the others are sent, and these aren't
/// sent again.
#[test]
fn what_fits_into_a_streams_rate_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let limits = [
        "per_stream_rate_limit: 100KB",
        "per_stream_rate_limit_burst: 200KB",
        // Else it takes all lines of a push or none.
        "shard_streams: { enabled: false }",
    ];
    let loki = started(dir.path(), &limits);
    let begun = now();
    let source = Source::new();
    source.grow(3_000);
    let run = source.deliver(sink(&loki.url()));
    source.delivered(&run);
    assert!(
        run.control.health().numbers().found > 0,
        "some had been taken: {:?}",
        run.control.health().numbers()
    );
    let report = source.prove(&run);
    assert!(report.is_proven() && report.rejected == 0, "{report:?}");
    loki.flush();
    assert_eq!(counted(&loki, (begun - 60 * SECOND, now() + 2 * SECOND)), source.log.size());
    source.stop(run);
}

/// Repeats of lines that aren't in a head block any more count twice, and a question for lines shows them once.
#[test]
fn lines_that_are_there_twice_are_named_although_loki_shows_them_once() {
    for events in [60, 2_500] {
        let dir = tempfile::tempdir().unwrap();
        let (loki, begun) = (started(dir.path(), &[]), now());
        let proxy = Flaky::http(loki.service.port());
        proxy.only("/push");
        proxy.keep();
        let source = Source::new();
        source.grow(events);
        let run = source.deliver(sink(&proxy.url()));
        source.delivered(&run);
        assert!(source.prove(&run).is_proven());
        let span = (begun - 60 * SECOND, now() + 2 * SECOND);
        let requests = proxy.kept();
        // As long as a flush leaves a line in its head block, Loki drops its repeat.
        until_true("Loki counts more lines than there are events", DEADLINE, || {
            loki.flush();
            Flaky::again(&requests, 1, loki.service.port());
            counted(&loki, span) > source.log.size()
        });
        let report = source.prove(&run);
        assert!(!report.is_proven() && report.missing.count == 0, "{report:?}");
        let unproven = report.unproven.iter().map(|part| part.to - part.from).sum::<u64>();
        assert!(report.duplicated.count + unproven > 0, "{report:?}");
        if unproven == 0 {
            let times = |what: &str| -> u64 {
                what.strip_prefix("it is there ").unwrap().strip_suffix(" times").unwrap().parse().unwrap()
            };
            let repeats: u64 = report.duplicated.first.iter().map(|finding| times(&finding.what) - 1).sum();
            let repeats = repeats + report.duplicated.count - report.duplicated.first.len() as u64;
            assert!(
                repeats <= counted(&loki, span) - source.log.size(),
                "no more than Loki counts: {report:?}"
            );
        }
        source.stop(run);
    }
}

/// To a question for what is older than it looks back, Loki answers that there is nothing.
#[test]
fn what_loki_does_not_look_back_to_is_not_taken_for_absent() {
    is_not_taken_for_absent(&tempfile::tempdir().unwrap(), "max_query_lookback: 2h");
}

/// Of that its common configuration says nothing.
#[test]
fn what_loki_does_not_look_back_to_for_a_tenant_is_not_taken_for_absent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("overrides.yaml");
    let overrides = format!("overrides:\n  another: {{}}\n  {TENANT}:\n    max_query_lookback: 2h\n");
    std::fs::write(&file, overrides).unwrap();
    is_not_taken_for_absent(
        &dir,
        &format!("max_query_lookback: 0s\nruntime_config:\n  file: {}", file.display()),
    );
}

/// What is dated farther back than Loki looks for it in its own memory lies there when it was taken, and doesn't show.
#[test]
fn what_loki_has_in_memory_and_does_not_look_for_there_is_not_taken_for_absent() {
    const HIDDEN: &str = "until they are flushed";
    let dir = tempfile::tempdir().unwrap();
    // A single process that isn't told how far it looks, looks as far as a chunk lasts, and 41 minutes.
    let arguments = ["-ingester.query-store-max-look-back-period=0", "-ingester.max-chunk-age=1h"];
    let loki = started_with(dir.path(), &arguments);
    let source = Source::with(Arc::new(ManualClock::new(Nanos(now() - 2 * 3_600 * SECOND))));
    source.grow(100);
    kept_by(&source, &loki, HIDDEN);
    let again = Settings { sends_old_again: true, ..super::loki::settings(&loki.url()) };
    let run = source.deliver(sink_with(again));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(!report.is_proven() && report.missing.count == 0, "what isn't shown isn't missing: {report:?}");
    assert!(report.unproven[0].reason.contains(HIDDEN), "{report:?}");
    source.stop(run);
    // It looks for all of it.
    arrives_with(&[], dir.path(), loki, &source);
}

/// As the gateway of Loki's own chart does, which lets `/config` through and nothing below it.
#[test]
fn where_a_tenants_limits_are_not_told_nothing_old_is_taken_for_absent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("overrides.yaml");
    std::fs::write(&file, "overrides: {}\n").unwrap();
    let limit = format!("max_query_lookback: 0s\nruntime_config:\n  file: {}", file.display());
    let loki = started(dir.path(), &[&limit]);
    let gateway = Flaky::http(loki.service.port());
    gateway.only("/config/tenant");
    gateway.set(Fault::Answer(404, None));
    let source = Source::with(Arc::new(ManualClock::new(Nanos(now() - 5 * 3_600 * SECOND))));
    source.grow(100);
    kept_at(&source, &gateway.url(), "/config/tenant/v1/limits");
    gateway.set(Fault::Pass);
    arrives_at(&gateway.url(), &source);
}

/// Where a question may be for a short time only, more of them are asked.
#[test]
fn a_loki_that_answers_for_an_hour_at_most_is_asked_more_often() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["max_query_length: 1h"]);
    let clock = Arc::new(ManualClock::new(Nanos(now() - 5 * 3_600 * SECOND)));
    let source = Source::with(clock.clone());
    source.grow(100);
    clock.advance(Duration::from_secs(4 * 3_600));
    source.grow(100);
    for _ in 0..2 {
        let run = source.deliver(sink(&loki.url()));
        source.delivered(&run);
        source.stop(run);
        // All of it is in doubt.
        std::fs::remove_file(source.dir.path().join("sink/position.json")).unwrap();
    }
    arrives_with(&[], dir.path(), loki, &source);
}

/// In nanoseconds, the hour before the ninth from now.
fn an_old_hour() -> u64 {
    let hour = 3_600 * SECOND;
    (now() / hour - 9) * hour
}

/// Takes a line of another log into the stream for what is old of that name.
fn take_into(loki: &Loki, stream: &str, time: u64) {
    let labels = json!({ "hour": stream, "job": "custody", "origin": "backfill" });
    let others = json!({ "log_origin": "another.log" });
    assert_eq!(loki.push_with(TENANT, &labels, (time, "another's"), &others).unwrap().status, 204);
}

/// With half of its usual `max_chunk_age` it is half an hour that a line may lie behind its stream's newest.
#[test]
fn what_is_old_arrives_although_loki_takes_nothing_that_is_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started_with(dir.path(), &["-ingester.max-chunk-age=1h"]);
    let (hour, minute) = (an_old_hour(), 60 * SECOND);
    let name = Timestamp::from(Nanos(hour)).to_string();
    take_into(&loki, &name[..13], hour + 55 * minute);
    take_into(&loki, &format!("{}:30", &name[..13]), hour + 55 * minute);
    // So that all of the log is old.
    take_into(&loki, "now", now());
    let clock = Arc::new(ManualClock::new(Nanos(hour + 2 * minute)));
    let source = Source::with(clock.clone());
    source.grow(40);
    clock.advance(Duration::from_secs(50 * 60));
    source.grow(40);
    arrives(&loki, &source);
}

/// Where somebody else has written into that stream, they wait until it is over.
#[test]
fn what_is_too_far_behind_its_stream_of_old_lines_waits_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started_with(dir.path(), &["-ingester.max-chunk-age=1h"]);
    let (hour, minute) = (an_old_hour(), 60 * SECOND);
    let name = Timestamp::from(Nanos(hour)).to_string();
    take_into(&loki, &format!("{}:00", &name[..13]), hour + 55 * minute);
    take_into(&loki, "now", now());
    let source = Source::with(Arc::new(ManualClock::new(Nanos(hour + 2 * minute))));
    source.grow(40);
    kept_by(&source, &loki, "so far behind its stream");
    arrives_with(&[], dir.path(), loki, &source);
}

fn is_not_taken_for_absent(dir: &TempDir, limit: &str) {
    let loki = started(dir.path(), &[limit]);
    let clock = Arc::new(ManualClock::new(Nanos(now() - 5 * 3_600 * SECOND)));
    let source = Source::with(clock.clone());
    source.grow(100);
    clock.advance(Duration::from_secs(4 * 3_600));
    source.grow(100);
    // It is an old log for a new sink: what is there already is asked for first.
    kept_by(&source, &loki, "max_query_lookback");
    let again = Settings { sends_old_again: true, ..super::loki::settings(&loki.url()) };
    let run = source.deliver(sink_with(again));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(!report.is_proven() && report.missing.count == 0, "what isn't shown isn't missing: {report:?}");
    assert!(report.unproven[0].reason.contains("max_query_lookback"), "{report:?}");
    source.stop(run);
    let loki = arrives_with(&["max_query_lookback: 0s"], dir.path(), loki, &source);
    assert_eq!(
        loki.lines(TENANT, r#"{job="custody"}"#, (now() - 6 * 3_600 * SECOND, now())).len() as u64,
        source.log.size()
    );
}
