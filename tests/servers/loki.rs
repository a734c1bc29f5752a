//! Grafana Loki, the real one, as a single process with its data in a folder.

use super::http::{self, Answer};
use super::service::Service;
use super::setup;
use super::sshd::path;
use crate::process::free_port;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A server with tenants: each request names one in `X-Scope-OrgID`.
#[derive(Debug)]
pub struct Loki {
    /// Its process.
    pub service: Service,
    dir: PathBuf,
}

impl Loki {
    /// A server with its data in `dir`, and lines for `limits_config` beside those that every one here has, e.g.
    /// `max_global_streams_per_user: 50`, `max_line_size: 4KB`, `max_entries_limit_per_query: 1000`.
    ///
    /// # Panics
    /// When Loki isn't built.
    #[must_use]
    pub fn prepare(dir: &Path, limits: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for Loki");
        let port = free_port();
        let mut config = CONFIGURATION.to_owned();
        for (name, value) in
            [("DIR", path(dir)), ("HTTP", &port.to_string()), ("GRPC", &free_port().to_string())]
        {
            config = config.replace(&format!("@{name}@"), value);
        }
        // The limits stand last, and none of them twice.
        for limit in limits {
            let (name, _) = limit.split_once(':').expect("a limit has a name");
            config = config
                .lines()
                .filter(|line| !line.starts_with(&format!("  {name}:")))
                .fold(String::new(), |config, line| config + line + "\n");
            writeln!(config, "  {limit}").expect("a string");
        }
        let file = dir.join("loki.yaml");
        std::fs::write(&file, config).expect("Loki's configuration");
        let program = setup::folder("loki/install.sh", &["--print"]).join("loki");
        let service = Service::new("Loki", dir, program, port)
            .arguments([format!("-config.file={}", file.display()), "-log.level=warn".to_owned()]);
        Self { service, dir: dir.to_owned() }
    }

