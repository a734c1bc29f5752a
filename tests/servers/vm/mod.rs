//! A virtual machine with a kernel of Debian's: what the kernel of the machine that tests run on doesn't have or allow.
//!
//! QEMU translates its code (TCG), so it needs no virtualization by the processor and is several times slower than the
//! machine. All its files are in memory: a kernel unpacks an archive of some 70 MB, boots, and takes commands.

mod cpio;
mod system;

use crate::process::{Running, Said};
use crate::servers::setup;
use crate::wait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a machine may take until it listens to us, on a busy machine too.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// How long a command may take that has no deadline of its own.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);
/// What the machine gets beyond a command's deadline for handing over what was said.
const HANDING_OVER: Duration = Duration::from_secs(60);

/// The series of Debian's kernels that `setup/vm` fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12's own.
    V6_1,
    /// Debian 12's newer one.
    V6_12,
    /// Of Debian 13's backports, which `make soak` has.
    V6_18,
    /// Of them too.
    V7_3,
}

impl Kernel {
    /// Debian 12's.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];
    /// Later ones.
    pub const LATER: [Self; 2] = [Self::V6_18, Self::V7_3];

    /// As `uname -r` begins.
    #[must_use]
    pub const fn series(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V6_18 => "6.18",
            Self::V7_3 => "7.3",
        }
    }

    /// Its files: `vmlinuz`, `modules/`.
    fn folder(self) -> PathBuf {
        let later: &[&str] = if Self::LATER.contains(&self) { &["--later"] } else { &[] };
        setup::folder("vm/install.sh", &[later, &["--print"]].concat()).join(self.series())
    }
}

/// What a machine is made of, beside what each has.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Further words of the kernel's command line, e.g. `lsm=landlock,lockdown,yama,bpf`.
    pub command_line: String,
    /// Files: where they lie in the machine, and where here. Libraries that they need come along.
    pub files: Vec<(String, PathBuf)>,
}

/// A machine that runs as long as this value lives.
#[derive(Debug)]
pub struct Vm {
    process: Running,
    control: BufReader<UnixStream>,
    dir: TempDir,
    /// How long it took from the start of QEMU until it took commands.
    pub booted_in: Duration,
}

impl Vm {
    /// Boots it and waits until it takes commands.
    ///
    /// # Panics
    /// When it doesn't boot; its console is in the message.
    #[must_use]
    pub fn boot(kernel: Kernel, machine: &Machine) -> Self {
        let dir = TempDir::with_prefix("custody-vm-").expect("a folder for a machine");
        let folder = kernel.folder();
        let files = dir.path().join("initrd");
        let mut archive = system::base(dir.path(), &folder.join("modules"));
        for (at, from) in &machine.files {
            archive.copy(&system::merged(at), from);
        }
        let given: Vec<PathBuf> = machine.files.iter().map(|(_, from)| from.clone()).collect();
        if !given.is_empty() {
            system::libraries(&mut archive, &given);
        }
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&files).expect("a file"));
        archive.write(&mut out).and_then(|()| out.flush()).expect("the machine's files");

        let start = Instant::now();
        let socket = dir.path().join("control");
        let line = format!("console=ttyS0 quiet panic=-1 {}", machine.command_line);
        let mut process = Running::start_bound("qemu", Path::new("qemu-system-x86_64"), |command| {
            // A thread for each processor would be no faster here, and isn't safe: a kernel that patches its own code while
            // another processor translates it dies of a breakpoint that isn't there any more ("Oops: int3").
            command
                .args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "2048"])
                .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
                .arg("-kernel")
                .arg(folder.join("vmlinuz"))
                .arg("-initrd")
                .arg(&files)
                .arg("-append")
                .arg(line.trim())
                .arg("-serial")
                .arg(format!("file:{}", dir.path().join("console").display()))
                .arg("-serial")
                .arg(format!("unix:{},server=on,wait=on", socket.display()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(dir.path().join("qemu")).expect("a file"));
        });
        // QEMU waits for us before it begins.
        let control = wait::until("QEMU listens", wait::DEADLINE, || {
            let ended = process.ended();
            assert!(ended.is_none(), "QEMU has ended: {}", read(&dir.path().join("qemu")));
            UnixStream::connect(&socket).ok()
        });
        let mut vm = Self { process, control: BufReader::new(control), dir, booted_in: Duration::ZERO };
        vm.patience(BOOT_DEADLINE);
        let said = vm.line();
        assert_eq!(said, "ready", "the machine doesn't boot:\n{}", vm.console());
        // The archive was unpacked, and may be large.
        std::fs::remove_file(&files).expect("the archive");
        vm.booted_in = start.elapsed();
        vm
    }

    /// Runs a script of bash in it, as root, in a session of its own and without input; waits for its end.
    /// What it leaves in the background goes on.
    ///
    /// # Panics
    /// When it takes longer than two minutes, or the machine has died.
    pub fn run(&mut self, script: &str) -> Said {
        self.run_within(script, COMMAND_DEADLINE)
    }

    /// The same with a deadline of its own: a script that takes longer is killed, with exit code 137, and what it said up
    /// to then is given.
    ///
    /// # Panics
    /// When the machine has died or doesn't answer; its console is in the message.
    pub fn run_within(&mut self, script: &str, deadline: Duration) -> Said {
        let start = Instant::now();
        // A terminal's queue holds 64 KiB until it is read.
        assert!(
            script.len() < 32 << 10,
            "a script of {} bytes: give it to the machine as a file",
            script.len()
        );
        let order = format!("{} {}\n", deadline.as_secs().max(1), BASE64_STANDARD.encode(script));
        let sent = self.control.get_mut().write_all(order.as_bytes());
        sent.unwrap_or_else(|error| panic!("the machine is gone ({error}):\n{}", self.console()));
        self.patience(deadline + HANDING_OVER);
        let line = self.line();
        let numbers: Vec<usize> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [code, out, err] = numbers[..] else { panic!("{line:?} is no answer:\n{}", self.console()) };
        let out = self.bytes(out);
        let err = String::from_utf8_lossy(&self.bytes(err)).into_owned();
        Said { code: i32::try_from(code).unwrap_or(-1), out, err, took: start.elapsed() }
    }

    /// What the kernel and the first process have said.
    #[must_use]
    pub fn console(&self) -> String {
        read(&self.dir.path().join("console"))
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn patience(&self, deadline: Duration) {
        self.control.get_ref().set_read_timeout(Some(deadline)).expect("a socket has a timeout");
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = self.control.read_until(b'\n', &mut line);
        read.unwrap_or_else(|error| panic!("the machine doesn't answer ({error}):\n{}", self.console()));
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = self.control.read_exact(&mut bytes);
        read.unwrap_or_else(|error| {
            panic!("the machine died while it answered ({error}):\n{}", self.console())
        });
        bytes
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
