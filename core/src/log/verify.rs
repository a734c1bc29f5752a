//! A log's directory, verified offline: every record's checksum, order and time, and the signed checkpoint
//! against a root that is computed from the entries themselves.
//!
//! Also works beside a running log: what is signed is durable, and what is being written counts as the tail.

use bytes::Bytes;
use std::path::{Path, PathBuf};

use super::embedded::durable::RealDisk;
use super::embedded::scan::{Mark, ScanError, scan};
use super::keys::KeyChain;
use super::note::NoteError;
use super::{Checkpoint, Entry, Hash, Nanos, VerifierKey};
use crate::log::checkpoint::CheckpointError;

/// How often progress is told: once for this many entries.
const PROGRESS_ENTRIES: u64 = 4_096;
const CHECKPOINT_BYTES_MAX: u64 = 1 << 20;

/// What was checked, and held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The log.
    pub origin: String,
    /// How many entries are signed: each of them is here, unchanged.
    pub signed: u64,
    /// The root over them.
    pub root: Hash,
    /// How many entries are here; those from `signed` on are only checked by their checksums.
    pub entries: u64,
    /// When the first entry was appended.
    pub first_appended: Option<Nanos>,
    /// When the last entry was appended.
    pub last_appended: Option<Nanos>,
    /// Segment files read.
    pub segments: usize,
    /// How many checkpoints were compared with recomputed roots.
    pub checkpoints: usize,
    /// Bytes behind the last whole batch: an unfinished write, of a crash or of a log that is running.
    pub unfinished_bytes: u64,
    /// What else was met.
    pub marks: Vec<Mark>,
}

/// Why a directory isn't what it should be.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no log, or an empty one: that proves nothing.
    #[error("nothing to check: {0} holds no signed entries")]
    Nothing(PathBuf),
    /// A checkpoint isn't by the pinned key, or isn't one.
    #[error("the checkpoint {path} isn't believed: {source}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CheckpointError,
    },
    /// The checkpoint can't be read.
    #[error("{path} can't be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Somebody has seen more of this log than is here.
    #[error(
        "known up to {known} entries, have {have}: the log was cut back, or an old copy was put in its place"
    )]
    Known {
        /// What was seen elsewhere.
        known: u64,
        /// What is here.
        have: u64,
    },
    /// An entry is wrong, or missing.
    #[error(transparent)]
    Entries(#[from] ScanError),
}

impl VerifyError {
    /// The first index that is wrong, where there is one. If only a root is wrong, the first that may be.
    #[must_use]
    pub fn first_wrong(&self) -> Option<u64> {
        match self {
            VerifyError::Entries(
                ScanError::Damaged { index, .. }
                | ScanError::Io { index, .. }
                | ScanError::Root { agreed: index, .. }
                | ScanError::Short { have: index, .. },
            )
            | VerifyError::Known { have: index, .. } => Some(*index),
            _ => None,
        }
    }
}

/// The keys that the log in `directory` has had since `pinned` signed it, by the entries that the checkpoint `note` covers by
/// its own word. What they are worth stands with [`KeyChain::verify`] of that note, and with the roots of
/// [`KeyChain::handed_over`]: [`directory`] compares them.
///
/// # Errors
/// See [`VerifyError`].
pub fn key_chain(directory: &Path, pinned: &VerifierKey, note: &str) -> Result<KeyChain, VerifyError> {
    let mut chain = KeyChain::new(pinned.clone());
    // A running log has more by now.
    let size = Checkpoint::claimed_size(note).unwrap_or(0);
    scan(&RealDisk, &directory.join("segments"), pinned.name(), &[], &mut |seen| {
        if chain.size() < size {
            chain.see(seen.tag, seen.event);
        }
    })?;
    Ok(chain)
}

/// Verifies the log in `directory` (the one that holds `segments/` and `checkpoint`) against the pinned `key`,
/// whose name is the log's origin, and against `known` checkpoints from elsewhere (a witness, an older copy).
/// `progress` hears how many entries are done, and of how many that are signed; `visit` gets each entry, which
/// is believed only once this has returned `Ok`.
///
/// # Errors
/// See [`VerifyError`]. Nothing to check is one.
pub fn directory(
    directory: &Path,
    key: &VerifierKey,
    known: &[Checkpoint],
    progress: &mut dyn FnMut(u64, u64),
    visit: &mut dyn FnMut(&Entry),
) -> Result<Verified, VerifyError> {
    let path = directory.join("checkpoint");
    // Before the entries: a running log only adds.
    let note = match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > CHECKPOINT_BYTES_MAX => String::new(),
        Ok(_) => {
            std::fs::read_to_string(&path).map_err(|source| VerifyError::Io { path: path.clone(), source })?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(VerifyError::Nothing(directory.to_owned()));
        }
        Err(source) => return Err(VerifyError::Io { path, source }),
    };
    let believed = |source| VerifyError::Checkpoint { path: path.clone(), source };
    let mut handed_over = Vec::new();
    let newest = match Checkpoint::verify(&note, key) {
        Ok(newest) => newest,
        // Its keys may have been rotated since this one was pinned: the log says so itself, if it is so.
        Err(CheckpointError::Note(NoteError::NotSigned(_))) => {
            let chain = key_chain(directory, key, &note)?;
            let (newest, _) = chain.verify(&note).map_err(|source| match source {
                CheckpointError::OtherEntries { read, signed } if read < signed => {
                    VerifyError::Entries(ScanError::Short { have: read, signed })
                }
                CheckpointError::OtherEntries { signed, .. } => {
                    VerifyError::Entries(ScanError::Root { size: signed, agreed: 0 })
                }
                source => believed(source),
            })?;
            handed_over.extend_from_slice(chain.handed_over());
            newest
        }
        Err(source) => return Err(believed(source)),
    };
    if let Some(other) = known.iter().find(|known| known.origin() != key.name()) {
        let source =
            CheckpointError::Origin { expected: key.name().to_owned(), got: other.origin().to_owned() };
        return Err(VerifyError::Checkpoint { path, source });
    }
    let own = newest.size();
    let mut checkpoints = known.to_vec();
    checkpoints.append(&mut handed_over);
    checkpoints.push(newest);
    checkpoints.sort_by_key(Checkpoint::size);
    let newest = match checkpoints.last() {
        Some(newest) if newest.size() > 0 => newest.clone(),
        _ => return Err(VerifyError::Nothing(directory.to_owned())),
    };

    let signed = newest.size();
    let segments = directory.join("segments");
    let found = scan(&RealDisk, &segments, key.name(), &checkpoints, &mut |seen| {
        if seen.index % PROGRESS_ENTRIES == 0 {
            progress(seen.index, signed);
        }
        let bytes = Bytes::copy_from_slice(seen.event);
        visit(&Entry { index: seen.index, appended: seen.appended, tag: seen.tag, bytes });
    });
    let found = match found {
        // What was signed here is here: only who looked elsewhere knows that something is missing.
        Err(ScanError::Short { have, signed }) if have >= own => {
            return Err(VerifyError::Known { known: signed, have });
        }
        found => found?,
    };
    let entries = found.tree.size();
    progress(entries, signed);
    Ok(Verified {
        origin: key.name().to_owned(),
        signed,
        root: newest.root(),
        entries,
        first_appended: found.first_appended,
        last_appended: found.first_appended.map(|_| found.last_appended),
        segments: found.segments.len(),
        checkpoints: checkpoints.len(),
        unfinished_bytes: found.torn_bytes(),
        marks: found.marks,
    })
}
