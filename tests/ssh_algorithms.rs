//! Each key exchange, cipher and MAC that the proxy shares with implementations of others, towards clients and towards
//! targets, while keys are renewed (but for paramiko, which can't while channels close).

use custody_tests::process::{Running, free_port, run};
use custody_tests::servers::sshd::{keygen, path};
use custody_tests::servers::{World, golang, python};
use custody_tests::wait::DEADLINE;
use std::path::Path;
use std::time::Duration;

const METHODS: [&str; 6] = [
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
];
/// What Debian's OpenSSH has of them, and what no other library here has.
const METHODS_OF_OPENSSH: [&str; 7] = [
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
];
const SHA256: &str = "hmac-sha2-256-etm@openssh.com";
const SHA512: &str = "hmac-sha2-512-etm@openssh.com";
/// Ciphers, with the MAC where it counts.
const PROTECTIONS: [(&str, &str); 9] = [
    ("aes256-gcm@openssh.com", SHA256),
    ("aes128-gcm@openssh.com", SHA256),
    ("chacha20-poly1305@openssh.com", SHA256),
    ("aes256-ctr", SHA256),
    ("aes256-ctr", SHA512),
    ("aes128-ctr", SHA256),
    ("aes128-ctr", SHA512),
    ("aes256-ctr", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-512"),
];

/// A world whose proxy offers NIST's curves and plain MACs, too.
fn world() -> World {
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure_ssh("nist_curves = true\nplain_macs = true");
    world.custodyd.start();
    world
}

fn by_script(world: &World, script: &str) -> String {
    python::run(script, &[&world.custodyd.ssh_port.to_string(), path(&world.operator.dir)])
}

#[test]
fn asyncssh_with_each_algorithm() {
    assert_eq!(by_script(&world(), "asyncssh_matrix.py"), "combinations 42\n");
}

#[test]
fn paramiko_with_each_algorithm() {
    let said = by_script(&world(), "paramiko_matrix.py");
    let numbers: Vec<u32> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // It has at least Curve25519 and the three of NIST's, and both key lengths of both modes.
    assert!(numbers.len() == 2 && numbers[0] >= 4 && numbers[1] == 4, "{said}");
}

#[test]
fn go_with_each_algorithm() {
    let world = world();
    let mut client = golang::ssh_client();
    client.arg(world.custodyd.ssh_port.to_string()).arg(&world.operator.dir);
    assert_eq!(run(&mut client, b"", Duration::from_secs(120)).ok().text(), "combinations 42\n");
}

/// Debian's ssh. The sum is of 3 MB that went there and back.
#[test]
fn openssh_with_each_algorithm() {
    let world = world();
    let input = vec![b'o'; 3_000_000];
    for (row, (cipher, mac)) in PROTECTIONS.into_iter().enumerate() {
        for column in 0..2 {
            let method = METHODS_OF_OPENSSH[(row + 3 * column) % METHODS_OF_OPENSSH.len()];
            let options = [
                format!("Ciphers={cipher}"),
                format!("MACs={mac}"),
                format!("KexAlgorithms={method}"),
                "RekeyLimit=1M".into(),
            ];
            let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
            let said = world.ssh(&options, "cat", &input).ok();
            assert!(said.out == input, "{method} {cipher} {mac}: {} bytes came back", said.out.len());
        }
    }
}

#[test]
fn without_being_asked_for_nists_curves_are_not_offered() {
    let world = World::start();
    for method in &METHODS[3..] {
        let said = world.ssh(&["-v", "-o", &format!("KexAlgorithms={method}")], "true", b"");
        assert_eq!(said.code, 255);
        assert!(said.err.contains("no matching key exchange"), "{}", said.err);
    }
}

/// A target of another make, with one algorithm of each kind; keys of both kinds of host.
#[test]
fn targets_with_each_algorithm() {
    let world = World::start();
    let dir = world.dir().join("targets");
    std::fs::create_dir(&dir).unwrap();
    let input = vec![b't'; 3_000_000];
    let kinds = [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "3072")];
    for (n, (cipher, mac)) in PROTECTIONS.into_iter().enumerate() {
        let (method, (kind, bits)) = (METHODS[n % METHODS.len()], kinds[n % kinds.len()]);
        let name = format!("target-{n}");
        let key = dir.join(&name);
        keygen(&["-q", "-t", kind, "-b", bits, "-N", "", "-f", path(&key)]);
        let _target = target(&world, &name, &key, [method, cipher, mac]);
        let said = run(world.proxied().arg(format!("root@{name}.custody")).arg("cat"), &input, DEADLINE).ok();
        assert!(said.out == input, "{method} {cipher} {mac} {kind}: {} bytes came back", said.out.len());
    }
}

fn target(world: &World, name: &str, key: &Path, only: [&str; 3]) -> Running {
    let port = free_port();
    let (address, public) = (format!("127.0.0.1:{port}"), key.with_extension("pub"));
    world.admin.custody(&["node", "add", name, &address, "--host-key", path(&public)]);
    let out = key.with_extension("enrolled");
    std::fs::create_dir(&out).unwrap();
    world.admin.custody(&["node", "enroll", name, "--host-key-pub", path(&public), "--out", path(&out)]);
    let (port_text, ca) = (port.to_string(), out.join("custody_target_ca.pub"));
    let mut arguments = vec![port_text.as_str(), path(key), path(&ca)];
    arguments.extend(only);
    let mut target = Running::start("asyncssh target", &mut python::script("asyncssh_target.py", &arguments));
    target.wait_for_listener(port);
    target
}
