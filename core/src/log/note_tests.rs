use super::*;
use crate::log::checkpoint::{Checkpoint, CheckpointError};
use crate::log::tree::leaf_hash;
use proptest::prelude::*;
use signed_note::{Note as TheirNote, StandardVerifier, VerifierList};

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed("custody.example/log", &[7; 32]).unwrap()
}

/// From the other implementation's documentation.
const STRANGER: &str = "If you think cryptography is the answer to your problem,\n\
     then you don't know what your problem is.\n\
     \n\
     \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const STRANGERS_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

#[test]
fn a_strangers_note_is_verified() {
    let key = VerifierKey::parse(STRANGERS_KEY).unwrap();
    assert_eq!(key.to_string(), STRANGERS_KEY);
    let note = Note::parse(STRANGER).unwrap();
    assert_eq!(note.verify(&key), Ok(()));
    assert_eq!(note.to_string(), STRANGER);
    let changed = Note::parse(&STRANGER.replace("problem is", "solution is")).unwrap();
    assert_eq!(changed.verify(&key), Err(NoteError::BadSignature("PeterNeumann".to_owned())));
}

#[test]
fn strangers_verify_our_checkpoint() {
    let signer = signer();
    let checkpoint = Checkpoint::sign(42, leaf_hash(b"x"), &signer).unwrap();
    let key = StandardVerifier::new(&signer.verifier_key().to_string()).unwrap();
    let note = TheirNote::from_bytes(checkpoint.to_string().as_bytes()).unwrap();
    let (good, unknown) = note.verify(&VerifierList::new(vec![Box::new(key)])).unwrap();
    assert_eq!((good.len(), unknown.len()), (1, 0));
    assert_eq!(note.text(), checkpoint.note().text().as_bytes());
}

#[test]
fn a_checkpoint_leads_back_and_unknown_signatures_stay() {
    let signer = signer();
    let mut checkpoint = Checkpoint::sign(42, leaf_hash(b"x"), &signer).unwrap();
    checkpoint.add_line(SignatureLine {
        name: "witness.example".to_owned(),
        id: 9,
        signature: vec![1; 2_428],
    });
    let read = Checkpoint::verify(&checkpoint.to_string(), &signer.verifier_key()).unwrap();
    assert_eq!(read, checkpoint);
    assert_eq!((read.size(), read.origin()), (42, "custody.example/log"));
}

#[test]
fn another_key_another_origin_and_a_changed_size_are_refused() {
    let note = Checkpoint::sign(42, leaf_hash(b"x"), &signer()).unwrap().to_string();
    let key = signer().verifier_key();
    let other = Ed25519Signer::from_seed("custody.example/log", &[8; 32]).unwrap();
    assert!(matches!(
        Checkpoint::verify(&note, &other.verifier_key()),
        Err(CheckpointError::Note(NoteError::NotSigned(_)))
    ));
    assert!(matches!(
        Checkpoint::verify(&note.replace("\n42\n", "\n43\n"), &key),
        Err(CheckpointError::Note(NoteError::BadSignature(_)))
    ));
    let foreign =
        Note::sign("other.example/log\n42\n".to_owned() + &leaf_hash(b"x").to_base64() + "\n", &signer());
    assert!(matches!(
        Checkpoint::verify(&foreign.unwrap().to_string(), &key),
        Err(CheckpointError::Origin { .. })
    ));
}

#[test]
fn what_is_signed_but_no_checkpoint_is_refused() {
    let (origin, root) = ("custody.example/log", leaf_hash(b"x"));
    for text in [
        format!("{origin}\n042\n{root}\n"),
        format!("{origin}\n+42\n{root}\n"),
        format!("{origin}\n-1\n{root}\n"),
        format!("{origin}\n18446744073709551616\n{root}\n"),
        format!("{origin}\n42\n"),
        format!("{origin}\n42\nAAAA\n"),
        format!("{origin}\n42\n{root}\n\n"),
        format!("{origin}\n42\n{root}\nextension\n\n"),
    ] {
        let note = Note::sign(text.clone(), &signer()).unwrap().to_string();
        assert!(Checkpoint::verify(&note, &signer().verifier_key()).is_err(), "{text:?}");
    }
    let extended = Note::sign(format!("{origin}\n42\n{root}\nextension\n"), &signer()).unwrap().to_string();
    assert!(Checkpoint::verify(&extended, &signer().verifier_key()).is_ok());
}

#[test]
fn a_wrong_verifier_key_is_refused() {
    for key in [
        "",
        "a",
        "a+b",
        "a+00000000+",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10",
    ] {
        assert!(VerifierKey::parse(key).is_err(), "{key}");
    }
    assert!(Ed25519Signer::from_seed("with space", &[7; 32]).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|\n|\u{2014} ){0,200}") {
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(Note::parse(&note.to_string()), Ok(note));
        }
        prop_assert!(VerifierKey::parse(&text).is_err());
    }

    #[test]
    fn a_flipped_byte_is_never_believed(at: prop::sample::Index, with in 1u8..128) {
        let good = Checkpoint::sign(42, leaf_hash(b"x"), &signer()).unwrap();
        let mut bytes = good.to_string().into_bytes();
        *at.get_mut(&mut bytes) ^= with;
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(read) = Checkpoint::verify(&text, &signer().verifier_key())
        {
            prop_assert_eq!(read.note().text(), good.note().text());
        }
    }
}
