//! Policy about files: what is denied is answered as the target would, never reaches it, and the session goes on.

use custody_tests::process::run;
use custody_tests::servers::files::{Way, client, events, now, of_type, run_in, sha256};
use custody_tests::servers::{World, python};
use custody_tests::wait::DEADLINE;
use std::fmt::Write as _;
use std::process::Command;

/// Reading everywhere but in `no`, writing in `yes` only.
fn policy(world: &World) {
    let folder = world.dir().display();
    world.policy(
        "files",
        &format!(
            r#"@id("sftp") permit(principal in Role::"operator", action == Action::"ssh:subsystem", resource)
when {{ context.subsystem == "sftp" }};
@id("files-read") permit(principal in Role::"operator", action == Action::"ssh:sftp-read", resource)
unless {{ context.path like "{folder}/no/*" }};
@id("files-write") permit(principal in Role::"operator", action == Action::"ssh:sftp-write", resource)
when {{ context.absolute && context.path like "{folder}/yes/*" }};
"#
        ),
    );
    for folder in ["yes", "no"] {
        std::fs::create_dir(world.dir().join(folder)).unwrap();
        std::fs::write(world.dir().join(folder).join("there"), folder).unwrap();
    }
}

#[test]
fn what_is_denied_never_reaches_the_target_and_the_session_goes_on() {
    let world = World::start();
    policy(&world);
    let large = world.dir().join("large");
    let make = format!("head -c 20M /dev/urandom >{}", large.display());
    run(Command::new("bash").args(["-c", &make]), b"", DEADLINE).ok();
    let folder = world.dir().display();
    let mut batch = format!("-put large {folder}/no/put\n-get {folder}/no/there got-no\n");
    // More than a window: one that lost the bytes that don't pass would be empty.
    for n in 0..1_500 {
        writeln!(batch, "-rename {folder}/yes/there {folder}/no/{}-{n}", "long".repeat(400)).unwrap();
    }
    write!(
        batch,
        "-symlink {folder}/no/there {folder}/yes/link\n-put large {folder}/yes/../no/put\nput large {folder}/yes/put\n\
         get {folder}/yes/put got\nget {folder}/yes/there got-yes\n"
    )
    .unwrap();
    let start = now(&world);
    let mut sftp = client(&world, Way::Proxied, "sftp");
    let said = run_in(world.dir(), sftp.args(["-b", "-", Way::Proxied.host()]), &batch);
    assert_eq!(said.code, 0, "{}\n{}", said.err, world.custodyd.output());
    assert!(said.err.contains("Permission denied") || said.err.contains("permission denied"), "{}", said.err);
    assert!(said.err.contains("custody: denied: "), "nobody said why: {}", said.err);
    assert_eq!(sha256(&world.dir().join("got")), sha256(&large));
    let names = |folder: &str| {
        let mut names: Vec<_> = std::fs::read_dir(world.dir().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!((names("yes"), names("no")), (vec!["put".into(), "there".into()], vec!["there".to_owned()]));
    let entries = events(&world, start);
    assert_eq!(of_type(&entries, "file.completed").len(), 3);
    let denied = world.entries("type=decision.made");
    let denied: Vec<_> = denied.iter().filter(|e| e.event["outcome"] == "denied").collect();
    assert_eq!(denied.len(), 1_504, "{:?}", denied.last());
    assert!(denied.iter().any(|e| e.event["data"]["context"]["path"] == format!("{folder}/no/put")));
}

/// Each name here is permitted, and each leads to a file that isn't: by a link that gets another name, and by one that is
/// stepped out of.
#[test]
fn a_link_that_is_moved_or_stepped_out_of_leads_to_nothing_else() {
    let world = World::start();
    policy(&world);
    std::fs::write(world.dir().join("mine"), "mine").unwrap();
    let yes = world.dir().join("yes").display().to_string();
    let batch = format!(
        "mkdir {yes}/a\n-symlink ../no/there {yes}/a/link\n-rename {yes}/a/link {yes}/link\n-put mine {yes}/link\n\
         mkdir {yes}/b\nmkdir {yes}/b/c\nsymlink {yes}/a {yes}/b/c/link\n-put mine {yes}/b/c/link/../../no/there\n"
    );
    let mut sftp = client(&world, Way::Proxied, "sftp");
    let said = run_in(world.dir(), sftp.args(["-b", "-", Way::Proxied.host()]), &batch);
    assert_eq!(said.code, 0, "{}\n{}", said.err, world.custodyd.output());
    assert_eq!(std::fs::read_to_string(world.dir().join("no/there")).unwrap(), "no");
    assert!(!world.dir().join("yes/link").is_symlink());
    let denied = world.entries("type=decision.made&outcome=denied");
    let denied: Vec<_> = denied.iter().map(|e| &e.event["data"]["context"]).collect();
    let paths: Vec<_> = denied.iter().map(|context| context["path"].as_str().unwrap()).collect();
    assert_eq!(paths, [format!("{yes}/no/there"), format!("{yes}/b/no/there")]);
    assert!(denied.iter().all(|context| context["absolute"] == false), "{denied:?}");
}

/// Answers of the proxy's stand between those of the target, though those are in full flow.
#[test]
fn a_client_that_does_much_at_once_gets_each_answer() {
    let world = World::start();
    policy(&world);
    for n in 0..20 {
        std::fs::write(world.dir().join(format!("yes/file-{n}")), vec![n; 1_000_000]).unwrap();
        std::fs::write(world.dir().join(format!("no/file-{n}")), "never").unwrap();
    }
    let (port, home) = (world.custodyd.ssh_port.to_string(), world.operator.dir.to_str().unwrap().to_owned());
    let said = python::run("asyncssh_denied.py", &[&port, &home, world.dir().to_str().unwrap()]);
    assert_eq!(said, "read 20 denied 200 written 20\n");
}

/// Without leave for the subsystem nothing begins; without leave for files nothing is touched.
#[test]
fn nothing_is_allowed_by_itself() {
    let world = World::start();
    let get = |folder: &std::path::Path| {
        let mut sftp = client(&world, Way::Proxied, "sftp");
        run_in(folder, sftp.args(["-b", "-", Way::Proxied.host()]), "get /etc/hostname\n")
    };
    let said = get(world.dir());
    assert!(said.code != 0 && said.err.contains("no policy allows bob to ssh:subsystem"), "{}", said.err);
    assert!(!world.web.log().contains("subsystem request"), "the target heard of it");
    world.policy(
        "files",
        r#"@id("sftp") permit(principal in Role::"operator", action == Action::"ssh:subsystem", resource);"#,
    );
    let said = get(world.dir());
    assert!(said.code != 0 && said.err.contains("no policy allows bob to ssh:sftp-read"), "{}", said.err);
    assert!(!world.dir().join("hostname").exists());
    assert!(world.entries("type=file.requested").is_empty());
    let denied = world.entries("type=decision.made&outcome=denied");
    let played = world.admin.custody(&["play", "--files", denied.last().unwrap().session().unwrap()]).text();
    let played: String = played.split_whitespace().collect();
    assert!(played.contains("read/etc/hostnamedenied:"), "{played}");
}
