//! The newest checkpoint that a witness has cosigned: shown to readers of the log, and kept, so that the next opening
//! knows how long the log was.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::cosignature::Cosigned;
use super::{Checkpoint, VerifierKey, durable};

/// Its name in the log's directory.
pub const FILE: &str = "cosigned";
const MODE: u32 = 0o644;
const BYTES_MAX: u64 = 1 << 20;

/// How one witness does, for whoever watches.
#[derive(Debug, Default)]
pub struct Health {
    /// Its name.
    pub witness: String,
    /// How many entries it has cosigned, as far as is known since the start.
    pub cosigned: AtomicU64,
    /// When it last cosigned, by this machine's clock: seconds since 1970, zero if never since the start.
    pub last_seconds: AtomicU64,
    /// Cosignatures since the start.
    pub cosignatures: AtomicU64,
    /// Submissions since the start that weren't cosigned.
    pub failures: AtomicU64,
}

/// The newest cosigned checkpoint with all of its cosignatures, in memory and in `<log>/cosigned`; and how those do who
/// cosign.
pub struct CosignedCheckpoints {
    path: PathBuf,
    newest: watch::Sender<Option<Checkpoint>>,
    witnesses: Mutex<Vec<Arc<Health>>>,
}

impl CosignedCheckpoints {
    /// What the log in `directory` has. A file that isn't a checkpoint of the log counts as none: it is only a copy
    /// of what the witnesses know.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn open(directory: &Path, key: &VerifierKey) -> io::Result<CosignedCheckpoints> {
        let path = directory.join(FILE);
        let newest = read(&path)?.and_then(|note| Checkpoint::verify(&note, key).ok());
        Ok(CosignedCheckpoints { path, newest: watch::channel(newest).0, witnesses: Mutex::default() })
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<Checkpoint> {
        self.newest.borrow().clone()
    }

    /// The newest one, and each newer or more often cosigned one.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Option<Checkpoint>> {
        self.newest.subscribe()
    }

    /// Counts what a witness does from here on.
    pub fn watch(&self, witness: &str) -> Arc<Health> {
        let health = Arc::new(Health { witness: witness.to_owned(), ..Health::default() });
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&health));
        health
    }

    /// How the witnesses do.
    #[must_use]
    pub fn witnesses(&self) -> Vec<Arc<Health>> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `checkpoint` with the cosignatures that it has got so far.
    #[must_use]
    pub fn complete(&self, checkpoint: Checkpoint) -> Checkpoint {
        match &*self.newest.borrow() {
            Some(newest) if newest.note().text() == checkpoint.note().text() => newest.clone(),
            _ => checkpoint,
        }
    }

    /// Keeps a cosignature of `checkpoint`, durably. One of an older checkpoint than the newest adds nothing and is
    /// dropped; a later one by the same witness replaces its earlier one. Blocks on the disk.
    ///
    /// # Errors
    /// When it can't be written; then what was there stays.
    pub fn add(&self, checkpoint: &Checkpoint, cosigned: &Cosigned) -> io::Result<()> {
        let mut failed = None;
        // The lock of the channel makes this one step for several witnesses that answer at once.
        self.newest.send_if_modified(|newest| {
            let mut with = match newest.as_ref() {
                Some(newest) if newest.size() > checkpoint.size() => return false,
                Some(newest) if newest.note().text() == checkpoint.note().text() => newest.clone(),
                _ => checkpoint.clone(),
            };
            with.put_line(cosigned.line().clone());
            match durable::write_file(&self.path, with.to_string().as_bytes(), MODE) {
                Ok(()) => {
                    *newest = Some(with);
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

/// The file's text; `None` if there is no such file, or no note in it.
fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > BYTES_MAX => Ok(None),
        Ok(_) => Ok(String::from_utf8(std::fs::read(path)?).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::log::cosignature::Cosigner;
    use crate::log::note::Ed25519Signer;
    use crate::log::tree::leaf_hash;
    use crate::log::{Signer as _, VerifierKey};
    use std::sync::Arc;

    fn log() -> Ed25519Signer {
        Ed25519Signer::from_seed("custody.example/log", &[7; 32]).unwrap()
    }

    fn witness(name: &str) -> Cosigner {
        Cosigner::new(Arc::new(Ed25519Signer::from_seed(name, &[9; 32]).unwrap()))
    }

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint::sign(size, leaf_hash(&size.to_be_bytes()), &log()).unwrap()
    }

    #[allow(clippy::disallowed_methods, reason = "what a test damages needn't last")]
    #[test]
    fn the_newest_is_kept_with_the_last_line_of_each_witness() {
        let scratch = tempfile::TempDir::new().unwrap();
        let key: VerifierKey = log().verifier_key();
        let kept = CosignedCheckpoints::open(scratch.path(), &key).unwrap();
        assert_eq!(kept.newest(), None);
        let add = |name: &str, size, at| {
            let checkpoint = checkpoint(size);
            let line = witness(name).cosign(checkpoint.note(), Timestamp::from_seconds(at)).unwrap();
            kept.add(&checkpoint, &line).unwrap();
        };
        add("a.example", 10, 1);
        add("a.example", 10, 16);
        add("b.example", 10, 17);
        add("b.example", 9, 18);
        let newest = kept.newest().unwrap();
        assert_eq!(
            (newest.size(), newest.note().lines().len()),
            (10, 3),
            "the log's line and one of each witness"
        );
        assert_eq!(
            witness("a.example").key().verify(newest.note()).unwrap().at(),
            Timestamp::from_seconds(16)
        );
        assert_eq!(kept.complete(checkpoint(10)), newest);
        assert_eq!(kept.complete(checkpoint(11)), checkpoint(11));
        let again = CosignedCheckpoints::open(scratch.path(), &key).unwrap();
        assert_eq!(again.newest(), Some(newest));
        add("a.example", 11, 20);
        assert_eq!(kept.newest().unwrap().note().lines().len(), 2);
        durable::write_file(&scratch.path().join(FILE), b"rubbish", MODE).unwrap();
        assert_eq!(CosignedCheckpoints::open(scratch.path(), &key).unwrap().newest(), None);
    }
}
