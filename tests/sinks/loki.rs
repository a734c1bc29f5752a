use super::campaign::{ORIGIN, Source};
use super::siege::{Store, besiege};
use custody_core::clock::{ManualClock, Nanos, SystemClock};
use custody_core::delivery::Verdict;
use custody_sinks::http::Endpoint;
use custody_sinks::loki::Settings;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::{Limits, Sink, Window};
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::{Loki, World};
use custody_tests::volume::{Journal, Volume};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const TENANT: &str = "acme";
const SECOND: u64 = 1_000_000_000;

/// A moment ago: a query asks those who have the last three hours in memory for no older lines.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    u64::try_from(since).unwrap() - SECOND
}

/// The minute around it.
fn around(time: u64) -> (u64, u64) {
    (time - 30 * SECOND, time + 30 * SECOND)
}

pub fn started(dir: &std::path::Path, limits: &[&str]) -> Loki {
    let mut loki = Loki::prepare(dir, limits);
    loki.start();
    loki
}

#[test]
fn what_loki_has_taken_is_there_after_kill_9_and_for_its_tenant_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = started(dir.path(), &[]);
    let t0 = now();
    let labels = json!({ "job": "custody", "family": "login" });
    let lines = [(t0, "one"), (t0 + 1, "two"), (t0 + 2, "three")];
    assert_eq!(loki.push(TENANT, &labels, &lines).unwrap().status, 204);
    assert_eq!(loki.push(TENANT, &labels, &lines[2..]).unwrap().status, 204, "an exact repeat");
    let query = r#"{job="custody"}"#;
    assert_eq!(loki.lines(TENANT, query, around(t0)), ["one", "two", "three"]);
    let pid = loki.service.pid();
    loki.service.kill_now();
    loki.start();
    assert_ne!(loki.service.pid(), pid);
    assert_eq!(loki.lines(TENANT, query, around(t0)), ["one", "two", "three"]);
    assert!(loki.lines("another", query, around(t0)).is_empty());
}

#[test]
fn loki_refuses_what_its_limits_say() {
    let dir = tempfile::tempdir().unwrap();
    let limits =
        ["max_global_streams_per_user: 2", "max_line_size: 1KB", "max_entries_limit_per_query: 5000"];
    let loki = started(dir.path(), &limits);
    let t0 = now();
    let push = |user: &str, line: &str| {
        let answer = loki.push(TENANT, &json!({ "user": user }), &[(t0, line)]).unwrap();
        (answer.status, answer.text)
    };
    assert_eq!(push("a", "short").0, 204);
    let (status, text) = push("a", &"x".repeat(2000));
    assert!(status == 400 && text.contains("max entry size"), "{status} {text}");
    assert_eq!(push("b", "short").0, 204);
    let (status, text) = push("c", "short");
    assert!(status == 429 && text.contains("stream"), "{status} {text}");
}

#[test]
fn a_line_can_be_deleted_from_loki() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = started(dir.path(), &[]);
    let t0 = now();
    let lines = [(t0, "kept"), (t0 + 1, "taken away")];
    loki.push(TENANT, &json!({ "job": "custody" }), &lines).unwrap().ok();
    let query = r#"{job="custody"}"#;
    assert_eq!(loki.lines(TENANT, query, around(t0)), ["kept", "taken away"]);
    loki.delete(TENANT, r#"{job="custody"} |= "taken""#, (t0 - 30 * SECOND, now() + SECOND)).unwrap().ok();
    loki.service.kill_now();
    loki.start();
    assert_eq!(loki.lines(TENANT, query, around(t0)), ["kept"]);
}

#[test]
fn a_paused_loki_answers_when_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &[]);
    let t0 = now();
    loki.service.pause();
    std::thread::scope(|scope| {
        let push = scope.spawn(|| loki.push(TENANT, &json!({ "job": "custody" }), &[(t0, "late")]));
        until_true("the request waits", DEADLINE, || connections_to(loki.service.port()) > 0);
        assert!(!push.is_finished());
        loki.service.resume();
        push.join().unwrap().unwrap().ok();
    });
    assert_eq!(loki.lines(TENANT, r#"{job="custody"}"#, around(t0)), ["late"]);
}

/// How many connections to `port` stand (proc(5): column 2 is the remote address in hex, 3 the state, 01 when it stands).
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let end = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| {
            let mut words = line.split_whitespace().skip(2);
            words.next().is_some_and(|remote| remote.ends_with(&end)) && words.next() == Some("01")
        })
        .count()
}

