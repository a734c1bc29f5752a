//! What the node's agent sees of each way around it: docs/node-coverage.md, written by what was found
//! (`UPDATE=1`), and held to it.

#[path = "escapes/mod.rs"]
mod escapes;

use custody_tests::process::{Running, Said, run};
use custody_tests::root;
use custody_tests::servers::custodyd::Entry;
use custody_tests::servers::{Agent, NameServer, World};
use custody_tests::wait;
use escapes::{AGAINST_THE_AGENT, Leaves, WAYS, WRAPPERS, Way};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What was found of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was done, and is told as the session's.
    Seen,
    /// It was refused, and that is told.
    Refused,
    /// It is told as something that may not be, and was done in spite of that.
    Unhindered,
    /// It was done, and nothing tells of it.
    Unseen,
    /// This kernel or machine can't do it.
    Impossible,
}

impl Found {
    const fn text(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Refused => "refused, and told",
            Self::Unhindered => "told, **not prevented**",
            Self::Unseen => "**not seen**",
            Self::Impossible => "can't be done there",
        }
    }
}

/// The table's columns after the way's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// BPF LSM.
    Lsm,
    /// Tracepoints.
    Tracepoint,
}

/// Where the machine's own programs of the test's sessions lie.
fn scripts() -> PathBuf {
    std::env::var_os("CUSTODY_ESCAPES").map_or_else(|| root().join("tests/escapes"), PathBuf::from)
}

/// Which ways are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Each.
    All,
    /// Those that only BPF LSM sees, and what kernels or the agent see by other means: in an emulated machine all of them take eight
    /// minutes.
    Files,
}

impl Which {
    fn has(self, way: &Way) -> bool {
        self == Self::All
            || matches!(way.leaves, Leaves::File | Leaves::Kernel(_) | Leaves::Daemon | Leaves::Name)
            || ["called.py", "crash.py", "$MARK socket", "seq 200"]
                .iter()
                .any(|program| way.script.contains(program))
    }
}

/// How long something may take, in an emulated machine too.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the ways need of the machine; it goes with this value.
struct Stage {
    world: World,
    agent: Agent,
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
    _outside: Running,
    _daemon: Running,
    _names: NameServer,
    _listeners: [TcpListener; 2],
}

/// Runs for whoever connects what they send.
const DAEMON: &str = "import socket, subprocess, sys\n\
    server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()\n\
    while True:\n\
    \tpeer = server.accept()[0]; asked = peer.makefile().read()\n\
    \tpeer.sendall(subprocess.run(asked, shell=True, capture_output=True).stdout); peer.close()";

impl Stage {
    fn new() -> Self {
        let world = World::start();
        world.demand_agent("required");
        let folder = world.dir().join("ways");
        let watched = world.dir().join("watched");
        for path in [&folder, &watched, &watched.join("part")] {
            std::fs::create_dir(path).expect("a folder");
        }
        // Somebody else than root goes there too.
        let everybody = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(world.dir(), everybody).expect("permissions");
        let mut agent =
            Agent::join(&world, "web-1", &format!("watched = [{:?}]", watched.display().to_string()));
        agent.start(&world);
        world.restrict("walls", &["--deny", "127.0.9.0/24"]);
        let outside = Running::start("a process outside", Command::new("sleep").arg("1000"));
        let socket = folder.join("daemon");
        let mut daemon = Command::new("python3");
        daemon.arg("-c").arg(DAEMON).arg(&socket);
        let daemon = Running::start("a daemon", &mut daemon);
        wait::until_true("the daemon listens", PATIENCE, || socket.exists());
        let listeners = ["0.0.0.0:0", "[::1]:0"].map(|at| TcpListener::bind(at).expect("a listener"));
        let names = NameServer::start(&folder.join("names"));
        let resolver = folder.join("resolv.conf");
        std::fs::write(&resolver, format!("nameserver {}\n", names.address)).expect("resolv.conf");
        let port = |of: &TcpListener| of.local_addr().expect("an address").port().to_string();
        let variables = vec![
            ("FOLDER", folder.display().to_string()),
            ("WATCHED", watched.display().to_string()),
            ("WAYS", scripts().display().to_string()),
            ("OUTSIDE", outside.pid().to_string()),
            ("DAEMON", socket.display().to_string()),
            ("PINS", agent.pins().display().to_string()),
            ("DATA", agent.data().display().to_string()),
            ("NAMES", names.address.to_string()),
            ("RESOLVER", resolver.display().to_string()),
            ("PORT", port(&listeners[0])),
            ("PORT6", port(&listeners[1])),
        ];
        Self {
            world,
            agent,
            folder,
            variables,
            _outside: outside,
            _daemon: daemon,
            _names: names,
            _listeners: listeners,
        }
    }

