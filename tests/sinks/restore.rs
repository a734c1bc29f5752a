//! A log that has lost entries gets them back from where they were delivered to; and a store that has lost documents gets
//! them back from the log.

use super::opensearch::two;
use custody_core::clock::{Clock, SystemClock};
use custody_core::event::{Actor, Draft, ProducerKind, login, producer};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::verify::directory;
use custody_core::log::{Entry, Log, Numbering, Producer, Signer as _, VerifierKey};
use custody_tests::process::{Said, run};
use custody_tests::program;
use custody_tests::servers::custodyd::layout;
use custody_tests::servers::{Kafka, Loki, World};
use custody_tests::wait::{DEADLINE, until, until_true};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const ORIGIN: &str = "custody.test/log";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A world whose sink has these settings; its daemon is stopped.
fn world(sink: &str) -> World {
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure(&format!("[[sink]]\n{sink}"));
    world
}

/// The settings of a sink named `search`.
fn search(stream: &str) -> String {
    let url = two().url();
    format!("name = \"search\"\n[sink.opensearch]\nendpoint = {{ url = \"{url}\" }}\nstream = \"{stream}\"\n")
}

/// Appends so many events in segments of some seventy; the daemon doesn't run.
fn grow(world: &World, events: u64) {
    let data = world.custodyd.data();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let signer = Arc::new(layout::log_signer(&data, ORIGIN));
    let options = Options { segment_bytes: 30_000, ..Options::new(signer, Arc::clone(&clock)) };
    let log = Arc::new(EmbeddedLog::open(&data.join("log"), options).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let numbering = Numbering {
        log: Arc::clone(&log) as Arc<dyn Log>,
        clock,
        id: "filler".to_owned(),
        kind: ProducerKind::Log,
        previous: None,
        program: "tests".to_owned(),
    };
    runtime.block_on(async {
        let producer = Producer::start(numbering, Vec::<Draft<producer::Started>>::new()).await.unwrap();
        for n in 0..events / 50 {
            let failed = |k: u64| login::Failed {
                claimed_user: Some(format!("user {n} \"{k}\" é")),
                method: login::Attempt::Password,
                reason: "wrong password".to_owned(),
            };
            let batch: Vec<_> = (0..50).map(|k| Draft::new(Actor::system("tests"), failed(k))).collect();
            let _durable = producer.append(batch).await.unwrap();
        }
    });
    log.close();
}

fn segments(world: &World) -> Vec<PathBuf> {
    let folder = world.custodyd.data().join(layout::SEGMENTS);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).collect();
    paths.sort();
    paths
}

/// An entry's index, when it was appended, and its bytes.
type Kept = (u64, u64, Vec<u8>);

/// All of the log, as its own records have it.
fn entries(world: &World) -> Vec<Kept> {
    let log = world.custodyd.data().join("log");
    let mut entries = Vec::new();
    let mut keep = |entry: &Entry| entries.push((entry.index, entry.appended.0, entry.bytes.to_vec()));
    directory(&log, &key(world), &[], &mut |_, _| {}, &mut keep).unwrap();
    entries
}

fn key(world: &World) -> VerifierKey {
    layout::log_signer(&world.custodyd.data(), ORIGIN).verifier_key()
}

/// Flips a bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Writes another event over one of a segment, as somebody would who knows how records are made; gives its index.
fn forge(path: &Path) -> u64 {
    let mut bytes = std::fs::read(path).unwrap();
    let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let word = b"wrong password";
    let (mut at, mut index) = (64, first);
    loop {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let record = at + 8..at + 8 + length;
        if let Some(place) = bytes[record.clone()].windows(word.len()).position(|part| part == word) {
            bytes[record.start + place] = b'W';
            let seed = crc32c::crc32c_append(crc32c::crc32c(&Sha256::digest(ORIGIN)), &first.to_le_bytes());
            let length = crc32c::crc32c_append(seed, &bytes[at..at + 4]);
            let crc = crc32c::crc32c_append(length, &bytes[record]);
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(path, bytes).unwrap();
            return index;
        }
        (at, index) = (record.end, index + 1);
    }
}

