//! Backups of a running log, and what is put back.

use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::wait;
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn key(world: &World) -> String {
    let answer = world.admin.request("/v1/authorities", &[]).json();
    answer["log_key"].as_str().unwrap().to_owned()
}

#[test]
fn a_backup_of_a_log_under_load_is_whole_and_comes_back() {
    let mut world = World::start();
    let (backup, data) = (world.dir().join("backup"), world.custodyd.data());
    let key = key(&world);
    world.ssh(&["-tt"], "echo recorded", b"").ok();
    let take = |world: &World| {
        let arguments =
            ["log", "backup", "--data", text(&data), "-o", text(&backup), "--key", &key, "--with-keys"];
        world.admin.custody(&arguments).text()
    };
    // A checkpoint follows what is there within a moment: the first session is in the backup before the next ones run.
    wait::until_true("the recording is in the backup", wait::DEADLINE, || {
        !take(&world).contains("recordings   0 files")
    });
    // Several times while sessions run: each time what came since is added.
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            for n in 0..8 {
                world.ssh(&["-tt"], &format!("echo load {n}; seq 1 200"), b"").ok();
            }
        });
        while !load.is_finished() {
            take(&world);
            let said = world.admin.custody(&["verify", text(&backup), "--key", &key]).text();
            assert!(
                said.contains("is what was signed") && said.contains(" 0 NOT what was recorded"),
                "{said}"
            );
        }
    });
    // A backup holds what is signed, and that follows what is there within a moment.
    let before = world.entries("type=session");
    let last = before.last().unwrap().index;
    wait::until_true("a backup holds all that is there", wait::DEADLINE, || {
        let said = take(&world);
        assert!(said.contains("is a copy of the log custody.test/log"), "{said}");
        let events = said.lines().find_map(|line| line.trim().strip_prefix("events ")).unwrap();
        events.split_whitespace().next().unwrap().parse::<u64>().unwrap() > last
    });
    world.custodyd.stop();

    // The machine is lost.
    std::fs::remove_dir_all(&data).unwrap();
    let restored =
        world.admin.custody(&["log", "restore", text(&backup), "--data", text(&data), "--key", &key]);
    assert!(restored.text().contains("is back in"), "{}", restored.text());
    world.custodyd.start();
    let told = world.event("type=log.recovered", "it says that it was put back", |_| true);
    assert_eq!(told.event["data"]["from"], "backup");
    let checked = world.admin.custody(&["log", "check", text(&data), "--key", &key]).text();
    assert!(checked.contains("is what was signed") && checked.contains("missing      0"), "{checked}");
    let after = world.entries("type=session");
    let same = before.iter().zip(&after).take_while(|(a, b)| a.line == b.line).count();
    assert_eq!(same, before.len(), "not all of them are the same");
    let session = before[0].session().unwrap();
    let played = world.admin.custody(&["play", session, "--speed", "1000"]);
    assert!(played.text().contains("recorded"), "{}", played.text());
    world.ssh(&[], "echo it works again", b"").ok();
    world.custodyd.stop();
    world.custodyd.start();
    assert_eq!(world.entries("type=log.recovered").len(), 1, "told once");
}

#[test]
fn what_is_damaged_foreign_or_newer_is_not_copied_over() {
    let mut world = World::start();
    let (backup, data) = (world.dir().join("backup"), world.custodyd.data());
    let key = key(&world);
    let arguments = ["log", "backup", "--data", text(&data), "-o", text(&backup), "--key", &key];
    world.admin.custody(&arguments);
    assert!(!backup.join("keys").exists() && !backup.join("secrets").exists(), "secrets only when asked for");
    world.ssh(&[], "echo more", b"").ok();
    world.custodyd.stop();

    // An older backup doesn't replace a longer log.
    let restore = ["log", "restore", text(&backup), "--data", text(&data), "--key", &key];
    let said = world.admin.try_custody(&restore, b"");
    assert!(said.code != 0 && said.err.contains("nothing was changed"), "{}", said.err);

    // A changed event is found before anything is put in its place.
    let segment = std::fs::read_dir(data.join(layout::SEGMENTS)).unwrap().flatten().next().unwrap().path();
    let good = std::fs::read(&segment).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&segment, &bad).unwrap();
    let said = world.admin.try_custody(&arguments, b"");
    assert!(said.code != 0 && said.err.contains("isn't what was signed"), "{}", said.err);
    std::fs::write(&segment, &good).unwrap();
    let checked = world.admin.custody(&["verify", text(&backup), "--key", &key]);
    assert!(checked.text().contains("is what was signed"), "the old backup still stands: {}", checked.text());
    world.admin.custody(&arguments);

    let other = World::start();
    let foreign = ["log", "backup", "--data", text(&data), "-o", text(&backup), "--key", &self::key(&other)];
    assert_ne!(world.admin.try_custody(&foreign, b"").code, 0);
    let nothing = world.dir().join("nothing");
    let said = world
        .admin
        .try_custody(&["log", "backup", "--data", text(&nothing), "-o", text(&backup), "--key", &key], b"");
    assert!(said.code != 0 && said.err.contains("no data directory"), "{}", said.err);
}
