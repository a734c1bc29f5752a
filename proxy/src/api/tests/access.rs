//! Who is let in, and what is told of it.

use super::world::{ADMIN, PASSWORD, World};
use crate::login::rate::LoginLimits;
use reqwest::StatusCode;
use serde_json::{Value, json};

const CLOSED: [&str; 11] = [
    "/v1/whoami",
    "/v1/nodes",
    "/v1/events",
    "/v1/events/0",
    "/v1/events/0/proof",
    "/v1/checkpoint",
    "/v1/state",
    "/v1/sessions",
    "/v1/sessions/01900000-0000-7000-8000-000000000005",
    "/v1/sessions/01900000-0000-7000-8000-000000000005/recording?purpose=play",
    "/metrics",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_only_three_doors_are_open() {
    let world = World::new().await;
    let stranger = world.stranger();
    for path in CLOSED {
        let (status, body) = stranger.get(path).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(body.contains("custody login"), "{body}");
    }
    let (status, _) = stranger.command("create-user", json!({ "name": "eve" })).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(stranger.get("/healthz").await, (StatusCode::OK, "ok\n".into()));
    let authorities = stranger.json("/v1/authorities").await;
    for (key, begins) in [
        ("client_ssh", "ssh-ed25519 "),
        ("target_ssh", "ssh-ed25519 "),
        ("host_ssh", "ssh-ed25519 "),
        ("server_x509", "-----BEGIN CERTIFICATE-----"),
        ("client_x509", "-----BEGIN CERTIFICATE-----"),
        ("log_key", "custody.test/log+"),
        ("origin", "custody.test/log"),
        ("ssh_address", "127.0.0.1:3022"),
    ] {
        assert!(authorities[key].as_str().unwrap().starts_with(begins), "{key}");
    }
    assert_eq!(stranger.get("/v2").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authoritys_certificate_is_refused_in_the_handshake() {
    let (world, other) = (World::new().await, World::new().await);
    let (_, body, key) = other.try_login(ADMIN, PASSWORD).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let intruder = world.person(Some(&format!("{}\n{key}", body["x509_certificate"].as_str().unwrap())));
    assert!(intruder.request("/v1/whoami").send().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_the_log_does_not_know_proves_nothing() {
    let world = World::new().await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let now = world.clock.wall().0 / 1_000_000_000;
    let issued = world.authorities.x509_client.issue(now, request.der(), ADMIN, 600).unwrap();
    let ghost = world.person(Some(&format!("{}\n{}", issued.pem, key.serialize_pem())));
    assert_eq!(ghost.get("/v1/whoami").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_evidence_before_it_is_an_answer() {
    let world = World::new().await;
    let (status, body, _) = world.try_login(ADMIN, PASSWORD).await;
    assert_eq!(status, StatusCode::OK);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert!(body["ssh_certificate"].as_str().unwrap().starts_with("ssh-ed25519-cert-v01@openssh.com "));
    assert_eq!((&body["user"], &body["roles"]), (&json!(ADMIN), &json!(["admin"])));
    let succeeded = &world.told("login.succeeded")[0];
    let issued = world.told("certificate.issued");
    assert_eq!(issued.len(), 2);
    for event in &issued {
        assert_eq!(event["cause"], succeeded["id"]);
        assert_eq!(event["data"]["subject"], ADMIN);
    }
    let until = body["valid_until"].as_str().unwrap();
    assert!(issued.iter().any(|event| event["data"]["valid_until"] == until), "{until}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_alike_outside_and_told_apart_inside() {
    let world = World::new().await;
    let admin = world.admin().await;
    admin.done("create-user", json!({ "name": "new" })).await;
    let wrong = world.try_login(ADMIN, "not the password").await;
    let nobody = world.try_login("my-secret-password", "whatever it is").await;
    let without = world.try_login("new", "whatever it is").await;
    assert_eq!((wrong.0, &wrong.1), (StatusCode::UNAUTHORIZED, &nobody.1));
    assert_eq!((nobody.0, &nobody.1), (without.0, &without.1));
    let told = world.told("login.failed");
    let claimed: Vec<_> = told.iter().map(|event| event["data"]["claimed_user"].clone()).collect();
    assert_eq!(claimed, [json!(ADMIN), Value::Null, json!("new")]);
    assert!(!serde_json::to_string(&told).unwrap().contains("my-secret-password"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_limited() {
    let limits = LoginLimits { user_burst: 2, source_burst: 3, seconds_each: 600, entries_max: 100 };
    let world = World::with_limits(limits).await;
    for _ in 0..2 {
        assert_eq!(world.try_login(ADMIN, "guess guess guess").await.0, StatusCode::UNAUTHORIZED);
    }
    let (status, body, _) = world.try_login(ADMIN, PASSWORD).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(body.contains("try again in"), "{body}");
    assert_eq!(world.told("login.failed").len(), 2);
    assert!(world.told("login.succeeded").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_removed_or_locked_is_out_at_once() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    assert_eq!(ana.json("/v1/whoami").await["roles"], json!(["operator"]));
    admin
        .done("create-lock", json!({ "name": "l", "matches": { "user": "ana" }, "reason": "incident 7" }))
        .await;
    let (status, body) = ana.get("/v1/whoami").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("incident 7"), "{body}");
    assert_eq!(world.try_login("ana", PASSWORD).await.0, StatusCode::UNAUTHORIZED);
    admin.done("lift-lock", json!({ "name": "l" })).await;
    assert_eq!(ana.get("/v1/whoami").await.0, StatusCode::OK);
    admin.done("remove-user", json!({ "name": "ana" })).await;
    assert_eq!(ana.get("/v1/whoami").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_log_lets_nothing_happen() {
    let world = World::new().await;
    let admin = world.admin().await;
    world.log.close();
    assert_eq!(admin.get("/healthz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, answer) = admin.command("create-role", json!({ "name": "r" })).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    let (status, body, _) = world.try_login(ADMIN, PASSWORD).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!body.contains("CERTIFICATE"), "{body}");
    assert_eq!(admin.get("/v1/state").await.0, StatusCode::SERVICE_UNAVAILABLE, "a read that can't be told");
}
