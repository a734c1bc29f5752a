//! The evidence for one event: a C2SP tlog-proof file, one text that a stranger checks offline.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>            (optional)
//! index <decimal>
//! <hash>                    (none or more)
//!
//! <checkpoint, a signed note>
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{Checkpoint, CheckpointError, parse_decimal};
use super::note::{NOTE_BYTES_MAX, VerifierKey};
use super::tree::{Hash, leaf_hash, verify_inclusion};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A path in a tree of 2^64 leaves has 64 hashes.
const HASHES_MAX: usize = 64;
const EXTRA_BYTES_MAX: usize = 64 * 1024;

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// The text isn't a tlog-proof.
    #[error("not a tlog-proof: {0}")]
    Malformed(&'static str),
    /// The checkpoint in it isn't believed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Well-formed, and wrong: this event isn't at this index of this log.
    #[error("the event isn't number {index} of {origin}: the hashes don't lead to the signed root")]
    Wrong {
        /// The index that was claimed.
        index: u64,
        /// The log.
        origin: String,
    },
}

/// A tlog-proof as it is read: not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofFile {
    /// The event's index.
    pub index: u64,
    /// Application data that travels along and isn't authenticated.
    pub extra: Option<Vec<u8>>,
    /// The audit path.
    pub hashes: Vec<Hash>,
    /// The signed note, as text.
    pub checkpoint: String,
}

impl ProofFile {
    /// The proof for entry `index` under `checkpoint`.
    #[must_use]
    pub fn new(index: u64, hashes: Vec<Hash>, checkpoint: &Checkpoint) -> ProofFile {
        ProofFile { index, extra: None, hashes, checkpoint: checkpoint.to_string() }
    }

    /// Reads a proof; believes nothing yet.
    ///
    /// # Errors
    /// [`ProofFileError::Malformed`] says what is wrong.
    pub fn parse(text: &str) -> Result<ProofFile, ProofFileError> {
        if text.len() > NOTE_BYTES_MAX + 2 * EXTRA_BYTES_MAX {
            return Err(ProofFileError::Malformed("it is too long"));
        }
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(ProofFileError::Malformed("no blank line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(ProofFileError::Malformed("its first line isn't c2sp.org/tlog-proof@v1"));
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(base64) => {
                let bytes = STANDARD.decode(base64);
                let bytes = bytes.map_err(|_| ProofFileError::Malformed("its extra data isn't base64"))?;
                lines.next();
                Some(bytes)
            }
            None => None,
        };
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_decimal)
            .ok_or(ProofFileError::Malformed("no index"))?;
        let hashes: Option<Vec<Hash>> = lines.map(Hash::from_base64).collect();
        let hashes = hashes.ok_or(ProofFileError::Malformed("a line isn't a hash"))?;
        if hashes.len() > HASHES_MAX {
            return Err(ProofFileError::Malformed("too many hashes"));
        }
        Ok(ProofFile { index, extra, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that `event` (its canonical bytes) is number `index` of the log whose key is `key`.
    /// Gives the checkpoint that says so.
    ///
    /// # Errors
    /// See [`ProofFileError`].
    pub fn check(&self, event: &[u8], key: &VerifierKey) -> Result<Checkpoint, ProofFileError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, key)?;
        if !self.leads_to(&checkpoint, &leaf_hash(event)) {
            return Err(ProofFileError::Wrong { index: self.index, origin: key.name().to_owned() });
        }
        Ok(checkpoint)
    }

    /// Whether the path leads from `leaf` to the root of a checkpoint that is believed already.
    #[must_use]
    pub fn leads_to(&self, checkpoint: &Checkpoint, leaf: &Hash) -> bool {
        verify_inclusion(leaf, self.index, checkpoint.size(), &self.hashes, &checkpoint.root())
    }
}

/// The file's text.
impl fmt::Display for ProofFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
