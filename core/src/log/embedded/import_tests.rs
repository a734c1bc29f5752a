use super::*;
use crate::clock::SystemClock;
use crate::event::{Actor, Draft, EventId, ProducerKind, ProducerRef, Timestamp, canonical, log::Read};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::note::Ed25519Signer;
use crate::log::{ProducerKey, Signer};
use tempfile::TempDir;
use uuid::Uuid;

const ORIGIN: &str = "custody.example/log";

fn signer() -> Arc<dyn Signer> {
    Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap())
}

fn event(seq: u64) -> Vec<u8> {
    let read = Read { purpose: "search".to_owned(), query: "x".repeat((seq * 37 % 300) as usize) };
    let mut draft = Draft::new(Actor::system("test"), read);
    draft.id = EventId(Uuid::from_u128(u128::from(seq)));
    let producer =
        ProducerRef { boot: Uuid::from_u128(1), id: "custody".to_owned(), kind: ProducerKind::Log, seq };
    canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(seq))).unwrap()
}

/// A log of `size` events in `directory`, closed.
fn original(directory: &Path, size: u64) -> (Vec<Entry>, Checkpoint) {
    let log = EmbeddedLog::open(directory, Options::new(signer(), Arc::new(SystemClock::new()))).unwrap();
    for seq in 0..size {
        let producer = ProducerKey { id: "custody".to_owned(), boot: Uuid::from_u128(1), seq };
        let record = Record { producer, tag: Family::Log.tag(), bytes: event(seq).into() };
        let pending = log.submit(vec![record]).unwrap();
        if seq + 1 == size {
            pending.wait_blocking().unwrap();
        }
    }
    log.close();
    (log.read(0, usize::MAX, usize::MAX).unwrap(), log.checkpoint())
}

fn begin(directory: &Path) -> Import {
    let mut import = Import::begin(directory, &signer().verifier_key(), &mut |_, _, _| {}).unwrap();
    import.segment_bytes = 20_000;
    import
}

fn push(import: &mut Import, entries: &[Entry]) {
    for entry in entries {
        assert_eq!(import.push(entry.appended, &entry.bytes).unwrap(), entry.index);
    }
}

#[test]
fn a_copy_is_the_log_itself_and_goes_on_as_one() {
    let scratch = TempDir::new().unwrap();
    let (entries, checkpoint) = original(&scratch.path().join("log"), 700);
    let copy = scratch.path().join("copy");
    let mut import = begin(&copy);
    push(&mut import, &entries);
    assert!(import.log().is_none(), "nothing is sealed yet");
    import.seal(&checkpoint).unwrap();
    let log = import.log().unwrap();
    assert_eq!(log.read(0, 1_000, usize::MAX).unwrap(), entries);
    assert_eq!(log.root(300).unwrap(), import.root_at(300).unwrap());
    assert!(log.submit(Vec::new()).is_err());
    drop(import);
    assert!(std::fs::read_dir(copy.join("segments")).unwrap().count() > 3);
    let opened = EmbeddedLog::open(&copy, Options::new(signer(), Arc::new(SystemClock::new()))).unwrap();
    assert_eq!(opened.read(0, 1_000, usize::MAX).unwrap(), entries);
    let producer = ProducerKey { id: "custody".to_owned(), boot: Uuid::from_u128(1), seq: 699 };
    let repeat = Record { producer, tag: Family::Log.tag(), bytes: event(699).into() };
    let receipt = opened.submit(vec![repeat]).unwrap().wait_blocking().unwrap();
    assert!(receipt[0].repeat, "a number that was used stays used");
}

#[test]
fn it_goes_on_after_a_crash_and_what_was_never_sealed_is_no_log() {
    let scratch = TempDir::new().unwrap();
    let (entries, checkpoint) = original(&scratch.path().join("log"), 300);
    let copy = scratch.path().join("copy");
    let mut import = begin(&copy);
    import.segment_bytes = SEGMENT_BYTES;
    push(&mut import, &entries[..200]);
    import.flush().unwrap();
    push(&mut import, &entries[200..210]);
    drop(import);
    let open = || EmbeddedLog::open(&copy, Options::new(signer(), Arc::new(SystemClock::new())));
    assert!(matches!(open(), Err(OpenError::NoCheckpoint { .. })));
    let mut seen = 0;
    let key = signer().verifier_key();
    let mut import = Import::begin(&copy, &key, &mut |index, appended, bytes| {
        let original = &entries[index as usize];
        assert_eq!((original.appended, &*original.bytes), (appended, bytes));
        seen += 1;
    })
    .unwrap();
    assert_eq!((import.size(), seen), (200, 200), "what was flushed stays, what wasn't is copied again");
    push(&mut import, &entries[200..]);
    import.seal(&checkpoint).unwrap();
    drop(import);
    assert_eq!(open().unwrap().size(), 300);
}

