//! What waits to be written: bounded by bytes, in order of submission.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::segment::record_bytes;
use crate::log::tree::leaf_hash;
use crate::log::{AppendError, Checkpoint, Claim, Hash, Pending, Receipt, Record, SubmitError};

/// What one write holds at most, if the first batch alone isn't longer; bytes.
const WRITE_BYTES_MAX: usize = 8 << 20;
/// Below this many batches in the last write nobody waits for a herd: a single producer would pay for it.
const HERD_MIN: usize = 8;
/// The longest wait for a herd, however slow the disk is.
const HERD_WAIT_MAX: Duration = Duration::from_millis(4);
/// After waits that didn't pay, this many writes are made without one at most.
const HERD_SKIP_MAX: u32 = 255;

pub(super) type Answer<T> = oneshot::Sender<Result<T, AppendError>>;

/// A batch and who waits for it.
pub(super) struct Batch {
    /// With the leaves of the tree: hashed by whoever submits, while the writer waits for the disk.
    pub records: Vec<(Record, Hash)>,
    /// What it takes in a segment.
    pub bytes: usize,
    /// Whether it is the log's own word on a full disk, for which the reserve is kept. Nothing waits before such a one, so
    /// nothing that is refused leaves a hole before its numbers.
    pub from_reserve: bool,
    pub waiting: Waiting,
}

/// Who waits for a batch.
pub(super) struct Waiting {
    pub answer: Answer<Vec<Receipt>>,
    /// The batch's numbers, which are given back if there is no room for it.
    pub claim: Option<Claim>,
}

/// What the writer gets to do.
#[derive(Default)]
pub(super) struct Work {
    pub batches: Vec<Batch>,
    pub sign: Vec<Answer<Checkpoint>>,
    /// Nothing will come any more, and nothing is left behind.
    pub last: bool,
    /// Somebody says that the clock is right.
    pub confirm_clock: bool,
    /// Somebody wants to know whether a full disk has room again.
    pub look_for_room: bool,
}

/// Whether it pays to let the producers of the last write come back before the next one begins.
///
/// Producers that wait for their receipts come in herds. Those who were just woken miss the next write unless it waits
/// for them, and then half of them share each sync. But waking them costs time too, and where that is more than a sync
/// takes, the two halves of a herd had better take turns: one is woken while the other's write is synced.
#[derive(Debug, Default)]
pub(super) struct Herd {
    /// Batches of the last write.
    woken: usize,
    /// How long its sync took.
    sync: Duration,
    /// Writes before which nobody waits, since the last wait was in vain.
    skip: u32,
    /// How many there are after the next wait in vain.
    next_skip: u32,
}

impl Herd {
    /// `woken` batches are answered after a sync that took `sync`.
    pub fn wrote(&mut self, woken: usize, sync: Duration) {
        (self.woken, self.sync) = (woken, sync);
    }

    /// For how many batches to wait now and how long, if `waiting` are there already.
    fn wanted(&mut self, waiting: usize) -> Option<(usize, Duration)> {
        let woken = std::mem::take(&mut self.woken);
        if woken < HERD_MIN {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let all = woken + waiting;
        Some((all - all / 16, self.sync.min(HERD_WAIT_MAX)))
    }

    /// Whether they came in time.
    fn came(&mut self, all: bool) {
        self.next_skip = if all { 0 } else { (2 * self.next_skip + 1).min(HERD_SKIP_MAX) };
        self.skip = self.next_skip;
    }
}

struct State {
    batches: VecDeque<Batch>,
    sign: Vec<Answer<Checkpoint>>,
    bytes: usize,
    /// With how many batches the writer wants to be woken; none while it is awake, since each call costs.
    wanted: Option<usize>,
    closing: bool,
    confirm_clock: bool,
    look_for_room: bool,
    /// Whether the disk is full. Then one batch at a time is taken, when the writer has answered the one before: so the
    /// numbers of one that is refused are free again before the next of its producer is numbered.
    full: bool,
    /// Whether the writer has batches that it hasn't answered yet; only kept up to date while the disk is full.
    busy: bool,
    /// Why nothing is taken any more.
    stopped: Option<String>,
}

/// The queue between producers and the writer.
pub(super) struct Queue {
    bytes_max: usize,
    /// Holding it guarantees the order of submission; never held over a write.
    state: Mutex<State>,
    wake: Condvar,
}

impl Queue {
    pub fn new(bytes_max: usize) -> Queue {
        let state = State {
            batches: VecDeque::new(),
            sign: Vec::new(),
            bytes: 0,
            wanted: None,
            closing: false,
            confirm_clock: false,
            look_for_room: false,
            full: false,
            busy: false,
            stopped: None,
        };
        Queue { bytes_max, state: Mutex::new(state), wake: Condvar::new() }
    }

