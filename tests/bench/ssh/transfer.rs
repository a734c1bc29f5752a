//! Much output of a command, and much input: how fast, and how much processor time it costs between the two ends.

use super::compare::{Question, Samples};
use super::stage::{GCM, Stage, Way, default_cipher};
use super::{Plan, TRANSFER_MAX};
use crate::table::Row;
use crate::usage;
use custody_tests::wait;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Processor seconds that a GiB may cost.
const PROCESSOR_SECONDS_MAX: f64 = 2.0;
/// What a reader takes at once: more than a pipe holds.
const READ_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Down,
    Up,
}

/// Rates, processor time, or both: they are taken from the same transfers.
pub fn rows(stage: &Stage, plan: &Plan, rates: bool, processor: bool) -> Vec<Row> {
    let zeroes = zeroes(stage.dir(), plan.mib);
    let mut rows = Vec::new();
    for (cipher, cipher_name) in [(default_cipher().as_str(), "default cipher"), (GCM, "aes128-gcm")] {
        for direction in [Direction::Down, Direction::Up] {
            let (mut rate, mut cost) = (Samples::default(), Samples::default());
            for round in 0..plan.rounds {
                for way in stage.all(round) {
                    stage.quiet();
                    let before = stage.between(way).map(usage::processor_seconds);
                    let took = transfer(stage, way, cipher, direction, &zeroes, plan.mib);
                    rate.add(way, plan.mib as f64 / took.as_secs_f64());
                    stage.quiet();
                    let after = stage.between(way).map(usage::processor_seconds);
                    if let (Some(before), Some(after)) = (before, after) {
                        cost.add(way, (after - before) * 1024.0 / plan.mib as f64);
                    }
                }
            }
            let (name, direct, jumped) = match direction {
                Direction::Down => ("down", 0.95, 1.5),
                Direction::Up => ("up", 0.85, 1.9),
            };
            let what = format!("{} MiB {name}, {cipher_name}", plan.mib);
            let (direct, jumped) = (Some(direct), Some(jumped));
            if rates {
                let question =
                    Question { what: what.clone(), unit: "MiB/s", more_is_better: true, direct, jumped };
                rows.extend(rate.rows(&question));
            }
            if processor {
                let (unit, more_is_better) = ("CPU s/GiB", false);
                let question = Question { what, unit, more_is_better, direct: None, jumped: None };
                rows.extend(cost.rows(&question));
                rows.extend(cost.beside_goal(&question, PROCESSOR_SECONDS_MAX));
            }
        }
    }
    rows
}

/// A file of so many MiB that takes no room, in a place of its own.
pub fn zeroes(dir: &Path, mib: u64) -> PathBuf {
    let path = dir.join("zeroes");
    File::create(&path).and_then(|file| file.set_len(mib << 20)).expect("a sparse file");
    path
}

/// One down and one up that nobody measures: what a daemon keeps of a transfer, it has then.
pub fn both_ways(stage: &Stage, way: Way, mib: u64) {
    let zeroes = zeroes(stage.dir(), mib);
    for direction in [Direction::Down, Direction::Up] {
        transfer(stage, way, GCM, direction, &zeroes, mib);
    }
}

fn transfer(
    stage: &Stage,
    way: Way,
    cipher: &str,
    direction: Direction,
    zeroes: &Path,
    mib: u64,
) -> Duration {
    let bytes = mib << 20;
    match direction {
        Direction::Down => {
            let mut command = stage.ssh(way, cipher, &format!("head -c {bytes} /dev/zero"));
            let output = output(command.stdin(Stdio::null()));
            assert_eq!(output.bytes, bytes, "{way:?} brought something else");
            output.took
        }
        Direction::Up => {
            let input = File::open(zeroes).expect("the file of zeroes");
            let output = output(stage.ssh(way, cipher, "wc -c").stdin(input));
            let counted = String::from_utf8_lossy(&output.last).trim().parse();
            assert_eq!(counted, Ok(bytes), "{way:?} took something else");
            output.took
        }
    }
}

struct Output {
    bytes: u64,
    /// The last that came at once.
    last: Vec<u8>,
    /// Until its end was read.
    took: Duration,
}

/// Runs `command` and reads its output to the end, which has to be a good one.
fn output(command: &mut Command) -> Output {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("ssh");
    let mut stdout = child.stdout.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let (mut buffer, mut bytes, mut last) = (vec![0; READ_BYTES], 0, 0);
        loop {
            let count = stdout.read(&mut buffer).expect("output");
            if count == 0 {
                buffer.truncate(last);
                return Output { bytes, last: buffer, took: start.elapsed() };
            }
            bytes += count as u64;
            last = count;
        }
    });
    let status = wait::until("the transfer is over", TRANSFER_MAX, || child.try_wait().expect("a child"));
    assert!(status.success(), "ssh ended with {status}");
    reading.join().expect("a reader")
}
