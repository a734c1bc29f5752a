//! The demo's own scripts: detached, started again after a kill, ended without a process left.

use custody_tests::process::{descendants, run, send};
use custody_tests::{root, wait};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const FIELDS: [&str; 14] = [
    "CUSTODY_SSH",
    "CUSTODY_SSH_CONFIG",
    "CUSTODY_NODE",
    "CUSTODY_LOGIN",
    "CUSTODY_IDENTITY",
    "CUSTODY_API",
    "CUSTODY_CA",
    "CUSTODY_CLIENT_CERT",
    "CUSTODY_CLIENT_KEY",
    "CUSTODY_LOG_URL",
    "CUSTODY_LOG_KEY",
    "CUSTODY_DATA",
    "CUSTODY_PID",
    "CUSTODY_RESTART",
];

/// `.demo/env`, as a shell reads it.
fn environment() -> BTreeMap<String, String> {
    let script = format!(
        "source {}/.demo/env; for name in {}; do printf '%s=%s\\n' \"$name\" \"${{!name}}\"; done",
        root().display(),
        FIELDS.join(" ")
    );
    let said = run(Command::new("bash").args(["-euc", &script]), b"", wait::DEADLINE).ok().text();
    said.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn pids() -> Vec<u32> {
    ["custodyd", "web-1", "db-1"]
        .iter()
        .map(|name| {
            let text = std::fs::read_to_string(root().join(".demo").join(format!("{name}.pid"))).unwrap();
            text.split_whitespace().next().unwrap().parse().unwrap()
        })
        .collect()
}

struct Stopped;

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(Command::new("make").args(["-C", root().to_str().unwrap(), "demo-stop"]).status());
    }
}

#[test]
fn the_demo_runs_is_restarted_and_stops() {
    let top = root().to_str().unwrap();
    let stop = Stopped;
    let mut demo = Command::new("make");
    demo.args(["--no-print-directory", "-C", top, "demo", "DETACH=1"]).env("CUSTODY_BUILT", "1");
    let said = run(&mut demo, b"", Duration::from_secs(300));
    assert_eq!(said.code, 0, "{}\n{}", said.text(), said.err);
    let told = said.text();
    for shown in ["session.requested", "command.requested", "decision.made", "no-shell-on-the-database"] {
        assert!(format!("{told}{}", said.err).contains(shown), "{shown} isn't shown:\n{told}\n{}", said.err);
    }

    let env = environment();
    assert!(FIELDS.iter().all(|f| env.get(*f).is_some_and(|v| !v.is_empty())), "{env:?}");
    for field in [
        "CUSTODY_SSH_CONFIG",
        "CUSTODY_IDENTITY",
        "CUSTODY_CA",
        "CUSTODY_CLIENT_CERT",
        "CUSTODY_CLIENT_KEY",
        "CUSTODY_DATA",
    ] {
        assert!(std::path::Path::new(&env[field]).exists(), "{field}={}", env[field]);
    }
    assert!(std::path::Path::new(&format!("{}-cert.pub", env["CUSTODY_IDENTITY"])).exists());
    let ssh =
        "ssh -o BatchMode=yes -F \"$CUSTODY_SSH_CONFIG\" \"$CUSTODY_LOGIN@$CUSTODY_NODE\" echo by-config";
    let plus = "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes -i \"$CUSTODY_IDENTITY\" -p \"${CUSTODY_SSH##*:}\" \"$CUSTODY_LOGIN+$CUSTODY_NODE@${CUSTODY_SSH%:*}\" echo by-name";
    let api = "curl --silent --fail --cacert \"$CUSTODY_CA\" --cert \"$CUSTODY_CLIENT_CERT\" --key \"$CUSTODY_CLIENT_KEY\" -H 'Accept: application/x-ndjson' \"$CUSTODY_API/v1/events?limit=1\"";
    let shell = |line: &str| {
        let line = format!("source {top}/.demo/env; {line}");
        run(
            Command::new("bash").args(["-euc", &line]).env_remove("SSH_AUTH_SOCK"),
            b"",
            Duration::from_secs(90),
        )
    };
    assert_eq!(shell(ssh).ok().text(), "by-config\n");
    assert_eq!(shell(plus).ok().text(), "by-name\n");
    assert!(shell(api).ok().text().contains("log.created"));

    // Killed and started again on the same data.
    let old: u32 = env["CUSTODY_PID"].parse().unwrap();
    send(old, Signal::KILL);
    wait::until_true("custodyd is gone", wait::DEADLINE, || !alive(old));
    shell("eval \"$CUSTODY_RESTART\"").ok();
    let again = environment();
    assert_ne!(again["CUSTODY_PID"], env["CUSTODY_PID"]);
    assert_eq!(again["CUSTODY_LOG_KEY"], env["CUSTODY_LOG_KEY"]);
    assert_eq!(shell(ssh).ok().text(), "by-config\n");

    let mut all = pids();
    all.extend(all.clone().into_iter().flat_map(descendants));
    drop(stop);
    for pid in all {
        wait::until_true("demo-stop leaves no process", wait::DEADLINE, || !alive(pid));
    }
    assert!(!root().join(".demo/env").exists());
}

/// Whether a process runs; one that has ended and isn't reaped yet doesn't.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