    pub fn submit(
        &self,
        records: Vec<Record>,
        claim: Option<Claim>,
        from_reserve: bool,
    ) -> Result<Pending, SubmitError> {
        // All that takes time, before the lock.
        let bytes =
            records.iter().map(|record| record_bytes(record.producer.id.len(), record.bytes.len())).sum();
        let hashed = |record: Record| {
            let leaf = leaf_hash(&record.bytes);
            (record, leaf)
        };
        let records = records.into_iter().map(hashed).collect();
        let (answer, pending) = Pending::new();
        let mut batch = Batch { records, bytes, from_reserve: false, waiting: Waiting { answer, claim } };
        let mut state = self.lock();
        if let Some(reason) = &state.stopped {
            return Err(SubmitError::Stopped(reason.clone()));
        }
        if state.closing {
            return Err(SubmitError::Stopped("it is being closed".to_owned()));
        }
        if state.bytes.saturating_add(bytes) > self.bytes_max {
            return Err(SubmitError::Overloaded { queued_bytes: state.bytes });
        }
        // The log's own word is to be said again a moment later: it was in the way, or the numbers before its own were given
        // back when it had read them.
        let in_the_way = || match from_reserve {
            true => SubmitError::Overloaded { queued_bytes: state.bytes },
            false => SubmitError::DiskFull,
        };
        if state.full && (state.busy || !state.batches.is_empty()) {
            return Err(in_the_way());
        }
        if batch.waiting.claim.as_ref().is_some_and(|claim| !claim.take()) {
            return Err(in_the_way());
        }
        // While there is room it is like all others, which may wait before it and be refused yet: then it is refused with
        // them, and all their numbers are free again.
        batch.from_reserve = from_reserve && state.full;
        state.bytes += bytes;
        state.batches.push_back(batch);
        if state.wanted.is_some_and(|wanted| state.batches.len() >= wanted) {
            state.wanted = None;
            drop(state);
            self.wake.notify_one();
        }
        Ok(pending)
    }

    pub fn sign(&self) -> Pending<Checkpoint> {
        let (answer, pending) = Pending::new();
        let mut state = self.lock();
        match &state.stopped {
            Some(reason) => refuse(answer, AppendError::Stopped(reason.clone())),
            None => {
                state.sign.push(answer);
                self.wake.notify_one();
            }
        }
        pending
    }

    pub fn confirm_clock(&self) {
        self.lock().confirm_clock = true;
    }

    /// Has the writer look whether a full disk has room again.
    pub fn look_for_room(&self) {
        self.lock().look_for_room = true;
        self.wake.notify_one();
    }

