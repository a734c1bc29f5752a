//! The sensor: loads the programs, says which connection is which session, gives what they tell, and sets what they refuse.
//!
//! Programs, links and maps are pinned: they go on without the agent, and refuse once its heartbeat is old; [`Sensor::start`] takes them
//! up again. No async runtime; nothing here blocks.

mod act;
mod cgroup;
mod check;
mod counters;
mod error;
mod executions;
mod files;
mod held;
pub mod layout;
mod let_go;
mod load;
mod lock;
mod pins;
mod policies;
mod programs;
mod reader;
pub mod record;
mod rules;
mod running;
mod selftest;
mod sock_diag;
mod take_down;
mod watched;

pub use act::{
    BpfUsed, ClockSet, FileEvent, IdsChanged, KernelReached, ModuleLoaded, Mounted, SocketMade, Traced,
    Tried, UnixConnected,
};
pub(crate) use cgroup::root as cgroup2;
pub use counters::{Counters, Since};
pub use error::SensorError;
pub use executions::Executions;
pub(crate) use files::is_at;
pub use files::{AllowList, FileRules, Found, PathRule};
pub use let_go::let_go;
pub use reader::RecordReader;
pub use record::{
    Accepted, Answered, Connection, Denial, ExecRefused, Executed, Exited, Record, Subject, Tuple,
};
pub use rules::{NetRule, PolicyRules, Ports, Protocol};
pub use take_down::TakenDown;
pub use watched::Watched;

use aya::maps::{Array, HashMap, MapData};
use counters::Counts;
use held::Held;
use layout::{control, expected};
use load::Loaded;
use lock::Lock;
use pins::Generation;
use policies::Policies;
use record::{put, read_u32};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The smallest ring that holds the largest record and leaves room for the ends of what runs.
pub const RING_BYTES_MIN: u32 = 65_536;

/// What to watch where nothing else is said: where a system keeps who may do what, people their files, and cron and at what they
/// will run outside of sessions.
pub const WATCHED: [&str; 5] = ["/etc", "/root", "/home", "/var/spool/cron", "/var/spool/at"];

/// How to start.
#[derive(Debug, Clone)]
pub struct SensorOptions {
    /// The agent's directory on a bpffs, as /sys/fs/bpf/custody-web-1; it is made, and a bpffs mounted, where there is none.
    pub pins: PathBuf,
    /// Size of the ring: a power of two, from [`RING_BYTES_MIN`].
    pub ring_bytes: u32,
    /// How long sessions may go on without a heartbeat.
    pub heartbeat_limit: Duration,
    /// Directories, with all below them, and files whose opens and changes are told, in the tier that can; see [`WATCHED`].
    pub watched: Vec<PathBuf>,
    /// The agent's own files and directories, which no session gets at, in the tier that can refuse it.
    pub own: Vec<PathBuf>,
    /// Only this tier, for tests; `None`: the best that the kernel has.
    pub tier: Option<Tier>,
}

/// What the programs are built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// BPF LSM: refusals before the effect, file sensors.
    Lsm,
    /// Tracepoints, cgroup hooks and signals.
    Tracepoint,
}

/// What is watched and refused here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// What the programs are built on.
    pub tier: Tier,
    /// Each feature; where it is missing, why.
    pub features: BTreeMap<String, Result<(), String>>,
    /// The kernel's release.
    pub kernel: String,
}

/// The running sensor. Dropping it leaves everything attached.
pub struct Sensor {
    coverage: Coverage,
    pins: PathBuf,
    generation: Generation,
    held: Held,
    left: Vec<Generation>,
    control: Array<MapData, u64>,
    tuples: HashMap<MapData, [u8; layout::tuple::SIZE], [u8; expected::SIZE]>,
    policies: Policies,
    counts: Counts,
    connections: HashMap<MapData, u64, [u8; layout::connection::SIZE]>,
    processes: HashMap<MapData, u32, [u8; layout::tag::SIZE]>,
    watched: Watched,
    /// That no other agent has these pins.
    lock: Lock,
}

/// What a kernel supports.
#[derive(Debug)]
pub struct Probe {
    /// What would be watched, or why nothing can be.
    pub coverage: Result<Coverage, SensorError>,
    /// What to change for more, each in a line.
    pub advice: Vec<String>,
}

