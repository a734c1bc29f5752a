//! What processes cost, as /proc tells it (proc(5)).

use custody_tests::process::descendants;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

/// What /proc counts processor time in.
static TICKS_PER_SECOND: LazyLock<f64> = LazyLock::new(|| {
    let output = Command::new("getconf").arg("CLK_TCK").output().expect("getconf");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
});

/// Processor seconds of a process, its descendants, and those that have ended and were waited for.
pub fn processor_seconds(pid: u32) -> f64 {
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything. After it the state is field 3, utime to cstime are 14 to 17.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(4).map(|ticks| ticks.parse::<u64>().ok());
        ticks.sum::<Option<u64>>()
    };
    tree(pid).filter_map(ticks).sum::<u64>() as f64 / *TICKS_PER_SECOND
}

/// How long a thread of this process was on a core.
pub fn thread_time(name: &str) -> Option<Duration> {
    let is_named =
        |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let task = tasks.flatten().map(|task| task.path()).find(is_named)?;
    let times = std::fs::read_to_string(task.join("schedstat")).ok()?;
    times.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Memory of a process and its descendants, KiB, with their shares of what they share with others.
pub fn memory_kib(pid: u32) -> f64 {
    let memory = |pid: u32| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        pss.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    tree(pid).filter_map(memory).sum()
}

/// Memory of one process that lies in the machine's, KiB: now, and the most there ever was.
pub fn resident_kib(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    (field("VmRSS:").unwrap_or(0.0), field("VmHWM:").unwrap_or(0.0))
}

/// The process with that name, a thread of the kernel for example.
pub fn named(name: &str) -> Option<u32> {
    let is_named = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_named)
}

/// Bytes that a process has read so far, from whatever.
pub fn read_bytes(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0)
}

/// Whether a process has no descendants.
pub fn childless(pid: u32) -> bool {
    descendants(pid).is_empty()
}

fn tree(pid: u32) -> impl Iterator<Item = u32> {
    std::iter::once(pid).chain(descendants(pid))
}
