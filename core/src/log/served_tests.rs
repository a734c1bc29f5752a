use super::*;
use crate::log::note::Ed25519Signer;
use crate::log::tile::render;
use crate::log::tile::tests::{entry, grow, open};
use crate::log::tree::verify_inclusion;
use crate::log::{Log, Signer};
use proptest::prelude::*;

/// Reads a whole log through its tiles; `meddle` may change what is sent.
fn recompute(
    log: &dyn Log,
    newest: &Checkpoint,
    known: &[Checkpoint],
    meddle: &dyn Fn(Tile, &mut Vec<u8>),
) -> Result<u64, ServedError> {
    let fetch = |tile: Tile| {
        let mut bytes = render(log, tile, newest.size()).unwrap().unwrap();
        meddle(tile, &mut bytes);
        bytes
    };
    let mut it = Recomputed::new(newest, known)?;
    while let Some(tile) = it.next_tile() {
        let bundle = fetch(Tile { level: None, ..tile });
        let entries = it.take(tile, &fetch(tile), Some(&bundle))?;
        assert_eq!(entries[0], entry(tile.first(), 0));
    }
    for tile in it.upper() {
        it.compare_upper(tile, &fetch(tile))?;
    }
    assert_eq!(it.done(), newest.size());
    Ok(it.agreed)
}

#[test]
fn a_log_read_by_its_tiles_is_what_was_signed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let known: Vec<Checkpoint> = [1, 255, 256, 257, 511, 512, 513, 700]
        .into_iter()
        .map(|size| grow(&log, size - log.size(), 0))
        .collect();
    for newest in &known {
        let older: Vec<Checkpoint> = known.iter().filter(|k| k.size() <= newest.size()).cloned().collect();
        assert_eq!(recompute(&log, newest, &older, &|_, _| {}), Ok(newest.size()));
    }
    let short = recompute(&log, &known[2], &known, &|_, _| {});
    assert_eq!(short, Err(ServedError::Short { known: 700, have: 256 }));
    assert!(short.unwrap_err().to_string().contains("known up to 700 entries, have 256"));
}

#[test]
fn whatever_is_changed_on_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let first = grow(&log, 300, 0);
    let newest = grow(&log, 300, 0);
    let change = |path: &'static str, at: usize| {
        recompute(&log, &newest, std::slice::from_ref(&first), &move |tile, bytes| {
            if tile.to_string() == path {
                bytes[at] ^= 1;
            }
        })
    };
    assert_eq!(change("tile/entries/001", 2), Err(ServedError::Entry { index: 256 }));
    assert_eq!(change("tile/0/001", 32 * 9), Err(ServedError::Entry { index: 265 }));
    assert!(
        matches!(change("tile/1/000.p/2", 40), Err(ServedError::Tile { tile, .. }) if tile == "tile/1/000.p/2")
    );
    let cut = recompute(&log, &newest, &[], &|tile, bytes| {
        if tile.level.is_none() && tile.number == 2 {
            bytes.pop();
        }
    });
    assert!(matches!(cut, Err(ServedError::Tile { tile, .. }) if tile == "tile/entries/002.p/88"));
}

#[test]
fn a_fork_is_named_and_so_is_nothing_and_another_log() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, fork) = (open(one.path()), open(two.path()));
    let common = grow(&log, 300, 0);
    assert_eq!(grow(&fork, 300, 0).root(), common.root());
    let other = grow(&fork, 100, 50);
    let newest = grow(&log, 200, 0);
    let said = recompute(&log, &newest, &[other, common.clone()], &|_, _| {});
    assert_eq!(said, Err(ServedError::Root { size: 400, agreed: 300 }));
    assert_eq!(said.unwrap_err().first_wrong(), Some(300));

    let signer = Ed25519Signer::from_seed("other.example/log", &[8; 32]).unwrap();
    let stranger = Checkpoint::sign(300, common.root(), &signer).unwrap();
    assert!(matches!(Recomputed::new(&newest, &[stranger]), Err(ServedError::Origin { .. })));
    let empty = Checkpoint::sign(0, crate::log::tree::empty_root(), &signer).unwrap();
    assert_eq!(
        Recomputed::new(&empty, &[]).unwrap_err(),
        ServedError::Nothing(signer.verifier_key().name().into())
    );
}

#[test]
fn proofs_made_of_tiles_are_those_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for size in [1, 2, 255, 256, 257, 300, 513] {
        let checkpoint = grow(&log, size - log.size(), 0);
        let mut prover = Prover::new(size);
        assert_eq!(prover.inclusion(size), None);
        for tile in prover.wanted(0..size) {
            prover.insert(tile, &render(&log, tile, size).unwrap().unwrap()).unwrap();
        }
        assert!(prover.wanted(0..size).is_empty());
        for index in 0..size {
            let proof = prover.inclusion(index).unwrap();
            assert_eq!(proof, log.inclusion_proof(index, size).unwrap(), "{index} of {size}");
            let leaf = leaf_hash(&entry(index, 0));
            assert!(verify_inclusion(&leaf, index, size, &proof, &checkpoint.root()));
        }
        let mut prover = Prover::new(size);
        for old in 0..=size {
            for tile in prover.wanted_for_consistency(old) {
                prover.insert(tile, &render(&log, tile, size).unwrap().unwrap()).unwrap();
            }
            let proof = prover.consistency(old).unwrap();
            assert_eq!(proof, log.consistency_proof(old, size).unwrap(), "{old} of {size}");
        }
        assert!(prover.wanted_for_consistency(size + 1).is_empty());
        assert_eq!(prover.consistency(size + 1), None);
    }
}

proptest! {
    /// In a tree that nobody could hold: a few tiles for a proof, and each has its place in them.
    #[test]
    fn few_tiles_are_wanted_and_they_suffice(size in 1u64..1 << 40, at: prop::sample::Index) {
        let index = at.index(size as usize) as u64;
        let mut prover = Prover::new(size);
        let wanted = prover.wanted([index]);
        prop_assert!(wanted.len() <= 12, "{} tiles", wanted.len());
        for tile in wanted {
            prop_assert!(tile.entries_needed().is_some_and(|needed| needed <= size));
            prover.insert(tile, &vec![0; usize::from(tile.width) * 32]).unwrap();
        }
        prop_assert_eq!(prover.inclusion(index).unwrap().len(), path::inclusion(index, size).len());
    }
}
