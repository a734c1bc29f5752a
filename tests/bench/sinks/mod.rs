//! Delivery: events a second into a store, how soon one can be found there, and what a long backlog costs.

mod shippers;

use crate::cores::{APART, begun};
use crate::environment::{count, number, text};
use crate::growth::anonymous_mib;
use crate::log::{fill, open};
use crate::table::{Row, median};
use custody_core::clock::SystemClock;
use custody_core::event::{Actor, Draft, ProducerKind, log, producer};
use custody_core::log::embedded::EmbeddedLog;
use custody_core::log::{Log, Numbering, Producer};
use custody_sinks::delivery::{Control, Delivery, Parts};
use custody_sinks::filter::Filter;
use custody_sinks::http::Endpoint;
use custody_sinks::redaction::Redaction;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::Sink;
use custody_sinks::{loki, opensearch};
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::search_node::{Product, SearchNode};
use custody_tests::servers::{Kafka, Loki};
use custody_tests::story::Story;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use uuid::Uuid;

/// Events a second while is measured how soon one can be found, and for how long.
const RATE: u64 = 2_000;
const LASTS: Duration = Duration::from_secs(10);
/// A backlog, and the one that it stands beside.
const BACKLOG: u64 = 1_000_000;
const BACKLOG_LARGE: u64 = 5_000_000;
const BACKLOG_SMALL: u64 = 100_000;
const STREAM: &str = "logs-custody.events-bench";
const TENANT: &str = "bench";

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
    for part in text("CUSTODY_BENCH_SINKS", "loki,opensearch,kafka,soon,backlog").split(',') {
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
                rows.extend(into_kafka());
                rows.push(beside("rsyslog with omkafka, without transactions", shippers::rsyslog_to_kafka));
            }
            "soon" => rows.extend([
                soon::<LokiStore>(1.0),
                soon::<KafkaStore>(1.0),
                // Its refresh interval and a second.
                soon::<OpenSearchStore>(2.0),
            ]),
            "backlog" => rows.push(backlog()),
            other => {
                panic!("CUSTODY_BENCH_SINKS={other}: loki, opensearch, kafka, soon and backlog are there")
            }
        }
    }
    rows
}

/// A store that starts empty.
trait Store: Sized {
    type Sink: Sink;
    const NAME: &'static str;
    fn start(dir: &Path) -> Self;
    fn port(&self) -> u16;
    fn sink(&self, port: u16) -> Self::Sink;
    /// Whether a query finds the event at `index` now.
    fn shows(&self, index: u64) -> bool;
}

/// One that speaks HTTP.
trait Http: Store {
    /// What its requests for storing contain.
    const STORES: &'static str;
}

impl Http for LokiStore {
    const STORES: &'static str = "/push";
}

impl Http for OpenSearchStore {
    const STORES: &'static str = "/_bulk";
}

struct LokiStore(Loki);

impl Store for LokiStore {
    type Sink = loki::Loki;
    const NAME: &'static str = "Loki";

    fn start(dir: &Path) -> Self {
        let unlimited = [
            "ingestion_rate_mb: 10000",
            "ingestion_burst_size_mb: 10000",
            "per_stream_rate_limit: 10GB",
            "per_stream_rate_limit_burst: 10GB",
        ];
        let mut loki = Loki::prepare(dir, &unlimited);
        begun(|| loki.start());
        Self(loki)
    }

    fn port(&self) -> u16 {
        self.0.service.port()
    }

    fn sink(&self, port: u16) -> Self::Sink {
        let settings = loki::Settings {
            endpoint: endpoint(port),
            tenant: Some(TENANT.to_owned()),
            sends_old_again: false,
            job: "custody".to_owned(),
        };
        loki::Loki::new(settings, no_secrets(), "custody.test/bench", Arc::new(SystemClock::new()))
    }

    fn shows(&self, index: u64) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_nanos();
        let now = u64::try_from(now).expect("this century");
        let query = format!("{{job=\"custody\"}} | log_index=\"{index}\"");
        !self.0.lines(TENANT, &query, (now - 60_000_000_000, now + 1_000_000_000)).is_empty()
    }
}

struct OpenSearchStore(SearchNode);

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
        opensearch::OpenSearch::new(settings, no_secrets(), "custody.test/bench")
    }

    /// By a search, which sees what a refresh has made visible; nothing here asks for one.
    fn shows(&self, index: u64) -> bool {
        let path = format!("{STREAM}/_search?size=0&q=custody.log.index:{index}");
        let found = self.0.ask("GET", &path, "").expect("an answer").ok().json();
        found["hits"]["total"]["value"].as_u64().expect("a count") > 0
    }
}

