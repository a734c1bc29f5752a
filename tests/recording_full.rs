//! The level `full`: both ways are kept, and what went in is read by auditors alone.

use custody_tests::process::run;
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::servers::sshd::path;
use custody_tests::servers::world::OPERATORS;
use custody_tests::wait::{DEADLINE, until};
use std::path::{Path, PathBuf};
use std::process::Command;

const SECRET: &str = "typed where no echo betrays it";

/// An auditor's pair of keys, made by OpenSSL: the private one, and beside it the public one.
fn auditor(world: &World, name: &str) -> (PathBuf, PathBuf) {
    let (private, public) = (world.dir().join(name), world.dir().join(format!("{name}.pub")));
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments), b"", DEADLINE).ok();
    openssl(&["genpkey", "-algorithm", "X25519", "-out", path(&private)]);
    openssl(&["pkey", "-in", path(&private), "-pubout", "-out", path(&public)]);
    (private, public)
}

fn recorded_in_full(auditors: &[&Path], world: &mut World) {
    if !auditors.is_empty() {
        world.custodyd.stop();
        world.custodyd.configure_recording(&format!("auditors = {auditors:?}"));
        world.custodyd.start();
    }
    world.policy("operators", &OPERATORS.replace("permit(", "@recording(\"full\")\npermit("));
}

/// The session of the one command that has run, once its recording is sealed.
fn sealed(world: &World) -> (String, PathBuf) {
    let sealed = until("the recording is sealed", DEADLINE, || world.entries("type=recording.sealed").pop());
    let id = sealed.session().unwrap().to_owned();
    let recordings = world.custodyd.data().join(layout::RECORDINGS);
    let mut find = Command::new("find");
    let found = run(find.arg(recordings).args(["-name", &format!("*{id}*")]), b"", DEADLINE).ok().text();
    (id, found.trim().into())
}

#[test]
fn what_went_in_is_opened_with_an_auditors_key_and_with_no_other() {
    let mut world = World::start();
    let ((one, one_public), (two, two_public)) = (auditor(&world, "one"), auditor(&world, "two"));
    let (stranger, _) = auditor(&world, "stranger");
    recorded_in_full(&[&one_public, &two_public], &mut world);
    let input = format!("{SECRET}\n").repeat(20_000);
    let said = world.ssh(&[], "wc -c", input.as_bytes()).ok();
    assert_eq!(said.text().trim(), input.len().to_string());
    let (id, file) = sealed(&world);

    for (key, name) in [(&one, "one"), (&two, "two")] {
        let opened = world.admin.custody(&["play", &id, "--input", path(key)]);
        assert!(opened.text() == input, "{name} reads {} of {} bytes", opened.out.len(), input.len());
    }
    let refused = world.admin.try_custody(&["play", &id, "--input", path(&stranger)], b"");
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("sealed to other keys than this one"), "{}", refused.err);
    let public = world.admin.try_custody(&["play", &id, "--input", path(&one_public)], b"");
    assert!(public.err.contains("it is no X25519 private key"), "{}", public.err);

    // By means that aren't ours: Python's `cryptography`, whose HPKE is another's.
    let script = custody_tests::root().join("docs/verify/open_input.py");
    let python = custody_tests::servers::python::program("python");
    let mut open = Command::new(python);
    let opened = run(open.arg(script).arg(&file).arg(&two).arg("0"), b"", DEADLINE).ok();
    assert!(opened.text() == input, "a stranger reads {} of {} bytes", opened.out.len(), input.len());

    // Nowhere in clear; and each look was an event.
    for dir in [world.custodyd.data(), world.dir().join("custodyd")] {
        let found = run(Command::new("grep").args(["-rlF", SECRET]).arg(dir), b"", DEADLINE);
        assert_eq!((found.code, found.text().as_str()), (1, ""));
    }
    assert_eq!(world.entries("type=recording.viewed").len(), 4);
    let verified = world.admin.custody(&["play", &id]);
    assert_eq!(verified.text(), said.text(), "output is kept as ever");
}

#[test]
fn without_an_auditors_key_no_input_is_kept_and_the_recording_says_so() {
    let mut world = World::start();
    recorded_in_full(&[], &mut world);
    world.ssh(&[], "wc -c", SECRET.as_bytes()).ok();
    let (id, file) = sealed(&world);
    let (key, _) = auditor(&world, "one");
    let opened = world.admin.try_custody(&["play", &id, "--input", path(&key)], b"");
    assert_ne!(opened.code, 0);
    assert!(opened.err.contains("no input was kept of this session (level full)"), "{}", opened.err);
    let bytes = std::fs::read(file).unwrap();
    let contains = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
    assert!(!contains(SECRET) && contains("no auditor's key is configured"));
}

#[test]
fn a_key_that_is_none_is_named_at_start() {
    let mut world = World::start();
    let (private, _) = auditor(&world, "one");
    world.custodyd.stop();
    world.custodyd.configure_recording(&format!("auditors = [{private:?}]"));
    let mut custodyd = Command::new(custody_tests::program("custodyd"));
    let said = run(custodyd.args(["run", "--config"]).arg(world.custodyd.config()), b"", DEADLINE);
    assert_ne!(said.code, 0);
    assert!(said.err.contains(path(&private)) && said.err.contains("X25519 public key"), "{}", said.err);
}
