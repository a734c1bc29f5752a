use super::change::{COMMANDS, Change, ChangeRefused, check, is_name};
use super::follow::Replica;
use super::replay::replay;
use super::sessions::Phase;
use super::story::{Story, Told, now, replayed};
use super::*;
use crate::clock::{ManualClock, Nanos};
use crate::event::{
    Draft, EventData, ProducerKind, SessionId, TYPES, Target, canonical, certificate, command, recording,
    session, user,
};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::note::Ed25519Signer;
use crate::log::{Log, ProducerKey, Record};
use crate::policy::{NoLongerAllowed, Request, What, still_allowed};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

const REACH: &str =
    "@id(\"reach\") permit(principal in Role::\"operator\", action in Action::\"ssh\", resource);";

#[test]
fn a_log_begins_with_one_administrator() {
    let story = Story::begun();
    assert_eq!(story.state.refused().count(), 0, "{:?}", story.state.refused());
    let root = story.state.users().get("root").unwrap();
    assert!(root.roles.contains("admin"));
    assert_eq!(root.password_version, Some(1));
    assert_eq!(story.state.log().unwrap().origin, "test");
    assert_eq!(story.state.size(), 6);
}

#[test]
fn a_second_bootstrap_is_refused_and_the_first_ends() {
    let mut story = Story::begun();
    let again = crate::policy::defaults::genesis(crate::event::log::Created::example(), "mallory", 1);
    let cause = again.decision.id;
    let index = story.tell(again.decision);
    assert_eq!(story.reason(index), Some("only an empty log is bootstrapped"));
    let index =
        story.caused(ProducerKind::Log, Some(cause), user::Created { name: "mallory".into(), roles: vec![] });
    assert!(story.reason(index).is_some());

    let mut story = Story::empty();
    let g = crate::policy::defaults::genesis(crate::event::log::Created::example(), "root", 1);
    let cause = g.decision.id;
    story.tell(g.created);
    story.tell(g.decision);
    for _ in 0..=decisions::BOOTSTRAP_ENTRIES_MAX {
        story.caused(ProducerKind::Log, None, crate::event::log::Sealed { size: 1 });
    }
    let index = story.tell(g.role.cause(cause));
    assert!(story.reason(index).is_some(), "the bootstrap's decision can't be kept in reserve");
}

#[test]
fn a_change_needs_the_decision_that_allows_just_it_and_uses_it_up() {
    let mut story = Story::begun();
    let bob = |name: &str| user::Created { name: name.into(), roles: vec![] };
    let index = story.caused(ProducerKind::Log, None, bob("bob"));
    assert_eq!(story.reason(index), Some("it names no decision that allowed it"));
    let index = story.caused(ProducerKind::Log, Some(EventId::new()), bob("bob"));
    assert!(story.reason(index).is_some());

    let change = Change::CreateUser { name: "bob".into(), roles: Default::default() };
    let request = crate::policy::Request {
        user: "root".into(),
        what: change.what(),
        session: None,
        circumstances: super::story::circumstances(),
    };
    let decision = story.decide(&request);
    assert!(decision.allowed(), "{}", decision.made.reason);
    let made = Draft::new(super::story::person("root"), decision.made.clone());
    let cause = made.id;
    story.tell(made);
    let index = story.caused(ProducerKind::Log, Some(cause), bob("mallory"));
    assert_eq!(story.reason(index), Some("its cause allows something else"));
    let index = story.caused(ProducerKind::Log, Some(cause), bob("bob"));
    assert_eq!(story.reason(index), None);
    assert!(story.state.users().get("bob").is_some());
    let index = story.caused(ProducerKind::Log, Some(cause), user::Removed { name: "bob".into() });
    assert!(story.reason(index).is_some(), "used up");

    // The same decision, told by a proxy, allows nothing of that sort.
    let forged = Draft::new(super::story::person("root"), decision.made);
    let cause = forged.id;
    story.tell_as(ProducerKind::Proxy, forged);
    let index = story.caused(ProducerKind::Log, Some(cause), bob("bob"));
    assert_eq!(story.reason(index), Some("its cause allows something else"));
}