    /// The disk is full. Gives those who are to be told so: `refused`, and all that wait and may not use the reserve. Their
    /// numbers are given back, the last first. `busy` is whether the writer has others still.
    pub fn fill_up(&self, mut refused: Vec<Waiting>, busy: bool) -> Vec<Waiting> {
        let mut state = self.lock();
        (state.full, state.busy) = (true, busy);
        let (kept, others): (VecDeque<Batch>, VecDeque<Batch>) =
            std::mem::take(&mut state.batches).into_iter().partition(|batch| batch.from_reserve);
        state.batches = kept;
        let bytes: usize = others.iter().map(|batch| batch.bytes).sum();
        state.bytes -= bytes.min(state.bytes);
        refused.extend(others.into_iter().map(|batch| batch.waiting));
        for claim in refused.iter().rev().filter_map(|waiting| waiting.claim.as_ref()) {
            claim.give_back();
        }
        refused
    }

    /// The disk has room again.
    pub fn has_room(&self) {
        self.lock().full = false;
    }

    /// The writer is about to answer all that it has.
    pub fn idle(&self) {
        self.lock().busy = false;
    }

    /// Takes no more; what waits is still written.
    pub fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// Takes no more and refuses what waits: none of it was written.
    pub fn stop(&self, reason: &str) {
        let (batches, sign) = {
            let mut state = self.lock();
            state.stopped.get_or_insert_with(|| reason.to_owned());
            state.bytes = 0;
            (std::mem::take(&mut state.batches), std::mem::take(&mut state.sign))
        };
        for batch in batches {
            refuse(batch.waiting.answer, AppendError::Stopped(reason.to_owned()));
        }
        for answer in sign {
            refuse(answer, AppendError::Stopped(reason.to_owned()));
        }
    }

    /// How many batches and bytes wait.
    pub fn depth(&self) -> (u64, u64) {
        let state = self.lock();
        (state.batches.len() as u64, state.bytes as u64)
    }

    /// Why it was stopped, if it was.
    pub fn stopped(&self) -> Option<String> {
        self.lock().stopped.clone()
    }

    /// Waits for work, at most for `patience`, and for a herd where that pays.
    pub fn take(&self, patience: Option<Duration>, herd: &mut Herd) -> Work {
        let mut state = self.lock();
        if let Some((wanted, wait)) = herd.wanted(state.batches.len()) {
            let until = Instant::now() + wait;
            while state.batches.len() < wanted && !state.closing && state.sign.is_empty() {
                let Some(left) = until.checked_duration_since(Instant::now()) else { break };
                state = self.wait(state, wanted, Some(left));
            }
            herd.came(state.batches.len() >= wanted);
        }
        let until = patience.map(|patience| Instant::now() + patience);
        while state.batches.is_empty() && state.sign.is_empty() && !state.closing && !state.look_for_room {
            match until.map(|until| until.checked_duration_since(Instant::now())) {
                Some(None) => break,
                Some(left) => state = self.wait(state, 1, left),
                None => state = self.wait(state, 1, None),
            }
        }
        let mut work = Work {
            confirm_clock: std::mem::take(&mut state.confirm_clock),
            look_for_room: std::mem::take(&mut state.look_for_room),
            ..Work::default()
        };
        let mut bytes = 0;
        while let Some(batch) = state.batches.pop_front() {
            if bytes > 0 && bytes + batch.bytes > WRITE_BYTES_MAX {
                state.batches.push_front(batch);
                break;
            }
            bytes += batch.bytes;
            work.batches.push(batch);
        }
        state.bytes -= bytes.min(state.bytes);
        state.busy = !work.batches.is_empty();
        work.sign = std::mem::take(&mut state.sign);
        work.last = state.closing && state.batches.is_empty();
        work
    }

    /// Sleeps until there are `wanted` batches, something else is to be done, or the time is over.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        wanted: usize,
        left: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        state.wanted = Some(wanted);
        let mut state = match left {
            Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.wanted = None;
        state
    }

    // No code that holds it can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers somebody who may have stopped listening: that changes nothing.
pub(super) fn answer<T>(to: Answer<T>, result: Result<T, AppendError>) {
    drop(to.send(result));
}

/// Answers with an error.
pub(super) fn refuse<T>(to: Answer<T>, error: AppendError) {
    answer(to, Err(error));
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
