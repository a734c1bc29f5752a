//! The kernels that the node agent is made for, in virtual machines: first that they are what its tests take them for.

use custody_tests::servers::vm::{Kernel, Machine, Vm};
use custody_tests::wait;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What each machine must have for the node agent, whatever else is asked for.
fn assert_is_a_node(vm: &mut Vm, kernel: Kernel) {
    let release = vm.run("uname -r").ok().text();
    assert!(release.starts_with(&format!("{}.", kernel.series())), "{release}");
    let mounts = vm.run("cat /proc/mounts").ok().text();
    for mount in [
        "cgroup2 /sys/fs/cgroup cgroup2 ",
        "bpf /sys/fs/bpf bpf ",
        "tracefs /sys/kernel/tracing tracefs ",
        "securityfs /sys/kernel/security securityfs ",
        "tmpfs /tmp tmpfs ",
    ] {
        assert!(mounts.lines().any(|line| line.starts_with(mount)), "{mount:?} isn't in\n{mounts}");
    }
    // The types of the kernel, and of the modules that were loaded.
    vm.run(
        "head -c 2 /sys/kernel/btf/vmlinux | od -An -tx2 | grep -q eb9f && test -s /sys/kernel/btf/tcp_diag",
    )
    .ok();
    vm.run("ping -c 1 -w 10 127.0.0.1 && ping -c 1 -w 10 ::1").ok();
}

/// The list of security modules is that of the command line: without bpf in it LSM programs attach and never run.
fn assert_lsm(vm: &mut Vm, wanted: &[&str], unwanted: &[&str]) {
    let said = vm.run("cat /sys/kernel/security/lsm").ok().text();
    let list: Vec<&str> = said.trim().split(',').collect();
    assert!(wanted.iter().all(|name| list.contains(name)), "{wanted:?} of {said}");
    assert!(!unwanted.iter().any(|name| list.contains(name)), "not {unwanted:?} of {said}");
}

#[test]
fn debians_kernels_boot_as_nodes_with_and_without_lsm_programs() {
    for kernel in Kernel::ALL {
        let mut vm = Vm::boot(kernel, &Machine::default());
        eprintln!("{kernel:?} took commands after {:?}", vm.booted_in);
        assert_is_a_node(&mut vm, kernel);
        assert_lsm(&mut vm, &["lockdown", "capability", "yama", "bpf"], &[]);
        let machine = Machine { command_line: "lsm=lockdown,yama".into(), ..Machine::default() };
        let mut vm = Vm::boot(kernel, &machine);
        assert_is_a_node(&mut vm, kernel);
        assert_lsm(&mut vm, &["lockdown", "capability", "yama"], &["bpf", "apparmor"]);
    }
}

#[test]
fn a_virtual_machine_runs_commands_and_ends_with_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    // As large as a program of ours with what it carries along.
    std::fs::write(&large, vec![0x5a; 200 << 20]).unwrap();
    let program = std::fs::read_link("/proc/self/exe").unwrap();
    let files = vec![("/opt/large".into(), large), ("/bin/of-ours".into(), program)];
    let mut vm = Vm::boot(Kernel::V6_12, &Machine { files, ..Machine::default() });
    eprintln!("with 200 MiB it took commands after {:?}", vm.booted_in);

    let said = vm.run(r"printf 'a\0\377\r\n\003b'; echo problem >&2; exit 3");
    assert_eq!(
        (said.code, said.out.as_slice(), said.err.as_str()),
        (3, b"a\0\xff\r\n\x03b".as_slice(), "problem\n")
    );
    assert_eq!(vm.run("head -c 100000 /dev/zero").ok().out, vec![0; 100_000]);
    assert_eq!(vm.run("tr -d Z </opt/large | wc -c; stat -c %s /opt/large").ok().text(), "0\n209715200\n");
    assert!(vm.run("of-ours --list").ok().text().contains("a_virtual_machine_runs_commands"));
    // Nothing of an earlier command gets into the output of a later one.
    let noise = vm.run("while :; do echo noise; done & echo $!").ok().text();
    let pid = noise.lines().find(|line| line.parse::<u32>().is_ok()).expect("the noise's process");
    assert_eq!(vm.run(&format!("kill {pid} && echo quiet")).ok().text(), "quiet\n");
    let late = vm.run_within("echo begun; sleep 1000", Duration::from_secs(2));
    assert_eq!((late.code, late.text().as_str()), (137, "begun\n"));

    // A real sshd, stock users, and Python.
    vm.run("/usr/sbin/sshd").ok();
    assert_eq!(vm.run("ssh root@localhost 'id -un; exit 5'").text(), "root\n");
    assert_eq!(vm.run("ssh alice@::1 'id -un'").ok().text(), "alice\n");
    assert_eq!(vm.run("su alice -c 'id -un'").ok().text(), "alice\n");
    assert_eq!(
        vm.run("python3 -c 'import ctypes, socket, ssl, threading; print(6 * 7)'").ok().text(),
        "42\n"
    );

    let pid = vm.pid();
    drop(vm);
    assert!(!Path::new("/proc").join(pid.to_string()).exists(), "QEMU is still there");
}

/// Whoever starts a machine may be killed: it goes too.
#[test]
fn a_virtual_machine_does_not_outlive_a_killed_test() {
    const CHILD: &str = "CUSTODY_TEST_VM_CHILD";
    if std::env::var(CHILD).is_ok() {
        let vm = Vm::boot(Kernel::V6_1, &Machine::default());
        println!("qemu is {}", vm.pid());
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "node_vm::a_virtual_machine_does_not_outlive_a_killed_test";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(CHILD, "1").env("TMPDIR", folder.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // It says so when it has booted, or ends.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let qemu = lines.find_map(|line| line.split_once("qemu is ").map(|(_, pid)| pid.to_owned()));
    child.kill().unwrap();
    child.wait().unwrap();
    let process = Path::new("/proc").join(qemu.expect("it boots"));
    wait::until_true("QEMU is gone", wait::DEADLINE, || !process.exists());
}
