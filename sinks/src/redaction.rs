//! What a sink takes out of events before they leave: some stores are read by people who may not see everything.
//!
//! What is taken out is still proved to be there, by its index and its leaf hash.

use crate::item::Item;
use crate::suggest::or_perhaps;
use aws_lc_rs::hmac;
use bytes::Bytes;
use custody_core::event::canonical::{self, Json};
use custody_core::event::fields::Fields;
use custody_core::event::{
    Actor, Draft, Event, EventData, EventId, Outcome, Person, ProducerKind, ProducerRef,
};
use custody_core::event::{SessionId, Source, Target, Timestamp, hex, login};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// What stands in the place of what was dropped.
pub const DROPPED: &str = "[redacted]";

/// What an envelope may lack, and which no text can stand for: dropped, they aren't there.
const OPTIONAL: [&str; 5] = ["cause", "outcome", "session", "source", "target"];

/// Where the same stands once more: policy is asked about a command before anything is told of it, and the decision holds the whole
/// question. Not objects: by the same path another type may have what no text can stand for. Of a rename, a link or a copy there is a
/// decision for each of its two names, and in both it stands by the same path.
const COPIES: [(&str, &[&str]); 10] = [
    ("actor.user", &["data.principal"]),
    ("data.command", &["data.asked.command", "data.context.command", "data.context.subsystem"]),
    ("data.path", &["data.asked", "data.context.path"]),
    ("data.place.host", &["data.context.address", "data.context.host"]),
    ("data.place.path", &["data.context.path"]),
    ("data.place.port", &["data.context.port"]),
    ("data.to", &["data.context.path"]),
    ("source.address", &["data.context.source"]),
    ("target.login", &["data.context.login"]),
    ("target.name", &["data.resource"]),
];

/// One field of an event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its path, e.g. `data.command` or `source.address`. Of a list it is each element, or that field in each. What decisions hold of
    /// the same is meant as well.
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

impl Rule {
    /// Whether events have that field, and are events without it.
    fn check(&self, fields: &Fields, whole: &Value) -> Result<(), String> {
        let field = self.field.as_str();
        if !fields.has(field) {
            return Err(format!("no event has a field {field}{}", or_perhaps(field, fields.iter())));
        }
        if matches!(field, "id" | "type" | "version" | "time") {
            return Err(format!("{field} can't be redacted: it says what the event is"));
        }
        let mut left = whole.clone();
        self.apply(&mut left, &|_| Value::from(DROPPED));
        match serde_json::from_value::<Event>(left) {
            Ok(_) => Ok(()),
            Err(_) if OPTIONAL.contains(&field) => Err(format!(
                "{field} can't be hashed, since it is no text: leave `with` out, and it is dropped"
            )),
            Err(_) => Err(format!(
                "{field} can't be redacted: without it nothing could be read of the event; name a field within it, or the one that it lies in"
            )),
        }
    }

