//! Ways to do something in a session without being seen, or in spite of a restriction.

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// As the table names it.
    pub what: &'static str,
    /// What bash runs in the session. It prints `$MARK` when it has done the thing, or `unsupported`. `$ADDRESS` is one of
    /// this way alone, on which `$PORT` listens, and `$NAME` its name, which `$NAMES` knows; `$DENIED` another, which the session may not reach; `$WATCHED` a folder
    /// whose files are watched, `$FILE` a file in it of this way alone, with a hard link `$LINKED`; `$FOLDER` is not watched.
    pub script: &'static str,
    /// What is to be found of it.
    pub leaves: Leaves,
}

/// What a way leaves behind when it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// A program that was run, with the mark among its arguments.
    Program,
    /// A connection or a datagram to its address, or to the one that is denied.
    Connection,
    /// A connection to its address, with the name that was asked for.
    Name,
    /// A socket whose destinations can't be checked.
    Socket,
    /// Something that happened to its file.
    File,
    /// A reach into the kernel or another process: the name in `node.kernel-changed`.
    Kernel(&'static str),
    /// A connection to a daemon of the same machine.
    Daemon,
}

const fn program(what: &'static str, script: &'static str) -> Way {
    Way { what, script, leaves: Leaves::Program }
}

const fn connection(what: &'static str, script: &'static str) -> Way {
    Way { what, script, leaves: Leaves::Connection }
}

const fn name(what: &'static str, script: &'static str) -> Way {
    Way { what, script, leaves: Leaves::Name }
}

const fn socket(what: &'static str, script: &'static str) -> Way {
    Way { what, script, leaves: Leaves::Socket }
}

const fn file(what: &'static str, script: &'static str) -> Way {
    Way { what, script, leaves: Leaves::File }
}

const fn kernel(what: &'static str, change: &'static str, script: &'static str) -> Way {
    Way { what, script, leaves: Leaves::Kernel(change) }
}

const fn daemon(what: &'static str, script: &'static str) -> Way {
    Way { what, script, leaves: Leaves::Daemon }
}

