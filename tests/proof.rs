//! The log in others' hands: tools that know nothing of Custody read it, prove it, and find what was changed.

use custody_core::event::Timestamp;
use custody_core::log::cosignature::Cosigner;
use custody_core::log::note::Ed25519Signer;
use custody_core::log::proof::ProofFile;
use custody_core::log::tree::{leaf_hash, node_hash};
use custody_core::log::{Checkpoint, Signer as _, VerifierKey};
use custody_core::recording::Level;
use custody_core::recording::block::Header;
use custody_tests::process::{Said, run};
use custody_tests::servers::World;
use custody_tests::servers::custodyd::{READER_TOKEN, layout};
use custody_tests::wait::{self, DEADLINE};
use custody_tests::{golang, program, root};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The key that was given to whoever verifies.
fn log_key(world: &World) -> String {
    world.admin.request("/v1/authorities", &[]).json()["log_key"].as_str().unwrap().to_owned()
}

/// Lets the log grow to `size` entries by changes of roles, all on one connection.
fn grow(world: &World, size: usize) {
    let mut made = 0;
    while world.entries("").len() < size {
        let mut config = String::new();
        let home = world.admin.dir.display();
        for n in made..made + 100 {
            config += &format!(
                "url = \"{}/v1/commands/create-role\"\ncacert = \"{home}/ca.pem\"\ncert = \"{home}/client.pem\"\n\
                 key = \"{home}/client.key\"\nheader = \"Content-Type: application/json\"\noutput = \"/dev/null\"\n\
                 fail\nsilent\nshow-error\ndata = \"{{\\\"name\\\":\\\"role-{n}\\\",\\\"description\\\":\\\"\\\"}}\"\nnext\n",
                world.admin.url
            );
        }
        made += 100;
        let config = config.strip_suffix("next\n").unwrap();
        run(Command::new("curl").args(["--config", "-"]), config.as_bytes(), Duration::from_secs(60)).ok();
    }
}

