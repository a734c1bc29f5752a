//! What is done beside the delivery of what is new: a replay, or dead letters that are sent again. One of them at a time, since
//! two would find the same event absent and both send it. Neither holds up what is new, however long it takes, and both
//! can be cancelled. Where the sink is held they wait, as everything does.

use super::super::Shared;
use super::super::batch::{Letter, Rejection, deliver};
use super::super::control::Stopped;
use super::super::course::Course;
use super::tellings::Tellings;
use super::{Done, Loop, Way};
use crate::blocking::at_length;
use crate::health::At;
use crate::position::Replay;
use crate::sink::Sink;
use custody_core::delivery::{DeadLetter, Errand as What};
use custody_core::log::ReadError;
use std::collections::{BTreeSet, VecDeque};
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
    Replay {
        course: Course,
        /// What the log tells of the dead letters in it. A crash may have come between the file and the log, or somebody has ended
        /// the replay that made them dead.
        untold: Option<Arc<Tellings>>,
    },
    /// Dead letters.
    Redrive(Redrive),
}

/// Dead letters that are sent again, and then an answer.
pub(super) struct Redrive {
    /// Those that weren't sent yet.
    left: VecDeque<u64>,
    unread: Unread,
    done: RedriveAnswer,
}

/// Dead letters whose events the log can't give back: they are left out.
#[derive(Debug, Default)]
pub(super) struct Unread {
    count: usize,
    /// Why the first of them.
    why: Option<String>,
}

impl Errand {
    fn new(number: u64, kind: Kind) -> Self {
        Self { number, kind, sending: None }
    }

    pub fn replay_at_start(course: Course, untold: Option<Arc<Tellings>>) -> Self {
        Self::new(0, Kind::Replay { course, untold })
    }

    pub fn what(&self) -> What {
        match self.kind {
            Kind::Replay { .. } => What::Replay,
            Kind::Redrive(_) => What::Redrive,
        }
    }

    /// The replay's way through the log.
    pub fn replay(&self) -> Option<&Course> {
        match &self.kind {
            Kind::Replay { course, .. } => Some(course),
            Kind::Redrive(_) => None,
        }
    }

    /// What the log tells of the dead letters in a replay.
    pub fn untold(&self) -> Option<Arc<Tellings>> {
        match &self.kind {
            Kind::Replay { untold, .. } => untold.clone(),
            Kind::Redrive(_) => None,
        }
    }

    /// What is to be read next of a log of `size` entries, from where to where: a replay has one batch under way, which may
    /// have to wait for an answer for ever.
    pub fn wanted(&self, size: u64) -> Option<(u64, Option<u64>)> {
        let course = self.replay().filter(|_| self.sending.is_none())?;
        Some((course.wanted(size)?, course.to()))
    }
}

impl Redrive {
    /// Takes the dead letters that are sent next: those that lie near each other, since the destination is asked for all that is
    /// between the first and the last.
    fn next_letters(&mut self) -> Vec<u64> {
        let within = self.left.front().map_or(0, |first| first.saturating_add(REDRIVE));
        let near = self.left.partition_point(|index| *index < within);
        self.left.drain(..near).collect()
    }
}

impl Unread {
    fn add(&mut self, more: Self) {
        self.count += more.count;
        self.why = self.why.take().or(more.why);
    }

