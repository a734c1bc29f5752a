//! The writer: one thread, one write and one sync for all that wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::dedupe::{Dedupe, Number};
use super::durable::{Disk, is_full};
use super::preallocate::{EXTENT_BYTES_MIN, Preallocation, RESERVE_BYTES, give_back};
use super::queue::{Answer, Batch, Herd, Queue, Waiting, Work, answer, refuse};
use super::recover::{OpenSegment, create_segment, write_checkpoint};
use super::segment::{HEADER_BYTES, Stored};
use super::statistics::Counters;
use super::time::Timekeeper;
use super::view::{Shown, View};
use crate::log::{AppendError, Checkpoint, Entry, Hash, Nanos, Receipt, Record, Signer};

/// At most ten checkpoints a second.
const SIGN_INTERVAL: Duration = Duration::from_millis(100);
/// And, unless somebody waits for one, at most this part of the time for writing them: where a sync takes long, events
/// come first.
const SIGN_SHARE: u32 = 20;
/// But one a second.
const SIGN_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// A write buffer that grew larger is given back afterwards.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// What the writer's thread owns.
pub(super) struct Writer {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub segment_bytes: u64,
    pub signer: Arc<dyn Signer>,
    pub time: Timekeeper,
    pub queue: Arc<Queue>,
    pub view: Arc<View>,
    pub counters: Arc<Counters>,
    pub dedupe: Dedupe,
    pub segment: OpenSegment,
    pub preallocation: Preallocation,
    pub epoch: u32,
    pub size: watch::Sender<u64>,
    pub checkpoint: watch::Sender<Checkpoint>,
    /// Whether there is only the reserve left.
    pub filled: watch::Sender<bool>,
    /// By how much the clock is ahead and not followed.
    pub clock_ahead: watch::Sender<Option<Duration>>,
    /// When the last checkpoint was signed, by the log's clock and by the machine's.
    pub signed_at: Option<(Duration, Instant)>,
    /// How long it took to write it.
    pub signing_took: Duration,
    /// Whether the last checkpoint couldn't be written, which was said.
    pub signing_fails: bool,
    pub sign: Vec<Answer<Checkpoint>>,
    pub buffer: Vec<u8>,
}

/// Records that are on their way to the disk.
#[derive(Default)]
struct Staged {
    records: Vec<StagedRecord>,
    /// Those who wait, and what they will be told.
    waiting: Vec<(Waiting, Vec<Receipt>)>,
}

struct StagedRecord {
    record: Record,
    leaf: Hash,
    batch_end: bool,
}

/// Why the log can't go on.
struct Fatal(String);

/// However the thread ends, nobody waits for ever.
struct StopAtEnd(Arc<Queue>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop("its writer has ended");
    }
}

impl Writer {
    /// The thread. Ends when the queue is closed and empty, or when the disk has failed.
    pub fn run(mut self) {
        let _stop = StopAtEnd(self.queue.clone());
        let mut herd = Herd::default();
        loop {
            let patience =
                if self.unsigned() || !self.sign.is_empty() { Some(self.until_signature()) } else { None };
            let Work { batches, sign, last, confirm_clock, look_for_room } =
                self.queue.take(patience, &mut herd);
            if confirm_clock {
                self.time.confirm();
            }
            self.sign.extend(sign);
            let looked = if look_for_room && batches.is_empty() { self.look_for_room() } else { Ok(()) };
            let done = looked.and_then(|()| self.commit(batches, &mut herd)).and_then(|()| self.sign(last));
            if let Err(Fatal(reason)) = done {
                tracing::error!(%reason, "the log has stopped: restart to recover");
                self.queue.stop(&reason);
                for waiting in self.sign.drain(..) {
                    refuse(waiting, AppendError::Stopped(reason.clone()));
                }
                return;
            }
            if last {
                give_back(&*self.disk, &mut self.segment);
                return;
            }
        }
    }