/// Everything that the log has, once, as Loki itself counts it: not by what its queries show, which hide repeats.
pub fn counted(loki: &Loki, (start, end): (u64, u64)) -> u64 {
    let span = end.div_ceil(SECOND) - start / SECOND + 1;
    let query = format!("sum(count_over_time({{job=\"custody\"}}[{span}s]))");
    loki.count(TENANT, &query, end.div_ceil(SECOND))
}

pub fn settings(url: &str) -> Settings {
    Settings {
        endpoint: Endpoint { url: url.to_owned(), ca: None, auth: None },
        tenant: Some(TENANT.to_owned()),
        sends_old_again: false,
        job: "custody".to_owned(),
    }
}

pub fn sink_with(settings: Settings) -> custody_sinks::loki::Loki {
    let nothing = Secrets::new(std::path::Path::new("/nowhere"));
    custody_sinks::loki::Loki::new(settings, nothing, ORIGIN, Arc::new(SystemClock::new()))
}

pub fn sink(url: &str) -> custody_sinks::loki::Loki {
    sink_with(settings(url))
}

/// The server is killed three times, the delivery more often; answers are cut off, swallowed, late, or 429.
#[test]
fn each_event_is_in_loki_once_whatever_fails() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = started(dir.path(), &["ingestion_rate_mb: 2", "ingestion_burst_size_mb: 2"]);
    let proxy = Flaky::http(loki.service.port());
    let source = Source::new();
    let begun = now();
    for round in 0..12 {
        let run = source.deliver(sink(&proxy.url()));
        match round % 4 {
            0 => proxy.next(2, Fault::Swallow),
            1 => proxy.next(2, Fault::Cut),
            2 => proxy.next(2, Fault::Answer(429, Some(0))),
            _ => proxy.next(1, Fault::Answer(503, None)),
        }
        source.grow(1_000);
        if round % 4 == 1 {
            loki.service.kill_now();
            source.grow(1_000);
            loki.start();
        }
        source.kill(run);
    }
    proxy.set(Fault::Pass);
    let run = source.deliver(sink(&proxy.url()));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(report.is_proven(), "{} missing, {:?}", report.missing.count, report.unproven);
    assert_eq!(counted(&loki, (begun - 60 * SECOND, now() + 2 * SECOND)), source.log.size());
    // As it does after half an hour; then a repeat would count.
    loki.flush();
    assert_eq!(counted(&loki, (begun - 60 * SECOND, now() + 2 * SECOND)), source.log.size());
    source.stop(run);
}

/// One line that is too long is a dead letter with Loki's own reason; the others of its push arrive, once.
#[test]
fn a_line_that_loki_refuses_is_a_dead_letter_and_the_others_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["max_line_size: 1KB"]);
    let source = Source::new();
    let begun = now();
    source.grow(400);
    let run = source.deliver(sink(&loki.url()));
    source.delivered(&run);
    let letters = source.runtime.block_on(run.control.dead_letters()).unwrap();
    assert!(
        !letters.is_empty() && letters.iter().all(|letter| letter.reason.contains("max entry size")),
        "{letters:?}"
    );
    let report = source.prove(&run);
    assert!(report.verdict() == Verdict::Incomplete && report.proven > 0, "{report:?}");
    assert_eq!(report.proven + report.rejected, report.size);
    assert_eq!(counted(&loki, (begun - 60 * SECOND, now() + 2 * SECOND)), report.proven);
    source.stop(run);
}