/// The newest checkpoint, into a file.
fn keep_checkpoint(world: &World, name: &str) -> PathBuf {
    let answer = world.admin.request("/log/checkpoint", &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = world.dir().join(name);
    fs::write(&path, answer.body).unwrap();
    path
}

/// Waits until a checkpoint covers everything that is there now.
fn covered(world: &World) {
    let size = world.entries("").len();
    wait::until_true("a checkpoint covers all events", DEADLINE, || {
        let checkpoint = world.admin.request("/log/checkpoint", &[]).text();
        checkpoint.lines().nth(1).unwrap().parse::<usize>().unwrap() >= size
    });
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Tessera's fsck says what is wrong, and ends with 0 all the same.
fn fsck(world: &World, key: &str, url: &str) -> Said {
    let file = world.dir().join("fsck-key");
    fs::write(&file, key).unwrap();
    let mut command = golang::tool("fsck");
    command.args(["-ui=false", "-v=1", "-N=4", &format!("-storage_url={url}/"), "-public_key", text(&file)]);
    command.arg(format!("-bearer_token={READER_TOKEN}"));
    command.env("SSL_CERT_FILE", world.admin.dir.join("ca.pem"));
    run(&mut command, b"", Duration::from_secs(60))
}

#[test]
fn strangers_tools_read_and_verify_a_running_log() {
    let world = World::start();
    world.ssh(&[], "true", b"").ok();
    grow(&world, 300);
    covered(&world);
    let key = log_key(&world);
    for url in [format!("{}/log", world.custodyd.url()), world.custodyd.log_url()] {
        let said = fsck(&world, &key, &url);
        assert!(!said.err.contains("fsck failed"), "{}", said.err);
        assert!(said.err.contains("Completed ranges"), "{}", said.err);

        let mut command = golang::tool("strangers");
        command.args([&url, &key, READER_TOKEN]).env("SSL_CERT_FILE", world.admin.dir.join("ca.pem"));
        let found: Value = serde_json::from_slice(&run(&mut command, b"", DEADLINE).ok().out).unwrap();
        let size = found["size"].as_u64().unwrap();
        assert!(size >= 300, "{found}");
        for entries in ["tessera_entries", "torchwood_entries"] {
            assert_eq!(found[entries].as_u64(), Some(size), "{found}");
        }
        for pairs in ["sumdb_records", "sumdb_trees", "tessera_trees"] {
            assert!(found[pairs].as_u64().unwrap() >= 100, "{found}");
        }
        assert!(found["tessera_records"].as_u64().unwrap() >= 10, "{found}");
    }
    // That they say yes means something: they say no as well.
    let other = "custody.test/log+45ee927f+AS1xFkK3JrBEAWJ8qfusMvXIUw+xkDzE2wIlhxeSGkiB";
    assert!(fsck(&world, other, &world.custodyd.log_url()).err.contains("fsck failed"));
    let mut command = golang::tool("strangers");
    let said = run(command.args([&world.custodyd.log_url(), &key, "another token"]), b"", DEADLINE);
    assert!(said.code != 0 && said.err.contains("401"), "{}", said.err);
}

#[test]
fn a_log_is_verified_by_its_url() {
    let world = World::start();
    world.ssh(&[], "true", b"").ok();
    let older = keep_checkpoint(&world, "older");
    grow(&world, 270);
    covered(&world);
    let newer = keep_checkpoint(&world, "newer");
    let url = format!("{}/log", world.custodyd.url());
    // With the right to read the log: hashes and entries.
    let said =
        world.admin.custody(&["verify", &url, "--known", text(&older), "--known", text(&newer)]).text();
    assert!(said.contains("is what was signed") && said.contains("each is the one"), "{said}");
    assert!(said.contains("2 checkpoints from elsewhere hold"), "{said}");
    // Without it: hashes, and it is said.
    let said = world.operator.custody(&["verify", &url, "--json"]).text();
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&report["verified"], &report["entries"]), (&Value::Bool(true), &Value::from(0)));
    assert!(report["signed"].as_u64().unwrap() >= 270);
    // Anybody, with a reader's token or without.
    let token = world.dir().join("token");
    fs::write(&token, format!("{READER_TOKEN}\n")).unwrap();
    let (key, plain) = (log_key(&world), world.custodyd.log_url());
    let said = world.admin.custody(&["verify", &plain, "--key", &key, "--token-file", text(&token)]).text();
    assert!(said.contains("each is the one"), "{said}");
    let ca = world.admin.dir.join("ca.pem");
    let said = world.admin.custody(&["verify", &url, "--key", &key, "--ca", text(&ca)]).text();
    assert!(said.contains("their hashes only"), "{said}");

    let other = "custody.test/log+45ee927f+AS1xFkK3JrBEAWJ8qfusMvXIUw+xkDzE2wIlhxeSGkiB";
    let nonsense = world.dir().join("nonsense");
    fs::write(&nonsense, "custody.test/log\n5\n").unwrap();
    for (arguments, says) in [
        (vec!["verify", &plain, "--key", other], "isn't signed by"),
        (vec!["verify", &plain, "--known", text(&nonsense)], "known checkpoint"),
        (vec!["verify", "http://127.0.0.1:1/log"], "can't be reached"),
        (vec!["verify", &plain, "--known", "/nowhere"], "can't be read"),
    ] {
        let said = world.admin.try_custody(&arguments, b"");
        assert_ne!(said.code, 0, "{arguments:?}");
        assert!(said.err.contains(says) && said.err.lines().count() == 1, "{arguments:?}: {}", said.err);
    }
}

/// An old copy is put back and goes on: the checkpoint that somebody kept names it, while it is shorter and afterwards.
#[test]
fn an_old_copy_in_place_of_the_log_is_found_by_a_kept_checkpoint() {
    let mut world = World::start();
    world.custodyd.stop();
    let (data, copy) = (world.custodyd.data(), world.dir().join("copy"));
    run(Command::new("cp").arg("-a").arg(&data).arg(&copy), b"", DEADLINE).ok();
    let agreed = fs::read_to_string(copy.join("log/checkpoint")).unwrap();
    let agreed: u64 = agreed.lines().nth(1).unwrap().parse().unwrap();
    world.custodyd.start();
    world.ssh(&[], "echo the-true-story", b"").ok();
    covered(&world);
    let kept = keep_checkpoint(&world, "kept");
    let known: u64 = fs::read_to_string(&kept).unwrap().lines().nth(1).unwrap().parse().unwrap();
    world.custodyd.stop();
    let verify = |target: &str| {
        let said = world.admin.try_custody(&["verify", target, "--known", text(&kept), "--json"], b"");
        (said.code, serde_json::from_str::<Value>(&said.text()).unwrap())
    };
    assert_eq!(verify(text(&data)).0, 0, "{}", verify(text(&data)).1);
    let (code, report) = verify(text(&copy));
    assert_ne!(code, 0);
    let says = format!("known up to {known} entries, have ");
    assert!(report["error"].as_str().unwrap().contains(&says), "{report}");

    fs::rename(&data, world.dir().join("true")).unwrap();
    fs::rename(&copy, &data).unwrap();
    world.custodyd.start();
    for _ in 0..4 {
        world.ssh(&[], "echo another-story", b"").ok();
    }
    covered(&world);
    let url = format!("{}/log", world.custodyd.url());
    for target in [url.as_str(), text(&data)] {
        let said = world.admin.try_custody(&["verify", target, "--known", text(&kept), "--json"], b"");
        assert_ne!(said.code, 0, "{target}");
        let report: Value = serde_json::from_str(&said.text()).unwrap();
        let first = report["first_wrong"].as_u64().unwrap_or_else(|| panic!("{report}"));
        // The known checkpoint holds only a root: it can't say more than that all before the fork may be right.
        assert!(first <= agreed, "{report}");
        assert!(report["error"].as_str().unwrap().contains(&format!("entries before {known}")), "{report}");
    }
}

