//! One batch on its way: it ends when each of its events is stored, or refused for what it is.

use super::Shared;
use super::course::End;
use crate::backoff::Backoff;
use crate::health::At;
use crate::item::Item;
use crate::proof::{REDACTED_OTHERWISE, difference};
use crate::sink::{Answer, Held, Sink, Trouble, Unproven, Window};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

/// An event as the destination takes it.
pub(crate) struct Letter<S: Sink> {
    /// What was encoded.
    item: Item,
    bytes: usize,
    encoded: S::Encoded,
}

impl<S: Sink> Letter<S> {
    pub(crate) fn new(item: Item, encoded: S::Encoded) -> Self {
        Self { item, bytes: S::bytes(&encoded), encoded }
    }

    pub(crate) fn index(&self) -> u64 {
        self.item.index
    }

    /// How long it is, as the destination takes it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn rejected(self, reason: &str) -> Rejection {
        Rejection { index: self.item.index, kind: self.item.kind(), reason: reason.to_owned() }
    }

    /// Whether a document is this event. What only claims its index keeps it from nothing.
    fn is(&self, held: &Held) -> bool {
        held.index == Some(self.item.index)
            && matches!(difference(&self.item, held), None | Some(REDACTED_OTHERWISE))
    }
}

/// An event that the destination refuses for what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) index: u64,
    pub(crate) kind: String,
    pub(crate) reason: String,
}

impl Rejection {
    /// Whether that isn't what the destination says of the event, but that another document stands in its place.
    pub(crate) fn is_taken(&self) -> bool {
        self.reason == TAKEN
    }
}

/// How often what "exists already" is looked up and not found, before it is somebody else's.
const EXISTED_MAX: u32 = 3;
/// After how many refusals one event alone is tried: what is longer than a burst may be, some refuse in the words of one who is
/// busy, for ever.
const REFUSALS: u32 = 4;
const TAKEN: &str = "another document stands in its place";

/// Some letters, and whether the destination may have them already.
struct Chunk<S: Sink> {
    letters: Vec<Letter<S>>,
    in_doubt: bool,
    /// How often the destination said of one of them that it exists already.
    existed: u32,
    /// Behind how many bytes it was cut off, if it was and is whole.
    cut: Option<usize>,
}

impl<S: Sink> Chunk<S> {
    fn new(letters: Vec<Letter<S>>, in_doubt: bool) -> Self {
        Self { letters, in_doubt, existed: 0, cut: None }
    }
}

/// Brings letters home, in order. `in_doubt`: they may have been sent before. `cut`: see [`Batch::cut`]. It ends when they are, however
/// long that takes.
pub(super) async fn deliver<S: Sink>(
    shared: &Shared<S>,
    letters: Vec<Letter<S>>,
    in_doubt: bool,
    cut: Option<usize>,
    at: At,
) -> Vec<Rejection> {
    let events = letters.len();
    let mut open = VecDeque::from([Chunk { cut, ..Chunk::new(letters, in_doubt) }]);
    let mut rejected: Vec<Rejection> = Vec::new();
    let mut backoff = Backoff::default();
    let mut refusals = 0;
    while let Some(mut chunk) = open.pop_front() {
        if let Err(trouble) = prepare(shared, at).await {
            wait(shared, at, &mut backoff, &trouble.to_string(), trouble.retry_after()).await;
            open.push_front(chunk);
            continue;
        }
        // What doesn't arrive in time as a whole doesn't come back in time either.
        let room = shared.pace.bytes();
        if let Some(letters) = split(&mut chunk.letters, room) {
            chunk.cut = Some(room);
            open.push_front(Chunk { existed: chunk.existed, ..Chunk::new(letters, chunk.in_doubt) });
        }
        if chunk.in_doubt {
            let whole = chunk.letters.len();
            match look_up(shared, at, &mut chunk.letters).await {
                Ok(()) => {
                    chunk.in_doubt = false;
                    chunk.cut = chunk.cut.filter(|_| chunk.letters.len() == whole);
                }
                Err(reason) => {
                    wait(shared, at, &mut backoff, &reason, None).await;
                    open.push_front(chunk);
                    continue;
                }
            }
        }
        if chunk.letters.is_empty() {
            continue;
        }
        let bytes = length(&chunk.letters);
        let (took, answer) = send(shared, at, &chunk.letters).await;
        match answer {
            Ok(answers) => {
                shared.pace.arrived(bytes, took, chunk.cut);
                let sent = chunk.letters.len();
                let left = settle(shared, at, chunk, answers, &mut rejected);
                if let Some((chunk, reason)) = left {
                    if chunk.letters.len() == sent {
                        // Perhaps what was made ready isn't there any more.
                        shared.unprepared.store(true, Release);
                    }
                    wait(shared, at, &mut backoff, &reason, None).await;
                    open.push_front(chunk);
                } else {
                    backoff.reset();
                    refusals = 0;
                }
            }
            Err(Trouble::TooLarge { reason }) => {
                if let [_] = chunk.letters.as_slice() {
                    rejected.extend(chunk.letters.into_iter().map(|letter| letter.rejected(&reason)));
                } else {
                    shared.pace.was_too_large(bytes);
                    halve(&mut open, chunk.letters, false);
                }
            }
            Err(Trouble::Poisoned { reason }) => {
                if let [_] = chunk.letters.as_slice() {
                    rejected.extend(chunk.letters.into_iter().map(|letter| letter.rejected(&reason)));
                } else {
                    halve(&mut open, chunk.letters, true);
                }
            }
            Err(trouble) => {
                refusals += 1;
                match (&trouble, chunk.letters.as_slice()) {
                    (Trouble::Late { .. }, [_]) => shared.pace.one_was_late(),
                    (Trouble::Late { .. }, _) => shared.pace.was_late(bytes),
                    (_, [_]) => shared.pace.one_was_refused(),
                    _ if refusals % REFUSALS == 0 => shared.pace.was_refused(bytes),
                    _ => {}
                }
                shared.unprepared.store(true, Release);
                chunk.in_doubt = trouble.leaves_doubt();
                wait(shared, at, &mut backoff, &trouble.to_string(), trouble.retry_after()).await;
                open.push_front(chunk);
            }
        }
    }
    let reason = rejected.last().map(|rejection| rejection.reason.as_str());
    shared.health.ended(at, events - rejected.len(), rejected.len(), reason);
    rejected
}

