//! Grafana Loki: few streams, everything else in structured metadata, the line is the canonical event.
//!
//! What Loki does to a sender, as measured with 3.7: it takes the good lines of a push that it answers with 400; it drops an
//! exact repeat only while the first is in the head block, and then counts it twice; it refuses what lies more than an
//! hour behind its stream's newest line. So what is in doubt is looked up, a refused push is halved, and what is old
//! goes into streams of its own, one for each hour of the past: there nothing is ever behind.

mod configuration;
mod push;
mod read;
#[cfg(test)]
mod tests;

use self::configuration::{limit_of, shows_all};
use self::push::{encode_entry, encode_push};
use self::read::{Page, parse, parse_counts};
use crate::http::{Answered, Endpoint, Http};
use crate::item::Item;
use crate::secret::Secrets;
use crate::sink::{Answer, Found, Held, Limits, Room, Sink, Trouble, Unproven, Window};
use custody_core::clock::{Clock, Nanos};
use custody_core::event::{Family, Head, Outcome, ProducerKind, hex};
use futures_util::StreamExt as _;
use futures_util::stream;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A line may lie half of `max_chunk_age` (two hours) behind its stream's newest: less, so that clocks may differ.
const LIVE: Duration = Duration::from_secs(50 * 60);
/// The longest value in structured metadata, in bytes; the line has it whole.
const VALUE_BYTES_MAX: usize = 1_024;
/// Pairs of structured metadata that an event may have.
const PAIRS_MAX: usize = 15;
/// Lines that are asked for at once; Loki's own limit is 5,000.
const PAGE_LINES: usize = 1_000;
/// The longest span of one question: Loki's own limit is thirty days.
const SPAN: Duration = Duration::from_secs(7 * 86_400);
/// How far before a log's first event and after this moment is looked for what shouldn't be there.
const BEFORE: Duration = Duration::from_secs(30 * 86_400);
const AFTER: Duration = Duration::from_secs(3_600);

/// What is younger is always shown: less than the shortest of Loki's defaults, two hours and three quarters.
const SHOWN: Duration = Duration::from_secs(2 * 3_600 + 1_800);
const HIDES: &str = "Loki doesn't show lines older than some hours until they are flushed, so it isn't known what it has: \
    see docs/sinks.md for the two settings, or set sends_old_again = true (and perhaps some arrive twice)";
const SHOWS_NOTHING_OLD: &str = "Loki says of what is older than limits_config.max_query_lookback that there is nothing: \
    allow it to look farther back, see docs/sinks.md";
/// Requests of a batch that are under way at once.
const PUSHES: usize = 4;
/// What Loki says (400) where its limits don't allow for our streams and lines at all: a person has to do something.
const CONFIGURED: [&str; 3] =
    ["structured metadata, but this feature is disallowed", "missing required labels", "label names; limit"];
/// What it says (400) of lines outside the time that it takes, and what is to be done: that is for its limits and for clocks,
/// and no event is refused for when it was appended.
const OUTSIDE_ITS_TIME: [(&str, &str); 2] = [
    (
        "has timestamp too old",
        "Loki takes nothing that is so old: set limits_config.reject_old_samples: false (docs/sinks.md)",
    ),
    (
        "has timestamp too new",
        "events were appended in Loki's future, and it takes them later: compare its clock and this machine's",
    ),
];

/// `[sink.loki]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it is; `/loki/api/v1/push` comes after it.
    pub endpoint: Endpoint,
    /// The tenant (`X-Scope-OrgID`), where it has more than one.
    pub tenant: Option<String>,
    /// Send events again that are older than three hours and may be there: a Loki that can't be told to show all that
    /// it holds gets them at least once, and not exactly once.
    #[serde(default)]
    pub sends_old_again: bool,
    /// The label `job` of all streams.
    #[serde(default = "job")]
    pub job: String,
}

fn job() -> String {
    "custody".to_owned()
}

impl Settings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What doesn't.
    pub fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.job.is_empty() || !self.job.chars().all(plain) {
            return Err(format!("job = \"{}\" must be letters, digits, - _ or .", self.job));
        }
        self.endpoint.check()
    }
}