#[test]
fn what_a_producer_may_not_say_or_mislabels_is_listed_and_not_applied() {
    let mut story = Story::begun();
    let before = story.state.users().len();
    let index = story.caused(ProducerKind::Proxy, Some(EventId::new()), user::Created::example());
    assert_eq!(story.reason(index), Some("its producer may not say that"));
    let bytes = story.entries[4].bytes.clone();
    let index = story.raw(Family::Login.tag(), bytes);
    assert_eq!(story.reason(index), Some("its record's tag is that of another family"));
    let index = story.raw(200, b"{not an event".to_vec());
    assert_eq!(story.reason(index), Some("it is no event"));
    assert_eq!(story.state.users().len(), before);
    assert_eq!(story.state.refused().count(), 3);
}

#[test]
fn what_is_newer_is_counted_and_carried() {
    let mut story = Story::begun();
    let text = String::from_utf8((TYPES[0].example)().unwrap()).unwrap();
    story.raw(1, text.replace("login.succeeded", "login.teleported").replace("proxy", "log").into_bytes());
    story.raw(99, text.replace("login.succeeded", "galaxy.formed").into_bytes());
    let unknown: Vec<_> = story.state.unknown().iter().collect();
    assert_eq!(unknown, [("galaxy.formed", 1), ("login.teleported", 1)]);
    assert_eq!(story.state.refused().count(), 0);
}

#[test]
fn entries_are_taken_in_order_and_once() {
    let mut story = Story::begun();
    let before = story.state.canonical().unwrap();
    let told = story.entries[0].clone();
    for index in [0, 5, 7] {
        let error = story.state.apply_bytes(index, told.appended, told.tag, &told.bytes).unwrap_err();
        assert_eq!(error, OutOfOrder { expected: 6, got: index });
    }
    assert_eq!(story.state.canonical().unwrap(), before);
}

#[test]
fn a_removed_name_proves_nothing_any_more() {
    let mut story = Story::with_policy(REACH);
    story.command("remove-user", json!({"name": "alice"}));
    let again = Change::CreateUser { name: "alice".into(), roles: Default::default() };
    assert!(matches!(
        check(&story.state, &again, &super::story::circumstances()),
        Err(ChangeRefused::Conflict(_))
    ));
    let denied = story.decide(&super::story::connect("alice", "web-1", "root"));
    assert!(!denied.allowed());
    assert_eq!(denied.made.reason, "there is no user alice, or no longer");
}

#[test]
fn a_removed_role_is_nobodys_even_when_it_comes_back() {
    let mut story = Story::with_policy(REACH);
    story.command("remove-role", json!({"name": "operator"}));
    story.command("create-role", json!({"name": "operator"}));
    assert!(story.state.users().get("alice").unwrap().roles.is_empty());
}

#[test]
fn a_session_is_the_fold_of_its_events() {
    let mut story = Story::with_policy(REACH);
    let id = story.open("alice", "web-1", "root");
    let live: Vec<_> = story.state.sessions().live().map(|(id, _)| id).collect();
    assert_eq!(live, [id]);
    let bare = story.session(id, command::Requested::example());
    assert_eq!(story.reason(bare), Some("it names no decision that allowed it"));

    let head = |c: char| c.to_string().repeat(64);
    story.session(id, recording::Anchored { bytes: 100, head: head('a') });
    let back = story.session(id, recording::Anchored { bytes: 99, head: head('b') });
    assert_eq!(story.reason(back), Some("the recording has become shorter"));
    let no_hash = story.session(id, recording::Anchored { bytes: 101, head: "xyz".into() });
    assert_eq!(story.reason(no_hash), Some("that is no hash"));

    let ended =
        story.session(id, session::Ended { bytes_out: u64::from(u32::MAX), ..session::Ended::example() });
    let sealed =
        story.session(id, recording::Sealed { bytes: 120, frames: 3, head: head('c'), sha256: head('d') });
    assert_eq!((story.reason(ended), story.reason(sealed)), (None, None));
    let second = story.session(id, session::Ended::example());
    assert_eq!(story.reason(second), Some("the session has ended"), "a session has exactly one end");

    let session = story.state.sessions().get(id).unwrap();
    assert!(!session.is_live());
    assert!(matches!(session.phase, Phase::Ended { index, started: Some(_), .. } if index == ended));
    assert_eq!(session.recording.anchors.len(), 1);
    assert_eq!(session.recording.sealed.unwrap().0, sealed);
    assert_eq!(session.last_evidence, sealed);
    assert_eq!(story.state.sessions().live().count(), 0);
    assert_eq!(still_allowed(&story.state, id, now(0)), Err(NoLongerAllowed::NotLive(id)));
}

