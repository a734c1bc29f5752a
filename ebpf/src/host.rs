//! The machine as its first process has it, where the agent is in a container.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use uuid::Uuid;

/// The root directory of the first process; `None`: we may not go there.
static ROOT: LazyLock<Option<&Path>> = LazyLock::new(|| {
    let root = Path::new("/proc/1/root");
    root.join("proc").exists().then_some(root)
});

/// The initial namespace of process ids has this name in all kernels (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Where a file of the machine is for us: below the first process's root, if we may go there.
pub fn path(of: &Path) -> PathBuf {
    match (*ROOT, of.strip_prefix("/")) {
        (Some(root), Ok(inside)) => root.join(inside),
        _ => of.to_owned(),
    }
}

/// Which start of the machine this is: no two have the same.
///
/// # Errors
/// The system's.
pub fn boot() -> std::io::Result<Uuid> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    text.trim().parse().map_err(std::io::Error::other)
}

/// Whether process ids are the kernel's own here; `None`: that can't be told.
pub fn has_all_processes() -> Option<bool> {
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(namespace == Path::new(FIRST_PID_NAMESPACE))
}
