//! A folder with events and what proves them, as `custody prove` writes it for a session: `checkpoint`, and for each
//! event `<index>.json`, its canonical bytes, and `<index>.tlog-proof`. What else lies in it proves nothing here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::EVENT_BYTES_MAX;
use super::checkpoint::{Checkpoint, CheckpointError, parse_decimal};
use super::note::{NOTE_BYTES_MAX, VerifierKey};
use super::proof::{ProofFile, ProofFileError};

/// The name of the checkpoint's file.
pub const CHECKPOINT: &str = "checkpoint";
/// What an event's file is called behind its index.
pub const EVENT_SUFFIX: &str = ".json";
/// What its proof is called behind its index.
pub const PROOF_SUFFIX: &str = ".tlog-proof";

/// What a folder holds, and all of it is proved.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Under which checkpoint.
    pub checkpoint: Checkpoint,
    /// The events' canonical bytes by their index; at least one.
    pub events: BTreeMap<u64, Vec<u8>>,
}

/// Why a folder proves nothing, or not all that it claims.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file can't be read.
    #[error("{path} can't be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is longer than any of its kind.
    #[error("{0} is too long for what it should be")]
    TooLong(PathBuf),
    /// There is no event in it.
    #[error("nothing to check: {0} holds no event")]
    Nothing(PathBuf),
    /// An event without a proof, or a proof without an event.
    #[error("event {index}: {missing} is missing")]
    Missing {
        /// The event's index.
        index: u64,
        /// The file that isn't there.
        missing: String,
    },
    /// The checkpoint isn't believed.
    #[error("the checkpoint isn't believed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// An event's proof is made for another checkpoint than the folder's.
    #[error("event {index}: its proof is for another checkpoint than the folder's")]
    OtherCheckpoint {
        /// The event's index.
        index: u64,
    },
    /// An event isn't proved.
    #[error("event {index}: {source}")]
    Event {
        /// The event's index.
        index: u64,
        /// Why not.
        source: ProofFileError,
    },
}

impl BundleError {
    /// The index of the event that isn't proved, where it is one.
    #[must_use]
    pub fn first_wrong(&self) -> Option<u64> {
        match self {
            BundleError::Missing { index, .. }
            | BundleError::OtherCheckpoint { index }
            | BundleError::Event { index, .. } => Some(*index),
            _ => None,
        }
    }
}

/// Verifies every event of `folder` against the pinned `key`. `progress` hears how many are done, of how many.
///
/// # Errors
/// See [`BundleError`]. Nothing to check is one.
pub fn verify(
    folder: &Path,
    key: &VerifierKey,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Bundle, BundleError> {
    let note = read_text(&folder.join(CHECKPOINT), NOTE_BYTES_MAX)?;
    let checkpoint = Checkpoint::verify(&note, key)?;
    let (mut events, proofs) = (BTreeMap::new(), indices(folder, PROOF_SUFFIX)?);
    let files = indices(folder, EVENT_SUFFIX)?;
    if let Some((index, _)) = proofs.iter().find(|(index, _)| !files.contains_key(index)) {
        return Err(BundleError::Missing { index: *index, missing: format!("{index}{EVENT_SUFFIX}") });
    }
    let count = files.len() as u64;
    for (index, path) in files {
        let proof = proofs.get(&index);
        let missing = || BundleError::Missing { index, missing: format!("{index}{PROOF_SUFFIX}") };
        let text = read_text(proof.ok_or_else(missing)?, NOTE_BYTES_MAX)?;
        let event = read(&path, EVENT_BYTES_MAX)?;
        let wrong = |source| BundleError::Event { index, source };
        let proof = ProofFile::parse(&text).map_err(wrong)?;
        if proof.checkpoint != note {
            return Err(BundleError::OtherCheckpoint { index });
        }
        if proof.index != index {
            return Err(wrong(ProofFileError::Malformed("it is of another index than its name says")));
        }
        proof.check(&event, key).map_err(wrong)?;
        events.insert(index, event);
        progress(events.len() as u64, count);
    }
    if events.is_empty() {
        return Err(BundleError::Nothing(folder.to_owned()));
    }
    Ok(Bundle { checkpoint, events })
}

/// The files that are an index with this suffix.
fn indices(folder: &Path, suffix: &str) -> Result<BTreeMap<u64, PathBuf>, BundleError> {
    let failed = |source| BundleError::Io { path: folder.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let index = name.to_str().and_then(|name| name.strip_suffix(suffix)).and_then(parse_decimal);
        found.extend(index.map(|index| (index, entry.path())));
    }
    Ok(found)
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, BundleError> {
    let failed = |source| BundleError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > bytes_max as u64 {
        return Err(BundleError::TooLong(path.to_owned()));
    }
    std::fs::read(path).map_err(failed)
}

fn read_text(path: &Path, bytes_max: usize) -> Result<String, BundleError> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|error| BundleError::Io { path: path.to_owned(), source: std::io::Error::other(error) })
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
