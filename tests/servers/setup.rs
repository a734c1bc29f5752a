//! Where `setup/` keeps what it has fetched and built: outside the work tree, named by what it is made from.

use crate::{process, root};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What a script of `setup/` prints when it is asked, e.g. `folder("loki/install.sh", &["--print"])`.
///
/// # Panics
/// When the script can't tell, or the folder isn't made yet.
#[must_use]
pub fn folder(script: &str, arguments: &[&str]) -> PathBuf {
    let script = root().join("setup").join(script);
    let mut command = Command::new("bash");
    command.arg(&script).args(arguments);
    let said = process::run(&mut command, b"", Duration::from_secs(30)).ok();
    let folder = PathBuf::from(said.text().trim());
    assert!(
        folder.join("complete").exists(),
        "{} isn't there: run {} first",
        folder.display(),
        script.display()
    );
    folder
}
