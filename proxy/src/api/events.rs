//! The log, as people and programs read it: pages in JSON or NDJSON, and subscriptions ([`super::follow`]).
//!
//! A page names the next one in each answer, also an empty one, so that whoever polls never has to think where to go
//! on; and it is cut by bytes too, but never to nothing while there is more. By time it may be cut to nothing: a filter that seldom
//! matches finds nothing for so long, and comes further all the same.

use super::cursor::{Before, CursorError};
use super::error::ApiError;
use super::follow;
use super::format::Format;
use super::place::{Place, index_at};
use super::reading::Telling;
use super::subscriber::Subscriber;
use super::{Api, blocking};
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, LINK, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use custody_core::event::hex::to_hex;
use custody_core::event::{SessionId, Timestamp};
use custody_core::log::{Entry, Hash, ReadError};
use custody_core::search::{LIMIT_MAX, Order, Page, Query as Search};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// The next page's cursor, in each answer.
pub const CURSOR: HeaderName = HeaderName::from_static("custody-cursor");
/// Whether there is more than this page right now: `true` or `false`.
const MORE: HeaderName = HeaderName::from_static("custody-more");

/// Entries in a page when nobody says how many.
const LIMIT_DEFAULT: usize = 100;
/// The longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 512;
/// How long a question waits for the search projection.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a long poll waits, in seconds: less than what proxies on the way have patience for.
const WAIT_SECONDS_MAX: u64 = 60;
/// Bytes of an answer, at most, but for the entry that it ends with: told in a standard's words an event is several
/// times as long as its bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 6 << 20;

/// What may stand in the query string.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    limit: Option<usize>,
    cursor: Option<String>,
    #[serde(alias = "since")]
    from: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    user: Option<String>,
    text: Option<String>,
    until: Option<Timestamp>,
    session: Option<SessionId>,
    #[serde(alias = "node")]
    target: Option<String>,
    outcome: Option<String>,
    order: Option<Direction>,
    format: Option<Format>,
    wait: Option<String>,
    envelope: Option<Envelope>,
    proof: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Asc,
    Desc,
}

/// What stands around a page in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Envelope {
    /// Nothing: a list.
    #[default]
    None,
    /// An object that names the next page.
    Page,
}

/// A question, typed.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Which entries, from where.
    pub search: Search,
    /// In whose words.
    pub format: Format,
    envelope: Envelope,
    proof: bool,
    wait: Duration,
}

fn invalid<T>(what: String) -> Result<T, ApiError> {
    Err(ApiError::Invalid(what))
}

impl Asked {
    /// With the place where it begins: at the cursor, or else at `from`, or else at the beginning.
    async fn into_question(
        self,
        api: &Api,
        form: Form,
        last_event_id: Option<&str>,
    ) -> Result<Question, ApiError> {
        self.fits(form)?;
        let texts = [&self.kind, &self.user, &self.text, &self.target, &self.outcome];
        if texts.into_iter().flatten().any(|text| text.len() > FILTER_BYTES_MAX) {
            return invalid(format!("a filter has at most {FILTER_BYTES_MAX} bytes"));
        }
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return invalid(format!("limit is 1 to {LIMIT_MAX}"));
        }
        let order = match self.order {
            Some(Direction::Desc) => Order::Descending,
            Some(Direction::Asc) | None => Order::Ascending,
        };
        let wait = seconds(self.wait.as_deref())?;
        let descends = order == Order::Descending;
        if descends && (self.from.is_some() || !wait.is_zero()) {
            return invalid("from and wait go with order=asc: what is new comes at the end".to_owned());
        }
        let envelope = self.envelope.unwrap_or_default();
        let proof = match self.proof.as_deref() {
            None | Some("0") => false,
            Some("1") if envelope == Envelope::Page => true,
            Some(_) => return invalid("proof is 1, and goes with envelope=page".to_owned()),
        };
        let mut search = Search {
            kind: self.kind,
            user: self.user,
            session: self.session,
            target: self.target,
            outcome: self.outcome,
            text: self.text,
            until: self.until,
            order,
            cursor: None,
            limit,
        };
        search.check().map_err(|wrong| ApiError::Invalid(wrong.to_string()))?;
        let size = api.context.log.size();
        search.cursor = match (last_event_id.or(self.cursor.as_deref()), self.from.as_deref()) {
            (Some(cursor), _) => Some(go_on_at(api, cursor, &search, size).await?),
            (None, Some(from)) => Some(begin_at(api, from, size).await?),
            (None, None) => None,
        };
        Ok(Question { search, format: self.format.unwrap_or_default(), envelope, proof, wait })
    }

    /// What has no meaning in the form that is wanted isn't passed over: whoever asked for it counts on it.
    fn fits(&self, form: Form) -> Result<(), ApiError> {
        let in_an_envelope =
            self.envelope == Some(Envelope::Page) || self.proof.as_deref().is_some_and(|proof| proof != "0");
        if form != Form::Json && in_an_envelope {
            return invalid("envelope=page and proof=1 go with Accept: application/json".to_owned());
        }
        if form == Form::Stream && self.wait.is_some() {
            return invalid("wait goes with pages: a subscription waits for what comes anyway".to_owned());
        }
        Ok(())
    }
}

