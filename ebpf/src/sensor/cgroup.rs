//! Where the root of cgroup2 is: on hybrid systems not at /sys/fs/cgroup.

use super::error::SensorError;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const MOUNTS: &str = "/proc/self/mountinfo";

/// The inode of cgroup2's own root, as the kernel numbers it (`kernfs_create_root`). That of a container is another one, though its
/// namespace calls it `/`: what is attached there judges the container alone.
const ROOT_INODE: u64 = 1;

/// A directory where the root of cgroup2 is mounted.
pub(crate) fn root() -> Result<PathBuf, SensorError> {
    let mounts =
        std::fs::read(MOUNTS).map_err(|error| SensorError::file(Path::new(MOUNTS), "reading it", error))?;
    let mounted = find(&String::from_utf8_lossy(&mounts));
    let is_root = |at: &PathBuf| std::fs::metadata(at).is_ok_and(|about| about.ino() == ROOT_INODE);
    let why = if mounted.is_empty() {
        "it isn't mounted: mount -t cgroup2 none DIRECTORY"
    } else {
        "only a part of it is mounted: in a container give the agent the machine's (--cgroupns host)"
    };
    mounted.into_iter().find(is_root).ok_or_else(|| SensorError::Kernel {
        what: "finding the root of cgroup2".to_owned(),
        why: why.to_owned(),
    })
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS … - TYPE SOURCE OPTIONS`
///
/// Those that call themselves the root first.
fn find(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<(&str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, at) = (fields.next()?, fields.next()?);
            (kind.split(' ').next() == Some("cgroup2")).then_some((root, at))
        })
        .collect();
    found.sort_by_key(|(root, _)| *root != "/");
    found.into_iter().map(|(_, at)| PathBuf::from(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::path::Path;

    #[test]
    fn the_root_of_cgroup2_is_found_wherever_it_is_mounted() {
        let hybrid = "25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      26 24 0:23 /x /mnt/part rw - cgroup2 cgroup2 rw\n\
                      27 24 0:23 / /sys/fs/cgroup/unified rw shared:3 - cgroup2 cgroup2 rw\n";
        assert_eq!(find(hybrid), [Path::new("/sys/fs/cgroup/unified"), Path::new("/mnt/part")]);
        assert!(find("25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n").is_empty());
        assert!(find("garbage\n\n - \n").is_empty());
    }
}
