//! What lies in a virtual machine: programs of this machine with their libraries, users, keys, and a sshd's
//! configuration.

use super::cpio::Archive;
use crate::process::run;
use crate::servers::sshd::keygen;
use crate::wait::DEADLINE;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that are the same as on this machine, by their names; busybox does for the others. What a test runs and
/// expects to see under its name is among these.
const PROGRAMS: &str = "base64 bash busybox cat chgrp chmod chown chroot cp curl cut dash date dd dirname echo env false \
    find getent grep head id kill ldd ln ls mkdir mkfifo mknod mktemp mount mv nc nohup printf ps pwd rm rmdir sed \
    seq setpriv setsid sh sleep sort ssh ssh-keygen sshd stat stty su sudo tail tee timeout tmux touch tr true \
    umount uname unshare wc";

/// Modules that are loaded, if this kernel has them as such: closing sockets of others (sock_diag), network devices for
/// namespaces, and overlayfs as containers have it.
const MODULES: [&str; 7] = ["tcp_diag", "udp_diag", "unix_diag", "veth", "dummy", "overlay", "sctp"];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n\
                      sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nalice:x:1000:\nnogroup:x:65534:\n";
/// Nobody has a password.
const SHADOW: &str = "root:*:19000::::::\nalice:*:19000::::::\nsshd:!:19000::::::\nnobody:*:19000::::::\n";
/// `/usr/sbin/sshd` in the machine is one with this; `ssh localhost` of root goes in.
const SSHD_CONFIG: &str = "HostKey /etc/ssh/ssh_host_ed25519_key\nUsePAM no\nPermitRootLogin yes\n\
                           PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\n\
                           Subsystem sftp internal-sftp\n";
const SSH_CONFIG: &str =
    "BatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n";

/// The base of each machine. Keys are made in `folder`; `modules` is the folder of the kernel's modules.
///
/// # Panics
/// When this machine lacks a program: `make setup` brings them.
#[must_use]
pub fn base(folder: &Path, modules: &Path) -> Archive {
    let mut archive = Archive::default();
    for name in ["bin", "sbin", "lib", "lib64"] {
        archive.link(name, &format!("usr/{name}"));
    }
    let empty = "dev proc sys tmp run root home/alice mnt opt usr/share var/tmp var/log var/empty usr/bin usr/sbin usr/lib64 usr/local/bin";
    empty.split_whitespace().for_each(|at| archive.directory(at));
    // The kernel opens it before anything is mounted.
    archive.device("dev/console", 5, 1);
    archive.file("init", include_str!("init.sh"), 0o755);
    for (at, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/ssh/sshd_config", SSHD_CONFIG),
        ("etc/ssh/ssh_config", SSH_CONFIG),
        ("etc/hosts", "127.0.0.1 localhost node\n::1 localhost\n"),
        ("etc/resolv.conf", ""),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ] {
        archive.file(at, text, 0o644);
    }
    archive.file("etc/shadow", SHADOW, 0o600);
    keys(&mut archive, folder);
    substitute_user(&mut archive);
    for name in PROGRAMS.split_whitespace() {
        let found = ["/usr/bin", "/usr/sbin"]
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.exists());
        let path = found.unwrap_or_else(|| panic!("{name} isn't installed: run `make setup` first"));
        program(&mut archive, &path);
    }
    // What knows letters beyond ASCII: tmux asks for it.
    let letters = "usr/lib/locale/C.utf8/LC_CTYPE";
    archive.copy(letters, &Path::new("/").join(letters));
    python(&mut archive);
    load(&mut archive, modules);
    archive
}

/// Adds the libraries that programs and libraries of this machine need.
///
/// # Panics
/// When ldd can't be run.
pub fn libraries(archive: &mut Archive, of: &[PathBuf]) {
    // It fails when one of them needs none, and tells of the others.
    let said = run(Command::new("ldd").args(of), b"", DEADLINE);
    // `\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `\t/lib64/ld-linux-x86-64.so.2 (0x…)`.
    let text = said.text();
    let paths: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .filter(|path| !path.ends_with(':'))
        .collect();
    for path in paths {
        archive.copy(&merged(path), Path::new(path));
    }
}