/// Takes out what the destination has already.
async fn look_up<S: Sink>(shared: &Shared<S>, at: At, letters: &mut Vec<Letter<S>>) -> Result<(), String> {
    let (Some(first), Some(last)) = (letters.first(), letters.last()) else { return Ok(()) };
    let (first, last) = (&first.item, &last.item);
    let window = Window {
        indexes: first.index..last.index.saturating_add(1),
        appended: first.appended..last.appended.saturating_add(Duration::from_nanos(1)),
    };
    let begun = Instant::now();
    let found = loop {
        match within(shared, at, shared.sink.look_up(&window)).await {
            Some(Ok(found)) => break found,
            // It goes on where it was: waiting would bring it nothing. But nothing is delivered meanwhile.
            Some(Err(Unproven::Unfinished(reason))) => shared.health.takes_long(at, begun, &reason),
            // What can't be looked up is sent again: at least once is all that such a destination gives.
            Some(Err(Unproven::Never(_))) => return Ok(()),
            Some(Err(Unproven::Now(reason) | Unproven::TooMuch(reason))) => return Err(reason),
            None => {
                match letters.as_slice() {
                    [_] => shared.pace.one_was_late(),
                    letters => shared.pace.was_late(length(letters)),
                }
                return Err("no answer came to what it holds".to_owned());
            }
        }
    };
    let mut documents: HashMap<u64, Vec<Held>> = HashMap::new();
    for held in found.documents {
        if let Some(index) = held.index {
            documents.entry(index).or_default().push(held);
        }
    }
    let before = letters.len();
    letters.retain(|letter| {
        !documents.get(&letter.item.index).is_some_and(|held| held.iter().any(|held| letter.is(held)))
    });
    if let Some(reason) = found.perhaps_more.filter(|_| !letters.is_empty()) {
        return Err(reason);
    }
    let found = before - letters.len();
    shared.health.looked_up(before, found);
    if found > 0 {
        shared.health.confirmed(at, found, 0);
    }
    Ok(())
}

async fn prepare<S: Sink>(shared: &Shared<S>, at: At) -> Result<(), Trouble> {
    if !shared.unprepared.load(Acquire) {
        return Ok(());
    }
    let _turn = shared.preparing.lock().await;
    if !shared.unprepared.load(Acquire) {
        return Ok(());
    }
    match within(shared, at, shared.sink.prepare()).await {
        Some(Ok(())) => {
            shared.unprepared.store(false, Release);
            Ok(())
        }
        Some(Err(trouble)) => Err(trouble),
        None => Err(Trouble::unclear("no answer came while it was made ready")),
    }
}

