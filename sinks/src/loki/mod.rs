//! Grafana Loki: few streams, everything else in structured metadata, the line is the canonical event.
//!
//! What Loki does to a sender, as measured with 3.7: it takes the good lines of a push that it answers with 400; it drops an
//! exact repeat only while the first is in the head block, and then counts it twice; it refuses what lies more than an
//! hour behind its stream's newest line. So what is in doubt is looked up, a refused push is halved, and what is old
//! goes into streams of its own, one for each hour of the past: there nothing is ever behind.

mod push;
mod read;
#[cfg(test)]
mod tests;

use self::push::{LokiEntry, encode_entry, encode_push};
use self::read::{Page, parse};
use crate::http::{Answered, Endpoint, Http};
use crate::item::Item;
use crate::secret::Secrets;
use crate::sink::{Answer, Found, Held, Limits, Sink, Trouble, Unproven, Window};
use custody_core::clock::{Clock, Nanos};
use custody_core::event::{Event, Family, Outcome, ProducerKind, hex};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
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
    /// Whether it shows all that it holds, however old.
    shows_all: AtomicBool,
    sends_old_again: bool,
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
            shows_all: AtomicBool::new(false),
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

    /// The streams' common selector.
    fn selector(&self) -> String {
        format!("{{job=\"{}\"}}", self.job)
    }

    fn labels(&self, item: &Item) -> String {
        let event = item.event();
        let family = event.and_then(|event| Family::of(&event.kind));
        // A family that this program doesn't know has no stream of its own, or its name would be anybody's.
        let family =
            family.map_or_else(|| "other".to_owned(), |family| format!("{family:?}").to_ascii_lowercase());
        let outcome = match event.and_then(|event| event.outcome) {
            None => "none",
            Some(Outcome::Success) => "success",
            Some(Outcome::Failure) => "failure",
            Some(Outcome::Denied) => "denied",
        };
        let producer = match event.map(|event| event.producer.kind) {
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

    async fn push(&self, batch: &[&Encoded], backfill: bool) -> Result<Answered, Trouble> {
        let behind = self.newest.load(Relaxed).saturating_sub(nanos(LIVE));
        let entries = batch.iter().map(|encoded| {
            let old = backfill || encoded.appended.0 < behind;
            let labels = if old {
                Cow::Owned(self.backfill_labels(encoded.appended))
            } else {
                Cow::Borrowed(&*encoded.labels)
            };
            LokiEntry { labels, bytes: &encoded.entry }
        });
        let body = encode_push(entries).map_err(|reason| Trouble::TooLarge { reason })?;
        let request = self
            .request(Method::POST, "/loki/api/v1/push")?
            .header("content-type", "application/x-protobuf")
            .body(body);
        self.http.answer(request).await
    }

    /// One page of what lies in a span of time, forward.
    async fn page(&self, span: &Range<Nanos>, limit: usize) -> Result<Page, String> {
        let request =
            self.request(Method::GET, "/loki/api/v1/query_range").map_err(|error| error.to_string())?;
        let request = request
            .query(&[
                ("query", self.selector()),
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

    /// All lines of a span. Where more lines have one and the same time than a page holds, they can't all be seen.
    async fn lines(&self, span: Range<Nanos>, held: &mut Vec<Held>) -> Result<(), String> {
        let mut start = span.start;
        while start < span.end {
            let mut page = self.page(&(start..span.end), PAGE_LINES).await?;
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
            held.extend(before.filter_map(|line| line.held(&self.origin)));
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
        let page = parse(&answered.body).map_err(|reason| Trouble::Unclear { reason })?;
        let newest = page.lines.iter().map(|line| line.time.0).max().unwrap_or(0);
        self.newest.fetch_max(newest, Relaxed);
        // Where nobody may ask for its configuration, it is as the default has it.
        let configuration = self.http.answer(self.request(Method::GET, "/config")?).await?;
        let shows_all = configuration.status == StatusCode::OK
            && shows_all(&String::from_utf8_lossy(&configuration.body));
        self.shows_all.store(shows_all, Relaxed);
        Ok(())
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        let line = std::str::from_utf8(&item.bytes).map_err(|_| "it isn't text".to_owned())?;
        let entry = encode_entry(item.appended, line, &metadata(item, &self.origin));
        Ok(Encoded { labels: self.labels(item), appended: item.appended, entry })
    }

    fn bytes(encoded: &Encoded) -> usize {
        encoded.entry.len() + encoded.labels.len()
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let mut answered = self.push(batch, false).await?;
        if let [_] = batch
            && answered.status == StatusCode::BAD_REQUEST
            && says(&answered, "too far behind")
        {
            // Loki's limit is narrower than we think, or others write to this job.
            answered = self.push(batch, true).await?;
        }
        match answered.status {
            status if status.is_success() => {
                let newest = batch.iter().map(|encoded| encoded.appended.0).max().unwrap_or(0);
                self.newest.fetch_max(newest, Relaxed);
                Ok(vec![Answer::Stored; batch.len()])
            }
            // A limit on a message's length between Loki's parts: as permanent as 413.
            StatusCode::INTERNAL_SERVER_ERROR if says(&answered, "larger than max") => {
                Err(Trouble::TooLarge { reason: answered.reason() })
            }
            _ => Err(answered.trouble()),
        }
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        let now = self.clock.wall();
        let end = window.appended.end.min(now.saturating_add(AFTER));
        // Nothing is looked for in the decades before there was a log.
        let first = if window.appended.start == Nanos(0) {
            Nanos(end.0.saturating_sub(nanos(BEFORE)))
        } else {
            window.appended.start
        };
        let (mut held, mut start) = (Vec::new(), first);
        while start < end {
            let until = start.saturating_add(SPAN).min(end);
            self.lines(start..until, &mut held).await.map_err(Unproven::Now)?;
            start = until;
        }
        // What is older than `query_ingesters_within` isn't looked for in the memory of those who hold it.
        let hides = !self.shows_all.load(Relaxed) && !self.sends_old_again;
        let perhaps_more =
            (hides && first < Nanos(now.0.saturating_sub(nanos(SHOWN)))).then(|| HIDES.to_owned());
        Ok(Found { documents: held, perhaps_more })
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a Loki with this configuration (`/config`, which tells the values that count) looks for lines of any age in
/// the memory of those who hold them: by `query_store_max_look_back_period` if that isn't zero, and else by
/// `query_ingesters_within`, which is left out where it is zero.
fn shows_all(configuration: &str) -> bool {
    let value = |name: &str| {
        let mut lines = configuration.lines().map(str::trim);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("0s", str::trim)
    };
    if !configuration.lines().any(|line| line == "querier:") {
        return false;
    }
    match value("query_store_max_look_back_period") {
        "0s" => value("query_ingesters_within") == "0s",
        period => period.starts_with('-'),
    }
}

fn says(answered: &Answered, text: &str) -> bool {
    String::from_utf8_lossy(&answered.body).contains(text)
}

/// What can be asked for without parsing the line. A pure function of the entry: a line with other metadata is another
/// line for Loki.
fn metadata<'a>(item: &'a Item, origin: &'a str) -> Vec<(&'static str, Cow<'a, str>)> {
    let mut pairs = Vec::with_capacity(PAIRS_MAX);
    pairs.push(("log_index", Cow::Owned(item.index.to_string())));
    pairs.push(("log_leaf", Cow::Owned(hex::to_hex(&item.leaf.0))));
    pairs.push(("log_origin", Cow::Borrowed(origin)));
    if let Some(event) = item.event() {
        of_event(event, &mut pairs);
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

fn of_event<'a>(event: &'a Event, pairs: &mut Vec<(&'static str, Cow<'a, str>)>) {
    pairs.push(("event_id", Cow::Owned(event.id.to_string())));
    pairs.push(("event_time", Cow::Owned(event.time.to_string())));
    pairs.push(("type", Cow::Borrowed(&event.kind)));
    pairs.push(("version", Cow::Owned(event.version.to_string())));
    pairs.push(("producer_id", Cow::Borrowed(&event.producer.id)));
    let mut put = |name, value: Option<Cow<'a, str>>| pairs.extend(value.map(|value| (name, value)));
    put("user", event.actor.user().map(Cow::Borrowed));
    put("session", event.session.map(|session| Cow::Owned(session.to_string())));
    put("cause", event.cause.map(|cause| Cow::Owned(cause.to_string())));
    if let Some(source) = &event.source {
        put("source", Some(Cow::Borrowed(&source.address)));
    }
    if let Some(target) = &event.target {
        put("target", Some(Cow::Borrowed(&target.name)));
        put("target_kind", Some(Cow::Borrowed(&target.kind)));
        put("login", target.login.as_ref().map(|login| Cow::Owned(login.to_string())));
    }
}