/// A session with a recording; gives its id.
fn session(world: &World) -> String {
    let mut shell = world.proxied();
    run(shell.args(["-tt", "root@web-1.custody"]), b"echo what-was-shown\nexit\n", DEADLINE).ok();
    let ended = world.event("type=session.ended", "the session's end", |_| true);
    world.event("type=recording.sealed", "its recording", |_| true);
    ended.session().unwrap().to_owned()
}

/// Each way to check a folder.
fn ways(folder: &Path, key: &str) -> [(&'static str, Command); 3] {
    let mut python = Command::new("python3");
    python.arg(root().join("docs/verify/verify.py")).arg(folder).arg(key).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut go = golang::tool("verify");
    go.arg(folder).arg(key);
    let mut ours = Command::new(program("custody"));
    ours.args(["verify", text(folder), "--key", key]).env("CUSTODY_HOME", folder.join("nobody-is-logged-in"));
    [("verify.py", python), ("Go's sumdb", go), ("custody verify", ours)]
}

/// What each of them says of it.
fn verifiers(folder: &Path, key: &str) -> [(&'static str, Said); 3] {
    ways(folder, key).map(|(name, mut command)| (name, run(&mut command, b"", DEADLINE)))
}

#[test]
fn a_sessions_folder_is_proved_by_anybody_and_each_change_is_found() {
    let world = World::start();
    let id = session(&world);
    let key = log_key(&world);
    let folder = world.dir().join("evidence");
    world.admin.custody(&["prove", &id, "-o", text(&folder)]);

    // The whole session: every event that the log has of it, its recording, and how to check them.
    let wanted: Vec<u64> = world.entries(&format!("session={id}")).iter().map(|entry| entry.index).collect();
    assert!(wanted.len() >= 5);
    for index in &wanted {
        assert!(
            folder.join(format!("{index}.json")).is_file()
                && folder.join(format!("{index}.tlog-proof")).is_file()
        );
    }
    let cast = fs::read_to_string(folder.join("recording.cast")).unwrap();
    assert!(cast.contains("what-was-shown"));
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains(&id) && !readme.contains('{'), "{readme}");
    for (name, said) in verifiers(&folder, &key) {
        assert_eq!(said.code, 0, "{name}: {}{}", said.err, said.text());
        assert!(said.text().contains(&wanted.len().to_string()), "{name}: {}", said.text());
    }
    // What the README says, as it says it.
    let commands: Vec<&str> = readme.split("```\n").skip(1).step_by(2).collect();
    for (command, prints) in [(commands[0], "proved"), (commands[2], "-"), (commands[3], "recording.sealed")]
    {
        let said = run(Command::new("bash").args(["-ec", command]).current_dir(&folder), b"", DEADLINE).ok();
        assert!(said.text().contains(prints), "{command}: {}", said.text());
    }
    let leaf = run(Command::new("bash").args(["-ec", commands[2]]).current_dir(&folder), b"", DEADLINE).ok();
    assert_eq!(leaf.text().split(' ').next().unwrap().len(), 64);

    covered(&world);
    let first = wanted[0];
    let event = folder.join(format!("{first}.json"));
    let proof = folder.join(format!("{first}.tlog-proof"));
    let later = fs::read(keep_checkpoint(&world, "later")).unwrap();
    let changed = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    let change: [(&str, &Path, &dyn Fn()); 7] = [
        ("a changed event", &event, &|| changed(&event, "\"bob\"", "\"eve\"")),
        ("a removed proof", &proof, &|| fs::remove_file(&proof).unwrap()),
        ("a removed event", &event, &|| fs::remove_file(&event).unwrap()),
        ("another index", &proof, &|| changed(&proof, &format!("index {first}"), "index 0")),
        ("a swapped checkpoint", &folder.join("checkpoint"), &|| {
            fs::write(folder.join("checkpoint"), &later).unwrap()
        }),
        ("a changed size", &folder.join("checkpoint"), &|| {
            changed(&folder.join("checkpoint"), "custody.test/log\n", "custody.test/log\n1")
        }),
        ("a changed recording", &folder.join("recording"), &|| {
            fs::write(folder.join("recording"), b"CUSTREC").unwrap()
        }),
    ];
    for (what, path, change) in change {
        let before = fs::read(path).unwrap();
        change();
        for (name, said) in verifiers(&folder, &key) {
            assert_ne!(said.code, 0, "{name} takes {what}: {}", said.text());
            assert_eq!(said.err.trim().lines().count(), 1, "{name}, {what}: {}", said.err);
        }
        fs::write(path, before).unwrap();
    }
    let other = "custody.test/log+45ee927f+AS1xFkK3JrBEAWJ8qfusMvXIUw+xkDzE2wIlhxeSGkiB";
    for (name, said) in verifiers(&folder, other) {
        assert_ne!(said.code, 0, "{name} takes another key");
    }
    for (name, said) in verifiers(&folder, &key) {
        assert_eq!(said.code, 0, "{name}, put back as it was: {}", said.err);
    }
    // An empty folder proves nothing, and one that is there isn't overwritten.
    let empty = world.dir().join("empty");
    fs::create_dir(&empty).unwrap();
    for (name, said) in verifiers(&empty, &key) {
        assert_ne!(said.code, 0, "{name} is content with nothing");
    }
    assert_ne!(world.admin.try_custody(&["prove", &id, "-o", text(&folder)], b"").code, 0);
    // Bob may not read the log, so he proves nothing of it.
    assert_ne!(
        world.operator.try_custody(&["prove", &id, "-o", text(&world.dir().join("bobs"))], b"").code,
        0
    );
}

/// A recording's first bytes; it is of this session.
fn header(session: Uuid) -> [u8; 40] {
    Header { session, started_ns: 0, level: Level::Terminal }.encode()
}

/// Puts a log of two events into a folder, as `custody prove` does with a session's. Gives its key.
fn prove_both(folder: &Path, events: [Value; 2]) -> String {
    let signer = Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap();
    let events = events.map(|event| event.to_string());
    let [first, second] = [leaf_hash(events[0].as_bytes()), leaf_hash(events[1].as_bytes())];
    let checkpoint = Checkpoint::sign(2, node_hash(&first, &second), &signer).unwrap();
    fs::write(folder.join("checkpoint"), checkpoint.to_string()).unwrap();
    for ((index, event), other) in (0..).zip(&events).zip([second, first]) {
        fs::write(folder.join(format!("{index}.json")), event).unwrap();
        let proof = ProofFile::new(index, vec![other], &checkpoint);
        fs::write(folder.join(format!("{index}.tlog-proof")), proof.to_string()).unwrap();
    }
    signer.verifier_key().to_string()
}

/// Each event stands in the log, and the recording is one that was sealed: that doesn't make one session of them.
#[test]
fn what_is_of_two_sessions_is_no_evidence_of_one() {
    let (ours, another) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let began = |session: Uuid| json!({ "data": {}, "session": session, "type": "session.started" });
    let of_none = json!({ "data": {}, "type": "log.sealed" });
    let table = [
        ("one session", began(ours), ours, ours, true),
        ("the recording of another, and its seal", began(ours), another, another, false),
        ("the recording of another, under our seal", began(ours), ours, another, false),
        ("an event of no session", of_none, ours, ours, false),
    ];
    for (what, first, sealed, recorded, holds) in table {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("recording"), header(recorded)).unwrap();
        let sum = custody_tests::servers::files::sha256(&folder.join("recording"));
        let seal = json!({ "data": { "sha256": sum }, "session": sealed, "type": "recording.sealed" });
        let key = prove_both(folder, [first, seal]);
        for (name, said) in verifiers(folder, &key) {
            assert_eq!(said.code == 0, holds, "{name}, {what}: {}{}", said.err, said.text());
            if holds {
                assert!(said.text().contains(&ours.to_string()), "{name} says of which: {}", said.text());
            } else {
                assert_eq!(said.err.trim().lines().count(), 1, "{name}, {what}: {}", said.err);
            }
        }
    }
}

