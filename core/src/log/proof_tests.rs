use super::*;
use crate::log::note::{Ed25519Signer, Signer as _};
use crate::log::tree::{Tiles, Tree};
use proptest::prelude::*;

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed("custody.example/log", &[7; 32]).unwrap()
}

fn event(index: u64) -> Vec<u8> {
    format!("{{\"n\":{index}}}").into_bytes()
}

fn proof(index: u64, size: u64) -> ProofFile {
    let mut tree = Tree::new();
    (0..size).for_each(|index| tree.push(leaf_hash(&event(index))));
    let hashes = tree.inclusion_proof(index, size, &Tiles::new()).unwrap();
    ProofFile::new(index, hashes, &Checkpoint::sign(size, tree.root(), &signer()).unwrap())
}

#[test]
fn the_file_looks_as_the_specification_says() {
    let text = proof(2, 3).to_string();
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines[..2], ["c2sp.org/tlog-proof@v1", "index 2"]);
    assert_eq!(lines[3..6], ["", "custody.example/log", "3"]);
    let extra = ProofFile { extra: Some(b"more".to_vec()), ..proof(2, 3) };
    assert!(extra.to_string().starts_with("c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 2\n"));
    assert_eq!(ProofFile::parse(&extra.to_string()), Ok(extra));
}

#[test]
fn another_event_another_index_and_another_key_prove_nothing() {
    let proof = proof(2, 7);
    let key = signer().verifier_key();
    assert_eq!(proof.check(&event(2), &key).unwrap().size(), 7);
    assert!(matches!(proof.check(&event(3), &key), Err(ProofFileError::Wrong { index: 2, .. })));
    let moved = ProofFile { index: 3, ..proof.clone() };
    assert!(moved.check(&event(2), &key).is_err());
    let other = Ed25519Signer::from_seed("custody.example/log", &[8; 32]).unwrap().verifier_key();
    assert!(matches!(proof.check(&event(2), &other), Err(ProofFileError::Checkpoint(_))));
}

#[test]
fn nonsense_is_refused() {
    let good = proof(2, 7).to_string();
    for text in [
        String::new(),
        good.replace("@v1", "@v2"),
        good.replace("index 2", "index 02"),
        good.replace("index 2", "index"),
        good.replace("index 2\n", "index 2\nnot a hash\n"),
        good.replace("index 2\n", &format!("index 2\n{}", format!("{}\n", leaf_hash(b"x")).repeat(65))),
        good.replace("\n\n", "\n"),
    ] {
        assert!(matches!(ProofFile::parse(&text), Err(ProofFileError::Malformed(_))), "{text}");
    }
}

proptest! {
    #[test]
    fn a_file_leads_back_and_is_checked(size in 1u64..200, at: prop::sample::Index) {
        let index = at.index(size as usize) as u64;
        let proof = proof(index, size);
        let read = ProofFile::parse(&proof.to_string()).unwrap();
        prop_assert_eq!(&read, &proof);
        prop_assert!(read.check(&event(index), &signer().verifier_key()).is_ok());
    }

    #[test]
    fn no_text_panics(text in "(c2sp.org/tlog-proof@v1\n)?(index [0-9]{0,22}\n)?(\\PC|\n){0,100}") {
        if let Ok(file) = ProofFile::parse(&text) {
            prop_assert!(file.check(b"x", &signer().verifier_key()).is_err());
        }
    }
}
