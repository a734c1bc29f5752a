//! Starting over and over (L9): a kill in the middle of a replay costs nothing, the eighth as little as the first, and
//! a long log needs no more memory than a short one.

use super::events::record;
use super::ledger::open;
use super::stepping::Stepping;
use custody_core::log::Log as _;
use custody_tests::process::send;
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ENTRIES: u64 = 40_000;
const BATCH: u64 = 1_000;
/// On a busy machine a kill isn't waited for longer.
const LONGEST: Duration = Duration::from_secs(2);
/// What an entry may cost in memory while the log is open: its place in the tree and among the numbers.
const BYTES_OF_AN_ENTRY_MAX: u64 = 64;
/// What memory grows by anyhow.
const NOISE_BYTES: u64 = 2 << 20;

fn fill(directory: &Path, entries: u64) {
    let log = open(directory).unwrap();
    let submit = |first| log.submit((first..first + BATCH).map(|seq| record(1, 0, seq)).collect()).unwrap();
    let pending: Vec<_> = (0..entries / BATCH).map(|batch| submit(batch * BATCH)).collect();
    for pending in pending {
        pending.wait_blocking().unwrap();
    }
}

/// The most memory that it has had, in bytes.
fn memory(appender: &Stepping) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", appender.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn bytes_on_disk(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap().map(|item| item.unwrap());
    files
        .map(|item| {
            let meta = item.metadata().unwrap();
            if meta.is_dir() { bytes_on_disk(&item.path()) } else { meta.len() }
        })
        .sum()
}

#[test]
fn a_kill_in_the_middle_of_a_replay_costs_nothing() {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("log");
    fill(&directory, ENTRIES);
    let before = bytes_on_disk(&directory);
    let started = Instant::now();
    let mut appender = Stepping::start(&directory, &[]);
    assert!(appender.step("open"));
    let whole = started.elapsed();
    assert!(appender.end().0.success());
    for eighth in 0..8 {
        let mut appender = Stepping::start(&directory, &[]);
        let pid = appender.pid();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(whole.min(LONGEST) * eighth / 8);
            send(pid, Signal::KILL);
        });
        appender.step("open");
        killer.join().unwrap();
    }
    let log = open(&directory).unwrap();
    assert_eq!(log.recovery().entries, ENTRIES);
    assert_eq!((log.recovery().cut_bytes, log.recovery().rewritten_bytes), (0, 0));
    drop(log);
    assert_eq!(bytes_on_disk(&directory), before, "something was left behind");
}

#[test]
fn a_long_log_is_replayed_in_little_memory() {
    let place = TempDir::new().unwrap();
    let measured = [BATCH, ENTRIES].map(|entries| {
        let directory = place.path().join(entries.to_string());
        fill(&directory, entries);
        let mut appender = Stepping::start(&directory, &[]);
        assert!(appender.step("open"));
        assert_eq!(appender.ledger.opened[0][0], entries);
        memory(&appender)
    });
    let grown = measured[1].saturating_sub(measured[0]);
    println!("{measured:?}: {grown} bytes more");
    let allowed = NOISE_BYTES + BYTES_OF_AN_ENTRY_MAX * ENTRIES;
    assert!(
        grown < allowed,
        "{grown} bytes more for {ENTRIES} entries, {} of events",
        bytes_on_disk(place.path())
    );
}