/// Delivers to Loki.
pub struct Loki {
    http: Http,
    tenant: Option<String>,
    job: String,
    origin: String,
    clock: Arc<dyn Clock>,
    /// When the newest line that Loki has of this job was appended; nanoseconds.
    newest: AtomicU64,
    /// What its configuration said when it was last asked; only a restart changes it.
    shows: Mutex<Option<Shows>>,
    sends_old_again: bool,
}

/// What Loki shows of what it holds.
#[derive(Clone, Copy, Debug)]
struct Shows {
    /// All of it, however old.
    all: bool,
    /// How far back it looks at all for those who have no limits of their own.
    period: Option<Duration>,
}

/// An event as Loki takes it.
pub struct Encoded {
    labels: String,
    appended: Nanos,
    entry: Vec<u8>,
}

impl Loki {
    /// For the log with that origin.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, origin: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            http: Http::new(settings.endpoint, secrets),
            tenant: settings.tenant,
            job: settings.job,
            origin: origin.to_owned(),
            clock,
            newest: AtomicU64::new(0),
            shows: Mutex::default(),
            sends_old_again: settings.sends_old_again,
        }
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, Trouble> {
        let request = self.http.request(method, path)?;
        Ok(match &self.tenant {
            Some(tenant) => request.header("x-scope-orgid", tenant),
            None => request,
        })
    }

    /// What it says of how it is set up. Where nobody may ask for that, it is as the default has it.
    async fn told(&self, path: &str) -> Result<String, Trouble> {
        let answered = self.http.answer(self.request(Method::GET, path)?).await?;
        match answered.status {
            StatusCode::OK => Ok(String::from_utf8_lossy(&answered.body).into_owned()),
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED => Ok(String::new()),
            _ => Err(answered.trouble()),
        }
    }

    /// The spans of a window, each short enough for one question.
    fn spans(&self, window: &Window) -> Vec<Range<Nanos>> {
        // After what the log has there may be anything of others; before there was a log, nothing is looked for.
        let newest = self.clock.wall().0.max(self.newest.load(Relaxed));
        let end = if window.appended.end == Nanos(u64::MAX) {
            Nanos(newest).saturating_add(AFTER)
        } else {
            window.appended.end
        };
        let mut start = self.first(window, end);
        let mut spans = Vec::new();
        while start < end {
            let until = start.saturating_add(SPAN).min(end);
            spans.push(start..until);
            start = until;
        }
        spans
    }

    fn first(&self, window: &Window, end: Nanos) -> Nanos {
        match window.appended.start {
            Nanos(0) => Nanos(end.0.saturating_sub(nanos(BEFORE))),
            start => start,
        }
    }

    /// From when on there are events in a window. The first window begins before the log does; the log's first event says when that
    /// is, where it shows. Strangers that are older than the log may be hidden then (docs/sinks.md).
    fn since(&self, window: &Window, shown: &[Held]) -> Nanos {
        let first = self.first(window, window.appended.end);
        if window.appended.start > Nanos(0) {
            return first;
        }
        let begins = shown.iter().filter(|held| held.index == Some(window.indexes.start));
        begins.filter_map(|held| held.appended).min().unwrap_or(first)
    }

    /// Why it may have more of what was appended from then on than it shows. The tenant's limits change while it runs; the rest of its
    /// configuration only with a restart.
    async fn hides(&self, since: Nanos) -> Result<Option<String>, Unproven> {
        let now = |error: Trouble| Unproven::Now(error.to_string());
        let limits = self.told("/config/tenant/v1/limits").await.map_err(now)?;
        // A sink that has had nothing to send since its start hasn't asked yet.
        let known = *self.shows();
        let shows = match known {
            Some(shows) => shows,
            None => self.ask_what_it_shows().await.map_err(now)?,
        };
        let shows_for = limit_of(&limits).unwrap_or(shows.period);
        let age = self.clock.wall().0.saturating_sub(since.0);
        if shows_for.is_some_and(|shows_for| age > nanos(shows_for)) {
            return Ok(Some(SHOWS_NOTHING_OLD.to_owned()));
        }
        // What is older than `query_ingesters_within` isn't looked for in the memory of those who hold it.
        Ok((!shows.all && age > nanos(SHOWN)).then(|| HIDES.to_owned()))
    }

    async fn ask_what_it_shows(&self) -> Result<Shows, Trouble> {
        let configuration = self.told("/config").await?;
        let shows = Shows { all: shows_all(&configuration), period: limit_of(&configuration).flatten() };
        *self.shows() = Some(shows);
        Ok(shows)
    }

    fn shows(&self) -> MutexGuard<'_, Option<Shows>> {
        self.shows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams' common selector.
    fn selector(&self) -> String {
        format!("{{job=\"{}\"}}", self.job)
    }

    fn labels(&self, head: Option<&Head<'_>>) -> String {
        let family = head.and_then(|head| Family::of(&head.kind));
        // A family that this program doesn't know has no stream of its own, or its name would be anybody's.
        let family =
            family.map_or_else(|| "other".to_owned(), |family| format!("{family:?}").to_ascii_lowercase());
        let outcome = match head.and_then(|head| head.outcome) {
            None => "none",
            Some(Outcome::Success) => "success",
            Some(Outcome::Failure) => "failure",
            Some(Outcome::Denied) => "denied",
        };
        let producer = match head.map(|head| head.producer.kind) {
            None => "none",
            Some(ProducerKind::Log) => "log",
            Some(ProducerKind::Proxy) => "proxy",
            Some(ProducerKind::Node) => "node",
            Some(ProducerKind::Witness) => "witness",
        };
        let job = &self.job;
        format!("{{family=\"{family}\", job=\"{job}\", outcome=\"{outcome}\", producer=\"{producer}\"}}")
    }

    /// The stream of what is older than Loki takes in the others.
    fn backfill_labels(&self, appended: Nanos) -> String {
        let hour = appended.0 / 3_600_000_000_000;
        let hour = Nanos(hour * 3_600_000_000_000).to_string();
        let hour = hour.get(..13).unwrap_or(&hour);
        format!("{{hour=\"{hour}\", job=\"{}\", origin=\"backfill\"}}", self.job)
    }

    /// The streams that these belong to, in the order of their labels.
    fn streams<'a>(&self, batch: &[&'a Encoded], backfill: bool) -> BTreeMap<Cow<'a, str>, Vec<&'a Encoded>> {
        let behind = self.newest.load(Relaxed).saturating_sub(nanos(LIVE));
        let mut streams: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for encoded in batch {
            let labels = if backfill || encoded.appended.0 < behind {
                Cow::Owned(self.backfill_labels(encoded.appended))
            } else {
                Cow::Borrowed(&*encoded.labels)
            };
            streams.entry(labels).or_default().push(*encoded);
        }
        streams
    }

    /// Each stream by a request of its own: to one of several, Loki answers by what became of its last stream, and says
    /// "stored" of all where it has refused the others.
    async fn push(&self, batch: &[&Encoded], backfill: bool) -> Vec<Result<Answered, Trouble>> {
        let pushes = self
            .streams(batch, backfill)
            .into_iter()
            .map(|(labels, entries)| self.push_stream(labels, entries));
        stream::iter(pushes.collect::<Vec<_>>()).buffer_unordered(PUSHES).collect().await
    }

    async fn push_stream(&self, labels: Cow<'_, str>, entries: Vec<&Encoded>) -> Result<Answered, Trouble> {
        let body = encode_push(&labels, entries.iter().map(|encoded| &*encoded.entry));
        let body = body.map_err(|reason| Trouble::TooLarge { reason })?;
        let request = self
            .request(Method::POST, "/loki/api/v1/push")?
            .header("content-type", "application/x-protobuf")
            .body(body);
        self.http.answer(request).await
    }

    /// Lines of this log; and for a comparison, those that say of no log that they are its: others may write to this job too.
    fn ours(&self, or_nobodys: bool) -> String {
        let (selector, origin) = (self.selector(), serde_json::Value::from(&*self.origin));
        let or = if or_nobodys { " or log_origin=\"\"" } else { "" };
        format!("{selector} | log_origin={origin}{or}")
    }

    /// One page of what lies in a span of time, forward.
    async fn page(&self, query: &str, span: &Range<Nanos>, limit: usize) -> Result<Page, String> {
        let request =
            self.request(Method::GET, "/loki/api/v1/query_range").map_err(|error| error.to_string())?;
        let request = request
            .query(&[
                ("query", query.to_owned()),
                ("start", span.start.0.to_string()),
                ("end", span.end.0.to_string()),
                ("limit", limit.to_string()),
                ("direction", "forward".to_owned()),
            ])
            .header("x-loki-response-encoding-flags", "categorize-labels")
            .header("cache-control", "no-cache");
        let answered = self.http.answer(request).await.map_err(|error| error.to_string())?;
        if answered.status != StatusCode::OK {
            return Err(answered.reason());
        }
        parse(&answered.body)
    }

    /// What Loki has more than once and shows once: a question for lines leaves out exact repeats, a count doesn't. As often
    /// again as it is there, so that the documents are as many as Loki has.
    async fn repeats(&self, span: &Range<Nanos>, shown: &[Held]) -> Result<Vec<Held>, String> {
        let mut by_index: BTreeMap<u64, (usize, &Held)> = BTreeMap::new();
        for held in shown {
            if let Some(index) = held.index {
                by_index.entry(index).or_insert((0, held)).0 += 1;
            }
        }
        let (Some(first), Some(last)) = (by_index.keys().next(), by_index.keys().next_back()) else {
            return Ok(vec![]);
        };
        let lines = by_index.values().map(|(times, _)| times).sum::<usize>();
        // A span is a whole number of milliseconds here, and reaches into the one before: so the indexes are said as well.
        let (origin, span_ms) =
            (serde_json::Value::from(&*self.origin), (span.end.0 - span.start.0).div_ceil(1_000_000));
        let count = format!(
            "count_over_time({} | log_origin={origin} | log_index>={first} | log_index<={last} [{span_ms}ms])",
            self.selector()
        );
        let counted: usize = self.counts(&format!("sum({count})"), span.end).await?.values().sum();
        if counted <= lines {
            return Ok(vec![]);
        }
        let repeated = self.counts(&format!("sum by (log_index) ({count}) > 1"), span.end).await;
        let repeated = repeated.map_err(|reason| {
            format!("{} lines are there more than once, and which isn't told: {reason}", counted - lines)
        })?;
        let mut repeats = Vec::new();
        for (index, counted) in repeated {
            if let Some((times, held)) = index.parse().ok().and_then(|index: u64| by_index.get(&index)) {
                repeats.extend(iter::repeat_n(*held, counted.saturating_sub(*times)).cloned());
            }
        }
        Ok(repeats)
    }

    /// What a question for counts gives at the end of a span: for each `log_index`, or for none.
    async fn counts(&self, query: &str, end: Nanos) -> Result<BTreeMap<String, usize>, String> {
        let request = self.request(Method::GET, "/loki/api/v1/query").map_err(|error| error.to_string())?;
        let request = request.query(&[("query", query), ("time", &(end.0 - 1).to_string())]);
        let answered = self.http.answer(request.header("cache-control", "no-cache")).await;
        let answered = answered.map_err(|error| error.to_string())?;
        if answered.status != StatusCode::OK {
            return Err(answered.reason());
        }
        parse_counts(&answered.body)
    }

    /// All lines of a span. Where more lines have one and the same time than a page holds, they can't all be seen.
    async fn lines(
        &self,
        query: &str,
        span: Range<Nanos>,
        room: &mut Room,
        held: &mut Vec<Held>,
    ) -> Result<(), String> {
        let mut start = span.start;
        while start < span.end {
            let mut page = self.page(query, &(start..span.end), PAGE_LINES).await?;
            page.lines.sort_by_key(|line| line.time);
            let full = page.lines.len() >= PAGE_LINES;
            let last = page.lines.last().map(|line| line.time);
            let Some(last) = last.filter(|_| full) else {
                held.extend(page.lines.into_iter().filter_map(|line| line.held(&self.origin)));
                return Ok(());
            };
            if page.lines.first().is_some_and(|first| first.time == last) {
                return Err(format!(
                    "{} lines and more have the time {last}: not all of them can be seen",
                    PAGE_LINES
                ));
            }
            let before = page.lines.into_iter().filter(|line| line.time < last);
            for line in before.filter_map(|line| line.held(&self.origin)) {
                room.take(&line)?;
                held.push(line);
            }
            start = last;
        }
        Ok(())
    }
}