    /// Whether something was taken out of `event`. `instead` says what stands in the place of a value.
    fn apply(&self, event: &mut Value, instead: &dyn Fn(&Value) -> Value) -> bool {
        // Whoever takes out a whole takes out what lies in it.
        let is_within = |field: &str| {
            field.strip_prefix(&self.field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let copies = COPIES.iter().filter(|(field, _)| is_within(field)).flat_map(|(_, copies)| *copies);
        let copied = copies.fold(false, |changed, path| {
            replace(event, Some(path), &|value| (!value.is_object()).then(|| instead(value))) | changed
        });
        let own = match event.as_object_mut() {
            Some(event) if self.with == With::Nothing && OPTIONAL.contains(&self.field.as_str()) => {
                event.remove(&self.field).is_some()
            }
            _ => replace(event, Some(&self.field), &|value| Some(instead(value))),
        };
        own | copied
    }
}

/// Replaces what lies at `path`, in each element of the lists on the way, by what `instead` gives for it, and says whether there
/// was something. Names in maps may have dots themselves.
fn replace(value: &mut Value, path: Option<&str>, instead: &dyn Fn(&Value) -> Option<Value>) -> bool {
    match (value, path) {
        (Value::Array(elements), _) => {
            elements.iter_mut().fold(false, |changed, element| replace(element, path, instead) | changed)
        }
        (value, None) => match instead(value) {
            Some(other) => {
                *value = other;
                true
            }
            None => false,
        },
        (Value::Object(object), Some(path)) => object.iter_mut().fold(false, |changed, (name, value)| {
            let below = path.strip_prefix(name.as_str()).and_then(|rest| match rest.strip_prefix('.') {
                Some(rest) => Some(Some(rest)),
                None => rest.is_empty().then_some(None),
            });
            below.is_some_and(|below| replace(value, below, instead)) | changed
        }),
        (_, Some(_)) => false,
    }
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
        check(&rules)?;
        let hashed = rules.iter().find(|rule| rule.with == With::Hash);
        if let Some(rule) = hashed
            && key.is_none_or(<[u8]>::is_empty)
        {
            return Err(format!("{} is to be hashed, and the sink has no redaction_secret", rule.field));
        }
        Ok(Self { rules, key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)) })
    }

    /// The event without what isn't to be seen. What isn't JSON and can't be looked into leaves as nothing.
    #[must_use]
    pub fn apply(&self, item: Item) -> Item {
        if self.rules.is_empty() {
            return item;
        }
        let Ok(mut event) = serde_json::from_slice::<Value>(&item.bytes) else {
            return item.redacted_to(Bytes::from_static(b"{}"));
        };
        let changed = self.rules.iter().fold(false, |changed, rule| {
            rule.apply(&mut event, &|value| self.instead(rule.with, value)) | changed
        });
        if !changed {
            return item;
        }
        item.redacted_to(
            canonical::to_bytes(&Json(event)).map_or_else(|_| Bytes::from_static(b"{}"), Into::into),
        )
    }

    fn instead(&self, with: With, value: &Value) -> Value {
        match (&self.key, with) {
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

/// Whether rules make sense: one that finds nothing would let everything out.
///
/// # Errors
/// What is wrong with the first that doesn't.
fn check(rules: &[Rule]) -> Result<(), String> {
    if rules.is_empty() {
        return Ok(());
    }
    let (fields, whole) = (Fields::new(), whole_event()?);
    rules.iter().try_for_each(|rule| rule.check(&fields, &whole))
}

/// An event that has whatever an envelope can have.
fn whole_event() -> Result<Value, String> {
    let person = Person {
        certificate: Some("1".to_owned()),
        identity_provider: "local".to_owned(),
        mfa: false,
        roles: vec!["role".to_owned()],
        user: "user".to_owned(),
    };
    let text = || Some("text".into());
    let source = Source { address: "192.0.2.1".to_owned(), client: text(), port: 1 };
    let target = Target {
        address: Some("192.0.2.2:22".to_owned()),
        kind: "node".to_owned(),
        login: text(),
        name: "name".to_owned(),
    };
    let draft = Draft::new(Actor::Person(person), login::Failed::example())
        .cause(EventId::new())
        .session(SessionId::new())
        .source(source)
        .target(target)
        .outcome(Outcome::Failure);
    let producer =
        ProducerRef { boot: Uuid::nil(), id: "custody".to_owned(), kind: ProducerKind::Log, seq: 0 };
    serde_json::to_value(draft.numbered(producer, Timestamp::from_nanos(0)))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, logged};
    use custody_core::clock::Nanos;
    use custody_core::event::{TYPES, command};
    use custody_core::log::Entry;

    fn item(name: &str) -> Item {
        let info = TYPES.iter().find(|info| info.name == name).unwrap();
        whole((info.example)().unwrap())
    }

    fn whole(bytes: Vec<u8>) -> Item {
        Item::new(Entry { index: 7, appended: Nanos(1), tag: 1, bytes: bytes.into() })
    }

    /// What was taken out of a command must not be read in the decision on it, which is told first.
    #[test]
    fn what_decisions_hold_of_the_same_is_taken_out_too() {
        let info = TYPES.iter().find(|info| info.name == "decision.made").unwrap();
        let mut made: Value = serde_json::from_slice(&(info.example)().unwrap()).unwrap();
        made["actor"]["user"] = "alice".into();
        made["data"]["context"]["command"] = "mysql -pS3cret".into();
        made["data"]["context"]["path"] = "/home/alice/S3cret".into();
        made["data"]["context"]["host"] = "db.example".into();
        made["data"]["context"]["port"] = 54_321.into();
        let made = whole(canonical::to_bytes(&Json(made)).unwrap());
        for (field, secrets) in [
            ("data.command", &["-pS3cret"][..]),
            ("data.path", &["alice/S3cret"]),
            ("data.to", &["alice/S3cret"]),
            ("source.address", &["192.0.2.7"]),
            ("source", &["192.0.2.7"]),
            ("actor.user", &["\"alice\"", "::\\\"alice"]),
            ("data.place", &["db.example", "54321", "alice/S3cret"]),
            ("data.place.host", &["db.example"]),
            ("data.place.port", &["54321"]),
            ("target", &["\"login\":\"root\"", "web-1\\\""]),
            ("target.login", &["\"login\":\"root\""]),
            ("target.name", &["web-1\\\""]),
        ] {
            let before = String::from_utf8(made.bytes.to_vec()).unwrap();
            assert!(secrets.iter().all(|secret| before.contains(secret)), "{field}: {before}");
            let left = Redaction::new(vec![rule(field, With::Nothing)], None).unwrap().apply(made.clone());
            let text = String::from_utf8(left.bytes.to_vec()).unwrap();
            assert!(left.redacted && !secrets.iter().any(|secret| text.contains(secret)), "{field}: {text}");
            Event::parse(&left.bytes).unwrap();
        }
        // Of another type the same path has an object.
        let requested = Redaction::new(vec![rule("data.path", With::Nothing)], None).unwrap();
        assert!(!requested.apply(item("command.requested")).redacted);
    }

    fn rule(field: &str, with: With) -> Rule {
        Rule { field: field.into(), with }
    }

    fn applied(field: &str, with: With, event: &Value) -> Value {
        let redaction = Redaction::new(vec![rule(field, with)], Some(b"key")).unwrap();
        let item = redaction.apply(whole(event.to_string().into_bytes()));
        serde_json::from_slice(&item.bytes).unwrap()
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
        assert!(redacted.head().is_some_and(|head| head.user().is_some_and(|user| **user != *"alice")));
        assert_eq!(redaction.apply(whole.clone()).bytes, redacted.bytes, "the same each time");
        let other = Redaction::new(vec![rule("actor.user", With::Hash)], Some(b"other")).unwrap();
        assert_ne!(other.apply(whole).bytes, redacted.bytes);
    }

    /// Whatever can be named is gone from all forms in which an event leaves, and what is left is an event.
    #[test]
    fn each_field_of_each_type_can_be_taken_out_or_is_refused() {
        const NEEDLE: &str = "needle-7f3a";
        let with_needle =
            |event: &mut Value, path: &str| replace(event, Some(path), &|_| Some(Value::from(NEEDLE)));
        let fields = Fields::new();
        let mut redacted = 0;
        for (field, with) in fields.iter().flat_map(|field| [(field, With::Nothing), (field, With::Hash)]) {
            let Ok(redaction) = Redaction::new(vec![rule(field, with)], Some(b"key")) else { continue };
            for info in TYPES {
                let mut event: Value = serde_json::from_slice(&(info.example)().unwrap()).unwrap();
                if !with_needle(&mut event, field) {
                    continue;
                }
                let item = redaction.apply(whole(event.to_string().into_bytes()));
                assert!(item.head().is_some(), "{field} of {}", info.name);
                for format in [Format::Custody, Format::Ecs, Format::Ocsf, Format::Cef] {
                    let left = String::from_utf8(format.of(&logged(&item, "log")).into_owned()).unwrap();
                    assert!(!left.contains(NEEDLE), "{field} of {} as {format:?}: {left}", info.name);
                }
                redacted += 1;
            }
        }
        assert!(redacted > 1_000, "{redacted}");
    }

    #[test]
    fn lists_are_gone_through_and_names_may_have_dots() {
        let variables = serde_json::json!({"data": {
            "environment": [{"name": "A", "value": "secret"}, {"name": "B", "value": "secret"}],
            "labels": {"app.kubernetes.io/name": "secret", "app": "web"},
        }, "actor": {"roles": ["secret", "secret"]}});
        let left = applied("data.environment.value", With::Nothing, &variables);
        assert_eq!(left["data"]["environment"][1], serde_json::json!({"name": "B", "value": DROPPED}));
        let left = applied("data.environment", With::Nothing, &variables);
        assert_eq!(left["data"]["environment"], serde_json::json!([DROPPED, DROPPED]));
        let left = applied("data.labels.app.kubernetes.io/name", With::Nothing, &variables);
        assert_eq!(
            left["data"]["labels"],
            serde_json::json!({"app.kubernetes.io/name": DROPPED, "app": "web"})
        );
        let left = applied("actor.roles", With::Hash, &variables);
        assert!(left["actor"]["roles"][0].as_str().unwrap().starts_with("hmac-sha256:"));
        assert_eq!(left["actor"]["roles"][0], left["actor"]["roles"][1]);
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
        let item = redaction.apply(whole(b"secret".to_vec()));
        assert_eq!((&*item.bytes, item.redacted), (&b"{}"[..], true));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for (wrong, with, key, told) in [
            ("", With::Nothing, None, "no event has a field"),
            ("data..x", With::Nothing, None, "no event has a field"),
            ("data.comand", With::Nothing, None, "did you mean data.command?"),
            ("actor.username", With::Nothing, None, "did you mean actor.user?"),
            ("type", With::Nothing, None, "it says what the event is"),
            ("actor", With::Nothing, None, "name a field within it"),
            ("source.port", With::Nothing, None, "the one that it lies in"),
            ("session", With::Hash, Some(&b"key"[..]), "leave `with` out"),
            ("data.command", With::Hash, None, "no redaction_secret"),
            ("data.command", With::Hash, Some(&b""[..]), "no redaction_secret"),
        ] {
            let error = Redaction::new(vec![rule(wrong, with)], key).err().unwrap();
            assert!(error.contains(told), "{wrong}: {error}");
        }
        assert!(
            Redaction::new(vec![rule("session", With::Nothing), rule("source", With::Nothing)], None).is_ok()
        );
    }
}
