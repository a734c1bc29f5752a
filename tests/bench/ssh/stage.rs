//! Three ways to an sshd: straight, by way of a stock sshd, and through Custody.

use crate::usage;
use custody_core::policy::RecordingLevel;
use custody_tests::servers::world::HostProof;
use custody_tests::servers::{Host, Sshd, World};
use custody_tests::wait;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// On every hop. What two OpenSSH 9 agree on otherwise (sntrup761) takes 100 ms a hop: who has fewer hops would be
/// flattered.
const KEX: &str = "curve25519-sha256";
/// A home without anything: what root's shell does here when it starts isn't to be measured.
const HOME: &str = "/nonexistent";
/// The cipher of whoever wants it fast.
pub const GCM: &str = "aes128-gcm@openssh.com";

/// A way to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `ssh`
    Direct,
    /// `ssh -J`
    Jumped,
    /// Through Custody, with so much recorded.
    Custody(RecordingLevel),
}

impl Way {
    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "ssh",
            Self::Jumped => "ssh -J",
            Self::Custody(level) => level.name(),
        }
    }

    /// The target as this way calls it.
    pub fn host(self) -> String {
        match self {
            Self::Direct | Self::Jumped => "root@127.0.0.1".to_owned(),
            Self::Custody(level) => format!("root@{}.custody", node(level)),
        }
    }
}

/// All that takes part.
pub struct Stage {
    levels: Vec<RecordingLevel>,
    /// The stock sshd that `ssh -J` goes through.
    hop: Sshd,
    /// A target for each level, all alike and like the world's own, which the other ways lead to.
    nodes: Vec<Sshd>,
    // Last: its folder goes when the processes in it are gone.
    world: World,
}

impl Stage {
    pub fn start(levels: &[RecordingLevel]) -> Self {
        let lines = [&*format!("KexAlgorithms {KEX}"), &*format!("SetEnv HOME={HOME}")];
        let world = World::start_with(&lines);
        world.policy("operators", &policy(levels));
        let nodes = levels.iter().map(|l| world.add_node(&node(*l), HostProof::Certificate, &lines));
        let nodes: Vec<Sshd> = nodes.collect();
        let mut hop = Sshd::prepare(&world.dir().join("hop"));
        hop.start(&hop_host());
        Self { levels: levels.to_vec(), hop, nodes, world }
    }

    /// Custody's daemon and the jump host as they are when nothing has happened yet.
    pub fn restart(&mut self) {
        self.world.custodyd.stop();
        self.world.custodyd.start();
        self.hop.stop();
        self.hop.start(&hop_host());
    }

    /// A folder for what is measured with.
    pub fn dir(&self) -> &Path {
        self.world.dir()
    }

    /// Through Custody, at the first level.
    pub fn custody(&self) -> Way {
        Way::Custody(self.levels[0])
    }

    /// The three ways, in an order that differs from round to round.
    pub fn three(&self, round: usize) -> Vec<Way> {
        rotated(vec![Way::Direct, self.custody(), Way::Jumped], round)
    }

    /// The same with each level.
    pub fn all(&self, round: usize) -> Vec<Way> {
        let levels = self.levels.iter().map(|level| Way::Custody(*level));
        rotated([Way::Direct, Way::Jumped].into_iter().chain(levels).collect(), round)
    }

    /// `ssh`, `scp` or `sftp` with all that it needs for this way, but the target's name.
    pub fn client(&self, way: Way, program: &str, cipher: &str) -> Command {
        let ssh = match way {
            Way::Direct | Way::Jumped => self.world.web.direct(),
            Way::Custody(_) => self.world.proxied(),
        };
        let mut command = Command::new(program);
        for argument in ssh.get_args() {
            // ssh's -p is the others' -P.
            command.arg(if argument == "-p" && program != "ssh" { "-P".as_ref() } else { argument });
        }
        command.args(["-o", &format!("KexAlgorithms={KEX}"), "-c", cipher]);
        if way == Way::Jumped {
            command.args(["-o", &format!("ProxyCommand={}", self.jump(cipher))]);
        }
        command.env_remove("SSH_AUTH_SOCK");
        command
    }

    /// `ssh` that runs `script` at the target.
    pub fn ssh(&self, way: Way, cipher: &str, script: &str) -> Command {
        let mut command = self.client(way, "ssh", cipher);
        command.args([&way.host(), script]);
        command
    }

    /// -J takes no options for the hop: the ProxyCommand that it stands for does.
    fn jump(&self, cipher: &str) -> String {
        let hop = self.hop.direct();
        let options: Vec<_> = hop.get_args().map(|word| word.to_str().expect("UTF-8")).collect();
        let (options, target) = (options.join(" "), self.world.web.address());
        format!("ssh {options} -o KexAlgorithms={KEX} -c {cipher} -W {target} root@127.0.0.1")
    }

    /// Whose processor time and memory the way costs beside the two ends': nobody's if it is straight.
    pub fn between(&self, way: Way) -> Option<u32> {
        match way {
            Way::Direct => None,
            Way::Jumped => self.hop.pid(),
            Way::Custody(_) => Some(self.world.custodyd.pid()),
        }
    }

    /// Waits until no sshd has anything left of earlier sessions: their ends would be in the next one's way, and what a
    /// jump host's processes cost is known when they have ended.
    pub fn quiet(&self) {
        let every = [&self.hop, &self.world.web].into_iter().chain(&self.nodes);
        for pid in every.filter_map(Sshd::pid) {
            wait::until_true("earlier sessions are over", wait::DEADLINE, || usage::childless(pid));
        }
    }
}

fn hop_host() -> Host {
    Host { user_ca: None, lines: vec![format!("KexAlgorithms {KEX}")] }
}

fn node(level: RecordingLevel) -> String {
    format!("web-{}", level.name())
}

/// The level goes by the node.
fn policy(levels: &[RecordingLevel]) -> String {
    let mut text = String::new();
    for level in levels {
        let (name, node) = (level.name(), node(*level));
        writeln!(
            text,
            r#"@id("bench-{name}") @recording("{name}")
permit(
  principal in Role::"operator",
  action in [
    Action::"ssh:connect", Action::"ssh:shell", Action::"ssh:exec",
    Action::"ssh:subsystem", Action::"ssh:sftp-read", Action::"ssh:sftp-write"
  ],
  resource == Node::"{node}"
);"#
        )
        .expect("a string");
    }
    text
}

fn rotated(mut ways: Vec<Way>, round: usize) -> Vec<Way> {
    let first = round % ways.len();
    ways.rotate_left(first);
    ways
}

/// The cipher that the installed OpenSSH likes best.
pub fn default_cipher() -> String {
    let output = Command::new("ssh").args(["-F", "none", "-G", "anywhere"]).output().expect("ssh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let list = text.lines().find_map(|line| line.strip_prefix("ciphers "));
    list.and_then(|list| list.split(',').next()).expect("ssh says its ciphers").to_owned()
}
