//! Requests and answers, without a store: tests/sinks has the real ones.

use super::*;
use crate::testing::answering;
use custody_core::clock::Nanos;
use custody_core::event::TYPES;
use custody_core::log::Entry;

const ORIGIN: &str = "custody.test/log";
const STREAMS: Product = Product { is_opensearch: true, has_streams: true, has_modes: true };
const ELASTICSEARCH: Product = Product { is_opensearch: false, ..STREAMS };
const DAYS: Product = Product { has_streams: false, ..ELASTICSEARCH };

fn sink() -> OpenSearch {
    sink_at("http://127.0.0.1:1".into())
}

fn sink_at(url: String) -> OpenSearch {
    let endpoint = Endpoint { url, ca: None, auth: None };
    let settings = Settings { endpoint, stream: stream() };
    OpenSearch::new(settings, Secrets::new(std::path::Path::new("/nowhere")), ORIGIN)
}

#[test]
fn what_it_is_is_asked() {
    let about = |number: &str, more: &str| format!(r#"{{"version":{{"number":"{number}"{more}}}}}"#);
    let opensearch = Product::of(about("2.19.1", r#","distribution":"opensearch""#).as_bytes()).unwrap();
    assert_eq!(opensearch, STREAMS);
    let elasticsearch = Product::of(about("9.1.0", "").as_bytes()).unwrap();
    assert!(!elasticsearch.is_opensearch && elasticsearch.has_streams);
    assert!(Product::of(about("6.8.0", "").as_bytes()).is_err());
    assert!(Product::of(b"<html>").unwrap_err().contains("check the url"));
    assert_eq!(opensearch.poorer("unknown field [data_stream]"), None);
    let poorer = elasticsearch.poorer("No handler for type [flattened] declared on field [data]").unwrap();
    assert!(!poorer.has_streams && poorer.poorer("data_stream").is_none());
}

/// From 7.9 to 8.4 there are data streams, and the setting is a feature that isn't switched on.
#[test]
fn elasticsearch_that_knows_no_modes_has_data_streams_all_the_same() {
    let refusal = "HTTP 400: unknown setting [index.mode] did you mean [index.codec]?";
    let poorer = ELASTICSEARCH.poorer(refusal).unwrap();
    assert_eq!(poorer, Product { has_modes: false, ..ELASTICSEARCH });
    assert_eq!(
        (poorer.poorer(refusal), DAYS.poorer("index.lifecycle"), STREAMS.poorer(refusal)),
        (None, None, None)
    );
    let settings = |product| {
        Templates::of(product, "s").unwrap().components[0].1["template"]["settings"]["index"].clone()
    };
    assert_eq!(
        (&settings(ELASTICSEARCH)["mode"], &settings(poorer)["mode"]),
        (&"standard".into(), &Value::Null)
    );
    assert_eq!(settings(poorer)["lifecycle"]["name"], "custody");
    assert!(Templates::of(poorer, "s").unwrap().lifecycle.is_some());
    // Without x-pack there is neither: that is what it says first.
    assert!(
        !ELASTICSEARCH
            .poorer("unknown setting [index.lifecycle.name] … unknown setting [index.mode]")
            .unwrap()
            .has_streams
    );
}

#[test]
fn templates_are_for_the_configured_stream() {
    for product in [STREAMS, ELASTICSEARCH] {
        let templates = Templates::of(product, "logs-x").unwrap();
        assert_eq!(templates.components[2].1["index_patterns"], serde_json::json!(["logs-x"]));
        assert!(templates.lifecycle.is_some());
        // Two logs in one cluster don't take each other's template away.
        assert_eq!(templates.components[2].0, "/_index_template/custody-events.logs-x");
        let usual = Templates::of(product, &stream()).unwrap();
        assert_eq!(usual.components[2].0, "/_index_template/custody-events");
    }
    let plain = Templates::of(DAYS, "logs-x").unwrap();
    assert!(plain.lifecycle.is_none() && plain.components[2].1.get("data_stream").is_none());
    assert_eq!(plain.components[2].1["index_patterns"], serde_json::json!(["logs-x-*"]));
    assert!(!plain.components.iter().any(|(_, body)| body.to_string().contains("flattened")));
}

#[test]
fn a_templates_version_is_read_wherever_it_stands() {
    let component =
        br#"{"component_templates":[{"name":"x","component_template":{"template":{},"version":3}}]}"#;
    let index = br#"{"index_templates":[{"name":"x","index_template":{"index_patterns":[],"version":1}}]}"#;
    assert_eq!((product::version(component), product::version(index)), (Some(3), Some(1)));
    let without = br#"{"component_templates":[{"name":"x","component_template":{"template":{}}}]}"#;
    assert_eq!((product::version(without), product::version(b"<html>")), (None, None));
    for product in [STREAMS, ELASTICSEARCH] {
        let components = Templates::of(product, "s").unwrap().components;
        assert!(components.iter().all(|(_, body)| body["version"].is_u64()));
        let kept: Vec<_> = components.iter().map(|(path, _)| product::is_kept(path)).collect();
        assert_eq!(kept, [true, false, true], "settings, mappings, the index template");
    }
}

fn answers(body: &[u8], events: usize) -> Result<Vec<Answer>, String> {
    let elsewhere = std::collections::BTreeSet::from(["elsewhere".to_owned()]);
    Ok(bulk::Response::read(body, events)?.answers(&elsewhere))
}

/// To a store it is no failure when a pipeline of its own drops a document or leads it elsewhere.
#[test]
fn what_a_pipeline_took_away_is_not_stored() {
    let body = br#"{"errors":false,"items":[{"create":{"_index":"ours","status":201,"result":"created"}},
        {"create":{"_index":"s","status":200,"result":"noop"}},{"create":{"_index":"elsewhere","status":201,"result":"created"}}]}"#;
    let answers = answers(body, 3).unwrap();
    assert_eq!(answers[0], Answer::Stored);
    assert!(matches!(&answers[1], Answer::Rejected(reason) if reason.contains("dropped")));
    assert!(matches!(&answers[2], Answer::Rejected(reason) if reason.contains("into elsewhere")));
}

#[test]
fn each_item_has_its_own_answer() {
    let body = br#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"v","reason":"r"}}},
        {"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"no"}}},{"create":{"status":429}},
        {"create":{"status":201,"failure_store":"used"}},{"create":{"status":403,"error":{"type":"cluster_block_exception","reason":"disk"}}},
        {"create":{"status":503,"error":{"type":"unavailable_shards_exception","reason":"moved"}}}]}"#;
    let each = answers(body, 7).unwrap();
    assert_eq!(each[..2], [Answer::Stored, Answer::Exists]);
    assert_eq!(each[2], Answer::Rejected("mapper_parsing_exception: no".into()));
    assert!(matches!(&each[3], Answer::Later(_)) && matches!(&each[4], Answer::Rejected(_)));
    assert!(matches!(&each[5], Answer::Later(reason) if reason.contains("disk")));
    assert!(matches!(&each[6], Answer::Unclear(reason) if reason.contains("moved")));
    assert!(answers(body, 6).is_err());
    assert!(answers(b"{}", 0).is_err());
}

