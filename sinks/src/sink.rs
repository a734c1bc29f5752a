//! What a destination is to the delivery loop: four things that it can do, and the words in which it says how they went.
//!
//! The loop ([`crate::delivery`]) does all that destinations have in common: it reads the log, batches, retries, splits,
//! remembers what is in doubt, and keeps the position. So a destination says what happened and decides nothing.

use crate::item::Item;
use custody_core::clock::Nanos;
use custody_core::log::Hash;
use std::future::Future;
use std::ops::Range;
use std::time::Duration;

/// One destination.
pub trait Sink: Send + Sync + 'static {
    /// An event as the destination takes it.
    type Encoded: Send + Sync + 'static;

    /// How much it takes at once.
    fn limits(&self) -> Limits;

    /// Makes the destination ready: templates, streams, topics. Called before the first event and after each outage, so
    /// it changes nothing that is right already.
    ///
    /// # Errors
    /// See [`Trouble`]; it is tried again.
    fn prepare(&self) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// As [`Sink::prepare`], where it is only read from afterwards ([`Sink::read_back`]). A destination that can't be read without
    /// being made ready is made so.
    ///
    /// # Errors
    /// As [`Sink::prepare`].
    fn prepare_to_read(&self) -> impl Future<Output = Result<(), Trouble>> + Send {
        self.prepare()
    }

    /// The event as the destination takes it: a pure function of the entry, so that it is the same however often and
    /// from whatever copy of the log it is sent.
    ///
    /// # Errors
    /// Why it can never be sent, in one line: it becomes a dead letter.
    fn encode(&self, item: &Item) -> Result<Self::Encoded, String>;

    /// How long it is on the wire, in bytes, about: by it a batch is cut.
    fn bytes(encoded: &Self::Encoded) -> usize;

    /// Sends a batch, in the log's order. One [`Answer`] for each event.
    ///
    /// # Errors
    /// See [`Trouble`].
    fn send(&self, batch: &[&Self::Encoded]) -> impl Future<Output = Result<Vec<Answer>, Trouble>> + Send;

    /// What the destination holds of a part of this log: every document, also those that shouldn't be there.
    ///
    /// # Errors
    /// [`Unproven`] unless the answer is certainly whole and certainly new: a missing shard, a capped total or a
    /// document that isn't visible yet must never look like an absent one.
    fn read_back(&self, window: &Window) -> impl Future<Output = Result<Found, Unproven>> + Send;

    /// [`Sink::read_back`], asked before something is sent again. What the destination has deleted meanwhile, for its age, counts as
    /// absent here: sending it again makes no second one.
    ///
    /// # Errors
    /// As [`Sink::read_back`].
    fn look_up(&self, window: &Window) -> impl Future<Output = Result<Found, Unproven>> + Send {
        self.read_back(window)
    }

    /// Whether what it may have and doesn't show ([`Found::perhaps_more`]) may be copies and strangers too, and not only what isn't known to be
    /// missing.
    fn hides_copies(&self) -> bool {
        false
    }

    /// What is wrong beside all that is sent: where a destination is made of what it has taken and that doesn't come about. It doesn't wait.
    fn ails(&self) -> Option<String> {
        None
    }

    /// What a document's other fields are, beside the event's own bytes: those that people search by. Asked where the event is right.
    fn fields(&self, _item: &Item, _held: &Held) -> Fields {
        Fields::AsSent
    }
}

/// How much a destination takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events in a batch.
    pub batch_events: usize,
    /// Bytes in a batch; one event may be longer.
    pub batch_bytes: usize,
    /// Bytes in the first one; those after it become longer as it arrives in time. Where nobody can ask what has arrived, all that was
    /// too long for the line comes again.
    pub first_bytes: usize,
    /// Batches under way at once; one keeps the order.
    pub in_flight: usize,
    /// Whether what is sent again for a person (a replay, dead letters) takes turns with what is new, and is not sent beside it.
    pub takes_turns: bool,
    /// How long a batch waits to become longer.
    pub linger: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_events: 1_000,
            batch_bytes: 1 << 20,
            first_bytes: usize::MAX,
            in_flight: 2,
            takes_turns: false,
            linger: Duration::from_millis(100),
            timeout: Duration::from_secs(30),
        }
    }
}

/// What a destination says of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has it, and keeps it.
    Stored,
    /// It says that something is there already in its place: whether that is this event, and is kept, is looked up.
    Exists,
    /// It never will, for what the event is.
    Rejected(String),
    /// Not now: it is too busy for this one, and hasn't stored it.
    Later(String),
    /// Something broke while it was stored: whether it was isn't known.
    Unclear(String),
}

