//! Programs of others that come as npm packages: the Elastic Common Schema, an SSH client. `setup/install.sh` puts them into a folder
//! outside the work tree, by the hash of their lock file.

use crate::{process, root};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Runs a script of `tests/strangers` that reads `input`, and gives what it printed.
///
/// # Panics
/// When `setup/install.sh` hasn't installed the packages, or when the script fails or takes longer than two minutes.
#[must_use]
pub fn run(name: &str, arguments: &[String], input: &[u8]) -> String {
    process::run(script(name).args(arguments), input, Duration::from_secs(120)).ok().text()
}

/// A command that runs a script of `tests/strangers`.
///
/// # Panics
/// When `setup/install.sh` hasn't installed the packages.
#[must_use]
pub fn script(name: &str) -> Command {
    let said = process::run(
        Command::new("bash").arg(root().join("setup/install.sh")).arg("--print-npm"),
        b"",
        Duration::from_secs(30),
    )
    .ok();
    let packages = PathBuf::from(said.text().trim()).join("node_modules");
    assert!(packages.is_dir(), "{} isn't there: run `make setup` first", packages.display());
    let script = root().join("tests/strangers").join(name);
    let mut command = Command::new("node");
    command.arg(script).env("NODE_PATH", packages);
    command
}
