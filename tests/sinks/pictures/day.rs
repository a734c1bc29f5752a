//! A day with everything that a picture shows: logins that fail and succeed, sessions that live, end, are cut and never
//! start, what is denied, commands that fail, sinks in trouble, a gap in a producer's numbers, a witness.

use crate::opensearch::two;
use custody_core::clock::SystemClock;
use custody_core::event::producer::{Started, Stopped};
use custody_core::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp, canonical};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::{Log, ProducerKey, Record};
use custody_tests::process::{Running, free_port, run};
use custody_tests::servers::custodyd::{Entry, Home, READER_TOKEN, layout};
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::sshd::{keygen, path};
use custody_tests::servers::witness::Witness;
use custody_tests::servers::world::{HostProof, OPERATOR_PASSWORD};
use custody_tests::servers::{Loki, Sshd, World};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

/// Loki's tenant.
pub const TENANT: &str = "custody";
/// Another one, of a sink that is in trouble.
const SECOND: &str = "second";
/// OpenSearch's stream, on a node that other tests share.
pub const STREAM: &str = "logs-custody.events-pictures";

const DENIES: &str = r#"@id("no-shell-on-the-database")
forbid(principal in Role::"operator", action == Action::"ssh:shell", resource == Node::"db-1");
"#;

/// See the module. A session is live as long as this is.
pub struct Day {
    pub world: World,
    pub loki: Loki,
    /// The log's entries up to the moment that pictures are looked at, which both stores have.
    pub entries: Vec<Entry>,
    /// When the first and the last of them were appended, in nanoseconds.
    pub first: u64,
    pub last: u64,
    _alive: Running,
    _second: Flaky,
    _database: Sshd,
    _witness: Witness,
    _dir: TempDir,
}

impl Day {
    pub fn live() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Answers aren't put together from spans that begin at full hours: what is asked for is what is counted.
        let mut loki = Loki::prepare(dir.path(), &["split_queries_by_interval: 0s"]);
        loki.start();
        let second = Flaky::http(loki.service.port());
        let mut world = World::start();
        let database = world.add_node("db-1", HostProof::Pinned, &[]);
        let witness = deliver(&mut world, &loki, &second);
        trouble(&world, &loki, &second);
        logins(&world);
        let alive = sessions(&world);
        let (entries, last) = settled(&world);
        let appended = |entry: &Entry| -> Timestamp {
            let line: Value = serde_json::from_str(&entry.line).unwrap();
            line["appended"].as_str().unwrap().parse().unwrap()
        };
        let first = appended(&entries[0]).nanos();
        Self {
            world,
            loki,
            entries,
            first,
            last,
            _alive: alive,
            _second: second,
            _database: database,
            _witness: witness,
            _dir: dir,
        }
    }

    /// How many entries are as `wanted` says.
    pub fn count(&self, wanted: impl Fn(&Value) -> bool) -> u64 {
        self.entries.iter().filter(|entry| wanted(&entry.event)).count() as u64
    }
}

/// An event of the node agent `web-1` under this number.
fn record<D: EventData>(boot: Uuid, seq: u64, data: D) -> Record {
    let producer = ProducerRef { boot, id: "web-1".to_owned(), kind: ProducerKind::Node, seq };
    let envelope = Draft::new(Actor::system("web-1"), data).numbered(producer, Timestamp::from_seconds(1));
    let bytes = canonical::event_bytes(&envelope).unwrap().into();
    Record { producer: ProducerKey { id: "web-1".to_owned(), boot, seq }, tag: D::FAMILY.tag(), bytes }
}

