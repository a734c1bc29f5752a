//! SHA-256 of program files, each read once as long as it stays as it is.

use crate::host;
use custody_core::event::hex::to_hex;
use rustix::fs::{Stat, fstat, major, minor, stat};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// How many files are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 4_096;

/// A longer file isn't read: hashing it would hold up the evidence of others; bytes.
const FILE_BYTES_MAX: i64 = 256 << 20;

/// Which file it is, and how it is.
type State = (u64, u64, i64, i64, i64);

/// What is known of program files.
#[derive(Debug, Default)]
pub struct Hashes(BTreeMap<State, String>);

impl Hashes {
    /// SHA-256 of the file that process `pid` runs, in hex, if it is still the one with that device (major, minor) and
    /// inode; it is looked for by the process, and by its path. One that is known by its path isn't opened.
    pub fn of(&mut self, pid: u32, path: &Path, device: (u32, u32), inode: u64) -> Option<String> {
        let path = &host::path(path);
        if let Some(known) = stat(path).ok().and_then(|stat| self.known(&stat, device, inode)) {
            return Some(known);
        }
        let by_process = File::open(format!("/proc/{pid}/exe")).ok();
        let by_process = by_process.and_then(|file| self.of_file(file, device, inode));
        by_process.or_else(|| self.of_file(File::open(path).ok()?, device, inode))
    }

    fn of_file(&mut self, mut file: File, device: (u32, u32), inode: u64) -> Option<String> {
        let stat = fstat(&file).ok()?;
        if !is(&stat, device, inode) || stat.st_size > FILE_BYTES_MAX {
            return None;
        }
        if let Some(known) = self.known(&stat, device, inode) {
            return Some(known);
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match file.read(&mut buffer).ok()? {
                0 => break,
                count => hash.update(buffer.get(..count)?),
            }
        }
        let hash = to_hex(&hash.finalize());
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert(state(&stat), hash.clone());
        Some(hash)
    }

    fn known(&self, stat: &Stat, device: (u32, u32), inode: u64) -> Option<String> {
        self.0.get(&state(stat)).filter(|_| is(stat, device, inode)).cloned()
    }
}

fn is(stat: &Stat, device: (u32, u32), inode: u64) -> bool {
    (major(stat.st_dev), minor(stat.st_dev)) == device && stat.st_ino == inode
}

fn state(stat: &Stat) -> State {
    // Whoever writes to a file changes its ctime, which nobody can set.
    let changed = stat.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(stat.st_ctime_nsec.cast_signed());
    (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_file_is_hashed_if_it_is_that_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::io::Write::write_all(&mut File::create(&path).unwrap(), b"abc").unwrap();
        let about = std::fs::metadata(&path).unwrap();
        let device = (major(about.dev()), minor(about.dev()));
        let mut hashes = Hashes::default();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let none = u32::MAX;
        assert_eq!(hashes.of(none, &path, device, about.ino()).as_deref(), Some(abc));
        assert_eq!(hashes.of(none, &path, device, about.ino()).as_deref(), Some(abc));
        assert_eq!(hashes.of(none, &path, device, about.ino() + 1), None, "another file took its name");
        assert_eq!(hashes.of(none, &directory.path().join("gone"), device, about.ino()), None);
    }
}
