//! How much there was to tell, and how much of it couldn't be told.

use super::error::SensorError;
use super::layout::kind;
use super::load::open_map;
use super::pins::Generation;
use super::programs::PARTS;
use crate::host;
use aya::maps::{MapData, PerCpuArray};
use aya::programs::ProgramInfo;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Counts since the maps were made, by kind (`layout::kind`). For each kind: `seen` = records read + `lost` + those still in the ring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// What happened in sessions.
    pub seen: BTreeMap<u16, u64>,
    /// What couldn't be told, since the ring was full or memory short.
    pub lost: BTreeMap<u16, u64>,
    /// How often the kernel skipped a program because it was already running on that CPU, in sessions or outside; by program. Not of
    /// one that has a twin, which runs then.
    pub skipped: BTreeMap<String, u64>,
    /// Which counts these are.
    pub since: Since,
}

/// Whose counts they are: with another map, another program or another start of the machine they began anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Since {
    /// Which start of the machine it is.
    pub boot: Uuid,
    /// The number of the map that counts what is lost.
    pub map: u32,
    /// The number of each program.
    pub programs: BTreeMap<String, u32>,
}

pub(super) struct Counts {
    seen: PerCpuArray<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    boot: Uuid,
    map: u32,
}

impl Counts {
    pub(super) fn open(generation: &Generation) -> Result<Counts, SensorError> {
        let path = generation.map("lost");
        let map = MapData::from_pin(&path)
            .and_then(|map| map.info())
            .map_err(|error| SensorError::kernel(format!("asking about {}", path.display()), error))?;
        let boot = host::boot().map_err(|error| {
            SensorError::file(Path::new("/proc/sys/kernel/random/boot_id"), "reading it", error)
        })?;
        let (seen, lost) = (open_map(generation, "seen")?, open_map(generation, "lost")?);
        Ok(Counts { seen, lost, boot, map: map.id() })
    }

    /// The counts so far; of `programs`, all that are attached, how often they were skipped.
    pub(super) fn read(&self, programs: &BTreeMap<String, ProgramInfo>) -> Result<Counters, SensorError> {
        let mut skipped = BTreeMap::new();
        for (name, program) in programs {
            let twin = PARTS.iter().find(|part| part.program == name).and_then(|part| part.twin);
            if twin.is_some_and(|twin| programs.contains_key(twin)) {
                continue;
            }
            skipped.insert(name.clone(), skips(name, program)?);
        }
        let numbers = programs.iter().map(|(name, program)| (name.clone(), program.id())).collect();
        let since = Since { boot: self.boot, map: self.map, programs: numbers };
        Ok(Counters { seen: sums(&self.seen)?, lost: sums(&self.lost)?, skipped, since })
    }
}

fn sums(counts: &PerCpuArray<MapData, u64>) -> Result<BTreeMap<u16, u64>, SensorError> {
    let mut sums = BTreeMap::new();
    for (number, _) in kind::NAMES {
        let values = counts
            .get(&u32::from(number), 0)
            .map_err(|error| SensorError::kernel("reading the counters", error))?;
        sums.insert(number, values.iter().sum());
    }
    Ok(sums)
}

/// The kernel tells it in the fdinfo of a program.
fn skips(name: &str, program: &ProgramInfo) -> Result<u64, SensorError> {
    let failed = |error| SensorError::kernel(format!("asking about the program {name}"), error);
    let fd = program.fd().map_err(failed)?;
    let path = PathBuf::from(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()));
    let text =
        std::fs::read_to_string(&path).map_err(|error| SensorError::file(&path, "reading it", error))?;
    let count = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
    // Kernels before 5.12 don't count it.
    Ok(count.and_then(|count| count.trim().parse().ok()).unwrap_or_default())
}
