//! Questions: typed filters become parameterised SQL, and nothing that a user types becomes syntax.

use super::SearchError;
use super::index::Search;
use super::row::words;
use crate::event::{SessionId, Timestamp};
use crate::log::{Entry, Log};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Entries in one page, at most.
pub const LIMIT_MAX: usize = 1000;
/// Bytes of events in one page, at most (a longer first one comes alone). Such a page is shorter than was asked for
/// and not the last one.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// How long one search may take.
pub(super) const SEARCH_SECONDS_MAX: u64 = 10;
/// Of that, how long it goes over all that is left at once.
const AT_ONCE_SECONDS_MAX: u64 = 5;
/// Entries of the first part, where it goes on in parts: few enough to be looked at on the slowest disk.
const PART_ENTRIES: u64 = 4096;
/// A part that takes longer is followed by a shorter one, any other by a longer one.
const PART_LONG: Duration = Duration::from_millis(250);
/// What runs when the time is over may run for so long before it is broken off.
const SPARE: Duration = Duration::from_secs(2);
/// How often it is then told so: between two statements nobody hears it.
const AGAIN: Duration = Duration::from_millis(200);
/// For so long at least a page's entries may be read.
const READING: Duration = Duration::from_secs(5);
/// How long after its time a search is given up: its disk gives nothing back.
const GIVE_UP: Duration = Duration::from_secs(8);
/// Words of one question, at most.
const WORDS_MAX: usize = 32;
/// How an event can have come out, as it stands in events.
const OUTCOMES: [&str; 3] = ["success", "failure", "denied"];

/// In which order pages come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// Which entries. All filters that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// A whole type (`login.failed`) or a family (`login`).
    pub kind: Option<String>,
    /// On behalf of this user, or a failed login under that name.
    pub user: Option<String>,
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this target, by its name.
    pub target: Option<String>,
    /// With this outcome: `success`, `failure`, `denied`.
    pub outcome: Option<String>,
    /// With all of these words in its values, in any order, whatever their case.
    pub text: Option<String>,
    /// Appended at that time or before.
    pub until: Option<Timestamp>,
    /// The order of pages and within them.
    pub order: Order,
    /// Where the page begins. Ascending: the first index to look at, the start if left out. Descending: the first
    /// index that is *not* looked at any more, the log's end if left out.
    pub cursor: Option<u64>,
    /// Entries in the page: at most [`LIMIT_MAX`].
    pub limit: usize,
}

impl Query {
    /// Whether every entry matches, so that the log alone can answer.
    #[must_use]
    pub fn is_unfiltered(&self) -> bool {
        let Self { kind, user, session, target, outcome, text, until, order: _, cursor: _, limit: _ } = self;
        kind.is_none()
            && user.is_none()
            && session.is_none()
            && target.is_none()
            && outcome.is_none()
            && text.is_none()
            && until.is_none()
    }

    /// Whether its filters can match anything at all. One that can't would look like a log in which nothing happens.
    ///
    /// # Errors
    /// The first filter that can't.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.kind.as_deref().is_some_and(|kind| !is_type(kind)) {
            return Err(QueryError::Type);
        }
        if self.outcome.as_deref().is_some_and(|outcome| !OUTCOMES.contains(&outcome)) {
            return Err(QueryError::Outcome);
        }
        match self.text.as_deref().map(|text| words(text).take(WORDS_MAX + 1).count()) {
            Some(0) => Err(QueryError::Wordless),
            Some(count) if count > WORDS_MAX => Err(QueryError::Wordy),
            _ => Ok(()),
        }
    }
}

/// Which filter can't match anything. `Display` says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The type.
    #[error(
        "type is one family (login) or one type (login.failed), in lower-case letters, digits and hyphens"
    )]
    Type,
    /// The outcome.
    #[error("outcome is success, failure or denied")]
    Outcome,
    /// The text has no words.
    #[error("text is words: at least one letter or digit")]
    Wordless,
    /// The text has more words than are looked for.
    #[error("text is at most {} words", WORDS_MAX)]
    Wordy,
}

/// Whether it has the form of a type or of a family: types that this program doesn't know are in logs as well.
fn is_type(kind: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match kind.split_once('.') {
        Some((family, rest)) => is_name(family) && is_name(rest),
        None => is_name(kind),
    }
}

/// One page of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, from the log.
    pub entries: Vec<Entry>,
    /// [`Query::cursor`] of the next page, also when this one is empty.
    pub next: u64,
    /// Whether its time was over before all was looked at. It may be empty then though more of them match: `next` is where it goes
    /// on.
    pub cut: bool,
}

