//! What to change on a machine so that more is watched.

use super::{Coverage, Tier, cgroup};
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
    tier: Option<Tier>,
    missing: Vec<(String, String)>,
}

pub(super) fn advice(coverage: Option<&Coverage>) -> Vec<String> {
    let missing = coverage.map(|coverage| {
        let missing = coverage
            .features
            .iter()
            .filter_map(|(name, outcome)| Some((name.clone(), outcome.clone().err()?)));
        missing.collect()
    });
    advise(&Facts {
        lsm: std::fs::read_to_string(LSM_LIST).ok(),
        lockdown: std::fs::read_to_string(LOCKDOWN).ok(),
        btf: Path::new(BTF).exists(),
        cgroup2: cgroup::root().is_ok(),
        tier: coverage.map(|coverage| coverage.tier),
        missing: missing.unwrap_or_default(),
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
            "cgroup2 isn't mounted, so connections can't be refused: mount -t cgroup2 none /sys/fs/cgroup"
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
    advice.extend(facts.missing.iter().map(|(feature, why)| format!("missing: {feature}: {why}")));
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
        let locked = Facts { lockdown: Some("none integrity [confidentiality]\n".to_owned()), ..whole };
        assert!(advise(&locked)[0].contains("lockdown=integrity"));
    }
}
