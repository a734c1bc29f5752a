//! Maps and links of a generation, held open. What is pinned may be unpinned by whoever is root, where the kernel has no programs that
//! refuse it: while the agent lives nothing is detached by that, and the pins come back.

use super::error::SensorError;
use super::lock::Lock;
use super::pins::{self, Generation};
use aya::maps::MapData;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_programs};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A pin by its path.
struct Pin {
    path: PathBuf,
    /// Which file it is: another one may have its name by now.
    file: Option<FileNumber>,
}

/// Device and inode.
type FileNumber = (u64, u64);

impl Pin {
    fn at(path: PathBuf) -> Pin {
        Pin { file: number(&path), path }
    }

    /// Nothing is there any more, or something else.
    fn is_gone(&self) -> bool {
        let found = number(&self.path);
        found.is_none() || found != self.file
    }

    /// Makes room for what it was.
    fn clear(&self) -> Result<(), SensorError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(SensorError::file(&self.path, "removing what took the place of a pin", error))
            }
            _ => Ok(()),
        }
    }
}

/// Links aren't followed: a pin is none.
fn number(path: &Path) -> Option<FileNumber> {
    std::fs::symlink_metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

pub(super) struct Held {
    generation: Generation,
    maps: Vec<(Pin, MapData)>,
    /// A link is absent only when it couldn't be pinned again: whoever learns that ends.
    links: Vec<(Pin, Option<FdLink>)>,
    /// By name, e.g. for asking how often the kernel skipped one.
    pub(super) programs: BTreeMap<String, ProgramInfo>,
}

impl Held {
    /// All that a generation has pinned.
    pub(super) fn open(generation: &Generation) -> Result<Held, SensorError> {
        let mut maps = Vec::new();
        for path in pins::entries(&generation.maps())? {
            let map = MapData::from_pin(&path).map_err(|error| opening(&path, error))?;
            maps.push((Pin::at(path), map));
        }
        let mut links = Vec::new();
        let mut names = BTreeMap::new();
        for path in pins::entries(&generation.links())? {
            let link = FdLink::from(PinnedLink::from_pin(&path).map_err(|error| opening(&path, error))?);
            let info = link.info().map_err(|error| opening(&path, error))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            names.insert(info.program_id(), name);
            links.push((Pin::at(path), Some(link)));
        }
        let named = |info: ProgramInfo| Some((names.get(&info.id())?.clone(), info));
        // Programs of others come and go while they are listed.
        let programs = loaded_programs().filter_map(Result::ok).filter_map(named).collect();
        Ok(Held { generation: generation.clone(), maps, links, programs })
    }

    /// Pins again what is no longer pinned, below `pins`, of which this process has the lock; gives how much that was.
    ///
    /// # Errors
    /// It can't be pinned, or another agent has its pins there by now: whoever holds this must end, so that sessions end too.
    pub(super) fn put_back(&mut self, pins: &Path, lock: &mut Lock) -> Result<usize, SensorError> {
        let held = self.maps.iter().map(|(pin, _)| pin).chain(self.links.iter().map(|(pin, _)| pin));
        let missing = held.filter(|pin| pin.is_gone()).count();
        if missing == 0 {
            return Ok(0);
        }
        pins::prepare(pins)?;
        lock.follow(pins)?;
        self.generation.create()?;
        for (pin, map) in self.maps.iter_mut().filter(|(pin, _)| pin.is_gone()) {
            pin.clear()?;
            map.pin(&pin.path).map_err(|error| pinning(&pin.path, error))?;
            pin.file = number(&pin.path);
        }
        for (pin, link) in self.links.iter_mut().filter(|(pin, _)| pin.is_gone()) {
            if let Some(held) = link.take() {
                pin.clear()?;
                *link = Some(held.pin(&pin.path).map_err(|error| pinning(&pin.path, error))?.into());
                pin.file = number(&pin.path);
            }
        }
        Ok(missing)
    }
}

fn opening(path: &Path, error: impl std::error::Error) -> SensorError {
    SensorError::kernel(format!("opening the pin {}", path.display()), error)
}

fn pinning(path: &Path, error: impl std::error::Error) -> SensorError {
    SensorError::kernel(format!("pinning {} again, which somebody has removed", path.display()), error)
}
