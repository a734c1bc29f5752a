//! Files and directories that survive the loss of power.
//!
//! A file's contents are durable after its own sync; its *name* is durable only after its directory's.
//! Whoever needs a small file that is either the old or the new one, whole, calls [`write_file`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What ends the name of a file that isn't finished; recovery removes such files.
pub const UNFINISHED: &str = "tmp";

/// The operations that change or believe the disk; tests put one between that fails.
pub(crate) trait Disk: Send + Sync + 'static {
    /// A new file, open for reading and writing; fails if the name is taken.
    fn create(&self, path: &Path, mode: u32) -> io::Result<File>;
    /// All of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// At most `bytes.len()` bytes from `offset`; zero means the end.
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// `fdatasync`: contents and length. After an error nothing may be believed, a second try least of all.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()>;
    /// Gives a file its final name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names in `directory` durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match file.read_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// Writes a whole small file durably: after a crash at any moment it is the old one or the new one.
/// `mode` is its permission, for instance `0o600`.
///
/// # Errors
/// What the system says. The old file is still whole; if the last step, syncing the directory, failed, either
/// of the two may be there after a crash, and the error is never one of a full disk.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_file_on(&RealDisk, path, bytes, mode).map(drop)
}

/// As [`write_file`], of one that isn't small: with what `write` puts into it, part by part.
///
/// # Errors
/// As [`write_file`], and what `write` says: then the old file is still there.
pub fn replace_file(path: &Path, mode: u32, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    replace_file_on(&RealDisk, path, mode, write).map(drop)
}

/// Renames durably. Both names must be in the same directory.
///
/// # Errors
/// What the system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    RealDisk.rename(from, to)?;
    RealDisk.sync_directory(parent(to)?)
}

/// Makes the names in `directory` durable.
///
/// # Errors
/// What the system says.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    RealDisk.sync_directory(directory)
}

/// Creates `directory` and those above it that are missing (0700), and makes each name durable in its parent.
///
/// # Errors
/// What the system says.
pub fn create_directories(directory: &Path) -> io::Result<()> {
    create_directories_with(directory, 0o700)
}

/// As [`create_directories`], where others may look into what is made: `mode` is its permission, for instance `0o750`. What is
/// there already keeps its own.
///
/// # Errors
/// What the system says.
pub fn create_directories_with(directory: &Path, mode: u32) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directories_with(parent, mode)?;
    }
    match fs::DirBuilder::new().mode(mode).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        answer => answer?,
    }
    RealDisk.sync_directory(directory)?;
    RealDisk.sync_directory(parent(directory)?)
}

/// Creates `path` with `bytes` in it, durably and atomically, and gives the open file.
pub(crate) fn write_file_on(disk: &dyn Disk, path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    replace_file_on(disk, path, mode, |file| disk.write_at(file, bytes, 0))
}

/// Creates `path` with what `write` puts into it, durably and atomically, and gives the open file.
pub(crate) fn replace_file_on(
    disk: &dyn Disk,
    path: &Path,
    mode: u32,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<File> {
    let file = name_file_on(disk, path, mode, write)?;
    // A crash here leaves either; both are whole. If the sync fails, the new one has the name and perhaps not for long: that
    // isn't undone, so it must not count as a disk that was merely full, before which nothing has happened.
    disk.sync_directory(parent(path)?).map_err(|error| match is_full(&error) {
        true => io::Error::other(format!("its directory couldn't be synced: {error}")),
        false => error,
    })?;
    Ok(file)
}

/// As [`write_file_on`], where the old one will do as well as the new one: for lack of room the error is that of a full disk
/// at each step, and after the last one either of the two may be there.
pub(crate) fn write_either_on(disk: &dyn Disk, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let _file = name_file_on(disk, path, mode, |file| disk.write_at(file, bytes, 0))?;
    disk.sync_directory(parent(path)?)
}

/// Writes a whole file and gives it its name, which isn't durable yet.
fn name_file_on(
    disk: &dyn Disk,
    path: &Path,
    mode: u32,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<File> {
    let unfinished = unfinished(path);
    match disk.remove(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        answer => answer?,
    }
    let file = disk.create(&unfinished, mode)?;
    // A crash up to the rename leaves the old file, and a `.tmp` that recovery removes.
    let written = write(&file).and_then(|()| disk.sync(&file)).and_then(|()| disk.rename(&unfinished, path));
    if let Err(error) = written {
        // Best effort: what is left over is removed at the next start.
        disk.remove(&unfinished).ok();
        return Err(error);
    }
    Ok(file)
}

/// The directory that holds `path`.
fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "this path has no parent directory")),
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Whether an error means that there is no room, which passes, and not that the disk is broken.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
