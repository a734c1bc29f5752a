use super::*;
use sha2::{Digest as _, Sha256};

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
    assert_eq!(*x25519_agree(KexAlgorithm::Curve25519, &ours, &point).unwrap(), product);
}

#[test]
fn both_sides_get_the_same_secret() {
    for algorithm in KexAlgorithm::ALL {
        let (ephemeral, init) = client_start(algorithm).unwrap();
        let (reply, server) = server_answer(algorithm, &init).unwrap();
        let client = ephemeral.finish(&reply).unwrap();
        assert_eq!(*client.encoded, *server.encoded, "{algorithm:?}");
        let lengths = if algorithm == KexAlgorithm::MlKem768X25519 { (1216, 1120) } else { (32, 32) };
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
        for algorithm in KexAlgorithm::ALL {
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

/// A flipped bit in the ciphertext gives another secret (ML-KEM refuses implicitly), so the signature fails.
#[test]
fn an_altered_ciphertext_gives_another_secret() {
    let algorithm = KexAlgorithm::MlKem768X25519;
    let (ephemeral, init) = client_start(algorithm).unwrap();
    let (mut reply, server) = server_answer(algorithm, &init).unwrap();
    reply[5] ^= 1;
    assert_ne!(*ephemeral.finish(&reply).unwrap().encoded, *server.encoded);
}

#[test]
fn the_hybrid_secret_is_a_string_and_the_classical_one_an_mpint() {
    let high = [0xf0; 32];
    assert_eq!(SharedSecret::mpint(&high).encoded[..6], [0, 0, 0, 33, 0, 0xf0]);
    let mut low = [0xf0; 32];
    low[..2].copy_from_slice(&[0, 0x11]);
    assert_eq!(SharedSecret::mpint(&low).encoded[..5], [0, 0, 0, 31, 0x11]);
    // Whatever its first byte is, the hybrid's is 32 bytes long.
    for first in 0..=255 {
        let hybrid = SharedSecret::hybrid(&[first; 32], &[1; 32]);
        let digest = Sha256::digest([[first; 32], [1; 32]].concat());
        assert_eq!(hybrid.encoded[..4], [0, 0, 0, 32]);
        assert_eq!(hybrid.encoded[4..], digest[..]);
    }
}

/// RFC 4253 section 7.2 written out with another library, for a key longer than the hash.
#[test]
fn keys_longer_than_the_hash_are_chained() {
    let secret = SharedSecret::mpint(&[0x92; 32]);
    let (hash, session) = ([3; 32], [4; 32]);
    let first =
        |letter: u8| Sha256::digest([&secret.encoded[..], &hash[..], &[letter][..], &session[..]].concat());
    let material = derive(&secret, &hash, &session, Cipher::ChaCha20Poly1305, Direction::ToClient);
    let second = Sha256::digest([&secret.encoded[..], &hash[..], &first(b'D')[..]].concat());
    assert_eq!(material.key[..32], first(b'D')[..]);
    assert_eq!(material.key[32..], second[..]);
    assert_eq!(material.iv[..], first(b'B')[..12]);
    let material = derive(&secret, &hash, &session, Cipher::Aes128Gcm, Direction::ToServer);
    assert_eq!(material.key[..16], first(b'C')[..16]);
    assert_eq!(material.key[16..], [0; 48]);
    assert_eq!(material.iv[..], first(b'A')[..12]);
    // Three blocks.
    let mut out = [0; 96];
    expand(&secret, &hash, &session, b'E', &mut out);
    let k1 = first(b'E');
    let k2 = Sha256::digest([&secret.encoded[..], &hash[..], &k1[..]].concat());
    let k3 = Sha256::digest([&secret.encoded[..], &hash[..], &k1[..], &k2[..]].concat());
    assert_eq!(out[..], [k1, k2, k3].concat()[..]);
}
