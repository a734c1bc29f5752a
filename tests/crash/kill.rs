//! kill -9 while 1,024 producers append: again and again on the same log, so that each crash is also the second and the
//! tenth, at any moment of work and of recovery. 100 rounds in the tests, `CUSTODY_ROUNDS` (1,000 in `make soak`) for
//! more; the seed is printed, `CUSTODY_SEED` takes it.

use super::events::record;
use super::ledger::{Ledger, open};
use custody_core::log::Log as _;
use custody_tests::random::Random;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const PRODUCERS: u64 = 1_024;
/// Two crashes each; then the log is checked event by event, and another one begins.
const ROUNDS_OF_A_LOG: u64 = 5;
/// The load works at least until this much is acknowledged.
const ACKNOWLEDGED_MIN: u64 = 200;

#[test]
fn killed_under_load_by_a_thousand_producers() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name}={n}: not a number")))
    };
    let rounds = number("CUSTODY_ROUNDS", 100);
    let seed = number("CUSTODY_SEED", u64::from(std::process::id()));
    println!("CUSTODY_SEED={seed} CUSTODY_ROUNDS={rounds}");
    let logs = rounds.div_ceil(ROUNDS_OF_A_LOG);
    // Two at a time: the moments are then less regular, and it is done sooner.
    let acknowledged: usize = std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                scope.spawn(move || {
                    let mut acknowledged = 0;
                    for log in (0..logs).filter(|log| log % 2 == half) {
                        acknowledged +=
                            one_log(seed, log, ROUNDS_OF_A_LOG.min(rounds - log * ROUNDS_OF_A_LOG));
                    }
                    acknowledged
                })
            })
            .collect();
        halves.into_iter().map(|half| half.join().expect("a log that keeps its word")).sum()
    });
    println!("{rounds} rounds, {} kills, {acknowledged} acknowledged events: each is there", 2 * rounds);
}

/// Kills it twice a round: under load, and while it takes up again. Gives how many events were acknowledged.
fn one_log(seed: u64, log: u64, rounds: u64) -> usize {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("log");
    let mut random = Random(seed.wrapping_mul(1_000).wrapping_add(log));
    let mut told = Ledger::default();
    for round in 0..rounds {
        let what = format!("log {log} of CUSTODY_SEED={seed}, round {round}");
        let boot = 2 * round;
        let (segment_bytes, batch) = (random.below(300_000), 1 + random.below(3));
        let arguments = |boot: u64| {
            [
                format!("producers={PRODUCERS}"),
                format!("events={}", u64::MAX / 2),
                format!("batch={batch}"),
                format!("segment_bytes={segment_bytes}"),
                format!("boot={boot}"),
            ]
        };
        // Under load.
        let mut child = start(&directory, &arguments(boot));
        let least = ACKNOWLEDGED_MIN + random.below(PRODUCERS);
        let longer = Duration::from_micros(random.below(8_000));
        hear_and_kill(&mut child, &mut told, boot, least, longer);
        // While it takes up again, or just after.
        let mut child = start(&directory, &arguments(boot + 1));
        let longer = Duration::from_micros(random.below(60_000));
        hear_and_kill(&mut child, &mut told, boot + 1, 0, longer);
        told.verify(&directory, &what);
    }
    let what = format!("log {log} of CUSTODY_SEED={seed}");
    told.check(&directory, &what);
    repeats(&directory, &told, &what);
    told.durable.len()
}

/// Who wasn't told hands in again: what the log has gets its old place, and nothing is there twice.
fn repeats(directory: &Path, told: &Ledger, what: &str) {
    let log = open(directory).unwrap();
    let size = log.size();
    let mut last = std::collections::BTreeMap::new();
    for (&(boot, producer, seq), &index) in &told.durable {
        last.insert((boot, producer), (seq, index));
    }
    let pending: Vec<_> = last
        .iter()
        .map(|(&(boot, producer), &(seq, index))| {
            (index, log.submit(vec![record(boot, producer, seq)]).unwrap())
        })
        .collect();
    for (index, pending) in pending {
        let receipt = pending.wait_blocking().unwrap_or_else(|error| panic!("{what}: {error}"))[0];
        assert_eq!((receipt.index, receipt.repeat), (index, true), "{what}");
    }
    assert_eq!(log.size(), size, "{what}: a repeat was appended");
}

fn start(directory: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_appender"));
    command
        .arg(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command.spawn().expect("the appender starts")
}

/// Takes down what it says; kills it once it has acknowledged `least` and a while `longer`.
fn hear_and_kill(child: &mut Child, told: &mut Ledger, boot: u64, least: u64, longer: Duration) {
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let before = told.durable.len() as u64;
    let mut line = String::new();
    while told.durable.len() as u64 - before < least {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "the appender ended by itself");
        told.hear(boot, &line);
    }
    let kill = std::thread::scope(|scope| {
        let kill = scope.spawn(|| {
            std::thread::sleep(longer);
            child.kill().and_then(|()| child.wait())
        });
        // It goes on to speak until it dies; a last line may be cut.
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line).unwrap() > 0 {
            told.hear(boot, &String::from_utf8_lossy(&line));
            line.clear();
        }
        kill.join().expect("the killer")
    });
    assert_eq!(kill.unwrap().code(), None, "it ended by itself before it was killed");
}
