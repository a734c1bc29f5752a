//! What gives a session more than it had: told in both tiers. What may not be is refused with EPERM by LSM hooks; by tracepoints whoever
//! tries it is killed.

use crate::node::{Node, POLICY, Session};
use custody_node::sensor::{NetRule, PolicyRules, Record, Tier};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// As Python prints it.
const EPERM: &str = "1";

/// What Python programs here begin with.
const BEGIN: &str = "import ctypes, mmap, os, struct, sys, threading, time\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    byte = ctypes.create_string_buffer(b'x', 1)\n\
    part = ctypes.create_string_buffer(struct.pack('@PN', ctypes.addressof(byte), 1))\n\
    def read(pid): return libc.syscall(310, pid, part, 1, part, 1, ctypes.c_ulong(0))\n\
    def tell(done): print(done if done >= 0 else ctypes.get_errno(), flush=True)\n";

impl Session {
    /// Runs a Python program that tries one thing and tells how it ended: its result, or the error's number.
    fn tries(&mut self, program: &str) -> String {
        self.python(&format!("{BEGIN}{program}"))
    }
}

/// What a program that was refused has printed.
fn refused(node: &mut Node) -> &'static str {
    match node.sensor().coverage().tier {
        Tier::Lsm => EPERM,
        Tier::Tracepoint => "Killed",
    }
}

fn traced(node: &mut Node, what: &str, pid: u32, refused: bool, session: Option<[u8; 16]>) {
    node.wait_until(what, |records| {
        let is = |record: &Record| {
            matches!(record, Record::Traced(traced)
            if traced.target == pid && traced.refused == refused && traced.target_session == session)
        };
        records.iter().any(is).then_some(())
    });
    node.records.retain(|record| !matches!(record, Record::Traced(_)));
}

#[test]
fn a_session_reaches_into_no_process_but_its_own() {
    let mut node = Node::start();
    node.has_in_both("ptrace deny");
    let mut session = node.session();
    // Not this process: an attach stops it, and then nobody would look.
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let (refusal, outside) = (refused(&mut node), other.id());
    let no_such_right = if refusal == EPERM { "13" } else { refusal };
    for (what, program, said) in [
        ("an attach", format!("tell(libc.ptrace(16, {outside}, 0, 0))"), refusal),
        ("a seizure", format!("tell(libc.ptrace(0x4206, {outside}, 0, 0))"), refusal),
        ("a read of memory", format!("tell(read({outside}))"), refusal),
        (
            "a file of memory",
            format!(
                "try: open('/proc/{outside}/mem', 'r+b'); tell(0)\n\
                 except OSError as error: print(error.errno)"
            ),
            no_such_right,
        ),
        (
            "a descriptor",
            format!("fd = libc.syscall(434, {outside}, 0)\ntell(libc.syscall(438, fd, 0, 0))"),
            refusal,
        ),
    ] {
        assert_eq!(session.tries(&program), said, "{what}");
        traced(&mut node, what, outside, true, None);
    }
    // It goes on.
    node.wait_until("the other process", |_| {
        let status = std::fs::read_to_string(format!("/proc/{outside}/status")).unwrap();
        status.contains("State:\tS").then_some(())
    });
    other.kill().unwrap();
    other.wait().unwrap();
}

/// A debugger within the session goes on as before: by process, and by the threads that it traces.
#[test]
fn a_session_reaches_into_its_own_processes() {
    let mut node = Node::start();
    let mut session = node.session();
    let id = Some(session.id);
    let program = "ready, told = os.pipe()\n\
        pid = os.fork()\n\
        if pid == 0:\n\
        \x20   thread = threading.Thread(target=time.sleep, args=(60,)); thread.start()\n\
        \x20   os.write(told, str(thread.native_id).encode()); thread.join()\n\
        thread = int(os.read(ready, 9))\n\
        print(pid)\n\
        tell(read(os.getpid())); tell(read(pid))\n\
        tell(libc.ptrace(0x4206, thread, 0, 0)); tell(read(thread))\n\
        tell(os.open(f'/proc/{pid}/mem', os.O_RDWR) > 0)\n\
        os.kill(pid, 9)";
    let said = session.tries(program);
    let (pid, rest) = said.split_once('\n').unwrap();
    assert_eq!(rest, "1\n1\n0\n1\nTrue");
    traced(&mut node, "its own", pid.parse().unwrap(), false, id);
    assert!(!node.records.iter().any(|record| matches!(record, Record::Traced(traced) if traced.refused)));
}

