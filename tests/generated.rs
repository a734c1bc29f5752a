//! Files that are generated from the event types: `schemas/events/*.json`, their examples, and the tables in
//! docs/events.md; and those that are generated from the mappings (`mapping_files.rs`). The test fails when one is stale; `make schemas` (`UPDATE=1`) writes them.

use crate::event_versions::takes;
use custody_core::event::{Envelope, TYPES, TypeInfo};
use custody_tests::{python, root};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- generated from the event types; `make schemas` writes it -->";
const END: &str = "<!-- end of what is generated -->";

#[test]
fn schemas_examples_and_tables_are_fresh() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut stale = Vec::new();
    let wanted = everything();
    for (path, content) in &wanted {
        let path = root().join(path);
        if std::fs::read(&path).ok().as_deref() != Some(content.as_bytes()) {
            if update {
                assert_readers_take(&path, content);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, content).unwrap();
            }
            stale.push(path.display().to_string());
        }
    }
    for left_over in on_disk().difference(&wanted.keys().cloned().collect()) {
        if update {
            std::fs::remove_file(root().join(left_over)).unwrap();
        }
        stale.push(format!("{} (of no event type)", left_over.display()));
    }
    assert!(update || stale.is_empty(), "stale, run `make schemas`:\n{}", stale.join("\n"));
}

/// A schema isn't written over one of the same version whose readers couldn't take what it allows.
#[track_caller]
fn assert_readers_take(path: &Path, content: &str) {
    let schema = |text: &[u8]| {
        let schema: Option<Value> = serde_json::from_slice(text).ok();
        schema.filter(|schema| schema["properties"]["version"]["const"].is_u64())
    };
    let old = std::fs::read(path).ok().and_then(|old| schema(&old));
    let (Some(old), Some(new)) = (old, schema(content.as_bytes())) else { return };
    let version = |schema: &Value| schema["properties"]["version"]["const"].clone();
    if version(&old) == version(&new)
        && let Err(why) = takes(&old, &new)
    {
        panic!(
            "{}: who reads version {} can't take this: {why}. Give the type its next version in core/src/event/registry.rs, and \
             keep this schema and its example in schemas/events/earlier",
            path.display(),
            version(&old)
        );
    }
}

#[test]
fn each_example_is_valid_by_an_independent_validator_and_a_broken_one_is_not() {
    let output = python::run("validate_schemas.py", &[root().join("schemas/events").to_str().unwrap()]);
    assert_eq!(
        output.trim(),
        format!("{} examples are valid, {} broken ones are not", TYPES.len(), TYPES.len())
    );
}

#[test]
fn each_type_has_a_docstring_for_itself_and_for_each_field() {
    for info in TYPES {
        let schema = schema(info);
        assert!(
            schema["description"].as_str().is_some_and(|d| d.len() > 10),
            "{} has no docstring",
            info.name
        );
        let data = &schema["properties"]["data"];
        for (field, property) in data["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{}: data.{field} has no docstring", info.name);
        }
    }
}

fn everything() -> BTreeMap<PathBuf, String> {
    let mut files = crate::mapping_files::everything();
    files.insert("schemas/events/envelope.json".into(), pretty(&envelope()));
    for info in TYPES {
        files.insert(format!("schemas/events/{}.json", info.name).into(), pretty(&schema(info)));
        let example = String::from_utf8((info.example)().unwrap()).unwrap();
        files.insert(format!("schemas/events/examples/{}.json", info.name).into(), example);
    }
    let path = PathBuf::from("docs/events.md");
    let page = std::fs::read_to_string(root().join(&path)).unwrap();
    let (before, rest) =
        page.split_once(BEGIN).expect("docs/events.md has lost the mark of its generated part");
    let (_, after) = rest.split_once(END).expect("docs/events.md has lost the end of its generated part");
    files.insert(path, format!("{before}{BEGIN}\n{}{END}{after}", tables()));
    files
}