/// Starts the daemon again with a gap in its log, a witness, and three sinks, one of which is refused everything.
fn deliver(world: &mut World, loki: &Loki, second: &Flaky) -> Witness {
    let created = world.entries("type=log.created").remove(0);
    let key = created.event["data"]["verifier_key"].as_str().unwrap().to_owned();
    let token = world.dir().join("token");
    std::fs::write(&token, READER_TOKEN).unwrap();
    let log = format!(
        "[[log]]\nkey = \"{key}\"\nurl = \"{}\"\ntoken_file = \"{}\"\ncopy = false\n",
        world.custodyd.log_url(),
        path(&token)
    );
    let mut witness = Witness::init(&world.dir().join("witness"), "", &log);
    witness.start();
    world.custodyd.stop();
    {
        let signer = layout::log_signer(&world.custodyd.data(), "custody.test/log");
        let options = Options::new(Arc::new(signer), Arc::new(SystemClock::new()));
        let log = EmbeddedLog::open(&world.custodyd.data().join("log"), options).unwrap();
        let boot = Uuid::now_v7();
        let started = Started { previous: None, program: "agent".to_owned() };
        for record in [record(boot, 0, started), record(boot, 4, Stopped {})] {
            assert_eq!(log.submit(vec![record]).unwrap().wait_blocking().unwrap().len(), 1);
        }
        log.close();
    }
    second.only("/loki/api/v1/push");
    second.set(Fault::Answer(400, None));
    world.custodyd.configure(&format!(
        "{}at_start = \"warn\"\n\
         [[sink]]\nname = \"loki\"\n[sink.loki]\ntenant = \"{TENANT}\"\nendpoint = {{ url = \"{}\" }}\n\
         [[sink]]\nname = \"opensearch\"\n[sink.opensearch]\nstream = \"{STREAM}\"\nendpoint = {{ url = \"{}\" }}\n\
         [[sink]]\nname = \"second\"\nstall_seconds = 1\n[sink.loki]\ntenant = \"{SECOND}\"\nendpoint = {{ url = \"{}\" }}\n",
        witness.as_configured(),
        loki.url(),
        two().url(),
        second.url(),
    ));
    world.custodyd.start();
    witness
}

/// All that can happen to a sink.
fn trouble(world: &World, loki: &Loki, second: &Flaky) {
    world.event("type=producer.gap", "the gap is told", |_| true);
    let admin = &world.admin;
    world.event("type=sink.rejected", "it is refused", |_| true);
    second.set(Fault::Refuse);
    admin.custody(&["role", "add", "auditor", "--description", "Reads"]).ok();
    world.event("type=sink.stalled", "it stalls", |_| true);
    second.set(Fault::Pass);
    world.event("type=sink.resumed", "it goes on", |_| true);
    admin.custody(&["sinks", "pause", "second", "--reason", "it moves"]).ok();
    admin.custody(&["sinks", "release", "second"]).ok();
    for name in ["loki", "opensearch"] {
        admin.custody(&["sinks", "verify", name]).ok();
    }
    // Somebody puts a line among those of the second one.
    let labels = json!({ "job": "custody", "family": "log", "outcome": "none", "producer": "log" });
    let line = (crate::loki_now() * 1_000_000_000, "{}");
    let claims = json!({ "log_origin": "custody.test/log", "log_index": "999999" });
    assert_eq!(loki.push_with(SECOND, &labels, line, &claims).unwrap().status, 204);
    assert_ne!(admin.try_custody(&["sinks", "verify", "second"], b"").code, 0, "it is named");
    world.event("type=sink.verified", "and told", |entry| entry.event["data"]["proven"] == false);
}

fn logins(world: &World) {
    for _ in 0..4 {
        assert_ne!(world.operator.try_login("wrong").code, 0);
    }
    world.operator.login(OPERATOR_PASSWORD);
    let mutiny = ["lock", "--user", "alice", "--reason", "mutiny"];
    assert_ne!(world.operator.try_custody(&mutiny, b"").code, 0, "a denial that is about no node");
    let nobody = Home::new(&world.custodyd, &world.dir().join("nobody"), "nobody");
    assert_ne!(nobody.try_login("wrong").code, 0);
    // From another address within the hour.
    let mut ssh = from_another_address(world, &world.operator);
    run(&mut ssh, b"", DEADLINE).ok();
}

