use super::campaign::{ORIGIN, Source};
use super::siege::{Store, besiege};
use custody_core::delivery::Verdict;
use custody_core::event::Timestamp;
use custody_sinks::http::Endpoint;
use custody_sinks::opensearch::Settings;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::{Limits, Sink as _};
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::search_node::{Product, SearchNode};
use custody_tests::servers::shared::Shared;
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

static TWO: Shared<SearchNode> = Shared::new();

/// The node that tests share which don't kill it.
pub fn two() -> &'static SearchNode {
    TWO.get(|dir| {
        let settings = ["http.max_content_length=1mb", "node.roles=cluster_manager,data,ingest"];
        let mut node = SearchNode::prepare(Product::OpenSearch2, dir, &settings);
        node.start();
        node
    })
}

/// A stream's template: documents with a time and nothing unexpected.
fn data_stream(node: &SearchNode, name: &str) {
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
fn create(node: &SearchNode, stream: &str, ids: &[&str]) -> Vec<u64> {
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
    survives_kill_9(Product::OpenSearch2, "2.19.1");
}

#[test]
fn what_opensearch_3_has_taken_is_there_after_kill_9() {
    survives_kill_9(Product::OpenSearch3, "3.3.0");
}

fn survives_kill_9(product: Product, number: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = SearchNode::prepare(product, dir.path(), &[]);
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

pub fn sink(url: &str, stream: &str) -> custody_sinks::opensearch::OpenSearch {
    let endpoint = Endpoint { url: url.to_owned(), ca: None, auth: None };
    let settings = Settings { endpoint, stream: stream.to_owned() };
    custody_sinks::opensearch::OpenSearch::new(
        settings,
        Secrets::new(std::path::Path::new("/nowhere")),
        ORIGIN,
    )
}

#[test]
fn each_event_is_in_opensearch_2_once_whatever_fails() {
    whatever_fails(Product::OpenSearch2);
}

#[test]
fn each_event_is_in_opensearch_3_once_whatever_fails() {
    whatever_fails(Product::OpenSearch3);
}

/// The node is killed, the delivery more often, the stream rolls over in between; answers are cut off, swallowed, or 429.
fn whatever_fails(product: Product) {
    const STREAM: &str = "logs-custody.events-default";
    let dir = tempfile::tempdir().unwrap();
    let mut node = SearchNode::prepare(product, dir.path(), &[]);
    node.start();
    let proxy = Flaky::http(node.service.port());
    proxy.only("/_bulk");
    let source = Source::new();
    is_kept_by_the_stores_settings(&node, &source, STREAM);
    for round in 0..8 {
        let run = source.deliver(sink(&proxy.url(), STREAM));
        match round % 4 {
            0 => proxy.next(1, Fault::Swallow),
            1 => proxy.next(1, Fault::Cut),
            2 => proxy.next(2, Fault::Answer(429, Some(0))),
            _ => proxy.next(1, Fault::BodyMax(100_000)),
        }
        source.grow(800);
        std::thread::sleep(Duration::from_millis(300));
        if round % 2 == 1 {
            // The stream may not be there yet.
            drop(node.ask("POST", &format!("{STREAM}/_rollover"), ""));
        }
        if round == 3 {
            node.service.kill_now();
            source.grow(200);
            node.start();
        }
        source.kill(run);
        // What the proxy still holds back, no list of tasks has.
        proxy.end_connections();
    }
    let run = source.deliver(sink(&proxy.url(), STREAM));
    source.delivered(&run);
    assert_eq!(node.count(STREAM), source.log.size(), "as it counts itself: {}", spread(&node, STREAM));
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    source.stop(run);
}

/// No more shards may be made, or the stream was taken away and may not come back by itself: that is no event's fault, and it
/// goes on by itself once it may.
fn is_kept_by_the_stores_settings(node: &SearchNode, source: &Source, stream: &str) {
    let set = |name: &str, value: Value| {
        let body = json!({ "persistent": { name: value } }).to_string();
        node.ask("PUT", "_cluster/settings", &body).unwrap().ok();
    };
    let kept = |run: &super::campaign::Run<custody_sinks::opensearch::OpenSearch>, text: &str| {
        until_true(text, DEADLINE, || {
            run.control.health().numbers().trouble.is_some_and(|trouble| trouble.contains(text))
        });
    };
    source.grow(50);
    set("cluster.max_shards_per_node", json!(1));
    let run = source.deliver(sink(&node.url(), stream));
    kept(&run, "shards");
    set("cluster.max_shards_per_node", Value::Null);
    source.delivered(&run);
    // From now on somebody has to make it: the sink does.
    set("action.auto_create_index", json!("false"));
    node.ask("DELETE", &format!("_data_stream/{stream}"), "").unwrap().ok();
    let before = source.log.size();
    source.grow(50);
    source.delivered(&run);
    assert_eq!(node.count(stream), source.log.size() - before);
    assert_eq!(run.control.health().numbers().rejected, 0, "{:?}", run.control.health().numbers());
    set("action.auto_create_index", Value::Null);
    source.runtime.block_on(run.control.replay(0..before)).unwrap();
    until_true("what was taken away is there again", DEADLINE, || {
        source.runtime.block_on(run.control.replaying()).unwrap().is_none()
    });
    source.stop(run);
}

/// How many documents each index of a stream has.
fn spread(node: &SearchNode, stream: &str) -> Value {
    let question = json!({ "size": 0, "aggs": { "indexes": { "terms": { "field": "_index" } } } });
    let answer = node.ask("POST", &format!("{stream}/_search"), &question.to_string());
    answer.map_or(Value::Null, |answer| answer.json()["aggregations"]["indexes"]["buckets"].clone())
}

/// Keeps the only thread that writes busy for so long, with a script that counts on the way.
fn hold(node: &SearchNode, time: Duration) {
    let script = "long end = new Date().getTime() + params.ms; long n = 0;
        while (new Date().getTime() < end) { n += params.text.replace('a', 'b').length() } ctx._source.n = n";
    // A loop ends after a million rounds: so long a text makes each of them take its time.
    let params = json!({ "ms": u64::try_from(time.as_millis()).unwrap(), "text": "a".repeat(250_000) });
    let script =
        json!({ "script": { "source": script, "params": params }, "upsert": {}, "scripted_upsert": true });
    // Only what comes in bulk runs on that thread.
    let body = format!("{}\n{script}\n", json!({ "update": { "_id": "1" } }));
    let answer = node.ask("POST", "held/_bulk", &body).unwrap().ok();
    assert_eq!(answer.json()["errors"], false, "{}", answer.text);
}

/// The delivery is killed while its request waits in the store, and the stream rolls over: that request comes to its end
/// when the next delivery has long asked what is there.
#[test]
fn a_request_that_opensearch_is_still_busy_with_is_waited_for() {
    const STREAM: &str = "logs-custody.events-busy";
    let dir = tempfile::tempdir().unwrap();
    let mut node = SearchNode::prepare(Product::OpenSearch3, dir.path(), &["thread_pool.write.size=1"]);
    node.start();
    node.ask(
        "PUT",
        "held",
        &json!({ "mappings": { "properties": { "n": { "type": "long" } } } }).to_string(),
    )
    .unwrap()
    .ok();
    let source = Source::new();
    let run = source.deliver(sink(&node.url(), STREAM));
    source.delivered(&run);
    let busy_with = |part: &str| {
        let tasks = node.ask("GET", "_tasks?detailed&actions=indices:data/write/*&group_by=none", "");
        tasks.unwrap().ok().text.contains(part)
    };
    std::thread::scope(|scope| {
        // Less than the client of `ask` waits for an answer.
        scope.spawn(|| hold(&node, Duration::from_secs(25)));
        until_true("the store is held up", DEADLINE, || busy_with("held"));
        source.grow(100);
        until_true("our request waits in it", DEADLINE, || busy_with("custody-"));
        source.kill(run);
        node.ask("POST", &format!("{STREAM}/_rollover"), "").unwrap().ok();
        assert!(busy_with("custody-"), "this test's machine is too slow for its hold");
        let run = source.deliver(sink(&node.url(), STREAM));
        source.delivered(&run);
        until_true("nothing is under way any more", DEADLINE, || !busy_with("custody-"));
        assert_eq!(node.count(STREAM), source.log.size(), "{}", spread(&node, STREAM));
        let numbers = run.control.health().numbers();
        assert!(numbers.found >= 100, "the first request has brought them: {numbers:?}");
        assert!(source.prove(&run).is_proven());
        source.stop(run);
    });
}

#[test]
fn documents_that_were_altered_deleted_or_added_are_named() {
    const STREAM: &str = "logs-custody.events-tampered";
    let node = two();
    let source = Source::new();
    source.grow(120);
    let run = source.deliver(sink(&node.url(), STREAM));
    source.delivered(&run);
    assert!(source.prove(&run).is_proven());
    let index = |n: u64| json!({ "term": { "custody.log.index": n } });
    let script = json!({ "source": "ctx._source.event.original = '{}'" });
    let ask = |path: &str, body: Value| {
        node.ask("POST", &format!("{STREAM}/{path}"), &body.to_string()).unwrap().ok();
    };
    ask("_update_by_query?refresh=true", json!({ "query": index(40), "script": script }));
    let renamed = json!({ "source": "ctx._source.event.action = 'nothing'" });
    ask("_update_by_query?refresh=true", json!({ "query": index(60), "script": renamed }));
    ask("_delete_by_query?refresh=true", json!({ "query": index(50) }));
    ask("_doc", json!({ "@timestamp": "2026-01-01T00:00:00Z", "event": { "original": "{}" } }));
    ask(
        "_doc",
        json!({ "@timestamp": "2026-01-01T00:00:00Z", "custody": { "log": { "index": 999_999, "origin": ORIGIN } } }),
    );
    let report = source.prove(&run);
    let named = |findings: &custody_core::delivery::Findings| {
        findings.first.iter().map(|finding| finding.index).collect::<Vec<_>>()
    };
    assert_eq!(named(&report.altered), [Some(40), Some(60)], "{report:?}");
    assert!(report.altered.first[1].what.contains("fields"), "what people search by: {report:?}");
    assert_eq!(named(&report.missing), [Some(50)]);
    let mut extra = named(&report.extra);
    extra.sort_unstable();
    assert_eq!(extra, [None, Some(999_999)]);
    source.stop(run);
}

/// How documents are kept is for whoever keeps them.
#[test]
fn what_somebody_changed_in_a_template_stays() {
    const STREAM: &str = "logs-custody.events-changed";
    let node = two();
    let source = Source::new();
    let run = source.deliver(sink(&node.url(), STREAM));
    source.delivered(&run);
    source.stop(run);
    let path = "_component_template/custody-settings";
    let shown = node.ask("GET", path, "").unwrap().ok().json();
    let mut changed = shown["component_templates"][0]["component_template"].clone();
    changed["template"]["settings"]["index"]["priority"] = json!("7");
    node.ask("PUT", path, &changed.to_string()).unwrap().ok();
    source.grow(10);
    let run = source.deliver(sink(&node.url(), STREAM));
    source.delivered(&run);
    source.stop(run);
    let shown = node.ask("GET", path, "").unwrap().ok().json();
    let settings = &shown["component_templates"][0]["component_template"]["template"]["settings"];
    assert_eq!(settings["index"]["priority"], "7", "{shown}");
}

/// As many documents of another log, in the same stream and of the same time, as no answer holds: they keep nobody from knowing
/// what is there of this one.
#[test]
fn another_log_in_the_same_stream_hides_nothing() {
    const STREAM: &str = "logs-custody.events-shared";
    let node = two();
    let source = Source::new();
    source.grow(120);
    let run = source.deliver(sink(&node.url(), STREAM));
    source.delivered(&run);
    source.stop(run);
    let time = Timestamp::from(source.log.read(60, 1, 0).unwrap()[0].appended).to_string();
    for from in (0..10_200).step_by(3_400) {
        let mut body = String::new();
        for n in from..from + 3_400 {
            let log = json!({ "index": n, "origin": "another.log" });
            let document = json!({ "@timestamp": time, "custody": { "log": log } });
            writeln!(body, "{}\n{document}", json!({ "create": {} })).unwrap();
        }
        let answer = node.ask("POST", &format!("{STREAM}/_bulk"), &body).unwrap().ok().json();
        assert_eq!(answer["errors"], false, "{answer}");
    }
    // All of it is in doubt.
    std::fs::remove_file(source.dir.path().join("sink/position.json")).unwrap();
    let run = source.deliver(sink(&node.url(), STREAM));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    assert_eq!(node.count(STREAM), source.log.size() + 10_200);
    source.stop(run);
}

/// Somebody in between takes no request that is longer than half of one event: that one is for a person to look at, and holds up none.
#[test]
fn an_event_that_no_request_may_hold_is_a_dead_letter_and_all_others_are_there_once() {
    const STREAM: &str = "logs-custody.events-narrow";
    let node = two();
    let proxy = Flaky::http(node.service.port());
    proxy.only("/_bulk");
    proxy.set(Fault::BodyMax(32_000));
    let source = Source::new();
    source.grow(100);
    let long = source.log.size();
    let command = json!({ "command": "x".repeat(60_000) });
    let event = json!({ "type": "command.requested", "version": 1, "data": command });
    source.append(&[event.to_string().into_bytes()]);
    source.grow(100);
    let run = source.deliver(sink(&proxy.url(), STREAM));
    source.delivered(&run);
    let letters = source.runtime.block_on(run.control.dead_letters()).unwrap();
    assert_eq!(letters.iter().map(|letter| letter.index).collect::<Vec<_>>(), [long], "{letters:?}");
    assert!(letters[0].reason.starts_with("HTTP 413"), "{letters:?}");
    assert!(proxy.counts().too_large > 1, "what is long was cut");
    let report = source.prove(&run);
    assert_eq!(report.verdict(), Verdict::Incomplete, "{report:?}");
    assert_eq!((report.rejected, report.missing.count), (1, 0), "{report:?}");
    assert_eq!(report.proven + 1, source.log.size());
    assert_eq!(node.count(STREAM) + 1, source.log.size(), "as it counts itself: {}", spread(node, STREAM));
    source.stop(run);
}

struct Besieged(SearchNode);

const BESIEGED: &str = "logs-custody.events-besieged";

impl Store for Besieged {
    const EVENTS: u64 = 32_000;

    fn table(&self, port: u16) -> String {
        format!(
            "[sink.opensearch]\nstream = \"{BESIEGED}\"\nendpoint = {{ url = \"http://127.0.0.1:{port}\" }}\n"
        )
    }

    fn limits(&self) -> Limits {
        sink(&self.0.url(), BESIEGED).limits()
    }

    fn proxy(&mut self) -> Flaky {
        let proxy = Flaky::http(self.0.service.port());
        proxy.only("/_bulk");
        proxy
    }

    fn kill(&mut self) {
        self.0.service.kill_now();
    }

    fn start(&mut self) {
        self.0.start();
    }

    /// It gives a shard up that could not be opened five times.
    fn relieve(&mut self) {
        // It may be too busy with failing for an answer.
        until_true("it tries once more", DEADLINE * 4, || {
            let asked = self.0.ask("POST", "_cluster/reroute?retry_failed=true", "");
            asked.is_ok_and(|answer| answer.status == 200)
        });
    }

    fn age(&self) {
        // The stream may not be there yet.
        drop(self.0.ask("POST", &format!("{BESIEGED}/_rollover"), ""));
    }

    fn count(&self) -> u64 {
        self.0.count(BESIEGED)
    }
}

/// As clusters are set that clients for Elasticsearch speak to: it says that it is version 7.10.2, and not what of.
#[test]
fn opensearch_that_passes_for_elasticsearch_has_its_data_stream_all_the_same() {
    let node = two();
    let set = |value: Value| {
        let settings = json!({ "persistent": { "compatibility.override_main_response_version": value } });
        node.ask("PUT", "_cluster/settings", &settings.to_string()).unwrap().ok();
    };
    set(true.into());
    let version = node.ask("GET", "", "").unwrap().ok().json()["version"].clone();
    assert_eq!((&version["number"], &version["distribution"]), (&"7.10.2".into(), &Value::Null));
    let source = Source::new();
    source.grow(20);
    let run = source.deliver(sink(&node.url(), "passes"));
    source.delivered(&run);
    set(Value::Null);
    node.ask("GET", "_data_stream/passes", "").unwrap().ok();
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
    source.stop(run);
}

#[test]
fn opensearch_under_siege_has_each_event_once() {
    // As many clusters have it, so that a request's path says where it writes.
    let settings = ["rest.action.multi.allow_explicit_index=false"];
    besiege(|disk| Besieged(SearchNode::prepare(Product::OpenSearch3, disk, &settings)));
}