impl Sink for Loki {
    type Encoded = Encoded;

    fn limits(&self) -> Limits {
        Limits { batch_events: 2_000, ..Limits::default() }
    }

    /// What it has had for hours, whoever has sent it.
    fn hides_copies(&self) -> bool {
        true
    }

    /// Asks what the newest line is: what is much older goes into streams for what is old.
    async fn prepare(&self) -> Result<(), Trouble> {
        let now = self.clock.wall();
        let span = Nanos(now.0.saturating_sub(nanos(SPAN)))..now.saturating_add(AFTER);
        let request = self.request(Method::GET, "/loki/api/v1/query_range")?.query(&[
            ("query", self.selector()),
            ("start", span.start.0.to_string()),
            ("end", span.end.0.to_string()),
            ("limit", "1".to_owned()),
            ("direction", "backward".to_owned()),
        ]);
        let request = request.header("x-loki-response-encoding-flags", "categorize-labels");
        let answered = self.http.answer(request.header("cache-control", "no-cache")).await?;
        if answered.status != StatusCode::OK {
            return Err(answered.trouble());
        }
        let page = parse(&answered.body).map_err(Trouble::unclear)?;
        let newest = page.lines.iter().map(|line| line.time.0).max().unwrap_or(0);
        self.newest.fetch_max(newest, Relaxed);
        self.ask_what_it_shows().await?;
        Ok(())
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        let line = std::str::from_utf8(&item.bytes).map_err(|_| "it isn't text".to_owned())?;
        let head = item.head();
        let labels = self.labels(head.as_ref());
        let entry = encode_entry(item.appended, line, &metadata(item, head, &self.origin));
        Ok(Encoded { labels, appended: item.appended, entry })
    }

