//! Elastic Common Schema documents, for Elasticsearch and OpenSearch (`schemas/ecs/mapping.json`).
//!
//! `@timestamp` is the time of appending, which never goes back; the producer's clock is `event.created`. The canonical
//! event stands whole in `event.original`: `SHA-256(0x00 ‖ event.original)` is `custody.log.leaf`. What ECS has no field
//! for is under `custody.*`, and what is left of the event's data under `custody.data`, in a form that no index refuses.
//! Text is cut to what an index takes as one term, so that it is found by its beginning instead of not at all, and
//! `custody.cut` names what was cut.

use super::Logged;
use super::convert::cut;
use super::message::{MESSAGE_BYTES_MAX, Message};
use super::plain::plain;
use super::rule::{Field, Path, Rules};
use super::view::View;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const FILE: &str = include_str!("../../../schemas/ecs/mapping.json");
/// What text is cut to where the file names no other limit. The index templates take 1,024 characters, and a character
/// is at least a byte.
const KEYWORD_BYTES_MAX: usize = 1_024;

static MAPPING: LazyLock<Mapping> =
    // A part of the program; a test holds that it can be read and knows every type.
    LazyLock::new(|| serde_json::from_str(FILE).unwrap_or_default());

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    /// Of ECS; stands in the documents by a rule of its own.
    #[serde(rename = "version")]
    _version: String,
    /// What text is cut to, in bytes.
    limits: BTreeMap<String, usize>,
    /// Rules for every event.
    every: Rules,
    /// Lists of what stands in other fields of the document.
    related: BTreeMap<Field, Vec<Field>>,
    /// What each type adds.
    types: BTreeMap<String, Type>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Type {
    event: Event,
    /// The categories and types instead, where the outcome is `denied`.
    #[serde(default)]
    denied: Option<Event>,
    #[serde(default)]
    fields: Rules,
}

/// Fields of `event` that say what kind of event it is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    #[serde(default)]
    kind: Option<String>,
    category: Vec<String>,
    #[serde(rename = "type")]
    kinds: Vec<String>,
    /// Where the event itself has none.
    #[serde(default)]
    outcome: Option<String>,
}

/// The ECS document of an entry, as JSON. It is the same however often it is made.
#[must_use]
pub fn document(entry: &Logged<'_>) -> Vec<u8> {
    Value::Object(tree(entry)).to_string().into_bytes()
}

fn tree(entry: &Logged<'_>) -> Map<String, Value> {
    let view = View::new(entry);
    let mut document = Document::default();
    let of_type = view.text("type").and_then(|name| MAPPING.types.get(name));

    for (field, rule) in &MAPPING.every {
        document.put(field, rule.value(&view, &mut Vec::new()));
    }
    let mut taken = Vec::new();
    for (field, rule) in of_type.iter().flat_map(|t| &t.fields) {
        document.put(field, rule.value(&view, &mut taken));
    }
    document.classify(of_type, view.text("outcome") == Some("denied"));
    document.relate();
    document.say(&view);
    document.keep_data(&view, &taken);
    document.keep_original(entry);
    document.tree
}

#[derive(Default)]
struct Document {
    tree: Map<String, Value>,
    /// Names of fields whose text was cut.
    cut: Vec<String>,
}

impl Document {
    fn put(&mut self, field: &Field, value: Option<Value>) {
        let Some(mut value) = value else { return };
        let bytes_max = MAPPING.limits.get(&field.name).copied().unwrap_or(KEYWORD_BYTES_MAX);
        if shorten(&mut value, bytes_max) {
            self.cut.push(field.name.clone());
        }
        field.put(&mut self.tree, value);
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        Field::from(name.to_owned()).put(&mut self.tree, value.into());
    }

    /// What kind of event it is.
    fn classify(&mut self, of_type: Option<&Type>, denied: bool) {
        let event = of_type.map(|t| t.denied.as_ref().filter(|_| denied).unwrap_or(&t.event));
        let usual = of_type.map(|t| &t.event);
        self.set("event.kind", usual.and_then(|e| e.kind.as_deref()).unwrap_or("event"));
        if let Some(event) = event {
            self.set("event.category", event.category.clone());
            self.set("event.type", event.kinds.clone());
        }
        let outcome = usual.and_then(|e| e.outcome.as_deref());
        if let (None, Some(outcome)) = (self.tree.get("event").and_then(|e| e.get("outcome")), outcome) {
            self.set("event.outcome", outcome);
        }
    }

    fn relate(&mut self) {
        for (field, from) in &MAPPING.related {
            let mut found = Vec::new();
            for value in from.iter().filter_map(|from| from.get(&self.tree)) {
                match value {
                    Value::Array(items) => found.extend(items.iter().cloned()),
                    one => found.push(one.clone()),
                }
            }
            let mut distinct: Vec<Value> = Vec::new();
            for value in found {
                if !distinct.contains(&value) {
                    distinct.push(value);
                }
            }
            if !distinct.is_empty() {
                field.put(&mut self.tree, Value::from(distinct));
            }
        }
    }

    fn say(&mut self, view: &View) {
        let message = Message::of(view);
        self.set("message", cut(&message.line, MESSAGE_BYTES_MAX));
        self.set("event.severity", message.severity.cef());
    }

    fn keep_data(&mut self, view: &View, taken: &[&Path]) {
        let Some(data) = view.data() else { return };
        let plain = plain(data, taken, KEYWORD_BYTES_MAX);
        if plain.cut {
            self.cut.push("custody.data".to_owned());
        }
        if !plain.values.is_empty() {
            self.set("custody.data", plain.values);
        }
    }

    /// The evidence, and what of the document is less than it.
    fn keep_original(&mut self, entry: &Logged<'_>) {
        match str::from_utf8(entry.bytes) {
            Ok(text) => self.set("event.original", text),
            // JSON can't hold these bytes; the log takes them all the same.
            Err(_) => self.set("custody.original_base64", STANDARD.encode(entry.bytes)),
        }
        if !self.cut.is_empty() {
            let cut = std::mem::take(&mut self.cut);
            self.set("custody.cut", json!(cut));
        }
    }
}

/// Cuts text in `value`; whether there was something to cut.
fn shorten(value: &mut Value, bytes_max: usize) -> bool {
    match value {
        Value::String(text) if text.len() > bytes_max => {
            *text = cut(text, bytes_max).to_owned();
            true
        }
        Value::Array(items) => {
            let mut any = false;
            for item in items {
                any |= shorten(item, bytes_max);
            }
            any
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "ecs_tests.rs"]
mod tests;
