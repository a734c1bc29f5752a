use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::log::embedded::import::Import;
use crate::log::embedded::tests::leave;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::note::Ed25519Signer;
use crate::log::{Log as _, ProducerKey, Record, Signer as _};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

const ORIGIN: &str = "custody.example/log";

/// A log of `size` events in segments of some forty, closed.
fn original(directory: &Path, size: u64) -> Vec<Entry> {
    original_in(directory, size, 8_000)
}

fn original_in(directory: &Path, size: u64, segment_bytes: u64) -> Vec<Entry> {
    let signer = Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap());
    let clock = Arc::new(ManualClock::new(Nanos(1_800_000_000_000_000_000)));
    let options = Options { segment_bytes, ..Options::new(signer, clock.clone()) };
    let log = EmbeddedLog::open(directory, options).unwrap();
    for seq in 0..size {
        let producer = ProducerKey { id: "custody".to_owned(), boot: Uuid::from_u128(1), seq };
        let bytes = format!("{{\"n\":{seq},\"x\":\"{}\"}}", "x".repeat((seq * 37 % 100) as usize));
        let record = Record { producer, tag: 13, bytes: bytes.into_bytes().into() };
        clock.advance(Duration::from_millis(1));
        let _receipt = log.submit(vec![record]).unwrap().wait_blocking().unwrap();
    }
    log.close();
    log.read(0, usize::MAX, usize::MAX).unwrap()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory.join("segments")).unwrap().map(|item| item.unwrap().path()).collect();
    paths.sort();
    paths
}

fn read_all(salvage: &Salvage, indexes: Range<u64>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = indexes.start;
    while next < indexes.end {
        let some = salvage.read(next, indexes.end).unwrap();
        assert!(!some.is_empty(), "entry {next} isn't there");
        next = some.last().unwrap().index + 1;
        entries.extend(some);
    }
    entries
}

#[test]
fn what_is_whole_is_found_whole() {
    let scratch = TempDir::new().unwrap();
    let entries = original(scratch.path(), 400);
    assert!(segments(scratch.path()).len() > 5);
    let salvage = Salvage::begin(scratch.path(), ORIGIN).unwrap();
    assert_eq!(salvage.parts(400), [Part::Here(0..400)]);
    assert_eq!(salvage.parts(399), [Part::Here(0..399)]);
    assert_eq!((salvage.beyond(390), salvage.beyond(400)), (10, 0));
    assert_eq!(read_all(&salvage, 0..400), entries);
    assert_eq!(salvage.appended(400), (entries[0].appended, entries[399].appended));
    assert_eq!(salvage.appended(401).1, Nanos(u64::MAX));
    assert_eq!(salvage.read(17, 19).unwrap(), entries[17..19]);
    let key = Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap().verifier_key();
    assert!(matches!(Import::begin(scratch.path(), &key, &mut |_, _, _| {}), Err(OpenError::InUse { .. })));
    drop(salvage);
    let other = Salvage::begin(scratch.path(), "custody.example/other").unwrap();
    assert_eq!(other.parts(4), [Part::Missing { indexes: 0..4, appended: (Nanos(0), Nanos(u64::MAX)) }]);
}

#[test]
fn around_each_kind_of_damage_everything_else_is_found() {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("log");
    let entries = original(&directory, 400);
    let paths = segments(&directory);
    let first = |n: usize| first_index(paths[n].file_name().unwrap().to_str().unwrap()).unwrap();
    // A flipped bit in the first segment, a hole in the second, the third missing, the fourth cut, the fifth's header.
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        leave(path, bytes);
    };
    flip(&paths[0], 3_000);
    let mut bytes = fs::read(&paths[1]).unwrap();
    bytes[2_000..5_000].fill(0);
    leave(&paths[1], bytes);
    fs::remove_file(&paths[2]).unwrap();
    let end = fs::read(&paths[3]).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64;
    File::options().write(true).open(&paths[3]).unwrap().set_len(end - 700).unwrap();
    flip(&paths[4], 20);

    let salvage = Salvage::begin(&directory, ORIGIN).unwrap();
    let parts = salvage.parts(400);
    let missing: Vec<(Range<u64>, (Nanos, Nanos))> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Missing { indexes, appended } => Some((indexes.clone(), *appended)),
            Part::Here(_) => None,
        })
        .collect();
    assert_eq!(missing.len(), 4, "{missing:?}");
    assert_eq!(missing[0].0.end - missing[0].0.start, 1, "one record has the flipped bit");
    assert!(missing[1].0.start > first(1) && missing[1].0.end < first(2));
    assert_eq!(missing[2].0, first(2)..first(3));
    assert!(missing[3].0.end == first(4) && missing[3].0.start > first(3), "a header's damage costs nothing");
    for (indexes, (since, until)) in missing {
        let appended = entries[indexes.start as usize].appended..=entries[indexes.end as usize - 1].appended;
        assert!(since < *appended.start() && until > *appended.end());
    }
    let mut end = 0;
    for part in parts {
        match part {
            Part::Here(indexes) => {
                assert_eq!(indexes.start, end);
                assert_eq!(
                    read_all(&salvage, indexes.clone()),
                    entries[indexes.start as usize..indexes.end as usize]
                );
                end = indexes.end;
            }
            Part::Missing { indexes, .. } => {
                assert_eq!(indexes.start, end);
                assert!(salvage.read(indexes.start, indexes.end).unwrap().is_empty());
                end = indexes.end;
            }
        }
    }
    assert_eq!(end, 400);
    drop(salvage);
    let signer = Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap());
    let opened = EmbeddedLog::open(&directory, Options::new(signer, Arc::new(SystemClock::new())));
    assert!(matches!(opened, Err(OpenError::Damaged { .. })));
}

