//! A log, and what delivers it.

use crate::log::{fill, open};
use custody_core::clock::SystemClock;
use custody_core::event::{Draft, ProducerKind, producer};
use custody_core::log::embedded::EmbeddedLog;
use custody_core::log::{Log, Numbering, Producer};
use custody_sinks::delivery::{Control, Delivery, Parts};
use custody_sinks::filter::Filter;
use custody_sinks::redaction::Redaction;
use custody_sinks::sink::Sink;
use custody_tests::story::Story;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use uuid::Uuid;

/// A log, the story that it grows by, and what it is delivered on.
pub struct Source {
    pub log: Arc<EmbeddedLog>,
    boot: Uuid,
    story: Story,
    pub producer: Arc<Producer>,
    pub runtime: Runtime,
    dir: TempDir,
}

impl Source {
    pub fn new() -> Self {
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

    pub fn fill_to(&mut self, size: u64) {
        let before = self.log.size();
        fill(&*self.log, self.boot, before, &mut self.story, size - before);
    }

    /// Will deliver everything from the log's first event, once it is released; ends with the value.
    pub fn deliver<S: Sink>(&self, sink: S) -> Delivering<S> {
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

pub struct Delivering<S: Sink> {
    pub control: Control<S>,
    _stop: watch::Sender<bool>,
}

impl<S: Sink> Delivering<S> {
    /// How long it takes to deliver all of it.
    pub fn took(&self, index: u64) -> Duration {
        let begun = Instant::now();
        self.control.pause(false);
        self.wait_for(index, || ());
        begun.elapsed()
    }

    pub fn wait_for(&self, index: u64, mut meanwhile: impl FnMut()) {
        while self.control.health().numbers().next < index {
            meanwhile();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
