//! Programs of others that pull events, as SIEMs do: by links, by server-sent events, by curl; while the daemon is killed.

use custody_tests::process::{Said, run};
use custody_tests::random::Random;
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::wait::{self, DEADLINE};
use custody_tests::{program, python};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const READS: &str = r#"@id("siem-reads")
permit(principal in Role::"siem", action == Action::"events:read", resource);
"#;

/// A world with a service account `siem`, and the file with its token.
fn world() -> (World, PathBuf) {
    let world = World::start();
    world.admin.custody(&["role", "add", "siem", "--description", "Reads events"]);
    world.policy("siem", READS);
    let said = world.admin.custody(&["service", "add", "siem", "--role", "siem", "--days", "7"]);
    assert!(said.err.contains("isn't shown again"), "{}", said.err);
    let token = world.dir().join("token");
    std::fs::write(&token, said.out).unwrap();
    (world, token)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ca(world: &World) -> PathBuf {
    world.custodyd.data().join(layout::SERVER_CA)
}

/// curl with the token, from a file so that no list of processes shows it.
fn curl(world: &World, token: &Path, arguments: &[&str], path: &str) -> Said {
    let header = world.dir().join("header");
    let shown = std::fs::read_to_string(token).unwrap();
    std::fs::write(&header, format!("Authorization: Bearer {}\n", shown.trim())).unwrap();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--cacert", text(&ca(world))]);
    command.arg("-H").arg(format!("@{}", header.display())).args(arguments);
    run(command.arg(format!("{}{path}", world.custodyd.url())), b"", DEADLINE).ok()
}

#[test]
fn a_service_account_is_made_shown_once_and_ended_by_the_client() {
    let (world, token) = world();
    let events = |token: &Path| -> Value {
        let said = curl(&world, token, &[], "/v1/events?limit=2&envelope=page");
        serde_json::from_slice(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.text()))
    };
    let page = events(&token);
    assert_eq!((page["entries"].as_array().unwrap().len(), &page["more"]), (2, &json!(true)));
    // Two pages by what the body names, as connectors do that see no headers.
    let next = page["next_cursor"].as_str().unwrap();
    let said = curl(&world, &token, &[], &format!("/v1/events?limit=2&envelope=page&cursor={next}"));
    assert_eq!(serde_json::from_slice::<Value>(&said.out).unwrap()["entries"][0]["index"], 2);

    let listed = world.admin.custody(&["service", "ls"]).text();
    assert!(listed.contains("siem") && listed.to_lowercase().contains("token until"), "{listed}");
    assert!(!listed.contains(std::fs::read_to_string(&token).unwrap().trim()));
    let said = world.admin.custody(&["service", "rotate", "siem", "--keep-hours", "1"]);
    let fresh = world.dir().join("fresh");
    std::fs::write(&fresh, said.out).unwrap();
    assert!(events(&token)["entries"].is_array() && events(&fresh)["entries"].is_array());
    world.admin.custody(&["lock", "--user", "siem", "--reason", "its host was broken into", "--name", "l"]);
    let locked = events(&fresh);
    assert!(locked["error"].as_str().unwrap().contains("its host was broken into"), "{locked}");
    world.admin.custody(&["unlock", "l"]);
    world.admin.custody(&["service", "roles", "siem"]);
    assert!(events(&fresh)["error"].as_str().unwrap().contains("no policy allows siem"));
    world.admin.custody(&["service", "rm", "siem"]);
    assert!(events(&fresh)["error"].as_str().unwrap().contains("no service account"));
    assert!(world.admin.custody(&["service", "ls"]).text().contains("There are none"));
    let kinds: Vec<String> =
        world.entries("type=service").iter().map(|entry| entry.kind().to_owned()).collect();
    assert_eq!(kinds, ["service.created", "service.token-set", "service.changed", "service.removed"]);
    let refused = world.operator.try_custody(&["service", "add", "mine"], b"");
    assert!(
        refused.code != 0 && refused.err.contains("access denied") && refused.out.is_empty(),
        "{}",
        refused.err
    );
}

/// What a collector kept.
fn kept(state: &Path) -> Vec<Value> {
    let state: Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    state["events"].as_array().unwrap().clone()
}

