//! What is done beside the delivery of what is new: a replay, or dead letters that are sent again. One of them at a time, since
//! two would find the same event absent and both send it. Neither holds up what is new, however long it takes, and both
//! can be cancelled.

use super::super::batch::{Letter, Rejection, deliver};
use super::super::control::Stopped;
use super::super::course::Course;
use super::{Done, Loop, Way};
use crate::health::At;
use crate::position::Replay;
use crate::sink::Sink;
use custody_core::delivery::Errand as What;
use custody_core::log::ReadError;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// Dead letters from so many events are sent again at once.
const REDRIVE: u64 = 200;

/// Answered when it is done: how many dead letters are left.
pub(super) type RedriveAnswer = oneshot::Sender<Result<usize, String>>;

/// One that is under way.
pub(super) struct Errand {
    /// Which one: what comes back of an earlier one doesn't count for this one.
    pub number: u64,
    pub kind: Kind,
    /// What is being sent of it, if anything.
    pub sending: Option<AbortHandle>,
}

pub(super) enum Kind {
    /// A part of the log once more.
    Replay(Course),
    /// These dead letters, and then an answer.
    Redrive(Vec<u64>, RedriveAnswer),
}

impl Errand {
    pub fn new(number: u64, kind: Kind) -> Self {
        Self { number, kind, sending: None }
    }

    pub fn what(&self) -> What {
        match self.kind {
            Kind::Replay(_) => What::Replay,
            Kind::Redrive(..) => What::Redrive,
        }
    }

    /// The replay's way through the log.
    pub fn replay(&self) -> Option<&Course> {
        match &self.kind {
            Kind::Replay(course) => Some(course),
            Kind::Redrive(..) => None,
        }
    }

    /// What is to be read next of a log of `size` entries, from where to where: a replay has one batch under way, which may
    /// have to wait for an answer for ever.
    pub fn wanted(&self, size: u64) -> Option<(u64, Option<u64>)> {
        let course = self.replay().filter(|_| self.sending.is_none())?;
        Some((course.wanted(size)?, course.to()))
    }

    /// Takes the dead letters that are sent next: those that lie near each other, since the destination is asked for all that is
    /// between the first and the last.
    pub fn next_letters(&mut self) -> Vec<u64> {
        let Kind::Redrive(left, _) = &mut self.kind else { return Vec::new() };
        let within = left.first().map_or(0, |first| first.saturating_add(REDRIVE));
        let far = left.split_off(left.partition_point(|index| *index < within));
        std::mem::replace(left, far)
    }
}

impl<S: Sink> Loop<S> {
    pub(super) fn begin_replay(&mut self, indexes: Range<u64>) -> Result<Result<(), String>, Stopped> {
        let delivered = self.main.next();
        if let Some(errand) = &self.errand {
            return Ok(Err(errand.what().is_under_way()));
        }
        if indexes.is_empty() || indexes.end > delivered {
            return Ok(Err(format!("only what is delivered can be replayed: events 0 to {delivered}")));
        }
        // Only what is written is replayed, so that a crash forgets neither.
        self.save()?;
        self.position.set_replay(Some(Replay { next: indexes.start, to: indexes.end }))?;
        self.begin(Kind::Replay(Course::new(indexes.start, Some(indexes.end), indexes.end)));
        Ok(Ok(()))
    }

    /// Ends a replay that can't be read: it would find the same each time, also after a restart. Why is told until there is another
    /// errand.
    pub(super) fn break_off(&mut self, number: u64, error: &ReadError) -> Result<(), Stopped> {
        if self.errand_numbered(number).is_none() {
            return Ok(());
        }
        self.errand = None;
        let reason = format!("the replay was ended: {error}");
        tracing::warn!("sink {}: {reason}", self.shared().name);
        self.shared().health.failed(At::Errand, &reason);
        self.position.set_replay(None)?;
        Ok(())
    }

    fn begin(&mut self, kind: Kind) {
        self.shared().health.well(At::Errand);
        self.errand = Some(Errand::new(self.errands, kind));
        self.errands += 1;
    }

