//! Files: in the tier of LSM hooks. The other says that it can't.

use crate::node::{Node, Session, options};
use custody_node::sensor::{FileEvent, Record, Watched};
use std::path::Path;

/// A node that watches a folder, if it can watch any.
fn watching(folder: &Path) -> Option<(Node, Session)> {
    let mut options = options();
    options.watched = vec![folder.to_owned(), folder.join("isn't there")];
    let mut node = Node::with(options);
    let session = node.session();
    ["file open", "file rename", "file delete", "file permissions"]
        .iter()
        .all(|feature| node.has(feature))
        .then_some((node, session))
}

fn opened<'a>(records: &'a [Record], path: &Path) -> Vec<&'a FileEvent> {
    let of = |record: &'a Record| match record {
        Record::FileOpened(event) if event.path == path.as_os_str().as_encoded_bytes() => Some(event),
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

#[test]
fn the_same_file_opened_again_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let at = folder.path().display();
    session.python(&format!(
        "for i in range(1000): open('{at}/same', 'a').close()\n\
         for i in range(20): open('{at}/%d' % i, 'w').close()\n\
         open('/tmp/elsewhere', 'w').close()"
    ));
    let same = folder.path().join("same");
    let total = |records: &[Record]| opened(records, &same).iter().map(|event| event.count).sum::<u64>();
    node.wait_until("a thousand", |records| (total(records) == 1000).then_some(()));
    assert!(opened(&node.records, &same).len() <= 3);
    let events = opened(&node.records, &same);
    let stat = std::fs::metadata(&same).unwrap();
    assert!(
        events.iter().all(|event| event.inode == std::os::unix::fs::MetadataExt::ino(&stat)
            && event.who.session == session.id)
    );
    assert!(opened(&node.records, Path::new("/tmp/elsewhere")).is_empty());
    for number in 0..20 {
        assert_eq!(opened(&node.records, &folder.path().join(number.to_string())).len(), 1);
    }
}

#[test]
fn another_name_and_another_file_of_the_same_number_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let at = folder.path().display();
    session.python(&format!(
        "import os\n\
         open('{at}/one', 'a').close(); os.link('{at}/one', '{at}/two'); open('{at}/two', 'a').close()\n\
         os.unlink('{at}/one'); os.unlink('{at}/two'); open('{at}/three', 'a').close()"
    ));
    for name in ["one", "two", "three"] {
        let path = folder.path().join(name);
        node.wait_until(name, |records| (opened(records, &path).len() == 1).then_some(()));
    }
}

#[test]
fn what_was_counted_is_told_when_another_thread_runs_a_new_program() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let same = folder.path().join("same");
    session.python(&format!(
        "import os, threading\n\
         for i in range(100): open('{}', 'a').close()\n\
         threading.Thread(target=lambda: os.execv('/bin/true', ['true'])).start()\n\
         threading.Event().wait()",
        same.display()
    ));
    let total = |records: &[Record]| opened(records, &same).iter().map(|event| event.count).sum::<u64>();
    node.wait_until("a hundred", |records| (total(records) == 100).then_some(()));
}

#[test]
fn whoever_reads_many_files_keeps_nobody_from_running_programs() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    options.watched = vec![folder.path().to_owned()];
    options.ring_bytes = 1 << 16;
    let mut node = Node::with(options);
    let mut session = node.session();
    if !node.has("file open") {
        return;
    }
    // A file's event takes more than a hundred bytes, and nobody takes them out meanwhile.
    let at = folder.path().display();
    let printed = session.python(&format!(
        "import subprocess\n\
         for i in range(1000): open('{at}/%d' % i, 'w').close()\n\
         print(subprocess.run(['/bin/true']).returncode)"
    ));
    assert_eq!(printed, "0");
    node.wait_for(
        "the program",
        |record| matches!(record, Record::Executed(executed) if executed.given == b"/bin/true"),
    );
    let told = node.records.iter().filter(|record| matches!(record, Record::FileOpened(_))).count();
    let counters = node.sensor().counters().unwrap();
    let (seen, lost) = (counters.seen[&10], counters.lost[&10]);
    assert!(lost > 0 && seen == lost + told as u64, "{seen} were opened, {told} told, {lost} lost");
}

