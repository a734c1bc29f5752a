//! Where programs, links and maps stay when the agent is gone: a directory of a bpffs, with one directory for each generation of them.
//! A generation is named by what it was made of, so that the same build finds its own again.

use super::error::SensorError;
use rustix::fs::{FsWord, statfs};
use rustix::mount::{MountFlags, mount};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const BPFFS: FsWord = 0xcafe_4a11_u32 as FsWord;
/// Where systems keep their bpffs.
const USUAL: &str = "/sys/fs/bpf";

/// One generation's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Generation {
    /// What it was made of.
    pub(super) id: u64,
    directory: PathBuf,
}

impl Generation {
    /// The generation of that number below `pins`.
    pub(super) fn new(pins: &Path, id: u64) -> Generation {
        Generation { id, directory: pins.join(format!("generation-{id:016x}")) }
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join("maps").join(name)
    }

    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.directory.join("links").join(program)
    }

    pub(super) fn program(&self, program: &str) -> PathBuf {
        self.directory.join("programs").join(program)
    }

    pub(super) fn create(&self) -> Result<(), SensorError> {
        for name in ["maps", "links", "programs"] {
            let path = self.directory.join(name);
            std::fs::create_dir_all(&path).map_err(|error| SensorError::file(&path, "creating it", error))?;
        }
        Ok(())
    }

    /// Detaches what is attached and forgets it all. Links go first: a program without its maps' pins still runs.
    pub(super) fn remove(&self) -> Result<(), SensorError> {
        for name in ["links", "programs", "maps"] {
            remove_directory(&self.directory.join(name))?;
        }
        remove_directory(&self.directory)
    }

    /// The directory above it goes with the last generation, unless something else is in it.
    pub(super) fn remove_with_parent(&self) -> Result<(), SensorError> {
        self.remove()?;
        let Some(parent) = self.directory.parent() else { return Ok(()) };
        match std::fs::remove_dir(parent) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::ResourceBusy | ErrorKind::NotFound
                ) =>
            {
                Err(SensorError::file(parent, "removing it", error))
            }
            _ => Ok(()),
        }
    }

    /// Detaches its programs, and leaves its maps to be read.
    pub(super) fn detach(&self) -> Result<(), SensorError> {
        remove_directory(&self.directory.join("links"))?;
        remove_directory(&self.directory.join("programs"))
    }

    pub(super) fn exists(&self) -> bool {
        self.directory.is_dir()
    }
}

/// The generations that stand below `pins`.
pub(super) fn generations(pins: &Path) -> Result<Vec<Generation>, SensorError> {
    let entries = match std::fs::read_dir(pins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SensorError::file(pins, "listing it", error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| SensorError::file(pins, "listing it", error))?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("generation-"));
        if let Some(id) = id.and_then(|id| u64::from_str_radix(id, 16).ok()) {
            found.push(Generation::new(pins, id));
        }
    }
    Ok(found)
}

/// Makes sure that `pins` is a directory of a bpffs; mounts one where none is.
pub(super) fn prepare(pins: &Path) -> Result<(), SensorError> {
    if !on_bpffs(pins) {
        let at = if pins.starts_with(USUAL) { Path::new(USUAL) } else { pins };
        std::fs::create_dir_all(at)
            .map_err(|error| SensorError::file(at, "creating a directory to mount a bpffs at", error))?;
        mount("bpf", at, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None).map_err(
            |error| SensorError::file(at, "mounting a bpffs (mount -t bpf bpf PATH)", error.into()),
        )?;
    }
    std::fs::create_dir_all(pins).map_err(|error| SensorError::file(pins, "creating it", error))
}

fn on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .is_some_and(|ancestor| statfs(ancestor).is_ok_and(|stat| stat.f_type == BPFFS))
}

/// Removes a directory and the pins in it, which are all files.
fn remove_directory(path: &Path) -> Result<(), SensorError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SensorError::file(path, "listing it", error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| SensorError::file(path, "listing it", error))?.path();
        std::fs::remove_file(&entry)
            .map_err(|error| SensorError::file(&entry, "removing this pin", error))?;
    }
    std::fs::remove_dir(path).map_err(|error| SensorError::file(path, "removing it", error))
}
