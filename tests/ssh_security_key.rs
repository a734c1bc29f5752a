//! Security keys (FIDO): OpenSSH's client with the authenticator in software that its own tests take, and `custody login`
//! that has such a key certified.

use custody_tests::process::{Said, run};
use custody_tests::servers::World;
use custody_tests::servers::setup;
use custody_tests::servers::sshd::{keygen, path};
use custody_tests::servers::world::OPERATOR_PASSWORD;
use custody_tests::wait::DEADLINE;
use std::path::PathBuf;
use std::process::Command;

fn authenticator() -> PathBuf {
    setup::folder("openssh/install.sh", &["--print"]).join("sk-dummy.so")
}

/// A key whose private half never leaves the authenticator.
fn enrolled(world: &World, name: &str, options: &[&str]) -> PathBuf {
    let file = world.dir().join(name);
    let provider = authenticator();
    let mut arguments = vec!["-q", "-N", "", "-w", path(&provider), "-f", path(&file)];
    arguments.extend(options);
    keygen(&arguments);
    file
}

fn login(world: &World, arguments: &[&str]) -> Said {
    let mut login = world.operator.command(&[&["login", "--password-stdin"], arguments].concat());
    run(&mut login, format!("{OPERATOR_PASSWORD}\n").as_bytes(), DEADLINE)
}

/// With a file of one's own that includes the one of `custody login`, as the documentation says.
fn ssh(world: &World, way: &[&str]) -> Said {
    let config = world.dir().join("config");
    let include = world.operator.dir.join("ssh_config");
    let lines = format!("SecurityKeyProvider {}\nInclude {}\n", path(&authenticator()), path(&include));
    std::fs::write(&config, lines).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.env_remove("SSH_AUTH_SOCK").args([
        "-F",
        path(&config),
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
    ]);
    run(ssh.args(way).arg("echo through"), b"", DEADLINE)
}

fn certified(world: &World) -> String {
    let certificate = std::fs::read_to_string(world.operator.dir.join("id-cert.pub")).unwrap();
    certificate.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_security_key_is_certified_at_each_login_and_opens_each_way() {
    let world = World::start();
    for (kind, certificate) in [
        ("ed25519-sk", "sk-ssh-ed25519-cert-v01@openssh.com"),
        ("ecdsa-sk", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com"),
    ] {
        let key = enrolled(&world, kind, &["-t", kind]);
        login(&world, &["--key", path(&key)]).ok();
        assert_eq!(certified(&world), certificate);
        assert!(!world.operator.dir.join("id").exists(), "the last login's own key is gone");
        for way in
            [&["root@web-1.custody"][..], &["root+web-1@custody"], &["-J", "custody", "root@web-1.custody"]]
        {
            let said = ssh(&world, way);
            assert_eq!((said.code, said.text().trim()), (0, "through"), "{kind} {way:?}: {}", said.err);
        }
        // The next login has the same key certified, also when it is named by its public half.
        login(&world, &[]).ok();
        assert_eq!(certified(&world), certificate);
        login(&world, &["--key", &format!("{}.pub", path(&key))]).ok();
        assert_eq!(ssh(&world, &["root@web-1.custody"]).text().trim(), "through");
        // Without the authenticator the files are worth nothing.
        let without = world.ssh(&[], "echo through", b"");
        assert_ne!(without.code, 0, "{}", without.text());
    }
    login(&world, &["--new-key"]).ok();
    assert_eq!(certified(&world), "ssh-ed25519-cert-v01@openssh.com");
    assert_eq!(world.ssh(&[], "echo through", b"").text().trim(), "through");
}

#[test]
fn a_security_key_that_nobody_touches_opens_nothing() {
    let world = World::start();
    let key = enrolled(&world, "untouched", &["-t", "ed25519-sk", "-O", "no-touch-required"]);
    login(&world, &["--key", path(&key)]).ok();
    let said = ssh(&world, &["root@web-1.custody"]);
    assert!(said.code != 0 && said.err.contains("Permission denied"), "{}", said.err);
    world.event("type=login.failed", "why is told", |failed| {
        failed.event["data"]["reason"].as_str().is_some_and(|reason| reason.contains("wasn't touched"))
    });
    assert!(world.entries("type=session.requested").is_empty());
}

#[test]
fn a_key_that_is_not_there_or_too_weak_is_named() {
    let world = World::start();
    let said = login(&world, &["--key", "/nowhere/key"]);
    assert!(said.code != 0 && said.err.contains("/nowhere/key.pub"), "{}", said.err);
    let weak = world.dir().join("weak");
    keygen(&["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", path(&weak)]);
    let said = login(&world, &["--key", path(&weak)]);
    assert!(said.code != 0 && said.err.contains("1024"), "{}", said.err);
    // Nothing of the last login was touched.
    assert_eq!(world.ssh(&[], "echo through", b"").text().trim(), "through");
}
