//! A whole world in a temporary folder: custodyd, a target, an administrator and an operator who are logged in.

use super::custodyd::{Custodyd, Entry, Home};
use super::sshd::{Host, Sshd, path};
use crate::process::{Said, run};
use crate::wait;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Passwords of the tests' people; they protect nothing.
pub const ADMIN_PASSWORD: &str = "correct horse battery staple";
/// The operator's.
pub const OPERATOR_PASSWORD: &str = "hunter2 hunter2 hunter2";

/// What operators may do in tests: everything that SSH has here, on every node.
pub const OPERATORS: &str = r#"@id("operators-work")
permit(
  principal in Role::"operator",
  action in [
    Action::"ssh:connect", Action::"ssh:shell", Action::"ssh:exec",
    Action::"ssh:forward", Action::"ssh:listen", Action::"ssh:agent", Action::"ssh:x11"
  ],
  resource
);
"#;

/// How a node's host key is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostProof {
    /// By a certificate of the host CA.
    Certificate,
    /// By the key itself, pinned.
    Pinned,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// The daemon.
    pub custodyd: Custodyd,
    /// The target `web-1`, whose host key is certified.
    pub web: Sshd,
    /// alice, who may everything that administrators may.
    pub admin: Home,
    /// bob, an operator.
    pub operator: Home,
    // Last: the folder goes when the processes are gone.
    dir: TempDir,
}

impl World {
    /// Starts all of it.
    ///
    /// # Panics
    /// When a part doesn't start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with further lines in the sshd_config of `web-1`.
    ///
    /// # Panics
    /// When a part doesn't start.
    #[must_use]
    pub fn start_with(sshd_lines: &[&str]) -> Self {
        Self::start_in(&std::env::temp_dir(), sshd_lines)
    }

    /// The same, below a folder of one's choice: on a disk that can fill up, for instance.
    ///
    /// # Panics
    /// When a part doesn't start.
    #[must_use]
    pub fn start_in(parent: &Path, sshd_lines: &[&str]) -> Self {
        let dir =
            tempfile::Builder::new().prefix("custody-test-").tempdir_in(parent).expect("a temporary folder");
        let mut custodyd = Custodyd::init(&dir.path().join("custodyd"), "alice", ADMIN_PASSWORD);
        custodyd.start();
        let admin = Home::new(&custodyd, &dir.path().join("alice"), "alice");
        admin.login(ADMIN_PASSWORD);
        admin.custody(&["role", "add", "operator", "--description", "Runs the web servers"]);
        let policy = dir.path().join("operators.cedar");
        std::fs::write(&policy, OPERATORS).expect("the policy");
        admin.custody(&["policy", "upload", "operators", path(&policy)]);
        let operator = add_user(&custodyd, &admin, dir.path(), "bob", &["operator"], OPERATOR_PASSWORD);
        operator.login(OPERATOR_PASSWORD);
        let web = add_node(&admin, dir.path(), "web-1", HostProof::Certificate, sshd_lines);
        Self { custodyd, web, admin, operator, dir }
    }

    /// The folder of it all.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Says how `web-1` is to be watched: `none`, `optional`, or `required`.
    ///
    /// # Panics
    /// When that is refused.
    pub fn demand_agent(&self, agent: &str) {
        self.admin.custody(&["node", "add", "web-1", &self.web.address(), "--agent", agent, "--replace"]);
    }

    /// Restricts bob's sessions: `rest` says from what.
    ///
    /// # Panics
    /// When that is refused.
    pub fn restrict(&self, name: &str, rest: &[&str]) {
        let start = ["restrict", "add", name, "--user", "bob", "--reason", "a test"];
        self.admin.custody(&[&start[..], rest].concat());
    }

