//! Reads a destination back, and proves that each event that the sink lets through stands there, once and unaltered.
//!
//! The log is walked in windows that tile all indexes and all of time, so that a document that claims no index, or one
//! that the log doesn't have, turns up in one of them. What can't be shown in full proves nothing: such a window is
//! *not proven*, and never complete. Nor does a log prove anything whose disk gives other entries than stand in its tree:
//! what is compared is what was signed, or there is no report.

#[cfg(test)]
mod tests;
mod tree;

use crate::dead_letters::Told;
use crate::delivery::Control;
use crate::item::Item;
use crate::sink::{Fields, Found, Held, Sink, Unproven, Window};
use custody_core::clock::Nanos;
use custody_core::delivery::{Report, Unshown};
use custody_core::event::{Family, Head};
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Entry, Log, ReadError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tree::Leaves;

/// Events in a window.
const WINDOW_EVENTS: usize = 2_000;
const WINDOW_BYTES: usize = 4 << 20;
/// How often a window is asked for that can't be shown right now.
const ATTEMPTS: u32 = 4;
const PATIENCE: Duration = Duration::from_millis(500);
/// Documents that don't belong there of which is remembered that they were counted.
const STRANGERS_MAX: usize = 100_000;
/// How often is looked whether the log has grown meanwhile: each time by less, unless it grows faster than it is compared.
const ROUNDS: usize = 8;

/// Compares everything below `size`, as [`prove_part`].
///
/// # Errors
/// When the log can't be read, or isn't what was signed, or the delivery has stopped.
pub async fn prove<S: Sink>(
    control: &Control<S>,
    size: u64,
    told: impl FnMut(u64) + Send,
) -> Result<Report, ProofError> {
    prove_part(control, 0..size, told).await
}

/// Compares a part of the log, which a signed checkpoint covers. `told` hears how far it is. What the destination has of before it
/// isn't looked at. One comparison at a time: what a destination has read for one, it would have to read again for the other.
///
/// # Errors
/// When the log can't be read, or isn't what was signed, or the delivery has stopped.
pub async fn prove_part<S: Sink>(
    control: &Control<S>,
    indexes: Range<u64>,
    told: impl FnMut(u64) + Send,
) -> Result<Report, ProofError> {
    prove_where(control, indexes, control.shared.sink.hides_copies(), told).await
}

async fn prove_where<S: Sink>(
    control: &Control<S>,
    indexes: Range<u64>,
    hides_copies: bool,
    mut told: impl FnMut(u64) + Send,
) -> Result<Report, ProofError> {
    let size = indexes.end;
    let Ok(_turn) = control.shared.proving.try_lock() else { return Err(ProofError::Busy) };
    // Which there are: nobody asks here what was said of them, which may be gigabytes.
    let letters = control.listing().await.map_err(ProofError::DeadLetters)?;
    let shared = Arc::clone(&control.shared);
    let dead = blocking(move || known_to_be_refused(&*shared.log, &shared.name, letters.indexes())).await?;
    let log = Arc::clone(&control.shared.log);
    let (from, mut since, mut leaves) = blocking(move || {
        let (from, since) = beginning(&*log, indexes.start)?;
        Ok::<_, ReadError>((from, since, Leaves::before(&*log, from)?))
    })
    .await?;
    let mut report = Report { from, size, ..Report::default() };
    let mut strangers = Strangers::default();
    let mut next = from;
    while next < size {
        let (items, until, taken) = take(control, next, size, leaves).await?;
        leaves = taken;
        let to = next + items.len() as u64;
        let window = Window { indexes: next..to, appended: since..until };
        match shown(control, &window).await {
            Ok(found) => {
                let hidden = compare(control, items, found, &dead, &mut strangers, &mut report);
                match hidden {
                    Some(Hidden { unseen: 0, reason }) if hides_copies => {
                        unshown(&mut report, next..to, may_not_show(&reason));
                    }
                    None | Some(Hidden { unseen: 0, .. }) => {}
                    Some(Hidden { unseen, reason }) => {
                        unshown(&mut report, next..to, format!("{unseen} events don't show: {reason}"));
                    }
                }
            }
            Err(Unproven::Never(reason)) => {
                report.unproven.push(Unshown { from, to: size, reason: reason.to_owned() });
                return Ok(report);
            }
            Err(Unproven::Now(reason) | Unproven::TooMuch(reason) | Unproven::Unfinished(reason)) => {
                let expected = items
                    .iter()
                    .filter(|item| control.shared.filter.passes(item) && !dead.contains(&item.index));
                report.expected += expected.count() as u64;
                report.unproven.push(Unshown { from: next, to, reason });
            }
        }
        (next, since) = (to, until);
        told(next);
    }
    let log = Arc::clone(&control.shared.log);
    blocking(move || leaves.end(&*log)).await?;
    let mut later = Later { control, size, hides_copies, strangers, report };
    let (next, since) = later.read(since, &mut told).await?;
    later.beyond(next, since).await;
    Ok(later.report)
}

