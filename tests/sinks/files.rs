//! Files, by day and as a lake: deliveries and a daemon are killed, a disk is full, and others read what is there.

use crate::campaign::{ORIGIN, Run, Source};
use custody_core::clock::{ManualClock, Nanos};
use custody_core::event::hex::to_hex;
use custody_core::log::tree::leaf_hash;
use custody_sinks::files::{Files, LakeSettings, Settings};
use custody_sinks::format::Format;
use custody_tests::process;
use custody_tests::servers::{World, python};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn lines(folder: &Path, format: Format) -> Files {
    sink(Settings { folder: folder.to_owned(), format, lake: None })
}

fn lake(folder: &Path, roll_events: u64) -> Files {
    let lake = LakeSettings {
        source: "custody".to_owned(),
        source_version: None,
        region: "eu-central-1".to_owned(),
        account: "123456789012".to_owned(),
        ocsf_version: "1.7.0".to_owned(),
        roll_events,
        roll_megabytes: 32,
        roll_seconds: 1,
    };
    sink(Settings { folder: folder.to_owned(), format: Format::Custody, lake: Some(lake) })
}

fn sink(settings: Settings) -> Files {
    settings.check().unwrap();
    Files::new(settings, ORIGIN)
}

/// What a lake's files hold, as DuckDB reads it: each event is the log's, and there once.
fn read_lake(source: &Source, folder: &Path) -> BTreeMap<String, u64> {
    let said = python::run("read_lake.py", &[folder.to_str().unwrap(), "1.7.0"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["wrong"], serde_json::json!([]));
    let events = said["events"].as_object().unwrap();
    assert_eq!(events.len() as u64, source.log.size());
    for (index, rows) in events {
        let entry = source.log.read(index.parse().unwrap(), 1, 0).unwrap().remove(0);
        assert_eq!(rows.as_array().unwrap().len(), 1, "event {index}");
        assert_eq!(rows[0]["leaf"], to_hex(&leaf_hash(&entry.bytes).0));
        assert_eq!(rows[0]["raw"].as_str().unwrap().as_bytes(), &*entry.bytes);
    }
    serde_json::from_value(said["classes"].clone()).unwrap()
}

fn proven(source: &Source, run: &Run<Files>) {
    let report = source.prove(run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
}

/// Ends a delivery as soon as some of the events are confirmed, while others come.
fn killed_in_the_middle(source: &Source, run: Run<Files>, events: u64) {
    std::thread::scope(|scope| {
        scope.spawn(|| (0..5).for_each(|_| source.grow(events / 5)));
        until_true("some are confirmed", DEADLINE, || run.control.health().numbers().confirmed > 0);
    });
    source.kill(run);
}

#[test]
fn each_event_is_in_the_days_lines_once_however_often_the_delivery_is_killed() {
    for format in [Format::Custody, Format::Ecs, Format::Ocsf] {
        let (source, folder) = (Source::new(), tempfile::tempdir().unwrap());
        for round in 0..6 {
            let run = source.deliver(lines(folder.path(), format));
            killed_in_the_middle(&source, run, 500);
            let gone = std::fs::File::open(folder.path().join(".custody-sink.lock"));
            if let (Ok(lock), true) = (gone, round % 2 == 0) {
                until_true("the last writer has gone", DEADLINE, || lock.try_lock().is_ok());
                // The last line has reached the disk in part.
                if let Some(day) = days(folder.path()).pop() {
                    let mut file = std::fs::OpenOptions::new().append(true).open(&day).unwrap();
                    file.write_all(b"{\"index\":1,\"appen").unwrap();
                }
            }
        }
        let run = source.deliver(lines(folder.path(), format));
        source.delivered(&run);
        proven(&source, &run);
        source.stop(run);
        let count: usize =
            days(folder.path()).iter().map(|day| std::fs::read_to_string(day).unwrap().lines().count()).sum();
        assert_eq!(count as u64, source.log.size());
    }
}

fn days(folder: &Path) -> Vec<PathBuf> {
    let mut days: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .collect();
    days.sort();
    days
}

#[test]
fn each_event_is_in_the_lake_once_however_often_the_delivery_is_killed() {
    let (source, folder) = (Source::new(), tempfile::tempdir().unwrap());
    for _ in 0..6 {
        let run = source.deliver(lake(folder.path(), 300));
        killed_in_the_middle(&source, run, 700);
    }
    let run = source.deliver(lake(folder.path(), 300));
    source.delivered(&run);
    proven(&source, &run);
    // What is old enough becomes Parquet without another event.
    let spool = folder.path().join("spool/current.ndjson");
    until_true("the spool has become Parquet", DEADLINE, || !spool.exists());
    proven(&source, &run);
    let classes = read_lake(&source, folder.path());
    assert!(classes["authentication"] > 1_000 && classes.len() > 2, "{classes:?}");
    tampered(&source, folder.path(), &run);
    source.stop(run);
}

/// A row that was changed by somebody with the right tools, a file that is gone, one that is there twice.
fn tampered(source: &Source, folder: &Path, run: &Run<Files>) {
    let mut files = below(&folder.join("ext/custody-3002"));
    files.retain(|path| path.is_file());
    files.sort_by_key(|file| std::fs::metadata(file).unwrap().len());
    let [largest, second, third] = [1, 2, 3].map(|n| files[files.len() - n].clone());
    // The evidence in one row, and what people search by in another.
    let script = "import duckdb, sys\n\
        path = sys.argv[1]\n\
        duckdb.connect().execute(f\"copy (select * replace (case when row_number() over () = 5 then replace(raw_data, 'password', 'badge') \
        else raw_data end as raw_data, case when row_number() over () = 7 then 'all is well' else message end as message) \
        from read_parquet('{path}', hive_partitioning = false)) to '{path}.new' (format parquet, compression zstd)\")\n\
        import os; os.rename(path + '.new', path)";
    let mut command = Command::new(python::environment().join("bin/python"));
    process::run(command.args(["-c", script]).arg(&largest), b"", DEADLINE).ok();
    std::fs::remove_file(&second).unwrap();
    std::fs::copy(&third, third.with_file_name("000000000000-000000000001-copy.parquet")).unwrap();
    let report = source.prove(run);
    assert_eq!(report.altered.count, 2, "{report:?}");
    assert!(report.altered.first.iter().any(|altered| altered.what.contains("fields")), "{report:?}");
    let events = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let part = |n: usize| name.split('-').nth(n).unwrap().parse::<u64>().unwrap();
        part(0)..=part(1)
    };
    assert!(report.missing.count > 20, "{report:?}");
    assert!(report.missing.first.iter().all(|missing| events(&second).contains(&missing.index.unwrap())));
    assert!(report.duplicated.count > 20, "{report:?}");
    assert!(report.duplicated.first.iter().all(|twice| events(&third).contains(&twice.index.unwrap())));
}

/// A folder, and all that lies below it.
fn below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (vec![], vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        open.extend(std::fs::read_dir(&path).into_iter().flatten().map(|entry| entry.unwrap().path()));
        found.push(path);
    }
    found
}

