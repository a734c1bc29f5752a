//! kill -9 of the daemon under load, at random moments, each twice in a row: the second while it takes up again.
//! Six times in the tests, `CUSTODY_KILLS` (30 in `make soak`) for more. The seed is printed.

use custody_tests::process::run;
use custody_tests::random::Random;
use custody_tests::servers::World;
use custody_tests::servers::custodyd::{Entry, Home, layout};
use custody_tests::wait::{self, DEADLINE};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What the world outside has been promised, or has seen.
#[derive(Default)]
struct Told {
    /// Roles whose making the API has acknowledged: (name, id of the event).
    acknowledged: Vec<(String, String)>,
    /// Commands whose client saw exit status 0.
    succeeded: Vec<String>,
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_happens_without_its_event() {
    let kills: u32 = std::env::var("CUSTODY_KILLS").ok().map_or(6, |n| n.parse().expect("a number"));
    let seed = std::env::var("CUSTODY_SEED")
        .map_or_else(|_| u64::from(std::process::id()), |s| s.parse().expect("a number"));
    println!("CUSTODY_SEED={seed} CUSTODY_KILLS={kills}");
    let mut random = Random(seed);
    let mut world = World::start();
    let effects = world.dir().join("effects");
    std::fs::write(&effects, b"").unwrap();

    let told = Mutex::new(Told::default());
    let (stop, number) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (admin, operator) = (world.admin.clone(), world.operator.clone());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| commands(&operator, &effects, &stop, &number, &told));
        }
        scope.spawn(|| roles(&admin, &stop, &number, &told));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for kill in 0..kills {
                let done = || {
                    let told = told.lock().unwrap();
                    told.acknowledged.len() + told.succeeded.len()
                };
                let before = (number.load(Ordering::Relaxed), done());
                // Not before the load is there again and something came of it; then at any moment.
                wait::until_true("the load runs", DEADLINE, || {
                    number.load(Ordering::Relaxed) > before.0 + 1 && done() > before.1
                });
                std::thread::sleep(Duration::from_millis(random.below(700)));
                world.custodyd.kill_now();
                world.custodyd.spawn(&mut Command::new(custody_tests::program("custodyd")));
                // From its first instruction to its first answers.
                std::thread::sleep(Duration::from_millis(random.below(400)));
                world.custodyd.kill_now();
                world.custodyd.start();
                println!(
                    "kill {} of {kills}: {} things tried so far",
                    kill + 1,
                    number.load(Ordering::Relaxed)
                );
            }
            wait::until_true("the load has done something of each kind", DEADLINE, || {
                let told = told.lock().unwrap();
                told.acknowledged.len() >= 3 && told.succeeded.len() >= 3
            });
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });

    let told = told.into_inner().unwrap();
    let ended = wait::until("each session has an end", DEADLINE, || {
        let entries = world.entries("");
        open_sessions(&entries).is_empty().then_some(entries)
    });
    check(&ended, &told, &std::fs::read_to_string(&effects).unwrap());
    world.custodyd.stop();
    let data = world.custodyd.data();
    let said = world.admin.try_custody(&["verify", data.to_str().unwrap()], b"");
    assert_eq!(said.code, 0, "{}{}", said.err, said.text());
}

fn check(entries: &[Entry], told: &Told, effects: &str) {
    let ids: BTreeSet<&str> = entries.iter().filter_map(|e| e.event["id"].as_str()).collect();
    for (role, id) in &told.acknowledged {
        assert!(ids.contains(id.as_str()), "the API acknowledged {role} and the log has lost it");
    }
    let requested: Vec<&str> = entries
        .iter()
        .filter(|e| e.kind() == "command.requested")
        .filter_map(|e| e.event["data"]["command"].as_str())
        .collect();
    for mark in effects.lines() {
        assert_eq!(
            requested.iter().filter(|c| c.contains(mark)).count(),
            1,
            "{mark} happened at the target, its event isn't there once"
        );
    }
    for mark in &told.succeeded {
        assert!(effects.lines().any(|l| l == mark), "{mark} was reported done and wasn't");
    }
    let mut ends: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.kind() == "session.ended") {
        ends.entry(entry.session().expect("an end belongs to a session")).or_default().push(entry);
    }
    for entry in entries.iter().filter(|e| e.kind() == "session.requested") {
        let of = ends.get(entry.session().unwrap()).map_or(0, Vec::len);
        assert_eq!(of, 1, "session {} has {of} ends", entry.session().unwrap());
    }
    let crashed: Vec<_> =
        ends.values().flatten().filter(|e| e.event["data"]["reason"] == "proxy-crashed").collect();
    assert!(!crashed.is_empty(), "no kill hit a live session: the load is too small to show anything");
    for end in crashed {
        let last = end.event["data"]["last_evidence"].as_u64().expect("the end names the last evidence");
        let evidence = &entries[usize::try_from(last).unwrap()];
        assert_eq!(evidence.session(), end.session(), "the last evidence is another session's");
    }
}

