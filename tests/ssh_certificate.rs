//! What a person's certificate forces or withholds counts on each kind of channel, whatever policy says.

use super::ssh_refused::forged;
use custody_tests::process::{Said, run};
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::servers::files::{FILES, sha256};
use custody_tests::servers::sshd::path;
use custody_tests::wait::DEADLINE;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// The include of bob's login, with a certificate of our own in the place of his.
fn with(world: &World, program: &str, key: &Path, arguments: &[&str], input: &[u8]) -> Said {
    let config = std::fs::read_to_string(world.operator.dir.join("ssh_config")).unwrap();
    let other = config
        .lines()
        .filter(|line| !line.contains("IdentityFile") && !line.contains("CertificateFile"))
        .fold(String::new(), |text, line| text + line + "\n");
    let file = key.with_extension("config");
    std::fs::write(&file, other).unwrap();
    let mut command = Command::new(program);
    command.arg("-F").arg(&file).args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-i", path(key)]);
    run(command.args(arguments).env_remove("SSH_AUTH_SOCK").current_dir(world.dir()), input, DEADLINE)
}

fn bobs(world: &World, name: &str, options: &[&str]) -> std::path::PathBuf {
    let ca = world.custodyd.data().join(layout::CLIENT_CA_KEY);
    forged(world, name, &ca, &[&["-n", "bob", "-V", "-5m:+1h"], options].concat())
}

/// Whatever is asked for, the one command runs: that is what is decided and told, beside what was asked for.
#[test]
fn a_forced_command_runs_in_the_place_of_any_other() {
    let world = World::start();
    world.policy("files", FILES);
    let command = "echo forced instead of: $SSH_ORIGINAL_COMMAND";
    let key = bobs(&world, "forced", &["-O", &format!("force-command={command}")]);
    let ssh =
        |arguments: &[&str]| with(&world, "ssh", &key, &[&["root@web-1.custody"], arguments].concat(), b"");
    assert_eq!(ssh(&["cat /etc/shadow"]).ok().text(), "forced instead of: cat /etc/shadow\n");
    assert_eq!(ssh(&[]).ok().text(), "forced instead of:\n");
    let sftp = with(&world, "sftp", &key, &["-b", "-", "root@web-1.custody"], b"pwd\n");
    assert_ne!(sftp.code, 0, "echo speaks no sftp");
    let asked = [
        json!({"command": "cat /etc/shadow", "kind": "exec"}),
        json!({"kind": "shell"}),
        json!({"command": "sftp", "kind": "subsystem"}),
    ];
    let requested = world.entries("type=command.requested");
    assert_eq!(requested.len(), asked.len());
    for (entry, asked) in requested.iter().zip(asked) {
        let data = &entry.event["data"];
        assert_eq!(
            (&data["command"], &data["kind"], &data["asked"]),
            (&json!(command), &json!("exec"), &asked)
        );
    }
    let decided = world.entries("type=decision.made");
    let decided = decided.iter().filter(|e| e.event["data"]["action"] == "ssh:exec");
    assert!(
        decided.clone().count() == 3
            && decided.clone().all(|e| e.event["data"]["context"]["command"] == command)
    );
    // The target's server was told, too: it would refuse anything else by itself.
    assert!(world.web.log().contains("forced-command"), "{}", world.web.log());
}

/// A certificate for files alone.
#[test]
fn a_certificate_for_sftp_alone_moves_files_and_they_are_told() {
    let world = World::start();
    world.policy("files", FILES);
    let key = bobs(&world, "sftp", &["-O", "force-command=internal-sftp"]);
    let file = world.dir().join("file");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    let batch = format!("put file {0}/there\nget {0}/there back\n", world.dir().display());
    with(&world, "sftp", &key, &["-b", "-", "root@web-1.custody"], batch.as_bytes()).ok();
    assert_eq!(sha256(&world.dir().join("back")), sha256(&file));
    let completed =
        world.event("type=file.completed", "the upload is told", |e| e.event["data"]["written"].is_object());
    assert_eq!(completed.event["data"]["written"]["sha256"], sha256(&file));
    // It is told file by file. A hash of all that the client said would be of more than reached the program.
    let ended = world.event("type=command.completed", "sftp has ended", |_| true);
    assert!(ended.event["data"]["bytes_in"].as_u64() > Some(100_000), "{}", ended.line);
    assert!(ended.event["data"]["input_sha256"].is_null(), "{}", ended.line);
    let said = with(&world, "ssh", &key, &["root@web-1.custody", "id"], b"");
    assert!(!said.text().contains("uid="), "{}", said.text());
}

/// Without its extensions a certificate gives no terminal, no forward, no agent and no window.
#[test]
fn what_a_certificate_does_not_permit_no_channel_gets() {
    let world = World::start();
    let key = bobs(&world, "bare", &["-O", "clear"]);
    let ssh = |arguments: &[&str]| with(&world, "ssh", &key, arguments, b"");
    assert_eq!(ssh(&["root@web-1.custody", "echo plain"]).ok().text(), "plain\n");
    let terminal = ssh(&["-tt", "root@web-1.custody", "tty"]);
    assert!(terminal.text().contains("not a tty") || terminal.code == 255, "{}", terminal.text());
    let forward = ssh(&["-W", &format!("127.0.0.1:{}", world.web.port), "root@web-1.custody"]);
    assert_eq!(forward.code, 255, "{}", forward.err);
    let refused = world.event("type=connection.refused", "the refusal is told", |_| true);
    assert_eq!(refused.event["data"]["reason"], "your certificate permits no port forwarding");
}
