//! The one delivery loop that all destinations share.
//!
//! It reads the log from the sink's position, makes batches, and brings each home ([`batch`]): sends, looks up what is
//! in doubt, splits, waits, tries again, until every event of it is stored or a dead letter. The position moves only over
//! what is. So each event arrives at least once, and, where the destination can be read back, exactly once.

mod batch;
mod control;
mod course;
mod pace;
mod parallel;
mod run;
#[cfg(test)]
mod tests;
mod words;

use batch::{Batch, Letter, Rejection};
pub use control::{Control, Inbox, Stopped};
use course::End;
use pace::Pace;

use crate::dead_letters::DeadLetters;
use crate::filter::Filter;
use crate::health::Health;
use crate::item::Item;
use crate::position::{self, Position, PositionError};
use crate::redaction::Redaction;
use crate::sink::Sink;
use custody_core::log::durable::create_directories;
use custody_core::log::{Entry, Log, Producer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// What a delivery is made of.
pub struct Parts<S> {
    /// The sink's name.
    pub name: String,
    /// The destination.
    pub sink: Arc<S>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Says `sink.rejected`, `sink.stalled` and `sink.resumed`.
    pub producer: Arc<Producer>,
    /// Which events are let through.
    pub filter: Filter,
    /// What is taken out of them.
    pub redaction: Redaction,
    /// Where position and dead letters lie.
    pub directory: PathBuf,
    /// After how long without success a sink counts as stalled.
    pub stall: Duration,
}

/// Why a delivery can't begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its position.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Its directory or its dead letters.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
}

impl OpenError {
    /// See [`PositionError::may_pass`].
    fn may_pass(&self) -> bool {
        match self {
            Self::Position(error) => error.may_pass(),
            // A line that is none is for a person to look at.
            Self::File { source, .. } => source.kind() != io::ErrorKind::InvalidData,
        }
    }
}

fn position_file(directory: &Path) -> PathBuf {
    directory.join("position.json")
}

fn letters_file(directory: &Path) -> PathBuf {
    directory.join("dead-letters.ndjson")
}

/// A delivery's own files: its position and its dead letters.
fn open_files(directory: &Path, log: &dyn Log) -> Result<(Position, DeadLetters), OpenError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { path, source }
    };
    create_directories(directory).map_err(file(directory))?;
    let position = Position::open(&position_file(directory), log)?;
    let letters = letters_file(directory);
    let dead = DeadLetters::open(&letters).map_err(file(&letters))?;
    Ok((position, dead))
}

/// Up to where everything is confirmed, as the position in that directory says, whatever log it is of: nothing yet without one. `None` where
/// it can't be read.
#[must_use]
pub fn stored_next(directory: &Path) -> Option<u64> {
    position::stored_next(&position_file(directory))
}

/// What all batches of a delivery share.
pub(crate) struct Shared<S> {
    pub(crate) name: String,
    pub(crate) sink: Arc<S>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) filter: Filter,
    pub(crate) redaction: Redaction,
    pub(crate) health: Arc<Health>,
    /// How long batches are.
    pace: Pace,
    /// Held by whoever sends, where there may be one only.
    turns: Option<Mutex<()>>,
    /// Whether it may have changed since it was made ready.
    unprepared: AtomicBool,
    preparing: Mutex<()>,
    /// Held by whoever compares the destination with the log.
    pub(crate) proving: Mutex<()>,
}

impl<S: Sink> Shared<S> {
    /// What leaves of an entry: filtered, redacted, and as the destination takes it. What can't be encoded is a rejection.
    fn letter(&self, item: Item) -> Option<Result<Letter<S>, Rejection>> {
        if !self.filter.passes(&item) {
            return None;
        }
        let item = self.redaction.apply(item);
        Some(match self.sink.encode(&item) {
            Ok(encoded) => Ok(Letter::new(item, encoded)),
            Err(reason) => Err(Rejection { index: item.index, kind: item.kind(), reason }),
        })
    }

