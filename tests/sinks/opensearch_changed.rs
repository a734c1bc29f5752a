//! OpenSearch as others change it under our hands: pipelines, templates, closed indices.

use super::campaign::Source;
use super::opensearch::{sink, two};
use custody_tests::root;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::{Value, json};

/// To the store it is no failure when a pipeline drops a document, or puts it into another index.
#[test]
fn what_a_pipeline_takes_away_is_a_dead_letter() {
    const STREAM: &str = "logs-custody.events-piped";
    let node = two();
    let put = |path: &str, body: &serde_json::Value| node.ask("PUT", path, &body.to_string()).unwrap().ok();
    let source = Source::new();
    let run = source.deliver(sink(&node.url(), STREAM));
    source.delivered(&run);
    let processors = json!({ "processors": [
        { "drop": { "if": "ctx.custody.log.index % 10 == 3" } },
        { "set": { "field": "_index", "value": "led-astray", "if": "ctx.custody.log.index % 10 == 5" } },
    ] });
    put("_ingest/pipeline/piped", &processors);
    put(&format!("{STREAM}/_settings"), &json!({ "index.default_pipeline": "piped" }));
    let before = source.log.size();
    source.grow(60);
    source.delivered(&run);
    // What tells of them comes after, and is treated likewise.
    let mut letters = source.runtime.block_on(run.control.dead_letters()).unwrap();
    letters.retain(|letter| letter.index < before + 60);
    let of = |what: &str| {
        let such = letters.iter().filter(|letter| letter.reason.contains(what));
        such.map(|letter| letter.index).collect::<Vec<_>>()
    };
    let all = |digit: u64| (before..before + 60).filter(|index| index % 10 == digit).collect::<Vec<_>>();
    assert_eq!(of("a pipeline of the store dropped it"), all(3), "{letters:?}");
    assert_eq!(of("a pipeline of the store put it into led-astray"), all(5), "{letters:?}");
    assert_eq!(letters.len(), 12, "{letters:?}");
    let report = source.prove(&run);
    assert!(report.rejected >= 12 && report.missing.count == 0, "{report:?}");
    source.stop(run);
}

/// Where another template makes the stream, or somebody else has made it, questions about the log's fields may find nothing, and don't fail.
#[test]
fn a_stream_in_which_nothing_is_found_gets_nothing() {
    const STREAM: &str = "logs-custody.events-foreign";
    let node = two();
    let foreign = json!({ "index_patterns": [STREAM], "data_stream": {}, "priority": 900 });
    node.ask("PUT", "_index_template/foreign", &foreign.to_string()).unwrap().ok();
    node.ask("PUT", &format!("_data_stream/{STREAM}"), "").unwrap().ok();
    // Whatever is a text to OpenSearch without being told otherwise.
    let document = json!({ "@timestamp": 0, "custody": { "log": { "index": 0, "origin": "another.log" } } });
    node.ask("POST", &format!("{STREAM}/_doc"), &document.to_string()).unwrap().ok();
    let source = Source::new();
    source.grow(10);
    let run = source.deliver(sink(&node.url(), STREAM));
    until_true("it says what is wrong", DEADLINE, || {
        let trouble = run.control.health().numbers().trouble.unwrap_or_default();
        trouble.contains("has custody.log.origin as text, by which no event is found")
    });
    assert_eq!(node.count(STREAM), 1);
    let report = source.prove(&run);
    assert!(!report.is_proven() && !report.unproven.is_empty() && report.missing.count == 0, "{report:?}");
    // The sink may make the stream anew before the template is gone: that one gives way.
    let gives_way = json!({ "index_patterns": [STREAM], "data_stream": {}, "priority": 1 });
    node.ask("PUT", "_index_template/foreign", &gives_way.to_string()).unwrap().ok();
    for path in [format!("_data_stream/{STREAM}"), "_index_template/foreign".to_owned()] {
        node.ask("DELETE", &path, "").unwrap().ok();
    }
    source.delivered(&run);
    assert!(source.prove(&run).is_proven());
    assert_eq!(node.count(STREAM), source.log.size());
    source.stop(run);
}

/// What is over is closed by people and policies. It can't be asked for, and keeps nothing new from being looked up.
#[test]
fn an_index_that_is_closed_holds_up_nothing_and_gets_nothing_twice() {
    const STREAM: &str = "logs-custody.events-closed";
    let node = two();
    let proxy = Flaky::http(node.service.port());
    proxy.only("/_bulk");
    let source = Source::new();
    source.grow(40);
    let run = source.deliver(sink(&proxy.url(), STREAM));
    source.delivered(&run);
    let before = source.log.size();
    node.ask("POST", &format!("{STREAM}/_rollover"), "").unwrap().ok();
    let stream = node.ask("GET", &format!("_data_stream/{STREAM}"), "").unwrap().ok().json();
    let first = stream["data_streams"][0]["indices"][0]["index_name"].as_str().unwrap().to_owned();
    node.ask("POST", &format!("{first}/_close"), "").unwrap().ok();
    proxy.next(1, Fault::Cut);
    source.grow(40);
    source.delivered(&run);
    assert!(run.control.health().numbers().looked_up > 0);
    let report = source.prove(&run);
    assert!(!report.is_proven() && report.missing.count == 0, "{report:?}");
    // What lies in it is there, however it looks.
    source.runtime.block_on(run.control.replay(0..before)).unwrap();
    until_true("it waits until that can be known", DEADLINE, || {
        let numbers = run.control.health().numbers();
        numbers.replay_trouble.is_some_and(|trouble| trouble.contains("is closed"))
    });
    node.ask("POST", &format!("{first}/_open"), "").unwrap().ok();
    until_true("it is shown again", DEADLINE, || source.prove(&run).is_proven());
    until_true("the replay is over", DEADLINE, || {
        source.runtime.block_on(run.control.replaying()).unwrap().is_none()
    });
    assert_eq!(node.count(STREAM), source.log.size());
    source.stop(run);
}

