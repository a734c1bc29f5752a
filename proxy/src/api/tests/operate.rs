use super::world::{Plan, World};
use reqwest::StatusCode;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_operated_by_those_who_may_and_each_thing_is_an_event_first() {
    let world = World::new().await;
    let root = world.admin().await;
    let status = root.json("/v1/log").await;
    let keys = status["keys"].as_array().unwrap().clone();
    assert_eq!((keys.len(), status["up"].as_bool()), (1, Some(true)));
    assert_eq!(status["clock_ahead_seconds"], json!(null));

    let added = root.post("/v1/log/add-key", json!({ "reason": "yearly" })).await;
    assert_eq!(added.0, StatusCode::OK, "{}", added.1);
    assert_eq!(added.1["keys"].as_array().unwrap().len(), 2);
    assert_eq!(world.told("log.key-added").len(), 1);
    let authorities = world.stranger().json("/v1/authorities").await;
    assert_eq!(authorities["log_keys"], added.1["keys"]);
    assert_eq!(authorities["log_key"], added.1["keys"][1], "the newest is the one to pin");

    let retired = root.post("/v1/log/retire-key", json!({ "key": keys[0], "reason": "yearly" })).await;
    assert_eq!(retired.0, StatusCode::OK, "{}", retired.1);
    assert_eq!(retired.1["keys"], json!([added.1["keys"][1]]));
    let told = &world.told("log.key-retired")[0];
    assert!(told["data"]["checkpoint"].as_str().unwrap().starts_with("custody.test/log\n"));
    let last = root.post("/v1/log/retire-key", json!({ "key": added.1["keys"][1] })).await;
    assert_eq!(last.0, StatusCode::CONFLICT);
    let unknown = root.post("/v1/log/retire-key", json!({ "key": "x+1+y" })).await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND);
    assert_eq!(root.post("/v1/log/retire-key", json!({})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(root.post("/v1/log/explode", json!({})).await.0, StatusCode::NOT_FOUND);

    assert_eq!(root.post("/v1/log/confirm-clock", json!({})).await.0, StatusCode::OK);
    assert_eq!(world.told("log.clock-confirmed").len(), 1);
    let compacted = root.post("/v1/log/compact-projections", json!({})).await;
    assert_eq!(compacted.0, StatusCode::OK, "{}", compacted.1);
    assert!(compacted.1["after"].as_u64().unwrap() > 0);
    let found = root.json("/v1/events?type=log.key-added").await;
    assert_eq!(found.as_array().unwrap().len(), 1, "a compacted projection answers as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_operate_changes_nothing() {
    let world = World::new().await;
    let admin = world.admin().await;
    let operator = world.operator(&admin).await;
    for operation in ["add-key", "confirm-clock", "compact-projections"] {
        let answer = operator.post(&format!("/v1/log/{operation}"), json!({})).await;
        assert_eq!(answer.0, StatusCode::FORBIDDEN, "{operation}");
    }
    assert!(world.told("log.key-added").is_empty() && world.told("log.clock-confirmed").is_empty());
    assert_eq!(world.stranger().post("/v1/log/add-key", json!({})).await.0, StatusCode::UNAUTHORIZED);
}

/// Its writer lives, and nobody gets in.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_disk_is_full_is_not_said_to_take_events() {
    let full = Arc::new(AtomicBool::new(true));
    let world = World::planned(Plan { full: Arc::clone(&full), ..Plan::default() }).await;
    let admin = world.admin().await;
    let (status, why) = world.stranger().get("/healthz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("disk is full"), "{status}: {why}");
    assert!(admin.get("/metrics").await.1.contains("\ncustody_log_up 0\n"));
    let said = admin.json("/v1/log").await;
    assert_eq!((&said["up"], &said["full"]), (&json!(false), &json!(true)));

    full.store(false, Relaxed);
    assert_eq!(world.stranger().get("/healthz").await.0, StatusCode::OK);
    assert!(admin.get("/metrics").await.1.contains("\ncustody_log_up 1\n"));
    let said = admin.json("/v1/log").await;
    assert_eq!((&said["up"], &said["full"]), (&json!(true), &json!(false)));
}