    /// Everything that happens to a batch, from the queue to its receipts.
    fn commit(&mut self, batches: Vec<Batch>, herd: &mut Herd) -> Result<(), Fatal> {
        if batches.is_empty() {
            return Ok(());
        }
        // 0. Room: a new segment, if the present one is long enough, and zeroes behind what will be written. A segment
        //    gets its name when it is whole. A crash here leaves an empty newest segment, or none, or more zeroes.
        let batches = self.make_room(batches)?;
        let woken = batches.len();

        // 1. Stage: number, judge, encode. In memory only: a crash here leaves nothing.
        let (appended, ahead) = self.time.now();
        self.clock_ahead.send_if_modified(|now| std::mem::replace(now, ahead) != ahead);
        let first = *self.size.borrow();
        let mut staged = Staged::default();
        for batch in batches {
            self.stage(batch, first, appended, &mut staged);
        }
        let offsets = self.encode(first, appended, &staged);
        if let Some(last) = staged.records.len().checked_sub(1) {
            self.time.used(nth(appended, last as u64));
        }

        if !self.buffer.is_empty() {
            // 2. Write. A crash from here to the end of the sync leaves any part of the bytes, in any order;
            //    nobody was told, and recovery keeps whole batches up to the first that isn't there.
            if let Err(error) = self.disk.write_at(&self.segment.file, &self.buffer, self.segment.end) {
                self.dedupe.undo(0);
                let waiting: Vec<Waiting> = staged.waiting.into_iter().map(|(to, _)| to).collect();
                if !is_full(&error) {
                    return Err(self.unknown(waiting, &format!("writing {}: {error}", self.path())));
                }
                // The half-written bytes go, and durably, before anybody is told that they aren't there.
                let restored = self
                    .disk
                    .truncate(&self.segment.file, self.segment.end)
                    .and_then(|()| self.disk.sync(&self.segment.file));
                if let Err(error) = restored {
                    return Err(
                        self.unknown(waiting, &format!("taking back a write to {}: {error}", self.path()))
                    );
                }
                // Bytes of that write must not be taken for later ones.
                self.epoch = self.epoch.saturating_add(1);
                self.segment.ready = self.segment.end;
                self.fill_up(waiting, false);
                return Ok(());
            }

            // 3. Sync. If it fails, nothing is known and nothing more may be asked: a second sync would say OK.
            let syncing = Instant::now();
            if let Err(error) = self.disk.sync(&self.segment.file) {
                let waiting = staged.waiting.into_iter().map(|(to, _)| to).collect();
                return Err(self.unknown(waiting, &format!("syncing {}: {error}", self.path())));
            }
            let sync = syncing.elapsed();
            herd.wrote(woken, sync);
            self.counters.wrote(staged.records.len(), self.buffer.len(), sync);
            self.segment.end += self.buffer.len() as u64;
        }

        // 4. Publish: tree and readers, then followers, then those who wait. A crash here, or from here on,
        //    leaves everything durable; who wasn't told submits again and gets the old receipt.
        self.dedupe.settle();
        let shown = staged.records.into_iter().zip(offsets).zip(first..);
        let shown = shown.map(|((StagedRecord { record, leaf, .. }, offset), index)| {
            let appended = nth(appended, index - first);
            let entry = Entry { index, appended, tag: record.tag, bytes: record.bytes };
            Shown { entry, leaf, offset }
        });
        let size = self.view.publish(shown.collect());
        self.size.send_if_modified(|now| std::mem::replace(now, size) != size);
        if *self.filled.borrow() {
            self.queue.idle();
        }
        for (to, receipts) in staged.waiting {
            answer(to.answer, Ok(receipts));
        }
        Ok(())
    }

    /// Judges a batch: all of its new records are staged, or none and the batch is refused.
    fn stage(&mut self, batch: Batch, first: u64, appended: Nanos, staged: &mut Staged) {
        let mark = self.dedupe.mark();
        let before = staged.records.len();
        let mut receipts = Vec::with_capacity(batch.records.len());
        for (record, leaf) in batch.records {
            match self.judge(&record, first, appended, &staged.records) {
                Ok(receipt) => {
                    if !receipt.repeat {
                        self.dedupe.take(&record.producer, receipt.index);
                        staged.records.push(StagedRecord { record, leaf, batch_end: false });
                    }
                    receipts.push(receipt);
                }
                Err(error) => {
                    self.dedupe.undo(mark);
                    staged.records.truncate(before);
                    return refuse(batch.waiting.answer, error);
                }
            }
        }
        if let Some(last) = staged.records.get_mut(before..).and_then(<[_]>::last_mut) {
            last.batch_end = true;
        }
        // A repeat of something in this same write waits for the same sync.
        staged.waiting.push((batch.waiting, receipts));
    }

