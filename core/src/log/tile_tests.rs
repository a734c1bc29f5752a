use super::*;
use crate::clock::SystemClock;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::note::Ed25519Signer;
use crate::log::{Checkpoint, ProducerKey, Record};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::Arc;

pub(crate) fn open(directory: &Path) -> EmbeddedLog {
    let signer = Ed25519Signer::from_seed("custody.example/log", &[7; 32]).unwrap();
    EmbeddedLog::open(directory, Options::new(Arc::new(signer), Arc::new(SystemClock::new()))).unwrap()
}

/// Appends `count` entries and gives the checkpoint that covers them.
pub(crate) fn grow(log: &EmbeddedLog, count: u64, bytes: usize) -> Checkpoint {
    let first = log.size();
    let boot = uuid::Uuid::from_u128(u128::from(first) + 1);
    let records: Vec<Record> = (0..count)
        .map(|seq| Record {
            producer: ProducerKey { id: "p".into(), boot, seq },
            tag: 0,
            bytes: entry(first + seq, bytes).into(),
        })
        .collect();
    for batch in records.chunks(512) {
        let _receipts = log.submit(batch.to_vec()).unwrap().wait_blocking().unwrap();
    }
    log.sign_now().wait_blocking().unwrap()
}

pub(crate) fn entry(index: u64, bytes: usize) -> Vec<u8> {
    let mut entry = format!("{{\"n\":{index}}}").into_bytes();
    entry.resize(bytes.max(entry.len()), b' ');
    entry
}

#[test]
fn paths_are_those_of_the_specification() {
    let tile = Tile { level: Some(0), number: 1_234_067, width: 256 };
    assert_eq!(tile.to_string(), "tile/0/x001/x234/067");
    let partial = Tile { level: Some(1), number: 0, width: 1 };
    assert_eq!(partial.to_string(), "tile/1/000.p/1");
    assert_eq!(Tile { level: None, number: 5, width: 256 }.to_string(), "tile/entries/005");
}

#[test]
fn second_names_and_nonsense_are_refused() {
    for path in [
        "tile/0/x000/001",
        "tile/00/001",
        "tile/64/001",
        "tile/0/1",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/01",
        "tile/0/x001",
        "tile/0/001/002",
        "tile/data/001",
        "tile/0/",
        "/tile/0/001",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(Tile::parse(path), None, "{path}");
    }
}

proptest! {
    #[test]
    fn a_path_leads_back(level in proptest::option::of(0u8..=63), number: u64, width in 1u16..=256) {
        let tile = Tile { level, number, width };
        prop_assert_eq!(Tile::parse(&tile.to_string()), Some(tile));
    }

    #[test]
    fn no_path_panics(path in "tile/.{0,40}") {
        if let Some(tile) = Tile::parse(&path) {
            prop_assert_eq!(tile.to_string(), path);
        }
    }
}

/// Hash `number` of `level` as its definition says it (C2SP tlog-tiles), by another implementation of the tree.
fn defined(level: u8, number: u64) -> [u8; 32] {
    let leaves = 1_u64 << (8 * level);
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    (number * leaves..(number + 1) * leaves).for_each(|index| tree.push(entry(index, 0)));
    if leaves == 1 {
        return Sha256::new_with_prefix([0]).chain_update(entry(number, 0)).finalize().into();
    }
    tree.root().as_bytes()[..].try_into().unwrap()
}

#[test]
fn tiles_hold_what_the_specification_says_around_every_border() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for size in [1, 2, 255, 256, 257, 511, 512, 513, 767, 768, 769] {
        let checkpoint = grow(&log, size - log.size(), 0);
        assert_eq!(checkpoint.size(), size);
        for level in [Some(0), Some(1), Some(2), None] {
            let tiles: Vec<Tile> = Tile::all(level, size).collect();
            let last = tiles.last();
            let hashes: u64 = tiles.iter().map(|tile| u64::from(tile.width)).sum();
            assert_eq!(hashes, size >> (8 * level.unwrap_or(0)), "level {level:?} of {size}");
            let Some(last) = last else { continue };
            let bytes = render(&log, *last, size).unwrap().unwrap();
            match level {
                None => {
                    let entries = parse_bundle(&bytes, last.width).unwrap();
                    let expected = (last.first()..size).map(|index| entry(index, 0));
                    assert!(entries.into_iter().map(<[u8]>::to_vec).eq(expected));
                }
                Some(level) => {
                    let hashes = parse_hashes(&bytes, last.width).unwrap();
                    let newest = last.first() + u64::from(last.width) - 1;
                    assert_eq!(hashes.last().unwrap().0, defined(level, newest), "{last} of {size}");
                }
            }
        }
    }
    let full = Tile { level: Some(0), number: 0, width: 256 };
    let whole = render(&log, full, 769).unwrap().unwrap();
    let hashes: Vec<u8> = (0..256).flat_map(|index| defined(0, index)).collect();
    assert_eq!(whole, hashes);
    // Every partial tile of any size that was ever published is a prefix of the full one.
    for width in 1..256 {
        let partial = render(&log, Tile { width, ..full }, 769).unwrap().unwrap();
        assert_eq!(partial, hashes[..usize::from(width) * 32]);
    }
}

