use super::{COMMANDS, Change, ChangeRefused, check};
use crate::event::SessionId;
use crate::policy::defaults::ADMIN_POLICY;
use crate::state::story::{Story, circumstances, now};
use serde_json::json;

const REACH: &str =
    "@id(\"reach\") permit(principal in Role::\"operator\", action in Action::\"ssh\", resource);";

#[test]
fn commands_are_checked_on_the_state() {
    let mut story = Story::with_policy(REACH);
    let session = story.open("alice", "web-1", "root").to_string();
    let read_only = "@id(\"r\") permit(principal in Role::\"admin\", action in Action::\"read\", resource);";
    let forbid_all = "@id(\"f\") forbid(principal, action, resource);";
    let erring =
        "@id(\"f\") forbid(principal, action, resource) when { 9223372036854775807 + context.time > 0 };";
    let elsewhere = "@id(\"f\") forbid(principal, action, resource) unless { context.source.isInRange(ip(\"10.0.0.0/8\")) };";
    let one_document = "@id(\"f\") forbid(principal, action == Action::\"admin:upload-policy\", resource == Policy::\"admin\");";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDIVVTyrv6rLAt5VPAMh9zOuxTHtnWDXQRB8HnuQLTEQ x";
    let table = [
        ("create-user", json!({"name": "bob", "roles": ["operator"]}), ""),
        ("create-user", json!({"name": "Bob"}), "can't be a name"),
        ("create-user", json!({"name": "alice"}), "already"),
        ("create-user", json!({"name": "bob", "roles": ["nobody"]}), "create it first"),
        ("set-roles", json!({"name": "bob", "roles": []}), "there is no user bob"),
        ("set-roles", json!({"name": "root", "roles": []}), "nobody would be left who holds the role admin"),
        ("remove-user", json!({"name": "root"}), "nobody would be left"),
        ("set-password", json!({"name": "root", "secret_version": 1}), "too old"),
        ("set-password", json!({"name": "root", "secret_version": 2}), ""),
        ("create-role", json!({"name": "operator"}), "already"),
        ("remove-role", json!({"name": "admin"}), "can't be removed"),
        ("remove-role", json!({"name": "none"}), "there is no role none"),
        ("remove-policy", json!({"name": "none"}), "there is no policy none"),
        ("upload-policy", json!({"name": "x", "text": "permit(principal, action, resource);"}), "no @id"),
        ("upload-policy", json!({"name": "x", "text": REACH}), "used in the document test already"),
        ("upload-policy", json!({"name": "test", "text": REACH}), ""),
        ("remove-policy", json!({"name": "admin"}), "nobody would be left who may admin:upload-policy"),
        ("upload-policy", json!({"name": "admin", "text": read_only}), "nobody would be left who may"),
        ("upload-policy", json!({"name": "x", "text": forbid_all}), "nobody would be left who may"),
        ("upload-policy", json!({"name": "x", "text": erring}), "nobody would be left who may"),
        ("upload-policy", json!({"name": "x", "text": elsewhere}), "nobody would be left who may"),
        ("upload-policy", json!({"name": "x", "text": one_document}), ""),
        ("upload-policy", json!({"name": "admin", "text": ADMIN_POLICY}), ""),
        ("add-node", json!({"name": "db", "address": "db.example.com:22"}), ""),
        ("add-node", json!({"name": "db", "address": "[2001:db8::1]:22", "host_key": key}), ""),
        (
            "add-node",
            json!({"name": "web-1", "address": "db.example.com:22"}),
            "there is a node web-1 already",
        ),
        ("add-node", json!({"name": "web-1", "address": "db.example.com:22", "replace": true}), ""),
        ("add-node", json!({"name": "db", "address": "db.example.com:22", "replace": true}), ""),
        (
            "add-node",
            json!({"name": "db.custody", "address": "db.example.com:22"}),
            "db.custody can't be a node's name: who types it means the node db",
        ),
        ("add-node", json!({"name": "custody", "address": "db.example.com:22"}), ""),
        ("add-node", json!({"name": "db", "address": "db.example.com"}), "is no address"),
        ("add-node", json!({"name": "db", "address": "db:0"}), "is no address"),
        ("add-node", json!({"name": "db", "address": "a b:22"}), "is no address"),
        ("add-node", json!({"name": "db", "address": "2001:db8::1:22"}), "is no address"),
        ("add-node", json!({"name": "db", "address": "db:22", "host_key": "ssh-ed25519 AAAA"}), "host key"),
        (
            "add-node",
            json!({"name": "db", "address": "db:22", "host_key": key.replacen("ed25519", "rsa", 1)}),
            "host key",
        ),
        ("add-node", json!({"name": "db", "address": "db:22", "labels": {"A b": "x"}}), "label"),
        ("remove-node", json!({"name": "db"}), "there is no node db"),
        ("create-lock", json!({"matches": {}, "reason": "x"}), "matches nothing"),
        ("create-lock", json!({"matches": {"role": "admin"}, "reason": "x"}), "nobody would be left"),
        (
            "create-lock",
            json!({"matches": {"user": "alice"}, "reason": "x", "expires": now(0)}),
            "run out already",
        ),
        ("create-lock", json!({"matches": {"user": "alice"}, "reason": "a\nb"}), "one line"),
        ("create-lock", json!({"matches": {"user": "alice"}, "reason": "x"}), ""),
        (
            "create-lock",
            json!({"matches": {"user": "Alice"}, "reason": "x"}),
            "no user Alice: did you mean alice?",
        ),
        ("create-lock", json!({"matches": {"user": "mallory"}, "reason": "x"}), "no user mallory"),
        ("create-lock", json!({"matches": {"role": "operator"}, "reason": "x"}), ""),
        ("create-lock", json!({"matches": {"role": "operater"}, "reason": "x"}), "did you mean operator?"),
        ("create-lock", json!({"matches": {"node": "web-1"}, "reason": "x"}), ""),
        (
            "create-lock",
            json!({"matches": {"user": "alice", "node": "web-1.custody"}, "reason": "x"}),
            "no node web-1.custody: did you mean web-1?",
        ),
        ("create-lock", json!({"matches": {"login": "anybody"}, "reason": "x"}), ""),
        ("create-lock", json!({"matches": {"session": &session}, "reason": "x"}), ""),
        ("create-lock", json!({"matches": {"session": SessionId::new()}, "reason": "x"}), "no session"),
        (
            "create-restriction",
            json!({"name": "r", "matches": {"node": "web-2"}, "deny_paths": ["/etc"], "reason": "x"}),
            "the restriction would match nothing, for there is no node web-2: did you mean web-1?",
        ),
        ("end-session", json!({"name": &session, "reason": "x"}), ""),
        (
            "end-session",
            json!({"name": session.replace('-', ""), "reason": "x"}),
            "write the session's id as",
        ),
        ("end-session", json!({"name": SessionId::new(), "reason": "x"}), "there is no session"),
        ("end-session", json!({"name": "none", "reason": "x"}), "there is no session none"),
        ("lift-lock", json!({"name": "none"}), "there is no lock none"),
        ("create-service", json!({"name": "siem", "expires": now(9), "secret_version": 1}), ""),
        (
            "create-service",
            json!({"name": "siem", "expires": now(0), "secret_version": 1}),
            "run out already",
        ),
        ("create-service", json!({"name": "alice", "expires": now(9), "secret_version": 1}), "already"),
        (
            "create-service",
            json!({"name": "siem", "roles": ["admin"], "expires": now(9), "secret_version": 1}),
            "isn't for it",
        ),
        ("set-service-roles", json!({"name": "alice", "roles": []}), "there is no service account alice"),
        (
            "rotate-service",
            json!({"name": "siem", "expires": now(9), "secret_version": 2}),
            "there is no service account siem",
        ),
        ("remove-service", json!({"name": "siem"}), "there is no service account siem"),
    ];
    for (command, body, expected) in table {
        let change = Change::parse(command, body.to_string().as_bytes()).unwrap();
        match check(&story.state, &change, &circumstances()) {
            Ok(()) => assert_eq!(expected, "", "{command} {body} was taken"),
            Err(error) => {
                let error = error.to_string();
                assert!(!expected.is_empty() && error.contains(expected), "{command} {body}: {error}");
                assert!(!error.contains('\n'), "{error}");
            }
        }
    }
    for (command, body) in [
        ("create-user", json!({"name": "bob", "admin": true})),
        ("create-user", json!({"name": "bob", "command": "remove-user"})),
        ("create-users", json!({"name": "bob"})),
        ("create-lock", json!({"matches": {"users": "alice"}, "reason": "x"})),
    ] {
        assert!(
            matches!(Change::parse(command, body.to_string().as_bytes()), Err(ChangeRefused::Invalid(_))),
            "{command} {body}"
        );
    }
    for command in COMMANDS {
        let action =
            if command == "end-session" { "session:end".to_owned() } else { format!("admin:{command}") };
        assert!(crate::policy::Action::named(&action).is_some(), "{action}");
    }
}

