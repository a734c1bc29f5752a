//! The scribe: reads the kernel's buffer, and writes events into the spool.

use super::booted::Booted;
use super::dropped::Dropped;
use super::hash::Latest;
use super::numbering::{Batch, Numbering};
use super::staging::Staging;
use super::translate::{Known, Translation};
use crate::host;
use crate::sensor::{Connection, Record, RecordReader, Sensor, SensorError, TakenDown, let_go, record};
use crate::sessions::Sessions;
use crate::spool::{Spool, SpoolError, is_full};
use aws_lc_rs::signature::Ed25519KeyPair;
use custody_core::clock::{Clock, SystemClock};
use custody_core::event::canonical::CanonicalError;
use custody_core::event::producer::{self, Previous};
use custody_core::event::{Actor, Draft, EventData, Outcome, ProducerRef, Target, Timestamp, node};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long the scribe waits for records: it says as often that it is there.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How soon one batch may follow the other, while they are short: each costs a signature, a sync here and one in the log,
/// whatever is in it. What comes after a rest is kept at once; so little after that stays in the kernel's buffer for so
/// long, and goes with what comes meanwhile.
const PACE: Duration = Duration::from_millis(20);
/// How often what was dropped is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a spool without room is left alone.
const FULL: Duration = Duration::from_millis(50);
/// How long at a stop the kernel's buffer is read, which sessions may go on filling. With what the link has after it, that is less than the
/// ten seconds after which containers are killed.
const STOP_MAX: Duration = Duration::from_secs(4);
/// Records that become one batch, and their bytes. What they become fits into one frame to the log, but for what a session makes long.
const RECORDS_MAX: usize = 256;
const RECORDS_BYTES_MAX: usize = 256 << 10;
/// What stands before an event in the spool: whether it ends its batch, and the epoch of the staging file.
pub(super) const PREFIX_BYTES: usize = 9;

/// What the scribe and the link share.
pub struct Shared {
    /// The node.
    pub node: String,
    /// The kernel's programs. Whoever holds the lock is the only one who changes what they do.
    pub sensor: Mutex<Sensor>,
    /// The sessions that are known here.
    pub sessions: Mutex<Sessions>,
    /// Whoever holds the lock is the only one who begins or changes sessions, and writes their file: that may take long, and neither of
    /// the locks above is held meanwhile, for which evidence and heartbeat would wait.
    pub changing: Mutex<()>,
    /// Events that the log hasn't got yet.
    pub spool: Mutex<Spool>,
    /// Told whenever the spool has grown.
    pub spooled: watch::Sender<()>,
    /// Why no session can be watched now.
    pub unready: watch::Sender<Option<String>>,
    /// The scribe's sign of life.
    pub beat: Beat,
    /// A connection to the log stands, so it is to hear that the agent is there.
    pub connected: AtomicBool,
}

/// When the scribe last said that it takes evidence, by the monotonic clock; never, until it begins.
#[derive(Debug, Default)]
pub struct Beat(AtomicU64);

/// After how long a silence of the scribe the node counts as unwatched. It says that it is there many times a second; a
/// slow disk may hold it up.
const STILL_MAX: Duration = Duration::from_secs(3);

