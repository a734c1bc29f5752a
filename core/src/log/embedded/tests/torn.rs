//! What a crash leaves, and a second one (L1, L2): cut durably, start, lose nothing that was acknowledged.

use super::*;
use crate::log::embedded::{Mark, segment};
use std::os::unix::fs::FileExt as _;

/// A log of `signed` signed entries, then `more` that no checkpoint covers, each its own write.
fn unsigned_tail(signed: u64, more: u64) -> Place {
    let place = Place::new();
    append_all(&place.open(), 1, 0..signed + more);
    sign_back(&place, signed);
    place
}

/// Where each record of the first segment starts, and the end.
fn offsets(place: &Place) -> Vec<usize> {
    let bytes = std::fs::read(place.segment(0)).unwrap();
    let id = segment::SegmentId::new(ORIGIN, 0);
    let mut at = vec![segment::HEADER_BYTES];
    while let segment::Decoded::Record(_, length) = segment::decode(&id, &bytes[at[at.len() - 1]..]) {
        at.push(at[at.len() - 1] + length);
    }
    at
}

/// Opens after the wound, appends, and opens once more: the second crash (L2).
fn survives(place: &Place, kept: u64) -> EmbeddedLog {
    let mut events: Vec<Vec<u8>> = (0..kept).map(event).collect();
    {
        let log = place.open();
        assert_holds(&log, &events);
        append_all(&log, 9, 0..2);
        std::mem::forget(log.submit(vec![record(9, 2)]).unwrap());
    }
    events.extend((0..3).map(event));
    let log = place.open();
    assert_holds(&log, &events);
    log
}

#[test]
fn the_last_record_cut_at_every_byte() {
    let place = unsigned_tail(3, 2);
    let at = offsets(&place);
    let (whole, checkpoint) = (
        std::fs::read(place.segment(0)).unwrap(),
        std::fs::read(place.directory.join("checkpoint")).unwrap(),
    );
    for cut in at[4]..at[5] {
        put(&place.segment(0), &whole[..cut]);
        put(&place.directory.join("checkpoint"), &checkpoint);
        let log = place.open();
        assert_eq!(log.size(), 4, "cut at {cut}");
        let torn = whole[at[4]..cut].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        assert_eq!(log.recovery().cut_bytes, torn as u64);
        assert_eq!(log.recovery().marks.contains(&Mark::TornRecord), cut > at[4]);
        assert!(log.recovery().marks.contains(&Mark::TailRewritten));
        append(&log, vec![record(9, 0)]).unwrap();
        drop(log);
        assert_holds(&place.open(), &[event(0), event(1), event(2), event(3), event(0)]);
    }
}

#[test]
fn the_last_bytes_zeroed() {
    for zeroes in [1, 16, 512, 4_096] {
        let place = unsigned_tail(3, 1);
        let last = Record { bytes: vec![b'x'; 6_000].into(), ..record(1, 4) };
        append(&place.open(), vec![last]).unwrap();
        sign_back(&place, 4);
        let mut bytes = std::fs::read(place.segment(0)).unwrap();
        let length = bytes.len();
        bytes[length - zeroes..].fill(0);
        put(&place.segment(0), &bytes);
        let log = survives(&place, 4);
        assert_eq!(log.recovery().cut_bytes, 0, "the first opening cut it for good");
    }
}

#[test]
fn zeroes_and_absurd_lengths_behind_the_end() {
    for tail in [vec![0; 1], vec![0; 4_096], vec![0xff; 700], [&[200, 0, 0, 0][..], &[7; 50]].concat()] {
        let place = unsigned_tail(3, 1);
        let mut bytes = std::fs::read(place.segment(0)).unwrap();
        bytes.extend_from_slice(&tail);
        put(&place.segment(0), &bytes);
        survives(&place, 4);
    }
}

#[test]
fn a_batch_is_there_whole_or_not_at_all() {
    let place = Place::new();
    append_all(&place.open(), 1, 0..3);
    append(&place.open(), (3..6).map(|seq| record(1, seq)).collect()).unwrap();
    sign_back(&place, 3);
    let at = offsets(&place);
    let whole = std::fs::read(place.segment(0)).unwrap();
    put(&place.segment(0), &whole[..at[5]]);
    let log = place.open();
    assert_eq!((log.size(), log.recovery().cut_bytes), (3, (at[5] - at[3]) as u64));
    assert_eq!(log.recovery().marks, [Mark::TornBatch, Mark::TailCut]);
    drop(log);
    survives(&place, 3);
}

