//! OpenSearch, one node.

use super::{Http, ORIGIN, Searched, Store, endpoint, no_secrets};
use crate::cores::begun;
use custody_sinks::opensearch;
use custody_tests::servers::search_node::{Product, SearchNode};
use std::path::Path;

const STREAM: &str = "logs-custody.events-bench";

pub struct OpenSearchStore(pub SearchNode);

impl Http for OpenSearchStore {
    const STORES: &'static str = "/_bulk";
}

impl Store for OpenSearchStore {
    type Sink = opensearch::OpenSearch;
    const NAME: &'static str = "OpenSearch 3";

    fn start(dir: &Path) -> Self {
        let mut node = SearchNode::prepare(Product::OpenSearch3, dir, &[]);
        begun(|| node.start());
        Self(node)
    }

    fn port(&self) -> u16 {
        self.0.service.port()
    }

    fn sink(&self, port: u16) -> Self::Sink {
        let settings = opensearch::Settings { endpoint: endpoint(port), stream: STREAM.to_owned() };
        opensearch::OpenSearch::new(settings, no_secrets(), ORIGIN)
    }
}

impl Searched for OpenSearchStore {
    /// By a search, which sees what a refresh has made visible; nothing here asks for one.
    fn shows(&self, index: u64) -> bool {
        let path = format!("{STREAM}/_search?size=0&q=custody.log.index:{index}");
        let found = self.0.ask("GET", &path, "").expect("an answer").ok().json();
        found["hits"]["total"]["value"].as_u64().expect("a count") > 0
    }
}