    pub(super) fn replay(&self) -> Option<&Course> {
        self.errand.as_ref()?.replay()
    }

    /// Ends an errand where it is.
    pub(super) fn cancel(&mut self) -> Result<Result<(), String>, Stopped> {
        let Some(errand) = self.errand.take() else {
            return Ok(Err("neither a replay nor a redrive is under way".to_owned()));
        };
        if let Some(sending) = errand.sending {
            sending.abort();
        }
        self.ready.take_if(|(way, _)| *way != Way::Main);
        self.shared().health.well(At::Errand);
        match errand.kind {
            // Written, or it would begin again at the next start.
            Kind::Replay(_) => self.position.set_replay(None)?,
            Kind::Redrive(_, done) => {
                self.dead.tidy().map_err(Stopped::DeadLetters)?;
                let left = self.dead.indexes().len();
                drop(done.send(Err(format!("it was cancelled: {left} dead letters are left"))));
            }
        }
        Ok(Ok(()))
    }

    pub(super) fn begin_redrive(&mut self, done: RedriveAnswer) -> Result<(), Stopped> {
        if let Some(errand) = &self.errand {
            drop(done.send(Err(errand.what().is_under_way())));
            return Ok(());
        }
        // What it hasn't come to again after a crash, the delivery itself sends.
        let all = self.dead.indexes().range(..self.main.next()).copied().collect();
        self.begin(Kind::Redrive(all, done));
        self.redrive_on()
    }

    pub(super) fn end_redrive(&mut self, answer: Result<(), String>) -> Result<(), Stopped> {
        self.dead.tidy().map_err(Stopped::DeadLetters)?;
        if let Some(Errand { kind: Kind::Redrive(_, done), .. }) = self.errand.take() {
            // Whoever asked may have gone.
            drop(done.send(answer.map(|()| self.dead.indexes().len())));
        }
        self.shared().health.well(At::Errand);
        Ok(())
    }

    /// Sends the next dead letters, or says that all were.
    pub(super) fn redrive_on(&mut self) -> Result<(), Stopped> {
        let Some(errand) = &mut self.errand else { return Ok(()) };
        let (number, tried) = (errand.number, errand.next_letters());
        if tried.is_empty() {
            return self.end_redrive(Ok(()));
        }
        let shared = Arc::clone(self.shared());
        let sending = self.tasks.spawn(async move {
            let reader = Arc::clone(&shared);
            let read = tokio::task::spawn_blocking(move || {
                let entries: Result<Vec<_>, ReadError> =
                    tried.iter().map(|index| reader.log.read(*index, 1, 0)).collect();
                entries.map(|entries| reader.letters(entries.into_iter().flatten().collect()))
            });
            let (tried, rejected) = match read.await {
                Ok(Ok((letters, mut rejected))) => {
                    let tried: Vec<u64> = letters.iter().map(Letter::index).collect();
                    rejected.extend(deliver(&shared, letters, true, At::Errand).await);
                    (tried, Ok(rejected))
                }
                Ok(Err(error)) => (vec![], Err(error.to_string())),
                Err(_) => (vec![], Err("reading the log broke".to_owned())),
            };
            Done::Redriven { number, tried, rejected }
        });
        if let Some(errand) = self.errand_numbered(number) {
            errand.sending = Some(sending);
        }
        Ok(())
    }

    /// Takes out those of these dead letters that arrived this time.
    pub(super) fn arrived(&mut self, tried: &[u64], rejected: &[Rejection]) -> Result<(), Stopped> {
        if tried.is_empty() {
            return Ok(());
        }
        let again: BTreeSet<u64> = rejected.iter().map(|rejection| rejection.index).collect();
        let arrived = tried.iter().copied().filter(|index| !again.contains(index));
        self.dead.remove(arrived).map_err(Stopped::DeadLetters)?;
        self.shared().health.set_dead_letters(self.dead.indexes().len());
        Ok(())
    }
}
