use super::*;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use proptest::prelude::*;

type Theirs = MemoryBackedTree<Sha256, Vec<u8>>;

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

/// Both trees over the same entries, and the leaves of ours by tile.
fn trees(size: u64) -> (Tree, Tiles, Theirs) {
    let (mut ours, mut tiles, mut theirs) = (Tree::new(), Tiles::new(), Theirs::new());
    for index in 0..size {
        let leaf = leaf_hash(&entry(index));
        ours.push(leaf);
        tiles.entry(index / TILE_LEAVES).or_default().push(leaf);
        theirs.push(entry(index));
    }
    (ours, tiles, theirs)
}

fn joined(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// RFC 6962's own test vectors, from the reference implementation's tree of eight leaves.
#[test]
fn roots_are_those_of_the_reference_implementation() {
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let hex = |hash: Hash| hash.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut tree = Tree::new();
    assert_eq!(hex(tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    tree.push(leaf_hash(leaves[0]));
    assert_eq!(hex(tree.root()), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    leaves[1..].iter().for_each(|leaf| tree.push(leaf_hash(leaf)));
    assert_eq!(hex(tree.root()), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
}

#[test]
fn roots_at_every_border_are_those_of_another_implementation() {
    for size in [1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 767, 768, 1023, 1024, 1025] {
        let (ours, _, theirs) = trees(size);
        assert_eq!(ours.root().0[..], theirs.root().as_bytes()[..], "size {size}");
    }
}

#[test]
fn what_is_out_of_range_is_an_error() {
    let (tree, tiles, _) = trees(300);
    assert!(matches!(tree.inclusion_proof(300, 300, &tiles), Err(TreeError::OutOfRange { .. })));
    assert!(matches!(tree.inclusion_proof(0, 301, &tiles), Err(TreeError::OutOfRange { .. })));
    assert!(matches!(tree.consistency_proof(3, 2, &tiles), Err(TreeError::OutOfRange { .. })));
    assert!(matches!(tree.root_at(u64::MAX, &tiles), Err(TreeError::OutOfRange { .. })));
    assert_eq!(tree.inclusion_proof(3, 300, &Tiles::new()), Err(TreeError::TileNeeded(0)));
}

#[test]
fn the_empty_tree_is_a_prefix_of_all_and_only_it_is_of_size_zero() {
    let (tree, _, _) = trees(5);
    assert!(verify_consistency(0, &empty_root(), 5, &tree.root(), &[]));
    assert!(!verify_consistency(0, &tree.root(), 5, &tree.root(), &[]));
    assert!(!verify_consistency(6, &tree.root(), 5, &tree.root(), &[]));
    assert!(!verify_inclusion(&leaf_hash(b""), 0, 0, &[], &empty_root()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn inclusion_proofs_are_those_of_another_implementation(size in 1u64..1_500, at: prop::sample::Index) {
        let (ours, tiles, theirs) = trees(size);
        let index = at.index(size as usize) as u64;
        let proof = ours.inclusion_proof(index, size, &tiles).unwrap();
        let expected = theirs.prove_inclusion(index as usize).as_bytes().to_vec();
        prop_assert_eq!(joined(&proof), expected);
        prop_assert!(verify_inclusion(&leaf_hash(&entry(index)), index, size, &proof, &ours.root()));
        let read: InclusionProof<Sha256> = InclusionProof::try_from_bytes(joined(&proof)).unwrap();
        let root = theirs.root();
        let verified = root.verify_inclusion(&entry(index), index, &read).is_ok();
        prop_assert!(verified);
    }

    #[test]
    fn consistency_proofs_are_those_of_another_implementation(old in 1u64..900, more in 1u64..600) {
        let new = old + more;
        let (ours, tiles, theirs) = trees(new);
        let (_, _, before) = trees(old);
        let proof = ours.consistency_proof(old, new, &tiles).unwrap();
        let old_root = ours.root_at(old, &tiles).unwrap();
        let expected = before.root();
        prop_assert_eq!(&old_root.0[..], &expected.as_bytes()[..]);
        let expected = theirs.prove_consistency(more as usize).as_bytes().to_vec();
        prop_assert_eq!(joined(&proof), expected);
        prop_assert!(verify_consistency(old, &old_root, new, &ours.root(), &proof));
        let read: ConsistencyProof<Sha256> = ConsistencyProof::try_from_bytes(joined(&proof)).unwrap();
        let (old_root, new_root) = (before.root(), theirs.root());
        let verified = new_root.verify_consistency(&old_root, &read).is_ok();
        prop_assert!(verified);
    }

    #[test]
    fn proofs_at_an_older_size_hold(size in 2u64..1_200, older: prop::sample::Index, at: prop::sample::Index) {
        let (tree, tiles, _) = trees(size);
        let older = older.index(size as usize) as u64 + 1;
        let index = at.index(older as usize) as u64;
        let (before, _, _) = trees(older);
        let proof = tree.inclusion_proof(index, older, &tiles).unwrap();
        prop_assert!(verify_inclusion(&leaf_hash(&entry(index)), index, older, &proof, &before.root()));
    }

    #[test]
    fn a_changed_proof_proves_nothing(size in 2u64..600, at: prop::sample::Index, which: prop::sample::Index, bit in 0usize..256) {
        let (tree, tiles, _) = trees(size);
        let index = at.index(size as usize) as u64;
        let leaf = leaf_hash(&entry(index));
        let mut proof = tree.inclusion_proof(index, size, &tiles).unwrap();
        prop_assert!(!verify_inclusion(&leaf, index ^ 1, size, &proof, &tree.root()));
        prop_assert!(!verify_inclusion(&leaf, index, size, &proof[1..], &tree.root()));
        let longer = [proof.clone(), vec![leaf]].concat();
        prop_assert!(!verify_inclusion(&leaf, index, size, &longer, &tree.root()));
        let hash = which.get_mut(&mut proof);
        hash.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify_inclusion(&leaf, index, size, &proof, &tree.root()));
    }
}