/// Asks the kernel what it supports, by loading everything below a directory of its own for a moment. `pins` lies on a bpffs.
pub fn probe(pins: &Path, tier: Option<Tier>) -> Probe {
    let options = SensorOptions {
        pins: pins::aside(pins, pins::PROBE),
        ring_bytes: RING_BYTES_MIN,
        heartbeat_limit: Duration::from_secs(1),
        watched: Vec::new(),
        own: Vec::new(),
        tier,
    };
    let coverage = pins::sweep(pins).and_then(|()| Sensor::start(options)).and_then(|sensor| {
        let coverage = sensor.coverage().clone();
        sensor.detach().map(|()| coverage)
    });
    Probe { advice: check::advice(coverage.as_ref().ok()), coverage }
}

impl Sensor {
    /// Loads the programs, or takes up what an earlier run left; tries on itself whether they refuse; then sessions may come.
    /// Whether evidence is taken at all ([`Sensor::close`]) stays as the earlier run said.
    ///
    /// # Errors
    /// The kernel can't, or what is pinned there has another layout, or another agent runs by it.
    pub fn start(options: SensorOptions) -> Result<Sensor, SensorError> {
        if !options.ring_bytes.is_power_of_two() || options.ring_bytes < RING_BYTES_MIN {
            return Err(SensorError::Ring(options.ring_bytes));
        }
        pins::prepare(&options.pins)?;
        let mut lock = Lock::take(&options.pins)?;
        pins::sweep(&options.pins)?;
        let (tier, why_not) = match options.tier {
            Some(tier) => (tier, None),
            // Nobody is watched yet: what shows that it refuses can stay.
            None if pins::generations(&options.pins)?.is_empty() => {
                match Sensor::start_in(&options, Tier::Lsm) {
                    Ok(sensor) => return Ok(Sensor { lock, ..sensor }),
                    Err(error) => {
                        // With what it had made, the directory has gone.
                        pins::prepare(&options.pins)?;
                        lock.follow(&options.pins)?;
                        (Tier::Tracepoint, Some(why_not(error)))
                    }
                }
            }
            None => choose(&options)?,
        };
        let mut sensor = Sensor::start_in(&options, tier).map_err(|error| match (error, &why_not) {
            (SensorError::Missing { feature, why }, Some(lsm)) => {
                SensorError::Missing { feature, why: format!("{why}; LSM: {lsm}") }
            }
            (error, _) => error,
        })?;
        sensor.lock = lock;
        if let Some(why) = why_not {
            sensor.coverage.features.insert("LSM".to_owned(), Err(why));
        }
        Ok(sensor)
    }

    fn start_in(options: &SensorOptions, tier: Tier) -> Result<Sensor, SensorError> {
        let loaded = load::load(&options.pins, tier, options.ring_bytes)?;
        match Sensor::try_out(options, tier, &loaded) {
            Ok(sensor) => Ok(Sensor { left: loaded.keep()?, ..sensor }),
            Err(error) => loaded.take_back().and(Err(error)),
        }
    }

    fn try_out(options: &SensorOptions, tier: Tier, loaded: &Loaded) -> Result<Sensor, SensorError> {
        let generation = loaded.generation.clone();
        let mut sensor = Sensor {
            coverage: Coverage { tier, features: loaded.features.clone(), kernel: kernel_release() },
            pins: options.pins.clone(),
            held: Held::open(&generation)?,
            left: Vec::new(),
            control: load::control_of(&generation)?,
            tuples: load::open_map(&generation, "tuples")?,
            policies: Policies::open(&generation, tier)?,
            counts: Counts::open(&generation)?,
            connections: load::open_map(&generation, "connections")?,
            processes: load::open_map(&generation, "processes")?,
            watched: Watched::look(&options.watched, &options.own)?,
            // Whoever tries it out has it.
            lock: Lock::default(),
            generation,
        };
        sensor.watched.set(&sensor.generation)?;
        sensor.forget_all()?;
        selftest::run(&mut sensor)?;
        let (pid, start) = own_identity()?;
        sensor.set(control::AGENT_START, start)?;
        sensor.set(control::AGENT_PID, pid)?;
        sensor.heartbeat()?;
        sensor.set(control::LIMIT, u64::try_from(options.heartbeat_limit.as_nanos()).unwrap_or(u64::MAX))?;
        Ok(sensor)
    }

