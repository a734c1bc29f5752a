//! Sessions through the proxy, beside plain `ssh` to the same sshd and beside `ssh -J` through a stock sshd.

mod compare;
mod files;
mod idle;
mod keys;
mod login;
mod stage;
mod transfer;

use crate::environment::{count, number, text};
use crate::table::{self, Row};
use custody_core::policy::RecordingLevel;
use stage::Stage;
use std::time::{Duration, Instant};

/// All parts, in the order in which they run.
const PARTS: &str = "login,keys,bulk,cpu,sftp,files,idle";
/// Levels of recording: transfers are measured at each, all else at the first.
const LEVELS: &str = "terminal,metadata,none";
/// How long one transfer may take: what takes longer hangs.
const TRANSFER_MAX: Duration = Duration::from_secs(600);

/// How much is done of everything.
struct Plan {
    /// MiB of a transfer.
    mib: u64,
    /// Small files that `scp -r` copies.
    files: usize,
    /// Logins at once, and idle sessions.
    sessions: usize,
    /// How often each way is taken.
    rounds: usize,
    /// Levels of recording.
    levels: Vec<RecordingLevel>,
}

impl Plan {
    fn from_environment() -> Self {
        let level = |name: &str| {
            RecordingLevel::named(name).unwrap_or_else(|| panic!("CUSTODY_BENCH_RECORDING={name}: no level"))
        };
        Self {
            mib: number("CUSTODY_BENCH_MIB", 1024),
            files: count("CUSTODY_BENCH_FILES", 10_000),
            sessions: count("CUSTODY_BENCH_SESSIONS", 100),
            rounds: count("CUSTODY_BENCH_ROUNDS", 3),
            levels: text("CUSTODY_BENCH_RECORDING", LEVELS).split(',').map(level).collect(),
        }
    }
}

/// All parts, or those in `CUSTODY_BENCH_SSH`. Each says what it found when it is through.
pub fn rows() -> Vec<Row> {
    let chosen = text("CUSTODY_BENCH_SSH", PARTS);
    let chosen: Vec<&str> = chosen.split(',').collect();
    for part in &chosen {
        assert!(PARTS.split(',').any(|p| p == *part), "CUSTODY_BENCH_SSH={part}: there are {PARTS}");
    }
    let (plan, has) = (Plan::from_environment(), |part| chosen.contains(&part));
    let mut stage = Stage::start(&plan.levels);
    let mut rows = Vec::new();
    let mut part = |name: &str, measure: &mut dyn FnMut() -> Vec<Row>| {
        let start = Instant::now();
        let found = measure();
        println!("ssh, {name}: {:.0} s\n{}", start.elapsed().as_secs_f64(), table::text(&found));
        rows.extend(found);
    };
    if has("login") {
        part("login", &mut || login::rows(&stage, &plan));
    }
    if has("keys") {
        part("keys", &mut || keys::rows(&stage, &plan));
    }
    if has("bulk") || has("cpu") {
        // One and the same transfers.
        part("bulk and cpu", &mut || transfer::rows(&stage, &plan, has("bulk"), has("cpu")));
    }
    if has("sftp") {
        part("sftp", &mut || files::large(&stage, &plan));
    }
    if has("files") {
        part("files", &mut || files::small(&stage, &plan));
    }
    if has("idle") {
        part("idle", &mut || idle::rows(&mut stage, &plan));
    }
    rows
}
