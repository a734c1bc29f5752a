//! A server that is started once and serves all tests of a program.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// For a `static`. What it holds is never dropped: the process ends with ours ([`crate::process::Running::start_bound`]),
/// and its folder is taken away after that.
#[derive(Debug)]
pub struct Shared<T>(OnceLock<T>);

impl<T> Shared<T> {
    /// Nothing is started yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The server; whoever asks first starts it in an empty folder, and the others wait.
    pub fn get(&self, start: impl FnOnce(&Path) -> T) -> &T {
        self.0.get_or_init(|| start(&folder_until_we_end()))
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A temporary folder that a shell removes when its standard input ends: when this process has ended, be it by SIGKILL.
/// It tries until it succeeds, since a server may be writing its last.
fn folder_until_we_end() -> std::path::PathBuf {
    let folder =
        tempfile::Builder::new().prefix("custody-shared-").tempdir().expect("a temporary folder").keep();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap '' INT TERM; cat >/dev/null; until rm -rf -- \"$1\"; do sleep 0.1; done",
        "sh",
    ]);
    command.arg(&folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("a shell");
    // Its input stays open as long as we live.
    std::mem::forget(child);
    folder
}