/// How much is done for one page before it ends where it is. It always comes further, be it by one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// How long it goes over all that is left at once: by far the fastest, but it doesn't tell how far it has come.
    pub at_once: Duration,
    /// How long it takes at all: behind `at_once` it goes on in parts, each of which tells.
    pub at_all: Duration,
    /// Entries of the first part.
    pub part: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            at_once: Duration::from_secs(AT_ONCE_SECONDS_MAX),
            at_all: Duration::from_secs(SEARCH_SECONDS_MAX),
            part: PART_ENTRIES,
        }
    }
}

impl Search {
    /// Answers from what is indexed at this moment; what every entry matches is answered by the log itself, however
    /// far the index is. See [`Search::at_least`]. Dropping the future breaks the search off.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn find(&self, query: Query) -> Result<Page, SearchError> {
        let log = self.log.clone();
        if query.is_unfiltered() {
            return blocking(move || everything(&*log, &query)).await;
        }
        // What only reads the log waits for no search.
        let Ok(_turn) = self.at_once.acquire().await else { return Err(stopped("it is being closed")) };
        let reader = self.reader()?;
        let mut watch =
            Watch { handle: Some(reader.connection.get_interrupt_handle()), unwanted: Arc::default() };
        let time = Time { begun: Instant::now(), effort: self.effort, unwanted: Arc::clone(&watch.unwanted) };
        let mut search = pin!(blocking(move || {
            let found = page_indices(&reader.connection, &query, &time);
            let until = Instant::now() + time.left().max(READING);
            (reader, found.and_then(|found| found.with_entries(&*log, &query, Some(until))))
        }));
        let (begun, Effort { at_once, at_all, part: _ }) = (tokio::time::Instant::now(), self.effort);
        // The first interruption says: go on in parts. Those behind it: give what there is.
        let mut next = if at_once.is_zero() { at_all + SPARE } else { at_once };
        loop {
            match tokio::time::timeout_at(begun + next, search.as_mut()).await {
                Ok((reader, found)) => {
                    watch.handle = None;
                    self.give_back(reader, found.as_ref().err());
                    return found;
                }
                Err(_) if next >= at_all + GIVE_UP => return Err(SearchError::TooSlow),
                Err(_) => watch.interrupt(),
            }
            next = if next < at_all { at_all + SPARE } else { next + AGAIN };
        }
    }
}

/// Interrupts a search: also one that nobody waits for any more, whose connection isn't used again.
struct Watch {
    handle: Option<rusqlite::InterruptHandle>,
    unwanted: Arc<AtomicBool>,
}

impl Watch {
    fn interrupt(&self) {
        if let Some(handle) = &self.handle {
            handle.interrupt();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.unwanted.store(true, Relaxed);
        self.interrupt();
    }
}

/// What a search has of its time.
struct Time {
    begun: Instant,
    effort: Effort,
    unwanted: Arc<AtomicBool>,
}

impl Time {
    fn left(&self) -> Duration {
        self.effort.at_all.saturating_sub(self.begun.elapsed())
    }

