//! From shelves in memory that hold what was delivered to them, and more.

use super::*;
use custody_core::clock::ManualClock;
use custody_core::event::{Actor, Draft, Event, ProducerKind, ProducerRef, canonical, log::Sealed, producer};
use custody_core::log::embedded::{EmbeddedLog, OpenError, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Entry, Log as _, Numbering, Producer};
use custody_sinks::sink::{Found, Held, Trouble, Unproven, Window};
use std::pin::Pin;
use tempfile::TempDir;

const ORIGIN: &str = "custody.test/log";
const SECOND: u64 = 1_000_000_000;
/// When the log began.
const BEGUN: Nanos = Nanos(1_764_000_000 * SECOND);

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap()
}

/// A log of some twenty entries, each appended some minutes after the one before, and what was signed.
async fn original() -> (Vec<Entry>, Checkpoint) {
    let scratch = TempDir::new().unwrap();
    original_in(&scratch.path().join("log")).await
}

/// The same in this directory.
async fn original_in(directory: &Path) -> (Vec<Entry>, Checkpoint) {
    let clock = Arc::new(ManualClock::new(BEGUN));
    let options = Options::new(Arc::new(signer()), clock.clone());
    let log = Arc::new(EmbeddedLog::open(directory, options).unwrap());
    let numbering = Numbering {
        log: log.clone(),
        clock: clock.clone(),
        id: "custody".to_owned(),
        kind: ProducerKind::Log,
        previous: None,
        program: "test".to_owned(),
    };
    let producer = Producer::start(numbering, Vec::<Draft<producer::Started>>::new()).await.unwrap();
    for size in 0..20 {
        clock.advance(Duration::from_secs(100));
        let _durable = producer.append(Draft::new(Actor::system("test"), Sealed { size })).await.unwrap();
    }
    log.close();
    (log.read(0, usize::MAX, usize::MAX).unwrap(), log.checkpoint())
}

/// Shows all that it has.
struct Shelf(Vec<Held>);

impl Archive for Shelf {
    fn prepare(&self) -> Pin<Box<dyn Future<Output = Result<(), Trouble>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }

    fn read_back<'a>(
        &'a self,
        window: &'a Window,
    ) -> Pin<Box<dyn Future<Output = Result<Found, Unproven>> + Send + 'a>> {
        Box::pin(async move {
            let is_within = |held: &&Held| held.appended.is_some_and(|at| window.appended.contains(&at));
            Ok(self.0.iter().filter(is_within).cloned().collect::<Vec<Held>>().into())
        })
    }
}

/// A document that gives its own leaf hash.
fn document(index: u64, appended: Nanos, bytes: &[u8]) -> Held {
    Held {
        index: Some(index),
        leaf: Some(leaf_hash(bytes)),
        original: Some(bytes.to_vec()),
        appended: Some(appended),
        document: None,
    }
}

/// All of a log as it was delivered.
fn delivered(entries: &[Entry]) -> Vec<Held> {
    entries.iter().map(|entry| document(entry.index, entry.appended, &entry.bytes)).collect()
}

/// A document with the event of another entry, so long after the time of the entry before `index`.
fn forged(entries: &[Entry], index: usize, after: u64) -> Held {
    let appended = entries[index - 1].appended.saturating_add(Duration::from_nanos(after));
    document(index as u64, appended, &entries[(index + 3) % entries.len()].bytes)
}

/// What is put together where nothing is left but the checkpoint, and of which indexes there were several entries.
async fn rebuilt(
    shelves: Vec<(&str, Vec<Held>)>,
    checkpoint: &Checkpoint,
) -> Result<(Vec<Entry>, Vec<u64>), String> {
    let scratch = TempDir::new().unwrap();
    let names: Vec<String> = shelves.iter().map(|(name, _)| (*name).to_owned()).collect();
    let archives: Vec<Box<dyn Archive>> =
        shelves.into_iter().map(|(_, held)| Box::new(Shelf(held)) as Box<dyn Archive>).collect();
    let salvage = Salvage::begin(&scratch.path().join("log"), ORIGIN).unwrap();
    let restored = scratch.path().join("restored");
    let import = Import::begin(&restored, &signer().verifier_key(), &mut |_, _, _| {}).unwrap();
    let mut rebuilding = Rebuilding {
        salvage: &salvage,
        archives: &archives,
        names: &names,
        import,
        checkpoint,
        // So near that the first entries lie in windows of their own.
        ends: (BEGUN, BEGUN.saturating_add(AHEAD)),
        lacking: BTreeMap::new(),
        replaced: Vec::new(),
        pins: BTreeMap::new(),
        perhaps_more: None,
        bar: ProgressBar::hidden(),
    };
    match rebuilding.run(&[]).await {
        Ok(beyond) => {
            assert_eq!(beyond, 0);
            let entries = rebuilding.import.read(0, usize::MAX, usize::MAX).unwrap();
            Ok((entries, rebuilding.pins.keys().copied().collect()))
        }
        Err(error) => Err(format!("{error:#}")),
    }
}

/// What is the same of each entry wherever it was restored from.
fn told(entries: &[Entry]) -> Vec<(u64, Nanos, &[u8])> {
    entries.iter().map(|entry| (entry.index, entry.appended, &*entry.bytes)).collect()
}