/// Where a cursor stands, if the log's history is still the one that it was made in.
async fn go_on_at(api: &Api, cursor: &str, search: &Search, size: u64) -> Result<u64, ApiError> {
    let standing = api.cursors.read(cursor, search, size)?;
    let log = Arc::clone(&api.context.log);
    let before = blocking("read the log", move || Before::at(&*log, standing.place())).await??;
    Ok(standing.index_behind(before)?)
}

async fn begin_at(api: &Api, from: &str, size: u64) -> Result<u64, ApiError> {
    let place: Place = from.parse().map_err(|why| {
        ApiError::Invalid(format!("from is an index, or a time such as 2026-11-25T09:30:00Z: {why}"))
    })?;
    let index = index_at(api, Some(place), 0).await?;
    if index > size {
        return invalid(format!("from={index} lies beyond the end: the log has {size} events"));
    }
    Ok(index)
}

/// `30s` or `30`.
fn seconds(wait: Option<&str>) -> Result<Duration, ApiError> {
    let Some(wait) = wait else { return Ok(Duration::ZERO) };
    let number = wait.strip_suffix('s').unwrap_or(wait);
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    match number.parse() {
        Ok(seconds) if is_number && seconds <= WAIT_SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        _ => invalid(format!("wait is 0s to {WAIT_SECONDS_MAX}s")),
    }
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
pub(super) async fn events(
    Shared(api): Shared<Arc<Api>>,
    subscriber: Subscriber,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Query(asked) = asked.map_err(|rejected| ApiError::Invalid(rejected.body_text()))?;
    let query = uri.query().unwrap_or_default();
    let form = form(&headers);
    let last_event_id = match headers.get("last-event-id") {
        Some(last) if form == Form::Stream => Some(last.to_str().map_err(|_| CursorError::Malformed)?),
        _ => None,
    };
    let is_resumed = last_event_id.is_some();
    let mut question = asked.into_question(&api, form, last_event_id).await?;
    if form == Form::Stream {
        if question.search.order == Order::Descending {
            return invalid("a subscription has order=asc: it goes on to what comes".to_owned());
        }
        return follow::follow(api, subscriber, question, query, is_resumed).await;
    }
    let next_of = next_link(&headers, query)?;
    api.read(&subscriber, subscriber.what(), "search", query, Telling::Aggregated).await?;
    let page = find(&api, question.search.clone()).await?;
    let wait = question.wait;
    let page = follow::long_poll(&api, &subscriber, &mut question, page, wait).await?;
    let checkpoint = if question.proof { covering(&api, &page).await? } else { None };
    let answer = {
        let api = Arc::clone(&api);
        blocking("told a page", move || Answer::new(&api, &question, form, page, checkpoint, &next_of))
            .await??
    };
    Ok(answer.into_response(&headers))
}

/// A page that holds all that is durable now.
pub(super) async fn find(api: &Api, search: Search) -> Result<Page, ApiError> {
    indexed(api, &search).await?;
    Ok(api.context.search.find(search).await?)
}

/// Waits until the search projection, where it is asked at all, has all that is durable now.
pub(super) async fn indexed(api: &Api, search: &Search) -> Result<(), ApiError> {
    if !search.is_unfiltered() {
        api.context.search.at_least(api.context.log.size(), PATIENCE).await?;
    }
    Ok(())
}

/// A checkpoint that covers the page; none is needed for an empty one.
async fn covering(api: &Api, page: &Page) -> Result<Option<custody_core::log::Checkpoint>, ApiError> {
    let Some(last) = page.entries.iter().map(|entry| entry.index).max() else { return Ok(None) };
    let checkpoint = api.context.log.checkpoint();
    if checkpoint.size() > last {
        return Ok(Some(checkpoint));
    }
    let signed = api.context.log.sign_now().await;
    signed
        .map(Some)
        .map_err(|error| ApiError::Unavailable(format!("no checkpoint covers entry {last} yet: {error}")))
}

/// What comes before the cursor in the address of the next page: the same question, where the client found it. It is
/// absolute where the client said under which name, since not every program knows what to do with another.
fn next_link(headers: &HeaderMap, query: &str) -> Result<Vec<u8>, ApiError> {
    let mut link = Vec::new();
    if let Some(host) = headers.get(HOST).filter(|host| is_host(host.as_bytes())) {
        link.extend_from_slice(b"https://");
        link.extend_from_slice(host.as_bytes());
    }
    link.extend_from_slice(b"/v1/events?");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        if name.contains(['%', '+']) {
            return invalid("names of parameters are written plainly".to_owned());
        }
        if !matches!(name, "cursor" | "from" | "since") {
            link.extend_from_slice(pair.as_bytes());
            link.push(b'&');
        }
    }
    link.extend_from_slice(b"cursor=");
    Ok(link)
}

