//! The space that lies ready behind the end: what a crash leaves in it, and what a full disk leaves of it (L1, L2, L5).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::event::{Actor, Draft, Event, ProducerKind, lock};
use crate::log::embedded::preallocate::RESERVE_BYTES;
use crate::log::embedded::{Mark, ScanError, segment};
use crate::log::{Numbering, Producer, verify};

/// The directory as a crash at this moment would leave it, if all that was written arrived.
fn crashed(place: &Place) -> Place {
    let copy = Place::new();
    super::super::durable::create_directories(&copy.directory.join("segments")).unwrap();
    for (path, bytes) in place.contents() {
        leave(&copy.directory.join(path.strip_prefix(&place.directory).unwrap()), bytes);
    }
    copy
}

/// A crashed log of `entries`, each its own write, and where its last record ends.
fn died_with(entries: u64) -> (Place, u64) {
    let place = Place::new();
    let log = place.open();
    append_all(&log, 1, 0..entries);
    drop(log.sign_now().wait_blocking().unwrap());
    let end = log.statistics().disk_bytes;
    (crashed(&place), end)
}

fn write_at(place: &Place, bytes: &[u8], at: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(place.segment(0)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// A record as the writer would have put it behind `index` entries.
fn encoded(index: u64, write_start: u64, epoch: u32) -> Vec<u8> {
    let record = record(1, index);
    let stored = segment::Stored {
        batch_end: true,
        tag: record.tag,
        epoch,
        index,
        write_start,
        appended: crate::clock::Nanos(u64::MAX / 2),
        seq: index,
        boot: record.producer.boot,
        producer: &record.producer.id,
        event: &record.bytes,
    };
    let mut bytes = Vec::new();
    stored.encode(&segment::SegmentId::new(ORIGIN, 0), &mut bytes);
    bytes
}

/// Opens it, and after a second crash once more (L2): the first `kept` events are there, and what came after.
fn survives(place: &Place, kept: u64) -> Vec<Mark> {
    let mut events: Vec<Vec<u8>> = (0..kept).map(event).collect();
    let log = place.open();
    let marks = log.recovery().marks.clone();
    assert_holds(&log, &events);
    append_all(&log, 9, 0..2);
    let again = crashed(place);
    drop(log);
    events.extend((0..2).map(event));
    for place in [place, &again] {
        assert_holds(&place.open(), &events);
    }
    marks
}

#[test]
fn the_reserve_lies_ready_and_closing_gives_it_back() {
    let place = Place::new();
    let log = place.open();
    for seq in 0..40 {
        let large = Record { bytes: vec![b'x'; 60_000].into(), ..record(1, seq) };
        append(&log, vec![large]).unwrap();
        let (end, length) = (log.statistics().disk_bytes, std::fs::metadata(place.segment(0)).unwrap().len());
        assert!(length >= end + RESERVE_BYTES, "{length} bytes, the records end at {end}");
    }
    let end = log.statistics().disk_bytes;
    drop(log);
    assert_eq!(std::fs::metadata(place.segment(0)).unwrap().len(), end);
}

#[test]
fn a_crash_loses_nothing_and_cuts_only_zeroes() {
    let (place, _) = died_with(5);
    let key = signer().verifier_key();
    let verified = verify::directory(&place.directory, &key, &[], &mut |_, _| {}, &mut |_| {}).unwrap();
    assert_eq!((verified.entries, verified.unfinished_bytes), (5, 0));
    assert_eq!(verified.marks, [Mark::SpaceReady]);
    let log = place.open();
    assert_eq!((log.recovery().cut_bytes, log.recovery().marks.as_slice()), (0, &[Mark::SpaceReady][..]));
    drop(log);
    survives(&place, 5);
}

#[test]
fn a_crash_right_behind_an_extension_leaves_more_zeroes_or_a_hole() {
    let (place, _) = died_with(3);
    let file = std::fs::OpenOptions::new().write(true).open(place.segment(0)).unwrap();
    file.set_len(file.metadata().unwrap().len() + (3 << 20)).unwrap();
    assert_eq!(survives(&place, 3), [Mark::SpaceReady]);
    // Or the length arrived only in part.
    let (place, end) = died_with(3);
    let file = std::fs::OpenOptions::new().write(true).open(place.segment(0)).unwrap();
    for length in [end + 1, end + 3, end + 4, end + 4_096] {
        file.set_len(length).unwrap();
        let log = place.open();
        assert_eq!((log.size(), log.recovery().cut_bytes), (3, 0), "{length}");
        drop(log);
    }
    survives(&place, 3);
}

#[test]
fn a_torn_write_within_the_space() {
    let whole = encoded(3, 3, 1);
    // The beginning arrived, the end arrived, the middle is missing.
    for (from, to) in
        [(0, 1), (0, 4), (0, 8), (0, 30), (0, whole.len() - 1), (8, whole.len()), (1, whole.len())]
    {
        let (place, end) = died_with(3);
        write_at(&place, &whole[from..to], end + from as u64);
        let marks = survives(&place, 3);
        assert!(
            marks.contains(&Mark::TornRecord) && marks.contains(&Mark::TailCut),
            "{from}..{to}: {marks:?}"
        );
    }
    // Whole, but nobody was told: it stays.
    let (place, end) = died_with(3);
    write_at(&place, &whole, end);
    let marks = survives(&place, 4);
    assert_eq!(marks, [Mark::SpaceReady, Mark::TailRewritten]);
}

#[test]
fn a_write_whose_first_block_did_not_arrive() {
    // Zeroes where the first record of the write should be, the second one whole.
    let (place, end) = died_with(3);
    let first = encoded(3, 3, 1);
    write_at(&place, &encoded(4, 3, 1), end + first.len() as u64);
    assert!(survives(&place, 3).contains(&Mark::TornWriteWithGoodRecords));
    // But if the second one's write began behind it, the first one was durable: that is damage.
    let (place, end) = died_with(3);
    write_at(&place, &encoded(4, 4, 1), end + first.len() as u64);
    let error = place.refused();
    assert!(matches!(&error, OpenError::Damaged { source: ScanError::Damaged { index: 3, .. } }), "{error}");
}

#[test]
fn stale_records_within_the_space_do_not_come_alive() {
    // A second life of the log: its records have a larger epoch than what the disk gives back behind them.
    let (place, _) = died_with(3);
    let log = place.open();
    append_all(&log, 1, 3..5);
    let end = log.statistics().disk_bytes;
    let place = {
        let copy = crashed(&place);
        drop(log);
        copy
    };
    write_at(&place, &encoded(5, 5, 1), end);
    let marks = survives(&place, 5);
    assert!(marks.contains(&Mark::StaleRecords), "{marks:?}");
}

#[test]
fn signed_records_that_turned_to_zeroes_are_missing() {
    let (place, end) = died_with(3);
    let last = end - encoded(2, 2, 1).len() as u64;
    write_at(&place, &vec![0; (end - last) as usize], last);
    let error = place.refused();
    assert!(
        matches!(&error, OpenError::Damaged { source: ScanError::Short { have: 2, signed: 3 } }),
        "{error}"
    );
}

#[test]
fn a_crash_before_a_full_segment_gave_its_space_back() {
    let place = Place::new();
    append_all(&place.open_small(1), 1, 0..3);
    let mut sealed = std::fs::read(place.segment(1)).unwrap();
    let length = sealed.len();
    sealed.resize(length + 300_000, 0);
    put(&place.segment(1), &sealed);
    assert_eq!(survives(&place, 3), [Mark::SpaceReady]);
    assert_eq!(std::fs::metadata(place.segment(1)).unwrap().len(), length as u64);
    // Anything else there is damage.
    sealed[length + 70_000] = 1;
    put(&place.segment(1), &sealed);
    assert!(matches!(place.refused(), OpenError::Damaged { .. }));
}

/// A disk that can be full: nothing grows on it then, and what would is written as far as there is room.
struct FullDisk {
    full: AtomicBool,
}

impl FullDisk {
    fn new() -> Arc<FullDisk> {
        Arc::new(FullDisk { full: AtomicBool::new(false) })
    }
    fn set(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }
    fn no_room() -> io::Error {
        io::Error::from_raw_os_error(28)
    }
}

impl Disk for FullDisk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        if self.full.load(Ordering::SeqCst) { Err(FullDisk::no_room()) } else { RealDisk.create(path, mode) }
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = file.metadata()?.len().saturating_sub(offset);
        if self.full.load(Ordering::SeqCst) && bytes.len() as u64 > room {
            RealDisk.write_at(file, &bytes[..room as usize], offset)?;
            return Err(FullDisk::no_room());
        }
        RealDisk.write_at(file, bytes, offset)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        RealDisk.read_at(file, bytes, offset)
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

fn large(seq: u64) -> Record {
    Record { bytes: vec![b'x'; 50_000].into(), ..record(1, seq) }
}

fn last_word(log: &EmbeddedLog, record: Record) -> Result<Vec<Receipt>, AppendError> {
    log.submit_from_reserve(vec![record]).unwrap().wait_blocking()
}

/// Fills the space up; gives how many large events were taken.
fn fill(log: &EmbeddedLog) -> u64 {
    for seq in 0.. {
        match append(log, vec![large(seq)]) {
            Ok(_) => {}
            Err(AppendError::DiskFull) => return seq,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[test]
fn a_full_disk_leaves_room_for_last_words_and_passes_without_a_restart() {
    let (place, disk) = (Place::new(), FullDisk::new());
    let log = place.open_on(disk.clone()).unwrap();
    let filled = log.filled();
    append_all(&log, 9, 0..1);
    drop(log.sign_now().wait_blocking().unwrap());
    disk.set(true);
    let taken = fill(&log);
    assert!(taken > 0, "what was ready is used first");
    assert!(*filled.borrow());
    assert_eq!(append(&log, vec![record(3, 0)]), Err(AppendError::DiskFull), "small ones are refused too");
    let said = last_word(&log, record(2, 0)).unwrap()[0];
    assert_eq!((said.index, said.gap), (1 + taken, 0));
    assert!(*filled.borrow(), "that was the reserve");
    assert_eq!(log.checkpoint().size(), 1, "the old checkpoint is whole");
    // A crash now loses none of it.
    let copy = crashed(&place);
    assert_eq!(copy.open().size(), 2 + taken);
    // As soon as there is room, all goes on, with the numbers that were refused.
    disk.set(false);
    assert_eq!(append(&log, vec![large(taken)]).unwrap()[0].gap, 0);
    assert!(!*filled.borrow());
    assert!(!append(&log, vec![record(3, 0)]).unwrap()[0].repeat);
    drop(log);
    assert_eq!(place.open().size(), 4 + taken);
}

#[test]
fn the_reserve_has_an_end_and_a_restart_on_a_full_disk_refuses() {
    let (place, disk) = (Place::new(), FullDisk::new());
    let log = place.open_on(disk.clone()).unwrap();
    disk.set(true);
    let taken = fill(&log);
    let mut words = 0;
    while last_word(&log, large(taken + words)).is_ok() {
        words += 1;
    }
    assert!(words >= RESERVE_BYTES / 51_000, "{words}");
    drop(log);
    disk.set(false);
    let log = place.open_on(disk.clone()).unwrap();
    assert_eq!(log.size(), taken + words);
    disk.set(true);
    assert_eq!(append(&log, vec![record(4, 0)]), Err(AppendError::DiskFull));
    drop(log);
    assert_eq!(place.open().size(), taken + words);
}

#[test]
fn a_segment_that_cannot_get_its_successor_goes_on_with_last_words() {
    let (place, disk) = (Place::new(), FullDisk::new());
    let options = Options { segment_bytes: 100, ..options() };
    let log = EmbeddedLog::open_on(disk.clone(), &place.directory, options).unwrap();
    append_all(&log, 1, 0..2);
    disk.set(true);
    assert_eq!(append(&log, vec![record(1, 2)]), Err(AppendError::DiskFull));
    assert_eq!(last_word(&log, record(2, 0)).unwrap()[0].index, 2);
    disk.set(false);
    assert_eq!(append(&log, vec![record(1, 2)]).unwrap()[0].index, 3);
    drop(log);
    assert_holds(&place.open(), &[event(0), event(1), event(0), event(2)]);
    assert!(!place.directory.join("segments/00000000000000000002.seg.tmp").exists());
}

/// What is refused for lack of room is no loss, so it must not look like one: one by one, many at once, and with the log's
/// last word among them.
#[tokio::test]
async fn what_a_full_disk_refuses_uses_up_no_number() {
    let (place, disk) = (Place::new(), FullDisk::new());
    let log = Arc::new(place.open_on(disk.clone()).unwrap());
    let numbering = Numbering {
        log: Arc::clone(&log) as Arc<dyn Log>,
        clock: Arc::new(SystemClock::new()),
        id: "p".to_owned(),
        kind: ProducerKind::Log,
        previous: None,
        program: "test".to_owned(),
    };
    let producer = Producer::start(numbering, Vec::<Draft<lock::Lifted>>::new()).await.unwrap();
    let lifted = |bytes: usize| Draft::new(Actor::system("test"), lock::Lifted { name: "x".repeat(bytes) });
    for _ in 0..3 {
        disk.set(true);
        let mut refused = 0;
        while refused == 0 {
            let submitted: Vec<_> = (0..40).map(|_| producer.submit(lifted(50_000))).collect();
            for one in submitted {
                let answer = match one {
                    Ok(submitted) => submitted.durable().await.map(drop),
                    Err(error) => Err(error),
                };
                refused += usize::from(answer.is_err());
            }
        }
        while producer.append(lifted(10)).await.is_ok() {}
        for _ in 0..50 {
            let error = producer.append(lifted(10)).await.unwrap_err();
            assert!(error.to_string().contains("disk is full"), "{error}");
        }
        let _said = producer.append_from_reserve(lifted(10)).await.unwrap();
        assert!(producer.append(lifted(10)).await.is_err(), "that was the reserve");
        disk.set(false);
        let _after = producer.append(lifted(10)).await.unwrap();
    }
    let entries = log.read(0, usize::MAX, usize::MAX).unwrap();
    let seqs: Vec<u64> =
        entries.iter().map(|entry| Event::parse(&entry.bytes).unwrap().producer.seq).collect();
    assert_eq!(seqs, (0..entries.len() as u64).collect::<Vec<u64>>());
}

#[test]
fn room_is_found_again_though_nobody_appends() {
    let (place, disk) = (Place::new(), FullDisk::new());
    let log = place.open_on(disk.clone()).unwrap();
    disk.set(true);
    let taken = fill(&log);
    let filled = log.filled();
    assert!(*filled.borrow());
    disk.set(false);
    log.look_for_room();
    for _ in 0..1_000 {
        if !*filled.borrow() {
            assert_eq!(append(&log, vec![large(taken)]).unwrap()[0].gap, 0);
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the log still calls its disk full");
}
