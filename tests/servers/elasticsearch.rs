//! Elasticsearch 7.17, the real one, without x-pack: so without data streams, `flattened`, ILM and security. Later versions
//! have no HTTP transport in Maven Central.

use super::http::Answer;
use super::opensearch::{ask, count, java_node, start_node, url};
use super::service::Service;
use std::path::Path;

/// A node.
#[derive(Debug)]
pub struct Elasticsearch {
    /// Its process.
    pub service: Service,
}

impl Elasticsearch {
    /// A node with its data in `dir`, and lines for elasticsearch.yml beside those that every one here has, e.g.
    /// `http.max_content_length=1mb`.
    ///
    /// # Panics
    /// When it isn't there.
    #[must_use]
    pub fn prepare(dir: &Path, settings: &[&str]) -> Self {
        Self { service: java_node("Elasticsearch", "elasticsearch", dir, settings) }
    }

    /// Starts it, and waits until it takes and answers.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        start_node(&mut self.service);
    }

    /// Its URL, without a slash.
    #[must_use]
    pub fn url(&self) -> String {
        url(&self.service)
    }

    /// A request with a JSON or NDJSON body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        ask(&self.service, method, path, body)
    }

    /// How many documents an index has, as it says itself after a refresh.
    ///
    /// # Panics
    /// When it can't say.
    #[must_use]
    pub fn count(&self, index: &str) -> u64 {
        count(&self.service, index)
    }
}
