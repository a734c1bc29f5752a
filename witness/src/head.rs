//! What a witness remembers of a log: the newest checkpoint that it has cosigned. Durable before it is told.

use std::io;
use std::path::{Path, PathBuf};

use custody_core::log::checkpoint::CheckpointError;
use custody_core::log::cosignature::Cosigned;
use custody_core::log::note::NOTE_BYTES_MAX;
use custody_core::log::{Checkpoint, Hash, VerifierKey, durable};

const FILE: &str = "head";
const MODE: u32 = 0o644;

/// Why a witness can't tell what it has cosigned. It must not guess: it would cosign a fork.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It isn't a checkpoint of this log.
    #[error("{path} isn't a checkpoint of the log that it is kept for: {source}. Put it back from a copy")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CheckpointError,
    },
}

/// The newest cosigned checkpoint of one log.
#[derive(Debug)]
pub struct Head {
    path: PathBuf,
    newest: Option<Checkpoint>,
}

impl Head {
    /// What `directory` holds for the log whose key is `key`.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn open(directory: &Path, key: &VerifierKey) -> Result<Head, HeadError> {
        let path = directory.join(FILE);
        let failed = |source| HeadError::Io { path: path.clone(), source };
        durable::create_directories(directory).map_err(failed)?;
        let note = match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > NOTE_BYTES_MAX as u64 => Some(String::new()),
            Ok(_) => Some(std::fs::read_to_string(&path).map_err(failed)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let newest = note
            .map(|note| Checkpoint::verify(&note, key))
            .transpose()
            .map_err(|source| HeadError::Damaged { path: path.clone(), source })?;
        Ok(Head { path, newest })
    }

    /// The checkpoint with the log's signature and this witness's.
    #[must_use]
    pub fn newest(&self) -> Option<&Checkpoint> {
        self.newest.as_ref()
    }

    /// Size and root; `None` before the first.
    #[must_use]
    pub fn known(&self) -> Option<(u64, Hash)> {
        self.newest.as_ref().map(|newest| (newest.size(), newest.root()))
    }

    /// Moves on to `checkpoint`, durably. A cosignature of what is known already is only kept in memory: it says
    /// nothing new but the time. Blocks on the disk.
    ///
    /// # Errors
    /// [`HeadError::Io`]: then the cosignature must not be given out.
    pub fn advance(&mut self, mut checkpoint: Checkpoint, cosigned: &Cosigned) -> Result<(), HeadError> {
        checkpoint.put_line(cosigned.line().clone());
        let new = self.newest.as_ref().is_none_or(|newest| newest.size() != checkpoint.size());
        if new {
            durable::write_file(&self.path, checkpoint.to_string().as_bytes(), MODE)
                .map_err(|source| HeadError::Io { path: self.path.clone(), source })?;
        }
        self.newest = Some(checkpoint);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::Timestamp;
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::tree::leaf_hash;
    use custody_core::log::{Cosigner, Signer as _};
    use std::sync::Arc;

    #[test]
    fn it_comes_back_and_damage_is_not_taken_for_nothing() {
        let scratch = tempfile::TempDir::new().unwrap();
        let log = Ed25519Signer::from_seed("custody.example/log", &[7; 32]).unwrap();
        let witness = Cosigner::new(Arc::new(Ed25519Signer::from_seed("w.example", &[9; 32]).unwrap()));
        let key = log.verifier_key();
        let mut head = Head::open(scratch.path(), &key).unwrap();
        assert_eq!(head.known(), None);
        let checkpoint = Checkpoint::sign(3, leaf_hash(b"x"), &log).unwrap();
        let at = |seconds| witness.cosign(checkpoint.note(), Timestamp::from_seconds(seconds)).unwrap();
        head.advance(checkpoint.clone(), &at(1)).unwrap();
        head.advance(checkpoint.clone(), &at(2)).unwrap();
        assert_eq!(witness.key().verify(head.newest().unwrap().note()).unwrap(), at(2));
        let again = Head::open(scratch.path(), &key).unwrap();
        assert_eq!(again.known(), Some((3, leaf_hash(b"x"))));
        assert_eq!(witness.key().verify(again.newest().unwrap().note()).unwrap(), at(1));
        for rubbish in ["", "x", &checkpoint.to_string().replace("\n3\n", "\n2\n")] {
            durable::write_file(&scratch.path().join(FILE), rubbish.as_bytes(), MODE).unwrap();
            assert!(matches!(Head::open(scratch.path(), &key), Err(HeadError::Damaged { .. })));
        }
    }
}
