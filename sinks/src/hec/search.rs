//! What Splunk's search shows ("search/v2/jobs/export" in Splunk's REST API reference).

use crate::sink::{Held, Window};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::clock::Nanos;
use custody_core::event::Timestamp;
use custody_core::event::hex::hash_from_hex;
use custody_core::log::Hash;
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write as _;

/// Splunk keeps times to the microsecond: what lies at a window's edge is asked for with its neighbours.
const EDGE_SECONDS: u64 = 1;
/// The last time that a search takes.
const SECONDS_MAX: u64 = i32::MAX as u64;
const NANOS: u64 = 1_000_000_000;

/// The question for what lies in a window by its time, as the body of a form.
pub fn form(window: &Window, index: &str, sourcetype: &str, origin: &str) -> Vec<u8> {
    let quoted = origin.replace('\\', "\\\\").replace('"', "\\\"");
    let search = format!(
        "search index=\"{index}\" sourcetype=\"{sourcetype}\" (log_origin=\"{quoted}\" OR NOT log_origin=*) \
         | table _time _raw log_appended log_index log_leaf log_origin encoding"
    );
    let earliest = (window.appended.start.0 / NANOS).saturating_sub(EDGE_SECONDS);
    let latest = (window.appended.end.0 / NANOS).saturating_add(1 + EDGE_SECONDS).min(SECONDS_MAX);
    let mut form = String::new();
    let fields = [
        ("search", search.as_str()),
        ("earliest_time", &earliest.to_string()),
        ("latest_time", &latest.to_string()),
        ("output_mode", "json"),
        ("preview", "false"),
        ("allow_partial_results", "false"),
        ("time_format", "%s.%N"),
    ];
    for (n, (name, value)) in fields.into_iter().enumerate() {
        if n > 0 {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        percent_encode(value, &mut form);
    }
    form.into_bytes()
}

/// `application/x-www-form-urlencoded`
fn percent_encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                into.push(char::from(byte))
            }
            b' ' => into.push('+'),
            // Writing to a string can't fail.
            _ => drop(write!(into, "%{byte:02X}")),
        }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    preview: bool,
    #[serde(default)]
    lastrow: bool,
    result: Option<Row>,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    text: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Row {
    #[serde(rename = "_time")]
    time: Text,
    #[serde(rename = "_raw")]
    raw: Text,
    log_appended: Text,
    log_index: Text,
    log_leaf: Text,
    log_origin: Text,
    encoding: Text,
}

/// What a field says. One that an event has several times is a list: none of ours has that, and it says nothing.
#[derive(Default, Deserialize)]
#[serde(from = "Value")]
struct Text(Option<String>);

impl From<Value> for Text {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self(Some(text)),
            _ => Self(None),
        }
    }
}

/// The documents of a window, where the answer is whole: it says which row is the last, and warns of nothing.
///
/// # Errors
/// Why it isn't.
pub fn documents(body: &[u8], window: &Window, origin: &str) -> Result<Vec<Held>, String> {
    let (mut held, mut whole) = (Vec::new(), false);
    for line in serde_json::Deserializer::from_slice(body).into_iter::<Line>() {
        let line = line.map_err(|error| format!("its answer can't be read: {error}"))?;
        if let Some(message) =
            line.messages.iter().find(|message| !["INFO", "DEBUG"].contains(&&*message.kind))
        {
            return Err(format!("its answer may not be whole: {} {}", message.kind, message.text));
        }
        if line.preview {
            return Err("its answer is a preview".to_owned());
        }
        whole |= line.lastrow;
        if let Some(row) = line.result {
            held.extend(claimed(row, origin).filter(|held| is_in(window, held)));
        }
    }
    if whole { Ok(held) } else { Err("its answer has no last row".to_owned()) }
}

fn is_in(window: &Window, held: &Held) -> bool {
    held.index.is_some_and(|index| window.indexes.contains(&index))
        || held.appended.is_some_and(|appended| window.appended.contains(&appended))
}

fn claimed(row: Row, origin: &str) -> Option<Held> {
    let Row { time, raw, log_appended, log_index, log_leaf, log_origin, encoding } = row;
    let is_ours = log_origin.0.as_deref() == Some(origin);
    if log_origin.0.is_some() && !is_ours {
        return None;
    }
    let original = raw.0.map(|raw| match (encoding.0.as_deref(), raw.strip_prefix("base64:")) {
        (Some("base64"), Some(text)) => STANDARD.decode(text).unwrap_or_default(),
        _ => raw.into_bytes(),
    });
    let shown = time.0.as_deref().and_then(nanos);
    let exact: Option<Nanos> =
        log_appended.0.and_then(|time| time.parse::<Timestamp>().ok()).map(|time| Nanos(time.nanos()));
    // The exact one counts as long as the time by which it is found agrees.
    let appended = match (exact, shown) {
        (Some(exact), Some(shown)) if exact.0.abs_diff(shown.0) < 1_000_000 => Some(exact),
        (_, shown) => shown.or(Some(Nanos(0))),
    };
    Some(Held {
        index: log_index.0.filter(|_| is_ours).and_then(|index| index.parse().ok()),
        leaf: log_leaf.0.as_deref().and_then(hash_from_hex).map(Hash),
        original: Some(original.unwrap_or_default()),
        appended,
        document: None,
    })
}

/// `_time`: seconds with a fraction, or RFC 3339 with an offset of UTC.
fn nanos(text: &str) -> Option<Nanos> {
    if let Some((seconds, fraction)) = text.split_once('.')
        && let (Ok(seconds), true) =
            (seconds.parse::<u64>(), fraction.bytes().all(|byte| byte.is_ascii_digit()))
    {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        return Some(Nanos(seconds.checked_mul(NANOS)?.checked_add(digits.parse().ok()?)?));
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Nanos(seconds.checked_mul(NANOS)?));
    }
    let utc = text.replace("+00:00", "Z");
    utc.parse::<Timestamp>().ok().map(|time| Nanos(time.nanos()))
}
