//! Witnesses: ours (`custodyd witness`), and Torchwood's litewitness, which keeps its key in an ssh-agent.

use super::golang;
use super::sshd::path;
use crate::process::{Running, free_port, run};
use crate::{program, wait};
use custody_core::log::CosignerKey;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A witness of ours in a folder of its own.
#[derive(Debug)]
pub struct Witness {
    dir: PathBuf,
    /// Where it listens.
    pub port: u16,
    /// Its verifier key.
    pub key: String,
    process: Option<Running>,
}

impl Witness {
    /// `custodyd witness init`, for the logs in `logs` (`[[log]]` …), with further lines at the `top`.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn init(dir: &Path, top: &str, logs: &str) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for the witness");
        let mut it = Self { dir: dir.to_owned(), port: free_port(), key: String::new(), process: None };
        let config = format!(
            "name = \"witness.test\"\ndata = \"{}\"\nlisten = \"127.0.0.1:{}\"\npoll_seconds = 1\n{top}\n{logs}\n",
            path(&dir.join("data")),
            it.port,
        );
        std::fs::write(it.config(), config).expect("the witness's configuration");
        let mut command = Command::new(program("custodyd"));
        command.args(["witness", "init", "--config"]).arg(it.config());
        let said = run(&mut command, b"", wait::DEADLINE).ok().text();
        it.key = said.lines().last().expect("it prints its key").trim().to_owned();
        it
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "the witness runs already");
        let output =
            std::fs::File::options().create(true).append(true).open(self.output_path()).expect("its output");
        let mut command = Command::new(program("custodyd"));
        command.args(["witness", "--config"]).arg(self.config());
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let mut process = Running::start("the witness", &mut command);
        process.wait_for_listener(self.port);
        self.process = Some(process);
    }

    /// SIGKILL.
    pub fn kill_now(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill_now();
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it isn't an orderly one.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(Duration::from_secs(20));
            assert!(status.success(), "the witness ended with {status}:\n{}", self.output());
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lines of a log's configuration that name it.
    #[must_use]
    pub fn as_configured(&self) -> String {
        format!("[[witness]]\nkey = \"{}\"\nurl = \"{}\"\n", self.key, self.url())
    }

    /// What it says of its first log in `/status`.
    ///
    /// # Panics
    /// When it doesn't answer.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", &format!("{}/status", self.url())]);
        let said = run(&mut command, b"", wait::DEADLINE).ok().text();
        let status: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        status["logs"][0].clone()
    }

    /// Waits for an alarm of `kind`.
    ///
    /// # Panics
    /// When none is raised within the minute that is promised.
    #[must_use]
    pub fn alarm(&self, kind: &str) -> Value {
        wait::until(&format!("the witness raises {kind}"), Duration::from_secs(60), || {
            let status = self.status();
            status["alarms"].as_array()?.iter().find(|alarm| alarm["alarm"] == kind).cloned()
        })
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("witness.toml")
    }

    /// Where it keeps what it has.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What it printed in all its runs.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.output_path()).unwrap_or_default()
    }

    fn output_path(&self) -> PathBuf {
        self.dir.join("witness.log")
    }
}

/// litewitness with one log, and the ssh-agent that holds its key.
#[derive(Debug)]
pub struct Litewitness {
    /// Its verifier key.
    pub key: CosignerKey,
    /// Its URL.
    pub url: String,
    _witness: Running,
    _agent: Running,
}

impl Litewitness {
    /// Starts it for the log with this verifier key. `dir` is short: an agent's socket has a path of 108 bytes at most.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn start(dir: &Path, origin: &str, log_key: &str) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for litewitness");
        let (socket, key_file, database) = (dir.join("agent"), dir.join("key"), dir.join("lite.db"));
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        };
        run(
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key_file),
            b"",
            wait::DEADLINE,
        )
        .ok();
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket);
        quiet(&mut agent);
        let agent = Running::start("ssh-agent", &mut agent);
        wait::until_true("the agent listens", wait::DEADLINE, || socket.exists());
        run(Command::new("ssh-add").arg(&key_file).env("SSH_AUTH_SOCK", &socket), b"", wait::DEADLINE).ok();
        let public = key_file.with_extension("pub");
        let said = run(Command::new("ssh-keygen").arg("-lf").arg(&public), b"", wait::DEADLINE).ok().text();
        let fingerprint = said.split(' ').nth(1).expect("a fingerprint").to_owned();
        // What its own `witnessctl add-log` and `add-key` do.
        let make = "import sqlite3, sys\n\
             db = sqlite3.connect(sys.argv[1])\n\
             db.execute('CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL)')\n\
             db.execute('CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin))')\n\
             db.execute('INSERT INTO log VALUES (?, 0, ?)', (sys.argv[2], '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='))\n\
             db.execute('INSERT INTO key VALUES (?, ?)', (sys.argv[2], sys.argv[3]))\n\
             db.commit()\n";
        run(
            Command::new("python3").args(["-c", make]).arg(&database).args([origin, log_key]),
            b"",
            wait::DEADLINE,
        )
        .ok();
        let port = free_port();
        let mut command = golang::tool("litewitness");
        command.args(["-name", "lite.test", "-key", &fingerprint, "-listen", &format!("127.0.0.1:{port}")]);
        command.arg("-ssh-agent").arg(&socket).arg("-db").arg(&database);
        quiet(&mut command);
        let mut witness = Running::start("litewitness", &mut command);
        witness.wait_for_listener(port);
        let text = std::fs::read_to_string(&public).expect("the public key");
        let public = russh::keys::PublicKey::from_openssh(&text).expect("a public key");
        let public = public.key_data().ed25519().expect("an Ed25519 key").0;
        let key = CosignerKey::ed25519("lite.test", public).expect("a name");
        Self { key, url: format!("http://127.0.0.1:{port}"), _witness: witness, _agent: agent }
    }
}
