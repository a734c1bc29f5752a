//! The note that an import leaves in a log's directory while entries lie there that nothing vouches for yet: `importing`.
//!
//! They have whole records and lie behind the log's own, so an opening would take them for its own tail, and sign them. It
//! is durable before the first of them is written, and goes when they are sealed or taken back.

use std::io;
use std::path::{Path, PathBuf};

use super::durable::{self, Disk as _, RealDisk};
use super::recover::OpenError;

const FILE: &str = "importing";
const MODE: u32 = 0o600;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// How many of the entries were there before.
    pub own: u64,
    /// The command that has written the others.
    pub what: String,
}

impl Note {
    /// What stands in `directory`; `None` where nothing was cut off.
    pub fn read(directory: &Path) -> Result<Option<Note>, OpenError> {
        let path = path(directory);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        let parts = text.trim_end().split_once('\n');
        match parts.and_then(|(own, what)| Some(Note { own: own.parse().ok()?, what: what.to_owned() })) {
            Some(note) => Ok(Some(note)),
            None => {
                let why = "it isn't the note of a command that brings entries";
                Err(OpenError::Io { path, source: io::Error::new(io::ErrorKind::InvalidData, why) })
            }
        }
    }

    /// Leaves it, durably.
    pub fn leave(&self, directory: &Path) -> io::Result<()> {
        durable::write_file(&path(directory), format!("{}\n{}\n", self.own, self.what).as_bytes(), MODE)
    }
}

/// Where it stands.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Takes it away, durably.
pub(super) fn forget(directory: &Path) -> io::Result<()> {
    match RealDisk.remove(&path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer.and_then(|()| durable::sync_directory(directory)),
    }
}
