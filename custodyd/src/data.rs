//! The data directory: what lies where, and who may see it.

use anyhow::Context as _;
use custody_core::log::note::Note;
use std::io;
use std::path::{Path, PathBuf};

/// The file that says what the log was put back from.
pub const RESTORED: &str = "restored";

/// The data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// At this path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The log: segments and the newest checkpoint.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Private keys.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Password hashes.
    pub fn secrets(&self) -> PathBuf {
        self.0.join("secrets")
    }

    /// What destinations of the log's events want to be shown.
    pub fn sink_secrets(&self) -> PathBuf {
        self.secrets().join("sinks")
    }

    /// Sinks' positions and dead letters.
    pub fn sinks(&self) -> PathBuf {
        self.0.join("sinks")
    }

    /// The authorities' public parts.
    pub fn public(&self) -> PathBuf {
        self.0.join("ca")
    }

    /// What sessions showed.
    pub fn recordings(&self) -> PathBuf {
        self.0.join("recordings")
    }

    /// All that replay can rebuild, and nothing else.
    pub fn projections(&self) -> PathBuf {
        self.0.join("projections")
    }

    /// Makes it, for its owner only.
    pub fn create(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Whether a log was begun in it.
    pub fn is_begun(&self) -> bool {
        self.log().join("checkpoint").exists()
    }

    /// The log's newest signed note, not yet believed; `None` where no log was begun.
    pub fn checkpoint(&self) -> anyhow::Result<Option<Note>> {
        let path = self.log().join("checkpoint");
        match std::fs::read(&path) {
            // What isn't UTF-8 isn't a note; opening the log says so.
            Ok(bytes) => Ok(Note::parse(&String::from_utf8_lossy(&bytes)).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
        }
    }

    /// What the log was put back from, as it was left there: `backup`, `witness` or `sink NAME`.
    pub fn restored_from(&self) -> anyhow::Result<Option<String>> {
        let path = self.log().join(RESTORED);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
        }
    }

    /// The log says itself from here on that it was put back.
    pub fn restored_is_told(&self) -> io::Result<()> {
        match std::fs::remove_file(self.log().join(RESTORED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => answer,
        }
    }
}
