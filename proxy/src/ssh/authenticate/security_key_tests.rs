//! Security keys (FIDO): what their signatures must be bound to.

use super::*;

/// A security key made of software: it signs as PROTOCOL.u2f says, with whatever flags it is told.
enum SecurityKey {
    Ed25519(aws_lc_rs::signature::Ed25519KeyPair),
    EcdsaP256(aws_lc_rs::signature::EcdsaKeyPair),
}

const APPLICATION: &[u8] = b"ssh:";
const TOUCHED: u8 = 1;
const VERIFIED: u8 = 4;

impl SecurityKey {
    fn both() -> [Self; 2] {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
        [
            Self::Ed25519(Ed25519KeyPair::generate().unwrap()),
            Self::EcdsaP256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
        ]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Self::EcdsaP256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn public(&self) -> PublicKey {
        use aws_lc_rs::signature::KeyPair;
        let mut blob = Vec::new();
        put_string(&mut blob, self.name().as_bytes());
        match self {
            Self::Ed25519(pair) => put_string(&mut blob, pair.public_key().as_ref()),
            Self::EcdsaP256(pair) => {
                put_string(&mut blob, b"nistp256");
                put_string(&mut blob, pair.public_key().as_ref());
            }
        }
        put_string(&mut blob, APPLICATION);
        PublicKey::from_bytes(&blob).unwrap()
    }

    /// The signature blob over `message`: SHA-256(application) ‖ flags ‖ counter ‖ SHA-256(message) is signed.
    fn sign(&self, application: &[u8], flags: u8, message: &[u8]) -> Vec<u8> {
        use crate::ssh::transport::wire::Put as _;
        let sha256 = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let rest = [flags, 0, 0, 0, 9];
        let data = [sha256(application).as_ref(), &rest, sha256(message).as_ref()].concat();
        let mut signature = Vec::new();
        put_string(&mut signature, self.name().as_bytes());
        match self {
            Self::Ed25519(pair) => put_string(&mut signature, pair.sign(&data).as_ref()),
            Self::EcdsaP256(pair) => {
                let fixed = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), &data).unwrap();
                let mut numbers = Vec::new();
                numbers.put_mpint(&fixed.as_ref()[..32]);
                numbers.put_mpint(&fixed.as_ref()[32..]);
                put_string(&mut signature, &numbers);
            }
        }
        signature.extend(rest);
        signature
    }
}

/// What becomes of a login with a certificate for a security key.
fn security_key_login(
    key: &SecurityKey,
    extensions: &[&str],
    critical: &[&str],
    sign: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<(), Denied> {
    use russh::keys::ssh_key::certificate::{Builder, CertType};
    let authority = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let public = key.public().key_data().clone();
    let mut builder =
        Builder::new_with_random_nonce(&mut russh::keys::key::safe_rng(), public, NOW - 60, NOW + 60)
            .unwrap();
    builder.cert_type(CertType::User).unwrap();
    builder.key_id("security key").unwrap();
    builder.valid_principal("ana").unwrap();
    for name in extensions {
        builder.extension(*name, "").unwrap();
    }
    for name in critical {
        builder.critical_option(*name, "").unwrap();
    }
    let certificate = builder.sign(&authority).unwrap();
    let authorities = Arc::new(TrustedAuthorities::new([authority.public_key()]));
    let name = format!("{}-cert-v01@openssh.com", key.name().trim_end_matches("@openssh.com"));
    let unused = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let request = signed_by(&unused, name.as_bytes(), &certificate, None, |_, signed| sign(signed));
    match serving(Connection { authorities, ..connection() }).handle(&request, NOW).unwrap() {
        Step::Proved(_) => Ok(()),
        step => Err(denied(step).0),
    }
}

#[test]
fn security_keys_must_have_been_touched_and_have_asked_who_is_there() {
    for key in SecurityKey::both() {
        let login = |extensions: &[&str], critical: &[&str], flags| {
            security_key_login(&key, extensions, critical, |signed| key.sign(APPLICATION, flags, signed))
        };
        let refused = |fault: SignatureFault| Err(Denied::Signature(fault));
        assert_eq!(login(&[], &[], TOUCHED), Ok(()), "{}", key.name());
        assert_eq!(login(&[], &[], TOUCHED | VERIFIED), Ok(()));
        assert_eq!(login(&[], &[], 0), refused(SignatureFault::NotTouched));
        assert_eq!(login(&[], &[], VERIFIED), refused(SignatureFault::NotTouched));
        assert_eq!(login(&["no-touch-required"], &[], 0), Ok(()));
        assert_eq!(login(&[], &["verify-required"], TOUCHED), refused(SignatureFault::NotVerified));
        assert_eq!(login(&[], &["verify-required"], TOUCHED | VERIFIED), Ok(()));
        let both = (&["no-touch-required"], &["verify-required"]);
        assert_eq!(login(both.0, both.1, 0), refused(SignatureFault::NotVerified));
    }
}

#[test]
fn a_security_keys_signature_is_bound_to_flags_counter_application_and_message() {
    for key in SecurityKey::both() {
        let login = |alter: &dyn Fn(&[u8]) -> Vec<u8>| security_key_login(&key, &[], &[], alter);
        let wrong = Err(Denied::Signature(SignatureFault::Wrong));
        // The flag set afterwards, by somebody who hasn't the key; the counter; what it was made for.
        let flagged = |signed: &[u8]| {
            let mut signature = key.sign(APPLICATION, 0, signed);
            let flags = signature.len() - 5;
            signature[flags] = TOUCHED;
            signature
        };
        assert_eq!(login(&flagged), wrong, "{}", key.name());
        let counted = |signed: &[u8]| {
            let mut signature = key.sign(APPLICATION, TOUCHED, signed);
            *signature.last_mut().unwrap() ^= 1;
            signature
        };
        assert_eq!(login(&counted), wrong);
        assert_eq!(login(&|signed| key.sign(b"https://example.com", TOUCHED, signed)), wrong);
        assert_eq!(login(&|_| key.sign(APPLICATION, TOUCHED, b"another message")), wrong);
        let longer = |signed: &[u8]| [key.sign(APPLICATION, TOUCHED, signed), vec![0]].concat();
        assert!(matches!(
            login(&longer),
            Err(Denied::Signature(SignatureFault::Malformed | SignatureFault::Wrong))
        ));
        // Without flags and counter, as an ordinary key of the curve would sign.
        let shorter = |signed: &[u8]| {
            let signature = key.sign(APPLICATION, TOUCHED, signed);
            signature[..signature.len() - 5].to_vec()
        };
        assert_eq!(login(&shorter), Err(Denied::Signature(SignatureFault::Malformed)));
    }
}