/// A log that stands still while a program is decided says only afterwards that it never ran.
#[test]
fn the_end_of_a_program_may_come_behind_its_sessions() {
    let mut story = Story::with_policy(REACH);
    let id = story.open("alice", "web-1", "root");
    story.session(id, session::Ended::example());
    let late = story.session(id, command::Failed::example());
    assert_eq!(story.reason(late), None);
    let session = story.state.sessions().get(id).unwrap();
    assert!(!session.is_live() && session.open_commands.is_empty());
    assert_eq!(session.last_evidence, late);
    let nowhere = story.session(SessionId::new(), command::Failed::example());
    assert_eq!(story.reason(nowhere), Some("there is no such session"));
}

#[test]
fn a_connection_needs_a_decision_or_what_was_offered_by_one() {
    use crate::event::connection::{self, Kind, ListenRequested};
    let mut story = Story::with_policy(REACH);
    let id = story.open("alice", "web-1", "root");
    let bare = story.session(id, connection::Requested::example());
    assert_eq!(story.reason(bare), Some("it names no decision that allowed it"));
    let unasked = connection::Requested { kind: Kind::Agent, ..connection::Requested::example() };
    let unasked = story.session(id, unasked);
    assert_eq!(story.reason(unasked), Some("the client has offered nothing of the kind"));
    let bare = story.session(id, ListenRequested::example());
    assert_eq!(story.reason(bare), Some("it names no decision that allowed it"));
    assert_eq!(story.state.sessions().get(id).unwrap().connections, 0);

    let target = Target { kind: "node".into(), name: "web-1".into(), ..Target::default() };
    let place = connection::Place::tcp(b"localhost", 0);
    let request = Request {
        what: What::Listen { node: "web-1".into(), login: "root".into(), place },
        session: Some(id),
        ..super::story::connect("alice", "web-1", "root")
    };
    let made = Draft::new(super::story::person("alice"), story.decide(&request).made);
    let made = made.session(id).target(target.clone());
    let offer = Draft::new(super::story::person("alice"), ListenRequested::example());
    let offer = offer.cause(made.id).session(id).target(target);
    let offered = offer.id;
    story.tell_as(ProducerKind::Proxy, made);
    let offer = story.tell_as(ProducerKind::Proxy, offer);
    assert_eq!(story.reason(offer), None);
    let accept = |story: &mut Story| {
        let data = connection::Requested { kind: Kind::Accepted, ..connection::Requested::example() };
        let draft = Draft::new(super::story::person("alice"), data).cause(offered).session(id);
        let index = story.tell_as(ProducerKind::Proxy, draft);
        story.reason(index)
    };
    assert_eq!(accept(&mut story), None);
    assert_eq!(story.state.sessions().get(id).unwrap().connections, 1);
    let closed = Draft::new(super::story::person("alice"), connection::ListenClosed::example());
    story.tell_as(ProducerKind::Proxy, closed.cause(offered).session(id));
    assert_eq!(accept(&mut story), Some("the client has offered nothing of the kind"));
}

