//! Every operation on the disk fails once, in each way it can: whatever happens, what was taken is there, what was
//! refused isn't, and a sync that failed is the end.

use super::*;
use std::fs::File;
use std::sync::Mutex;

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

/// The real disk, but for one operation.
#[derive(Debug)]
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
    fn create(&self, path: &Path) -> io::Result<File> {
        self.run("create", || (), || RealDisk.create(path))
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        self.run("open", || (), || RealDisk.open(path))
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = || RealDisk.write_at(file, &bytes[..bytes.len() / 2], offset).unwrap();
        self.run("write", half, || RealDisk.write_at(file, bytes, offset))
    }
    fn read(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.run("read", || (), || RealDisk.read(path, offset, bytes_max))
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

/// What is known of each append, by the payload that only it has.
#[derive(Default)]
struct Outcome {
    taken: Vec<Vec<u8>>,
    refused: Vec<Vec<u8>>,
    unknown: Vec<Vec<u8>>,
    acknowledged: u64,
}

/// A small run: open, eight appends over several segments with acknowledgements between, close.
fn run(place: &Place, disk: Arc<FaultyDisk>) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok((mut spool, _)) = place.open_on(disk) else { return outcome };
    for number in 0..8_u8 {
        let record = vec![number + 1; 200];
        let before = spool.next();
        match spool.append(&[&record]) {
            Ok(()) => outcome.taken.push(record),
            Err(SpoolError::Poisoned { .. } | SpoolError::DiskFull { .. }) => outcome.refused.push(record),
            Err(SpoolError::Io { .. }) => outcome.unknown.push(record),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(spool.next() - before, u64::from(outcome.taken.last() == Some(&vec![number + 1; 200])));
        if number % 4 == 3 {
            spool.acknowledge(spool.next().saturating_sub(1));
            outcome.acknowledged = spool.first();
        }
    }
    outcome
}

fn check(place: &Place, outcome: &Outcome, what: &str) {
    let (mut spool, recovery) = place.open();
    assert_eq!(recovery.missing, 0, "{what}");
    assert!(recovery.first <= outcome.acknowledged, "{what}: it skips");
    let held: Vec<Vec<u8>> = all(&spool).into_iter().map(|(_, bytes)| bytes).collect();
    let waiting = &outcome.taken[recovery.first as usize..];
    assert_eq!(&held[..waiting.len()], waiting, "{what}: lost");
    for extra in &held[waiting.len()..] {
        assert!(outcome.unknown.contains(extra), "{what}: {} was refused and is there", extra[0]);
    }
    spool.append(&[b"after"]).unwrap();
    drop(spool);
    let (spool, _) = place.open();
    assert_eq!(spool.last(), Some(b"after".as_slice()), "{what}");
}

#[test]
fn each_operation_fails_once_in_each_way() {
    let healthy = FaultyDisk::new(None);
    let outcome = run(&Place::new(), healthy.clone());
    assert_eq!(outcome.taken.len(), 8);
    let names = healthy.names();
    for wanted in ["create", "write", "sync", "remove", "sync directory", "rename"] {
        assert!(names.contains(&wanted), "{wanted} isn't among {names:?}");
    }
    for (number, name) in names.iter().enumerate() {
        let mut faults = vec![Fault::Error(EIO), Fault::DoneAndError(EIO), Fault::Error(ENOSPC)];
        if *name == "write" {
            faults.extend([Fault::Half(EIO), Fault::Half(ENOSPC), Fault::DoneAndError(ENOSPC)]);
        }
        for fault in faults {
            let place = Place::new();
            let disk = FaultyDisk::new(Some((number, fault)));
            let outcome = run(&place, disk.clone());
            check(&place, &outcome, &format!("operation {number}, {name}, {fault:?}, of {:?}", disk.names()));
        }
    }
}

#[test]
fn each_operation_of_a_recovery_fails_once() {
    // All that a recovery can meet: a torn batch, damage in an older segment, an unfinished one, segments to remove.
    let wound = || {
        let place = Place::new();
        let (mut spool, _) = place.open();
        for _ in 0..20 {
            append(&mut spool, 1).unwrap();
        }
        let oldest = place.segments().remove(0);
        spool.acknowledge(6);
        drop(spool);
        // It was acknowledged and is there again.
        put(&oldest, &header());
        let damaged = place.segments().remove(2);
        let mut bytes = std::fs::read(&damaged).unwrap();
        bytes.push(1);
        put(&damaged, &bytes);
        let mut bytes = std::fs::read(place.newest()).unwrap();
        bytes.extend_from_slice(&[9; 30]);
        put(&place.newest(), &bytes);
        put(&place.newest().with_extension("tmp"), b"x");
        place
    };
    let healthy = FaultyDisk::new(None);
    drop(wound().open_on(healthy.clone()).unwrap());
    let names = healthy.names();
    for wanted in ["create", "write", "sync", "remove", "sync directory", "rename", "read"] {
        assert!(names.contains(&wanted), "{wanted} isn't among {names:?}");
    }
    for number in 0..names.len() {
        for fault in [Fault::Error(EIO), Fault::DoneAndError(EIO), Fault::Half(ENOSPC)] {
            let place = wound();
            drop(place.open_on(FaultyDisk::new(Some((number, fault)))));
            let (spool, recovery) = place.open();
            assert_eq!(recovery.missing, 0);
            assert_holds(&spool, 6..20, &format!("operation {number}, {fault:?}, of {names:?}"));
        }
    }
}

/// A spool on a disk of which the first operation `name` after the opening fails, behind one record.
fn failing(place: &Place, name: &str, fault: Fault) -> Spool {
    append(&mut place.open().0, 1).unwrap();
    let dry = FaultyDisk::new(None);
    let copy = place.copy();
    let (mut spool, _) = copy.open_on(dry.clone()).unwrap();
    let opened = dry.names().len();
    append(&mut spool, 1).unwrap();
    let at = opened + dry.names()[opened..].iter().position(|done| *done == name).unwrap();
    place.open_on(FaultyDisk::new(Some((at, fault)))).unwrap().0
}

#[test]
fn a_failed_sync_is_final() {
    let place = Place::new();
    let mut spool = failing(&place, "sync", Fault::Error(EIO));
    let refused = append(&mut spool, 1).unwrap_err();
    assert!(matches!(&refused, SpoolError::Io { what: "syncing", .. }), "{refused}");
    let refused = append(&mut spool, 1).unwrap_err();
    assert!(matches!(&refused, SpoolError::Poisoned { reason } if reason.contains("syncing")), "{refused}");
    assert_holds(&spool, 0..1, "nothing of it is shown, and what was there is");
    drop(spool);
    // The bytes may be in the cache only: they are written again, into a new file, before they count.
    let inode = |path: PathBuf| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(place.newest());
    let (spool, _) = place.open();
    assert_holds(&spool, 0..2, "it was whole");
    assert_ne!(inode(place.newest()), before, "a second sync of the same blocks says nothing");
}

#[test]
fn a_full_disk_refuses_and_the_spool_goes_on() {
    let place = Place::new();
    let mut spool = failing(&place, "write", Fault::Half(ENOSPC));
    let refused = append(&mut spool, 2).unwrap_err();
    assert!(matches!(&refused, SpoolError::DiskFull { .. }), "{refused}");
    assert_holds(&spool, 0..1, "nothing was appended");
    append(&mut spool, 2).unwrap();
    drop(spool);
    assert_holds(&place.open().0, 0..3, "it went on");
}

#[test]
fn what_cannot_be_removed_is_told_by_the_next_append() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    for _ in 0..10 {
        append(&mut spool, 1).unwrap();
    }
    // A directory can't be removed as a file is.
    let oldest = place.segments().remove(0);
    std::fs::remove_file(&oldest).unwrap();
    std::fs::create_dir(&oldest).unwrap();
    spool.acknowledge(9);
    let refused = append(&mut spool, 1).unwrap_err();
    assert!(matches!(&refused, SpoolError::Poisoned { reason } if reason.contains("removing")), "{refused}");
}
