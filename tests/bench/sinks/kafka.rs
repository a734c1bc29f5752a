//! Kafka, one broker.

use super::{
    Filled, ORIGIN, Searched, Store, delivered, events, no_secrets, on_a_new_one, ours, rate, rounds,
};
use crate::cores::begun;
use crate::table::Row;
use custody_sinks::sink::Sink as _;
use custody_tests::servers::Kafka;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

pub const TOPIC: &str = "custody.events";

/// A broker, and a stranger who reads what comes into its topic.
pub struct KafkaStore {
    pub kafka: Kafka,
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

impl Store for KafkaStore {
    type Sink = custody_sinks_kafka::Kafka;
    const NAME: &'static str = "Kafka";

    fn start(dir: &Path) -> Self {
        let mut store = Self::prepare(dir);
        begun(|| store.kafka.start());
        store
    }

    fn port(&self) -> u16 {
        self.kafka.brokers[0].service.port()
    }

    fn sink(&self, port: u16) -> Self::Sink {
        let settings = serde_json::json!({ "brokers": [format!("127.0.0.1:{port}")] });
        let settings = serde_json::from_value(settings).expect("settings");
        custody_sinks_kafka::Kafka::new(settings, no_secrets(), "bench", ORIGIN)
    }
}

impl Searched for KafkaStore {
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

/// Kafka, beside the same records from a loop that does nothing else, and beside kcat, which hands over the same values without
/// headers. Neither has transactions: each may leave records twice.
pub fn rows() -> Vec<Row> {
    let records = on_a_new_one::<KafkaStore, _>(|store, sink| {
        delivered(sink, Filled::Later);
        store.records()
    });
    let values: Vec<u8> =
        records.iter().flat_map(|record| [record.payload().expect("a value"), b"\n"].concat()).collect();
    let (mut beside_loop, mut beside_exact, mut beside_kcat) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let ours = ours::<KafkaStore>();
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
    /// One that isn't started yet.
    pub fn prepare(dir: &Path) -> Self {
        Self { kafka: Kafka::prepare(dir, 1, &[]), reader: OnceLock::new(), seen: Arc::default() }
    }

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
