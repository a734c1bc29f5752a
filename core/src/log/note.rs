//! Signed notes (C2SP signed-note): a text, a blank line, and one line for each signature.
//!
//! Keys here are Ed25519 (algorithm 0x01). Lines of other algorithms (a witness's cosignature, a later
//! ML-DSA-44 line) are carried as they are.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const ALGORITHM_ED25519: u8 = 0x01;
/// A note is small: a checkpoint with sixteen post-quantum signatures takes some 60 kB.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;
/// Verifiers must take sixteen; this many can't be a mistake any more.
const SIGNATURES_MAX: usize = 64;

/// What is wrong with a note or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text isn't a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The verifier key can't be read.
    #[error("not a verifier key (name+hash+base64): {0}")]
    Key(&'static str),
    /// No line is by the key that is trusted here.
    #[error("the note isn't signed by {0}")]
    NotSigned(String),
    /// There is a line by that key and it is wrong: tampered with, or forged.
    #[error("the signature of {0} is wrong: the note was changed or forged")]
    BadSignature(String),
    /// The private key refused or couldn't be used.
    #[error("signing as {0} failed: {1}")]
    Signing(String, String),
}

/// The public half of a key, with its name: what auditors pin.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// The Ed25519 key `public`, known as `name`.
    ///
    /// # Errors
    /// [`NoteError::Key`] if the name is empty or has a space, a plus sign or a control character.
    pub fn new(name: &str, public: [u8; 32]) -> Result<VerifierKey, NoteError> {
        check_name(name)?;
        Ok(VerifierKey { name: name.to_owned(), public })
    }

    /// Reads `name+hash+base64`, the form that [`VerifierKey`] is displayed in.
    ///
    /// # Errors
    /// [`NoteError::Key`] says which part is wrong.
    pub fn parse(text: &str) -> Result<VerifierKey, NoteError> {
        // The base64 alphabet has a plus sign too: only the first two part the fields.
        let mut parts = text.trim_end_matches('\n').splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("it needs three parts"));
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::Key("the key isn't base64"))?;
        let Some((&ALGORITHM_ED25519, public)) = key.split_first() else {
            return Err(NoteError::Key("its algorithm isn't Ed25519 (0x01)"));
        };
        let public = public.try_into().map_err(|_| NoteError::Key("an Ed25519 key has 32 bytes"))?;
        let key = VerifierKey::new(name, public)?;
        if format!("{:08x}", key.id()) != id {
            return Err(NoteError::Key("its hash doesn't fit its name and key"));
        }
        Ok(key)
    }

    /// The key's name; for a log it is the origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw Ed25519 public key.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The first four bytes of `SHA-256(name || 0x0A || 0x01 || key)`, which open a signature.
    #[must_use]
    pub fn id(&self) -> u32 {
        key_id(&self.name, ALGORITHM_ED25519, &self.public)
    }
}

/// The id of a key of any algorithm: the first four bytes of `SHA-256(name || 0x0A || algorithm || key)`.
pub(super) fn key_id(name: &str, algorithm: u8, public: &[u8]) -> u32 {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(name.as_bytes())
        .chain_update([b'\n', algorithm])
        .chain_update(public)
        .finalize()
        .into();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Whether a key can have this name.
pub(super) fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+') {
        return Err(NoteError::Key("the name is empty or has a space, a plus sign or a control character"));
    }
    Ok(())
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ALGORITHM_ED25519];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{:08x}+{}", self.name, self.id(), STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Something that signs notes: a key in memory, in a key store, in an HSM.
pub trait Signer: Send + Sync + 'static {
    /// The public half, with the key's name.
    fn verifier_key(&self) -> VerifierKey;
    /// The 64 bytes of the Ed25519 signature over `message`.
    ///
    /// # Errors
    /// [`NoteError::Signing`] if the key can't be used now.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], NoteError>;

    /// The lines below a note with this text, never none: more than one while a key is being rotated. The one of
    /// [`Signer::verifier_key`] is among them.
    ///
    /// # Errors
    /// [`NoteError::Signing`] if a key can't be used now.
    fn lines(&self, text: &str) -> Result<Vec<SignatureLine>, NoteError> {
        let key = self.verifier_key();
        let signature = self.sign(text.as_bytes())?.to_vec();
        Ok(vec![SignatureLine { id: key.id(), name: key.name, signature }])
    }
}

/// An Ed25519 key in memory. Neither displayed nor serialised.
pub struct Ed25519Signer {
    name: String,
    pair: Ed25519KeyPair,
}