/// A recording of hours may be larger than the memory of whoever checks it.
#[test]
fn a_long_recording_is_verified_piece_by_piece() {
    const MIB: u64 = 1 << 20;
    let (folder, session) = (tempfile::tempdir().unwrap(), Uuid::from_u128(1));
    let folder = folder.path();
    let recording = folder.join("recording");
    fs::write(&recording, header(session)).unwrap();
    fs::File::options().append(true).open(&recording).unwrap().set_len(300 * MIB).unwrap();
    let sum = run(Command::new("sha256sum").arg(&recording), b"", DEADLINE).ok().text();
    let sum = sum.split(' ').next().unwrap();
    let began = json!({ "data": {}, "session": session, "type": "session.started" });
    let seal = json!({ "data": { "sha256": sum }, "session": session, "type": "recording.sealed" });
    let key = prove_both(folder, [began, seal]);
    // What it took at most is told in KiB, behind what it said.
    let measure = "import resource, subprocess, sys\ncode = subprocess.call(sys.argv[1:])\n\
                   print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\nsys.exit(code)";
    for (name, command) in ways(folder, &key) {
        let mut measured = Command::new("python3");
        measured.args(["-c", measure]).arg(command.get_program()).args(command.get_args());
        measured.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let said = run(&mut measured, b"", DEADLINE).ok().text();
        assert!(said.contains(&session.to_string()), "{name}: {said}");
        let kib: u64 = said.trim().lines().last().unwrap().parse().unwrap();
        assert!(kib < 200 * MIB / 1024, "{name} takes {kib} KiB");
    }
}

