//! The kernel's audit rules, and Debian's daemon that writes down what they find: what a server watches without us.

use crate::usage;
use custody_tests::process::{Running, Said, run};
use custody_tests::servers::sshd::path;
use custody_tests::wait::{self, DEADLINE};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is watched: what the agent tells of as well. `exec`, `connect` and the files below /etc.
const RULES: [&str; 3] = [
    "-a always,exit -F arch=b64 -S execve,execveat -k bench",
    "-a always,exit -F arch=b64 -S connect -k bench",
    "-a always,exit -F arch=b64 -S open,openat,openat2,creat -F dir=/etc -k bench",
];
/// Since the first use of audit rules the kernel keeps a book for each system call of each process that is made later,
/// rules or none, until this is said or the machine is started anew. It stays when the bench is over.
const NOBODY: &str = "-a never,task";
/// As Debian's own audit.rules has it.
const BACKLOG: &str = "8192";
const BACKLOG_WAIT_MILLISECONDS: &str = "60000";
const CONFIGURATION: &str = "/etc/audit/auditd.conf";

/// The daemon with these rules in force. They go with it.
pub struct Auditd {
    process: Option<Running>,
}

impl Auditd {
    /// Whether it may run here: nobody else uses the kernel's audit system.
    ///
    /// # Errors
    /// Why not.
    pub fn possible() -> Result<(), String> {
        if !Path::new("/usr/sbin/auditd").exists() {
            return Err("auditd isn't installed: run make setup".to_owned());
        }
        if status("pid")? != 0 {
            return Err("another audit daemon runs".to_owned());
        }
        let rules = auditctl(&["-l"])?;
        let foreign = rules.lines().find(|line| *line != "No rules" && *line != NOBODY);
        foreign.map_or(Ok(()), |rule| Err(format!("there is an audit rule already: {rule}")))
    }

    /// Starts it with its files in `dir`.
    ///
    /// # Errors
    /// What the kernel or the daemon says.
    pub fn start(dir: &Path) -> Result<Self, String> {
        let config = configured(dir);
        let output = std::fs::File::create(dir.join("output")).expect("a file for its output");
        let mut command = Command::new("/usr/sbin/auditd");
        command.args(["-n", "-c", path(&config)]).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a file")).stderr(output);
        let mut process = Running::start("auditd", &mut command);
        let pid = u64::from(process.pid());
        wait::until("auditd has the kernel's records", DEADLINE, || {
            if let Some(status) = process.ended() {
                let said = std::fs::read_to_string(dir.join("output")).unwrap_or_default();
                return Some(Err(format!("auditd ended with {status}: {said}")));
            }
            (status("pid").ok()? == pid).then_some(Ok(()))
        })?;
        let started = Self { process: Some(process) };
        auditctl(&["-D"])?;
        auditctl(&["-b", BACKLOG])?;
        auditctl(&["--backlog_wait_time", BACKLOG_WAIT_MILLISECONDS])?;
        auditctl(&["-e", "1"])?;
        for rule in RULES {
            auditctl(&rule.split(' ').collect::<Vec<_>>())?;
        }
        Ok(started)
    }

    /// Its processes: itself, and the kernel's thread that hands it the records.
    pub fn pids(&self) -> Vec<u32> {
        self.process.iter().map(Running::pid).chain(usage::named("kauditd")).collect()
    }

    /// How many records were lost since the machine was started.
    pub fn lost() -> u64 {
        status("lost").unwrap_or_default()
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        for arguments in [&["-D"][..], &NOBODY.split(' ').collect::<Vec<_>>(), &["-e", "0"]] {
            if let Err(error) = auditctl(arguments) {
                println!("audit rules may be left: {error}");
            }
        }
        if let Some(mut process) = self.process.take() {
            process.stop(Duration::from_secs(10));
        }
    }
}

/// Debian's configuration, with its files in `dir`.
fn configured(dir: &Path) -> PathBuf {
    let config = dir.join("configuration");
    std::fs::create_dir_all(config.join("plugins.d")).expect("a folder for auditd");
    let stock = std::fs::read_to_string(CONFIGURATION).expect("Debian's configuration of auditd");
    let (log, plugins) = (dir.join("audit.log"), config.join("plugins.d"));
    let line = |line: &str| match line.split_once(" = ") {
        Some(("log_file", _)) => format!("log_file = {}\n", log.display()),
        Some(("log_group", _)) => "log_group = root\n".to_owned(),
        Some(("plugin_dir", _)) => format!("plugin_dir = {}\n", plugins.display()),
        _ => format!("{line}\n"),
    };
    let text: String = stock.lines().map(line).collect();
    std::fs::write(config.join("auditd.conf"), text).expect("auditd's configuration");
    config
}

fn auditctl(arguments: &[&str]) -> Result<String, String> {
    let said: Said = run(Command::new("/usr/sbin/auditctl").args(arguments), b"", DEADLINE);
    if said.code == 0 {
        Ok(said.text())
    } else {
        Err(format!("auditctl {}: {}", arguments.join(" "), said.err))
    }
}

/// A number that the kernel says of its audit system.
fn status(name: &str) -> Result<u64, String> {
    let text = auditctl(&["-s"])?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| format!("auditctl -s says nothing of {name}"))
}
