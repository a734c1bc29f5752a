//! Commands and what they leave in the log.

use super::world::{ADMIN, PASSWORD, SSH_KEY, World};
use crate::api::commands::applied;
use crate::api::error::ApiError;
use custody_core::event::{Actor, Draft, SessionId, recording};
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_decided_durable_and_applied_when_it_answers() {
    let world = World::new().await;
    let admin = world.admin().await;
    let answer = admin
        .done("add-node", json!({ "name": "web-1", "address": "127.0.0.1:22", "labels": { "env": "prod" } }))
        .await;
    let event = admin.json(&format!("/v1/events/{}", answer["index"])).await;
    assert_eq!((&event["event"]["type"], &event["event"]["id"]), (&json!("node.added"), &answer["id"]));
    let decision =
        world.told("decision.made").into_iter().find(|d| d["id"] == event["event"]["cause"]).unwrap();
    assert_eq!(decision["data"]["action"], "admin:add-node");
    assert_eq!(decision["target"], event["event"]["target"]);
    let nodes = admin.json("/v1/nodes").await;
    assert_eq!(nodes, json!([{ "name": "web-1", "address": "127.0.0.1:22", "labels": { "env": "prod" } }]));
    assert_eq!(admin.json("/v1/state").await["nodes"]["web-1"]["address"], "127.0.0.1:22");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_command_is_told_and_changes_nothing() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    for (name, body) in [
        ("create-user", json!({ "name": "eve", "roles": ["admin"] })),
        ("set-roles", json!({ "name": "ana", "roles": ["admin"] })),
        ("set-password", json!({ "name": ADMIN, "password": "mine now, mine now" })),
        ("enroll-node", json!({ "name": "web-1", "host_public_key": SSH_KEY })),
    ] {
        let before = world.told("decision.made").len();
        let (status, answer) = ana.command(name, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {answer}");
        let told = world.told("decision.made");
        assert_eq!(told.len(), before + 1, "{name}");
        assert_eq!(told[before]["outcome"], "denied");
        assert_eq!(told[before]["actor"]["user"], "ana");
    }
    assert_eq!(world.told("user.created").len(), 2);
    assert_eq!(world.try_login(ADMIN, PASSWORD).await.0, StatusCode::OK);
    // Nodes' names are for all, their addresses aren't.
    admin.done("add-node", json!({ "name": "web-1", "address": "127.0.0.1:22" })).await;
    assert_eq!(ana.json("/v1/nodes").await, json!([{ "name": "web-1", "labels": {} }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_set_roles_is_no_administrator_by_that() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    let text = "@id(\"helpdesk\") permit(principal in Role::\"operator\", \
                action in [Action::\"admin:create-user\", Action::\"admin:set-roles\"], resource);";
    admin.done("upload-policy", json!({ "name": "helpdesk", "text": text })).await;
    ana.done("create-user", json!({ "name": "eve", "roles": ["operator"] })).await;
    for (name, body) in [
        ("set-roles", json!({ "name": "ana", "roles": ["admin"] })),
        ("set-roles", json!({ "name": ADMIN, "roles": [] })),
        ("create-user", json!({ "name": "mallory", "roles": ["admin"] })),
    ] {
        let (status, answer) = ana.command(name, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("only who holds the role admin"), "{answer}");
        let told = world.told("decision.made").pop().unwrap();
        assert_eq!((&told["outcome"], &told["actor"]["user"]), (&json!("denied"), &json!("ana")));
    }
    let long = json!({ "name": "eve", "roles": ["x".repeat(10_000)] });
    assert_eq!(ana.command("set-roles", long).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_has_its_status_and_one_line() {
    let world = World::new().await;
    let admin = world.admin().await;
    let size = world.log.recovery_size();
    for (name, body, status) in [
        ("create-user", json!({ "name": "No Name" }), 422),
        ("create-user", json!({ "nam": "x" }), 422),
        ("create-user", json!({ "name": "x", "roles": ["none"] }), 409),
        ("create-user", json!({ "name": ADMIN }), 409),
        ("set-roles", json!({ "name": "nobody", "roles": [] }), 404),
        ("remove-user", json!({ "name": ADMIN }), 409),
        ("remove-role", json!({ "name": "none" }), 404),
        ("upload-policy", json!({ "name": "p", "text": "permit(" }), 422),
        ("set-password", json!({ "name": ADMIN, "password": "short" }), 422),
        ("set-password", json!({ "name": "nobody", "password": PASSWORD }), 404),
        ("enroll-node", json!({ "name": "none", "host_public_key": SSH_KEY }), 404),
        ("enroll-node", json!({ "name": "none", "host_public_key": "rubbish" }), 422),
        ("create-lock", json!({ "matches": { "user": "rot" }, "reason": "x" }), 409),
        ("remove-policy", json!({ "name": "admin" }), 409),
        ("do-what-i-mean", json!({}), 404),
    ] {
        let (got, answer) = admin.command(name, body).await;
        assert_eq!(got.as_u16(), status, "{name}: {answer}");
        let line = answer["error"].as_str().unwrap();
        assert!(!line.is_empty() && !line.contains('\n'), "{line}");
    }
    assert_eq!(world.log.recovery_size(), size, "nothing of it is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recorded_and_not_applied_is_not_said_to_be_done() {
    let world = World::new().await;
    applied(&world.replica, 0).await.unwrap();
    let anchored = recording::Anchored { bytes: 1, head: "ab".repeat(32) };
    let stray = Draft::new(Actor::system("test"), anchored).session(SessionId::new());
    let stray = world.proxy.append(stray).await.unwrap();
    let error = applied(&world.replica, stray.index()).await.unwrap_err();
    let ApiError::Conflict(line) = &error else { panic!("{error}") };
    assert!(line.contains(&format!("event {} and not applied", stray.index())), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_node_is_said_anew_only_where_that_is_meant() {
    let world = World::new().await;
    let admin = world.admin().await;
    let pinned =
        json!({ "name": "web-1", "address": "192.0.2.7:22", "host_key": SSH_KEY, "agent": "required" });
    admin.done("add-node", pinned).await;
    let bare = json!({ "name": "web-1", "address": "192.0.2.8:22" });
    let (status, answer) = admin.command("add-node", bare).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let state = admin.json("/v1/state").await;
    let node = &state["nodes"]["web-1"];
    assert_eq!((&node["address"], &node["host_key"]), (&json!("192.0.2.7:22"), &json!(SSH_KEY)));
    let anew = json!({ "name": "web-1", "address": "192.0.2.8:22", "replace": true });
    admin.done("add-node", anew).await;
    let state = admin.json("/v1/state").await;
    let node = &state["nodes"]["web-1"];
    assert_eq!((&node["address"], node.get("host_key")), (&json!("192.0.2.8:22"), None));
}

trait Size {
    fn recovery_size(&self) -> u64;
}

impl Size for custody_core::log::embedded::EmbeddedLog {
    fn recovery_size(&self) -> u64 {
        custody_core::log::Log::size(self)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_counts_and_the_old_one_does_not() {
    let world = World::new().await;
    let admin = world.admin().await;
    admin.done("set-password", json!({ "name": ADMIN, "password": "another password" })).await;
    assert_eq!(world.try_login(ADMIN, PASSWORD).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.try_login(ADMIN, "another password").await.0, StatusCode::OK);
    let told = world.told("user.password-set");
    assert_eq!(told[1]["data"]["secret_version"], 2);
    let files = std::fs::read_dir(world.dir.path().join("secrets")).unwrap().count();
    // What is left beside the new one is the key of cursors.
    assert_eq!(files, 2, "the old hash is gone");
    let everything = world.told("user.password-set").iter().map(ToString::to_string).collect::<String>();
    assert!(!everything.contains("another password"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_host_key_is_certified() {
    let world = World::new().await;
    let admin = world.admin().await;
    admin.done("add-node", json!({ "name": "web-1", "address": "192.0.2.7:22" })).await;
    let answer = admin.done("enroll-node", json!({ "name": "web-1", "host_public_key": SSH_KEY })).await;
    let certificate =
        russh::keys::Certificate::from_openssh(answer["host_certificate"].as_str().unwrap()).unwrap();
    assert_eq!(certificate.valid_principals(), ["web-1", "web-1.custody"], "its address is no name of it");
    assert!(answer["target_ssh"].as_str().unwrap().starts_with("ssh-ed25519 "));
    let told = world.told("certificate.issued");
    let told = told.iter().find(|event| event["data"]["authority"] == "host-ssh").unwrap();
    assert_eq!(told["data"]["serial"], certificate.serial().to_string());
    assert_eq!(told["target"]["name"], "web-1");

    // The proxy's own names, and what would pass for another node's.
    admin.done("add-node", json!({ "name": "proxy.test", "address": "192.0.2.7:22" })).await;
    let (status, answer) =
        admin.command("add-node", json!({ "name": "web-2.custody", "address": "192.0.2.7:22" })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    for name in ["proxy.test", "web-2.custody"] {
        let body = json!({ "name": name, "host_public_key": SSH_KEY });
        let (status, answer) = admin.command("enroll-node", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
    let of_hosts = |event: &&serde_json::Value| event["data"]["authority"] == "host-ssh";
    assert_eq!(world.told("certificate.issued").iter().filter(of_hosts).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_are_one_after_the_other() {
    let world = World::new().await;
    let admin = world.admin().await;
    let both = futures_util::future::join_all(
        (0..6).map(|_| admin.command("create-user", json!({ "name": "ana" }))),
    );
    let mut statuses: Vec<_> = both.await.into_iter().map(|(status, _)| status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409]);
    assert_eq!(world.replica.read(|state| state.refused().count()), 0);
}