#[test]
fn one_event_is_proved_by_its_index_or_its_id() {
    let world = World::start();
    world.ssh(&[], "true", b"").ok();
    let entry = world.event("type=command.requested", "the command", |_| true);
    let id = entry.event["id"].as_str().unwrap();
    for (what, name) in [(entry.index.to_string().as_str(), "by-index"), (id, "by-id")] {
        let proof = world.dir().join(format!("{name}.tlog-proof"));
        world.admin.custody(&["prove", what, "-o", text(&proof)]);
        let event: Value =
            serde_json::from_slice(&fs::read(world.dir().join(format!("{name}.json"))).unwrap()).unwrap();
        assert_eq!(event, entry.event);
        world.admin.custody(&["verify", text(&proof)]);
        fs::write(world.dir().join(format!("{name}.json")), b"{}").unwrap();
        assert_ne!(world.admin.try_custody(&["verify", text(&proof)], b"").code, 0);
    }
    let beyond = u64::MAX.to_string();
    for nothing in ["019ab8c0-0000-7000-8000-000000000000", &beyond, "no-id"] {
        let said = world.admin.try_custody(&["prove", nothing], b"");
        assert!(said.code != 0 && said.err.lines().count() == 1, "{nothing}: {}", said.err);
    }
    // A directory of the log, with the newest checkpoint from elsewhere.
    covered(&world);
    let kept = keep_checkpoint(&world, "kept");
    let data = world.custodyd.data();
    assert!(data.join(layout::SEGMENTS).is_dir());
    let said = world.admin.custody(&["verify", text(&data), "--known", text(&kept)]).text();
    assert!(said.contains("1 checkpoints from elsewhere hold"), "{said}");
}

/// A witness's cosignature is demanded, and another's isn't taken for it.
#[test]
fn a_cosignature_is_demanded_of_the_witness_that_is_named() {
    let world = World::start();
    covered(&world);
    let kept = keep_checkpoint(&world, "kept");
    let cosigner =
        |seed: u8| Cosigner::new(Arc::new(Ed25519Signer::from_seed("witness.test/w", &[seed; 32]).unwrap()));
    let (north, south) = (cosigner(1), cosigner(2));
    let key = VerifierKey::parse(&log_key(&world)).unwrap();
    let mut checkpoint = Checkpoint::verify(&fs::read_to_string(&kept).unwrap(), &key).unwrap();
    let cosigned = north.cosign(checkpoint.note(), Timestamp::from_seconds(1_764_028_801)).unwrap();
    checkpoint.add_line(cosigned.line().clone());
    fs::write(&kept, checkpoint.to_string()).unwrap();
    let (url, data) = (format!("{}/log", world.custodyd.url()), world.custodyd.data());
    for target in [url.as_str(), text(&data)] {
        let verify = |witness: &str| {
            world.admin.try_custody(&["verify", target, "--known", text(&kept), "--witness", witness], b"")
        };
        let says = format!("witness.test/w cosigned {} entries at 2025-11-25", checkpoint.size());
        let said = verify(&north.key().to_string()).ok().text();
        assert!(said.contains(&says), "{said}");
        let said = verify(&south.key().to_string());
        assert!(said.code != 0 && said.err.contains("has cosigned none"), "{}", said.err);
        let said = verify(&key.to_string());
        assert!(said.code != 0 && said.err.contains("is no witness's key"), "{}", said.err);
    }
    fs::copy(&kept, data.join("log/cosigned")).unwrap();
    world.admin.custody(&["verify", text(&data), "--witness", &north.key().to_string()]);
}
