//! Events as SIEMs pull them: cursors, links, pages that are cut, long polls.

use super::log::subscribe;
use super::world::{Person, Plan, World};
use custody_core::event::{Actor, Draft, Family, ProducerKind, ProducerRef, Timestamp, canonical, login};
use custody_core::log::note::VerifierKey;
use custody_core::log::{Checkpoint, Hash, Log as _, ProducerKey, Record, tree};
use custody_core::search::{Effort, Query};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use uuid::Uuid;

const NDJSON: (&str, &str) = ("accept", "application/x-ndjson");

/// Events of one producer that were all made at the same moment by its clock, with the given reasons.
async fn failed_logins(world: &World, reasons: impl IntoIterator<Item = String>) {
    let boot = Uuid::now_v7();
    let mut records = Vec::new();
    for (seq, reason) in (0..).zip(reasons) {
        let data = login::Failed { claimed_user: None, method: login::Attempt::Password, reason };
        let producer = ProducerRef { boot, id: "same-time".into(), kind: ProducerKind::Log, seq };
        let event = Draft::new(Actor::system("test"), data).numbered(producer, Timestamp::from_seconds(1));
        let bytes = canonical::event_bytes(&event).unwrap();
        let producer = ProducerKey { id: "same-time".into(), boot, seq };
        records.push(Record { producer, tag: Family::Login.tag(), bytes: bytes.into() });
    }
    world.log.submit(records).unwrap().await.unwrap();
}

/// The address of the next page, as a program that knows nothing of cursors takes it.
fn next(headers: &HeaderMap) -> String {
    let link = headers["link"].to_str().unwrap();
    let (address, relation) = link.split_once(">; ").unwrap();
    assert_eq!(relation, "rel=\"next\"");
    address.strip_prefix('<').unwrap().to_owned()
}

async fn follow_link(person: &Person, address: &str) -> (Vec<Value>, HeaderMap) {
    let answer = person.http.get(address).header(NDJSON.0, NDJSON.1).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{address}");
    let headers = answer.headers().clone();
    let body = answer.text().await.unwrap();
    (body.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), headers)
}

/// Line ends of Unicode, which aren't escaped in JSON, and letters that aren't ISO-8859-1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_letters_an_event_holds_it_is_one_line_and_says_how_it_is_written() {
    let world = World::new().await;
    let admin = world.admin().await;
    let reason = "раз\u{2028}два\u{85}три\u{2029}";
    failed_logins(&world, [reason.to_owned()]).await;
    for (format, kind) in [
        ("custody", "application/x-ndjson; charset=utf-8"),
        ("ecs", "application/x-ndjson; charset=utf-8"),
        ("ocsf", "application/x-ndjson; charset=utf-8"),
        ("cef", "text/plain; charset=utf-8"),
    ] {
        let asked = admin.request(&format!("/v1/events?type=login.failed&format={format}"));
        let answer = asked.header(NDJSON.0, NDJSON.1).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], kind);
        let body = String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap();
        let line = body.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n') && line.contains("раз"), "{line}");
        if format == "custody" {
            let entry: Value = serde_json::from_str(line).unwrap();
            assert_eq!(entry["event"]["data"]["reason"], reason);
        }
    }
    let mut stream = subscribe(&admin, "type=login.failed&from=0", None).await;
    let told = super::log::pieces(&mut stream, &mut String::new(), 1).await;
    assert_eq!(told[0].1["event"]["data"]["reason"], reason);
}

