//! The log: durable appends.

use crate::table::Row;
use bytes::Bytes;
use custody_core::clock::SystemClock;
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::{Log, Pending, ProducerKey, Record};
use custody_tests::story::Story;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(1);
/// What the bare loop writes over, for each record that it writes at once.
const ZEROES_BYTES: usize = 8 << 20;
/// And at most: making more ready would keep the disk busy when the log's turn comes.
const ZEROES_BYTES_MAX: usize = 64 << 20;
/// Events of the story that are appended over and over; about 600 bytes each.
const EVENTS: usize = 10_000;
/// What the child that runs without its syncs is told: how many producers.
pub const CHILD: &str = "CUSTODY_BENCH_PRODUCERS";

/// Batches that wait while a log is filled: few, since what waits is in memory.
const IN_FLIGHT: usize = 2;

type Events = Arc<Vec<(u8, Bytes)>>;

pub fn open(directory: &Path) -> Arc<EmbeddedLog> {
    let signer = Ed25519Signer::from_seed("custody.test/bench", &[7; 32]).expect("a key");
    let options = Options::new(Arc::new(signer), Arc::new(SystemClock::new()));
    Arc::new(EmbeddedLog::open(directory, options).expect("a new log"))
}

pub fn record(producer: &str, boot: Uuid, seq: u64, (tag, bytes): (u8, Bytes)) -> Record {
    Record { producer: ProducerKey { id: producer.to_owned(), boot, seq }, tag, bytes }
}

/// Appends `count` events of the story as fast as the log takes them, as the events `seq` and later of one boot.
pub fn fill(log: &dyn Log, boot: Uuid, seq: u64, story: &mut Story, count: u64) {
    let mut waiting: VecDeque<Pending> = VecDeque::new();
    let mut done = 0;
    while done < count {
        let size = (count - done).min(1000);
        let batch = story.take(usize::try_from(size).expect("small")).zip(seq + done..);
        let batch = batch.map(|(event, seq)| record("bench", boot, seq, event)).collect();
        waiting.push_back(log.submit(batch).expect("the log takes it"));
        done += size;
        if waiting.len() > IN_FLIGHT {
            drop(waiting.pop_front().expect("there are some").wait_blocking().expect("it becomes durable"));
        }
    }
    for pending in waiting {
        drop(pending.wait_blocking().expect("it becomes durable"));
    }
}

/// Durable appends a second, each producer waiting for its own. Beside a bare loop that writes and syncs as many records
/// at once as there are producers, at the end of a file and over zeroes that are there already; and beside the same
/// program whose syncs do nothing.
pub fn appends() -> Vec<Row> {
    let mut rows = Vec::new();
    for (producers, aim) in [(1, Some(0.9)), (64, Some(0.8)), (1024, None)] {
        let row = |beside, aim, theirs: &dyn Fn() -> f64| Row {
            name: format!("durable appends/s, {producers} producers"),
            pairs: (0..ROUNDS).map(|_| (appended(producers), theirs())).collect(),
            beside,
            more_is_better: true,
            aim,
        };
        rows.push(row("write + fdatasync in a bare loop", aim, &|| written(producers, 0)));
        rows.push(row("the same over zeroes", None, &|| {
            written(producers, (producers * ZEROES_BYTES).min(ZEROES_BYTES_MAX))
        }));
        if producers == 1024 {
            rows.push(row("the same program without its syncs", Some(0.8), &|| appended_unsynced(producers)));
        }
    }
    rows
}

/// Durable appends a second by `producers` that each wait for their own.
pub fn appended(producers: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    let events: Events = Arc::new(Story::new().take(EVENTS).collect());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..producers)
            .map(|n| {
                let (log, events, stop, done) = (log.clone(), events.clone(), stop.clone(), done.clone());
                tokio::spawn(async move {
                    let (id, boot) = (format!("producer-{n}"), Uuid::new_v4());
                    for (seq, event) in (0..).zip(events.iter().cycle().skip(n)) {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let record = record(&id, boot, seq, event.clone());
                        let pending = log.submit(vec![record]).expect("the log takes it");
                        drop(pending.await.expect("it becomes durable"));
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        tokio::time::sleep(ROUND).await;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.expect("a producer");
        }
    });
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// [`appended`] in a child whose `fdatasync` and `fsync` do nothing: the library is loaded into this bench only, so that
/// no program of ours can be told to leave them out.
fn appended_unsynced(producers: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a folder");
    let library = dir.path().join("unsynced.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/unsynced.c");
    let compiled =
        Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.expect("cc, which links Rust too").success());
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).env(CHILD, producers.to_string()).env("LD_PRELOAD", &library).output();
    let output = child.expect("this program once more");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// Records a second of a loop that writes `at_once` of them and syncs, over `zeroes` bytes that are there already; it
/// ends when they are used up.
fn written(at_once: usize, zeroes: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = File::create(dir.path().join("bare")).expect("a file");
    file.write_all(&vec![0; zeroes]).expect("written");
    file.sync_all().expect("synced");
    file.rewind().expect("a file");
    let events: Vec<_> = Story::new().take(EVENTS).collect();
    let mut events = events.iter().cycle();
    let (mut records, mut bytes, mut buffer, start) = (0_u64, 0, Vec::new(), Instant::now());
    while start.elapsed() < ROUND && (zeroes == 0 || bytes < zeroes) {
        buffer.clear();
        for (_, event) in events.by_ref().take(at_once) {
            buffer.extend_from_slice(event);
            records += 1;
        }
        file.write_all(&buffer).expect("written");
        file.sync_data().expect("synced");
        bytes += buffer.len();
    }
    records as f64 / start.elapsed().as_secs_f64()
}