#[tokio::test]
async fn of_two_documents_for_one_index_the_one_that_was_signed_is_taken() {
    let (entries, checkpoint) = original().await;
    // Just behind the entry before, at the same moment as the right one, or a moment later.
    for (index, after) in [(1, 1), (3, 1), (7, 1), (13, 1), (19, 1), (7, 100 * SECOND), (7, 100 * SECOND + 1)]
    {
        let mut held = delivered(&entries);
        held.insert(0, forged(&entries, index, after));
        let (whole, disputed) = rebuilt(vec![("lines", held)], &checkpoint).await.unwrap();
        assert_eq!(told(&whole), told(&entries), "{index}, {after}");
        let is_taken_at_first = after <= 100 * SECOND;
        assert_eq!(disputed, if is_taken_at_first { vec![index as u64] } else { vec![] });
    }
    // What is no event isn't even tried.
    let mut held = delivered(&entries);
    held.insert(0, document(7, entries[6].appended, b"rubbish"));
    let (whole, disputed) = rebuilt(vec![("lines", held)], &checkpoint).await.unwrap();
    assert_eq!((told(&whole), disputed), (told(&entries), vec![]));
}

#[tokio::test]
async fn a_lost_end_whose_indexes_were_used_again_is_told_from_what_was_signed() {
    let (entries, checkpoint) = original().await;
    // As they were before the end was lost: all of them between the entry before and what came in their place.
    let mut held: Vec<Held> =
        (4..19).map(|index| Held { appended: None, ..forged(&entries, index, 0) }).collect();
    for (number, lost) in (1..).zip(&mut held) {
        lost.appended = Some(entries[3].appended.saturating_add(Duration::from_secs(number)));
    }
    held.extend(delivered(&entries));
    let (whole, disputed) = rebuilt(vec![("lines", held)], &checkpoint).await.unwrap();
    assert_eq!(told(&whole), told(&entries));
    assert_eq!(disputed, (4..19).collect::<Vec<u64>>());
}

#[tokio::test]
async fn of_more_than_can_be_tried_each_is_named_and_what_to_leave_out() {
    let (entries, checkpoint) = original().await;
    let clean = delivered(&entries);
    // Half of them are found before the right ones, and half of them behind.
    let mut dirty = delivered(&entries);
    for index in 4..14 {
        dirty.push(forged(&entries, index, if index % 2 == 0 { 1 } else { 100 * SECOND + 1 }));
    }
    let both = vec![("clean", clean.clone()), ("dirty", dirty.clone())];
    let said = rebuilt(both, &checkpoint).await.unwrap_err();
    let (wrong, right) = (leaf_hash(&entries[7].bytes), leaf_hash(&entries[4].bytes));
    for part in [
        "more ways to choose among them than can be tried",
        &format!("entry 4: leaf hash {wrong} in dirty, or leaf hash {right} in clean and dirty"),
        "; as well 7, 8, 9, 10, 11, 12, 13. ",
        "Leave out --from dirty. Nothing was changed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains('\n'), "{said}");
    let (whole, disputed) = rebuilt(vec![("clean", clean)], &checkpoint).await.unwrap();
    assert_eq!((told(&whole), disputed), (told(&entries), vec![]));
    let said = rebuilt(vec![("dirty", dirty)], &checkpoint).await.unwrap_err();
    assert!(said.contains("Restore from another sink"), "{said}");

    // None of all that there is is what was signed.
    let mut altered = delivered(&entries);
    altered[9] = forged(&entries, 9, 100 * SECOND);
    let mut other = altered.clone();
    other[9] = document(9, entries[9].appended, &entries[2].bytes);
    let said = rebuilt(vec![("one", altered.clone()), ("other", other)], &checkpoint).await.unwrap_err();
    assert!(said.contains("no choice among them is what was signed: entry 9: "), "{said}");
    let said = rebuilt(vec![("one", altered)], &checkpoint).await.unwrap_err();
    assert!(said.contains("one of them was replaced"), "{said}");
}

/// A start refuses it, and would do so again.
#[tokio::test]
async fn a_log_to_which_a_backup_was_being_put_back_is_not_said_to_be_whole() {
    let scratch = TempDir::new().unwrap();
    let log = scratch.path().join("log");
    let (entries, checkpoint) = original_in(&log).await;
    let key = signer().verifier_key();
    assert!(is_whole(&log, &key, &checkpoint).unwrap());
    let mut import =
        Import::begin(&log, &key, &mut |_, _, _| {}).unwrap().named("custody log restore BACKUP");
    let producer = Event::parse(&entries[0].bytes).unwrap().producer;
    let mut size = entries.len() as u64;
    // Whole mebibytes are written before they are sealed.
    while !import.is_unfinished() {
        let producer = ProducerRef { seq: size, ..producer.clone() };
        let draft = Draft::new(Actor::system(&"x".repeat(60_000)), Sealed { size });
        let event = canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(size))).unwrap();
        import.push(import.last_appended(), &event).unwrap();
        size += 1;
    }
    drop(import);
    let options = Options::new(Arc::new(signer()), Arc::new(SystemClock::new()));
    assert!(matches!(EmbeddedLog::open(&log, options), Err(OpenError::Unfinished { .. })));
    let said = is_whole(&log, &key, &checkpoint).unwrap_err().to_string();
    assert!(said.contains("of custody log restore BACKUP, which was cut off"), "{said}");
}
