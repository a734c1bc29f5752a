//! The API, asked by curl.

use custody_tests::servers::World;
use custody_tests::wait::{self, DEADLINE};
use std::io::BufRead;
use std::process::{Command, Stdio};

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    let world = World::start();
    world.ssh(&[], "true", b"").ok();
    let ndjson = ["-H", "Accept: application/x-ndjson"];
    let whole = world.entries("");
    let mut cursor = String::new();
    let mut lines = Vec::new();
    loop {
        let query = if cursor.is_empty() {
            "/v1/events?limit=3".to_owned()
        } else {
            format!("/v1/events?limit=3&cursor={cursor}")
        };
        let answer = world.admin.request(&query, &ndjson);
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().contains("application/x-ndjson"));
        cursor = answer.header("custody-cursor").expect("the next cursor, on an empty page too");
        let page: Vec<String> = answer.text().lines().map(str::to_owned).collect();
        assert!(page.len() <= 3);
        lines.extend(page);
        if lines.len() >= whole.len() {
            break;
        }
    }
    for (line, entry) in lines.iter().zip(&whole) {
        assert_eq!(*line, entry.line);
    }
    let empty = world.admin.request("/v1/events?type=login.succeeded&text=nothing-of-the-kind", &ndjson);
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    assert!(empty.header("custody-cursor").is_some());

    // The cursor of an empty page is where new events come.
    let cursor = empty.header("custody-cursor").unwrap();
    world.ssh(&[], "echo nothing-of-the-kind", b"").ok();
    let query = format!("/v1/events?text=nothing-of-the-kind&type=command.requested&cursor={cursor}");
    let next = world.admin.request(&query, &ndjson);
    assert_eq!(next.text().lines().count(), 1, "{}", next.text());
}

#[test]
fn filters_find_what_they_say() {
    let world = World::start();
    world.ssh(&[], "echo needle-in-the-log", b"").ok();
    let found =
        world.event("text=needle-in-the-log&type=command", "the command is found by its words", |_| true);
    assert_eq!(found.kind(), "command.requested");
    for entry in world.entries("user=bob") {
        assert_eq!(entry.event["actor"]["user"], "bob");
    }
    for entry in world.entries("type=decision") {
        assert!(entry.kind().starts_with("decision."));
    }
    let first = serde_json::from_str::<serde_json::Value>(&world.entries("")[4].line).unwrap();
    let until = first["appended"].as_str().unwrap().replace('+', "%2B");
    let before = world.entries(&format!("until={until}"));
    assert!(before.len() >= 5 && before.len() < world.entries("").len());
    for wrong in ["limit=0", "limit=x", "limit=100000", "until=yesterday", "cursor=%00", "colour=blue"] {
        let answer = world.admin.request(&format!("/v1/events?{wrong}"), &[]);
        assert!([400, 422].contains(&answer.status), "{wrong}: {} {}", answer.status, answer.text());
        assert!(answer.json()["error"].is_string(), "{wrong}: {}", answer.text());
    }
}

