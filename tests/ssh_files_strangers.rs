//! Files by clients that aren't OpenSSH, by ones that say things in another way, and by ones that don't even speak SFTP.

use custody_tests::process::run;
use custody_tests::servers::files::{
    FILES, events, every_request_has_one_end, of_type, sha256, went_both_ways,
};
use custody_tests::servers::{World, golang, python};
use custody_tests::wait::DEADLINE;
use russh::keys::{PublicKeyOrCertificate, load_openssh_certificate, load_secret_key};
use russh::{Channel, ChannelMsg, client};
use std::process::Command;
use std::sync::Arc;

fn moves(client: impl FnOnce(&[&str]) -> String) {
    let world = World::start();
    world.policy("files", FILES);
    let file = world.dir().join("file");
    let make = format!("head -c 8M /dev/urandom >{}", file.display());
    run(Command::new("bash").args(["-c", &make]), b"", DEADLINE).ok();
    let (port, home) = (world.custodyd.ssh_port.to_string(), world.operator.dir.to_str().unwrap().to_owned());
    let said = client(&[&port, &home, world.dir().to_str().unwrap()]);
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
    moves(|arguments| python::run("paramiko_files.py", arguments));
}

/// It goes on asking after it has closed a file; the next one may have the same handle by then.
#[test]
fn paramiko_abandons_files_that_it_reads_ahead() {
    let world = World::start();
    world.policy("files", FILES);
    std::fs::write(world.dir().join("file"), vec![7; 4 << 20]).unwrap();
    std::fs::write(world.dir().join("small"), "small").unwrap();
    let (port, home) = (world.custodyd.ssh_port.to_string(), world.operator.dir.to_str().unwrap().to_owned());
    let said = python::run("paramiko_abandoned.py", &[&port, &home, world.dir().to_str().unwrap()]);
    assert_eq!(said, "read\n");
    let entries = events(&world, 0);
    every_request_has_one_end(&entries);
    assert!(of_type(&entries, "file.unparsed").is_empty());
    assert_eq!(of_type(&entries, "file.completed").len(), 40);
}

#[test]
fn asyncssh_moves_files() {
    moves(|arguments| python::run("asyncssh_files.py", arguments));
}

/// Its writes and reads are under way by the dozen, in any order.
#[test]
fn pkg_sftp_moves_files() {
    moves(|arguments| run(golang::ssh_client().args(arguments), b"", DEADLINE).ok().text());
}

/// What isn't SFTP can't be decided: it ends with a line that says so, and nothing of it reaches the target.
#[test]
fn what_is_no_sftp_ends_and_is_said() {
    let world = World::start();
    world.policy("files", FILES);
    let mut ssh = world.proxied();
    let said = run(ssh.args(["-s", "root@web-1.custody", "sftp"]), b"GET / HTTP/1.1\r\n\r\n", DEADLINE);
    assert_eq!((said.code, said.text().as_str()), (126, ""), "{}", said.err);
    assert!(said.err.contains("custody: this isn't understood as SFTP"), "{}", said.err);
    let entries = events(&world, 0);
    assert_eq!(of_type(&entries, "file.unparsed").len(), 1);
}

/// OpenSSH takes `sftp` with a zero byte behind it for `sftp`, and so must whoever judges what passes there.
#[test]
fn a_zero_byte_behind_the_name_of_sftp_hides_no_file() {
    let world = World::start();
    world.policy("files", FILES);
    let (from, to) = (world.dir().join("file"), world.dir().join("put"));
    std::fs::write(&from, vec![7; 100_000]).unwrap();
    let (port, home) = (world.custodyd.ssh_port.to_string(), world.operator.dir.to_str().unwrap().to_owned());
    let put = || python::run("paramiko_zero_byte.py", &[&port, &home, world.dir().to_str().unwrap()]);
    assert_eq!(put(), "put\n");
    let entries = events(&world, 0);
    every_request_has_one_end(&entries);
    let requested = of_type(&entries, "file.requested");
    assert_eq!(requested.len(), 1, "{requested:?}");
    assert_eq!(requested[0]["data"]["path"], to.to_str().unwrap());
    let completed = of_type(&entries, "file.completed");
    assert_eq!(completed[0]["data"]["written"]["sha256"], sha256(&from));
    assert_eq!(world.entries("type=command.requested")[0].event["data"]["command"], "sftp");

    std::fs::remove_file(&to).unwrap();
    world.policy(
        "files",
        r#"@id("sftp") permit(principal in Role::"operator", action == Action::"ssh:subsystem", resource)
when { context.subsystem == "sftp" };
"#,
    );
    let said = put();
    assert!(said.contains("custody: denied: no policy allows bob to ssh:sftp-write"), "{said}");
    assert!(!to.exists());
}