#[test]
fn somebody_who_may_has_a_session_ended() {
    let mut story = Story::with_policy(REACH);
    let id = story.open("alice", "web-1", "root");
    let end = |reason: &str| Change::EndSession { name: id.to_string(), reason: reason.into() };
    let unasked = session::EndRequested { name: id.to_string(), reason: "x".into() };
    let unasked = story.caused(ProducerKind::Log, None, unasked);
    assert!(story.reason(unasked).is_some(), "no decision allowed it");
    assert!(story.change("alice", end("mine")).is_err(), "she may not");
    assert_eq!(still_allowed(&story.state, id, now(0)), Ok(()));
    let before = story.state.rights_changed();
    story.change("root", end("incident 4711")).unwrap();
    story.change("root", end("again")).unwrap();
    assert_ne!(story.state.rights_changed(), before, "whoever holds it is to look");
    assert!(matches!(
        still_allowed(&story.state, id, now(0)),
        Err(NoLongerAllowed::EndRequested { reason, .. }) if reason == "incident 4711"
    ));
    story.session(id, session::Ended::example());
    assert!(story.change("root", end("late")).unwrap_err().contains("has ended already"));
    let other = SessionId::new().to_string();
    assert!(story.change("root", Change::EndSession { name: other, reason: "x".into() }).is_err());
}

#[test]
fn a_session_ends_when_the_right_to_it_is_taken_away() {
    let taken: [(&str, serde_json::Value); 9] = [
        ("create-lock", json!({"matches": {"user": "alice"}, "reason": "incident"})),
        ("create-lock", json!({"matches": {"role": "operator", "node": "web-1"}, "reason": "incident"})),
        ("create-lock", json!({"matches": {"login": "root"}, "reason": "incident"})),
        ("create-lock", json!({"matches": {"session": "SESSION"}, "reason": "incident"})),
        ("set-roles", json!({"name": "alice", "roles": []})),
        ("remove-user", json!({"name": "alice"})),
        ("remove-role", json!({"name": "operator"})),
        ("remove-policy", json!({"name": "test"})),
        ("remove-node", json!({"name": "web-1"})),
    ];
    for (command, body) in taken {
        let mut story = Story::with_policy(REACH);
        let id = story.open("alice", "web-1", "root");
        assert_eq!(still_allowed(&story.state, id, now(0)), Ok(()));
        let body = body.to_string().replace("SESSION", &id.to_string());
        story.command(command, serde_json::from_str(&body).unwrap());
        let answer = still_allowed(&story.state, id, now(0));
        assert!(
            matches!(answer, Err(NoLongerAllowed::Denied { cause: Some(_), .. })),
            "{command} {body}: {answer:?}"
        );
    }
    let untouched = [
        json!({"matches": {"user": "bob"}, "reason": "other"}),
        json!({"matches": {"user": "alice", "node": "web-2"}, "reason": "other"}),
        json!({"matches": {"user": "alice", "role": "auditor"}, "reason": "other"}),
    ];
    for body in untouched {
        let mut story = Story::with_policy(REACH);
        story.command("create-user", json!({"name": "bob"}));
        story.command("create-role", json!({"name": "auditor"}));
        story.command("add-node", json!({"name": "web-2", "address": "192.0.2.11:22"}));
        let id = story.open("alice", "web-1", "root");
        story.command("create-lock", body);
        assert_eq!(still_allowed(&story.state, id, now(0)), Ok(()));
    }
}

#[test]
fn a_lock_runs_out_by_the_askers_time_and_not_by_the_folds() {
    let mut story = Story::with_policy(REACH);
    let id = story.open("alice", "web-1", "root");
    let body = json!({"matches": {"user": "alice"}, "reason": "for a minute", "expires": now(60)});
    story.command("create-lock", body);
    assert!(still_allowed(&story.state, id, now(59)).is_err());
    assert_eq!(still_allowed(&story.state, id, now(60)), Ok(()));
    assert_eq!(story.state.locks().next_expiry(now(0)), Some(now(60)));
    for _ in 0..100 {
        story.caused(ProducerKind::Log, None, crate::event::log::Sealed { size: 1 });
    }
    assert_eq!(story.state.locks().iter().count(), 1, "the fold lets no lock go");
}

