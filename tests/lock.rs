//! Locks: whom they match loses what is live within a second and gets nothing new.

use custody_tests::process::Running;
use custody_tests::servers::World;
use custody_tests::wait::{self, DEADLINE};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A live session of bob's that writes all the time.
fn live(world: &World) -> Running {
    let before = world.entries("type=command.requested").len();
    let mut command = world.proxied();
    command.args(["root@web-1.custody", "while sleep 0.1; do echo alive; done"]);
    let running =
        Running::start("ssh", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    wait::until_true("the session is live", DEADLINE, || {
        world.entries("type=command.requested").len() > before
    });
    running
}

/// Locks, and gives the time until the session's client was gone, without the time that the lock command took.
fn cut(world: &World, arguments: &[&str]) -> Duration {
    let mut session = live(world);
    let mut words = vec!["lock"];
    words.extend(arguments);
    words.extend(["--reason", "incident 4711"]);
    world.admin.custody(&words);
    let start = Instant::now();
    wait::until_true("the session is cut", DEADLINE, || session.ended().is_some());
    start.elapsed()
}

#[test]
fn a_lock_ends_what_it_matches_within_a_second() {
    let world = World::start();
    for arguments in [["--user", "bob"], ["--role", "operator"], ["--node", "web-1"], ["--login", "root"]] {
        let took = cut(&world, &arguments);
        assert!(took < Duration::from_secs(1), "{arguments:?}: {took:?}");
        let created = world.entries("type=lock.created").pop().unwrap();
        let ended = world.event("type=session.ended", "the end is in the log", |e| e.index > created.index);
        assert_eq!(ended.event["data"]["reason"], "locked");
        assert_eq!(ended.event["cause"], created.event["id"], "the end names the lock");

        let said = world.ssh(&[], "true", b"");
        assert_eq!(said.code, 255);
        assert!(said.err.contains("incident 4711"), "the reason isn't told: {}", said.err);
        let name = created.event["data"]["name"].as_str().unwrap();
        assert!(world.admin.custody(&["locks"]).text().contains(name));
        world.admin.custody(&["unlock", name]);
        world.ssh(&[], "true", b"").ok();
    }
}

#[test]
fn a_lock_of_one_session_leaves_the_others() {
    let world = World::start();
    let mut first = live(&world);
    let mut second = live(&world);
    let sessions = world.entries("type=session.started");
    let id = sessions[0].session().unwrap();
    world.admin.custody(&["lock", "--session", id, "--reason", "that one"]);
    let ended = world.event("type=session.ended", "one has its end", |_| true);
    assert_eq!(ended.session(), Some(id));
    wait::until_true("one client is gone", DEADLINE, || first.ended().is_some() || second.ended().is_some());
    assert!(first.ended().is_none() || second.ended().is_none(), "both are gone");
}

#[test]
fn what_changes_otherwise_ends_sessions_too() {
    let world = World::start();
    let mut session = live(&world);
    world.admin.custody(&["user", "roles", "bob"]);
    wait::until_true("a session without its role is cut", Duration::from_secs(5), || {
        session.ended().is_some()
    });
    world.admin.custody(&["user", "roles", "bob", "--role", "operator"]);
    let mut session = live(&world);
    world.admin.custody(&["node", "rm", "web-1"]);
    wait::until_true("a session to a node that is gone is cut", Duration::from_secs(5), || {
        session.ended().is_some()
    });
}

#[test]
fn a_lock_that_runs_out_lets_in_again_and_an_operator_can_t_lock() {
    let world = World::start();
    let refused = world.operator.try_custody(&["lock", "--user", "alice", "--reason", "mutiny"], b"");
    assert_ne!(refused.code, 0);
    assert_eq!(world.entries("type=lock.created").len(), 0);
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(10);
    let expires = end.to_string();
    world.admin.custody(&["lock", "--user", "bob", "--reason", "a short one", "--expires", &expires]);
    let code = world.ssh(&[], "true", b"").code;
    // On a busy machine it may have run out by then.
    assert!(code == 255 || jiff::Timestamp::now() >= end, "exit code {code} before the lock has run out");
    wait::until_true("the lock has run out", Duration::from_secs(60), || {
        world.ssh(&[], "true", b"").code == 0
    });
}