/// What was lost in the store is named.
#[test]
fn lines_that_are_gone_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = started(dir.path(), &[]);
    let source = Source::new();
    let begun = now();
    source.grow(2_500);
    let run = source.deliver(sink(&loki.url()));
    source.delivered(&run);
    assert!(source.prove(&run).is_proven());
    // Somebody deletes all failed logins. Loki does so at its next start.
    let span = (begun - 60 * SECOND, now() + SECOND);
    assert_eq!(loki.delete(TENANT, r#"{job="custody", family="login"}"#, span).unwrap().status, 204);
    loki.flush();
    loki.service.stop();
    loki.start();
    let report = source.prove(&run);
    assert!(!report.is_proven() && report.missing.count > 0, "{report:?}");
    assert!(report.missing.first[0].what.contains("login.failed"), "{report:?}");
    source.stop(run);
}

/// What isn't ours among our streams is named, and so is what says that it is ours.
#[test]
fn lines_that_were_added_or_altered_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &[]);
    let source = Source::new();
    source.grow(50);
    let run = source.deliver(sink(&loki.url()));
    source.delivered(&run);
    let labels = json!({ "job": "custody", "family": "log", "outcome": "none", "producer": "log" });
    assert_eq!(loki.push(TENANT, &labels, &[(now(), "{\"a\":1}")]).unwrap().status, 204);
    let time = source.log.read(20, 1, 0).unwrap()[0].appended.0;
    let claims = json!({ "log_index": "20", "log_origin": ORIGIN, "log_leaf": "00" });
    assert_eq!(loki.push_with(TENANT, &labels, (time, "{\"b\":2}"), &claims).unwrap().status, 204);
    // By an index that is no number nothing can be counted.
    let claims = json!({ "log_index": "x", "log_origin": ORIGIN });
    assert_eq!(loki.push_with(TENANT, &labels, (time, "{\"c\":3}"), &claims).unwrap().status, 204);
    let report = source.prove(&run);
    assert_eq!((report.extra.count, report.altered.count), (2, 1), "{report:?}");
    assert!(report.unproven.is_empty(), "{report:?}");
    assert_eq!(report.altered.first[0].index, Some(20));
    source.stop(run);
}

/// As many lines with one time as no page holds: what can't be seen is not proven, and not complete.
#[test]
fn more_lines_with_one_time_than_a_page_holds_are_not_proven() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &["max_entries_limit_per_query: 1000"]);
    let begun = now();
    let source = Source::new();
    source.grow(3_000);
    let run = source.deliver(sink(&loki.url()));
    source.delivered(&run);
    assert!(source.prove(&run).is_proven(), "3,000 lines in streams of all lengths, by pages of 1,000");
    let time = source.log.read(1_500, 1, 0).unwrap()[0].appended.0;
    let labels = json!({ "job": "custody", "family": "added" });
    let lines: Vec<String> = (0..1_200).map(|n| format!("line {n}")).collect();
    let lines: Vec<(u64, &str)> = lines.iter().map(|line| (time, line.as_str())).collect();
    assert_eq!(loki.push(TENANT, &labels, &lines).unwrap().status, 204);
    let report = source.prove(&run);
    assert!(!report.is_proven() && !report.unproven.is_empty(), "{report:?}");
    assert!(report.unproven[0].reason.contains("not all of them can be seen"), "{report:?}");
    assert_eq!(report.missing.count, 0, "what isn't seen isn't called missing");
    // To whoever gives a log back they are nothing.
    let window = Window { indexes: 0..0, appended: Nanos(begun)..Nanos(now() + 2 * SECOND) };
    let found = source.runtime.block_on(sink(&loki.url()).read_back(&window)).unwrap();
    assert_eq!((found.documents.len() as u64, found.perhaps_more), (source.log.size(), None));
    source.stop(run);
}

