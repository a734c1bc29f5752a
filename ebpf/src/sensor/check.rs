//! What to change on a machine so that more is watched.

use super::{Coverage, Tier, cgroup};
use crate::host;
use std::path::Path;

const LSM_LIST: &str = "/sys/kernel/security/lsm";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the machine says of itself.
#[derive(Debug, Default)]
struct Facts {
    /// The security modules in force; `None`: securityfs isn't mounted.
    lsm: Option<String>,
    lockdown: Option<String>,
    btf: bool,
    cgroup2: bool,
    /// Only those of a container are seen.
    some_processes: bool,
    tier: Option<Tier>,
}

pub(super) fn advice(coverage: Option<&Coverage>) -> Vec<String> {
    advise(&Facts {
        lsm: std::fs::read_to_string(LSM_LIST).ok(),
        lockdown: std::fs::read_to_string(LOCKDOWN).ok(),
        btf: Path::new(BTF).exists(),
        cgroup2: cgroup::root().is_ok(),
        some_processes: host::has_all_processes() == Some(false),
        tier: coverage.map(|coverage| coverage.tier),
    })
}

fn advise(facts: &Facts) -> Vec<String> {
    let mut advice = Vec::new();
    if !facts.btf {
        advice.push(format!(
            "{BTF} isn't there: run a kernel that is built with CONFIG_DEBUG_INFO_BTF, as distributions' are"
        ));
    }
    if !facts.cgroup2 {
        advice.push(
            "the root of cgroup2 isn't mounted, so connections can't be refused: mount -t cgroup2 none /sys/fs/cgroup; in a container give the agent the machine's (--cgroupns host)"
                .to_owned(),
        );
    }
    if facts.some_processes {
        advice.push(
            "process ids are a container's own here, so programs can't be hashed: give the agent the machine's (--pid host)"
                .to_owned(),
        );
    }
    if facts.lockdown.as_deref().is_some_and(|modes| modes.contains("[confidentiality]")) {
        advice.push("the kernel is locked down for confidentiality, so programs may not read it: boot with lockdown=integrity".to_owned());
    }
    if facts.tier != Some(Tier::Lsm) {
        match facts.lsm.as_deref().map(str::trim) {
            None => advice.push(format!("{LSM_LIST} can't be read: mount -t securityfs none /sys/kernel/security")),
            Some(list) if !list.split(',').any(|name| name == "bpf") => advice.push(format!(
                "BPF isn't among the security modules: boot with lsm={list},bpf for file sensors and refusals before the effect"
            )),
            Some(_) => {}
        }
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::{Facts, advise};
    use crate::sensor::Tier;

    #[test]
    fn each_thing_that_is_missing_is_named_with_what_to_do() {
        let nothing = advise(&Facts::default());
        for word in ["CONFIG_DEBUG_INFO_BTF", "mount -t cgroup2", "mount -t securityfs"] {
            assert!(nothing.iter().any(|line| line.contains(word)), "{word}: {nothing:?}");
        }
        let plain =
            Facts { lsm: Some("lockdown,yama\n".to_owned()), btf: true, cgroup2: true, ..Facts::default() };
        assert_eq!(advise(&plain).len(), 1);
        assert!(advise(&plain)[0].contains("lsm=lockdown,yama,bpf"));
        let whole = Facts {
            tier: Some(Tier::Lsm),
            lsm: Some("bpf".to_owned()),
            btf: true,
            cgroup2: true,
            ..Facts::default()
        };
        assert_eq!(advise(&whole), Vec::<String>::new());
        let contained = Facts { some_processes: true, lsm: Some("bpf".to_owned()), ..whole };
        assert!(advise(&contained)[0].contains("--pid host"));
        let whole = Facts { some_processes: false, ..contained };
        let locked = Facts { lockdown: Some("none integrity [confidentiality]\n".to_owned()), ..whole };
        assert!(advise(&locked)[0].contains("lockdown=integrity"));
    }
}
