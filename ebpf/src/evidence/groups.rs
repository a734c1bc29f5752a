//! Control groups by their numbers: what each is called, and which container it holds.

use crate::host;
use crate::sensor::cgroup2;
use custody_core::event::command::Container;
use rustix::fs::stat;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How many groups are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 4_096;

/// A group of cgroup2, whose number no other one gets until the machine starts again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its path below the root of cgroup2.
    pub path: Vec<u8>,
    /// The container that it belongs to.
    pub container: Option<Container>,
}

/// What is known of groups.
#[derive(Debug, Default)]
pub struct Groups {
    /// Where cgroup2 is, for us.
    root: Option<PathBuf>,
    known: BTreeMap<u64, Group>,
}

impl Groups {
    /// Those of this machine.
    pub fn of_this_machine() -> Self {
        Self { root: cgroup2().ok().map(|root| host::path(&root)), known: BTreeMap::new() }
    }

    /// The group with that number, in which process `pid` was; none if the process is gone, or elsewhere by now, and nobody
    /// asked for the group before.
    pub fn of(&mut self, pid: u32, number: u64) -> Option<&Group> {
        if !self.known.contains_key(&number) {
            let group = self.read(pid, number)?;
            if self.known.len() >= REMEMBERED_MAX {
                self.known.clear();
            }
            self.known.insert(number, group);
        }
        self.known.get(&number)
    }

    fn read(&self, pid: u32, number: u64) -> Option<Group> {
        let groups = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
        let path = of_cgroup2(&groups)?;
        let below_root = OsStr::from_bytes(path.strip_prefix(b"/")?);
        // Of kernfs the inode is the group's number.
        let directory = self.root.as_ref()?.join(below_root);
        let same = stat(&directory).is_ok_and(|stat| stat.st_ino == number);
        same.then(|| Group {
            path: path.to_owned(),
            container: container(Path::new(OsStr::from_bytes(path))),
        })
    }
}

/// `HIERARCHY:CONTROLLERS:PATH`, and cgroup2 is number 0 (cgroups(7)).
fn of_cgroup2(groups: &[u8]) -> Option<&[u8]> {
    groups.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))
}

/// The innermost container by how runtimes name groups: `PREFIX-ID.scope` where systemd makes them, else `…/ID`.
fn container(path: &Path) -> Option<Container> {
    let names: Vec<&str> = path.iter().filter_map(OsStr::to_str).collect();
    names.iter().enumerate().rev().find_map(|(at, name)| {
        let within = names.get(..at).unwrap_or_default();
        let name = name.strip_suffix(".scope").unwrap_or(name);
        if let Some(name) = name.strip_prefix("lxc.payload.") {
            return Some(named(name, Some("lxc")));
        }
        if let (Some(name), Some(&"machine.slice")) = (name.strip_prefix("machine-"), within.last()) {
            return Some(named(&unescaped(name), Some("systemd-nspawn")));
        }
        let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
        // `libpod-conmon-ID` holds what looks after the container, outside of it.
        if !is_id(id) || prefix.ends_with("conmon") {
            return None;
        }
        let runtime = match prefix {
            "docker" => Some("docker"),
            "cri-containerd" | "nerdctl" => Some("containerd"),
            "crio" => Some("cri-o"),
            "libpod" => Some("podman"),
            _ if within.contains(&"docker") => Some("docker"),
            _ => None,
        };
        Some(named(id, runtime))
    })
}

fn named(id: &str, runtime: Option<&str>) -> Container {
    Container { id: id.to_owned(), runtime: runtime.map(str::to_owned) }
}

/// SHA-256 in hex, as runtimes of the OCI make their ids.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name in a unit's (systemd.unit(5)): what units can't be called by is escaped as `\x2d`.
fn unescaped(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        match (byte, part.get(2..)) {
            (Some(byte), Some(rest)) => {
                whole.push(char::from(byte));
                whole.push_str(rest);
            }
            _ => {
                whole.push_str("\\x");
                whole.push_str(part);
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn containers_are_known_by_how_their_runtimes_name_groups() {
        let of = |path: &str| container(Path::new(&path.replace("ID", ID)));
        let is = |id: &str, runtime: &str| Some(named(&id.replace("ID", ID), Some(runtime)));
        assert_eq!(of("/system.slice/docker-ID.scope"), is("ID", "docker"));
        assert_eq!(of("/docker/ID"), is("ID", "docker"));
        assert_eq!(of("/docker/ID/init.scope"), is("ID", "docker"));
        assert_eq!(of("/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope"), is("ID", "containerd"));
        assert_eq!(of("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope"), is("ID", "cri-o"));
        assert_eq!(of("/kubepods/burstable/pod1/ID"), Some(named(ID, None)));
        assert_eq!(of("/machine.slice/libpod-ID.scope/container"), is("ID", "podman"));
        assert_eq!(of("/machine.slice/libpod-conmon-ID.scope"), None);
        assert_eq!(
            of("/machine.slice/machine-build\\x2dbox.scope/payload"),
            is("build-box", "systemd-nspawn")
        );
        assert_eq!(of("/lxc.payload.web/system.slice/ssh.service"), is("web", "lxc"));
        // One in another: the inner one.
        assert_eq!(of(&format!("/docker/{}/docker/ID", "0".repeat(64))), is("ID", "docker"));
        for none in
            ["/", "/user.slice/user-1000.slice/session-3.scope", "/system.slice/ssh.service", "/x/ID0"]
        {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!((unescaped("a\\x2db\\x"), unescaped("\\xzz")), ("a-b\\x".into(), "\\xzz".into()));
    }

    #[test]
    fn a_group_is_its_number_s_or_none() {
        let pid = std::process::id();
        let mut groups = Groups::of_this_machine();
        let own = std::fs::read(format!("/proc/{pid}/cgroup")).unwrap();
        let own = of_cgroup2(&own).unwrap().to_owned();
        let directory = cgroup2().unwrap().join(OsStr::from_bytes(own.strip_prefix(b"/").unwrap()));
        let number = stat(&directory).unwrap().st_ino;
        assert_eq!(groups.of(pid, number.wrapping_add(1)), None, "it is in another one by now");
        assert_eq!(groups.of(u32::MAX, number), None, "it is gone");
        assert_eq!(groups.of(pid, number).map(|group| group.path.clone()), Some(own));
        assert!(groups.of(u32::MAX, number).is_some(), "it is known from before");
    }
}