    fn bytes(encoded: &Encoded) -> usize {
        encoded.entry.len() + encoded.labels.len()
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let mut pushed = self.push(batch, false).await;
        if let ([_], [Ok(answered)]) = (batch, pushed.as_slice())
            && answered.status == StatusCode::BAD_REQUEST
            && says(answered, "too far behind")
        {
            // Loki's limit is narrower than we think, or others write to this job.
            pushed = self.push(batch, true).await;
        }
        outcome(pushed)?;
        let newest = batch.iter().map(|encoded| encoded.appended.0).max().unwrap_or(0);
        self.newest.fetch_max(newest, Relaxed);
        Ok(vec![Answer::Stored; batch.len()])
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        let (mut documents, mut room, query) = (Vec::new(), Room::default(), self.ours(true));
        for span in self.spans(window) {
            let mut shown = Vec::new();
            self.lines(&query, span.clone(), &mut room, &mut shown).await.map_err(Unproven::Now)?;
            let repeats = self.repeats(&span, &shown).await.map_err(Unproven::Now)?;
            documents.extend(shown);
            documents.extend(repeats);
        }
        let since = self.since(window, &documents);
        Ok(Found { documents, perhaps_more: self.hides(since).await? })
    }

    /// How often it is there doesn't matter for that.
    async fn look_up(&self, window: &Window) -> Result<Found, Unproven> {
        let (mut documents, mut room, query) = (Vec::new(), Room::default(), self.ours(false));
        for span in self.spans(window) {
            self.lines(&query, span, &mut room, &mut documents).await.map_err(Unproven::Now)?;
        }
        let hides = self.hides(self.first(window, window.appended.end)).await?;
        Ok(Found { documents, perhaps_more: hides.filter(|_| !self.sends_old_again) })
    }
}