    fn judge(
        &self,
        record: &Record,
        first: u64,
        appended: Nanos,
        staged: &[StagedRecord],
    ) -> Result<Receipt, AppendError> {
        let producer = || record.producer.clone();
        match self.dedupe.judge(&record.producer) {
            Number::New { gap } => {
                let position = staged.len() as u64;
                Ok(Receipt::made(first + position, nth(appended, position), gap, false))
            }
            Number::Backwards { last } => Err(AppendError::Backwards { producer: producer(), last }),
            Number::Known { index } => {
                let (same, appended) = match index.checked_sub(first) {
                    Some(position) => {
                        let known = staged.get(position as usize);
                        let same = known.is_some_and(|known| known.record.bytes == record.bytes);
                        (same, nth(appended, position))
                    }
                    None => {
                        let known = self.view.read(index, 1, 0);
                        let known = known.map_err(|error| AppendError::Unknown(error.to_string()))?;
                        let known = known.first();
                        let same = known.is_some_and(|known| *known.bytes == *record.bytes);
                        (same, known.map_or(appended, |known| known.appended))
                    }
                };
                if same {
                    Ok(Receipt::made(index, appended, 0, true))
                } else {
                    Err(AppendError::Conflict { producer: producer(), index })
                }
            }
        }
    }

    /// Encodes what is staged into the buffer; gives each record's offset in the segment.
    fn encode(&mut self, first: u64, appended: Nanos, staged: &Staged) -> Vec<u64> {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        let mut offsets = Vec::with_capacity(staged.records.len());
        for (index, StagedRecord { record, batch_end, .. }) in (first..).zip(&staged.records) {
            offsets.push(self.segment.end + self.buffer.len() as u64);
            let stored = Stored {
                batch_end: *batch_end,
                tag: record.tag,
                epoch: self.epoch,
                index,
                write_start: first,
                appended: nth(appended, index - first),
                seq: record.producer.seq,
                boot: record.producer.boot,
                producer: &record.producer.id,
                event: &record.bytes,
            };
            stored.encode(&self.segment.id, &mut self.buffer);
        }
        offsets
    }

    /// Those batches for which there is room; the others are refused. On a full disk that is only what may use the
    /// reserve, and as soon as there is room again it is all.
    fn make_room(&mut self, batches: Vec<Batch>) -> Result<Vec<Batch>, Fatal> {
        let bytes = batches.iter().map(|batch| batch.bytes as u64).sum();
        let room = if self.segment.end >= self.segment_bytes {
            self.rotate(bytes)
        } else {
            let full = *self.filled.borrow();
            self.preallocation.provide(&*self.disk, &mut self.segment, bytes, full)
        };
        let full = match room {
            Ok(()) => false,
            Err(error) if is_full(&error) => true,
            Err(error) => {
                let reason = format!("making room behind {}: {error}", self.path());
                for batch in batches {
                    refuse(batch.waiting.answer, AppendError::Stopped(reason.clone()));
                }
                return Err(Fatal(reason));
            }
        };
        if !full {
            if *self.filled.borrow() {
                self.queue.has_room();
                self.filled.send_replace(false);
            }
            return Ok(batches);
        }
        let mut left = self.segment.ready.saturating_sub(self.segment.end);
        let (taken, refused): (Vec<_>, Vec<_>) = batches.into_iter().partition(|batch| {
            let fits = batch.from_reserve && batch.bytes as u64 <= left;
            left -= if fits { batch.bytes as u64 } else { 0 };
            fits
        });
        let refused = refused.into_iter().map(|batch| batch.waiting).collect();
        self.fill_up(refused, !taken.is_empty());
        Ok(taken)
    }

    /// The disk is full: says so to these, to all that wait behind them, and to whoever follows that. First of all their
    /// numbers are free again, so that what is said about it is numbered behind what is there. `busy` is whether others are
    /// still to be answered.
    fn fill_up(&self, refused: Vec<Waiting>, busy: bool) {
        let refused = self.queue.fill_up(refused, busy);
        self.filled.send_if_modified(|now| !std::mem::replace(now, true));
        refused.into_iter().for_each(|to| refuse(to.answer, AppendError::DiskFull));
    }

