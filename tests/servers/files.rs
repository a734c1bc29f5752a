//! Clients that move files, each once through the proxy and once straight to the same sshd, and the events of it.

use super::custodyd::Entry;
use super::world::World;
use crate::process::{Said, run};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Leave for operators to do all that sftp can.
pub const FILES: &str = r#"@id("operators-move-files")
permit(
  principal in Role::"operator",
  action in [Action::"ssh:subsystem", Action::"ssh:sftp-read", Action::"ssh:sftp-write"],
  resource
);
"#;

/// How long a client may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// Which way a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Straight to the sshd.
    Direct,
    /// Through the proxy.
    Proxied,
}

impl Way {
    /// The host as this way calls it.
    #[must_use]
    pub const fn host(self) -> &'static str {
        match self {
            Self::Direct => "root@127.0.0.1",
            Self::Proxied => "root@web-1.custody",
        }
    }
}

/// `sftp` or `scp` with what they need to find the host.
///
/// # Panics
/// When an argument isn't UTF-8.
#[must_use]
pub fn client(world: &World, way: Way, program: &str) -> Command {
    let ssh = match way {
        Way::Direct => world.web.direct(),
        Way::Proxied => world.proxied(),
    };
    let mut command = Command::new(program);
    for argument in ssh.get_args() {
        // ssh's -p is their -P.
        command.arg(if argument == "-p" { "-P".as_ref() } else { argument });
    }
    // See `Home::ssh_command`.
    command.env_remove("SSH_AUTH_SOCK").env("SHELL", "/bin/sh");
    command
}

/// Runs a client in a folder.
pub fn run_in(folder: &Path, command: &mut Command, input: &str) -> Said {
    run(command.current_dir(folder), input.as_bytes(), DEADLINE)
}

/// `ssh` with its options as one line, for programs that start it themselves.
///
/// # Panics
/// When an argument isn't UTF-8.
#[must_use]
pub fn ssh_line(world: &World, way: Way) -> String {
    let ssh = match way {
        Way::Direct => world.web.direct(),
        Way::Proxied => world.proxied(),
    };
    let words = [ssh.get_program()].into_iter().chain(ssh.get_args());
    words.map(|word| word.to_str().expect("UTF-8")).collect::<Vec<_>>().join(" ")
}

/// Hex of the SHA-256 of a file.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn sha256(file: &Path) -> String {
    let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes files with contents that differ, and gives their names and hashes.
///
/// # Panics
/// When they can't be written.
pub fn make(folder: &Path, count: usize) -> BTreeMap<String, String> {
    std::fs::create_dir_all(folder.join("deep")).expect("a folder");
    let mut made = BTreeMap::new();
    for n in 0..count {
        let name = if n % 10 == 0 { format!("deep/file {n}") } else { format!("file-{n}") };
        let content: Vec<u8> = (0..n * 517).map(|at| (at * 7 + n) as u8).collect();
        std::fs::write(folder.join(&name), content).expect("a file");
        made.insert(name.clone(), sha256(&folder.join(&name)));
    }
    made
}

/// Waits until the session of the newest `command.requested` has ended, so that all its events are there; gives those
/// of the family `file` that came after `from`.
#[must_use]
pub fn events(world: &World, from: u64) -> Vec<Entry> {
    let asked = world.event("type=command.requested", "the program was asked for", |e| e.index >= from);
    let session = asked.event["session"].clone();
    world.event("type=session.ended", "the session has ended", |e| e.event["session"] == session);
    let mut entries: Vec<Entry> = Vec::new();
    for kind in ["file.requested", "file.completed", "file.failed", "file.unparsed"] {
        entries.extend(world.entries(&format!("type={kind}")).into_iter().filter(|e| e.index >= from));
    }
    entries.sort_by_key(|entry| entry.index);
    entries
}

/// The index that the next event will have, or an earlier one that is no file's.
#[must_use]
pub fn now(world: &World) -> u64 {
    world.entries("").last().map_or(0, |entry| entry.index + 1)
}

/// Those of one type.
#[must_use]
pub fn of_type<'a>(entries: &'a [Entry], kind: &str) -> Vec<&'a Value> {
    entries.iter().map(|entry| &entry.event).filter(|event| event["type"] == kind).collect()
}

/// One file went each way whole, with this hash.
///
/// # Panics
/// When that isn't so.
pub fn went_both_ways(entries: &[Entry], hash: &str) {
    let completed = of_type(entries, "file.completed");
    for direction in ["read", "written"] {
        let moved: Vec<_> = completed.iter().filter(|e| e["data"][direction].is_object()).collect();
        assert_eq!(moved.len(), 1, "{moved:?}");
        let moved = &moved[0]["data"][direction];
        assert_eq!((moved["sha256"].as_str(), moved["partial"].as_bool()), (Some(hash), None), "{moved}");
    }
}

/// Each end names a request that came before it, and each request has just one end.
///
/// # Panics
/// When that isn't so.
pub fn every_request_has_one_end(entries: &[Entry]) {
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    for entry in entries {
        let (id, cause) = (&entry.event["id"], &entry.event["cause"]);
        match entry.event["type"].as_str().expect("a type") {
            "file.requested" => {
                open.insert(id.to_string(), entry.index);
            }
            "file.completed" | "file.failed" => {
                assert!(
                    open.remove(&cause.to_string()).is_some(),
                    "an end without a request: {}",
                    entry.event
                );
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "requests without an end: {open:?}");
}
