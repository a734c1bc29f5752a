//! The loop itself.

mod errand;
mod standing;
mod tellings;

use self::errand::{Errand, Kind, Unread};
use self::standing::Standing;
use self::tellings::Tellings;
use super::batch::{Batch, Letter, Rejection, deliver};
use super::control::{Command, Inbox, Stopped};
use super::course::{Course, End};
use super::parallel::Wait;
use super::words::without_quotes;
use super::{Delivery, OpenError, Shared, letters_file, open_files};
use crate::blocking::at_length;
use crate::dead_letters::DeadLetters;
use crate::health::At;
use crate::position::{Position, Replay};
use crate::sink::Sink;
use custody_core::delivery::DeadLetter;
use custody_core::event::sink::Rejected;
use custody_core::event::{Actor, Draft, EventData};
use custody_core::log::{Producer, ReadError};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

/// How long batches that are under way may take once the delivery is told to stop.
const LAST: Duration = Duration::from_secs(5);
/// How often the position is written while events flow.
const SAVE: Duration = Duration::from_millis(200);
/// How often is looked whether it stalls.
const LOOK: Duration = Duration::from_millis(500);
/// The part of a batch that needn't wait to become longer.
const LONG: u64 = 3;
/// How many batches may pass one that is held up: all of them are in doubt after a crash.
const PASSING: u64 = 16;
/// How many events are told at once, of those that a log takes at once.
const TOLD_AT_ONCE: usize = 1_000;

/// Which way through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Main,
    /// The replay with that number.
    Replay(u64),
}

/// What a task came back with.
enum Done<S: Sink> {
    Read(Way, Result<Batch<S>, ReadError>),
    Delivered {
        way: Way,
        indexes: Range<u64>,
        end: End,
        /// Those of them that were dead letters.
        dead: Vec<u64>,
        rejected: Vec<Rejection>,
        /// Those of the rejected that were dead before, and of which the log says nothing.
        untold: Result<BTreeSet<u64>, ReadError>,
    },
    /// Of the redrive with that number.
    Redriven {
        number: u64,
        /// Those of the dead letters that were sent: the others the filter holds back by now.
        tried: Vec<u64>,
        rejected: Vec<Rejection>,
        unread: Unread,
    },
}

/// What stays when a delivery begins anew.
struct Fixed<S> {
    shared: Arc<Shared<S>>,
    producer: Arc<Producer>,
    directory: PathBuf,
    stall: Duration,
}

struct Loop<S: Sink> {
    fixed: Fixed<S>,
    standing: Standing,
    position: Position,
    dead: DeadLetters,
    /// What the log tells of dead letters that the delivery comes to again, while there are some.
    untold: Option<Arc<Tellings>>,
    main: Course,
    errand: Option<Errand>,
    /// How many there have been.
    errands: u64,
    tasks: JoinSet<Done<S>>,
    /// Since when something waits that isn't long enough to be read.
    lingering: Option<Instant>,
    /// Read ahead, and not sent yet.
    ready: Option<(Way, Batch<S>)>,
    /// Batches of what is new that are under way.
    delivering: usize,
    wait: Wait,
    /// The end of what is done but not written yet.
    unsaved: Option<End>,
    saved: Instant,
}

pub(super) async fn run<S: Sink>(
    delivery: Delivery<S>,
    mut inbox: Inbox,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Stopped> {
    let Delivery { shared, producer, position, dead, directory, stall, stalled } = delivery;
    let fixed = Fixed { shared, producer, directory, stall };
    let standing = Standing::at_start(stalled, position.next());
    let mut this = Loop::new(fixed, standing, position, dead);
    loop {
        match this.go(&mut inbox, &mut stop).await {
            Ok(()) => return this.finish().await,
            Err(error) => match this.mended(error, &mut inbox, &mut stop).await? {
                Some(mended) => this = mended,
                None => return Ok(()),
            },
        }
    }
}

/// Until it is to stop; a sender that is gone is a stop as well.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Waits for so long; whoever asks something meanwhile hears that it stands still. `false`: it is to stop.
async fn rest(wait: Duration, inbox: &mut Inbox, stop: &mut watch::Receiver<bool>) -> bool {
    let over = tokio::time::sleep(wait);
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            () = stopped(stop) => return false,
            () = &mut over => return true,
            Some(command) = inbox.commands.recv() => drop(command),
        }
    }
}

