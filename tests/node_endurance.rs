//! The agent under more than it can take, and without the log: what happened is in the log once, or counted as lost.

use custody_tests::load::{Counter, Flooded, Load};
use custody_tests::process::{Running, Said, run, send};
use custody_tests::servers::agent::{START_DEADLINE, nothing_is_missing};
use custody_tests::servers::custodyd::Entry;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::{Agent, World};
use custody_tests::wait::{self, DEADLINE};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long what waited may take to reach the log, on a busy machine too.
const CATCHING_UP: Duration = Duration::from_secs(240);
/// How often it is looked whether it has: the whole log is read for that.
const LOOK_EVERY: Duration = Duration::from_millis(500);

fn seconds(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What the log has of a flood.
#[derive(Debug, Default)]
struct Told {
    executed: u64,
    refused: u64,
    /// Ends of the flood's processes.
    exited: u64,
    opened: u64,
    closed: u64,
    denied: u64,
    /// What couldn't be told, by kind.
    dropped: BTreeMap<String, u64>,
    /// Numbers that are missing.
    missing: u64,
    /// By the ends of connections, how much oftener they were opened than closed; not where that is equal.
    open: BTreeMap<String, i64>,
}

impl Told {
    fn of(world: &World, load: &Load) -> Self {
        let mut told = Self::default();
        world.admin.each_entry("", |entry| told.take(&entry, load));
        told
    }

    fn take(&mut self, entry: &Entry, load: &Load) {
        let data = &entry.event["data"];
        let is = |text: &Value, path: &Path| text.as_str().map(Path::new) == Some(path);
        let here = data["ends"]["remote"]["port"] == load.port;
        match entry.kind() {
            "command.executed" if is(&data["given"], &load.nothing) => self.executed += 1,
            "command.denied" if is(&data["given"], &load.nothing) => self.refused += 1,
            "command.exited" if data["process"]["name"] == "nothing" || data["process"]["name"] == "load" => {
                self.exited += 1;
            }
            "connection.opened" if here => {
                self.opened += 1;
                self.count_open(data, 1);
            }
            "connection.closed" if here => {
                self.closed += 1;
                self.count_open(data, -1);
            }
            "connection.denied" if here => self.denied += 1,
            "producer.dropped" => {
                for (kind, count) in data["counts"].as_object().into_iter().flatten() {
                    *self.dropped.entry(kind.clone()).or_default() += count.as_u64().unwrap();
                }
            }
            "producer.gap" => self.missing += data["count"].as_u64().unwrap(),
            _ => {}
        }
    }

    fn count_open(&mut self, data: &Value, by: i64) {
        let ends = data["ends"].to_string();
        match self.open.remove(&ends).unwrap_or_default() + by {
            0 => {}
            count => drop(self.open.insert(ends, count)),
        }
    }

    fn lost(&self, kind: &str) -> u64 {
        self.dropped.get(kind).copied().unwrap_or_default()
    }

    /// What happened, by what is told and what is told to be lost: has to be what the flood counted.
    fn accounts(&self) -> [(&'static str, u64); 6] {
        [
            ("programs that ran", self.executed),
            ("programs killed or refused", self.refused + self.lost("executed") + self.lost("exec refused")),
            ("processes that ended", self.exited + self.lost("exited")),
            ("connections refused", self.denied + self.lost("connection denied")),
            ("connections made", self.opened + self.lost("connection opened")),
            ("connections over", self.closed + self.lost("connection closed")),
        ]
    }
}

/// What a flood counted is what the log has of it, and what it has of what it lacks.
fn compare(told: &Told, flooded: &Flooded) -> Result<(), String> {
    let refused = flooded.killed + flooded.refused;
    let ended = flooded.executed + refused + PROCESSES + 1;
    let wanted = [flooded.executed, refused, ended, flooded.denied, flooded.connected, flooded.connected];
    for ((what, count), wanted) in told.accounts().into_iter().zip(wanted) {
        if count != wanted {
            return Err(format!("{what}: {count}, not {wanted}"));
        }
    }
    let dropped = told.dropped.values().sum::<u64>();
    if told.missing != dropped {
        return Err(format!("{} numbers are missing, {dropped} were told to be lost", told.missing));
    }
    Ok(())
}

/// What sockets there are of that port, as ss(8) tells.
fn sockets(port: u16) -> String {
    let said = Command::new("ss").args(["-tanoeH"]).arg(format!("sport = {port} or dport = {port}")).output();
    said.map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Waits until what a flood did is in the log, or told to be lost.
fn accounted_for(world: &World, load: &Load, said: &Said) -> (Flooded, Told) {
    assert_eq!(said.code, 0, "{}", said.err);
    let flooded = Flooded::parse(&said.text());
    let start = Instant::now();
    loop {
        let told = Told::of(world, load);
        match compare(&told, &flooded) {
            Ok(()) => {
                println!("{flooded:?}\nis in the log {:.0} s later: {told:?}", start.elapsed().as_secs_f64());
                return (flooded, told);
            }
            Err(why) => assert!(
                start.elapsed() < CATCHING_UP,
                "{why}: {flooded:?}, {told:?}; the kernel has these sockets: {}",
                sockets(load.port)
            ),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Processes that flood.
const PROCESSES: u64 = 4;

#[test]
fn a_flood_is_told_to_the_last_event_or_counted_as_lost() {
    let world = World::start();
    world.demand_agent("required");
    let load = Load::prepare(&world.dir().join("load"));
    let mut agent = Agent::join(&world, "web-1", "");
    agent.start(&world);
    let lasts = seconds("CUSTODY_FLOOD_SECONDS", 5);
    let said = run(
        world.proxied().arg("root@web-1.custody").arg(load.flood(lasts, PROCESSES)),
        b"",
        DEADLINE + Duration::from_secs(lasts),
    );
    accounted_for(&world, &load, &said);
    // And it goes on as if nothing had been.
    assert_eq!(world.ssh(&[], "/bin/true afterwards", b"").code, 0);
}

#[test]
fn what_nobody_takes_from_a_full_buffer_runs_nothing_and_is_counted() {
    let world = World::start();
    world.demand_agent("optional");
    let load = Load::prepare(&world.dir().join("load"));
    // The kernel doesn't miss it before the buffer is full.
    let mut agent = Agent::join(&world, "web-1", "buffer_mebibytes = 1\nheartbeat_seconds = 120");
    agent.start(&world);
    let began = world.dir().join("began");
    let line = format!("touch {}; {}", began.display(), load.flood(5, PROCESSES));
    let mut ssh = world.proxied();
    ssh.arg("root@web-1.custody").arg(line);
    let said = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| run(&mut ssh, b"", DEADLINE));
        wait::until_true("the flood begins", DEADLINE, || began.exists());
        send(agent.pid(), Signal::STOP);
        let said = flooding.join();
        send(agent.pid(), Signal::CONT);
        said.unwrap()
    });
    let (flooded, told) = accounted_for(&world, &load, &said);
    assert!(
        flooded.killed + flooded.refused > 0 && flooded.denied > 0,
        "the buffer was never full: {flooded:?}"
    );
    assert!(told.missing > 0, "what was refused couldn't be told either: {told:?}");
    // Once there is room, sessions may go on.
    wait::until_true("programs run again", DEADLINE, || {
        world.ssh(&[], "/bin/true afterwards", b"").code == 0
    });
}

/// A session that counts, behind a network that can be cut.
struct Counting {
    counter: Counter,
    relay: Flaky,
    // Last: the agent goes before its world.
    _agent: Agent,
    world: World,
}

impl Counting {
    fn start(agent: &str) -> Self {
        let (world, relay, joined) = behind_a_relay(agent, "");
        let counter = Counter::start(&world, "sleep 0.02");
        counter.goes_on(10);
        Self { counter, relay, _agent: joined, world }
    }

    /// Cuts the network between agent and log for as long as the environment says, and until the log misses the agent.
    fn cut(&self) {
        let start = Instant::now();
        self.relay.set(Fault::Hang);
        self.world
            .event("type=node.lost", "the agent is missed", |lost| lost.event["data"]["name"] == "web-1");
        let cut = Duration::from_secs(seconds("CUSTODY_CUT_SECONDS", 8));
        std::thread::sleep(cut.saturating_sub(start.elapsed()));
    }
}

/// A world whose target's agent, with these lines in its configuration, has a network that can be cut.
fn behind_a_relay(demand: &str, lines: &str) -> (World, Flaky, Agent) {
    let world = World::start();
    world.demand_agent(demand);
    let relay = Flaky::tcp(world.custodyd.api_port);
    let mut agent = Agent::join_by(&world, &format!("https://127.0.0.1:{}", relay.port), "web-1", lines);
    agent.start(&world);
    (world, relay, agent)
}

/// An agent's side of TLS is done before the log has looked at its certificate: that is no connection yet, and nothing to tell of.
#[test]
fn an_agent_that_the_log_takes_nothing_from_says_why_and_fills_no_spool() {
    let (world, _relay, mut agent) = behind_a_relay("required", "");
    agent.kill_now();
    world.admin.custody(&["node", "rm", "web-1"]);
    let connected = |agent: &Agent| agent.output().matches("connected to the log").count();
    let before = connected(&agent);
    agent.spawn(&mut Command::new(custody_tests::program("custodyd")));
    let why = "another agent has joined for it";
    wait::until_true("it says why", START_DEADLINE, || agent.output().contains(why));
    let spooled = |agent: &Agent| -> u64 {
        let files = std::fs::read_dir(agent.data().join("spool")).unwrap().flatten();
        files.map(|file| file.metadata().map_or(0, |about| about.len())).sum()
    };
    let spooled_before = spooled(&agent);
    // It has tried a few times more by then.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((spooled(&agent), connected(&agent)), (spooled_before, before));
    assert_eq!(agent.output().matches(why).count(), 1, "once as long as it lasts");
}

/// What it has kept is signed with another key than it has now. Its evidence doesn't arrive, however often it connects.
#[test]
fn an_agent_of_which_nothing_can_be_taken_is_told_and_counts_as_lost() {
    let (world, relay, mut agent) = behind_a_relay("required", "");
    let counter = Counter::start(&world, "sleep 0.02");
    counter.goes_on(10);
    relay.set(Fault::Hang);
    counter.goes_on(20);
    agent.kill_now();
    relay.set(Fault::Pass);
    let [key, aside] = ["agent.key", "before.key"].map(|name| agent.data().join(name));
    let join = |agent: &Agent| {
        let token = world.admin.custody(&["node", "token", "web-1"]).text();
        agent.try_join(&world, token.trim()).ok();
    };
    std::fs::rename(&key, &aside).unwrap();
    join(&agent);
    agent.spawn(&mut Command::new(custody_tests::program("custodyd")));
    let refused = wait::until("the refusal is told", START_DEADLINE, || {
        world.entries("type=producer.refused").into_iter().next()
    });
    assert!(refused.line.contains("another key"), "{}", refused.line);
    let says = || agent.output().matches("the log takes nothing from this agent").count();
    wait::until_true("the agent says so", DEADLINE, || says() > 0);
    let said = world.ssh(&[], "true", b"");
    assert!(said.code != 0 && said.err.contains("takes nothing from it"), "{}", said.err);
    // It has tried a few times more by then.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((world.entries("type=producer.refused").len(), says()), (1, 1), "once");
    let executed = || world.entries("type=command.executed").len();
    let before = executed();
    agent.kill_now();
    std::fs::rename(&aside, &key).unwrap();
    join(&agent);
    agent.spawn(&mut Command::new(custody_tests::program("custodyd")));
    wait::until_true("what it had kept arrives", START_DEADLINE, || executed() >= before + 20);
}

/// More than the log takes at once.
#[test]
fn thousands_of_connections_that_become_denied_are_taken_down_and_told() {
    const CONNECTIONS: usize = 4_500;
    let (world, _relay, _agent) = behind_a_relay("required", "");
    let [made, gate] = ["made", "gate"].map(|name| world.dir().join(name));
    let program = format!(
        "import resource, socket, sys\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))\n\
         listener = socket.socket(); listener.bind((\"127.0.5.1\", 0)); listener.listen(100)\n\
         ends = []\n\
         for _ in range({CONNECTIONS}):\n\
         \tends.append(socket.create_connection(listener.getsockname())); ends.append(listener.accept()[0])\n\
         open(\"{}\", \"w\").close()\n\
         open(\"{}\").read()",
        made.display(),
        gate.display(),
    );
    run(Command::new("mkfifo").arg(&gate), b"", DEADLINE).ok();
    let mut ssh = world.proxied();
    ssh.arg("root@web-1.custody").arg(format!("exec python3 -c '{program}'"));
    ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _connected = Running::start("a session with many connections", &mut ssh);
    wait::until_true("all are there", CATCHING_UP, || made.exists());
    world.restrict("shut", &["--deny", "127.0.5.0/24"]);
    wait::until_true("each is told", CATCHING_UP, || {
        let denied = world.entries("type=connection.denied");
        denied.iter().filter(|entry| entry.event["data"]["reason"] == "taken-down").count() == CONNECTIONS
    });
    std::fs::write(&gate, "").unwrap();
    world.event("type=session.ended", "the session ends", |_| true);
    nothing_is_missing(&world);
}

#[test]
fn a_full_spool_runs_nothing_and_an_agent_that_is_killed_over_it_sends_it_all_the_same() {
    let (world, relay, mut agent) = behind_a_relay("optional", "spool_mebibytes = 4");
    let [began, stop, pipe] = ["began", "stop", "pipe"].map(|name| world.dir().join(name));
    // Some thirty events of 30 kB a second, also while programs are refused: the log keeps up with that.
    let line = format!(
        "big=$(head -c 30000 /dev/zero | tr '\\0' x); mkfifo {0}; exec 3<>{0}; \
         while [ ! -e {1} ] && [ -d {2} ]; do /bin/true $big && : >{3}; read -t 0.03 -u 3; done",
        pipe.display(),
        stop.display(),
        world.dir().display(),
        began.display()
    );
    let mut ssh = world.proxied();
    ssh.arg("root@web-1.custody").arg(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut filling = Running::start("a session that fills the spool", &mut ssh);
    wait::until_true("it has begun", DEADLINE, || began.exists());
    relay.set(Fault::Hang);
    let times_full = |agent: &Agent| agent.output().matches("the spool is full").count();
    world.event("type=node.lost", "the agent is missed", |_| true);
    wait::until_true("the spool is full", CATCHING_UP, || times_full(&agent) > 0);
    agent.kill_now();
    let before = times_full(&agent);
    agent.spawn(&mut Command::new(custody_tests::program("custodyd")));
    wait::until_true("it is full at the next start too", CATCHING_UP, || times_full(&agent) > before);
    std::fs::File::create(&stop).unwrap();
    relay.set(Fault::Pass);
    // One that begins before the agent is there goes unwatched.
    wait::until_true("programs run again, and are told", CATCHING_UP, || {
        let ran = world.ssh(&[], "/bin/true afterwards", b"").code == 0;
        let is_it = |e: &Entry| e.event["data"]["arguments"][1] == "afterwards";
        ran && world.entries("type=command.executed").iter().any(is_it)
    });
    wait::until("the session has ended", DEADLINE, || filling.ended());
    let told = |kind: &str, field: &str| -> u64 {
        let entries = world.entries(&format!("type={kind}"));
        let of = |entry: &Entry| match &entry.event["data"][field] {
            Value::Object(counts) => counts.values().map(|count| count.as_u64().unwrap()).sum(),
            count => count.as_u64().unwrap(),
        };
        entries.iter().map(of).sum()
    };
    let (missing, dropped) = (told("producer.gap", "count"), told("producer.dropped", "counts"));
    assert_eq!(missing, dropped, "what is missing is what was told to be lost");
}

#[test]
fn a_session_that_may_be_unwatched_outlives_a_cut_and_all_of_it_is_told_afterwards() {
    let mut counting = Counting::start("optional");
    let before = counting.counter.at();
    counting.cut();
    let after = counting.counter.at();
    assert!(after > before + 10, "the session didn't go on meanwhile: {before}, {after}");
    counting.counter.goes_on(10);
    counting.relay.set(Fault::Pass);
    counting.counter.goes_on(10);
    counting.counter.all_is_told(&counting.world, CATCHING_UP);
    let status = wait::until("the session has ended", DEADLINE, || counting.counter.ssh.ended());
    assert!(status.success(), "it wasn't ended by anybody: {status}");
    let ended = counting.world.event("type=session.ended", "its end is told", |_| true);
    assert_ne!(ended.event["data"]["reason"], "node-lost");
}

#[test]
fn a_session_that_must_be_watched_ends_with_a_cut_and_what_it_left_running_is_told_afterwards() {
    let mut counting = Counting::start("required");
    counting.cut();
    let lost = counting.world.entries("type=node.lost").remove(0);
    let ended = counting.world.event("type=session.ended", "the session ends", |_| true);
    assert_eq!(ended.event["data"]["reason"], "node-lost");
    assert_eq!(ended.event["cause"], lost.event["id"]);
    wait::until("the client is gone", DEADLINE, || counting.counter.ssh.ended());
    let refused = counting.world.ssh(&[], "true", b"");
    assert!(refused.err.contains("the agent of web-1 isn't there"), "{}", refused.err);
    counting.counter.goes_on(10);
    counting.relay.set(Fault::Pass);
    wait::until_true("sessions are possible again", DEADLINE, || {
        counting.world.ssh(&[], "true", b"").code == 0
    });
    counting.counter.all_is_told(&counting.world, CATCHING_UP);
}
