//! Several sinks of one daemon: each has its own position and its own fate.

use super::opensearch::two;
use super::siege::fill;
use custody_tests::random::Random;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::{Loki, World};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::Value;
use std::time::Duration;

/// How long a long log may take.
const PATIENCE: Duration = Duration::from_secs(120);

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
    let said = world.admin.custody(&["sinks", "verify", name]).text();
    assert!(said.contains("proven") && !said.contains("DUPLICATED"), "{said}");
}

/// One store never answers, one answers 503: the healthy one has everything at once, and sessions go on.
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
    fill(&world, 5_000);
    world.custodyd.configure(&table(
        "hanging",
        "[sink.opensearch]\nstream = \"logs-custody.events-hanging\"\n",
        &hangs.url(),
    ));
    world.custodyd.configure(&table("refused", "[sink.loki]\ntenant = \"refused\"\n", &refuses.url()));
    world.custodyd.configure(&table("healthy", "[sink.loki]\ntenant = \"healthy\"\n", &loki.url()));
    world.custodyd.start();
    verified(&world, "healthy");
    let stalled = |name: &str| {
        let told = |entry: &custody_tests::servers::custodyd::Entry| entry.event["data"]["sink"] == name;
        world.event("type=sink.stalled", "the outage is told", told);
        assert_eq!(sink(&world, name)["next"], 0);
    };
    stalled("refused");
    stalled("hanging");
    for n in 0..5 {
        world.ssh(&[], &format!("echo {n}"), b"").ok();
        until_true("it is there within seconds", Duration::from_secs(5), || {
            sink(&world, "healthy")["lag_seconds"].as_u64() < Some(2)
        });
    }
    hangs.set(Fault::Pass);
    refuses.set(Fault::Pass);
    verified(&world, "refused");
    verified(&world, "hanging");
}

/// One is served and one is told to wait, while the daemon is killed at random and ends in order in between: no position
/// is another one's, and none moves over what wasn't stored.
#[test]
fn no_position_moves_for_another_sink_or_over_what_was_not_stored() {
    let seed = std::env::var("CUSTODY_SEED").map_or(11, |seed| seed.parse().unwrap());
    println!("CUSTODY_SEED={seed}");
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
    for round in 0..10 {
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