    /// What a redrive comes to that has left them out, where so many dead letters are left.
    fn answer(self, left: usize) -> Result<usize, String> {
        let Self { count, why } = self;
        match why {
            None => Ok(left),
            Some(why) => Err(format!(
                "{count} dead letters weren't sent, since the log can't be read there ({why}): mend that and redrive them; {left} are left"
            )),
        }
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
        let untold = Tellings::since(self.shared(), self.dead.indexes().range(indexes.clone()).next());
        let course = Course::new(indexes.start, Some(indexes.end), indexes.end);
        self.begin(Kind::Replay { course, untold });
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
        self.tidy()
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
            Kind::Replay { .. } => self.position.set_replay(None)?,
            Kind::Redrive(redrive) => self.leave(redrive, "it was cancelled"),
        }
        self.tidy()?;
        Ok(Ok(()))
    }

    /// A redrive that isn't finished is no longer wanted, or possible.
    pub(super) fn leave(&self, redrive: Redrive, why: &str) {
        let left = self.dead.indexes().len();
        drop(redrive.done.send(Err(format!("{why}: {left} dead letters are left"))));
    }

    pub(super) fn begin_redrive(&mut self, done: RedriveAnswer) {
        if let Some(errand) = &self.errand {
            drop(done.send(Err(errand.what().is_under_way())));
            return;
        }
        // What it hasn't come to again after a crash, the delivery itself sends.
        let left = self.dead.indexes().range(..self.main.next()).copied().collect();
        self.begin(Kind::Redrive(Redrive { left, unread: Unread::default(), done }));
    }

    /// Sends the next dead letters if none are under way and nobody holds the sink, or says that all were.
    pub(super) fn redrive_on(&mut self, is_held: bool) -> Result<(), Stopped> {
        let Some(Errand { number, kind: Kind::Redrive(redrive), sending }) = &mut self.errand else {
            return Ok(());
        };
        if sending.is_some() {
            return Ok(());
        }
        if redrive.left.is_empty() {
            return self.end_redrive();
        }
        if is_held {
            return Ok(());
        }
        let (number, letters) = (*number, redrive.next_letters());
        let shared = Arc::clone(&self.fixed.shared);
        *sending = Some(self.tasks.spawn(async move {
            let Again { letters, mut rejected, unread } = Again::read(&shared, letters).await;
            let tried: Vec<u64> = letters.iter().map(Letter::index).collect();
            rejected.extend(deliver(&shared, letters, true, None, At::Errand).await);
            Done::Redriven { number, tried, rejected, unread }
        }));
        Ok(())
    }

    /// Some dead letters were sent again. What is said of them now is kept, or a person would mend what was wrong with them before.
    pub(super) fn redriven(
        &mut self,
        number: u64,
        tried: &[u64],
        rejected: Vec<Rejection>,
        unread: Unread,
    ) -> Result<(), Stopped> {
        self.arrived(tried, &rejected)?;
        let again = rejected
            .into_iter()
            .map(|Rejection { index, kind, reason }| DeadLetter::new(index, &kind, &reason));
        self.dead.renew(again.collect()).map_err(Stopped::DeadLetters)?;
        if let Some(Errand { kind: Kind::Redrive(redrive), sending, .. }) = self.errand_numbered(number) {
            redrive.unread.add(unread);
            *sending = None;
        }
        Ok(())
    }

    fn end_redrive(&mut self) -> Result<(), Stopped> {
        self.tidy()?;
        let Some(Errand { kind: Kind::Redrive(redrive), .. }) = self.errand.take() else { return Ok(()) };
        let answer = redrive.unread.answer(self.dead.indexes().len());
        self.shared().health.well(At::Errand);
        if let Err(reason) = &answer {
            tracing::warn!("sink {}: {reason}", self.shared().name);
            self.shared().health.failed(At::Errand, reason);
        }
        // Whoever asked may have gone.
        drop(redrive.done.send(answer));
        Ok(())
    }

    /// Takes out those of these dead letters that arrived this time.
    pub(super) fn arrived(&mut self, tried: &[u64], rejected: &[Rejection]) -> Result<(), Stopped> {
        if tried.is_empty() {
            return Ok(());
        }
        let again: BTreeSet<u64> = rejected.iter().map(|rejection| rejection.index).collect();
        let arrived = tried.iter().copied().filter(|index| !again.contains(index));
        at_length(|| self.dead.remove(arrived)).map_err(Stopped::DeadLetters)?;
        self.shared().health.set_dead_letters(self.dead.indexes().len());
        Ok(())
    }

    /// Takes the lines of what has arrived out of the file: a restart would make them dead letters again, and hide that somebody has
    /// deleted one of those events.
    pub(super) fn tidy(&mut self) -> Result<(), Stopped> {
        at_length(|| self.dead.tidy()).map_err(Stopped::DeadLetters)
    }
}

/// Dead letters as they are sent again.
struct Again<S: Sink> {
    letters: Vec<Letter<S>>,
    rejected: Vec<Rejection>,
    unread: Unread,
}

impl<S: Sink> Again<S> {
    async fn read(shared: &Arc<Shared<S>>, indexes: Vec<u64>) -> Self {
        let (reader, count) = (Arc::clone(shared), indexes.len());
        let read = tokio::task::spawn_blocking(move || {
            let (mut entries, mut unread) = (Vec::new(), Unread::default());
            for index in indexes {
                match reader.log.read(index, 1, 0) {
                    Ok(entry) => entries.extend(entry),
                    // The others can be sent all the same.
                    Err(error) => unread.add(Unread { count: 1, why: Some(error.to_string()) }),
                }
            }
            let (letters, rejected) = reader.letters(entries);
            Self { letters, rejected, unread }
        });
        read.await.unwrap_or_else(|error| {
            let unread = Unread { count, why: Some(error.to_string()) };
            Self { letters: vec![], rejected: vec![], unread }
        })
    }
}
