//! The power fails after each step: what then is on a disk that keeps nothing that nobody synced.

use super::*;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

/// The real disk, which remembers what was synced: contents by inode, names by directory.
#[derive(Debug, Default)]
struct Remembering {
    contents: Mutex<HashMap<u64, Vec<u8>>>,
    names: Mutex<BTreeMap<String, u64>>,
}

impl Remembering {
    /// Another place, with what a loss of power would leave of this one.
    fn after_power_loss(&self) -> Place {
        let place = Place::new();
        std::fs::create_dir_all(&place.directory).unwrap();
        let contents = self.contents.lock().unwrap();
        for (name, inode) in &*self.names.lock().unwrap() {
            put(&place.directory.join(name), contents.get(inode).map_or(&[], Vec::as_slice));
        }
        place
    }
}

impl Disk for Remembering {
    fn create(&self, path: &Path) -> io::Result<File> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        RealDisk.open(path)
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDisk.write_at(file, bytes, offset)
    }
    fn read(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        RealDisk.read(path, offset, bytes_max)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        let bytes = std::fs::read(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        self.contents.lock().unwrap().insert(file.metadata()?.ino(), bytes);
        Ok(())
    }
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        RealDisk.truncate(file, length)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut names = BTreeMap::new();
        for item in std::fs::read_dir(directory)? {
            let item = item?;
            names.insert(item.file_name().into_string().unwrap(), item.metadata()?.ino());
        }
        *self.names.lock().unwrap() = names;
        Ok(())
    }
}

#[test]
fn what_was_appended_survives_the_loss_of_power_and_what_was_acknowledged_leaves_no_gap() {
    let place = Place::new();
    let disk = Arc::new(Remembering::default());
    let (mut spool, _) = place.open_on(disk.clone()).unwrap();
    for round in 0..60 {
        append(&mut spool, round % 3 + 1).unwrap();
        if round % 4 == 3 {
            spool.acknowledge(spool.next() - round % 5);
        }
        if round % 7 == 6 {
            drop(spool);
            (spool, _) = place.open_on(disk.clone()).unwrap();
        }
        let lost = disk.after_power_loss();
        let (after, recovery) = lost.open();
        let what = format!("round {round}");
        assert!(after.first() <= spool.first(), "{what}");
        assert_eq!((recovery.missing, recovery.cut_bytes), (0, 0), "{what}");
        assert_holds(&after, after.first()..spool.next(), &what);
    }
}
