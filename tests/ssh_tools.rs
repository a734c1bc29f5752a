//! Tools that people run over ssh, as they run it: once through the proxy and once straight to the same sshd.

use custody_tests::process::run;
use custody_tests::servers::World;
use custody_tests::servers::python;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

/// Python starts 20 times on each side.
const DEADLINE: Duration = Duration::from_secs(180);

/// Ansible with 20 forks, pipelining and ControlPersist: each of 20 hosts has a connection of its own.
#[test]
fn ansible_works_with_twenty_forks() {
    let world = World::start();
    let play = |name: &str, options: String, host: &str, port: u16| {
        let (mut inventory, folder) = (String::new(), world.dir().join(name));
        for n in 0..20 {
            let control = folder.join(format!("{n}.sock"));
            let place = format!("ansible_host={host} ansible_port={port} ansible_user=root");
            writeln!(inventory, "host-{n:02} {place} ansible_control_path={}", control.display()).unwrap();
        }
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("hosts"), inventory).unwrap();
        let mut ansible = Command::new(python::program("ansible"));
        ansible.args(["all", "-i", "hosts", "-f", "20", "-o", "-m", "ansible.builtin.shell"]);
        ansible.args(["-a", "cat; echo {{ inventory_hostname }} stdin=given"]).current_dir(&folder);
        ansible.env("ANSIBLE_PIPELINING", "1").env("ANSIBLE_NOCOLOR", "1").env("HOME", &folder);
        ansible.env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3").env("ANSIBLE_HOST_KEY_CHECKING", "0");
        ansible.env("ANSIBLE_SSH_ARGS", format!("{options} -o ControlMaster=auto -o ControlPersist=10s"));
        ansible.env_remove("SSH_AUTH_SOCK");
        let mut lines: Vec<String> =
            run(&mut ansible, b"", DEADLINE).ok().text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let config = world.operator.dir.join("ssh_config");
    // 22 is no port of the proxy's: `custody connect` doesn't look at it.
    let proxied = play("proxied", format!("-F {}", config.display()), "web-1.custody", 22);
    let direct = world.web.direct();
    let options: Vec<_> = direct.get_args().map(|argument| argument.to_str().unwrap().to_owned()).collect();
    let direct = play("direct", options.join(" "), "127.0.0.1", world.web.port);
    assert_eq!(proxied.len(), 20, "{proxied:?}");
    assert_eq!(proxied, direct);
    assert!(
        proxied.iter().all(|line| line.contains("rc=0") && line.contains("(stdout) given")),
        "{proxied:?}"
    );
    assert!(world.entries("type=session.requested").len() >= 20);
}

/// mosh would go on by UDP between the client and the target: it is told why not.
#[test]
fn mosh_is_told_why_not() {
    let world = World::start();
    let ssh = format!("ssh -F {} -o BatchMode=yes", world.operator.dir.join("ssh_config").display());
    let mut mosh = Command::new("mosh");
    mosh.arg(format!("--ssh={ssh}")).args(["--experimental-remote-ip=remote", "root@web-1.custody"]);
    mosh.env("LC_ALL", "C.UTF-8").env("TERM", "xterm").env_remove("SSH_AUTH_SOCK");
    let said = run(&mut mosh, b"", DEADLINE);
    assert_ne!(said.code, 0);
    let told = format!("{}{}", said.text(), said.err);
    assert!(told.contains("custody: mosh would go on by UDP past the proxy"), "{told}");
    assert!(world.entries("type=command.requested").is_empty(), "the target didn't hear of it");
    // Who only speaks of it is not meant.
    assert_eq!(world.ssh(&[], "echo 'mosh-server new'", b"").ok().text(), "mosh-server new\n");
}
