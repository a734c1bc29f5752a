//! What the projection keeps of an entry.

use crate::event::{Actor, Event, Outcome};
use crate::log::Entry;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The columns of one entry. An entry that isn't an event of ours has a row all the same: it is found by its index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// `family.past-participle`.
    pub kind: String,
    /// What stands before the dot.
    pub family: String,
    /// On whose behalf, or whose name a failed login claimed.
    pub user: Option<String>,
    /// The session, as 16 bytes.
    pub session: Option<[u8; 16]>,
    /// The target's name.
    pub target: Option<String>,
    /// How it came out.
    pub outcome: Option<&'static str>,
    /// The words of all values; see [`words`].
    pub text: String,
}

impl Row {
    pub fn of(entry: &Entry) -> Self {
        let Ok(event) = Event::parse(&entry.bytes) else { return Self::default() };
        let mut text = String::with_capacity(entry.bytes.len());
        for part in [
            Some(event.kind.as_str()),
            Some(&event.id.to_string()),
            event.cause.map(|id| id.to_string()).as_deref(),
        ] {
            push_words(&mut text, part.unwrap_or_default());
        }
        if let Some(session) = event.session {
            push_words(&mut text, &session.to_string());
        }
        match &event.actor {
            Actor::Person(person) => push_words(&mut text, &person.user),
            Actor::System(system) => push_words(&mut text, &system.system),
        }
        if let Some(source) = &event.source {
            push_words(&mut text, &source.address);
            push_words(
                &mut text,
                &source.client.as_ref().map(crate::event::ByteString::to_text).unwrap_or_default(),
            );
        }
        if let Some(target) = &event.target {
            for part in [&target.kind, &target.name, target.address.as_deref().unwrap_or_default()] {
                push_words(&mut text, part);
            }
            push_words(
                &mut text,
                &target.login.as_ref().map(crate::event::ByteString::to_text).unwrap_or_default(),
            );
        }
        // Depth is bounded by serde_json itself, length by the log.
        let _shape =
            serde_json::Deserializer::from_str(event.data.get()).deserialize_any(Values(&mut text)).is_ok();
        let user = event.actor.user().map(str::to_owned).or_else(|| claimed_user(&event));
        Self {
            family: event.kind.split_once('.').map_or(event.kind.as_str(), |(family, _)| family).to_owned(),
            user,
            session: event.session.map(|id| *id.0.as_bytes()),
            target: event.target.map(|target| target.name),
            outcome: event.outcome.map(|outcome| match outcome {
                Outcome::Success => "success",
                Outcome::Failure => "failure",
                Outcome::Denied => "denied",
            }),
            kind: event.kind,
            text,
        }
    }
}

fn claimed_user(event: &Event) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claim {
        claimed_user: Option<String>,
    }
    if event.kind != "login.failed" {
        return None;
    }
    serde_json::from_str::<Claim>(event.data.get()).ok()?.claimed_user
}

/// The words of a text: runs of letters and digits, in lower case.
///
/// SQLite's `ascii` tokenizer splits what [`push_words`] writes into exactly these, so that the index and a
/// question always mean the same words; its Unicode tokenizer has tables of its own.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).filter_map(|word| {
        // Lower case can hold a combining dot (İ): what isn't a letter or digit goes.
        let word: String = word.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
        (!word.is_empty()).then_some(word)
    })
}

fn push_words(out: &mut String, text: &str) {
    // Nearly all is ASCII, and this is done for each text of each event.
    if text.is_ascii() {
        return push_ascii_words(out, text);
    }
    for word in words(text) {
        out.push_str(&word);
        out.push(' ');
    }
}

fn push_ascii_words(out: &mut String, text: &str) {
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        out.extend(word.chars().map(|c| c.to_ascii_lowercase()));
        out.push(' ');
    }
}

/// Collects the words of every string and number in a JSON value; keys are the schema's, not the event's.
struct Values<'a>(&'a mut String);

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        push_words(self.0, &value.to_string());
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        push_words(self.0, &value.to_string());
        Ok(())
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        push_words(self.0, &value.to_string());
        Ok(())
    }
    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        push_words(self.0, value);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Inner(&mut *self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key::<IgnoredAny>()?.is_some() {
            fields.next_value_seed(Inner(&mut *self.0))?;
        }
        Ok(())
    }
}

struct Inner<'a>(&'a mut String);

impl<'de> serde::de::DeserializeSeed<'de> for Inner<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Values(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TYPES;
    use proptest::prelude::*;

    fn entry(bytes: Vec<u8>) -> Entry {
        Entry { index: 0, appended: Default::default(), tag: 0, bytes: bytes.into() }
    }

    #[test]
    fn every_type_has_its_columns() {
        for info in TYPES {
            let row = Row::of(&entry((info.example)().unwrap()));
            assert_eq!(row.kind, info.name);
            assert_eq!(row.family, info.name.split('.').next().unwrap());
            assert_eq!(row.user.as_deref(), Some("alice"));
            assert!(row.text.contains("alice "), "{}", row.text);
        }
    }

    #[test]
    fn values_are_found_and_keys_and_times_are_not() {
        let info = TYPES.iter().find(|info| info.name == "decision.made").unwrap();
        let row = Row::of(&entry((info.example)().unwrap()));
        let found: Vec<_> = words(&row.text).collect();
        for word in ["root", "192", "operators", "reach", "40", "ssh"] {
            assert!(found.iter().any(|w| w == word), "{word}: {}", row.text);
        }
        assert!(!found.iter().any(|w| w == "principal" || w == "producer"), "{}", row.text);
    }

    #[test]
    fn what_is_no_event_has_a_row() {
        assert_eq!(Row::of(&entry(b"\xff\x00".to_vec())), Row::default());
        assert_eq!(Row::of(&entry(b"{}".to_vec())), Row::default());
    }

    proptest! {
        #[test]
        fn words_of_words_are_the_same(text in any::<String>()) {
            let once: Vec<_> = words(&text).collect();
            let twice: Vec<_> = words(&once.join(" ")).collect();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn what_is_ascii_has_the_same_words_by_the_short_way(text in "[ -~\\t\\n]*") {
            let mut short = String::new();
            push_ascii_words(&mut short, &text);
            prop_assert_eq!(short, words(&text).map(|word| word + " ").collect::<String>());
        }
    }
}
