//! The machine as its first process has it, where the agent is in a container.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, open, openat2, statx};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use uuid::Uuid;

/// The root directory of the first process; `None`: it is ours too, or we may not go there.
static ROOT: LazyLock<Option<&Path>> = LazyLock::new(|| {
    let root = Path::new("/proc/1/root");
    (root.join("proc").exists() && !is_ours(root)).then_some(root)
});

/// How often finding is begun anew: the kernel can't follow `..` while anything on the machine is being renamed.
const TRIES_MAX: usize = 1_000;

fn is_ours(root: &Path) -> bool {
    let which = |root: &Path| {
        let stat = statx(CWD, root, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID).ok()?;
        Some((stat.stx_mnt_id, stat.stx_ino))
    };
    which(root).is_some_and(|root| which(Path::new("/")) == Some(root))
}

/// The initial namespace of process ids has this name in all kernels (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Where a file of the machine is for us: below the first process's root, if we may go there.
pub fn path(of: &Path) -> PathBuf {
    match (*ROOT, of.strip_prefix("/")) {
        (Some(root), Ok(inside)) => root.join(inside),
        _ => of.to_owned(),
    }
}

/// A file of the machine, to be asked about and not opened yet: as its first process would find it. Where symbolic links on
/// the way say an absolute path, that is one of the machine, and never of our own container.
///
/// # Errors
/// The system's.
pub fn find(path: &Path) -> io::Result<OwnedFd> {
    match *ROOT {
        Some(root) => find_below(root, path),
        None => find_ours(path),
    }
}

/// The same of our own files, where we are in a container.
///
/// # Errors
/// The system's.
pub fn find_ours(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn find_below(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = find_ours(root)?;
    let find = || openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    let mut tries = std::iter::repeat_with(find).take(TRIES_MAX);
    Ok(tries.find(|found| !matches!(found, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN))?)
}

/// A path at which what was found can be opened, whatever takes its name meanwhile.
pub fn again(found: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", found.as_raw_fd()).into()
}

/// Which start of the machine this is: no two have the same.
///
/// # Errors
/// The system's.
pub fn boot() -> io::Result<Uuid> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    text.trim().parse().map_err(io::Error::other)
}

/// The number of the first process's mount namespace, or of ours where we may not ask for that; `None`: neither can be told.
pub fn mounts() -> Option<u32> {
    let link = ["1", "self"].into_iter().find_map(|of| std::fs::read_link(format!("/proc/{of}/ns/mnt")).ok());
    link?.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether process ids are the kernel's own here; `None`: that can't be told.
pub fn has_all_processes() -> Option<bool> {
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(namespace == Path::new(FIRST_PID_NAMESPACE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_the_machines_files_and_not_out_of_it() {
        let root = tempfile::tempdir().unwrap();
        let inside = |name: &str| root.path().join(name);
        std::fs::create_dir(inside("etc")).unwrap();
        std::fs::File::create(inside("etc/hostname")).unwrap();
        symlink("/etc/hostname", inside("absolute")).unwrap();
        symlink("../../../../../../etc/hostname", inside("etc/upwards")).unwrap();
        symlink("/etc/only-outside", inside("nowhere")).unwrap();
        let real = inside("etc/hostname").canonicalize().unwrap();
        for path in ["/absolute", "/etc/upwards", "/etc/hostname"] {
            let found = find_below(root.path(), Path::new(path)).unwrap();
            assert_eq!(std::fs::read_link(again(&found)).unwrap(), real, "{path}");
        }
        let none = find_below(root.path(), Path::new("/nowhere")).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }
}
