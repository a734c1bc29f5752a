//! What a refused attach has stopped goes on.

use super::record::Record;
use rustix::process::{Pid, Signal, kill_process};

/// PTRACE_ATTACH stops whom it attaches to (ptrace(2)). By LSM hooks a refused one never comes to that; by tracepoints whoever attached is
/// killed afterwards, and whom he stopped would stand still for good. Other records change nothing.
pub fn let_go(record: &Record) {
    let Record::Traced(traced) = record else { return };
    let target = i32::try_from(traced.target).ok().and_then(Pid::from_raw);
    let Some(target) = target.filter(|_| traced.refused && traced.stopped) else { return };
    if let Err(error) = kill_process(target, Signal::CONT) {
        tracing::warn!(
            "process {} was stopped by an attach that was refused, and can't be told to go on: {error}",
            traced.target
        );
    }
}