/// What became of the requests of one batch. Where something of it may have been stored, what is said of the whole leaves doubt.
fn outcome(pushed: Vec<Result<Answered, Trouble>>) -> Result<(), Trouble> {
    let several = pushed.len() > 1;
    let mut troubles = Vec::new();
    let mut stored = false;
    for pushed in pushed {
        match pushed {
            // Others that look like a success aren't one: 260 says that Loki takes nothing of this tenant's, and what has a
            // page to show is somebody in between.
            Ok(Answered { status: StatusCode::OK | StatusCode::NO_CONTENT, body, .. }) if body.is_empty() => {
                stored = true;
            }
            Ok(answered) => troubles.push(refusal(&answered)),
            Err(trouble) => troubles.push(trouble),
        }
    }
    let in_doubt = stored || troubles.iter().any(Trouble::leaves_doubt);
    let Some(first) = troubles.into_iter().next() else { return Ok(()) };
    Err(match first {
        // Which one is too large shows when each is alone.
        Trouble::TooLarge { reason } if several => Trouble::Poisoned { reason },
        Trouble::Late { reason, .. } if in_doubt => Trouble::Late { reason, in_doubt },
        Trouble::Refused { reason, retry_after } if in_doubt => Trouble::Unclear { reason, retry_after },
        Trouble::Denied { reason } if in_doubt => Trouble::unclear(reason),
        first => first,
    })
}

