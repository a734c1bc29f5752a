//! What ran, and how it ended.

use crate::node::{Node, Session};
use custody_node::sensor::{Executed, Exited, Record, Tier};
use std::path::Path;

fn executions(records: &[Record]) -> impl Iterator<Item = &Executed> {
    records.iter().filter_map(|record| match record {
        Record::Executed(executed) => Some(executed.as_ref()),
        _ => None,
    })
}

fn exits(records: &[Record]) -> impl Iterator<Item = &Exited> {
    records.iter().filter_map(|record| match record {
        Record::Exited(exited) => Some(exited),
        _ => None,
    })
}

/// The one execution that has this argument.
fn execution(node: &mut Node, argument: &str) -> Executed {
    let has = |executed: &&Executed| executed.args.iter().any(|arg| arg == argument.as_bytes());
    let found = node.wait_until(argument, |records| executions(records).find(has).cloned());
    assert_eq!(executions(&node.records).filter(has).count(), 1, "{argument}: told more than once");
    found
}

/// The one end of a process.
fn end_of(node: &mut Node, executed: &Executed) -> Exited {
    let same =
        |exited: &&Exited| exited.who.pid == executed.who.pid && exited.who.start == executed.who.start;
    let found = node.wait_until("the end of a process", |records| exits(records).find(same).cloned());
    assert_eq!(exits(&node.records).filter(same).count(), 1, "told more than once: {executed:?}");
    found
}

/// Lets whatever is still on its way come: a marker that is told after it.
fn settle(node: &mut Node, session: &mut Session, marker: &str) {
    session.run(&format!("/bin/echo {marker}"));
    let executed = execution(node, marker);
    end_of(node, &executed);
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn an_execution_says_who_what_where_and_how_it_ended() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run("cd /usr/bin; /bin/sh -c 'exit 3' named 'with space'");
    let executed = execution(&mut node, "with space");
    assert_eq!(text(&executed.cwd), "/usr/bin");
    assert_eq!(text(&executed.given), "/bin/sh");
    assert_eq!(Path::new(text(&executed.path)), std::fs::canonicalize("/bin/sh").unwrap());
    assert_eq!(executed.args, [&b"/bin/sh"[..], b"-c", b"exit 3", b"named", b"with space"]);
    assert_eq!((executed.argc, executed.args_total, executed.args_missing), (5, 35, 0));
    assert_eq!(executed.interpreter, None);
    assert_eq!((executed.who.uid, executed.euid, executed.gid), (0, 0, 0));
    assert_eq!(executed.who.session, session.id);
    assert_eq!(executed.who.ppid, session.shell.id());
    let stat = std::fs::metadata("/bin/sh").unwrap();
    assert_eq!(executed.inode, std::os::unix::fs::MetadataExt::ino(&stat));
    let flags = [
        executed.memfd,
        executed.unlinked,
        executed.other_root,
        executed.unreachable,
        executed.denial.is_some(),
    ];
    assert_eq!(flags, [false; 5]);
    let exited = end_of(&mut node, &executed);
    assert_eq!(exited.status, 3 << 8);
    assert_eq!(exited.executed, Some(executed.who.time));
    assert!(exited.who.time >= executed.who.time);
}

#[test]
fn an_exec_from_a_thread_is_one_execution_and_keeps_the_session() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python(
        "import os, threading, time\n\
         def go():\n\
         \ttry: os.execv('/nonexistent', ['failed'])\n\
         \texcept OSError: pass\n\
         \tos.execv('/bin/sh', ['sh', '-c', '/bin/echo from a thread; exit 3', 'threaded'])\n\
         pid = os.fork()\n\
         if pid == 0:\n\
         \tthreading.Thread(target=go).start()\n\
         \ttime.sleep(60)\n\
         os.waitpid(pid, 0)",
    );
    let executed = execution(&mut node, "threaded");
    assert_eq!(executed.who.pid, executed.who.tid);
    assert_eq!(end_of(&mut node, &executed).status, 3 << 8);
    let child = execution(&mut node, "thread");
    assert_eq!(child.who.ppid, executed.who.pid);
    settle(&mut node, &mut session, "settled");
    assert!(
        executions(&node.records).all(|executed| executed.args.first().is_none_or(|arg| arg != b"failed"))
    );
}

