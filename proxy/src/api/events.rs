//! The log, as people and programs read it: pages in JSON or NDJSON, and subscriptions as server-sent events.
//!
//! A subscription holds a cursor and no queue: entries are read from the log when the reader has room for them. So a
//! slow reader falls behind in the log, not in our memory, and one that takes nothing is dropped.

use super::error::ApiError;
use super::format::Format;
use super::reading::Telling;
use super::{Api, Caller};
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use custody_core::event::{SessionId, Timestamp};
use custody_core::log::Entry;
use custody_core::policy::What;
use custody_core::search::{LIMIT_MAX, Order, Page, Query as Search};
use futures_util::stream;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// The next page's cursor, in each answer.
pub const CURSOR: HeaderName = HeaderName::from_static("custody-cursor");

/// Entries in a page when nobody says how many.
const LIMIT_DEFAULT: usize = 100;
/// The longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 512;
/// How long a question waits for the search projection.
const PATIENCE: Duration = Duration::from_secs(5);
/// A subscription says at least so often that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A reader that leaves what it was sent for so long is dropped.
const SLOW: Duration = Duration::from_secs(30);
/// After something new a subscription waits so long for more of it: bounds its questions to the projection.
const GATHER: Duration = Duration::from_millis(20);

/// What may stand in the query string.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    limit: Option<usize>,
    cursor: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    user: Option<String>,
    text: Option<String>,
    until: Option<Timestamp>,
    session: Option<SessionId>,
    target: Option<String>,
    outcome: Option<String>,
    order: Option<Direction>,
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Asc,
    Desc,
}

impl Asked {
    fn into_search(self) -> Result<Search, ApiError> {
        let invalid = |what: String| Err(ApiError::Invalid(what));
        let texts = [&self.kind, &self.user, &self.text, &self.target, &self.outcome];
        if texts.into_iter().flatten().any(|text| text.len() > FILTER_BYTES_MAX) {
            return invalid(format!("a filter has at most {FILTER_BYTES_MAX} bytes"));
        }
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return invalid(format!("limit is 1 to {LIMIT_MAX}"));
        }
        let cursor = self.cursor.as_deref().map(parse_cursor).transpose()?;
        Ok(Search {
            kind: self.kind,
            user: self.user,
            session: self.session,
            target: self.target,
            outcome: self.outcome,
            text: self.text,
            until: self.until,
            order: match self.order {
                Some(Direction::Desc) => Order::Descending,
                Some(Direction::Asc) | None => Order::Ascending,
            },
            cursor,
            limit,
        })
    }
}

fn parse_cursor(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        ApiError::Invalid("that is no cursor of this server: take it from Custody-Cursor".to_owned())
    })
}

/// In which form an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Lines,
    Stream,
}

fn form(headers: &HeaderMap) -> Form {
    let accepted =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    for kind in accepted {
        match kind.split(';').next().unwrap_or_default().trim() {
            "application/x-ndjson" | "text/plain" => return Form::Lines,
            "text/event-stream" => return Form::Stream,
            "application/json" => return Form::Json,
            _ => {}
        }
    }
    Form::Json
}

/// `GET /v1/events`
pub async fn events(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Query(asked) = asked.map_err(|rejected| ApiError::Invalid(rejected.body_text()))?;
    let format = asked.format.unwrap_or_default();
    let mut search = asked.into_search()?;
    let query = uri.query().unwrap_or_default();
    let form = form(&headers);
    if form == Form::Stream {
        if let Some(last) = headers.get("last-event-id") {
            search.cursor = Some(parse_cursor(last.to_str().unwrap_or_default())?);
        }
        return follow(api, caller, search, query, format).await;
    }
    api.read(&caller, What::ReadLog, "search", query, Telling::Aggregated).await?;
    let page = find(&api, search).await?;
    let next = HeaderValue::from(page.next);
    let origin = api.context.log.origin();
    let (kind, body) = if form == Form::Lines {
        (format.content_type(), lines(origin, &page.entries, format))
    } else {
        ("application/json", json_page(origin, &page, format))
    };
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(kind)), (CURSOR, next)], body).into_response())
}

/// A page that holds all that is durable now.
async fn find(api: &Api, search: Search) -> Result<Page, ApiError> {
    if !search.is_unfiltered() {
        api.context.search.at_least(api.context.log.size(), PATIENCE).await?;
    }
    Ok(api.context.search.find(search).await?)
}

fn lines(origin: &str, entries: &[Entry], format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(&format.line(origin, entry));
        out.push(b'\n');
    }
    out
}

