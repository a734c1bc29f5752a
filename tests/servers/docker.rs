//! A Docker daemon of one's own: its images, containers and mounts end with it.

use super::sshd::path;
use crate::process::{Running, Said, run};
use crate::wait;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Loading and building an image on a busy machine.
const BUILD: Duration = Duration::from_secs(180);

/// Needs root, as Docker does.
#[derive(Debug)]
pub struct Docker {
    _daemon: Running,
    socket: PathBuf,
    // Last: the folder goes when the daemon is gone.
    dir: TempDir,
}

impl Docker {
    /// Starts it without networks of its own: containers have the machine's (`--network host`) or none.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("custody-docker-").tempdir().expect("a folder for Docker");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("daemon.json"), "{}").expect("Docker's configuration");
        let output = std::fs::File::create(at("output.log")).expect("a file for Docker's output");
        let socket = at("sock");
        // Namespaces of its own: whatever a container or the daemon itself leaves (processes, mounts) is gone with it, also
        // when it is killed.
        let mut daemon = Running::start_bound("dockerd", "unshare".as_ref(), |command| {
            command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "dockerd"]);
            command.args(["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"]);
            command.arg("--bridge=none").arg("--host").arg(format!("unix://{}", path(&socket)));
            for (option, name) in [
                ("--data-root", "data"),
                ("--exec-root", "exec"),
                ("--pidfile", "pid"),
                ("--config-file", "daemon.json"),
            ] {
                command.arg(option).arg(dir.path().join(name));
            }
            command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        });
        let answers = || {
            let mut command = Command::new("docker");
            command.arg("--host").arg(format!("unix://{}", path(&socket))).arg("version");
            run(&mut command, b"", wait::DEADLINE).code == 0
        };
        wait::until_true("dockerd answers", Duration::from_secs(60), || {
            if let Some(status) = daemon.ended() {
                let output = std::fs::read_to_string(dir.path().join("output.log")).unwrap_or_default();
                panic!("dockerd ended with {status}:\n{output}");
            }
            answers()
        });
        Self { _daemon: daemon, socket, dir }
    }

    /// The client, with these arguments. The old builder: the new one needs a plug-in.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.dir.path().join("client")).env("DOCKER_BUILDKIT", "0");
        command.arg("--host").arg(format!("unix://{}", path(&self.socket))).args(arguments);
        command
    }

    /// Runs the client with an input, and expects it to succeed.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Said {
        let said = run(&mut self.command(arguments), input, BUILD);
        assert_eq!(said.code, 0, "docker {arguments:?}: {}{}", said.err, said.text());
        said
    }
}