#[test]
fn two_hundred_execs_from_threads_are_two_hundred() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python(
        "import os, threading, time\n\
         pids = []\n\
         for i in range(200):\n\
         \tpid = os.fork()\n\
         \tif pid == 0:\n\
         \t\tthreading.Thread(target=lambda: os.execv('/bin/sh', ['sh', '-c', 'exit 3', 'many'])).start()\n\
         \t\ttime.sleep(60)\n\
         \tpids.append(pid)\n\
         for pid in pids: os.waitpid(pid, 0)",
    );
    settle(&mut node, &mut session, "settled");
    let many: Vec<&Executed> = executions(&node.records)
        .filter(|executed| executed.args.last().is_some_and(|arg| arg == b"many"))
        .collect();
    assert_eq!(many.len(), 200);
    for executed in many {
        let ends: Vec<u32> = exits(&node.records)
            .filter(|exited| exited.who.pid == executed.who.pid)
            .map(|exited| exited.status)
            .collect();
        assert_eq!(ends, [3 << 8]);
    }
}

#[test]
fn a_process_ends_once_when_its_last_thread_does() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python(
        "import ctypes, os, subprocess, threading, time\n\
         libc = ctypes.CDLL(None)\n\
         def last():\n\
         \ttime.sleep(1)\n\
         \tsubprocess.run(['/bin/echo', 'between'])\n\
         \tos._exit(7)\n\
         pid = os.fork()\n\
         if pid == 0:\n\
         \tos.execv('/usr/bin/env', ['env', 'python3', '-c', '''\n\
         import ctypes, os, subprocess, threading, time\n\
         def last():\n\
         \ttime.sleep(1)\n\
         \tsubprocess.run([\"/bin/echo\", \"between\"])\n\
         \tos._exit(7)\n\
         threading.Thread(target=last).start()\n\
         ctypes.CDLL(None).syscall(60, 5)\n\
         ''', 'leader gone'])\n\
         os.waitpid(pid, 0)",
    );
    let between = execution(&mut node, "between");
    // env replaces itself by python: the same process runs twice.
    let first = node.wait_until("python", |records| {
        executions(records)
            .find(|executed| executed.args.last().is_some_and(|arg| arg == b"leader gone"))
            .cloned()
    });
    let exited = end_of(&mut node, &first);
    assert_eq!(exited.status, 7 << 8);
    assert_eq!(between.who.ppid, first.who.pid);
    assert!(exited.who.time > between.who.time);
    assert!(exited.who.time - first.who.time >= 1_000_000_000);
}

#[test]
fn threads_that_end_together_are_one_end_and_a_core_dump_is_told() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run("cd /tmp; ulimit -c unlimited; /bin/sh -c 'kill -SEGV $$' cored; cd /");
    let executed = execution(&mut node, "cored");
    let status = end_of(&mut node, &executed).status;
    assert_eq!(status & 0x7f, 11, "{status}");
    session.python(
        "import ctypes, os, threading\n\
         libc = ctypes.CDLL(None)\n\
         for i in range(20):\n\
         \tpid = os.fork()\n\
         \tif pid == 0:\n\
         \t\tgate = threading.Barrier(65)\n\
         \t\tdef go():\n\
         \t\t\tgate.wait()\n\
         \t\t\tlibc.syscall(60, 9)\n\
         \t\tfor j in range(64): threading.Thread(target=go).start()\n\
         \t\tgate.wait()\n\
         \t\tlibc.syscall(60, 9)\n\
         \tos.waitpid(pid, 0)",
    );
    settle(&mut node, &mut session, "settled");
    let mut ends: Vec<(u32, u64)> =
        exits(&node.records).map(|exited| (exited.who.pid, exited.who.start)).collect();
    let all = ends.len();
    ends.sort_unstable();
    ends.dedup();
    assert_eq!(ends.len(), all, "a process ended twice");
    let statuses: Vec<u32> = exits(&node.records).map(|exited| exited.status).collect();
    assert!(statuses.iter().filter(|status| **status == 9 << 8).count() == 20, "{statuses:?}");
}