/// A program of this machine at the path where it is here, with its libraries. A link to a neighbour stays one.
fn program(archive: &mut Archive, path: &Path) {
    let target = path.canonicalize().expect("a program that is there");
    let at = path.to_str().expect("a path of ASCII");
    if target.parent() == path.parent() && target != path {
        archive.link(at, target.file_name().and_then(|name| name.to_str()).expect("a name of ASCII"));
        archive.copy(target.to_str().expect("a path of ASCII"), &target);
    } else {
        archive.copy(at, &target);
    }
    libraries(archive, &[target]);
}

/// Debian's Python with its standard library: escapes are easily written in it.
fn python(archive: &mut Archive) {
    let python = Path::new("/usr/bin/python3");
    program(archive, python);
    let mut ask = Command::new(python);
    ask.args(["-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]);
    let said = run(&mut ask, b"", DEADLINE).ok();
    let mut open = vec![PathBuf::from(said.text().trim())];
    let mut with_libraries = Vec::new();
    while let Some(folder) = open.pop() {
        for item in std::fs::read_dir(&folder).expect("Python's library").flatten() {
            let (path, name) = (item.path(), item.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() {
                let unused = [
                    "__pycache__",
                    "test",
                    "tests",
                    "idlelib",
                    "lib2to3",
                    "ensurepip",
                    "tkinter",
                    "pydoc_data",
                ];
                if !unused.contains(&&*name) && !name.starts_with("config-") {
                    open.push(path);
                }
            } else if path.exists() {
                archive.copy(path.to_str().expect("a path of ASCII"), &path);
                if name.ends_with(".so") {
                    with_libraries.push(path);
                }
            }
        }
    }
    libraries(archive, &with_libraries);
}

/// The host's key, and root's, which opens root's and alice's accounts.
fn keys(archive: &mut Archive, folder: &Path) {
    for (name, at) in [("host", "etc/ssh/ssh_host_ed25519_key"), ("root", "root/.ssh/id_ed25519")] {
        let file = folder.join(name);
        keygen(&["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file.to_str().expect("a path of ASCII")]);
        archive.file(at, std::fs::read(&file).expect("a key"), 0o600);
        let public = std::fs::read(file.with_extension("pub")).expect("a key");
        archive.file(&format!("{at}.pub"), public.clone(), 0o644);
        if name == "root" {
            archive.file("root/.ssh/authorized_keys", public.clone(), 0o644);
            archive.file("home/alice/.ssh/authorized_keys", public, 0o644);
        }
    }
}

/// What su(1) and sudo(8) ask: root becomes anybody, nobody else does.
fn substitute_user(archive: &mut Archive) {
    for name in ["su", "sudo"] {
        let rules =
            "auth required pam_rootok.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        archive.file(&format!("etc/pam.d/{name}"), rules, 0o644);
    }
    archive.file("etc/sudoers", "root ALL=(ALL:ALL) ALL\n", 0o440);
    let plugins = ["libsudo_util.so.0", "sudoers.so"].map(|name| Path::new("/usr/libexec/sudo").join(name));
    for path in &plugins {
        archive.copy(path.to_str().expect("a path of ASCII"), path);
    }
    libraries(archive, &plugins);
    for name in ["pam_rootok.so", "pam_permit.so"] {
        let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
        let found =
            folders.map(|folder| folder.path().join("security").join(name)).find(|path| path.exists());
        let path = found.unwrap_or_else(|| panic!("{name} isn't there, and is with every su"));
        archive.copy(path.to_str().expect("a path of ASCII"), &path);
        libraries(archive, &[path]);
    }
}

/// The modules, and a list of them in the order in which they can be loaded.
fn load(archive: &mut Archive, modules: &Path) {
    // `kernel/net/ipv4/tcp_diag.ko: kernel/net/ipv4/inet_diag.ko`: behind it what it needs, the first need last.
    let needs = std::fs::read_to_string(modules.join("modules.dep")).expect("modules.dep");
    let mut order: Vec<&str> = Vec::new();
    for name in MODULES {
        let file = format!("/{name}.ko");
        let Some((path, needed)) =
            needs.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| path.ends_with(&file))
        else {
            continue;
        };
        for path in needed.split_whitespace().rev().chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    for path in &order {
        archive.copy(&format!("usr/lib/modules/{path}"), &modules.join(path));
    }
    archive.file("etc/modules", order.iter().map(|path| format!("{path}\n")).collect::<String>(), 0o644);
}

/// Where a path lies now that /bin, /sbin and /lib are links into /usr.
pub fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let moved = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|folder| path.starts_with(folder));
    if moved { format!("usr/{path}") } else { path.to_owned() }
}
