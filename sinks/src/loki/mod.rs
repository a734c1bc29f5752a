//! Grafana Loki: few streams, everything else in structured metadata, the line is the canonical event.
//!
//! What Loki does to a sender, as measured with 3.7: it takes the good lines of a push that it answers with 400; it drops an
//! exact repeat only while the first is in the head block, and then counts it twice; it refuses what lies more than half of
//! `max_chunk_age` (by default an hour) behind its stream's newest line. So what is in doubt is looked up, a refused push is
//! halved, and what is old goes into streams of its own, one for each hour of the past or less: there nothing is ever behind.

mod configuration;
mod push;
mod read;
mod stream;
#[cfg(test)]
mod tests;

use self::configuration::{APART, Bounds, HOUR, SPAN, Shows};
use self::push::{Entry, Packer};
use self::read::{Page, parse, parse_counts};
use self::stream::Stream;
use crate::blocking::at_length;
use crate::http::{Answered, Endpoint, Http};
use crate::item::Item;
use crate::secret::Secrets;
use crate::sink::{Answer, Found, Held, Limits, Room, Sink, Trouble, Unproven, Window};
use custody_core::clock::{Clock, Nanos};
use custody_core::event::{Head, hex};
use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What an entry takes beside its line, about, in bytes.
const AROUND_BYTES: usize = 512;
/// Lines that are asked for at once; Loki's own limit is 5,000.
const PAGE_LINES: usize = 1_000;
/// Questions for the newest line, where each may be for a short span only. What is older than all of them keeps nothing behind it.
const LOOKS: usize = 24;
/// How far before a log's first event and after this moment is looked for what shouldn't be there.
const BEFORE: Duration = Duration::from_secs(30 * 86_400);
const AFTER: Duration = Duration::from_secs(3_600);
/// Requests of a batch that are under way at once.
const PUSHES: usize = 4;
/// What Loki says (400, or whatever it is told to say of whom it is told to block) where its limits don't allow for our streams and
/// lines at all: a person has to do something.
const CONFIGURED: [&str; 7] = [
    "structured metadata, but this feature is disallowed",
    "too many structured metadata labels",
    "missing required labels",
    "label names; limit",
    "has label name too long",
    "has label value too long",
    "ingestion blocked",
];
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

/// What it says (400) of a line that lies too far behind its stream's newest one.
const BEHIND: &str = "too far behind";
const BEHIND_ALL: &str = "Loki takes nothing that lies so far behind its stream of old lines: it takes it once that stream is written out \
    (ingester.chunk_idle_period), or set ingester.max_chunk_age: 2h (docs/sinks.md)";

/// `[sink.loki]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it is; `/loki/api/v1/push` comes after it.
    pub endpoint: Endpoint,
    /// The tenant (`X-Scope-OrgID`), where it has more than one.
    pub tenant: Option<String>,
    /// Send events again that may be there and are older than what Loki shows: one that can't be told to show all that
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
        if let Some(tenant) = self.tenant.as_ref().filter(|tenant| tenant.contains('|')) {
            return Err(format!("tenant = \"{tenant}\" names several: Loki takes lines of one at a time"));
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
    /// While nobody writes with it.
    packer: Mutex<Option<Packer>>,
    sends_old_again: bool,
}