fn json_page(origin: &str, page: &Page, format: Format) -> Vec<u8> {
    let mut out = format!("{{\"cursor\":\"{}\",\"entries\":[", page.next).into_bytes();
    for (n, entry) in page.entries.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&format.item(origin, entry));
    }
    out.extend_from_slice(b"]}");
    out
}

/// One entry as one line of JSON around the canonical bytes, verbatim. Bytes that aren't one line of JSON (no producer
/// of ours writes such) stand in base64 instead.
pub(super) fn entry_line(entry: &Entry) -> Vec<u8> {
    let appended = Timestamp::from(entry.appended);
    let is_json = !entry.bytes.contains(&b'\n')
        && serde_json::from_slice::<serde::de::IgnoredAny>(&entry.bytes).is_ok()
        && std::str::from_utf8(&entry.bytes).is_ok();
    let mut out = format!("{{\"appended\":\"{appended}\",").into_bytes();
    if is_json {
        out.extend_from_slice(b"\"event\":");
        out.extend_from_slice(&entry.bytes);
    } else {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&entry.bytes);
        out.extend_from_slice(format!("\"base64\":\"{text}\",\"event\":null").as_bytes());
    }
    out.extend_from_slice(format!(",\"index\":{}}}", entry.index).as_bytes());
    out
}

/// A subscription.
struct Follower {
    api: Arc<Api>,
    caller: Caller,
    search: Search,
    format: Format,
    /// When something was last handed over.
    handed: Instant,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

async fn follow(
    api: Arc<Api>,
    caller: Caller,
    mut search: Search,
    query: &str,
    format: Format,
) -> Result<Response, ApiError> {
    if search.order == Order::Descending {
        return Err(ApiError::Invalid("a subscription has order=asc: it goes on to what comes".to_owned()));
    }
    let place = Arc::clone(&api.followers)
        .try_acquire_owned()
        .map_err(|_| ApiError::Unavailable("too many subscriptions: end one and try again".to_owned()))?;
    api.read(&caller, What::ReadLog, "follow", query, Telling::Always).await?;
    search.cursor.get_or_insert(0);
    let follower =
        Follower { api, caller, search, format, handed: Instant::now(), ended: false, _place: place };
    let stream = stream::unfold(follower, |mut follower| async move {
        if follower.ended {
            return None;
        }
        let chunk = follower.next().await;
        follower.handed = Instant::now();
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

impl Follower {
    /// The next piece of the stream: entries, a sign of life, or the last event.
    async fn next(&mut self) -> Bytes {
        if self.handed.elapsed() > SLOW {
            return self.end("too-slow", "you read slower than the log grows: go on from the last id");
        }
        let quiet_since = Instant::now();
        loop {
            // Roles, policies and locks may have changed since.
            if let Err(reason) = self.api.may(&self.caller, What::ReadLog) {
                return self.end("denied", &reason);
            }
            let mut closing = self.api.closing.clone();
            if *closing.borrow() {
                return self.end("closing", "the server is being stopped: go on from the last id later");
            }
            // Both are taken before the look, so that what comes after it wakes us.
            let mut size = self.api.context.log.follow();
            size.mark_unchanged();
            let mut indexed = self.api.context.search.progress();
            indexed.mark_unchanged();
            match self.api.context.search.find(self.search.clone()).await {
                Err(error) => return self.end("failed", &error.to_string()),
                Ok(page) => {
                    self.search.cursor = Some(page.next);
                    if !page.entries.is_empty() {
                        return chunk(self.api.context.log.origin(), &page.entries, self.format);
                    }
                }
            }
            let unfiltered = self.search.is_unfiltered();
            let changed = async {
                let changed = if unfiltered { size.changed().await } else { indexed.changed().await };
                tokio::time::sleep(GATHER).await;
                changed
            };
            tokio::select! {
                changed = changed => {
                    if changed.is_err() {
                        return self.end("stopped", "the log has stopped: nothing more will come until it is restarted");
                    }
                }
                _ = closing.changed() => {}
                () = tokio::time::sleep_until(quiet_since + KEEP_ALIVE) => return Bytes::from_static(b": alive\n\n"),
            }
        }
    }

    /// The last event of the stream: which, and one line for people.
    fn end(&mut self, event: &str, line: &str) -> Bytes {
        self.ended = true;
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let body = serde_json::json!({ "error": line });
        Bytes::from(format!("event: {event}\ndata: {body}\n\n"))
    }
}

fn chunk(origin: &str, entries: &[Entry], format: Format) -> Bytes {
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(format!("id: {}\ndata: ", entry.index.saturating_add(1)).as_bytes());
        out.extend_from_slice(&format.line(origin, entry));
        out.extend_from_slice(b"\n\n");
    }
    Bytes::from(out)
}
