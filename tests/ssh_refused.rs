//! What must be refused: each kind of wrong certificate, and what has no events yet.

use custody_tests::process::{Said, run};
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::servers::sshd::{keygen, path};
use custody_tests::wait::{self, DEADLINE};
use std::path::PathBuf;
use std::process::Command;

/// A key pair of the tests' own, beside a certificate for it that `ssh-keygen -s CA ARGUMENTS` made.
pub(super) fn forged(world: &World, name: &str, ca: &std::path::Path, arguments: &[&str]) -> PathBuf {
    let key = world.dir().join(name);
    keygen(&["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path(&key)]);
    let mut sign = vec!["-q", "-s", path(ca), "-I", name];
    sign.extend(arguments);
    let public = world.dir().join(format!("{name}.pub"));
    sign.push(path(&public));
    keygen(&sign);
    key
}

/// `ssh LOGIN+NODE@proxy` with one key and its certificate and nothing else.
fn knock(world: &World, key: &std::path::Path) -> Said {
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ]);
    ssh.args([
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "LogLevel=ERROR",
        "-p",
        &world.custodyd.ssh_port.to_string(),
        "-i",
    ]);
    ssh.arg(key).args(["root+web-1@127.0.0.1", "echo inside"]).env_remove("SSH_AUTH_SOCK");
    run(&mut ssh, b"", DEADLINE)
}

/// Certificates that proved nobody, and people who were proved and may not.
fn refusals(world: &World) -> usize {
    let failed = world.entries("type=login.failed");
    let denied = world.entries("type=decision.made");
    failed.iter().filter(|e| e.event["data"]["method"] == "ssh-certificate").count()
        + denied.iter().filter(|e| e.event["data"]["allowed"] == false).count()
}

#[test]
fn each_wrong_certificate_is_refused_and_is_an_event() {
    let world = World::start();
    let ca = world.custodyd.data().join(layout::CLIENT_CA_KEY);
    let target_ca = world.custodyd.data().join(layout::TARGET_CA_KEY);
    let stranger = world.dir().join("stranger-ca");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", path(&stranger)]);
    let hour = ["-V", "-5m:+1h"];

    // The twin of all the wrong ones: same CA, same way, right in everything. And an extension that nobody knows.
    let right =
        forged(&world, "right", &ca, &["-n", "bob", hour[0], hour[1], "-O", "extension:new@example.com=1"]);
    let said = knock(&world, &right);
    assert_eq!((said.code, said.text().as_str()), (0, "inside\n"), "{}", said.err);

    let wrong: [(&str, &std::path::Path, &[&str]); 9] = [
        ("other-ca", &stranger, &["-n", "bob", "-V", "-5m:+1h"]),
        ("target-ca", &target_ca, &["-n", "bob", "-V", "-5m:+1h"]),
        ("no-principal", &ca, &["-V", "-5m:+1h"]),
        ("other-principal", &ca, &["-n", "nobody-of-that-name", "-V", "-5m:+1h"]),
        ("host-type", &ca, &["-h", "-n", "bob", "-V", "-5m:+1h"]),
        ("expired", &ca, &["-n", "bob", "-V", "-2h:-1h"]),
        ("not-yet", &ca, &["-n", "bob", "-V", "+1h:+2h"]),
        ("source-address", &ca, &["-n", "bob", "-V", "-5m:+1h", "-O", "source-address=192.0.2.1/32"]),
        ("unknown-critical", &ca, &["-n", "bob", "-V", "-5m:+1h", "-O", "critical:new@example.com=1"]),
    ];
    for (name, ca, arguments) in wrong {
        let before = refusals(&world);
        let key = forged(&world, name, ca, arguments);
        let said = knock(&world, &key);
        assert_ne!(said.text(), "inside\n", "{name} got in");
        assert_eq!(said.code, 255, "{name}: {}", said.err);
        // The client may have left before it is told.
        wait::until_true(&format!("{name} has left an event"), DEADLINE, || refusals(&world) > before);
    }

    // A key without any certificate.
    let bare = world.dir().join("bare");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", path(&bare)]);
    assert_eq!(knock(&world, &bare).code, 255);
    let reached = world.entries("type=session.requested");
    assert_eq!(reached.len(), 1, "only the right one opened a session");
}

