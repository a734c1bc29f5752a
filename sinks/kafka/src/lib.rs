//! Kafka as a destination of the log's events: the value is the canonical event, each is there once, and that can be proven.
//!
//! # Why transactions
//!
//! An idempotent producer drops repeats only for as long as it lives. Whoever comes after it has to look at the ends of
//! the partitions and go on from there. But then requests of the old one may still be on their way: in the socket of a
//! broker that stands still and goes on when somebody continues it, or in one that doesn't yet know that it leads no longer.
//! Such a request lands *after* the look, and is a copy. No wait is long enough to rule that out.
//!
//! So a batch is a transaction, under a transactional id that belongs to this sink. Before the ends are read, a new
//! producer takes the id (`init_transactions`): the coordinator ends what the old one had begun, with a mark in each
//! partition that may hold some of it, and from then on leaders refuse the old one's epoch. So when that has succeeded,
//! whatever was in doubt is either committed and can be seen, or will never be. Only then is looked, and only what is
//! missing is sent. One trap is left: a broker that stood still may answer the look before it hears that it leads no
//! longer, and show less than there is. So the new producer first puts a mark into each partition, which only a true leader
//! can acknowledge, takes it back, and the look isn't over before it has passed the marks. That is also what shuts out a second `custodyd` with the same sink.
//!
//! What it costs: a commit for each batch (some milliseconds), and readers must read what is committed
//! (`isolation.level=read_committed`): others also see what was taken back.
//!
//! In a partition, events stand in the log's order: one batch is under way at a time, and one that isn't stored is sent
//! again before the next one. What is sent again on purpose (`custody sinks replay`, `redrive`) comes after.

mod aside;
mod client;
mod map;
mod reader;
mod record;
mod session;
mod settings;
mod topic;

pub use client::wait_until_closed;
pub use settings::{Compression, Mechanism, Sasl, Settings, Tls};

use crate::aside::{Waiting, aside};
use crate::client::{Acknowledged, asker};
use crate::reader::{Deleted, Known, Reader};
use crate::session::{Plan, Session};
use crate::topic::{Making, Told};
use custody_sinks::item::Item;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::{Answer, Found, Limits, Sink, Trouble, Unproven, Window};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;
use tokio::runtime::Handle;

/// Delivers to Kafka.
pub struct Kafka {
    settings: Settings,
    secrets: Secrets,
    origin: String,
    transactional_id: String,
    /// The producer, while there is one that knows the fate of all that it was given. Whoever sends or makes a new one
    /// holds this: one transaction at a time.
    session: tokio::sync::Mutex<Option<Session>>,
    /// How often it was made ready: what was learned of the topic before counts no more.
    era: AtomicU64,
    /// How far the partitions go at least.
    acknowledged: Arc<Acknowledged>,
    /// Reads the ends, for what is in doubt.
    ends: Arc<Mutex<Reader>>,
    /// Reads everything, for the proof.
    whole: Arc<Mutex<Reader>>,
    told: Arc<Told>,
}

/// An event on its way to Kafka. It becomes a record only when it is handed over, while the brokers work on those before it.
pub struct Encoded(Item);

impl Kafka {
    /// For the log with that origin; `name` is the sink's.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, name: &str, origin: &str) -> Self {
        let reader = || {
            let reader = Reader::new(settings.clone(), secrets.clone(), origin);
            Arc::new(Mutex::new(reader))
        };
        let made = || format!("custody/{origin}/{name}");
        Self {
            transactional_id: settings.transactional_id.clone().unwrap_or_else(made),
            session: tokio::sync::Mutex::new(None),
            era: AtomicU64::new(0),
            acknowledged: Arc::default(),
            ends: reader(),
            whole: reader(),
            told: Arc::default(),
            origin: origin.to_owned(),
            settings,
            secrets,
        }
    }

    async fn read(
        &self,
        reader: &Arc<Mutex<Reader>>,
        window: &Window,
        deleted: Deleted,
    ) -> Result<Found, Unproven> {
        let (reader, window) = (Arc::clone(reader), window.clone());
        let known = Known { era: self.era.load(Relaxed), acknowledged: self.acknowledged.now() };
        let read = aside(move |waiting| {
            let mut reader = match reader.try_lock() {
                Ok(reader) => reader,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Nobody waits for that one any more, and it will notice.
                Err(TryLockError::WouldBlock) => {
                    return Err(Unproven::Now("it is still being read for somebody else".to_owned()));
                }
            };
            reader.read(&window, deleted, &known, waiting)
        });
        read.await.map_err(Unproven::Now)?
    }
}

