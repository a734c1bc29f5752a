//! The agent of a node, in a folder of its own: joined by a token, as its documentation says.

use super::World;
use super::custodyd::layout;
use super::sshd::path;
use crate::process::{Running, Said, run};
use crate::{program, wait};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a start may take: the kernel checks each program, beside whatever else runs.
pub const START_DEADLINE: Duration = Duration::from_secs(300);

/// How long a stop may take: the last events go first.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// An agent. Its programs go from the kernel with this value.
#[derive(Debug)]
pub struct Agent {
    /// Its folder: configuration, data, output.
    pub dir: PathBuf,
    node: String,
    server: String,
    pins: PathBuf,
    process: Option<Running>,
}

impl Agent {
    /// Has an agent join as `node`; `lines` are added to its configuration. It isn't started.
    ///
    /// # Panics
    /// When it doesn't join.
    #[must_use]
    pub fn join(world: &World, node: &str, lines: &str) -> Self {
        Self::join_by(world, &world.custodyd.url(), node, lines)
    }

    /// The same by way of another address than the daemon's own, `https://127.0.0.1:PORT`: it keeps to that.
    ///
    /// # Panics
    /// When it doesn't join.
    #[must_use]
    pub fn join_by(world: &World, server: &str, node: &str, lines: &str) -> Self {
        let dir = world.dir().join(format!("agent-{node}"));
        std::fs::create_dir_all(&dir).expect("a folder for the agent");
        let pins = PathBuf::from(format!("/sys/fs/bpf/custody-test-{}", uuid::Uuid::new_v4().simple()));
        let agent = Self { dir, node: node.to_owned(), server: server.to_owned(), pins, process: None };
        let config = format!(
            "data = \"{}\"\npins = \"{}\"\n{lines}\n",
            path(&agent.dir.join("data")),
            path(&agent.pins)
        );
        std::fs::write(agent.config(), config).expect("agent.toml");
        let token = world.admin.custody(&["node", "token", node]).text();
        let said = agent.try_join(world, token.trim());
        assert_eq!(said.code, 0, "the agent of {node} can't join: {}", said.err);
        agent
    }

    /// `custodyd node join` with some token.
    pub fn try_join(&self, world: &World, token: &str) -> Said {
        let mut command = Command::new(program("custodyd"));
        command.args(["node", "join", "--config", path(&self.config()), "--server", &self.server]);
        command.arg("--ca").arg(world.custodyd.data().join(layout::SERVER_CA));
        run(&mut command, format!("{token}\n").as_bytes(), wait::DEADLINE)
    }

    fn config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts it, and waits until sessions can be watched.
    ///
    /// # Panics
    /// When it ends, or isn't there in time.
    pub fn start(&mut self, world: &World) {
        self.start_by(world, &mut Command::new(program("custodyd")));
    }

    /// The same by another command.
    ///
    /// # Panics
    /// See [`Agent::start`].
    pub fn start_by(&mut self, world: &World, command: &mut Command) {
        let before = self.joined(world);
        self.spawn(command);
        let what = format!("the agent of {} is there", self.node);
        wait::until_true(&what, START_DEADLINE, || {
            if let Some(status) = self.process.as_mut().and_then(Running::ended) {
                panic!("the agent of {} ended with {status}:\n{}", self.node, self.output());
            }
            self.joined(world) > before
        });
    }

    /// Starts it behind the given program, and doesn't wait.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn spawn(&mut self, command: &mut Command) {
        assert!(self.process.is_none(), "the agent runs already");
        let output = std::fs::File::options().create(true).append(true).open(self.dir.join("agent.log"));
        let output = output.expect("its output");
        command.args(["node", "--config", path(&self.config())]);
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        self.process = Some(Running::start("the agent", command));
    }

    /// How often the log has heard that it is there.
    fn joined(&self, world: &World) -> usize {
        let joined = world.entries("type=node.joined");
        joined.iter().filter(|entry| entry.event["target"]["name"] == self.node.as_str()).count()
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it doesn't run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the agent runs").pid()
    }

    /// Where its programs stay attached.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Whether it runs no longer.
    pub fn ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.ended().is_some())
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
            let status = process.stop(STOP_DEADLINE);
            assert!(status.success(), "the agent ended with {status} after SIGTERM:\n{}", self.output());
        }
    }

    /// Stops it as [`Agent::stop`] does, and has its programs go from the kernel: nothing is watched any more.
    ///
    /// # Panics
    /// When it doesn't end in order.
    pub fn leave(&mut self) {
        self.stop();
        unpin(&self.pins);
    }

    /// What it printed in all its runs.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill_now();
        unpin(&self.pins);
    }
}

/// Nothing that agents saw is missing in the log.
///
/// # Panics
/// When something is.
pub fn nothing_is_missing(world: &World) {
    for kind in ["producer.gap", "producer.dropped"] {
        let told: Vec<_> =
            world.entries(&format!("type={kind}")).into_iter().map(|entry| entry.line).collect();
        assert!(told.is_empty(), "{told:?}");
    }
}

/// Removes what is pinned: with the last pin a program is detached.
pub fn unpin(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            unpin(&path);
        } else {
            // Of a world that is going anyway.
            drop(std::fs::remove_file(path));
        }
    }
    drop(std::fs::remove_dir(directory));
}