#[test]
fn events_are_followed_as_server_sent_events() {
    let world = World::start();
    let from = world.entries("").len();
    let home = &world.admin.dir;
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--no-buffer", "-H", "Accept: text/event-stream", "--cacert"])
        .arg(home.join("ca.pem"));
    command.arg("--cert").arg(home.join("client.pem")).arg("--key").arg(home.join("client.key"));
    command.arg(format!("{}/v1/events?type=command&from={from}", world.custodyd.url()));
    let mut curl = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = curl.stdout.take().unwrap();
    let (sender, lines) = std::sync::mpsc::sync_channel(1000);
    let reader = std::thread::spawn(move || {
        for line in std::io::BufReader::new(out).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    world.ssh(&[], "echo followed", b"").ok();
    let (mut id, mut data) = (None, None);
    wait::until_true("the command is followed", DEADLINE, || {
        if let Ok(line) = lines.try_recv() {
            if let Some(value) = line.strip_prefix("id:") {
                id = Some(value.trim().to_owned());
            }
            if let Some(value) = line.strip_prefix("data:").filter(|v| v.contains("command.requested")) {
                data = Some(value.trim().to_owned());
            }
        }
        // The id is that from which it can be taken up again.
        id.is_some() && data.is_some()
    });
    curl.kill().unwrap();
    curl.wait().unwrap();
    drop(lines);
    reader.join().unwrap();
    let entry: serde_json::Value = serde_json::from_str(&data.unwrap()).unwrap();
    assert_eq!(entry["event"]["data"]["command"], "echo followed");
}

#[test]
fn who_may_ask_is_decided_and_nobody_else_learns_anything() {
    let world = World::start();
    let routes =
        ["/v1/events", "/v1/state", "/v1/sessions", "/v1/nodes", "/v1/whoami", "/metrics", "/v1/checkpoint"];
    let stranger = custody_tests::servers::custodyd::Home::new(
        &world.custodyd,
        &world.dir().join("stranger"),
        "stranger",
    );
    std::fs::create_dir_all(&stranger.dir).unwrap();
    for route in routes {
        let url = format!("{}{route}", world.custodyd.url());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--cacert"])
            .arg(world.admin.dir.join("ca.pem"));
        let said = custody_tests::process::run(curl.arg(&url), b"", DEADLINE);
        assert_eq!(said.text(), "401", "{route} without a certificate");
        assert_eq!(world.admin.request(route, &[]).status, 200, "{route} as an administrator");
    }
    for (name, body) in [
        ("create-user", serde_json::json!({"name": "x", "roles": ["admin"]})),
        ("set-roles", serde_json::json!({"name": "bob", "roles": ["admin", "operator"]})),
        (
            "upload-policy",
            serde_json::json!({"name": "x", "text": "@id(\"x\")\npermit(principal, action, resource);"}),
        ),
        ("set-password", serde_json::json!({"name": "alice", "password": "mine now"})),
        ("remove-node", serde_json::json!({"name": "web-1"})),
    ] {
        let answer = world.operator.post(name, &body);
        assert_eq!(answer.status, 403, "{name}: {}", answer.text());
        assert!(answer.json()["error"].is_string());
    }
    let decisions = world.entries("type=decision.made&user=bob");
    assert!(decisions.iter().filter(|d| d.event["data"]["allowed"] == false).count() >= 5);
    assert_eq!(world.entries("type=user.changed").len(), 0);
}

#[test]
fn commands_change_the_state_once_they_are_answered() {
    let world = World::start();
    let answer =
        world.admin.post("create-role", &serde_json::json!({"name": "auditor", "description": "Reads"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let index = answer.json()["index"].as_u64().unwrap();
    let entry = world.entries("type=role.created").pop().unwrap();
    assert_eq!((entry.index, &entry.event["id"]), (index, &answer.json()["id"]));
    let decision = world
        .entries("type=decision.made")
        .into_iter()
        .find(|d| d.event["id"] == entry.event["cause"])
        .unwrap();
    assert_eq!(decision.event["data"]["allowed"], true);
    assert_eq!(
        world.admin.post("create-role", &serde_json::json!({"name": "auditor", "description": ""})).status,
        409
    );
    assert_eq!(world.admin.post("remove-node", &serde_json::json!({"name": "nowhere"})).status, 404);
    assert_eq!(world.admin.post("create-role", &serde_json::json!({"nam": "x"})).status, 422);
    assert_eq!(world.admin.post("fly", &serde_json::json!({})).status, 404);
    let state = world.admin.request("/v1/state", &[]);
    assert!(state.text().contains("\"auditor\""), "{}", state.text());
}

/// Asking is not telling: readers leave few events, and none that cause more.
#[test]
fn reading_doesn_t_feed_the_log() {
    let world = World::start();
    let before = world.entries("").len();
    for _ in 0..50 {
        assert_eq!(world.admin.request("/v1/events?limit=10", &[]).status, 200);
    }
    let after = world.entries("").len();
    assert!(after - before <= 5, "50 reads left {} events", after - before);
    assert!(!world.entries("type=log.read&user=alice").is_empty(), "reading left none at all");
}

#[test]
fn metrics_are_prometheus_s() {
    let world = World::start();
    world.ssh(&[], "true", b"").ok();
    let text = world.admin.request("/metrics", &[]).text();
    assert!(text.lines().any(|l| l.starts_with("# TYPE custody_")), "{text}");
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (_, value) = line.rsplit_once(' ').expect(line);
        value.parse::<f64>().expect(line);
    }
}
