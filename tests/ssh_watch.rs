//! Live sessions: looked at as they happen, and ended by those who may.

use custody_tests::process::{Running, run};
use custody_tests::servers::World;
use custody_tests::wait::{self, DEADLINE};
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// The session of the program that has `word` in its command.
fn session_of(world: &World, word: &str) -> String {
    let command = world.event("type=command.requested", "the program runs", |e| {
        e.event["data"]["command"].to_string().contains(word)
    });
    command.event["session"].as_str().unwrap().to_owned()
}

/// What a program prints, as it comes.
fn printed(child: &mut Child) -> Receiver<Vec<u8>> {
    let (sender, come) = channel();
    let mut out = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = out.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    come
}

fn wait_for(come: &Receiver<Vec<u8>>, shown: &mut String, what: &str) {
    while !shown.contains(what) {
        let piece = come.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no {what:?} in {shown:?}"));
        shown.push_str(&String::from_utf8_lossy(&piece));
    }
}

#[test]
fn a_live_session_is_watched_until_its_end_and_that_is_an_event_first() {
    let world = World::start();
    let fifo = world.dir().join("go");
    run(std::process::Command::new("mkfifo").arg(&fifo), b"", DEADLINE).ok();
    let mut ssh = world.proxied();
    ssh.args(["root@web-1.custody", &format!("echo first; cat {}; echo last", fifo.display())]);
    let mut person = Running::start("ssh", ssh.stdin(Stdio::null()).stdout(Stdio::null()));
    let session = session_of(&world, "echo first");

    let denied = world.add_user("mallory", &["operator"], "mallory mallory mallory");
    denied.login("mallory mallory mallory");
    let said = denied.try_custody(&["sessions", "watch", &session], b"");
    assert_eq!(said.code, 1);
    assert!(said.text().is_empty(), "{}", said.text());

    let mut watch = world.admin.command(&["sessions", "watch", &session]);
    let mut watching = watch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let (come, mut shown) = (printed(&mut watching), String::new());
    wait_for(&come, &mut shown, "first\n");
    let viewed = world
        .event("type=recording.viewed", "the look is an event", |e| e.event["data"]["purpose"] == "watch");
    assert_eq!(viewed.event["data"]["recording"], session.as_str());
    assert_eq!(viewed.event["actor"]["user"], "alice");
    std::fs::write(&fifo, "as it happens\n").unwrap();
    wait_for(&come, &mut shown, "as it happens\nlast\n");
    wait::until("ssh has ended", DEADLINE, || person.ended());
    assert!(watching.wait().unwrap().success(), "the watching ends with the session");
    assert_eq!(shown, "first\nas it happens\nlast\n");

    // What it showed is found afterwards, and each look is an event.
    let found = world.admin.custody(&["sessions", "search", &session, "AS IT"]).text();
    assert!(found.contains("as it happens") && !found.contains("first"), "{found}");
    let none = world.admin.custody(&["sessions", "search", &session, "never said"]).text();
    assert!(none.contains("It was never shown"), "{none}");
    let looks = world.entries("type=recording.viewed");
    assert_eq!(looks.iter().filter(|e| e.event["data"]["purpose"] == "search").count(), 2);

    let said = world.admin.try_custody(&["sessions", "watch", &session], b"");
    assert!(said.err.contains("is over: `custody play"), "{}", said.err);
}

/// A viewer who is locked sees no more.
#[test]
fn a_locked_viewer_sees_no_more() {
    let world = World::start();
    world.policy("see", r#"@id("operators-see") permit(principal in Role::"operator", action == Action::"session:view", resource);"#);
    let mut ssh = world.proxied();
    ssh.args(["root@web-1.custody", "while :; do echo tick; sleep 0.05; done"]);
    let _person = Running::start("ssh", ssh.stdin(Stdio::null()).stdout(Stdio::null()));
    let session = session_of(&world, "echo tick");
    let viewer = world.add_user("carol", &["operator"], "carol carol carol carol");
    viewer.login("carol carol carol carol");
    let mut watch = viewer.command(&["sessions", "watch", &session]);
    let mut watching =
        watch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (come, mut shown) = (printed(&mut watching), String::new());
    wait_for(&come, &mut shown, "tick");
    world.admin.custody(&["lock", "--user", "carol", "--reason", "seen enough"]);
    let status = wait::until("the watching ends", DEADLINE, || watching.try_wait().unwrap());
    assert!(!status.success());
}

#[test]
fn who_may_ends_a_session_and_the_person_is_told() {
    let world = World::start();
    let mut ssh = world.proxied();
    ssh.args(["root@web-1.custody", "echo lasting; sleep 1000"]);
    let mut person = Running::start("ssh", ssh.stdin(Stdio::null()).stdout(Stdio::null()));
    let session = session_of(&world, "sleep 1000");
    let end = ["sessions", "end", &session, "--reason", "incident 4711"];
    let said = world.operator.try_custody(&end, b"");
    assert_eq!(said.code, 1, "an operator may not");
    assert!(person.ended().is_none());

    world.admin.custody(&end);
    let status = wait::until("ssh has ended", DEADLINE, || person.ended());
    assert_ne!(status.code(), Some(0));
    let ended =
        world.event("type=session.ended", "its end is told", |e| e.event["session"] == session.as_str());
    assert_eq!(ended.event["data"]["reason"], "terminated");
    assert_eq!(ended.event["data"]["detail"], "the session was ended: incident 4711");
    let order = world.entries("type=session.end-requested").remove(0);
    assert_eq!(ended.event["cause"], order.event["id"]);
    assert_eq!(order.event["actor"]["user"], "alice");
    let again = world.admin.try_custody(&end, b"");
    assert!(again.err.contains("has ended already"), "{}", again.err);
    // The person himself comes again: it is no lock.
    assert_eq!(world.ssh(&[], "echo again", b"").ok().text(), "again\n");
}