/// Something that is mounted, a small file system in memory for one; unmounted with this value.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "custody-test"]).arg(at);
        process::run(&mut command, b"", DEADLINE).ok();
        Self(at.to_owned())
    }

    /// What is there, and may not be changed as long as this value lives.
    fn read_only(at: &Path) -> Self {
        let mount = |arguments: &[&str]| {
            process::run(Command::new("mount").args(arguments).arg(at), b"", DEADLINE).ok();
        };
        mount(&["--bind", at.to_str().unwrap()]);
        let mounted = Self(at.to_owned());
        mount(&["-o", "remount,bind,ro"]);
        mounted
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(process::run(Command::new("umount").arg("--lazy").arg(&self.0), b"", DEADLINE));
    }
}

#[test]
fn a_full_disk_stalls_and_says_so_and_it_goes_on_when_there_is_room() {
    for is_lake in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Small::mount(&dir.path().join("disk"), "1m");
        let (source, folder) = (Source::new(), disk.0.join("files"));
        let ballast = disk.0.join("ballast");
        std::fs::write(&ballast, vec![1; 900 << 10]).unwrap();
        let sink = if is_lake { lake(&folder, 100_000) } else { lines(&folder, Format::Custody) };
        source.grow(1_000);
        let run = source.deliver(sink);
        let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
        until_true("the disk is full", DEADLINE, || trouble().contains("No space left on device"));
        let stands = run.control.health().numbers().next;
        assert!(stands < source.log.size());
        std::fs::remove_file(&ballast).unwrap();
        source.delivered(&run);
        proven(&source, &run);
        source.stop(run);
    }
}

