//! Restrictions of programs and files: real sessions through the proxy, held by the kernel of a node with an agent.

use custody_tests::process::run;
use custody_tests::servers::{Agent, World};
use custody_tests::wait::DEADLINE;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A world whose target `web-1` is watched by tracepoints, which any kernel has, and has to be.
fn watched() -> (World, Agent) {
    let world = World::start();
    world.demand_agent("required");
    let mut agent = Agent::join(&world, "web-1", "tier = \"tracepoint\"\n");
    agent.start(&world);
    (world, agent)
}

#[test]
fn a_denied_program_does_not_run_and_may_end_the_session() {
    let (world, _agent) = watched();
    world.restrict("no-id", &["--deny-program", "/usr/bin/id,/usr/bin/whoami"]);
    let listed = world.admin.custody(&["restrict", "ls"]).text();
    assert!(listed.contains("/usr/bin/id") && listed.contains("no-id"), "{listed}");
    let said = world.ssh(&[], "cd /usr/bin; ./id; echo after; exec /proc/self/root/usr/bin/whoami", b"");
    assert_eq!(said.text(), "after\n", "{}", said.err);
    assert_ne!(said.code, 0);
    let denied =
        world.event("type=command.denied", "the refusal is told", |e| e.event["data"]["given"] == "./id");
    let data = &denied.event["data"];
    assert_eq!((&data["restriction"], &data["reason"]), (&"no-id".into(), &"denied".into()), "{data}");
    assert_eq!((&data["path"], &data["arguments"][0]), (&"/usr/bin/id".into(), &"./id".into()), "{data}");
    assert_eq!((&denied.event["outcome"], &denied.event["actor"]["user"]), (&"denied".into(), &"bob".into()));
    world.admin.custody(&["restrict", "rm", "no-id"]);
    let said = world.ssh(&[], "id -u", b"");
    assert_eq!(said.text(), "0\n", "{}", said.err);

    // In a session that is live already, which then ends for it.
    let mut live = world.proxied();
    live.arg("root@web-1.custody").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut live = live.spawn().unwrap();
    let mut shell = live.stdin.take().unwrap();
    shell.write_all(b"uname\n").unwrap();
    world.event("type=command.executed", "the shell runs", |e| e.event["data"]["arguments"][0] == "uname");
    world.restrict("strict", &["--deny-program", "/usr/bin/id", "--end-session"]);
    shell.write_all(b"while :; do id; sleep 0.2; done\n").unwrap();
    let denied =
        world.event("type=command.denied", "it is told", |e| e.event["data"]["restriction"] == "strict");
    let ended =
        world.event("type=session.ended", "the session ends", |e| e.event["data"]["reason"] == "terminated");
    assert_eq!(ended.event["cause"], denied.event["id"]);
    live.wait().unwrap();
}

#[test]
fn a_node_that_cannot_keep_files_gets_no_session_that_must_be_kept_from_them() {
    let (world, _agent) = watched();
    let mut live = world.proxied();
    live.arg("root@web-1.custody").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut live = live.spawn().unwrap();
    world.event("type=command.requested", "the shell runs", |e| e.event["data"]["kind"] == "shell");
    world.restrict("no-shadow", &["--deny-path", "/etc/shadow"]);
    let ended = world.event("type=session.ended", "the live session ends", |_| true);
    let made = world.event("type=restriction.created", "the restriction", |_| true);
    assert_eq!(ended.event["cause"], made.event["id"], "{}", ended.line);
    live.wait().unwrap();
    let said = world.ssh(&[], "true", b"");
    assert_ne!(said.code, 0);
    let why = "web-1 can't keep files from being opened: its kernel lacks BPF LSM";
    assert!(said.err.contains(why), "{}", said.err);
    let relative = ["restrict", "add", "x", "--user", "bob", "--reason", "r", "--deny-path", "etc"];
    let wrong = world.admin.try_custody(&relative, b"");
    assert!(wrong.code != 0 && wrong.err.contains("no absolute path"), "{}", wrong.err);
}

/// A btrfs of its own, mounted as long as this lives.
struct Btrfs(PathBuf);

impl Btrfs {
    fn mount(at: &Path) -> Self {
        let image = at.with_extension("image");
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        std::fs::create_dir(at).unwrap();
        let ok = |command: &mut Command| drop(run(command, b"", DEADLINE).ok());
        ok(Command::new("mkfs.btrfs").arg("-q").arg(&image));
        ok(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at));
        Self(at.to_owned())
    }

    /// Where stat(2) tells another device than the kernel has.
    fn subvolume(&self) -> PathBuf {
        let path = self.0.join("subvolume");
        drop(run(Command::new("btrfs").args(["subvolume", "create"]).arg(&path), b"", DEADLINE).ok());
        path
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_program_has_its_hash_on_a_file_system_that_tells_another_device() {
    let (world, _agent) = watched();
    let btrfs = Btrfs::mount(&world.dir().join("btrfs"));
    let program = btrfs.subvolume().join("program");
    std::fs::copy("/bin/true", &program).unwrap();
    let said = world.ssh(&[], program.to_str().unwrap(), b"");
    assert_eq!(said.code, 0, "{}", said.err);
    let told = world.event("type=command.executed", "it is told", |e| {
        e.event["data"]["given"] == program.to_str().unwrap()
    });
    let hash: String = Sha256::digest(std::fs::read("/bin/true").unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(told.event["data"]["executable"]["sha256"], hash, "{}", told.line);
}
