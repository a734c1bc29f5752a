//! Whether what is attached still runs: programs of LSM hooks are called by the kernel's tracing of functions, which root can switch
//! off for all of them at once.

use super::error::SensorError;
use std::path::Path;

/// Where it is switched off, on kernels that let it.
pub(super) const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";

/// Whether programs of LSM hooks run, as far as that switch says.
pub(super) fn traced(switch: &Path) -> Result<(), SensorError> {
    let off = std::fs::read(switch).is_ok_and(|value| value.trim_ascii() == b"0");
    if !off {
        return Ok(());
    }
    let why = format!("{} is 0, so programs of LSM hooks never run: write 1 to it", switch.display());
    Err(SensorError::NotEnforcing(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;

    #[test]
    fn programs_that_are_switched_off_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let switch = directory.path().join("ftrace_enabled");
        assert!(traced(&switch).is_ok(), "a kernel without the switch");
        for (value, runs) in [("1\n", true), ("0\n", false)] {
            File::create(&switch).unwrap().write_all(value.as_bytes()).unwrap();
            assert_eq!(traced(&switch).is_ok(), runs, "{value}");
        }
    }
}
