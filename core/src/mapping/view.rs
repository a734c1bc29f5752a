//! An entry as rules see it: the event's own fields, and beside them what the log knows of it.

use super::Logged;
use super::json::{Object, Value};
use crate::event::hex::to_hex;

/// The name under which rules find what the log knows; no event has a field of that name.
const LOG: &str = "log";
/// What stands there of an entry of which something was taken out, and of no other.
const REDACTED: &str = "redacted";

/// An entry whose fields can be asked for by path.
pub(super) struct View<'e> {
    event: Value<'e>,
    log: Object<'e>,
}

impl<'e> View<'e> {
    /// Reads an entry. What isn't a JSON object has no fields, and that is no error.
    pub(super) fn new(entry: &Logged<'e>) -> Self {
        let event: Value<'e> = serde_json::from_slice(entry.bytes).unwrap_or_default();
        let mut log = Object::new();
        log.insert("appended", entry.appended.to_string());
        log.insert("id", entry.id());
        log.insert("index", entry.index);
        log.insert("leaf", to_hex(&entry.leaf.0));
        log.insert("origin", entry.origin);
        if entry.is_redacted() {
            log.insert(REDACTED, true);
        }
        let mut this = Self { event, log };
        if let Some((family, _)) = this.text("type").and_then(|kind| kind.split_once('.')) {
            let family = family.to_owned();
            this.log.insert("family", family);
        }
        this
    }

    /// The value at `path`; `None` if it is absent or null.
    pub(super) fn at<'v>(&'v self, path: &[String]) -> Option<&'v Value<'e>> {
        let (first, rest) = path.split_first()?;
        let root = if first == LOG {
            let (key, rest) = rest.split_first()?;
            return self.log.get(key).filter(|_| rest.is_empty());
        } else {
            self.event.as_object()?.get(first)?
        };
        let value = rest.iter().try_fold(root, |value, key| value.as_object()?.get(key))?;
        (*value != Value::Null).then_some(value)
    }

    /// The value of the top-level field `name`; `None` if it is absent or null.
    pub(super) fn field(&self, name: &str) -> Option<&Value<'e>> {
        self.event.as_object()?.get(name).filter(|value| **value != Value::Null)
    }

    /// Whether something was taken out of it.
    pub(super) fn is_redacted(&self) -> bool {
        self.log.contains_key(REDACTED)
    }

    /// The text of the top-level field `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_str()
    }
}
