//! The log: durable appends and replay.

use crate::table::{Row, median};
use custody_core::clock::SystemClock;
use custody_core::event::TYPES;
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::{Log, ProducerKey, Record};
use custody_core::state::replay;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const REPLAYED: u64 = 1_000_000;

/// The examples of all types: what events look like, about 600 bytes each.
fn events() -> Vec<(u8, Box<[u8]>)> {
    TYPES
        .iter()
        .map(|info| (info.family.tag(), (info.example)().expect("an example").into_boxed_slice()))
        .collect()
}

fn open(directory: &Path) -> Arc<EmbeddedLog> {
    let signer = Ed25519Signer::from_seed("custody.test/bench", &[7; 32]).expect("a key");
    let options = Options::new(Arc::new(signer), Arc::new(SystemClock::new()));
    Arc::new(EmbeddedLog::open(directory, options).expect("a new log"))
}

fn record(producer: &str, boot: Uuid, seq: u64, events: &[(u8, Box<[u8]>)]) -> Record {
    let (tag, bytes) = events[usize::try_from(seq).unwrap_or(0) % events.len()].clone();
    Record { producer: ProducerKey { id: producer.to_owned(), boot, seq }, tag, bytes: bytes.into() }
}

/// Durable appends a second, each producer waiting for its own; beside a bare loop that writes and syncs as many
/// records at once as there are producers.
pub fn appends() -> Vec<Row> {
    [1, 64, 1024]
        .into_iter()
        .map(|producers| {
            let (mut ours, mut beside) = (vec![], vec![]);
            for _ in 0..ROUNDS {
                ours.push(appended(producers));
                beside.push(written(producers));
            }
            Row {
                name: format!("durable appends/s, {producers} producers"),
                ours: median(ours),
                beside: median(beside),
                beside_what: "write + fdatasync in a bare loop",
                more_is_better: true,
                aim: None,
            }
        })
        .collect()
}

fn appended(producers: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    let events = Arc::new(events());
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
                    for seq in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let pending =
                            log.submit(vec![record(&id, boot, seq, &events)]).expect("the log takes it");
                        pending.await.expect("it becomes durable");
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

fn written(at_once: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = std::fs::File::create(dir.path().join("bare")).expect("a file");
    let events = events();
    let (mut records, mut buffer, start) = (0_u64, Vec::new(), Instant::now());
    while start.elapsed() < ROUND {
        buffer.clear();
        for _ in 0..at_once {
            buffer.extend_from_slice(&events[usize::try_from(records).unwrap_or(0) % events.len()].1);
            records += 1;
        }
        file.write_all(&buffer).expect("written");
        file.sync_data().expect("synced");
    }
    records as f64 / start.elapsed().as_secs_f64()
}

/// Seconds for the state after a million events, beside reading the same files once.
pub fn replay() -> Row {
    let dir = tempfile::tempdir().expect("a folder");
    let events = events();
    let log = open(dir.path());
    let boot = Uuid::new_v4();
    let mut seq = 0;
    let mut waiting = std::collections::VecDeque::new();
    while seq < REPLAYED {
        let batch: Vec<Record> = (seq..seq + 1000).map(|n| record("bench", boot, n, &events)).collect();
        seq += 1000;
        waiting.push_back(log.submit(batch).expect("the log takes it"));
        if waiting.len() > 16 {
            let first = waiting.pop_front().expect("there are 17");
            drop(first.wait_blocking().expect("it becomes durable"));
        }
    }
    for pending in waiting {
        drop(pending.wait_blocking().expect("it becomes durable"));
    }
    let (mut ours, mut beside) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let state = replay::replay(&*log, None, |_, _| ()).expect("a state");
        ours.push(start.elapsed().as_secs_f64());
        assert_eq!(state.size(), REPLAYED);
        let start = Instant::now();
        assert!(read_all(dir.path()) > REPLAYED);
        beside.push(start.elapsed().as_secs_f64());
    }
    Row {
        name: format!("replay of {REPLAYED} events, seconds"),
        ours: median(ours),
        beside: median(beside),
        beside_what: "reading the same files",
        more_is_better: false,
        aim: None,
    }
}

fn read_all(dir: &Path) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        total +=
            if path.is_dir() { read_all(&path) } else { std::fs::read(&path).map_or(0, |b| b.len() as u64) };
    }
    total
}
