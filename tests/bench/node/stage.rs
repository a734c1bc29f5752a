//! A target, and who watches it: nobody, the agent, or auditd.

use super::auditd::Auditd;
use crate::cores::APART;
use crate::usage;
use custody_tests::load::Load;
use custody_tests::process::run;
use custody_tests::servers::{Agent, World};
use std::time::{Duration, Instant};

/// A home without anything: what root's shell does here when it starts isn't to be measured.
const HOME: &str = "SetEnv HOME=/nonexistent";
/// How long one piece of work may take.
const WORK_MAX: Duration = Duration::from_secs(300);
/// Who has worked off what was done has used next to no processor in so long a time.
const QUIET: Duration = Duration::from_millis(500);
const QUIET_SECONDS: f64 = 0.02;
/// What hasn't become quiet by then is measured as it is.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    /// Nobody: neither the agent nor auditd is there.
    Nobody,
    /// The agent watches other sessions, not this one.
    Elsewhere,
    /// The agent.
    Agent,
    /// The kernel's audit rules and auditd.
    Auditd,
}

/// What a piece of work came to.
#[derive(Clone, Copy, Debug)]
pub struct Worked {
    /// How long each of its steps took, in seconds, as it measured itself.
    pub each: f64,
    /// Processor seconds, until all of it was worked off, of whoever watched.
    pub watcher: f64,
    /// The same of custodyd, the session's login included.
    pub custodyd: f64,
}

/// All that takes part.
pub struct Stage {
    /// What sessions do.
    pub load: Load,
    agent: Agent,
    /// Runs now.
    here: Here,
    audited: u32,
    // Last: its folder goes when the processes in it are gone.
    world: World,
}

enum Here {
    Nobody,
    Agent,
    Auditd(Auditd),
}

impl Stage {
    pub fn start() -> Self {
        // Looked at first: what is begun behind it is on the node's side, and custodyd goes to the other one.
        let apart = APART.as_ref();
        let world = World::start_with(&[HOME]);
        if let Some(cores) = apart {
            cores.send(world.custodyd.pid());
        }
        // Watched when the agent is there, and let be when it isn't.
        world.demand_agent("optional");
        let load = Load::prepare(&world.dir().join("load"));
        let agent = Agent::join(&world, "web-1", "");
        Self { load, agent, here: Here::Nobody, audited: 0, world }
    }

    /// Has just this one watch from now on.
    ///
    /// # Errors
    /// Why auditd doesn't run.
    pub fn watched_by(&mut self, watcher: Watcher) -> Result<(), String> {
        match (watcher, &self.here) {
            (Watcher::Nobody, Here::Nobody)
            | (Watcher::Agent | Watcher::Elsewhere, Here::Agent)
            | (Watcher::Auditd, Here::Auditd(_)) => return Ok(()),
            _ => {}
        }
        if matches!(self.here, Here::Agent) {
            self.agent.leave();
        }
        self.here = Here::Nobody;
        match watcher {
            Watcher::Nobody => {}
            Watcher::Agent | Watcher::Elsewhere => {
                self.agent.start(&self.world);
                self.here = Here::Agent;
            }
            Watcher::Auditd => {
                self.audited += 1;
                let dir = self.world.dir().join(format!("auditd-{}", self.audited));
                self.here = Here::Auditd(Auditd::start(&dir)?);
            }
        }
        self.quiet();
        Ok(())
    }

    /// Runs a command line of the load in a session.
    pub fn work(&self, watcher: Watcher, line: &str, steps: u64) -> Worked {
        let (watching, custodyd) = (self.watching(), self.world.custodyd.pid());
        let before = (seconds(&watching), usage::processor_seconds(custodyd));
        let mut ssh = match watcher {
            Watcher::Elsewhere => {
                let mut ssh = self.world.web.direct();
                ssh.arg("root@127.0.0.1");
                ssh
            }
            _ => {
                let mut ssh = self.world.proxied();
                ssh.arg("root@web-1.custody");
                ssh
            }
        };
        let said = run(ssh.arg(line), b"", WORK_MAX).ok();
        let nanoseconds: f64 = said.text().trim().parse().expect("the load says how long it took");
        self.quiet();
        Worked {
            each: nanoseconds / 1e9 / steps as f64,
            watcher: seconds(&watching) - before.0,
            custodyd: usage::processor_seconds(custodyd) - before.1,
        }
    }

    /// The same command line, for as long as which custodyd stands still: what the node itself pays, as if the log were on
    /// another machine. Short enough for the agent not to be missed.
    pub fn alone(&self, line: &str) -> String {
        let (custodyd, said) = (self.world.custodyd.pid(), self.world.dir().join("said"));
        let said = said.display();
        format!("kill -STOP {custodyd}; {line} > {said}; kill -CONT {custodyd}; cat {said}")
    }

    /// Whoever watches.
    pub fn watching(&self) -> Vec<u32> {
        match &self.here {
            Here::Nobody => Vec::new(),
            Here::Agent => vec![self.agent.pid()],
            Here::Auditd(auditd) => auditd.pids(),
        }
    }

    /// Processor seconds that the watcher uses in so long a time in which nothing happens.
    pub fn idle(&self, time: Duration) -> f64 {
        let watching = self.watching();
        let before = seconds(&watching);
        std::thread::sleep(time);
        seconds(&watching) - before
    }

    /// How many events the log heard to be lost, of each kind.
    pub fn dropped(&self) -> u64 {
        let dropped = self.world.entries("type=producer.dropped");
        let counts = dropped.iter().filter_map(|entry| entry.event["data"]["counts"].as_object());
        counts.flat_map(|counts| counts.values().filter_map(serde_json::Value::as_u64)).sum()
    }

    /// How many sessions were watched, and how many were not.
    pub fn sessions(&self) -> (usize, usize) {
        let started = self.world.entries("type=session.started");
        let watched = started.iter().filter(|entry| entry.event["data"]["watched"] == true).count();
        (watched, started.len() - watched)
    }

    /// Waits until all that was seen is worked off.
    fn quiet(&self) {
        let mut who = self.watching();
        who.push(self.world.custodyd.pid());
        let start = Instant::now();
        let mut last = seconds(&who);
        loop {
            std::thread::sleep(QUIET);
            let now = seconds(&who);
            if now - last <= QUIET_SECONDS || start.elapsed() > QUIET_MAX {
                return;
            }
            last = now;
        }
    }
}

fn seconds(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| usage::processor_seconds(*pid)).sum()
}
