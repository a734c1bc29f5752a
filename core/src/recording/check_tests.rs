use uuid::Uuid;

use super::*;
use crate::recording::level::Level;
use crate::recording::{Direction, Recorder};

struct Case {
    bytes: Vec<u8>,
    anchors: Vec<Point>,
    sealed: Sealed,
}

fn record(texts: &[&str]) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), Uuid::from_u128(3), 0, Level::Full).unwrap();
    let path = recorder.path().to_owned();
    let mut anchors = Vec::new();
    for (time, text) in texts.iter().enumerate() {
        recorder.release(time as u64, 0, Direction::Output, text).unwrap().into_inner();
        if time % 2 == 1 {
            anchors.extend(recorder.anchor().unwrap().map(Point::from));
        }
    }
    let sealed = recorder.seal(9).unwrap();
    Case { bytes: std::fs::read(path).unwrap(), anchors, sealed }
}

/// Blocks 1 to 5 (the end is the fifth), anchored after 2 and 4.
fn case() -> Case {
    record(&["one\r\n", "two\r\n", "3\r\n", "iv\r\n"])
}

fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut reader = Reader::new(bytes).unwrap();
    let mut ends = vec![reader.boundary().bytes as usize];
    while let Some(boundary) = reader.next_block() {
        ends.push(boundary.unwrap().bytes as usize);
    }
    ends
}

#[test]
fn whole() {
    let case = case();
    let verdict = check_stream(case.bytes.as_slice(), &case.anchors, Some(&case.sealed)).unwrap();
    assert!(verdict.is_whole() && !verdict.is_tampered(), "{verdict:?}");
    assert_eq!((verdict.proven_bytes, verdict.proven_frames), (case.bytes.len() as u64, 5));
    let unsealed = check_stream(case.bytes.as_slice(), &case.anchors, None).unwrap();
    let rest = case.sealed.bytes - case.anchors[1].bytes;
    assert_eq!(unsealed.findings, [Finding::Unanchored { bytes: rest }]);
    let nothing = check_stream(case.bytes.as_slice(), &[], None).unwrap();
    assert_eq!(nothing.findings, [Finding::NothingToCheckAgainst]);
    assert!(nothing.is_tampered());
}

#[test]
fn missing() {
    let case = case();
    let verdict = check(Path::new("/nonexistent/x.rec"), &case.anchors, None).unwrap();
    assert_eq!(verdict.findings, [Finding::Missing]);
}

#[test]
fn every_cut_is_found_where_it_is() {
    let case = case();
    let ends = ends(&case.bytes);
    for cut in 0..case.bytes.len() {
        let whole = ends.iter().copied().rfind(|end| *end <= cut).unwrap_or(0) as u64;
        let verdict = check_stream(&case.bytes[..cut], &case.anchors, Some(&case.sealed)).unwrap();
        let expected = Finding::Shortened { at: whole, anchored: case.sealed.bytes };
        assert_eq!(verdict.findings, [expected], "cut at {cut}");
        // A killed proxy left no seal: what lies behind the last anchor may be cut, nothing before it.
        let verdict = check_stream(&case.bytes[..cut], &case.anchors, None).unwrap();
        assert_eq!(verdict.is_tampered(), (cut as u64) < case.anchors[1].bytes, "cut at {cut}: {verdict:?}");
        assert!(!verdict.is_whole());
    }
}

#[test]
fn every_flip_is_found() {
    let case = case();
    let ends = ends(&case.bytes);
    for bit in 0..case.bytes.len() * 8 {
        let mut bad = case.bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let start = ends.iter().copied().rfind(|end| *end <= bit / 8).unwrap_or(0) as u64;
        let verdict = check_stream(bad.as_slice(), &case.anchors, Some(&case.sealed)).unwrap();
        assert!(verdict.is_tampered(), "bit {bit}");
        let place = |finding: &Finding| match finding {
            Finding::Damaged { at, .. } | Finding::Shortened { at, .. } => *at == start,
            _ => false,
        };
        assert!(verdict.findings.iter().any(place), "bit {bit}: {verdict:?}");
    }
}

#[test]
fn swapped_and_dropped_blocks_are_found() {
    let case = case();
    let ends = ends(&case.bytes);
    let block = |number: usize| &case.bytes[ends[number - 1]..ends[number]];
    let header = &case.bytes[..ends[0]];
    let orders: [(&[usize], u64); 4] = [
        (&[2, 1, 3, 4, 5], ends[0] as u64),
        (&[1, 3, 2, 4, 5], ends[1] as u64),
        (&[1, 2, 4, 5], ends[2] as u64),
        (&[1, 1, 2, 3, 4, 5], ends[1] as u64),
    ];
    for (order, at) in orders {
        let mut bytes = header.to_vec();
        order.iter().for_each(|number| bytes.extend_from_slice(block(*number)));
        let verdict = check_stream(bytes.as_slice(), &case.anchors, Some(&case.sealed)).unwrap();
        let found =
            verdict.findings.iter().any(|f| matches!(f, Finding::Damaged { at: found, .. } if *found == at));
        assert!(found && verdict.is_tampered(), "{order:?}: {verdict:?}");
    }
}

/// Whoever can write the file can make a new chain that is sound in itself; the anchors tell.
#[test]
fn a_forged_chain_is_found() {
    let case = case();
    let forged = record(&["one\r\n", "two\r\n", "3\r\n", "no\r\n"]);
    assert_eq!(forged.bytes.len(), case.bytes.len());
    let verdict = check_stream(forged.bytes.as_slice(), &case.anchors, None).unwrap();
    let (after, anchor) = (case.anchors[0].bytes, case.anchors[1].bytes);
    assert_eq!(verdict.findings, [Finding::Replaced { after, anchor }]);
    assert_eq!((verdict.proven_bytes, verdict.proven_frames), (after, 2));
    let longer = record(&["one\r\n", "two\r\n", "3\r\n", "iv\r\n", "and more\r\n"]);
    let verdict = check_stream(longer.bytes.as_slice(), &case.anchors, Some(&case.sealed)).unwrap();
    assert!(
        verdict
            .findings
            .contains(&Finding::Lengthened { sealed: case.sealed.bytes, bytes: longer.bytes.len() as u64 })
    );
}

#[test]
fn contradicting_anchors_are_the_logs_fault() {
    let case = case();
    let mut anchors = case.anchors.clone();
    anchors.push(Point { head: [9; 32], ..anchors[0] });
    let verdict = check_stream(case.bytes.as_slice(), &anchors, Some(&case.sealed)).unwrap();
    assert!(verdict.findings.contains(&Finding::AnchorsDisagree { anchor: anchors[0].bytes }));
    assert!(verdict.is_tampered());
}
