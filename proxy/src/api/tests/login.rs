//! What a login may be told, and what the log is told of it.

use super::world::{ADMIN, PASSWORD, Plan, SSH_KEY, World};
use reqwest::StatusCode;
use serde_json::{Value, json};

const SHORT_RSA_KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDcDqDg6a78GXLHuMFJxHm+rSFCjBKo/D/a3nm1bcQLxbg5nkHncbtY7kGujsaGWWybvo2YP3eP4pkgSx7d24o5e9xdi4Nacaj4vEQpEjkBAETYsyiqu3BiYOm79/7ZKzCc03+3GtO8e8DR2Y9/HUgjzKX43dWZRsiocxikiwlwRQ==";
/// PEM that holds no request.
const RUBBISH: &str =
    "-----BEGIN CERTIFICATE REQUEST-----\nMAUwAwIBAA==\n-----END CERTIFICATE REQUEST-----\n";

async fn asked(world: &World, password: &str, ssh_key: &str, request: &str) -> (StatusCode, Value) {
    let body =
        json!({ "user": ADMIN, "password": password, "ssh_public_key": ssh_key, "x509_request": request });
    world.stranger().post("/v1/login", body).await
}

fn request() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

/// One by a key of a kind that isn't certified.
fn other_request() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_certified_tells_nothing_of_the_password() {
    let world = World::new().await;
    for (ssh_key, request) in
        [(SSH_KEY, RUBBISH.to_owned()), (SSH_KEY, other_request()), (SHORT_RSA_KEY, request())]
    {
        let right = asked(&world, PASSWORD, ssh_key, &request).await;
        let wrong = asked(&world, "not the password", ssh_key, &request).await;
        assert_eq!(right.0, StatusCode::UNPROCESSABLE_ENTITY, "{}", right.1);
        assert_eq!(right, wrong);
    }
    // Nobody's password was looked at, so there is nothing to tell.
    assert!(world.told("login.failed").is_empty() && world.told("login.succeeded").is_empty());
    assert_eq!(asked(&world, PASSWORD, SSH_KEY, &request()).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_brings_no_certificate_is_told() {
    // Longer than an authority gives: as when its key store fails.
    let world = World::planned(Plan { login_seconds: u64::MAX, ..Plan::default() }).await;
    let (status, answer) = asked(&world, PASSWORD, SSH_KEY, &request()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
    let told = world.told("login.failed");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["data"]["reason"], "no certificate could be issued");
    assert_eq!(told[0]["data"]["claimed_user"], ADMIN);
    assert!(world.told("login.succeeded").is_empty() && world.told("certificate.issued").is_empty());
}
