//! Files by stock clients: each comes out through the proxy as straight to the same sshd, and the log knows what moved.
//! The numbers are those of the kinds of fault that other proxies had.

use custody_tests::process::{Said, run};
use custody_tests::servers::World;
use custody_tests::servers::custodyd::Entry;
use custody_tests::servers::files::{
    FILES, Way, client, events, every_request_has_one_end, make, now, of_type, run_in, sha256, ssh_line,
};
use custody_tests::wait::{self, DEADLINE};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const COUNT: usize = 200;

fn world() -> World {
    let world = World::start();
    world.policy("files", FILES);
    world
}

fn sftp(world: &World, way: Way, options: &[&str], folder: &Path, batch: &str) -> Said {
    let mut command = client(world, way, "sftp");
    command.args(options).args(["-b", "-", way.host()]);
    run_in(folder, &mut command, batch)
}

/// Path and hash of what moved one way, and that it was all of each file.
fn moved(entries: &[Entry], direction: &str) -> BTreeMap<String, String> {
    let completed = of_type(entries, "file.completed");
    let moved = completed.iter().filter(|event| event["data"][direction].is_object());
    let mut by_path = BTreeMap::new();
    for event in moved {
        let data = &event["data"];
        assert!(data[direction]["partial"].is_null(), "{data}");
        let name = data["name"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
        let path = format!("{}{name}", data["path"].as_str().unwrap());
        let hash = data[direction]["sha256"].as_str().unwrap().to_owned();
        assert!(by_path.insert(path.clone(), hash).is_none(), "{path} twice");
    }
    by_path
}

fn same_trees(one: &Path, other: &Path) {
    run(Command::new("diff").arg("-r").arg(one).arg(other), b"", DEADLINE).ok();
}

/// 11: all of them, once, by both protocols of scp and both ways.
#[test]
fn many_files_by_scp_are_one_event_each() {
    let world = world();
    let from = world.dir().join("from");
    let made = make(&from, COUNT);
    for protocol in ["-s", "-O"] {
        let up = world.dir().join(format!("up{protocol}"));
        std::fs::create_dir(&up).unwrap();
        let start = now(&world);
        let mut command = client(&world, Way::Proxied, "scp");
        command.args(["-q", "-r", protocol, "from"]).arg(format!("root@web-1.custody:{}", up.display()));
        run_in(world.dir(), &mut command, "").ok();
        same_trees(&from, &up.join("from"));
        let entries = events(&world, start);
        let wanted: BTreeMap<String, String> =
            made.iter().map(|(name, hash)| (format!("{}/from/{name}", up.display()), hash.clone())).collect();
        assert_eq!(moved(&entries, "written"), wanted, "{protocol}");
        assert!(of_type(&entries, "file.unparsed").is_empty());

        let down = world.dir().join(format!("down{protocol}"));
        std::fs::create_dir(&down).unwrap();
        let start = now(&world);
        let mut command = client(&world, Way::Proxied, "scp");
        command.args(["-q", "-r", protocol]).arg(format!("root@web-1.custody:{}", from.display())).arg(&down);
        run_in(world.dir(), &mut command, "").ok();
        same_trees(&from, &down.join("from"));
        let entries = events(&world, start);
        let wanted: BTreeMap<String, String> =
            made.iter().map(|(name, hash)| (format!("{}/{name}", from.display()), hash.clone())).collect();
        assert_eq!(moved(&entries, "read"), wanted, "{protocol}");
        if protocol == "-s" {
            every_request_has_one_end(&entries);
        }
    }
}

/// What happened, without what differs from run to run.
fn story(entries: &[Entry], folder: &Path) -> Vec<Value> {
    let folder = folder.display().to_string();
    let ends = entries
        .iter()
        .filter(|entry| matches!(entry.event["type"].as_str(), Some("file.completed" | "file.failed")));
    ends.map(|entry| {
        let data = &entry.event["data"];
        let short = |name: &str| data[name].as_str().unwrap_or_default().replace(&folder, "F");
        let status = data["status"].as_u64();
        json!([entry.event["outcome"], data["operation"], short("path"), short("to"), status])
    })
    .collect()
}

/// 9 and 11: the first thing that a fresh proxy sees is sftp, and it does all that sftp can.
#[test]
fn a_batch_of_sftp_is_told_change_by_change() {
    let world = world();
    let batch = "cd HERE\n\
                 put local\n\
                 rename local \"a b\"\n\
                 symlink \"a b\" link\n\
                 get link got\n\
                 ln \"a b\" hard\n\
                 chmod 600 hard\n\
                 mkdir inner\n\
                 rmdir inner\n\
                 rm hard\n\
                 -get missing\n\
                 ls -1\n";
    let mut said = Vec::new();
    for way in [Way::Proxied, Way::Direct] {
        let here = world.dir().join(format!("{way:?}"));
        let local = world.dir().join(format!("local-{way:?}"));
        for folder in [&here, &local] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(local.join("local"), "all work and no play").unwrap();
        let answer = sftp(&world, way, &[], &local, &batch.replace("HERE", here.to_str().unwrap()));
        let folder = here.display().to_string();
        said.push((answer.code, answer.text().replace(&folder, "F"), answer.err.replace(&folder, "F")));
        assert_eq!(std::fs::read_to_string(local.join("got")).unwrap(), "all work and no play");
        if way == Way::Proxied {
            let entries = events(&world, 0);
            let wanted = [
                json!(["success", "write", "F/local", "", null]),
                json!(["success", "rename", "F/local", "F/a b", null]),
                json!(["success", "symlink", "F/link", "a b", null]),
                json!(["success", "read", "F/link", "", null]),
                json!(["success", "hardlink", "F/a b", "F/hard", null]),
                json!(["success", "set-attributes", "F/hard", "", null]),
                json!(["success", "mkdir", "F/inner", "", null]),
                json!(["success", "rmdir", "F/inner", "", null]),
                json!(["success", "remove", "F/hard", "", null]),
            ];
            let story = story(&entries, &here);
            assert_eq!(story[..wanted.len()], wanted, "{story:?}");
            assert!(of_type(&entries, "file.unparsed").is_empty());
            every_request_has_one_end(&entries);
            let hash = sha256(&local.join("local"));
            let of = |direction| moved(&entries, direction).into_values().collect::<Vec<_>>();
            assert_eq!((of("written"), of("read")), (vec![hash.clone()], vec![hash]));
            let modes = of_type(&entries, "file.requested");
            let chmod = modes.iter().find(|e| e["data"]["operation"] == "set-attributes").unwrap();
            assert_eq!(chmod["data"]["attributes"]["mode"], "0600");
        }
    }
    assert_eq!(said[0], said[1]);
}

/// A failed open is told by the target's own status, and so is a write that fails later.
#[test]
fn failures_are_events_with_the_targets_status() {
    let world = world();
    std::fs::write(world.dir().join("x"), vec![7; 100_000]).unwrap();
    for (batch, operation, status) in [
        ("get /no/such/file\n", "read", Some(2)),
        ("put x /sys/custody-test\n", "write", None),
        ("put x /dev/full\n", "write", Some(4)),
        ("rm /no/such/file\n", "remove", Some(2)),
    ] {
        let start = now(&world);
        let direct = sftp(&world, Way::Direct, &[], world.dir(), batch);
        let proxied = sftp(&world, Way::Proxied, &[], world.dir(), batch);
        assert_eq!((proxied.code, proxied.err), (direct.code, direct.err), "{batch}");
        assert_ne!(proxied.code, 0);
        if batch.starts_with("get") || batch.starts_with("rm") {
            // OpenSSH's client asks whether the name is there, and goes no further.
            continue;
        }
        let entries = events(&world, start);
        every_request_has_one_end(&entries);
        let failed = of_type(&entries, "file.failed");
        assert_eq!(failed.len(), 1, "{batch}: {failed:?}");
        assert_eq!(failed[0]["data"]["operation"], operation);
        let told = failed[0]["data"]["status"].as_u64();
        assert!(told.is_some_and(|told| status.is_none_or(|status| status == told)), "{batch}: {told:?}");
    }
}

/// 11: many large requests at once are still one event, with the hash of the whole; a part is marked.
#[test]
fn requests_ahead_are_one_piece_and_parts_are_marked() {
    let world = world();
    let file = world.dir().join("large");
    let make = format!("head -c 40M /dev/urandom >{}", file.display());
    run(Command::new("bash").args(["-c", &make]), b"", DEADLINE).ok();
    let hash = sha256(&file);
    let start = now(&world);
    let batch = format!("put large {0}/put\nget {0}/put got\n", world.dir().display());
    sftp(&world, Way::Proxied, &["-R", "256", "-B", "262000"], world.dir(), &batch).ok();
    assert_eq!(sha256(&world.dir().join("got")), hash);
    let entries = events(&world, start);
    let put = format!("{}/put", world.dir().display());
    let wanted = BTreeMap::from([(put, hash)]);
    assert_eq!(moved(&entries, "written"), wanted);
    assert_eq!(moved(&entries, "read"), wanted);

    let part = world.dir().join("part");
    let begin = format!("head -c 1000000 {} >{}", file.display(), part.display());
    run(Command::new("bash").args(["-c", &begin]), b"", DEADLINE).ok();
    let start = now(&world);
    sftp(&world, Way::Proxied, &[], world.dir(), &format!("reget {0}/large part\n", world.dir().display()))
        .ok();
    same_trees(&file, &part);
    let entries = events(&world, start);
    let read = &of_type(&entries, "file.completed")[0]["data"]["read"];
    assert_eq!(read["partial"], true);
    assert_eq!(
        (read["offset"].as_u64(), read["bytes"].as_u64()),
        (Some(1_000_000), Some((40 << 20) - 1_000_000))
    );
}

/// 3: rsync and git are told by their commands, with what went each way.
#[test]
fn rsync_and_git_are_told_by_their_commands() {
    let world = world();
    let from = world.dir().join("from");
    make(&from, 50);
    let to = world.dir().join("to");
    let mut rsync = Command::new("rsync");
    rsync.arg("-a").arg("-e").arg(ssh_line(&world, Way::Proxied));
    rsync.arg(format!("{}/", from.display())).arg(format!("root@web-1.custody:{}/", to.display()));
    run_in(world.dir(), &mut rsync, "").ok();
    same_trees(&from, &to);
    let completed = world.event("type=command.completed", "rsync has ended", |_| true);
    assert!(completed.event["data"]["bytes_in"].as_u64().unwrap() > 10_000);
    assert_eq!(completed.event["data"]["input_sha256"].as_str().map(str::len), Some(64));

    let (bare, clone) = (world.dir().join("bare.git"), world.dir().join("clone"));
    let url = format!("ssh://root@web-1.custody{}", bare.display());
    let script = format!(
        "set -e; git init -q --bare {bare}; git clone -q {url} {clone}; cd {clone}; head -c 100000 /dev/urandom >x; \
         git add x; git -c user.name=t -c user.email=t@example.com commit -qm one; git push -q origin HEAD:main; \
         git clone -q -b main {url} ../again; cmp x ../again/x",
        bare = bare.display(),
        clone = clone.display()
    );
    let mut git = Command::new("bash");
    git.args(["-c", &script]).env("GIT_SSH_COMMAND", ssh_line(&world, Way::Proxied));
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("SSH_AUTH_SOCK");
    run(&mut git, b"", Duration::from_secs(60)).ok();
    let asked = world.entries("type=command.requested");
    let push =
        asked.iter().find(|e| e.event["data"]["command"].as_str().unwrap().starts_with("git-receive-pack"));
    let push = push.expect("the push is told").event["id"].clone();
    let ended = world.event("type=command.completed", "the push has ended", |e| e.event["cause"] == push);
    assert!(ended.event["data"]["bytes_in"].as_u64().unwrap() > 100_000);
    assert_eq!(ended.event["data"]["input_sha256"].as_str().map(str::len), Some(64));
}

/// 10: a shell by another name is recorded like any other, and the events say that it isn't scp.
#[test]
fn a_shell_behind_scp_is_recorded() {
    let world = world();
    let start = now(&world);
    let said = world.ssh(&[], "scp -t /tmp/x </dev/null; read line; echo \"ran $line\"", b"hidden\n");
    assert!(said.text().ends_with("ran hidden\n"), "{}", said.text());
    let entries = events(&world, start);
    let unparsed = of_type(&entries, "file.unparsed");
    assert_eq!(unparsed.len(), 1, "{unparsed:?}");
    let session = unparsed[0]["session"].as_str().unwrap();
    let play = world.admin.custody(&["play", session]).text();
    assert!(play.contains("ran hidden"), "{play}");
}

/// What moved is no recording's matter: it is told from the events, each operation with its size, hash and outcome.
#[test]
fn a_session_that_moved_files_is_played_from_its_events() {
    let world = world();
    let file = world.dir().join("file");
    std::fs::write(&file, "moved").unwrap();
    let start = now(&world);
    let to = world.dir().join("to");
    let batch = format!("-put file {}\n-rm /nowhere/at/all\n", to.display());
    sftp(&world, Way::Proxied, &[], world.dir(), &batch).ok();
    let mut command = client(&world, Way::Proxied, "scp");
    command.args(["-q", "-O", "file", &format!("root@web-1.custody:{}", to.display())]);
    run_in(world.dir(), &mut command, "").ok();
    wait::until_true("both sessions have ended", DEADLINE, || {
        world.entries("type=session.ended").iter().filter(|entry| entry.index >= start).count() == 2
    });
    let entries = events(&world, start);
    let ends = of_type(&entries, "file.completed");
    let by = |protocol: &str| {
        let end = ends.iter().find(|event| event["data"]["protocol"] == protocol);
        end.unwrap_or_else(|| panic!("nothing by {protocol}"))["session"].as_str().unwrap().to_owned()
    };
    let wide =
        |arguments: &[&str]| world.admin.custody(arguments).text().split_whitespace().collect::<String>();
    let put = |name: &str| format!("write{}{name}5{}ok", to.display(), sha256(&file));
    let played = wide(&["play", &by("sftp")]);
    assert!(played.contains(&put("")), "{played}");
    assert!(played.contains("remove/nowhere/at/allNosuchfile"), "{played}");
    let listed = wide(&["play", "--files", &by("scp")]);
    assert!(listed.contains(&put("(sentasfile)")), "{listed}");
    let shown = world.ssh(&[], "true", b"").ok();
    assert!(shown.out.is_empty());
    let ended = world.event("type=session.ended", "the end", |entry| {
        entry.index > start && ![by("sftp"), by("scp")].contains(&entry.session().unwrap().to_owned())
    });
    let nothing = world.admin.try_custody(&["play", ended.session().unwrap()], b"");
    assert!(nothing.err.contains("Nothing was recorded of what this session showed"), "{}", nothing.err);
}

/// A password that a command is sent is in no event, not even as a hash that could be guessed.
#[test]
fn a_short_input_has_no_hash_and_a_long_one_has() {
    let world = world();
    for (input, told) in [(vec![b'x'; 1023], false), (vec![b'x'; 1024], true)] {
        let start = now(&world);
        world.ssh(&[], "cat >/dev/null", &input).ok();
        let ended = world.event("type=command.completed", "the command has ended", |e| e.index >= start);
        assert_eq!(ended.event["data"]["input_sha256"].is_string(), told);
    }
}

/// sshfs: a file system that opens, reads ahead, writes, renames as programs please.
#[test]
fn sshfs_works() {
    let world = world();
    let (there, here) = (world.dir().join("there"), world.dir().join("here"));
    std::fs::create_dir(&there).unwrap();
    std::fs::create_dir(&here).unwrap();
    let mut mount = Command::new("sshfs");
    mount.arg(format!("root@web-1.custody:{}", there.display())).arg(&here);
    mount.args(["-o", &format!("ssh_command={}", ssh_line(&world, Way::Proxied))]);
    run_in(world.dir(), &mut mount, "").ok();
    let script = format!(
        "cd {here} && head -c 3000000 /dev/urandom >a && cp a b && mv b 'c d' && cmp a 'c d' && mkdir e && ln -s a l && cat l | cmp - a && rm a l && rmdir e && ls",
        here = here.display()
    );
    let used = run(Command::new("bash").args(["-c", &script]), b"", Duration::from_secs(60));
    run(Command::new("fusermount3").arg("-u").arg(&here), b"", DEADLINE).ok();
    assert_eq!(used.ok().text(), "c d\n");
    let entries = events(&world, 0);
    every_request_has_one_end(&entries);
    assert!(of_type(&entries, "file.unparsed").is_empty());
    let hash = sha256(&there.join("c d"));
    let written = of_type(&entries, "file.completed");
    assert!(written.iter().any(|e| e["data"]["written"]["sha256"] == hash.as_str()), "{written:?}");
}
