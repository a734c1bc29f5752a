//! What Loki answers to a question for lines.

use crate::sink::Held;
use custody_core::clock::Nanos;
use custody_core::event::hex::hash_from_hex;
use custody_core::log::Hash;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::BTreeMap;

/// Lines in no order.
#[derive(Debug)]
pub struct Page {
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    pub time: Nanos,
    pub text: String,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Response<T> {
    status: String,
    data: Data<T>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<T> {
    result_type: String,
    result: Vec<T>,
}

/// The parts of an answer of that type; one that says that it isn't whole is none.
fn result<T: DeserializeOwned>(body: &[u8], result_type: &str) -> Result<Vec<T>, String> {
    let response: Response<T> =
        serde_json::from_slice(body).map_err(|error| format!("its answer can't be read: {error}"))?;
    if response.status != "success" || response.data.result_type != result_type {
        return Err(format!("its answer isn't one of {result_type}"));
    }
    match response.warnings.as_ref().and_then(|warnings| warnings.first()) {
        Some(warning) => Err(format!("its answer isn't whole: {warning}")),
        None => Ok(response.data.result),
    }
}

#[derive(Deserialize)]
struct Stream {
    /// With all metadata of its lines, where somebody in between doesn't let the wish through to have them apart.
    #[serde(default)]
    stream: BTreeMap<String, String>,
    values: Vec<Value>,
}

/// `[time, line]`, or `[time, line, {structuredMetadata, parsed}]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    With(String, String, Categories),
    Bare(String, String),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Categories {
    structured_metadata: BTreeMap<String, String>,
}

/// Reads an answer to a question for lines.
///
/// # Errors
/// What is wrong with it.
pub fn parse(body: &[u8]) -> Result<Page, String> {
    let streams: Vec<Stream> = result(body, "streams")?;
    let lines = streams
        .into_iter()
        .flat_map(|Stream { stream, values }| values.into_iter().map(move |value| Line::new(value, &stream)));
    Ok(Page { lines: lines.collect::<Result<_, _>>()? })
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: (IgnoredAny, String),
}

/// Reads an answer to a question for counts: by their `log_index`, which is empty where they aren't told apart.
///
/// # Errors
/// What is wrong with it.
pub fn parse_counts(body: &[u8]) -> Result<BTreeMap<String, usize>, String> {
    let samples: Vec<Sample> = result(body, "vector")?;
    let counts = samples.into_iter().map(|Sample { mut metric, value: (_, count) }| {
        let count = count.parse().map_err(|_| format!("{count} is no count"))?;
        Ok((metric.remove("log_index").unwrap_or_default(), count))
    });
    counts.collect()
}

impl Line {
    fn new(value: Value, labels: &BTreeMap<String, String>) -> Result<Self, String> {
        let (time, text, own) = match value {
            Value::With(time, text, categories) => (time, text, categories.structured_metadata),
            Value::Bare(time, text) => (time, text, BTreeMap::new()),
        };
        let time = time.parse().map_err(|_| "a line of it has no time".to_owned())?;
        let mut metadata = labels.clone();
        metadata.extend(own);
        Ok(Self { time: Nanos(time), text, metadata })
    }

    /// What it claims, where it doesn't claim to be of another log.
    pub fn held(self, origin: &str) -> Option<Held> {
        let get = |name: &str| self.metadata.get(name).map(String::as_str);
        if get("log_origin").is_some_and(|claimed| claimed != origin) {
            return None;
        }
        let index = get("log_origin").and(get("log_index")).and_then(|index| index.parse().ok());
        let leaf = get("log_leaf").and_then(hash_from_hex).map(Hash);
        let original = Some(self.text.into_bytes());
        Some(Held { index, leaf, appended: Some(self.time), original, document: None })
    }
}
