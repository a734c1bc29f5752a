//! Memory while a destination is away and the log grows, and while it catches up, beside the same with a shorter backlog.

use super::kafka::KafkaStore;
use super::loki::LokiStore;
use super::source::Source;
use super::{Http as _, Store as _};
use crate::cores::begun;
use crate::growth::anonymous_mib;
use crate::table::Row;
use custody_sinks::sink::Sink;
use custody_tests::servers::flaky::{Fault, Flaky};
use std::time::Duration;

/// A backlog, and the one that it stands beside.
const LONG: u64 = 1_000_000;
const LARGE: u64 = 5_000_000;
const SHORT: u64 = 100_000;
/// How long clients that are through with it may take to end.
const CLOSED: Duration = Duration::from_secs(30);

/// With Loki. All that is sent to it is taken, and thrown away.
pub fn loki() -> Row {
    let mut source = Source::new();
    let dir = tempfile::tempdir().expect("a folder");
    let loki = LokiStore::start(dir.path());
    let proxy = Flaky::http(loki.port());
    proxy.only(LokiStore::STORES);
    row("Loki", |backlog| {
        proxy.set(Fault::Refuse);
        most(&mut source, loki.sink(proxy.port), backlog, || proxy.set(Fault::Answer(204, None)))
    })
}

/// With Kafka, which keeps it all; each time with a new broker, that is there only when the log has grown.
pub fn kafka() -> Row {
    let mut source = Source::new();
    row("Kafka", |backlog| {
        let dir = tempfile::tempdir().expect("a folder");
        let mut store = KafkaStore::prepare(dir.path());
        let sink = store.sink(store.port());
        let most = most(&mut source, sink, backlog, || begun(|| store.kafka.start()));
        // What its clients hold isn't the next one's.
        custody_sinks_kafka::wait_until_closed(CLOSED);
        most
    })
}

fn row(destination: &str, most: impl FnMut(u64) -> f64) -> Row {
    let long = std::env::var_os("CUSTODY_BENCH_LARGE").map_or(LONG, |_| LARGE);
    let [beside, ours] = [SHORT, long].map(most);
    Row {
        name: format!("memory with {long} events for {destination}, MiB"),
        pairs: vec![(ours, beside)],
        beside: "with a hundred thousand",
        more_is_better: false,
        aim: Some(0.9),
    }
}

/// The most that this process has, in MiB.
fn most<S: Sink>(source: &mut Source, sink: S, backlog: u64, comes_back: impl FnOnce()) -> f64 {
    let delivering = source.deliver(sink);
    delivering.control.pause(false);
    source.fill_to(backlog);
    let mut most = anonymous_mib();
    comes_back();
    delivering.wait_for(backlog, || most = most.max(anonymous_mib()));
    most
}
