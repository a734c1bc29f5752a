//! Every operation on the disk fails once, in each way it can (L3, L4, L5): whatever happens, what was
//! acknowledged is there, what was refused isn't, and a sync that failed is the end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Mutex;

use super::*;
use crate::log::{SubmitError, verify};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The operation fails and nothing of it happens.
    Error(i32),
    /// The operation says that it failed, and it happened.
    DoneAndError(i32),
    /// Half of a write happens, then it fails.
    Half(i32),
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// The real disk, but for one operation.
struct FaultyDisk {
    at: Option<(usize, Fault)>,
    /// What was done, in order.
    done: Mutex<Vec<&'static str>>,
}

impl FaultyDisk {
    fn new(at: Option<(usize, Fault)>) -> Arc<FaultyDisk> {
        Arc::new(FaultyDisk { at, done: Mutex::new(Vec::new()) })
    }

    fn run<T>(
        &self,
        name: &'static str,
        half: impl FnOnce(),
        real: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut done = self.done.lock().unwrap();
        let number = done.len();
        done.push(name);
        match self.at {
            Some((at, fault)) if at == number => match fault {
                Fault::Error(code) => Err(io::Error::from_raw_os_error(code)),
                Fault::DoneAndError(code) => {
                    drop(real());
                    Err(io::Error::from_raw_os_error(code))
                }
                Fault::Half(code) => {
                    half();
                    Err(io::Error::from_raw_os_error(code))
                }
            },
            _ => real(),
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.done.lock().unwrap().clone()
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.run("create", || (), || RealDisk.create(path, mode))
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = || RealDisk.write_at(file, &bytes[..bytes.len() / 2], offset).unwrap();
        self.run("write", half, || RealDisk.write_at(file, bytes, offset))
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.run("read", || (), || RealDisk.read_at(file, bytes, offset))
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        self.run("sync", || (), || RealDisk.sync(file))
    }
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.run("truncate", || (), || RealDisk.truncate(file, length))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run("rename", || (), || RealDisk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run("remove", || (), || RealDisk.remove(path))
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.run("sync directory", || (), || RealDisk.sync_directory(directory))
    }
}

/// A small run: open, five appends over several segments, one repeat, close. What is known of each event.
#[derive(Default)]
struct Outcome {
    acknowledged: Vec<(u64, u64)>,
    refused: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
}

fn run(place: &Place, disk: Arc<FaultyDisk>) -> Outcome {
    let mut outcome = Outcome::default();
    let clock = Arc::new(crate::clock::ManualClock::new(crate::clock::Nanos(1_800_000_000_000_000_000)));
    let options = Options { segment_bytes: 600, ..Options::new(signer(), clock) };
    let Ok(log) = EmbeddedLog::open_on(disk, &place.directory, options) else { return outcome };
    for seq in 0..5 {
        match log.submit(vec![record(1, seq)]).map(crate::log::Pending::wait_blocking) {
            Ok(Ok(receipts)) => outcome.acknowledged.push((seq, receipts[0].index)),
            Ok(Err(error)) if error.is_unknown() => drop(outcome.unknown.insert(seq)),
            Ok(Err(_)) | Err(SubmitError::Stopped(_)) => drop(outcome.refused.insert(seq)),
            Err(error) => panic!("{error}"),
        }
    }
    if let Some(&(seq, index)) = outcome.acknowledged.first()
        && let Ok(Ok(receipts)) = log.submit(vec![record(1, seq)]).map(crate::log::Pending::wait_blocking)
    {
        assert_eq!((receipts[0].index, receipts[0].repeat), (index, true));
    }
    outcome
}

fn check(place: &Place, outcome: &Outcome, what: &str) {
    // No checkpoint may promise what isn't there, whatever failed.
    let log = place.open();
    let entries = log.read(0, 100, usize::MAX).unwrap();
    for (seq, index) in &outcome.acknowledged {
        assert_eq!(
            entries.get(*index as usize).map(|entry| &*entry.bytes),
            Some(&*event(*seq)),
            "{what}: lost {seq}"
        );
    }
    for seq in &outcome.refused {
        assert!(
            entries.iter().all(|entry| *entry.bytes != *event(*seq)),
            "{what}: {seq} was refused and is there"
        );
    }
    let extra = entries.len() - outcome.acknowledged.len();
    assert!(extra <= outcome.unknown.len(), "{what}: {extra} entries that nobody knows of");
    append(&log, vec![record(9, 0)]).unwrap();
    drop(log);
    let verified =
        verify::directory(&place.directory, &signer().verifier_key(), &[], &mut |_, _| {}, &mut |_| {})
            .unwrap();
    assert_eq!(verified.entries, entries.len() as u64 + 1, "{what}");
}

#[test]
fn each_operation_fails_once_in_each_way() {
    let healthy = FaultyDisk::new(None);
    let outcome = run(&Place::new(), healthy.clone());
    assert_eq!(outcome.acknowledged.len(), 5);
    let names = healthy.names();
    assert!(names.len() > 40, "{names:?}");
    for (number, name) in names.iter().enumerate() {
        let mut faults = vec![Fault::Error(EIO), Fault::DoneAndError(EIO), Fault::Error(ENOSPC)];
        if *name == "write" {
            faults.extend([Fault::Half(EIO), Fault::Half(ENOSPC), Fault::DoneAndError(ENOSPC)]);
        }
        for fault in faults {
            let place = Place::new();
            let disk = FaultyDisk::new(Some((number, fault)));
            let outcome = run(&place, disk.clone());
            let what = format!("operation {number}, {name}, {fault:?}, of {:?}", disk.names());
            check(&place, &outcome, &what);
        }
    }
}

#[test]
fn each_operation_of_a_recovery_fails_once() {
    // A torn tail, an unfinished segment, records behind the checkpoint: all that recovery can meet.
    let wound = || {
        let place = Place::new();
        append_all(&place.open_small(600), 1, 0..5);
        sign_back(&place, 3);
        let segments = std::fs::read_dir(place.directory.join("segments")).unwrap();
        let newest = segments.map(|item| item.unwrap().path()).max().unwrap();
        let mut bytes = std::fs::read(&newest).unwrap();
        bytes.extend_from_slice(&[9, 9, 9]);
        put(&newest, &bytes);
        leave(&place.directory.join("segments/left.tmp"), b"x");
        place
    };
    let healthy = FaultyDisk::new(None);
    drop(wound().open_on(healthy.clone()).unwrap());
    let names = healthy.names();
    for wanted in ["create", "write", "sync", "remove", "sync directory", "rename", "read"] {
        assert!(names.contains(&wanted), "{wanted} isn't among {names:?}");
    }
    let events: Vec<_> = (0..5).map(event).collect();
    for number in 0..names.len() {
        for fault in [Fault::Error(EIO), Fault::DoneAndError(EIO), Fault::Half(ENOSPC)] {
            let place = wound();
            drop(place.open_on(FaultyDisk::new(Some((number, fault)))));
            assert_holds(&place.open(), &events);
        }
    }
}

/// The number of the first operation `name` after the log was opened.
fn first_after_open(name: &str) -> usize {
    let (place, disk) = (Place::new(), FaultyDisk::new(None));
    let log = place.open_on(disk.clone()).unwrap();
    let opened = disk.names().len();
    append(&log, vec![record(1, 0)]).unwrap();
    drop(log);
    opened + disk.names()[opened..].iter().position(|done| *done == name).unwrap()
}

#[test]
fn a_failed_sync_is_final() {
    let place = Place::new();
    let log = place.open_on(FaultyDisk::new(Some((first_after_open("sync"), Fault::Error(EIO))))).unwrap();
    let error = append(&log, vec![record(1, 0)]).unwrap_err();
    assert!(error.is_unknown() && error.to_string().contains("syncing"), "{error}");
    let refused = log.submit(vec![record(1, 1)]).unwrap_err();
    assert!(matches!(&refused, SubmitError::Stopped(reason) if reason.contains("syncing")), "{refused}");
    assert_eq!((log.size(), log.checkpoint().size()), (0, 0), "nothing of it is shown or signed");
    drop(log);
    // The bytes may be in the page cache only: they are written again, into a new file, before they count.
    let before = inode(&place.segment(0));
    let log = place.open();
    assert_eq!(log.size(), 1);
    assert!(log.recovery().rewritten_bytes > 0);
    assert_ne!(inode(&place.segment(0)), before, "a second sync of the same blocks says nothing");
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

/// A log whose second append begins a new segment, whose directory's sync has this fault; with what came of the append.
fn rotating(fault: Fault, place: &Place) -> (EmbeddedLog, Result<Vec<Receipt>, AppendError>) {
    let begin = |disk: Arc<FaultyDisk>, place: &Place| {
        let options = Options { segment_bytes: 1, ..options() };
        let log = EmbeddedLog::open_on(disk, &place.directory, options).unwrap();
        append(&log, vec![record(1, 0)]).unwrap();
        log.sign_now().wait_blocking().unwrap();
        log
    };
    let healthy = FaultyDisk::new(None);
    let elsewhere = Place::new();
    let log = begin(healthy.clone(), &elsewhere);
    let before = healthy.names().len();
    append(&log, vec![record(1, 1)]).unwrap();
    let at = before + healthy.names()[before..].iter().position(|name| *name == "sync directory").unwrap();

    let log = begin(FaultyDisk::new(Some((at, fault))), place);
    let answer = append(&log, vec![record(1, 1)]);
    (log, answer)
}

/// The directory's sync fails after a rotation: the new segment's name is in the cache, perhaps not on the disk, and a
/// second sync of the directory would say OK. So the segment is made anew before anything is acknowledged in it.
#[test]
fn a_segment_whose_name_may_not_be_durable_is_made_anew() {
    let place = Place::new();
    let (log, answer) = rotating(Fault::DoneAndError(EIO), &place);
    assert!(matches!(answer, Err(AppendError::Stopped(_))), "{answer:?}");
    drop(log);
    let before = inode(&place.segment(1));
    let log = place.open();
    assert_eq!(log.size(), 1);
    assert_ne!(inode(&place.segment(1)), before);
    append(&log, vec![record(1, 1)]).unwrap();
    drop(log);
    assert_holds(&place.open(), &[event(0), event(1)]);
}

/// The same for lack of room: the new segment has its name all the same, so that nothing may be added to the one before it.
#[test]
fn a_segment_whose_name_could_not_be_synced_for_lack_of_room_has_no_last_word_before_it() {
    for fault in [Fault::Error(ENOSPC), Fault::DoneAndError(ENOSPC), Fault::Error(EDQUOT)] {
        let place = Place::new();
        let (log, answer) = rotating(fault, &place);
        assert!(matches!(answer, Err(AppendError::Stopped(_))), "{fault:?}: {answer:?}");
        let said = log.submit_from_reserve(vec![record(2, 0)]).map(crate::log::Pending::wait_blocking);
        assert!(
            matches!(said, Err(SubmitError::Stopped(_)) | Ok(Err(AppendError::Stopped(_)))),
            "{fault:?}: {said:?}"
        );
        drop(log);
        let log = place.open();
        append(&log, vec![record(1, 1)]).unwrap();
        drop(log);
        assert_holds(&place.open(), &[event(0), event(1)]);
    }
}

/// Of a checkpoint either may be there, and both are true: it is tried again.
#[test]
fn a_checkpoint_whose_name_could_not_be_synced_for_lack_of_room_is_written_again() {
    let at = first_after_open("sync directory");
    for fault in [Fault::Error(ENOSPC), Fault::DoneAndError(ENOSPC), Fault::DoneAndError(EDQUOT)] {
        let place = Place::new();
        let disk = FaultyDisk::new(Some((at, fault)));
        let log = place.open_on(disk.clone()).unwrap();
        append(&log, vec![record(1, 0)]).unwrap();
        // It is written right behind the first event, so before the second one.
        append(&log, vec![record(1, 1)]).unwrap();
        assert_eq!(disk.names().get(at), Some(&"sync directory"), "{fault:?}");
        let checkpoint = log.sign_now().wait_blocking().unwrap();
        assert_eq!((checkpoint.size(), log.stopped()), (2, None), "{fault:?}");
        drop(log);
        assert_holds(&place.open(), &[event(0), event(1)]);
    }
}

#[test]
fn a_full_disk_refuses_and_the_log_goes_on() {
    let place = Place::new();
    let log = place.open_on(FaultyDisk::new(Some((first_after_open("write"), Fault::Half(ENOSPC))))).unwrap();
    assert_eq!(append(&log, vec![record(1, 0), record(1, 1)]), Err(AppendError::DiskFull));
    assert_eq!(log.size(), 0);
    // The same numbers again: none was used up.
    let receipts = append(&log, vec![record(1, 0), record(1, 1)]).unwrap();
    assert_eq!((receipts[0].index, receipts[0].gap, receipts[1].repeat), (0, 0, false));
    drop(log);
    assert_holds(&place.open(), &[event(0), event(1)]);
}

#[test]
fn a_read_error_is_not_the_end_of_the_log() {
    let place = Place::new();
    append_all(&place.open(), 1, 0..5);
    let before = place.contents();
    let reads = FaultyDisk::new(None);
    drop(place.open_on(reads.clone()));
    for number in 0..reads.names().iter().filter(|name| **name == "read").count() {
        let error = place.open_on(FaultyDisk::new(Some((number, Fault::Error(EIO))))).err();
        assert!(error.is_some(), "read {number}");
        assert!(place.contents() == before, "read {number}");
    }
}

#[test]
fn names_are_durable_before_the_first_receipt_in_them() {
    let disk = FaultyDisk::new(None);
    let place = Place::new();
    let options = Options { segment_bytes: 1, ..options() };
    let log = EmbeddedLog::open_on(disk.clone(), &place.directory, options).unwrap();
    append(&log, vec![record(1, 0)]).unwrap();
    log.sign_now().wait_blocking().unwrap();
    let before = disk.names().len();
    append(&log, vec![record(1, 1)]).unwrap();
    let names = disk.names()[before..].to_vec();
    assert_eq!(
        names[..9],
        ["remove", "create", "write", "sync", "rename", "sync directory", "truncate", "write", "sync"],
        "the segment's contents, its name, the directory, the old one's space, then the record"
    );
}