impl Beat {
    /// At the end, at [`Duration::MAX`]: what is left in the spool may go on its way.
    fn beats(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it stands still, and how long it has by now.
    #[must_use]
    pub fn still(&self, now: Duration) -> Option<Duration> {
        let still = now.saturating_sub(Duration::from_nanos(self.0.load(Ordering::Relaxed)));
        (still > STILL_MAX).then_some(still)
    }
}

impl Shared {
    /// The lock on what the kernel's programs do.
    pub fn sensor(&self) -> MutexGuard<'_, Sensor> {
        self.sensor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock on the sessions.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock on the changes of sessions; taken before any other.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock on the spool.
    pub fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the scribe is asked to tell.
pub enum Telling {
    /// That a session's connection was taken down, since its network has become denied.
    TakenDown(Box<Connection>),
    /// That it stops: the scribe ends once that and all before it is in the spool.
    Stop,
}

/// Why evidence can't be kept any more: the agent must end, and the kernel refuses from then on.
#[derive(Debug, thiserror::Error)]
pub enum ScribeError {
    /// The kernel's programs.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What the agent says of itself can't be written: a mistake in this program.
    #[error("an event can't be written: {0}")]
    Event(#[from] CanonicalError),
    /// A file of the agent.
    #[error("evidence can't be kept: {0}")]
    Io(#[from] io::Error),
}

/// Makes events of records.
pub struct Scribe {
    shared: Arc<Shared>,
    reader: RecordReader,
    key: Arc<Ed25519KeyPair>,
    clock: SystemClock,
    booted: Booted,
    numbering: Numbering,
    staging: Staging,
    dropped: Dropped,
    known: Known,
    /// Staged, and not in the spool yet.
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    /// The last record of an earlier run, which may have died before it left the kernel's buffer.
    before: Option<Vec<u8>>,
    looked: Duration,
    /// When the last batch was in the spool, by the monotonic clock.
    kept: Duration,
    /// Whether the kernel refuses because of us; nobody knows what an earlier run left it at.
    closed: Option<bool>,
    joined: node::Joined,
    /// Records that can't be told, by what is wrong with them.
    untold: BTreeMap<String, u64>,
    /// Connections that were taken down, and when that was: thousands at once, where a network that becomes denied was popular.
    taken: VecDeque<(Box<Connection>, Timestamp)>,
}

/// How many of them are told in one batch: what the log takes at once is limited.
const TAKEN_MAX: usize = 256;

/// What the kernel's buffer holds once records were taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing.
    None,
    /// There may be more.
    More,
    /// There is more, and no room for it here.
    Held,
}

/// Why no evidence is taken where the agent's files have no room.
const DISK_FULL: &str = "its disk is full";
/// What is wrong with a record that this version can't read.
const UNDECODED: &str = "undecoded";
/// What is wrong with a record whose event can't be written.
const UNWRITABLE: &str = "unwritable";

/// The events of a part of a batch as the spool has them.
pub(super) fn spooled(events: &[Vec<u8>], epoch: u64) -> Vec<Vec<u8>> {
    let last = events.len().saturating_sub(1);
    let record = |(at, event): (usize, &Vec<u8>)| {
        [&[u8::from(at == last)][..], &epoch.to_le_bytes(), event.as_slice()].concat()
    };
    events.iter().enumerate().map(record).collect()
}

/// An event as the spool has it: its bytes, and whether it ends its batch.
#[must_use]
pub fn spooled_event(record: &[u8]) -> Option<(bool, &[u8])> {
    let (prefix, event) = record.split_at_checked(PREFIX_BYTES)?;
    Some((prefix.first() == Some(&1), event))
}

fn spooled_epoch(record: &[u8]) -> Option<u64> {
    record.get(1..PREFIX_BYTES)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The number of an event.
fn number(event: &[u8]) -> Option<Previous> {
    #[derive(Deserialize)]
    struct Head {
        producer: ProducerRef,
    }
    let Head { producer } = serde_json::from_slice(event).ok()?;
    Some(Previous { boot: producer.boot, seq: producer.seq })
}

/// Ends what a policy denies by now.
fn take_down(shared: &Shared, policy: u32) -> Vec<TakenDown> {
    shared.sensor().take_down(policy).unwrap_or_else(|error| {
        tracing::error!("connections that a denied network has made to a session go on: {error}");
        Vec::new()
    })
}

fn unwritable(untold: &mut BTreeMap<String, u64>, error: &CanonicalError) {
    tracing::error!("what the kernel told can't be written, and is told as dropped: {error}");
    *untold.entry(UNWRITABLE.to_owned()).or_default() += 1;
}

/// What is full, where an error says so: there will be room again.
fn no_room(error: &ScribeError) -> Option<String> {
    match error {
        ScribeError::Spool(error @ (SpoolError::Full { .. } | SpoolError::DiskFull { .. })) => {
            Some(error.to_string())
        }
        ScribeError::Io(error) if is_full(error) => Some(DISK_FULL.to_owned()),
        _ => None,
    }
}

/// Whom to ask since when processes run what they run.
fn latest(shared: &Shared) -> Option<Arc<dyn Latest>> {
    match shared.sensor().executions() {
        Ok(executions) => Some(Arc::new(executions)),
        Err(error) => {
            tracing::warn!("programs that are changed just before they run have no hash: {error}");
            None
        }
    }
}

/// What is needed to make events of records.
fn translation<'a>(
    shared: &'a Shared,
    sessions: &'a Sessions,
    known: &'a mut Known,
    booted: Booted,
) -> Translation<'a> {
    Translation { node: &shared.node, sessions, known, booted }
}

impl Scribe {
    /// Takes up what an earlier run left in `directory`, and says that this one begins: durable when this returns. That waits for room in
    /// the spool, so the log has to be sent what is in it meanwhile. `joined` is what the log hears at each connection.
    ///
    /// # Errors
    /// See [`ScribeError`].
    pub fn begin(
        shared: Arc<Shared>,
        key: Arc<Ed25519KeyPair>,
        directory: &Path,
        joined: node::Joined,
    ) -> Result<Self, ScribeError> {
        let (previous, epoch) = {
            let spool = shared.spool();
            let last = spool.last();
            let event = last.and_then(spooled_event).map(|(_, event)| event);
            (event.and_then(number), last.and_then(spooled_epoch))
        };
        let clock = SystemClock::new();
        let booted = Booted::now(&clock);
        let (staging, left) = Staging::open(&directory.join("staging"), epoch, host::boot()?, booted)?;
        if left.lost {
            tracing::warn!(
                "the machine was started again, and what its kernel hadn't told by then is lost, if there was anything: the log \
                 hears of a gap of unknown size"
            );
        }
        let dropped = Dropped::open(&directory.join("dropped.json"), previous)?;
        let reader = shared.sensor().reader()?;
        let mut scribe = Self {
            numbering: Numbering::begin(&shared.node),
            reader,
            key,
            booted: left.booted.unwrap_or(booted),
            clock,
            staging,
            dropped,
            known: Known::of_this_machine(latest(&shared)),
            pending_bytes: left.records.iter().map(Vec::len).sum(),
            pending: left.records,
            before: left.last,
            looked: Duration::ZERO,
            kept: Duration::ZERO,
            closed: None,
            joined,
            untold: left.unreadable.then(|| (UNDECODED.to_owned(), 1)).into_iter().collect(),
            taken: VecDeque::new(),
            shared,
        };
        let started = producer::Started {
            // A run that isn't named is a gap of unknown size to the log, unless it had ended in order.
            previous: previous.filter(|_| !left.lost),
            program: concat!("custodyd ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let mut batch = scribe.numbering.batch();
        let now = scribe.now();
        batch.push(Draft::new(scribe.actor(), started), now)?;
        // With what was staged and not spooled: the batch takes its place in the staging file.
        scribe.tell_staged(&mut batch);
        scribe.booted = booted;
        scribe.keep(batch)?;
        Ok(scribe)
    }

    /// Runs until it is told to stop and the kernel's buffer is empty, or isn't for too long. Only where it is, and nothing is of a session
    /// any more, that is told as a stop in order: else the buffer may still get what is lost when the machine is started again.
    ///
    /// # Errors
    /// See [`ScribeError`]. The heartbeat ends with it.
    pub fn run(mut self, tellings: &Receiver<Telling>) -> Result<(), ScribeError> {
        // Until when it may go on; and, from then on, whether nothing was of a session after the buffer was looked into.
        let (mut stop_by, mut quiet): (Option<Duration>, Option<bool>) = (None, None);
        loop {
            let late = stop_by.is_some_and(|by| self.clock.monotonic() >= by);
            let rest = if late { Rest::More } else { self.drain()? };
            if quiet == Some(true) {
                // What the kernel couldn't tell is known to nobody once the machine is started again.
                self.looked = Duration::ZERO;
            }
            let mut batch = self.numbering.batch();
            self.translate(&mut batch)?;
            if self.shared.connected.swap(false, Ordering::Relaxed) {
                batch.push(self.about_node(self.joined.clone()), self.now())?;
            }
            while let Ok(telling) = tellings.try_recv() {
                match telling {
                    Telling::TakenDown(connection) => self.taken.push_back((connection, self.now())),
                    Telling::Stop => {
                        stop_by = stop_by.or(Some(self.clock.monotonic().saturating_add(STOP_MAX)));
                    }
                }
            }
            self.tell_taken(&mut batch);
            let told = self.taken.is_empty() && self.untold.is_empty();
            let read = rest == Rest::None && quiet.is_some();
            let stops = stop_by.is_some() && told && (read || late);
            let in_order = stops && read && quiet == Some(true);
            if in_order {
                batch.push(self.about_node(producer::Stopped {}), self.now())?;
            }
            self.keep(batch)?;
            if stops {
                self.end(in_order);
                return Ok(());
            }
            self.beat()?;
            quiet = stop_by.map(|_| self.is_quiet()).transpose()?;
            match rest {
                Rest::None if self.taken.is_empty() => {
                    let rested = self.clock.monotonic().saturating_sub(self.kept);
                    std::thread::sleep(PACE.saturating_sub(rested));
                    let mut ring = [PollFd::from_borrowed_fd(self.reader.as_fd(), PollFlags::IN)];
                    match poll(&mut ring, Some(&WAIT)) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(io::Error::from(error).into()),
                    }
                }
                Rest::Held => std::thread::sleep(FULL),
                Rest::None | Rest::More => {}
            }
        }
    }

    /// Whether nothing is of a session, and none is awaited, so that nothing comes into the kernel's buffer any more. What has just ended
    /// may be gone a moment before that is in the buffer: it is looked into once more after this.
    fn is_quiet(&self) -> Result<bool, ScribeError> {
        let awaited = self.shared.sessions().iter().any(|(_, session)| !session.over);
        Ok(!awaited && self.shared.sensor().is_quiet()?)
    }

    /// Everything that was to be told is in the spool.
    fn end(&mut self, in_order: bool) {
        if !in_order {
            tracing::info!(
                "sessions may still do something here: if the machine is started again before the agent is, the log hears of a \
                 gap of unknown size"
            );
        } else if let Err(error) = self.staging.ended(self.booted) {
            tracing::warn!(
                "if the machine is started again the log hears of a gap that there isn't: {error}"
            );
        }
        self.shared.beat.beats(Duration::MAX);
    }

    /// Lets the kernel and the link know that evidence is taken.
    fn beat(&self) -> Result<(), ScribeError> {
        self.shared.sensor().heartbeat()?;
        self.shared.beat.beats(self.clock.monotonic());
        Ok(())
    }

    /// Takes records out of the kernel's buffer.
    fn drain(&mut self) -> Result<Rest, ScribeError> {
        while self.pending.len() < RECORDS_MAX && self.pending_bytes < RECORDS_BYTES_MAX {
            let before = self.before.take();
            let staging = &mut self.staging;
            let next = self.reader.next_bytes(|bytes| {
                if before.as_deref() == Some(bytes) {
                    return Ok(None);
                }
                staging.add(bytes)?;
                Ok::<_, io::Error>(Some(bytes.to_vec()))
            });
            match next {
                None => {
                    self.before = before;
                    return Ok(Rest::None);
                }
                Some(Ok(Some(bytes))) => {
                    self.pending_bytes += bytes.len();
                    self.pending.push(bytes);
                }
                Some(Ok(None)) => {}
                // It is still in the kernel's buffer, which refuses when it is full.
                Some(Err(error)) if is_full(&error) => {
                    self.before = before;
                    self.close(true, DISK_FULL)?;
                    return Ok(Rest::Held);
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Ok(Rest::More)
    }

    /// Events of all that is staged, and of what was dropped.
    fn translate(&mut self, batch: &mut Batch) -> Result<(), ScribeError> {
        self.tell_staged(batch);
        // What the kernel has told so far was before it, as far as anybody can say.
        if let Some(stepped) = self.booted.stepped(&self.clock) {
            tracing::warn!("the clock was set from {} to {}", stepped.from, stepped.to);
            batch.push(self.about_node(stepped), self.now())?;
        }
        self.tell_dropped(batch)
    }

    fn tell_staged(&mut self, batch: &mut Batch) {
        self.known.hashes.begin_batch();
        let sessions = self.shared.sessions();
        let mut translation = translation(&self.shared, &sessions, &mut self.known, self.booted);
        let mut called = BTreeSet::new();
        for bytes in &self.pending {
            let record = record::decode(bytes);
            if matches!(record, Record::Undecoded { .. }) {
                *self.untold.entry(UNDECODED.to_owned()).or_default() += 1;
            }
            let_go(&record);
            // Whoever runs in a session chooses what stands there: nobody may end the agent by it.
            let told = translation.tell(&record, batch);
            told.unwrap_or_else(|error| unwritable(&mut self.untold, &error));
            if let Record::ConnectionAccepted(of) = &record
                && self.shared.sensor().denies(of)
            {
                called.insert(of.who.policy);
            }
        }
        // Whom a session may not connect to may not connect to it: the kernel asks us about the one only.
        let now = Timestamp::from(self.clock.wall());
        for policy in called {
            for TakenDown { connection, ended } in take_down(&self.shared, policy) {
                match ended {
                    Ok(()) => self.taken.push_back((Box::new(connection), now)),
                    Err(why) => tracing::error!(
                        "a connection that a denied network has made to a session goes on: {why}"
                    ),
                }
            }
        }
        drop(sessions);
    }

    fn tell_taken(&mut self, batch: &mut Batch) {
        let sessions = self.shared.sessions();
        let translation = translation(&self.shared, &sessions, &mut self.known, self.booted);
        for (connection, at) in self.taken.drain(..self.taken.len().min(TAKEN_MAX)) {
            let told = translation.taken_down(&connection, at, batch);
            told.unwrap_or_else(|error| unwritable(&mut self.untold, &error));
        }
    }

    /// Uses up a number for each event that the kernel couldn't tell, and says how many of what.
    fn tell_dropped(&mut self, batch: &mut Batch) -> Result<(), ScribeError> {
        if !self.untold.is_empty() {
            let counts = std::mem::take(&mut self.untold);
            let reason = "the kernel's programs told what this version can't read or write".to_owned();
            batch.skip(counts.values().sum());
            let data = producer::Dropped { counts, reason };
            batch.push(self.about_node(data).outcome(Outcome::Failure), self.now())?;
        }
        let now = self.clock.monotonic();
        if now.saturating_sub(self.looked) < LOOK_EVERY {
            return Ok(());
        }
        self.looked = now;
        self.shared.sensor().still_runs()?;
        let unpinned = self.shared.sensor().keep_pinned()?;
        if unpinned > 0 {
            tracing::warn!(
                unpinned,
                "somebody has removed pins of the agent's programs; they are back, and nothing was missed"
            );
        }
        let counters = self.shared.sensor().counters()?;
        let Some(due) = self.dropped.due(&counters) else { return Ok(()) };
        batch.skip(due.total());
        let next = batch.next();
        self.patiently(|scribe| Ok(scribe.dropped.plan(&due, next)?))?;
        let reason = "there was no room in the kernel's buffer, or its programs were busy".to_owned();
        let data = producer::Dropped { counts: due.counts.clone(), reason };
        batch.push(self.about_node(data).outcome(Outcome::Failure), self.now())?;
        self.dropped.told(due);
        Ok(())
    }

    /// Signs a batch and puts it into the spool, as soon as that has room: until then nothing runs in sessions.
    fn keep(&mut self, batch: Batch) -> Result<(), ScribeError> {
        if batch.is_empty() {
            // Nothing may be told of records that are no evidence.
            return if self.pending.is_empty() { Ok(()) } else { self.let_go() };
        }
        let (parts, behind) = batch.sign(&self.key, self.now())?;
        let epoch = self.staging.epoch();
        let last = parts.len().saturating_sub(1);
        for (at, events) in parts.iter().enumerate() {
            // That all of what is staged is in the spool, only the last part says. An agent that dies before it tells all of it again:
            // some of it twice, and nothing never.
            self.spool(&spooled(events, if at == last { epoch } else { epoch.saturating_sub(1) }))?;
        }
        self.numbering = behind;
        self.kept = self.clock.monotonic();
        self.let_go()?;
        self.close(false, "")
    }

    /// Puts records into the spool, and lets the link know: what is sent makes room.
    fn spool(&mut self, records: &[Vec<u8>]) -> Result<(), ScribeError> {
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        self.patiently(|scribe| Ok(scribe.shared.spool().append(&records)?))?;
        self.shared.spooled.send_replace(());
        Ok(())
    }

    /// Nothing more is to be told of what is staged.
    fn let_go(&mut self) -> Result<(), ScribeError> {
        self.patiently(|scribe| Ok(scribe.staging.spooled(scribe.booted)?))?;
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    /// Does something that takes room in the spool or on the disk as soon as there is some: until then nothing runs in sessions.
    fn patiently(
        &mut self,
        mut tried: impl FnMut(&mut Self) -> Result<(), ScribeError>,
    ) -> Result<(), ScribeError> {
        loop {
            let tried = tried(self);
            let Some(why) = tried.as_ref().err().and_then(no_room) else { return tried };
            self.close(true, &why)?;
            self.beat()?;
            std::thread::sleep(FULL);
        }
    }

    /// Has the kernel refuse what sessions want to run and reach, or refuse it no longer.
    fn close(&mut self, closed: bool, why: &str) -> Result<(), ScribeError> {
        if self.closed != Some(closed) {
            self.shared.sensor().close(closed)?;
            self.closed = Some(closed);
            if closed {
                tracing::error!("no evidence can be kept, so nothing runs in sessions: {why}");
            }
            self.shared.unready.send_replace(closed.then(|| why.to_owned()));
        }
        Ok(())
    }

    fn about_node<D: EventData>(&self, data: D) -> Draft<D> {
        let target = Target { kind: "node".to_owned(), name: self.shared.node.clone(), ..Target::default() };
        Draft::new(self.actor(), data).target(target).outcome(Outcome::Success)
    }

    fn actor(&self) -> Actor {
        Actor::system(&node::producer(&self.shared.node))
    }

    fn now(&self) -> Timestamp {
        self.clock.wall().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scribe_that_stands_still_is_seen_by_others() {
        let beat = Beat::default();
        let at = Duration::from_secs;
        beat.beats(at(7));
        assert_eq!(beat.still(at(10)), None);
        assert_eq!(beat.still(at(11)), Some(at(4)));
        beat.beats(at(11));
        assert_eq!(beat.still(at(11)), None);
        beat.beats(Duration::MAX);
        assert_eq!(beat.still(at(99)), None, "it has ended in order");
    }

    #[test]
    fn what_ends_a_part_and_which_epoch_it_names_stands_before_its_events() {
        let records = spooled(&[b"one".to_vec(), b"two".to_vec()], 7);
        let read: Vec<_> = records.iter().map(|record| spooled_event(record).unwrap()).collect();
        assert_eq!(read, [(false, &b"one"[..]), (true, &b"two"[..])]);
        assert!(records.iter().all(|record| spooled_epoch(record) == Some(7)));
    }
}
