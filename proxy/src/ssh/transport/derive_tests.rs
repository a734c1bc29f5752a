use super::super::cipher::Cipher;
use super::super::mac::Mac;
use super::*;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// RFC 4253 section 7.2 written out with another library, for keys as long as anybody needs.
fn written_out<D: Digest>(
    secret: &SharedSecret,
    hash: &[u8],
    session: &[u8],
    letter: u8,
    blocks: usize,
) -> Vec<u8> {
    let mut out = D::digest([secret.encoded(), hash, &[letter], session].concat()).to_vec();
    for _ in 1..blocks {
        let next = D::digest([secret.encoded(), hash, &out].concat());
        out.extend_from_slice(&next);
    }
    out
}

fn check<D: Digest>(algorithm: HashAlgorithm) {
    let secret = SharedSecret::mpint(&[0x92; 32]);
    let (hash, session) = (ExchangeHash::for_test(algorithm, 3), ExchangeHash::for_test(algorithm, 4));
    let expected = |letter| written_out::<D>(&secret, hash.as_bytes(), session.as_bytes(), letter, 3);
    assert_eq!(hash.as_bytes().len(), <D as sha2::Digest>::output_size());
    let macs = [None, Some(Mac::HmacSha256Etm), Some(Mac::HmacSha512Etm)];
    for (cipher, mac) in Cipher::ALL.into_iter().flat_map(|cipher| macs.map(|mac| (cipher, mac))) {
        for (direction, letters) in [(Direction::ToServer, b"ACE"), (Direction::ToClient, b"BDF")] {
            let material = derive(&secret, &hash, &session, Protection { cipher, mac }, direction);
            let mac_len = mac.map_or(0, |mac| mac.len());
            let fields: [(&[u8], usize); 3] = [
                (&material.iv, cipher.iv_len()),
                (&material.key, cipher.key_len()),
                (&material.mac, mac_len),
            ];
            for ((field, len), letter) in fields.into_iter().zip(letters) {
                assert_eq!(field[..len], expected(*letter)[..len], "{algorithm:?} {cipher:?} {mac:?}");
                assert!(field[len..].iter().all(|byte| *byte == 0), "no more than is needed");
            }
        }
    }
    // Three blocks, the last of them in part.
    let mut out = vec![0; 2 * <D as sha2::Digest>::output_size() + 5];
    expand(&secret, &hash, &session, b'Z', &mut out);
    assert_eq!(out[..], expected(b'Z')[..out.len()]);
}

#[test]
fn keys_longer_than_the_hash_are_chained() {
    check::<Sha256>(HashAlgorithm::Sha256);
    check::<Sha384>(HashAlgorithm::Sha384);
    check::<Sha512>(HashAlgorithm::Sha512);
}

/// After a first exchange with one hash a later one may have another: the session id keeps its length.
#[test]
fn the_session_id_may_be_longer_than_the_hash() {
    let secret = SharedSecret::mpint(&[0x11; 32]);
    let hash = ExchangeHash::for_test(HashAlgorithm::Sha256, 3);
    let session = ExchangeHash::for_test(HashAlgorithm::Sha512, 4);
    let mut out = [0; 32];
    expand(&secret, &hash, &session, b'A', &mut out);
    assert_eq!(out[..], written_out::<Sha256>(&secret, &[3; 32], &[4; 64], b'A', 1)[..]);
}

#[test]
fn the_exchange_hash_is_over_eight_fields() {
    let secret = SharedSecret::mpint(&[0x80, 1]);
    let transcript = Transcript {
        client_version: b"SSH-2.0-c",
        server_version: b"SSH-2.0-s",
        client_kexinit: b"\x14c",
        server_kexinit: b"\x14s",
        host_key: b"host",
        client_public: b"qc",
        server_public: b"qs",
    };
    let hashed = b"\0\0\0\x09SSH-2.0-c\0\0\0\x09SSH-2.0-s\0\0\0\x02\x14c\0\0\0\x02\x14s\0\0\0\x04host\
                   \0\0\0\x02qc\0\0\0\x02qs\0\0\0\x03\0\x80\x01";
    assert_eq!(transcript.hash(HashAlgorithm::Sha256, &secret).as_bytes(), &Sha256::digest(hashed)[..]);
    assert_eq!(transcript.hash(HashAlgorithm::Sha384, &secret).as_bytes(), &Sha384::digest(hashed)[..]);
    assert_eq!(transcript.hash(HashAlgorithm::Sha512, &secret).as_bytes(), &Sha512::digest(hashed)[..]);
}
