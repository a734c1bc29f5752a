//! Several host keys, and how clients learn the next one before the old one goes.

use custody_tests::process::{Said, run};
use custody_tests::servers::World;
use custody_tests::servers::sshd::{keygen, path};
use custody_tests::wait::DEADLINE;
use std::path::{Path, PathBuf};
use std::process::Command;

fn host_key(world: &World, name: &str, kind: &[&str]) -> PathBuf {
    let key = world.dir().join(name);
    let mut arguments = vec!["-q", "-N", "", "-C", name, "-f", path(&key), "-t"];
    arguments.extend(kind);
    keygen(&arguments);
    key
}

fn public(key: &Path) -> String {
    let line = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// bob's ssh, which knows the proxy by a list of keys, and keeps it.
fn ssh(world: &World, known: &Path, options: &[&str]) -> Said {
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "LogLevel=DEBUG1",
    ]);
    ssh.args(["-o", "IdentitiesOnly=yes", "-o", "GlobalKnownHostsFile=none", "-o", "UpdateHostKeys=yes"]);
    ssh.args(["-o", &format!("UserKnownHostsFile={}", path(known))]);
    for option in options {
        ssh.args(["-o", option]);
    }
    ssh.args(["-p", &world.custodyd.ssh_port.to_string(), "-i"]).arg(world.operator.dir.join("id"));
    ssh.args(["root+web-1@127.0.0.1", "echo inside"]).env_remove("SSH_AUTH_SOCK");
    run(&mut ssh, b"", DEADLINE)
}

fn inside(said: &Said) {
    assert_eq!((said.code, said.text().as_str()), (0, "inside\n"), "{}", said.err);
}

#[test]
fn clients_learn_the_next_host_key_and_meet_it() {
    let mut world = World::start();
    let old = host_key(&world, "old", &["ed25519"]);
    let next = host_key(&world, "next", &["ed25519"]);
    let rsa = host_key(&world, "rsa", &["rsa", "-b", "3072"]);
    let ecdsa = host_key(&world, "ecdsa", &["ecdsa", "-b", "256"]);
    let configure = |world: &mut World, keys: &[&Path], upcoming: &[&Path]| {
        let list =
            |keys: &[&Path]| keys.iter().map(|key| format!("{:?}", path(key))).collect::<Vec<_>>().join(", ");
        world.custodyd.stop();
        let config = std::fs::read_to_string(world.custodyd.config()).unwrap();
        let kept: Vec<&str> = config.lines().filter(|line| !line.contains("host_keys = ")).collect();
        std::fs::write(world.custodyd.config(), kept.join("\n")).unwrap();
        world.custodyd.configure_ssh(&format!(
            "host_keys = [{}]\nupcoming_host_keys = [{}]",
            list(keys),
            list(upcoming)
        ));
        world.custodyd.start();
    };
    configure(&mut world, &[&old, &rsa, &ecdsa], &[&next]);

    // The host that was here before: its keys count, each by itself.
    let address = format!("[127.0.0.1]:{}", world.custodyd.ssh_port);
    for (key, algorithm) in [
        (&old, "ssh-ed25519"),
        (&rsa, "rsa-sha2-512"),
        (&rsa, "rsa-sha2-256"),
        (&ecdsa, "ecdsa-sha2-nistp256"),
    ] {
        let known = world.dir().join(format!("known-{algorithm}"));
        std::fs::write(&known, format!("{address} {}\n", public(key))).unwrap();
        let said = ssh(&world, &known, &[&format!("HostKeyAlgorithms=^{algorithm}")]);
        inside(&said);
        let learnt = std::fs::read_to_string(&known).unwrap();
        for (key, name) in [(&old, "old"), (&rsa, "rsa"), (&ecdsa, "ecdsa"), (&next, "next")] {
            assert!(
                learnt.contains(&public(key)),
                "{algorithm}: {name} wasn't learnt: {learnt}\n{}",
                said.err
            );
        }
        assert_eq!(learnt.lines().count(), 5, "custodyd's own key, and no more: {learnt}");
    }

    // Whoever was here meets the next key as one that he knows; whoever wasn't is warned.
    configure(&mut world, &[&next], &[]);
    inside(&ssh(&world, &world.dir().join("known-ssh-ed25519"), &[]));
    let late = world.dir().join("late");
    std::fs::write(&late, format!("{address} {}\n", public(&old))).unwrap();
    let said = ssh(&world, &late, &["HostKeyAlgorithms=ssh-ed25519"]);
    assert_eq!(said.code, 255);
    assert!(said.err.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"), "{}", said.err);
}

/// It asks once for each kind, prefers chacha20-poly1305, and has no strict key exchange.
#[test]
fn ssh_keyscan_sees_a_key_of_each_kind_and_the_certificate() {
    let mut world = World::start();
    let rsa = host_key(&world, "rsa", &["rsa", "-b", "3072"]);
    let ecdsa = host_key(&world, "ecdsa", &["ecdsa", "-b", "521"]);
    world.custodyd.stop();
    world.custodyd.configure_ssh(&format!("host_keys = [{:?}, {:?}]", path(&rsa), path(&ecdsa)));
    world.custodyd.start();
    let scan = |options: &[&str]| {
        let mut scan = Command::new("ssh-keyscan");
        scan.args(options).args(["-p", &world.custodyd.ssh_port.to_string(), "127.0.0.1"]);
        run(&mut scan, b"", DEADLINE).ok().text()
    };
    let plain = scan(&[]);
    assert_eq!(plain.lines().count(), 3, "{plain}");
    assert!(plain.contains(&public(&rsa)) && plain.contains(&public(&ecdsa)), "{plain}");
    assert!(plain.contains(" ssh-ed25519 "), "{plain}");
    let certified = scan(&["-c", "-t", "ed25519"]);
    assert!(certified.contains("ssh-ed25519-cert-v01@openssh.com "), "{certified}");
}

/// A target that speaks of its own keys speaks to the proxy, not to the client.
#[test]
fn a_targets_host_keys_never_reach_the_client() {
    let world = World::start();
    let known = world.dir().join("known");
    let mut scan = Command::new("ssh-keyscan");
    scan.args(["-t", "ed25519", "-p", &world.custodyd.ssh_port.to_string(), "127.0.0.1"]);
    std::fs::write(&known, run(&mut scan, b"", DEADLINE).ok().text()).unwrap();
    let before = std::fs::read_to_string(&known).unwrap();
    let said = ssh(&world, &known, &["HostKeyAlgorithms=ssh-ed25519"]);
    inside(&said);
    assert_eq!(std::fs::read_to_string(&known).unwrap(), before, "{}", said.err);
    let target = public(&world.web.dir.join("host"));
    assert!(!before.contains(&target));
}

#[test]
fn a_host_key_that_others_can_read_or_that_is_none_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::start();
    let key = host_key(&world, "open", &["ed25519"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    world.custodyd.stop();
    world.custodyd.configure_ssh(&format!("host_keys = [{:?}]", path(&key)));
    world.custodyd.spawn(&mut Command::new(custody_tests::program("custodyd")));
    let ended = custody_tests::wait::until("custodyd refuses to start", DEADLINE, || world.custodyd.ended());
    assert!(!ended.success());
    assert!(
        world.custodyd.output().contains("may be read or written by others"),
        "{}",
        world.custodyd.output()
    );
}
