//! Clients that know no certificates: a name and a password, typed over SSH where that is configured.

use custody_tests::process::{Said, run};
use custody_tests::servers::world::OPERATOR_PASSWORD as PASSWORD;
use custody_tests::servers::{World, python};
use custody_tests::wait::DEADLINE;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn world() -> World {
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure_ssh("keyboard_interactive = true");
    world.custodyd.start();
    world
}

/// dropbear's client: it reads what is shown while it is typed from its input, and the password from here.
fn dbclient(world: &World, user: &str, password: &str, command: &str) -> Said {
    let mut dbclient = Command::new("dbclient");
    dbclient.args(["-y", "-T", "-p", &world.custodyd.ssh_port.to_string(), "-l", "root+web-1"]);
    dbclient.args(["127.0.0.1", command]).env("HOME", world.dir()).env("DROPBEAR_PASSWORD", password);
    run(&mut dbclient, format!("{user}\n").as_bytes(), DEADLINE)
}

/// A program that types for OpenSSH.
fn askpass(dir: &Path, user: &str, password: &str) -> PathBuf {
    let program = dir.join("askpass");
    let text = format!("#!/bin/sh\ncase $1 in *user:*) echo '{user}';; *) echo '{password}';; esac\n");
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    program
}

/// The stock client without any key, which has the password typed.
fn typing(world: &World, askpass: &Path, arguments: &[&str]) -> Said {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    ssh.args(["-o", "IdentityFile=none", "-o", "NumberOfPasswordPrompts=3"]);
    ssh.args(arguments).env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
    ssh.env_remove("SSH_AUTH_SOCK").env("HOME", world.dir());
    run(&mut ssh, b"", DEADLINE)
}

/// What it prints and how it ends is what a direct run does; the log says by what the person was proved.
#[test]
fn dbclient_works_by_keyboard_interactive() {
    let world = world();
    let command = "echo by dropbear; echo and this >&2; exit 42";
    let (said, direct) = (dbclient(&world, "bob", PASSWORD, command), world.direct(&[], command, b""));
    assert_eq!((said.code, said.text()), (direct.code, direct.text()), "{}", said.err);
    assert!(said.err.contains("and this"), "{}", said.err);

    let succeeded = world.event("type=login.succeeded", "the login", |entry| {
        entry.event["data"]["method"] == "keyboard-interactive"
    });
    assert_eq!(succeeded.event["actor"]["user"], "bob");
    assert!(succeeded.event["actor"].get("certificate").is_none(), "{}", succeeded.event);
    let decided = world.entries("type=decision.made");
    let decided = decided.iter().find(|entry| entry.session() == succeeded.session()).unwrap();
    let age = decided.event["data"]["context"]["certificate_seconds"].as_u64().unwrap();
    assert!(age < 60, "the proof is as old as the password's check: {age} s");
    let ended = world.event("type=session.ended", "the end", |entry| entry.session() == succeeded.session());
    assert_eq!(ended.event["outcome"], "success");
}

/// OpenSSH (also as a jump host, where both ends ask), paramiko and asyncssh.
#[test]
fn others_type_too() {
    let world = world();
    let askpass = askpass(world.dir(), "bob", PASSWORD);
    let port = world.custodyd.ssh_port.to_string();
    let said = typing(&world, &askpass, &["-p", &port, "root+web-1@127.0.0.1", "cat; exit 3"]);
    assert_eq!(said.code, 3, "{}", said.err);
    let proxy = format!(
        "ProxyCommand=ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -o IdentityFile=none -p {port} -W %h:%p me@127.0.0.1"
    );
    let said = typing(&world, &askpass, &["-o", &proxy, "root@web-1", "echo jumped; exit 4"]);
    assert_eq!((said.code, said.text().as_str()), (4, "jumped\n"), "{}", said.err);
    let logins = world.entries("type=login.succeeded");
    let typed = logins.iter().filter(|entry| entry.event["data"]["method"] == "keyboard-interactive");
    assert_eq!(typed.count(), 3);
    assert_eq!(
        python::run_with("typed.py", &[&port, "bob"], PASSWORD.as_bytes()),
        "paramiko 5\nasyncssh 6\n"
    );
}

/// Twisted, which has no MAC but those over the clear packet, and no certificates.
#[test]
fn twisted_types_where_plain_macs_are_offered() {
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure_ssh("keyboard_interactive = true\nplain_macs = true");
    world.custodyd.start();
    let port = world.custodyd.ssh_port.to_string();
    let said = python::run_with("twisted_client.py", &[&port, "bob"], PASSWORD.as_bytes());
    assert_eq!(said, "by twisted 7\n");
}

/// Each failure is told before the client hears of it, no name that nobody has is kept, no password is anywhere, and
/// after ten the password isn't looked at any more.
#[test]
fn failures_are_told_and_limited() {
    let world = world();
    let port = world.custodyd.ssh_port.to_string();
    let failed = || {
        let entries = world.entries("type=login.failed");
        let typed = entries.into_iter().filter(|e| e.event["data"]["method"] == "keyboard-interactive");
        typed.map(|entry| entry.event["data"].clone()).collect::<Vec<_>>()
    };
    let wrong = "a-wrong-one-typed-here";
    // It asks again, with nothing at its input.
    assert_ne!(dbclient(&world, "bob", wrong, "true").code, 0);
    let told = failed();
    assert_eq!((&told[0]["claimed_user"], &told[0]["reason"]), (&json!("bob"), &json!("wrong password")));
    assert!(told[1..].iter().all(|data| data["reason"] == "no such user"), "{told:?}");

    // Who typed the password where the name goes.
    let arguments = ["-p", &port, "root+web-1@127.0.0.1", "true"];
    assert_eq!(typing(&world, &askpass(world.dir(), PASSWORD, wrong), &arguments).code, 255);
    let nobody = failed().split_off(told.len());
    assert_eq!(nobody.len(), 3, "{nobody:?}");
    assert!(nobody.iter().all(|data| data.get("claimed_user").is_none()), "{nobody:?}");

    let askpass = askpass(world.dir(), "bob", wrong);
    for _ in 0..3 {
        assert_eq!(typing(&world, &askpass, &arguments).code, 255);
    }
    // The stock client shows a banner at its usual log level.
    let limited = typing(&world, &askpass, &arguments);
    assert!(limited.err.contains("too many failed logins: try again in"), "{}", limited.err);
    let bobs = failed().iter().filter(|data| data["claimed_user"] == "bob").count();
    assert_eq!(bobs, 10, "what is over the limit isn't looked at, and floods no log");
    // The right one isn't either.
    assert_ne!(dbclient(&world, "bob", PASSWORD, "true").code, 0);

    let log = world.entries("").iter().map(|entry| entry.event.to_string()).collect::<String>();
    for secret in [wrong, PASSWORD] {
        assert!(!log.contains(secret) && !world.custodyd.output().contains(secret));
    }
}
