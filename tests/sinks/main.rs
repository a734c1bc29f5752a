//! The servers of others that events are delivered to, and what is put between them and us: that each of them takes, gives
//! back, and survives kill -9 is what all tests of sinks build upon.

mod alerts;
mod daemon;
mod elasticsearch;
mod files;
mod flaky;
mod front;
mod hostile;
mod kafka;
mod loki;
mod loki_limits;
mod opensearch;
mod opensearch_changed;
mod pictures;
mod restore;
mod rsyslog;
mod several;
mod siege;
mod splunk;
mod syslog;
mod webhook;

use custody_tests::campaign;

/// A moment ago, in seconds since 1970: Loki takes what isn't from the future.
fn loki_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    since.as_secs() - 2
}
