//! What no crash explains (L1, L4): refused by name, nothing changed. And what verification says of it.

use super::*;
use crate::log::embedded::{ScanError, segment};
use crate::log::verify::{self, VerifyError};
use proptest::prelude::*;

fn closed(entries: u64) -> Place {
    let place = Place::new();
    append_all(&place.open(), 1, 0..entries);
    place
}

fn segments(entries: u64) -> Place {
    let place = Place::new();
    append_all(&place.open_small(1), 1, 0..entries);
    place
}

fn damaged_at(error: &OpenError) -> Option<u64> {
    match error {
        OpenError::Damaged { source: ScanError::Damaged { index, .. } } => Some(*index),
        OpenError::Damaged { source: ScanError::Short { have, .. } } => Some(*have),
        _ => None,
    }
}

fn first_wrong(place: &Place) -> Option<u64> {
    verify::directory(&place.directory, &signer().verifier_key(), &[], &mut |_, _| {}, &mut |_| {})
        .unwrap_err()
        .first_wrong()
}

fn flip(path: &std::path::Path, at: usize, with: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= with;
    put(path, &bytes);
}

#[test]
fn a_bit_in_a_record_with_good_ones_behind_it() {
    let place = closed(10);
    let bytes = std::fs::read(place.segment(0)).unwrap();
    let text = event(6);
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    flip(&place.segment(0), at + 3, 4);
    let error = place.refused();
    assert_eq!(damaged_at(&error), Some(6), "{error}");
    assert!(error.to_string().contains("entry 6 is damaged"), "{error}");
    assert_eq!(first_wrong(&place), Some(6));
}

#[test]
fn acknowledged_entries_that_no_checkpoint_covers_are_no_torn_tail_either() {
    let place = closed(10);
    sign_back(&place, 2);
    let bytes = std::fs::read(place.segment(0)).unwrap();
    let text = event(6);
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    flip(&place.segment(0), at + 3, 4);
    assert_eq!(damaged_at(&place.refused()), Some(6));
}

#[test]
fn the_end_of_the_log_missing() {
    let place = closed(10);
    let bytes = std::fs::read(place.segment(0)).unwrap();
    put(&place.segment(0), &bytes[..bytes.len() - 1]);
    assert_eq!(damaged_at(&place.refused()), Some(9));
    assert_eq!(first_wrong(&place), Some(9));
    put(&place.segment(0), &bytes[..segment::HEADER_BYTES]);
    assert_eq!(damaged_at(&place.refused()), Some(0));
}

#[test]
fn a_sealed_segment_damaged_cut_or_missing() {
    let place = segments(5);
    let whole = std::fs::read(place.segment(2)).unwrap();
    flip(&place.segment(2), whole.len() - 1, 1);
    assert_eq!((damaged_at(&place.refused()), first_wrong(&place)), (Some(2), Some(2)));
    put(&place.segment(2), &whole[..whole.len() - 5]);
    assert_eq!((damaged_at(&place.refused()), first_wrong(&place)), (Some(2), Some(2)));
    put(&place.segment(2), &whole[..20]);
    assert_eq!(damaged_at(&place.refused()), Some(2));
    std::fs::remove_file(place.segment(2)).unwrap();
    assert_eq!((damaged_at(&place.refused()), first_wrong(&place)), (Some(2), Some(2)));
    put(&place.segment(2), &whole);
    assert_eq!(place.open().size(), 5);
    // The newest one gone: the log only looks shorter, but for its checkpoint.
    std::fs::remove_file(place.segment(4)).unwrap();
    assert_eq!((damaged_at(&place.refused()), first_wrong(&place)), (Some(4), Some(4)));
}

