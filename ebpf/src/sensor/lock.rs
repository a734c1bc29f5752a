//! One agent for one set of pins. Two would take records from each other, and what one says of itself (that it takes no evidence, say)
//! would hold for the other's sessions. A bpffs has no files to lock, so it is the directory that is locked; that ends with its process.

use super::error::SensorError;
use super::pins;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// How often a lock is tried that another has: an agent that is just ending, or a child that it is just starting.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, held as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Lock {
    /// The directory; `None`: nothing is locked, since it can't be, or needn't.
    directory: Option<File>,
}

impl Lock {
    /// Takes the lock on `pins`, which is there.
    ///
    /// # Errors
    /// Another process has it.
    pub(super) fn take(pins: &Path) -> Result<Lock, SensorError> {
        for _ in 0..TRIES {
            let directory =
                File::open(pins).map_err(|error| SensorError::file(pins, "opening it to lock it", error))?;
            match directory.try_lock() {
                Ok(()) if is_at(&directory, pins) => return Ok(Lock { directory: Some(directory) }),
                // Who had it has taken the directory away meanwhile.
                Ok(()) => pins::prepare(pins)?,
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(
                        "{}: it can't be locked, so nothing keeps a second agent from it: {error}",
                        pins.display()
                    );
                    return Ok(Lock::default());
                }
            }
        }
        Err(SensorError::InUse(pins.to_owned()))
    }

    /// Locks what lies at `pins` now, where somebody has removed the directory and it was made again.
    ///
    /// # Errors
    /// Another process has that one.
    pub(super) fn follow(&mut self, pins: &Path) -> Result<(), SensorError> {
        if self.directory.as_ref().is_some_and(|directory| !is_at(directory, pins)) {
            *self = Lock::take(pins)?;
        }
        Ok(())
    }
}

/// Whether it is this directory that lies there.
fn is_at(directory: &File, path: &Path) -> bool {
    let (Ok(held), Ok(found)) = (directory.metadata(), std::fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_that_the_pins_are_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        assert!(matches!(&refused, SensorError::InUse(path) if path == folder.path()), "{refused}");
        drop(first);
        Lock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_made_again_is_locked_again() {
        let folder = tempfile::tempdir().unwrap();
        let pins = folder.path().join("pins");
        std::fs::create_dir(&pins).unwrap();
        let mut lock = Lock::take(&pins).unwrap();
        lock.follow(&pins).unwrap();
        // Not removed: a directory that is made then could get the same number.
        std::fs::rename(&pins, folder.path().join("before")).unwrap();
        std::fs::create_dir(&pins).unwrap();
        lock.follow(&pins).unwrap();
        assert!(matches!(Lock::take(&pins), Err(SensorError::InUse(_))));
        // Somebody else was first.
        std::fs::rename(&pins, folder.path().join("between")).unwrap();
        std::fs::create_dir(&pins).unwrap();
        let _other = Lock::take(&pins).unwrap();
        assert!(matches!(lock.follow(&pins), Err(SensorError::InUse(_))));
    }
}