#[test]
fn every_way_to_a_watched_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let (at, elsewhere) = (folder.path().display(), other.path().display());
    session.python(&format!(
        "import os, subprocess\n\
         open('{at}/target', 'w').close()\n\
         os.symlink('{at}/target', '{elsewhere}/link'); open('{elsewhere}/link').close()\n\
         os.mkdir('{elsewhere}/bound')\n\
         subprocess.run(['unshare', '-m', 'sh', '-c', 'mount --bind {at} {elsewhere}/bound; : <{elsewhere}/bound/target'])\n\
         os.chdir('{at}')\n\
         for i in range(60): os.mkdir('d'); os.chdir('d')\n\
         open('deep', 'w').close()\n\
         os.link('{at}/target', '{elsewhere}/second')\n\
         os.rename('deep', '{elsewhere}/out'); os.chmod('{at}/target', 0o600); os.unlink('{at}/target')"
    ));
    let target = folder.path().join("target");
    node.wait_for("the deletion", |record| {
        matches!(record, Record::FileDeleted(event) if event.path == target.as_os_str().as_encoded_bytes())
    });
    assert_eq!(
        opened(&node.records, &target).iter().filter(|event| event.mode & 3 == 0).count(),
        1,
        "by the link"
    );
    assert_eq!(opened(&node.records, &other.path().join("bound/target")).len(), 1, "by the bind mount");
    let deep = folder.path().join("d/".repeat(60)).join("deep");
    assert_eq!(opened(&node.records, &deep).len(), 1);
    node.wait_for("the rename", |record| {
        matches!(record, Record::FileRenamed(event) if event.path == deep.as_os_str().as_encoded_bytes()
            && event.renamed_to.as_deref() == Some(other.path().join("out").as_os_str().as_encoded_bytes()))
    });
    node.wait_for(
        "the permissions",
        |record| matches!(record, Record::FileModeChanged(event) if event.mode & 0o777 == 0o600),
    );
}

#[test]
fn a_session_cannot_take_the_programs_away() {
    let mut node = Node::start();
    let mut session = node.session();
    if !node.has("file delete") || !node.has("unmount deny") {
        return;
    }
    let pins = node.options.pins.display().to_string();
    session.run(&format!("rm -rf {pins}; mount -t tmpfs none {pins}; umount -l /sys; umount /sys/fs/bpf"));
    // The root with all that is mounted below it, by another mount of it: an emulated machine's own can't be unmounted at all.
    session.run("mount --bind / /mnt");
    let root = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n\
        print(libc.umount2(b'/mnt', 2), ctypes.get_errno())";
    assert_eq!(session.python(root), "-1 1");
    assert_eq!(
        session.run("unshare -m umount -l /mnt && echo away"),
        "away",
        "what has a namespace of its own has copies"
    );
    // Into another mount, which could be taken away with it: by the old call, and by the new one.
    let moved = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n\
        os.mkdir('/tmp/elsewhere')\n\
        print(libc.mount(b'/sys/fs/bpf', b'/tmp/elsewhere', None, 0x2000, None), ctypes.get_errno())\n\
        print(libc.syscall(429, -100, b'/sys/fs/bpf', -100, b'/tmp/elsewhere', 0), ctypes.get_errno())\n\
        os.rmdir('/tmp/elsewhere')";
    assert_eq!(session.python(moved), "-1 1\n-1 1");
    node.wait_for("the refusal", |record| matches!(record, Record::FileDeleted(event) if event.refused));
    let refused = |records: &[Record]| {
        records.iter().filter(|record| matches!(record, Record::Mounted(event) if event.refused)).count()
    };
    node.wait_until("all refusals", |records| (refused(records) == 6).then_some(()));
    node.wait_for("the refusal", |record| matches!(record, Record::Mounted(event) if event.refused));
    session.run("/bin/echo still");
    node.wait_for("echo", |record| matches!(record, Record::Executed(executed) if executed.args.last().is_some_and(|arg| arg == b"still")));
}

/// ENOSYS
const NO_SUCH_CALL: &str = "38";
/// `set_flags(path)` has a file left out by dump(8), by file_setattr(2): 0, or what went wrong.
const SET_FLAGS: &str = "def set_flags(path):\n\
     \tlibc = ctypes.CDLL(None, use_errno=True)\n\
     \treturn ctypes.get_errno() if libc.syscall(469, -100, path.encode(), (0x80).to_bytes(24, 'little'), 24, 0) else 0\n";

fn is_at<'a>(path: &'a Path) -> impl Fn(&FileEvent) -> bool + 'a {
    |event| event.path == path.as_os_str().as_encoded_bytes()
}

