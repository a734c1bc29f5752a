//! What a crash, a disk or a person leaves.

use super::*;
use crate::spool::segment::HEADER_BYTES;

/// A spool with `batches` of two records that nobody acknowledged, closed.
fn spooled(batches: u64) -> Place {
    let place = Place::new();
    let (mut spool, _) = place.open();
    for _ in 0..batches {
        append(&mut spool, 2).unwrap();
    }
    place
}

/// It is in order, and it goes on, over two more openings.
fn goes_on(place: &Place, positions: std::ops::Range<u64>, what: &str) {
    let (mut spool, _) = place.open();
    assert_holds(&spool, positions.clone(), what);
    append(&mut spool, 1).unwrap();
    drop(spool);
    let (spool, recovery) = place.open();
    assert_eq!((recovery.cut_bytes, recovery.missing), (0, 0), "{what}");
    assert_holds(&spool, positions.start..positions.end + 1, what);
}

#[test]
fn the_last_batch_cut_at_every_byte() {
    // The last batch is in a segment with others, and in one with nothing else.
    for batches in [2, 1] {
        let whole = spooled(batches);
        let bytes = std::fs::read(whole.newest()).unwrap();
        let batch: usize = (batches * 2 - 2..batches * 2).map(|at| record(at).len() + FRAME_BYTES).sum();
        for cut in bytes.len() - batch..bytes.len() {
            let place = whole.copy();
            put(&place.newest(), &bytes[..cut]);
            let (spool, recovery) = place.open();
            assert_eq!(recovery.cut_bytes, (cut - (bytes.len() - batch)) as u64, "cut at {cut}");
            assert_eq!((recovery.records, recovery.missing), (batches * 2 - 2, 0), "cut at {cut}");
            drop(spool);
            goes_on(&place, 0..batches * 2 - 2, &format!("cut at {cut}"));
        }
    }
}

#[test]
fn the_newest_segment_cut_at_every_byte_after_all_was_acknowledged() {
    let place = spooled(20);
    {
        let (mut spool, _) = place.open();
        spool.acknowledge(40);
    }
    let newest = place.newest();
    let whole = std::fs::read(&newest).unwrap();
    let first = segment::first_position(newest.file_name().unwrap().to_str().unwrap()).unwrap();
    let carried = HEADER_BYTES + FRAME_BYTES + record(first - 1).len();
    for cut in 0..=whole.len() {
        put(&newest, &whole[..cut]);
        let (spool, _) = place.open();
        assert_eq!((spool.first(), spool.next()), (40, 40), "no position is given again: cut at {cut}");
        assert!(spool.last().is_some() || cut < carried, "cut at {cut}");
        drop(spool);
    }
}

#[test]
fn zeroes_and_rubbish_behind_the_end() {
    for rubbish in [vec![0; 1], vec![0; 4_096], vec![0xff; 100], record(1)] {
        let place = spooled(3);
        let mut bytes = std::fs::read(place.newest()).unwrap();
        bytes.extend_from_slice(&rubbish);
        put(&place.newest(), &bytes);
        let (spool, recovery) = place.open();
        assert_eq!(recovery.cut_bytes, rubbish.len() as u64);
        drop(spool);
        goes_on(&place, 0..6, "rubbish");
    }
}

#[test]
fn the_file_of_acknowledgements_zeroed_emptied_torn_lost() {
    let place = spooled(20);
    {
        let (mut spool, _) = place.open();
        spool.acknowledge(21);
    }
    let hint = place.directory.join("acknowledged");
    let whole = std::fs::read(&hint).unwrap();
    let oldest = place.segments().remove(0);
    let oldest = segment::first_position(oldest.file_name().unwrap().to_str().unwrap()).unwrap();
    assert!(oldest < 21);
    for wound in [vec![0; whole.len()], Vec::new(), whole[..5].to_vec(), vec![0xff; 30]] {
        put(&hint, &wound);
        let (spool, recovery) = place.open();
        assert_holds(&spool, oldest..40, "it sends again, and nothing is skipped");
        assert_eq!((recovery.cut_bytes, recovery.missing), (0, 0));
    }
    std::fs::remove_file(&hint).unwrap();
    goes_on(&place, oldest..40, "lost");
    put(&hint, &whole);
    let (spool, _) = place.open();
    assert_holds(&spool, 21..41, "an older one can't do harm");
}

#[test]
fn damage_in_the_middle_is_told_exactly_and_costs_nothing_else() {
    let place = spooled(20);
    let oldest = place.segments().remove(0);
    let mut bytes = std::fs::read(&oldest).unwrap();
    // In the payload of record 1.
    let at = HEADER_BYTES + FRAME_BYTES + record(0).len() + FRAME_BYTES + 3;
    bytes[at] ^= 0x20;
    put(&oldest, &bytes);
    let (spool, recovery) = place.open();
    assert_eq!((recovery.records, recovery.missing), (39, 1));
    assert_eq!(recovery.cut_bytes, (FRAME_BYTES + record(1).len()) as u64);
    let wanted: Vec<_> = (0..40).filter(|at| *at != 1).map(|at| (at, record(at))).collect();
    assert_eq!(all(&spool), wanted);
    drop(spool);
    let (spool, recovery) = place.open();
    assert_eq!(
        (all(&spool), recovery.cut_bytes, recovery.missing),
        (wanted, 0, 1),
        "it is told until it's gone"
    );
    drop(spool);
    // A whole segment goes.
    let third = place.segments().remove(2);
    std::fs::remove_file(third).unwrap();
    let (spool, recovery) = place.open();
    assert_eq!(recovery.records + recovery.missing, 40);
    assert_eq!(all(&spool).len() as u64, recovery.records);
    assert_eq!(spool.next(), 40);
}

#[test]
fn what_goes_bad_while_it_is_open_is_an_error_and_not_a_gap() {
    let place = spooled(20);
    let (spool, _) = place.open();
    let oldest = place.segments().remove(0);
    let mut bytes = std::fs::read(&oldest).unwrap();
    let second = HEADER_BYTES + FRAME_BYTES + record(0).len();
    bytes[second + FRAME_BYTES] ^= 1;
    put(&oldest, &bytes);
    let refused = spool.read(0, 10, usize::MAX).unwrap_err();
    assert!(matches!(&refused, SpoolError::Damaged { position: 1, .. }), "{refused}");
    assert_eq!(
        spool.read(0, 1, usize::MAX).unwrap(),
        [(0, record(0))],
        "what is before it can still be read"
    );
}

#[test]
fn a_segment_of_another_version_is_left_alone() {
    let place = spooled(2);
    let mut bytes = std::fs::read(place.newest()).unwrap();
    bytes[8] = 9;
    put(&place.newest(), &bytes);
    let refused = place.open_on(Arc::new(RealDisk)).unwrap_err();
    assert!(matches!(&refused, SpoolError::Version { version: 9, .. }), "{refused}");
    assert_eq!(std::fs::read(place.newest()).unwrap(), bytes);
}

#[test]
fn what_a_cut_short_rewriting_left_is_removed() {
    let place = spooled(2);
    put(&place.newest().with_extension("tmp"), b"half a segment");
    goes_on(&place, 0..4, "left over");
    assert!(!place.newest().with_extension("tmp").exists());
}
