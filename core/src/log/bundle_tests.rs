use super::*;
use crate::log::note::{Ed25519Signer, Signer as _};
use crate::log::tree::{Tiles, Tree, leaf_hash};

fn signer(seed: u8) -> Ed25519Signer {
    Ed25519Signer::from_seed("custody.example/log", &[seed; 32]).unwrap()
}

fn event(index: u64) -> String {
    format!("{{\"n\":{index}}}")
}

/// Events 3, 4 and 7 of ten.
#[allow(clippy::disallowed_methods, reason = "what a test damages needn't last")]
fn folder(seed: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    (0..10).for_each(|index| tree.push(leaf_hash(event(index).as_bytes())));
    let checkpoint = Checkpoint::sign(10, tree.root(), &signer(seed)).unwrap();
    let put = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    put("checkpoint", checkpoint.to_string());
    put("README.md", "not an event".to_owned());
    put("notes.json", "{}".to_owned());
    for index in [3, 4, 7] {
        let proof =
            ProofFile::new(index, tree.inclusion_proof(index, 10, &Tiles::new()).unwrap(), &checkpoint);
        put(&format!("{index}.json"), event(index));
        put(&format!("{index}.tlog-proof"), proof.to_string());
    }
    dir
}

fn check(dir: &tempfile::TempDir, seed: u8) -> Result<Vec<u64>, BundleError> {
    let bundle = verify(dir.path(), &signer(seed).verifier_key(), &mut |_, _| {})?;
    Ok(bundle.events.into_keys().collect())
}

#[test]
fn a_whole_folder_is_proved_and_by_its_own_key_only() {
    let dir = folder(7);
    assert_eq!(check(&dir, 7).unwrap(), [3, 4, 7]);
    assert!(matches!(check(&dir, 8), Err(BundleError::Checkpoint(_))));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "what a test damages needn't last")]
fn whatever_is_changed_is_named() {
    let change = |what: &dyn Fn(&Path)| {
        let dir = folder(7);
        what(dir.path());
        check(&dir, 7).unwrap_err()
    };
    let at = |path: &Path, name: &str| path.join(name);
    let said = change(&|dir| std::fs::write(at(dir, "4.json"), event(5)).unwrap());
    assert!(matches!(said, BundleError::Event { index: 4, .. }), "{said}");
    let said = change(&|dir| std::fs::remove_file(at(dir, "7.tlog-proof")).unwrap());
    assert_eq!(said.to_string(), "event 7: 7.tlog-proof is missing");
    let said = change(&|dir| std::fs::remove_file(at(dir, "3.json")).unwrap());
    assert_eq!(said.to_string(), "event 3: 3.json is missing");
    let said = change(&|dir| {
        for kind in ["json", "tlog-proof"] {
            std::fs::rename(at(dir, &format!("3.{kind}")), at(dir, &format!("5.{kind}"))).unwrap();
        }
    });
    assert!(matches!(said, BundleError::Event { index: 5, .. }), "{said}");
    let said = change(&|dir| {
        let other = Checkpoint::sign(10, leaf_hash(b"x"), &signer(7)).unwrap();
        std::fs::write(at(dir, "checkpoint"), other.to_string()).unwrap();
    });
    assert!(matches!(said, BundleError::OtherCheckpoint { index: 3 }), "{said}");
    let said = change(&|dir| std::fs::write(at(dir, "3.json"), vec![b'x'; EVENT_BYTES_MAX + 1]).unwrap());
    assert!(matches!(said, BundleError::TooLong(_)), "{said}");
    let said = change(&|dir| {
        for index in [3, 4, 7] {
            std::fs::remove_file(at(dir, &format!("{index}.json"))).unwrap();
            std::fs::remove_file(at(dir, &format!("{index}.tlog-proof"))).unwrap();
        }
    });
    assert!(matches!(said, BundleError::Nothing(_)), "{said}");
    let said = change(&|dir| std::fs::remove_file(at(dir, "checkpoint")).unwrap());
    assert!(matches!(said, BundleError::Io { .. }), "{said}");
}
