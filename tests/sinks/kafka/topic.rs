//! A topic as a stranger sees it: by kcat, and by a client that writes and deletes there what it likes.

use crate::campaign::{ORIGIN, Source};
use custody_sinks::secret::Secrets;
use custody_sinks_kafka::Settings;
use custody_tests::servers::Kafka;
use custody_tests::wait::{DEADLINE, until_true};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

pub const TOPIC: &str = "custody.events";
/// How long kcat may take for a whole topic.
const LONG: Duration = Duration::from_secs(120);

/// The sink with short timeouts, in a topic of three partitions.
pub fn settings(brokers: &str) -> Settings {
    let brokers: Vec<&str> = brokers.split(',').collect();
    let text = serde_json::json!({ "brokers": brokers, "partitions": 3, "timeout_seconds": 5 });
    serde_json::from_value(text).unwrap()
}

pub fn sink(settings: Settings) -> custody_sinks_kafka::Kafka {
    custody_sinks_kafka::Kafka::new(settings, Secrets::new(Path::new("/nowhere")), "tested", ORIGIN)
}

/// A record as kcat shows it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: String,
    pub headers: BTreeMap<String, String>,
    pub value: String,
}

impl Stored {
    pub fn index(&self) -> u64 {
        self.headers["custody-index"].parse().unwrap()
    }
}

/// All that a reader of what is committed is given, those of each partition in their order.
pub fn stored(kafka: &Kafka) -> Vec<Stored> {
    let format = "%p\t%o\t%T\t%k\t%h\t%s\n";
    let arguments = [
        "-C",
        "-e",
        "-q",
        "-o",
        "beginning",
        "-t",
        TOPIC,
        "-f",
        format,
        "-X",
        "isolation.level=read_committed",
        "-X",
        "check.crcs=true",
    ];
    let said = kafka.kcat(&arguments, b"", LONG).ok().text();
    said.lines()
        .map(|line| {
            let parts: Vec<&str> = line.splitn(6, '\t').collect();
            let [partition, offset, timestamp, key, headers, value] = parts[..] else { panic!("{line}") };
            let headers = headers.split(',').filter_map(|header| header.split_once('='));
            Stored {
                partition: partition.parse().unwrap(),
                offset: offset.parse().unwrap(),
                timestamp: timestamp.parse().unwrap(),
                key: key.to_owned(),
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                value: value.to_owned(),
            }
        })
        .collect()
}

/// The same once there are so many, or what there is by then: a transaction is marked as committed after the answer that says so,
/// and until then its reader isn't given it.
pub fn settled(kafka: &Kafka, count: u64) -> Vec<Stored> {
    let begun = Instant::now();
    loop {
        let records = stored(kafka);
        // Whoever asks tells best what is missing.
        if records.len() as u64 >= count || begun.elapsed() > DEADLINE {
            return records;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Each event of the log is there once, as it is in the log, and those of a partition in the log's order.
pub fn check(kafka: &Kafka, source: &Source) {
    let mut last: BTreeMap<i32, u64> = BTreeMap::new();
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for record in settled(kafka, source.log.size()) {
        let index = record.index();
        *seen.entry(index).or_default() += 1;
        if let Some(before) = last.insert(record.partition, index) {
            assert!(before < index, "partition {}: {before} stands before {index}", record.partition);
        }
        let entry = &source.log.read(index, 1, 0).unwrap()[0];
        assert_eq!(record.value.as_bytes(), &*entry.bytes);
        assert_eq!(record.timestamp as u64, entry.appended.0 / 1_000_000);
        assert_eq!(record.headers["custody-appended"], entry.appended.0.to_string());
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    let missing: Vec<u64> = (0..source.log.size()).filter(|index| !seen.contains_key(index)).collect();
    assert!(twice.is_empty() && missing.is_empty(), "more than once: {twice:?}, missing: {missing:?}");
}

/// Puts a record into the topic, as anybody does who may write there.
pub fn add(kafka: &Kafka, record: &Stored) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    });
    let record = BaseRecord::to(TOPIC)
        .partition(record.partition)
        .key(&record.key)
        .payload(&record.value)
        .timestamp(record.timestamp)
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
}

fn admin(kafka: &Kafka) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap()
}

/// Deletes all before an offset, as retention does.
pub fn delete_before(kafka: &Kafka, source: &Source, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, partition, Offset::Offset(offset)).unwrap();
    let deleted = source.runtime.block_on(admin(kafka).delete_records(&list, &AdminOptions::new())).unwrap();
    assert_eq!(deleted.elements()[0].error(), Ok(()));
}

/// Makes the topic before the sink does.
pub fn make(kafka: &Kafka, source: &Source, settings: &[(&str, &str)]) {
    let topic = NewTopic::new(TOPIC, 3, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let made = source.runtime.block_on(admin(kafka).create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
}

/// Changes one of the topic's settings, and sets the others to their defaults.
pub fn alter(kafka: &Kafka, source: &Source, name: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(TOPIC)).set(name, value);
    let altered =
        source.runtime.block_on(admin(kafka).alter_configs([&change], &AdminOptions::new())).unwrap();
    assert!(altered[0].is_ok(), "{altered:?}");
}

/// Deletes it with all that it holds, and waits until the brokers know no such topic.
pub fn delete(kafka: &Kafka, source: &Source) {
    let admin = admin(kafka);
    let deleted = source.runtime.block_on(admin.delete_topics(&[TOPIC], &AdminOptions::new())).unwrap();
    assert!(deleted[0].is_ok(), "{deleted:?}");
    // Asked for by its name it might be made again.
    until_true("no broker knows it", DEADLINE, || {
        let metadata = admin.inner().fetch_metadata(None, LONG).unwrap();
        metadata.topics().iter().all(|topic| topic.name() != TOPIC)
    });
}

/// How many partitions it has, and what one of its settings is.
pub fn shape(kafka: &Kafka, source: &Source, name: &str) -> (usize, String) {
    let admin = admin(kafka);
    let metadata = admin.inner().fetch_metadata(Some(TOPIC), LONG).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let wanted = [&ResourceSpecifier::Topic(TOPIC)];
    let told = source.runtime.block_on(admin.describe_configs(wanted, &AdminOptions::new())).unwrap();
    let value = told[0].as_ref().unwrap().get(name).and_then(|entry| entry.value.clone());
    (partitions, value.unwrap_or_default())
}
