//! Starts and stops what the end-to-end tests need: real servers on loopback, stock clients, and a world of both.

pub mod campaign;
pub mod clock;
pub mod events;
pub mod load;
pub mod pictures;
pub mod process;
pub mod random;
pub mod servers;
pub mod story;
pub mod volume;
pub mod wait;

pub use servers::{golang, node, python};

use std::path::{Path, PathBuf};

/// The top of the work tree.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the work tree")
}

/// A program of the workspace, built beside the running test.
///
/// # Panics
/// When it isn't built: `make build` does that.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests run from target/<profile>/deps");
    let path = folder.join(name);
    assert!(path.is_file(), "{} isn't built: run `make build` first", path.display());
    path
}