    fn is_over(&self) -> bool {
        self.unwanted.load(Relaxed) || self.left().is_zero()
    }
}

fn stopped(reason: &str) -> SearchError {
    SearchError::Stopped { at: 0, reason: reason.to_owned() }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels such a task, and then nobody polls this future again.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A number as SQLite holds it: times after the year 2262 and indices beyond 2^63 become the largest.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn everything(log: &dyn Log, query: &Query) -> Result<Page, SearchError> {
    let size = log.size();
    let range = window(query, size);
    let wanted = query.limit.min(LIMIT_MAX);
    let indices: Vec<u64> = match query.order {
        Order::Ascending => range.clone().take(wanted).collect(),
        Order::Descending => range.clone().rev().take(wanted).collect(),
    };
    Found { indices, position: size, left: None }.with_entries(log, query, None)
}

/// The indices that a page may come from.
fn window(query: &Query, position: u64) -> Range<u64> {
    match query.order {
        Order::Ascending => query.cursor.unwrap_or(0)..position,
        Order::Descending => 0..query.cursor.unwrap_or(position).min(position),
    }
}

/// What matches, and how far the index was.
struct Found {
    indices: Vec<u64>,
    position: u64,
    /// Where the next page begins, of a search whose time was over.
    left: Option<u64>,
}

impl Found {
    /// With the entries, as many as are read until then.
    fn with_entries(self, log: &dyn Log, query: &Query, until: Option<Instant>) -> Result<Page, SearchError> {
        let entries = read_all(log, &self.indices, until)?;
        let is_whole = entries.len() == self.indices.len() && self.indices.len() < query.limit.min(LIMIT_MAX);
        let next = match (query.order, entries.last(), self.left) {
            (Order::Ascending, Some(last), _) if !is_whole => last.index + 1,
            (Order::Descending, Some(last), _) if !is_whole => last.index,
            (_, _, Some(left)) => left,
            (Order::Ascending, ..) if query.limit > 0 => self.position.max(query.cursor.unwrap_or(0)),
            (Order::Descending, ..) if query.limit > 0 => 0,
            (order, ..) => query.cursor.unwrap_or(if order == Order::Ascending { 0 } else { self.position }),
        };
        Ok(Page { entries, next, cut: self.left.is_some() })
    }
}

/// The entries at `indices`, up to [`PAGE_BYTES_MAX`], and the first one at least; neighbours are read in one go.
fn read_all(log: &dyn Log, indices: &[u64], until: Option<Instant>) -> Result<Vec<Entry>, SearchError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(indices.len());
    let mut bytes = 0;
    let mut rest = indices;
    while let Some(&first) = rest.first() {
        if !entries.is_empty() && until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let descending = rest.get(1).is_some_and(|&second| second + 1 == first);
        let run = run_length(rest, descending);
        let from = if descending { (first + 1).saturating_sub(run as u64) } else { first };
        // A run that is cut short by its bytes goes on in the next round; a descending one is read whole.
        let budget = if descending { usize::MAX } else { PAGE_BYTES_MAX.saturating_sub(bytes).max(1) };
        let mut got = log.read(from, run, budget)?;
        if descending {
            got.reverse();
        }
        let Some(rest_after) = rest.get(got.len()..).filter(|_| !got.is_empty()) else {
            return Err(crate::log::ReadError::OutOfRange { wanted: first, size: log.size() }.into());
        };
        for entry in got {
            bytes += entry.bytes.len();
            if bytes > PAGE_BYTES_MAX && !entries.is_empty() {
                return Ok(entries);
            }
            entries.push(entry);
        }
        rest = rest_after;
    }
    Ok(entries)
}

/// Neighbours that are read in one go, at most: bounds what a descending run may hold.
const RUN_MAX: usize = 64;

fn run_length(indices: &[u64], descending: bool) -> usize {
    let follows = |pair: &[u64]| match (pair, descending) {
        ([a, b], false) => a + 1 == *b,
        ([a, b], true) => b + 1 == *a,
        _ => false,
    };
    1 + indices.windows(2).take(RUN_MAX - 1).take_while(|pair| follows(pair)).count()
}

fn page_indices(connection: &Connection, query: &Query, time: &Time) -> Result<Found, SearchError> {
    // One snapshot for the position, the bound and the rows.
    let snapshot = connection.unchecked_transaction()?;
    let position: i64 = snapshot.query_row("SELECT next FROM position", [], |row| row.get(0))?;
    let position = u64::try_from(position).unwrap_or(0);
    let mut range = window(query, position);
    if let Some(until) = query.until {
        range.end = range.end.min(appended_until(&snapshot, number(until.nanos()), position)?);
    }
    let mut found = Found { indices: Vec::new(), position, left: None };
    if !time.effort.at_once.is_zero() {
        match look(&snapshot, query, &range, Words::Together, &mut found.indices) {
            // An interruption that nobody heard leaves it no time for parts, but what it has found is there.
            Err(SearchError::TooSlow) if !time.is_over() || !found.indices.is_empty() => {}
            looked => return looked.map(|()| found),
        }
        // Rows come in the page's order: up to the last of them nothing is missing.
        range = behind(query.order, range, found.indices.last());
    }
    look_in_parts(&snapshot, query, range, time, &mut found)?;
    Ok(found)
}

/// Looks through `range` part by part, until the page is full or its time is over, which leaves something.
fn look_in_parts(
    connection: &Connection,
    query: &Query,
    mut range: Range<u64>,
    time: &Time,
    found: &mut Found,
) -> Result<(), SearchError> {
    let limit = query.limit.min(LIMIT_MAX);
    let mut part = time.effort.part.max(1);
    let mut is_further = !found.indices.is_empty();
    while !range.is_empty() && found.indices.len() < limit {
        if is_further && time.is_over() {
            found.left = Some(edge(query.order, &range));
            break;
        }
        let (piece, rest) = match query.order {
            Order::Ascending => {
                let middle = range.start.saturating_add(part).min(range.end);
                (range.start..middle, middle..range.end)
            }
            Order::Descending => {
                let middle = range.end.saturating_sub(part).max(range.start);
                (middle..range.end, range.start..middle)
            }
        };
        let (begun, before) = (Instant::now(), found.indices.len());
        match look(connection, query, &piece, Words::Apart, &mut found.indices) {
            Ok(()) => range = rest,
            Err(SearchError::TooSlow) if is_further || found.indices.len() > before => {
                let left = behind(query.order, range, found.indices.last());
                found.left = Some(edge(query.order, &left));
                break;
            }
            Err(error) => return Err(error),
        }
        is_further = true;
        let is_long = begun.elapsed() > PART_LONG;
        part = if is_long { (part / 2).max(1) } else { part.saturating_mul(2) };
    }
    Ok(())
}

/// What of `range` lies behind `last` in this order.
fn behind(order: Order, range: Range<u64>, last: Option<&u64>) -> Range<u64> {
    match (order, last) {
        (_, None) => range,
        (Order::Ascending, Some(last)) => range.start.max(last.saturating_add(1))..range.end,
        (Order::Descending, Some(last)) => range.start..range.end.min(*last),
    }
}

/// [`Query::cursor`] of a page that begins with `range`.
fn edge(order: Order, range: &Range<u64>) -> u64 {
    match order {
        Order::Ascending => range.start,
        Order::Descending => range.end,
    }
}

/// Adds to `indices` what matches in `range`, in order, until the page is full. Of a search that was broken off
/// ([`SearchError::TooSlow`]) what it had found until then is there.
fn look(
    connection: &Connection,
    query: &Query,
    range: &Range<u64>,
    words: Words,
    indices: &mut Vec<u64>,
) -> Result<(), SearchError> {
    let Some((sql, values)) = statement(query, range, words) else { return Ok(()) };
    let mut statement = connection.prepare_cached(&sql).map_err(slow_or_broken)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(slow_or_broken)?;
    while indices.len() < query.limit.min(LIMIT_MAX) {
        let Some(row) = rows.next().map_err(slow_or_broken)? else { break };
        indices.push(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0));
    }
    Ok(())
}

