//! A child process is killed while it appends and acknowledges, again and again: nothing that was taken is lost, nothing
//! is there twice. The child is this test program itself.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;

const DIRECTORY: &str = "CUSTODY_TEST_SPOOL_DIRECTORY";
const ROUNDS: u64 = 20;

/// Not a test by itself: what the child does. It prints how far it has got once that is durable.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (mut spool, _) = recover::open(Arc::new(RealDisk), Path::new(&directory), LIMIT, SHORT).unwrap();
    for number in 0.. {
        append(&mut spool, number % 4 + 1).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "taken {}", spool.next()).unwrap();
        if number % 3 == 2 {
            writeln!(out, "acknowledged {}", spool.next() - 2).unwrap();
            spool.acknowledge(spool.next() - 2);
        }
    }
}

/// Runs the child until it has told `lines`, and kills it. Gives what was taken and acknowledged at least.
fn run_and_kill(directory: &Path, lines: u64) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["spool::tests::kill::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut taken, mut acknowledged, mut told) = (0, 0, 0);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        // The last line may be cut: it isn't one then.
        if out.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        match line.trim_end().split_once(' ') {
            Some(("taken", number)) => taken = number.parse().unwrap(),
            Some(("acknowledged", number)) => acknowledged = number.parse().unwrap(),
            _ => continue,
        }
        told += 1;
        if told == lines {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success() && told >= lines);
    (taken, acknowledged)
}

#[test]
fn killed_again_and_again() {
    let place = Place::new();
    let mut before = 0;
    for round in 0..ROUNDS {
        let (taken, acknowledged) = run_and_kill(&place.directory, 5 + round * 7 % 30);
        assert!(taken > before, "round {round}");
        let (spool, recovery) = place.open();
        let what = format!("round {round}: {recovery:?}, {taken} taken, {acknowledged} acknowledged");
        assert!(spool.next() >= taken && recovery.missing == 0, "{what}");
        // What it acknowledged last may not have been told.
        assert!(spool.first() >= acknowledged.min(before) && spool.first() <= spool.next() - 2, "{what}");
        assert_holds(&spool, spool.first()..spool.next(), &what);
        before = taken;
    }
}
