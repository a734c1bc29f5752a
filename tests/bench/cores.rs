//! Which cores what runs on, where a store is to have some of its own, as it would on another machine.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The lower half of the cores is the store's, the upper half is for what delivers; threads and processes that are
/// begun from here on stay where they were begun.
pub struct Cores {
    store: CpuSet,
    ours: CpuSet,
}

impl Cores {
    /// Takes this thread to the upper half.
    pub fn divide() -> Self {
        let all = sched_getaffinity(None).expect("the cores of this thread");
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        assert!(cores.len() > 1, "one core can't be divided");
        let set = |cores: &[usize]| {
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core));
            set
        };
        let (store, ours) = cores.split_at(cores.len() / 2);
        let divided = Self { store: set(store), ours: set(ours) };
        stay(&divided.ours);
        divided
    }

    /// Begins something on the store's cores.
    pub fn begin<T>(&self, begin: impl FnOnce() -> T) -> T {
        stay(&self.store);
        let begun = begin();
        stay(&self.ours);
        begun
    }
}

fn stay(cores: &CpuSet) {
    sched_setaffinity(None, cores).expect("cores that this thread may have");
}
