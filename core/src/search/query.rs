//! Questions: typed filters become parameterised SQL, and nothing that a user types becomes syntax.

use super::SearchError;
use super::index::Search;
use super::row::words;
use crate::event::{SessionId, Timestamp};
use crate::log::{Entry, Log};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use std::ops::Range;
use std::time::Duration;

/// Entries in one page, at most.
pub const LIMIT_MAX: usize = 1000;
/// Bytes of events in one page, at most (a longer first one comes alone). Such a page is shorter than was asked for
/// and not the last one.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// How long one search may take.
pub(super) const SEARCH_SECONDS_MAX: u64 = 10;
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
        let mut interrupt = Interrupt(Some(reader.connection.get_interrupt_handle()));
        let search = blocking(move || {
            let found = page_indices(&reader.connection, &query);
            (reader, found.and_then(|found| found.with_entries(&*log, &query)))
        });
        match tokio::time::timeout(Duration::from_secs(SEARCH_SECONDS_MAX), search).await {
            Ok((reader, found)) => {
                interrupt.0 = None;
                self.give_back(reader);
                found
            }
            Err(_) => Err(SearchError::TooSlow),
        }
    }
}

/// Interrupts a search that nobody waits for any more. Its connection isn't used again.
struct Interrupt(Option<rusqlite::InterruptHandle>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
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
    Found { indices, position: size }.with_entries(log, query)
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
}

impl Found {
    fn with_entries(self, log: &dyn Log, query: &Query) -> Result<Page, SearchError> {
        let entries = read_all(log, &self.indices)?;
        let is_whole = entries.len() == self.indices.len() && self.indices.len() < query.limit.min(LIMIT_MAX);
        let next = match (query.order, entries.last()) {
            (Order::Ascending, Some(last)) if !is_whole => last.index + 1,
            (Order::Ascending, _) if query.limit > 0 => self.position.max(query.cursor.unwrap_or(0)),
            (Order::Descending, Some(last)) if !is_whole => last.index,
            (Order::Descending, _) if query.limit > 0 => 0,
            (order, _) => query.cursor.unwrap_or(if order == Order::Ascending { 0 } else { self.position }),
        };
        Ok(Page { entries, next })
    }
}

/// The entries at `indices`, up to [`PAGE_BYTES_MAX`]; neighbours are read in one go.
fn read_all(log: &dyn Log, indices: &[u64]) -> Result<Vec<Entry>, SearchError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(indices.len());
    let mut bytes = 0;
    let mut rest = indices;
    while let Some(&first) = rest.first() {
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

fn page_indices(connection: &Connection, query: &Query) -> Result<Found, SearchError> {
    // One snapshot for the position, the bound and the rows.
    let snapshot = connection.unchecked_transaction()?;
    let position: i64 = snapshot.query_row("SELECT next FROM position", [], |row| row.get(0))?;
    let position = u64::try_from(position).unwrap_or(0);
    let mut range = window(query, position);
    if let Some(until) = query.until {
        range.end = range.end.min(appended_until(&snapshot, number(until.nanos()), position)?);
    }
    let (sql, values) = match statement(query, range) {
        Some(statement) => statement,
        None => return Ok(Found { indices: Vec::new(), position }),
    };
    let mut statement = snapshot.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, i64>(0))?;
    let indices = rows.map(|row| Ok(u64::try_from(row?).unwrap_or(0))).collect::<rusqlite::Result<_>>();
    Ok(Found { indices: indices.map_err(slow_or_broken)?, position })
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
fn statement(query: &Query, range: Range<u64>) -> Option<(String, Vec<Value>)> {
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
    let (from, id) = match &query.text {
        Some(text) => {
            // Letters and digits between quotes: no text is syntax. Text without any of them asks for nothing.
            let quoted: Vec<_> = words(text).take(WORDS_MAX).map(|word| format!("\"{word}\"")).collect();
            if quoted.is_empty() {
                return None;
            }
            filter("word MATCH", quoted.join(" AND ").into());
            ("word CROSS JOIN entry ON entry.idx = word.rowid", "word.rowid")
        }
        None => ("entry", "entry.idx"),
    };
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