    /// Whether a full disk has room again, though nobody appends anything.
    fn look_for_room(&mut self) -> Result<(), Fatal> {
        if *self.filled.borrow() { self.make_room(Vec::new()).map(drop) } else { Ok(()) }
    }

    fn rotate(&mut self, bytes: u64) -> std::io::Result<()> {
        let first = *self.size.borrow();
        let origin = self.signer.verifier_key();
        let segments: &std::path::Path = (*self.view).as_ref();
        let ready = bytes + RESERVE_BYTES + EXTENT_BYTES_MIN;
        let next = create_segment(&*self.disk, segments, origin.name(), first, ready)?;
        let mut full = std::mem::replace(&mut self.segment, next);
        give_back(&*self.disk, &mut full);
        self.counters.segment(HEADER_BYTES);
        self.view.add_segment(self.segment.id);
        Ok(())
    }

    fn unsigned(&self) -> bool {
        self.checkpoint.borrow().size() < *self.size.borrow()
    }

    /// Until the next signature may be made. Who waits for one isn't kept waiting by a clock that stands still.
    fn until_signature(&self) -> Duration {
        let Some((at, at_machine)) = self.signed_at else { return Duration::ZERO };
        let passed = self.time.monotonic().saturating_sub(at);
        if !self.sign.is_empty() {
            return SIGN_INTERVAL.saturating_sub(passed.max(at_machine.elapsed()));
        }
        let share = (self.signing_took * SIGN_SHARE).min(SIGN_INTERVAL_MAX);
        SIGN_INTERVAL.max(share).saturating_sub(passed)
    }

    /// 5. Sign what is durable and published, if it is time. A crash before the checkpoint's rename leaves the
    ///    old checkpoint; after it, the new one. Both are true.
    fn sign(&mut self, closing: bool) -> Result<(), Fatal> {
        let unsigned = self.unsigned();
        if unsigned && (closing || self.until_signature() == Duration::ZERO) {
            self.signed_at = Some((self.time.monotonic(), Instant::now()));
            let (size, root) = self.view.head();
            let path = self.directory.join("checkpoint");
            let checkpoint = match Checkpoint::sign(size, root, &*self.signer) {
                Ok(checkpoint) => checkpoint,
                Err(error) => {
                    self.not_signed(&error.to_string());
                    return Ok(());
                }
            };
            let writing = Instant::now();
            let written = write_checkpoint(&*self.disk, &path, &checkpoint);
            self.signing_took = writing.elapsed();
            match written {
                Ok(()) => {
                    self.checkpoint.send_replace(checkpoint);
                    if std::mem::take(&mut self.signing_fails) {
                        tracing::info!("checkpoints are signed again");
                    }
                }
                Err(error) if is_full(&error) => self.not_signed(&error.to_string()),
                Err(error) => return Err(Fatal(format!("writing {}: {error}", path.display()))),
            }
        }
        if !self.unsigned() && !self.sign.is_empty() {
            let checkpoint = self.checkpoint.borrow().clone();
            for waiting in self.sign.drain(..) {
                answer(waiting, Ok(checkpoint.clone()));
            }
        }
        Ok(())
    }

    /// The old checkpoint stays true; it is tried again at the next turn.
    fn not_signed(&mut self, reason: &str) {
        // Ten times a second is too often to say it.
        if !std::mem::replace(&mut self.signing_fails, true) {
            tracing::error!(reason, "no checkpoint can be signed; it is tried again until it works");
        }
        for waiting in self.sign.drain(..) {
            refuse(waiting, AppendError::Unknown(format!("no checkpoint could be signed: {reason}")));
        }
    }

    fn unknown(&self, waiting: Vec<Waiting>, reason: &str) -> Fatal {
        // Refuse before answering: whoever hears of the failure finds the log stopped.
        self.queue.stop(reason);
        for to in waiting {
            refuse(to.answer, AppendError::Unknown(reason.to_owned()));
        }
        Fatal(reason.to_owned())
    }

    fn path(&self) -> String {
        self.segment.path.display().to_string()
    }
}

/// The time of entry `position` of a write that began at `first`: each is a nanosecond later than the one before.
fn nth(first: Nanos, position: u64) -> Nanos {
    Nanos(first.0.saturating_add(position))
}