/// Why the daemon doesn't start.
fn refusal(world: &mut World) -> String {
    let before = world.custodyd.output().len();
    world.custodyd.spawn(&mut Command::new(program("custodyd")));
    let status = until("custodyd refuses to start", DEADLINE, || world.custodyd.ended());
    assert!(!status.success());
    world.custodyd.kill_now();
    world.custodyd.output()[before..].to_owned()
}

fn restore(world: &World, arguments: &[&str]) -> Said {
    let config = world.custodyd.config();
    let mut all = vec!["log", "restore", "--config", text(&config)];
    all.extend(arguments);
    world.admin.try_custody(&all, b"")
}

/// Waits until the sink has everything and proves it.
fn proven(world: &World, sink: &str) {
    let said = until("the sink is proven", DEADLINE * 4, || {
        let said = world.admin.try_custody(&["sinks", "verify", sink], b"");
        (said.code == 0).then(|| said.text())
    });
    assert!(said.contains("proven") && !said.contains("MISSING"), "{said}");
}

fn is_whole(world: &World, before: &[Kept]) {
    let after = entries(world);
    assert_eq!(after[..before.len()], before[..], "each entry and its time is what it was");
    let data = world.custodyd.data();
    let said = world.admin.custody(&["verify", text(&data), "--key", &key(world).to_string()]).text();
    assert!(said.contains("is what was signed"), "{said}");
}

#[test]
fn a_damaged_segment_and_a_missing_one_come_back_from_opensearch() {
    const STREAM: &str = "logs-custody.events-restored";
    let mut world = world(&search(STREAM));
    grow(&world, 1_500);
    world.custodyd.start();
    world.ssh(&[], "echo before the damage", b"").ok();
    proven(&world, "search");
    world.custodyd.stop();
    let before = entries(&world);
    let paths = segments(&world);
    assert!(paths.len() > 10, "{} segments", paths.len());

    // One is damaged in its middle, one is gone, and two neighbours have lost their ends to each other.
    damage(&paths[4]);
    std::fs::remove_file(&paths[7]).unwrap();
    std::fs::write(&paths[8], &std::fs::read(&paths[8]).unwrap()[..9_000]).unwrap();
    let said = refusal(&mut world);
    assert!(said.contains("is damaged") && said.contains("custody log restore --from SINK"), "{said}");

    // Nothing is believed that the store has otherwise than it was delivered.
    let node = two();
    let gone: u64 = paths[7].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let alter = |script: &str| {
        let body = json!({
            "query": { "bool": { "filter": [
                { "term": { "custody.log.origin": ORIGIN } }, { "term": { "custody.log.index": gone + 3 } },
            ] } },
            "script": { "source": script },
        });
        let path = format!("{STREAM}/_update_by_query?refresh=true&conflicts=proceed");
        let answer = node.ask("POST", &path, &body.to_string()).unwrap().ok().json();
        assert_eq!(answer["updated"], 1, "{answer}");
    };
    alter("ctx._source.kept = ctx._source.event.original; ctx._source.event.original = '{}'");
    let said = restore(&world, &["--from", "search"]);
    assert!(said.code != 0, "{}", said.text());
    assert!(
        said.err
            .contains(&format!("search lacks 1 of the entries that are missing here: entry {}", gone + 3)),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("don't give its leaf hash") && said.err.contains("nothing was changed"),
        "{}",
        said.err
    );
    assert!(!world.custodyd.data().join("log.restored").exists() && !paths[7].exists());
    alter("ctx._source.event.original = ctx._source.remove('kept')");

    let said = restore(&world, &["--from", "search"]).ok();
    assert!(said.text().contains("is whole again"), "{}", said.text());
    let aside = world.custodyd.data().join("log.damaged/segments");
    assert!(aside.is_dir() && !aside.join(paths[7].file_name().unwrap()).exists(), "the damaged one is kept");
    is_whole(&world, &before);
    let said = restore(&world, &["--from", "search"]).ok();
    assert!(said.text().contains("Nothing is missing"), "{}", said.text());
    world.custodyd.start();
    let told = world.event("type=log.recovered", "it says where it came back from", |_| true);
    assert_eq!(told.event["data"]["from"], "sink search");
    proven(&world, "search");
    world.ssh(&[], "echo it goes on", b"").ok();
    world.custodyd.stop();
    is_whole(&world, &before);
}

