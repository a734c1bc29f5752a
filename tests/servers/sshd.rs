//! A stock OpenSSH server on a free port of loopback.

use super::setup;
use crate::process::{Running, descendants, free_port, send};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a server is configured with, beside what every one here has.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// OpenSSH line of the CA whose user certificates it takes (`TrustedUserCAKeys`).
    pub user_ca: Option<String>,
    /// Further lines of sshd_config.
    pub lines: Vec<String>,
}

/// A running server, with a key pair of its own that it takes directly: the yardstick that the proxy is held against.
#[derive(Debug)]
pub struct Sshd {
    /// Its folder: configuration, host key, log.
    pub dir: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
    program: PathBuf,
    process: Option<Running>,
}

impl Sshd {
    /// Makes keys and configuration in `dir` and picks a port; [`Sshd::start`] starts it.
    ///
    /// # Panics
    /// When that isn't possible.
    #[must_use]
    pub fn prepare(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for sshd");
        std::fs::create_dir_all("/run/sshd").expect("sshd's folder for privilege separation");
        for name in ["host", "direct"] {
            keygen(&["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path(&dir.join(name))]);
        }
        std::fs::copy(dir.join("direct.pub"), dir.join("authorized_keys")).expect("authorized_keys");
        Self { dir: dir.to_owned(), port: free_port(), program: sshd_program(), process: None }
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self, host: &Host) {
        let dir = self.dir.display();
        // With that SHLVL bash doesn't read the ~/.bashrc of whoever runs the tests for each command.
        let mut config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nMaxStartups 200\nLogLevel VERBOSE\nPrintMotd no\nPrintLastLog no\n\
             AcceptEnv LANG LC_* CUSTODY_*\nSetEnv SHLVL=2\nSubsystem sftp internal-sftp\n",
            self.port
        );
        if let Some(ca) = &host.user_ca {
            std::fs::write(self.dir.join("user_ca.pub"), format!("{}\n", ca.trim())).expect("the CA's file");
            writeln!(config, "TrustedUserCAKeys {dir}/user_ca.pub").expect("a string");
        }
        if self.dir.join("host-cert.pub").exists() {
            writeln!(config, "HostCertificate {dir}/host-cert.pub").expect("a string");
        }
        for line in &host.lines {
            // sshd takes the first value of an option: ours come before.
            config = format!("{line}\n{config}");
        }
        std::fs::write(self.dir.join("sshd_config"), config).expect("sshd_config");
        self.run();
    }

    /// Starts in its place, with the same configuration, one that is later than the machine's (`setup/openssh/later.sh`).
    ///
    /// # Panics
    /// When it doesn't start.
    pub fn become_a_later_one(&mut self) {
        self.stop();
        self.program = setup::folder("openssh/later.sh", &["--print"]).join("sshd");
        self.run();
    }

    fn run(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["-D", "-f"]).arg(self.dir.join("sshd_config")).arg("-E").arg(self.log_path());
        // A shell of the tests must not hand its own variables to sessions.
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut process = Running::start("sshd", &mut command);
        process.wait_for_listener(self.port);
        self.process = Some(process);
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    /// Stops it with all its connections, as a machine that is switched off.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            for pid in descendants(process.pid()) {
                send(pid, Signal::KILL);
            }
        }
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its host key's public line.
    ///
    /// # Panics
    /// When the file is gone.
    #[must_use]
    pub fn host_key(&self) -> String {
        std::fs::read_to_string(self.dir.join("host.pub")).expect("the host key")
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("sshd.log")
    }

    /// The ssh that goes straight to it, with the key pair that only the tests have.
    #[must_use]
    pub fn direct(&self) -> Command {
        let mut command = Command::new("ssh");
        command
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-p"])
            .arg(self.port.to_string())
            .arg("-i")
            .arg(self.dir.join("direct"));
        command
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs ssh-keygen.
///
/// # Panics
/// When it fails.
pub fn keygen(arguments: &[&str]) {
    crate::process::run(Command::new("ssh-keygen").args(arguments), b"", crate::wait::DEADLINE).ok();
}

/// A path as text.
///
/// # Panics
/// When it isn't UTF-8.
#[must_use]
pub fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn sshd_program() -> PathBuf {
    let path = PathBuf::from("/usr/sbin/sshd");
    assert!(path.exists(), "{} isn't installed: run `make setup` first", path.display());
    path
}