#[test]
fn what_is_made_given_away_and_cut_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let at = folder.path().display();
    let flags_set = session.python(&format!(
        "import ctypes, os\n\
         {SET_FLAGS}\
         os.mkdir('{at}/folder'); os.symlink('/somewhere/else', '{at}/link'); os.mkfifo('{at}/pipe')\n\
         open('{at}/file', 'w').close(); os.truncate('{at}/file', 7); os.chown('{at}/file', 12, -1)\n\
         os.setxattr('{at}/file', 'trusted.custody', b'x'); os.removexattr('{at}/file', 'trusted.custody')\n\
         print(set_flags('{at}/file')); os.rmdir('{at}/folder'); os.unlink('{at}/pipe')"
    ));
    let pipe = folder.path().join("pipe");
    node.wait_for("the end", |record| matches!(record, Record::FileDeleted(event) if is_at(&pipe)(event)));
    let made = |name: &str| {
        let path = folder.path().join(name);
        node.records.iter().find_map(|record| match record {
            Record::FileCreated(event) if is_at(&path)(event) => {
                Some((event.mode & 0o170_000, event.text.clone()))
            }
            _ => None,
        })
    };
    assert_eq!(made("folder"), Some((0o040_000, None)));
    assert_eq!(made("link"), Some((0o120_000, Some(b"/somewhere/else".to_vec()))));
    assert_eq!(made("pipe"), Some((0o010_000, None)));
    assert_eq!(made("file"), Some((0o100_000, None)));
    let file = folder.path().join("file");
    let of_file = |is: fn(&Record) -> Option<&FileEvent>| {
        let told = node.records.iter().filter_map(is).filter(|event| is_at(&file)(event));
        told.map(|event| (event.mode, event.group, event.text.clone())).collect::<Vec<_>>()
    };
    let cut = of_file(|record| if let Record::FileTruncated(event) = record { Some(event) } else { None });
    assert!(!cut.is_empty());
    let given =
        of_file(|record| if let Record::FileOwnerChanged(event) = record { Some(event) } else { None });
    assert_eq!(given, [(12, u32::MAX, None)]);
    let attribute =
        of_file(|record| if let Record::FileAttributeChanged(event) = record { Some(event) } else { None });
    let one = (0, 0, Some(b"trusted.custody".to_vec()));
    let flags = (0, 0, Some(b"file_setattr".to_vec()));
    // There is such a call since 6.17.
    let wanted = if flags_set == "0" { vec![one.clone(), one, flags] } else { vec![one.clone(), one] };
    assert!(["0", NO_SUCH_CALL].contains(&&*flags_set), "{flags_set}");
    assert_eq!(attribute, wanted);
    let folder = folder.path().join("folder");
    assert!(
        node.records.iter().any(|r| matches!(r, Record::FileDeleted(event) if is_at(&folder)(event))),
        "the removal of a directory"
    );
}

#[test]
fn a_part_of_what_is_watched_is_watched_whatever_it_is_reached_by() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("part/deep")).unwrap();
    for name in ["bound", "rooted", "handed"] {
        std::fs::File::create(folder.path().join("part/deep").join(name)).unwrap();
    }
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let (at, elsewhere) = (folder.path().display(), other.path().display());
    session.python(&format!(
        "import os, subprocess\n\
         os.mkdir('{elsewhere}/at')\n\
         subprocess.run(['unshare', '-m', 'sh', '-c', 'mount --bind {at}/part {elsewhere}/at; : <{elsewhere}/at/deep/bound'])\n\
         if not os.fork(): os.chroot('{at}/part/deep'); open('/rooted').close(); os._exit(0)\n\
         os.wait()"
    ));
    for name in ["/at/deep/bound", "/rooted"] {
        node.wait_for(
            name,
            |record| matches!(record, Record::FileOpened(event) if event.path.ends_with(name.as_bytes())),
        );
    }
}

