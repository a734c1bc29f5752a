//! What grows with the log's length, and what doesn't.

use crate::log::{fill, open, record};
use crate::table::{Row, median};
use custody_core::log::Log;
use custody_core::log::embedded::EmbeddedLog;
use custody_tests::story::Story;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;
use uuid::Uuid;

const ROUNDS: usize = 5;
/// Appends and proofs in each round.
const ASKED: u64 = 200;
const SMALL: u64 = 1_000;
/// What a log takes that is at work shows from here on; what the first appends take is there once.
const AT_WORK: u64 = 100_000;

/// Append and proof at a million entries (and ten, with CUSTODY_BENCH_LARGE=1), beside a log of a thousand; memory, beside
/// the same log when it was shorter.
pub fn rows() -> Vec<Row> {
    let mut small = Grown::new();
    small.fill_to(SMALL);
    let mut large = Grown::new();
    large.fill_to(AT_WORK);
    let at_work = anonymous_mib();
    let mut sizes = vec![1_000_000];
    if std::env::var_os("CUSTODY_BENCH_LARGE").is_some() {
        sizes.push(10_000_000);
    }
    let mut rows = Vec::new();
    for size in sizes {
        large.fill_to(size);
        let memory = anonymous_mib();
        let appends = (0..ROUNDS).map(|_| (large.append_us(), small.append_us())).collect();
        let proofs = (0..ROUNDS).map(|_| (large.proof_us(), small.proof_us())).collect();
        let row = |what: &str, pairs, beside, aim| Row {
            name: format!("{what} at {size} entries"),
            pairs,
            beside,
            more_is_better: false,
            aim,
        };
        rows.push(row("one durable append, µs", appends, "at a thousand", Some(0.8)));
        rows.push(row("proofs of one entry, µs", proofs, "at a thousand", Some(0.8)));
        rows.push(row("anonymous memory, MiB", vec![(memory, at_work)], "at a hundred thousand", None));
    }
    rows
}

/// A log that is made longer.
struct Grown {
    log: Arc<EmbeddedLog>,
    story: Story,
    boot: Uuid,
    /// For questions that are the same each time.
    asked: u64,
    _dir: TempDir,
}

impl Grown {
    fn new() -> Grown {
        let dir = tempfile::tempdir().expect("a folder");
        let (story, boot) = (Story::new(), Uuid::new_v4());
        Grown { log: open(dir.path()), story, boot, asked: 0, _dir: dir }
    }

    fn fill_to(&mut self, size: u64) {
        let before = self.log.size();
        fill(&*self.log, self.boot, before, &mut self.story, size - before);
    }

    fn append_us(&mut self) -> f64 {
        let appended = |_| {
            let event = self.story.next().expect("it goes on");
            let record = record("bench", self.boot, self.log.size(), event);
            let start = Instant::now();
            let pending = self.log.submit(vec![record]).expect("the log takes it");
            drop(pending.wait_blocking().expect("it becomes durable"));
            start.elapsed().as_secs_f64() * 1e6
        };
        median((0..ASKED).map(appended).collect())
    }

    /// An inclusion proof, and a consistency proof from there.
    fn proof_us(&mut self) -> f64 {
        let size = self.log.size();
        let proved = |_| {
            self.asked += 1;
            let index = self.asked * 7919 * 104_729 % size;
            let start = Instant::now();
            assert!(self.log.inclusion_proof(index, size).expect("a proof").len() < 64);
            assert!(self.log.consistency_proof(index, size).expect("a proof").len() < 128);
            start.elapsed().as_secs_f64() * 1e6
        };
        median((0..ASKED).map(proved).collect())
    }
}

/// Memory of this process that isn't a file's.
pub fn anonymous_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it says this too");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