    /// Another target, enrolled as its documentation says.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn add_node(&self, name: &str, proof: HostProof, sshd_lines: &[&str]) -> Sshd {
        add_node(&self.admin, self.dir(), name, proof, sshd_lines)
    }

    /// Another person, not logged in yet.
    #[must_use]
    pub fn add_user(&self, name: &str, roles: &[&str], password: &str) -> Home {
        add_user(&self.custodyd, &self.admin, self.dir(), name, roles, password)
    }

    /// Uploads a policy document.
    ///
    /// # Panics
    /// When it is refused.
    pub fn policy(&self, name: &str, text: &str) {
        let file = self.dir().join(format!("{name}.cedar"));
        std::fs::write(&file, text).expect("the policy");
        self.admin.custody(&["policy", "upload", name, path(&file)]);
    }

    /// A command through the proxy: bob's stock ssh.
    #[must_use]
    pub fn proxied(&self) -> Command {
        self.operator.ssh_command()
    }

    /// Runs one command as root on `web-1` through the proxy, e.g. `world.ssh(&[], "true", b"")`.
    pub fn ssh(&self, options: &[&str], command: &str, input: &[u8]) -> Said {
        run(self.proxied().args(options).arg("root@web-1.custody").arg(command), input, wait::DEADLINE)
    }

    /// The same straight to the same sshd, past the proxy: the yardstick.
    pub fn direct(&self, options: &[&str], command: &str, input: &[u8]) -> Said {
        run(self.web.direct().args(options).arg("root@127.0.0.1").arg(command), input, wait::DEADLINE)
    }

    /// All events so far, with their indices.
    #[must_use]
    pub fn entries(&self, query: &str) -> Vec<Entry> {
        self.admin.entries(query)
    }

    /// Waits until an event of the query is there that `wanted` takes.
    ///
    /// # Panics
    /// When none comes.
    pub fn event(&self, query: &str, what: &str, wanted: impl Fn(&Entry) -> bool) -> Entry {
        wait::until(what, wait::DEADLINE, || self.entries(query).into_iter().find(|e| wanted(e)))
    }
}

fn add_user(
    custodyd: &Custodyd,
    admin: &Home,
    dir: &Path,
    name: &str,
    roles: &[&str],
    password: &str,
) -> Home {
    let mut arguments = vec!["user", "add", name, "--password-stdin"];
    for role in roles {
        arguments.extend(["--role", role]);
    }
    let said = admin.try_custody(&arguments, format!("{password}\n").as_bytes());
    assert_eq!(said.code, 0, "{name} can't be added: {}", said.err);
    Home::new(custodyd, &dir.join(name), name)
}

fn add_node(admin: &Home, dir: &Path, name: &str, proof: HostProof, sshd_lines: &[&str]) -> Sshd {
    let mut sshd = Sshd::prepare(&dir.join(format!("sshd-{name}")));
    let host_key = sshd.dir.join("host.pub");
    let address = sshd.address();
    let mut add = vec!["node", "add", name, &address];
    if proof == HostProof::Pinned {
        add.extend(["--host-key", path(&host_key)]);
    }
    admin.custody(&add);
    let mut lines: Vec<String> = sshd_lines.iter().map(|l| (*l).to_owned()).collect();
    lines.extend(enroll(admin, name, proof, &sshd));
    sshd.start(&Host { user_ca: None, lines });
    sshd
}

/// `custody node enroll`: the lines of sshd_config that it prints, for the files that it writes. A target whose key is
/// pinned needs the CA only.
fn enroll(admin: &Home, name: &str, proof: HostProof, sshd: &Sshd) -> Vec<String> {
    let out: PathBuf = sshd.dir.join("enrolled");
    std::fs::create_dir_all(&out).expect("a folder for what enroll writes");
    let host_key = sshd.dir.join("host.pub");
    let said = admin
        .custody(&["node", "enroll", name, "--host-key-pub", path(&host_key), "--out", path(&out)])
        .text();
    let words: &[&str] = match proof {
        HostProof::Certificate => &["TrustedUserCAKeys ", "HostCertificate "],
        HostProof::Pinned => &["TrustedUserCAKeys "],
    };
    let lines: Vec<String> = said
        .lines()
        .filter(|line| words.iter().any(|word| line.starts_with(word)))
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len(), words.len(), "what enroll printed: {said}");
    lines
}