/// Loki takes nothing that lies more than an hour behind its stream: what is old has streams of its own.
#[test]
fn what_is_old_arrives_although_newer_lines_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let loki = started(dir.path(), &[]);
    let others = json!({ "log_origin": "another.log" });
    let labels = json!({ "job": "custody", "family": "log", "outcome": "none", "producer": "log" });
    assert_eq!(loki.push_with(TENANT, &labels, (now(), "newer"), &others).unwrap().status, 204);
    let clock = Arc::new(ManualClock::new(Nanos(now() - 9 * 3_600 * SECOND)));
    let source = Source::with(clock.clone());
    for _ in 0..5 {
        source.grow(40);
        clock.advance(Duration::from_secs(3_600));
    }
    let run = source.deliver(sink(&loki.url()));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(report.is_proven(), "{} missing, {:?}", report.missing.count, report.unproven);
    let all = (now() - 10 * 3_600 * SECOND, now());
    assert_eq!(loki.lines(TENANT, r#"{origin="backfill"}"#, all).len() as u64, source.log.size());
    source.stop(run);
}

/// With a log that is older than this moment by less than Loki's head block lives.
struct Besieged {
    loki: Loki,
    begun: u64,
}

impl Store for Besieged {
    // It takes 4 MB a second, in which a round may go by.
    const EVENTS: u64 = 60_000;

    fn table(&self, port: u16) -> String {
        format!("[sink.loki]\ntenant = \"{TENANT}\"\nendpoint = {{ url = \"http://127.0.0.1:{port}\" }}\n")
    }

    fn limits(&self) -> Limits {
        sink(&self.loki.url()).limits()
    }

    fn proxy(&mut self) -> Flaky {
        Flaky::http(self.loki.service.port())
    }

    fn kill(&mut self) {
        self.loki.service.kill_now();
    }

    fn start(&mut self) {
        self.loki.start();
    }

    /// A write-ahead log that could not be written may be torn.
    fn relieve(&mut self) {
        self.loki.start_afresh();
    }

    fn may_lose(&self) -> bool {
        true
    }

    fn age(&self) {
        self.loki.flush();
    }

    fn count(&self) -> u64 {
        counted(&self.loki, (self.begun - 60 * SECOND, now() + 2 * SECOND))
    }
}

#[test]
fn loki_under_siege_has_each_event_once() {
    besiege(|disk| Besieged { loki: Loki::prepare(disk, &["ingestion_rate_mb: 4"]), begun: now() });
}

/// With a full disk Loki acknowledges lines that it only has in memory: when it is killed then, they are gone. The proof
/// names them, and they are delivered again.
#[test]
fn what_loki_acknowledged_with_a_full_disk_and_lost_is_named_and_delivered_again() {
    let volume = Volume::new(256, 300, Journal::With);
    let mut loki = Loki::prepare(&volume.disk(), &[]);
    // It looks at its disk every ten seconds, and until then acknowledges what it can't write: here for as long as the test takes.
    loki.service = loki.service.arguments(["-ingester.wal-disk-full-threshold=0"]);
    loki.start();
    let mut world = World::start();
    world.custodyd.stop();
    let table = format!(
        "[[sink]]\nname = \"store\"\n[sink.loki]\ntenant = \"{TENANT}\"\nendpoint = {{ url = \"{}\" }}\n",
        loki.url()
    );
    world.custodyd.configure(&table);
    world.custodyd.start();
    let verify = |arguments: &[&str]| {
        world.admin.try_custody(&[&["sinks", "verify", "store"], arguments].concat(), b"")
    };
    until_true("it is all there", DEADLINE, || verify(&[]).code == 0);
    let full = volume.fill();
    for n in 0..3 {
        world.ssh(&[], &format!("echo session {n}"), b"").ok();
    }
    until_true("it is all there, says Loki", DEADLINE * 4, || verify(&[]).code == 0);
    loki.service.kill_now();
    drop(full);
    loki.start();
    let said = verify(&["--repair"]);
    assert!(said.code != 0 && said.text().contains("MISSING"), "{}{}", said.err, said.text());
    until_true("it is all there again", DEADLINE, || verify(&[]).code == 0);
}

/// What a full disk does to Loki's write-ahead log, and what its operator does then, as docs/sinks.md says: behind a tear Loki
/// acknowledges what the next failure takes away, however much room there is again.
#[test]
fn behind_a_tear_in_lokis_write_ahead_log_nothing_is_kept_until_it_is_started_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = started(dir.path(), &[]);
    let labels = json!({ "job": "custody" });
    let begun = now();
    let push =
        |loki: &Loki, line| assert_eq!(loki.push(TENANT, &labels, &[(now(), line)]).unwrap().status, 204);
    let lines = |loki: &Loki| loki.lines(TENANT, r#"{job="custody"}"#, (begun, now()));
    push(&loki, "before");
    loki.service.kill_now();
    tear(&loki);
    loki.start();
    push(&loki, "behind the tear");
    assert!(lines(&loki).contains(&"behind the tear".to_owned()), "it says that it has it");
    loki.service.kill_now();
    loki.start();
    assert!(!lines(&loki).contains(&"behind the tear".to_owned()), "it has lost it");
    loki.start_afresh();
    push(&loki, "afresh");
    loki.service.kill_now();
    loki.start();
    assert!(lines(&loki).contains(&"afresh".to_owned()));
}

/// Cuts the last record of its write-ahead log in the middle.
fn tear(loki: &Loki) {
    let segments = std::fs::read_dir(loki.write_ahead_log()).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|path| path.is_file() && path.metadata().unwrap().len() > 0).max().unwrap();
    let file = std::fs::File::options().write(true).open(last).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
}
