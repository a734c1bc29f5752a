//! Reading the log: pages, subscriptions, proofs, the state of the past, metrics.

use super::world::{Person, World};
use custody_core::log::Log;
use custody_core::log::note::VerifierKey;
use custody_core::log::proof::ProofFile;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_hold_the_canonical_bytes_and_always_a_cursor() {
    let world = World::new().await;
    let admin = world.admin().await;
    for n in 0..5 {
        admin.done("create-role", json!({ "name": format!("r{n}") })).await;
    }
    let (mut place, mut indices) = (String::from("from=0"), Vec::new());
    loop {
        let answer = admin
            .request(&format!("/v1/events?type=role&limit=2&{place}"))
            .header("accept", "application/x-ndjson")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson; charset=utf-8");
        place = format!("cursor={}", answer.headers()["custody-cursor"].to_str().unwrap());
        let body = answer.text().await.unwrap();
        for line in body.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            let index = value["index"].as_u64().unwrap();
            let entry = &world.log.read(index, 1, 1).unwrap()[0];
            let bytes = std::str::from_utf8(&entry.bytes).unwrap();
            assert!(line.contains(bytes), "the bytes stand as they are");
            indices.push(index);
        }
        if body.is_empty() {
            break;
        }
    }
    assert_eq!(indices.len(), 6);
    assert!(indices.is_sorted());
    let (none, _) = admin.page("user=nobody").await;
    assert!(none.is_empty());
    let (newest, _) = admin.page("order=desc&limit=1&type=role.created").await;
    assert_eq!(newest[0]["event"]["data"]["name"], "r4");
    let page = admin.json("/v1/events?text=r3&type=role&envelope=page").await;
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    assert!(page["next_cursor"].is_string());
    assert_eq!(admin.json("/v1/events?text=r3&type=role").await, page["entries"]);
    let appended = newest[0]["appended"].as_str().unwrap();
    let (until, _) = admin.page(&format!("until={appended}&type=role&limit=1000")).await;
    assert_eq!(until.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_has_the_same_entries_and_cursor_in_every_format() {
    let world = World::new().await;
    let admin = world.admin().await;
    admin.done("create-role", json!({ "name": "r1", "description": "a|b=c" })).await;
    let (custody, cursor) = admin.page("type=role").await;
    let indices: Vec<u64> = custody.iter().map(|entry| entry["index"].as_u64().unwrap()).collect();
    assert_eq!(indices.len(), 2);
    let id = |index: &u64| format!("{}#{index}", world.log.origin());
    let ids: Vec<String> = indices.iter().map(id).collect();

    let (ecs, same) = admin.page("type=role&format=ecs").await;
    assert_eq!(
        (ecs.iter().map(|d| d["event"]["id"].as_str().unwrap()).collect::<Vec<_>>(), &same),
        (ids.iter().map(String::as_str).collect(), &cursor)
    );
    assert_eq!(ecs[1]["group"]["name"], "r1");
    let page = admin.json("/v1/events?type=role&format=ocsf&envelope=page").await;
    let ocsf = page["entries"].as_array().unwrap();
    assert_eq!(ocsf.iter().map(|e| e["metadata"]["uid"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    assert_eq!(page["next_cursor"].as_str().unwrap(), cursor);

    let asked = admin.request("/v1/events?type=role&format=cef").header("accept", "text/plain");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers()["custody-cursor"], cursor.as_str());
    let text = answer.text().await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.starts_with("CEF:0|Custody|custodyd|")),
        "{text}"
    );
    let page = admin.json("/v1/events?type=role&format=cef").await;
    assert_eq!(page, json!(lines));

    let mut stream = subscribe(&admin, "type=role&from=0&format=ecs", None).await;
    let told = pieces(&mut stream, &mut String::new(), 2).await;
    assert_eq!(told[1].1, ecs[1]);
    let (status, _) = admin.get("/v1/events?format=leef").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_told_once_a_minute_and_a_denied_one_too() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    for _ in 0..5 {
        admin.page("limit=3&user=ana").await;
        assert_eq!(ana.get("/v1/events").await.0, StatusCode::FORBIDDEN);
        assert_eq!(ana.get("/v1/state").await.0, StatusCode::FORBIDDEN);
    }
    let told = world.told("log.read");
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["data"]["purpose"], &told[0]["data"]["query"]),
        (&json!("search"), &json!("limit=3&user=ana"))
    );
    let decisions = world.told("decision.made");
    let cause = decisions.iter().find(|d| d["id"] == told[0]["cause"]).unwrap();
    assert_eq!(cause["data"]["action"], "log:read");
    let denied: Vec<_> = decisions.iter().filter(|d| d["outcome"] == "denied").collect();
    assert_eq!(denied.len(), 2);
}

/// Reads the stream until `count` pieces `id:`/`event:` … have come; gives ids and data.
pub async fn pieces(
    answer: &mut reqwest::Response,
    buffer: &mut String,
    count: usize,
) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    while found.len() < count {
        while let Some((piece, rest)) = buffer.split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())) {
            *buffer = rest;
            let field = |name: &str| {
                piece.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned())
            };
            if let Some(data) = field("data:") {
                let id = field("id:").or_else(|| field("event:")).unwrap();
                found.push((id, serde_json::from_str(&data).unwrap()));
            }
        }
        if found.len() < count {
            let chunk = tokio::time::timeout(Duration::from_secs(10), answer.chunk()).await.unwrap().unwrap();
            let Some(chunk) = chunk else { break };
            buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
    found
}

