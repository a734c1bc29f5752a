//! What a recorder writes on: a file; in tests, one that fails.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Something that can be appended to and made durable. Shared between the recorder and an anchor that is
/// being made durable beside it.
pub trait Medium: Send + Sync {
    /// Appends all of `bytes`, with one system call where the system takes them at once. After an error
    /// any part of them may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Returns once all that was appended before the call survives a power failure. An error is final:
    /// a later success says nothing about these bytes.
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file: &File = self;
        file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Creates the file, for its owner only, with the directories to it. It must not exist: a recording is
/// never written over. When this returns, the names of the file and its directories are durable; a crash
/// before leaves empty directories or an empty file.
pub fn create_file(path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap_or(Path::new("."));
    create_directory(directory)?;
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    sync_directory(directory)?;
    Ok(file)
}

fn create_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => create_directory(parent)?,
                _ => return Err(error),
            }
            create_directory(path)
        }
        // Somebody else's session made it a moment ago, and may not have synced it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            sync_directory(path.parent().unwrap_or(Path::new(".")))
        }
        Err(error) => Err(error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}
