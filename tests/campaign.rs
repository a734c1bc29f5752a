//! What all sinks go through: a log that grows, a destination that fails in every way, a delivery that is killed. What is
//! in the destination afterwards is asked of the destination itself.

use bytes::Bytes;
use custody_core::clock::{Clock, SystemClock};
use custody_core::delivery::Report;
use custody_core::event::{Actor, Draft, ProducerKind, log, login, producer};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::{Log, Numbering, Producer, ProducerKey, Record};
use custody_sinks::delivery::{Control, Delivery, Parts, Stopped};
use custody_sinks::filter::Filter;
use custody_sinks::proof::prove;
use custody_sinks::redaction::Redaction;
use custody_sinks::sink::Sink;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The log's name.
pub const ORIGIN: &str = "custody.test/sinks";

/// The length of the longest name: every hundredth event is longer than the others by it.
pub const LONG: usize = 1_000;

/// How long a delivery may take to come through.
const PATIENCE: Duration = Duration::from_secs(240);

/// How many events a campaign delivers: `short` in a test, as many as `CUSTODY_SINK_EVENTS` says in `make soak`.
pub fn events(short: u64) -> u64 {
    std::env::var("CUSTODY_SINK_EVENTS").ok().map_or(short, |text| text.parse().expect("a number of events"))
}

/// A log that grows, in a folder of its own.
pub struct Source {
    /// The folder.
    pub dir: TempDir,
    /// The log.
    pub log: Arc<dyn Log>,
    producer: Arc<Producer>,
    /// What deliveries run on.
    pub runtime: Runtime,
}

impl Default for Source {
    fn default() -> Self {
        Self::new()
    }
}

impl Source {
    pub fn new() -> Self {
        Self::with(Arc::new(SystemClock::new()))
    }

    /// With a clock of its own.
    pub fn with(clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap());
        let options = Options::new(signer, Arc::clone(&clock));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let numbering = Numbering {
            log: Arc::clone(&log),
            clock,
            id: "custody".to_owned(),
            kind: ProducerKind::Log,
            previous: None,
            program: "tests".to_owned(),
        };
        let nothing = Vec::<Draft<producer::Started>>::new();
        let producer = Arc::new(runtime.block_on(Producer::start(numbering, nothing)).unwrap());
        Self { dir, log, producer, runtime }
    }

    /// So many events more, of two families.
    pub fn grow(&self, events: u64) {
        let mut left = events;
        while left > 0 {
            let some = left.min(200);
            let seals = (0..some / 2).map(|size| Draft::new(Actor::system("tests"), log::Sealed { size }));
            let logins = (some / 2..some).map(|n| {
                let length = if n % 50 == 0 { LONG } else { 5 };
                let failed = login::Failed {
                    claimed_user: Some(format!("\"{}\\\n\u{e9}", "x".repeat(length))),
                    method: login::Attempt::Password,
                    reason: "wrong password".to_owned(),
                };
                Draft::new(Actor::system("tests"), failed)
            });
            let batch = (seals.collect::<Vec<_>>(), logins.collect::<Vec<_>>());
            drop(self.runtime.block_on(self.producer.append(batch)).unwrap());
            left -= some;
        }
    }

    /// Entries with these bytes, whatever they are.
    pub fn append(&self, entries: &[Vec<u8>]) {
        let boot = Uuid::now_v7();
        let mut records = entries.iter().zip(0..).map(|(bytes, seq)| Record {
            producer: ProducerKey { id: "stranger".to_owned(), boot, seq },
            tag: 0,
            bytes: Bytes::copy_from_slice(bytes.as_slice()),
        });
        loop {
            let batch: Vec<_> = records.by_ref().take(100).collect();
            if batch.is_empty() {
                return;
            }
            drop(self.log.submit(batch).unwrap().wait_blocking().unwrap());
        }
    }

    /// Begins to deliver, from where it was.
    pub fn deliver<S: Sink>(&self, sink: S) -> Run<S> {
        let parts = Parts {
            name: "tested".to_owned(),
            sink: Arc::new(sink),
            log: Arc::clone(&self.log),
            producer: Arc::clone(&self.producer),
            filter: Filter::default(),
            redaction: Redaction::default(),
            directory: self.dir.path().join("sink"),
            // Never told: on a slow machine `sink.resumed` would enter the log behind a test's back,
            // just after all of it was confirmed. `several` and the sieges have stalls told.
            stall: Duration::MAX,
        };
        let delivery = Delivery::open(parts).unwrap();
        let (control, inbox) = delivery.control(false);
        let (stop, stopping) = watch::channel(false);
        Run { control, task: self.runtime.spawn(delivery.run(inbox, stopping)), stop }
    }

    /// Ends a delivery as kill -9 does.
    pub fn kill<S: Sink>(&self, run: Run<S>) {
        run.task.abort();
        drop(self.runtime.block_on(run.task));
    }

    /// Ends it in order.
    pub fn stop<S: Sink>(&self, run: Run<S>) {
        run.stop.send_replace(true);
        self.runtime.block_on(run.task).unwrap().unwrap();
    }

    /// Waits until all that is in the log is confirmed, what the delivery itself tells of it too: `sink.rejected` is in the
    /// log before the position moves over what was refused, so nothing follows once the position is the log's size.
    pub fn delivered<S: Sink>(&self, run: &Run<S>) {
        let begun = Instant::now();
        while run.control.health().numbers().next < self.log.size() {
            let numbers = run.control.health().numbers();
            assert!(!run.task.is_finished(), "the delivery has ended: {numbers:?}");
            assert!(begun.elapsed() < PATIENCE, "not delivered: {numbers:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads back what is confirmed.
    pub fn prove<S: Sink>(&self, run: &Run<S>) -> Report {
        let size = run.control.health().numbers().next;
        self.runtime.block_on(prove(&run.control, size, |_| ())).unwrap()
    }
}

/// A delivery that runs.
pub struct Run<S> {
    /// What others may do with it.
    pub control: Control<S>,
    task: JoinHandle<Result<(), Stopped>>,
    stop: watch::Sender<bool>,
}
