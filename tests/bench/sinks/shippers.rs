//! What people would ship events with otherwise, each as its documentation has it: until the store has all.

use super::events;
use super::kafka::{KafkaStore, TOPIC};
use super::loki::{LokiStore, TENANT};
use super::opensearch::OpenSearchStore;
use bytes::Bytes;
use custody_tests::process::Running;
use custody_tests::servers::{Rsyslog, http, setup};
use custody_tests::story::Story;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often is asked whether all is there.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// The events of a round, canonical.
fn canonical() -> impl Iterator<Item = Bytes> {
    Story::new().take(usize::try_from(events()).expect("they fit into memory")).map(|(_, bytes)| bytes)
}

/// The same as syslog, behind their lengths.
static FRAMES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let frames = canonical().flat_map(|bytes| {
        let head = b"<86>1 2026-01-01T00:00:00Z web-1 custody - - - ";
        let length = format!("{} ", head.len() + bytes.len());
        [length.as_bytes(), head, &bytes].concat()
    });
    frames.collect()
});

/// What keeps events in memory until the store takes them, a thousand at a time.
const QUEUE: &str = "queue.type=\"LinkedList\" queue.size=\"100000\" queue.dequeuebatchsize=\"1000\"";

/// Feeds rsyslog by TCP; what it receives goes the way of this action alone.
fn by_rsyslog(dir: &Path, lines: &[&str], all_there: impl FnMut() -> bool) -> Duration {
    let frames = &**FRAMES;
    let mut rsyslog = Rsyslog::tcp(&dir.join("rsyslog"), &[lines, &["stop"]].concat());
    rsyslog.start();
    let begun = Instant::now();
    let mut stream = TcpStream::connect(rsyslog.service.address()).expect("it listens");
    stream.write_all(frames).expect("it takes them");
    until(all_there);
    begun.elapsed()
}

fn until(mut all_there: impl FnMut() -> bool) {
    while !all_there() {
        sleep(ASKED_EVERY);
    }
}

/// rsyslog with omelasticsearch, a document of one field.
pub fn rsyslog_to_opensearch(store: &OpenSearchStore) -> Duration {
    let dir = tempfile::tempdir().expect("a folder");
    let document = "template(name=\"document\" type=\"list\" option.jsonf=\"on\") {\
                    property(outname=\"message\" name=\"msg\" format=\"jsonf\") }";
    let action = format!(
        "module(load=\"omelasticsearch\")\naction(type=\"omelasticsearch\" server=\"127.0.0.1\" serverport=\"{}\" \
         searchIndex=\"shipped\" searchType=\"\" bulkmode=\"on\" template=\"document\" {QUEUE} queue.workerthreads=\"2\")",
        store.0.service.port()
    );
    let there = || store.0.ask("HEAD", "shipped", "").is_ok_and(|answer| answer.status == 200);
    by_rsyslog(dir.path(), &[document, &action], || there() && store.0.count("shipped") >= events())
}

/// rsyslog with omkafka: the same values, idempotent and confirmed by all replicas, without keys, headers and transactions.
pub fn rsyslog_to_kafka(store: &KafkaStore) -> Duration {
    let dir = tempfile::tempdir().expect("a folder");
    let value = "template(name=\"value\" type=\"list\") { property(name=\"msg\" position.from=\"1\") }";
    let action = format!(
        "module(load=\"omkafka\")\naction(type=\"omkafka\" broker=[\"{}\"] topic=\"{TOPIC}\" template=\"value\" \
         partitions.auto=\"on\" resubmitOnFailure=\"on\" \
         confParam=[\"acks=all\", \"enable.idempotence=true\", \"compression.codec=lz4\"] {QUEUE})",
        store.kafka.bootstrap()
    );
    let mut config = ClientConfig::new();
    let reader: BaseConsumer =
        config.set("bootstrap.servers", store.kafka.bootstrap()).create().expect("a reader");
    let wait = Duration::from_secs(10);
    let topic = reader.fetch_metadata(Some(TOPIC), wait).expect("what the broker has");
    let partitions: Vec<i32> =
        topic.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let records = || -> i64 {
        let ends = partitions.iter().map(|id| reader.fetch_watermarks(TOPIC, *id, wait).expect("its end").1);
        ends.sum()
    };
    by_rsyslog(dir.path(), &[value, &action], || records() >= i64::try_from(events()).expect("a count"))
}

/// The OpenTelemetry Collector, from a file to Loki's OTLP interface: a line is the event, and one label is on all.
pub fn collector_to_loki(store: &LokiStore) -> Duration {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name);
    let lines: Vec<u8> = canonical().flat_map(|event| [&*event, b"\n"].concat()).collect();
    std::fs::write(file("ready"), lines).expect("a file");
    let config = format!(
        "receivers: {{filelog: {{include: [{}], start_at: beginning, poll_interval: 10ms, \
         resource: {{service.name: shipped}}}}}}\n\
         exporters: {{otlp_http: {{endpoint: '{}/otlp', headers: {{X-Scope-OrgID: {TENANT}}}, \
         sending_queue: {{num_consumers: 4, block_on_overflow: true, \
         batch: {{flush_timeout: 200ms, min_size: 4000, max_size: 8000}}}}}}}}\n\
         service: {{telemetry: {{metrics: {{level: none}}}}, \
         pipelines: {{logs: {{receivers: [filelog], exporters: [otlp_http]}}}}}}\n",
        file("events").display(),
        store.0.url(),
    );
    std::fs::write(file("collector.yaml"), config).expect("its configuration");
    let program = setup::folder("collector/install.sh", &["--print"]).join("collector");
    let said = std::fs::File::create(file("said")).expect("a file");
    let mut command = Command::new(program);
    command.arg("--config").arg(file("collector.yaml")).stdout(Stdio::null()).stderr(said);
    let mut collector = Running::start("collector", &mut command);
    let said = || std::fs::read_to_string(file("said")).expect("what it said");
    until(|| {
        assert!(collector.ended().is_none(), "the collector ended: {}", said());
        said().contains("Everything is ready")
    });
    let begun = Instant::now();
    // As a whole, so that it waits for nobody.
    std::fs::rename(file("ready"), file("events")).expect("a file");
    until(|| {
        let refused = said().contains("Dropping data");
        assert!(!refused && collector.ended().is_none(), "the collector doesn't deliver: {}", said());
        // Its own counter first: to count what is stored takes time that it would store more in.
        received(store) >= events() && stored(store) >= events()
    });
    begun.elapsed()
}

/// Lines that Loki was sent, by its own metrics.
fn received(store: &LokiStore) -> u64 {
    let metrics = http::get(&format!("{}/metrics", store.0.url()), &[]).expect("an answer").ok().text;
    let counters = metrics.lines().filter(|line| line.starts_with("loki_distributor_lines_received_total{"));
    let numbers = counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    numbers.sum::<f64>() as u64
}

/// Lines that a query finds.
fn stored(store: &LokiStore) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    store.0.count(TENANT, "sum(count_over_time({service_name=\"shipped\"}[1h]))", now + 1)
}