/// The dead letters of which the log tells, and those that tell of a sink themselves, of which it never does.
fn known_to_be_refused(
    log: &dyn Log,
    sink: &str,
    letters: &BTreeSet<u64>,
) -> Result<BTreeSet<u64>, ReadError> {
    let Some(first) = letters.first() else { return Ok(BTreeSet::new()) };
    let told = Told::read(log, sink, *first)?;
    let mut known = BTreeSet::new();
    for &index in letters {
        if told.of(index) || tells_of_a_sink(log, index)? {
            known.insert(index);
        }
    }
    Ok(known)
}

/// By the event itself: an entry's tag is under no hash.
fn tells_of_a_sink(log: &dyn Log, index: u64) -> Result<bool, ReadError> {
    let entries = log.read(index, 1, 0)?;
    let head = entries.first().and_then(|entry| Head::parse(&entry.bytes).ok());
    Ok(head.is_some_and(|head| Family::of(&head.kind) == Some(Family::Sink)))
}

/// What may wait for a disk, where it may.
async fn blocking<T, E>(read: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, ProofError>
where
    T: Send + 'static,
    E: Send + 'static,
    ProofError: From<E>,
{
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| ProofError::Broken(error.to_string()))?.map_err(ProofError::from)
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The dead letters.
    #[error("{0}")]
    DeadLetters(String),
    /// Somebody else has it compared.
    #[error("it is being compared with the log for somebody else: try again when that has come to its end")]
    Busy,
    /// The log's disk gives another entry than stands in its tree, which is what it signs.
    #[error(
        "{} isn't what the log's disk gives for it now: somebody has written into its files, so nothing is proven; see \
         `custody log check DATA`, and bring it back by `custody log restore`",
        signed(*.first, *.last)
    )]
    Replaced {
        /// The first that may be another one.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A part of it broke.
    #[error("reading the log broke: {0}")]
    Broken(String),
}

fn signed(first: u64, last: u64) -> String {
    if first == last {
        format!("entry {first} of the log as it is signed")
    } else {
        format!("one of the entries {first} to {last} of the log as they are signed")
    }
}

/// Where a comparison begins, and at which time: a destination shows events by their times too, and so those that have one time
/// stay together. The whole log begins before all times.
fn beginning(log: &dyn Log, from: u64) -> Result<(u64, Nanos), ReadError> {
    let first = |entries: Vec<Entry>| entries.first().map(|entry| entry.appended);
    let appended = |index| log.read(index, 1, 0).map(first);
    let mut from = from;
    let Some(since) = appended(from)? else { return Ok((from, Nanos(u64::MAX))) };
    while from > 0 && appended(from - 1)? == Some(since) {
        from -= 1;
    }
    Ok((from, if from == 0 { Nanos(0) } else { since }))
}

/// The next entries, and the time at which the window ends: all that was appended before it is in this window or an
/// earlier one. Entries with one time stay together where there are few enough of them.
fn window(log: &dyn Log, next: u64, size: u64) -> Result<(Vec<Entry>, Nanos), ReadError> {
    let most = usize::try_from(size - next).unwrap_or(WINDOW_EVENTS).min(WINDOW_EVENTS);
    let mut entries = log.read(next, most, WINDOW_BYTES)?;
    let Some(last) = entries.last() else {
        return Err(ReadError::OutOfRange { wanted: next, size: log.size() });
    };
    let (index, appended) = (last.index, last.appended);
    let after = log.read(index + 1, 1, 0)?.first().map(|entry| entry.appended);
    if after == Some(appended)
        && let Some(whole) = entries.iter().rposition(|entry| entry.appended < appended)
    {
        entries.truncate(whole + 1);
        return Ok((entries, appended));
    }
    Ok((entries, Nanos(appended.0.saturating_add(1))))
}

/// The next window's events, once their tiles have been compared with the log's tree as far as they are whole.
async fn take<S: Sink>(
    control: &Control<S>,
    next: u64,
    size: u64,
    mut leaves: Leaves,
) -> Result<(Vec<Item>, Nanos, Leaves), ProofError> {
    let log = Arc::clone(&control.shared.log);
    blocking(move || {
        let (entries, until) = window(&*log, next, size)?;
        let items: Vec<Item> = entries.into_iter().map(Item::new).collect();
        leaves.take(&*log, &items)?;
        Ok::<_, ProofError>((items, until, leaves))
    })
    .await
}