/// Takes whatever host key is shown: the keys have tests of their own.
struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Waits for the answer to a request.
async fn answer(channel: &mut Channel<client::Msg>) -> bool {
    loop {
        match channel.wait().await.expect("an answer") {
            ChannelMsg::Success => return true,
            ChannelMsg::Failure => return false,
            _ => {}
        }
    }
}

/// Sends something to `scp -t`, and waits for its word that all is well.
async fn scp(channel: &mut Channel<client::Msg>, sent: &[u8]) {
    channel.data(sent).await.unwrap();
    loop {
        if let ChannelMsg::Data { data } = channel.wait().await.expect("a word of scp's") {
            assert_eq!(&data[..], b"\0");
            return;
        }
    }
}

/// A terminal that the target refuses hides neither scp's files nor hashes. Nor does a zero byte at the end of the command,
/// as libssh2 sent it for years.
#[test]
fn a_terminal_that_is_never_given_hides_no_file() {
    let world = World::start_with(&["PermitTTY no"]);
    // The file's name, whether the client waits until it knows that it gets no terminal, the end of its command.
    let cases = [("one", true, ""), ("two", false, ""), ("three", true, "\0")];
    let there = |name: &str| world.dir().join(name).display().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let home = &world.operator.dir;
        let key = Arc::new(load_secret_key(home.join("id"), None).unwrap());
        let certificate = load_openssh_certificate(home.join("id-cert.pub")).unwrap();
        let (config, address) = (Arc::new(client::Config::default()), ("127.0.0.1", world.custodyd.ssh_port));
        let mut handle = client::connect(config, address, AnyHost).await.unwrap();
        let outcome = handle.authenticate_openssh_cert("root+web-1", key, certificate).await.unwrap();
        assert!(outcome.success(), "{outcome:?}");
        for (name, waits, end) in cases {
            let mut channel = handle.channel_open_session().await.unwrap();
            channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
            let mut refused = waits && !answer(&mut channel).await;
            channel.exec(true, format!("scp -t {}{end}", there(name))).await.unwrap();
            refused |= !waits && !answer(&mut channel).await;
            assert!(refused, "a terminal in spite of PermitTTY");
            assert!(answer(&mut channel).await, "scp doesn't run");
            scp(&mut channel, b"").await;
            scp(&mut channel, b"C0644 5000 sent\n").await;
            scp(&mut channel, &[vec![7_u8; 5000], vec![0]].concat()).await;
            channel.eof().await.unwrap();
            let mut status = None;
            while let Some(message) = channel.wait().await {
                if let ChannelMsg::ExitStatus { exit_status } = message {
                    status = Some(exit_status);
                }
            }
            assert_eq!(status, Some(0));
        }
    });
    drop(runtime);
    for (name, waits, _) in cases {
        let command = format!("scp -t {}", there(name));
        let asked = world.event("type=command.requested", "it was asked for", |e| {
            e.event["data"]["command"] == command.as_str()
        });
        if waits {
            assert_eq!(asked.event["data"]["terminal"], false, "the target's answer is known by then");
        }
        let told =
            world.event("type=file.completed", "the file is told", |e| e.event["cause"] == asked.event["id"]);
        assert_eq!(told.event["data"]["written"]["sha256"], sha256(&world.dir().join(name)));
        let ended =
            world.event("type=command.completed", "scp has ended", |e| e.event["cause"] == asked.event["id"]);
        assert_eq!(ended.event["data"]["input_sha256"].as_str().map(str::len), Some(64));
    }
}