fn on_disk() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::from([PathBuf::from("docs/events.md")]);
    for folder in ["schemas/events", "schemas/events/examples"] {
        for entry in std::fs::read_dir(root().join(folder)).into_iter().flatten().flatten() {
            if entry.path().is_file() {
                found.insert(PathBuf::from(folder).join(entry.file_name()));
            }
        }
    }
    found
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The schema of the envelope around data that isn't looked at.
fn envelope() -> Value {
    let mut schema = schemars::schema_for!(Envelope<Value>).to_value();
    let object = schema.as_object_mut().unwrap();
    object.insert("$id".into(), json!("urn:custody:event"));
    object.insert("title".into(), json!("event"));
    schema
}

/// The schema of a whole event of one type: the envelope with that type's data in its place.
fn schema(info: &TypeInfo) -> Value {
    let mut whole = envelope();
    let mut data = (info.schema)().to_value();
    let data_object = data.as_object_mut().unwrap();
    data_object.remove("$schema");
    data_object.remove("title");
    let defs = data_object.remove("$defs");
    let description = data_object.get("description").cloned().unwrap_or_default();

    let object = whole.as_object_mut().unwrap();
    object.insert("$id".into(), json!(format!("urn:custody:event:{}:{}", info.name, info.version)));
    object.insert("title".into(), json!(info.name));
    object.insert("description".into(), description);
    let all_defs = object.entry("$defs").or_insert_with(|| json!({})).as_object_mut().unwrap();
    for (name, def) in defs.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let before = all_defs.insert(name.clone(), def.clone());
        assert!(before.is_none_or(|b| b == *def), "two different types are called {name}");
    }
    let properties = object["properties"].as_object_mut().unwrap();
    properties.insert("data".into(), data);
    properties.insert("type".into(), json!({"description": "The type of the event.", "const": info.name}));
    properties.insert("version".into(), json!({"description": "Version of `data`.", "const": info.version}));
    whole
}

/// One section a family, one table a type.
fn tables() -> String {
    let mut out = String::new();
    let mut family = "";
    for info in TYPES {
        let of_type = info.name.split('.').next().unwrap();
        if of_type != family {
            family = of_type;
            writeln!(out, "\n## {family}").unwrap();
        }
        let schema = schema(info);
        let text = one_line(schema["description"].as_str().unwrap_or_default());
        writeln!(out, "\n### `{}` (version {})\n\n{text}", info.name, info.version).unwrap();
        let data = &schema["properties"]["data"];
        let empty = Map::new();
        let fields = data["properties"].as_object().unwrap_or(&empty);
        if fields.is_empty() {
            writeln!(out, "\nNo data of its own.").unwrap();
            continue;
        }
        let required: BTreeSet<&str> =
            data["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        writeln!(out, "\n| field | type | what |\n|---|---|---|").unwrap();
        for (name, property) in fields {
            let mut kind = type_of(property, &schema["$defs"]);
            if !required.contains(name.as_str()) {
                kind.push_str(", may be absent");
            }
            let what = one_line(property["description"].as_str().unwrap_or_default()).replace('|', "\\|");
            writeln!(out, "| `data.{name}` | {kind} | {what} |").unwrap();
        }
    }
    out.push('\n');
    out
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A JSON Schema type for people.
fn type_of(property: &Value, defs: &Value) -> String {
    if let Some(name) = property["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
        let words: Vec<&str> = defs[name]["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| v["const"].as_str())
            .collect();
        return if words.is_empty() { name.to_owned() } else { format!("`{}`", words.join("`, `")) };
    }
    if let Some(options) = property["anyOf"].as_array() {
        return options
            .iter()
            .filter(|o| o["type"] != "null")
            .map(|o| type_of(o, defs))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    match &property["type"] {
        Value::String(one) if one == "array" => format!("list of {}", type_of(&property["items"], defs)),
        Value::String(one) => one.clone(),
        Value::Array(many) => {
            many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect::<Vec<_>>().join(" or ")
        }
        _ => "any JSON".to_owned(),
    }
}
