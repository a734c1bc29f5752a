//! What this crate's tests share: a log with something in it, and waiting for what comes of it.

use custody_core::clock::{Clock, ManualClock, Nanos};
use custody_core::event::{Actor, Draft, Event, Payload, ProducerKind, log, producer};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Log, Numbering, Producer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A log in a folder of its own.
pub struct Story {
    pub dir: TempDir,
    pub log: Arc<dyn Log>,
    pub producer: Arc<Producer>,
}

impl Story {
    /// With so many entries.
    pub fn new(entries: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(Self::with(entries))).join().unwrap())
    }

    /// The same where a runtime runs already.
    pub async fn with(entries: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Arc::new(Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Nanos(1_764_000_000_000_000_000)));
        let options = Options::new(signer, Arc::clone(&clock));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let numbering = Numbering {
            log: Arc::clone(&log),
            clock,
            id: "custody".to_owned(),
            kind: ProducerKind::Log,
            previous: None,
            program: "test".to_owned(),
        };
        let nothing = Vec::<Draft<producer::Started>>::new();
        let producer = Arc::new(Producer::start(numbering, nothing).await.unwrap());
        let story = Self { dir, log, producer };
        story.tell(entries.saturating_sub(1)).await;
        story
    }

    /// So many entries more.
    pub async fn tell(&self, entries: u64) {
        for n in 0..entries {
            let draft = Draft::new(Actor::system("test"), log::Sealed { size: n });
            drop(self.producer.append(draft).await.unwrap());
        }
    }
}

/// The leaf hash of an entry.
pub fn leaf(story: &Story, index: u64) -> [u8; 32] {
    leaf_hash(&story.log.read(index, 1, 0).unwrap()[0].bytes).0
}

/// All that a story's log tells.
pub fn events(story: &Story) -> Vec<Payload> {
    let entries = story.log.read(0, usize::MAX, usize::MAX).unwrap();
    entries.iter().map(|entry| Event::parse(&entry.bytes).unwrap().payload()).collect()
}

/// Waits for a condition.
///
/// # Panics
/// When it doesn't come about.
pub async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