/// What the destination answers, and after how long.
async fn send<S: Sink>(
    shared: &Shared<S>,
    at: At,
    letters: &[Letter<S>],
) -> (Duration, Result<Vec<Answer>, Trouble>) {
    let encoded: Vec<&S::Encoded> = letters.iter().map(|letter| &letter.encoded).collect();
    // Whose turn it is says nothing of the destination: the time it takes begins afterwards.
    let _turn = match &shared.turns {
        Some(turns) => Some(turns.lock().await),
        None => None,
    };
    let begun = Instant::now();
    let answer = match within(shared, at, shared.sink.send(&encoded)).await {
        Some(Ok(answers)) if answers.len() != letters.len() => {
            Err(Trouble::unclear(format!("{} answers came to {} events", answers.len(), letters.len())))
        }
        Some(answer) => answer,
        None => Err(Trouble::Late { reason: "no answer came in time".to_owned(), in_doubt: true }),
    };
    (begun.elapsed(), answer)
}

/// What the destination answers, if it does so in time.
async fn within<S: Sink, T>(shared: &Shared<S>, at: At, asked: impl Future<Output = T>) -> Option<T> {
    let answer = tokio::time::timeout(shared.sink.limits().timeout, asked).await.ok();
    if answer.is_some() {
        shared.health.heard(at);
    }
    answer
}

/// Sorts letters by their answers: gives those that have to be sent again, and why.
fn settle<S: Sink>(
    shared: &Shared<S>,
    at: At,
    chunk: Chunk<S>,
    answers: Vec<Answer>,
    rejected: &mut Vec<Rejection>,
) -> Option<(Chunk<S>, String)> {
    let (mut events, mut bytes) = (0, 0);
    let Chunk { letters, existed, .. } = chunk;
    let mut left = Chunk { existed, ..Chunk::new(Vec::new(), false) };
    let mut first_reason = None;
    for (letter, answer) in letters.into_iter().zip(answers) {
        left.in_doubt |= matches!(answer, Answer::Unclear(_) | Answer::Exists);
        match answer {
            Answer::Stored => {
                events += 1;
                bytes += letter.bytes;
            }
            Answer::Exists if existed >= EXISTED_MAX => rejected.push(letter.rejected(TAKEN)),
            Answer::Exists => {
                left.existed = existed + 1;
                first_reason.get_or_insert_with(|| "something is there already".to_owned());
                left.letters.push(letter);
            }
            Answer::Rejected(reason) => rejected.push(letter.rejected(&reason)),
            Answer::Later(reason) | Answer::Unclear(reason) => {
                first_reason.get_or_insert(reason);
                left.letters.push(letter);
            }
        }
    }
    if events > 0 || first_reason.is_none() {
        shared.health.confirmed(at, events, bytes);
    }
    first_reason.map(|reason| (left, reason))
}

async fn wait<S: Sink>(
    shared: &Shared<S>,
    at: At,
    backoff: &mut Backoff,
    reason: &str,
    asked: Option<Duration>,
) {
    let wait = backoff.next(asked);
    tracing::debug!("sink {}: {reason}; trying again in {} ms", shared.name, wait.as_millis());
    shared.health.failed(at, reason);
    tokio::time::sleep(wait).await;
}

fn length<S: Sink>(letters: &[Letter<S>]) -> usize {
    letters.iter().map(|letter| letter.bytes).sum()
}

/// Splits behind the letters that fit into so many bytes; the first always does.
fn split<S: Sink>(letters: &mut Vec<Letter<S>>, bytes_max: usize) -> Option<Vec<Letter<S>>> {
    let mut bytes = 0_usize;
    let fit = letters.iter().take_while(|letter| {
        bytes = bytes.saturating_add(letter.bytes);
        bytes <= bytes_max
    });
    let fit = fit.count().max(1);
    (fit < letters.len()).then(|| letters.split_off(fit))
}

fn halve<S: Sink>(open: &mut VecDeque<Chunk<S>>, mut letters: Vec<Letter<S>>, in_doubt: bool) {
    let second = letters.split_off(letters.len() / 2);
    open.push_front(Chunk::new(second, in_doubt));
    open.push_front(Chunk::new(letters, in_doubt));
}

/// A part of the log, ready to be delivered.
pub(super) struct Batch<S: Sink> {
    /// All its indexes, also those that the filter holds back.
    pub indexes: Range<u64>,
    /// The last one's leaf and time.
    pub last: End,
    pub letters: Vec<Letter<S>>,
    /// Behind how many bytes it was cut, where the destination would take more at once, and that wouldn't arrive in time.
    pub cut: Option<usize>,
    pub rejected: Vec<Rejection>,
}
