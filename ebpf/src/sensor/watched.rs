//! Which files the file sensors tell of: the kernel knows them by device and inode, so every way to them counts.

use super::error::SensorError;
use super::files::{devices, identify};
use super::layout::watched_key;
use super::load::open_map;
use super::pins::Generation;
use super::record::put;
use crate::host;
use aya::maps::{HashMap, MapData};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

type Key = [u8; watched_key::SIZE];

/// Makes the kernel's list that of `paths`; those that don't exist are left out until the next start.
pub(super) fn set(generation: &Generation, paths: &[PathBuf]) -> Result<(), SensorError> {
    let mut map: HashMap<MapData, Key, u32> = open_map(generation, "watched_files")?;
    let mut wanted = Vec::new();
    let devices = devices();
    for path in paths {
        wanted.extend(key(path, &devices)?);
    }
    for key in &wanted {
        map.insert(key, 1, 0)
            .map_err(|error| SensorError::kernel("setting the files to watch (1,024 is the most)", error))?;
    }
    let old: Vec<Key> = map.keys().filter_map(Result::ok).filter(|key| !wanted.contains(key)).collect();
    for key in old {
        map.remove(&key).map_err(|error| SensorError::kernel("setting the files to watch", error))?;
    }
    Ok(())
}

fn key(path: &Path, devices: &BTreeMap<u64, u32>) -> Result<Option<Key>, SensorError> {
    let file = match identify(&host::path(path), devices) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SensorError::file(path, "looking up what to watch", error)),
    };
    let mut key = [0; watched_key::SIZE];
    put(&mut key, watched_key::INODE, &file.inode.to_ne_bytes());
    put(&mut key, watched_key::DEVICE, &file.device.to_ne_bytes());
    Ok(Some(key))
}
