//! Which cores what runs on, where the far end is to have some of its own, as it would on another machine.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use std::sync::LazyLock;

/// With `CUSTODY_BENCH_APART` stores have cores of their own beside what delivers, and custodyd beside the node.
pub static APART: LazyLock<Option<Cores>> =
    LazyLock::new(|| std::env::var_os("CUSTODY_BENCH_APART").map(|_| Cores::divide()));

/// The lower half of the cores is the far end's, the upper half is for what is measured; threads and processes that are
/// begun from here on stay where they were begun.
pub struct Cores {
    far: CpuSet,
    ours: CpuSet,
}

/// Begins a far end, on cores of its own if it is to have them.
pub fn begun<T>(begin: impl FnOnce() -> T) -> T {
    match &*APART {
        Some(cores) => cores.begin(begin),
        None => begin(),
    }
}

impl Cores {
    /// Takes this thread to the upper half.
    fn divide() -> Self {
        let all = sched_getaffinity(None).expect("the cores of this thread");
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        assert!(cores.len() > 1, "one core can't be divided");
        let set = |cores: &[usize]| {
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core));
            set
        };
        let (far, ours) = cores.split_at(cores.len() / 2);
        let divided = Self { far: set(far), ours: set(ours) };
        stay(None, &divided.ours);
        divided
    }

    fn begin<T>(&self, begin: impl FnOnce() -> T) -> T {
        stay(None, &self.far);
        let begun = begin();
        stay(None, &self.ours);
        begun
    }

    /// Takes a process that runs to the far end's cores.
    pub fn send(&self, process: u32) {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
        for thread in threads {
            let id = thread.expect("an entry of /proc").file_name().into_string().ok();
            let id = id.and_then(|id| id.parse().ok()).and_then(Pid::from_raw).expect("a thread's number");
            stay(Some(id), &self.far);
        }
    }
}

fn stay(thread: Option<Pid>, cores: &CpuSet) {
    sched_setaffinity(thread, cores).expect("cores that this thread may have");
}
