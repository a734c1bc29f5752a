//! An event's data in a form that no index refuses, whatever its keys and values are.
//!
//! Users choose keys and values in there (labels, variables, what a policy was told). An index that made a field of each
//! key would run out of fields; one that holds them as values of a single field (`flattened`, `flat_object`) still refuses
//! a document for a key or a value that is too long, for lists of lists, for depth, and for a name that is a value here
//! and an object there. So: objects of text, numbers and truth values or lists of these, and nothing else.

use super::convert::cut;
use super::json::{Object, Value};
use super::rule::Path;
use std::borrow::Cow;

/// A longer key is cut: keys count towards the length of a term in the index, which is at most 32,766 bytes.
const KEY_BYTES_MAX: usize = 128;
/// How deep objects may lie in each other; Elasticsearch's own limit is 20. What lies deeper stands as its JSON text.
const DEPTH_MAX: usize = 8;
/// How many values are kept: each is a term in the index.
const VALUES_MAX: usize = 1_024;

/// The plain form of an event's data.
pub(super) struct Plain<'d> {
    /// The values, by keys.
    pub(super) values: Object<'d>,
    /// Whether something was cut or left out.
    pub(super) cut: bool,
}

/// The plain form of an event's `data` without what `taken` names; text is cut to `bytes_max` bytes.
pub(super) fn plain<'d>(data: &'d Value<'_>, taken: &[&Path], bytes_max: usize) -> Plain<'d> {
    let mut form = Form { taken, bytes_max, left: VALUES_MAX, cut: false };
    let mut values = Object::new();
    match data {
        Value::Object(fields) => form.fields(&mut values, &mut fields.iter(), &mut vec!["data"]),
        other => form.put(&mut values, Cow::Borrowed("value"), other, &mut vec!["data"]),
    }
    Plain { values, cut: form.cut }
}

/// The plain form of fields of an event's envelope.
pub(super) fn plain_fields<'d, 'e: 'd>(
    mut fields: impl Iterator<Item = (&'d str, &'d Value<'e>)>,
    bytes_max: usize,
) -> Plain<'d> {
    let mut form = Form { taken: &[], bytes_max, left: VALUES_MAX, cut: false };
    let mut values = Object::new();
    form.fields(&mut values, &mut fields, &mut Vec::new());
    Plain { values, cut: form.cut }
}

struct Form<'a> {
    taken: &'a [&'a Path],
    bytes_max: usize,
    left: usize,
    cut: bool,
}

impl Form<'_> {
    fn fields<'d, 'e: 'd>(
        &mut self,
        into: &mut Object<'d>,
        fields: &mut dyn Iterator<Item = (&'d str, &'d Value<'e>)>,
        at: &mut Vec<&'d str>,
    ) {
        for (key, value) in fields {
            at.push(key);
            if !self.taken.iter().any(|path| path.0.iter().eq(at.iter())) {
                let name = self.key(key);
                self.put(into, name, value, at);
            }
            at.pop();
        }
    }

    fn put<'d>(
        &mut self,
        into: &mut Object<'d>,
        name: Cow<'d, str>,
        value: &'d Value<'_>,
        at: &mut Vec<&'d str>,
    ) {
        match value {
            Value::Null => {}
            Value::List(items) => {
                for item in items {
                    self.put(into, name.clone(), item, at);
                }
            }
            Value::Object(fields) if fields.is_empty() => {}
            Value::Object(fields) => {
                let free = into.get(&name).is_none_or(|there| there.as_object().is_some());
                if !free || at.len() > DEPTH_MAX {
                    return self.add(into, name, value.to_json().into());
                }
                if let Some(inner) = into.get_or_insert(name, Object::new().into()).as_object_mut() {
                    self.fields(inner, &mut fields.iter(), at);
                }
            }
            one => self.add(into, name, one.borrowed()),
        }
    }

    /// Adds one value: alone it stands for itself, with others in a list.
    fn add<'d>(&mut self, into: &mut Object<'d>, name: Cow<'d, str>, value: Value<'d>) {
        if self.left == 0 {
            self.cut = true;
            return;
        }
        self.left -= 1;
        let value = match value {
            Value::Text(text) if text.len() > self.bytes_max => {
                self.cut = true;
                shortened(text, self.bytes_max).into()
            }
            other => other,
        };
        match into.get_mut(&name) {
            None => into.insert(name, value),
            Some(Value::List(items)) => items.push(value),
            // Two keys that differed became one name, and an object has it.
            Some(Value::Object(_)) => {
                self.left += 1;
                self.add(into, format!("{name}_").into(), value);
            }
            Some(one) => {
                let first = std::mem::take(one);
                *one = Value::List(vec![first, value]);
            }
        }
    }

    /// A key that an index takes: a dot would divide it, NUL ends it, and it is neither empty nor blank.
    fn key<'d>(&mut self, key: &'d str) -> Cow<'d, str> {
        let divides = |c: char| c == '.' || c.is_control();
        let short = cut(key, KEY_BYTES_MAX);
        self.cut |= short.len() < key.len();
        let key =
            if short.contains(divides) { short.replace(divides, "_").into() } else { Cow::Borrowed(short) };
        if key.trim().is_empty() { Cow::Borrowed("_") } else { key }
    }
}