    /// What leaves of these entries, in order.
    fn letters(&self, entries: Vec<Entry>) -> (Vec<Letter<S>>, Vec<Rejection>) {
        let (mut letters, mut rejected) = (Vec::with_capacity(entries.len()), Vec::new());
        for leaves in entries.into_iter().filter_map(|entry| self.letter(Item::new(entry))) {
            match leaves {
                Ok(letter) => letters.push(letter),
                Err(rejection) => rejected.push(rejection),
            }
        }
        (letters, rejected)
    }

    /// The first of these entries, which follow each other from `from` on: as many as arrive at once. The others are read again.
    fn batch(&self, from: u64, entries: Vec<Entry>, is_waited_for: bool) -> Batch<S> {
        let (most, room) = (self.sink.limits().batch_bytes, self.pace.room());
        let mut cut = None;
        let (mut letters, mut rejected) = (Vec::with_capacity(entries.len()), Vec::new());
        let (mut end, mut last) = (from, End::default());
        let (mut read, mut encoded) = (0, 0);
        let encode = |entry: Entry| {
            let item = Item::new(entry);
            ((item.leaf.0, item.appended), item.bytes.len(), self.letter(item))
        };
        for (here, bytes, leaves) in parallel::map(entries, is_waited_for, encode) {
            match leaves {
                Some(Ok(letter)) => {
                    if encoded + letter.bytes() > room && !letters.is_empty() {
                        cut = (encoded + letter.bytes() <= most).then_some(room);
                        break;
                    }
                    encoded += letter.bytes();
                    letters.push(letter);
                }
                Some(Err(rejection)) => rejected.push(rejection),
                None => {}
            }
            read += bytes;
            (end, last) = (end + 1, here);
        }
        self.pace.was_read((end - from) as usize, read, encoded);
        Batch { indexes: from..end, last, letters, cut, rejected }
    }
}

/// A destination with its position: runs until it is told to stop.
pub struct Delivery<S> {
    shared: Arc<Shared<S>>,
    producer: Arc<Producer>,
    position: Position,
    dead: DeadLetters,
    directory: PathBuf,
    stall: Duration,
    /// The stall that the log tells of.
    stalled: Option<ToldStall>,
}

/// A stall of which the log tells, and of no end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldStall {
    /// How long ago that was told.
    pub before: Duration,
    /// The first event that wasn't delivered then.
    pub next: u64,
}

impl<S: Sink> Delivery<S> {
    /// Opens its files in `parts.directory`, which is made if it isn't there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(parts: Parts<S>) -> Result<Self, OpenError> {
        let Parts { name, sink, log, producer, filter, redaction, directory, stall } = parts;
        let (position, dead) = open_files(&directory, &*log)?;
        let health = Arc::new(Health::new(stall));
        health.moved(position.next(), None);
        health.set_dead_letters(dead.indexes().len());
        let limits = sink.limits();
        let shared = Shared {
            pace: Pace::new(limits.batch_bytes, limits.first_bytes, limits.timeout),
            turns: limits.takes_turns.then(Mutex::default),
            unprepared: AtomicBool::new(true),
            preparing: Mutex::new(()),
            proving: Mutex::new(()),
            name,
            sink,
            log,
            filter,
            redaction,
            health,
        };
        Ok(Self { shared: Arc::new(shared), producer, position, dead, directory, stall, stalled: None })
    }

    /// The log tells that it stalls, if it does: that is over when something is delivered, or nothing has to be. One that has delivered
    /// since then doesn't stall any more, and how long it did is told nowhere.
    #[must_use]
    pub fn told_to_stall(mut self, stalled: Option<ToldStall>) -> Self {
        self.stalled = stalled;
        self
    }

    /// What others hold of it: commands, numbers, the proof.
    #[must_use]
    pub fn control(&self, paused: bool) -> (Control<S>, control::Inbox) {
        control::pair(Arc::clone(&self.shared), paused)
    }

    /// Delivers until `stop` says so, and then until what is under way is done, for five seconds at most. Where a full disk or
    /// the log keeps it from that, it tries again.
    ///
    /// # Errors
    /// When its files aren't its own, or damaged: it can't go on.
    pub async fn run(self, inbox: control::Inbox, stop: watch::Receiver<bool>) -> Result<(), Stopped> {
        run::run(self, inbox, stop).await
    }
}
