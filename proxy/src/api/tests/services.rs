//! Service accounts: what a token opens, and what ends it.

use super::log::{pieces, subscribe};
use super::world::{Person, Plan, World};
use custody_core::clock::{Clock, ManualClock, SystemClock};
use custody_core::event::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const READS: &str =
    "@id(\"siem-reads\") permit(principal in Role::\"siem\", action == Action::\"events:read\", resource);";

/// A program that shows `token` with each request.
fn program(world: &World, token: &str) -> Person {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    let stranger = world.stranger();
    Person { http: world.builder().default_headers(headers).build().unwrap(), ..stranger }
}

async fn siem(world: &World, admin: &Person) -> (Person, Value) {
    admin.done("create-role", json!({ "name": "siem" })).await;
    let made = admin.done("create-service", json!({ "name": "siem", "roles": ["siem"], "days": 30 })).await;
    (program(world, made["token"].as_str().unwrap()), made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_reads_events_once_a_policy_says_so_and_nothing_else() {
    let world = World::new().await;
    let admin = world.admin().await;
    let (siem, made) = siem(&world, &admin).await;
    let (status, body) = siem.get("/v1/events").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("no policy allows siem to events:read"), "{body}");
    admin.done("upload-policy", json!({ "name": "siem", "text": READS })).await;

    let (entries, _) = siem.page("limit=3").await;
    assert_eq!(entries.len(), 3);
    for path in ["/v1/events/0", "/v1/events/0/proof"] {
        assert_eq!(siem.get(path).await.0, StatusCode::OK, "{path}");
    }
    for path in [
        "/v1/whoami",
        "/v1/nodes",
        "/v1/state",
        "/v1/sessions",
        "/v1/sinks",
        "/v1/log",
        "/v1/checkpoint",
        "/metrics",
        "/log/tile/entries/000.p/1",
    ] {
        assert_eq!(siem.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    for (command, body) in [
        ("create-user", json!({ "name": "eve" })),
        ("rotate-service", json!({ "name": "siem" })),
        ("set-service-roles", json!({ "name": "siem", "roles": ["admin"] })),
    ] {
        assert_eq!(siem.command(command, body).await.0, StatusCode::UNAUTHORIZED, "{command}");
    }

    // What is told of it: who made it, on whose decision, and its reading once a minute.
    let created = &world.told("service.created")[0];
    assert_eq!((&created["id"], created["actor"]["user"].as_str()), (&made["id"], Some("root")));
    let decided = |cause: &Value| {
        let mut decisions = world.told("decision.made").into_iter();
        decisions.find(|decision| decision["id"] == *cause).unwrap()["data"].clone()
    };
    assert_eq!(decided(&created["cause"])["action"], "admin:create-service");
    for _ in 0..5 {
        siem.page("limit=1").await;
    }
    let reads: Vec<Value> = world
        .told("log.read")
        .into_iter()
        .filter(|read| read["actor"]["system"] == "service:siem" && read["data"]["purpose"] == "search")
        .collect();
    assert_eq!(reads.len(), 1);
    assert_eq!(decided(&reads[0]["cause"])["principal"], "Service::\"siem\"");

    // Nobody but its owner ever sees the token.
    let token = made["token"].as_str().unwrap();
    let all = world.everything();
    assert!(!all.contains(token) && !all.contains(token.rsplit('~').next().unwrap()));
    for file in std::fs::read_dir(world.dir.path().join("secrets")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(token.rsplit('~').next().unwrap()), "{text}");
    }
    let state = admin.json("/v1/state").await;
    assert_eq!(state["services"]["present"]["siem"]["token"]["expires"], made["expires"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_wrong_replaced_run_out_or_locked_open_nothing() {
    let world = World::new().await;
    let admin = world.admin().await;
    let (siem, made) = siem(&world, &admin).await;
    admin.done("upload-policy", json!({ "name": "siem", "text": READS })).await;
    let right = made["token"].as_str().unwrap();
    let other = admin.done("create-service", json!({ "name": "other", "roles": ["siem"] })).await;
    let secret = other["token"].as_str().unwrap().rsplit('~').next().unwrap();
    for wrong in [
        "x",
        "custody~siem~",
        &right[..right.len() - 1],
        &format!("{right}x"),
        &format!("custody~siem~{secret}"),
        &format!("custody~nobody~{secret}"),
        super::world::READER_TOKEN,
    ] {
        let (status, body) = program(&world, wrong).get("/v1/events").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong}: {body}");
    }
    // A token that isn't right isn't made good by a certificate beside it.
    let both = admin.request("/v1/events").bearer_auth("custody~siem~x").send().await.unwrap();
    assert_eq!(both.status(), StatusCode::UNAUTHORIZED);

    admin
        .done("create-lock", json!({ "name": "l", "matches": { "user": "siem" }, "reason": "it was stolen" }))
        .await;
    let (status, body) = siem.get("/v1/events").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("it was stolen"), "{body}");
    admin.done("lift-lock", json!({ "name": "l" })).await;
    assert_eq!(siem.get("/v1/events").await.0, StatusCode::OK);

    // The old one goes on for a while, then it is the last but one that ends.
    let new = admin.done("rotate-service", json!({ "name": "siem", "keep_hours": 1 })).await;
    let new = program(&world, new["token"].as_str().unwrap());
    for both in [&siem, &new] {
        assert_eq!(both.get("/v1/events").await.0, StatusCode::OK);
    }
    let newest = admin.done("rotate-service", json!({ "name": "siem" })).await;
    let newest = program(&world, newest["token"].as_str().unwrap());
    assert_eq!(newest.get("/v1/events").await.0, StatusCode::OK);
    for ended in [&siem, &new] {
        assert_eq!(ended.get("/v1/events").await.0, StatusCode::UNAUTHORIZED);
    }
    let kept = std::fs::read_dir(world.dir.path().join("secrets")).unwrap().count();
    // The administrator's password, the key of cursors, and one token for each service account.
    assert_eq!(kept, 4, "what doesn't count is forgotten");

    for (days, status) in [(0, 422), (10_000, 422), (1, 200)] {
        let (answer, _) = admin.command("rotate-service", json!({ "name": "other", "days": days })).await;
        assert_eq!(answer.as_u16(), status, "{days}");
    }
    let until =
        world.told("service.token-set").pop().unwrap()["data"]["expires"].as_str().unwrap().to_owned();
    let left = until.parse::<Timestamp>().unwrap().seconds() - world.clock.wall().0 / 1_000_000_000;
    assert!((86_000..=86_400).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_account_follows_ends_with_its_token() {
    let world = World::new().await;
    let admin = world.admin().await;
    let (siem, _) = siem(&world, &admin).await;
    admin.done("upload-policy", json!({ "name": "siem", "text": READS })).await;
    let mut stream = subscribe(&siem, "type=role", None).await;
    let mut buffer = String::new();
    assert_eq!(pieces(&mut stream, &mut buffer, 2).await.len(), 2);
    for _ in 0..3 {
        drop(subscribe(&siem, "type=role", None).await);
    }
    let follows = world.told("log.read").into_iter().filter(|read| read["data"]["purpose"] == "follow");
    assert_eq!(follows.count(), 1, "a program that comes again and again doesn't fill the log");
    admin.done("rotate-service", json!({ "name": "siem" })).await;
    let last = pieces(&mut stream, &mut buffer, 1).await.pop().unwrap();
    assert_eq!(last.0, "denied");
    assert!(last.1["error"].as_str().unwrap().contains("rotate"), "{}", last.1);

    // Who may not make one doesn't, and it is told.
    let ana = world.operator(&admin).await;
    for (command, body) in [
        ("create-service", json!({ "name": "hers", "roles": ["operator"] })),
        ("rotate-service", json!({ "name": "siem" })),
        ("remove-service", json!({ "name": "siem" })),
    ] {
        let (status, answer) = ana.command(command, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
        assert!(answer["token"].is_null());
    }
    admin.done("remove-service", json!({ "name": "siem" })).await;
    assert_eq!(admin.command("create-user", json!({ "name": "siem" })).await.0, StatusCode::CONFLICT);
    assert_eq!(world.told("service.removed").len(), 1);
}

/// Waits until so many failed logins are told of.
pub async fn failures(world: &World, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let told = world.told("login.failed");
        if told.len() >= count {
            return told;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "there are never {count}: {told:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_proves_nothing_is_told_of_once_and_its_service_account_named() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().wall()));
    let world = World::planned(Plan { clock: clock.clone(), ..Plan::default() }).await;
    let admin = world.admin().await;
    let (old, made) = siem(&world, &admin).await;
    admin.done("upload-policy", json!({ "name": "siem", "text": READS })).await;
    let new = admin.done("rotate-service", json!({ "name": "siem", "days": 30 })).await;
    let new = program(&world, new["token"].as_str().unwrap());
    assert_eq!(new.get("/v1/events").await.0, StatusCode::OK);
    assert!(world.told("login.failed").is_empty());

    // One that was replaced is as unknown as any other, but for the name that it bears.
    for _ in 0..3 {
        assert_eq!(old.get("/v1/events").await.0, StatusCode::UNAUTHORIZED);
    }
    let told = failures(&world, 1).await;
    assert_eq!(
        told[0]["data"],
        json!({ "claimed_user": "siem", "method": "service-token", "reason": "wrong token, or one that was replaced" })
    );
    assert_eq!(
        (&told[0]["outcome"], &told[0]["source"]["address"]),
        (&json!("failure"), &json!("127.0.0.1"))
    );

    // Of those that name nobody one is told for all, and nothing of what they are.
    for unknown in ["custody~not-there~a-secret-of-somebody", "another-secret-of-somebody"] {
        assert_eq!(program(&world, unknown).get("/v1/events").await.0, StatusCode::UNAUTHORIZED);
    }
    let told = failures(&world, 2).await;
    assert_eq!(
        (&told[1]["data"]["claimed_user"], told[1]["data"]["reason"].as_str()),
        (&Value::Null, Some("no such service account"))
    );

    // Who has the right one and is told what stands against it is told so once that is in the log.
    let lock = json!({ "name": "l", "matches": { "user": "siem" }, "reason": "it was stolen" });
    admin.done("create-lock", lock).await;
    for _ in 0..3 {
        assert_eq!(new.get("/v1/events").await.0, StatusCode::FORBIDDEN);
        assert_eq!(world.told("login.failed").len(), 3);
    }
    admin.done("lift-lock", json!({ "name": "l" })).await;
    assert_eq!(new.get("/v1/events").await.0, StatusCode::OK);
    clock.advance(Duration::from_secs(31 * 86_400));
    for _ in 0..3 {
        let (status, body) = new.get("/v1/events").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(body.contains("has run out"), "{body}");
        assert_eq!(world.told("login.failed").len(), 4);
    }
    // And again when ten minutes have passed.
    clock.advance(Duration::from_secs(600));
    assert_eq!(new.get("/v1/events").await.0, StatusCode::UNAUTHORIZED);
    let reasons: Vec<Value> =
        world.told("login.failed").iter().map(|told| told["data"]["reason"].clone()).collect();
    assert_eq!(
        reasons[2..],
        [
            json!("the service account is locked"),
            json!("the token has run out"),
            json!("the token has run out")
        ]
    );

    let all = world.everything();
    let secret = made["token"].as_str().unwrap().rsplit('~').next().unwrap();
    for kept_out in [secret, "not-there", "secret-of-somebody"] {
        assert!(!all.contains(kept_out), "{kept_out}");
    }
}