/// With one CA for both sides anyone could walk past the proxy with his login certificate.
#[test]
fn a_target_refuses_a_user_s_login_certificate() {
    let world = World::start();
    let home = &world.operator.dir;
    let straight = |key: &std::path::Path| {
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "LogLevel=ERROR",
        ]);
        ssh.args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "IdentitiesOnly=yes",
            "-p",
            &world.web.port.to_string(),
        ]);
        ssh.arg("-i").arg(key).args(["root@127.0.0.1", "echo inside"]).env_remove("SSH_AUTH_SOCK");
        run(&mut ssh, b"", DEADLINE)
    };
    let said = straight(&home.join("id"));
    assert_eq!((said.code, said.text().as_str()), (255, ""));
    assert!(said.err.contains("Permission denied"), "{}", said.err);
    // The same certificate made for `root` by the same CA doesn't help either; one of the target CA would.
    let client_ca = world.custodyd.data().join(layout::CLIENT_CA_KEY);
    let root = forged(&world, "as-root", &client_ca, &["-n", "root", "-V", "-5m:+1h"]);
    assert_eq!(straight(&root).code, 255);
    let target_ca = world.custodyd.data().join(layout::TARGET_CA_KEY);
    let twin = forged(&world, "twin", &target_ca, &["-n", "root", "-V", "-5m:+1h"]);
    assert_eq!(straight(&twin).text(), "inside\n");
}

/// What the certificate for one session is good for: the proxy's address, minutes, the one account.
#[test]
fn the_session_s_certificate_is_short_and_bound_to_the_proxy() {
    let world = World::start();
    world.ssh(&[], "true", b"").ok();
    let issued = world.event("type=certificate.issued", "the session's certificate is in the log", |e| {
        e.event["data"]["authority"] == "target-ssh"
    });
    assert_eq!(issued.event["data"]["principals"], serde_json::json!(["root"]));
    let started = world.event("type=session.started", "the session has started", |_| true);
    assert_eq!(started.event["data"]["serial"], issued.event["data"]["serial"]);
    assert_eq!(started.event["data"]["host_proof"], "certificate");
    assert!(issued.index < started.index);
    let log = world.web.log();
    let serial = issued.event["data"]["serial"].as_str().unwrap();
    assert!(log.contains(&format!("serial {serial}")), "sshd saw another certificate: {log}");
}

/// Policy: deny by default, and a denial is told in one line and stands in the log with what decided.
#[test]
fn policy_decides_before_the_target_hears_of_it() {
    let world = World::start();
    let eve = world.add_user("eve", &[], "eve's own password");
    eve.login("eve's own password");
    let knocks = |log: String| log.matches("Connection from").count();
    let before = knocks(world.web.log());
    let said = run(eve.ssh_command().args(["root@web-1.custody", "true"]), b"", DEADLINE);
    assert_eq!((said.code, said.text().as_str()), (255, ""));
    assert!(!said.err.trim().is_empty(), "nobody told eve why");
    let decision = world.event("type=decision.made&user=eve", "the denial is in the log", |e| {
        e.event["data"]["action"] == "ssh:connect"
    });
    assert_eq!(
        (&decision.event["data"]["allowed"], &decision.event["outcome"]),
        (&false.into(), &"denied".into())
    );
    assert_eq!(knocks(world.web.log()), before, "the target heard of it");

    world.policy(
        "no-shell",
        "@id(\"no-shell-for-operators\")\nforbid(principal in Role::\"operator\", action == Action::\"ssh:shell\", resource);\n",
    );
    assert_eq!(world.ssh(&[], "echo exec", b"").ok().text(), "exec\n");
    let shell = run(world.proxied().args(["-T", "root@web-1.custody"]), b"echo inside\n", DEADLINE);
    assert_ne!(shell.code, 0);
    assert!(!shell.text().contains("inside"));
    assert!(shell.err.contains("no-shell-for-operators"), "the policy isn't named: {}", shell.err);
}

#[test]
fn a_policy_that_is_wrong_is_refused_at_upload() {
    let world = World::start();
    for (name, text, says) in [
        ("syntax", "permit(principal, action", ""),
        (
            "unknown-action",
            "@id(\"x\")\npermit(principal, action == Action::\"ssh:conect\", resource);",
            "ssh:conect",
        ),
        (
            "unknown-attribute",
            "@id(\"x\")\nforbid(principal, action == Action::\"ssh:connect\", resource) when { context.colour == 1 };",
            "colour",
        ),
        ("no-id", "permit(principal, action, resource);", "@id"),
    ] {
        let file = world.dir().join(name);
        std::fs::write(&file, text).unwrap();
        let said = world.admin.try_custody(&["policy", "upload", name, path(&file)], b"");
        assert_ne!(said.code, 0, "{name} was taken");
        assert!(said.err.contains(says), "{name}: {}", said.err);
    }
    let uploaded = world.entries("type=policy.uploaded");
    assert!(uploaded.iter().all(|e| {
        !["syntax", "unknown-action", "no-id"].contains(&e.event["data"]["name"].as_str().unwrap())
    }));
}
