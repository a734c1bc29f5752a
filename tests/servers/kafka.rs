//! Kafka, the real one, without ZooKeeper: one broker, or several that replicate.

use super::service::Service;
use super::setup;
use super::sshd::path;
use super::tls::Identity;
use crate::process::{Said, free_port, run};
use crate::wait;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Brokers, each a controller too.
#[derive(Debug)]
pub struct Kafka {
    /// In the order of their node ids, which begin with 1.
    pub brokers: Vec<Broker>,
}

/// One of them.
#[derive(Debug)]
pub struct Broker {
    /// Its process.
    pub service: Service,
    /// The port where it wants TLS with a client's certificate, and a user: only [`Kafka::secured`] has one.
    pub secure_port: Option<u16>,
    config: PathBuf,
}

/// The user that [`Kafka::secured`] lets in by password and by SCRAM, and who may do everything.
pub const USER: &str = "custody";
/// One whom it lets in, and who may do nothing.
pub const STRANGER: &str = "stranger";
/// The password of both. It protects nothing.
pub const PASSWORD: &str = "a password that stands in no log";

impl Kafka {
    /// `brokers` of them with their data in `dir`, and lines for server.properties beside those that every one here has,
    /// which they overrule. Topics are made when somebody produces to them: replicated to all, and with three brokers two
    /// must have what is acknowledged (`acks=all`).
    ///
    /// # Panics
    /// When Kafka isn't there.
    #[must_use]
    pub fn prepare(dir: &Path, brokers: usize, settings: &[&str]) -> Self {
        Self::prepared(dir, brokers, settings, None)
    }

    /// One broker that has a second port, for TLS (with this identity) and SASL. On the first, everybody may do everything.
    ///
    /// # Panics
    /// When Kafka isn't there.
    #[must_use]
    pub fn secured(dir: &Path, identity: &Identity) -> Self {
        Self::prepared(dir, 1, &[], Some(identity))
    }

    fn prepared(dir: &Path, brokers: usize, settings: &[&str], identity: Option<&Identity>) -> Self {
        let home = setup::folder("java/install.sh", &["--print", "kafka"]);
        let ports: Vec<(u16, u16)> = (0..brokers).map(|_| (free_port(), free_port())).collect();
        let voters: Vec<String> = ports
            .iter()
            .zip(1..)
            .map(|((_, controller), id)| format!("{id}@127.0.0.1:{controller}"))
            .collect();
        let in_sync = if brokers > 2 { 2 } else { 1 };
        let mut made = vec![];
        for (id, (port, controller)) in (1..).zip(&ports) {
            let folder = dir.join(format!("broker-{id}"));
            std::fs::create_dir_all(&folder).expect("a folder for a broker");
            let config = folder.join("server.properties");
            let mut text = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
                 inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\nnum.partitions=1\n\
                 default.replication.factor={brokers}\nmin.insync.replicas={in_sync}\n\
                 offsets.topic.num.partitions=1\noffsets.topic.replication.factor={brokers}\n\
                 transaction.state.log.num.partitions=1\ntransaction.state.log.replication.factor={brokers}\n\
                 transaction.state.log.min.isr={in_sync}\ngroup.initial.rebalance.delay.ms=0\n{QUICK}",
                voters.join(","),
                path(&folder.join("data")),
            );
            for setting in settings {
                writeln!(text, "{setting}").expect("a string");
            }
            let secure_port = identity.map(|identity| {
                let secure_port = free_port();
                text += &secure(&folder, identity, [*port, secure_port, *controller]);
                secure_port
            });
            std::fs::write(&config, text).expect("a broker's configuration");
            let users = [USER, STRANGER]
                .map(|user| format!("SCRAM-SHA-512=[name={user},password={PASSWORD}]"))
                .into_iter()
                .filter(|_| identity.is_some())
                .flat_map(|user| ["--add-scram".to_owned(), user]);
            let service = Service::new("Kafka", &folder, home.join("jdk/bin/java"), *port)
                .arguments(JAVA)
                .arguments([format!("-XX:SharedArchiveFile={}/classes.jsa", home.display())])
                .arguments(["-cp".to_owned(), format!("{}/lib/*", home.display())])
                .arguments(["Kafka", path(&folder)])
                .arguments(users);
            made.push(Broker { service, secure_port, config });
        }
        Self { brokers: made }
    }

    /// Tells clients to connect to a broker by another port of loopback: a proxy's. Before its start.
    ///
    /// # Panics
    /// When its configuration can't be written.
    pub fn advertise(&self, broker: usize, port: u16) {
        let broker = &self.brokers[broker];
        let text = std::fs::read_to_string(&broker.config).expect("a broker's configuration");
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.strip_prefix("advertised.listeners=") {
                Some(_) => format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
                None => line.to_owned(),
            })
            .collect();
        std::fs::write(&broker.config, lines.join("\n") + "\n").expect("a broker's configuration");
    }

    /// Starts those that don't run, all at once, and waits until all know of each other.
    ///
    /// # Panics
    /// When one doesn't start.
    pub fn start(&mut self) {
        std::thread::scope(|scope| {
            for broker in self.brokers.iter_mut().filter(|broker| !broker.service.runs()) {
                scope.spawn(|| broker.start());
            }
        });
        let all = self.brokers.len();
        for broker in &self.brokers {
            let what = format!("the broker on port {} knows all {all}", broker.service.port());
            wait::until_true(&what, Duration::from_secs(120), || broker.knows() == all);
        }
    }

    /// `127.0.0.1:PORT` of all, with commas, as clients take it.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(|broker| broker.service.address()).collect();
        addresses.join(",")
    }

    /// Which broker (its place in [`Kafka::brokers`]) leads a partition; nothing when none does.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i64) -> Option<usize> {
        let id = self.partition(topic, partition)?["leader"].as_u64()?;
        usize::try_from(id).ok()?.checked_sub(1)
    }

    /// How many brokers are in sync for a partition.
    #[must_use]
    pub fn in_sync(&self, topic: &str, partition: i64) -> usize {
        let found = self.partition(topic, partition);
        found.and_then(|partition| Some(partition["isrs"].as_array()?.len())).unwrap_or(0)
    }

    fn partition(&self, topic: &str, partition: i64) -> Option<Value> {
        let said = self.kcat(&["-L", "-J", "-m", "5", "-t", topic], b"", wait::DEADLINE);
        let metadata: Value = serde_json::from_slice(&said.out).ok()?;
        let topic = metadata["topics"].as_array()?.iter().find(|found| found["topic"] == topic)?.clone();
        topic["partitions"].as_array()?.iter().find(|found| found["partition"] == partition).cloned()
    }

    /// Produces lines, and says how that went: it succeeds when all of them are acknowledged by all that are in sync.
    pub fn produce(&self, topic: &str, lines: &[String], deadline: Duration) -> Said {
        let timeout = format!("message.timeout.ms={}", deadline.as_millis());
        let arguments = ["-P", "-t", topic, "-X", "enable.idempotence=true", "-X", &timeout];
        self.kcat(&arguments, lines.join("\n").as_bytes(), deadline + wait::DEADLINE)
    }

    /// All messages of a topic, those of each partition in their order.
    ///
    /// # Panics
    /// When they can't be read.
    #[must_use]
    pub fn consume(&self, topic: &str) -> Vec<String> {
        let arguments = ["-C", "-e", "-q", "-o", "beginning", "-t", topic];
        self.kcat(&arguments, b"", wait::DEADLINE).ok().text().lines().map(str::to_owned).collect()
    }

    /// Runs kcat, a client by others.
    pub fn kcat(&self, arguments: &[&str], input: &[u8], deadline: Duration) -> Said {
        kcat(&self.bootstrap(), arguments, input, deadline)
    }
}

