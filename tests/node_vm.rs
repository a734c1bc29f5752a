//! The kernels that the node agent is made for, in virtual machines: first that they are what its tests take them for.

use crate::node_coverage::{self, Tier, Which};
use custody_tests::process::run;
use custody_tests::servers::vm::{Kernel, Machine, Vm};
use custody_tests::{program, root, wait};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
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
        // What the sensor makes of the other list, its own test says: here it is the list that is looked at.
        if kernel == Kernel::V6_12 && !at_length() {
            continue;
        }
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
    // As large as a program of ours with what it carries along; in the short form a tenth of it.
    let bytes = if at_length() { 200 << 20 } else { 20 << 20 };
    std::fs::write(&large, vec![0x5a; bytes]).unwrap();
    let program = std::fs::read_link("/proc/self/exe").unwrap();
    let files = vec![("/opt/large".into(), large), ("/bin/of-ours".into(), program)];
    let mut vm = Vm::boot(Kernel::V6_12, &Machine { files, ..Machine::default() });
    eprintln!("with {bytes} bytes it took commands after {:?}", vm.booted_in);

    let said = vm.run(r"printf 'a\0\377\r\n\003b'; echo problem >&2; exit 3");
    assert_eq!(
        (said.code, said.out.as_slice(), said.err.as_str()),
        (3, b"a\0\xff\r\n\x03b".as_slice(), "problem\n")
    );
    assert_eq!(vm.run("head -c 100000 /dev/zero").ok().out, vec![0; 100_000]);
    assert_eq!(
        vm.run("tr -d Z </opt/large | wc -c; stat -c %s /opt/large").ok().text(),
        format!("0\n{bytes}\n")
    );
    assert!(vm.run("of-ours --list").ok().text().contains("a_virtual_machine_runs_commands"));
    // Nothing of an earlier command gets into the output of a later one.
    let noise = vm.run("while :; do echo noise; done & echo $!").ok().text();
    let pid = noise.lines().find(|line| line.parse::<u32>().is_ok()).expect("the noise's process");
    assert_eq!(vm.run(&format!("kill {pid} && echo quiet")).ok().text(), "quiet\n");
    let late = vm.run_within("echo begun; sleep 1000", Duration::from_secs(20));
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

/// The newest of the test programs of this name that were built beside this one.
fn test_program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().unwrap();
    let is_it = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let hash = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default();
        !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let built = std::fs::read_dir(beside.parent().unwrap()).unwrap().flatten().map(|item| item.path());
    let newest =
        built.filter(is_it).max_by_key(|path| path.metadata().and_then(|about| about.modified()).ok());
    newest.unwrap_or_else(|| panic!("the test program {name} isn't built: run `make build` first"))
}

/// A machine with the sensor's own tests in it, as `sensor-tests`.
fn with_sensor_tests(kernel: Kernel, command_line: &str) -> Vm {
    let files = vec![("/usr/bin/sensor-tests".into(), test_program("kernel"))];
    Vm::boot(kernel, &Machine { command_line: command_line.into(), files })
}

/// A flood of programs is as fast as the machine: emulated it is none, and nothing overflows.
const FLOOD: &str = "process::a_flood_is_told_or_counted_to_the_last";

/// Whether machines are to be tried at length: an emulated one is slow.
fn at_length() -> bool {
    std::env::var_os("CUSTODY_VM_ALL").is_some()
}

/// One test of each thing that the sensor does: an emulated machine takes ten minutes for all of them, which `make soak`
/// (`CUSTODY_VM_ALL=1`) has.
const OF_EACH_KIND: [&str; 28] = [
    "session::what_the_kernel_supports_is_told_without_leaving_anything",
    "session::what_a_session_runs_is_told_and_what_others_run_is_not",
    "sshd::sshd_sessions_are_told_apart_and_the_daemon_is_nobodys",
    "process::an_execution_says_who_what_where_and_how_it_ended",
    "process::memory_files_and_deleted_files_are_marked",
    "network::a_connection_is_opened_and_closed_with_its_bytes",
    "network::every_way_to_a_denied_network_is_refused",
    "datagram::what_datagrams_bring_and_take_is_counted_by_peer",
    "datagram::what_name_servers_answer_is_told_of_sockets_that_asked_them",
    "datagram::what_name_servers_answer_by_tcp_is_told_wherever_its_packets_end",
    "file::every_way_to_a_watched_file_is_seen",
    "file::what_is_made_given_away_and_cut_is_told",
    "file::what_was_counted_is_told_when_another_thread_runs_a_new_program",
    "file::whoever_reads_many_files_keeps_nobody_from_running_programs",
    "file::a_part_of_what_is_watched_is_watched_whatever_it_is_reached_by",
    "file::no_session_gets_at_the_agents_own_files",
    "file::what_the_kernel_is_told_to_do_is_watched_wherever_it_lies",
    "file::what_is_made_under_a_watched_path_is_watched_and_what_it_was_before_too",
    "network::a_socket_whose_packets_are_not_followed_is_told_when_it_is_made",
    "call::a_module_that_is_loaded_is_told",
    "call::what_gets_at_the_kernel_itself_is_told",
    "programs::a_denied_program_runs_by_none_of_its_names",
    "programs::a_denied_file_cannot_be_touched_by_any_way",
    "programs::a_denied_program_is_not_mapped_and_a_denied_socket_not_connected_to",
    "closed::a_closed_agent_lets_no_program_start_and_no_connection_open",
    "server::a_session_is_seen_whichever_part_of_its_server_reads_first",
    "socket::of_a_socket_with_which_nothing_can_be_kept_nothing_comes_about",
    "socket::of_a_session_without_a_policy_nothing_leaves_and_nobody_calls_it",
];

