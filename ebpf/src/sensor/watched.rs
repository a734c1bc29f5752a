//! Which files the file sensors tell of, and which are the agent's own: the kernel knows them by device and inode, so every way to them
//! counts.

use super::error::SensorError;
use super::files::{FileId, devices, identify};
use super::layout::{lies, watched_key};
use super::load::open_map;
use super::pins::Generation;
use super::record::put;
use crate::host;
use aya::maps::{HashMap, MapData};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

type Key = [u8; watched_key::SIZE];

/// What the kernel's list has room for (`watched_files` of path.h).
const WATCHED_MAX: usize = 1_024;

/// What the kernel is to know of files, as their paths were looked up last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched(BTreeMap<Key, u32>);

impl Watched {
    /// Looks paths up: whose opens and changes are told, and the agent's own, which no session gets at. Those that don't exist are left
    /// out, as are those to watch that lead nowhere: whoever may write to a home makes a link in it that leads to itself.
    ///
    /// # Errors
    /// A path of the agent's own can't be looked up.
    pub fn look(watched: &[PathBuf], own: &[PathBuf]) -> Result<Watched, SensorError> {
        let devices = devices();
        // The machine's files, and in a container the agent's own where it has them itself.
        let watched = watched.iter().map(|path| (path, host::find(path), lies::WATCHED));
        let own = own.iter().map(|path| (path, host::find_ours(path), lies::OWN));
        let keys = watched.chain(own).map(|(path, found, lies)| {
            let file = found.and_then(|found| identify(&found, &devices));
            if lies == lies::WATCHED && file.is_err() {
                return Ok(None);
            }
            Ok(key(path, file)?.map(|key| (key, lies)))
        });
        keys.filter_map(Result::transpose).collect::<Result<_, _>>().map(Watched)
    }

    /// These and those, where there is anything new among those. Where that would be too many, what has lost its path isn't among them
    /// any more: a file that is replaced again and again.
    pub(super) fn and(&self, those: &Watched) -> Option<Watched> {
        let is_new = |(key, lies): (&Key, &u32)| self.0.get(key) != Some(lies);
        those.0.iter().any(is_new).then(|| {
            let mut both = self.clone();
            both.0.extend(&those.0);
            if both.0.len() > WATCHED_MAX { those.clone() } else { both }
        })
    }

    /// Makes the kernel's list that of these.
    pub(super) fn set(&self, generation: &Generation) -> Result<(), SensorError> {
        let failed = |error| SensorError::kernel("setting the files to watch (1,024 is the most)", error);
        let mut map: HashMap<MapData, Key, u32> = open_map(generation, "watched_files")?;
        // First, so that there is room for the new ones.
        let others = map.keys().filter_map(Result::ok).filter(|key| !self.0.contains_key(key));
        others.collect::<Vec<Key>>().iter().try_for_each(|key| map.remove(key)).map_err(failed)?;
        self.0.iter().try_for_each(|(key, lies)| map.insert(key, lies, 0)).map_err(failed)
    }
}

fn key(path: &Path, file: io::Result<FileId>) -> Result<Option<Key>, SensorError> {
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SensorError::file(path, "looking up what to watch", error)),
    };
    let mut key = [0; watched_key::SIZE];
    put(&mut key, watched_key::INODE, &file.inode.to_ne_bytes());
    put(&mut key, watched_key::DEVICE, &file.device.to_ne_bytes());
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Whoever may write to a home could keep the agent from starting, or from following any other path.
    #[test]
    fn a_path_that_leads_nowhere_keeps_no_other_from_being_watched() {
        let folder = tempfile::tempdir().unwrap();
        let (itself, file) = (folder.path().join("itself"), folder.path().join("file"));
        symlink(&itself, &itself).unwrap();
        std::fs::File::create(&file).unwrap();
        let watched = [itself.clone(), file.join("below"), file];
        assert_eq!(Watched::look(&watched, &[]).unwrap().0.len(), 1);
        assert!(Watched::look(&watched, &[itself]).is_err(), "its own files are where it says");
    }

    #[test]
    fn what_has_lost_its_path_goes_when_there_are_too_many() {
        let of = |numbers: std::ops::Range<usize>| {
            let key = |number: usize| {
                let mut key = Key::default();
                put(&mut key, 0, &number.to_ne_bytes());
                key
            };
            Watched(numbers.map(|number| (key(number), lies::WATCHED)).collect())
        };
        assert_eq!(of(0..9).and(&of(3..5)), None, "nothing is new");
        assert_eq!(of(0..9).and(&of(5..12)), Some(of(0..12)));
        assert_eq!(of(0..WATCHED_MAX).and(&of(500..1_600)), Some(of(500..1_600)));
    }
}