/// Where the Parquet lies nothing can be written any more, and the spool takes what comes.
#[test]
fn a_lake_that_may_not_be_written_any_more_says_so_and_has_everything_once_it_may() {
    let (source, folder) = (Source::new(), tempfile::tempdir().unwrap());
    let external = folder.path().join("ext");
    std::fs::create_dir(&external).unwrap();
    let read_only = Small::read_only(&external);
    source.grow(10);
    let run = source.deliver(lake(folder.path(), 100_000));
    let [spool, rolling] =
        ["current", "rolling"].map(|name| folder.path().join(format!("spool/{name}.ndjson")));
    until_true("what has arrived is taken aside", DEADLINE, || rolling.exists());
    source.grow(2);
    let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
    until_true("it says so", DEADLINE, || trouble().contains("no Parquet is written: Read-only file system"));
    assert!(run.control.health().numbers().next < source.log.size());
    drop(read_only);
    source.delivered(&run);
    until_true("all of it is Parquet", DEADLINE, || !spool.exists() && !rolling.exists());
    proven(&source, &run);
    read_lake(&source, folder.path());
    source.stop(run);
}

/// A forwarder in the owner's group gets to what it may read; nobody else gets anywhere.
#[test]
fn files_and_the_folders_above_them_are_readable_by_the_group() {
    for is_lake in [false, true] {
        let (source, dir) = (Source::new(), tempfile::tempdir().unwrap());
        // Neither is there: both are made by the sink.
        let above = dir.path().join("exported");
        let folder = above.join("events");
        source.grow(10);
        let sink = if is_lake { lake(&folder, 5) } else { lines(&folder, Format::Custody) };
        let run = source.deliver(sink);
        source.delivered(&run);
        source.stop(run);
        let mut files = 0;
        for path in below(&above) {
            // What lies in the spool becomes Parquet meanwhile.
            let Ok(metadata) = path.metadata() else { continue };
            let wanted = if metadata.is_dir() { 0o750 } else { 0o640 };
            assert_eq!(metadata.permissions().mode() & 0o777, wanted, "{}", path.display());
            files += usize::from(metadata.is_file());
        }
        assert!(files > 1 && folder.join("ext").is_dir() == is_lake, "{files}");
    }
}

#[test]
fn lines_that_were_altered_removed_or_added_are_named() {
    let (source, folder) = (Source::new(), tempfile::tempdir().unwrap());
    source.grow(300);
    let run = source.deliver(lines(folder.path(), Format::Custody));
    source.delivered(&run);
    proven(&source, &run);
    let day = days(folder.path()).pop().unwrap();
    let mut text: Vec<String> = std::fs::read_to_string(&day).unwrap().lines().map(str::to_owned).collect();
    let at = |text: &[String], index: u64| {
        text.iter().position(|line| line.starts_with(&format!("{{\"index\":{index},"))).unwrap()
    };
    let altered = at(&text, 40);
    text[altered] = text[altered].replace("tests", "nobody");
    let added_to = at(&text, 45);
    text[added_to] = text[added_to].replacen('{', "{\"x\":1,", 1);
    text.remove(at(&text, 50));
    text.push(text[at(&text, 60)].clone());
    text.push(text[0].replace("{\"index\":0,", "{\"index\":999999,"));
    text.push("{}".to_owned());
    std::fs::write(&day, text.join("\n") + "\n").unwrap();
    let report = source.prove(&run);
    let named = |findings: &custody_core::delivery::Findings| {
        findings.first.iter().map(|finding| finding.index).collect::<Vec<_>>()
    };
    assert_eq!(named(&report.altered), [Some(40), Some(45)], "{report:?}");
    assert_eq!(named(&report.missing), [Some(50)]);
    assert_eq!(named(&report.duplicated), [Some(60)]);
    let mut extra = named(&report.extra);
    extra.sort_unstable();
    assert_eq!(extra, [None, Some(999_999)]);
    source.stop(run);
}

