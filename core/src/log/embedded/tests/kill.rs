//! A child process is killed while it appends, twice in a row for each round (L2): nothing that it
//! acknowledged is lost. The child is this test program itself.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::log::verify;

const DIRECTORY: &str = "CUSTODY_TEST_KILL_DIRECTORY";
const ROUNDS: u64 = 10;

/// Not a test by itself: what the child does. It prints each number once its record is durable.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let options = Options { segment_bytes: 20_000, ..options() };
    let log = Arc::new(EmbeddedLog::open(Path::new(&directory), options).unwrap());
    let boot = u128::from(log.size()) + 1;
    let threads: Vec<_> = (0..4u128)
        .map(|lane| {
            let log = log.clone();
            std::thread::spawn(move || {
                for seq in 0.. {
                    // Each lane is a producer with its own boot; every third batch has two records.
                    let boot = boot * 16 + lane;
                    let batch = if seq % 3 == 0 { vec![2 * seq, 2 * seq + 1] } else { vec![2 * seq] };
                    let records = batch.iter().map(|seq| record(boot, *seq)).collect();
                    let receipts = append(&log, records).unwrap();
                    let mut out = std::io::stdout().lock();
                    for (seq, receipt) in batch.iter().zip(&receipts) {
                        writeln!(out, "durable {boot} {seq} {}", receipt.index).unwrap();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Runs the child until it has acknowledged `least` and a while longer; kills it. Gives (seq, index).
fn run_and_kill(directory: &Path, least: usize, longer: Duration) -> Vec<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["log::embedded::tests::kill::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut killer = None;
    for line in lines {
        let line = line.unwrap();
        // The last line may be cut: then its number isn't read as acknowledged.
        let words: Vec<&str> = line.split(' ').collect();
        if let ["durable", _, seq, index] = words[..]
            && let (Ok(seq), Ok(index)) = (seq.parse(), index.parse())
        {
            acknowledged.push((seq, index));
        }
        if acknowledged.len() >= least && killer.is_none() {
            let pid = rustix::process::Pid::from_child(&child);
            killer = Some(std::thread::spawn(move || {
                std::thread::sleep(longer);
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }));
        }
    }
    killer.expect("the child ended by itself").join().unwrap();
    assert!(!child.wait().unwrap().success());
    // A cut last line could have cut the index too.
    acknowledged.pop();
    acknowledged
}

#[test]
fn killed_twice_in_a_row_and_again() {
    let place = Place::new();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for round in 0..ROUNDS {
        for again in 0..2 {
            let longer = Duration::from_micros(round * 1_700 + again * 613);
            all.extend(run_and_kill(&place.directory, 8, longer));
        }
        let log = place.open_small(20_000);
        let mut entries = Vec::new();
        while (entries.len() as u64) < log.size() {
            entries.extend(log.read(entries.len() as u64, 1_000, usize::MAX).unwrap());
        }
        for (seq, index) in &all {
            let entry = entries.get(*index as usize).map(|entry| entry.bytes.to_vec());
            assert_eq!(entry, Some(event(*seq)), "round {round}: entry {index}");
        }
    }
    let verified =
        verify::directory(&place.directory, &signer().verifier_key(), &[], &mut |_, _| {}, &mut |_| {})
            .unwrap();
    assert!(verified.entries >= all.len() as u64 && verified.entries == verified.signed);
}