    /// Tries ways, one after the other, in one session; gives what tells them apart.
    fn session(&self, first: usize, ways: &[Way]) -> Vec<Tried> {
        let tried: Vec<Tried> =
            (first..).zip(ways).map(|(number, way)| Tried::new(self, number, *way)).collect();
        let script = self.folder.join(format!("session-{first}.sh"));
        let mut text = String::from("export LANG=C.UTF-8 SESSION=$$\n");
        for (name, value) in &self.variables {
            writeln!(text, "export {name}='{value}'").expect("a string");
        }
        writeln!(text, "export AGENT={}", self.agent.pid()).expect("a string");
        tried.iter().for_each(|one| one.write(&mut text));
        std::fs::write(&script, text).expect("a script");
        let said = self.ssh(&format!("bash {}", script.display()));
        assert!(!said.err.contains("custody: "), "{}", said.err);
        tried
    }

    /// A command through the proxy.
    fn ssh(&self, command: &str) -> Said {
        run(self.world.proxied().arg("root@web-1.custody").arg(command), b"", 4 * PATIENCE)
    }
}

/// A way that was tried, with what it alone has.
struct Tried {
    way: Way,
    mark: String,
    address: String,
    denied: String,
    out: PathBuf,
    variables: String,
}

impl Tried {
    fn new(stage: &Stage, number: usize, way: Way) -> Self {
        let mark = format!("way-{number}-{}", uuid::Uuid::new_v4().simple());
        let value = |name: &str| &stage.variables.iter().find(|(n, _)| *n == name).expect("a variable").1;
        let file = Path::new(value("WATCHED")).join(&mark);
        let linked = stage.folder.join(format!("linked-{mark}"));
        std::fs::write(&file, format!("{mark}\n")).expect("a file");
        std::fs::hard_link(&file, &linked).expect("a link");
        std::fs::write(Path::new(value("WATCHED")).join("part").join(&mark), format!("{mark}\n"))
            .expect("a file");
        let (address, denied) = (format!("127.0.1.{}", number + 1), format!("127.0.9.{}", number + 1));
        let out = stage.folder.join(format!("{number}.out"));
        let variables = format!(
            "export MARK={mark} ADDRESS={address} NAME={mark}.{}.test DENIED={denied} FILE={} LINKED={} OUT={}\n",
            address.replace('.', "-"),
            file.display(),
            linked.display(),
            out.display()
        );
        // What isn't of this way alone is found by its own name.
        let mark = match way.script {
            script if script.contains("$PINS") => {
                stage.agent.pins().file_name().expect("a name").to_string_lossy().into_owned()
            }
            script if script.contains("$DATA/agent.key") => "agent.key".to_owned(),
            script if script.contains("/core_pattern") => "/core_pattern".to_owned(),
            _ => mark,
        };
        Self { way, mark, address, denied, out, variables }
    }

    /// The part of the session's script.
    fn write(&self, script: &mut String) {
        let out = self.out.display();
        script.push_str(&self.variables);
        writeln!(
            script,
            "timeout 60 bash -c 'echo $$ >{out}.pid\n'\"{}\" >{out} 2>{out}.err </dev/null || echo after $SECONDS s >>{out}.err",
            self.way
                .script
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('$', "\\$")
                .replace('`', "\\`")
        )
        .expect("a string");
    }

