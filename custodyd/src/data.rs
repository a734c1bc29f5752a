//! The data directory: what lies where, and who may see it.

use std::path::{Path, PathBuf};

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
}
