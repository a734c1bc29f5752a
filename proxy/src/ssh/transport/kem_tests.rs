use super::*;
use proptest::prelude::*;

const ALL: [Kem; 2] = [Kem::MlKem768, Kem::Sntrup761];

#[test]
fn both_sides_get_the_same_secret_of_each_mechanism() {
    for kem in ALL {
        let (key, public) = kem.generate().unwrap();
        let (ciphertext, secret) = kem.encapsulate(&public).unwrap();
        assert_eq!((public.len(), ciphertext.len()), (kem.public_len(), kem.ciphertext_len()));
        assert_eq!(*key.decapsulate(&ciphertext).unwrap(), *secret, "{kem:?}");
        let (another, _) = kem.generate().unwrap();
        assert_ne!(*another.decapsulate(&ciphertext).unwrap(), *secret, "{kem:?}");
        let (_, fresh) = kem.encapsulate(&public).unwrap();
        assert_ne!(*fresh, *secret, "{kem:?}: a secret came twice");
    }
}

#[test]
fn whatever_is_altered_gives_another_secret() {
    for kem in ALL {
        let (key, public) = kem.generate().unwrap();
        let (ciphertext, secret) = kem.encapsulate(&public).unwrap();
        for at in (0..ciphertext.len()).step_by(97) {
            let mut altered = ciphertext.clone();
            altered[at] ^= 1;
            assert_ne!(*key.decapsulate(&altered).unwrap(), *secret, "{kem:?} {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Public keys and ciphertexts come from strangers.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 1184), cut in 0..1184_usize) {
        for kem in ALL {
            let whole = &bytes[..kem.public_len()];
            // NTRU Prime's decoder takes what it gets, modulo its moduli; ML-KEM looks (FIPS 203 section 7.2).
            prop_assert_eq!(kem.encapsulate(whole).is_some(), kem == Kem::Sntrup761);
            prop_assert!(kem.encapsulate(&bytes[..cut]).is_none() || cut == kem.public_len());
            let (key, _) = kem.generate().unwrap();
            prop_assert!(key.decapsulate(&bytes[..kem.ciphertext_len()]).is_some());
            prop_assert!(key.decapsulate(&bytes[..cut]).is_none() || cut == kem.ciphertext_len());
        }
    }
}
