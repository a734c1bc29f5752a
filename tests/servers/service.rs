//! What the servers of others have in common: a command line, ports that stay theirs, and a life that can be cut short,
//! paused and begun anew on the same data.

use crate::process::{Running, listens};
use crate::wait;
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// How long one may take to serve: Java's need ten seconds on an idle machine, and tests run beside builds.
const START: Duration = Duration::from_secs(180);

/// A server of others. It ends with this value, and with this process.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where it listens on 127.0.0.1, the same in all its lives.
    port: u16,
    output: PathBuf,
    process: Option<Running>,
}

impl Service {
    /// A server that isn't started yet. What it prints goes to `output.log` in `dir`.
    ///
    /// # Panics
    /// When `dir` can't be made.
    #[must_use]
    pub fn new(name: &'static str, dir: &Path, program: PathBuf, port: u16) -> Self {
        std::fs::create_dir_all(dir).unwrap_or_else(|e| panic!("a folder for {name}: {e}"));
        Self { name, program, arguments: vec![], port, output: dir.join("output.log"), process: None }
    }

    /// Further arguments.
    #[must_use]
    pub fn arguments<I: IntoIterator<Item: Into<OsString>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts it, and returns once it listens itself and is `ready`.
    ///
    /// # Panics
    /// When it runs already, ends, or isn't ready in time: with the end of what it printed.
    pub fn start(&mut self, mut ready: impl FnMut() -> bool) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let output =
            File::options().create(true).append(true).open(&self.output).expect("a file for its output");
        let mut process = Running::start_bound(self.name, &self.program, |command| {
            command.args(&self.arguments).stdin(Stdio::null());
            command.stdout(output.try_clone().expect("a file")).stderr(output);
        });
        wait::until_true(
            &format!("{} serves; it prints to {}", self.name, self.output.display()),
            START,
            || {
                if let Some(status) = process.ended() {
                    panic!("{} ended with {status} before it served:\n{}", self.name, self.last_words());
                }
                listens(process.pid(), self.port) && ready()
            },
        );
        self.process = Some(process);
    }

    /// SIGKILL, and waits until it is gone: no last word, no flush.
    pub fn kill_now(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill_now();
        }
    }

    /// SIGTERM, and waits until it is gone.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Duration::from_secs(60));
        }
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it was started and neither stopped nor killed by us.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it printed in all its lives.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The end of what it printed.
    #[must_use]
    pub fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }
}