#[test]
fn what_was_not_signed_is_not_sealed_and_is_taken_back() {
    let scratch = TempDir::new().unwrap();
    let (entries, checkpoint) = original(&scratch.path().join("log"), 500);
    let key = signer().verifier_key();
    // Each length of what is sealed before: nothing, in a segment, around the borders of one.
    for sealed in [0_usize, 1, 47, 48, 49, 50, 51, 52, 299] {
        let copy = scratch.path().join(format!("copy-{sealed}"));
        let mut import = begin(&copy);
        push(&mut import, &entries[..sealed]);
        let seal = Checkpoint::sign(sealed as u64, import.root(), &*signer()).unwrap();
        import.seal(&seal).unwrap();
        for entry in &entries[sealed..] {
            let other = if entry.index == 300 { event(77) } else { entry.bytes.to_vec() };
            import.push(entry.appended, &other).unwrap();
        }
        assert!(matches!(import.seal(&checkpoint), Err(ImportError::Root { size: 500, .. })));
        let mut left = 0;
        import.rewind(&mut |_, _, _| left += 1).unwrap();
        assert_eq!((import.size(), left), (sealed as u64, sealed));
        assert_eq!(import.log().unwrap().read(0, 1_000, usize::MAX).unwrap(), entries[..sealed]);
        assert!(matches!(import.seal(&checkpoint), Err(ImportError::Size { .. })));
        push(&mut import, &entries[sealed..]);
        import.seal(&checkpoint).unwrap();
        drop(import);
        assert_eq!(Import::begin(&copy, &key, &mut |_, _, _| {}).unwrap().root(), checkpoint.root());
    }
}

#[test]
fn what_no_log_has_is_refused_and_leaves_no_trace() {
    let scratch = TempDir::new().unwrap();
    let mut import = begin(scratch.path());
    import.push(Nanos(10), &event(0)).unwrap();
    let root = import.root();
    for (appended, bytes) in
        [(10, b"".to_vec()), (10, b"{}".to_vec()), (10, vec![b'x'; 65_536]), (9, event(1))]
    {
        assert!(matches!(import.push(Nanos(appended), &bytes), Err(ImportError::Entry { index: 1, .. })));
    }
    assert_eq!((import.size(), import.root()), (1, root));
    let key = signer().verifier_key();
    assert!(matches!(Import::begin(scratch.path(), &key, &mut |_, _, _| {}), Err(OpenError::InUse { .. })));
}

#[test]
fn a_log_whose_end_is_lost_gets_back_just_that_end() {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("log");
    let (entries, checkpoint) = original(&directory, 300);
    // The last hundred are gone, and the checkpoint still covers them.
    let short = scratch.path().join("short");
    let mut import = begin(&short);
    push(&mut import, &entries[..200]);
    import.flush().unwrap();
    drop(import);
    std::fs::copy(directory.join("checkpoint"), short.join("checkpoint")).unwrap();
    let open = || EmbeddedLog::open(&short, Options::new(signer(), Arc::new(SystemClock::new())));
    assert!(matches!(open(), Err(OpenError::Damaged { .. })));

    let mut seen = 0;
    let mut import = Import::begin(&short, &signer().verifier_key(), &mut |_, _, _| seen += 1).unwrap();
    assert_eq!((import.size(), seen, import.lost()), (200, 200, Some(&checkpoint)));
    assert_eq!(import.read(199, 9, usize::MAX).unwrap(), entries[199..200]);
    let some = Checkpoint::sign(200, import.root(), &*signer()).unwrap();
    assert!(
        matches!(import.seal(&some), Err(ImportError::Size { signed: 300, .. })),
        "that would hide the loss"
    );
    for seq in 200..300 {
        import.push(Nanos(u64::MAX), &event(seq + 1_000)).unwrap();
    }
    let others = Checkpoint::sign(300, import.root(), &*signer()).unwrap();
    assert!(matches!(import.seal(&others), Err(ImportError::Root { size: 300, .. })));
    import.rewind_to(200, &mut |_, _, _| {}).unwrap();
    push(&mut import, &entries[200..]);
    import.seal(&checkpoint).unwrap();
    assert_eq!(import.lost(), None);
    drop(import);
    assert_eq!(open().unwrap().read(0, 1_000, usize::MAX).unwrap(), entries);
}

