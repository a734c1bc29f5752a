use custody_tests::servers::Loki;
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

const TENANT: &str = "acme";
const SECOND: u64 = 1_000_000_000;

/// A moment ago: a query asks those who have the last three hours in memory for no older lines.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    u64::try_from(since).unwrap() - SECOND
}

/// The minute around it.
fn around(time: u64) -> (u64, u64) {
    (time - 30 * SECOND, time + 30 * SECOND)
}

fn started(dir: &std::path::Path, limits: &[&str]) -> Loki {
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
