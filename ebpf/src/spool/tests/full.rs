//! Limits, and a real disk that is full.

use super::*;
use crate::spool::{LIMIT_BYTES_MIN, reserve};
use std::process::Command;

/// Appends until one is refused for this reason; gives how many went well.
fn append_until_it_is_full(spool: &mut Spool) -> (u64, SpoolError) {
    for number in 0..100_000 {
        if let Err(error) = append(spool, 1) {
            return (number, error);
        }
    }
    panic!("100,000 appends went well");
}

#[test]
fn the_limit_refuses_and_an_acknowledgement_makes_room() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    for round in 0..3 {
        let (taken, refused) = append_until_it_is_full(&mut spool);
        assert!(taken > 0, "round {round}");
        assert!(matches!(refused, SpoolError::Full { limit: LIMIT, .. }), "{refused}");
        assert!(spool.bytes() <= LIMIT && spool.bytes() > LIMIT - 1_000, "{}", spool.bytes());
        let middle = spool.first() + (spool.next() - spool.first()) / 2;
        spool.acknowledge(middle);
        assert_holds(&spool, middle..spool.next(), "half is acknowledged");
    }
    spool.acknowledge(spool.next());
    append_until_it_is_full(&mut spool);
}

#[test]
fn a_smaller_limit_keeps_what_is_there_until_it_is_acknowledged() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    append_until_it_is_full(&mut spool);
    let next = spool.next();
    drop(spool);
    let smaller = |limit| recover::open(Arc::new(RealDisk), &place.directory, limit, SHORT).unwrap().0;
    let mut spool = smaller(LIMIT / 4);
    assert_holds(&spool, 0..next, "all is kept");
    let refused = append(&mut spool, 1).unwrap_err();
    assert!(matches!(refused, SpoolError::Full { .. }), "{refused}");
    spool.acknowledge(next);
    append(&mut spool, 1).unwrap();
    assert!(spool.bytes() <= LIMIT / 4);
    drop(spool);
    let mut spool = smaller(LIMIT * 4);
    assert_holds(&spool, next..next + 1, "a larger one again");
    append_until_it_is_full(&mut spool);
    assert!(spool.bytes() > LIMIT);
}

/// A small file system in memory, unmounted with this value.
struct Mounted(TempDir);

impl Mounted {
    fn new(kib: u32) -> Mounted {
        let folder = TempDir::new().unwrap();
        let size = format!("size={kib}k");
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "spool"]).arg(folder.path()).status();
        assert!(done.unwrap().success(), "this test mounts: it needs root");
        Mounted(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}

/// Takes what is left of a file system.
fn fill(ballast: &Path) {
    let mut file = OpenOptions::new().append(true).create(true).open(ballast).unwrap();
    while file.write_all(&[0xb5; 64]).is_ok() {}
}

#[test]
fn a_disk_that_fills_up_refuses_and_goes_on_when_there_is_room() {
    let mounted = Mounted::new(400);
    let directory = mounted.0.path().join("spool");
    let ballast = mounted.0.path().join("ballast");
    let (mut spool, _) = Spool::open(&directory, LIMIT_BYTES_MIN).unwrap();
    for round in 0..3 {
        append(&mut spool, 1).unwrap();
        fill(&ballast);
        let (_, refused) = append_until_it_is_full(&mut spool);
        assert!(matches!(refused, SpoolError::DiskFull { .. }), "{refused}");
        let next = spool.next();
        assert_holds(&spool, 0..next, "nothing of it was appended");
        // Started while it is full: refused with one line, and nothing is lost.
        drop(spool);
        fill(&ballast);
        let refused = Spool::open(&directory, LIMIT_BYTES_MIN).unwrap_err();
        assert!(matches!(refused, SpoolError::DiskFull { .. }), "{refused}");
        std::fs::remove_file(&ballast).unwrap();
        let recovery;
        (spool, recovery) = Spool::open(&directory, LIMIT_BYTES_MIN).unwrap();
        assert_eq!((recovery.cut_bytes, recovery.missing), (0, 0), "round {round}");
        assert_holds(&spool, 0..next, "there is room again");
    }
}

/// Else the disk would stay full for ever: what fills it can only be sent by an agent that starts.
#[test]
fn a_start_on_a_disk_that_the_spool_has_filled_uses_the_room_that_was_kept() {
    const RESERVE: u64 = 100 << 10;
    let mounted = Mounted::new(400);
    let [directory, ballast, reserve] =
        ["spool", "ballast", "reserve"].map(|name| mounted.0.path().join(name));
    let open = || reserve::open(&directory, LIMIT_BYTES_MIN, &reserve, RESERVE);
    let (mut spool, _) = open().unwrap();
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), RESERVE);
    let (_, refused) = append_until_it_is_full(&mut spool);
    assert!(matches!(refused, SpoolError::DiskFull { .. }), "{refused}");
    let next = spool.next();
    drop(spool);
    fill(&ballast);
    let (mut spool, recovery) = open().unwrap();
    assert!((recovery.cut_bytes, recovery.missing) == (0, 0) && !reserve.exists(), "it is in use");
    assert_holds(&spool, 0..next, "all is there to be sent");
    spool.acknowledge(next);
    drop(spool);
    std::fs::remove_file(&ballast).unwrap();
    drop(open().unwrap());
    assert!(reserve.exists(), "there is room again");
}