/// Where all of Custody runs in the machine too (`assert_coverage`): what that doesn't try.
const OF_KINDS_LEFT: [&str; 12] = [
    "process::memory_files_and_deleted_files_are_marked",
    "file::what_is_made_given_away_and_cut_is_told",
    "file::a_part_of_what_is_watched_is_watched_whatever_it_is_reached_by",
    "file::no_session_gets_at_the_agents_own_files",
    "file::what_the_kernel_is_told_to_do_is_watched_wherever_it_lies",
    "file::what_is_made_under_a_watched_path_is_watched_and_what_it_was_before_too",
    "programs::a_denied_program_runs_by_none_of_its_names",
    "programs::a_denied_file_cannot_be_touched_by_any_way",
    "programs::a_denied_program_is_not_mapped_and_a_denied_socket_not_connected_to",
    "closed::a_closed_agent_lets_no_program_start_and_no_connection_open",
    "server::a_session_that_begins_while_the_ring_is_full_is_whole_when_it_is_told",
    "socket::a_socket_of_multipath_tcp_is_one_that_no_rule_reaches",
];

/// The other tier, which the machine of the tests runs itself: what differs by kernel.
const OF_TRACEPOINTS: [&str; 8] = [
    "session::what_a_session_runs_is_told_and_what_others_run_is_not",
    "sshd::sshd_sessions_are_told_apart_and_the_daemon_is_nobodys",
    "network::every_way_to_a_denied_network_is_refused",
    "datagram::what_datagrams_bring_and_take_is_counted_by_peer",
    "datagram::what_name_servers_answer_is_told_of_sockets_that_asked_them",
    "programs::a_denied_program_runs_by_none_of_its_names",
    "server::a_session_is_seen_also_where_its_server_listened_before",
    "socket::whoever_fills_the_memory_of_a_socket_is_told_as_everyone",
];

/// Kernels differ in it, and tiers.
const OF_EVERY_MACHINE: &str = "session::no_program_is_near_what_a_verifier_takes";

/// The tests of the sensor: what a machine that refuses LSM programs can't run by itself, on each kernel.
#[track_caller]
fn assert_sensor_works(kernel: Kernel, tier: &str, short: &[&str]) {
    let mut vm = with_sensor_tests(kernel, "");
    let which = if at_length() {
        format!("--skip {FLOOD}")
    } else {
        format!("--exact {OF_EVERY_MACHINE} {}", short.join(" "))
    };
    let said = vm.run_within(&format!("CUSTODY_TIER={tier} sensor-tests {which}"), sensor_deadline());
    assert_eq!(said.code, 0, "{kernel:?}, {tier}:\n{}\n{}\n{}", said.text(), said.err, vm.console());
}

/// The same on kernels that only `make soak` has.
#[track_caller]
fn assert_sensor_works_later(tier: &str) {
    if at_length() {
        for kernel in Kernel::LATER {
            assert_sensor_works(kernel, tier, &[]);
        }
    }
}

/// A fork with an exec takes a twentieth of a second in there. All tests of the sensor take half an hour beside others.
fn sensor_deadline() -> Duration {
    Duration::from_secs(if at_length() { 3_600 } else { 1_800 })
}

#[test]
fn the_sensor_on_6_1_with_lsm_programs() {
    assert_sensor_works(Kernel::V6_1, "lsm", &OF_EACH_KIND);
}

#[test]
fn the_sensor_on_6_12_and_later_with_lsm_programs() {
    assert_sensor_works(Kernel::V6_12, "lsm", &OF_KINDS_LEFT);
    assert_sensor_works_later("lsm");
}

#[test]
fn the_sensor_on_6_12_and_later_with_tracepoints() {
    assert_sensor_works(Kernel::V6_12, "tracepoint", &OF_TRACEPOINTS);
    assert_sensor_works_later("tracepoint");
}