#[test]
fn a_log_that_is_gone_is_rebuilt_by_a_checkpoint_that_somebody_kept() {
    const STREAM: &str = "logs-custody.events-rebuilt";
    let mut world = world(&search(STREAM));
    grow(&world, 300);
    world.custodyd.start();
    world.ssh(&[], "echo before the fire", b"").ok();
    proven(&world, "search");
    world.custodyd.stop();
    // What the stop itself said is delivered at the next start; the last checkpoint covers it.
    world.custodyd.start();
    proven(&world, "search");
    let kept = world.dir().join("kept.checkpoint");
    std::fs::write(&kept, world.admin.request("/v1/checkpoint", &[]).body).unwrap();
    proven(&world, "search");
    world.custodyd.kill_now();
    let log = world.custodyd.data().join("log");
    let before = entries(&world);
    std::fs::remove_dir_all(&log).unwrap();

    let said = restore(&world, &["--from", "search"]);
    assert!(said.code != 0 && said.err.contains("--checkpoint"), "{}", said.err);
    let other = world.dir().join("other.checkpoint");
    std::fs::write(&other, "custody.test/log\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u{2014} custody.test/log AAAA\n").unwrap();
    let said = restore(&world, &["--from", "search", "--checkpoint", text(&other)]);
    assert!(said.code != 0 && said.err.contains("isn't a checkpoint of this log"), "{}", said.err);
    let said = restore(&world, &["--from", "nowhere", "--checkpoint", text(&kept)]);
    assert!(said.code != 0 && said.err.contains("there is no sink nowhere"), "{}", said.err);

    let said = restore(&world, &["--from", "search", "--checkpoint", text(&kept)]).ok().text();
    assert!(said.contains("0 of the") && said.contains("is whole again"), "{said}");
    let size: usize = std::fs::read_to_string(&kept).unwrap().lines().nth(1).unwrap().parse().unwrap();
    is_whole(&world, &before[..size]);
}

#[test]
fn what_the_sink_never_got_is_named() {
    let settings = search("logs-custody.events-filtered");
    let mut world = world(&format!("filter = {{ include = [\"login.*\"] }}\n{settings}"));
    grow(&world, 200);
    world.custodyd.start();
    proven(&world, "search");
    world.custodyd.stop();
    let paths = segments(&world);
    std::fs::remove_file(&paths[0]).unwrap();
    let second = paths[1].file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let said = restore(&world, &["--from", "search"]);
    assert!(said.code != 0 && said.err.contains("entry 0: it isn't there"), "{}", said.err);
    assert!(said.err.contains("more") && second > 20, "{}", said.err);
    assert!(!paths[0].exists());
}

#[test]
fn a_damaged_log_comes_back_from_loki() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(dir.path(), &[]);
    loki.start();
    let url = format!("http://127.0.0.1:{}", loki.service.port());
    let settings = format!("[sink.loki]\ntenant = \"acme\"\nendpoint = {{ url = \"{url}\" }}\n");
    let mut world = world(&format!("name = \"loki\"\n{settings}"));
    grow(&world, 400);
    world.custodyd.start();
    world.ssh(&[], "echo before the damage", b"").ok();
    proven(&world, "loki");
    world.custodyd.stop();
    let before = entries(&world);
    let paths = segments(&world);
    damage(&paths[1]);
    std::fs::remove_file(&paths[2]).unwrap();
    let said = restore(&world, &["--from", "loki"]).ok().text();
    assert!(said.contains("is whole again"), "{said}");
    is_whole(&world, &before);
    world.custodyd.start();
    let told = world.event("type=log.recovered", "it says where it came back from", |_| true);
    assert_eq!(told.event["data"]["from"], "sink loki");
    proven(&world, "loki");

    // One entry is another, with checksums that hold: only the signed root tells, and only a copy tells which one it is.
    world.custodyd.stop();
    let before = entries(&world);
    let forged = forge(&segments(&world)[0]);
    let said = refusal(&mut world);
    assert!(said.contains("was replaced"), "{said}");
    let said = restore(&world, &["--from", "loki"]).ok().text();
    assert!(said.contains("is whole again") && said.contains(&format!("replaced     {forged}:")), "{said}");
    is_whole(&world, &before);
}