#[test]
fn what_is_the_stores_fault_makes_no_dead_letters() {
    let item =
        |kind: &str| format!(r#"{{"create":{{"status":400,"error":{{"type":"{kind}","reason":"r"}}}}}}"#);
    let rejected = |kinds: &[&str]| {
        let items: Vec<String> = kinds.iter().map(|kind| item(kind)).collect();
        let body = format!(r#"{{"errors":true,"items":[{}]}}"#, items.join(","));
        let answers = answers(body.as_bytes(), kinds.len()).unwrap();
        answers.iter().map(|answer| matches!(answer, Answer::Rejected(_))).collect::<Vec<_>>()
    };
    assert_eq!(rejected(&["validation_exception", "mapper_parsing_exception"]), [false, true]);
    assert_eq!(rejected(&["index_closed_exception"]), [false]);
    // A pipeline that isn't there, and a value that isn't one: the same type.
    assert_eq!(rejected(&["illegal_argument_exception", "illegal_argument_exception"]), [false, false]);
    assert_eq!(rejected(&["illegal_argument_exception", "mapper_parsing_exception"]), [true, true]);
    assert_eq!(rejected(&["illegal_argument_exception"]), [true]);
    let pipeline = br#"{"errors":true,"items":[{"create":{"status":400,"error":{"type":"illegal_argument_exception","reason":"pipeline with id [x] does not exist"}}}]}"#;
    assert!(matches!(&answers(pipeline, 1).unwrap()[0], Answer::Later(_)), "also of one alone");
    let missing = br#"{"errors":true,"items":[{"create":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}}]}"#;
    assert!(
        matches!(&answers(missing, 1).unwrap()[0], Answer::Later(reason) if reason.contains("no such index"))
    );
}

#[test]
fn fields_that_people_search_by_are_compared() {
    let bytes: bytes::Bytes = (TYPES[0].example)().unwrap().into();
    let item = Item::new(Entry { index: 7, appended: Nanos(1_764_000_000_000_000_000), tag: 1, bytes });
    let sink = sink();
    let document: Value = serde_json::from_slice(&sink.encode(&item).unwrap().document).unwrap();
    let with = |pointer: &str, value: &str| {
        let mut document = document.clone();
        *document.pointer_mut(pointer).unwrap() = value.into();
        let document = Some(document.to_string().into_bytes());
        sink.fields(&item, &Held { document, ..Held::default() })
    };
    assert_eq!(with("/user/name", document["user"]["name"].as_str().unwrap()), Fields::AsSent);
    assert_eq!(with("/user/name", "mallory"), Fields::Altered);
    assert_eq!(with("/custody/mapping", "0"), Fields::OfAnotherVersion);
}

#[test]
fn a_bulk_request_is_two_lines_for_each_event() {
    let sink = sink();
    let encoded: Vec<Encoded> = (0..)
        .zip(TYPES)
        .map(|(index, info)| {
            let bytes = (info.example)().unwrap().into();
            let appended = Nanos(1_764_000_000_000_000_000 + index);
            sink.encode(&Item::new(Entry { index, appended, tag: info.family.tag(), bytes })).unwrap()
        })
        .collect();
    let batch: Vec<&Encoded> = encoded.iter().collect();
    let body = bulk::request(&batch, "s", STREAMS);
    let lines: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2 * TYPES.len());
    assert_eq!(lines[0], serde_json::json!({ "create": { "_id": "custody.test/log#0" } }));
    assert!(bulk::path("s", STREAMS).starts_with("/s/_bulk?"));
    assert!(bulk::path("s", DAYS).starts_with("/_bulk?"));
    let plain = bulk::request(&batch[..1], "s", DAYS);
    assert!(String::from_utf8(plain).unwrap().contains(r#""_index":"s-2025.11.24""#));
}

/// As many of them of one moment as no answer holds would keep a log from being given back.
#[test]
fn whoever_gives_a_log_back_is_not_shown_what_is_nobodys() {
    let asked = |indexes: std::ops::Range<u64>| {
        let window = Window { indexes, appended: Nanos(1)..Nanos(1_000_000_000) };
        search::question(&window, ORIGIN, Shown::Whole, HITS_MAX)["query"].clone()
    };
    let of_nobody = |query: &Value| query.to_string().contains("must_not");
    assert!(of_nobody(&asked(0..9)), "a comparison looks for strangers");
    let by_time = asked(0..0);
    assert!(!of_nobody(&by_time), "{by_time}");
    let either = by_time["bool"]["should"].as_array().unwrap();
    let filter = either[0]["bool"]["filter"].as_array().unwrap();
    assert_eq!((either.len(), filter.len()), (1, 2), "{by_time}");
    assert_eq!(filter[0]["term"]["custody.log.origin"], ORIGIN);
    assert!(filter[1]["range"]["@timestamp"]["lt"].is_string());
}

#[test]
fn more_than_one_answer_holds_is_too_much() {
    let url = answering(|path| match path {
        path if path.contains("/_search?") => None,
        path if path.contains("/_mapping/") => Some("{}"),
        _ => Some(r#"{"_shards":{"failed":0}}"#),
    });
    let sink = sink_at(url);
    *sink.product.lock().unwrap() = Some(STREAMS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let window = Window { indexes: 0..0, appended: Nanos(1)..Nanos(1_000_000_000) };
    let unproven = runtime.block_on(sink.read_back(&window)).unwrap_err();
    assert!(matches!(unproven, Unproven::TooMuch(_)), "{unproven}");
}

#[test]
fn an_answer_that_is_not_whole_is_none() {
    let answer = |timed_out: bool, failed: u64, total: u64, relation: &str| {
        format!(
            r#"{{"timed_out":{timed_out},"_shards":{{"failed":{failed}}},"hits":{{"total":{{"value":{total},"relation":"{relation}"}},"hits":[
            {{"_source":{{"@timestamp":"2025-11-24T16:00:00.000000005Z","custody":{{"log":{{"index":7,"leaf":"{leaf}","origin":"{ORIGIN}"}}}},"event":{{"original":"{{}}"}}}}}},
            {{"_source":{{"custody":{{"log":{{"index":7,"origin":"other"}}}}}}}},
            {{"_source":{{"custody":{{"log":{{"index":"x","origin":"{ORIGIN}"}}}}}}}}]}}}}"#,
            leaf = "ab".repeat(32)
        )
    };
    let held = search::documents(answer(false, 0, 3, "eq").as_bytes(), ORIGIN, Shown::Whole).unwrap();
    assert_eq!(held.iter().map(|held| held.index).collect::<Vec<_>>(), [Some(7), None]);
    assert_eq!(
        (held[0].original.as_deref(), held[0].leaf),
        (Some(&b"{}"[..]), Some(custody_core::log::Hash([0xab; 32])))
    );
    assert_eq!(held[0].appended, Some(Nanos(1_764_000_000_000_000_005)));
    for (timed_out, failed, total, relation) in
        [(true, 0, 3, "eq"), (false, 1, 3, "eq"), (false, 0, 4, "eq"), (false, 0, 3, "gte")]
    {
        assert!(
            search::documents(answer(timed_out, failed, total, relation).as_bytes(), ORIGIN, Shown::Whole)
                .is_err()
        );
    }
    assert!(search::whole(StatusCode::OK, br#"{"_shards":{"failed":0}}"#).is_ok());
    assert!(search::whole(StatusCode::OK, br#"{"_shards":{"failed":1}}"#).is_err());
    assert!(search::whole(StatusCode::NOT_FOUND, b"{}").is_err());
}