/// At most `bytes_max` bytes of `text`.
pub(super) fn shortened(text: Cow<'_, str>, bytes_max: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(cut(text, bytes_max)),
        Cow::Owned(text) => Cow::Owned(cut(&text, bytes_max).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn plain_of(data: &Value) -> (Value, bool) {
        let data = data.clone().into();
        let plain = plain(&data, &[&Path::from("data.taken".to_owned())], 10);
        (serde_json::to_value(super::Value::from(plain.values)).unwrap(), plain.cut)
    }

    #[test]
    fn data_keep_their_form_where_an_index_takes_it() {
        let cases = [
            (json!({"a": {"b": "x"}, "n": 1, "t": true}), json!({"a": {"b": "x"}, "n": 1, "t": true})),
            (json!({"taken": "x", "deep": {"taken": "y"}}), json!({"deep": {"taken": "y"}})),
            (json!({"l": [{"k": "a"}, {"k": "b", "v": 1}]}), json!({"l": {"k": ["a", "b"], "v": 1}})),
            (json!({"l": [[1, [2]], [3]], "none": null, "empty": {}}), json!({"l": [1, 2, 3]})),
            (json!({"addr": "x", "addr.local": "y"}), json!({"addr": "x", "addr_local": "y"})),
            (json!({"": 1, " ": 2, "\u{0}": 3}), json!({"_": [3, 1, 2]})),
            (json!({"m": [1, {"x": 2}]}), json!({"m": [1, "{\"x\":2}"]})),
            (json!({"m": [{"x": 2}, 1]}), json!({"m": {"x": 2}, "m_": 1})),
            (json!("text"), json!({"value": "text"})),
        ];
        for (data, wanted) in cases {
            let (mut got, cut) = plain_of(&data);
            if let (Some(got), true) = (got.get_mut("_"), data.get("").is_some()) {
                // The order of keys that become one is the map's, which depends on how serde_json was built.
                got.as_array_mut().unwrap().sort_by_key(|n| (n.as_i64().unwrap() % 3, n.as_i64()));
            }
            assert_eq!((got, cut), (wanted, false), "{data}");
        }
    }

    #[test]
    fn what_is_too_much_is_cut_and_told() {
        assert_eq!(plain_of(&json!({"k": "0123456789x"})), (json!({"k": "0123456789"}), true));
        let (long_key, cut) = plain_of(&json!({"k".repeat(33_000): 1}));
        assert_eq!((long_key, cut), (json!({"k".repeat(KEY_BYTES_MAX): 1}), true));
        let (many, cut) = plain_of(&json!({"l": vec![0; VALUES_MAX + 1]}));
        assert!(many["l"].as_array().unwrap().len() == VALUES_MAX && cut);
        let deep = (0..30).fold(json!(1), |inner, _| json!({ "d": inner }));
        assert!(depth(&plain_of(&deep).0) <= DEPTH_MAX + 1);
    }

    fn depth(value: &Value) -> usize {
        value.as_object().map_or(0, |o| 1 + o.values().map(depth).max().unwrap_or(0))
    }

    /// Objects of values or of lists of values, within the limits.
    fn assert_plain(values: &serde_json::Map<String, Value>) {
        for (key, value) in values {
            assert!(
                !key.trim().is_empty()
                    && !key.contains('.')
                    && !key.contains('\0')
                    && key.len() < 2 * KEY_BYTES_MAX
            );
            match value {
                Value::Object(inner) => assert_plain(inner),
                Value::Array(items) => {
                    assert!(items.iter().all(|i| !i.is_object() && !i.is_array() && !i.is_null()))
                }
                other => assert!(!other.is_null()),
            }
        }
    }

    proptest! {
        #[test]
        fn any_data_become_plain(data in crate::mapping::hostile::any_json()) {
            let (plain, _) = plain_of(&data);
            assert_plain(plain.as_object().unwrap());
            prop_assert!(depth(&plain) <= DEPTH_MAX + 1);
        }
    }
}
