//! JSON that borrows from what it was read from. Mapping moves text from one tree into another: where text is borrowed
//! and objects are lists, that costs a fraction of what it costs with maps of strings.

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;
use std::borrow::Cow;
use std::fmt;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Value<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Object<'a>),
}

/// A JSON object. Those here have few keys: looking at each is the quickest way to find one. Where a key stands twice, the
/// last counts, as with most readers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl Value<'_> {
    /// The same, with text that is borrowed from this one.
    pub(super) fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::List(items) => Value::List(items.iter().map(Value::borrowed).collect()),
            Self::Object(object) => {
                let fields = object.iter().map(|(key, value)| (Cow::Borrowed(key), value.borrowed()));
                Value::Object(Object(fields.collect()))
            }
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    pub(super) fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// What isn't a list or an object, as text.
    pub(super) fn scalar(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Number(number) => Some(Cow::Owned(number.to_string())),
            Self::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// As one line of JSON.
    pub(super) fn to_json(&self) -> String {
        // Keys are text and numbers are finite: there is nothing that JSON couldn't write.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a> Value<'a> {
    pub(super) fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(super) fn as_object_mut(&mut self) -> Option<&mut Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The first item of a list.
    pub(super) fn first(&self) -> Option<&Value<'a>> {
        match self {
            Self::List(items) => items.first(),
            _ => None,
        }
    }

    /// See [`Value::first`].
    pub(super) fn first_mut(&mut self) -> Option<&mut Value<'a>> {
        match self {
            Self::List(items) => items.first_mut(),
            _ => None,
        }
    }
}

impl<'a> Object<'a> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        self.0.iter_mut().rev().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Puts `value` in place of what the key has.
    pub(super) fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Value<'a>>) {
        let key = key.into();
        match self.get_mut(&key) {
            Some(old) => *old = value.into(),
            None => self.0.push((key, value.into())),
        }
    }

    /// Puts `value` where `path` says, its keys divided by dots, and makes the objects on the way.
    pub(super) fn set(&mut self, path: &'a str, value: impl Into<Value<'a>>) {
        match path.split_once('.') {
            None => self.insert(path, value),
            Some((key, rest)) => {
                if let Some(inner) = self.get_or_insert(key, Self::new().into()).as_object_mut() {
                    inner.set(rest, value);
                }
            }
        }
    }

    /// What the key has, or `new` there.
    pub(super) fn get_or_insert(&mut self, key: impl Into<Cow<'a, str>>, new: Value<'a>) -> &mut Value<'a> {
        let key = key.into();
        let at = self.0.iter().rposition(|(k, _)| *k == key).unwrap_or_else(|| {
            self.0.push((key, new));
            self.0.len() - 1
        });
        #[allow(clippy::indexing_slicing, reason = "it was found there, or put there")]
        &mut self.0[at].1
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|(k, _)| k != key);
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl<'a> From<Object<'a>> for Value<'a> {
    fn from(object: Object<'a>) -> Self {
        Self::Object(object)
    }
}

impl<'a, T: Into<Value<'a>>> From<Vec<T>> for Value<'a> {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

macro_rules! from_integers {
    ($($integer:ty)*) => {$(
        impl From<$integer> for Value<'_> {
            fn from(number: $integer) -> Self {
                Self::Number(number.into())
            }
        }
    )*};
}
from_integers!(u8 u16 u64 i32 i64);

impl From<serde_json::Value> for Value<'static> {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(truth),
            serde_json::Value::Number(number) => Self::Number(number),
            serde_json::Value::String(text) => Self::Text(Cow::Owned(text)),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Into::into).collect()),
            serde_json::Value::Object(fields) => {
                Self::Object(Object(fields.into_iter().map(|(k, v)| (Cow::Owned(k), v.into())).collect()))
            }
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.0.len()))?;
                for (key, value) in object.iter() {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(truth))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value<'de>, A::Error> {
        let mut object = Vec::new();
        while let Some((Key(key), value)) = fields.next_entry()? {
            object.push((key, value));
        }
        Ok(Value::Object(Object(object)))
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(Any)? {
            Value::Text(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a key is text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::hostile::any_json;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(value in any_json()) {
            let text = value.to_string();
            let ours: Value<'_> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&ours, &ours.borrowed());
            let back: serde_json::Value = serde_json::from_str(&ours.to_json()).unwrap();
            prop_assert_eq!(back, serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }
    }

    #[test]
    fn text_is_borrowed_and_of_a_repeated_key_the_last_counts() {
        let value: Value<'_> = serde_json::from_str(r#"{"a":"b","c":"\n","a":[1]}"#).unwrap();
        let object = value.as_object().unwrap();
        assert!(matches!(object.iter().next(), Some(("a", Value::Text(Cow::Borrowed("b"))))));
        assert_eq!(object.get("a").and_then(Value::first).and_then(Value::as_u64), Some(1));
        assert_eq!(object.get("c").and_then(Value::as_str), Some("\n"));
    }

    #[test]
    fn objects_keep_their_keys_once() {
        let mut object = Object::new();
        object.insert("a", 1_u64);
        object.insert("b", "x");
        object.insert("a", true);
        assert_eq!(*object.get_or_insert("b", Value::Null), Value::from("x"));
        object.get_or_insert("c", Value::from(vec!["y"]));
        assert_eq!(Value::from(object.clone()).to_json(), r#"{"a":true,"b":"x","c":["y"]}"#);
        object.set("d.e.f", 1_u64);
        object.set("d.g", 2_u64);
        assert_eq!(object.get("d").map(Value::to_json).as_deref(), Some(r#"{"e":{"f":1},"g":2}"#));
        object.remove("a");
        assert!(!object.contains_key("a") && object.contains_key("c") && !object.is_empty());
    }
}