/// Of this program's mapping, its fields.
fn fields() -> Value {
    let file = std::fs::read_to_string(root().join("schemas/opensearch/mappings.json")).unwrap();
    let component: Value = serde_json::from_str(&file).unwrap();
    component["template"]["mappings"]["properties"].clone()
}

/// A stream by somebody else's template, which comes before ours and maps these. Gives the template's path.
fn made_by_another(stream: &str, properties: &Value) -> String {
    let template = json!({
        "index_patterns": [stream],
        "data_stream": {},
        "priority": 900,
        "template": { "mappings": { "dynamic": false, "properties": properties } },
    });
    let path = format!("_index_template/{stream}-before");
    two().ask("PUT", &path, &template.to_string()).unwrap().ok();
    two().ask("PUT", &format!("_data_stream/{stream}"), "").unwrap().ok();
    path
}

/// A stream as another version has made it, which maps these.
fn made_before(stream: &str, properties: &Value) {
    let path = made_by_another(stream, properties);
    // A template that a stream needs can't be taken away: this one gives way.
    let gives_way = json!({ "index_patterns": [stream], "data_stream": {}, "priority": 1 });
    two().ask("PUT", &path, &gives_way.to_string()).unwrap().ok();
}

/// How many indices a stream has, and the last one's fields.
fn newest(stream: &str) -> (usize, Value) {
    let shown = two().ask("GET", &format!("_data_stream/{stream}"), "").unwrap().ok().json();
    let indices = shown["data_streams"][0]["indices"].as_array().unwrap();
    let name = indices.last().unwrap()["index_name"].as_str().unwrap();
    let mapping = two().ask("GET", &format!("{name}/_mapping"), "").unwrap().ok().json();
    (indices.len(), mapping[name]["mappings"]["properties"].clone())
}

/// Else what is new in a version couldn't be searched for before the stream's next rollover, a month later.
#[test]
fn a_stream_of_an_earlier_version_gets_the_fields_of_this_one() {
    const STREAM: &str = "logs-custody.events-earlier";
    let mut earlier = fields();
    earlier.as_object_mut().unwrap().remove("user_agent").unwrap();
    earlier["custody"]["properties"].as_object_mut().unwrap().remove("cause").unwrap();
    // A later one's, which stays.
    earlier["later"] = json!({ "type": "long" });
    made_before(STREAM, &earlier);
    assert_eq!(newest(STREAM).1["user_agent"], Value::Null);
    let source = Source::new();
    source.grow(10);
    let run = source.deliver(sink(&two().url(), STREAM));
    source.delivered(&run);
    let (indices, properties) = newest(STREAM);
    assert_eq!(indices, 1, "it isn't rolled over for that");
    assert_eq!(properties["user_agent"], fields()["user_agent"]);
    assert_eq!(properties["custody"]["properties"]["cause"]["type"], "keyword");
    assert_eq!(properties["later"]["type"], "long");
    assert!(source.prove(&run).is_proven());
    source.stop(run);
}

/// What is of another type there can't become what it is now: the stream's next index has it.
#[test]
fn a_stream_whose_fields_are_of_other_types_is_rolled_over_once() {
    const STREAM: &str = "logs-custody.events-otherwise";
    let mut earlier = fields();
    earlier.as_object_mut().unwrap().remove("user_agent").unwrap();
    earlier["rule"] = json!({ "type": "keyword" });
    made_before(STREAM, &earlier);
    let source = Source::new();
    for _ in 0..2 {
        source.grow(10);
        let run = source.deliver(sink(&two().url(), STREAM));
        source.delivered(&run);
        let (indices, properties) = newest(STREAM);
        assert_eq!(indices, 2);
        assert_eq!(properties["rule"], fields()["rule"]);
        assert_eq!(properties["user_agent"], fields()["user_agent"]);
        assert!(source.prove(&run).is_proven());
        source.stop(run);
    }
}

/// Where somebody else's template comes before ours the next index would be no better, and each start would add one.
#[test]
fn a_stream_whose_next_index_would_lack_the_same_is_not_rolled_over() {
    const STREAM: &str = "logs-custody.events-overruled";
    let mut others = fields();
    others.as_object_mut().unwrap().remove("user_agent").unwrap();
    others["rule"] = json!({ "type": "keyword" });
    made_by_another(STREAM, &others);
    let source = Source::new();
    for _ in 0..2 {
        source.grow(10);
        let run = source.deliver(sink(&two().url(), STREAM));
        source.delivered(&run);
        let (indices, properties) = newest(STREAM);
        assert_eq!(indices, 1);
        assert_eq!(
            (&properties["rule"]["type"], &properties["user_agent"]),
            (&json!("keyword"), &Value::Null)
        );
        assert!(source.prove(&run).is_proven());
        source.stop(run);
    }
}
