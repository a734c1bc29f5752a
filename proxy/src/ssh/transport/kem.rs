//! The halves of hybrid exchanges that a quantum computer doesn't break: ML-KEM-768 (FIPS 203) and Streamlined NTRU
//! Prime 761 (draft-josefsson-ntruprime-streamlined). Key encapsulation: the client makes a key pair, the server a
//! secret and a ciphertext of it under the client's public key. Pure but for randomness.

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use zeroize::Zeroizing;

/// The secret that both sides get, of either mechanism, bytes.
pub(super) const SECRET_LEN: usize = 32;
/// ML-KEM-768's encapsulation key and ciphertext (FIPS 203 table 3), bytes.
const ML_KEM_LENS: (usize, usize) = (1184, 1088);

/// A mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kem {
    MlKem768,
    Sntrup761,
}

/// The client's secret key.
pub(super) enum PrivateKey {
    MlKem768(Box<DecapsulationKey>),
    Sntrup761(Box<sntrup761::DecapsulationKey>),
}

impl Kem {
    /// Length of a public key, bytes.
    pub(super) fn public_len(self) -> usize {
        match self {
            Self::MlKem768 => ML_KEM_LENS.0,
            Self::Sntrup761 => sntrup761::PUBLIC_KEY_SIZE,
        }
    }

    /// Length of a ciphertext, bytes.
    pub(super) fn ciphertext_len(self) -> usize {
        match self {
            Self::MlKem768 => ML_KEM_LENS.1,
            Self::Sntrup761 => sntrup761::CIPHERTEXT_SIZE,
        }
    }

    /// A new key pair; `None` if the library can't make one.
    pub(super) fn generate(self) -> Option<(PrivateKey, Vec<u8>)> {
        match self {
            Self::MlKem768 => {
                let key = DecapsulationKey::generate(&ML_KEM_768).ok()?;
                let public = key.encapsulation_key().and_then(|public| public.key_bytes()).ok()?;
                let public = public.as_ref().to_vec();
                Some((PrivateKey::MlKem768(Box::new(key)), public))
            }
            Self::Sntrup761 => {
                let (public, key) = sntrup761::generate_key_from_seed(*seed()?);
                Some((PrivateKey::Sntrup761(Box::new(key)), public.as_ref().to_vec()))
            }
        }
    }

    /// A ciphertext for the holder of `public`, and the secret in it; `None` if `public` is none. NTRU Prime takes
    /// every key of the right length.
    pub(super) fn encapsulate(self, public: &[u8]) -> Option<(Vec<u8>, Zeroizing<[u8; SECRET_LEN]>)> {
        match self {
            Self::MlKem768 => {
                let key = EncapsulationKey::new(&ML_KEM_768, public).ok()?;
                // Fails for a key whose coefficients aren't reduced (FIPS 203 section 7.2).
                let (ciphertext, secret) = key.encapsulate().ok()?;
                Some((ciphertext.as_ref().to_vec(), fixed(secret.as_ref())?))
            }
            Self::Sntrup761 => {
                let key = sntrup761::EncapsulationKey::try_from(public).ok()?;
                let (ciphertext, secret) = key.encapsulate_deterministic(*seed()?);
                Some((ciphertext.as_ref().to_vec(), fixed(secret.as_ref())?))
            }
        }
    }
}

impl PrivateKey {
    /// The secret in a ciphertext; `None` if its length is wrong. An altered one gives another secret (both mechanisms
    /// refuse implicitly), so that the host's signature doesn't fit.
    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Option<Zeroizing<[u8; SECRET_LEN]>> {
        match self {
            Self::MlKem768(key) => fixed(key.decapsulate(Ciphertext::from(ciphertext)).ok()?.as_ref()),
            Self::Sntrup761(key) => fixed(key.decapsulate(&ciphertext.try_into().ok()?).as_ref()),
        }
    }
}

fn fixed(secret: &[u8]) -> Option<Zeroizing<[u8; SECRET_LEN]>> {
    secret.try_into().ok().map(Zeroizing::new)
}

/// All randomness is aws-lc's: the crate expands a seed by ChaCha20.
fn seed() -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice()).ok()?;
    Some(seed)
}

#[cfg(test)]
#[path = "kem_tests.rs"]
mod tests;
