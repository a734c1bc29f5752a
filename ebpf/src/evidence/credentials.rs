//! In whose name and with which rights a process acts, in words (credentials(7), capabilities(7)).

use crate::sensor::{Executed, IdsChanged};
use rustix::thread::CapabilitySet;

/// Ids before and after: real, effective and saved, and the one by which files are reached where it isn't the effective one.
pub(super) fn change(of: &IdsChanged) -> String {
    let ids = |[real, effective, saved, files]: [u32; 4]| {
        let apart = if files == effective { String::new() } else { format!(" {files}") };
        format!("{real} {effective} {saved}{apart}")
    };
    format!("from {} to {}", ids(of.old), ids(of.new))
}

/// The capabilities of whoever doesn't run as root: root has them all, or what its container left it.
pub(super) fn capabilities(executed: &Executed) -> Vec<String> {
    if executed.euid == 0 {
        return Vec::new();
    }
    let bits = (0..u64::BITS).filter(|bit| executed.permitted >> bit & 1 == 1);
    bits.map(|bit| match CapabilitySet::from_bits_retain(1 << bit).iter_names().next() {
        Some((name, _)) => format!("CAP_{name}"),
        None => format!("CAP_{bit}"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_three_unless_files_are_reached_by_another() {
        let of = |old, new| change(&IdsChanged { who: Default::default(), old, new });
        assert_eq!(of([0; 4], [1000; 4]), "from 0 0 0 to 1000 1000 1000");
        assert_eq!(of([0; 4], [0, 0, 0, 1000]), "from 0 0 0 to 0 0 0 1000");
    }

    #[test]
    fn capabilities_have_the_names_that_tools_give_them() {
        let of = |euid, permitted| capabilities(&Executed { euid, permitted, ..Executed::default() });
        assert_eq!(
            of(1000, 1 << 13 | 1 << 21 | 1 << 40 | 1 << 63),
            ["CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE", "CAP_63"]
        );
        assert_eq!(of(1000, 0), Vec::<String>::new());
        assert_eq!(of(0, u64::MAX), Vec::<String>::new());
    }
}
