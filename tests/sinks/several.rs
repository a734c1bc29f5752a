//! Several sinks of one daemon: each has its own position and its own fate.
//!
//! `CUSTODY_SINK_EVENTS` says how long the log is beside which some are away, `CUSTODY_KILLS` how often the daemon ends: `make soak` asks
//! for 100,000 and 100.

use super::campaign::events;
use super::front::put_secret;
use super::opensearch::two;
use super::siege::fill;
use custody_tests::process::run;
use custody_tests::random::Random;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::{Loki, World};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::Value;
use std::time::Duration;

/// How long a long log may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// By how much custodyd may grow with four sinks, two of which are far behind: by a few batches of each, in KiB.
const GROWTH_KIB: u64 = 128 << 10;

fn table(name: &str, kind: &str, url: &str) -> String {
    format!("[[sink]]\nname = \"{name}\"\nstall_seconds = 1\n{kind}endpoint = {{ url = \"{url}\" }}\n")
}

fn sink(world: &World, name: &str) -> Value {
    let sinks: Vec<Value> =
        serde_json::from_str(&world.admin.custody(&["sinks", "ls", "--json"]).text()).unwrap();
    sinks.into_iter().find(|sink| sink["name"] == name).unwrap()
}

fn verified(world: &World, name: &str) {
    until_true("it has caught up", PATIENCE, || sink(world, name)["lag_events"].as_u64() < Some(5));
    let said = run(&mut world.admin.command(&["sinks", "verify", name]), b"", PATIENCE).ok().text();
    assert!(said.contains("proven") && !said.contains("DUPLICATED"), "{said}");
}

/// Resident memory of custodyd, KiB.
fn resident(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.custodyd.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// H12: one store never answers, one answers 503. The healthy ones have everything at once, sessions go on, and what waits for the others
/// waits in the log and not in memory.
#[test]
fn a_sink_that_hangs_and_one_that_is_refused_delay_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(dir.path(), &[]);
    loki.start();
    let hangs = Flaky::http(two().service.port());
    hangs.set(Fault::Hang);
    let refuses = Flaky::http(loki.service.port());
    refuses.set(Fault::Answer(503, None));
    let mut world = World::start();
    world.custodyd.stop();
    fill(&world, events(5_000));
    world.custodyd.start();
    // Of which searches know by then, too.
    assert!(!world.entries("type=log.created").is_empty());
    let before = resident(&world);
    world.custodyd.stop();
    world.custodyd.configure(&table(
        "hanging",
        "[sink.opensearch]\nstream = \"logs-custody.events-hanging\"\n",
        &hangs.url(),
    ));
    world.custodyd.configure(&table("refused", "[sink.loki]\ntenant = \"refused\"\n", &refuses.url()));
    world.custodyd.configure(&table("healthy", "[sink.loki]\ntenant = \"healthy\"\n", &loki.url()));
    world.custodyd.configure(&format!(
        "[[sink]]\nname = \"exported\"\n[sink.files]\nfolder = \"{}\"\n",
        world.dir().join("exported").display()
    ));
    world.custodyd.start();
    verified(&world, "healthy");
    verified(&world, "exported");
    let stalled = |name: &str| {
        let told = |entry: &custody_tests::servers::custodyd::Entry| entry.event["data"]["sink"] == name;
        world.event("type=sink.stalled", "the outage is told", told);
        assert_eq!(sink(&world, name)["next"], 0);
    };
    stalled("refused");
    stalled("hanging");
    for n in 0..5 {
        world.ssh(&[], &format!("echo {n}"), b"").ok();
        for name in ["healthy", "exported"] {
            until_true("it is there soon", DEADLINE, || sink(&world, name)["lag_seconds"].as_u64() < Some(2));
        }
    }
    let grown = resident(&world).saturating_sub(before);
    println!("custodyd has grown by {grown} KiB");
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    hangs.set(Fault::Pass);
    refuses.set(Fault::Pass);
    verified(&world, "refused");
    verified(&world, "hanging");
}

