//! Delivery: events a second into a destination, how soon one can be found there, and what a long backlog costs.

mod backlog;
mod files;
mod kafka;
mod loki;
mod opensearch;
mod receivers;
mod shippers;
mod soon;
mod source;
mod syslog;

use self::kafka::KafkaStore;
use self::loki::LokiStore;
use self::opensearch::OpenSearchStore;
use self::receivers::{Collector, Hook};
use self::source::Source;
use crate::cores::APART;
use crate::environment::{count, number, text};
use crate::table::Row;
use custody_sinks::http::Endpoint;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::Sink;
use custody_tests::servers::Flaky;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// The log's name.
const ORIGIN: &str = "custody.test/bench";
/// All that can be measured.
const PARTS: &str = "loki,opensearch,kafka,files,syslog,webhook,hec,soon,backlog,backlog-kafka";

/// How often each is taken.
fn rounds() -> usize {
    count("CUSTODY_BENCH_ROUNDS", 3)
}

/// Events of a round.
fn events() -> u64 {
    number("CUSTODY_BENCH_EVENTS", 100_000)
}

/// Events of a round that took so long, a second.
fn rate(took: Duration) -> f64 {
    events() as f64 / took.as_secs_f64()
}

/// All of it, or what `CUSTODY_BENCH_SINKS` names.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    LazyLock::force(&APART);
    for part in text("CUSTODY_BENCH_SINKS", PARTS).split(',') {
        match part {
            "loki" => {
                rows.extend(throughput::<LokiStore>());
                rows.push(beside("OpenTelemetry Collector, without metadata", shippers::collector_to_loki));
            }
            "opensearch" => {
                rows.extend(throughput::<OpenSearchStore>());
                rows.push(beside("rsyslog with omelasticsearch", shippers::rsyslog_to_opensearch));
            }
            "kafka" => {
                rows.extend(kafka::rows());
                rows.push(beside("rsyslog with omkafka, without transactions", shippers::rsyslog_to_kafka));
            }
            "files" => rows.push(files::row()),
            "syslog" => rows.push(syslog::row()),
            "webhook" => rows.push(only_answered::<Hook>()),
            "hec" => rows.push(only_answered::<Collector>()),
            "soon" => rows.extend([
                soon::row::<LokiStore>(1.0),
                soon::row::<KafkaStore>(1.0),
                // Its refresh interval and a second.
                soon::row::<OpenSearchStore>(2.0),
            ]),
            "backlog" => rows.push(backlog::loki()),
            "backlog-kafka" => rows.push(backlog::kafka()),
            other => panic!("CUSTODY_BENCH_SINKS={other}: there are {PARTS}"),
        }
    }
    rows
}

/// A destination that starts empty.
trait Store: Sized {
    type Sink: Sink;
    const NAME: &'static str;
    fn start(dir: &Path) -> Self;
    fn port(&self) -> u16;
    fn sink(&self, port: u16) -> Self::Sink;
}

/// One that can be asked for an event.
trait Searched: Store {
    /// Whether a query finds the event at `index` now.
    fn shows(&self, index: u64) -> bool;
}

/// One that speaks HTTP.
trait Http: Store {
    /// What the first lines of its requests for storing contain.
    const STORES: &'static str;
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint { url: format!("http://127.0.0.1:{port}"), ca: None, auth: None }
}

fn no_secrets() -> Secrets {
    Secrets::new(Path::new("/nowhere"))
}

/// Beside the same requests, byte for byte, over as many connections, from a loop that does nothing else. Then with events
/// that the store might have already, as a new sink of an old log finds it, and asks.
fn throughput<S: Http>() -> Vec<Row> {
    let (mut new, mut in_doubt) = (Vec::new(), Vec::new());
    let requests = requests::<S>();
    for _ in 0..rounds() {
        let ours = ours::<S>();
        let bare = sent_again::<S>(&requests);
        let asked = on_a_new_one::<S, _>(|_, sink| delivered(sink, Filled::Before));
        new.push((rate(ours), rate(bare)));
        in_doubt.push((rate(asked), rate(ours)));
    }
    let old = Row {
        name: format!("{}, events/s of an old log", S::NAME),
        pairs: in_doubt,
        beside: "events that can't be there yet",
        more_is_better: true,
        aim: None,
    };
    vec![beside_requests::<S>(new, Some(0.9)), old]
}

/// Beside the same requests, to a receiver that only reads them: that is no destination's limit, so nothing is aimed at.
fn only_answered<S: Http>() -> Row {
    let requests = requests::<S>();
    let round = |_| (rate(ours::<S>()), rate(sent_again::<S>(&requests)));
    beside_requests::<S>((0..rounds()).map(round).collect(), None)
}

fn beside_requests<S: Store>(pairs: Vec<(f64, f64)>, aim: Option<f64>) -> Row {
    Row {
        name: format!("{}, events/s", S::NAME),
        pairs,
        beside: "the same requests from a bare loop",
        more_is_better: true,
        aim,
    }
}

/// The requests for storing a log.
fn requests<S: Http>() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a folder");
    let store = S::start(dir.path());
    let proxy = Flaky::http(store.port());
    proxy.only(S::STORES);
    proxy.keep();
    delivered(store.sink(proxy.port), Filled::Later);
    proxy.kept()
}

/// How long they take, over as many connections as the sink has.
fn sent_again<S: Http>(requests: &[Vec<u8>]) -> Duration {
    on_a_new_one::<S, _>(|store, sink| Flaky::again(requests, sink.limits().in_flight, store.port()))
}

/// How long it takes to deliver a log, to a store that is new.
fn ours<S: Store>() -> Duration {
    on_a_new_one::<S, _>(|_, sink| delivered(sink, Filled::Later))
}

/// Whether the log is there before the sink.
enum Filled {
    Before,
    Later,
}

/// How long it takes to deliver a log.
fn delivered<S: Sink>(sink: S, filled: Filled) -> Duration {
    let mut source = Source::new();
    if let Filled::Before = filled {
        source.fill_to(events());
    }
    let delivering = source.deliver(sink);
    if let Filled::Later = filled {
        // What is made ready once isn't what an event costs.
        source.fill_to(1);
        delivering.took(1);
        delivering.control.pause(true);
        source.fill_to(events());
    }
    delivering.took(events())
}

/// With a store that is empty but for what the sink makes ready before.
fn on_a_new_one<S: Store, T>(measured: impl FnOnce(&S, S::Sink) -> T) -> T {
    let dir = tempfile::tempdir().expect("a folder");
    let store = S::start(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(store.sink(store.port()).prepare()).expect("a store that is ready");
    // Another one: connections belong to the runtime that opened them.
    let sink = store.sink(store.port());
    measured(&store, sink)
}

/// Beside what people would ship the same events with otherwise, each time into a new store.
fn beside<S: Store>(shipper: &'static str, shipped: impl Fn(&S) -> Duration) -> Row {
    let mut pairs = Vec::new();
    for _ in 0..rounds() {
        let ours = ours::<S>();
        let theirs = on_a_new_one::<S, _>(|store, _| shipped(store));
        pairs.push((rate(ours), rate(theirs)));
    }
    Row { name: format!("{}, events/s", S::NAME), pairs, beside: shipper, more_is_better: true, aim: None }
}