fn indices(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|entry| entry["index"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_links_gets_each_event_once_in_order_while_others_come() {
    let world = World::new().await;
    let admin = world.admin().await;
    failed_logins(&world, (0..10).map(|n| format!("number {n}"))).await;
    for filter in ["", "&type=login.failed"] {
        let mut address = format!("{}/v1/events?limit=3&from=0{filter}", admin.url);
        let mut found = Vec::new();
        let mut quiet = 0;
        for round in 0.. {
            let (entries, headers) = follow_link(&admin, &address).await;
            assert!(entries.len() <= 3);
            // An empty page names the next one too, and is the last for now.
            let more = headers["custody-more"] == "true";
            assert!(!entries.is_empty() || !more, "no empty page while there is more");
            quiet = if entries.is_empty() { quiet + 1 } else { 0 };
            found.extend(indices(&entries));
            address = next(&headers);
            assert!(address.starts_with(&admin.url) && !address.contains("from="), "{address}");
            assert!(address.ends_with(headers["custody-cursor"].to_str().unwrap()));
            if round < 12 {
                failed_logins(&world, (0..3).map(|n| format!("late {n}"))).await;
            } else if quiet >= 2 {
                break;
            }
        }
        let all = world.log.read(0, usize::MAX, usize::MAX).unwrap();
        let wanted: Vec<u64> = all
            .iter()
            .filter(|entry| {
                filter.is_empty() || entry.bytes.windows(14).any(|part| part == b"\"login.failed\"")
            })
            .map(|entry| entry.index)
            .collect();
        assert_eq!(found, wanted, "{filter}");
        assert!(found.len() > 40);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_not_right_is_refused_with_a_code() {
    let (world, other) = (World::new().await, World::new().await);
    let admin = world.admin().await;
    let (_, foreign) = other.admin().await.page("limit=1").await;
    let (_, right) = admin.page("type=login&limit=1").await;
    let (_, descending) = admin.page("type=login&limit=1&order=desc").await;
    for (query, code) in [
        ("cursor=".to_owned(), "cursor-empty"),
        ("cursor=0".to_owned(), "cursor-malformed"),
        ("cursor=-1".to_owned(), "cursor-malformed"),
        (format!("type=login&cursor={}", right.to_uppercase()), "cursor-"),
        (format!("cursor={right}"), "cursor-of-another-question"),
        (format!("type=role&cursor={right}"), "cursor-of-another-question"),
        (format!("type=login&until=2099-01-01T00:00:00Z&cursor={right}"), "cursor-of-another-question"),
        (format!("type=login&cursor={descending}"), "cursor-of-another-question"),
        // The same origin here, so what tells is the other server's key.
        (format!("cursor={foreign}"), "cursor-altered"),
    ] {
        for accept in ["application/json", "application/x-ndjson", "text/event-stream"] {
            let asked = admin.request(&format!("/v1/events?{query}")).header("accept", accept);
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
            let body: Value = answer.json().await.unwrap();
            assert!(body["code"].as_str().unwrap().starts_with(code), "{query}: {body}");
            assert!(body["error"].as_str().unwrap().len() > 20, "{body}");
        }
    }
    let asked =
        admin.request("/v1/events").header("accept", "text/event-stream").header("last-event-id", "7");
    assert_eq!(asked.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    // How much, in whose words and how long it waits may change on the way.
    let (entries, _) = admin.page(&format!("type=login&cursor={right}&limit=9&format=ecs&wait=0s")).await;
    assert!(entries.iter().all(|entry| entry["event"]["original"].is_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_an_index_or_a_time_of_appending() {
    let world = World::new().await;
    let admin = world.admin().await;
    failed_logins(&world, (0..6).map(|n| format!("number {n}"))).await;
    let (all, _) = admin.page("limit=1000").await;
    let middle = all.len() / 2;
    let time = all[middle]["appended"].as_str().unwrap();
    for place in [format!("from={middle}"), format!("from={time}"), format!("since={time}")] {
        let (found, _) = admin.page(&format!("limit=1000&{place}")).await;
        assert_eq!(found[0]["index"].as_u64().unwrap(), middle as u64, "{place}");
        assert_eq!(indices(&found[..all.len() - middle]), indices(&all[middle..]));
    }
    let until = all[middle + 2]["appended"].as_str().unwrap();
    let (found, _) = admin.page(&format!("from={time}&until={until}&limit=1000")).await;
    assert_eq!(indices(&found), indices(&all[middle..=middle + 2]));
    let (found, cursor) = admin.page("from=2099-01-01T00:00:00Z").await;
    assert!(found.is_empty());
    failed_logins(&world, ["the next".to_owned()]).await;
    let (found, _) = admin.page(&format!("cursor={cursor}")).await;
    assert_eq!(found.last().unwrap()["event"]["data"]["reason"], "the next");
}

/// Text that is several times as long in another's words: quotes, backslashes, control characters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_grow_are_all_told_and_no_page_is_empty_before_the_end() {
    let world = World::new().await;
    let admin = world.admin().await;
    let (quotes, controls) = ("\"".repeat(31_000), "\\\u{1}\u{1f}".repeat(4_400));
    for part in 0..3 {
        let reasons = (0..60).map(|n| match n % 10 {
            9 => format!("small {part}"),
            8 => controls.clone(),
            _ => quotes.clone(),
        });
        failed_logins(&world, reasons).await;
    }
    let wanted = {
        let all = world.log.read(0, usize::MAX, usize::MAX).unwrap();
        let long: Vec<u64> = all.iter().filter(|e| e.bytes.len() > 60_000).map(|e| e.index).collect();
        assert!(long.len() > 150);
        (long[0]..=*long.last().unwrap() + 1).collect::<Vec<u64>>()
    };
    let mut pages_of = Vec::new();
    for format in ["custody", "ecs", "ocsf", "cef"] {
        let mut place = format!("from={}", wanted[0]);
        let (mut found, mut pages, mut bytes_max) = (Vec::new(), 0, 0);
        loop {
            let path = format!("/v1/events?limit=1000&format={format}&type=login.failed&{place}");
            let answer = admin.request(&path).header("accept", "application/json").send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let more = answer.headers()["custody-more"] == "true";
            place = format!("cursor={}", answer.headers()["custody-cursor"].to_str().unwrap());
            let body = answer.bytes().await.unwrap();
            bytes_max = bytes_max.max(body.len());
            let entries: Vec<Value> = serde_json::from_slice(&body).unwrap();
            assert!(!entries.is_empty() || !more);
            pages += 1;
            found.extend(entries.iter().map(|entry| match format {
                "custody" => entry["index"].as_u64().unwrap(),
                "ecs" => entry["custody"]["log"]["index"].as_u64().unwrap(),
                "ocsf" => of_id(entry["metadata"]["uid"].as_str().unwrap()),
                _ => of_id(
                    entry.as_str().unwrap().split("externalId=").nth(1).unwrap().split(' ').next().unwrap(),
                ),
            }));
            if format == "ecs" {
                // Whole, whatever became of the fields beside it.
                for entry in &entries {
                    let index = entry["custody"]["log"]["index"].as_u64().unwrap();
                    let bytes = &world.log.read(index, 1, 1).unwrap()[0].bytes;
                    assert_eq!(entry["event"]["original"].as_str().unwrap().as_bytes(), &**bytes);
                }
            }
            if entries.is_empty() {
                break;
            }
        }
        assert_eq!(found, wanted, "{format}");
        pages_of.push(pages);
        assert!(bytes_max < 7 << 20, "{format}: a page of {bytes_max} bytes");
    }
    assert!(pages_of[1] > pages_of[0] && pages_of[0] > 3, "what is longer takes more pages: {pages_of:?}");
}

/// The index at the end of `ORIGIN#INDEX`.
fn of_id(id: &str) -> u64 {
    id.rsplit('#').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_comes_back_with_what_is_new_or_empty_when_its_time_is_over() {
    let world = World::new().await;
    let admin = world.admin().await;
    let (_, cursor) = admin.page("type=login.failed&limit=1000").await;
    let path = format!("type=login.failed&cursor={cursor}");
    let begun = Instant::now();
    let (none, cursor) = admin.page(&format!("{path}&wait=1s")).await;
    assert!(none.is_empty() && begun.elapsed() >= Duration::from_secs(1));
    // A filter, for which the projection has to follow, and all of the log, which tells by itself.
    for place in [format!("type=login.failed&cursor={cursor}"), "from=END".to_owned()] {
        let place = place.replace("END", &world.log.size().to_string());
        let waiting = {
            let admin = admin.clone();
            tokio::spawn(async move { admin.page(&format!("{place}&wait=60")).await })
        };
        subscriptions(&admin, 1).await;
        failed_logins(&world, ["while somebody waits".to_owned()]).await;
        let (found, _) = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
        assert!(
            found.iter().any(|entry| entry["event"]["data"]["reason"] == "while somebody waits"),
            "{found:?}"
        );
        subscriptions(&admin, 0).await;
    }
}

/// A search looks at eight events for each page here, as one does of a log that is too large for a page's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_seldom_matches_comes_further_with_each_page() {
    let effort = Effort { at_once: Duration::ZERO, at_all: Duration::ZERO, part: 8 };
    let world = World::planned(Plan { effort, ..Plan::default() }).await;
    let admin = world.admin().await;
    let begin = world.log.size();
    failed_logins(&world, (0..60).map(|n| format!("number {n}"))).await;
    let needle = admin.done("create-role", json!({ "name": "needle" })).await["index"].as_u64().unwrap();
    let all = world.log.read(0, usize::MAX, usize::MAX).unwrap();
    let created =
        all.iter().find(|entry| entry.bytes.windows(13).any(|part| part == b"\"log.created\"")).unwrap();

    for (question, wanted) in [
        (format!("type=role.created&from={begin}"), needle),
        ("type=log.created&order=desc".to_owned(), created.index),
    ] {
        let (mut empty, mut address) = (0, format!("{}/v1/events?envelope=page&{question}", admin.url));
        let found = loop {
            let answer = admin.http.get(&address).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{address}");
            let says_more = answer.headers()["custody-more"] == "true";
            let page: Value = answer.json().await.unwrap();
            assert_eq!(page["more"], says_more);
            address = page["next"].as_str().unwrap().to_owned();
            let entries = page["entries"].as_array().unwrap().clone();
            if !entries.is_empty() {
                break entries;
            }
            assert!(says_more, "whoever stops here never sees it");
            empty += 1;
            assert!(empty < 100, "{address}");
        };
        assert_eq!(indices(&found), [wanted], "{question}");
        assert!(empty >= 5, "{empty}");
    }
    // Whoever waits gets it at once, and whoever follows too, with what comes later.
    let (found, _) = admin.page(&format!("type=role.created&from={begin}&wait=60s")).await;
    assert_eq!(indices(&found), [needle]);
    let mut stream = subscribe(&admin, &format!("type=role.created&from={begin}"), None).await;
    let mut buffer = String::new();
    let told = super::log::pieces(&mut stream, &mut buffer, 1).await;
    assert_eq!(told[0].1["index"], needle);
    failed_logins(&world, (0..60).map(|n| format!("later {n}"))).await;
    admin.done("create-role", json!({ "name": "later" })).await;
    let told = super::log::pieces(&mut stream, &mut buffer, 1).await;
    assert_eq!(told[0].1["event"]["data"]["name"], "later");
}

/// Whatever stands between may cut a subscription that is silent for long: it must have heard by then how far it has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_finds_nothing_says_after_each_page_how_far_it_is() {
    let effort = Effort { at_once: Duration::ZERO, at_all: Duration::ZERO, part: 8 };
    let world = World::planned(Plan { effort, ..Plan::default() }).await;
    let admin = world.admin().await;
    failed_logins(&world, (0..60).map(|n| format!("number {n}"))).await;
    let query = "type=session.started&from=0";
    let mut stream = subscribe(&admin, query, None).await;
    let mut heard = String::new();
    let places = |heard: &str| {
        let (whole, _) = heard.rsplit_once("\n\n").unwrap_or_default();
        let ids = whole.split("\n\n").filter_map(|piece| piece.strip_prefix("id: ")?.lines().next());
        ids.map(str::to_owned).collect::<Vec<String>>()
    };
    while places(&heard).len() < 5 {
        let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
        heard.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
    }
    assert!(!heard.contains("data:"), "{heard}");
    let mut places = places(&heard);
    // Whoever is cut off there goes on there.
    drop(subscribe(&admin, query, places.first().map(String::as_str)).await);
    let count = places.len();
    places.dedup();
    assert_eq!(places.len(), count, "it comes no further: {heard}");
}

/// How many the search looks for at once.
const TURNS: usize = 4;

async fn polled<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// It would lose its turn if its look began anew each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_keeps_its_turn_while_it_says_that_it_lives() {
    let world = World::planned(Plan { keep_alive: Duration::from_millis(50), ..Plan::default() }).await;
    let admin = world.admin().await;
    let query = Query { kind: Some("role.created".to_owned()), limit: 1, ..Query::default() };
    let look = || Box::pin(world.search.find(query.clone()));
    // Who looks and isn't asked what he found keeps his turn.
    let mut turns = Vec::new();
    while turns.len() < TURNS {
        let mut turn = look();
        if polled(&mut turn).await.is_pending() {
            turns.push(turn);
        }
    }
    let mut stream = subscribe(&admin, "type=role.created&from=0", None).await;
    let mut heard = String::new();
    let mut behind = Vec::new();
    for signs in [1, 4] {
        while heard.matches(": still looking\n\n").count() < signs {
            let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
            heard.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
        }
        let mut next = look();
        assert!(polled(&mut next).await.is_pending());
        behind.push(next);
    }
    assert!(!heard.contains("id:") && !heard.contains("data:"), "{heard}");
    turns.pop();
    let told = super::log::pieces(&mut stream, &mut heard, 1);
    let told = tokio::time::timeout(Duration::from_secs(15), told).await.expect("it has lost its turn");
    assert_eq!(told[0].1["event"]["type"], "role.created");
}

/// Waits until so many subscriptions and long polls are open.
pub async fn subscriptions(person: &Person, count: usize) {
    let wanted = format!("\ncustody_subscriptions {count}\n");
    let begun = Instant::now();
    while !person.get("/metrics").await.1.contains(&wanted) {
        assert!(begun.elapsed() < Duration::from_secs(75), "there are never {count}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_somebody_has_is_not_sent_again() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ask = |query: &'static str, tag: Option<String>| {
        let mut request = admin.request(&format!("/v1/events?{query}"));
        if let Some(tag) = tag {
            request = request.header("if-none-match", format!("\"other\", {tag}"));
        }
        async move { request.send().await.unwrap() }
    };
    let first = ask("from=0&limit=4", None).await;
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    let (cursor, link) = (first.headers()["custody-cursor"].clone(), first.headers()["link"].clone());
    failed_logins(&world, ["something new".to_owned()]).await;
    let again = ask("from=0&limit=4", Some(tag.clone())).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!((&again.headers()["custody-cursor"], &again.headers()["link"]), (&cursor, &link));
    assert!(again.bytes().await.unwrap().is_empty());
    assert_eq!(ask("from=0&limit=5", Some(tag)).await.status(), StatusCode::OK);
    let open =
        ask("from=0&limit=1000&type=login.failed", None).await.headers()["etag"].to_str().unwrap().to_owned();
    failed_logins(&world, ["something newer".to_owned()]).await;
    assert_eq!(ask("from=0&limit=1000&type=login.failed", Some(open)).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_an_envelope_proves_its_events() {
    let world = World::new().await;
    let admin = world.admin().await;
    failed_logins(&world, (0..9).map(|n| format!("number {n}"))).await;
    let key = world.stranger().json("/v1/authorities").await["log_key"].as_str().unwrap().to_owned();
    let key = VerifierKey::parse(&key).unwrap();
    let page = admin.json("/v1/events?from=5&limit=7&envelope=page&proof=1").await;
    let checkpoint = Checkpoint::verify(page["checkpoint"].as_str().unwrap(), &key).unwrap();
    let (entries, proofs) = (page["entries"].as_array().unwrap(), page["proofs"].as_array().unwrap());
    assert_eq!((entries.len(), proofs.len()), (7, 7));
    for (entry, proof) in entries.iter().zip(proofs) {
        let index = entry["index"].as_u64().unwrap();
        assert_eq!(proof["index"].as_u64().unwrap(), index);
        let leaf = tree::leaf_hash(entry["event"].to_string().as_bytes());
        let hashes: Vec<Hash> = proof["hashes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hash| Hash::from_base64(hash.as_str().unwrap()).unwrap())
            .collect();
        let (size, root) = (checkpoint.size(), checkpoint.root());
        assert!(tree::verify_inclusion(&leaf, index, size, &hashes, &root), "event {index}");
        assert!(!tree::verify_inclusion(&leaf, index + 1, size, &hashes, &root));
    }
    assert_eq!(page["more"], true);
    let rest =
        admin.http.get(page["next"].as_str().unwrap()).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(rest["entries"][0]["index"], 12);
    let empty = admin.json("/v1/events?user=nobody&envelope=page&proof=1").await;
    assert_eq!((&empty["entries"], &empty["more"]), (&json!([]), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reader_does_not_take_all_places() {
    let world = World::new().await;
    let admin = world.admin().await;
    let ana = world.operator(&admin).await;
    admin.done("set-roles", json!({ "name": "ana", "roles": ["admin"] })).await;
    let mut open = Vec::new();
    let refused = loop {
        let asked = ana.request("/v1/events?type=nothing").header("accept", "text/event-stream");
        let answer = asked.send().await.unwrap();
        if answer.status() != StatusCode::OK {
            break answer;
        }
        open.push(answer);
        assert!(open.len() < 100);
    };
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let polled = ana.get("/v1/events?type=nothing&wait=5s").await;
    assert_eq!(polled.0, StatusCode::TOO_MANY_REQUESTS);
    // Pages that wait for nothing are always there, and so are others.
    assert_eq!(ana.get("/v1/events?type=nothing").await.0, StatusCode::OK);
    drop(subscribe(&admin, "type=nothing", None).await);
    open.pop();
    for _ in 0..2_000 {
        let asked = ana.request("/v1/events?type=nothing").header("accept", "text/event-stream");
        if asked.send().await.unwrap().status() == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a place that was given up is never given again");
}

/// It has a subscription, and reads nothing of it: neither its memory nor its place may be held for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_is_dropped() {
    let world = World::new().await;
    let admin = world.admin().await;
    // More than the kernel's buffers hold on both sides.
    for _ in 0..8 {
        failed_logins(&world, (0..60).map(|_| "x".repeat(65_000))).await;
    }
    let stream = subscribe(&admin, "from=0", None).await;
    subscriptions(&admin, 1).await;
    let begun = Instant::now();
    subscriptions(&admin, 0).await;
    assert!(begun.elapsed() > Duration::from_secs(15), "it was given no time");
    drop(stream);
}