/// What a sink has brings a log back of which two segments are lost.
fn comes_back_from(name: &str, world: &mut World) {
    grow(world, 400);
    world.custodyd.start();
    world.ssh(&[], "echo before the damage", b"").ok();
    proven(world, name);
    world.custodyd.stop();
    let before = entries(world);
    let paths = segments(world);
    damage(&paths[1]);
    std::fs::remove_file(&paths[2]).unwrap();
    let said = restore(world, &["--from", name]).ok().text();
    assert!(said.contains("is whole again"), "{said}");
    is_whole(world, &before);
    world.custodyd.start();
    let told = world.event("type=log.recovered", "it says where it came back from", |_| true);
    assert_eq!(told.event["data"]["from"], format!("sink {name}"));
    proven(world, name);
    world.custodyd.stop();
}

#[test]
fn a_damaged_log_comes_back_from_files_and_from_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| format!("[sink.files]\nfolder = \"{}/{name}\"\n", dir.path().display());
    let lake = "lake = { region = \"eu-central-1\", account = \"123456789012\", roll_events = 100 }\n";
    comes_back_from("lines", &mut world(&format!("name = \"lines\"\n{}", folder("lines"))));
    let ocsf = format!("name = \"ocsf\"\n{}format = \"ocsf\"\n", folder("ocsf"));
    comes_back_from("ocsf", &mut world(&ocsf));
    let mut world_of_lake = world(&format!("name = \"lake\"\n{}{lake}", folder("lake")));
    comes_back_from("lake", &mut world_of_lake);

    // A file of the lake that is damaged keeps nothing back that others have of its day.
    grow(&world_of_lake, 400);
    world_of_lake.custodyd.start();
    proven(&world_of_lake, "lake");
    world_of_lake.custodyd.stop();
    let first = |path: &PathBuf| -> u64 {
        path.file_stem().unwrap().to_str().unwrap().split('-').next().unwrap().parse().unwrap()
    };
    let parquet = find(&dir.path().join("lake/ext"), "parquet");
    let damaged = parquet.iter().min_by_key(|path| first(path)).unwrap();
    let (before, paths) = (entries(&world_of_lake), segments(&world_of_lake));
    assert!(first(damaged) + 100 < first(&paths[1]) && paths.len() > 2, "{parquet:?}, {paths:?}");
    std::fs::write(damaged, b"PAR1").unwrap();
    std::fs::remove_file(&paths[1]).unwrap();
    let said = restore(&world_of_lake, &["--from", "lake"]).ok().text();
    assert!(said.contains("is whole again"), "{said}");
    is_whole(&world_of_lake, &before);

    // One that may hold what is missing is named, and isn't taken for one that holds nothing.
    std::fs::remove_file(&segments(&world_of_lake)[0]).unwrap();
    let said = restore(&world_of_lake, &["--from", "lake"]);
    assert!(said.code != 0 && said.err.contains(&*damaged.to_string_lossy()), "{}", said.err);
    assert!(
        said.err.contains("nothing was changed") || said.err.contains("Nothing was changed"),
        "{}",
        said.err
    );
    drop(world_of_lake);

    let mut kafka = Kafka::prepare(&dir.path().join("kafka"), 1, &[]);
    kafka.start();
    let brokers = format!("brokers = [\"{}\"]\ntimeout_seconds = 5\n", kafka.bootstrap());
    let settings = format!("name = \"stream\"\n[sink.kafka]\n{brokers}topic = \"custody.restored\"\n");
    comes_back_from("stream", &mut world(&settings));
}

