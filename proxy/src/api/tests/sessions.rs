//! Sessions and their recordings.

use super::world::{Person, World};
use crate::api::sessions::MAY_LOOK;
use custody_core::event::canonical::Json;
use custody_core::event::{
    Actor, Draft, EventData, Outcome, Person as Who, SessionId, Target, decision, recording, session,
};
use custody_core::recording::recording_path;
use reqwest::StatusCode;
use serde_json::json;

/// Tells a session of `user` as the proxy does, with a recording of `content`.
async fn told(world: &World, user: &str, content: &[u8]) -> SessionId {
    let id = SessionId::new();
    let actor = Actor::Person(Who {
        certificate: None,
        identity_provider: "local".into(),
        mfa: false,
        roles: vec![],
        user: user.into(),
    });
    let target = Target {
        address: Some("127.0.0.1:22".into()),
        kind: "node".into(),
        login: Some("root".into()),
        name: "web-1".into(),
    };
    let made = decision::Made {
        action: "ssh:connect".into(),
        allowed: true,
        context: Json(json!({})),
        errors: vec![],
        policies: vec![],
        principal: format!("User::\"{user}\""),
        reason: "test".into(),
        resource: "Node::\"web-1\"".into(),
        state: 0,
    };
    let made = Draft::new(actor.clone(), made).session(id).target(target.clone()).outcome(Outcome::Success);
    let cause = made.id;
    let requested = session::Requested { protocol: "ssh".into(), recording: "terminal".into() };
    let requested = Draft::new(actor.clone(), requested).session(id).target(target.clone()).cause(cause);
    let started = Draft::new(actor.clone(), session::Started::example()).session(id).target(target);
    let anchored = recording::Anchored { bytes: content.len() as u64, head: "ab".repeat(32) };
    let anchored = Draft::new(actor, anchored).session(id);
    let (_, _, started, _) = world.proxy.append((made, requested, started, anchored)).await.unwrap();
    world.replica.at_least(started.index() + 1).await.unwrap();
    let path = recording_path(&world.recordings, id.0, started.appended().nanos());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), content).unwrap();
    id
}

async fn view(person: &Person, id: SessionId, purpose: &str) -> reqwest::Response {
    person.request(&format!("/v1/sessions/{id}/recording?purpose={purpose}")).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_his_own_sessions_and_administrators_all() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    let hers = told(&world, "ana", b"x").await;
    let his = told(&world, "bob", b"x").await;
    let ids = |list: serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|s| s["session"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(admin.json("/v1/sessions?live=true").await), [hers.to_string(), his.to_string()]);
    assert_eq!(ids(ana.json("/v1/sessions").await), [hers.to_string()]);
    assert_eq!(ana.get(&format!("/v1/sessions/{his}")).await.0, StatusCode::NOT_FOUND);
    let one = ana.json(&format!("/v1/sessions/{hers}")).await;
    assert_eq!((&one["node"], &one["login"], &one["live"]), (&json!("web-1"), &json!("root"), &json!(true)));
    assert_eq!(one["anchors"][0]["head"], "ab".repeat(32));
    assert!(one["started"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_recording_is_durable_before_the_first_byte() {
    let world = World::new().await;
    let admin = world.admin().await;
    let content: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
    let id = told(&world, "ana", &content).await;
    let answer = view(&admin, id, "play").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let seen = world.told("recording.viewed");
    assert_eq!(seen.len(), 1);
    assert_eq!((&seen[0]["data"]["purpose"], &seen[0]["data"]["recording"]), (&json!("play"), &json!(id)));
    let decision = world.told("decision.made").into_iter().find(|d| d["id"] == seen[0]["cause"]).unwrap();
    assert_eq!(decision["data"]["action"], "session:view");
    assert_eq!(answer.content_length(), Some(content.len() as u64));
    assert_eq!(answer.bytes().await.unwrap(), content);
    assert_eq!(admin.json(&format!("/v1/sessions/{id}")).await["views"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_is_denied_or_finds_nothing_shows_nothing() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    let id = told(&world, "ana", b"secret").await;
    let answer = view(&ana, id, "play").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(!answer.text().await.unwrap().contains("secret"));
    assert_eq!(world.told("decision.made").last().unwrap()["outcome"], "denied");
    assert_eq!(view(&admin, SessionId::new(), "play").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(view(&admin, id, "gossip").await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(world.told("recording.viewed").is_empty());
    assert_eq!(admin.get("/v1/sessions/not-a-uuid").await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

/// Whoever reads slowly always has something left to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_who_reads_slowly_and_is_locked_sees_no_more_than_what_was_on_its_way() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    admin.done("set-roles", json!({ "name": "ana", "roles": ["admin", "operator"] })).await;
    // More than lies on the way while nobody reads.
    let content = vec![b'x'; 20 << 20];
    let id = told(&world, "bob", &content).await;
    let mut answer = view(&ana, id, "watch").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut seen = answer.chunk().await.unwrap().unwrap().len();
    admin
        .done("create-lock", json!({ "name": "l", "matches": { "user": "ana" }, "reason": "seen enough" }))
        .await;
    // Whenever it was decided last, it is due again.
    tokio::time::sleep(MAY_LOOK).await;
    let cut = loop {
        match answer.chunk().await {
            Ok(Some(piece)) => seen += piece.len(),
            Ok(None) => panic!("after {seen} bytes it ended as if that were all"),
            Err(error) => break error,
        }
    };
    assert!(seen < content.len(), "all of it was seen: {cut}");
}