#[test]
fn a_certificate_is_kept_until_it_has_run_out_at_the_time_of_appending() {
    let mut story = Story::begun();
    let issued = |until| certificate::Issued { valid_until: now(until), ..certificate::Issued::example() };
    story.caused(ProducerKind::Log, None, issued(8));
    story.caused(ProducerKind::Log, None, issued(1000));
    assert_eq!(story.state.certificates().iter().count(), 2);
    for _ in 0..4 {
        story.caused(ProducerKind::Log, None, crate::event::log::Sealed { size: 1 });
    }
    assert_eq!(story.state.certificates().iter().count(), 1);
    assert_eq!(story.state.certificates().issued(), 2);
}

#[test]
fn gaps_of_producers_are_counted() {
    let mut story = Story::begun();
    let event = String::from_utf8(story.entries[0].bytes.clone()).unwrap();
    let skipped = event.replace("log.created", "log.sealed").replace(r#""seq":0"#, r#""seq":9"#);
    story.raw(Family::Log.tag(), skipped.into_bytes());
    let producer = story.state.producers().get("Log").unwrap();
    assert_eq!(producer.gaps, 3, "after 0 to 5 come 6, 7, 8");
    assert_eq!(story.state.producers().previous("Log").unwrap().seq, 9);
}

#[test]
fn names() {
    for good in ["a", "web-1", "0.x_y", &"a".repeat(63)] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "A", "-a", ".a", "a b", "ä", "a\n", "a/b", &"a".repeat(64)] {
        assert!(!is_name(bad), "{bad}");
    }
}

#[test]
fn a_service_account_is_made_rotated_and_removed_and_keeps_its_name() {
    let mut story = Story::with_policy(REACH);
    story.command(
        "create-service",
        json!({"name": "siem", "roles": ["operator"], "expires": now(1_000), "secret_version": 1}),
    );
    let siem = story.state.services().get("siem").unwrap().clone();
    assert!(siem.token.version == 1 && siem.roles.contains("operator") && siem.token.set >= now(0));
    let refused = |story: &mut Story, name: &str, body: serde_json::Value| {
        story.change("root", Change::parse(name, body.to_string().as_bytes()).unwrap()).unwrap_err()
    };
    assert!(refused(&mut story, "create-user", json!({"name": "siem"})).contains("a service account siem"));
    let rotate =
        json!({"name": "siem", "expires": now(2_000), "previous_until": now(60), "secret_version": 2});
    story.command("rotate-service", rotate.clone());
    assert!(refused(&mut story, "rotate-service", rotate).contains("too old"));
    let tokens = |story: &Story| -> Vec<u64> {
        story.state.services().get("siem").unwrap().tokens().map(|token| token.version).collect()
    };
    assert_eq!(tokens(&story), [2, 1]);
    story.command("remove-role", json!({"name": "operator"}));
    assert!(story.state.services().get("siem").unwrap().roles.is_empty());
    story.command("remove-service", json!({"name": "siem"}));
    for (name, body) in [
        ("create-user", json!({"name": "siem"})),
        ("create-service", json!({"name": "siem", "expires": now(9), "secret_version": 3})),
    ] {
        assert!(refused(&mut story, name, body).contains("somebody's for good"), "{name}");
    }
    assert_eq!(story.state.refused().count(), 0);
    assert_eq!(replayed(&story.entries).canonical().unwrap(), story.state.canonical().unwrap());
}