/// The files below a folder with that extension.
fn find(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(find(&path, extension));
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `custodyd` with these arguments and the world's configuration, behind `before` where there is something.
fn custodyd(world: &World, before: &[&str], arguments: &[&str]) -> Said {
    let (daemon, config) = (program("custodyd"), world.custodyd.config());
    let mut all = before.to_vec();
    all.push(text(&daemon));
    all.extend(arguments);
    all.extend(["--config", text(&config)]);
    run(Command::new(all[0]).args(&all[1..]), b"a long enough password\n", DEADLINE)
}

/// Makes the data directory's log, and all that lies beside it under a name like that, what was kept.
fn put_back(data: &Path, kept: &Path) {
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "log" || name.starts_with("log.") {
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
    copy(kept, &data.join("log"));
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Nothing begins another log while this one only lacks its place, and each says what to do.
fn nothing_else_begins(world: &mut World, says: &str) {
    let log = world.custodyd.data().join("log");
    assert!(!log.exists());
    let said = refusal(world);
    assert!(said.contains("was cut off before its last step") && said.contains(says), "{said}");
    for arguments in [&["init", "--admin", "mallory"][..], &["secret", "put", "token"][..]] {
        let said = custodyd(world, &[], arguments);
        assert!(said.code != 0 && said.err.contains(says), "{arguments:?}: {}", said.err);
    }
    assert!(!log.exists());
}

/// At each name that it gives: whatever is there then, there is no second log, and the same command finishes it.
#[test]
fn a_restoring_that_is_killed_goes_on_and_nobody_begins_another_log() {
    let dir = tempfile::tempdir().unwrap();
    let (lines, hidden, kept) =
        (dir.path().join("lines"), dir.path().join("hidden"), dir.path().join("kept"));
    let mut world = world(&format!("name = \"lines\"\n[sink.files]\nfolder = \"{}\"\n", text(&lines)));
    grow(&world, 400);
    world.custodyd.start();
    proven(&world, "lines");
    world.custodyd.stop();
    let (before, data) = (entries(&world), world.custodyd.data());
    std::fs::remove_file(&segments(&world)[1]).unwrap();
    copy(&data.join("log"), &kept);

    let renames = "?rename,?renameat,?renameat2";
    let (mut whole_aside, mut between, mut number) = (0, 0, 0);
    loop {
        number += 1;
        assert!(number < 50, "it is killed again and again");
        put_back(&data, &kept);
        let (trace, inject) =
            (format!("trace={renames}"), format!("inject={renames}:signal=SIGKILL:when={number}"));
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        if custodyd(&world, &strace, &["restore", "--from", "lines"]).code == 0 {
            break;
        }
        if !data.join("log").exists() {
            between += 1;
            nothing_else_begins(&mut world, "custody log restore --config CONFIG --from lines");
        }
        // What is whole is taken as it is: the sink isn't asked again.
        let is_whole_aside = data.join("log.restored/restored").exists();
        if is_whole_aside {
            whole_aside += 1;
            std::fs::rename(&lines, &hidden).unwrap();
        }
        restore(&world, &["--from", "lines"]).ok();
        if is_whole_aside {
            std::fs::rename(&hidden, &lines).unwrap();
        }
        is_whole(&world, &before);
        assert!(data.join("log.damaged").is_dir() && !data.join("log.restored").exists());
    }
    assert!(whole_aside >= 2 && between >= 1, "{whole_aside}, {between} of {number}");
    is_whole(&world, &before);

    // What was put together for another state of the log isn't taken, and isn't thrown away either.
    copy(&data.join("log"), &data.join("log.restored"));
    world.custodyd.start();
    proven(&world, "lines");
    world.custodyd.stop();
    damage(&segments(&world)[0]);
    let said = restore(&world, &["--from", "lines"]);
    assert!(said.code != 0 && said.err.contains("for another state of this log"), "{}", said.err);
    assert!(data.join("log.restored/restored").exists());
    std::fs::rename(data.join("log.restored"), dir.path().join("away")).unwrap();
    assert!(restore(&world, &["--from", "lines"]).ok().text().contains("is whole again"));
    is_whole(&world, &before);
}

#[test]
fn a_change_of_epoch_that_was_cut_off_is_finished_and_nobody_begins_another_log() {
    const NEXT: &str = "custody.test/log-2";
    let mut world = World::start();
    world.custodyd.stop();
    let epoch = |world: &World, origin: &str| {
        custodyd(world, &[], &["new-epoch", "--origin", origin, "--reason", "the disk burnt"])
    };
    epoch(&world, NEXT).ok();
    let data = world.custodyd.data();
    let kept = std::fs::read(data.join("log/checkpoint")).unwrap();
    // As a crash between the two renames leaves it.
    std::fs::rename(data.join("log"), data.join("log.new")).unwrap();
    std::fs::write(data.join("log.new/epoch"), format!("{NEXT}\n")).unwrap();
    nothing_else_begins(&mut world, &format!("custodyd new-epoch --config CONFIG --origin {NEXT}"));
    let said = epoch(&world, "custody.test/log-3");
    assert!(said.code != 0 && said.err.contains(NEXT), "{}", said.err);
    let said = epoch(&world, NEXT).ok().text();
    assert!(said.contains("is finished") && said.contains(&format!("{NEXT}+")), "{said}");
    assert_eq!(std::fs::read(data.join("log/checkpoint")).unwrap(), kept);
    assert!(!data.join("log.new").exists());
}

/// It claims to be the last of what is missing, at the time of the first.
#[test]
fn a_document_that_strayed_keeps_no_entry_from_coming_back() {
    const STREAM: &str = "logs-custody.events-strayed";
    let mut world = world(&search(STREAM));
    grow(&world, 400);
    world.custodyd.start();
    proven(&world, "search");
    world.custodyd.stop();
    let before = entries(&world);
    let paths = segments(&world);
    let first = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let missing = first(&paths[1])..first(&paths[3]);
    let node = two();
    let query = json!({ "query": { "term": { "custody.log.index": missing.start + 1 } } });
    let path = format!("{STREAM}/_search");
    let found = node.ask("POST", &path, &query.to_string()).unwrap().ok().json();
    let mut stray = found["hits"]["hits"][0]["_source"].clone();
    stray["custody"]["log"]["index"] = json!(missing.end - 1);
    let path = format!("{STREAM}/_create/strayed?refresh=true");
    node.ask("PUT", &path, &stray.to_string()).unwrap().ok();
    std::fs::remove_file(&paths[1]).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    let said = restore(&world, &["--from", "search"]).ok().text();
    assert!(said.contains("is whole again"), "{said}");
    is_whole(&world, &before);
}

/// Of one repair.
#[test]
fn more_that_is_missing_than_is_listed_is_delivered_again() {
    const STREAM: &str = "logs-custody.events-emptied";
    let mut world = world(&search(STREAM));
    grow(&world, 2_500);
    world.custodyd.start();
    proven(&world, "search");
    let query = json!({ "query": { "range": { "custody.log.index": { "gte": 100, "lt": 2_400 } } } });
    let path = format!("{STREAM}/_delete_by_query?refresh=true&conflicts=proceed");
    let answer = two().ask("POST", &path, &query.to_string()).unwrap().ok().json();
    assert_eq!(answer["deleted"], 2_300, "{answer}");
    let said = world.admin.try_custody(&["sinks", "verify", "search", "--repair"], b"");
    assert!(said.code != 0 && said.err.contains("Delivering 2300 missing events again"), "{}", said.err);
    proven(&world, "search");
}

#[test]
fn a_document_that_was_deleted_is_delivered_again_and_proven() {
    const STREAM: &str = "logs-custody.events-repaired";
    let mut world = world(&search(STREAM));
    grow(&world, 300);
    world.custodyd.start();
    proven(&world, "search");
    let node = two();
    let gone: Vec<u64> = vec![17, 18, 250];
    let query = json!({ "query": { "terms": { "custody.log.index": gone } } });
    let path = format!("{STREAM}/_delete_by_query?refresh=true&conflicts=proceed");
    let answer = node.ask("POST", &path, &query.to_string()).unwrap().ok().json();
    assert_eq!(answer["deleted"], 3, "{answer}");
    let said = world.admin.try_custody(&["sinks", "verify", "search", "--repair", "--json"], b"");
    assert!(said.code != 0, "it wasn't there");
    let report: Value = serde_json::from_slice(&said.out).unwrap();
    let missing: Vec<u64> = report["missing"]["first"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["index"].as_u64().unwrap())
        .collect();
    assert_eq!(missing, gone);
    until_true("they are delivered again", DEADLINE * 2, || {
        world.admin.try_custody(&["sinks", "verify", "search"], b"").code == 0
    });
    proven(&world, "search");
    // Once each, as the store counts them itself.
    let count = |n: u64| {
        let query = json!({ "query": { "term": { "custody.log.index": n } } });
        node.ask("POST", &format!("{STREAM}/_count"), &query.to_string()).unwrap().ok().json()["count"]
            .clone()
    };
    for index in 0..300 {
        assert_eq!(count(index), 1, "event {index}");
    }
    let told = world.entries("type=sink.verified");
    assert!(told.iter().any(|entry| entry.event["data"]["missing"] == 3));
    assert!(!world.entries("type=sink.replay-begun").is_empty());
}
