//! The appender, led step by step, with a tracer at one of its threads.

use super::ledger::Ledger;
use custody_tests::wait::{self, DEADLINE};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// The appender between two steps.
pub struct Stepping {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    boot: u64,
    /// What it said.
    pub ledger: Ledger,
}

impl Stepping {
    /// Starts it, up to the moment before it opens the log.
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_appender"));
        command.arg(directory).args(arguments).arg("step=1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the appender starts");
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("piped")));
        let boot = arguments.iter().find_map(|argument| argument.strip_prefix("boot="));
        let boot = boot.map_or(1, |boot| boot.parse().expect("a number"));
        let mut it = Self { child, stdin, stdout, boot, ledger: Ledger::default() };
        assert_eq!(it.line().as_deref(), Some("ready\n"));
        it
    }

    /// Its process id, and so its main thread's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its threads but for the main one, once each has its name: they are the log's.
    pub fn log_threads(&self) -> Vec<(String, u32)> {
        wait::until("the log's threads have their names", DEADLINE, || {
            let mut threads = Vec::new();
            for task in std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?.flatten() {
                let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
                let id: u32 = task.file_name().to_str()?.parse().ok()?;
                if id != self.pid() {
                    threads.push((name.trim().to_owned(), id));
                }
            }
            threads.sort();
            let named = !threads.is_empty() && threads.iter().all(|(name, _)| name.starts_with("log-"));
            named.then_some(threads)
        })
    }

    /// Asks for the next step and hears what comes of it; `false` when it has died.
    pub fn step(&mut self, line: &str) -> bool {
        let Some(stdin) = &mut self.stdin else { return false };
        if writeln!(stdin, "{line}").is_err() {
            return false;
        }
        match self.line() {
            Some(line) => {
                self.ledger.hear(self.boot, &line);
                true
            }
            None => false,
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line)
    }

    /// Asks for nothing more, and waits for its end. What it said on standard error must be one line, or nothing.
    pub fn end(&mut self) -> (ExitStatus, String) {
        drop(self.stdin.take());
        while let Some(line) = self.line() {
            self.ledger.hear(self.boot, &line);
        }
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("what it said");
        (self.child.wait().expect("its end"), said)
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A tracer at one thread.
pub struct Tracer(Child);

impl Tracer {
    /// Attaches strace to `thread` of `pid`, and waits until nothing that the thread does escapes it.
    ///
    /// # Panics
    /// When this machine doesn't let it: then these tests can't be run here.
    pub fn attach(pid: u32, thread: u32, log: &Path, options: &[&str]) -> Self {
        let mut command = Command::new("strace");
        command.args(["-qq", "-y", "-o"]).arg(log).args(options).args(["-p", &thread.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("strace can't be started: {error}"));
        let mut tracer = Self(child);
        let (id, traced) = (tracer.0.id().to_string(), format!("/proc/{pid}/task/{thread}/status"));
        wait::until_true("strace has attached itself", DEADLINE, || {
            if let Some(status) = tracer.0.try_wait().expect("strace can be waited for") {
                let mut said = String::new();
                let _read = tracer.0.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
                panic!("strace can't trace here ({status}): {said}");
            }
            // It seizes the thread, interrupts it, and sleeps until the thread has stopped.
            field(&traced, "TracerPid").as_deref() == Some(&id)
                && field(&format!("/proc/{id}/status"), "State").is_some_and(|state| state.starts_with('S'))
        });
        tracer
    }

    /// Waits for its end, which comes with the end of what it traces.
    pub fn end(mut self) {
        self.0.wait().expect("strace's end");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn field(status: &str, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(status).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}
