use super::*;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::Algorithm;
use russh::keys::ssh_key::certificate::{Builder, CertType};

pub(crate) fn ed25519() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

pub(crate) fn ecdsa(curve: EcdsaCurve) -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ecdsa { curve }).unwrap()
}

pub(crate) fn rsa(bits: usize) -> PrivateKey {
    PrivateKey::new(KeypairData::Rsa(RsaKeypair::random(&mut safe_rng(), bits).unwrap()), "").unwrap()
}

pub(crate) fn certify(key: &PrivateKey, kind: CertType) -> Certificate {
    let mut builder =
        Builder::new_with_random_nonce(&mut safe_rng(), key.public_key().key_data().clone(), 0, u64::MAX - 1)
            .unwrap();
    builder.cert_type(kind).unwrap();
    builder.key_id("host").unwrap();
    builder.valid_principal("web-1").unwrap();
    builder.sign(&ed25519()).unwrap()
}

#[test]
fn each_algorithm_signs_and_verifies_and_nothing_else_does() {
    for (key, count) in [
        (ed25519(), 2),
        (ecdsa(EcdsaCurve::NistP256), 2),
        (ecdsa(EcdsaCurve::NistP384), 2),
        (ecdsa(EcdsaCurve::NistP521), 2),
        (rsa(2048), 4),
    ] {
        let certificate = certify(&key, CertType::Host);
        let host = HostKey::new(&key, Some(&certificate)).unwrap();
        assert_eq!(host.algorithms().len(), count);
        for algorithm in HostKeyAlgorithm::all() {
            let Some(blob) = host.blob(algorithm) else {
                assert!(!host.algorithms().contains(&algorithm));
                continue;
            };
            // ECDSA's numbers differ in length from time to time.
            for round in 0..40u8 {
                let message = [round; 32];
                let signature = host.sign(algorithm.scheme, &message).unwrap();
                let offered = HostKeyOffered::decode(algorithm, blob).unwrap();
                offered.verify(&message, &signature).unwrap();
                assert!(offered.verify(&[round ^ 1; 32], &signature).is_err(), "another message");
                let mut altered = signature.clone();
                *altered.last_mut().unwrap() ^= 1;
                assert!(offered.verify(&message, &altered).is_err(), "another signature");
                altered = signature.clone();
                altered.push(0);
                assert!(offered.verify(&message, &altered).is_err(), "more bytes");
                assert!(offered.verify(&message, &signature[..signature.len() - 1]).is_err(), "fewer bytes");
            }
            assert_eq!(offered_is_certificate(algorithm, blob), algorithm.certificate);
            for other in HostKeyAlgorithm::all().into_iter().filter(|other| host.blob(*other) != Some(blob)) {
                assert!(
                    HostKeyOffered::decode(other, blob).is_err(),
                    "{} as {}",
                    algorithm.name(),
                    other.name()
                );
            }
        }
    }
}

fn offered_is_certificate(algorithm: HostKeyAlgorithm, blob: &[u8]) -> bool {
    HostKeyOffered::decode(algorithm, blob).unwrap().key.certificate().is_some()
}

/// RFC 8332 section 3: who agreed on SHA-512 may not be answered with less.
#[test]
fn a_signature_under_another_rsa_name_is_refused() {
    let host = HostKey::new(&rsa(2048), None).unwrap();
    let algorithm = HostKeyAlgorithm { scheme: Scheme::RsaSha512, certificate: false };
    let offered = HostKeyOffered::decode(algorithm, host.blob(algorithm).unwrap()).unwrap();
    let weaker = host.sign(Scheme::RsaSha256, b"message").unwrap();
    assert!(offered.verify(b"message", &weaker).is_err());
    assert!(host.sign(Scheme::Ed25519, b"message").is_err());
}

#[test]
fn short_rsa_keys_are_refused_on_both_sides() {
    let short = rsa(1024);
    assert!(HostKey::new(&short, None).is_err());
    let algorithm = HostKeyAlgorithm { scheme: Scheme::RsaSha256, certificate: false };
    let blob = short.public_key().to_bytes().unwrap();
    assert_eq!(
        HostKeyOffered::decode(algorithm, &blob).err(),
        Some(PeerIncompatible::RsaSize { bits: 1024 }.into())
    );
}

#[test]
fn a_host_key_takes_only_its_own_host_certificate() {
    let key = ed25519();
    assert!(HostKey::new(&key, Some(&certify(&key, CertType::User))).is_err());
    assert!(HostKey::new(&key, Some(&certify(&ed25519(), CertType::Host))).is_err());
    assert!(HostKey::new(&key, Some(&certify(&key, CertType::Host))).is_ok());
}

#[test]
fn the_pinned_kind_comes_first() {
    let first = |pinned| HostKeyAlgorithm::pinned_first(&pinned)[0].name();
    assert_eq!(first(Algorithm::Ed25519), "ssh-ed25519");
    for curve in [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521] {
        assert_eq!(first(Algorithm::Ecdsa { curve }), format!("ecdsa-sha2-{curve}"));
    }
    assert_eq!(first(Algorithm::Rsa { hash: None }), "rsa-sha2-512");
    let order = HostKeyAlgorithm::pinned_first(&Algorithm::Ed25519);
    assert_eq!(order.len(), HostKeyAlgorithm::all().len());
    assert_eq!(HostKeyAlgorithm::all()[0].name(), "ssh-ed25519-cert-v01@openssh.com");
}

/// Decoders that recurse over it would run out of stack.
#[test]
fn a_certificate_signed_by_a_certificate_is_refused() {
    let certificate = certify(&ed25519(), CertType::Host).to_bytes().unwrap();
    assert!(matches!(decode_public(&certificate), Ok(PublicKeyOrCertificate::Certificate(_))));
    let signer = signature_key(&certificate).unwrap();
    let at = certificate.windows(signer.len()).position(|window| window == signer).unwrap();
    let wrap = |inner: &[u8]| {
        let mut outer = certificate[..at - 4].to_vec();
        outer.put_string(inner);
        outer.extend_from_slice(&certificate[at + signer.len()..]);
        outer
    };
    let mut nested = wrap(&certificate);
    for _ in 0..200 {
        nested = wrap(&nested);
    }
    assert!(matches!(decode_public(&nested), Err(BadKey::NestedCertificate)));
}

#[test]
fn exponents_modulo_a_prime_less_one() {
    for (number, prime, rest) in [(100u32, 7u32, 4u32), (6, 7, 0), (5, 7, 5), (0xffff_ffff, 65_537, 65_535)] {
        let computed = modulo_less_one(&number.to_be_bytes(), &prime.to_be_bytes());
        assert_eq!(computed[..], [&[0][..], &rest.to_be_bytes()].concat()[..]);
    }
}

proptest::proptest! {
    #[test]
    fn altered_keys_and_certificates_never_panic(at in 0..600usize, byte: u8, cut in 1..700usize) {
        let mut blob = certify(&ed25519(), CertType::Host).to_bytes().unwrap();
        let index = at % blob.len();
        blob[index] = byte;
        blob.truncate(cut);
        for algorithm in HostKeyAlgorithm::all() {
            drop(HostKeyOffered::decode(algorithm, &blob));
        }
    }
}