/// As archives do it: what is over becomes immutable.
#[test]
fn a_day_that_may_not_be_changed_any_more_holds_nothing_up() {
    let (source, folder) = (Source::new(), tempfile::tempdir().unwrap());
    source.grow(50);
    let past = folder.path().join("custody-2020-01-01.ndjson");
    std::fs::write(&past, "{\"origin\":\"another/log\"}\n").unwrap();
    let _unmounted_at_last = Small::read_only(&past);
    assert!(std::fs::OpenOptions::new().write(true).open(&past).is_err());
    let run = source.deliver(lines(folder.path(), Format::Custody));
    source.delivered(&run);
    proven(&source, &run);
    source.stop(run);
}

/// A day has its last event when the sink is past it, which may be long after the day is over.
#[test]
fn a_file_that_may_not_be_changed_and_is_not_complete_is_named() {
    let clock = Arc::new(ManualClock::new(Nanos(1_764_000_000_000_000_000)));
    let (source, folder) = (Source::with(clock), tempfile::tempdir().unwrap());
    source.grow(1);
    let run = source.deliver(lines(folder.path(), Format::Custody));
    source.delivered(&run);
    let read_only = Small::read_only(&folder.path().join("custody-2025-11-24.ndjson"));
    source.grow(1);
    let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
    let says = "custody-2025-11-24.ndjson: Read-only file system";
    until_true("it is named", DEADLINE, || trouble().contains(says));
    drop(read_only);
    source.delivered(&run);
    proven(&source, &run);
    source.stop(run);
}

/// kill -9 of the real program while it writes, with a sink of each kind.
#[test]
fn a_daemon_that_is_killed_loses_and_repeats_nothing() {
    let mut world = World::start();
    let folder = world.dir().join("exported");
    world.custodyd.stop();
    world.custodyd.configure(&format!(
        "[[sink]]\nname = \"lines\"\n[sink.files]\nfolder = \"{0}/lines\"\n\
         [[sink]]\nname = \"lake\"\n[sink.files]\nfolder = \"{0}/lake\"\n\
         lake = {{ region = \"eu-central-1\", account = \"123456789012\", roll_events = 20 }}\n",
        folder.display()
    ));
    world.custodyd.start();
    for round in 0..5 {
        world.ssh(&[], &format!("echo {round}"), b"").ok();
        world.custodyd.kill_now();
        world.custodyd.start();
    }
    for name in ["lines", "lake"] {
        until_true("it has caught up", DEADLINE, || {
            let sinks = world.admin.custody(&["sinks", "ls", "--json"]).text();
            let sinks: Value = serde_json::from_str(&sinks).unwrap();
            let sinks = sinks.as_array().unwrap();
            sinks.iter().all(|sink| sink["lag_events"].as_u64().unwrap() < 5)
        });
        let said = world.admin.custody(&["sinks", "verify", name]).ok().text();
        let wrong = ["MISSING", "DUPLICATED", "ALTERED", "EXTRA"].iter().any(|word| said.contains(word));
        assert!(said.contains("proven") && !wrong, "{said}");
    }
    assert!(folder.join("lake/ext").is_dir());
}
