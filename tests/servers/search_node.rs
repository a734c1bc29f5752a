//! OpenSearch and Elasticsearch, the real ones, as single nodes with what Maven Central has: no security, ISM and ML plugins;
//! and of Elasticsearch only 7.17, since later versions have no HTTP transport there, without x-pack: so without data streams,
//! `flattened` and ILM.

use super::http::{self, Answer};
use super::service::Service;
use super::setup;
use crate::process::free_port;
use serde_json::Value;
use std::path::Path;

/// Which product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// OpenSearch 2.19.
    OpenSearch2,
    /// OpenSearch 3.3.
    OpenSearch3,
    /// Elasticsearch 7.17.
    Elasticsearch7,
}

impl Product {
    /// Its launcher's class, and its folder below `setup/java`.
    fn launcher(self) -> (&'static str, &'static str) {
        match self {
            Self::OpenSearch2 => ("OpenSearch", "opensearch-2"),
            Self::OpenSearch3 => ("OpenSearch", "opensearch-3"),
            Self::Elasticsearch7 => ("Elasticsearch", "elasticsearch"),
        }
    }
}

/// A node.
#[derive(Debug)]
pub struct SearchNode {
    /// Its process.
    pub service: Service,
}

impl SearchNode {
    /// A node with its data in `dir`, and settings beside those that every one here has, e.g.
    /// `http.max_content_length=1mb`.
    ///
    /// # Panics
    /// When it isn't there.
    #[must_use]
    pub fn prepare(product: Product, dir: &Path, settings: &[&str]) -> Self {
        Self { service: java_node(product.launcher(), dir, settings) }
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

    /// How many documents a stream or index has, as it says itself after a refresh.
    ///
    /// # Panics
    /// When it can't say.
    #[must_use]
    pub fn count(&self, index: &str) -> u64 {
        count(&self.service, index)
    }
}

/// A node in one JVM with a small heap: its launcher (`setup/java`) takes a folder and settings.
fn java_node((name, folder): (&'static str, &str), dir: &Path, settings: &[&str]) -> Service {
    let home = setup::folder("java/install.sh", &["--print", folder]);
    let port = free_port();
    let memory = dir.join("tmp");
    std::fs::create_dir_all(&memory).expect("a folder for temporary files");
    Service::new(name, dir, home.join("jdk/bin/java"), port)
        .arguments(["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arguments([format!("-Djava.io.tmpdir={}", memory.display())])
        .arguments([format!("-XX:SharedArchiveFile={}/classes.jsa", home.display())])
        .arguments(["-cp".to_owned(), format!("{}/lib/*", home.display()), name.to_owned()])
        .arguments([dir.join("node").into_os_string()])
        .arguments([format!("http.port={port}"), format!("transport.port={}", free_port())])
        // A test's disk may be nearly full of other things.
        .arguments(["network.host=127.0.0.1", "cluster.routing.allocation.disk.threshold_enabled=false"])
        .arguments(settings)
}

fn url(service: &Service) -> String {
    format!("http://127.0.0.1:{}", service.port())
}

fn start_node(service: &mut Service) {
    let health = format!("{}/_cluster/health?wait_for_status=yellow&timeout=1s", url(service));
    service.start(|| {
        http::get(&health, &[])
            .is_ok_and(|answer| answer.status == 200 && answer.json()["timed_out"] == Value::Bool(false))
    });
}

fn ask(service: &Service, method: &str, path: &str, body: &str) -> Result<Answer, String> {
    let kind = if path.split('?').next().is_some_and(|path| path.ends_with("_bulk")) {
        "application/x-ndjson"
    } else {
        "application/json"
    };
    http::send(method, &format!("{}/{path}", url(service)), &[("content-type", kind)], body)
}

fn count(service: &Service, index: &str) -> u64 {
    ask(service, "POST", &format!("{index}/_refresh"), "").expect("an answer").ok();
    let answer = ask(service, "GET", &format!("{index}/_count"), "").expect("an answer").ok().json();
    assert_eq!(answer["_shards"]["failed"], 0, "not all shards answered: {answer}");
    answer["count"].as_u64().expect("a count")
}