#[test]
fn arguments_come_back_byte_for_byte() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run("/bin/echo '' a '' first");
    let executed = execution(&mut node, "first");
    assert_eq!(executed.args, [&b"/bin/echo"[..], b"", b"a", b"", b"first"]);

    session.python(r"import subprocess; subprocess.run([b'/bin/echo', b'a\x80z\xff\n\x1b[1m', b'second'])");
    let executed = execution(&mut node, "second");
    assert_eq!(executed.args[1], b"a\x80z\xff\n\x1b[1m");

    session.python("import subprocess; subprocess.run(['/bin/true', 'third'] + ['x' * 131071])");
    let executed = execution(&mut node, "third");
    let total = 10 + 6 + 131_072;
    assert_eq!((executed.argc, executed.args_total, executed.args_missing), (3, total, total - 32_768));

    session.python("import subprocess; subprocess.run(['/bin/true', 'fourth'] + ['y'] * 10000)");
    let executed = execution(&mut node, "fourth");
    assert_eq!((executed.argc, executed.args_total, executed.args.len()), (10_002, 20_017, 10_002));
    assert_eq!(executed.args_missing, 0);
    settle(&mut node, &mut session, "settled");
}

#[test]
fn scripts_and_interpreters_are_one_execution() {
    let mut node = Node::start();
    let mut session = node.session();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    session.run(&format!(
        "cd {at}; printf '#!{at}/b.sh\\n' >a.py; printf '#!/bin/sh -e\\n/bin/echo inner $1\\n' >b.sh; chmod +x a.py b.sh; ./a.py chained; \
         printf '/bin/echo plain\\n' >c; chmod +x c; ./c; printf '\\177ELF' >d; chmod +x d; ./d; ./ ; printf '#!/bin/sh\\n' >e; ./e"
    ));
    let executed = execution(&mut node, "chained");
    assert_eq!(text(&executed.given), "./a.py");
    assert_eq!(executed.interpreter.as_deref(), Some(&b"/bin/sh"[..]));
    assert_eq!(Path::new(text(&executed.path)), std::fs::canonicalize("/bin/sh").unwrap());
    let script = format!("{at}/b.sh");
    assert_eq!(executed.args, [b"/bin/sh", &b"-e"[..], script.as_bytes(), b"./a.py", b"chained"]);
    // AT_EXECVE_CHECK, from 6.14 on: asks whether it may, and runs nothing.
    session.python(
        "import ctypes\n\
         argv = (ctypes.c_char_p * 3)(b'./check', b'checked', None)\n\
         ctypes.CDLL(None).syscall(322, -100, b'/bin/true', argv, (ctypes.c_char_p * 1)(None), 0x10000)",
    );
    execution(&mut node, "inner");
    execution(&mut node, "plain");
    settle(&mut node, &mut session, "settled");
    assert_eq!(
        executions(&node.records).filter(|executed| executed.given.starts_with(b"./")).count(),
        1,
        "failures aren't executions"
    );
}

#[test]
fn memory_files_and_deleted_files_are_marked() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python(
        "import os\n\
         fd = os.memfd_create('hidden')\n\
         os.write(fd, open('/bin/true', 'rb').read())\n\
         pid = os.fork()\n\
         if pid == 0: os.execve(fd, ['true', 'in memory'], {})\n\
         os.waitpid(pid, 0)\n\
         import shutil, tempfile\n\
         path = tempfile.mktemp()\n\
         shutil.copy('/bin/true', path)\n\
         fd = os.open(path, os.O_RDONLY)\n\
         os.unlink(path)\n\
         pid = os.fork()\n\
         if pid == 0: os.execve(fd, ['true', 'deleted'], {})\n\
         os.waitpid(pid, 0)",
    );
    let executed = execution(&mut node, "in memory");
    assert!(executed.memfd && executed.unlinked);
    assert_eq!(text(&executed.path), "memfd:hidden");
    let executed = execution(&mut node, "deleted");
    assert!(executed.unlinked && !executed.memfd);
}

#[test]
fn deep_paths_keep_both_ends_and_say_that_they_are_cut() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python(
        "import os, shutil, subprocess, tempfile\n\
         top = tempfile.mkdtemp()\n\
         os.chdir(top)\n\
         for i in range(60):\n\
         \tos.mkdir('d%02d' % i); os.chdir('d%02d' % i)\n\
         subprocess.run(['/bin/true', 'sixty'])\n\
         for i in range(30):\n\
         \tos.mkdir('n' * 249 + '%d' % (i % 10)); os.chdir('n' * 249 + '%d' % (i % 10))\n\
         shutil.copy('/bin/true', 'leaf')\n\
         subprocess.run(['./leaf', 'beyond'])\n\
         subprocess.run(['rm', '-rf', top])",
    );
    let executed = execution(&mut node, "sixty");
    assert!(!executed.cwd_cut);
    assert!(text(&executed.cwd).starts_with("/tmp/") && text(&executed.cwd).ends_with("/d58/d59"));
    let executed = execution(&mut node, "beyond");
    assert!(executed.cwd_cut && executed.path_cut);
    assert!(text(&executed.path).starts_with("/tmp/") && text(&executed.path).ends_with("9/leaf"));
    assert!(text(&executed.cwd).ends_with("n9") && executed.cwd.len() > 4096);
}

