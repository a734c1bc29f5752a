//! Where the root of cgroup2 is: on hybrid systems not at /sys/fs/cgroup.

use super::error::SensorError;
use std::path::{Path, PathBuf};

const MOUNTS: &str = "/proc/self/mountinfo";

/// The directory where cgroup2 is mounted, its root if several are.
pub(crate) fn root() -> Result<PathBuf, SensorError> {
    let mounts =
        std::fs::read(MOUNTS).map_err(|error| SensorError::file(Path::new(MOUNTS), "reading it", error))?;
    find(&String::from_utf8_lossy(&mounts)).ok_or_else(|| SensorError::Kernel {
        what: "finding cgroup2".to_owned(),
        why: "it isn't mounted: mount -t cgroup2 none DIRECTORY".to_owned(),
    })
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS … - TYPE SOURCE OPTIONS`
fn find(mounts: &str) -> Option<PathBuf> {
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
    found.first().map(|(_, at)| PathBuf::from(at))
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
        assert_eq!(find(hybrid).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(find("25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
        assert_eq!(find("garbage\n\n - \n"), None);
    }
}
