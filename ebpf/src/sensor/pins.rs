//! Where programs, links and maps stay when the agent is gone: a directory of a bpffs, with one directory for each generation of them.
//! A generation is named by what it was made of, so that the same build finds its own again.

use super::error::SensorError;
use rustix::fs::{FsWord, statfs};
use rustix::mount::{MountFlags, mount};
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
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
        self.maps().join(name)
    }

    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.directory.join("maps")
    }

    pub(super) fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    pub(super) fn create(&self) -> Result<(), SensorError> {
        for path in [self.maps(), self.links()] {
            std::fs::create_dir_all(&path).map_err(|error| SensorError::file(&path, "creating it", error))?;
        }
        Ok(())
    }

    /// Detaches what is attached and forgets it all. Links go first: a program without its maps' pins still runs.
    pub(super) fn remove(&self) -> Result<(), SensorError> {
        remove_directory(&self.links())?;
        remove_directory(&self.maps())?;
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
        remove_directory(&self.links())
    }

    pub(super) fn exists(&self) -> bool {
        self.directory.is_dir()
    }
}

/// The generations that stand below `pins`.
pub(super) fn generations(pins: &Path) -> Result<Vec<Generation>, SensorError> {
    let id = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("generation-")?;
        u64::from_str_radix(name, 16).ok()
    };
    Ok(entries(pins)?.iter().filter_map(id).map(|id| Generation::new(pins, id)).collect())
}

/// Programs that are tried out for a moment, to choose a tier.
pub(super) const TRIAL: &str = "trial-";
/// The same, to say what the kernel supports.
pub(super) const PROBE: &str = "probe-";

/// Where this process tries programs out ([`TRIAL`], [`PROBE`]), beside what is pinned below `pins`.
pub(super) fn aside(pins: &Path, what: &str) -> PathBuf {
    pins.join(format!("{what}{}", std::process::id()))
}

/// Takes away what processes that were killed while they tried programs out have left: it would run on, for nobody.
pub(super) fn sweep(pins: &Path) -> Result<(), SensorError> {
    let owner = |path: &PathBuf| -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        [TRIAL, PROBE].iter().find_map(|what| name.strip_prefix(what))?.parse().ok()
    };
    for path in entries(pins)? {
        let Some(owner) = owner(&path) else { continue };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        // What else has such a name on a bpffs that many share is left alone.
        for generation in generations(&path)? {
            generation.remove_with_parent()?;
        }
    }
    Ok(())
}

/// Makes sure that `pins` is a directory of a bpffs, where nobody else looks in; mounts one where none is.
pub(super) fn prepare(pins: &Path) -> Result<(), SensorError> {
    if !on_bpffs(pins) {
        let at = if pins.starts_with(USUAL) { Path::new(USUAL) } else { pins };
        std::fs::create_dir_all(at)
            .map_err(|error| SensorError::file(at, "creating a directory to mount a bpffs at", error))?;
        mount("bpf", at, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None).map_err(
            |error| SensorError::file(at, "mounting a bpffs (mount -t bpf bpf PATH)", error.into()),
        )?;
    }
    std::fs::create_dir_all(pins).map_err(|error| SensorError::file(pins, "creating it", error))?;
    // Whoever can open it can lock it, and so keep the agent from starting. Where all have theirs it isn't ours to close.
    if pins != Path::new(USUAL)
        && let Err(error) = std::fs::set_permissions(pins, Permissions::from_mode(0o700))
    {
        tracing::warn!("{}: others can look in there, and lock it: {error}", pins.display());
    }
    Ok(())
}

fn on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .is_some_and(|ancestor| statfs(ancestor).is_ok_and(|stat| stat.f_type == BPFFS))
}

/// Removes a directory and the pins in it, which are all files.
fn remove_directory(path: &Path) -> Result<(), SensorError> {
    for entry in entries(path)? {
        std::fs::remove_file(&entry)
            .map_err(|error| SensorError::file(&entry, "removing this pin", error))?;
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(SensorError::file(path, "removing it", error))
        }
        _ => Ok(()),
    }
}

/// What is in a directory; nothing where there is none.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, SensorError> {
    let failed = |error| SensorError::file(directory, "listing it", error);
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}