    /// What is watched and refused here.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// The next connection of this tuple is this session's, under this policy. Say so before it is opened.
    ///
    /// # Errors
    /// The policy isn't set; or the kernel has no room for more.
    pub fn expect(&mut self, tuple: Tuple, session: [u8; 16], policy: u32) -> Result<(), SensorError> {
        if policy >= layout::POLICY_RESERVED {
            return Err(SensorError::ReservedPolicy(policy));
        }
        if !self.policies.holds(policy)? {
            return Err(SensorError::NoPolicy(policy));
        }
        self.expect_any(tuple, session, policy)
    }

    fn expect_any(&mut self, tuple: Tuple, session: [u8; 16], policy: u32) -> Result<(), SensorError> {
        let mut value = [0; expected::SIZE];
        put(&mut value, expected::SESSION, &session);
        put(&mut value, expected::POLICY, &policy.to_ne_bytes());
        // An earlier session's tuple that nobody used would else be counted twice.
        self.forget(&tuple)?;
        self.tuples
            .insert(tuple.encode(), value, 0)
            .map_err(|error| SensorError::kernel("telling the kernel of a session's connection", error))?;
        let expected = self.get(control::EXPECTED)?;
        self.set(control::EXPECTED, expected + 1)
    }

    /// That connection won't come. No error if it has already.
    ///
    /// # Errors
    /// The kernel's map can't be changed.
    pub fn forget(&mut self, tuple: &Tuple) -> Result<(), SensorError> {
        match self.tuples.remove(&tuple.encode()) {
            Ok(()) => {
                let expected = self.get(control::EXPECTED)?;
                self.set(control::EXPECTED, expected.saturating_sub(1))
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(SensorError::kernel("forgetting a session's connection", error)),
        }
    }

    /// Tuples of an earlier run belong to connections that its proxy has given up.
    fn forget_all(&mut self) -> Result<(), SensorError> {
        let keys: Vec<_> = self.tuples.keys().filter_map(Result::ok).collect();
        for key in keys {
            match self.tuples.remove(&key) {
                Ok(()) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    return Err(SensorError::kernel("forgetting an earlier session's connection", error));
                }
            }
        }
        let accepted = self.get(control::ACCEPTED)?;
        self.set(control::EXPECTED, accepted)
    }

    /// Sets what a policy denies and allows, also while its sessions run: the old rules hold until all of the new ones do.
    ///
    /// # Errors
    /// A rule that can't be; no room for more.
    pub fn set_policy(&mut self, policy: u32, rules: &PolicyRules) -> Result<(), SensorError> {
        self.set_policy_of(policy, rules, &Found::look(rules.files.paths()))
    }

    /// [`Sensor::set_policy`], where the paths that the rules speak of were looked up already: nothing else may wait for that.
    ///
    /// # Errors
    /// As [`Sensor::set_policy`].
    pub fn set_policy_of(
        &mut self,
        policy: u32,
        rules: &PolicyRules,
        found: &Found,
    ) -> Result<(), SensorError> {
        if policy >= layout::POLICY_RESERVED {
            return Err(SensorError::ReservedPolicy(policy));
        }
        self.policies.set(policy, rules, found)
    }

    /// Whether a socket was made under a policy whose packets no rule can keep from a network: a raw one, one of multipath TCP, or of a family
    /// that is neither IP nor Unix.
    ///
    /// # Errors
    /// The kernel's map can't be read.
    pub fn unfollowed(&self, policy: u32) -> Result<bool, SensorError> {
        self.policies.unfollowed(policy)
    }

