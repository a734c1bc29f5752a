//! Checkpoints (C2SP tlog-checkpoint): the log's word for how long it is and what it holds.

use std::fmt;

use super::note::{Note, NoteError, SignatureLine, Signer, VerifierKey};
use super::tree::Hash;

/// Why a checkpoint isn't believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note or its signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note's text isn't a checkpoint.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// A checkpoint of another log.
    #[error("the checkpoint is of the log {got}, expected {expected}")]
    Origin {
        /// The origin that is pinned.
        expected: String,
        /// The origin that the checkpoint has.
        got: String,
    },
    /// The entries that were read to learn whose signature counts aren't those that were signed.
    #[error(
        "the {read} entries that were read to learn which key signs aren't the {signed} that are signed: something else was \
         shown, or an entry was replaced"
    )]
    OtherEntries {
        /// How many entries were read.
        read: u64,
        /// How many are signed.
        signed: u64,
    },
}

/// A checkpoint whose signature was made or checked here: there is no other way to get one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    size: u64,
    root: Hash,
    note: Note,
}

impl Checkpoint {
    /// Signs `size` and `root` for the log that is named like the signer's key.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] if the key can't be used.
    pub fn sign(size: u64, root: Hash, signer: &dyn Signer) -> Result<Checkpoint, CheckpointError> {
        let text = format!("{}\n{size}\n{root}\n", signer.verifier_key().name());
        Ok(Checkpoint { size, root, note: Note::sign(text, signer)? })
    }

    /// Reads a signed checkpoint and believes it if `key` signed it and its origin is the key's name.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn verify(note: &str, key: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let mut lines = note.text().split('\n');
        let origin = lines.next().unwrap_or_default();
        if origin != key.name() {
            return Err(CheckpointError::Origin { expected: key.name().to_owned(), got: origin.to_owned() });
        }
        let size = lines.next().and_then(parse_decimal).ok_or(CheckpointError::Malformed("no size"))?;
        let root =
            lines.next().and_then(Hash::from_base64).ok_or(CheckpointError::Malformed("no root hash"))?;
        // What is left: extension lines, none of them empty, and the empty piece after the last newline.
        let rest: Vec<&str> = lines.collect();
        match rest.split_last() {
            Some((&"", extensions)) if extensions.iter().all(|line| !line.is_empty()) => {}
            _ => return Err(CheckpointError::Malformed("an extension line is empty")),
        }
        Ok(Checkpoint { size, root, note })
    }

    /// How many entries a note says that there are, whoever has written it: for who has to read them to learn whether it
    /// is to be believed. `None` if it says nothing of the kind.
    #[must_use]
    pub fn claimed_size(note: &str) -> Option<u64> {
        note.split('\n').nth(1).and_then(parse_decimal)
    }

    /// The log's origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.note.text().split('\n').next().unwrap_or_default()
    }

    /// How many entries it covers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over these entries.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The signed note; displayed it is the text to store and send.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Adds a cosignature.
    pub fn add_line(&mut self, line: SignatureLine) {
        self.note.add_line(line);
    }

    /// Adds a cosignature in the place of earlier ones by the same key.
    pub fn put_line(&mut self, line: SignatureLine) {
        self.note.put_line(line);
    }
}

/// The signed note.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.note)
    }
}

/// A decimal number without leading zeroes, signs or spaces.
#[must_use]
pub fn parse_decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}
