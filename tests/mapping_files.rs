//! What is generated from the mappings: the fields of the index templates, and the tables in docs/mappings.md.

use custody_core::event::TYPES;
use custody_tests::root;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

const PAGE: &str = "docs/mappings.md";
const BEGIN: &str = "<!-- generated from the mappings; `make schemas` writes it -->";
const END: &str = "<!-- end of what is generated -->";

/// Lucene takes no longer term, in bytes.
const TERM_BYTES_MAX: u64 = 32_766;
/// ECS's own limit, in characters. Documents are cut to as many bytes, so that nothing is left out of the index.
const KEYWORD_CHARACTERS_MAX: u64 = 1_024;

/// Files by their paths.
pub fn everything() -> BTreeMap<PathBuf, String> {
    let fields = fields();
    let mut files = BTreeMap::new();
    for (product, data) in [("elasticsearch", "flattened"), ("opensearch", "flat_object")] {
        files.insert(
            format!("schemas/{product}/mappings.json").into(),
            format!("{:#}\n", template(&fields, data)),
        );
    }
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let (before, rest) =
        page.split_once(BEGIN).expect("docs/mappings.md has lost the mark of its generated part");
    let (_, after) = rest.split_once(END).expect("docs/mappings.md has lost the end of its generated part");
    files.insert(PAGE.into(), format!("{before}{BEGIN}\n{}{END}{after}", tables()));
    files
}

fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

/// Each field that a document can have, with its type in the index.
fn fields() -> BTreeMap<String, Value> {
    let mapping = read("schemas/ecs/mapping.json");
    let mut fields: BTreeMap<String, Value> = [
        ("custody.cut", keyword()),
        ("custody.mapping", keyword()),
        // No term, no column: it is read, not searched, and may be as long as an event.
        ("custody.original_base64", unsearched()),
        ("event.category", keyword()),
        ("event.kind", keyword()),
        ("event.original", unsearched()),
        ("event.severity", json!({"type": "long"})),
        ("event.type", keyword()),
        ("message", json!({"type": "text"})),
        ("related.hosts", keyword()),
        ("related.ip", json!({"type": "ip"})),
        ("related.user", keyword()),
    ]
    .map(|(name, field)| (name.to_owned(), field))
    .into();
    let of_types = mapping["types"].as_object().unwrap().values();
    for rules in
        of_types.filter_map(|t| t["fields"].as_object()).chain([mapping["every"].as_object().unwrap()])
    {
        for (name, rule) in rules {
            let field = match kind(rule) {
                "date" => json!({"type": "date_nanos"}),
                "port" => json!({"type": "long"}),
                "bool" => json!({"type": "boolean"}),
                "keyword" | "host" | "name" | "list" => match mapping["limits"].get(name) {
                    None => keyword(),
                    Some(_) => json!({
                        "type": "keyword", "ignore_above": TERM_BYTES_MAX, "fields": {"text": {"type": "text"}}
                    }),
                },
                same => json!({"type": same}),
            };
            let before = fields.insert(name.clone(), field.clone());
            assert!(before.is_none_or(|b| b == field), "{name} is of two types");
        }
    }
    fields
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": KEYWORD_CHARACTERS_MAX})
}

fn unsearched() -> Value {
    json!({"type": "keyword", "index": false, "doc_values": false})
}

/// As what a rule gives its value (see `core/src/mapping/rule.rs`).
fn kind(rule: &Value) -> &str {
    match rule {
        Value::String(path) => path.split_once(" as ").map_or("keyword", |(_, kind)| kind),
        Value::Array(rules) => kind(&rules[0]),
        Value::Object(form) => form.get("take").map_or("keyword", kind),
        _ => panic!("{rule} is no rule"),
    }
}

/// A component template that makes no field but these, and so refuses no document for a field that it doesn't know.
fn template(fields: &BTreeMap<String, Value>, data: &str) -> Value {
    let mut properties = Map::new();
    let data = ("custody.data".to_owned(), json!({"type": data}));
    for (name, field) in fields.iter().map(|(n, f)| (n.clone(), f.clone())).chain([data]) {
        let mut at = &mut properties;
        let (way, last) = name.rsplit_once('.').unwrap_or(("", &name));
        for key in way.split('.').filter(|key| !key.is_empty()) {
            let object = at.entry(key).or_insert_with(|| json!({"properties": {}}));
            at = object["properties"].as_object_mut().unwrap();
        }
        at.insert(last.to_owned(), field);
    }
    json!({
        "_meta": {"description": "Fields of Custody's documents, generated from schemas/ecs/mapping.json"},
        "template": {"mappings": {"dynamic": false, "date_detection": false, "properties": sorted(properties)}},
        "version": 1
    })
}

/// Keys in order, however serde_json was built.
fn sorted(object: Map<String, Value>) -> Value {
    let ordered: BTreeMap<String, Value> = object
        .into_iter()
        .map(|(key, value)| match value {
            Value::Object(inner) => (key, sorted(inner)),
            other => (key, other),
        })
        .collect();
    Value::Object(ordered.into_iter().collect())
}