/// Where a program of an LSM hook may be preempted by another task in the same hook.
#[test]
fn each_of_a_crowd_is_judged_by_what_is_its_own_where_the_kernel_preempts_itself() {
    let mut vm = with_sensor_tests(Kernel::V6_12, "preempt=full");
    let preempts = vm.run("mount -t debugfs none /sys/kernel/debug && cat /sys/kernel/debug/sched/preempt");
    assert!(preempts.ok().text().contains("(full)"), "{}", vm.console());
    let crowd = "crowd::each_of_a_crowd_is_judged_and_told_by_what_is_its_own";
    let order = format!("CUSTODY_TIER=lsm sensor-tests --exact --nocapture {crowd}");
    let said = vm.run_within(&order, sensor_deadline());
    eprintln!("{}", said.err);
    assert_eq!(said.code, 0, "{}\n{}\n{}", said.text(), said.err, vm.console());
}

/// Without what only debuggers read: a machine's files are in its memory.
fn stripped(program: &Path, folder: &Path) -> PathBuf {
    let to = folder.join(program.file_name().unwrap());
    let mut strip = Command::new("strip");
    run(strip.arg("--strip-debug").arg("-o").arg(&to).arg(program), b"", wait::DEADLINE).ok();
    to
}

/// All of Custody in a machine, with this program of tests as `/opt/custody/deps/e2e`: its tests find the rest there.
fn with_custody(kernel: Kernel) -> Vm {
    let folder = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let mut files: Vec<(String, PathBuf)> = ["custodyd", "custody"]
        .map(|name| (format!("/opt/custody/{name}"), stripped(&program(name), folder.path())))
        .into();
    files.push(("/opt/custody/deps/e2e".into(), stripped(&this, folder.path())));
    for item in std::fs::read_dir(root().join("tests/escapes")).unwrap().flatten() {
        files.push((format!("/opt/escapes/{}", item.file_name().to_str().unwrap()), item.path()));
    }
    Vm::boot(kernel, &Machine { files, ..Machine::default() })
}

/// Proxy, sshd and agent in one machine, and each way around the agent.
#[track_caller]
fn assert_coverage(kernel: Kernel) {
    let mut vm = with_custody(kernel);
    let test = "node_coverage::each_way_around_ends_as_the_documentation_says";
    let which = if at_length() { Which::All } else { Which::Files };
    let order = format!(
        "CUSTODY_ESCAPES=/opt/escapes CUSTODY_COVERAGE={which:?} /opt/custody/deps/e2e --exact --nocapture {test}"
    );
    let said = vm.run_within(&order, sensor_deadline());
    eprintln!("{kernel:?}: in {:?}\n{}", said.took, said.text());
    assert_eq!(said.code, 0, "{kernel:?}:\n{}\n{}\n{}", said.text(), said.err, vm.console());
    node_coverage::hold(Tier::Lsm, which, &node_coverage::printed(&said.text()));
}

#[test]
fn each_way_around_ends_as_documented_on_6_12_with_lsm_programs() {
    assert_coverage(Kernel::V6_12);
}

/// What it says of this machine, and that it leaves nothing attached.
const PROBE: &str = "sensor-tests --exact session::what_the_kernel_supports_is_told_without_leaving_anything";

/// Programs attach where the list of security modules lacks bpf, and never run: only a try tells.
#[test]
fn a_tier_that_does_not_enforce_is_not_taken() {
    let mut vm = with_sensor_tests(Kernel::V6_12, "lsm=lockdown,yama");
    let forced = vm.run(&format!("CUSTODY_TIER=lsm {PROBE}"));
    assert!(forced.code != 0 && forced.text().contains("NotEnforcing"), "{}{}", forced.text(), forced.err);
    // The other one does.
    vm.run(PROBE).ok();
    vm.run("sensor-tests --exact session::what_a_session_runs_is_told_and_what_others_run_is_not").ok();
    assert_eq!(vm.run("ls -A /sys/fs/bpf").ok().text(), "");

    // Where neither is, none is taken.
    let mut vm = with_sensor_tests(Kernel::V6_1, "lsm=lockdown,yama");
    let refused = vm.run(PROBE);
    assert!(refused.code != 0 && refused.text().contains("Missing"), "{}{}", refused.text(), refused.err);
    assert_eq!(vm.run("ls -A /sys/fs/bpf").ok().text(), "");
}

/// Whether /sys is as a distribution mounts it isn't asked; a kernel that lets nobody read its memory is refused.
#[test]
fn a_node_needs_no_mounts_and_a_kernel_that_can_be_read() {
    let mut vm = with_sensor_tests(Kernel::V6_12, "");
    vm.run("umount /sys/fs/bpf /sys/kernel/tracing /sys/kernel/security").ok();
    vm.run(PROBE).ok();
    let mut vm = with_sensor_tests(Kernel::V6_12, "lockdown=confidentiality");
    let refused = vm.run(PROBE);
    assert!(refused.code != 0, "{}{}", refused.text(), refused.err);
    assert_eq!(vm.run("ls -A /sys/fs/bpf").ok().text(), "");
}
