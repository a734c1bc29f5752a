use super::*;
use crate::log::note::Ed25519Signer;
use proptest::prelude::*;

fn cosigner() -> Cosigner {
    Cosigner::new(Arc::new(Ed25519Signer::from_seed("witness.example", &[9; 32]).unwrap()))
}

const TEXT: &str = "custody.example/log\n42\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n";

/// Made by Torchwood's `NewCosignatureSigner` from the same seed.
const STRANGERS_KEY: &str = "witness.example+a50367b6+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY";
const STRANGERS_LINE: &str = "\u{2014} witness.example pQNntgAAAABrBmT7pAkZ2rGbyb/K1SjcljF1sUk6vuV5Zir0JTvCCWpeevesY2G7aD/kkEHC9CuP40HyWxrG96VmEzwrQDtLOQw7BQ==";

fn stranger() -> Note {
    Note::parse(&format!("{TEXT}\n{STRANGERS_LINE}\n")).unwrap()
}

#[test]
fn a_strangers_cosignature_is_verified_and_ours_is_the_same() {
    let key = CosignerKey::parse(STRANGERS_KEY).unwrap();
    assert_eq!((key.to_string().as_str(), key.kind()), (STRANGERS_KEY, CosignatureType::Ed25519));
    let cosigned = key.verify(&stranger()).unwrap();
    assert_eq!(cosigned.line().to_string(), STRANGERS_LINE);
    assert_eq!(cosigner().key(), &key);
    assert_eq!(cosigner().cosign(&stranger(), cosigned.at()).unwrap(), cosigned);
}

#[test]
fn a_changed_time_or_checkpoint_is_refused() {
    let key = cosigner().key().clone();
    let mut line = stranger().lines()[0].clone();
    line.signature[7] ^= 1;
    let mut note = Note::parse(&format!("{TEXT}\n{line}\n")).unwrap();
    assert_eq!(key.verify(&note), Err(NoteError::BadSignature("witness.example".to_owned())));
    // A good line beside a wrong one helps nothing.
    note.add_line(stranger().lines()[0].clone());
    assert!(key.verify(&note).is_err());
    let other = Note::parse(&stranger().to_string().replace("\n42\n", "\n43\n")).unwrap();
    assert_eq!(key.verify(&other), Err(NoteError::BadSignature("witness.example".to_owned())));
    line.signature.truncate(5);
    let short = Note::parse(&format!("{TEXT}\n{line}\n")).unwrap();
    assert_eq!(key.verify(&short), Err(NoteError::BadSignature("witness.example".to_owned())));
    let another = Ed25519Signer::from_seed("witness.example", &[8; 32]).unwrap();
    let another = Cosigner::new(Arc::new(another));
    assert!(matches!(another.key().verify(&stranger()), Err(NoteError::NotSigned(_))));
}

#[test]
fn the_newest_of_several_counts() {
    let mut note = stranger();
    for seconds in [5, 7, 6] {
        let cosigned = cosigner().cosign(&stranger(), Timestamp::from_seconds(seconds)).unwrap();
        note.add_line(cosigned.line().clone());
    }
    let newest = cosigner().key().verify(&note).unwrap();
    assert_eq!(newest.line().to_string(), STRANGERS_LINE);
    let later = cosigner().cosign(&note, Timestamp::from_seconds(9_000_000_000)).unwrap();
    note.put_line(later.line().clone());
    assert_eq!((note.lines().len(), cosigner().key().verify(&note)), (1, Ok(later)));
}

#[test]
fn keys_of_other_types_are_named_and_verify_nothing() {
    let of_type = |byte: u8, length: usize| {
        let public = vec![7; length];
        let id = key_id("w.example", byte, &public);
        let mut key = vec![byte];
        key.extend_from_slice(&public);
        format!("w.example+{id:08x}+{}", STANDARD.encode(key))
    };
    let post_quantum = CosignerKey::parse(&of_type(0x06, 1_312)).unwrap();
    assert_eq!(post_quantum.kind(), CosignatureType::MlDsa44);
    assert_eq!(post_quantum.to_string(), of_type(0x06, 1_312));
    assert!(matches!(post_quantum.verify(&stranger()), Err(NoteError::Key(_))));
    assert_eq!(CosignerKey::parse(&of_type(0x63, 5)).unwrap().kind(), CosignatureType::Other(0x63));
    assert!(CosignerKey::parse(&of_type(0x01, 32)).unwrap_err().to_string().contains("cosigns"));
    assert!(CosignerKey::parse(&of_type(0x04, 31)).is_err());
    for text in ["", "a+b", "w+00000000+", "w x+00000000+BAAA", &STRANGERS_KEY.replace("a503", "a504")] {
        assert!(CosignerKey::parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_cosigned_is_verified_and_no_flipped_bit_is(seconds in 0..4_000_000_000_u64, at: prop::sample::Index, bit in 0u8..8) {
        let note = stranger();
        let cosigned = cosigner().cosign(&note, Timestamp::from_seconds(seconds)).unwrap();
        let mut with = Note::parse(&format!("{TEXT}\n{}\n", cosigned.line())).unwrap();
        prop_assert_eq!(cosigner().key().verify(&with), Ok(cosigned.clone()));
        let mut line = cosigned.line().clone();
        *at.get_mut(&mut line.signature) ^= 1 << bit;
        with.put_line(line);
        prop_assert!(cosigner().key().verify(&with).is_err());
    }
}