/// A broker, and a stranger who reads what comes into its topic.
struct KafkaStore {
    kafka: Kafka,
    reader: OnceLock<Reader>,
    seen: Arc<Mutex<HashSet<u64>>>,
}

/// A kcat that reads along; it ends with this value.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

const TOPIC: &str = "custody.events";

impl Store for KafkaStore {
    type Sink = custody_sinks_kafka::Kafka;
    const NAME: &'static str = "Kafka";

    fn start(dir: &Path) -> Self {
        let mut kafka = Kafka::prepare(dir, 1, &[]);
        begun(|| kafka.start());
        Self { kafka, reader: OnceLock::new(), seen: Arc::default() }
    }

    fn port(&self) -> u16 {
        self.kafka.brokers[0].service.port()
    }

    fn sink(&self, port: u16) -> Self::Sink {
        let settings = serde_json::json!({ "brokers": [format!("127.0.0.1:{port}")] });
        let settings = serde_json::from_value(settings).expect("settings");
        custody_sinks_kafka::Kafka::new(settings, no_secrets(), "bench", "custody.test/bench")
    }

    /// By kcat, which reads along.
    fn shows(&self, index: u64) -> bool {
        self.reader.get_or_init(|| {
            let mut command = Command::new("kcat");
            command.args(["-C", "-q", "-u", "-b", &self.kafka.bootstrap(), "-t", TOPIC, "-o", "beginning"]);
            command.args(["-X", "isolation.level=read_committed", "-f", "%h\n"]).stdout(Stdio::piped());
            let mut reader = command.spawn().expect("kcat");
            let lines = BufReader::new(reader.stdout.take().expect("a pipe")).lines();
            let seen = Arc::clone(&self.seen);
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let mut headers = line.split(',').filter_map(|header| header.split_once('='));
                    let index = headers.find(|(name, _)| *name == "custody-index").expect("each has one").1;
                    seen.lock()
                        .expect("nobody panics while holding it")
                        .insert(index.parse().expect("a number"));
                }
            });
            Reader(reader)
        });
        self.seen.lock().expect("nobody panics while holding it").contains(&index)
    }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint { url: format!("http://127.0.0.1:{port}"), ca: None, auth: None }
}

fn no_secrets() -> Secrets {
    Secrets::new(Path::new("/nowhere"))
}

/// A log, and what delivers it.
struct Source {
    log: Arc<EmbeddedLog>,
    boot: Uuid,
    story: Story,
    producer: Arc<Producer>,
    runtime: Runtime,
    dir: TempDir,
}

impl Source {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let log = open(&dir.path().join("log"));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let numbering = Numbering {
            log: Arc::clone(&log) as Arc<dyn Log>,
            clock: Arc::new(SystemClock::new()),
            id: "custody".to_owned(),
            kind: ProducerKind::Log,
            previous: None,
            program: "bench".to_owned(),
        };
        let nothing = Vec::<Draft<producer::Started>>::new();
        let producer = runtime.block_on(Producer::start(numbering, nothing)).expect("a producer");
        Self { log, boot: Uuid::new_v4(), story: Story::new(), producer: Arc::new(producer), runtime, dir }
    }

    fn fill_to(&mut self, size: u64) {
        let before = self.log.size();
        fill(&*self.log, self.boot, before, &mut self.story, size - before);
    }

    /// Will deliver everything from the log's first event, once it is released; ends with the value.
    fn deliver<S: Sink>(&self, sink: S) -> Delivering<S> {
        let delivery = Delivery::open(Parts {
            name: "bench".to_owned(),
            sink: Arc::new(sink),
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            producer: Arc::clone(&self.producer),
            filter: Filter::default(),
            redaction: Redaction::default(),
            directory: self.dir.path().join(Uuid::new_v4().to_string()),
            stall: Duration::from_secs(3_600),
        });
        let delivery = delivery.expect("a new position");
        let (control, inbox) = delivery.control(true);
        let (stop, stopping) = watch::channel(false);
        self.runtime.spawn(delivery.run(inbox, stopping));
        Delivering { control, _stop: stop }
    }
}

struct Delivering<S: Sink> {
    control: Control<S>,
    _stop: watch::Sender<bool>,
}

impl<S: Sink> Delivering<S> {
    /// How long it takes to deliver all of it.
    fn took(&self, index: u64) -> Duration {
        let begun = Instant::now();
        self.control.pause(false);
        self.wait_for(index, || ());
        begun.elapsed()
    }

