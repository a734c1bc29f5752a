use custody_tests::servers::opensearch::{OpenSearch, Version};
use custody_tests::servers::shared::Shared;
use serde_json::{Value, json};
use std::fmt::Write as _;

static TWO: Shared<OpenSearch> = Shared::new();

/// The node that tests share which don't kill it.
pub fn two() -> &'static OpenSearch {
    TWO.get(|dir| {
        let mut node = OpenSearch::prepare(Version::Two, dir, &["http.max_content_length=1mb"]);
        node.start();
        node
    })
}

/// A stream's template: documents with a time and nothing unexpected.
fn data_stream(node: &OpenSearch, name: &str) {
    let template = json!({
        "index_patterns": [format!("{name}*")],
        "data_stream": {},
        "template": {
            "settings": { "number_of_shards": 1, "number_of_replicas": 0 },
            "mappings": {
                "dynamic": "strict",
                "properties": { "@timestamp": { "type": "date_nanos" }, "user": { "type": "keyword" } },
            },
        },
    });
    node.ask("PUT", &format!("_index_template/{name}"), &template.to_string()).unwrap().ok();
}

/// The statuses of creating one document for each id.
fn create(node: &OpenSearch, stream: &str, ids: &[&str]) -> Vec<u64> {
    let mut body = String::new();
    for id in ids {
        let document = json!({ "@timestamp": "2026-01-01T00:00:00.123456789Z", "user": id });
        writeln!(body, "{}\n{document}", json!({ "create": { "_id": id } })).unwrap();
    }
    let answer = node.ask("POST", &format!("{stream}/_bulk"), &body).unwrap().ok().json();
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|item| item["create"]["status"].as_u64().unwrap()).collect()
}

#[test]
fn what_opensearch_2_has_taken_is_there_after_kill_9() {
    survives_kill_9(Version::Two, "2.19.1");
}

#[test]
fn what_opensearch_3_has_taken_is_there_after_kill_9() {
    survives_kill_9(Version::Three, "3.3.0");
}

fn survives_kill_9(version: Version, number: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = OpenSearch::prepare(version, dir.path(), &[]);
    node.start();
    let about = node.ask("GET", "", "").unwrap().json();
    assert_eq!(
        (&about["version"]["distribution"], &about["version"]["number"]),
        (&"opensearch".into(), &number.into())
    );
    data_stream(&node, "killed");
    assert_eq!(create(&node, "killed", &["a", "b", "c"]), [201, 201, 201]);
    assert_eq!(node.count("killed"), 3);
    node.service.kill_now();
    node.start();
    assert_eq!(node.count("killed"), 3);
    assert_eq!(create(&node, "killed", &["c", "d"]), [409, 201], "it knows the ids again");
}

#[test]
fn opensearch_takes_an_id_twice_after_a_rollover() {
    let node = two();
    data_stream(node, "rolled");
    assert_eq!(create(node, "rolled", &["a"]), [201]);
    assert_eq!(create(node, "rolled", &["a"]), [409]);
    node.ask("POST", "rolled/_rollover", "").unwrap().ok();
    assert_eq!(create(node, "rolled", &["a"]), [201]);
    assert_eq!(node.count("rolled"), 2, "why the sink asks before it sends again");
}

#[test]
fn opensearch_refuses_one_document_and_takes_its_neighbours() {
    let node = two();
    data_stream(node, "strict");
    let time = "2026-01-01T00:00:00Z";
    let body = format!(
        "{{\"create\":{{}}}}\n{}\n{{\"create\":{{}}}}\n{}\n",
        json!({ "@timestamp": time, "user": "a" }),
        json!({ "@timestamp": time, "unheard_of": 1 }),
    );
    let answer = node.ask("POST", "strict/_bulk", &body).unwrap().ok().json();
    assert_eq!(answer["errors"], Value::Bool(true));
    assert_eq!(answer["items"][0]["create"]["status"], 201);
    assert_eq!(answer["items"][1]["create"]["error"]["type"], "strict_dynamic_mapping_exception");
    assert_eq!(node.count("strict"), 1);
}

#[test]
fn opensearch_refuses_a_body_over_its_limit() {
    let body = format!("{}\n", "x".repeat(2 << 20));
    // It may hang up while we still send.
    if let Ok(answer) = two().ask("POST", "_bulk", &body) {
        assert_eq!(answer.status, 413);
    }
}