impl Broker {
    /// Starts it, and waits until it listens. The first time it formats its folder.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        self.service.start(|| true);
    }

    /// How many brokers it tells of.
    fn knows(&self) -> usize {
        let said = kcat(&self.service.address(), &["-L", "-J", "-m", "5"], b"", wait::DEADLINE);
        let metadata: Value = serde_json::from_slice(&said.out).unwrap_or_default();
        metadata["brokers"].as_array().map_or(0, Vec::len)
    }
}

/// A second port, where clients show a certificate and a user.
fn secure(folder: &Path, identity: &Identity, [port, secure_port, controller]: [u16; 3]) -> String {
    let (ca, certificate, key) = identity.write(folder);
    let read = |file: &Path| std::fs::read_to_string(file).expect("a certificate or key");
    let store = folder.join("store.pem");
    std::fs::write(&store, read(&key) + &read(&certificate)).expect("a certificate and its key");
    let login = "listener.name.secure";
    let module = "org.apache.kafka.common.security";
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT\n\
         {login}.ssl.keystore.type=PEM\n{login}.ssl.keystore.location={}\n\
         {login}.ssl.truststore.type=PEM\n{login}.ssl.truststore.location={}\n{login}.ssl.client.auth=required\n\
         {login}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
         {login}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
         {login}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS;User:{USER}\n",
        path(&store),
        path(&ca),
    )
}

fn kcat(bootstrap: &str, arguments: &[&str], input: &[u8], deadline: Duration) -> Said {
    run(Command::new("kcat").args(["-b", bootstrap]).args(arguments), input, deadline)
}

/// A small heap, and a compiler that starts quickly. One whose heap is full would go on without the thread that needed more.
const JAVA: [&str; 6] = [
    "-Xms128m",
    "-Xmx256m",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// A broker that is gone or stands still is noticed within seconds, not within half a minute. And what compacts topics doesn't take
/// half of the heap.
const QUICK: &str = "\
log.cleaner.dedupe.buffer.size=4194304
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=6000
replica.lag.time.max.ms=5000
replica.fetch.wait.max.ms=200
";