    /// Starts it, and waits until it takes and answers.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        let ready = format!("{}/ready", self.url());
        self.service.start(|| http::get(&ready, &[]).is_ok_and(|answer| answer.status == 200));
    }

    /// Its URL, without a slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.service.port())
    }

    /// Pushes lines with their times in nanoseconds into one stream, by its JSON interface.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn push(&self, tenant: &str, labels: &Value, lines: &[(u64, &str)]) -> Result<Answer, String> {
        let values: Vec<Value> = lines.iter().map(|(time, line)| json!([time.to_string(), line])).collect();
        let body = json!({ "streams": [{ "stream": labels, "values": values }] });
        let url = format!("{}/loki/api/v1/push", self.url());
        let headers = [("x-scope-orgid", tenant), ("content-type", "application/json")];
        http::send("POST", &url, &headers, &body.to_string())
    }

    /// Pushes one line with structured metadata.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn push_with(
        &self,
        tenant: &str,
        labels: &Value,
        (time, line): (u64, &str),
        metadata: &Value,
    ) -> Result<Answer, String> {
        let values = json!([[time.to_string(), line, metadata]]);
        let body = json!({ "streams": [{ "stream": labels, "values": values }] });
        let url = format!("{}/loki/api/v1/push", self.url());
        let headers = [("x-scope-orgid", tenant), ("content-type", "application/json")];
        http::send("POST", &url, &headers, &body.to_string())
    }

    /// The lines that a LogQL query finds from `start` (inclusive) to `end` (exclusive), both in nanoseconds, oldest first
    /// within each stream, 5,000 at most.
    ///
    /// # Panics
    /// When Loki refuses the query.
    #[must_use]
    pub fn lines(&self, tenant: &str, query: &str, (start, end): (u64, u64)) -> Vec<String> {
        let answer = self.query_range(tenant, query, (start, end)).expect("an answer").ok().json();
        let streams = answer["data"]["result"].as_array().expect("streams");
        let values = streams.iter().flat_map(|stream| stream["values"].as_array().expect("lines"));
        values.map(|value| value[1].as_str().expect("a line").to_owned()).collect()
    }

    /// The same, as it is answered.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn query_range(&self, tenant: &str, query: &str, (start, end): (u64, u64)) -> Result<Answer, String> {
        let mut url = reqwest::Url::parse(&format!("{}/loki/api/v1/query_range", self.url())).expect("a URL");
        url.query_pairs_mut()
            .append_pair("query", query)
            .append_pair("start", &start.to_string())
            .append_pair("end", &end.to_string())
            .append_pair("limit", "5000")
            .append_pair("direction", "forward");
        http::get(url.as_str(), &[("x-scope-orgid", tenant)])
    }

    /// What a LogQL query of a number gives at a time in seconds; 0 where it finds nothing.
    ///
    /// # Panics
    /// When Loki refuses the query.
    #[must_use]
    pub fn count(&self, tenant: &str, query: &str, time: u64) -> u64 {
        let mut url = reqwest::Url::parse(&format!("{}/loki/api/v1/query", self.url())).expect("a URL");
        url.query_pairs_mut().append_pair("query", query).append_pair("time", &time.to_string());
        let answer = http::get(url.as_str(), &[("x-scope-orgid", tenant)]).expect("an answer").ok().json();
        let value = answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// Writes out what it has in memory, as it does by itself after half an hour.
    ///
    /// # Panics
    /// When it refuses.
    pub fn flush(&self) {
        http::send("POST", &format!("{}/flush", self.url()), &[], "").expect("an answer").ok();
    }

    /// Ends it in order, so that all it has is in chunks, and starts it again with a write-ahead log of its own. The old one may
    /// be torn: Loki goes on behind the tear, and reads no further than there when it is killed.
    ///
    /// # Panics
    /// When it doesn't end or start.
    pub fn start_afresh(&mut self) {
        self.service.stop();
        std::fs::remove_dir_all(self.write_ahead_log()).expect("Loki's write-ahead log");
        self.start();
    }

    /// The folder of its write-ahead log, with its segments by number.
    #[must_use]
    pub fn write_ahead_log(&self) -> PathBuf {
        self.dir.join("data/wal")
    }

    /// Asks to delete what a LogQL query finds between two times in nanoseconds, neither in the future. Queries look for
    /// new deletions every five minutes only: restart it to have it done.
    ///
    /// # Errors
    /// When there is no answer.
    ///
    /// # Panics
    /// When a time is none of a calendar's.
    pub fn delete(&self, tenant: &str, query: &str, (start, end): (u64, u64)) -> Result<Answer, String> {
        // It counts milliseconds, and refuses those that aren't over.
        let end = end.next_multiple_of(1_000_000);
        std::thread::sleep(Duration::from_millis(1));
        let time =
            |nanoseconds: u64| Timestamp::from_nanosecond(nanoseconds.into()).expect("a time").to_string();
        let mut url = reqwest::Url::parse(&format!("{}/loki/api/v1/delete", self.url())).expect("a URL");
        url.query_pairs_mut()
            .append_pair("query", query)
            .append_pair("start", &time(start))
            .append_pair("end", &time(end));
        http::send("POST", url.as_str(), &[("x-scope-orgid", tenant)], "")
    }
}

/// Everything on loopback and in one folder, all of it in chunks once it was ended in order. Nothing is added to an event
/// (`discover_…`) and none is refused for its age. The addresses of `frontend` and `query_scheduler` spare it ten seconds of looking
/// for others. Deleting is on, so that tests can tamper.
const CONFIGURATION: &str = "\
auth_enabled: true
server:
  http_listen_address: 127.0.0.1
  http_listen_port: @HTTP@
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: @GRPC@
  log_level: warn
common:
  instance_addr: 127.0.0.1
  path_prefix: @DIR@/data
  replication_factor: 1
  ring:
    kvstore:
      store: inmemory
  storage:
    filesystem:
      chunks_directory: @DIR@/data/chunks
      rules_directory: @DIR@/data/rules
schema_config:
  configs:
    - from: 2020-01-01
      store: tsdb
      object_store: filesystem
      schema: v13
      index:
        prefix: index_
        period: 24h
ingester:
  query_store_max_look_back_period: -1ns
  lifecycler:
    min_ready_duration: 0s
    final_sleep: 0s
  wal:
    flush_on_shutdown: true
compactor:
  retention_enabled: true
  delete_request_store: filesystem
  delete_request_cancel_period: 0s
frontend:
  address: 127.0.0.1
memberlist:
  bind_addr: [127.0.0.1]
query_scheduler:
  use_scheduler_ring: false
analytics:
  reporting_enabled: false
limits_config:
  allow_structured_metadata: true
  reject_old_samples: false
  volume_enabled: true
  discover_service_name: []
  discover_log_levels: false
  deletion_mode: filter-and-delete
";
