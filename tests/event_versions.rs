//! The version of an event's data says which readers can take it: what one program has written under a name and a version, any
//! other that knows both reads. So a schema changes only by what those readers needn't know, or its version goes up; the schemas of
//! earlier versions stay in `schemas/events/earlier`.

use custody_core::event::{Event, Payload, TYPES};
use custody_tests::{python, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What isn't about which data there may be; what is defined counts where it is referred to.
const SAID_OF_IT: [&str; 6] = ["$defs", "$id", "$schema", "default", "description", "title"];
/// How deep is looked: a schema that refers to itself says nothing new behind that.
const DEPTH_MAX: usize = 24;

/// Whether who reads what `old` describes can take all that `new` does.
///
/// # Errors
/// Where not, as a path into the schema, and why.
pub fn takes(old: &Value, new: &Value) -> Result<(), String> {
    Change { old, new }.at("", old, new, 0)
}

/// The two whole schemas.
struct Change<'a> {
    old: &'a Value,
    new: &'a Value,
}

impl Change<'_> {
    fn at(&self, path: &str, old: &Value, new: &Value, depth: usize) -> Result<(), String> {
        let (old, new) = (meant(self.old, old), meant(self.new, new));
        let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
            return if old == new { Ok(()) } else { Err(format!("{path}: {old} became {new}")) };
        };
        if depth > DEPTH_MAX {
            return Ok(());
        }
        for (key, old) in before.iter().filter(|(key, _)| !SAID_OF_IT.contains(&key.as_str())) {
            let path = format!("{path}/{key}");
            match (key.as_str(), after.get(key)) {
                ("required", new) => {
                    let lost = |name: &&&Value| !listed(new).contains(name);
                    if let Some(name) = listed(Some(old)).iter().find(lost) {
                        return Err(format!("{path}: {name} may be absent"));
                    }
                }
                ("enum" | "type", Some(new)) => {
                    let known = listed(Some(old));
                    if let Some(value) = listed(Some(new)).iter().find(|value| !known.contains(value)) {
                        return Err(format!("{path}: {value} is new"));
                    }
                }
                ("oneOf" | "anyOf", Some(new)) => {
                    let known = listed(Some(old));
                    let takes =
                        |choice: &Value| known.iter().any(|old| self.at("", old, choice, depth + 1).is_ok());
                    if let Some(choice) = listed(Some(new)).iter().find(|choice| !takes(choice)) {
                        return Err(format!("{path}: {choice} is new"));
                    }
                }
                // What isn't written any more is absent, and `required` says whether that may be.
                ("properties", Some(new)) => {
                    for (name, old) in old.as_object().into_iter().flatten() {
                        if let Some(new) = new.get(name) {
                            self.at(&format!("{path}/{name}"), old, new, depth + 1)?;
                        }
                    }
                }
                (_, Some(new)) => self.at(&path, old, new, depth + 1)?,
                (_, None) => return Err(format!("{path}: {old} doesn't hold any more")),
            }
        }
        Ok(())
    }
}

/// What a schema says, itself or by its name.
fn meant<'a>(whole: &'a Value, schema: &'a Value) -> &'a Value {
    let named = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#'));
    named.and_then(|pointer| whole.pointer(pointer)).unwrap_or(schema)
}

/// The values of a list; one that is none is a list of itself.
fn listed(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None => Vec::new(),
        Some(Value::Array(values)) => values.iter().collect(),
        Some(value) => vec![value],
    }
}

/// Each version that a type had before.
fn earlier() -> impl Iterator<Item = (&'static str, u32)> {
    TYPES.iter().flat_map(|info| (1..info.version).map(|version| (info.name, version)))
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn what_was_written_under_an_earlier_version_is_read() {
    for (name, version) in earlier() {
        let bytes = read(&format!("schemas/events/earlier/examples/{name}.{version}.json"));
        let event = Event::parse(&bytes).unwrap();
        assert_eq!((&*event.kind, event.version), (name, version));
        assert!(!matches!(event.payload(), Payload::Unknown), "{name} version {version} isn't read any more");
    }
}

#[test]
fn the_schema_of_each_earlier_version_is_kept_and_of_nothing_else() {
    let folder = root().join("schemas/events/earlier");
    let kept: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "examples")
        .collect();
    let wanted: BTreeSet<String> =
        earlier().map(|(name, version)| format!("{name}.{version}.json")).collect();
    assert_eq!(kept, wanted);
    let said = python::run("validate_schemas.py", &[folder.to_str().unwrap()]);
    assert_eq!(said.trim(), format!("{0} examples are valid, {0} broken ones are not", wanted.len()));
}

/// What these changed, readers of version 1 couldn't take: they stand for the kinds of such changes.
#[test]
fn what_readers_of_a_version_cannot_take_is_seen() {
    let of = |path: &str| serde_json::from_slice::<Value>(&read(path)).unwrap();
    let refused = |name: &str| {
        let same_version = |mut schema: Value| {
            schema["properties"]["version"]["const"] = json!(1);
            schema
        };
        let old = of(&format!("schemas/events/earlier/{name}.1.json"));
        assert_eq!(takes(&old, &old), Ok(()));
        takes(&old, &same_version(of(&format!("schemas/events/{name}.json")))).unwrap_err()
    };
    let why = refused("connection.completed");
    assert!(why.contains("input_sha256"), "{why}");
    let why = refused("login.failed");
    assert!(why.contains("service-token"), "{why}");

    let old = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "enum": ["x", "y"]}}});
    let with = |more: Value| {
        let mut new = old.clone();
        for (key, value) in more.as_object().unwrap() {
            new[key] = value.clone();
        }
        takes(&old, &new)
    };
    let wider =
        json!({"a": {"type": "string", "enum": ["y"], "description": "told"}, "b": {"type": "integer"}});
    assert_eq!(
        with(json!({"properties": wider, "required": ["a", "b"]})),
        Ok(()),
        "readers pass over what they don't know"
    );
    let named = json!({"properties": {"a": {"$ref": "#/$defs/letter"}}, "$defs": {"letter": {"type": "string", "enum": ["x"]}}});
    assert_eq!(with(named), Ok(()), "a name is no difference");
    for other in [
        json!({"required": ["b"]}),
        json!({"type": ["object", "null"]}),
        json!({"properties": {"a": {"type": "string", "enum": ["x", "z"]}}}),
        json!({"properties": {"a": {"type": "string"}}}),
        json!({"properties": {"a": {"type": "integer", "enum": ["x"]}}}),
        json!({"properties": {"a": {"$ref": "#/$defs/letter"}}, "$defs": {"letter": {"type": "string", "enum": ["z"]}}}),
    ] {
        assert!(with(other.clone()).is_err(), "{other}");
    }
}