#[test]
fn the_checkpoint_missing_damaged_or_of_another_key() {
    let place = closed(5);
    let path = place.directory.join("checkpoint");
    let note = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(place.refused(), OpenError::NoCheckpoint { .. }));
    for bad in [&b""[..], &note[..note.len() / 2], b"\xff\xff"] {
        put(&path, bad);
        assert!(matches!(place.refused(), OpenError::Checkpoint { .. }));
    }
    let other = crate::log::note::Ed25519Signer::from_seed(ORIGIN, &[8; 32]).unwrap();
    let forged = crate::log::Checkpoint::sign(2, crate::log::tree::empty_root(), &other).unwrap();
    put(&path, forged.to_string().as_bytes());
    assert!(matches!(place.refused(), OpenError::Checkpoint { .. }));
    put(&path, &note);
    assert_eq!(place.open().size(), 5);
}

#[test]
fn the_first_segment_missing() {
    let place = segments(3);
    std::fs::remove_file(place.segment(0)).unwrap();
    assert_eq!((damaged_at(&place.refused()), first_wrong(&place)), (Some(0), Some(0)));
}

#[test]
fn all_segments_missing() {
    let place = segments(3);
    (0..3).for_each(|first| std::fs::remove_file(place.segment(first)).unwrap());
    assert_eq!((damaged_at(&place.refused()), first_wrong(&place)), (Some(0), Some(0)));
}

/// A log begins with a checkpoint: without one, half a segment isn't a log that was just being begun.
#[test]
fn the_checkpoint_missing_and_the_only_segment_cut() {
    let place = closed(5);
    std::fs::remove_file(place.directory.join("checkpoint")).unwrap();
    leave(&place.segment(0), b"CUSTLOG");
    assert!(matches!(place.refused(), OpenError::NoCheckpoint { .. }));
}

/// A bit flips somewhere: each byte of each file in turn. The entry that the byte belongs to is named.
#[test]
fn a_bit_flipped_in_each_byte_of_each_file() {
    let place = Place::new();
    append_all(&place.open_small(300), 1, 0..6);
    let files = place.contents();
    assert!(files.len() >= 4, "a checkpoint and several segments");
    for (path, whole) in files {
        let owners = owners(&path, &whole);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at * 5 % 8);
            leave(&path, &bytes);
            let what = format!("byte {at} of {}", path.display());
            let error =
                EmbeddedLog::open(&place.directory, options()).err().unwrap_or_else(|| panic!("{what}"));
            match &owners {
                Some(owners) => assert_eq!(damaged_at(&error), Some(owners[at]), "{what}: {error}"),
                None => assert!(matches!(error, OpenError::Checkpoint { .. }), "{what}: {error}"),
            }
        }
        leave(&path, &whole);
    }
    assert_eq!(place.open().size(), 6, "all was put back");
    // What is left: the lock, whose contents are for people only.
    let lock = place.directory.join("lock");
    for bytes in [&b""[..], b"\xff\xff\xff", b"1"] {
        leave(&lock, bytes);
        assert_eq!(place.open().size(), 6);
    }
}

/// For each byte of a segment the entry that it belongs to; the header's belong to the first. `None` if it is none.
fn owners(path: &std::path::Path, bytes: &[u8]) -> Option<Vec<u64>> {
    let first = segment::first_index(path.file_name()?.to_str()?)?;
    let id = segment::SegmentId::new(ORIGIN, first);
    let mut owners = vec![first; segment::HEADER_BYTES];
    while let segment::Decoded::Record(stored, length) = segment::decode(&id, &bytes[owners.len()..]) {
        owners.extend(std::iter::repeat_n(stored.index, length));
    }
    assert_eq!(owners.len(), bytes.len(), "a closed segment ends with a record");
    Some(owners)
}

/// Somebody rewrites an entry and makes its checksum fit.
fn replace_entry(place: &Place, index: u64) {
    let id = segment::SegmentId::new(ORIGIN, 0);
    let old = std::fs::read(place.segment(0)).unwrap();
    let mut new = old[..segment::HEADER_BYTES].to_vec();
    let mut at = segment::HEADER_BYTES;
    while let segment::Decoded::Record(stored, length) = segment::decode(&id, &old[at..]) {
        let event = if stored.index == index { b"{\"forged\":true}" } else { stored.event };
        segment::Stored { event, ..stored }.encode(&id, &mut new);
        at += length;
    }
    put(&place.segment(0), &new);
}