/// An event so long that some seventy are written before they are sealed.
fn long(seq: u64) -> Vec<u8> {
    let read = Read { purpose: "search".to_owned(), query: "x".repeat(60_000) };
    let producer =
        ProducerRef { boot: Uuid::from_u128(1), id: "custody".to_owned(), kind: ProducerKind::Log, seq };
    let draft = Draft::new(Actor::system("test"), read).numbered(producer, Timestamp::from_seconds(seq));
    canonical::event_bytes(&draft).unwrap()
}

/// A log of ten entries, and behind them what an import has written when it was cut off.
fn cut_off(directory: &Path) -> (Vec<Entry>, Checkpoint) {
    let (entries, checkpoint) = original(directory, 10);
    let mut import = begin(directory).named("custody log recover");
    import.segment_bytes = SEGMENT_BYTES;
    for seq in 10..100 {
        import.push(import.last_appended(), &long(seq)).unwrap();
    }
    assert!(import.is_unfinished() && import.own() == 10, "more than four mebibytes lie on the disk");
    (entries, checkpoint)
}

fn open(directory: &Path) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(directory, Options::new(signer(), Arc::new(SystemClock::new())))
}

#[test]
fn what_a_cut_off_import_has_written_is_not_taken_for_the_logs_own_end() {
    let scratch = TempDir::new().unwrap();
    let (entries, checkpoint) = cut_off(scratch.path());
    let signed = || std::fs::read_to_string(scratch.path().join("checkpoint")).unwrap();
    let Err(error @ OpenError::Unfinished { own: 10, .. }) = open(scratch.path()) else {
        panic!("it was opened");
    };
    let said = error.to_string();
    assert!(said.contains("of custody log recover, which was cut off"), "{said}");
    assert!(said.contains("run the same command again") && !said.contains('\n'), "{said}");
    assert_eq!(signed(), checkpoint.to_string());

    // Whoever begins again finds it, and has the choice.
    let mut import = begin(scratch.path());
    assert!(import.is_unfinished() && import.size() > 70, "{}", import.size());
    assert_eq!((import.own(), import.checkpoint().as_ref()), (10, Some(&checkpoint)));
    import.rewind_to(import.own(), &mut |_, _, _| {}).unwrap();
    assert!(!import.is_unfinished());
    drop(import);
    let log = open(scratch.path()).unwrap();
    assert_eq!(log.read(0, 1_000, usize::MAX).unwrap(), entries);
    assert_eq!(log.checkpoint(), checkpoint);
}

#[test]
fn a_cut_off_import_that_goes_on_to_its_seal_is_a_log() {
    let scratch = TempDir::new().unwrap();
    cut_off(scratch.path());
    let mut import = begin(scratch.path());
    let size = import.size();
    import.push(import.last_appended(), &long(size)).unwrap();
    let seal = Checkpoint::sign(size + 1, import.root(), &*signer()).unwrap();
    import.seal(&seal).unwrap();
    assert_eq!((import.is_unfinished(), import.own()), (false, size + 1));
    drop(import);
    assert_eq!(open(scratch.path()).unwrap().size(), size + 1);
}

#[test]
fn what_is_vouched_for_needs_no_seal() {
    let scratch = TempDir::new().unwrap();
    cut_off(scratch.path());
    let mut import = begin(scratch.path());
    let size = import.size();
    import.flush().unwrap();
    drop(import);
    let log = open(scratch.path()).unwrap();
    assert_eq!((log.size(), log.checkpoint().size()), (size, size));
}

#[test]
fn a_log_whose_end_is_lost_keeps_what_it_has_when_something_else_is_taken_back() {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("log");
    let (entries, checkpoint) = original(&directory, 300);
    let short = scratch.path().join("short");
    let mut import = begin(&short);
    push(&mut import, &entries[..200]);
    import.flush().unwrap();
    drop(import);
    std::fs::copy(directory.join("checkpoint"), short.join("checkpoint")).unwrap();
    let mut import = begin(&short);
    assert_eq!((import.lost(), import.own()), (Some(&checkpoint), 200));
    for seq in 200..300 {
        import.push(import.last_appended(), &event(seq + 1_000)).unwrap();
    }
    import.rewind(&mut |_, _, _| {}).unwrap();
    assert_eq!((import.size(), import.is_unfinished()), (200, false));
    push(&mut import, &entries[200..]);
    import.seal(&checkpoint).unwrap();
}