    fn printed(&self) -> String {
        std::fs::read(&self.out).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether what it does was done, as it says itself.
    fn done(&self) -> bool {
        let own =
            self.variables.split_whitespace().find_map(|word| word.strip_prefix("MARK=")).expect("a mark");
        self.printed().contains(own)
    }

    /// What the log has of it.
    fn found(&self, entries: &[Entry]) -> Result<Found, String> {
        let of_it: Vec<&Entry> = entries.iter().filter(|entry| self.is_in(entry)).collect();
        let refused = of_it.iter().any(|entry| entry.event["outcome"] == "denied");
        let what = self.way.what;
        match (self.done(), of_it.is_empty(), refused) {
            (true, false, false) => Ok(Found::Seen),
            (true, true, _) => Ok(Found::Unseen),
            (false, false, true) => Ok(Found::Refused),
            (false, _, _)
                if self.printed().contains("unsupported") || self.errors().contains("unsupported") =>
            {
                Ok(Found::Impossible)
            }
            (true, false, true) => Ok(Found::Unhindered),
            (false, told, _) => {
                let told = if told { "nothing is told" } else { "it is told" };
                Err(format!(
                    "{what}: wasn't done, nor refused, and {told}: {}{}",
                    self.printed(),
                    self.errors()
                ))
            }
        }
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(format!("{}.err", self.out.display())).unwrap_or_default()
    }

    /// Whether an event tells of it.
    fn is_in(&self, entry: &Entry) -> bool {
        let data = &entry.event["data"];
        match self.way.leaves {
            Leaves::Program => {
                let wraps = || {
                    let given = data["given"].as_str().unwrap_or_default();
                    WRAPPERS.contains(&given.rsplit('/').next().unwrap_or_default())
                };
                entry.kind() == "command.executed"
                    && data["arguments"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| *one == *self.mark))
                    && !wraps()
            }
            Leaves::Connection => {
                let to = data["ends"]["remote"]["address"].as_str();
                ["connection.opened", "connection.denied"].contains(&entry.kind())
                    && (to == Some(&self.address)
                        || to == Some(&self.denied)
                        || (self.way.script.contains("::1 ") && to == Some("::1")))
            }
            Leaves::Name => {
                let name = data["ends"]["name"].as_str().unwrap_or_default();
                entry.kind() == "connection.opened" && name.starts_with(&self.mark)
            }
            Leaves::Socket => entry.kind() == "connection.denied" && self.is_by_it(data),
            Leaves::File => {
                let names = [&data["file"]["path"], &data["to"]];
                entry.kind().starts_with("file.")
                    && names.iter().any(|name| name.as_str().is_some_and(|name| name.contains(&self.mark)))
            }
            Leaves::Kernel(change) => {
                entry.kind() == "node.kernel-changed" && data["change"] == change && self.is_by_it(data)
            }
            Leaves::Daemon => entry.kind() == "connection.daemon-reached" && self.is_by_it(data),
        }
    }

    /// Whether the way's shell did it, or what that has started.
    fn is_by_it(&self, data: &Value) -> bool {
        let shell = std::fs::read_to_string(format!("{}.pid", self.out.display())).unwrap_or_default();
        let Ok(shell) = shell.trim().parse::<u32>() else { return false };
        let process = &data["process"];
        process["pid"] == shell || process["parent"] == shell
    }
}