#[test]
fn an_integer_that_readers_would_round_doesnt_spoil_the_document() {
    let mut story = Story::with_policy(REACH);
    let id = story.open("alice", "web-1", "root");
    let ended = story.session(id, session::Ended::example());
    let mut entries = story.entries.clone();
    let last = &mut entries[usize::try_from(ended).unwrap()];
    last.bytes =
        String::from_utf8(last.bytes.clone()).unwrap().replace("20311", "18446744073709551615").into();
    let text = String::from_utf8(replayed(&entries).canonical().unwrap()).unwrap();
    assert!(text.contains(r#""bytes_out":"18446744073709551615""#), "{text}");
}

/// Any entry: valid, forged, unknown, mangled.
fn any_entry() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let types = 0..TYPES.len();
    let kinds = prop::sample::select(vec!["log", "proxy", "node", "witness"]);
    let example = (types, kinds, any::<bool>(), 0..4_u64, prop::option::of((0_usize..700, any::<u8>())))
        .prop_map(|(which, kind, newer, seq, mangled)| {
            let info = &TYPES[which];
            let mut text = String::from_utf8((info.example)().unwrap()).unwrap();
            for old in ["log", "proxy"] {
                text = text.replace(&format!(r#""kind":"{old}""#), &format!(r#""kind":"{kind}""#));
            }
            text = text.replace(r#""seq":41"#, &format!(r#""seq":{seq}"#));
            if newer {
                text = text.replace(r#""version":1"#, r#""version":2"#);
            }
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = mangled
                && let Some(place) = bytes.get_mut(at)
            {
                *place = byte;
            }
            (info.family.tag(), bytes)
        });
    prop_oneof![8 => example, 1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..64))]
}

/// What may happen in an orderly log.
#[derive(Clone, Debug)]
enum Step {
    Command(&'static str, serde_json::Value),
    Open,
    End(usize),
    Anchor(usize, u64),
    Other(u8, Vec<u8>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(vec!["alice", "bob", "siem", "operator", "web-1", "test", "lock-1"]);
    prop_oneof![
        4 => (prop::sample::select(COMMANDS.to_vec()), name()).prop_map(|(command, name)| {
            let mut body = json!({"name": name});
            match command {
                "set-roles" | "set-service-roles" => body["roles"] = json!(["operator"]),
                "create-service" | "rotate-service" => {
                    body["expires"] = json!(now(1_000));
                    body["secret_version"] = json!(if command == "create-service" { 1 } else { 2 });
                }
                "set-password" => body["secret_version"] = json!(3),
                "end-session" => body["reason"] = json!("enough"),
                "upload-policy" => body["text"] = json!(REACH),
                "add-node" => {
                    body["address"] = json!("192.0.2.10:22");
                    body["replace"] = json!(true);
                }
                "create-node-token" => {
                    body["expires"] = json!(now(1_000));
                    body["secret_version"] = json!(1);
                }
                "create-lock" | "create-restriction" => {
                    body["matches"] = json!({"user": name});
                    body["reason"] = json!("x");
                    if command == "create-restriction" {
                        body["deny_paths"] = json!(["/etc/shadow"]);
                        body["deny_programs"] = json!(["/usr/bin/curl"]);
                        body["allow_programs"] = json!(["/usr/bin/"]);
                    }
                }
                _ => {}
            }
            Step::Command(command, body)
        }),
        2 => Just(Step::Open),
        1 => (0_usize..4).prop_map(Step::End),
        1 => ((0_usize..4), any::<u64>()).prop_map(|(which, bytes)| Step::Anchor(which, bytes & canonical::INTEGER_MAX)),
        3 => any_entry().prop_map(|(tag, bytes)| Step::Other(tag, bytes)),
    ]
}

fn tell(steps: Vec<Step>) -> Story {
    let mut story = Story::with_policy(REACH);
    let mut opened: Vec<SessionId> = vec![];
    for step in steps {
        let nth = |which: usize| opened.get(which).copied().unwrap_or_default();
        match step {
            Step::Command(command, body) => {
                let change = Change::parse(command, body.to_string().as_bytes()).unwrap();
                let _answer = story.change("root", change);
            }
            Step::Open => {
                if story.decide(&super::story::connect("alice", "web-1", "root")).allowed() {
                    opened.push(story.open("alice", "web-1", "root"));
                }
            }
            Step::End(which) => {
                story.session(nth(which), session::Ended::example());
            }
            Step::Anchor(which, bytes) => {
                story.session(nth(which), recording::Anchored { bytes, head: "a".repeat(64) });
            }
            Step::Other(tag, bytes) => {
                story.raw(tag, bytes);
            }
        }
    }
    story
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_log_replays_to_the_same_bytes(steps in prop::collection::vec(any_step(), 0..40), cut in any::<prop::sample::Index>()) {
        let story = tell(steps);
        let live = story.state.canonical().unwrap();
        prop_assert_eq!(&replayed(&story.entries).canonical().unwrap(), &live);
        // In two parts, as a program does that reads what was there and then follows.
        let at = cut.index(story.entries.len() + 1);
        let mut parts = replayed(&story.entries[..at]);
        for (offset, told) in story.entries[at..].iter().enumerate() {
            parts.apply_bytes((at + offset) as u64, told.appended, told.tag, &told.bytes).unwrap();
        }
        prop_assert_eq!(&parts.canonical().unwrap(), &live);
        let value: serde_json::Value = serde_json::from_slice(&live).unwrap();
        prop_assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), live);
    }

    #[test]
    fn nothing_stops_the_fold(entries in prop::collection::vec(any_entry(), 0..60)) {
        let told: Vec<Told> = entries
            .into_iter()
            .enumerate()
            .map(|(index, (tag, bytes))| Told { appended: now(index as u64), tag, bytes })
            .collect();
        let state = replayed(&told);
        prop_assert_eq!(state.size(), told.len() as u64);
        prop_assert_eq!(state.users().len(), 0);
        prop_assert!(state.sessions().is_empty());
        prop_assert!(state.canonical().is_ok());
    }
}

fn open(directory: &std::path::Path, clock: &Arc<ManualClock>) -> EmbeddedLog {
    let signer = Ed25519Signer::from_seed("test", &[7; 32]).unwrap();
    EmbeddedLog::open(directory, Options::new(Arc::new(signer), clock.clone())).unwrap()
}

fn append(log: &EmbeddedLog, seq: u64, told: &Told) {
    let producer = ProducerKey { id: "test".into(), boot: uuid::Uuid::from_u128(1), seq };
    let record = Record { producer, tag: told.tag, bytes: told.bytes.clone().into() };
    let _receipts = log.submit(vec![record]).unwrap().wait_blocking().unwrap();
}

#[test]
fn a_replica_of_a_real_log_is_the_same_as_replay_and_as_it_was_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Nanos(now(0).nanos())));
    let log = Arc::new(open(directory.path(), &clock));
    let story = Story::with_policy(REACH);
    let replica = Arc::new(Replica::new());
    let follower = std::thread::spawn({
        let (log, replica): (Arc<EmbeddedLog>, _) = (log.clone(), replica.clone());
        move || replica.follow(&*log)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut half = None;
    for (seq, told) in story.entries.iter().enumerate() {
        append(&log, seq as u64, told);
        runtime.block_on(replica.at_least(seq as u64)).unwrap();
        assert!(replica.read(State::size) > seq as u64);
        if seq == 5 {
            half = Some((
                Timestamp::from_nanos(clock_now(&clock)),
                replica.read(|state| state.canonical().unwrap()),
            ));
        }
        clock.advance(std::time::Duration::from_secs(1));
    }
    let live = replica.read(|state| state.canonical().unwrap());
    let mut told = vec![];
    let fresh = replay(&*log, None, |done, size| told.push((done, size))).unwrap();
    assert_eq!(fresh.canonical().unwrap(), live);
    let size = story.entries.len() as u64;
    assert_eq!(told.last(), Some(&(size, size)));
    let (then, before) = half.unwrap();
    assert_eq!(replay(&*log, Some(then), |_, _| ()).unwrap().canonical().unwrap(), before);
    drop(follower);
}

fn clock_now(clock: &ManualClock) -> u64 {
    use crate::clock::Clock;
    clock.wall().0
}

#[test]
fn who_waits_is_told_when_the_replica_stops() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Nanos(now(0).nanos())));
    let log = open(directory.path(), &clock);
    let replica = Arc::new(Replica::new());
    append(&log, 0, &Story::begun().entries[0]);
    assert_eq!(replica.catch_up(&log, |_, _| ()).unwrap(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(replica.at_least(0)).unwrap();
    let waiter = std::thread::spawn({
        let replica = replica.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(replica.at_least(7))
        }
    });
    replica.stop();
    assert_eq!(waiter.join().unwrap(), Err(super::follow::Stopped { applied: 1, wanted: 8 }));
}