/// All of them, in the table's order.
pub const WAYS: &[Way] = &[
    program("base64 into eval", r#"eval "$(base64 -d <<<"$(base64 <<<"/bin/echo $MARK")")""#),
    program("a here-document into a shell", "sh <<END\n/bin/echo $MARK\nEND"),
    program(
        "a here-document into Python",
        "python3 - <<END\nimport subprocess; subprocess.run(['/bin/echo', '$MARK'])\nEND",
    ),
    program(
        "a script file",
        "printf '#!/bin/sh\n/bin/echo %s\n' $MARK >$FOLDER/$MARK.sh; chmod +x $FOLDER/$MARK.sh; $FOLDER/$MARK.sh",
    ),
    program(
        "a script without an interpreter's name",
        "printf '/bin/echo %s\n' $MARK >$FOLDER/$MARK.sh; chmod +x $FOLDER/$MARK.sh; $FOLDER/$MARK.sh",
    ),
    program(
        "a script by its descriptor",
        "printf '/bin/echo %s\n' $MARK >$FOLDER/$MARK.sh; sh /dev/fd/3 3<$FOLDER/$MARK.sh",
    ),
    program("another name for itself", "(exec -a innocent /bin/echo $MARK)"),
    program("the dynamic linker as the program", "/lib64/ld-linux-x86-64.so.2 /bin/echo $MARK"),
    program("a program in memory only (memfd_create, fexecve)", "python3 $WAYS/run.py $MARK memory"),
    program("a program whose file is deleted", "python3 $WAYS/run.py $MARK deleted"),
    program("an exec from a thread", "python3 $WAYS/run.py $MARK thread"),
    program("posix_spawn (vfork)", "python3 $WAYS/run.py $MARK posix"),
    program("a fork twice, and a session of its own", "python3 $WAYS/run.py $MARK fork"),
    program("setsid", "setsid -w /bin/echo $MARK"),
    program("nohup in the background", "nohup /bin/echo $MARK 2>/dev/null & wait"),
    program("su", "su nobody -s /bin/sh -c \"/bin/echo $MARK\""),
    program("sudo", "sudo -n -u nobody /bin/echo $MARK"),
    program("a user namespace", "unshare -r /bin/echo $MARK || echo unsupported"),
    program(
        "namespaces as containers have them",
        "unshare -m -p -f -i -u -n --mount-proc /bin/echo $MARK || echo unsupported",
    ),
    program(
        "chroot",
        "mkdir $FOLDER/root; cp $(command -v busybox) $FOLDER/root/; chroot $FOLDER/root /busybox echo $MARK",
    ),
    program(
        "a bind mount over another program",
        "unshare -m sh -c \"mount --bind /bin/echo /bin/false && /bin/false $MARK\" || echo unsupported",
    ),
    program(
        "a terminal multiplexer started in the session",
        "if command -v tmux >/dev/null; then tmux -S $FOLDER/tmux -f /dev/null new-session -d \
         \"/bin/echo $MARK >$FOLDER/tmux.out; tmux -S $FOLDER/tmux wait-for -S done; sleep 1\"; \
         tmux -S $FOLDER/tmux wait-for done; cat $FOLDER/tmux.out; else echo unsupported; fi",
    ),
    program(
        "a job that outlives the session",
        "setsid sh -c \"while kill -0 $SESSION 2>/dev/null; do sleep 0.1; done; /bin/echo $MARK\" >$OUT 2>&1 </dev/null &",
    ),
    program("after a flood of forks", "for i in $(seq 200); do (:) & done; wait; /bin/echo $MARK"),
    program("thousands of arguments", "/bin/echo $MARK $(seq 5000) | head -c ${#MARK}"),
    program(
        "an argument of 100,000 bytes",
        "/bin/echo $MARK $(head -c 100000 /dev/zero | tr '\\0' x) | head -c ${#MARK}",
    ),
    program(
        "arguments of line ends and bytes that are no text",
        "/bin/echo $MARK $'\\n' $'\\xff\\x80' '' | head -n 1",
    ),
    connection("a connection by IPv4", "python3 $WAYS/send.py $MARK connect $ADDRESS $PORT"),
    connection("a connection by IPv6", "python3 $WAYS/send.py $MARK connect ::1 $PORT6"),
    connection("datagrams", "python3 $WAYS/send.py $MARK datagram $ADDRESS 9"),
    connection(
        "datagrams of a connected socket",
        "python3 $WAYS/send.py $MARK connected-datagram $ADDRESS 9",
    ),
    connection("a connection by bash's own sockets", "exec 3<>/dev/tcp/$ADDRESS/$PORT && echo $MARK"),
    connection("a connection by io_uring", "python3 $WAYS/io_uring.py $MARK connect $ADDRESS:$PORT 0 0"),
    name(
        "an address's name, asked for by UDP",
        "exec 3<>/dev/tcp/$(python3 $WAYS/ask.py udp $NAME $NAMES)/$PORT && echo $MARK",
    ),
    name(
        "an address's name, asked for by the C library",
        "unshare -m sh -c 'mount --bind $RESOLVER /etc/resolv.conf; getent ahostsv4 $NAME' | grep -q $ADDRESS && exec 3<>/dev/tcp/$ADDRESS/$PORT && echo $MARK",
    ),
    name(
        "an address's name, asked for by TCP",
        "exec 3<>/dev/tcp/$(python3 $WAYS/ask.py tcp $NAME $NAMES)/$PORT && echo $MARK",
    ),
    name(
        "an address's name, asked for by TLS",
        "exec 3<>/dev/tcp/$(python3 $WAYS/ask.py tls $NAME $NAMES)/$PORT && echo $MARK",
    ),
    connection("denied: connect", "python3 $WAYS/send.py $MARK connect $DENIED $PORT"),
    connection("denied: IPv4 mapped into IPv6", "python3 $WAYS/send.py $MARK connect ::ffff:$DENIED $PORT"),
    connection("denied: TCP Fast Open", "python3 $WAYS/send.py $MARK fast-open $DENIED $PORT"),
    socket("denied: multipath TCP", "python3 $WAYS/send.py $MARK multipath $DENIED $PORT"),
    connection("denied: datagrams", "python3 $WAYS/send.py $MARK datagram $DENIED 9"),
    connection(
        "denied: datagrams of a socket that was connected elsewhere",
        "python3 $WAYS/send.py $MARK disconnected-datagram $DENIED 9",
    ),
    connection("denied: io_uring", "python3 $WAYS/io_uring.py $MARK connect $DENIED:$PORT 0 0"),
    connection("denied: io_uring by a worker", "python3 $WAYS/io_uring.py $MARK connect $DENIED:$PORT 0 16"),
    connection(
        "denied: io_uring by a thread of the kernel",
        "python3 $WAYS/io_uring.py $MARK connect $DENIED:$PORT 2 0",
    ),
    connection("denied: to be called from there", "python3 $WAYS/called.py $MARK $DENIED"),
    socket("denied: a raw socket", "python3 $WAYS/send.py $MARK raw $DENIED 0"),
    socket("denied: packets on the wire", "python3 $WAYS/send.py $MARK packet $DENIED 0"),
    socket("denied: packets on the wire, by io_uring", "python3 $WAYS/io_uring.py $MARK socket 17 0 0"),
    file("a watched file: read", "cat $FILE"),
    file("a watched file: by a symbolic link", "ln -s $FILE $FOLDER/$MARK.link; cat $FOLDER/$MARK.link"),
    file(
        "a watched file: by a hard link that the session makes",
        "ln $FILE $FOLDER/$MARK.hard; cat $FOLDER/$MARK.hard",
    ),
    file("a watched file: by a hard link that was there before", "cat $LINKED"),
    file(
        "a watched file: by a bind mount",
        "mkdir $FOLDER/$MARK; unshare -m sh -c \"mount --bind $WATCHED $FOLDER/$MARK; cat $FOLDER/$MARK/${FILE##*/}\" || echo unsupported",
    ),
    file("a watched file: by another root", "cat /proc/self/root$FILE"),
    file("a watched file: relative to a directory that is open", "cd $WATCHED; cat ./${FILE##*/}"),
    file("a watched file: by io_uring", "python3 $WAYS/io_uring.py $MARK open $FILE 0 0"),
    file("a watched file: by io_uring's worker", "python3 $WAYS/io_uring.py $MARK open $FILE 0 16"),
    file(
        "a watched file: by a bind mount of a folder in between",
        "mkdir $FOLDER/b$$; unshare -m sh -c \"mount --bind $WATCHED/part $FOLDER/b$$; cat $FOLDER/b$$/$MARK\" || echo unsupported",
    ),
    file(
        "a watched file: by chroot into a folder in between",
        "python3 -c \"import os; os.chroot('$WATCHED/part'); print(open('/$MARK').read())\"",
    ),
    file("a watched file: renamed", "mv $FILE $FOLDER/$MARK.moved && echo $MARK"),
    file("a watched file: deleted", "rm $FILE && echo $MARK"),
    file("a watched file: its permissions changed", "chmod 600 $FILE && echo $MARK"),
    file("a watched file: given to somebody", "chown 1 $FILE && echo $MARK"),
    file(
        "a watched file: an attribute of it set",
        "python3 -c \"import os; os.setxattr('$FILE', 'trusted.custody', b'x')\" && echo $MARK",
    ),
    file(
        "a watched file: cut off by its name",
        "python3 -c \"import os; os.truncate('$FILE', 0)\" && echo $MARK",
    ),
    file("a folder among watched files", "mkdir $FILE.folder && echo $MARK"),
    file("a symbolic link among watched files", "ln -s / $FILE.link && echo $MARK"),
    kernel(
        "the agent's maps, by a descriptor that outlives who asked for it",
        "program-loaded",
        "python3 $WAYS/outlive.py $MARK $PINS",
    ),
    file("the agent's key read", "cat $DATA/agent.key >/dev/null && echo $MARK"),
    file(
        "the kernel told what to run for a crash",
        "python3 -c \"at = '/proc/sys/kernel/core_pattern'; old = open(at).read(); open(at, 'w').write(old)\" && echo $MARK",
    ),
    program("a program that the kernel runs for a crash", "python3 $WAYS/crash.py $FOLDER"),
    file(
        "a job in cron's table",
        "mkdir -p $WATCHED/crontabs; echo \"0 0 1 1 * /bin/echo $MARK\" | busybox crontab -c $WATCHED/crontabs -u root - && \
         cp $WATCHED/crontabs/root $FILE && echo $MARK",
    ),
    kernel("another process traced", "traced", "python3 $WAYS/reach_into.py $MARK trace $OUTSIDE"),
    kernel(
        "another process's memory written to",
        "traced",
        "python3 $WAYS/reach_into.py $MARK write $OUTSIDE",
    ),
    kernel(
        "another process's memory written to, by /proc",
        "traced",
        "python3 $WAYS/reach_into.py $MARK memory $OUTSIDE",
    ),
    kernel(
        "another process's memory written to, by /proc and io_uring",
        "traced",
        "python3 $WAYS/io_uring.py $MARK memory $OUTSIDE 0 0",
    ),
    kernel(
        "a file system mounted",
        "mounted",
        "unshare -m sh -c \"mount -t tmpfs $MARK /mnt\" && echo $MARK",
    ),
    kernel(
        "the kernel's tracing read",
        "kernel-reached",
        "unshare -m sh -c \"mount -t tracefs none /mnt; exec head -n 1 /mnt/trace\" >/dev/null && echo $MARK",
    ),
    // To what it shows already: other tests have the same.
    kernel("the clock set", "clock-set", "python3 $WAYS/set_clock.py $MARK settime"),
    kernel("the clock adjusted", "clock-set", "python3 $WAYS/set_clock.py $MARK adjust"),
    kernel(
        "another user's rights taken",
        "users-changed",
        "setpriv --reuid=65534 --clear-groups /bin/echo $MARK",
    ),
    kernel(
        "another group's rights taken",
        "groups-changed",
        "setpriv --regid=65534 --clear-groups /bin/echo $MARK",
    ),
    daemon("a daemon asked to run something", "python3 $WAYS/send.py $MARK daemon $DAEMON 0"),
];

/// Those that harm the agent, each in a session of its own; it is started again after the first.
pub const AGAINST_THE_AGENT: [Way; 2] = [
    program("the agent killed", "(exec -a $MARK /bin/kill -9 $AGENT) && echo $MARK"),
    file("the agent's programs taken from the kernel", "rm -r $PINS && echo $MARK"),
];

/// Programs that run another one with the same arguments: what they run must be seen by itself.
pub const WRAPPERS: [&str; 7] = ["chroot", "nohup", "setpriv", "setsid", "su", "sudo", "unshare"];
