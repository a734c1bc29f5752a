//! Elastic Common Schema documents, for Elasticsearch and OpenSearch (`schemas/ecs/mapping.json`).
//!
//! `@timestamp` is the time of appending, which never goes back; the producer's clock is `event.created`. The canonical
//! event stands whole in `event.original`: `SHA-256(0x00 ‖ event.original)` is `custody.log.leaf`, unless something was taken
//! out of it, which `custody.redacted` tells. What ECS has no field for is under `custody.*`, and what is left of the event's
//! data under `custody.data`, in a form that no index refuses.
//! Text is cut to what an index takes as one term, so that it is found by its beginning instead of not at all, and
//! `custody.cut` names what was cut, `custody.mapping` the version of the mapping.

use super::Logged;
use super::json::{Object, Value};
use super::message::Message;
use super::plain::{plain, shortened};
use super::rule::{Field, Path, Rules};
use super::version;
use super::view::View;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
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
    /// None where they depend on the event: a rule for `event.type` gives them.
    #[serde(rename = "type", default)]
    kinds: Vec<String>,
    /// Where the event itself has none.
    #[serde(default)]
    outcome: Option<String>,
}

/// Which version of the mapping makes these documents.
static VERSION: LazyLock<String> = LazyLock::new(|| version::of(|example| made(example, "")));

/// The ECS document of an entry, as JSON. It is the same however often one version of the mapping makes it.
#[must_use]
pub fn document(entry: &Logged<'_>) -> Vec<u8> {
    made(entry, &VERSION)
}

fn made(entry: &Logged<'_>, version: &str) -> Vec<u8> {
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
    document.tree.set("custody.mapping", version);
    Value::from(document.tree).to_json().into_bytes()
}

#[derive(Default)]
struct Document<'v> {
    tree: Object<'v>,
    /// Names of fields whose text was cut.
    cut: Vec<&'static str>,
}

impl<'v> Document<'v> {
    fn put(&mut self, field: &'static Field, value: Option<Value<'v>>) {
        let Some(mut value) = value else { return };
        let bytes_max = MAPPING.limits.get(&field.name).copied().unwrap_or(KEYWORD_BYTES_MAX);
        if shorten(&mut value, bytes_max) {
            self.cut.push(&field.name);
        }
        field.put(&mut self.tree, value);
    }

    /// What kind of event it is.
    fn classify(&mut self, of_type: Option<&'static Type>, denied: bool) {
        let event = of_type.map(|t| t.denied.as_ref().filter(|_| denied).unwrap_or(&t.event));
        let usual = of_type.map(|t| &t.event);
        self.tree.set("event.kind", usual.and_then(|e| e.kind.as_deref()).unwrap_or("event"));
        let names = |names: &'static [String]| names.iter().map(String::as_str).collect::<Vec<_>>();
        if let Some(event) = event {
            self.tree.set("event.category", names(&event.category));
            if !event.kinds.is_empty() {
                self.tree.set("event.type", names(&event.kinds));
            }
        }
        let has_outcome =
            self.tree.get("event").and_then(Value::as_object).is_some_and(|e| e.contains_key("outcome"));
        if let Some(outcome) = usual.and_then(|e| e.outcome.as_deref()).filter(|_| !has_outcome) {
            self.tree.set("event.outcome", outcome);
        }
    }

    fn relate(&mut self) {
        for (field, from) in &MAPPING.related {
            let mut distinct: Vec<Value<'v>> = Vec::new();
            for value in from.iter().filter_map(|from| from.get(&self.tree)) {
                if !distinct.contains(value) {
                    distinct.push(value.clone());
                }
            }
            if !distinct.is_empty() {
                field.put(&mut self.tree, distinct.into());
            }
        }
    }

    fn say(&mut self, view: &View<'_>) {
        let message = Message::of(view);
        self.tree.set("message", message.line);
        self.tree.set("event.severity", message.severity.cef());
    }

    fn keep_data(&mut self, view: &'v View<'_>, taken: &[&Path]) {
        let Some(data) = view.field("data") else { return };
        let plain = plain(data, taken, KEYWORD_BYTES_MAX);
        if plain.cut {
            self.cut.push("custody.data");
        }
        if !plain.values.is_empty() {
            self.tree.set("custody.data", plain.values);
        }
    }

    /// The evidence, and what of the document is less than it.
    fn keep_original(&mut self, entry: &Logged<'v>) {
        match str::from_utf8(entry.bytes) {
            Ok(text) => self.tree.set("event.original", text),
            // JSON can't hold these bytes; the log takes them all the same.
            Err(_) => self.tree.set("custody.original_base64", STANDARD.encode(entry.bytes)),
        }
        if !self.cut.is_empty() {
            self.tree.set("custody.cut", std::mem::take(&mut self.cut));
        }
    }
}

/// Cuts text in `value`; whether there was something to cut.
fn shorten(value: &mut Value<'_>, bytes_max: usize) -> bool {
    match value {
        Value::Text(text) if text.len() > bytes_max => {
            *text = shortened(std::mem::take(text), bytes_max);
            true
        }
        Value::List(items) => {
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
