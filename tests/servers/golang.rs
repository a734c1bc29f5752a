//! Programs of others in Go: Tessera's fsck and its POSIX log, a witness, and strangers who read a log with Go's own
//! libraries (`tests/proof`); Prometheus' engine and Compose's parser (`tests/readers`). `setup/install.sh` builds them
//! outside the work tree, by the hash of what they are built from.

use crate::{process, root};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// One of them: `fsck`, `litewitness`, `posix`, `strangers` or `verify`.
///
/// # Panics
/// When `setup/install.sh` hasn't built it.
#[must_use]
pub fn tool(name: &str) -> Command {
    built("--print-go", name)
}

/// What reads our files as those for whom they are: `promql` or `compose`.
///
/// # Panics
/// When `setup/install.sh` hasn't built it.
#[must_use]
pub fn reader(name: &str) -> Command {
    built("--print-readers", name)
}

/// Go's own SSH library as a client, with pkg/sftp: `ssh-go`.
///
/// # Panics
/// When `setup/install.sh` hasn't built it.
#[must_use]
pub fn ssh_client() -> Command {
    built("--print-ssh-go", "ssh-go")
}

fn built(print: &str, name: &str) -> Command {
    let said = process::run(
        Command::new("bash").arg(root().join("setup/install.sh")).arg(print),
        b"",
        Duration::from_secs(30),
    )
    .ok();
    let program = PathBuf::from(said.text().trim()).join(name);
    assert!(program.is_file(), "{} isn't there: run `make setup` first", program.display());
    Command::new(program)
}
