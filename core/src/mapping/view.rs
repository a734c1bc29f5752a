//! An entry as rules see it: the event's own fields, and beside them what the log knows of it.

use super::Logged;
use crate::event::hex::to_hex;
use serde_json::{Value, json};

/// The name under which rules find what the log knows; no event has a field of that name.
const LOG: &str = "log";

/// An entry whose fields can be asked for by path.
pub(super) struct View {
    event: Value,
    log: Value,
}

impl View {
    /// Reads an entry. What isn't a JSON object has no fields, and that is no error.
    pub(super) fn new(entry: &Logged<'_>) -> Self {
        let event = serde_json::from_slice(entry.bytes).ok().filter(Value::is_object).unwrap_or_default();
        let log = json!({
            "appended": entry.appended.to_string(),
            "family": event.get("type").and_then(Value::as_str).and_then(|t| Some(t.split_once('.')?.0)),
            "id": entry.id(),
            "index": entry.index,
            "leaf": to_hex(&entry.leaf.0),
            "origin": entry.origin,
        });
        Self { event, log }
    }

    /// The value at `path`; `None` if it is absent or null.
    pub(super) fn at(&self, path: &[String]) -> Option<&Value> {
        let (root, rest) = match path.split_first() {
            Some((first, rest)) if first == LOG => (&self.log, rest),
            _ => (&self.event, path),
        };
        rest.iter().try_fold(root, |value, key| value.as_object()?.get(key)).filter(|value| !value.is_null())
    }

    /// The text at the top-level field `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.event.get(name)?.as_str()
    }

    /// The event's data.
    pub(super) fn data(&self) -> Option<&Value> {
        self.event.get("data")
    }
}
