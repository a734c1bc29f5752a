//! The spool against crashes, damage, full disks and failing disks.

mod damage;
mod faults;
mod full;
mod kill;
mod model;
mod power;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use custody_core::log::durable;
use tempfile::TempDir;

use super::disk::{Disk, RealDisk};
use super::*;

/// A directory for a spool that goes away with it. Its segments are short.
pub struct Place {
    _temporary: TempDir,
    pub directory: PathBuf,
}

/// Segments of a few records; bytes.
const SHORT: u64 = 600;
const LIMIT: u64 = 64 << 10;

impl Place {
    pub fn new() -> Place {
        // In memory, where it is there: what a sync costs is all that a real disk would add to these tests.
        let memory = Path::new("/dev/shm");
        let temporary = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let directory = temporary.path().join("agent").join("spool");
        Place { _temporary: temporary, directory }
    }

    pub fn open(&self) -> (Spool, Recovery) {
        self.open_on(Arc::new(RealDisk)).unwrap()
    }

    pub fn open_on(&self, disk: Arc<dyn Disk>) -> Result<(Spool, Recovery), SpoolError> {
        recover::open(disk, &self.directory, LIMIT, SHORT)
    }

    /// Another place with the same segments, as if nothing had been acknowledged since the oldest began.
    pub fn copy(&self) -> Place {
        let copy = Place::new();
        durable::create_directories(&copy.directory).unwrap();
        for path in self.segments() {
            put(&copy.directory.join(path.file_name().unwrap()), &std::fs::read(path).unwrap());
        }
        copy
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&self.directory).unwrap().map(|item| item.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        paths.sort();
        paths
    }

    pub fn newest(&self) -> PathBuf {
        self.segments().pop().unwrap()
    }
}

/// The record of this position.
pub fn record(position: u64) -> Vec<u8> {
    format!("{{\"seq\":{position},\"text\":\"{}\"}}", "x".repeat((position * 37 % 300) as usize)).into_bytes()
}

pub fn append(spool: &mut Spool, count: u64) -> Result<(), SpoolError> {
    let records: Vec<Vec<u8>> = (spool.next()..spool.next() + count).map(record).collect();
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    spool.append(&records)
}

pub fn all(spool: &Spool) -> Vec<(u64, Vec<u8>)> {
    spool.read(0, usize::MAX, usize::MAX).unwrap()
}

/// It holds the records of these positions and no other, and the last one is that before `next`.
#[track_caller]
pub fn assert_holds(spool: &Spool, positions: std::ops::Range<u64>, what: &str) {
    assert_eq!((spool.first(), spool.next()), (positions.start, positions.end), "{what}");
    assert_eq!(all(spool), positions.clone().map(|at| (at, record(at))).collect::<Vec<_>>(), "{what}");
    assert_eq!(spool.last(), positions.end.checked_sub(1).map(record).as_deref(), "{what}");
}

/// Writes a file's bytes anew.
pub fn put(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_new_spool_is_empty() {
    let place = Place::new();
    let (mut spool, recovery) = place.open();
    assert_eq!(recovery, Recovery::default());
    assert_holds(&spool, 0..0, "new");
    assert_eq!(spool.bytes(), 0);
    spool.append(&[]).unwrap();
    spool.acknowledge(5);
    assert_holds(&spool, 0..0, "nothing was appended");
}

#[test]
fn what_was_acknowledged_goes_by_segments_and_the_last_record_stays() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    for _ in 0..40 {
        append(&mut spool, 1).unwrap();
    }
    assert_holds(&spool, 0..40, "appended");
    let (before, segments) = (spool.bytes(), place.segments().len());
    assert!(segments > 5);
    spool.acknowledge(20);
    assert!(spool.bytes() < before && place.segments().len() < segments);
    assert_holds(&spool, 20..40, "half is acknowledged");
    spool.acknowledge(7);
    assert_eq!(spool.first(), 20, "it never goes back");
    spool.acknowledge(40);
    assert_eq!(place.segments().len(), 1);
    let on_disk: u64 = place.segments().iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert_eq!(spool.bytes(), on_disk);
    drop(spool);
    let (mut spool, recovery) = place.open();
    assert_eq!((recovery.first, recovery.next, recovery.records, recovery.missing), (40, 40, 0, 0));
    assert_holds(&spool, 40..40, "opened again");
    append(&mut spool, 3).unwrap();
    assert_holds(&spool, 40..43, "it goes on");
}

#[test]
fn a_read_is_bounded_and_starts_anywhere() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    append(&mut spool, 30).unwrap();
    for from in 0..32 {
        let read = spool.read(from, 4, usize::MAX).unwrap();
        let wanted: Vec<u64> = (from..30).take(4).collect();
        assert_eq!(read.iter().map(|(at, _)| *at).collect::<Vec<_>>(), wanted);
        assert_eq!(spool.read(from, 4, 1).unwrap().len(), usize::from(from < 30), "one at least");
        assert!(spool.read(from, 0, 1).unwrap().is_empty());
        let bytes: usize = spool.read(from, 100, 700).unwrap().iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= 700);
    }
}

#[test]
fn the_longest_records_in_a_spool_of_the_least_limit() {
    let place = Place::new();
    let (mut spool, _) = Spool::open(&place.directory, LIMIT_BYTES_MIN).unwrap();
    let long = vec![7; RECORD_BYTES_MAX];
    for bytes in [0, RECORD_BYTES_MAX + 1] {
        let refused = spool.append(&[b"x", &vec![7; bytes]]);
        assert!(matches!(refused, Err(SpoolError::Length { what: "a record", .. })), "{refused:?}");
    }
    let refused = spool.append(&vec![long.as_slice(); 65]);
    assert!(matches!(refused, Err(SpoolError::Length { what: "a batch", .. })), "{refused:?}");
    for round in 0..100 {
        spool.append(&[&long, &long]).unwrap();
        assert_eq!(spool.read(round * 2, 9, usize::MAX).unwrap().len(), 2);
        spool.acknowledge(spool.next());
        assert!(spool.bytes() <= LIMIT_BYTES_MIN);
    }
    drop(spool);
    let (spool, _) = Spool::open(&place.directory, LIMIT_BYTES_MIN).unwrap();
    assert_eq!((spool.next(), spool.last()), (200, Some(long.as_slice())));
}

#[test]
fn only_one_process_has_it() {
    let place = Place::new();
    let (spool, _) = place.open();
    let refused = Spool::open(&place.directory, LIMIT_BYTES_MIN).unwrap_err();
    assert!(matches!(&refused, SpoolError::InUse { .. }), "{refused}");
    drop(spool);
    let refused = Spool::open(&place.directory, LIMIT_BYTES_MIN - 1).unwrap_err();
    assert!(matches!(&refused, SpoolError::Limit { .. }), "{refused}");
    place.open();
}