#[test]
fn another_root_is_marked_and_paths_are_what_the_process_sees() {
    let mut node = Node::start();
    let mut session = node.session();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    session.run(&format!(
        "unshare -m sh -c 'for d in bin lib lib64 usr; do mkdir {at}/$d; mount --bind /$d {at}/$d; done; \
         exec chroot {at} /bin/sh -c \"cd /usr && exec /bin/true inside\"'"
    ));
    let executed = node.wait_until("true", |records| {
        executions(records).find(|executed| executed.args == [&b"/bin/true"[..], b"inside"]).cloned()
    });
    assert!(executed.other_root && !executed.unreachable);
    assert_eq!((text(&executed.path), text(&executed.cwd)), ("/bin/true", "/usr"));
}

#[test]
fn the_terminal_is_named() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python("import pty; pty.spawn(['/bin/echo', 'on a terminal'])");
    assert!(execution(&mut node, "on a terminal").tty.starts_with(b"pts"));
    session.run("setsid /bin/echo without");
    let without = node.wait_until("echo", |records| {
        executions(records).find(|executed| executed.args == [&b"/bin/echo"[..], b"without"]).cloned()
    });
    assert_eq!(text(&without.tty), "");
}

#[test]
fn descendants_stay_the_sessions_whatever_they_do() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run("setsid /bin/sh -c 'setsid /bin/sh -c \"/bin/echo forked twice\" &' & wait");
    session.run("unshare -m -p -f /bin/echo in namespaces");
    session.run("echo L2Jpbi9lY2hvIGRlY29kZWQK | base64 -d | /bin/sh");
    session.run("/lib64/ld-linux-x86-64.so.2 /bin/echo by the loader");
    session.run("nohup /bin/sh -c 'sleep 1; /bin/echo outlives' >/dev/null 2>&1 </dev/null &");
    session.run("su nobody -s /bin/sh -c '/bin/echo as nobody'");
    let echoes = |argument: &'static str| {
        move |record: &Record| match record {
            Record::Executed(executed) => {
                executed.path.ends_with(b"/echo")
                    && executed.args.last().is_some_and(|arg| arg == argument.as_bytes())
            }
            _ => false,
        }
    };
    for argument in ["twice", "namespaces", "decoded", "nobody"] {
        let record = node.wait_for(argument, echoes(argument));
        assert_eq!(record.who().unwrap().session, session.id);
        assert_eq!(record.who().unwrap().uid == 0, argument != "nobody");
    }
    execution(&mut node, "loader");
    let id = session.id;
    drop(session);
    assert_eq!(node.wait_for("outlives", echoes("outlives")).who().unwrap().session, id);
}

#[test]
fn everything_that_was_seen_was_told() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run("for i in $(seq 300); do /bin/true & done; wait");
    settle(&mut node, &mut session, "settled");
    let counters = node.sensor().counters().unwrap();
    node.drain();
    for (number, told) in [(3, executions(&node.records).count()), (4, exits(&node.records).count())] {
        assert_eq!(counters.seen[&number], told as u64);
        assert_eq!(counters.lost[&number], 0);
    }
    assert!(executions(&node.records).count() >= 301, "{counters:?}");
}

