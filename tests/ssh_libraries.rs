//! SSH libraries that people's programs have inside, as clients of the proxy: each runs commands and moves a file.

use custody_tests::process::{Said, run};
use custody_tests::servers::files::{
    FILES, events, every_request_has_one_end, of_type, sha256, went_both_ways,
};
use custody_tests::servers::sshd::path;
use custody_tests::servers::world::OPERATOR_PASSWORD;
use custody_tests::servers::{World, node, setup};
use custody_tests::wait::DEADLINE;
use custody_tests::{process, root};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Standard error and status, 2 MB both ways, eight channels, a terminal; a file of 8 MB both ways, a missing one's status,
/// a listing.
const SAID: &str = "exec out err 42\nbytes 2000000\nchannels 8\nterminal 33 111\nfiles true 2 true\n";

/// A world where files may be moved, with further lines of configuration for the proxy.
fn world(ssh: &str) -> World {
    let mut world = World::start();
    if !ssh.is_empty() {
        world.custodyd.stop();
        world.custodyd.configure_ssh(ssh);
        world.custodyd.start();
    }
    world.policy("files", FILES);
    let make = format!("head -c 8M /dev/urandom >{}", world.dir().join("file").display());
    run(Command::new("bash").args(["-c", &make]), b"", DEADLINE).ok();
    world
}

/// Runs a client with port, home and folder, and holds what it said and what the log says against what it did.
fn works(world: &World, client: &mut Command, arguments: &[&str], input: &[u8]) {
    client.args([&world.custodyd.ssh_port.to_string()]).args(arguments).env_remove("SSH_AUTH_SOCK");
    let said = run(client.env("HOME", world.dir()), input, Duration::from_secs(120)).ok();
    assert_eq!(said.text(), SAID, "{}", said.err);
    let entries = events(world, 0);
    every_request_has_one_end(&entries);
    assert!(of_type(&entries, "file.unparsed").is_empty());
    went_both_ways(&entries, &sha256(&world.dir().join("file")));
    let commands = world.entries("type=command.completed");
    assert!(commands.iter().any(|entry| entry.event["data"]["exit_status"] == 42));
    let ended = world.entries("type=session.ended");
    assert_eq!(ended.len(), 1, "all of it is one session");
    assert_eq!(ended[0].event["outcome"], "success", "{}", ended[0].event);
}

fn stranger(name: &str) -> PathBuf {
    root().join("tests/strangers").join(name)
}

#[test]
fn npms_ssh2_works_by_keyboard_interactive() {
    let world = world("keyboard_interactive = true");
    // In any order, as its threads read it: as much as may wait for what comes before it.
    std::fs::File::options().write(true).open(world.dir().join("file")).unwrap().set_len(2 << 20).unwrap();
    let arguments = [path(world.dir()), "bob"];
    works(&world, &mut node::script("ssh2_client.js"), &arguments, OPERATOR_PASSWORD.as_bytes());
}

/// A class of `tests/strangers`, which the launcher of Java compiles.
fn java(world: &World, class: &str) {
    let home = setup::folder("java/install.sh", &["--print", "ssh"]);
    let mut java = Command::new(home.join("jdk/bin/java"));
    java.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(home.join("lib/*"));
    java.arg(stranger(&format!("{class}.java")));
    works(world, &mut java, &[path(&world.operator.dir), path(world.dir())], b"");
}

#[test]
fn sshj_works_through_the_proxy() {
    java(&world(""), "Sshj");
}

#[test]
fn jsch_works_through_the_proxy() {
    java(&world(""), "Jsch");
}

/// As Debian packages it, it has no Curve25519.
#[test]
fn net_ssh_works_through_the_proxy() {
    let world = world("nist_curves = true");
    let mut ruby = Command::new("ruby");
    ruby.arg(stranger("net_ssh_client.rb"));
    works(&world, &mut ruby, &[path(&world.operator.dir), path(world.dir())], b"");
}

#[test]
fn libssh_works_through_the_proxy() {
    let world = world("");
    let program = world.dir().join("libssh_client");
    let mut compile = Command::new("cc");
    compile.arg("-o").arg(&program).arg(stranger("libssh_client.c")).arg("-lssh");
    run(&mut compile, b"", DEADLINE).ok();
    works(&world, &mut Command::new(program), &[path(&world.operator.dir), path(world.dir())], b"");
}