/// System calls have other numbers there, by which they must not pass.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_32_bit_programs_call_is_seen() {
    let mut node = Node::start();
    let mut session = node.session();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let outside = other.id();
    // push rbx; mov eax, 26 (ptrace); mov ebx, 16; mov ecx, PID; xor edx, edx; xor esi, esi; int 0x80; pop rbx; ret
    let program = format!(
        "code = b'\\x53\\xb8\\x1a\\0\\0\\0\\xbb\\x10\\0\\0\\0\\xb9' + struct.pack('<I', {outside}) + b'\\x31\\xd2\\x31\\xf6\\xcd\\x80\\x5b\\xc3'\n\
         page = mmap.mmap(-1, 4096, prot=7); page.write(code)\n\
         call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n\
         print(-call())"
    );
    let said = session.tries(&program);
    if said.contains("Segmentation") {
        println!("this kernel runs no 32-bit programs, so there is nothing to see");
    } else {
        assert_eq!(said, refused(&mut node));
        traced(&mut node, "an attach by a 32-bit call", outside, true, None);
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn what_bpf_would_lead_to_is_refused() {
    let mut node = Node::start();
    node.has_in_both("bpf deny");
    let mut session = node.session();
    // BPF_MAP_GET_FD_BY_ID
    let program = "attr = ctypes.create_string_buffer(struct.pack('=I', 1) + bytes(124))\n\
         tell(libc.syscall(321, 14, attr, 128))";
    assert_eq!(session.tries(program), refused(&mut node));
    node.wait_for(
        "the refusal",
        |record| matches!(record, Record::BpfUsed(event) if event.refused && event.command == 14),
    );
}

#[test]
fn other_ids_of_users_and_groups_are_told() {
    let mut node = Node::start();
    node.has_in_both("privilege change");
    let mut session = node.session();
    session.tries("libc.setfsuid(7); os.setegid(8); os.setresgid(9, 9, 9); os.setuid(65534)");
    for (what, users, old, new) in [
        ("whose files it reaches", true, [0; 4], [0, 0, 0, 7]),
        ("whose effective group it is", false, [0; 4], [0, 8, 0, 8]),
        ("whose group it is", false, [0, 8, 0, 8], [9; 4]),
        ("who it is", true, [0, 0, 0, 7], [65_534; 4]),
    ] {
        node.wait_for(what, |record| match record {
            Record::UsersChanged(change) => users && change.old == old && change.new == new,
            Record::GroupsChanged(change) => !users && change.old == old && change.new == new,
            _ => false,
        });
    }
}

#[test]
fn mounts_are_told() {
    let mut node = Node::start();
    node.has_in_both("mount");
    let mut session = node.session();
    session.run("unshare -m sh -c 'mount -t tmpfs nothing /mnt'");
    node.wait_until("the mount", |records| {
        let tmpfs = |record: &Record| match record {
            Record::Mounted(mount) => mount.kind == b"tmpfs" || mount.source.ends_with(b"mnt"),
            _ => false,
        };
        records.iter().any(tmpfs).then_some(())
    });
}

#[test]
fn a_module_that_is_loaded_is_told() {
    let Ok(loaded) = std::fs::read_to_string("/proc/modules") else {
        println!("this kernel loads no modules, so there is nothing to see");
        return;
    };
    let mut node = Node::start();
    node.has_in_both("module load");
    let mut session = node.session();
    // One that nobody has in use.
    assert!(loaded.contains("unix_diag "), "{loaded}");
    let said =
        session.run("rmmod unix_diag && insmod $(find /lib/modules -name unix_diag.ko) && echo loaded");
    assert_eq!(said, "loaded");
    node.wait_for(
        "the module",
        |record| matches!(record, Record::ModuleLoaded(module) if module.name == b"unix_diag"),
    );
}

#[test]
fn what_gets_at_the_kernel_itself_is_told() {
    let mut node = Node::start();
    node.has_in_both("reach into the kernel");
    let mut session = node.session();
    // Kernels are built without some of it: what could be done has to be told.
    let done = session.python(&format!(
        "{BEGIN}\
         libc.unshare(0x20000)\n\
         libc.mount(None, b'/', None, 0x44000, None)\n\
         def reach(what, file, how):\n\
         \ttry: os.close(os.open(file, how)); print(what)\n\
         \texcept OSError: pass\n\
         for kind, file in ('tracefs', 'trace'), ('debugfs', 'clear_warn_once'):\n\
         \tlibc.mount(b'none', b'/mnt', kind.encode(), 0, None)\n\
         \treach(kind, '/mnt/' + file, os.O_WRONLY)\n\
         for file in '/proc/kcore', '/dev/mem': reach(file, file, os.O_RDONLY)\n\
         if libc.syscall(246, 0, 0, 0, 0) == 0: print('kexec')\n\
         if libc.iopl(3) == 0: print('I/O ports')"
    ));
    println!("this kernel can be reached by {done:?}");
    let done: Vec<&str> = done.lines().collect();
    assert!(done.contains(&"tracefs"), "{done:?}");
    node.wait_until("what was done", |records| {
        let told: Vec<&str> = records.iter().filter_map(reached).collect();
        done.iter().all(|done| told.contains(done)).then_some(())
    });
}

fn reached(record: &Record) -> Option<&str> {
    match record {
        Record::KernelReached(reached) => Some(reached.by),
        _ => None,
    }
}

/// To the time that it shows: tests that run beside this one have the same clock.
#[test]
fn whoever_sets_the_clock_is_told_and_whoever_reads_it_is_not() {
    let mut node = Node::start();
    node.has_in_both("clock set");
    let mut session = node.session();
    let by = |record: &Record| if let Record::ClockSet(set) = record { Some(set.by) } else { None };
    // struct timex: `modes` stands first. 0 reads all, 0xa001 what is left of adjtime(3); 0x4000 sets how long a tick is.
    let said = session.python(&format!(
        "{BEGIN}\
         import time\n\
         timex = lambda modes: ctypes.create_string_buffer(modes.to_bytes(4, 'little'), 512)\n\
         assert libc.adjtimex(timex(0)) >= 0 and libc.adjtimex(timex(0xa001)) >= 0\n\
         assert libc.clock_adjtime(0, timex(0)) >= 0 and libc.clock_settime(1, ctypes.create_string_buffer(16)) < 0\n\
         assert libc.syscall(164, 0, ctypes.create_string_buffer(8)) <= 0\n\
         time.clock_settime(0, time.clock_gettime(0))\n\
         read = timex(0)\n\
         libc.adjtimex(read)\n\
         same = lambda: ctypes.create_string_buffer((0x4000).to_bytes(4, 'little') + read.raw[4:], 512)\n\
         assert libc.clock_adjtime(0, same()) >= 0\n\
         now = time.time_ns()\n\
         assert libc.settimeofday((ctypes.c_long * 2)(now // 10**9, now % 10**9 // 1000), None) == 0\n\
         assert libc.adjtimex(same()) >= 0; print('done')"
    ));
    assert_eq!(said, "done");
    let told = node.wait_until("what was set", |records| {
        let told: Vec<&str> = records.iter().filter_map(by).collect();
        (told.len() >= 4).then_some(told.join(" "))
    });
    assert_eq!(told, "settimeofday adjtimex settimeofday adjtimex");
}

#[test]
fn connections_to_daemons_of_this_host_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start();
    node.has_in_both("unix connect");
    let mut session = node.session();
    let path = folder.path().join("daemon");
    let _daemon = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let at = path.display();
    session.python(&format!("import socket; socket.socket(socket.AF_UNIX).connect('{at}')"));
    node.wait_for("the connection", |record| {
        matches!(record, Record::UnixConnected(connected) if connected.name == path.as_os_str().as_encoded_bytes())
    });
}

