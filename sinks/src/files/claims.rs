//! What a line or a row claims to be.

use crate::format::Format;
use crate::sink::Held;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::clock::Nanos;
use custody_core::event::Timestamp;
use custody_core::event::hex::hash_from_hex;
use custody_core::log::Hash;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A line of ours: the event's own bytes behind what the log knows of them.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    index: Value,
    #[serde(default)]
    appended: Value,
    #[serde(default)]
    leaf: Value,
    #[serde(default)]
    origin: Value,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    base64: Option<String>,
}

/// A document of a standard, with the canonical event in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    // ECS
    #[serde(rename = "@timestamp")]
    timestamp: Value,
    custody: Custody,
    event: EventFields,
    // OCSF
    time: Value,
    raw_data: Option<String>,
    unmapped: Unmapped,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Unmapped {
    custody: Custody,
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
    appended: Value,
    index: Value,
    leaf: Value,
    origin: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EventFields {
    original: Option<String>,
}

/// What a line claims, where it doesn't claim to be of another log. What can't be read claims nothing. It may have been written
/// while another format was configured.
pub fn of_line(line: &[u8], format: Format, origin: &str) -> Option<Held> {
    let held = of_form(line, format, origin)?;
    if held.index.is_some() {
        return Some(held);
    }
    for other in [Format::Custody, Format::Ecs, Format::Ocsf].into_iter().filter(|other| *other != format) {
        let held = of_form(line, other, origin)?;
        if held.index.is_some() {
            return Some(held);
        }
    }
    Some(held)
}

/// Whether a line claims in the form of an envelope which event it is.
pub fn is_envelope(line: &[u8], origin: &str) -> bool {
    of_envelope(line, origin).is_some_and(|held| held.index.is_some())
}

fn of_form(line: &[u8], format: Format, origin: &str) -> Option<Held> {
    match format {
        Format::Custody => of_envelope(line, origin),
        Format::Ecs | Format::Ocsf | Format::Cef => of_document(line, format, origin),
    }
}

fn of_envelope(line: &[u8], origin: &str) -> Option<Held> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(line) else { return Some(Held::default()) };
    let log = LogFields {
        appended: envelope.appended,
        index: envelope.index,
        leaf: envelope.leaf,
        origin: envelope.origin,
    };
    let original = match (envelope.event, envelope.base64) {
        (Some(event), _) => Some(event.get().as_bytes().to_vec()),
        (None, Some(text)) => STANDARD.decode(text).ok(),
        (None, None) => None,
    };
    let appended = time(&log.appended);
    held(&log, original, appended, origin)
}

fn of_document(line: &[u8], format: Format, origin: &str) -> Option<Held> {
    let Ok(document) = serde_json::from_slice::<Document>(line) else { return Some(Held::default()) };
    let Document { timestamp, custody, event, time: millis, raw_data, unmapped } = document;
    if format == Format::Ecs {
        let original = original(event.original, custody.original_base64);
        held(&custody.log, original, time(&timestamp), origin)
    } else {
        of_row(millis.as_u64(), raw_data, unmapped.custody, origin)
    }
}

/// What a row of a Parquet file claims; `unmapped` is a column of text.
pub fn of_columns(
    millis: Option<u64>,
    raw_data: Option<String>,
    unmapped: &str,
    origin: &str,
) -> Option<Held> {
    let unmapped: Unmapped = serde_json::from_str(unmapped).unwrap_or_default();
    of_row(millis, raw_data, unmapped.custody, origin)
}

/// OCSF has milliseconds; the nanoseconds stand beside the index. Where they don't agree, somebody changed one of them.
fn of_row(millis: Option<u64>, raw_data: Option<String>, custody: Custody, origin: &str) -> Option<Held> {
    let exact = time(&custody.log.appended);
    let appended = match (exact, millis) {
        (Some(exact), Some(millis)) if exact.0 / 1_000_000 == millis => Some(exact),
        (None, Some(millis)) => Some(Nanos(millis.saturating_mul(1_000_000))),
        // No event was appended then.
        _ => Some(Nanos(0)),
    };
    held(&custody.log, original(raw_data, custody.original_base64), appended, origin)
}

fn original(text: Option<String>, base64: Option<String>) -> Option<Vec<u8>> {
    match (text, base64) {
        (Some(text), _) => Some(text.into_bytes()),
        (None, Some(text)) => STANDARD.decode(text).ok(),
        (None, None) => None,
    }
}

fn held(log: &LogFields, original: Option<Vec<u8>>, appended: Option<Nanos>, origin: &str) -> Option<Held> {
    let claimed = log.origin.as_str();
    if claimed.is_some_and(|claimed| claimed != origin) {
        return None;
    }
    Some(Held {
        index: log.index.as_u64().filter(|_| claimed.is_some()),
        leaf: log.leaf.as_str().and_then(hash_from_hex).map(Hash),
        // A document without the event is an altered one: this destination keeps it.
        original: Some(original.unwrap_or_default()),
        appended,
        document: None,
    })
}

fn time(value: &Value) -> Option<Nanos> {
    value.as_str().and_then(|time| time.parse::<Timestamp>().ok()).map(|time| Nanos(time.nanos()))
}