/// A log may hold a node whose name nobody would be given today: it counts, and may be said anew and removed.
#[test]
fn a_node_that_has_custody_in_its_name_stays() {
    let mut story = Story::with_policy(REACH);
    let change =
        |name: &str, body: serde_json::Value| Change::parse(name, body.to_string().as_bytes()).unwrap();
    let add = |replace: bool| {
        change("add-node", json!({"name": "db.custody", "address": "192.0.2.9:22", "replace": replace}))
    };
    assert!(check(&story.state, &add(true), &circumstances()).is_err(), "there is none to say anew");
    let index = story.decided("root", add(false)).unwrap();
    assert_eq!(story.reason(index), None);
    assert!(story.state.nodes().get("db.custody").is_some());
    story.change("root", add(true)).unwrap();
    story.change("root", change("remove-node", json!({"name": "db.custody"}))).unwrap();
    assert!(story.state.nodes().get("db.custody").is_none());
}

/// Whoever has no password, or is locked by a role that he is given, undoes nothing.
#[test]
fn the_last_who_can_administer_stays() {
    let refused = |story: &mut Story, name: &str, body: serde_json::Value| {
        story.change("root", Change::parse(name, body.to_string().as_bytes()).unwrap()).unwrap_err()
    };
    let mut story = Story::with_policy(REACH);
    story.command("create-user", json!({"name": "root2", "roles": ["admin"]}));
    for (name, body) in [
        ("remove-user", json!({"name": "root"})),
        ("create-lock", json!({"matches": {"user": "root"}, "reason": "x"})),
    ] {
        let said = refused(&mut story, name, body);
        assert!(said.contains("nobody would be left who holds the role admin, has a password"), "{said}");
    }
    story.command("create-role", json!({"name": "contractor"}));
    story.command("create-lock", json!({"name": "l", "matches": {"role": "contractor"}, "reason": "x"}));
    let both = json!({"name": "root", "roles": ["admin", "contractor"]});
    assert!(refused(&mut story, "set-roles", both.clone()).contains("nobody would be left"));

    story.command("set-password", json!({"name": "root2", "secret_version": 1}));
    story.command("set-roles", both);
    let request = crate::policy::Request {
        user: "root".into(),
        what: crate::policy::What::ReadLog,
        session: None,
        circumstances: circumstances(),
    };
    assert!(!story.decide(&request).allowed(), "root2 is left");
}