/// The second level of hashes begins at 65,536 entries.
#[test]
fn the_third_row_of_tiles_begins_where_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    grow(&log, 65_537, 0);
    for (level, number, width) in [(0, 255, 256), (0, 256, 1), (1, 0, 256), (2, 0, 1)] {
        let tile = Tile::of(Some(level), number, 65_537).unwrap();
        assert_eq!(tile, Tile { level: Some(level), number, width });
        assert!(render(&log, tile, 65_537).unwrap().is_some(), "{tile}");
        assert_eq!(render(&log, tile, tile.entries_needed().unwrap() - 1).unwrap(), None, "{tile}");
    }
    for (level, number) in [(0, 257), (1, 1), (2, 1), (3, 0)] {
        assert_eq!(Tile::of(Some(level), number, 65_537), None);
    }
    let top = render(&log, Tile { level: Some(2), number: 0, width: 1 }, 65_537).unwrap().unwrap();
    assert_eq!(top[..], log.root(65_536).unwrap().0[..]);
}

#[test]
fn what_no_checkpoint_covers_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    grow(&log, 300, 0);
    for (tile, from) in [
        (Tile { level: Some(0), number: 0, width: 256 }, 256),
        (Tile { level: Some(0), number: 1, width: 44 }, 300),
        (Tile { level: None, number: 1, width: 10 }, 266),
        (Tile { level: Some(1), number: 0, width: 1 }, 256),
    ] {
        assert_eq!(render(&log, tile, from - 1).unwrap(), None, "{tile}");
        assert!(render(&log, tile, from).unwrap().is_some(), "{tile}");
    }
    for tile in [
        Tile { level: Some(63), number: 0, width: 1 },
        Tile { level: Some(0), number: u64::MAX, width: 256 },
        Tile { level: Some(7), number: 1, width: 1 },
    ] {
        assert_eq!(render(&log, tile, 300).unwrap(), None, "{tile}");
    }
}

/// Rot in a record: neither its bundle nor its tile is made up, and each says which entry it is.
#[allow(clippy::disallowed_methods, reason = "what a test damages needn't last")]
#[test]
fn a_rotten_record_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    // More than readers' memory of the newest entries holds.
    let size = grow(&log, 300, 40_000).size();
    let segments: Vec<_> = std::fs::read_dir(dir.path().join("segments")).unwrap().flatten().collect();
    let path = segments[0].path();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"{\"n\":42}\x20").unwrap();
    bytes[at + 5] ^= 1;
    let rotten = bytes.clone();
    std::fs::write(&path, &bytes).unwrap();
    for tile in [
        Tile { level: None, number: 0, width: 256 },
        Tile { level: None, number: 0, width: 43 },
        Tile { level: Some(0), number: 0, width: 256 },
    ] {
        let said = render(&log, tile, size).unwrap_err();
        assert!(matches!(said, ReadError::Damaged { index: 42, .. }), "{tile}: {said}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), rotten, "somebody repaired it");
    assert!(render(&log, Tile { level: None, number: 0, width: 42 }, size).unwrap().is_some());
    // The tree's own hashes are in memory; they are of what was written.
    assert!(render(&log, Tile { level: Some(1), number: 0, width: 1 }, size).unwrap().is_some());
}

proptest! {
    #[test]
    fn a_bundle_leads_back(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..40)) {
        let mut bytes = Vec::new();
        for entry in &entries {
            bytes.extend((entry.len() as u16).to_be_bytes());
            bytes.extend(entry);
        }
        let width = entries.len() as u16;
        let parsed = parse_bundle(&bytes, width).unwrap();
        prop_assert!(parsed.into_iter().map(<[u8]>::to_vec).eq(entries));
        prop_assert_eq!(parse_bundle(&bytes, width + 1), Err(WrongWidth(width + 1)));
        bytes.pop();
        prop_assert!(parse_bundle(&bytes, width).is_err());
    }

    #[test]
    fn no_bundle_and_no_tile_panics(bytes: Vec<u8>, width in 1u16..=256) {
        if let Ok(entries) = parse_bundle(&bytes, width) {
            prop_assert_eq!(entries.len(), usize::from(width));
        }
        if let Ok(hashes) = parse_hashes(&bytes, width) {
            prop_assert_eq!(hashes.len() * 32, bytes.len());
        }
    }

    #[test]
    fn a_tile_of_a_size_is_there_at_that_size_and_not_before(level in 0u8..=7, number in 0u64..1 << 40, size: u64) {
        if let Some(tile) = Tile::of(Some(level), number, size) {
            let needed = tile.entries_needed().unwrap();
            prop_assert!(needed <= size);
            prop_assert!(tile.width == 256 || size - needed < 1 << tile.height());
        }
    }
}