/// The next window, read where reading may wait for a disk.
async fn read<S: Sink>(
    control: &Control<S>,
    next: u64,
    size: u64,
) -> Result<(Vec<Entry>, Nanos), ProofError> {
    let log = Arc::clone(&control.shared.log);
    blocking(move || window(&*log, next, size)).await
}

async fn shown<S: Sink>(control: &Control<S>, window: &Window) -> Result<Found, Unproven> {
    let mut attempts = 0;
    loop {
        let limit = control.shared.sink.limits().timeout.saturating_mul(2);
        let asked = tokio::time::timeout(limit, control.shared.sink.read_back(window)).await;
        let reason = match asked {
            // That is no failure, and each time there is less left.
            Ok(Err(Unproven::Unfinished(_))) => continue,
            Ok(Err(Unproven::Now(reason))) => reason,
            Ok(answer) => return answer,
            Err(_) => "no answer came in time".to_owned(),
        };
        attempts += 1;
        if attempts >= ATTEMPTS {
            return Err(Unproven::Now(reason));
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Of an event that was redacted: it was altered, or by other rules.
pub(crate) const REDACTED_OTHERWISE: &str = "its bytes aren't what was sent";

/// Documents that don't belong where they stand. A store that shows them by their index and by their time shows one of them in
/// two windows, as often in each as it is there.
#[derive(Default)]
struct Strangers {
    counted: HashMap<Claims, u64>,
}

/// By what a document is shown, and what else it claims.
type Claims = (Option<u64>, Option<Nanos>, Option<[u8; 32]>);

impl Strangers {
    /// A new window is looked through.
    fn begin(&mut self) -> Seen<'_> {
        Seen { strangers: self, here: HashMap::new() }
    }
}

/// Those of one window.
struct Seen<'a> {
    strangers: &'a mut Strangers,
    here: HashMap<Claims, u64>,
}

impl Seen<'_> {
    /// Whether it wasn't counted in an earlier window.
    fn is_new(&mut self, document: &Held) -> bool {
        let claims = (document.index, document.appended, document.leaf.map(|leaf| leaf.0));
        let here = self.here.entry(claims).or_default();
        *here += 1;
        let counted = &mut self.strangers.counted;
        let before = counted.get(&claims).copied().unwrap_or(0);
        if *here > before && (before > 0 || counted.len() < STRANGERS_MAX) {
            counted.insert(claims, *here);
        }
        *here > before
    }
}

/// What one event looks like where nobody touched it.
struct Expected {
    item: Item,
    times: u64,
    altered: Option<&'static str>,
    by_original: bool,
}

/// That a destination may hold more of a window than it shows, and how many of its events don't show.
struct Hidden {
    unseen: u64,
    reason: String,
}

fn may_not_show(reason: &str) -> String {
    format!("copies or strangers may not show: {reason}")
}

/// Notes that a part isn't shown in full; as one with the part before it where that is for the same reason.
fn unshown(report: &mut Report, indexes: Range<u64>, reason: String) {
    match report.unproven.last_mut() {
        Some(last) if last.to == indexes.start && last.reason == reason => last.to = indexes.end,
        _ => report.unproven.push(Unshown { from: indexes.start, to: indexes.end, reason }),
    }
}

