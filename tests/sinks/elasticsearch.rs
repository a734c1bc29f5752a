use super::campaign::Source;
use super::opensearch::sink;
use custody_core::delivery::Verdict;
use custody_tests::process::{Running, free_port};
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::search_node::{Product, SearchNode};
use custody_tests::servers::{http, python};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::json;

#[test]
fn what_elasticsearch_has_taken_is_there_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = SearchNode::prepare(Product::Elasticsearch7, dir.path(), &[]);
    node.start();
    let about = node.ask("GET", "", "").unwrap().ok();
    assert!(about.headers.contains(&("x-elastic-product".to_owned(), "Elasticsearch".to_owned())));
    assert_eq!(about.json()["version"]["number"], "7.17.29");
    let mapping = json!({ "mappings": { "dynamic": "strict", "properties": { "@timestamp": { "type": "date_nanos" } } } });
    node.ask("PUT", "events-2026.01.01", &mapping.to_string()).unwrap().ok();
    let document = json!({ "@timestamp": "2026-01-01T00:00:00.123456789Z" }).to_string();
    let create = |node: &SearchNode, id: &str| {
        node.ask("PUT", &format!("events-2026.01.01/_create/{id}"), &document).unwrap().status
    };
    assert_eq!(create(&node, "a"), 201);
    node.service.kill_now();
    node.start();
    assert_eq!(node.count("events-2026.01.01"), 1);
    assert_eq!(create(&node, "a"), 409);
    assert_eq!(create(&node, "b"), 201);
    assert_eq!(node.count("events-2026.01.01"), 2);
    let stream = json!({ "index_patterns": ["s*"], "data_stream": {} });
    let refused = node.ask("PUT", "_index_template/s", &stream.to_string()).unwrap();
    assert_eq!(refused.status, 400, "data streams would be x-pack's: {}", refused.text);
}

/// It has no data streams: an index for each day, and the `_id` alone suffices.
#[test]
fn each_event_is_in_elasticsearch_7_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = SearchNode::prepare(Product::Elasticsearch7, dir.path(), &[]);
    node.start();
    let proxy = Flaky::http(node.service.port());
    proxy.only("/_bulk");
    let source = Source::new();
    for fault in [Fault::Swallow, Fault::Cut, Fault::Answer(503, None)] {
        let run = source.deliver(sink(&proxy.url(), "custody-events"));
        proxy.next(1, fault);
        source.grow(500);
        source.kill(run);
    }
    let run = source.deliver(sink(&proxy.url(), "custody-events"));
    source.delivered(&run);
    assert_eq!(node.count("custody-events-*"), source.log.size());
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");

    // A day that is closed isn't shown, and so it isn't missing.
    node.ask("POST", "custody-events-*/_close", "").unwrap().ok();
    let report = source.prove(&run);
    assert!(!report.is_proven() && report.missing.count == 0, "{report:?}");
    assert!(report.unproven[0].reason.contains("closed"), "{report:?}");
    node.ask("POST", "custody-events-*/_open?expand_wildcards=all", "").unwrap().ok();
    until_true("it is shown again", DEADLINE, || source.prove(&run).is_proven());
    source.stop(run);
}

const STREAM: &str = "logs-custody.events-default";

/// A server that takes and answers what the documentation of that version says, and its port.
fn scripted(version: &str) -> (Running, u16) {
    let port = free_port();
    let mut script = python::script("elasticsearch.py", &[&port.to_string(), version]);
    let mut scripted = Running::start("a scripted Elasticsearch", &mut script);
    scripted.wait_for_listener(port);
    (scripted, port)
}

fn ask(port: u16, method: &str, path: &str) -> serde_json::Value {
    http::send(method, &format!("http://127.0.0.1:{port}/{path}"), &[], "").unwrap().ok().json()
}

/// Versions 8 and 9 can't be had: a server that takes and answers what their documentation says. Of its first bulk answer
/// one item is there already, one doesn't fit, one comes too early. No line of a request may name an index, and the second one has
/// no `_flush` and is asked of a node that has heard of no new index yet.
#[test]
fn elasticsearch_8_and_9_as_documented_get_a_data_stream_and_each_event_once() {
    for version in ["8.19.2", "9.2.1"] {
        let (_scripted, port) = scripted(version);
        let ask = |method: &str, path: &str| ask(port, method, path);
        let proxy = Flaky::http(port);
        proxy.only("/_bulk");
        let source = Source::new();
        source.grow(300);
        let run = source.deliver(sink(&proxy.url(), STREAM));
        source.delivered(&run);
        for fault in [Fault::Swallow, Fault::Cut, Fault::Answer(429, Some(0))] {
            ask("POST", &format!("{STREAM}/_rollover"));
            proxy.next(1, fault);
            source.grow(300);
            source.delivered(&run);
        }
        // Nothing goes wrong meanwhile that would have it ask.
        ask("POST", &format!("{STREAM}/_rollover"));
        source.grow(300);
        source.delivered(&run);
        let letters = source.runtime.block_on(run.control.dead_letters()).unwrap();
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert!(letters[0].reason.contains("document_parsing_exception"), "{letters:?}");
        let report = source.prove(&run);
        assert_eq!(report.verdict(), Verdict::Incomplete, "{report:?}");
        assert_eq!((report.proven + 1, report.rejected), (source.log.size(), 1));
        let told = ask("GET", "_asked");
        assert_eq!(told["counts"][STREAM], report.proven);
        assert!(told["policies"]["custody"]["policy"]["phases"]["hot"].is_object());
        let settings = &told["components"]["custody-settings"]["template"]["settings"]["index"];
        assert_eq!(settings["lifecycle"]["name"], "custody");
        assert_eq!(told["templates"]["custody-events"]["index_patterns"], json!([STREAM]));
        assert!(told["components"]["custody-mappings"].to_string().contains("\"flattened\""));
        source.stop(run);
    }
}

/// Those that come with x-pack and know no `index.mode` have data streams all the same, and a policy.
#[test]
fn elasticsearch_before_8_5_as_documented_gets_a_data_stream_without_a_mode() {
    for version in ["7.17.29", "8.3.3"] {
        let (_scripted, port) = scripted(version);
        let source = Source::new();
        source.grow(60);
        let run = source.deliver(sink(&format!("http://127.0.0.1:{port}"), STREAM));
        source.delivered(&run);
        let told = ask(port, "GET", "_asked");
        // All but the one that its first answer refuses.
        assert_eq!(told["counts"][STREAM], source.log.size() - 1, "{version}: {told}");
        assert!(told["policies"]["custody"]["policy"]["phases"]["hot"].is_object(), "{version}");
        let settings = &told["components"]["custody-settings"]["template"]["settings"]["index"];
        assert_eq!(settings["lifecycle"]["name"], "custody");
        assert!(settings["mode"].is_null(), "{settings}");
        assert!(told["templates"]["custody-events"]["data_stream"].is_object(), "{version}");
        source.stop(run);
    }
}