#[test]
fn a_replaced_entry_is_known_by_the_signed_root() {
    let place = closed(10);
    let log = place.open();
    let witness: Vec<_> = [4, 6]
        .map(|size| crate::log::Checkpoint::sign(size, log.root(size).unwrap(), &*signer()).unwrap())
        .into();
    drop(log);
    replace_entry(&place, 4);
    let error = place.refused();
    assert!(
        matches!(error, OpenError::Damaged { source: ScanError::Root { size: 10, agreed: 0 } }),
        "{error}"
    );
    let key = signer().verifier_key();
    let error = verify::directory(&place.directory, &key, &witness, &mut |_, _| {}, &mut |_| {}).unwrap_err();
    assert!(matches!(error, VerifyError::Entries(ScanError::Root { size: 6, agreed: 4 })), "{error}");
    assert_eq!(error.first_wrong(), Some(4));
}

#[test]
fn verification_says_what_it_checked() {
    let place = closed(10);
    let key = signer().verifier_key();
    let mut heard = Vec::new();
    let verified =
        verify::directory(&place.directory, &key, &[], &mut |done, of| heard.push((done, of)), &mut |_| {})
            .unwrap();
    assert_eq!((verified.signed, verified.entries, verified.segments, verified.checkpoints), (10, 10, 1, 1));
    assert_eq!(heard, [(0, 10), (10, 10)]);
    // A witness that knows more than is here.
    let longer = crate::log::Checkpoint::sign(12, verified.root, &*signer()).unwrap();
    let error =
        verify::directory(&place.directory, &key, &[longer], &mut |_, _| {}, &mut |_| {}).unwrap_err();
    assert!(matches!(error, VerifyError::Known { known: 12, have: 10 }));
    // What is unsigned is said to be.
    sign_back(&place, 4);
    let verified = verify::directory(&place.directory, &key, &[], &mut |_, _| {}, &mut |_| {}).unwrap();
    assert_eq!((verified.signed, verified.entries), (4, 10));
    let other = crate::log::note::Ed25519Signer::from_seed(ORIGIN, &[8; 32]).unwrap().verifier_key();
    let error = verify::directory(&place.directory, &other, &[], &mut |_, _| {}, &mut |_| {}).unwrap_err();
    assert!(matches!(error, VerifyError::Checkpoint { .. }));
}

#[test]
fn nothing_to_check_is_a_failure() {
    let place = Place::new();
    let key = signer().verifier_key();
    let verify = || verify::directory(&place.directory, &key, &[], &mut |_, _| {}, &mut |_| {});
    assert!(matches!(verify(), Err(VerifyError::Nothing(_))));
    drop(place.open());
    assert!(matches!(verify(), Err(VerifyError::Nothing(_))));
}

#[test]
fn a_running_log_can_be_verified() {
    let place = Place::new();
    let log = place.open();
    append_all(&log, 1, 0..20);
    log.sign_now().wait_blocking().unwrap();
    append_all(&log, 1, 20..30);
    let key = signer().verifier_key();
    let verified = verify::directory(&place.directory, &key, &[], &mut |_, _| {}, &mut |_| {}).unwrap();
    assert!(verified.signed >= 20 && verified.entries == 30);
}

#[test]
fn damage_met_by_a_reader_is_an_error_with_the_index() {
    let place = closed(10);
    let log = place.open();
    let length = std::fs::metadata(place.segment(0)).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(place.segment(0)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"?", length - 1).unwrap();
    assert_eq!(log.read(0, 100, usize::MAX).unwrap().len(), 9, "what is before it is given");
    let error = log.read(9, 1, usize::MAX).unwrap_err();
    assert!(matches!(error, crate::log::ReadError::Damaged { index: 9, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_changed_byte_of_a_signed_log_is_noticed(at: prop::sample::Index, with in 1u8..=255) {
        let place = closed(6);
        let mut bytes = std::fs::read(place.segment(0)).unwrap();
        *at.get_mut(&mut bytes) ^= with;
        put(&place.segment(0), &bytes);
        let error = place.refused();
        let damaged = matches!(error, OpenError::Damaged { .. });
        prop_assert!(damaged);
    }
}