    /// The paths that policies speak of: to be looked up every now and then ([`Found::look`]), which may take long where they lie on
    /// another machine's disk.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        self.policies.paths()
    }

    /// Has the kernel watch what the paths to watch lead to now: to be looked up every now and then, as those of policies.
    ///
    /// # Errors
    /// The kernel's map can't be changed.
    pub fn watch(&mut self, watched: &Watched) -> Result<(), SensorError> {
        // What a path led to before may have another name by now.
        if let Some(all) = self.watched.and(watched) {
            all.set(&self.generation)?;
            self.watched = all;
        }
        Ok(())
    }

    /// Has the policies hold for what their paths lead to now. What was denied stays so, whatever its name.
    ///
    /// # Errors
    /// The kernel's maps can't be changed.
    pub fn found(&mut self, found: &Found) -> Result<(), SensorError> {
        self.policies.found(found)
    }

    /// Forgets a policy: sessions that still run under it may connect nowhere, and run and open nothing, and nothing more leaves the
    /// connections that they have.
    ///
    /// # Errors
    /// The kernel's maps can't be changed.
    pub fn drop_policy(&mut self, policy: u32) -> Result<(), SensorError> {
        self.policies.remove(policy)
    }

    /// Forgets the policies that are neither among these nor of any process or connection: an agent with other files has left them. Gives the
    /// numbers of those that are still there.
    ///
    /// # Errors
    /// The kernel's maps can't be read or changed.
    pub fn keep_policies(&mut self, needed: &BTreeSet<u32>) -> Result<BTreeSet<u32>, SensorError> {
        let mut needed = needed.clone();
        for process in self.processes.iter() {
            let (_, tag) =
                process.map_err(|error| SensorError::kernel("listing the sessions' processes", error))?;
            needed.extend(read_u32(&tag, layout::tag::POLICY));
        }
        // The kernel may go on with one that its process has left to it, e.g. a disk on the network.
        needed.extend(take_down::policies(&self.connections)?);
        self.policies.keep(&needed)
    }

    /// Ends the connections of sessions under a policy that its rules, as they are now, deny; of one that is there no longer all of them.
    /// Each is told as closed too.
    ///
    /// # Errors
    /// The policy was set in an earlier run and not in this one; or the kernel's map can't be read. What couldn't be ended stands with its
    /// connection.
    pub fn take_down(&mut self, policy: u32) -> Result<Vec<TakenDown>, SensorError> {
        take_down::take_down(&self.connections, policy, self.rules_of(policy)?)
    }

    /// Whether a policy's rules, as they are now, deny a connection that is there: its peer has called. One that is there no longer denies
    /// all; what one of an earlier run says isn't known.
    pub fn denies(&self, connection: &Connection) -> bool {
        match self.rules_of(connection.who.policy) {
            Ok(rules) => take_down::denial(rules, connection).is_some(),
            Err(error) => !matches!(error, SensorError::NoPolicy(_)),
        }
    }

    /// The rules that this run has set; `None`: there is no such policy.
    fn rules_of(&self, policy: u32) -> Result<Option<&PolicyRules>, SensorError> {
        match self.policies.known(policy) {
            None if self.policies.holds(policy)? => Err(SensorError::NoPolicy(policy)),
            rules => Ok(rules),
        }
    }

    /// The agent lives: to be called several times within the limit.
    ///
    /// # Errors
    /// The kernel's map can't be changed.
    pub fn heartbeat(&mut self) -> Result<(), SensorError> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanos = u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
            + u64::try_from(now.tv_nsec).unwrap_or_default();
        self.set(control::HEARTBEAT, nanos)
    }

    /// Puts back pins that somebody has removed, and gives how many: to be called every second or so. Until then nothing is lost by it,
    /// unless the agent ends.
    ///
    /// # Errors
    /// They can't be put back: the agent must end, and the node's sessions with it.
    pub fn keep_pinned(&mut self) -> Result<usize, SensorError> {
        self.held.put_back(&self.pins, &mut self.lock)
    }

    /// Whether the programs still run: to be asked every second or so.
    ///
    /// # Errors
    /// Somebody has switched them off: the agent must end, and the node's sessions with it.
    pub fn still_runs(&self) -> Result<(), SensorError> {
        match self.coverage.tier {
            Tier::Lsm => running::traced(Path::new(running::SWITCH)),
            Tier::Tracepoint => Ok(()),
        }
    }

    /// Whether no more evidence can be taken: then sessions may start no program and open no connection.
    ///
    /// # Errors
    /// The kernel's map can't be changed.
    pub fn close(&mut self, closed: bool) -> Result<(), SensorError> {
        self.set(control::CLOSED, closed.into())
    }

    /// The sessions that still have processes, and how many.
    ///
    /// # Errors
    /// The kernel's map can't be read.
    pub fn tagged(&self) -> Result<BTreeMap<[u8; 16], u32>, SensorError> {
        let mut sessions = BTreeMap::new();
        for process in self.processes.iter() {
            let (_, tag) =
                process.map_err(|error| SensorError::kernel("listing the sessions' processes", error))?;
            let session = tag.first_chunk().copied().unwrap_or_default();
            *sessions.entry(session).or_default() += 1;
        }
        Ok(sessions)
    }

    /// Whether no session has a process or a connection any more: what ends of it later is told, too.
    ///
    /// # Errors
    /// The kernel's maps can't be read.
    pub fn is_quiet(&self) -> Result<bool, SensorError> {
        Ok(self.tagged()?.is_empty() && take_down::policies(&self.connections)?.is_empty())
    }

    /// What was seen and lost, exactly.
    ///
    /// # Errors
    /// The kernel's maps can't be read.
    pub fn counters(&self) -> Result<Counters, SensorError> {
        self.counts.read(&self.held.programs)
    }

    /// Since when processes of sessions run what they run now.
    ///
    /// # Errors
    /// The kernel's map can't be opened.
    pub fn executions(&self) -> Result<Executions, SensorError> {
        Executions::open(&self.generation)
    }

    /// The ring's reader; have one at a time. It also takes what earlier generations of the programs left.
    ///
    /// # Errors
    /// The ring can't be mapped.
    pub fn reader(&mut self) -> Result<RecordReader, SensorError> {
        RecordReader::open(&self.generation, std::mem::take(&mut self.left))
    }

    /// Puts this process into the table by which some hooks know sessions.
    fn enter_table(&mut self, session: [u8; 16], policy: u32) -> Result<(), SensorError> {
        let mut value = [0; layout::tag::SIZE];
        put(&mut value, layout::tag::SESSION, &session);
        put(&mut value, layout::tag::POLICY, &policy.to_ne_bytes());
        self.processes
            .insert(std::process::id(), value, 0)
            .map_err(|error| SensorError::kernel("writing the kernel's map `processes`", error))
    }

    fn leave_table(&mut self) -> Result<(), SensorError> {
        match self.processes.remove(&std::process::id()) {
            Err(error) if !is_absent(&error) => {
                Err(SensorError::kernel("writing the kernel's map `processes`", error))
            }
            _ => Ok(()),
        }
    }

    /// Takes programs and maps away: only when the node is taken out of service.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn detach(self) -> Result<(), SensorError> {
        for left in &self.left {
            left.remove()?;
        }
        self.generation.remove_with_parent()
    }

    fn get(&self, slot: u32) -> Result<u64, SensorError> {
        self.control
            .get(&slot, 0)
            .map_err(|error| SensorError::kernel("reading the kernel's map `control`", error))
    }

    fn set(&mut self, slot: u32, value: u64) -> Result<(), SensorError> {
        self.control
            .set(slot, value, 0)
            .map_err(|error| SensorError::kernel("writing the kernel's map `control`", error))
    }
}

