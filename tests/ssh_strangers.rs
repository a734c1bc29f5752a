//! SSH programs that aren't OpenSSH: as clients of the proxy, as a target behind it, as its auditor.

use custody_tests::process::run;
use custody_tests::servers::World;
use custody_tests::servers::python;
use custody_tests::wait::DEADLINE;
use std::process::Command;
use std::time::Duration;

fn by_script(world: &World, script: &str) -> String {
    let (port, home) = (world.custodyd.ssh_port.to_string(), world.operator.dir.to_str().unwrap().to_owned());
    python::run(script, &[&port, &home])
}

/// Exec, exit status, standard error, 2 MB both ways, eight channels at once, a terminal with a resize.
const EXPECTED: &str = "exec out err 42\nbytes 2000000\nchannels 8\nterminal 33 111\nsftp refused\n";

#[test]
fn paramiko_works_through_the_proxy() {
    assert_eq!(by_script(&World::start(), "paramiko_client.py"), EXPECTED);
}

/// Beside a stream, and the stream comes whole.
#[test]
fn paramiko_renews_keys_within_a_session() {
    assert_eq!(by_script(&World::start(), "paramiko_rekey.py"), "exchanges 4\n");
}

#[test]
fn asyncssh_works_through_the_proxy() {
    assert_eq!(by_script(&World::start(), "asyncssh_client.py"), EXPECTED);
}

#[test]
fn ssh_audit_finds_nothing_to_fail() {
    let world = World::start();
    let mut audit = Command::new(python::environment().join("bin/ssh-audit"));
    audit.args(["--json", "--skip-rate-test", "-p", &world.custodyd.ssh_port.to_string(), "127.0.0.1"]);
    let said = run(&mut audit, b"", Duration::from_secs(60));
    let report: serde_json::Value =
        serde_json::from_str(&said.text()).unwrap_or_else(|e| panic!("{e}: {}{}", said.text(), said.err));
    let mut failures = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        let algorithms = report[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {report}"));
        assert!(!algorithms.is_empty());
        for algorithm in algorithms {
            // Of MACs there are some that nobody has anything to say against.
            let complaints: &[&str] = if kind == "mac" { &["fail", "warn"] } else { &["fail"] };
            for said in complaints.iter().filter_map(|complaint| algorithm["notes"].get(complaint)) {
                failures.push(format!("{kind} {}: {said}", algorithm["algorithm"]));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
    let cves = report["cves"].as_array().map_or(0, Vec::len);
    assert_eq!(cves, 0, "{}", report["cves"]);
    assert!(report["kex"].to_string().contains("mlkem768x25519-sha256"));
    assert!(report["kex"].to_string().contains("kex-strict-s"), "no strict key exchange");
}

/// libssh2, which is what curl, PHP and many tools for Windows have inside.
#[test]
fn libssh2_works_through_the_proxy() {
    assert_eq!(by_script(&World::start(), "libssh2_client.py"), "by libssh2 42\n");
}

/// PuTTY's command line: with a certificate beside a key in its own format.
#[test]
fn plink_works_through_the_proxy() {
    let world = World::start();
    let home = &world.operator.dir;
    let key = world.dir().join("id.ppk");
    let mut convert = Command::new("puttygen");
    convert.arg(home.join("id")).args(["-O", "private", "-o"]).arg(&key);
    run(&mut convert, b"", DEADLINE).ok();
    let mut keygen = Command::new("ssh-keyscan");
    keygen.args(["-t", "ed25519", "-p", &world.custodyd.ssh_port.to_string(), "127.0.0.1"]);
    let scanned = run(&mut keygen, b"", DEADLINE).ok().text();
    let host_key =
        scanned.split_whitespace().nth(2).unwrap_or_else(|| panic!("no key: {scanned}")).to_owned();
    let mut plink = Command::new("plink");
    plink.args(["-ssh", "-batch", "-no-antispoof", "-hostkey", &host_key, "-l", "root+web-1"]);
    plink.args(["-P", &world.custodyd.ssh_port.to_string(), "-i"]).arg(&key);
    plink.arg("-cert").arg(home.join("id-cert.pub")).args(["127.0.0.1", "cat; exit 42"]);
    plink.env("HOME", world.dir());
    let said = run(&mut plink, b"by plink", DEADLINE);
    assert_eq!((said.code, said.text().as_str()), (42, "by plink"), "{}", said.err);
}

/// dropbear's client agrees on algorithms and a host key, but has no certificates: it gives up when its key is refused.
#[test]
fn dbclient_is_turned_away_as_it_has_no_certificates() {
    let world = World::start();
    let key = world.dir().join("dropbear");
    let mut convert = Command::new("dropbearkey");
    convert.args(["-t", "ed25519", "-f"]).arg(&key);
    run(&mut convert, b"", DEADLINE).ok();
    let mut dbclient = Command::new("dbclient");
    dbclient
        .args(["-y", "-T", "-p", &world.custodyd.ssh_port.to_string(), "-l", "root+web-1", "-i"])
        .arg(&key);
    dbclient.args(["127.0.0.1", "true"]).env("HOME", world.dir());
    let said = run(&mut dbclient, b"", DEADLINE);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("ssh-ed25519 fingerprint"), "{}", said.err);
    assert!(said.err.contains("No auth methods could be used"), "{}", said.err);
}

/// Each cipher, key exchange and kind of user key that the proxy says it has, by the stock client.
#[test]
fn openssh_works_with_each_algorithm_on_offer() {
    let world = World::start();
    for cipher in ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        let said = world.ssh(&["-c", cipher], "head -c 300000 /dev/zero | sha256sum", b"").ok();
        assert!(said.text().starts_with("886715e405"), "{cipher}: {}", said.text());
    }
    let said = world.ssh(&["-o", "KexAlgorithms=curve25519-sha256"], "echo kex", b"").ok();
    assert_eq!(said.text(), "kex\n");
    let weak = world.ssh(&["-o", "KexAlgorithms=diffie-hellman-group14-sha1"], "echo kex", b"");
    assert_eq!(weak.code, 255);
}

/// An SSH target that isn't OpenSSH, and a client that isn't either: asyncssh on both sides of the proxy.
#[test]
fn a_target_that_isn_t_openssh_is_reached() {
    let world = World::start();
    let dir = world.dir().join("stranger");
    std::fs::create_dir(&dir).unwrap();
    let key = dir.join("host");
    custody_tests::servers::sshd::keygen(&["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    let port = custody_tests::process::free_port();
    let address = format!("127.0.0.1:{port}");
    let public = dir.join("host.pub");
    world.admin.custody(&["node", "add", "strange-1", &address, "--host-key", public.to_str().unwrap()]);
    world.admin.custody(&[
        "node",
        "enroll",
        "strange-1",
        "--host-key-pub",
        public.to_str().unwrap(),
        "--out",
        dir.to_str().unwrap(),
    ]);
    let ca = dir.join("custody_target_ca.pub");
    let mut command = python::script(
        "asyncssh_target.py",
        &[&port.to_string(), key.to_str().unwrap(), ca.to_str().unwrap()],
    );
    let mut target = custody_tests::process::Running::start("asyncssh target", &mut command);
    target.wait_for_listener(port);
    let said = run(world.proxied().args(["root@strange-1.custody", "say this"]), b"", DEADLINE);
    assert_eq!((said.code, said.text().as_str()), (3, "you said: say this\n"), "{}", said.err);
}