/// rclone, by Go's pkg/sftp: it writes in many parts at once, and more bytes with each than it says are the file's.
#[test]
fn rclone_copies_there_and_back() {
    let world = world("");
    let (dir, home) = (world.dir(), &world.operator.dir);
    let config = dir.join("rclone.conf");
    let remote = format!(
        "[custody]\ntype = sftp\nhost = 127.0.0.1\nport = {}\nuser = root+web-1\nkey_file = {}\npubkey_file = {}\n\
         shell_type = none\ndisable_hashcheck = true\nmd5sum_command = none\nsha1sum_command = none\n",
        world.custodyd.ssh_port,
        home.join("id").display(),
        home.join("id-cert.pub").display(),
    );
    std::fs::write(&config, remote).unwrap();
    // Its last part is shorter than its buffer.
    let odd = std::fs::File::options().append(true).open(dir.join("file")).unwrap();
    odd.set_len((8 << 20) + 12_345).unwrap();
    let rclone = |arguments: &[&str]| -> Said {
        let mut rclone = Command::new("rclone");
        rclone.arg("--config").arg(&config).args(["--retries", "1"]).args(arguments);
        run(rclone.env("HOME", dir).env_remove("SSH_AUTH_SOCK"), b"", DEADLINE)
    };
    let (file, there, back) = (dir.join("file"), dir.join("there"), dir.join("back"));
    let remote = |path: &Path| format!("custody:{}", path.display());
    rclone(&["copyto", path(&file), &remote(&there)]).ok();
    rclone(&["copyto", &remote(&there), path(&back)]).ok();
    let hash = sha256(&file);
    assert_eq!((sha256(&there), sha256(&back)), (hash.clone(), hash.clone()));
    let asked = world.entries("type=session.started").len();
    world.event("type=session.ended", "all sessions have ended", |_| {
        world.entries("type=session.ended").len() == asked
    });
    let entries = world.entries("type=file");
    every_request_has_one_end(&entries);
    assert!(of_type(&entries, "file.unparsed").is_empty());
    assert!(of_type(&entries, "file.failed").is_empty(), "{:?}", of_type(&entries, "file.failed"));
    went_both_ways(&entries, &hash);
}

/// dropbear and tinyssh know no certificates of users: nobody gets in, and it is said why.
#[test]
fn targets_that_know_no_certificates_are_told_apart() {
    let world = World::start();
    let dir = world.dir();
    let key = dir.join("dropbear");
    let mut generate = Command::new("dropbearkey");
    run(generate.args(["-t", "ed25519", "-f"]).arg(&key), b"", DEADLINE).ok();
    let public = run(Command::new("dropbearkey").arg("-y").arg("-f").arg(&key), b"", DEADLINE).ok().text();
    let public = public.lines().find(|line| line.starts_with("ssh-ed25519")).expect("a public key");
    std::fs::write(dir.join("dropbear.pub"), public).unwrap();
    let port = process::free_port();
    let mut dropbear = Command::new("dropbear");
    dropbear.args(["-F", "-E", "-P", ""]).arg("-r").arg(&key).args(["-p", &format!("127.0.0.1:{port}")]);
    let mut dropbear = process::Running::start("dropbear", &mut dropbear);
    dropbear.wait_for_listener(port);
    let refused = |name: &str, port: u16| {
        let public = dir.join(format!("{name}.pub"));
        let address = format!("127.0.0.1:{port}");
        world.admin.custody(&["node", "add", name, &address, "--host-key", path(&public)]);
        let said = run(world.proxied().args([&format!("root@{name}.custody"), "true"]), b"", DEADLINE);
        assert_eq!(said.code, 255);
        said.err
    };
    let said = refused("dropbear", port);
    assert!(said.contains("knows no certificates, as dropbear and tinyssh"), "{said}");

    let keys = dir.join("tinyssh-keys");
    run(Command::new("tinysshd-makekey").arg(&keys), b"", DEADLINE).ok();
    let public = run(Command::new("tinysshd-printkey").arg(&keys), b"", DEADLINE).ok().text();
    std::fs::write(dir.join("tinyssh.pub"), public).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let socket = std::os::fd::OwnedFd::from(socket);
        let mut tinyssh = Command::new("tinysshd");
        tinyssh.arg("-q").arg(keys).stdin(socket.try_clone().unwrap()).stdout(socket);
        tinyssh.status().unwrap()
    });
    let said = refused("tinyssh", port);
    // The one of Debian 12 has chacha20-poly1305 only, without strict key exchange.
    let known = ["CVE-2023-48795", "knows no certificates, as dropbear and tinyssh"];
    assert!(known.iter().any(|reason| said.contains(reason)), "{said}");
    drop(serving.join());
}
