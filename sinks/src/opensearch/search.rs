//! What a store holds of a part of the log: the question, and what its answer is worth.

use crate::sink::{Held, Unproven, Window};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::clock::Nanos;
use custody_core::event::Timestamp;
use custody_core::event::hex::hash_from_hex;
use custody_core::log::Hash;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The end of what `date_nanos` can hold, in the year 2262.
const TIME_MAX: u64 = i64::MAX as u64;

/// Whether all shards did what was asked: of what one didn't, nothing can be said.
///
/// # Errors
/// When some didn't.
pub fn whole(status: StatusCode, body: &[u8]) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    struct Done {
        #[serde(rename = "_shards")]
        shards: Shards,
    }
    match serde_json::from_slice::<Done>(body) {
        Ok(done) if status.is_success() && done.shards.failed == 0 => Ok(()),
        _ => Err("not all shards did it"),
    }
}

#[derive(Deserialize)]
struct Shards {
    failed: u64,
}

/// What is shown of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Which event it is.
    Event,
    /// All of it.
    Whole,
}

/// All documents that claim an index of the window; and for a comparison, all of its time that are of no other log, whatever they
/// claim. What is looked up is known by its index, and the documents of others who write there don't count against the limit. Of a window
/// of time alone, as whoever gives a log back asks for it, all of this log: to him what claims no log is nothing.
pub fn question(window: &Window, origin: &str, shown: Shown, hits_max: usize) -> Value {
    let (from, to) = (window.indexes.start, window.indexes.end.min(TIME_MAX));
    let mut time = json!({ "gte": Timestamp::from(window.appended.start).to_string() });
    if window.appended.end.0 < TIME_MAX
        && let Some(time) = time.as_object_mut()
    {
        time.insert("lt".to_owned(), Timestamp::from(window.appended.end).to_string().into());
    }
    let ours = json!({ "term": { "custody.log.origin": origin } });
    let time = json!({ "range": { "@timestamp": time } });
    let claims = json!({ "bool": { "filter": [ours, { "range": { "custody.log.index": { "gte": from, "lt": to } } }] } });
    let nobodys = json!({ "bool": { "must_not": { "exists": { "field": "custody.log.origin" } } } });
    let ours_or_nobodys = json!({ "bool": { "should": [ours, nobodys], "minimum_should_match": 1 } });
    let within = json!({ "bool": { "filter": [ours_or_nobodys, time] } });
    let either = match shown {
        Shown::Event => json!([claims]),
        Shown::Whole if window.indexes.is_empty() => json!([{ "bool": { "filter": [ours, time] } }]),
        Shown::Whole => json!([claims, within]),
    };
    let source = match shown {
        Shown::Event => json!(["@timestamp", "custody.log", "custody.original_base64", "event.original"]),
        Shown::Whole => json!(true),
    };
    json!({
        "size": hits_max,
        "track_total_hits": true,
        "_source": source,
        "query": { "bool": { "should": either, "minimum_should_match": 1 } },
    })
}

#[derive(Deserialize)]
struct Response {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    total: Total,
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Total {
    value: usize,
    relation: String,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_source")]
    source: Box<RawValue>,
}

/// What says which event it is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    #[serde(rename = "@timestamp")]
    timestamp: Value,
    custody: Custody,
    event: EventFields,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Custody {
    log: LogFields,
    original_base64: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LogFields {
    index: Value,
    leaf: Value,
    origin: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EventFields {
    original: Option<String>,
}

/// The documents, where the answer is whole.
///
/// # Errors
/// Why it isn't.
pub fn documents(body: &[u8], origin: &str, shown: Shown) -> Result<Vec<Held>, Unproven> {
    let response: Response = serde_json::from_slice(body)
        .map_err(|error| Unproven::Now(format!("its answer can't be read: {error}")))?;
    if response.timed_out || response.shards.failed > 0 {
        return Err(Unproven::Now("not all shards answered".to_owned()));
    }
    let Hits { total, hits } = response.hits;
    if total.relation != "eq" || total.value != hits.len() {
        return Err(Unproven::TooMuch(format!("it shows {} of {} documents", hits.len(), total.value)));
    }
    Ok(hits.into_iter().filter_map(|hit| held(&hit.source, origin, shown)).collect())
}

/// What a document claims, where it doesn't claim to be of another log.
fn held(source: &RawValue, origin: &str, shown: Shown) -> Option<Held> {
    // Whoever may write there may have put anything into these fields: it claims nothing then.
    let claims: Source = serde_json::from_str(source.get()).unwrap_or_default();
    let Source { timestamp, custody: Custody { log, original_base64 }, event } = claims;
    if log.origin.as_str().is_some_and(|claimed| claimed != origin) {
        return None;
    }
    let is_ours = log.origin.as_str() == Some(origin);
    let original = match (event.original, original_base64) {
        (Some(text), _) => Some(text.into_bytes()),
        (None, Some(text)) => STANDARD.decode(text).ok(),
        (None, None) => None,
    };
    Some(Held {
        index: log.index.as_u64().filter(|_| is_ours),
        leaf: log.leaf.as_str().and_then(hash_from_hex).map(Hash),
        original,
        appended: timestamp
            .as_str()
            .and_then(|time| time.parse::<Timestamp>().ok())
            .map(|time| Nanos(time.nanos())),
        document: (shown == Shown::Whole).then(|| source.get().as_bytes().to_vec()),
    })
}
