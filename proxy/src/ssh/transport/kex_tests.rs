use super::*;
use sha2::{Digest as _, Sha256, Sha512};

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(byte)
}

/// RFC 7748 section 5.2, first vector.
#[test]
fn x25519_vector_of_the_rfc() {
    let scalar: [u8; 32] = hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    let point: [u8; 32] = hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    let product: [u8; 32] = hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    let ours = PrivateKey::from_private_key(&X25519, &scalar).unwrap();
    assert_eq!(classical(KexAlgorithm::Curve25519, &ours, &point).unwrap()[..], product);
}

/// One exchange: our private key, the peer's public value, the secret.
struct Vector {
    algorithm: KexAlgorithm,
    private: &'static str,
    public: &'static str,
    secret: &'static str,
}

/// RFC 7748 section 6.1, and NIST's CAVS 14.1 for the ECC CDH primitive (SP 800-56A) on each curve. The secret of
/// P-521 begins with a zero byte: as an mpint it has none.
const VECTORS: [Vector; 4] = [
    Vector {
        algorithm: KexAlgorithm::Curve25519,
        private: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        public: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        secret: "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    },
    Vector {
        algorithm: KexAlgorithm::EcdhP256,
        private: "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
        public: "04700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287\
                 db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac",
        secret: "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b",
    },
    Vector {
        algorithm: KexAlgorithm::EcdhP384,
        private: "3cc3122a68f0d95027ad38c067916ba0eb8c38894d22e1b1\
                  5618b6818a661774ad463b205da88cf699ab4d43c9cf98a1",
        public: "04a7c76b970c3b5fe8b05d2838ae04ab47697b9eaf52e764592efda27fe7513272734466b400091adbf2d68c58e0c50066\
                 ac68f19f2e1cb879aed43a9969b91a0839c4c38a49749b661efedf243451915ed0905a32b060992b468c64766fc8437a",
        secret: "5f9d29dc5e31a163060356213669c8ce132e22f57c9a04f4\
                 0ba7fcead493b457e5621e766c40a2e3d4d6a04b25e533f1",
    },
    Vector {
        algorithm: KexAlgorithm::EcdhP521,
        private: "017eecc07ab4b329068fba65e56a1f8890aa935e57134ae0ffcce802735151f4ea\
                  c6564f6ee9974c5e6887a1fefee5743ae2241bfeb95d5ce31ddcb6f9edb4d6fc47",
        public: "0400685a48e86c79f0f0875f7bc18d25eb5fc8c0b07e5da4f4370f3a9490340854\
                 334b1e1b87fa395464c60626124a4e70d0f785601d37c09870ebf176666877a2046d\
                 01ba52c56fc8776d9e8f5db4f0cc27636d0b741bbe05400697942e80b739884a83\
                 bde99e0f6716939e632bc8986fa18dccd443a348b6c3e522497955a4f3c302f676",
        secret: "005fc70477c3e63bc3954bd0df3ea0d1f41ee21746ed95fc5e1fdf90930d5e1366\
                 72d72cc770742d1711c3c3a4c334a0ad9759436a4d3c5bf6e74b9578fac148c831",
    },
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn published_vectors_of_each_curve() {
    for Vector { algorithm, private, public, secret } in VECTORS {
        let (private, public, secret) = (unhex(private), unhex(public), unhex(secret));
        let key = PrivateKey::from_private_key(algorithm.curve().0, &private).unwrap();
        let agreed = classical(algorithm, &key, &public).unwrap();
        assert_eq!(*agreed, secret, "{algorithm:?}");
        // RFC 5656 section 4: as an mpint, without the zeros that a field element may begin with.
        let encoded = SharedSecret::mpint(&agreed);
        let significant = secret.iter().position(|byte| *byte != 0).unwrap();
        assert!(encoded.encoded().ends_with(&secret[significant..]));
        assert!(encoded.encoded()[4] <= 0x7f, "not negative");
    }
}

/// Points that aren't on the curve, at infinity, compressed, or of another curve (RFC 5656 section 3.1).
#[test]
fn invalid_points_are_refused() {
    for Vector { algorithm, private, public, .. } in &VECTORS[1..] {
        let key = PrivateKey::from_private_key(algorithm.curve().0, &unhex(private)).unwrap();
        let right = unhex(public);
        let coordinate = (right.len() - 1) / 2;
        let mut off = right.clone();
        *off.last_mut().unwrap() ^= 1;
        let compressed = [&[2 | (right[right.len() - 1] & 1)][..], &right[1..=coordinate]].concat();
        let hybrid = [&[6 | (right[right.len() - 1] & 1)][..], &right[1..]].concat();
        let large = [&[4][..], &vec![0xff; 2 * coordinate]].concat();
        let zero = [&[4][..], &vec![0; 2 * coordinate]].concat();
        let longer = [&right[..], &[0]].concat();
        for wrong in [off, compressed, hybrid, large, zero, longer, vec![0], vec![], right[1..].to_vec()] {
            let expected = Error::from(PeerMisbehaved::BadPublicValue { algorithm: algorithm.name() });
            assert_eq!(classical(*algorithm, &key, &wrong).err(), Some(expected), "{algorithm:?} {wrong:?}");
        }
        classical(*algorithm, &key, &right).unwrap();
    }
}

#[test]
fn both_sides_get_the_same_secret() {
    for algorithm in KexAlgorithm::ALL {
        let (ephemeral, init) = client_start(algorithm).unwrap();
        let (reply, server) = server_answer(algorithm, &init).unwrap();
        let client = ephemeral.finish(&reply).unwrap();
        assert_eq!(*client.encoded, *server.encoded, "{algorithm:?}");
        let lengths = match algorithm {
            KexAlgorithm::MlKem768X25519 => (1216, 1120),
            KexAlgorithm::Sntrup761X25519 | KexAlgorithm::Sntrup761X25519OpenSsh => (1190, 1071),
            other => (other.curve().1, other.curve().1),
        };
        assert_eq!((init.len(), reply.len()), lengths);
    }
}

/// RFC 8731 section 3: points of small order give an all-zero secret.
#[test]
fn points_of_small_order_are_refused() {
    let one = {
        let mut point = [0; 32];
        point[0] = 1;
        point
    };
    let order_eight: [u8; 32] = hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    for point in [[0; 32], one, order_eight] {
        for algorithm in KexAlgorithm::MODERN {
            let expected = Error::from(PeerMisbehaved::BadPublicValue { algorithm: algorithm.name() });
            let (ephemeral, honest) = client_start(algorithm).unwrap();
            let init = [&honest[..honest.len() - 32], &point[..]].concat();
            assert_eq!(server_answer(algorithm, &init).err(), Some(expected.clone()));
            let (honest, _) = server_answer(algorithm, &honest).unwrap();
            let reply = [&honest[..honest.len() - 32], &point[..]].concat();
            assert_eq!(ephemeral.finish(&reply).err(), Some(expected));
        }
    }
}

#[test]
fn public_values_of_another_length_or_out_of_range_are_refused() {
    for algorithm in KexAlgorithm::ALL {
        let (_, init) = client_start(algorithm).unwrap();
        for wrong in [&init[1..], &[&init[..], &[0]].concat()[..], &[]] {
            assert!(matches!(
                server_answer(algorithm, wrong).err(),
                Some(Error::PeerMisbehaved(PeerMisbehaved::BadPublicValue { .. }))
            ));
            let (ephemeral, _) = client_start(algorithm).unwrap();
            assert!(ephemeral.finish(wrong).is_err());
        }
    }
    // FIPS 203 section 7.2: coefficients of 0xfff are over the modulus.
    let (_, init) = client_start(KexAlgorithm::MlKem768X25519).unwrap();
    let unreduced = [&[0xff; 1152], &init[1152..]].concat();
    assert!(server_answer(KexAlgorithm::MlKem768X25519, &unreduced).is_err());
}

/// A flipped bit in the ciphertext gives another secret (both mechanisms refuse implicitly), so the signature fails.
#[test]
fn an_altered_ciphertext_gives_another_secret() {
    for algorithm in [KexAlgorithm::MlKem768X25519, KexAlgorithm::Sntrup761X25519] {
        let (ephemeral, init) = client_start(algorithm).unwrap();
        let (mut reply, server) = server_answer(algorithm, &init).unwrap();
        reply[5] ^= 1;
        assert_ne!(*ephemeral.finish(&reply).unwrap().encoded, *server.encoded);
    }
}

#[test]
fn the_hybrid_secret_is_a_string_and_the_classical_one_an_mpint() {
    let high = [0xf0; 32];
    assert_eq!(SharedSecret::mpint(&high).encoded[..6], [0, 0, 0, 33, 0, 0xf0]);
    let mut low = [0xf0; 32];
    low[..2].copy_from_slice(&[0, 0x11]);
    assert_eq!(SharedSecret::mpint(&low).encoded[..5], [0, 0, 0, 31, 0x11]);
    // Whatever its first byte is, the hybrid's is as long as the hash.
    for first in 0..=255 {
        let both = [[first; 32], [1; 32]].concat();
        let hybrid = SharedSecret::hybrid(HashAlgorithm::Sha256, &[first; 32], &[1; 32]);
        assert_eq!(hybrid.encoded[..4], [0, 0, 0, 32]);
        assert_eq!(hybrid.encoded[4..], Sha256::digest(&both)[..]);
        let hybrid = SharedSecret::hybrid(HashAlgorithm::Sha512, &[first; 32], &[1; 32]);
        assert_eq!(hybrid.encoded[..4], [0, 0, 0, 64]);
        assert_eq!(hybrid.encoded[4..], Sha512::digest(&both)[..]);
    }
}