pub async fn subscribe(person: &Person, query: &str, last: Option<&str>) -> reqwest::Response {
    let mut request = person.request(&format!("/v1/events?{query}")).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    // Whatever stands between hands it on as it comes.
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_follows_and_resumes_where_it_broke() {
    let world = World::new().await;
    let admin = world.admin().await;
    let mut stream = subscribe(&admin, "type=role&from=0", None).await;
    let mut buffer = String::new();
    let first = pieces(&mut stream, &mut buffer, 1).await;
    assert_eq!(first[0].1["event"]["data"]["name"], "admin");
    for n in 0..4 {
        admin.done("create-role", json!({ "name": format!("r{n}") })).await;
    }
    let two = pieces(&mut stream, &mut buffer, 2).await;
    assert_eq!(two[1].1["event"]["data"]["name"], "r1");
    drop(stream);
    let mut again = subscribe(&admin, "type=role&from=0", Some(&two[1].0)).await;
    let rest = pieces(&mut again, &mut String::new(), 2).await;
    let names: Vec<_> = rest.iter().map(|(_, entry)| entry["event"]["data"]["name"].clone()).collect();
    assert_eq!(names, ["r2", "r3"]);
    assert_eq!(world.told("log.read").len(), 1, "once for a subscription, however often it was cut off");
    drop(subscribe(&admin, "type=role", None).await);
    assert_eq!(world.told("log.read").len(), 2, "and once for the next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_ends_with_the_right_to_read_and_with_the_server() {
    let mut world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    admin.done("set-roles", json!({ "name": "ana", "roles": ["admin", "operator"] })).await;
    let mut hers = subscribe(&ana, "type=lock", None).await;
    let mut his = subscribe(&admin, "type=nothing", None).await;
    admin
        .done("create-lock", json!({ "name": "l", "matches": { "user": "ana" }, "reason": "leaves today" }))
        .await;
    let last = pieces(&mut hers, &mut String::new(), 2).await.pop().unwrap();
    assert_eq!(last.0, "denied");
    assert!(last.1["error"].as_str().unwrap().contains("leaves today"), "{}", last.1);
    assert_eq!(hers.chunk().await.unwrap(), None);
    world.stop();
    let last = pieces(&mut his, &mut String::new(), 1).await;
    assert_eq!(last[0].0, "closing");
    drop((hers, his, admin, ana));
    let served = tokio::time::timeout(Duration::from_secs(15), &mut world.served).await;
    served.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_ends_once_until_is_passed() {
    let world = World::new().await;
    let admin = world.admin().await;
    for n in 0..3 {
        admin.done("create-role", json!({ "name": format!("r{n}") })).await;
    }
    let (roles, _) = admin.page("type=role").await;
    let until = roles[1]["appended"].as_str().unwrap();
    let mut stream = subscribe(&admin, &format!("type=role&from=0&until={until}"), None).await;
    let mut told = pieces(&mut stream, &mut String::new(), 3).await;
    let last = told.pop().unwrap();
    assert_eq!(last.0, "until-passed");
    let told: Vec<Value> = told.into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(told, roles[..2]);
    assert_eq!(stream.chunk().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_has_its_proof() {
    let world = World::new().await;
    let admin = world.admin().await;
    let key = VerifierKey::parse(world.stranger().json("/v1/authorities").await["log_key"].as_str().unwrap())
        .unwrap();
    let last = admin.done("create-role", json!({ "name": "r" })).await["index"].as_u64().unwrap();
    for index in [0, 3, last] {
        let (status, text) = admin.get(&format!("/v1/events/{index}/proof")).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let entry = &world.log.read(index, 1, 1).unwrap()[0];
        ProofFile::parse(&text).unwrap().check(&entry.bytes, &key).unwrap();
        let mut other = entry.bytes.to_vec();
        other[0] ^= 1;
        ProofFile::parse(&text).unwrap().check(&other, &key).unwrap_err();
    }
    assert!(admin.get("/v1/checkpoint").await.1.starts_with("custody.test/log\n"));
    assert_eq!(admin.get("/v1/events/99999").await.0, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/v1/events/99999/proof").await.0, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/v1/events/x").await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_the_past_is_what_it_was() {
    let world = World::new().await;
    let admin = world.admin().await;
    let (status, _) = admin.get("/v1/state").await;
    assert_eq!(status, StatusCode::OK);
    let index = admin.done("create-role", json!({ "name": "r" })).await["index"].as_u64().unwrap();
    let at = admin.json(&format!("/v1/events/{index}")).await["appended"].as_str().unwrap().to_owned();
    let (_, then) = admin.get(&format!("/v1/state?at={at}")).await;
    admin.done("remove-role", json!({ "name": "r" })).await;
    let (status, again) = admin.get(&format!("/v1/state?at={at}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(then, again, "byte for byte");
    let then: Value = serde_json::from_str(&then).unwrap();
    assert!(then["roles"].to_string().contains("\"r\""), "{}", then["roles"]);
    assert!(!admin.json("/v1/state").await["roles"].to_string().contains("\"r\""));
    assert_eq!(admin.get("/v1/state?at=yesterday").await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_say_how_it_is() {
    let world = World::new().await;
    let admin = world.admin().await;
    assert_eq!(world.try_login("root", "wrong wrong wrong").await.0, StatusCode::UNAUTHORIZED);
    admin.page("type=login").await;
    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "custody_log_up 1",
        "custody_sessions_live 0",
        "custody_logins_total{outcome=\"failure\"} 1",
        "custody_logins_total{outcome=\"success\"} 1",
        "custody_events_total{family=\"login\"} 2",
        "custody_search_up 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} isn't in\n{text}");
    }
}
