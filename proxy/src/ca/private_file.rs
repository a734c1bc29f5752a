//! Files that only their owner may read, and that are whole or absent after a power failure.

use rustix::fs::{Mode, OFlags, fstat, fsync, mkdir, open};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// No secret of ours comes near this length; a larger file isn't one.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a private file or its directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// Others may read or write it.
    #[error(
        "{path} may be read or written by others (mode {mode:04o}): chmod go= it, and replace the secrets in it if somebody did"
    )]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to user id {owner}, not to the one that runs this ({expected}): chown it")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this.
        expected: u32,
    },
    /// Not a regular file, or a larger one than any secret.
    #[error("{path} is not a regular file of at most 64 KiB")]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// It exists already and must not be replaced.
    #[error("{path} exists already and is not replaced")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// The system refused.
    #[error("can't {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PrivateFileError {
    move |source| PrivateFileError::Io { action, path: path.to_owned(), source }
}

/// Opens a directory with mode 0700, making it (not its parents) if it is absent.
pub(crate) fn open_directory(path: &Path) -> Result<(), PrivateFileError> {
    match mkdir(path, Mode::RWXU) {
        Ok(()) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync_directory(parent.unwrap_or(Path::new(".")))?;
        }
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(io("make", path)(errno.into())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty()).map_err(|errno| io("open", path)(errno.into()))?;
    check_private(&directory, path).map(drop)
}

/// Reads a private file; `None` if there is none. Symbolic links are not followed.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateFileError> {
    // NONBLOCK: opening must not wait for ever on a pipe that somebody put there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(io("open", path)(errno.into())),
    };
    let length = check_private(&file, path)?;
    let file = File::from(file);
    let regular = file.metadata().map_err(io("read", path))?.is_file();
    if !regular || length > FILE_BYTES_MAX {
        return Err(PrivateFileError::NotAFile { path: path.to_owned() });
    }
    // Room for all of it at once: a buffer that grows leaves copies of the secret behind.
    let mut content =
        Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(1)));
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(io("read", path))?;
    Ok(Some(content))
}

/// Writes a new private file durably: written aside, synced, linked to its name, and the directory synced.
///
/// After a crash it is there as a whole or not at all (a `.new` file may be left, which the next write replaces).
/// Never replaces what is there: [`PrivateFileError::Exists`].
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    let aside = path.with_added_extension("new");
    remove(&aside)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        open(&aside, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| io("make", &aside)(errno.into()))?;
    let mut file = File::from(file);
    file.write_all(content).map_err(io("write", &aside))?;
    file.sync_all().map_err(io("sync", &aside))?;
    // A link fails if the name is taken, a rename would replace it.
    match std::fs::hard_link(&aside, path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            remove(&aside)?;
            return Err(PrivateFileError::Exists { path: path.to_owned() });
        }
        Err(error) => return Err(io("name", path)(error)),
    }
    remove(&aside)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Removes a file durably once [`sync_directory`] has returned; no error if there is none.
pub(crate) fn remove(path: &Path) -> Result<(), PrivateFileError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("remove", path)(error)),
    }
}

/// Makes names in a directory survive a power failure.
pub(crate) fn sync_directory(path: &Path) -> Result<(), PrivateFileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty()).map_err(|errno| io("open", path)(errno.into()))?;
    fsync(directory).map_err(|errno| io("sync", path)(errno.into()))
}

/// Checks owner and permissions of what was opened (not of a name that may be exchanged); gives its length.
fn check_private(file: &OwnedFd, path: &Path) -> Result<u64, PrivateFileError> {
    let stat = fstat(file).map_err(|errno| io("look at", path)(errno.into()))?;
    let expected = rustix::process::geteuid().as_raw();
    if stat.st_uid != expected {
        return Err(PrivateFileError::Foreign { path: path.to_owned(), owner: stat.st_uid, expected });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(u64::MAX))
}
