//! What waits to be written: bounded by bytes, in order of submission.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::log::{AppendError, Checkpoint, Pending, Receipt, Record, SubmitError};

/// What one write holds at most, if the first batch alone isn't longer; bytes.
const WRITE_BYTES_MAX: usize = 8 << 20;
/// Below this many batches in the last write nobody waits for a herd: a single producer would pay for it.
const HERD_MIN: usize = 8;
/// The wait for the herd: about one sync.
const HERD_WAIT: Duration = Duration::from_micros(120);
/// What a queued record costs besides its event, roughly: so that tiny events are bounded too.
const RECORD_OVERHEAD_BYTES: usize = 128;

pub(super) type Answer<T> = oneshot::Sender<Result<T, AppendError>>;

/// A batch and who waits for it.
pub(super) struct Batch {
    pub records: Vec<Record>,
    pub bytes: usize,
    pub answer: Answer<Vec<Receipt>>,
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
}

struct State {
    batches: VecDeque<Batch>,
    sign: Vec<Answer<Checkpoint>>,
    bytes: usize,
    /// With how many batches the writer wants to be woken.
    wanted: usize,
    closing: bool,
    confirm_clock: bool,
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
            wanted: 1,
            closing: false,
            confirm_clock: false,
            stopped: None,
        };
        Queue { bytes_max, state: Mutex::new(state), wake: Condvar::new() }
    }

    pub fn submit(&self, records: Vec<Record>) -> Result<Pending, SubmitError> {
        let bytes = records.iter().map(|record| record.bytes.len() + RECORD_OVERHEAD_BYTES).sum();
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
        let (answer, pending) = Pending::new();
        state.bytes += bytes;
        state.batches.push_back(Batch { records, bytes, answer });
        if state.batches.len() >= state.wanted {
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
            refuse(batch.answer, AppendError::Stopped(reason.to_owned()));
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

    /// Waits for work, at most for `patience`. `last_write` is how many batches the last write held: if they
    /// were many, their producers are just being woken and most of them come back at once.
    pub fn take(&self, patience: Option<Duration>, last_write: usize) -> Work {
        let mut state = self.lock();
        if last_write >= HERD_MIN {
            state.wanted = last_write - last_write / 16;
            let until = Instant::now() + HERD_WAIT;
            while state.batches.len() < state.wanted && !state.closing && state.sign.is_empty() {
                let Some(left) = until.checked_duration_since(Instant::now()) else { break };
                state = self.wait(state, Some(left));
            }
            state.wanted = 1;
        }
        let until = patience.map(|patience| Instant::now() + patience);
        while state.batches.is_empty() && state.sign.is_empty() && !state.closing {
            match until.map(|until| until.checked_duration_since(Instant::now())) {
                Some(None) => break,
                Some(left) => state = self.wait(state, left),
                None => state = self.wait(state, None),
            }
        }
        let mut work = Work { confirm_clock: state.confirm_clock, ..Work::default() };
        state.confirm_clock = false;
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
        work.sign = std::mem::take(&mut state.sign);
        work.last = state.closing && state.batches.is_empty();
        work
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, left: Option<Duration>) -> MutexGuard<'a, State> {
        match left {
            Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
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
