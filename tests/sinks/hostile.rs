//! Events as nobody should write them: every type with one thing in it at a time replaced by what doesn't belong there,
//! thousands of keys that a user chose, values longer than any term. Each store takes all of them, in whatever order they
//! come, and its mapping doesn't grow: nobody hides an event by making it strange.

use super::campaign::Source;
use super::loki;
use super::opensearch::{self, two};
use custody_core::delivery::Verdict;
use custody_core::log::EVENT_BYTES_MAX;
use custody_sinks::sink::Sink;
use custody_tests::events;
use custody_tests::servers::Loki;
use custody_tests::servers::search_node::{Product, SearchNode};
use serde_json::Value;

/// One in so many of the many: the mapping's own tests see each of them.
const ONE_IN: usize = 7;

/// What a log takes of them, of which some are no text at all.
fn corpus() -> Vec<Vec<u8>> {
    let (many, few): (Vec<_>, Vec<_>) = events::hostile().into_iter().partition(|bytes| bytes.len() < 20_000);
    let mut all = events::every();
    all.extend(many.into_iter().step_by(ONE_IN));
    all.extend(few.into_iter().filter(|bytes| bytes.len() <= EVENT_BYTES_MAX));
    all
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
