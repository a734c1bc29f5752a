//! What sessions showed: played, exported, and checked against what the log says of it.

use custody_tests::process::run;
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::wait::{self, DEADLINE};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A session with a terminal that prints `text`; gives its id once its recording is sealed.
fn recorded(world: &World, text: &str) -> String {
    let sealed = world.entries("type=recording.sealed").len();
    run(
        world.proxied().args(["-tt", "root@web-1.custody"]),
        format!("echo {text}\nexit\n").as_bytes(),
        DEADLINE,
    )
    .ok();
    let entries = wait::until("the recording is sealed", DEADLINE, || {
        Some(world.entries("type=recording.sealed")).filter(|e| e.len() > sealed)
    });
    entries.last().unwrap().session().unwrap().to_owned()
}

fn file_of(world: &World, session: &str) -> PathBuf {
    fn find(dir: &Path, session: &str) -> Option<PathBuf> {
        std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                find(&path, session)
            } else {
                path.to_str()?.contains(session).then_some(path)
            }
        })
    }
    find(&world.custodyd.data().join(layout::RECORDINGS), session).expect("the recording's file")
}

#[test]
fn a_session_is_played_and_exported_and_each_look_is_an_event() {
    let world = World::start();
    let id = recorded(&world, "what-was-shown");
    assert!(world.admin.custody(&["sessions"]).text().contains(&id));
    let played = world.admin.custody(&["play", &id, "--speed", "1000"]);
    assert!(played.text().contains("what-was-shown"), "{}", played.text());
    let cast = world.admin.custody(&["sessions", "export", &id, "--format", "asciicast"]).text();
    let mut lines = cast.lines();
    let header: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["version"], 2);
    let mut last = 0.0;
    let mut shown = String::new();
    for line in lines {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let time = event[0].as_f64().unwrap();
        assert!(time >= last);
        last = time;
        if event[1] == "o" {
            shown.push_str(event[2].as_str().unwrap());
        }
    }
    assert!(shown.contains("what-was-shown"), "{shown}");
    let views = world.entries("type=recording.viewed&user=alice");
    let purposes: Vec<_> = views.iter().map(|v| v.event["data"]["purpose"].as_str().unwrap()).collect();
    assert_eq!(purposes, ["play", "export"]);
    assert!(views.iter().all(|v| v.event["data"]["recording"] == id.as_str()));

    // Bob may work, but nobody said that he may look at recordings.
    let refused = world.operator.try_custody(&["play", &id], b"");
    assert_ne!(refused.code, 0);
    assert!(!refused.text().contains("what-was-shown"));
}

#[test]
fn the_whole_is_verified_and_each_kind_of_tampering_is_found() {
    let mut world = World::start();
    let id = recorded(&world, "evidence");
    let data = world.custodyd.data();
    let sealed = world.entries("type=recording.sealed").pop().unwrap();
    let file = file_of(&world, &id);
    let sum = run(Command::new("sha256sum").arg(&file), b"", DEADLINE).ok().text();
    assert_eq!(
        sum.split(' ').next(),
        sealed.event["data"]["sha256"].as_str(),
        "sha256sum checks a recording"
    );
    world.custodyd.stop();
    let data = data.to_str().unwrap();
    let verify = || world.operator.try_custody(&["verify", data], b"");
    let good = verify();
    assert_eq!(good.code, 0, "{}{}", good.err, good.text());

    let whole = std::fs::read(&file).unwrap();
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    let mut longer = whole.clone();
    longer.extend(b"more");
    for (what, bytes) in [
        ("a flipped bit", &flipped),
        ("a missing tail", &whole[..whole.len() - 7].to_vec()),
        ("a longer one", &longer),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let said = verify();
        assert_ne!(said.code, 0, "{what} isn't found");
        assert!(
            format!("{}{}", said.err, said.text()).contains(&id),
            "{what}: the session isn't named: {}{}",
            said.err,
            said.text()
        );
    }
    std::fs::remove_file(&file).unwrap();
    assert_ne!(verify().code, 0, "a missing recording isn't found");
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(verify().code, 0);
}

/// One byte of the log itself, anywhere in its newest segment.
#[test]
fn a_changed_log_is_found_and_the_index_is_named() {
    let mut world = World::start();
    for _ in 0..3 {
        world.ssh(&[], "true", b"").ok();
    }
    let entries = world.entries("type=command.requested");
    let wanted = entries[1].clone();
    world.custodyd.stop();
    let id = wanted.event["id"].as_str().unwrap();
    let log = files_with(&world.custodyd.data(), id.as_bytes());
    assert!(!log.is_empty(), "no file holds the event's bytes as they are");
    let data = world.custodyd.data().to_str().unwrap().to_owned();
    assert_eq!(world.operator.try_custody(&["verify", &data], b"").code, 0);
    for file in log.iter().filter(|f| !f.starts_with(world.custodyd.data().join(layout::PROJECTIONS))) {
        let mut bytes = std::fs::read(file).unwrap();
        let at = bytes.windows(id.len()).position(|w| w == id.as_bytes()).unwrap();
        bytes[at] ^= 1;
        std::fs::write(file, &bytes).unwrap();
    }
    let said = world.operator.try_custody(&["verify", &data], b"");
    assert_ne!(said.code, 0);
    let told = format!("{}{}", said.err, said.text());
    assert!(told.contains(&wanted.index.to_string()), "index {} isn't named: {told}", wanted.index);
    // The daemon doesn't serve a damaged log either.
    let mut again = Command::new(custody_tests::program("custodyd"));
    let said = run(again.arg("run").arg("--config").arg(world.custodyd.config()), b"", DEADLINE);
    assert_ne!(said.code, 0);
}

fn files_with(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if std::fs::read(&path).is_ok_and(|b| b.windows(needle.len()).any(|w| w == needle)) {
            found.push(path);
        }
    }
    found
}

/// One event with its proof, checked offline, and with `sha256sum`'s help by hand.
#[test]
fn one_event_is_proved_offline() {
    let world = World::start();
    world.ssh(&[], "true", b"").ok();
    let entry = world.event("type=command.requested", "the command", |_| true);
    let proof = world.dir().join("proof");
    world.admin.custody(&["events", "proof", &entry.index.to_string(), "-o", proof.to_str().unwrap()]);
    let event = world.dir().join("proof.event.json");
    let bytes = std::fs::read(&event).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(), entry.event);
    let check = |home: &custody_tests::servers::custodyd::Home| {
        home.try_custody(&["verify", proof.to_str().unwrap()], b"")
    };
    assert_eq!(check(&world.admin).code, 0, "{}", check(&world.admin).err);
    std::fs::write(&event, String::from_utf8(bytes).unwrap().replace("true", "rm -rf /")).unwrap();
    assert_ne!(check(&world.admin).code, 0);
}

/// Exec output by policy: up to a limit whole, beyond it length and hash.
#[test]
fn long_output_of_a_command_is_counted_and_hashed() {
    let world = World::start();
    let file = world.dir().join("long");
    let make = format!("head -c 3000000 /dev/urandom | tee {}", file.display());
    let said = world.ssh(&[], &make, b"").ok();
    assert_eq!(said.out.len(), 3_000_000);
    let completed = world.event("type=command.completed", "its end", |_| true);
    assert_eq!(completed.event["data"]["bytes_out"], 3_000_000);
    let sum = run(Command::new("sha256sum").arg(&file), b"", DEADLINE).ok().text();
    assert_eq!(completed.event["data"]["output_sha256"].as_str(), sum.split(' ').next());
}
