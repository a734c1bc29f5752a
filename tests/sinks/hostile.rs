//! Events as nobody should write them: every type with one thing in it at a time replaced by what doesn't belong there,
//! thousands of keys that a user chose (in one event, and in many with one each), values longer than any term. Each store takes
//! all of them, in whatever order they come, and its mapping doesn't grow: nobody hides an event by making it strange.

use super::campaign::Source;
use super::loki;
use super::opensearch::{self, two};
use custody_core::delivery::Verdict;
use custody_core::log::EVENT_BYTES_MAX;
use custody_sinks::sink::Sink;
use custody_tests::events::{self, KEYS, KEYS_ONE_EACH};
use custody_tests::servers::Loki;
use custody_tests::servers::search_node::{Product, SearchNode};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// One in so many of those in which something is replaced: the mapping's own tests see each of them.
const ONE_IN: usize = 7;

/// What a log takes, of which some are no text at all; of what is extreme all.
fn corpus() -> Vec<Vec<u8>> {
    let mut all = events::every();
    all.extend(events::replaced().into_iter().step_by(ONE_IN));
    all.extend(events::extreme());
    assert!(all.iter().all(|bytes| bytes.len() <= EVENT_BYTES_MAX), "a log takes none that is longer");
    let data: Vec<Value> = all
        .iter()
        .filter_map(|bytes| Some(serde_json::from_slice::<Value>(bytes).ok()?.get_mut("data")?.take()))
        .collect();
    let labels = || data.iter().filter_map(|data| data.get("labels")?.as_object());
    assert!(labels().any(|labels| labels.len() == KEYS));
    let alone: BTreeSet<&String> = labels().filter(|labels| labels.len() == 1).flat_map(Map::keys).collect();
    assert!(alone.len() >= KEYS_ONE_EACH, "{} keys that stand alone", alone.len());
    assert!(data.iter().any(|data| depth(data) > 100));
    let commands = data.iter().filter_map(|data| data.get("command")?.as_str());
    assert!(commands.map(str::len).any(|length| length > 32_766));
    let keys = data.iter().filter_map(Value::as_object).flat_map(Map::keys);
    assert!(keys.map(String::len).any(|length| length > 32_766), "no term is that long");
    all
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// Delivers them: all must be there as the log has them, but for `refused`.
fn takes<S: Sink>(sink: S, corpus: &[Vec<u8>], refused: usize) {
    let source = Source::new();
    source.append(corpus);
    let run = source.deliver(sink);
    source.delivered(&run);
    let letters = source.runtime.block_on(run.control.dead_letters()).unwrap();
    let reasons: Vec<_> = letters.iter().take(3).collect();
    assert_eq!(letters.len(), refused, "{reasons:?}");
    let report = source.prove(&run);
    let verdict = if refused == 0 { Verdict::Proven } else { Verdict::Incomplete };
    assert_eq!(report.verdict(), verdict, "{report:?}");
    assert_eq!(report.proven + refused as u64, report.size);
    source.stop(run);
}

/// How many fields the mappings of a stream or of indices have, whatever their number.
fn fields(node: &SearchNode, index: &str) -> usize {
    fn leaves(value: &Value) -> usize {
        let properties =
            value["properties"].as_object().into_iter().flatten().map(|(_, field)| leaves(field));
        properties.sum::<usize>() + usize::from(value["type"].is_string())
    }
    let answer = node.ask("GET", &format!("{index}/_mapping"), "").unwrap().ok().json();
    answer.as_object().unwrap().values().map(|index| leaves(&index["mappings"])).max().unwrap()
}

fn in_any_order(node: &SearchNode, name: &str) {
    let mut corpus = corpus();
    let plain = format!("logs-custody.events-{name}-plain");
    takes(opensearch::sink(&node.url(), &plain), &events::every()[..1], 0);
    for order in ["forward", "backward"] {
        let stream = format!("logs-custody.events-{name}-{order}");
        takes(opensearch::sink(&node.url(), &stream), &corpus, 0);
        assert_eq!(
            fields(node, &format!("{stream}*")),
            fields(node, &format!("{plain}*")),
            "the mapping grew"
        );
        corpus.reverse();
    }
}

#[test]
fn opensearch_takes_each_strange_event_in_any_order_and_its_mapping_stays() {
    in_any_order(two(), "strange");
}

#[test]
fn elasticsearch_takes_each_strange_event_in_any_order_and_its_mapping_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = SearchNode::prepare(Product::Elasticsearch7, dir.path(), &[]);
    node.start();
    in_any_order(&node, "strange");
}

#[test]
fn loki_takes_each_strange_event_that_is_text_into_few_streams() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(dir.path(), &["max_global_streams_per_user: 100"]);
    loki.start();
    let corpus = corpus();
    let no_text = corpus.iter().filter(|bytes| !is_text(bytes)).count();
    takes(loki::sink(&loki.url()), &corpus, no_text);
}
