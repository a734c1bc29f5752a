//! More people, nodes, sessions and commands than Loki gives series as it is installed: with the limits that docker/loki.yaml has
//! each panel shows something all the same.

use super::day::TENANT;
use super::grafana::ask;
use crate::alerts::send;
use crate::loki_now;
use custody_tests::pictures::dashboards;
use custody_tests::root;
use custody_tests::servers::Loki;
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::{Value, json};

/// Loki's own limit is 500.
const CROWD: u64 = 700;
/// How long after one the next one comes, in seconds: over hours, which Loki asks one by one.
const APART: u64 = 12;

/// What one of them does, whom nobody is like.
fn does(n: u64) -> Vec<Value> {
    let said = |kind: &str, outcome: &str, data: Value| {
        json!({
            "type": kind, "outcome": outcome, "seconds": n * APART, "data": data,
            "actor": {"user": format!("user-{n}")},
            "session": format!("01900000-0000-7000-8000-{n:012}"),
            "source": {"address": format!("192.0.{}.{}", n / 250, n % 250 + 1), "port": 50_000},
            "target": {"kind": "node", "login": "root", "name": format!("web-{n}")},
        })
    };
    vec![
        said("login.failed", "failure", json!({"claimed_user": format!("user-{n}")})),
        said("login.succeeded", "success", json!({})),
        said("session.requested", "success", json!({})),
        said("session.started", "success", json!({})),
        said("decision.made", "denied", json!({"allowed": false, "resource": format!("web-{n}")})),
        said("command.requested", "success", json!({"command": format!("run {n}")})),
        said("command.completed", "failure", json!({"exit_status": 1})),
        said("session.ended", "success", json!({})),
    ]
}

/// The limit that docker/loki.yaml sets.
fn limit() -> String {
    let file = std::fs::read_to_string(root().join("docker/loki.yaml")).unwrap();
    let line = file.lines().find(|line| line.trim_start().starts_with("max_query_series:"));
    line.expect("docker/loki.yaml allows for more series").trim().to_owned()
}

#[test]
fn a_crowd_is_not_too_much_for_any_panel_of_loki() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(dir.path(), &[&limit()]);
    loki.start();
    let now = loki_now();
    let events: Vec<Value> = (0..CROWD).flat_map(does).collect();
    send(&loki, TENANT, &events, now);
    let day = (now - CROWD * APART) * 1_000_000_000..(now + 1) * 1_000_000_000;
    let queries: Vec<_> = dashboards("loki").iter().flat_map(|dashboard| dashboard.queries()).collect();
    let named = |panel: &str| queries.iter().find(|query| query.panel == panel).expect("a panel");
    until_true("Loki shows all of them", DEADLINE, || {
        ask(&loki, &day, named("Commands")).is_ok_and(|found| found.total == CROWD as f64)
    });
    let refused: Vec<String> = queries
        .iter()
        .filter_map(|query| Some((query, ask(&loki, &day, query).err()?)))
        .map(|(query, reason)| format!("{}: {}: {reason}", query.dashboard, query.panel))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    for (panel, rows) in
        [("Top commands", 100), ("Who, what, where", 100), ("How long", 500), ("By node", 50)]
    {
        assert_eq!(ask(&loki, &day, named(panel)).unwrap().rows.len(), rows, "{panel}");
    }
}