/// What making a session needs, on the thread that does it.
struct Preparing {
    settings: Settings,
    secrets: Secrets,
    origin: String,
    transactional_id: String,
    acknowledged: Arc<Acknowledged>,
    told: Arc<Told>,
    runtime: Handle,
}

impl Preparing {
    fn session(&self, waiting: &Waiting) -> Result<Session, Trouble> {
        let settings = &self.settings;
        let client = settings.client(&self.secrets).map_err(|reason| Trouble::Denied { reason })?;
        let asker = asker(&client)?;
        let making = Making {
            settings,
            client: &client,
            asker: &asker,
            runtime: &self.runtime,
            told: &self.told,
            waiting,
        };
        let topic = making.ensure()?;
        self.acknowledged.forget();
        let plan = Plan {
            origin: self.origin.clone(),
            topic: settings.topic.clone(),
            partitions: topic.partitions,
            acknowledged: Arc::clone(&self.acknowledged),
            transactional_id: self.transactional_id.clone(),
            compression: settings.compression.name(),
            timeout: settings.timeout(),
            set_bytes_max: topic.set_bytes_max,
            client,
        };
        Session::begin(plan, waiting)
    }
}

impl Sink for Kafka {
    type Encoded = Encoded;

    fn limits(&self) -> Limits {
        Limits {
            batch_events: self.settings.transaction_events,
            batch_bytes: 24 << 20,
            // More than one would overtake each other.
            in_flight: 1,
            linger: Duration::from_millis(50),
            // Records, commit or abort: each in its time; and the ends may be long.
            timeout: self.settings.timeout() * 3 + Duration::from_secs(10),
            ..Limits::default()
        }
    }

    /// Makes the topic ready, and then a producer that shuts out all before it.
    async fn prepare(&self) -> Result<(), Trouble> {
        let mut session = self.session.lock().await;
        // The old one ends by itself, and whatever it still does is over when the new one has begun.
        *session = None;
        let making = Preparing {
            settings: self.settings.clone(),
            secrets: self.secrets.clone(),
            origin: self.origin.clone(),
            transactional_id: self.transactional_id.clone(),
            acknowledged: Arc::clone(&self.acknowledged),
            told: Arc::clone(&self.told),
            runtime: Handle::current(),
        };
        let made = aside(move |waiting| making.session(waiting)).await;
        let made = made.map_err(|reason| Trouble::Refused { reason, retry_after: None })??;
        self.era.fetch_add(1, Relaxed);
        *session = Some(made);
        Ok(())
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        Ok(Encoded(item.clone()))
    }

    fn bytes(encoded: &Encoded) -> usize {
        encoded.0.bytes.len()
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let mut session = self.session.lock().await;
        // Taken out, so that it is gone when somebody stops waiting here: then nobody knows what becomes of the batch.
        let Some(living) = session.take() else {
            return Err(Trouble::Refused { reason: "it wasn't made ready".to_owned(), retry_after: None });
        };
        let items = batch.iter().map(|encoded| encoded.0.clone()).collect();
        let done = living.send(items).await;
        *session = done.lives.then_some(living);
        done.result
    }

    async fn look_up(&self, window: &Window) -> Result<Found, Unproven> {
        self.read(&self.ends, window, Deleted::CountAsAbsent).await
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        self.read(&self.whole, window, Deleted::CountAsUnknown).await
    }
}
