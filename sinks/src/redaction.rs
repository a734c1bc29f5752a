//! What a sink takes out of events before they leave: some stores are read by people who may not see everything.
//!
//! What is taken out is still proved to be there, by its index and its leaf hash.

use crate::item::Item;
use aws_lc_rs::hmac;
use custody_core::event::canonical::{self, Json};
use custody_core::event::hex;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// What stands in the place of what was dropped.
pub const DROPPED: &str = "[redacted]";

/// One field of an event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its path, e.g. `data.command` or `source.address`.
    pub field: String,
    /// What stands there instead.
    #[serde(default)]
    pub with: With,
}

/// What stands in a field's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum With {
    /// [`DROPPED`].
    #[default]
    Nothing,
    /// `hmac-sha256:` and the value's HMAC: the same value can be recognised, and not be guessed without the key.
    Hash,
}

/// All rules of a sink.
#[derive(Clone, Default)]
pub struct Redaction {
    rules: Vec<Rule>,
    key: Option<hmac::Key>,
}

impl Redaction {
    /// `key` is the HMAC's; without one no rule may hash.
    ///
    /// # Errors
    /// What is wrong with the rules.
    pub fn new(rules: Vec<Rule>, key: Option<&[u8]>) -> Result<Self, String> {
        for rule in &rules {
            if rule.field.is_empty() || rule.field.split('.').any(str::is_empty) {
                return Err(format!("\"{}\" is no path of a field: write data.command", rule.field));
            }
            if matches!(rule.field.as_str(), "id" | "type" | "version" | "time") {
                return Err(format!("{} can't be redacted: it says what the event is", rule.field));
            }
            if rule.with == With::Hash && key.is_none_or(<[u8]>::is_empty) {
                return Err(format!("{} is to be hashed, and the sink has no redaction_secret", rule.field));
            }
        }
        Ok(Self { rules, key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)) })
    }

    /// The event without what isn't to be seen. What isn't JSON and can't be looked into leaves as nothing.
    #[must_use]
    pub fn apply(&self, item: Item) -> Item {
        if self.rules.is_empty() {
            return item;
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&item.bytes) else {
            return Item { bytes: Arc::from(&b"{}"[..]), redacted: true, event: None, ..item };
        };
        let mut changed = false;
        for rule in &self.rules {
            if let Some(found) = find(&mut value, &rule.field) {
                *found = self.instead(rule, found);
                changed = true;
            }
        }
        if !changed {
            return item;
        }
        match canonical::to_bytes(&Json(value)) {
            Ok(bytes) => {
                // The envelope is read again, so that what was taken out isn't used from there.
                let event = custody_core::event::Event::parse(&bytes).ok().map(Arc::new);
                Item { bytes: bytes.into(), redacted: true, event, ..item }
            }
            Err(_) => Item { bytes: Arc::from(&b"{}"[..]), redacted: true, event: None, ..item },
        }
    }

    fn instead(&self, rule: &Rule, value: &Value) -> Value {
        match (&self.key, rule.with) {
            (Some(key), With::Hash) => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let tag = hmac::sign(key, text.as_bytes());
                Value::String(format!("hmac-sha256:{}", hex::to_hex(tag.as_ref())))
            }
            _ => Value::String(DROPPED.to_owned()),
        }
    }
}

fn find<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |value, key| value.as_object_mut()?.get_mut(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::clock::Nanos;
    use custody_core::event::{Event, EventData, TYPES, command};
    use custody_core::log::Entry;

    fn item(name: &str) -> Item {
        let info = TYPES.iter().find(|info| info.name == name).unwrap();
        let bytes = (info.example)().unwrap().into();
        Item::new(Entry { index: 7, appended: Nanos(1), tag: info.family.tag(), bytes })
    }

    fn rule(field: &str, with: With) -> Rule {
        Rule { field: field.into(), with }
    }

    #[test]
    fn what_is_named_is_taken_out_and_nothing_else() {
        let redaction = Redaction::new(
            vec![rule("data.command", With::Nothing), rule("actor.user", With::Hash)],
            Some(b"key"),
        )
        .unwrap();
        let whole = item(command::Requested::TYPE);
        let redacted = redaction.apply(whole.clone());
        assert!(redacted.redacted);
        assert_eq!((redacted.index, redacted.leaf), (whole.index, whole.leaf));
        let text = String::from_utf8(redacted.bytes.to_vec()).unwrap();
        assert!(text.contains(DROPPED) && text.contains("hmac-sha256:") && !text.contains("alice"), "{text}");
        assert!(Event::parse(&redacted.bytes).is_ok());
        assert_eq!(redaction.apply(whole.clone()).bytes, redacted.bytes, "the same each time");
        let other = Redaction::new(vec![rule("actor.user", With::Hash)], Some(b"other")).unwrap();
        assert_ne!(other.apply(whole).bytes, redacted.bytes);
    }

    #[test]
    fn an_event_without_the_field_leaves_whole() {
        let redaction = Redaction::new(vec![rule("data.command", With::Nothing)], None).unwrap();
        let item = redaction.apply(item("log.sealed"));
        assert!(!item.redacted);
        assert_eq!(custody_core::log::tree::leaf_hash(&item.bytes), item.leaf);
    }

    #[test]
    fn what_cannot_be_looked_into_does_not_leave() {
        let redaction = Redaction::new(vec![rule("data.command", With::Nothing)], None).unwrap();
        let entry = Entry { index: 0, appended: Nanos(0), tag: 0, bytes: b"secret"[..].into() };
        let item = redaction.apply(Item::new(entry));
        assert_eq!((&*item.bytes, item.redacted), (&b"{}"[..], true));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for (wrong, key) in [
            (rule("", With::Nothing), None),
            (rule("data..x", With::Nothing), None),
            (rule("type", With::Nothing), None),
            (rule("data.command", With::Hash), None),
            (rule("data.command", With::Hash), Some(&b""[..])),
        ] {
            assert!(Redaction::new(vec![wrong.clone()], key).is_err(), "{wrong:?}");
        }
    }
}
