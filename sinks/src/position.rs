//! How far a sink has come: the only thing about it that replay can't give back.
//!
//! Two numbers matter after a crash. Everything below `next` is confirmed by the destination. Nothing from `sent` on was
//! ever sent. What lies between is in doubt, and is looked up at the destination before it is sent again. `sent` is
//! written before the sending, in large steps, so that it costs one sync for thousands of events.

use custody_core::event::hex;
use custody_core::log::durable::write_file;
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Log, ReadError};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// By how much `sent` runs ahead when it is moved.
const STEP: u64 = 20_000;
const MODE: u32 = 0o600;

/// Why a position can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// The file.
    #[error("the position {path} can't be read or written: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It isn't what is written there.
    #[error(
        "the position {path} is damaged ({reason}): remove it, and everything is looked up at the destination, or sent again where that can't be asked (syslog, a webhook, Splunk without a search)"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// It was made for another log, or for a longer or another copy of this one.
    #[error(
        "{path} belongs to another log: {reason}; has an older copy been put in the log's place? Use another sink name for another log"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// The log can't be read to check it.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The leaf hash of the last confirmed event, hex: tells a fork.
    last_leaf: Option<String>,
    next: u64,
    origin: String,
    /// A replay that is under way.
    replay: Option<Replay>,
    sent: u64,
}

/// A part of the log that is delivered once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The first event that isn't confirmed.
    pub next: u64,
    /// The index after the last one.
    pub to: u64,
}

/// A sink's position, in a file of its own.
#[derive(Debug)]
pub struct Position {
    path: PathBuf,
    stored: Stored,
}

/// The first event that isn't confirmed, as the file says, whatever log it is of: without one it is the first of all. Nothing where it
/// can't be read.
pub(crate) fn stored_next(path: &Path) -> Option<u64> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).ok().map(|stored: Stored| stored.next),
        Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(0),
    }
}

impl PositionError {
    /// Whether it may be well again by itself, or by what somebody does beside us: room on a disk.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Log(_))
    }
}

impl Position {
    /// Reads the file. Without one nothing is known, and so everything is in doubt: a destination that can't be asked is sent all of it.
    ///
    /// # Errors
    /// See [`PositionError`].
    pub fn open(path: &Path, log: &dyn Log) -> Result<Self, PositionError> {
        let file = |source| PositionError::File { path: path.to_owned(), source };
        let fresh = Stored {
            last_leaf: None,
            next: 0,
            origin: log.origin().to_owned(),
            replay: None,
            sent: log.size(),
        };
        let stored = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| PositionError::Damaged {
                path: path.to_owned(),
                reason: error.to_string(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh,
            Err(error) => return Err(file(error)),
        };
        let position = Self { path: path.to_owned(), stored };
        position.check(log)?;
        Ok(position)
    }

    fn check(&self, log: &dyn Log) -> Result<(), PositionError> {
        let foreign = |reason| Err(PositionError::Foreign { path: self.path.clone(), reason });
        let Stored { last_leaf, next, origin, replay, sent } = &self.stored;
        if next > sent || replay.is_some_and(|replay| replay.next > replay.to || replay.to > *next) {
            return Err(PositionError::Damaged {
                path: self.path.clone(),
                reason: "its numbers are out of order".to_owned(),
            });
        }
        if origin != log.origin() {
            return foreign(format!("it speaks of {origin}, the log is {}", log.origin()));
        }
        let size = log.size();
        if *next > size {
            return foreign(format!("{next} events are delivered, and the log has {size}"));
        }
        let Some(last) = next.checked_sub(1) else { return Ok(()) };
        let leaf = log.read(last, 1, 0)?.first().map(|entry| hex::to_hex(&leaf_hash(&entry.bytes).0));
        if leaf != *last_leaf {
            return foreign(format!("event {last} isn't the one that was delivered"));
        }
        Ok(())
    }

    /// The first event that isn't confirmed.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.stored.next
    }

