//! The embedded log against crashes, damage, full disks and failing disks.

mod clock;
mod damage;
mod faults;
mod kill;
mod space;
mod torn;
mod working;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;

use super::durable::{Disk, RealDisk};
use super::{EmbeddedLog, OpenError, Options};
use crate::clock::{Clock, SystemClock};
use crate::log::note::Ed25519Signer;
use crate::log::{AppendError, Log, ProducerKey, Receipt, Record, Signer};

pub const ORIGIN: &str = "custody.example/log";

pub fn signer() -> Arc<dyn Signer> {
    Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap())
}

pub fn options() -> Options {
    Options::new(signer(), Arc::new(SystemClock::new()))
}

pub fn event(seq: u64) -> Vec<u8> {
    format!("{{\"seq\":{seq},\"text\":\"{}\"}}", "x".repeat((seq * 37 % 300) as usize)).into_bytes()
}

pub fn record(boot: u128, seq: u64) -> Record {
    let producer = ProducerKey { id: "proxy-1".to_owned(), boot: Uuid::from_u128(boot), seq };
    Record { producer, tag: (seq % 7) as u8, bytes: event(seq).into() }
}

/// A log in a directory that goes away with it.
pub struct Place {
    _temporary: TempDir,
    pub directory: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let temporary = TempDir::new().unwrap();
        let directory = temporary.path().join("data").join("log");
        Place { _temporary: temporary, directory }
    }

    pub fn open(&self) -> EmbeddedLog {
        EmbeddedLog::open(&self.directory, options()).unwrap()
    }

    pub fn open_small(&self, segment_bytes: u64) -> EmbeddedLog {
        EmbeddedLog::open(&self.directory, Options { segment_bytes, ..options() }).unwrap()
    }

    pub fn open_on(&self, disk: Arc<dyn Disk>) -> Result<EmbeddedLog, OpenError> {
        EmbeddedLog::open_on(disk, &self.directory, options())
    }

    pub fn open_at(&self, clock: Arc<dyn Clock>) -> EmbeddedLog {
        EmbeddedLog::open(&self.directory, Options::new(signer(), clock)).unwrap()
    }

    pub fn segment(&self, first: u64) -> PathBuf {
        self.directory.join("segments").join(format!("{first:020}.seg"))
    }

    /// All files, for showing that nothing was changed.
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for directory in [self.directory.clone(), self.directory.join("segments")] {
            for item in std::fs::read_dir(directory).unwrap() {
                let path = item.unwrap().path();
                if path.is_file() && !path.ends_with("lock") {
                    files.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    /// Opening fails, and changes nothing.
    pub fn refused(&self) -> OpenError {
        let before = self.contents();
        let error = EmbeddedLog::open(&self.directory, options()).err().expect("it was opened");
        assert!(self.contents() == before, "a refused log was changed: {error}");
        error
    }
}

pub fn append(log: &EmbeddedLog, records: Vec<Record>) -> Result<Vec<Receipt>, AppendError> {
    log.submit(records).unwrap().wait_blocking()
}

/// Appends `seqs`, each by itself.
pub fn append_all(log: &EmbeddedLog, boot: u128, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        append(log, vec![record(boot, seq)]).unwrap();
    }
}

/// The log is `events`, in order, and the root is right.
pub fn assert_holds(log: &EmbeddedLog, events: &[Vec<u8>]) {
    let mut at = 0;
    let mut tree = crate::log::tree::Tree::new();
    while at < log.size() {
        let entries = log.read(at, 100, 10_000).unwrap();
        assert!(!entries.is_empty(), "no entry at {at}");
        for entry in entries {
            assert_eq!(entry.index, at);
            let expected = events.get(at as usize).map(Vec::as_slice);
            assert_eq!(expected, Some(&*entry.bytes), "entry {at}");
            tree.push(crate::log::tree::leaf_hash(&entry.bytes));
            at += 1;
        }
    }
    assert_eq!(at, events.len() as u64, "the number of entries");
    assert_eq!(log.root(at).unwrap(), tree.root());
}

/// Puts a stale checkpoint in place of the newest: one of `size` entries, rightly signed.
pub fn sign_back(place: &Place, size: u64) {
    let log = place.open();
    let root = log.root(size).unwrap();
    drop(log);
    let checkpoint = crate::log::Checkpoint::sign(size, root, &*signer()).unwrap();
    put(&place.directory.join("checkpoint"), checkpoint.to_string().as_bytes());
}

pub fn put(path: &Path, bytes: &[u8]) {
    super::durable::write_file_on(&RealDisk, path, bytes, 0o600).unwrap();
}

/// Leaves a file as a crash does: not durably.
#[allow(clippy::disallowed_methods, reason = "it needn't be durable")]
pub fn leave(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).unwrap();
}
