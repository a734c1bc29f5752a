//! Files by clients that aren't OpenSSH, and by ones that don't even speak SFTP.

use custody_tests::process::run;
use custody_tests::servers::files::{
    FILES, events, every_request_has_one_end, of_type, sha256, went_both_ways,
};
use custody_tests::servers::{World, python};
use custody_tests::wait::DEADLINE;
use std::process::Command;

fn moves(script: &str) {
    let world = World::start();
    world.policy("files", FILES);
    let file = world.dir().join("file");
    let make = format!("head -c 8M /dev/urandom >{}", file.display());
    run(Command::new("bash").args(["-c", &make]), b"", DEADLINE).ok();
    let (port, home) = (world.custodyd.ssh_port.to_string(), world.operator.dir.to_str().unwrap().to_owned());
    let said = python::run(script, &[&port, &home, world.dir().to_str().unwrap()]);
    assert_eq!(said, "equal\nmissing\nlisted\n");
    let hash = sha256(&file);
    let entries = events(&world, 0);
    every_request_has_one_end(&entries);
    assert!(of_type(&entries, "file.unparsed").is_empty());
    went_both_ways(&entries, &hash);
    let completed = of_type(&entries, "file.completed");
    let failed = of_type(&entries, "file.failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["data"]["status"], 2);
    assert!(completed.iter().any(|e| e["data"]["operation"] == "list"));
}

/// paramiko asks for the whole file before the first answer comes.
#[test]
fn paramiko_moves_files() {
    moves("paramiko_files.py");
}

#[test]
fn asyncssh_moves_files() {
    moves("asyncssh_files.py");
}

/// What isn't SFTP passes as it is, and is said.
#[test]
fn what_is_no_sftp_passes_and_is_said() {
    let world = World::start();
    world.policy("files", FILES);
    let said = |direct: bool| {
        let mut ssh = if direct { world.web.direct() } else { world.proxied() };
        ssh.args(["-s", if direct { "root@127.0.0.1" } else { "root@web-1.custody" }, "sftp"]);
        run(&mut ssh, b"GET / HTTP/1.1\r\n\r\n", DEADLINE)
    };
    let (proxied, direct) = (said(false), said(true));
    assert_eq!((proxied.code, proxied.out), (direct.code, direct.out));
    let entries = events(&world, 0);
    assert_eq!(of_type(&entries, "file.unparsed").len(), 1);
}