#[test]
fn packets_on_the_wire_are_refused_under_rules() {
    let mut node = Node::start();
    node.has_in_both("packet socket deny");
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let program = "tell(libc.socket(17, 3, 0) and 0)";
    let mut free = node.session_at(loopback, loopback, POLICY);
    assert_eq!(free.tries(program), "0");
    let rule = NetRule { id: 1, address: loopback, prefix: 32, ports: Vec::new() };
    let rules = PolicyRules { denied: vec![rule], ..PolicyRules::default() };
    node.sensor().set_policy(9, &rules).unwrap();
    let mut denied = node.session_at(loopback, loopback, 9);
    let id = denied.id;
    // By its family, and by IP's with the type that once stood for it, with a flag too.
    for (number, program) in
        ["libc.socket(17, 3, 0)", "libc.socket(2, 10, 0x300)", "libc.socket(2, 0x8000a, 0x300)"]
            .into_iter()
            .enumerate()
    {
        assert_eq!(denied.tries(&format!("tell({program})")), refused(&mut node), "{program}");
        let is = |record: &&Record| matches!(record, Record::ConnectionDenied(of) if of.who.session == id);
        node.wait_until(program, |records| (records.iter().filter(is).count() > number).then_some(()));
    }
    assert_eq!(free.tries("tell(libc.socket(2, 10, 0x300) > 0)"), "True");
    node.wait_for(
        "an old name",
        |record| matches!(record, Record::SocketMade(made) if (made.family, made.kind) == (17, 10)),
    );
}