/// Tries everything on this machine.
fn try_ways(which: Which) -> (Tier, Vec<(&'static str, Found)>) {
    let mut stage = Stage::new();
    let ways: Vec<Way> = WAYS.iter().copied().filter(|way| which.has(way)).collect();
    let mut tried = stage.session(0, &ways);
    let [killed, unpinned] = AGAINST_THE_AGENT;
    if which.has(&killed) {
        tried.extend(stage.session(WAYS.len(), &[killed]));
        wait::until_true("the agent is killed", PATIENCE, || stage.agent.ended());
        stage.agent.kill_now();
        stage.agent.start(&stage.world);
        wait::until_true("sessions are watched again", PATIENCE, || stage.ssh("true").code == 0);
    }
    tried.extend(stage.session(WAYS.len() + 1, &[unpinned]));
    if let Some(late) = tried.iter().find(|one| one.way.script.contains("$SESSION")) {
        wait::until_true("the job has outlived its session", PATIENCE, || late.done());
    }
    // What comes after all of it in the node's own order, and is in the log.
    stage.ssh("/bin/true all-is-told").ok();
    let entries = wait::until("the last of it is in the log", PATIENCE, || {
        let entries = stage.world.entries("");
        let last = |e: &Entry| e.kind() == "command.executed" && e.line.contains(r#""all-is-told""#);
        entries.iter().any(last).then_some(entries)
    });
    let mut of_node = entries;
    let joined = of_node.iter().rfind(|e| e.kind() == "node.joined").expect("the agent is there");
    let tier = if joined.event["data"]["tier"] == "lsm" { Tier::Lsm } else { Tier::Tracepoint };
    of_node.retain(|e| e.event["producer"]["kind"] == "node");
    let of_somebody = of_node.iter().filter(|e| e.session().is_some());
    for entry in of_somebody {
        assert_eq!(entry.event["actor"]["user"], "bob", "{}", entry.line);
    }
    of_node.retain(|e| e.session().is_some());
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for one in &tried {
        match one.found(&of_node) {
            Ok(it) => found.push((one.way.what, it)),
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (tier, found)
}

#[test]
fn each_way_around_ends_as_the_documentation_says() {
    let elsewhere = std::env::var("CUSTODY_COVERAGE").ok();
    let which = if elsewhere.as_deref() == Some("Files") { Which::Files } else { Which::All };
    let (tier, found) = try_ways(which);
    if elsewhere.is_some() {
        for (what, found) in found {
            println!("{ROW}{tier:?}: {what} = {found:?}");
        }
        return;
    }
    let found: Vec<_> = found.into_iter().map(|(what, found)| (what.to_owned(), found)).collect();
    hold(tier, which, &found);
}

/// How a line begins that another machine prints of its own findings.
const ROW: &str = "coverage of ";

/// What [`each_way_around_ends_as_the_documentation_says`] printed in another machine.
pub fn printed(text: &str) -> Vec<(String, Found)> {
    let rows = text.lines().filter_map(|line| line.split_once(ROW)?.1.split_once(": ")?.1.rsplit_once(" = "));
    rows.map(|(what, found)| {
        let known = [Found::Seen, Found::Refused, Found::Unhindered, Found::Unseen, Found::Impossible];
        let found = known.into_iter().find(|known| format!("{known:?}") == found).expect("a finding");
        (what.to_owned(), found)
    })
    .collect()
}

const BEFORE: &str = "# What the node's agent sees\n\n\
Written by its tests (`tests/node_coverage.rs`, `UPDATE=1`), which try each way in a session through the proxy to a stock sshd,\n\
and fail when it ends otherwise. *Seen* is: told by an event of that session and person. What is *not seen* is a limit.\n\n";

/// The documentation's row of a way: what is found by LSM, and by tracepoints.
fn row<'a>(text: &'a str, what: &str) -> [&'a str; 2] {
    let cells = text.lines().find_map(|line| line.strip_prefix(&format!("| {what} | "))?.strip_suffix(" |"));
    let cells = cells.and_then(|cells| cells.split_once(" | "));
    cells.map_or(["?", "?"], |(lsm, tracepoint)| [lsm, tracepoint])
}

/// Holds the documentation to what was found, or writes it.
pub fn hold(tier: Tier, which: Which, found: &[(String, Found)]) {
    let ways: Vec<&Way> = WAYS.iter().chain(&AGAINST_THE_AGENT).collect();
    assert_eq!(found.len(), ways.iter().filter(|way| which.has(way)).count());
    let path = root().join("docs/node-coverage.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let column = usize::from(tier == Tier::Tracepoint);
    if std::env::var_os("UPDATE").is_none() {
        let wrong: Vec<_> = found
            .iter()
            .filter(|(what, found)| row(&text, what)[column] != found.text())
            .map(|(what, found)| {
                format!("{what}: {}, and {:?} is documented", found.text(), row(&text, what))
            })
            .collect();
        assert!(wrong.is_empty(), "by {tier:?}; UPDATE=1 writes it:\n{}", wrong.join("\n"));
        return;
    }
    let mut new = format!("{BEFORE}| way | by BPF LSM | by tracepoints |\n|---|---|---|\n");
    for Way { what, .. } in ways {
        let mut cells = row(&text, what);
        if let Some((_, found)) = found.iter().find(|(name, _)| name == what) {
            cells[column] = found.text();
        }
        writeln!(new, "| {what} | {} | {} |", cells[0], cells[1]).expect("a string");
    }
    std::fs::write(path, new).expect("docs/node-coverage.md");
}