    fn wait_for(&self, index: u64, mut meanwhile: impl FnMut()) {
        while self.control.health().numbers().next < index {
            meanwhile();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Beside the same requests, byte for byte, over as many connections, from a loop that does nothing else. Then with events
/// that the store might have already, as a new sink of an old log finds it, and asks.
fn throughput<S: Http>() -> Vec<Row> {
    let (mut new, mut in_doubt) = (Vec::new(), Vec::new());
    let requests = {
        let dir = tempfile::tempdir().expect("a folder");
        let store = S::start(dir.path());
        let proxy = Flaky::http(store.port());
        proxy.only(S::STORES);
        proxy.keep();
        delivered(store.sink(proxy.port), Filled::Later);
        proxy.kept()
    };
    for _ in 0..rounds() {
        let ours = on_a_new_one::<S, _>(|_, sink| delivered(sink, Filled::Later));
        let bare = on_a_new_one::<S, _>(|store, sink| {
            Flaky::again(&requests, sink.limits().in_flight, store.port())
        });
        let asked = on_a_new_one::<S, _>(|_, sink| delivered(sink, Filled::Before));
        new.push((rate(ours), rate(bare)));
        in_doubt.push((rate(asked), rate(ours)));
    }
    let row = |name: &str, pairs, beside, aim| Row {
        name: format!("{}, {name}", S::NAME),
        pairs,
        beside,
        more_is_better: true,
        aim,
    };
    vec![
        row("events/s", new, "the same requests from a bare loop", Some(0.9)),
        row("events/s of an old log", in_doubt, "events that can't be there yet", None),
    ]
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
        let ours = on_a_new_one::<S, _>(|_, sink| delivered(sink, Filled::Later));
        let theirs = on_a_new_one::<S, _>(|store, _| shipped(store));
        pairs.push((rate(ours), rate(theirs)));
    }
    Row { name: format!("{}, events/s", S::NAME), pairs, beside: shipper, more_is_better: true, aim: None }
}

/// Kafka, beside the same records from a loop that does nothing else, and beside kcat, which hands over the same values without
/// headers. Neither has transactions: each may leave records twice.
fn into_kafka() -> Vec<Row> {
    let records = on_a_new_one::<KafkaStore, _>(|store, sink| {
        delivered(sink, Filled::Later);
        store.records()
    });
    let values: Vec<u8> =
        records.iter().flat_map(|record| [record.payload().expect("a value"), b"\n"].concat()).collect();
    let (mut beside_loop, mut beside_exact, mut beside_kcat) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let ours = on_a_new_one::<KafkaStore, _>(|_, sink| delivered(sink, Filled::Later));
        let bare =
            |in_transactions| on_a_new_one::<KafkaStore, _>(|store, _| store.take(&records, in_transactions));
        let (bare, exact) = (bare(false), bare(true));
        let kcat = on_a_new_one::<KafkaStore, _>(|store, _| {
            let options = ["-P", "-t", TOPIC, "-X", "acks=all", "-X", "enable.idempotence=true", "-z", "lz4"];
            let begun = Instant::now();
            store.kafka.kcat(&options, &values, Duration::from_secs(300)).ok();
            begun.elapsed()
        });
        beside_loop.push((rate(ours), rate(bare)));
        beside_exact.push((rate(ours), rate(exact)));
        beside_kcat.push((rate(ours), rate(kcat)));
    }
    let row = |beside, pairs, aim| Row {
        name: "Kafka, events/s".to_owned(),
        pairs,
        beside,
        more_is_better: true,
        aim,
    };
    vec![
        row("the same records from a bare loop", beside_loop, Some(0.9)),
        row("the same from one in transactions", beside_exact, None),
        row("kcat with the same values", beside_kcat, None),
    ]
}

fn place_in_the_log(record: &OwnedMessage) -> u64 {
    let mut headers = record.headers().expect("headers").iter();
    let index = headers.find(|header| header.key == "custody-index").and_then(|header| header.value);
    std::str::from_utf8(index.expect("an index")).expect("a number").parse().expect("a number")
}

impl KafkaStore {
    /// All events that are there, in the log's order.
    fn records(&self) -> Vec<OwnedMessage> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap()).set("group.id", "bench");
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
        let reader: BaseConsumer = config.create().expect("a reader");
        reader.subscribe(&[TOPIC]).expect("a topic");
        let mut records = Vec::new();
        while (records.len() as u64) < events() {
            if let Some(record) = reader.poll(Duration::from_secs(10)) {
                records.push(record.expect("a record").detach());
            }
        }
        // Partition by partition they would be in fuller sets than any log's.
        records.sort_by_key(place_in_the_log);
        records
    }

    /// How long it takes to store records; the first of them not counted, as ours isn't. `in_transactions`: of as many as ours has.
    fn take(&self, records: &[OwnedMessage], in_transactions: bool) -> Duration {
        const LONG: Duration = Duration::from_secs(60);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap()).set("enable.idempotence", "true");
        config.set("acks", "all").set("compression.type", "lz4").set("linger.ms", "5");
        if in_transactions {
            config.set("transactional.id", "bare");
        }
        let producer: BaseProducer = config.create().expect("a producer");
        if in_transactions {
            producer.init_transactions(LONG).expect("it may");
        }
        let store = |records: &[OwnedMessage]| {
            if in_transactions {
                producer.begin_transaction().expect("one begins");
            }
            for record in records {
                let mut record = BaseRecord::to(TOPIC)
                    .key(record.key().expect("a key"))
                    .payload(record.payload().expect("a value"))
                    .headers(record.headers().expect("headers").clone());
                while let Err((_, refused)) = producer.send(record) {
                    producer.poll(Duration::from_millis(1));
                    record = refused;
                }
                producer.poll(Duration::ZERO);
            }
            if in_transactions {
                producer.commit_transaction(LONG).expect("it is committed");
            } else {
                producer.flush(LONG).expect("it takes them");
            }
        };
        let ours = self.sink(self.port()).limits().batch_events;
        let (first, rest) = records.split_at(1);
        store(first);
        let begun = Instant::now();
        rest.chunks(if in_transactions { ours } else { rest.len() }).for_each(store);
        begun.elapsed()
    }
}