#[test]
fn a_torn_write_whose_later_blocks_arrived_is_cut_from_the_first_bad_batch() {
    let place = unsigned_tail(2, 0);
    // One write of three batches: what three producers that waited together leave.
    let id = segment::SegmentId::new(ORIGIN, 0);
    let mut bytes = std::fs::read(place.segment(0)).unwrap();
    let first = bytes.len();
    for index in 2..5u64 {
        let record = record(1, index);
        let stored = segment::Stored {
            batch_end: true,
            tag: record.tag,
            epoch: 7,
            index,
            write_start: 2,
            appended: crate::clock::Nanos(u64::MAX / 2),
            seq: index,
            boot: record.producer.boot,
            producer: &record.producer.id,
            event: &record.bytes,
        };
        stored.encode(&id, &mut bytes);
    }
    let second = first + 8 + u32::from_le_bytes(bytes[first..first + 4].try_into().unwrap()) as usize;
    bytes[second + 30] ^= 1;
    put(&place.segment(0), &bytes);
    let log = place.open();
    assert_eq!(log.size(), 3);
    assert!(log.recovery().marks.contains(&Mark::TornWriteWithGoodRecords));
    drop(log);
    assert_eq!(place.open().size(), 3);
}

#[test]
fn bytes_of_an_earlier_life_do_not_come_alive() {
    let place = unsigned_tail(2, 2);
    let old = std::fs::read(place.segment(0)).unwrap();
    let at = offsets(&place);
    // The third record is lost, another one of the same length takes its place in a later life, and the disk
    // gives back the old fourth behind it.
    put(&place.segment(0), &old[..at[2]]);
    let other = Record { bytes: event(2).iter().map(|_| b'y').collect(), ..record(1, 2) };
    append(&place.open(), vec![other.clone()]).unwrap();
    sign_back(&place, 2);
    let mut bytes = std::fs::read(place.segment(0)).unwrap();
    assert_eq!(bytes.len(), at[3]);
    bytes.extend_from_slice(&old[at[3]..]);
    put(&place.segment(0), &bytes);
    let log = place.open();
    assert_holds(&log, &[event(0), event(1), other.bytes.to_vec()]);
    assert!(log.recovery().marks.contains(&Mark::StaleRecords));
}

#[test]
fn an_empty_newest_segment_is_taken_away() {
    let place = unsigned_tail(3, 0);
    for header in [0, 10, 63] {
        let name = segment::SegmentId::new(ORIGIN, 3);
        leave(&place.segment(3), &name.header()[..header]);
        let log = place.open();
        assert_eq!(log.recovery().marks, [Mark::UnfinishedSegment]);
        assert_eq!(log.size(), 3);
        assert!(!place.segment(3).exists());
    }
    // A whole one without records is simply the newest.
    leave(&place.segment(3), segment::SegmentId::new(ORIGIN, 3).header());
    survives(&place, 3);
    assert!(place.segment(3).exists());
}

#[test]
fn unfinished_files_are_taken_away() {
    let place = unsigned_tail(3, 0);
    let left = place.directory.join("segments").join("00000000000000000003.seg.tmp");
    leave(&left, b"half");
    leave(&place.directory.join("checkpoint.tmp"), b"half");
    assert_eq!(place.open().recovery().marks, [Mark::LeftoverFiles]);
    assert!(!left.exists());
    survives(&place, 3);
}

#[test]
fn the_wound_at_the_end_of_a_full_segment() {
    let place = Place::new();
    append_all(&place.open_small(1), 1, 0..4);
    sign_back(&place, 2);
    assert!(place.segment(3).exists(), "each record has its own segment");
    let file = std::fs::OpenOptions::new().write(true).open(place.segment(3)).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&[0; 4], length - 4).unwrap();
    let log = survives(&place, 3);
    assert_eq!(log.size(), 6);
}

#[test]
fn an_older_checkpoint_is_only_older() {
    let place = unsigned_tail(2, 3);
    let log = survives(&place, 5);
    assert_eq!(log.checkpoint().size(), 8);
}