/// What becomes an entry when it is sent: only then is it written, next to the others of its stream.
pub struct Encoded(Item);

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
            packer: Mutex::default(),
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

    /// What it says of how it is set up. Where nobody may ask for that, or somebody in between doesn't know of it, it is as the default
    /// has it; what passes is waited for.
    async fn told(&self, path: &str) -> Result<String, Trouble> {
        let answered = self.http.answer(self.request(Method::GET, path)?).await?;
        match answered.status {
            StatusCode::OK => Ok(String::from_utf8_lossy(&answered.body).into_owned()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Err(answered.trouble())
            }
            status if status.is_server_error() => Err(answered.trouble()),
            _ => Ok(String::new()),
        }
    }

    /// The spans of a window, each short enough for one question.
    fn spans(&self, window: &Window, longest: Duration) -> Vec<Range<Nanos>> {
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
            let until = start.saturating_add(longest).min(end);
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

    /// How it shows what it holds, and the limits of the tenant's own, as far as it tells them. These change while it runs; the rest of
    /// its configuration only with a restart.
    async fn asked(&self) -> Result<(Shows, Bounds), Trouble> {
        // A sink that has had nothing to send since its start hasn't asked yet.
        let known = *self.shows();
        let shows = match known {
            Some(shows) => shows,
            None => self.ask_what_it_shows().await?,
        };
        Ok((shows, Bounds::of(&self.told("/config/tenant/v1/limits").await?)))
    }

    async fn ask_what_it_shows(&self) -> Result<Shows, Trouble> {
        let shows = Shows::of(&self.told("/config").await?);
        *self.shows() = Some(shows);
        Ok(shows)
    }

    /// Why it may have more of what was appended from then on than it shows.
    fn hides(&self, (shows, own): (Shows, Bounds), since: Nanos) -> Option<String> {
        let age = self.clock.wall().saturating_since(since);
        shows.hides(own, self.tenant.is_some(), age).map(str::to_owned)
    }

    /// How far a line may lie behind its stream's newest.
    fn behind(&self) -> Duration {
        (*self.shows()).map_or(HOUR, |shows| shows.behind)
    }

    /// Asks when the newest line of the last days was appended, back from a moment that is still to come.
    async fn ask_for_the_newest(&self, longest: Duration) -> Result<(), Trouble> {
        let mut end = self.clock.wall().saturating_add(AFTER);
        let first = Nanos(end.0.saturating_sub(nanos(SPAN)));
        for _ in 0..LOOKS {
            let start = Nanos(end.0.saturating_sub(nanos(longest))).max(first);
            let request = self.request(Method::GET, "/loki/api/v1/query_range")?.query(&[
                ("query", self.selector()),
                ("start", start.0.to_string()),
                ("end", end.0.to_string()),
                ("limit", "1".to_owned()),
                ("direction", "backward".to_owned()),
            ]);
            let request = request.header("x-loki-response-encoding-flags", "categorize-labels");
            let answered = self.http.answer(request.header("cache-control", "no-cache")).await?;
            if answered.status != StatusCode::OK {
                return Err(answered.trouble());
            }
            let page = parse(&answered.body).map_err(Trouble::unclear)?;
            if let Some(newest) = page.lines.iter().map(|line| line.time.0).max() {
                self.newest.fetch_max(newest, Relaxed);
                return Ok(());
            }
            if start == first {
                return Ok(());
            }
            end = start;
        }
        Ok(())
    }

    fn shows(&self) -> MutexGuard<'_, Option<Shows>> {
        self.shows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams' common selector.
    fn selector(&self) -> String {
        format!("{{job=\"{}\"}}", self.job)
    }

    /// A request for each stream.
    fn packed(&self, batch: &[&Encoded], backfill: bool) -> Vec<Result<Vec<u8>, String>> {
        let behind = self.behind();
        // Less, so that clocks may differ.
        let live = self.newest.load(Relaxed).saturating_sub(nanos(behind.saturating_sub(APART)));
        let idle = || self.packer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packer = idle().take().unwrap_or_else(Packer::new);
        for Encoded(item) in batch {
            let head = item.head();
            let stream = if backfill || item.appended.0 < live {
                Stream::backfill(item.appended, behind)
            } else {
                Stream::live(head.as_ref())
            };
            let labels = || stream.labels(&self.job);
            packer.add(stream, labels, (item.appended, &item.bytes), |entry| {
                describe(item, head.as_ref(), &self.origin, entry);
            });
        }
        let packed = packer.finish();
        *idle() = Some(packer);
        packed
    }

    /// Each stream by a request of its own: to one of several, Loki answers by what became of its last stream, and says
    /// "stored" of all where it has refused the others.
    async fn push(&self, batch: &[&Encoded], backfill: bool) -> Vec<Result<Answered, Trouble>> {
        let packed = at_length(|| self.packed(batch, backfill));
        let pushes = packed.into_iter().map(|packed| self.push_stream(packed));
        futures_util::stream::iter(pushes.collect::<Vec<_>>()).buffer_unordered(PUSHES).collect().await
    }

    async fn push_stream(&self, packed: Result<Vec<u8>, String>) -> Result<Answered, Trouble> {
        let body = packed.map_err(|reason| Trouble::TooLarge { reason })?;
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
    async fn page(&self, query: &str, span: &Range<Nanos>, limit: usize) -> Result<Page, Unproven> {
        let request = self
            .request(Method::GET, "/loki/api/v1/query_range")
            .map_err(|error| Unproven::Now(error.to_string()))?;
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
        let answered = self.http.shown(request).await?;
        if answered.status != StatusCode::OK {
            return Err(Unproven::Now(answered.reason()));
        }
        parse(&answered.body).map_err(Unproven::Now)
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
        // A span is a whole number of milliseconds here, and reaches into the one before: so the indexes are said as well. A line that
        // claims one that is no number would make an error of the whole count.
        let (origin, span_ms) =
            (serde_json::Value::from(&*self.origin), (span.end.0 - span.start.0).div_ceil(1_000_000));
        let count = format!(
            "count_over_time({} | log_origin={origin} | log_index>={first} | log_index<={last} | __error__=\"\" [{span_ms}ms])",
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
    ) -> Result<(), Unproven> {
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
                return Err(Unproven::TooMuch(format!(
                    "{PAGE_LINES} lines and more have the time {last}: not all of them can be seen"
                )));
            }
            let before = page.lines.into_iter().filter(|line| line.time < last);
            for line in before.filter_map(|line| line.held(&self.origin)) {
                room.take(&line).map_err(Unproven::TooMuch)?;
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
        Limits { batch_events: 2_000, batch_bytes: 2 << 20, ..Limits::default() }
    }

    /// What it has had for hours, whoever has sent it.
    fn hides_copies(&self) -> bool {
        true
    }

    /// Asks what the newest line is: what is much older goes into streams for what is old.
    async fn prepare(&self) -> Result<(), Trouble> {
        self.ask_what_it_shows().await?;
        let (shows, own) = self.asked().await?;
        self.ask_for_the_newest(shows.longest(own)).await
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        match std::str::from_utf8(&item.bytes) {
            Ok(_) => Ok(Encoded(item.clone())),
            Err(_) => Err("it isn't text".to_owned()),
        }
    }

    fn bytes(Encoded(item): &Encoded) -> usize {
        item.bytes.len() + AROUND_BYTES
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let mut pushed = self.push(batch, false).await;
        if let ([_], [Ok(answered)]) = (batch, pushed.as_slice())
            && is_behind(answered)
        {
            // Loki's limit is narrower than we think, or others write to this job.
            pushed = self.push(batch, true).await;
            if let [Ok(answered)] = pushed.as_slice()
                && is_behind(answered)
            {
                return Err(Trouble::unclear(format!("{BEHIND_ALL}: {}", answered.reason())));
            }
        }
        outcome(pushed)?;
        let newest = batch.iter().map(|Encoded(item)| item.appended.0).max().unwrap_or(0);
        self.newest.fetch_max(newest, Relaxed);
        Ok(vec![Answer::Stored; batch.len()])
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        // Whoever gives a log back asks by time alone: to him what claims no index is nothing, and once is enough.
        let is_compared = !window.indexes.is_empty();
        let asked = self.asked().await.map_err(|error| Unproven::Now(error.to_string()))?;
        let (mut documents, mut room, query) = (Vec::new(), Room::default(), self.ours(is_compared));
        for span in self.spans(window, asked.0.longest(asked.1)) {
            let mut shown = Vec::new();
            self.lines(&query, span.clone(), &mut room, &mut shown).await?;
            if is_compared {
                documents.extend(self.repeats(&span, &shown).await.map_err(Unproven::Now)?);
            }
            documents.extend(shown);
        }
        let since = self.since(window, &documents);
        Ok(Found { documents, perhaps_more: self.hides(asked, since) })
    }

    /// How often it is there doesn't matter for that.
    async fn look_up(&self, window: &Window) -> Result<Found, Unproven> {
        let asked = self.asked().await.map_err(|error| Unproven::Now(error.to_string()))?;
        let (mut documents, mut room, query) = (Vec::new(), Room::default(), self.ours(false));
        for span in self.spans(window, asked.0.longest(asked.1)) {
            self.lines(&query, span, &mut room, &mut documents).await?;
        }
        let hides = self.hides(asked, self.first(window, window.appended.end));
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

/// Whether Loki refuses a line for lying too far behind its stream's newest one.
fn is_behind(answered: &Answered) -> bool {
    answered.status == StatusCode::BAD_REQUEST && says(answered, BEHIND)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn says(answered: &Answered, text: &str) -> bool {
    String::from_utf8_lossy(&answered.body).contains(text)
}

/// Adds what can be asked for without parsing the line. A pure function of the log's entry: a line with other metadata is another
/// line for Loki.
fn describe(item: &Item, head: Option<&Head<'_>>, origin: &str, entry: &mut Entry) {
    entry.add_shown("log_index", item.index);
    entry.add("log_leaf", &hex::to_hex(&item.leaf.0));
    entry.add("log_origin", origin);
    if item.redacted {
        entry.add("log_redacted", "true");
    }
    let Some(head) = head else { return };
    entry.add_shown("event_id", head.id);
    entry.add_shown("event_time", head.time);
    entry.add("type", &head.kind);
    entry.add_shown("version", head.version);
    entry.add("producer_id", &head.producer.id);
    if let Some(user) = head.user() {
        entry.add("user", user);
    }
    if let Some(session) = head.session {
        entry.add_shown("session", session);
    }
    if let Some(cause) = head.cause {
        entry.add_shown("cause", cause);
    }
    if let Some(source) = &head.source {
        entry.add("source", &source.address);
    }
    if let Some(target) = &head.target {
        entry.add("target", &target.name);
        entry.add("target_kind", &target.kind);
        if let Some(login) = &target.login {
            entry.add_shown("login", login);
        }
    }
}