/// How several words are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// All of them in one question: the fastest, but where they seldom stand together it goes through the whole index, whatever the
    /// range.
    Together,
    /// Each in a question of its own, within the range.
    Apart,
}

fn slow_or_broken(error: rusqlite::Error) -> SearchError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => SearchError::TooSlow,
        _ => error.into(),
    }
}

/// The first index that was appended after `until`: times never decrease with the index, so halving finds it.
fn appended_until(connection: &Connection, until: i64, position: u64) -> Result<u64, SearchError> {
    let mut at = connection.prepare_cached("SELECT appended FROM entry WHERE idx = ?1")?;
    let (mut low, mut high) = (0, position);
    while low < high {
        let middle = low + (high - low) / 2;
        let appended: Option<i64> = at.query_row([number(middle)], |row| row.get(0)).optional()?;
        match appended {
            Some(appended) if appended <= until => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The SQL for a page and its parameters; none when nothing can match.
fn statement(query: &Query, range: &Range<u64>, together: Words) -> Option<(String, Vec<Value>)> {
    if range.is_empty() || query.limit == 0 {
        return None;
    }
    let mut values: Vec<Value> = vec![number(range.start).into(), number(range.end).into()];
    let mut and = String::new();
    let mut filter = |column: &str, value: Value| {
        values.push(value);
        and.push_str(&format!(" AND {column} ?{}", values.len()));
    };
    if let Some(kind) = &query.kind {
        filter(if kind.contains('.') { "entry.type =" } else { "entry.family =" }, kind.clone().into());
    }
    if let Some(user) = &query.user {
        filter("entry.user =", user.clone().into());
    }
    if let Some(session) = query.session {
        filter("entry.session =", session.0.as_bytes().to_vec().into());
    }
    if let Some(target) = &query.target {
        filter("entry.target =", target.clone().into());
    }
    if let Some(outcome) = &query.outcome {
        filter("entry.outcome =", outcome.clone().into());
    }
    let (mut from, mut id) = ("entry", "entry.idx");
    if let Some(text) = &query.text {
        // Letters and digits between quotes: no text is syntax. Text without any of them asks for nothing.
        let quoted: Vec<_> = words(text).take(WORDS_MAX).map(|word| format!("\"{word}\"")).collect();
        if quoted.is_empty() {
            return None;
        }
        if together == Words::Together {
            filter("word MATCH", quoted.join(" AND ").into());
            (from, id) = ("word CROSS JOIN entry ON entry.idx = word.rowid", "word.rowid");
        } else {
            for word in quoted {
                values.push(word.into());
                and.push_str(&format!(
                    " AND entry.idx IN (SELECT rowid FROM word WHERE word MATCH ?{} AND rowid >= ?1 AND rowid < ?2)",
                    values.len()
                ));
            }
        }
    }
    let order = if query.order == Order::Ascending { "ASC" } else { "DESC" };
    let limit = query.limit.min(LIMIT_MAX);
    let sql = format!(
        "SELECT {id} FROM {from} WHERE {id} >= ?1 AND {id} < ?2{and} ORDER BY {id} {order} LIMIT {limit}"
    );
    Some((sql, values))
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