    /// Nothing from here on was ever sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.stored.sent
    }

    /// A replay that is under way.
    #[must_use]
    pub fn replay(&self) -> Option<Replay> {
        self.stored.replay
    }

    /// Says, durably and beforehand, that everything below `to` may be sent.
    ///
    /// # Errors
    /// [`PositionError::File`]: nothing may be sent then.
    pub fn will_send(&mut self, to: u64) -> Result<(), PositionError> {
        if to <= self.stored.sent {
            return Ok(());
        }
        self.write(Stored { sent: to.saturating_add(STEP), ..self.stored.clone() })
    }

    /// Everything below `next` is confirmed; `last_leaf` is the hash of the last of it.
    ///
    /// # Errors
    /// [`PositionError::File`].
    pub fn confirm(&mut self, next: u64, last_leaf: [u8; 32]) -> Result<(), PositionError> {
        if next == self.stored.next {
            return Ok(());
        }
        let sent = self.stored.sent.max(next);
        self.write(Stored { last_leaf: Some(hex::to_hex(&last_leaf)), next, sent, ..self.stored.clone() })
    }

    /// Nothing is under way: what isn't confirmed wasn't sent, but for what lies below `in_doubt_below`, which an earlier run may have
    /// sent.
    ///
    /// # Errors
    /// [`PositionError::File`].
    pub fn rest(&mut self, in_doubt_below: u64) -> Result<(), PositionError> {
        let sent = self.stored.next.max(in_doubt_below);
        if sent >= self.stored.sent {
            return Ok(());
        }
        self.write(Stored { sent, ..self.stored.clone() })
    }

    /// Begins, moves or ends a replay.
    ///
    /// # Errors
    /// [`PositionError::File`].
    pub fn set_replay(&mut self, replay: Option<Replay>) -> Result<(), PositionError> {
        if replay == self.stored.replay {
            return Ok(());
        }
        self.write(Stored { replay, ..self.stored.clone() })
    }

    /// Writes what it says once more: whether it can be kept at all shows before anything is sent.
    ///
    /// # Errors
    /// [`PositionError::File`].
    pub fn keep(&mut self) -> Result<(), PositionError> {
        self.write(self.stored.clone())
    }

    fn write(&mut self, stored: Stored) -> Result<(), PositionError> {
        let file = |source| PositionError::File { path: self.path.clone(), source };
        let bytes = serde_json::to_vec(&stored).map_err(|error| file(io::Error::other(error)))?;
        write_file(&self.path, &bytes, MODE).map_err(file)?;
        self.stored = stored;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, leaf};

    fn path(story: &Story) -> PathBuf {
        story.dir.path().join("position.json")
    }

    #[test]
    fn without_a_file_everything_is_in_doubt() {
        let story = Story::new(5);
        let position = Position::open(&path(&story), &*story.log).unwrap();
        assert_eq!((position.next(), position.sent()), (0, story.log.size()));
    }

    #[test]
    fn it_comes_back() {
        let story = Story::new(5);
        assert_eq!(stored_next(&path(&story)), Some(0));
        let mut position = Position::open(&path(&story), &*story.log).unwrap();
        position.confirm(3, leaf(&story, 2)).unwrap();
        position.will_send(5).unwrap();
        position.will_send(story.log.size() + 1).unwrap();
        position.set_replay(Some(Replay { next: 1, to: 3 })).unwrap();
        let again = Position::open(&path(&story), &*story.log).unwrap();
        assert_eq!((again.next(), again.sent()), (3, story.log.size() + 1 + STEP));
        assert_eq!(stored_next(&path(&story)), Some(3));
        assert_eq!(again.replay(), Some(Replay { next: 1, to: 3 }));
    }

    #[test]
    fn another_log_or_an_older_copy_is_refused() {
        let (story, other) = (Story::new(5), Story::new(2));
        let mut position = Position::open(&path(&story), &*story.log).unwrap();
        position.confirm(5, leaf(&story, 4)).unwrap();
        let error = Position::open(&path(&story), &*other.log).unwrap_err();
        assert!(matches!(error, PositionError::Foreign { .. }), "{error}");
        position.confirm(2, leaf(&story, 1)).unwrap();
        let error = Position::open(&path(&story), &*other.log).unwrap_err();
        assert!(error.to_string().contains("event 1 isn't the one"), "{error}");
    }

    #[test]
    fn damage_is_said() {
        let story = Story::new(5);
        for text in [
            "",
            "{}",
            r#"{"last_leaf":null,"next":5,"origin":"custody.test/log","replay":null,"sent":4}"#,
            r#"{"last_leaf":null,"next":0,"origin":"custody.test/log","replay":{"next":0,"to":4},"sent":4}"#,
        ] {
            write_file(&path(&story), text.as_bytes(), MODE).unwrap();
            let error = Position::open(&path(&story), &*story.log).unwrap_err();
            assert!(matches!(error, PositionError::Damaged { .. }), "{text}: {error}");
            assert_eq!(stored_next(&path(&story)).is_some(), text.len() > 2, "{text}");
        }
    }
}
