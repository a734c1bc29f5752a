//! The way back: what destinations hold of a log, for a log that has lost it.
//!
//! A damaged log doesn't know what it lacks but for the indexes, and about when they were appended. So destinations are
//! walked through by time, in windows that tile it; what they show of an index is believed as far as its own leaf hash
//! goes, and whether all of it together is the log is for the signed checkpoint to say. So it is where several documents claim an
//! index ([`Disputes`]).

mod dispute;
mod ways;

pub use dispute::Disputes;
pub use ways::Ways;

use crate::backoff::Backoff;
use crate::sink::{DOCUMENT_BYTES, Found, Held, Sink, Trouble, Unproven, Window};
use custody_core::clock::Nanos;
use custody_core::event::Event;
use custody_core::log::Hash;
use custody_core::log::tree::leaf_hash;
use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// The first window, the longest and the shortest one.
const STEP: Duration = Duration::from_secs(60);
const STEP_MAX: Duration = Duration::from_secs(30 * 86_400);
const STEP_MIN: Duration = Duration::from_millis(1);
/// A window with fewer documents is followed by a longer one, one with more by a shorter one.
const FEW: usize = 1_000;
const MANY: usize = 4_000;
/// How many times shorter one is made in which more lies than is shown at once.
const CUT: u32 = 4;
/// How many windows pass after that until longer ones are tried again: each that is too long costs as much as one that isn't.
const STEADY: u32 = 32;
/// How long a destination may show nothing that it is asked for before it is given up: what passes by itself has passed by then.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long an answer may take. Where it takes longer, the window may be too long.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How much waits for its turn, in bytes, before what comes first counts as absent: so much isn't a document that strayed.
const ASIDE_BYTES_MAX: usize = 64 << 20;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A destination that is read from: any [`Sink`]. No event is written to it. Files aren't changed at all, and neither is Loki;
/// others are made ready as for delivery, which may put a template in order or end what an earlier producer had begun.
pub trait Archive: Send + Sync {
    /// As [`Sink::prepare_to_read`].
    fn prepare(&self) -> Answer<'_, Result<(), Trouble>>;
    /// As [`Sink::read_back`].
    fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>>;
}

impl<S: Sink> Archive for S {
    fn prepare(&self) -> Answer<'_, Result<(), Trouble>> {
        Box::pin(Sink::prepare_to_read(self))
    }

    fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>> {
        Box::pin(Sink::read_back(self, window))
    }
}

/// Makes a destination ready to be read. It gives up after `limit`.
///
/// # Errors
/// Why it can't be read, in one line.
pub async fn ready(archive: &dyn Archive, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, archive.prepare()).await {
        Ok(prepared) => prepared.map_err(|trouble| trouble.to_string()),
        Err(_) => {
            Err(format!("no answer came in {} s: see whether it is up, or leave it out", limit.as_secs()))
        }
    }
}

/// An entry as a destination gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// When it was appended, as the destination says: no hash covers it.
    pub appended: Nanos,
    /// Its canonical bytes; they give the leaf hash that stands beside them.
    pub bytes: Vec<u8>,
}

impl Copied {
    /// Its leaf hash.
    #[must_use]
    pub fn leaf(&self) -> Hash {
        leaf_hash(&self.bytes)
    }
}

/// Why an entry can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lacking {
    /// No document claims it.
    #[error("it isn't there")]
    Absent,
    /// There are documents, and none of them will do.
    #[error("{0}")]
    Unusable(&'static str),
}

/// What the documents that claim one index give, where the entry before it was appended at `after`. Of several that give different
/// entries it is the earliest: then none that comes later is too early for its place. Which of them is the log's is for what was
/// signed to say ([`Disputes`]).
///
/// # Errors
/// See [`Lacking`].
pub fn judge(documents: &[Held], after: Nanos) -> Result<Copied, Lacking> {
    let mut good: Option<Copied> = None;
    let mut reason = Lacking::Absent;
    for document in documents {
        match whole(document) {
            Ok(copied) if copied.appended < after => {
                reason = Lacking::Unusable("its time is before that of the entry before it");
            }
            Ok(copied) if good.as_ref().is_some_and(|earlier| earlier.appended <= copied.appended) => {}
            Ok(copied) => good = Some(copied),
            Err(what) => reason = Lacking::Unusable(what),
        }
    }
    good.ok_or(reason)
}

