//! Maps and links of a generation, held open. What is pinned may be unpinned by whoever is root, where the kernel has no programs that
//! refuse it: while the agent lives nothing is detached by that, and the pins come back.

use super::error::SensorError;
use super::pins::{self, Generation};
use aya::maps::MapData;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_programs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) struct Held {
    generation: Generation,
    maps: Vec<(PathBuf, MapData)>,
    /// A link is absent only when it couldn't be pinned again: whoever learns that ends.
    links: Vec<(PathBuf, Option<FdLink>)>,
    /// By name, e.g. for asking how often the kernel skipped one.
    pub(super) programs: BTreeMap<String, ProgramInfo>,
}

impl Held {
    /// All that a generation has pinned.
    pub(super) fn open(generation: &Generation) -> Result<Held, SensorError> {
        let mut maps = Vec::new();
        for path in pins::entries(&generation.maps())? {
            let map = MapData::from_pin(&path).map_err(|error| opening(&path, error))?;
            maps.push((path, map));
        }
        let mut links = Vec::new();
        let mut names = BTreeMap::new();
        for path in pins::entries(&generation.links())? {
            let link = FdLink::from(PinnedLink::from_pin(&path).map_err(|error| opening(&path, error))?);
            let info = link.info().map_err(|error| opening(&path, error))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            names.insert(info.program_id(), name);
            links.push((path, Some(link)));
        }
        let named = |info: ProgramInfo| Some((names.get(&info.id())?.clone(), info));
        // Programs of others come and go while they are listed.
        let programs = loaded_programs().filter_map(Result::ok).filter_map(named).collect();
        Ok(Held { generation: generation.clone(), maps, links, programs })
    }

    /// Pins again what is no longer pinned, below `pins`; gives how much that was.
    ///
    /// # Errors
    /// It can't be pinned: whoever holds this must end, so that sessions end too.
    pub(super) fn put_back(&mut self, pins: &Path) -> Result<usize, SensorError> {
        let gone = |path: &Path| !path.exists();
        let paths = self.maps.iter().map(|(path, _)| path).chain(self.links.iter().map(|(path, _)| path));
        let missing = paths.filter(|path| gone(path)).count();
        if missing == 0 {
            return Ok(0);
        }
        pins::prepare(pins)?;
        self.generation.create()?;
        for (path, map) in self.maps.iter().filter(|(path, _)| gone(path)) {
            map.pin(path).map_err(|error| pinning(path, error))?;
        }
        for (path, link) in self.links.iter_mut().filter(|(path, _)| gone(path)) {
            if let Some(held) = link.take() {
                *link = Some(held.pin(&*path).map_err(|error| pinning(path, error))?.into());
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
