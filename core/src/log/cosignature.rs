//! Cosignatures (C2SP tlog-cosignature): a witness's word that a checkpoint is consistent with all that it has
//! cosigned of that log before, and when it said so.
//!
//! Ed25519 (type 0x04) is made and verified here. A key of another type is read and named, and its lines are carried;
//! ML-DSA-44 (0x06) has its place, and no verifier yet.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{Note, NoteError, SignatureLine, Signer, check_name, key_id};
use crate::event::Timestamp;

const TYPE_ED25519: u8 = 0x04;
const TYPE_ML_DSA_44: u8 = 0x06;
/// A cosignature's time, big-endian, stands before the signature.
const TIME_BYTES: usize = 8;

/// How a cosigner signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CosignatureType {
    /// Ed25519 over `cosignature/v1`, a time and the checkpoint.
    Ed25519,
    /// ML-DSA-44: known, and not verified by this version.
    MlDsa44,
    /// Something newer.
    Other(u8),
}

impl CosignatureType {
    const fn of(byte: u8) -> CosignatureType {
        match byte {
            TYPE_ED25519 => CosignatureType::Ed25519,
            TYPE_ML_DSA_44 => CosignatureType::MlDsa44,
            other => CosignatureType::Other(other),
        }
    }

    const fn byte(self) -> u8 {
        match self {
            CosignatureType::Ed25519 => TYPE_ED25519,
            CosignatureType::MlDsa44 => TYPE_ML_DSA_44,
            CosignatureType::Other(other) => other,
        }
    }
}

/// The public half of a witness's key, with its name: what a log's operator and its auditors pin.
#[derive(Clone, PartialEq, Eq)]
pub struct CosignerKey {
    name: String,
    kind: CosignatureType,
    public: Vec<u8>,
}

/// Proof that a witness cosigned a checkpoint: made only where the signature was verified, or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    line: SignatureLine,
    at: Timestamp,
}

impl Cosigned {
    /// The line below the checkpoint.
    #[must_use]
    pub fn line(&self) -> &SignatureLine {
        &self.line
    }

    /// When the witness signed, by its own clock, in whole seconds.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

impl CosignerKey {
    /// The Ed25519 key `public`, known as `name`.
    ///
    /// # Errors
    /// [`NoteError::Key`] if the name can't be one.
    pub fn ed25519(name: &str, public: [u8; 32]) -> Result<CosignerKey, NoteError> {
        check_name(name)?;
        Ok(CosignerKey { name: name.to_owned(), kind: CosignatureType::Ed25519, public: public.to_vec() })
    }

    /// Reads `name+hash+base64`, the form that a key is displayed in. Keys of other types than Ed25519 are read too, so
    /// that they can be named; they verify nothing.
    ///
    /// # Errors
    /// [`NoteError::Key`] says which part is wrong.
    pub fn parse(text: &str) -> Result<CosignerKey, NoteError> {
        let mut parts = text.trim_end_matches('\n').splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("it needs three parts"));
        };
        check_name(name)?;
        let key = STANDARD.decode(key).map_err(|_| NoteError::Key("the key isn't base64"))?;
        let (kind, public) = key.split_first().ok_or(NoteError::Key("the key is empty"))?;
        if *kind == 0x01 {
            return Err(NoteError::Key(
                "it is a key that signs notes (0x01), and a witness's is one that cosigns (0x04)",
            ));
        }
        let kind = CosignatureType::of(*kind);
        if kind == CosignatureType::Ed25519 && public.len() != 32 {
            return Err(NoteError::Key("an Ed25519 key has 32 bytes"));
        }
        let key = CosignerKey { name: name.to_owned(), kind, public: public.to_vec() };
        if format!("{:08x}", key.id()) != id {
            return Err(NoteError::Key("its hash doesn't fit its name and key"));
        }
        Ok(key)
    }

    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it signs.
    #[must_use]
    pub fn kind(&self) -> CosignatureType {
        self.kind
    }

    /// The first four bytes of `SHA-256(name || 0x0A || type || key)`, which open a signature.
    #[must_use]
    pub fn id(&self) -> u32 {
        key_id(&self.name, self.kind.byte(), &self.public)
    }

    /// Whether this witness cosigned the checkpoint in `note`. All lines by the key must be right; the newest counts.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`] or [`NoteError::BadSignature`]; [`NoteError::Key`] for a key that can't be verified here.
    pub fn verify(&self, note: &Note) -> Result<Cosigned, NoteError> {
        if self.kind != CosignatureType::Ed25519 {
            return Err(NoteError::Key("this version verifies Ed25519 cosignatures (0x04) only"));
        }
        let id = self.id();
        let mut newest: Option<Cosigned> = None;
        for line in note.lines().iter().filter(|line| line.name == self.name && line.id == id) {
            let bad = || NoteError::BadSignature(self.name.clone());
            let (time, signature) = line.signature.split_first_chunk::<TIME_BYTES>().ok_or_else(bad)?;
            let seconds = u64::from_be_bytes(*time);
            UnparsedPublicKey::new(&ED25519, &self.public)
                .verify(message(seconds, note.text()).as_bytes(), signature)
                .map_err(|_| bad())?;
            let at = Timestamp::from_seconds(seconds);
            if newest.as_ref().is_none_or(|newest| newest.at < at) {
                newest = Some(Cosigned { line: line.clone(), at });
            }
        }
        newest.ok_or_else(|| NoteError::NotSigned(self.to_string()))
    }
}

impl fmt::Display for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind.byte()];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{:08x}+{}", self.name, self.id(), STANDARD.encode(key))
    }
}

impl fmt::Debug for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A witness's key, ready to cosign.
#[derive(Clone)]
pub struct Cosigner {
    signer: Arc<dyn Signer>,
    key: CosignerKey,
}

impl Cosigner {
    /// Cosigns with the key of `signer`, under its name. The same key must not sign notes: a cosignature's first line
    /// keeps the two apart, and one key for one purpose keeps it simple.
    #[must_use]
    pub fn new(signer: Arc<dyn Signer>) -> Cosigner {
        let key = signer.verifier_key();
        let (name, public) = (key.name().to_owned(), key.public().to_vec());
        Cosigner { signer, key: CosignerKey { name, kind: CosignatureType::Ed25519, public } }
    }

    /// What others verify with.
    #[must_use]
    pub fn key(&self) -> &CosignerKey {
        &self.key
    }

    /// Cosigns the checkpoint in `note` at `at`, of which only whole seconds are told. Whoever calls this has checked
    /// that the checkpoint is consistent with all that this key has cosigned, and has made it durable.
    ///
    /// # Errors
    /// [`NoteError::Signing`] from the signer.
    pub fn cosign(&self, note: &Note, at: Timestamp) -> Result<Cosigned, NoteError> {
        let seconds = at.seconds();
        let mut signature = seconds.to_be_bytes().to_vec();
        signature.extend_from_slice(&self.signer.sign(message(seconds, note.text()).as_bytes())?);
        let line = SignatureLine { name: self.key.name.clone(), id: self.key.id(), signature };
        Ok(Cosigned { line, at: Timestamp::from_seconds(seconds) })
    }
}

fn message(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

#[cfg(test)]
#[path = "cosignature_tests.rs"]
mod tests;
