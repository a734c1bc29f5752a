//! The log as it is served to everyone: who gets what, how long it may be kept, and what isn't there.

use super::services::failures;
use super::world::{Person, Plan, READER_TOKEN, World};
use custody_core::clock::{Clock as _, ManualClock, SystemClock};
use custody_core::log::tile::{Tile, parse_bundle, parse_hashes};
use custody_core::log::tree::{Hash, leaf_hash, verify_consistency};
use custody_core::log::{Checkpoint, Log, ProducerKey, Record};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

async fn get(person: &Person, path: &str) -> Response {
    person.request(path).send().await.unwrap()
}

async fn with_token(person: &Person, path: &str, token: &str) -> Response {
    person.request(path).bearer_auth(token).send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Over HTTPS and without TLS alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_and_hashes_are_for_everybody_and_kept_as_long_as_they_hold() {
    let world = World::new().await;
    world.log.sign_now().await.unwrap();
    let plain = Person { http: reqwest::Client::new(), url: format!("http://{}", world.log_address) };
    for anybody in [world.stranger(), plain.clone()] {
        let answer = get(&anybody, "/log/checkpoint").await;
        assert_eq!(header(&answer, "content-type"), "text/plain; charset=utf-8");
        assert_eq!(header(&answer, "cache-control"), "public, max-age=1");
        let checkpoint = Checkpoint::verify(&answer.text().await.unwrap(), world.log.verifier_key()).unwrap();
        let size = checkpoint.size();
        assert!(size > 5);
        let tile = Tile::of(Some(0), 0, size).unwrap();
        let answer = get(&anybody, &format!("/log/{tile}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header(&answer, "content-type"), "application/octet-stream");
        assert_eq!(header(&answer, "cache-control"), "public, max-age=31536000, immutable");
        let hashes = parse_hashes(&answer.bytes().await.unwrap(), tile.width).unwrap();
        let entries = world.log.read(0, size as usize, usize::MAX).unwrap();
        assert!(entries.iter().map(|entry| leaf_hash(&entry.bytes)).eq(hashes));

        for not_yet in ["tile/0/000", "tile/1/000.p/1", "tile/0/x001/000", "tile/63/000.p/1"] {
            let answer = get(&anybody, &format!("/log/{not_yet}")).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{not_yet}");
            assert_eq!(header(&answer, "cache-control"), "no-store", "{not_yet}");
            assert!(answer.text().await.unwrap().contains("isn't there yet"), "{not_yet}");
        }
        for nothing in ["tile/00/000", "tile/0/0", "tile/0/%30%30%30", "tile/0/000.p/0", "tile/data/000"] {
            let answer = get(&anybody, &format!("/log/{nothing}")).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{nothing}");
            assert_eq!(header(&answer, "cache-control"), "no-store", "{nothing}");
        }
    }
    // Without TLS there is the log and nothing else.
    for path in ["/healthz", "/v1/authorities", "/v1/checkpoint", "/v1/events"] {
        assert_eq!(get(&plain, path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_for_those_who_may_read_the_log_and_it_is_told() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    world.log.sign_now().await.unwrap();
    let plain = Person { http: reqwest::Client::new(), url: format!("http://{}", world.log_address) };
    let path = "/log/tile/entries/000.p/6";
    assert_eq!(get(&world.stranger(), path).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(get(&plain, path).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(get(&ana, path).await.status(), StatusCode::FORBIDDEN);
    for token in ["", "x", &READER_TOKEN[1..]] {
        assert_eq!(with_token(&plain, path, token).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(with_token(&world.stranger(), path, token).await.status(), StatusCode::UNAUTHORIZED);
    }
    let expected: Vec<Vec<u8>> =
        world.log.read(0, 6, usize::MAX).unwrap().iter().map(|entry| entry.bytes.to_vec()).collect();
    for _ in 0..3 {
        for answer in [get(&admin, path).await, with_token(&plain, path, READER_TOKEN).await] {
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(header(&answer, "cache-control"), "private, max-age=31536000, immutable");
            assert_eq!(header(&answer, "vary"), "accept-encoding");
            let bytes = answer.bytes().await.unwrap();
            assert_eq!(parse_bundle(&bytes, 6).unwrap(), expected);
        }
    }
    let told: Vec<Value> = world.told("log.read").into_iter().map(|event| event["actor"].clone()).collect();
    let readers: Vec<&str> =
        told.iter().filter_map(|actor| actor["user"].as_str().or(actor["system"].as_str())).collect();
    assert_eq!(readers, ["root", "reader:north"], "once a minute for each of them");

    let packed = admin.request(path).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(header(&packed, "content-encoding"), "gzip");
    let mut bytes = Vec::new();
    let packed = packed.bytes().await.unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut bytes).unwrap();
    assert_eq!(parse_bundle(&bytes, 6).unwrap(), expected);
    assert!(packed.len() < bytes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_no_reader_is_told_of_once_in_ten_minutes_and_never_itself() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().wall()));
    let world = World::planned(Plan { clock: clock.clone(), ..Plan::default() }).await;
    world.log.sign_now().await.unwrap();
    let plain = Person { http: reqwest::Client::new(), url: format!("http://{}", world.log_address) };
    // No token at all is nobody's failure, and neither is one where none is asked for.
    assert_eq!(get(&plain, "/log/tile/entries/000.p/6").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(with_token(&plain, "/log/tile/0/000.p/6", "a secret").await.status(), StatusCode::OK);
    assert_eq!(with_token(&plain, "/log/tile/entries/000.p/6", READER_TOKEN).await.status(), StatusCode::OK);
    assert!(world.told("login.failed").is_empty());
    let wrong = async || {
        for anybody in [&plain, &world.stranger()] {
            for path in ["/log/tile/entries/000.p/6", "/log/appended/000.p/6"] {
                for token in ["", "a secret of somebody", "custody~nobody~a secret of somebody"] {
                    let answer = with_token(anybody, path, token).await;
                    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}: {token}");
                }
            }
        }
    };
    wrong().await;
    let told = failures(&world, 1).await;
    assert_eq!(told[0]["data"], json!({ "method": "service-token", "reason": "no reader has this token" }));
    assert_eq!(
        (&told[0]["outcome"], &told[0]["source"]["address"], &told[0]["actor"]["system"]),
        (&json!("failure"), &json!("127.0.0.1"), &json!("api"))
    );
    clock.advance(Duration::from_secs(600));
    wrong().await;
    assert_eq!(failures(&world, 2).await.len(), 2);
    assert!(!world.everything().contains("secret of somebody"));
}

/// What no published checkpoint covers isn't served, though it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_served_that_nobody_could_check() {
    let world = World::new().await;
    let size = world.log.sign_now().await.unwrap().size();
    let answer =
        with_token(&world.stranger(), &format!("/log/tile/entries/000.p/{}", size + 5), READER_TOKEN).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let mut last = 0;
    let admin = world.admin().await;
    for n in 0..10 {
        admin.done("create-role", json!({ "name": format!("r{n}") })).await;
        let text = get(&world.stranger(), "/log/checkpoint").await.text().await.unwrap();
        let checkpoint = Checkpoint::verify(&text, world.log.verifier_key()).unwrap();
        assert!(checkpoint.size() >= last, "it shrinks");
        last = checkpoint.size();
    }
}

/// The record on the disk is rotten and readers' memory of it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods, reason = "what a test damages needn't last")]
async fn a_rotten_record_is_named_and_never_repaired() {
    let world = World::new().await;
    let first = world.log.size();
    let record = |seq| Record {
        producer: ProducerKey { id: "raw".into(), boot: uuid::Uuid::from_u128(1), seq },
        tag: 0,
        bytes: format!("{{\"raw\":{seq},\"pad\":\"{}\"}}", "x".repeat(60_000)).into_bytes().into(),
    };
    let _receipts = world.log.submit((0..100).map(record).collect()).unwrap().await.unwrap();
    world.log.sign_now().await.unwrap();
    let segment = std::fs::read_dir(world.dir.path().join("log/segments")).unwrap().flatten().next().unwrap();
    let mut bytes = std::fs::read(segment.path()).unwrap();
    let at = bytes.windows(9).position(|window| window == b"{\"raw\":7,").unwrap();
    bytes[at + 20] ^= 1;
    std::fs::write(segment.path(), &bytes).unwrap();
    let path = format!("/log/tile/entries/000.p/{}", first + 50);
    for _ in 0..2 {
        let answer = with_token(&world.stranger(), &path, READER_TOKEN).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(header(&answer, "cache-control"), "no-store");
        let said = answer.text().await.unwrap();
        assert!(said.contains(&format!("entry {} of the log is damaged", first + 7)), "{said}");
        assert!(!said.contains("segments"), "a stranger needn't know where: {said}");
    }
    let path = format!("/log/tile/entries/000.p/{}", first + 7);
    assert_eq!(with_token(&world.stranger(), &path, READER_TOKEN).await.status(), StatusCode::OK);
    assert_eq!(std::fs::read(segment.path()).unwrap()[at + 20], bytes[at + 20], "somebody repaired it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consistency_is_proved_between_any_two_sizes() {
    let world = World::new().await;
    let admin = world.admin().await;
    let size = world.log.sign_now().await.unwrap().size();
    for new in 0..=size {
        for old in 0..=new {
            let proof = admin.json(&format!("/v1/consistency?old={old}&new={new}")).await;
            let hashes: Vec<Hash> = proof["hashes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|hash| Hash::from_base64(hash.as_str().unwrap()).unwrap())
                .collect();
            let root = |size| world.log.root(size).unwrap();
            assert!(verify_consistency(old, &root(old), new, &root(new), &hashes), "{old} in {new}");
            assert_eq!(proof["old"], json!(old));
        }
    }
    for (query, status) in [
        ("old=2&new=1", StatusCode::UNPROCESSABLE_ENTITY),
        ("old=1", StatusCode::UNPROCESSABLE_ENTITY),
        ("old=1&new=-1", StatusCode::UNPROCESSABLE_ENTITY),
        ("old=1&new=18446744073709551615", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(admin.get(&format!("/v1/consistency?{query}")).await.0, status, "{query}");
    }
    let stranger = world.stranger().get("/v1/consistency?old=1&new=2").await;
    assert_eq!(stranger.0, StatusCode::UNAUTHORIZED);
}
