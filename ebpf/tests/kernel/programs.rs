//! Programs that may not be run, and files that may not be touched.

use crate::node::{Node, POLICY, Session, next};
use custody_node::sensor::{
    AllowList, Denial, FileEvent, FileRules, Found, PathRule, PolicyRules, Record, Tier, Tried,
};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    std::fs::File::create(path)?.write_all(text.as_ref())
}

/// A folder with a program of its own, `program`: a copy of echo.
struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Ground {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy("/bin/echo", folder.path().join("program")).unwrap();
        Ground { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A script that says its own name, run by `interpreter`.
    fn script(&self, name: &str, interpreter: &Path) -> PathBuf {
        let path = self.at(name);
        write(&path, format!("#!{}\necho said\n", interpreter.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }
}

fn denied_program(path: &Path) -> FileRules {
    FileRules { denied_programs: vec![PathRule { id: 1, path: path.to_owned() }], ..FileRules::default() }
}

fn denied_path(path: &Path) -> FileRules {
    FileRules { denied_paths: vec![PathRule { id: 2, path: path.to_owned() }], ..FileRules::default() }
}

fn allowed(lists: &[&[&Path]]) -> FileRules {
    let list = |(index, paths): (usize, &&[&Path])| AllowList {
        id: 10 + u32::try_from(index).unwrap(),
        paths: paths.iter().map(|path| path.to_path_buf()).collect(),
    };
    FileRules { allowed_programs: lists.iter().enumerate().map(list).collect(), ..FileRules::default() }
}

/// A session under rules of its own; it has the policy's number.
fn session_under(node: &mut Node, files: FileRules) -> (Session, u32) {
    let policy = POLICY + 1 + next();
    set(node, policy, files);
    (node.session_at(LOOPBACK, LOOPBACK, policy), policy)
}

fn set(node: &mut Node, policy: u32, files: FileRules) {
    node.sensor().set_policy(policy, &PolicyRules { files, ..PolicyRules::default() }).unwrap();
}

/// Why programs were refused so far.
fn refusals(records: &[Record]) -> Vec<Denial> {
    let refusal = |record: &Record| match record {
        Record::Executed(executed) => executed.denial,
        Record::ExecRefused(refused) => Some(refused.denial),
        _ => None,
    };
    records.iter().filter_map(refusal).collect()
}

/// Whether a program of the session runs: it prints `said`.
fn says(session: &mut Session, line: &str) -> bool {
    session.run(&format!("{line} said 2>/dev/null; true")).lines().any(|line| line == "said")
}

#[track_caller]
fn assert_refused(node: &mut Node, session: &mut Session, line: &str, why: Denial) {
    node.drain();
    node.records.clear();
    assert!(!says(session, line), "{line} ran");
    node.wait_until(line, |records| refusals(records).contains(&why).then_some(()));
}

fn is_lsm(node: &mut Node) -> bool {
    node.sensor().coverage().tier == Tier::Lsm
}

#[test]
fn a_denied_program_runs_by_none_of_its_names() {
    let ground = Ground::new();
    let mut node = Node::start();
    let program = ground.at("program");
    let (mut session, _) = session_under(&mut node, denied_program(&program));
    std::fs::hard_link(&program, ground.at("second")).unwrap();
    symlink(&program, ground.at("link")).unwrap();
    let at = ground.folder.path().display();
    std::fs::create_dir_all(ground.at("bound")).unwrap();
    std::fs::create_dir_all(ground.at("root/bin")).unwrap();
    for line in [
        format!("{at}/program"),
        format!("{at}/second"),
        format!("{at}/link"),
        format!("cd {at} && ./program"),
        format!("/proc/self/root{at}/program"),
        format!("unshare -m sh -c 'mount --bind {at} {at}/bound && exec {at}/bound/program said' x"),
        format!(
            "python3 -c \"import os; os.execve(os.open('{at}/program', os.O_RDONLY), ['x', 'said'], {{}})\""
        ),
    ] {
        assert_refused(&mut node, &mut session, &line, Denial::Rule(1));
    }
    // Under another name, and one of its old name.
    session.run(&format!("mv {at}/program {at}/moved; cp /bin/echo {at}/program"));
    assert_refused(&mut node, &mut session, &format!("{at}/moved"), Denial::Rule(1));
    assert_refused(&mut node, &mut session, &format!("{at}/program"), Denial::Rule(1));
    let found = Found::look(node.sensor().paths().iter().map(PathBuf::as_path));
    node.sensor().found(&found).unwrap();
    assert_refused(&mut node, &mut session, &format!("{at}/moved"), Denial::Rule(1));
    // A copy is another program, and what isn't denied runs.
    assert!(says(&mut session, &format!("cp /bin/echo {at}/copy && {at}/copy")));
    assert!(says(&mut session, "/bin/echo"));
    let mut other = node.session();
    assert!(says(&mut other, &format!("{at}/program")), "another session is let alone");
}

#[test]
fn a_directory_stands_for_all_below_it_whatever_it_is_called_and_what_comes_later() {
    let ground = Ground::new();
    let mut node = Node::start();
    let (inside, later) = (ground.at("inside"), ground.at("later"));
    std::fs::create_dir_all(inside.join("deep/er")).unwrap();
    std::fs::copy("/bin/echo", inside.join("deep/er/program")).unwrap();
    let rules = FileRules {
        denied_programs: [&inside, &later].map(|path| PathRule { id: 1, path: path.clone() }).to_vec(),
        ..FileRules::default()
    };
    let (mut session, _) = session_under(&mut node, rules);
    let at = ground.folder.path().display();
    assert_refused(&mut node, &mut session, &format!("{at}/inside/deep/er/program"), Denial::Rule(1));
    session.run(&format!("mv {at}/inside {at}/away"));
    assert_refused(&mut node, &mut session, &format!("{at}/away/deep/er/program"), Denial::Rule(1));
    session.run(&format!("mkdir {at}/later; cp /bin/echo {at}/later/program"));
    assert_refused(&mut node, &mut session, &format!("{at}/later/program"), Denial::Rule(1));
    // Deeper than any program that checks a few levels.
    session.run(&format!("cd {at}/later; for i in $(seq 70); do mkdir d; cd d; done; cp /bin/echo program"));
    assert_refused(&mut node, &mut session, "./program", Denial::Rule(1));
}

#[test]
fn a_script_is_its_file_and_what_runs_it() {
    let ground = Ground::new();
    let mut node = Node::start();
    std::fs::copy(std::fs::canonicalize("/bin/sh").unwrap(), ground.at("interpreter")).unwrap();
    let denied = ground.script("denied", Path::new("/bin/sh"));
    let free = ground.script("free", Path::new("/bin/sh"));
    let by_denied = ground.script("by-denied", &ground.at("interpreter"));
    let (mut session, policy) = session_under(&mut node, denied_program(&ground.at("interpreter")));
    assert!(says(&mut session, &free.display().to_string()), "no rule can speak of it");
    assert_refused(&mut node, &mut session, &by_denied.display().to_string(), Denial::Rule(1));
    set(&mut node, policy, denied_program(&denied));
    if is_lsm(&mut node) {
        assert_refused(&mut node, &mut session, &denied.display().to_string(), Denial::Rule(1));
        assert!(says(&mut session, &free.display().to_string()));
    } else {
        // There the kernel doesn't say which file a script was: none runs while one is denied.
        assert_refused(&mut node, &mut session, &denied.display().to_string(), Denial::Unresolved);
        assert_refused(&mut node, &mut session, &free.display().to_string(), Denial::Unresolved);
    }
    assert!(says(&mut session, "/bin/echo"));
}

#[test]
fn what_no_list_holds_does_not_run() {
    let ground = Ground::new();
    let mut node = Node::start();
    let at = ground.folder.path().display();
    let program = ground.at("program");
    let system = [Path::new("/usr"), Path::new("/bin"), Path::new("/lib")];
    let with = |more: &Path| system.into_iter().chain([more]).map(Path::to_owned).collect::<Vec<_>>();
    let (one, other) = (with(&program), with(ground.folder.path()));
    let one: Vec<&Path> = one.iter().map(PathBuf::as_path).collect();
    let other: Vec<&Path> = other.iter().map(PathBuf::as_path).collect();
    let (mut session, policy) = session_under(&mut node, allowed(&[&one, &other]));
    assert!(says(&mut session, "/bin/echo"));
    assert!(says(&mut session, &format!("{at}/program")));
    // In one of two lists.
    session.run(&format!("cp /bin/echo {at}/copy"));
    assert_refused(&mut node, &mut session, &format!("{at}/copy"), Denial::List(10));
    // Mounted over an allowed name.
    let over = format!("unshare -m sh -c 'mount --bind {at}/copy {at}/program && exec {at}/program said' x");
    assert_refused(&mut node, &mut session, &over, Denial::List(10));
    // No name leads to these.
    let memfd = "/usr/bin/python3 -c \"import os; fd = os.memfd_create('m'); os.write(fd, open('/bin/echo', 'rb').read()); os.execve(fd, ['x', 'said'], {})\"";
    assert_refused(&mut node, &mut session, memfd, Denial::List(10));
    let deleted = format!(
        "/usr/bin/python3 -c \"import os; fd = os.open('{at}/program', os.O_RDONLY); os.unlink('{at}/program'); os.execve(fd, ['x', 'said'], {{}})\""
    );
    assert_refused(&mut node, &mut session, &deleted, Denial::List(10));
    // Deny wins.
    let mut both = allowed(&[&one]);
    both.denied_programs = vec![PathRule { id: 1, path: "/bin/echo".into() }];
    set(&mut node, policy, both);
    assert_refused(&mut node, &mut session, "/bin/echo", Denial::Rule(1));
}

/// A mount, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: PathBuf) -> Mounted {
        std::fs::create_dir_all(&at).unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&at).status().unwrap().success());
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Whoever may have a namespace of mounts may mount it once more.
#[test]
fn what_is_mounted_below_a_denied_directory_does_not_run_from_elsewhere() {
    let ground = Ground::new();
    let disk = Mounted::new(ground.at("denied/disk"));
    std::fs::copy("/bin/echo", disk.0.join("program")).unwrap();
    let elsewhere = ground.at("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut node = Node::start();
    let (mut session, policy) = session_under(&mut node, FileRules::default());
    let (at, elsewhere) = (disk.0.display(), elsewhere.display());
    let line = format!("unshare -m sh -c 'mount --bind {at} {elsewhere} && exec {elsewhere}/program said' x");
    assert!(says(&mut session, &line));
    set(&mut node, policy, denied_program(&ground.at("denied")));
    assert_refused(&mut node, &mut session, &format!("{at}/program"), Denial::Rule(1));
    assert_refused(&mut node, &mut session, &line, Denial::Rule(1));
    assert!(says(&mut session, "/bin/echo"));
}

#[test]
fn rules_of_programs_change_while_a_session_runs_and_a_new_agent_keeps_them() {
    let ground = Ground::new();
    let mut node = Node::start();
    let program = ground.at("program");
    let at = ground.folder.path().display();
    let (mut session, policy) = session_under(&mut node, FileRules::default());
    let line = program.display().to_string();
    assert!(says(&mut session, &line));
    set(&mut node, policy, denied_program(&program));
    assert_refused(&mut node, &mut session, &line, Denial::Rule(1));
    session.run(&format!("mv {at}/program {at}/moved"));
    let options = node.abandon();
    let mut node = Node::with(options);
    assert_refused(&mut node, &mut session, &format!("{at}/moved"), Denial::Rule(1));
    set(&mut node, policy, denied_program(&program));
    assert_refused(&mut node, &mut session, &format!("{at}/moved"), Denial::Rule(1));
    set(&mut node, policy, FileRules::default());
    assert!(says(&mut session, &format!("{at}/moved")));
}

/// What was tried on files that are denied.
fn kept_from(records: &[Record]) -> Vec<&FileEvent> {
    let mut kept = Vec::new();
    for record in records {
        if let Record::FileDenied(event) = record {
            kept.push(event);
        }
    }
    kept
}

#[test]
fn a_denied_file_cannot_be_touched_by_any_way() {
    let ground = Ground::new();
    let mut node = Node::start();
    if !node.has("file create") || !node.has("file open") {
        return;
    }
    let at = ground.folder.path().display();
    std::fs::create_dir_all(ground.at("secret/deep")).unwrap();
    write(ground.at("secret/deep/file"), "hidden").unwrap();
    write(ground.at("free"), "free").unwrap();
    std::fs::hard_link(ground.at("secret/deep/file"), ground.at("second")).unwrap();
    std::fs::create_dir_all(ground.at("bound")).unwrap();
    let mut rules = denied_path(&ground.at("secret"));
    rules.denied_paths.push(PathRule { id: 2, path: ground.at("second") });
    rules.denied_paths.push(PathRule { id: 2, path: ground.at("none") });
    let (mut session, _) = session_under(&mut node, rules);
    symlink(ground.at("secret"), ground.at("link")).unwrap();
    let program = format!(
        "import ctypes, os, subprocess\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         at = '{at}'\n\
         file = at + '/secret/deep/file'\n\
         def c(name, *arguments):\n\
         \tif getattr(libc, name)(*arguments): raise OSError(ctypes.get_errno(), name)\n\
         tries = [\n\
         lambda: open(file), lambda: open(file, 'w'), lambda: open(at + '/link/deep/file'), lambda: open(at + '/second'),\n\
         lambda: open('/proc/self/root' + file), lambda: os.listdir(at + '/secret'), lambda: os.rename(file, at + '/x'),\n\
         lambda: os.rename(at + '/free', file), lambda: os.link(file, at + '/x'), lambda: os.unlink(file),\n\
         lambda: os.chmod(file, 0o600), lambda: os.chown(file, 0, 0), lambda: c('truncate', file.encode(), ctypes.c_long(1)),\n\
         lambda: open(at + '/secret/new', 'w'), lambda: os.mkdir(at + '/secret/new'), lambda: os.symlink('x', at + '/secret/new'),\n\
         lambda: os.mkfifo(at + '/secret/new'), lambda: os.rmdir(at + '/secret/deep'), lambda: open(at + '/none', 'w'),\n\
         lambda: os.rename(at + '/free', at + '/none'),\n\
         ]\n\
         for number, attempt in enumerate(tries):\n\
         \ttry: attempt()\n\
         \texcept OSError as error:\n\
         \t\tif error.errno == 1: continue\n\
         \t\tprint(number, error)\n\
         \telse: print(number, 'was done')\n\
         bind = 'mount --bind {at}/secret/deep/file {at}/bound-file; cat {at}/bound-file'\n\
         open(at + '/bound-file', 'w').close()\n\
         print(subprocess.run(['unshare', '-m', 'sh', '-c', bind], capture_output=True).stdout.decode(), end='')\n\
         os.rename(at + '/free', at + '/free2'); open(at + '/free2').read()"
    );
    assert_eq!(session.python(&program), "");
    // A directory above it gets another name.
    assert_eq!(
        session.run(&format!("mv {at}/secret {at}/away 2>/dev/null; cat {at}/away/deep/file 2>/dev/null")),
        ""
    );
    assert_eq!(std::fs::read_to_string(ground.at("secret/deep/file")).unwrap(), "hidden");
    for tried in [
        Tried::Open,
        Tried::Rename,
        Tried::Link,
        Tried::Delete,
        Tried::Mode,
        Tried::Owner,
        Tried::Truncate,
        Tried::Create,
    ] {
        node.wait_until(&format!("{tried:?}"), |records| {
            kept_from(records)
                .into_iter()
                .any(|event| event.denied == Some((tried, Denial::Rule(2))))
                .then_some(())
        });
    }
    let file = ground.at("secret/deep/file");
    assert!(kept_from(&node.records).iter().any(|event| event.path == file.as_os_str().as_encoded_bytes()));
    let mut other = node.session();
    assert_eq!(other.run(&format!("cat {}", file.display())), "hidden", "another session is let alone");
}

#[test]
fn a_denied_program_is_not_mapped_and_a_denied_socket_not_connected_to() {
    let ground = Ground::new();
    let mut node = Node::start();
    if !["program map deny", "unix connect", "unix datagram deny"].iter().all(|feature| node.has(feature)) {
        return;
    }
    let program = ground.at("program");
    let mut rules = denied_program(&program);
    rules.denied_paths = denied_path(&ground.at("socket")).denied_paths;
    let _daemon = std::os::unix::net::UnixListener::bind(ground.at("socket")).unwrap();
    rules.denied_paths.extend(denied_path(&ground.at("lines")).denied_paths);
    let _lines = std::os::unix::net::UnixDatagram::bind(ground.at("lines")).unwrap();
    let (mut session, _) = session_under(&mut node, rules);
    let loader = format!(
        "$(ls /lib64/ld-linux-*.so* /lib/ld-linux-*.so* 2>/dev/null | head -n 1) {}",
        program.display()
    );
    assert_refused(&mut node, &mut session, &loader, Denial::Rule(1));
    let connect = format!(
        "import socket\n\
         try: socket.socket(socket.AF_UNIX).connect('{}')\n\
         except OSError as error: print(error.errno)",
        ground.at("socket").display()
    );
    assert_eq!(session.python(&connect), "1");
    let send = format!(
        "import socket\n\
         try: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '{}')\n\
         except OSError as error: print(error.errno)",
        ground.at("lines").display()
    );
    assert_eq!(session.python(&send), "1", "a datagram");
    node.wait_until("the refusal", |records| {
        kept_from(records)
            .iter()
            .any(|event| event.denied == Some((Tried::Connect, Denial::Rule(2))))
            .then_some(())
    });
}