fn whole(document: &Held) -> Result<Copied, &'static str> {
    let leaf = document.leaf.ok_or("its leaf hash isn't there")?;
    let bytes = document.original.as_ref().ok_or("its bytes aren't there")?;
    if leaf_hash(bytes) != leaf {
        return Err("its bytes don't give its leaf hash");
    }
    // Whoever writes to a destination may write a leaf hash beside anything, and a log takes events alone.
    if Event::parse(bytes).is_err() {
        return Err("its bytes are no event");
    }
    let appended = document.appended.ok_or("when it was appended isn't there")?;
    Ok(Copied { appended, bytes: bytes.clone() })
}

/// Documents whose turn hasn't come: a walk goes by time, and a log by index. A single one that claims a late index at an
/// early time must not make everything before that index count as absent.
#[derive(Debug)]
pub struct Aside {
    documents: BTreeMap<u64, Vec<Held>>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Aside {
    fn default() -> Self {
        Self { documents: BTreeMap::new(), bytes: 0, bytes_max: ASIDE_BYTES_MAX }
    }
}

impl Aside {
    /// Keeps what a walk has shown of these indexes.
    pub fn keep(&mut self, shown: BTreeMap<u64, Vec<Held>>, indexes: Range<u64>) {
        for (index, documents) in shown {
            if indexes.contains(&index) {
                self.bytes += bytes(&documents);
                self.documents.entry(index).or_default().extend(documents);
            }
        }
    }

    /// What there is of the entry at `index`, where the walk need not go on to know it: see [`judge`]. What is absent is
    /// known to be only at the walk's end ([`Aside::take`]), or when too much waits behind it.
    pub fn next(&mut self, index: u64, after: Nanos) -> Option<Result<Copied, Lacking>> {
        match judge(self.documents.get(&index).map_or(&[], Vec::as_slice), after) {
            Err(Lacking::Absent | Lacking::Unusable(_)) if self.bytes <= self.bytes_max => None,
            judged => {
                self.forget(index);
                Some(judged)
            }
        }
    }

    /// What there is of it at the walk's end.
    ///
    /// # Errors
    /// See [`Lacking`].
    pub fn take(&mut self, index: u64, after: Nanos) -> Result<Copied, Lacking> {
        judge(&self.forget(index), after)
    }

    fn forget(&mut self, index: u64) -> Vec<Held> {
        let documents = self.documents.remove(&index).unwrap_or_default();
        self.bytes -= bytes(&documents);
        documents
    }
}

fn bytes(documents: &[Held]) -> usize {
    documents.iter().map(|held| DOCUMENT_BYTES + held.original.as_ref().map_or(0, Vec::len)).sum()
}

/// A walk through several destinations at once, by time.
pub struct Walk<'a> {
    archives: &'a [Box<dyn Archive>],
    left: Range<Nanos>,
    step: Duration,
    /// Windows that pass until longer ones are tried.
    steady: u32,
    patience: Duration,
    timeout: Duration,
    /// Why a destination may hold more than it has shown.
    perhaps_more: Option<String>,
}

impl<'a> Walk<'a> {
    /// Through what was appended in `appended`.
    #[must_use]
    pub fn new(archives: &'a [Box<dyn Archive>], appended: Range<Nanos>) -> Self {
        Self {
            archives,
            left: appended,
            step: STEP,
            steady: 0,
            patience: PATIENCE,
            timeout: TIMEOUT,
            perhaps_more: None,
        }
    }

    /// Gives a destination up that shows nothing for so long, instead of ten minutes.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Why a destination may hold more than it has shown so far.
    #[must_use]
    pub fn perhaps_more(&self) -> Option<&str> {
        self.perhaps_more.as_deref()
    }