/// `ssh LOGIN+NODE@proxy`, straight, so that it is ssh that chooses where from.
fn from_another_address(world: &World, home: &Home) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-b", "127.0.0.2", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
    ssh.args([
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    ]);
    ssh.arg("-p").arg(world.custodyd.ssh_port.to_string()).arg("-i").arg(home.dir.join("id"));
    ssh.args(["root+web-1@127.0.0.1", "true"]).env_remove("SSH_AUTH_SOCK");
    ssh
}

/// What people do on nodes. The last session stays.
fn sessions(world: &World) -> Running {
    world.policy("denies", DENIES);
    for command in ["echo often", "echo often", "uptime", "exit 3"] {
        world.ssh(&[], command, b"");
    }
    assert_ne!(world.ssh(&[], "kill -9 $$", b"").code, 0, "a signal's end, which has no status");
    assert_ne!(world.ssh(&[], "kill -9 $PPID", b"").code, 0, "the target's own end");
    let at = |node: &str, arguments: &[&str]| {
        let mut ssh = world.proxied();
        let typed = b"echo typed\nexit\n";
        run(ssh.arg("-tt").arg(format!("root@{node}.custody")).args(arguments), typed, DEADLINE)
    };
    at("web-1", &[]).ok();
    assert_ne!(at("db-1", &[]).code, 0, "policy refuses a shell");
    at("db-1", &["uptime"]).ok();
    // Nodes that can't be reached, or aren't who they should be.
    let admin = &world.admin;
    admin.custody(&["node", "add", "gone", &format!("127.0.0.1:{}", free_port())]).ok();
    assert_ne!(at("gone", &["true"]).code, 0);
    let key = world.dir().join("another");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", path(&key)]);
    let public = key.with_extension("pub");
    admin.custody(&["node", "add", "impostor", &world.web.address(), "--host-key", path(&public)]).ok();
    assert_ne!(at("impostor", &["true"]).code, 0);
    world.event("type=node.host-key-refused", "another key is refused", |_| true);
    // Somebody who is locked in the middle of a session.
    let carol = world.add_user("carol", &["operator"], OPERATOR_PASSWORD);
    carol.login(OPERATOR_PASSWORD);
    let cut = held(world, &carol);
    admin.custody(&["lock", "--user", "carol", "--reason", "incident 4711"]).ok();
    world.event("type=session.ended", "the session is cut", |e| e.event["data"]["reason"] == "locked");
    drop(cut);
    // A replay leaves a trace of its own.
    let ended = world.event("type=recording.sealed&user=bob", "a recording is whole", |_| true);
    admin.custody(&["play", ended.session().unwrap(), "--speed", "100"]).ok();
    held(world, &world.operator)
}

/// A session that lasts as long as its client.
fn held(world: &World, home: &Home) -> Running {
    let before = world.entries("type=session.started").len();
    let mut ssh = home.ssh_command();
    // Nothing comes, and the input doesn't end.
    ssh.args(["root@web-1.custody", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let alive = Running::start("ssh", &mut ssh);
    until_true("it has started", DEADLINE, || world.entries("type=session.started").len() > before);
    alive
}

/// All entries so far, once both stores have them, and when the last was appended.
fn settled(world: &World) -> (Vec<Entry>, u64) {
    let entries = world.entries("");
    let last: Value = serde_json::from_str(&entries.last().unwrap().line).unwrap();
    let last: Timestamp = last["appended"].as_str().unwrap().parse().unwrap();
    let size = entries.last().unwrap().index + 1;
    until_true("both stores have them", DEADLINE * 2, || {
        let sinks = world.admin.request("/v1/sinks", &[]).json();
        let behind = |sink: &Value| sink["name"] != "second" && sink["next"].as_u64().unwrap() < size;
        !sinks.as_array().unwrap().iter().any(behind)
    });
    (entries, last.nanos())
}
