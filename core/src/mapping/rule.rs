//! Rules, as the mapping files write them: for a field, where its value comes from.
//!
//! | in the file | the field's value |
//! |---|---|
//! | `"data.reason"` | what stands at that path of the event |
//! | `"target.address as ip"` | the same as another [`Kind`] |
//! | `"{producer.id}/{data.process.pid}"` | this text with what stands at those paths, if something stands at each |
//! | `["data.claimed_user", "actor.user"]` | of these rules the first that gives something |
//! | `{"is": "ssh"}` | always that |
//! | `{"of": "outcome", "values": {"denied": "failure"}, "otherwise": "unknown"}` | by the text at a path |
//! | `{"when": "target.kind", "equals": "node", "take": "target.name"}` | only if that text stands there |
//! | `{"when": "data.direction", "equals": "inbound", "take": "data.ends.remote.port", "otherwise": "data.ends.local.port"}` | if that text stands there the one, else the other |

use super::convert::Kind;
use super::json::{Object, Value};
use super::view::View;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Where to look in an event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(super) struct Path(pub(super) Vec<String>);

impl From<String> for Path {
    fn from(text: String) -> Self {
        Self(text.split('.').map(str::to_owned).collect())
    }
}

/// A path, and as what its value is wanted.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Take {
    path: Path,
    kind: Kind,
}

impl TryFrom<String> for Take {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.contains(BRACES) {
            return Err(unmatched(&text));
        }
        let (path, kind) = match text.split_once(" as ") {
            None => (text.as_str(), Kind::default()),
            Some((path, name)) => (path, Kind::named(name).ok_or_else(|| format!("{text}: no such kind"))?),
        };
        Ok(Self { path: path.to_owned().into(), kind })
    }
}

const BRACES: [char; 2] = ['{', '}'];

fn unmatched(text: &str) -> String {
    format!("{text}: its braces don't match")
}

/// Text with paths in braces.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Template {
    /// Paths, each with the text before it.
    values: Vec<(String, Path)>,
    end: String,
}

impl TryFrom<String> for Template {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (mut rest, mut values) = (text.as_str(), Vec::new());
        while let Some((before, after)) = rest.split_once('{') {
            let (path, after) = after.split_once('}').ok_or_else(|| unmatched(&text))?;
            if before.contains(BRACES) || path.contains(BRACES) {
                return Err(unmatched(&text));
            }
            values.push((before.to_owned(), Path::from(path.to_owned())));
            rest = after;
        }
        if values.is_empty() || rest.contains(BRACES) {
            return Err(unmatched(&text));
        }
        Ok(Self { values, end: rest.to_owned() })
    }
}

impl Template {
    fn filled(&self, view: &View<'_>) -> Option<String> {
        let mut text = String::new();
        for (before, path) in &self.values {
            text.push_str(before);
            text.push_str(&view.at(&path.0)?.scalar()?);
        }
        text.push_str(&self.end);
        Some(text)
    }
}

/// A value that stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "serde_json::Value")]
pub(super) struct Constant(Value<'static>);

impl From<serde_json::Value> for Constant {
    fn from(value: serde_json::Value) -> Self {
        Self(value.into())
    }
}

/// See the module.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Rule {
    Template(Template),
    Take(Take),
    First(Vec<Rule>),
    Is { is: Constant },
    Table { of: Path, values: BTreeMap<String, Constant>, otherwise: Option<Constant> },
    When { when: Path, equals: String, take: Box<Rule>, otherwise: Option<Box<Rule>> },
}

impl Rule {
    /// The value that it gives for an event. Paths whose values it takes over whole are added to `taken`.
    pub(super) fn value<'r: 'v, 'v>(
        &'r self,
        view: &'v View<'_>,
        taken: &mut Vec<&'r Path>,
    ) -> Option<Value<'v>> {
        match self {
            Self::Template(template) => template.filled(view).map(Value::from),
            Self::Take(Take { path, kind }) => {
                let value = kind.convert(view.at(&path.0)?)?;
                taken.push(path);
                Some(value)
            }
            Self::First(rules) => rules.iter().find_map(|rule| rule.value(view, taken)),
            Self::Is { is } => Some(is.0.borrowed()),
            Self::Table { of, values, otherwise } => {
                let key = view.at(&of.0)?.scalar()?;
                values.get(key.as_ref()).or(otherwise.as_ref()).map(|constant| constant.0.borrowed())
            }
            Self::When { when, equals, take, otherwise } => {
                let there = view.at(&when.0).and_then(Value::scalar);
                let rule = if there.is_some_and(|there| there == equals.as_str()) {
                    Some(take)
                } else {
                    otherwise.as_ref()
                };
                rule?.value(view, taken)
            }
        }
    }
}