impl<S: Sink> Loop<S> {
    fn new(fixed: Fixed<S>, standing: Standing, position: Position, dead: DeadLetters) -> Self {
        let errand = position.replay().map(|Replay { next, to }| {
            let untold = Tellings::since(&fixed.shared, dead.indexes().range(next..to).next());
            Errand::replay_at_start(Course::new(next, Some(to), to), untold)
        });
        // A redrive ends with the delivery that it was begun in.
        fixed.shared.health.well(At::Errand);
        fixed.shared.health.set_dead_letters(dead.indexes().len());
        Self {
            errand,
            errands: 1,
            main: Course::new(position.next(), None, position.sent()),
            untold: Tellings::since(&fixed.shared, dead.indexes().range(position.next()..).next()),
            fixed,
            standing,
            position,
            dead,
            tasks: JoinSet::new(),
            lingering: None,
            ready: None,
            delivering: 0,
            wait: Wait::default(),
            unsaved: None,
            saved: Instant::now(),
        }
    }

    fn shared(&self) -> &Arc<Shared<S>> {
        &self.fixed.shared
    }

    async fn go(&mut self, inbox: &mut Inbox, stop: &mut watch::Receiver<bool>) -> Result<(), Stopped> {
        let mut size = self.shared().log.follow();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut log_lives, mut heard) = (true, true);
        loop {
            let is_held = *inbox.paused.borrow();
            if !is_held {
                self.send_ready()?;
                let now = *size.borrow_and_update();
                self.read_on(now);
            }
            self.redrive_on(is_held)?;
            // While the next one is under way already.
            self.save_in_time()?;
            tokio::select! {
                biased;
                () = stopped(stop) => return Ok(()),
                Some(done) = self.tasks.join_next() => self.take(done).await?,
                command = inbox.commands.recv(), if heard => match command {
                    Some(command) => self.obey(command)?,
                    None => heard = false,
                },
                changed = inbox.paused.changed(), if heard => heard = changed.is_ok(),
                changed = size.changed(), if log_lives && !self.wait.is_reading() => log_lives = changed.is_ok(),
                _ = look.tick() => self.look().await?,
            }
        }
    }

    /// Waits until its files can be written and the log can be read, and gives a delivery that begins from what the files
    /// say: what was under way is in doubt. Nothing where it is to stop meanwhile.
    async fn mended(
        mut self,
        error: Stopped,
        inbox: &mut Inbox,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Self>, Stopped> {
        let under_way = async { while self.tasks.join_next().await.is_some() {} };
        // What of it has reached the destination is known sooner then.
        drop(tokio::time::timeout(LAST, under_way).await);
        self.tasks.shutdown().await;
        self.shared().health.rests();
        let mut reason = error.to_string();
        loop {
            tracing::warn!("sink {}: {reason}; trying again", self.shared().name);
            self.shared().health.failed(At::Loop, &reason);
            self.tell_stall().await;
            if !rest(self.standing.backoff.next(None), inbox, stop).await {
                return Ok(None);
            }
            match self.reopened() {
                Ok((position, dead)) => {
                    let mended = Self::new(self.fixed, self.standing, position, dead);
                    let shared = mended.shared();
                    if mended.main.wanted(shared.log.size()).is_none() {
                        // There is nothing by which it could show that it works again.
                        shared.health.well(At::Loop);
                    }
                    return Ok(Some(mended));
                }
                Err(error) if error.may_pass() => reason = error.to_string(),
                Err(error) => {
                    let reason = error.to_string();
                    self.shared().health.failed(At::Loop, &reason);
                    self.tell_end(&reason).await;
                    return Err(error.into());
                }
            }
        }
    }

    /// Its files, once they can be written.
    fn reopened(&mut self) -> Result<(Position, DeadLetters), OpenError> {
        // Only this delivery knows which of them have arrived.
        match at_length(|| self.dead.tidy()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::File { path: letters_file(&self.fixed.directory), source });
            }
            Ok(()) | Err(_) => {}
        }
        let (mut position, dead) = open_files(&self.fixed.directory, &*self.shared().log)?;
        position.keep()?;
        Ok((position, dead))
    }

    /// Sends what was read ahead, if there is room for one under way. A replay has room of its own: what of it can't be sent
    /// holds up nothing that is new.
    fn send_ready(&mut self) -> Result<(), Stopped> {
        let is_room = self.delivering < self.shared().sink.limits().in_flight;
        match self.ready.take_if(|(way, _)| is_room || *way != Way::Main) {
            Some((way, batch)) => self.send(way, batch),
            None => Ok(()),
        }
    }

    /// Reads the next batch, if there is something to read and room for one under way, or soon: while others are, only one
    /// that is long already is read and made ready.
    fn read_on(&mut self, size: u64) {
        let limits = self.shared().sink.limits();
        if self.wait.is_reading() || self.ready.is_some() {
            return;
        }
        // What is new comes first: a replay of a year must not hold up today.
        let is_held_up = self.main.ahead() >= PASSING * limits.batch_events as u64;
        let (way, from, to) = if let Some(from) = self.main.wanted(size).filter(|_| !is_held_up) {
            (Way::Main, from, None)
        } else if let Some(errand) = &self.errand
            && let Some((from, to)) = errand.wanted(size)
        {
            (Way::Replay(errand.number), from, to)
        } else {
            return;
        };
        let waiting = to.unwrap_or(size) - from;
        let enough = self.shared().pace.events(limits.batch_events) as u64;
        if way == Way::Main && self.delivering >= limits.in_flight && waiting < enough / LONG {
            // Meanwhile it becomes longer.
            self.lingering.get_or_insert_with(Instant::now);
            return;
        }
        let lingered = self.lingering.take().map_or(Duration::ZERO, |since| since.elapsed());
        let linger = limits.linger.saturating_sub(lingered);
        let shared = Arc::clone(self.shared());
        let lingers = way == Way::Main && waiting < enough / LONG && !linger.is_zero();
        let is_waited_for = self.wait.reads(Instant::now(), way == Way::Main && !lingers);
        self.tasks.spawn(async move {
            if lingers {
                let mut size = shared.log.follow();
                let grown = size.wait_for(|size| *size >= from.saturating_add(enough));
                // Either it grows, or there is nothing more to wait for.
                drop(tokio::time::timeout(linger, grown).await);
            }
            let read = tokio::task::spawn_blocking(move || read(&shared, from, to, is_waited_for)).await;
            Done::Read(way, read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
        });
    }

    fn course(&mut self, way: Way) -> Option<&mut Course> {
        match way {
            Way::Main => Some(&mut self.main),
            Way::Replay(number) => match &mut self.errand_numbered(number)?.kind {
                Kind::Replay { course, .. } => Some(course),
                Kind::Redrive(_) => None,
            },
        }
    }

    /// The errand that is under way, unless it is another one by now.
    fn errand_numbered(&mut self, number: u64) -> Option<&mut Errand> {
        self.errand.as_mut().filter(|errand| errand.number == number)
    }

    async fn take(&mut self, done: Result<Done<S>, JoinError>) -> Result<(), Stopped> {
        let done = match done {
            Ok(done) => done,
            // An errand that was cancelled.
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => return Err(Stopped::Broken(error.to_string())),
        };
        match done {
            Done::Read(way, batch) => {
                self.wait.has_read(Instant::now());
                let batch = match (way, batch) {
                    (_, Ok(batch)) => batch,
                    (Way::Main, Err(error)) => return Err(error.into()),
                    // What is new can be read all the same, and goes on.
                    (Way::Replay(number), Err(error)) => return self.break_off(number, &error),
                };
                if let Some(course) = self.course(way) {
                    course.was_read(batch.indexes.end);
                    self.ready = Some((way, batch));
                }
                Ok(())
            }
            Done::Delivered { way, indexes, end, dead, rejected, untold } => {
                match way {
                    Way::Main => {
                        self.wait.delivered(Instant::now());
                        if self.delivering == 1 {
                            self.shared().health.rests();
                        }
                    }
                    Way::Replay(number) => {
                        if let Some(errand) = self.errand_numbered(number) {
                            errand.sending = None;
                        }
                    }
                }
                let (untold, failed) = match untold {
                    Ok(untold) => (untold, None),
                    Err(error) => (BTreeSet::new(), Some(error)),
                };
                // What stands in the place of an event that was delivered once is found by a comparison, which says that it was
                // altered: as a dead letter it would count as what the destination is known to lack.
                let is_new = |rejection: &Rejection| way == Way::Main || !rejection.is_taken();
                self.arrived(&dead, &rejected)?;
                self.bury(rejected.into_iter().filter(is_new).collect(), &untold).await?;
                if way == Way::Main {
                    // Not before: a stop that doesn't wait for the log leaves it in doubt.
                    self.delivering -= 1;
                }
                match (failed, way) {
                    (None, _) => {}
                    (Some(error), Way::Main) => return Err(error.into()),
                    (Some(error), Way::Replay(number)) => return self.break_off(number, &error),
                }
                if let Some(course) = self.course(way)
                    && let Some(end) = course.is_done(indexes, end)
                {
                    self.moved(way, end)?;
                }
                Ok(())
            }
            Done::Redriven { number, tried, rejected, unread } => {
                self.redriven(number, &tried, rejected, unread)
            }
        }
    }

    /// Sends a batch; first it is written down that it may have been sent.
    fn send(&mut self, way: Way, batch: Batch<S>) -> Result<(), Stopped> {
        let Batch { indexes, last, letters, cut, mut rejected } = batch;
        if way == Way::Main {
            self.position.will_send(indexes.end)?;
        }
        let Some(course) = self.course(way) else { return Ok(()) };
        let in_doubt = course.is_in_doubt(indexes.start);
        let known: Vec<u64> = self.dead.indexes().range(indexes.clone()).copied().collect();
        let is_sent = |index: &u64| letters.binary_search_by_key(index, Letter::index).is_ok();
        let dead: Vec<u64> = known.iter().copied().filter(is_sent).collect();
        let tellings = match way {
            Way::Main => self.untold.clone(),
            Way::Replay(number) => self.errand_numbered(number).and_then(|errand| errand.untold()),
        };
        let shared = Arc::clone(self.shared());
        shared.health.unsent(rejected.len());
        let at = if way == Way::Main { At::Batch(indexes.start) } else { At::Errand };
        let sending = self.tasks.spawn(async move {
            rejected.extend(deliver(&shared, letters, in_doubt, cut, at).await);
            let again = rejected.iter().map(|rejection| rejection.index);
            let again: Vec<u64> = again.filter(|index| known.binary_search(index).is_ok()).collect();
            let untold = match tellings {
                Some(tellings) => tellings.lack(at, again).await,
                None => Ok(BTreeSet::new()),
            };
            Done::Delivered { way, indexes, end: last, dead, rejected, untold }
        });
        match way {
            Way::Main => {
                self.delivering += 1;
                self.shared().health.asks();
            }
            Way::Replay(number) => {
                if let Some(errand) = self.errand_numbered(number) {
                    errand.sending = Some(sending);
                }
            }
        }
        Ok(())
    }

    /// Makes dead letters: first in the file, then in the log, and only then the position may move over them. Where the log doesn't
    /// take it, the delivery begins anew, finds them in the file, and tells of them then. `untold` are those that were in the file
    /// before and of which the log says nothing.
    async fn bury(&mut self, rejected: Vec<Rejection>, untold: &BTreeSet<u64>) -> Result<(), Stopped> {
        if rejected.is_empty() {
            return Ok(());
        }
        let letters: Vec<DeadLetter> = rejected
            .into_iter()
            .map(|Rejection { index, kind, reason }| DeadLetter::new(index, &kind, &reason))
            .collect();
        let mut told: Vec<DeadLetter> =
            letters.iter().filter(|letter| untold.contains(&letter.index)).cloned().collect();
        told.extend(self.dead.add(letters).map_err(Stopped::DeadLetters)?);
        self.shared().health.set_dead_letters(self.dead.indexes().len());
        // What tells of a sink is no reason to tell of it again: the log would feed on itself.
        told.retain(|letter| !letter.kind.starts_with("sink."));
        // In whatever order the destination spoke of them.
        told.sort_unstable_by_key(|letter| letter.index);
        let sink = &self.shared().name;
        let mut runs = Vec::new();
        // What lies between two that were refused was not: nobody may say later that the log tells so.
        for run in told.chunk_by(|one, next| one.index + 1 == next.index) {
            let ([first, .., last] | [first @ last]) = run else { continue };
            let (count, reason) = (run.len() as u64, without_quotes(&first.reason));
            tracing::warn!("sink {sink}: {count} events from {} on are refused: {reason}", first.index);
            runs.push(Rejected { count, first: first.index, last: last.index, reason, sink: sink.clone() });
        }
        self.tell_all(runs).await
    }

    fn moved(&mut self, way: Way, end: End) -> Result<(), Stopped> {
        match way {
            Way::Main => {
                self.shared().health.moved(self.main.next(), Some(end.1.0));
                if self.untold.is_some() && self.dead.indexes().range(self.main.next()..).next().is_none() {
                    self.untold = None;
                }
                self.unsaved = Some(end);
            }
            Way::Replay(_) => {
                let left = self.replay().filter(|replay| !replay.is_over());
                let left = left.and_then(|replay| Some(Replay { next: replay.next(), to: replay.to()? }));
                self.position.set_replay(left)?;
                if left.is_none() {
                    self.errand = None;
                    self.shared().health.replayed();
                    self.tidy()?;
                }
            }
        }
        Ok(())
    }

    fn save_in_time(&mut self) -> Result<(), Stopped> {
        if self.delivering == 0 || self.saved.elapsed() >= SAVE { self.save() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<(), Stopped> {
        if let Some((leaf, _)) = self.unsaved.take() {
            self.position.confirm(self.main.next(), leaf)?;
            self.saved = Instant::now();
            self.standing.backoff.reset();
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<(), Stopped> {
        // Whoever asked may have gone, which is no reason for anything.
        match command {
            Command::Replay { indexes, begun } => drop(begun.send(self.begin_replay(indexes)?)),
            Command::Redrive { done } => self.begin_redrive(done),
            Command::Cancel { ended } => drop(ended.send(self.cancel()?)),
            Command::Errand { errand } => drop(errand.send(self.errand.as_ref().map(Errand::what))),
            Command::DeadLetters { listing } => drop(listing.send(self.dead.listing())),
            Command::Replaying { left } => {
                drop(left.send(self.replay().and_then(|replay| Some(replay.next()..replay.to()?))));
            }
        }
        Ok(())
    }

    /// Writes the position, and says how it stands.
    async fn look(&mut self) -> Result<(), Stopped> {
        self.save()?;
        self.shared().health.measure(Instant::now());
        self.shared().health.ails(self.shared().sink.ails());
        self.tell_stall().await;
        Ok(())
    }

    /// Tells it to the log.
    async fn tell<D: EventData>(&self, data: D) -> Result<(), Stopped> {
        self.tell_all(vec![data]).await
    }

    /// The same of several, at once.
    async fn tell_all<D: EventData>(&self, data: Vec<D>) -> Result<(), Stopped> {
        let mut left: Vec<_> = data.into_iter().map(|data| Draft::new(Actor::system("sink"), data)).collect();
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(TOLD_AT_ONCE));
            let told = self.fixed.producer.append(std::mem::replace(&mut left, rest)).await;
            told.map(drop).map_err(|error| Stopped::Untold { what: D::TYPE, reason: error.to_string() })?;
        }
        Ok(())
    }

    /// Lets what is under way come to its end, for a while. What doesn't is in doubt at the next start.
    async fn finish(mut self) -> Result<(), Stopped> {
        let ended = tokio::time::timeout(LAST, async {
            let is_sending =
                |this: &Self| this.errand.as_ref().is_some_and(|errand| errand.sending.is_some());
            while self.delivering > 0 || is_sending(&self) {
                let Some(done) = self.tasks.join_next().await else { break };
                match done {
                    // Nothing new is begun.
                    Ok(Done::Read(..)) => {}
                    done => self.take(done).await?,
                }
            }
            Ok(())
        });
        if let Ok(failed @ Err(_)) = ended.await {
            return failed;
        }
        self.tasks.shutdown().await;
        if let Some(Errand { kind: Kind::Redrive(redrive), .. }) = self.errand.take() {
            self.leave(redrive, "the delivery was ended meanwhile");
        }
        self.save()?;
        if self.delivering == 0 {
            // Else all that comes next would be looked up, as after a crash.
            self.position.rest(self.main.in_doubt_below())?;
        }
        self.tidy()
    }
}

fn read<S: Sink>(
    shared: &Shared<S>,
    from: u64,
    to: Option<u64>,
    is_waited_for: bool,
) -> Result<Batch<S>, ReadError> {
    let limits = shared.sink.limits();
    let most = to.map_or(usize::MAX, |to| usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX));
    let entries = shared.log.read(from, limits.batch_events.min(most), shared.pace.to_read())?;
    Ok(shared.batch(from, entries, is_waited_for))
}