#[test]
fn a_full_ring_refuses_and_counts() {
    let mut options = crate::node::options();
    options.ring_bytes = 65_536;
    let mut node = Node::with(options);
    let mut session = node.session();
    let printed = session.run("for i in $(seq 400); do /bin/true || echo refused; done 2>/dev/null");
    let refused = printed.lines().filter(|line| *line == "refused").count() as u64;
    assert!(refused > 200, "{refused}");
    node.drain();
    let counters = node.sensor().counters().unwrap();
    let executed = executions(&node.records).count() as u64;
    assert_eq!(counters.seen[&3], executed + counters.lost[&3]);
    assert_eq!(counters.seen[&4], exits(&node.records).count() as u64 + counters.lost[&4]);
    assert!(counters.lost[&3] <= refused);
    settle(&mut node, &mut session, "on");
    if node.sensor().coverage().tier == Tier::Tracepoint {
        assert!(
            executions(&node.records).filter(|executed| executed.denial.is_some()).count() as u64
                + counters.lost[&3]
                >= refused
        );
    }
}

#[test]
fn a_flood_is_told_or_counted_to_the_last() {
    let mut options = crate::node::options();
    options.ring_bytes = 1 << 16;
    let mut node = Node::with(options);
    let mut session = node.session();
    let connect = "python3 -c 'import socket\nfor i in range(3000): socket.socket().connect_ex((\"127.0.0.1\", 9))' </dev/null >/dev/null &";
    session.start(connect);
    session.start(connect);
    node.wait_until("two Pythons", |records| {
        (executions(records).filter(|executed| executed.args.get(1).is_some_and(|arg| arg == b"-c")).count()
            >= 2)
            .then_some(())
    });
    for _ in 0..2 {
        session.start("(for i in $(seq 300); do /bin/true; done) >/dev/null 2>&1 </dev/null &");
    }
    session.start("wait; echo flood is over");
    // Nobody reads until something is lost: of programs that ran, or were refused before.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let missing = |node: &mut Node| {
        let counters = node.sensor().counters().unwrap();
        counters.lost[&3] + counters.lost[&19]
    };
    while missing(&mut node) == 0 {
        assert!(std::time::Instant::now() < end, "the ring never fills");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut printed = String::new();
    let mut lines = std::io::BufReader::new(session.socket.try_clone().unwrap());
    session.socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    while !printed.contains("flood is over") {
        node.drain();
        let said = std::io::BufRead::read_line(&mut lines, &mut printed);
        assert!(said.is_ok() || said.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    session.socket.set_read_timeout(None).unwrap();
    node.drain();
    let counters = node.sensor().counters().unwrap();
    node.drain();
    let told = |kind: fn(&Record) -> bool| node.records.iter().filter(|record| kind(record)).count() as u64;
    let executed = told(|record| matches!(record, Record::Executed(_)));
    let failed = told(|record| matches!(record, Record::ConnectionFailed(_)));
    let denied = told(|record| matches!(record, Record::ConnectionDenied(_)));
    let refused = told(|record| matches!(record, Record::ExecRefused(_)));
    for (number, told) in [(3, executed), (6, failed), (9, denied), (19, refused)] {
        assert_eq!(counters.seen[&number], told + counters.lost[&number], "kind {number}: {counters:?}");
    }
    assert_eq!(counters.seen[&4], told(|record| matches!(record, Record::Exited(_))) + counters.lost[&4]);
    // The ends of all that was told are told: room is kept for them.
    assert!(executed > 20, "{counters:?}");
    let unended =
        executions(&node.records).filter(|executed| executed.path.ends_with(b"/true")).filter(|executed| {
            !exits(&node.records)
                .any(|exited| (exited.who.pid, exited.who.start) == (executed.who.pid, executed.who.start))
        });
    assert_eq!(unended.count(), 0);
    assert_eq!(counters.seen[&6] + counters.seen[&9], 6000);
}

#[test]
fn what_a_program_may_do_without_being_root_is_told() {
    let mut node = Node::start();
    let mut session = node.session();
    // An ambient capability, which is kept as programs of file capabilities have theirs: nobody's, but one may open raw sockets.
    session.python(
        "import ctypes, os, struct\n\
         libc = ctypes.CDLL(None)\n\
         libc.prctl(8, 1, 0, 0, 0)\n\
         os.setresuid(65534, 65534, 65534)\n\
         libc.capset(struct.pack('=2I', 0x20080522, 0), struct.pack('=6I', 1 << 13, 1 << 13, 1 << 13, 0, 0, 0))\n\
         libc.prctl(47, 2, 13, 0, 0)\n\
         os.execv('/bin/echo', ['echo', 'may-open-raw-sockets'])",
    );
    let executed = execution(&mut node, "may-open-raw-sockets");
    assert_eq!((executed.euid, executed.permitted), (65_534, 1 << 13));
}