/// Where to put a value: keys, and `[0]` behind one that holds a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub(super) struct Field {
    /// As the file writes it.
    pub(super) name: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    key: String,
    /// Whether the key holds a list, of which the first item is meant.
    list: bool,
}

impl From<String> for Field {
    fn from(name: String) -> Self {
        let step = |part: &str| match part.strip_suffix("[0]") {
            Some(key) => Step { key: key.to_owned(), list: true },
            None => Step { key: part.to_owned(), list: false },
        };
        Self { steps: name.split('.').map(step).collect(), name }
    }
}

impl Field {
    /// The first of its keys.
    pub(super) fn top(&self) -> &str {
        self.steps.first().map_or("", |step| &step.key)
    }

    /// Puts `value` into `tree`, and makes the objects and lists on the way.
    pub(super) fn put<'t>(&'t self, tree: &mut Object<'t>, value: Value<'t>) {
        if let Some((last, way)) = self.steps.split_last() {
            let mut at = Some(tree);
            for step in way {
                at = at.and_then(|object| step.enter(object));
            }
            if let Some(object) = at {
                let value = if last.list { Value::List(vec![value]) } else { value };
                object.insert(last.key.as_str(), value);
            }
        }
    }

    /// What stands there in `tree`; of a list its first item.
    pub(super) fn get<'o, 't>(&self, tree: &'o Object<'t>) -> Option<&'o Value<'t>> {
        let (last, way) = self.steps.split_last()?;
        way.iter()
            .try_fold(tree, |object, step| step.item(object)?.as_object())
            .and_then(|object| last.item(object))
    }

    /// Puts `value` into `tree` if the object is there that it belongs to, and has nothing there yet.
    pub(super) fn complete<'t>(&'t self, tree: &mut Object<'t>, value: Value<'t>) {
        if let Some(last) = self.steps.last().filter(|last| !last.list)
            && let Some(object) = self.around(tree)
        {
            object.get_or_insert(last.key.as_str(), value);
        }
    }

    /// Takes out what stands there in `tree`; of a list the whole.
    pub(super) fn remove(&self, tree: &mut Object<'_>) {
        if let Some(last) = self.steps.last()
            && let Some(object) = self.around(tree)
        {
            object.remove(&last.key);
        }
    }

    /// The object that holds the last of its keys, where there is one.
    fn around<'o, 't>(&self, tree: &'o mut Object<'t>) -> Option<&'o mut Object<'t>> {
        let (_, way) = self.steps.split_last()?;
        way.iter().try_fold(tree, |object, step| {
            let value = object.get_mut(&step.key)?;
            if step.list { value.first_mut()?.as_object_mut() } else { value.as_object_mut() }
        })
    }
}

impl Step {
    fn item<'o, 't>(&self, object: &'o Object<'t>) -> Option<&'o Value<'t>> {
        let value = object.get(&self.key)?;
        if self.list { value.first() } else { Some(value) }
    }

    /// The object behind this step. The files name no field that is an object here and a value there; if one did, the
    /// later would be left out.
    fn enter<'o, 't>(&'t self, object: &'o mut Object<'t>) -> Option<&'o mut Object<'t>> {
        let inner = Value::Object(Object::new());
        let new = if self.list { Value::List(vec![inner]) } else { inner };
        let value = object.get_or_insert(self.key.as_str(), new);
        if self.list { value.first_mut()?.as_object_mut() } else { value.as_object_mut() }
    }
}