/// The machine's disk with one page that can't be read any more.
struct BadPage(u64);

impl Disk for BadPage {
    fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        RealDisk.create(path, mode)
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDisk.write_at(file, bytes, offset)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let bad = self.0..self.0 + PAGE_BYTES;
        if bad.contains(&offset) {
            return Err(io::Error::from_raw_os_error(5));
        }
        // A read that reaches it ends before it, as the kernel's do.
        let until = if offset < bad.start { bad.start } else { u64::MAX };
        let room = bytes.len().min(usize::try_from(until - offset).unwrap_or(usize::MAX));
        RealDisk.read_at(file, &mut bytes[..room], offset)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        RealDisk.sync(file)
    }
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        RealDisk.truncate(file, length)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_directory(directory)
    }
}

#[test]
fn a_page_that_cannot_be_read_costs_only_what_lies_in_it() {
    let scratch = TempDir::new().unwrap();
    let entries = original_in(scratch.path(), 400, 64 << 20);
    let path = segments(scratch.path()).remove(0);
    let (bytes, id) = (fs::read(&path).unwrap(), SegmentId::new(ORIGIN, 0));
    let mut starts = vec![HEADER_BYTES];
    while let Decoded::Record(_, length) = decode(&id, &bytes[starts[starts.len() - 1]..]) {
        starts.push(starts[starts.len() - 1] + length);
    }
    let page = PAGE_BYTES as usize;
    for number in [3, 7] {
        let bad = number * page..(number + 1) * page;
        let whole = |index: &usize| starts[*index] >= bad.end || starts[*index + 1] <= bad.start;
        let lost: Vec<usize> = (0..400).filter(|index| !whole(index)).collect();
        let (first, last) = (lost[0] as u64, *lost.last().unwrap() as u64);
        assert!(first > 0 && last < 399 && lost.len() < 100, "{lost:?}");
        let disk = Arc::new(BadPage(bad.start as u64));
        let salvage = Salvage::begin_on(disk, scratch.path(), ORIGIN).unwrap();
        let appended = (entries[first as usize - 1].appended, entries[last as usize + 1].appended);
        assert_eq!(
            salvage.parts(400),
            [
                Part::Here(0..first),
                Part::Missing { indexes: first..last + 1, appended },
                Part::Here(last + 1..400)
            ]
        );
        assert_eq!(read_all(&salvage, 0..first), entries[..first as usize]);
        assert_eq!(read_all(&salvage, last + 1..400), entries[last as usize + 1..]);
    }
}

#[test]
fn what_an_import_brought_is_not_what_was_appended_after_the_checkpoint() {
    let scratch = TempDir::new().unwrap();
    original(scratch.path(), 400);
    let beyond = || Salvage::begin(scratch.path(), ORIGIN).unwrap().beyond(300);
    assert_eq!(beyond(), 100);
    for (own, left) in [(400, 100), (320, 20), (300, 0), (10, 0)] {
        Note { own, what: "a test".to_owned() }.leave(scratch.path()).unwrap();
        assert_eq!(beyond(), left);
    }
}

#[test]
fn nothing_at_all_is_missing_whole() {
    let scratch = TempDir::new().unwrap();
    let salvage = Salvage::begin(&scratch.path().join("fresh"), ORIGIN).unwrap();
    assert_eq!(salvage.parts(7), [Part::Missing { indexes: 0..7, appended: (Nanos(0), Nanos(u64::MAX)) }]);
    assert!(salvage.parts(0).is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn no_bytes_panic_and_no_wrong_entry_comes_out(
        damage in proptest::collection::vec((0_usize..9_000, proptest::collection::vec(proptest::prelude::any::<u8>(), 1..300)), 1..6),
    ) {
        let scratch = TempDir::new().unwrap();
        let entries = original(scratch.path(), 40);
        let path = segments(scratch.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        for (at, with) in damage {
            let at = at % bytes.len();
            let end = (at + with.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&with[..end - at]);
        }
        leave(&path, bytes);
        let salvage = Salvage::begin(scratch.path(), ORIGIN).unwrap();
        for part in salvage.parts(40) {
            if let Part::Here(indexes) = part {
                proptest::prop_assert_eq!(
                    &read_all(&salvage, indexes.clone())[..],
                    &entries[indexes.start as usize..indexes.end as usize]
                );
            }
        }
    }
}