/// By the call that 32-bit programs have for all that concerns sockets.
#[cfg(target_arch = "x86_64")]
#[test]
fn packets_on_the_wire_are_refused_to_32_bit_programs() {
    let mut node = Node::start();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let rule = NetRule { id: 1, address: loopback, prefix: 32, ports: Vec::new() };
    let rules = PolicyRules { denied: vec![rule], ..PolicyRules::default() };
    node.sensor().set_policy(9, &rules).unwrap();
    let mut session = node.session_at(loopback, loopback, 9);
    for arguments in ["17, 3, 0", "2, 10, 0x300"] {
        // push rbx; mov eax, 102 (socketcall); mov ebx, 1 (socket); mov ecx, ARGUMENTS; int 0x80; pop rbx; ret
        let program = format!(
            "page = mmap.mmap(-1, 4096, flags=0x62, prot=7)\n\
             at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n\
             page[64:76] = struct.pack('=3I', {arguments})\n\
             page[:20] = b'\\x53\\xb8\\x66\\0\\0\\0\\xbb\\1\\0\\0\\0\\xb9' + struct.pack('<I', at + 64) + b'\\xcd\\x80\\x5b\\xc3'\n\
             print(-ctypes.CFUNCTYPE(ctypes.c_int)(at)())"
        );
        let said = session.tries(&program);
        if said.contains("Segmentation") {
            println!("this kernel runs no 32-bit programs, so there is nothing to see");
            return;
        }
        assert_eq!(said, refused(&mut node), "{arguments}");
    }
    let id = session.id;
    node.wait_until("the refusals", |records| {
        let is = |record: &&Record| matches!(record, Record::ConnectionDenied(of) if of.who.session == id);
        (records.iter().filter(is).count() == 2).then_some(())
    });
}