fn is_host(host: &[u8]) -> bool {
    !host.is_empty() && host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(b))
}

/// An answer in full.
struct Answer {
    kind: &'static str,
    body: Vec<u8>,
    cursor: String,
    link: Vec<u8>,
    more: bool,
    tag: String,
}

impl Answer {
    fn new(
        api: &Api,
        question: &Question,
        form: Form,
        page: Page,
        checkpoint: Option<custody_core::log::Checkpoint>,
        next_of: &[u8],
    ) -> Result<Self, ApiError> {
        let (origin, time_is_over) = (api.context.log.origin(), page.cut);
        let Cut { pieces, indexes, next } = Cut::new(origin, question, form, page);
        let before = Before::at(&*api.context.log, next)?;
        let cursor = api.cursors.write(&question.search, next, before);
        let mut link = next_of.to_vec();
        link.extend_from_slice(cursor.as_bytes());
        let more = match question.search.order {
            // Any other empty page has looked at all there was, whatever came since.
            Order::Ascending => time_is_over || (!pieces.is_empty() && next < api.context.log.size()),
            Order::Descending => next > 0,
        };
        let (kind, body) = match (form, question.envelope) {
            (Form::Lines, _) => (question.format.content_type(), lines(&pieces)),
            (_, Envelope::None) => ("application/json", list(&pieces)),
            (_, Envelope::Page) => {
                let mut around =
                    json!({ "more": more, "next": String::from_utf8_lossy(&link), "next_cursor": cursor });
                if let (Some(checkpoint), Some(fields)) = (checkpoint, around.as_object_mut()) {
                    fields.insert("checkpoint".to_owned(), checkpoint.to_string().into());
                    fields.insert("proofs".to_owned(), proofs(api, &indexes, checkpoint.size())?);
                }
                ("application/json", enveloped(&pieces, &around))
            }
        };
        // The same bytes and the same next page: nothing is new for whoever has them.
        let mut hash = Sha256::new();
        hash.update(cursor.as_bytes());
        hash.update(&body);
        let tag = to_hex(hash.finalize().as_slice());
        let tag = format!("\"{}\"", tag.get(..32).unwrap_or(&tag));
        Ok(Self { kind, body, cursor, link, more, tag })
    }