/// Why there are no answers for a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nothing of it was stored, for sure: no connection, 429, 503 before anything was done.
    #[error("{reason}")]
    Refused {
        /// What happened.
        reason: String,
        /// When the destination wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Whether it was stored isn't known: the connection broke.
    #[error("{reason}")]
    Unclear {
        /// What happened.
        reason: String,
        /// When the destination wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It took longer than it may: a shorter batch may be in time.
    #[error("{reason}")]
    Late {
        /// What took too long.
        reason: String,
        /// Whether something of it may have been stored.
        in_doubt: bool,
    },
    /// The batch is too large; nothing of it was stored.
    #[error("too large: {reason}")]
    TooLarge {
        /// What the destination says.
        reason: String,
    },
    /// An event in it is refused for what it is, and which one isn't said. The others may have been stored.
    #[error("{reason}")]
    Poisoned {
        /// What the destination says.
        reason: String,
    },
    /// The destination doesn't let us in, or isn't what was configured: a person has to do something.
    #[error("{reason}")]
    Denied {
        /// What to do.
        reason: String,
    },
}

impl Trouble {
    /// That it isn't known whether something was stored, for this reason.
    #[must_use]
    pub fn unclear(reason: impl Into<String>) -> Self {
        Trouble::Unclear { reason: reason.into(), retry_after: None }
    }

    /// Whether something of the batch may have been stored.
    #[must_use]
    pub fn leaves_doubt(&self) -> bool {
        matches!(
            self,
            Trouble::Unclear { .. } | Trouble::Poisoned { .. } | Trouble::Late { in_doubt: true, .. }
        )
    }

    /// When the destination wants to be asked again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Trouble::Refused { retry_after, .. } | Trouble::Unclear { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A part of the log, as a destination can look it up: by what documents claim, or by their time. Every document that
/// lies in it by either belongs to the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The indexes.
    pub indexes: Range<u64>,
    /// The times of appending. The log's events in it are those of `indexes`, and no others.
    pub appended: Range<Nanos>,
}

/// What a destination holds of a part of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The documents.
    pub documents: Vec<Held>,
    /// Why it may hold more than it shows right now. Then what isn't among the documents isn't known to be absent.
    pub perhaps_more: Option<String>,
}

impl From<Vec<Held>> for Found {
    fn from(documents: Vec<Held>) -> Self {
        Self { documents, perhaps_more: None }
    }
}

/// One document that a destination holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The index that it claims; `None` where it claims none.
    pub index: Option<u64>,
    /// The leaf hash that stands beside it; `None` where there is none, or none that can be read.
    pub leaf: Option<Hash>,
    /// The event's bytes as they are stored; `None` where the destination doesn't keep them.
    pub original: Option<Vec<u8>>,
    /// When it was appended, as it is stored there; `None` where the destination doesn't keep it.
    pub appended: Option<Nanos>,
    /// All of it as JSON, where its fields are compared ([`Sink::fields`]).
    pub document: Option<Vec<u8>>,
}

/// What a document takes beside its bytes.
pub(crate) const DOCUMENT_BYTES: usize = 200;
/// How much of what lies in one window is put into memory at once, in bytes.
const FOUND_BYTES_MAX: usize = 256 << 20;

/// How much more of a window may be found. Of one with more there is no answer; whoever restores a log asks for a shorter one then.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// In bytes; nothing where there was more.
    left: Option<usize>,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(FOUND_BYTES_MAX)
    }
}

impl Room {
    /// For so many bytes.
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        Self { left: Some(bytes) }
    }

    /// One more was found.
    ///
    /// # Errors
    /// That it is too much, in one line.
    pub fn take(&mut self, held: &Held) -> Result<(), String> {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let bytes = DOCUMENT_BYTES + length(&held.original) + length(&held.document);
        self.left = self.left.and_then(|left| left.checked_sub(bytes));
        let too_much = || {
            let most = FOUND_BYTES_MAX >> 20;
            format!("more than {most} MiB lie in one part of the log: not all of it can be looked at")
        };
        self.left.map(drop).ok_or_else(too_much)
    }

    /// Whether more was found than may be.
    #[must_use]
    pub const fn is_exceeded(&self) -> bool {
        self.left.is_none()
    }
}

/// A document's fields beside the event's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// As they were sent, or there are none.
    AsSent,
    /// Not as they were sent.
    Altered,
    /// Another version of this program may have sent them.
    OfAnotherVersion,
}

/// Why what a destination shows proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// It can't be read back, ever: syslog, webhooks.
    #[error("it can't be read back: {0}")]
    Never(&'static str),
    /// Not now, or not in full.
    #[error("{0}")]
    Now(String),
    /// More lies in the window than is shown at once: a shorter one may do.
    #[error("{0}")]
    TooMuch(String),
    /// It has read a part of what it must, and keeps that: asked again, it goes on from there.
    #[error("{0}")]
    Unfinished(String),
}
