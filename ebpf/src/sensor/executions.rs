//! Since when processes of sessions run what they run now, as the programs have it.

use super::error::SensorError;
use super::layout::tag;
use super::pins::Generation;
use super::record::read_u64;
use aya::maps::{HashMap, Map, MapData, MapError};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsRawFd as _;

/// The storage of the sessions' tasks, to be asked.
#[derive(Debug)]
pub struct Executions(HashMap<MapData, i32, [u8; tag::SIZE]>);

impl Executions {
    pub(super) fn open(generation: &Generation) -> Result<Executions, SensorError> {
        let path = generation.map("tags");
        let failed =
            |error: MapError| SensorError::kernel(format!("opening the map {}", path.display()), error);
        let data = MapData::from_pin(&path).map_err(failed)?;
        // The library has no type for the storage of tasks. It is read like a hash table, by a descriptor of the process (pidfd).
        let map = HashMap::<MapData, i32, [u8; tag::SIZE]>::try_from(Map::HashMap(data)).map_err(failed)?;
        Ok(Executions(map))
    }

    /// When a process began the program that it has executed last, in boottime ns, as that one's record tells it; `None`: it is gone, or
    /// of no session.
    pub fn latest(&self, pid: u32) -> Option<u64> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let value = self.0.get(&process.as_raw_fd(), 0).ok()?;
        read_u64(&value, tag::EXECUTED)
    }
}