/// Why Loki doesn't take a stream's lines, or not all of them.
fn refusal(answered: &Answered) -> Trouble {
    // A limit on a message's length between Loki's parts: as permanent as 413.
    if answered.status == StatusCode::INTERNAL_SERVER_ERROR && says(answered, "larger than max") {
        return Trouble::TooLarge { reason: answered.reason() };
    }
    if answered.status.is_success() {
        return Trouble::Denied { reason: format!("Loki has taken nothing: {}", answered.reason()) };
    }
    match answered.trouble() {
        // It takes the lines that fit into a limit.
        Trouble::Refused { reason, retry_after } => Trouble::Unclear { reason, retry_after },
        // No event's fault.
        Trouble::Poisoned { reason } if CONFIGURED.iter().any(|text| says(answered, text)) => {
            Trouble::unclear(reason)
        }
        Trouble::Poisoned { reason } => {
            match OUTSIDE_ITS_TIME.iter().find(|(text, _)| says(answered, text)) {
                Some((_, advice)) => Trouble::unclear(format!("{advice}: {reason}")),
                None => Trouble::Poisoned { reason },
            }
        }
        trouble => trouble,
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn says(answered: &Answered, text: &str) -> bool {
    String::from_utf8_lossy(&answered.body).contains(text)
}

/// What can be asked for without parsing the line. A pure function of the entry: a line with other metadata is another
/// line for Loki.
fn metadata<'a>(item: &Item, head: Option<Head<'a>>, origin: &'a str) -> Vec<(&'static str, Cow<'a, str>)> {
    let mut pairs = Vec::with_capacity(PAIRS_MAX);
    pairs.push(("log_index", Cow::Owned(item.index.to_string())));
    pairs.push(("log_leaf", Cow::Owned(hex::to_hex(&item.leaf.0))));
    pairs.push(("log_origin", Cow::Borrowed(origin)));
    if let Some(head) = head {
        of_event(head, &mut pairs);
    }
    for (_, value) in &mut pairs {
        let end = value.floor_char_boundary(VALUE_BYTES_MAX);
        match value {
            Cow::Borrowed(text) => *text = text.get(..end).unwrap_or(text),
            Cow::Owned(text) => text.truncate(end),
        }
    }
    // An empty value is none for Loki.
    pairs.retain(|(_, value)| !value.is_empty());
    pairs
}

fn of_event<'a>(head: Head<'a>, pairs: &mut Vec<(&'static str, Cow<'a, str>)>) {
    let user = head.user().cloned();
    pairs.push(("event_id", Cow::Owned(head.id.to_string())));
    pairs.push(("event_time", Cow::Owned(head.time.to_string())));
    pairs.push(("type", head.kind.into()));
    pairs.push(("version", Cow::Owned(head.version.to_string())));
    pairs.push(("producer_id", head.producer.id.into()));
    let mut put = |name, value: Option<Cow<'a, str>>| pairs.extend(value.map(|value| (name, value)));
    put("user", user.map(Into::into));
    put("session", head.session.map(|session| Cow::Owned(session.to_string())));
    put("cause", head.cause.map(|cause| Cow::Owned(cause.to_string())));
    if let Some(source) = head.source {
        put("source", Some(source.address.into()));
    }
    if let Some(target) = head.target {
        put("target", Some(target.name.into()));
        put("target_kind", Some(target.kind.into()));
        put("login", target.login.map(|login| Cow::Owned(login.to_string())));
    }
}
