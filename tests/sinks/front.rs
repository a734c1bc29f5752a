//! Stores behind TLS that want to be shown something: secrets and authorities are read anew, without a restart.

use super::opensearch::two;
use custody_tests::process::run;
use custody_tests::program;
use custody_tests::servers::front::Front;
use custody_tests::servers::{Loki, World};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What is wrong with the only sink; nothing when nothing is.
fn trouble(world: &World) -> Option<String> {
    let sinks: Value = serde_json::from_str(&world.admin.custody(&["sinks", "ls", "--json"]).text()).unwrap();
    sinks[0]["trouble"].as_str().map(str::to_owned)
}

pub fn put_secret(world: &World, name: &str, secret: &str) {
    let mut command = Command::new(program("custodyd"));
    command.args(["secret", "put", name, "--config"]).arg(world.custodyd.config());
    run(&mut command, secret.as_bytes(), DEADLINE).ok();
}

/// Delivers with `auth` through a front that wants `authorization`: first with a wrong secret, then with the right one,
/// then with another CA before the store.
fn delivers(upstream: u16, dir: &Path, authorization: &str, table: &str, auth: &str, secret: &str) {
    let mut front = Front::prepare(&dir.join("front"), upstream, authorization);
    front.start();
    let mut world = World::start();
    world.custodyd.stop();
    put_secret(&world, "key", "not this one");
    let ca = world.dir().join("ca.pem");
    std::fs::copy(&front.ca, &ca).unwrap();
    let endpoint =
        format!("endpoint = {{ url = \"{}\", ca = \"{}\", auth = {auth} }}\n", front.url(), ca.display());
    world.custodyd.configure(&format!("[[sink]]\nname = \"store\"\nstall_seconds = 1\n{table}{endpoint}"));
    world.custodyd.start();
    let says = |words: &str| trouble(&world).is_some_and(|trouble| trouble.contains(words));
    let verified = || world.admin.try_custody(&["sinks", "verify", "store"], b"").code == 0;
    until_true("it isn't let in", DEADLINE, || says("HTTP 401"));
    put_secret(&world, "key", secret);
    until_true("it is let in, without a restart", DEADLINE, || trouble(&world).is_none() && verified());

    // Another authority: nothing is sent to whom nobody vouches for.
    front.service.stop();
    front.renew();
    front.start();
    world.ssh(&[], "echo nobody vouches for it", b"").ok();
    until_true("it isn't trusted", DEADLINE, || says("certificate"));
    std::fs::copy(&front.ca, &ca).unwrap();
    until_true("it is trusted, without a restart", DEADLINE, || trouble(&world).is_none() && verified());

    // A program that has been let in nowhere yet says why it can't compare what was delivered long ago.
    put_secret(&world, "key", "not this one");
    world.custodyd.stop();
    world.custodyd.start();
    let unproven = world.admin.try_custody(&["sinks", "verify", "store", "--to", "5"], b"");
    let said = unproven.text() + &unproven.err;
    assert!(unproven.code == 1 && said.contains("HTTP 401"), "{said}");
    let told =
        world.custodyd.output() + &world.entries("").iter().map(|e| e.line.clone()).collect::<String>();
    assert!(!told.contains(secret) && !told.contains("not this one"), "a secret was told");
}

#[test]
fn loki_behind_tls_with_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(&dir.path().join("loki"), &[]);
    loki.start();
    // carol:open sesame
    let authorization = "Basic Y2Fyb2w6b3BlbiBzZXNhbWU=";
    let table = "[sink.loki]\ntenant = \"acme\"\n";
    let auth = "{ basic = { user = \"carol\", secret = \"key\" } }";
    delivers(loki.service.port(), dir.path(), authorization, table, auth, "open sesame");
}

#[test]
fn opensearch_behind_tls_with_an_api_key() {
    let dir = tempfile::tempdir().unwrap();
    let table = "[sink.opensearch]\nstream = \"logs-custody.events-fronted\"\n";
    let auth = "{ api-key = { secret = \"key\" } }";
    delivers(
        two().service.port(),
        dir.path(),
        "ApiKey VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6",
        table,
        auth,
        "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6",
    );
}

#[test]
fn loki_behind_tls_with_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(&dir.path().join("loki"), &[]);
    loki.start();
    let table = "[sink.loki]\ntenant = \"acme\"\n";
    let auth = "{ bearer = { secret = \"key\" } }";
    delivers(loki.service.port(), dir.path(), "Bearer eyJrIjoi", table, auth, "eyJrIjoi");
}
