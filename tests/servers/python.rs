//! Programs of others that come as Python packages: paramiko, asyncssh, ssh-audit, a JSON Schema validator.
//! `setup/install.sh` puts them into an environment outside the work tree, by the hash of their pinned list.

use crate::{process, root};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The environment's folder.
///
/// # Panics
/// When `setup/install.sh` can't tell, or hasn't made it.
#[must_use]
pub fn environment() -> PathBuf {
    let said = process::run(
        Command::new("bash").arg(root().join("setup/install.sh")).arg("--print-python"),
        b"",
        Duration::from_secs(30),
    )
    .ok();
    let folder = PathBuf::from(said.text().trim());
    assert!(folder.join("bin/python").exists(), "{} isn't there: run `make setup` first", folder.display());
    folder
}

/// A program of the environment.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    environment().join("bin").join(name)
}

/// A command that runs a script of `tests/strangers`.
#[must_use]
pub fn script(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("python"));
    command
        .arg(root().join("tests/strangers").join(name))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script of `tests/strangers` and gives what it printed.
///
/// # Panics
/// When it fails or takes longer than two minutes.
#[must_use]
pub fn run(name: &str, arguments: &[&str]) -> String {
    run_with(name, arguments, b"")
}

/// The same for a script that reads `input`.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_with(name: &str, arguments: &[&str], input: &[u8]) -> String {
    process::run(&mut script(name, arguments), input, Duration::from_secs(120)).ok().text()
}