/// One has a damaged position, one another log's, one a line that is no dead letter, one no secret to redact with: each says
/// so and stands still, and the fifth delivers. Mended, they go on, and that is told of each, though none had stalled by then in that
/// program.
#[test]
fn a_sink_that_can_not_begin_stands_still_and_says_why_and_all_else_goes_on() {
    const BAD: [(&str, &str); 4] = [
        ("damaged", "position.json is damaged"),
        ("foreign", "belongs to another log"),
        ("letters", "line 1 is no dead letter"),
        ("secretless", "custodyd secret put the-key"),
    ];
    let mut world = World::start();
    let folder = world.dir().join("exported");
    for name in BAD.map(|(name, _)| name).into_iter().chain(["healthy"]) {
        let redaction =
            "redaction_secret = \"the-key\"\nredact = [{ field = \"data.reason\", with = \"hash\" }]\n";
        let more = if name == "secretless" { redaction } else { "" };
        world.custodyd.configure(&format!(
            "[[sink]]\nname = \"{name}\"\n{more}[sink.files]\nfolder = \"{}/{name}\"\n",
            folder.display()
        ));
    }
    world.custodyd.stop();
    let own = |name: &str, file: &str| {
        let folder = world.custodyd.data().join("sinks").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder.join(file)
    };
    let mend: Vec<_> =
        [("damaged", "position.json"), ("foreign", "position.json"), ("letters", "dead-letters.ndjson")]
            .map(|(name, file)| own(name, file))
            .into();
    std::fs::write(&mend[0], "{").unwrap();
    let foreign = r#"{"last_leaf":null,"next":0,"origin":"another.example/log","replay":null,"sent":0}"#;
    std::fs::write(&mend[1], foreign).unwrap();
    std::fs::write(&mend[2], "{}\n").unwrap();
    world.custodyd.start();
    world.ssh(&[], "echo nobody waits", b"").ok();
    verified(&world, "healthy");
    let metrics = world.admin.request("/metrics", &[]).text();
    for (name, why) in BAD {
        let standing = sink(&world, name);
        assert!(standing["trouble"].as_str().unwrap().contains(why), "{standing}");
        assert_eq!(standing["next"], 0);
        let told = |entry: &custody_tests::servers::custodyd::Entry| entry.event["data"]["sink"] == name;
        let told = world.event("type=sink.stalled", "it is told", told);
        assert!(told.event["data"]["reason"].as_str().unwrap().contains(why), "{}", told.event);
        assert!(metrics.contains(&format!("custody_sink_up{{sink=\"{name}\"}} 0")), "{metrics}");
        let said = world.admin.try_custody(&["sinks", "dead-letters", name], b"");
        assert!(said.code != 0 && said.err.contains(why), "{}", said.err);
    }
    world.custodyd.stop();
    mend.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    put_secret(&world, "the-key", "a secret to hash with");
    world.custodyd.start();
    for (name, _) in BAD {
        verified(&world, name);
        let told = |entry: &custody_tests::servers::custodyd::Entry| entry.event["data"]["sink"] == name;
        world.event("type=sink.resumed", "it is told that it goes on", told);
    }
}

/// H11: one is served and one is told to wait, while the daemon is killed at random and ends in order in between: no position
/// is another one's, and none moves over what wasn't stored.
#[test]
fn no_position_moves_for_another_sink_or_over_what_was_not_stored() {
    let seed = std::env::var("CUSTODY_SEED").map_or(11, |seed| seed.parse().unwrap());
    let kills: u64 = std::env::var("CUSTODY_KILLS").map_or(10, |kills| kills.parse().unwrap());
    println!("CUSTODY_SEED={seed} CUSTODY_KILLS={kills}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(dir.path(), &[]);
    loki.start();
    let waits = Flaky::http(loki.service.port());
    waits.only("/push");
    waits.set(Fault::Answer(429, Some(1)));
    let mut world = World::start();
    world.custodyd.stop();
    fill(&world, 2_000);
    world.custodyd.configure(&table("served", "[sink.loki]\ntenant = \"served\"\n", &loki.url()));
    world.custodyd.configure(&table("waiting", "[sink.loki]\ntenant = \"waiting\"\n", &waits.url()));
    for round in 0..kills {
        world.custodyd.start();
        world.ssh(&[], &format!("echo {round}"), b"").ok();
        std::thread::sleep(Duration::from_millis(random.below(700)));
        if round % 3 == 2 {
            world.custodyd.stop();
        } else {
            world.custodyd.kill_now();
        }
    }
    world.custodyd.start();
    assert_eq!(sink(&world, "waiting")["next"], 0, "nothing of it was ever stored");
    verified(&world, "served");
    waits.set(Fault::Pass);
    until_true("it goes on", DEADLINE, || sink(&world, "waiting")["next"].as_u64() > Some(0));
    verified(&world, "waiting");
    verified(&world, "served");
}