/// A table for every event, and a section a type.
fn tables() -> String {
    let [ecs, ocsf, cef] = ["ecs", "ocsf", "cef"].map(|name| read(&format!("schemas/{name}/mapping.json")));
    let messages = read("schemas/messages.json");
    let mut out = String::from("\n## Every event\n\n| standard | field | value |\n|---|---|---|\n");
    rows(&mut out, "ECS", &ecs["every"]);
    for (field, from) in ecs["related"].as_object().unwrap() {
        let from: Vec<String> = from.as_array().unwrap().iter().map(code).collect();
        writeln!(out, "| ECS | `{field}` | what stands in {} |", from.join(", ")).unwrap();
    }
    rows(&mut out, "OCSF", &ocsf["every"]);
    for rules in ocsf["shared"].as_object().unwrap().values() {
        rows(&mut out, "OCSF, some classes", rules);
    }
    rows(&mut out, "CEF", &cef["every"]);

    out.push_str("\n## Each type\n");
    for info in TYPES {
        let about = &messages[info.name];
        let severity = about["severity"].as_str().unwrap();
        let otherwise = about["otherwise"]
            .as_str()
            .map_or(String::new(), |o| format!(", {o} if it failed or was denied"));
        writeln!(
            out,
            "\n### `{}`\n\n«{}»; {severity}{otherwise}.\n",
            info.name,
            about["text"].as_str().unwrap()
        )
        .unwrap();
        out.push_str("| standard | field | value |\n|---|---|---|\n");
        let of_ecs = &ecs["types"][info.name];
        for (when, event) in [("", &of_ecs["event"]), (", if denied", &of_ecs["denied"])] {
            for (key, value) in event.as_object().into_iter().flatten() {
                let when = if key == "outcome" { ", if the event has none" } else { when };
                writeln!(out, "| ECS | `event.{key}` | {}{when} |", constant(value)).unwrap();
            }
        }
        rows(&mut out, "ECS", &of_ecs["fields"]);
        for candidate in ocsf["types"][info.name].as_array().unwrap() {
            let class = &candidate["class"];
            let name = ocsf["classes"][class.to_string()]["name"].as_str().unwrap();
            let activity = match &candidate["activity"] {
                Value::Number(number) => number.to_string(),
                rule => written(rule),
            };
            let called = candidate["name"].as_str().map_or(String::new(), |n| format!(" «{n}»"));
            writeln!(out, "| OCSF | class | {name} ({class}), activity {activity}{called} |").unwrap();
            rows(&mut out, "OCSF", &candidate["fields"]);
            rows(&mut out, "OCSF, if absent", &candidate["otherwise"]);
        }
        rows(&mut out, "CEF", &cef["types"][info.name]);
    }
    out.push('\n');
    out
}

fn rows(out: &mut String, standard: &str, rules: &Value) {
    for (field, rule) in rules.as_object().into_iter().flatten() {
        writeln!(out, "| {standard} | `{field}` | {} |", written(rule)).unwrap();
    }
}

/// A rule for people.
fn written(rule: &Value) -> String {
    match rule {
        Value::String(path) => match path.split_once(" as ") {
            None => code(rule),
            Some((path, kind)) => format!("`{path}` as {kind}"),
        },
        Value::Array(rules) => rules.iter().map(written).collect::<Vec<_>>().join(", else "),
        Value::Object(form) if form.contains_key("is") => format!("always {}", constant(&form["is"])),
        Value::Object(form) if form.contains_key("when") => {
            let one = format!(
                "{}, if {} is {}",
                written(&form["take"]),
                code(&form["when"]),
                code(&form["equals"])
            );
            match form.get("otherwise") {
                Some(other) => format!("{one}, else {}", written(other)),
                None => one,
            }
        }
        Value::Object(form) => {
            let mut cases: Vec<String> = form["values"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(key, value)| format!("`{key}` → {}", constant(value)))
                .collect();
            cases.extend(form.get("otherwise").map(|value| format!("else {}", constant(value))));
            format!("by {}: {}", code(&form["of"]), cases.join(", "))
        }
        _ => panic!("{rule} is no rule"),
    }
}

fn code(text: &Value) -> String {
    format!("`{}`", text.as_str().unwrap())
}

fn constant(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(constant).collect::<Vec<_>>().join(", "),
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    }
}

/// What the templates say of each other, and the limits that documents are cut to.
#[test]
fn the_index_templates_belong_together_and_take_every_document() {
    for product in ["elasticsearch", "opensearch"] {
        let file = |name: &str| read(&format!("schemas/{product}/{name}.json"));
        let index = file("index-template");
        assert_eq!(index["composed_of"], json!(["custody-mappings", "custody-settings"]));
        let mappings = &file("mappings")["template"]["mappings"];
        assert_eq!(mappings["dynamic"], false, "a key of an event would become a field");
        let searched = &file("settings")["template"]["settings"]["index"]["query"]["default_field"];
        for name in searched.as_array().unwrap() {
            let path = name.as_str().unwrap().replace(".text", "/fields/text").replace('.', "/properties/");
            let pointer = format!("/properties/{path}").replace("/properties/fields/", "/fields/");
            assert!(mappings.pointer(&pointer).is_some(), "{product}: {name} isn't mapped");
        }
    }
    for (name, limit) in read("schemas/ecs/mapping.json")["limits"].as_object().unwrap() {
        assert!(limit.as_u64().unwrap() <= TERM_BYTES_MAX, "{name} would be no term");
    }
}