impl Ed25519Signer {
    /// The key with this 32-byte seed (RFC 8032), known as `name`.
    ///
    /// # Errors
    /// [`NoteError::Key`] if the seed or the name can't be one.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Ed25519Signer, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| NoteError::Key("the seed isn't an Ed25519 seed"))?;
        let signer = Ed25519Signer { name: name.to_owned(), pair };
        VerifierKey::new(name, signer.public()?)?;
        Ok(signer)
    }

    fn public(&self) -> Result<[u8; 32], NoteError> {
        self.pair.public_key().as_ref().try_into().map_err(|_| NoteError::Key("an Ed25519 key has 32 bytes"))
    }
}

impl Signer for Ed25519Signer {
    fn verifier_key(&self) -> VerifierKey {
        // Both were checked when the signer was made.
        VerifierKey { name: self.name.clone(), public: self.public().unwrap_or_default() }
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], NoteError> {
        self.pair
            .sign(message)
            .as_ref()
            .try_into()
            .map_err(|_| NoteError::Signing(self.name.clone(), "not 64 bytes".to_owned()))
    }
}

/// One line below a note's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    /// The key's name.
    pub name: String,
    /// The key's id: see [`VerifierKey::id`].
    pub id: u32,
    /// What the algorithm defines: 64 bytes for Ed25519.
    pub signature: Vec<u8>,
}

/// A text with signatures, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<SignatureLine>,
}

impl Note {
    /// A note over `text` (which ends with a newline) signed by `signer`.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] for a text that no note can have, [`NoteError::Signing`] from the signer.
    pub fn sign(text: String, signer: &dyn Signer) -> Result<Note, NoteError> {
        check_text(&text)?;
        Ok(Note { lines: signer.lines(&text)?, text })
    }

    /// Reads a note; believes nothing yet.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] says what is wrong.
    pub fn parse(note: &str) -> Result<Note, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed("it is too long"));
        }
        // The last blank line parts text and signatures: the text may have blank lines of its own.
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed("no blank line before signatures"))?;
        let (text, rest) = note.split_at(at + 1);
        check_text(text)?;
        let rest = rest.strip_prefix('\n').unwrap_or(rest);
        let rest = rest.strip_suffix('\n').ok_or(NoteError::Malformed("it doesn't end with a newline"))?;
        let lines = rest.split('\n').map(parse_line).collect::<Result<Vec<_>, _>>()?;
        if lines.len() > SIGNATURES_MAX {
            return Err(NoteError::Malformed("too many signatures"));
        }
        Ok(Note { text: text.to_owned(), lines })
    }

    /// The signed text, its last newline included.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, known or not.
    #[must_use]
    pub fn lines(&self) -> &[SignatureLine] {
        &self.lines
    }

    /// Adds a line that somebody else made: a witness's cosignature, a second algorithm's signature.
    pub fn add_line(&mut self, line: SignatureLine) {
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    /// Adds a line in the place of all others by the same key: a later cosignature says more than an earlier one.
    pub fn put_line(&mut self, line: SignatureLine) {
        self.lines.retain(|other| other.name != line.name || other.id != line.id);
        self.lines.push(line);
    }

    /// Whether `key` signed this. All lines by that key must be right.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`] or [`NoteError::BadSignature`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let id = key.id();
        let mut signed = false;
        for line in self.lines.iter().filter(|line| line.name == key.name && line.id == id) {
            UnparsedPublicKey::new(&ED25519, key.public)
                .verify(self.text.as_bytes(), &line.signature)
                .map_err(|_| NoteError::BadSignature(key.name.clone()))?;
            signed = true;
        }
        if signed { Ok(()) } else { Err(NoteError::NotSigned(key.to_string())) }
    }
}

/// The note as it is stored and sent.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The line as it stands below a note, without its newline.
impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.signature);
        write!(f, "\u{2014} {} {}", self.name, STANDARD.encode(bytes))
    }
}

impl SignatureLine {
    /// Reads what it is displayed as; believes nothing.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] says what is wrong.
    pub fn parse(line: &str) -> Result<SignatureLine, NoteError> {
        parse_line(line)
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Malformed("the text doesn't end with a newline"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::Malformed("the text has a control character"));
    }
    Ok(())
}

fn parse_line(line: &str) -> Result<SignatureLine, NoteError> {
    let rest = line.strip_prefix("\u{2014} ").ok_or(NoteError::Malformed("a signature line needs a dash"))?;
    let (name, base64) = rest.split_once(' ').ok_or(NoteError::Malformed("a signature line needs a name"))?;
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+') {
        return Err(NoteError::Malformed("a signature's name has a forbidden character"));
    }
    let bytes = STANDARD.decode(base64).map_err(|_| NoteError::Malformed("a signature isn't base64"))?;
    match bytes.split_first_chunk::<4>() {
        Some((id, signature)) if !signature.is_empty() => Ok(SignatureLine {
            name: name.to_owned(),
            id: u32::from_be_bytes(*id),
            signature: signature.to_vec(),
        }),
        _ => Err(NoteError::Malformed("a signature is too short")),
    }
}

#[cfg(test)]
#[path = "note_tests.rs"]
mod tests;