fn compare<S: Sink>(
    control: &Control<S>,
    items: Vec<Item>,
    found: Found,
    dead: &BTreeSet<u64>,
    strangers: &mut Strangers,
    report: &mut Report,
) -> Option<Hidden> {
    let mut seen = strangers.begin();
    let shared = &control.shared;
    let mut unseen = 0_u64;
    let mut expected: BTreeMap<u64, Expected> = BTreeMap::new();
    let mut held_back: BTreeSet<u64> = BTreeSet::new();
    for item in items {
        if shared.filter.passes(&item) {
            let item = shared.redaction.apply(item);
            expected.insert(item.index, Expected { item, times: 0, altered: None, by_original: false });
        } else {
            held_back.insert(item.index);
        }
    }
    for document in found.documents {
        let Some(index) = document.index else {
            if seen.is_new(&document) {
                report.extra.add(None, "a document without an index of this log");
            }
            continue;
        };
        match expected.get_mut(&index) {
            Some(event) => {
                event.times += 1;
                event.altered = event.altered.or_else(|| difference(&event.item, &document));
                match shared.sink.fields(&event.item, &document) {
                    Fields::AsSent => {}
                    Fields::Altered => {
                        event.altered = event.altered.or(Some("its fields aren't what was sent"))
                    }
                    Fields::OfAnotherVersion => event.by_original = true,
                }
            }
            None if !seen.is_new(&document) => {}
            None if held_back.contains(&index) => {
                report.extra.add(Some(index), "the sink's filter holds it back, and it is there");
            }
            None if index >= shared.log.size() => {
                report.extra.add(Some(index), "the log has no such event");
            }
            None => report.extra.add(Some(index), "its time is another event's"),
        }
    }
    for (index, event) in expected {
        if event.times == 0 && dead.contains(&index) {
            report.rejected += 1;
            continue;
        }
        report.expected += 1;
        match (event.times, event.altered) {
            (0, _) if found.perhaps_more.is_some() => unseen += 1,
            (0, _) => report.lacks(index, format!("{} isn't there", event.item.kind())),
            (_, Some(what)) => report.altered.add(Some(index), what),
            (1, None) => {
                report.proven += 1;
                report.redacted += u64::from(event.item.redacted);
                report.by_original += u64::from(event.by_original);
            }
            (times, None) => report.duplicated.add(Some(index), format!("it is there {times} times")),
        }
    }
    found.perhaps_more.map(|reason| Hidden { unseen, reason })
}

/// What is wrong with a document, if anything is.
pub(crate) fn difference(item: &Item, document: &Held) -> Option<&'static str> {
    if document.leaf != Some(item.leaf) {
        return Some("its leaf hash isn't the log's");
    }
    if document.appended.is_some_and(|appended| appended != item.appended) {
        return Some("its time isn't when it was appended");
    }
    match &document.original {
        Some(original) if item.redacted && **original != *item.bytes => Some(REDACTED_OTHERWISE),
        Some(original) if !item.redacted && leaf_hash(original) != item.leaf => {
            Some("its bytes don't give the leaf hash")
        }
        _ => None,
    }
}

/// Looks through what came after `size` for what doesn't belong there. Nobody vouches for it yet or asks for it, so nothing
/// of it can be missing; but there may be gigabytes of it, and so it is shown in windows too.
struct Later<'a, S> {
    control: &'a Control<S>,
    size: u64,
    hides_copies: bool,
    strangers: Strangers,
    report: Report,
}

impl<S: Sink> Later<'_, S> {
    /// What the log has behind `size`, from `since` on. Gives how far the log went.
    async fn read(
        &mut self,
        since: Nanos,
        told: &mut (impl FnMut(u64) + Send),
    ) -> Result<(u64, Nanos), ProofError> {
        let (mut next, mut since) = (self.size, since);
        for _ in 0..ROUNDS {
            let end = self.control.shared.log.size();
            if next == end {
                break;
            }
            while next < end {
                let (entries, until) = read(self.control, next, end).await?;
                let to = next + entries.len() as u64;
                let window = Window { indexes: next..to, appended: since..until };
                self.look_through(&window).await;
                (next, since) = (to, until);
                // It is at its end, and lives.
                told(self.size);
            }
        }
        Ok((next, since))
    }

    /// What claims to come after the log's end, which is at `next` or a moment's events behind it.
    async fn beyond(&mut self, next: u64, since: Nanos) {
        let window = Window { indexes: next..u64::MAX, appended: since..Nanos(u64::MAX) };
        self.look_through(&window).await;
    }

    async fn look_through(&mut self, window: &Window) {
        let report = &mut self.report;
        match shown(self.control, window).await {
            Ok(Found { documents, perhaps_more }) => {
                // Read after the destination was: what it had then, the log has now.
                let now = self.control.shared.log.size();
                let mut seen = self.strangers.begin();
                for document in documents {
                    let what = match document.index {
                        None => "a document without an index of this log",
                        Some(index) if index >= now => "the log has no such event",
                        Some(index) if index < self.size => "its time is another event's",
                        Some(_) => continue,
                    };
                    if seen.is_new(&document) {
                        report.extra.add(document.index, what);
                    }
                }
                if let Some(reason) = perhaps_more.filter(|_| self.hides_copies) {
                    unshown(report, window.indexes.clone(), may_not_show(&reason));
                }
            }
            Err(Unproven::Never(_)) => {}
            Err(Unproven::Now(reason) | Unproven::TooMuch(reason) | Unproven::Unfinished(reason)) => {
                let Window { indexes, .. } = window;
                report.unproven.push(Unshown { from: indexes.start, to: indexes.end, reason });
            }
        }
    }
}