#[test]
fn no_session_gets_at_the_agents_own_files() {
    let own = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let key = own.path().join("agent.key");
    std::fs::File::create(&key).unwrap();
    std::fs::create_dir_all(own.path().join("spool/deep")).unwrap();
    std::fs::File::create(own.path().join("spool/deep/file")).unwrap();
    let mut options = options();
    options.own = vec![own.path().to_owned(), key.clone()];
    let mut node = Node::with(options);
    let mut session = node.session();
    if !node.has("file open") {
        return;
    }
    let (at, elsewhere) = (own.path().display(), other.path().display());
    let printed = session.python(&format!(
        "import ctypes, os, subprocess\n\
         {SET_FLAGS}\
         os.mkdir('{elsewhere}/at')\n\
         sh = lambda command: subprocess.run(['unshare', '-m', 'sh', '-c', command], check=True, stderr=subprocess.DEVNULL)\n\
         key, file = '{at}/agent.key', '{at}/spool/deep/file'\n\
         tried = [lambda: open(key), lambda: open(key, 'a'), lambda: os.rename(key, '{elsewhere}/key'),\n\
         \tlambda: os.link(key, '{elsewhere}/key'), lambda: os.unlink(key), lambda: os.chmod(key, 0o644),\n\
         \tlambda: os.chown(key, 1, 1), lambda: os.truncate(key, 0), lambda: os.listdir('{at}'),\n\
         \tlambda: os.mkdir('{at}/new'), lambda: os.symlink('/', '{at}/new'), lambda: open('{at}/new', 'w'),\n\
         \tlambda: set_flags(key) and os.setxattr(key, 'trusted.custody', b'x'), lambda: os.rename('{elsewhere}/at', '{at}/at'),\n\
         \tlambda: sh('mount -t tmpfs none {at}'), lambda: sh('mount -t tmpfs none {at}/spool'),\n\
         \tlambda: sh('mount --bind {at}/spool/deep {elsewhere}/at; cat {elsewhere}/at/file')]\n\
         def done(number):\n\
         \ttry: tried[number](); return True\n\
         \texcept (PermissionError, subprocess.CalledProcessError): return False\n\
         print([number for number in range(len(tried)) if done(number)])\n\
         if not os.fork():\n\
         \tos.chroot('{at}/spool/deep')\n\
         \ttry: open('/file'); os._exit(1)\n\
         \texcept PermissionError: os._exit(0)\n\
         print(os.wait()[1])"
    ));
    assert_eq!(printed, "[]\n0", "what was done in spite of it");
    let refused = |record: &Record| match record {
        Record::FileOpened(event) | Record::FileRenamed(event) | Record::FileDeleted(event) => {
            event.refused && is_at(&key)(event)
        }
        _ => false,
    };
    let told = |records: &[Record]| records.iter().filter(|record| refused(record)).count();
    node.wait_until("the refusals", |records| (told(records) >= 4).then_some(()));
    assert_eq!(std::fs::read(&key).unwrap(), b"", "others aren't kept from it");
}

#[test]
fn what_the_kernel_is_told_to_do_is_watched_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let printed = session.python(
        "import os, subprocess\n\
         pattern = open('/proc/sys/kernel/core_pattern').read()\n\
         open('/proc/sys/kernel/core_pattern', 'w').write(pattern)\n\
         open('/proc/self/oom_score_adj', 'w').write('1')\n\
         subprocess.run(['unshare', '-pfm', '--mount-proc', 'sh', '-c', 'true >/proc/sys/kernel/modprobe'])\n\
         try: open('/proc/sys/kernel/ftrace_enabled', 'w').write('0'); print('switched off')\n\
         except PermissionError: print('refused')",
    );
    assert_eq!(printed, "refused");
    let written = |name: &'static str, refused: bool| {
        move |record: &Record| {
            matches!(record, Record::FileOpened(event)
                if event.path.ends_with(name.as_bytes()) && event.mode & 3 != 0 && event.refused == refused)
        }
    };
    node.wait_for("the refusal", written("kernel/ftrace_enabled", true));
    node.wait_for("a pattern", written("/proc/sys/kernel/core_pattern", false));
    node.wait_for("a program for modules", written("/proc/sys/kernel/modprobe", false));
    // Where the kernel has it; a line that is no format is refused by it.
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap();
    if filesystems.contains("binfmt_misc") {
        session.run("unshare -m sh -c 'mount -t binfmt_misc none /mnt && echo no >/mnt/register'");
        node.wait_for("a kind of program", written("/register", false));
    }
    assert!(!node.records.iter().any(written("oom_score_adj", false)), "what processes are is no setting");
}

#[test]
fn what_is_made_under_a_watched_path_is_watched_and_what_it_was_before_too() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("watched"), folder.path().join("moved"));
    std::fs::create_dir(&path).unwrap();
    let mut options = options();
    options.watched = vec![path.clone()];
    let mut node = Node::with(options);
    let mut session = node.session();
    if !node.has("file open") {
        return;
    }
    std::fs::rename(&path, &moved).unwrap();
    std::fs::create_dir(&path).unwrap();
    let watched = Watched::look(std::slice::from_ref(&path), &[]).unwrap();
    node.sensor().watch(&watched).unwrap();
    for at in [&path, &moved] {
        let file = at.join("file");
        session.run(&format!(": >{}", file.display()));
        node.wait_for(
            "the file",
            |record| matches!(record, Record::FileOpened(event) if is_at(&file)(event)),
        );
    }
}
