//! A time of day that a test sets, for one program: the machine's own clock is everybody's.

use crate::program;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The clock, which is right until it is set.
#[derive(Debug)]
pub struct SetClock {
    /// By how much it is wrong; read at each question for the time.
    offset: PathBuf,
}

impl SetClock {
    /// One in `folder`.
    #[must_use]
    pub fn right(folder: &Path) -> Self {
        let clock = Self { offset: folder.join("offset") };
        clock.set("+0");
        clock
    }

    /// Makes it wrong: `-1h`, `+1d`.
    ///
    /// # Panics
    /// When it can't be.
    pub fn set(&self, by: &str) {
        // In one step, since it is read meanwhile.
        let next = self.offset.with_extension("next");
        std::fs::write(&next, by).expect("the offset");
        std::fs::rename(&next, &self.offset).expect("the offset");
    }

    /// `custodyd`, which is to ask this clock.
    #[must_use]
    pub fn custodyd(&self) -> Command {
        let mut command = Command::new(program("custodyd"));
        command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}

/// Where Debian's package has it: /usr/lib/ARCHITECTURE/faketime.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.is_file()).expect("`make setup` installs libfaketime")
}