/// From the append to the moment when a query finds it, while events come at a steady rate: the longest that an event
/// took of those that were looked for one after the other. Beside what is aimed at.
fn soon<S: Store>(aim: f64) -> Row {
    let source = Source::new();
    let dir = tempfile::tempdir().expect("a folder");
    let store = S::start(dir.path());
    let delivering = source.deliver(store.sink(store.port()));
    delivering.control.pause(false);
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let begun = Instant::now();
            let mut done = 0;
            while begun.elapsed() < LASTS {
                let due = (begun.elapsed().as_secs_f64() * RATE as f64) as u64;
                let batch: Vec<_> = (done..due)
                    .map(|size| Draft::new(Actor::system("bench"), log::Sealed { size }))
                    .collect();
                if !batch.is_empty() {
                    drop(source.runtime.block_on(source.producer.append(batch)).expect("appended"));
                    done = due;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // The first ones also wait for what is made ready once.
        delivering.wait_for(RATE, || ());
        while !appending.is_finished() {
            let (newest, begun) = (source.log.size() - 1, Instant::now());
            while !store.shows(newest) {
                std::thread::sleep(Duration::from_millis(5));
            }
            all.push(begun.elapsed().as_secs_f64());
        }
    });
    println!("{}: found after {:.3} s (middle), {} looked for", S::NAME, median(all.clone()), all.len());
    Row {
        name: format!("{}, longest until it is found, s", S::NAME),
        pairs: vec![(all.into_iter().fold(0.0, f64::max), aim)],
        beside: "the goal, at 2,000 events/s",
        more_is_better: false,
        aim: Some(1.0),
    }
}

/// Memory while a destination is away and the log grows, and while it catches up, beside the same with a shorter backlog.
fn backlog() -> Row {
    let large = std::env::var_os("CUSTODY_BENCH_LARGE").map_or(BACKLOG, |_| BACKLOG_LARGE);
    let mut source = Source::new();
    let dir = tempfile::tempdir().expect("a folder");
    let loki = LokiStore::start(dir.path());
    let proxy = Flaky::http(loki.port());
    proxy.only(LokiStore::STORES);
    let mut peaks = Vec::new();
    for backlog in [BACKLOG_SMALL, large] {
        proxy.set(Fault::Refuse);
        let delivering = source.deliver(loki.sink(proxy.port));
        delivering.control.pause(false);
        source.fill_to(backlog);
        let mut peak = anonymous_mib();
        // All that it sends is taken, and thrown away.
        proxy.set(Fault::Answer(204, None));
        delivering.wait_for(backlog, || peak = peak.max(anonymous_mib()));
        peaks.push(peak);
    }
    Row {
        name: format!("memory with {large} events to deliver, MiB"),
        pairs: vec![(peaks[1], peaks[0])],
        beside: "with a hundred thousand",
        more_is_better: false,
        aim: Some(0.9),
    }
}