/// The best tier that shows that it refuses; if that isn't LSM, why. Tried beside what may be pinned already, so that sessions that run
/// are watched meanwhile.
fn choose(options: &SensorOptions) -> Result<(Tier, Option<String>), SensorError> {
    if load::is_pinned(&options.pins, Tier::Lsm, options.ring_bytes)? {
        return Ok((Tier::Lsm, None));
    }
    let beside = pins::aside(&options.pins, pins::TRIAL);
    let trial = SensorOptions { pins: beside, ring_bytes: RING_BYTES_MIN, ..options.clone() };
    pins::prepare(&trial.pins)?;
    match Sensor::start_in(&trial, Tier::Lsm) {
        Ok(sensor) => sensor.detach().map(|()| (Tier::Lsm, None)),
        Err(error) => Ok((Tier::Tracepoint, Some(why_not(error)))),
    }
}

/// What keeps a tier from being taken, without the advice.
fn why_not(error: SensorError) -> String {
    match error {
        SensorError::Missing { feature, why } => format!("{feature}: {why}"),
        other => other.to_string(),
    }
}

fn is_absent(error: &aya::maps::MapError) -> bool {
    match error {
        aya::maps::MapError::KeyNotFound | aya::maps::MapError::ElementNotFound => true,
        aya::maps::MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// This process, as the kernel names it for good: its number, and when it was made, in ticks since boot.
fn own_identity() -> Result<(u64, u64), SensorError> {
    let path = Path::new("/proc/self/stat");
    let stat = std::fs::read_to_string(path).map_err(|error| SensorError::file(path, "reading it", error))?;
    // The name, in brackets, may hold anything; the start time is the 20th field after it.
    let start = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok());
    let pid = stat.split(' ').next().and_then(|field| field.parse().ok());
    pid.zip(start).ok_or_else(|| SensorError::Kernel {
        what: "reading /proc/self/stat".to_owned(),
        why: "it has no start time".to_owned(),
    })
}