#[test]
fn a_collector_that_follows_links_has_each_event_once_though_both_are_killed() {
    let (mut world, token) = world();
    let state = world.dir().join("collected");
    let url = format!("{}/v1/events?limit=5&from=0&wait=2s", world.custodyd.url());
    let spawn = |world: &World, count: usize| {
        let arguments = [url.as_str(), text(&ca(world)), text(&token), text(&state), &count.to_string()]
            .map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = python::script("siem_poll.py", &arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut random = Random(u64::from(std::process::id()));
    for round in 0..3 {
        let mut collector = spawn(&world, usize::MAX >> 1);
        for n in 0..3 {
            // Line ends of Unicode, which JSON doesn't escape, and letters that aren't ISO-8859-1.
            world.ssh(&[], &format!("echo круг {round}\u{2028}number\u{85}{n}"), b"").ok();
        }
        std::thread::sleep(Duration::from_millis(random.below(400)));
        world.custodyd.kill_now();
        world.custodyd.start();
        world.ssh(&[], "echo after the kill", b"").ok();
        std::thread::sleep(Duration::from_millis(random.below(400)));
        collector.kill().unwrap();
        collector.wait().unwrap();
    }
    let before = world.entries("").len();
    let said = spawn(&world, before).wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let collected = kept(&state);
    let log = world.entries("");
    assert!(collected.len() > 100, "{}", collected.len());
    for (event, entry) in collected.iter().zip(&log) {
        assert_eq!((event["index"].as_u64().unwrap(), &event["event"]), (entry.index, &entry.event));
    }
}

#[test]
fn a_stream_that_is_cut_off_goes_on_where_it_was() {
    let (mut world, token) = world();
    let out = world.dir().join("streamed");
    let url = format!("{}/v1/events?from=0&type=command", world.custodyd.url());
    let count = 26;
    let arguments =
        [url.as_str(), text(&ca(&world)), text(&token), text(&out), &count.to_string()].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = python::script("siem_stream.py", &arguments);
    let reader = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Each command is two events, but for one whose end the kill forestalls; and each kill cuts the stream somewhere.
    let seen = || std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    for round in 0..4 {
        let before = seen();
        for n in 0..3 {
            world.ssh(&[], &format!("echo круг {round}\u{2028}number\u{85}{n}"), b"").ok();
        }
        wait::until_true("some of it came", DEADLINE, || seen() > before);
        world.custodyd.kill_now();
        world.custodyd.spawn(&mut Command::new(program("custodyd")));
        world.custodyd.wait_until_it_serves();
    }
    while world.entries("type=command").len() < count {
        world.ssh(&[], "echo one more", b"").ok();
    }
    let said = reader.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let streamed: Vec<u64> =
        std::fs::read_to_string(&out).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let wanted: Vec<u64> = world.entries("type=command").iter().map(|entry| entry.index).collect();
    assert_eq!(streamed, wanted[..count]);
    let told = world.entries("type=log.read").into_iter().filter(|read| {
        read.event["actor"]["system"] == "service:siem" && read.event["data"]["purpose"] == "follow"
    });
    // Once for each life of the daemon, which doesn't remember what it told.
    assert!((1..=5).contains(&told.count()));
}

/// The whole data directory comes from a backup, and the log grows past where a reader was: what it didn't read is others'
/// entries, and those before its place it would never see.
#[test]
fn a_cursor_does_not_outlive_the_history_that_it_was_made_in() {
    let (mut world, token) = world();
    let (data, backup) = (world.custodyd.data(), world.dir().join("backup"));
    let copy = |from: &Path, to: &Path| {
        let mut command = Command::new("cp");
        run(command.arg("-a").arg(from).arg(to), b"", DEADLINE).ok();
    };
    world.custodyd.stop();
    copy(&data, &backup);
    world.custodyd.start();
    world.ssh(&[], "echo what the backup lacks", b"").ok();
    let ask = |world: &World, query: &str| -> Value {
        let said = curl(world, &token, &[], &format!("/v1/events?envelope=page&limit=1000&{query}"));
        serde_json::from_slice(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.text()))
    };
    let mut places: Vec<(&str, String)> = Vec::new();
    for filter in ["", "type=command&"] {
        places.push((filter, ask(&world, filter)["next_cursor"].as_str().unwrap().to_owned()));
    }
    for (filter, cursor) in &places {
        assert!(ask(&world, &format!("{filter}cursor={cursor}"))["entries"].is_array());
    }
    let size = world.entries("").len();

    world.custodyd.stop();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    world.custodyd.start();
    while world.entries("").len() <= size {
        world.ssh(&[], "echo another history", b"").ok();
    }
    for (filter, cursor) in &places {
        let answer = ask(&world, &format!("{filter}cursor={cursor}"));
        assert_eq!(answer["code"], "cursor-of-another-history", "{answer}");
    }
    let header = format!("Last-Event-ID: {}", places[0].1);
    let arguments = ["-H", "Accept: text/event-stream", "-H", header.as_str()];
    let answer = curl(&world, &token, &arguments, "/v1/events").text();
    assert!(answer.contains("cursor-of-another-history"), "{answer}");
    assert!(ask(&world, "from=0")["entries"].is_array());
}

#[test]
fn curl_gets_lists_lines_links_and_what_is_new() {
    let (world, token) = world();
    let asked = |arguments: &[&str], path: &str| curl(&world, &token, arguments, path).text();
    let list: Vec<Value> = serde_json::from_str(&asked(&[], "/v1/events?limit=3")).unwrap();
    assert_eq!(list.len(), 3);
    let lines = asked(&["-H", "Accept: application/x-ndjson"], "/v1/events?limit=3");
    assert_eq!(lines.lines().count(), 3);
    let headers =
        asked(&["--dump-header", "-", "--output", "/dev/null"], "/v1/events?user=nobody&format=cef");
    let headers = headers.to_lowercase();
    for wanted in ["custody-cursor: ", "custody-more: false", "etag: \"", "rel=\"next\"", "cursor="] {
        assert!(headers.contains(wanted), "{wanted} isn't in\n{headers}");
    }
    let size = world.entries("").len();
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| asked(&[], &format!("/v1/events?from={size}&type=role&wait=25s&format=ecs")));
        wait::until_true("curl waits", DEADLINE, || {
            world.admin.request("/metrics", &[]).text().contains("\ncustody_subscriptions 1\n")
        });
        world.admin.custody(&["role", "add", "brand-new"]);
        let found: Vec<Value> = serde_json::from_str(&waiting.join().unwrap()).unwrap();
        assert_eq!(found[0]["group"]["name"], "brand-new", "{found:?}");
    });
}
