//! Much of what sessions do, in a short time: a program that runs programs, opens files and connects, and whoever it
//! connects to. `load.c` says what it can do.

mod counter;

pub use counter::Counter;

use crate::servers::sshd::path;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Connections that wait to be taken.
const BACKLOG: i32 = 4096;

/// The programs, compiled, and a listener on all addresses of loopback that takes each connection and ends it.
#[derive(Debug)]
pub struct Load {
    /// What makes the load.
    pub program: PathBuf,
    /// What it runs.
    pub nothing: PathBuf,
    /// Where it connects to.
    pub port: u16,
    ends: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// What came of a flood, as the one who made it counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooded {
    /// Programs that ran to their end.
    pub executed: u64,
    /// Programs that were killed, which the kernel's sensor does to those that it can't tell of.
    pub killed: u64,
    /// Programs that were refused.
    pub refused: u64,
    /// Connections that were made.
    pub connected: u64,
    /// Connections that were refused.
    pub denied: u64,
}

impl Load {
    /// Compiles the programs into `dir`, and listens.
    ///
    /// # Panics
    /// When there is no C compiler.
    #[must_use]
    pub fn prepare(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for the load");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        // Longer than the standard library's: a connection that finds it full tries again only after a second.
        rustix::net::listen(&listener, BACKLOG).expect("a longer queue");
        let port = listener.local_addr().expect("a listener has an address").port();
        let ends = Arc::new(AtomicBool::new(false));
        let accepting = std::thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                for connection in listener.incoming() {
                    drop(connection);
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        });
        let (program, nothing) = (compile(dir, "load"), compile(dir, "nothing"));
        Self { program, nothing, port, ends, accepting: Some(accepting) }
    }

    /// The command line that runs the program so many times.
    #[must_use]
    pub fn exec(&self, times: u64) -> String {
        format!("{} exec {times} {}", path(&self.program), path(&self.nothing))
    }

    /// The command line that opens so many of a folder's files in turn, so often in all.
    #[must_use]
    pub fn open(&self, times: u64, folder: &str, files: u64) -> String {
        format!("{} open {times} {folder} {files}", path(&self.program))
    }

    /// The command line that connects so often.
    #[must_use]
    pub fn connect(&self, times: u64) -> String {
        format!("{} connect {times} {}", path(&self.program), self.port)
    }

    /// The command line that runs programs and connects for so many seconds, in so many processes.
    #[must_use]
    pub fn flood(&self, seconds: u64, processes: u64) -> String {
        format!("{} flood {seconds} {processes} {} {}", path(&self.program), path(&self.nothing), self.port)
    }
}

impl Flooded {
    /// What [`Load::flood`] printed.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let count = |name: &str| {
            let mut words = text.split_whitespace().skip_while(|word| *word != name).skip(1);
            let count = words.next().and_then(|word| word.parse().ok());
            count.unwrap_or_else(|| panic!("a flood says how much was {name}, not: {text}"))
        };
        Self {
            executed: count("executed"),
            killed: count("killed"),
            refused: count("refused"),
            connected: count("connected"),
            denied: count("denied"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It looks whether it should end after each connection.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

fn compile(dir: &Path, name: &str) -> PathBuf {
    let source = crate::root().join("tests/load").join(format!("{name}.c"));
    let program = dir.join(name);
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(&program).arg(&source);
    let status = command.status().expect("cc, which links Rust too");
    assert!(status.success(), "{} can't be compiled", source.display());
    program
}