    /// The documents of the next window, by the index that they claim; `None` at the end. Where it is too long, a shorter one is asked for
    /// at once. What doesn't work now is tried again for a while: `told` hears why that is waited for, and `None` once it isn't any more.
    ///
    /// # Errors
    /// Why a destination doesn't show all of it.
    pub async fn next(
        &mut self,
        told: &mut (dyn FnMut(Option<&str>) + Send),
    ) -> Result<Option<BTreeMap<u64, Vec<Held>>>, String> {
        let (mut backoff, mut failing_since) = (Backoff::default(), None);
        while self.left.start < self.left.end {
            let until = self.left.start.saturating_add(self.step).min(self.left.end);
            let length = until.saturating_since(self.left.start);
            match self.shown(self.left.start..until).await {
                Ok(documents) => {
                    if failing_since.is_some() {
                        told(None);
                    }
                    self.left.start = until;
                    self.adapt(documents.values().map(Vec::len).sum());
                    return Ok(Some(documents));
                }
                Err(Unproven::TooMuch(_)) if self.step > STEP_MIN => {
                    // There is nothing to wait for, and what was waited for is over.
                    if failing_since.take().is_some() {
                        told(None);
                        backoff.reset();
                    }
                    self.shorten(length / CUT);
                }
                Err(Unproven::Now(reason) | Unproven::Unfinished(reason)) => {
                    let is_first = failing_since.is_none();
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.patience {
                        return Err(reason);
                    }
                    if !is_first {
                        // A long one may take it longer than anybody in between waits.
                        self.shorten(length / 2);
                    }
                    told(Some(&reason));
                    tokio::time::sleep(backoff.next(None)).await;
                }
                Err(unproven) => return Err(unproven.to_string()),
            }
        }
        Ok(None)
    }

    /// What all of them show of a window.
    ///
    /// # Errors
    /// [`Unproven::TooMuch`] also where no answer came in time to what may be too long. Of a window of a minute something else is wrong,
    /// so that one which never answers is given up.
    async fn shown(&mut self, appended: Range<Nanos>) -> Result<BTreeMap<u64, Vec<Held>>, Unproven> {
        let is_long = appended.end.saturating_since(appended.start) > STEP;
        // By time alone: a document that claims an index at another time shows when that time comes.
        let window = Window { indexes: 0..0, appended };
        let mut by_index: BTreeMap<u64, Vec<Held>> = BTreeMap::new();
        for archive in self.archives {
            let asked = loop {
                match tokio::time::timeout(self.timeout, archive.read_back(&window)).await {
                    Ok(Err(Unproven::Unfinished(_))) => {}
                    asked => break asked,
                }
            };
            let found = asked.map_err(|_| {
                let late: fn(String) -> Unproven = if is_long { Unproven::TooMuch } else { Unproven::Now };
                late("no answer came in time".to_owned())
            })?;
            let Found { documents, perhaps_more } = found?;
            self.perhaps_more = self.perhaps_more.take().or(perhaps_more);
            for document in documents {
                if let Some(index) = document.index {
                    by_index.entry(index).or_default().push(document);
                }
            }
        }
        Ok(by_index)
    }

    fn adapt(&mut self, documents: usize) {
        if documents > MANY {
            self.step = (self.step / 2).max(STEP_MIN);
        } else if self.steady > 0 {
            self.steady -= 1;
        } else if documents < FEW {
            self.step = (self.step * 4).min(STEP_MAX);
        }
    }

    /// Windows are so long at most for a while.
    fn shorten(&mut self, length: Duration) {
        (self.step, self.steady) = (length.max(STEP_MIN), STEADY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::{
        Actor, Draft, EventId, ProducerKind, ProducerRef, Timestamp, canonical, log::Sealed,
    };
    use std::sync::Mutex;
    use uuid::Uuid;

    /// The bytes of an event: the same for the same number.
    pub(super) fn event(number: u64) -> Vec<u8> {
        let (boot, id) = (Uuid::from_u128(1), "custody".to_owned());
        let producer = ProducerRef { boot, id, kind: ProducerKind::Log, seq: number };
        let mut draft = Draft::new(Actor::system("test"), Sealed { size: number });
        draft.id = EventId(Uuid::from_u128(u128::from(number)));
        canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(number))).unwrap()
    }

    /// Shows at most so many documents at once, and fails so many times first; one that shows none never gets ready.
    struct Shelf {
        documents: Vec<Held>,
        most: usize,
        troubles: Mutex<u32>,
    }

    impl Archive for Shelf {
        fn prepare(&self) -> Answer<'_, Result<(), Trouble>> {
            Box::pin(async { if self.most == 0 { std::future::pending().await } else { Ok(()) } })
        }

        fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>> {
            Box::pin(async move {
                let mut troubles = self.troubles.lock().unwrap();
                if *troubles > 0 {
                    *troubles -= 1;
                    return Err(Unproven::Now("busy".into()));
                }
                let within = |document: &&Held| window.appended.contains(&document.appended.unwrap());
                let shown: Vec<Held> = self.documents.iter().filter(within).cloned().collect();
                if shown.len() > self.most {
                    return Err(Unproven::TooMuch(format!(
                        "it shows {} of {} documents",
                        self.most,
                        shown.len()
                    )));
                }
                Ok(shown.into())
            })
        }
    }

    pub(super) fn held(index: u64, appended: u64) -> Held {
        of_event(index, index, appended)
    }

    /// A document that claims an index for some event.
    pub(super) fn of_event(number: u64, index: u64, appended: u64) -> Held {
        let bytes = event(number);
        Held {
            index: Some(index),
            leaf: Some(leaf_hash(&bytes)),
            original: Some(bytes),
            appended: Some(Nanos(appended)),
            document: None,
        }
    }

    async fn walked(shelves: Vec<Shelf>, appended: Range<Nanos>) -> Result<Vec<(u64, usize)>, String> {
        walked_and_told(shelves, appended, PATIENCE).await.0
    }

    /// What was found, and what was told of what is waited for.
    async fn walked_and_told(
        shelves: Vec<Shelf>,
        appended: Range<Nanos>,
        patience: Duration,
    ) -> (Result<Vec<(u64, usize)>, String>, Vec<Option<String>>) {
        let archives = boxed(shelves);
        walk_on(Walk::new(&archives, appended).with_patience(patience)).await
    }

    fn boxed<A: Archive + 'static>(archives: Vec<A>) -> Vec<Box<dyn Archive>> {
        archives.into_iter().map(|archive| Box::new(archive) as Box<dyn Archive>).collect()
    }

    /// To its end.
    async fn walk_on(mut walk: Walk<'_>) -> (Result<Vec<(u64, usize)>, String>, Vec<Option<String>>) {
        let (mut found, mut told) = (Vec::new(), Vec::new());
        loop {
            let mut tell = |reason: Option<&str>| told.push(reason.map(str::to_owned));
            let shown = walk.next(&mut tell).await;
            match shown {
                Ok(Some(documents)) => {
                    found.extend(documents.into_iter().map(|(index, documents)| (index, documents.len())));
                }
                Ok(None) => return (Ok(found), told),
                Err(reason) => return (Err(reason), told),
            }
        }
    }

    #[tokio::test]
    async fn everything_of_all_shelves_is_seen_once_and_in_order_however_little_is_shown_at_once() {
        let second = 1_000_000_000;
        // Dense, then a year of nothing, then dense again.
        let at = |n: u64| if n < 500 { n * second / 1_000 } else { 31_536_000 * second + n };
        let documents: Vec<Held> = (0..1_000).map(|n| held(n, at(n))).collect();
        let some = documents.iter().filter(|held| held.index.unwrap() % 3 == 0).cloned().collect();
        let shelves = vec![
            Shelf { documents, most: 600, troubles: Mutex::new(3) },
            Shelf { documents: some, most: 9_999, troubles: Mutex::new(0) },
        ];
        let found = walked(shelves, Nanos(0)..Nanos(u64::MAX)).await.unwrap();
        let wanted: Vec<(u64, usize)> = (0..1_000).map(|n| (n, 1 + usize::from(n % 3 == 0))).collect();
        assert_eq!(found, wanted);
    }

    #[tokio::test]
    async fn what_is_never_shown_is_an_error_and_no_gap() {
        let shelf = Shelf { documents: vec![held(1, 5), held(2, 5)], most: 1, troubles: Mutex::new(0) };
        let error = walked(vec![shelf], Nanos(0)..Nanos(10)).await.unwrap_err();
        assert_eq!(error, "it shows 1 of 2 documents");
    }

    #[tokio::test]
    async fn trouble_that_passes_is_waited_for_and_told() {
        let documents = (0..8).map(|n| held(n, n)).collect();
        let shelf = Shelf { documents, most: 8, troubles: Mutex::new(3) };
        let (found, told) = walked_and_told(vec![shelf], Nanos(0)..Nanos(10), PATIENCE).await;
        assert_eq!(found.unwrap().len(), 8);
        let busy = || Some("busy".to_owned());
        assert_eq!(told, [busy(), busy(), busy(), None]);
        // What doesn't fit into an answer isn't waited for.
        let crowded = (0..8).map(|n| held(n, n * 1_000_000_000)).collect();
        let shelf = Shelf { documents: crowded, most: 1, troubles: Mutex::new(0) };
        let (found, told) =
            walked_and_told(vec![shelf], Nanos(0)..Nanos(10_000_000_000), Duration::ZERO).await;
        assert_eq!((found.unwrap().len(), told), (8, vec![]));
    }

    #[tokio::test]
    async fn a_destination_that_shows_nothing_for_long_is_given_up_with_its_reason() {
        let shelf = Shelf { documents: vec![held(1, 5)], most: 9, troubles: Mutex::new(u32::MAX) };
        // In which it is asked more than once on a busy machine too.
        let patience = Duration::from_secs(3);
        let (found, told) = walked_and_told(vec![shelf], Nanos(0)..Nanos(10), patience).await;
        assert_eq!(found, Err("busy".to_owned()));
        assert!(told.len() > 1 && told.iter().all(|told| told.as_deref() == Some("busy")), "{told:?}");
    }

    /// Takes for ever over more documents than so many; and over whatever it is, once it has answered so often.
    struct Slow {
        documents: Vec<Held>,
        most: usize,
        answers: Mutex<usize>,
    }

    impl Archive for Slow {
        fn prepare(&self) -> Answer<'_, Result<(), Trouble>> {
            Box::pin(async { Ok(()) })
        }

        fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>> {
            let within = |document: &&Held| window.appended.contains(&document.appended.unwrap());
            let shown: Vec<Held> = self.documents.iter().filter(within).cloned().collect();
            let mut answers = self.answers.lock().unwrap();
            if shown.len() > self.most || *answers == 0 {
                return Box::pin(std::future::pending());
            }
            *answers -= 1;
            Box::pin(async move { Ok::<_, Unproven>(Found::from(shown)) })
        }
    }

    async fn walked_slowly(
        slow: Slow,
        patience: Duration,
    ) -> (Result<Vec<(u64, usize)>, String>, Vec<Option<String>>) {
        let archives = boxed(vec![slow]);
        let mut walk = Walk::new(&archives, Nanos(0)..Nanos(90 * DAY)).with_patience(patience);
        walk.timeout = Duration::from_millis(20);
        walk_on(walk).await
    }

    const DAY: u64 = 86_400_000_000_000;

    /// Nothing but windows that are too long keeps it from showing all that it has: that is no trouble which is waited for.
    #[tokio::test]
    async fn a_destination_that_is_slow_over_long_windows_is_asked_for_shorter_ones() {
        let held = |n: u64| Held {
            index: Some(n),
            appended: Some(Nanos(30 * DAY + n * (30 * DAY / 10_000))),
            ..Held::default()
        };
        let slow =
            Slow { documents: (0..10_000).map(held).collect(), most: 10, answers: Mutex::new(usize::MAX) };
        let (found, told) = walked_slowly(slow, Duration::from_millis(200)).await;
        assert_eq!(found.unwrap(), (0..10_000).map(|n| (n, 1)).collect::<Vec<_>>());
        assert_eq!(told, vec![]);
    }

    #[tokio::test]
    async fn a_destination_that_never_answers_is_given_up_however_long_the_window_was() {
        // By then windows are as long as they become.
        let slow = Slow { documents: vec![], most: 0, answers: Mutex::new(9) };
        let (found, told) = walked_slowly(slow, Duration::from_millis(200)).await;
        assert_eq!(found, Err("no answer came in time".to_owned()));
        let late = |told: &Option<String>| told.as_deref() == Some("no answer came in time");
        assert!(!told.is_empty() && told.iter().all(late), "{told:?}");
    }

    /// When each entry was appended, by what these windows show one after the other.
    fn in_order(windows: Vec<Vec<Held>>, indexes: Range<u64>) -> Vec<Option<u64>> {
        let mut aside = Aside::default();
        let mut given: Vec<Option<u64>> = Vec::new();
        let (mut expected, mut after) = (indexes.start, Nanos(0));
        let mut windows = windows.into_iter();
        let mut is_over = false;
        while expected < indexes.end {
            let judged =
                if is_over { Some(aside.take(expected, after)) } else { aside.next(expected, after) };
            if let Some(judged) = judged {
                given.push(judged.as_ref().ok().map(|copied| copied.appended.0));
                after = judged.map_or(after, |copied| copied.appended);
                expected += 1;
            } else if let Some(documents) = windows.next() {
                let one = |held: Held| (held.index.unwrap(), vec![held]);
                aside.keep(documents.into_iter().map(one).collect(), expected..indexes.end);
            } else {
                is_over = true;
            }
        }
        assert_eq!(aside.bytes, 0, "nothing is left, and all of it is accounted for");
        given
    }

    #[test]
    fn a_document_that_strayed_makes_nothing_absent() {
        // Among the first of them stands one that claims to be the last.
        let stray = Held { appended: Some(Nanos(2)), ..held(9, 2) };
        let windows: Vec<Vec<Held>> = vec![
            vec![held(0, 1), stray],
            (1..5).map(|n| held(n, n * 10)).collect(),
            vec![],
            (5..10).map(|n| held(n, n * 10)).collect(),
        ];
        let times: Vec<Option<u64>> = (0..10).map(|n: u64| Some((n * 10).max(1))).collect();
        assert_eq!(in_order(windows, 0..10), times);
    }

    #[test]
    fn what_is_absent_is_so_at_the_end_or_when_too_much_waits_behind_it() {
        let windows = vec![vec![held(0, 1), held(2, 3)], vec![held(3, 4)], vec![held(1, 2)]];
        assert_eq!(in_order(windows, 0..5), [Some(1), Some(2), Some(3), Some(4), None]);
        // Two that wait are too much: what comes afterwards is a stranger.
        let most = bytes(&[held(1, 2), held(2, 3)]) - 1;
        let mut aside = Aside { bytes_max: most, ..Aside::default() };
        aside.keep([(1, vec![held(1, 2)])].into(), 0..5);
        assert_eq!(aside.next(0, Nanos(0)), None);
        aside.keep([(2, vec![held(2, 3)]), (9, vec![held(9, 9)])].into(), 0..5);
        assert_eq!(aside.next(0, Nanos(0)), Some(Err(Lacking::Absent)));
        assert!(aside.next(1, Nanos(0)).is_some_and(|judged| judged.is_ok()));
    }

    #[tokio::test]
    async fn a_destination_that_never_gets_ready_is_given_up() {
        let shelf = |most| Shelf { documents: vec![], most, troubles: Mutex::new(0) };
        let limit = Duration::from_millis(50);
        assert_eq!(ready(&shelf(1), limit).await, Ok(()));
        let error = ready(&shelf(0), limit).await.unwrap_err();
        assert!(error.contains("no answer came"), "{error}");
    }

    #[test]
    fn a_copy_is_judged_by_its_own_leaf_hash() {
        let good = held(7, 70);
        let other = of_event(1_007, 7, 70);
        let altered = Held { original: Some(b"altered".to_vec()), ..good.clone() };
        let rubbish =
            Held { original: Some(b"rubbish".to_vec()), leaf: Some(leaf_hash(b"rubbish")), ..good.clone() };
        let copied = Copied { appended: Nanos(70), bytes: event(7) };
        let judge = |documents: &[Held]| super::judge(documents, Nanos(60));
        assert_eq!(judge(&[]), Err(Lacking::Absent));
        assert_eq!(judge(std::slice::from_ref(&good)), Ok(copied.clone()));
        assert_eq!(judge(&[altered.clone(), good.clone(), good.clone()]), Ok(copied.clone()));
        // Of several it is the earliest, or else the first: no later entry comes before that.
        let later = Held { appended: Some(Nanos(71)), ..other.clone() };
        for documents in [[good.clone(), other.clone()], [good.clone(), later.clone()], [later, good.clone()]]
        {
            assert_eq!(judge(&documents), Ok(copied.clone()));
        }
        // One of another time than an entry can have there contradicts nobody.
        let early = Held { appended: Some(Nanos(59)), ..other };
        assert_eq!(judge(&[early.clone(), good.clone()]), Ok(copied));
        let error = judge(&[early]).unwrap_err().to_string();
        assert!(error.contains("before that of the entry before it"), "{error}");
        for (document, what) in [
            (altered, "don't give its leaf hash"),
            (rubbish, "are no event"),
            (Held { leaf: None, ..good.clone() }, "leaf hash isn't there"),
            (Held { leaf: Some(Hash([0; 32])), ..good.clone() }, "don't give its leaf hash"),
            (Held { original: None, ..good.clone() }, "bytes aren't there"),
            (Held { appended: None, ..good }, "appended isn't there"),
        ] {
            let error = judge(&[document]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