    fn into_response(self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let is_known = known.flat_map(|value| value.split(',')).any(|tag| tag.trim() == self.tag);
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(CONTENT_TYPE, HeaderValue::from_static(self.kind))], Body::from(self.body)).into_response()
        };
        let mut link = b"<".to_vec();
        link.extend_from_slice(&self.link);
        link.extend_from_slice(b">; rel=\"next\"");
        let out = response.headers_mut();
        out.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        out.insert(VARY, HeaderValue::from_static("accept, authorization"));
        out.insert(MORE, HeaderValue::from_static(if self.more { "true" } else { "false" }));
        // Of a query that came as a request's head, which a header can hold.
        for (name, value) in [(CURSOR, self.cursor.into_bytes()), (LINK, link), (ETAG, self.tag.into_bytes())]
        {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                out.insert(name, value);
            }
        }
        response
    }
}

/// As much of a page as an answer holds: its entries in the form that is wanted.
struct Cut {
    pieces: Vec<Vec<u8>>,
    indexes: Vec<u64>,
    /// Where the next page begins.
    next: u64,
}

impl Cut {
    fn new(origin: &str, question: &Question, form: Form, page: Page) -> Self {
        let (mut pieces, mut indexes, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        let (mut next, count) = (page.next, page.entries.len());
        for entry in page.entries {
            let piece = match form {
                Form::Lines => question.format.line(origin, &entry),
                Form::Json | Form::Stream => question.format.item(origin, &entry),
            };
            bytes = bytes.saturating_add(piece.len());
            pieces.push(piece);
            indexes.push(entry.index);
            // The first comes however long it is.
            if bytes >= ANSWER_BYTES_MAX && pieces.len() < count {
                next = match question.search.order {
                    Order::Ascending => entry.index.saturating_add(1),
                    Order::Descending => entry.index,
                };
                break;
            }
        }
        Self { pieces, indexes, next }
    }
}

fn lines(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(piece);
        out.push(b'\n');
    }
    out
}

fn list(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"[".to_vec();
    out.extend_from_slice(&pieces.join(&b','));
    out.push(b']');
    out
}

/// The list within an object, behind what stands around it.
fn enveloped(pieces: &[Vec<u8>], around: &Value) -> Vec<u8> {
    let mut out = b"{".to_vec();
    for (name, value) in around.as_object().into_iter().flatten() {
        out.extend_from_slice(format!("{}:{value},", Value::from(name.as_str())).as_bytes());
    }
    out.extend_from_slice(b"\"entries\":");
    out.extend_from_slice(&list(pieces));
    out.push(b'}');
    out
}

/// For each entry of a page what proves it under the checkpoint of `size` (RFC 6962, 2.1.1).
fn proofs(api: &Api, indexes: &[u64], size: u64) -> Result<Value, ApiError> {
    let proof = |index: &u64| -> Result<Value, ReadError> {
        let hashes = api.context.log.inclusion_proof(*index, size)?;
        let hashes: Vec<String> = hashes.into_iter().map(Hash::to_base64).collect();
        Ok(json!({ "index": index, "hashes": hashes }))
    };
    Ok(indexes.iter().map(proof).collect::<Result<Vec<Value>, ReadError>>()?.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds() {
        for (text, wanted) in [("30s", 30), ("0", 0), ("60", 60)] {
            assert_eq!(seconds(Some(text)).unwrap(), Duration::from_secs(wanted), "{text}");
        }
        for wrong in ["", "s", "61s", "1m", "-1", "+1", "1.5s", "30ss"] {
            assert!(seconds(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_next_link_is_the_same_question_at_another_place() {
        let link = |host: &'static str, query: &str| {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            next_link(&headers, query).map(|link| String::from_utf8(link).unwrap())
        };
        assert_eq!(
            link("custody.example:3080", "type=login&from=0&limit=3&&cursor=x").unwrap(),
            "https://custody.example:3080/v1/events?type=login&limit=3&cursor="
        );
        assert_eq!(link("[::1]:3080", "").unwrap(), "https://[::1]:3080/v1/events?cursor=");
        assert_eq!(link("a>; rel=\"next\"", "").unwrap(), "/v1/events?cursor=");
        assert!(link("x", "%63ursor=1").is_err());
    }

    #[test]
    fn what_is_wanted_is_the_first_that_is_known() {
        let with =
            |value: &'static str| form(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]));
        assert_eq!(with("text/html, application/x-ndjson;q=0.9, application/json"), Form::Lines);
        assert_eq!(with("text/event-stream"), Form::Stream);
        assert_eq!((with("*/*"), form(&HeaderMap::new())), (Form::Json, Form::Json));
    }
}
