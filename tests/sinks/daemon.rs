//! Sinks as people have them: in the configuration of a daemon, by `custody sinks`.

use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::{Loki, World};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::Value;

/// A world that delivers to Loki through a proxy, as tenant `acme`.
fn world(proxy: &Flaky) -> World {
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure(&format!(
        "[[sink]]\nname = \"loki\"\nstall_seconds = 1\n[sink.loki]\ntenant = \"acme\"\nendpoint = {{ url = \"{}\" }}\n",
        proxy.url()
    ));
    world.custodyd.start();
    world
}

fn sink(world: &World) -> Value {
    let sinks: Value = serde_json::from_str(&world.admin.custody(&["sinks", "ls", "--json"]).text()).unwrap();
    sinks[0].clone()
}

#[test]
fn a_session_is_in_loki_and_proven_and_the_sink_is_held_replayed_and_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(dir.path(), &[]);
    loki.start();
    let proxy = Flaky::http(loki.service.port());
    let mut world = world(&proxy);
    world.ssh(&[], "echo delivered", b"").ok();
    let said = world.admin.custody(&["sinks", "verify", "loki"]).ok().text();
    assert!(said.contains("proven") && !said.contains("MISSING"), "{said}");
    let told = world.event("type=sink.verified", "it is told that it was verified", |_| true);
    assert_eq!(told.event["data"]["proven"], true);

    // Held: nothing more arrives, also after a restart, until it is released.
    world.admin.custody(&["sinks", "pause", "loki", "--reason", "it moves"]).ok();
    world.custodyd.stop();
    world.custodyd.start();
    world.ssh(&[], "echo held", b"").ok();
    assert_eq!(sink(&world)["paused"], "it moves");
    assert!(sink(&world)["lag_events"].as_u64().unwrap() > 0);
    world.admin.custody(&["sinks", "release", "loki"]).ok();
    until_true("it has caught up", DEADLINE, || sink(&world)["lag_events"].as_u64().unwrap() < 5);
    let said = world.admin.custody(&["sinks", "replay", "loki", "--from", "0"]).ok().text();
    assert!(said.contains("All of it is there"), "{said}");
    let refused = world.admin.try_custody(&["sinks", "cancel", "loki"], b"");
    assert!(refused.code != 0 && refused.err.contains("neither a replay nor a redrive"), "{}", refused.err);
    let said = world.admin.custody(&["sinks", "verify", "loki", "--from", "5"]).ok().text();
    assert!(said.contains("events of the log from 5 to") && !said.contains("MISSING"), "{said}");
    let told = world
        .event("type=sink.verified", "it is told from where on", |event| event.event["data"]["from"] == 5);
    assert_eq!(told.event["data"]["verdict"], "proven");
    let said = world.admin.custody(&["sinks", "verify", "loki"]).ok().text();
    assert!(said.contains("proven") && !said.contains("DUPLICATED"), "{said}");

    // Killed in the middle of everything, both of them.
    proxy.next(3, Fault::Swallow);
    world.ssh(&[], "echo killed", b"").ok();
    world.custodyd.kill_now();
    loki.service.kill_now();
    loki.start();
    world.custodyd.start();
    let said = world.admin.custody(&["sinks", "verify", "loki"]).ok().text();
    assert!(said.contains("proven"), "{said}");

    // An outage is told, and an operator may look but not touch.
    proxy.set(Fault::Refuse);
    world.ssh(&[], "echo while it is away", b"").ok();
    world.event("type=sink.stalled", "it stalls", |_| true);
    let said = world.admin.custody(&["sinks", "ls"]).ok().text();
    assert!(said.contains("TROUBLE"), "{said}");
    proxy.set(Fault::Pass);
    world.event("type=sink.resumed", "it goes on", |_| true);
    let refused = world.operator.try_custody(&["sinks", "pause", "loki"], b"");
    assert!(refused.code != 0 && refused.err.contains("access denied"), "{}", refused.err);
    let unknown = world.admin.try_custody(&["sinks", "verify", "locky"], b"");
    assert!(unknown.err.contains("there is no sink locky: there are loki"), "{}", unknown.err);
    let metrics = world.admin.request("/metrics", &[]).text();
    assert!(metrics.contains("custody_sink_lag_events{sink=\"loki\"}"), "{metrics}");
}