/// Rules by their fields.
pub(super) type Rules = BTreeMap<Field, Rule>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::log::{Hash, tree::leaf_hash};
    use crate::mapping::Logged;
    use serde_json::json;

    fn view() -> View<'static> {
        let bytes =
            br#"{"actor":{"user":"alice"},"data":{"at":"[::1]:22","n":7,"none":null},"outcome":"denied"}"#;
        let leaf: Hash = leaf_hash(bytes);
        View::new(&Logged { origin: "o", index: 3, appended: Timestamp::from_seconds(1), leaf, bytes })
    }

    fn value(rule: serde_json::Value) -> serde_json::Value {
        let rule: Rule = serde_json::from_value(rule).unwrap();
        plain(rule.value(&view(), &mut Vec::new()).unwrap_or_default())
    }

    fn plain<'v>(value: impl Into<Value<'v>>) -> serde_json::Value {
        serde_json::to_value(value.into()).unwrap()
    }

    #[test]
    fn each_form_gives_what_it_says() {
        assert_eq!(value(json!("actor.user")), "alice");
        assert_eq!(value(json!("data.n")), "7");
        assert_eq!(value(json!("data.n as long")), 7);
        assert_eq!(value(json!("data.at as ip")), "::1");
        assert_eq!(value(json!("data.none")), json!(null));
        assert_eq!(value(json!("data.n.deeper")), json!(null));
        assert_eq!(value(json!("log.id")), "o#3");
        assert_eq!(value(json!("log.appended")), "1970-01-01T00:00:01.000000000Z");
        assert_eq!(value(json!("{actor.user}/{data.n} of {log.id}.")), "alice/7 of o#3.");
        assert_eq!(value(json!("{actor.user}/{data.none}")), json!(null));
        assert_eq!(value(json!(["{data.none}", "{actor}", "{data.n}"])), "7");
        assert_eq!(value(json!(["data.none", "actor.user"])), "alice");
        assert_eq!(value(json!({"is": ["a"]})), json!(["a"]));
        let table = json!({"of": "outcome", "values": {"denied": "failure"}, "otherwise": "unknown"});
        assert_eq!(value(table), "failure");
        assert_eq!(value(json!({"of": "outcome", "values": {}, "otherwise": 1})), 1);
        assert_eq!(value(json!({"of": "outcome", "values": {}})), json!(null));
        assert_eq!(value(json!({"when": "outcome", "equals": "denied", "take": "data.n"})), "7");
        assert_eq!(value(json!({"when": "outcome", "equals": "success", "take": "data.n"})), json!(null));
        let either = |path: &str| {
            value(json!({"when": path, "equals": "denied", "take": "data.n", "otherwise": "outcome"}))
        };
        assert_eq!(
            ["outcome", "data.n", "absent"].map(either),
            [json!("7"), json!("denied"), json!("denied")]
        );
    }

    #[test]
    fn a_rule_that_is_written_wrongly_is_refused() {
        let braces = ["{a", "a}", "{a}}", "{{a}", "}{a}", "{a}{b"].map(|text| json!(text));
        let others = [json!("a as unicorn"), json!({"of": "a"}), json!({"is": 1, "are": 2}), json!(7)];
        for rule in braces.iter().chain(&others) {
            assert!(serde_json::from_value::<Rule>(rule.clone()).is_err(), "{rule}");
        }
    }

    #[test]
    fn fields_are_put_where_they_say() {
        let fields =
            |names: &[&str]| -> Vec<Field> { names.iter().map(|n| Field::from((*n).to_owned())).collect() };
        let given = fields(&["a.b", "a.c.d", "l[0].x", "l[0].y", "m[0]", "a.b.e"]);
        let added = fields(&["a.b", "a.n", "l[0].n", "gone.n", "a.gone.n"]);
        let [d, x, gone, m] = ["a.c.d", "l[0].x", "a.x", "m[0]"].map(|name| Field::from(name.to_owned()));
        let mut tree = Object::new();
        for (number, field) in (1_u64..).zip(&given) {
            field.put(&mut tree, number.into());
        }
        let wanted = json!({"a": {"b": 1, "c": {"d": 2}}, "l": [{"x": 3, "y": 4}], "m": [5]});
        assert_eq!(plain(tree.clone()), wanted);
        assert_eq!((d.get(&tree), x.get(&tree)), (Some(&Value::from(2_u64)), Some(&Value::from(3_u64))));
        assert_eq!(gone.get(&tree), None);
        for field in &added {
            field.complete(&mut tree, 9_u64.into());
        }
        m.remove(&mut tree);
        d.remove(&mut tree);
        let wanted = json!({"a": {"b": 1, "c": {}, "n": 9}, "l": [{"x": 3, "y": 4, "n": 9}]});
        assert_eq!(plain(tree), wanted);
    }

    #[test]
    fn what_is_taken_over_is_told() {
        let rules = ["data.none", "{outcome}{data.none}", "data.n as long", "actor.user"];
        let rule: Rule = serde_json::from_value(json!(rules)).unwrap();
        let (view, mut taken) = (view(), Vec::new());
        rule.value(&view, &mut taken);
        assert_eq!(taken, [&Path::from("data.n".to_owned())]);
    }
}
