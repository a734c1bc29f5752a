//! The machine as its first process has it, where the agent is in a container.

use std::path::{Path, PathBuf};

/// The root directory of the first process.
const ROOT: &str = "/proc/1/root";

/// The initial namespace of process ids has this name in all kernels (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Where a file of the machine is for us: below the first process's root, if we may go there.
pub fn path(of: &Path) -> PathBuf {
    let inside = of.strip_prefix("/").map(|inside| Path::new(ROOT).join(inside));
    match inside {
        Ok(inside) if Path::new(ROOT).join("proc").exists() => inside,
        _ => of.to_owned(),
    }
}

/// Whether process ids are the kernel's own here; `None`: that can't be told.
pub fn has_all_processes() -> Option<bool> {
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(namespace == Path::new(FIRST_PID_NAMESPACE))
}