fn open_sessions(entries: &[Entry]) -> BTreeSet<&str> {
    let of = |kind: &str| {
        entries.iter().filter(|e| e.kind() == kind).filter_map(Entry::session).collect::<BTreeSet<_>>()
    };
    &of("session.requested") - &of("session.ended")
}

/// Commands, one after the other; each leaves its mark at the target.
fn commands(home: &Home, effects: &Path, stop: &AtomicBool, number: &AtomicUsize, told: &Mutex<Told>) {
    while !stop.load(Ordering::Relaxed) {
        let mark = format!("mark-{:06}-", number.fetch_add(1, Ordering::Relaxed));
        let command = format!("echo {mark} >>{}; sleep 0.2", effects.display());
        let mut ssh = home.ssh_command();
        ssh.args(["-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=2", "root@web-1.custody", &command]);
        if run(&mut ssh, b"", Duration::from_secs(60)).code == 0 {
            told.lock().unwrap().succeeded.push(mark);
        } else {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Changes of the state through the API.
fn roles(home: &Home, stop: &AtomicBool, number: &AtomicUsize, told: &Mutex<Told>) {
    while !stop.load(Ordering::Relaxed) {
        let name = format!("role-{}", number.fetch_add(1, Ordering::Relaxed));
        let answer =
            home.post("create-role", &serde_json::json!({"name": name, "description": "made under fire"}));
        if answer.status == 200 {
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            told.lock().unwrap().acknowledged.push((name, id));
        } else {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Three live sessions of different kinds; the daemon dies; each has one end that says so, and plays up to there.
#[test]
fn a_session_that_was_live_gets_one_end_and_plays_up_to_it() {
    let mut world = World::start();
    let mut command = world.proxied();
    command.args(["-tt", "root@web-1.custody", "echo shown-before-the-crash; sleep 600"]);
    let output = world.dir().join("shown");
    let file = std::fs::File::create(&output).unwrap();
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
    let _session = custody_tests::process::Running::start("ssh", &mut command);
    wait::until_true("it shows something", DEADLINE, || {
        std::fs::read_to_string(&output).is_ok_and(|t| t.contains("shown-before"))
    });
    let anchored = world.event("type=recording.anchored", "the recording is anchored", |_| true);
    let id = anchored.session().unwrap().to_owned();
    world.custodyd.kill_now();
    world.custodyd.start();
    let end = world.event("type=session.ended", "its end", |_| true);
    assert_eq!((end.session(), &end.event["data"]["reason"]), (Some(id.as_str()), &"proxy-crashed".into()));
    world.custodyd.kill_now();
    world.custodyd.start();
    assert_eq!(world.entries("type=session.ended").len(), 1, "a second start gave it a second end");
    let played = world.admin.custody(&["play", &id, "--speed", "1000"]).text();
    assert!(played.contains("shown-before-the-crash"), "{played}");
    let live = world.admin.request("/v1/sessions?live=true", &[]).json();
    assert_eq!(live.as_array().map(Vec::len), Some(0), "{live}");
}

/// A torn tail, as a power failure leaves one: the log is cut back to its last whole event, and takes up from there.
#[test]
fn a_torn_tail_is_cut_and_the_rest_stays() {
    let mut world = World::start();
    world.ssh(&[], "true", b"").ok();
    world.custodyd.stop();
    world.custodyd.start();
    let before = world.entries("");
    world.custodyd.kill_now();
    let newest = newest_segment(&world.custodyd.data());
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes.extend([0x7f; 5]);
    std::fs::write(&newest, bytes).unwrap();
    world.custodyd.start();
    let after = world.entries("");
    assert_eq!(after[..before.len()], before[..]);
    world.ssh(&[], "true", b"").ok();
}

fn newest_segment(data: &Path) -> PathBuf {
    let mut segments: Vec<PathBuf> = std::fs::read_dir(data.join(layout::SEGMENTS))
        .expect("the log's folder")
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    segments.pop().expect("a segment")
}
