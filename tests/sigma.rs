//! Each Sigma rule on events that it is for and on events that it isn't for, run by Sigma's own tools, and turned into the
//! languages that its documentation names.

use custody_core::mapping::{Logged, ecs};
use custody_tests::{events, python, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// When the first event of a test is appended.
const START_SECONDS: u64 = 1_764_028_800;

#[test]
fn every_rule_fires_on_what_it_is_for_and_on_nothing_else() {
    let not_for_esql = not_for_esql();
    let mut cases = Vec::new();
    let mut several = BTreeSet::new();
    let mut converted = 0;
    for (name, rule, tests) in rules() {
        let esql = !not_for_esql.contains(&name);
        let correlates = std::fs::read_to_string(&rule).unwrap().contains("\ncorrelation:");
        for (case, fires) in [("fires", true), ("silent", false)] {
            let documents: Vec<Value> = tests[case]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
                .map(|(index, e)| document(index, e))
                .collect();
            assert!(!documents.is_empty(), "{name} has no test event that {case}");
            documents.iter().for_each(|document| lists(document, "", &mut several));
            cases.push(json!({"rule": rule, "esql": esql, "fires": fires, "documents": documents}));
            // Into ES|QL what it can ask, into Lucene's language, of both stores, what doesn't correlate.
            converted += usize::from(esql) + if correlates { 0 } else { 2 };
        }
    }
    for event in events::every() {
        let document: Value = serde_json::from_slice(&ecs::document(&events::logged(&event))).unwrap();
        lists(&document, "", &mut several);
    }
    for known in ["custody.cut", "user.roles", "related.user"] {
        assert!(several.contains(known), "{known} has several values: {several:?}");
    }
    let fields = json!({"flattened": flattened(), "several": several});
    let input: String = std::iter::once(&fields).chain(&cases).map(|line| format!("{line}\n")).collect();
    let pipeline = root().join("schemas/sigma/pipeline.yaml");
    let said = python::run_with("run_sigma.py", &[pipeline.to_str().unwrap()], input.as_bytes());
    let (right, rest) = said.trim().split_once(" right, ").unwrap();
    assert_eq!(rest, format!("0 wrong, {converted} converted"), "{said}");
    assert!(right.parse::<usize>().unwrap() >= cases.len(), "{said}");
}

/// Each rule's name and file, with its test events; a rule without any, and test events without a rule, are wrong.
fn rules() -> Vec<(String, PathBuf, Value)> {
    let folder = root().join("schemas/sigma");
    let names = |folder: PathBuf, extension: &str| -> BTreeSet<String> {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    let found = names(folder.clone(), "yml");
    assert_eq!(found, names(folder.join("tests"), "json"), "a rule without test events, or the reverse");
    let cases = |name: String| {
        let text = std::fs::read_to_string(folder.join(format!("tests/{name}.json"))).unwrap();
        let file = folder.join(format!("{name}.yml"));
        (name, file, serde_json::from_str(&text).unwrap())
    };
    found.into_iter().map(cases).collect()
}

/// The rules that ES|QL can't ask, as schemas/sigma/README.md says.
fn not_for_esql() -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("schemas/sigma/README.md")).unwrap();
    let row = page.lines().find(|line| line.starts_with("| that name something inside")).expect("a row");
    let (_, names) = row.split('|').nth(1).unwrap().rsplit_once(": ").expect("names behind a colon");
    let named: BTreeSet<String> = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let known: BTreeSet<String> = rules().into_iter().map(|(name, ..)| name).collect();
    assert!(!named.is_empty() && named.is_subset(&known), "rules that aren't there: {named:?}");
    named
}

/// The fields of Elasticsearch's index that are `flattened`.
fn flattened() -> Vec<String> {
    fn of(properties: &Value, prefix: &str, found: &mut Vec<String>) {
        for (name, field) in properties.as_object().into_iter().flatten() {
            let path = format!("{prefix}{name}");
            of(&field["properties"], &format!("{path}."), found);
            if field["type"] == "flattened" {
                found.push(path);
            }
        }
    }
    let text = std::fs::read_to_string(root().join("schemas/elasticsearch/mappings.json")).unwrap();
    let template: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    of(&template["template"]["mappings"]["properties"], "", &mut found);
    assert!(!found.is_empty(), "no field is flattened");
    found
}

/// The fields of a document that are lists.
fn lists(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                lists(inner, &path, found);
            }
        }
        Value::Array(_) => {
            found.insert(at.to_owned());
        }
        _ => {}
    }
}

/// The ECS document of a test event.
fn document(index: usize, said: &Value) -> Value {
    let entry = events::entry(index as u64, START_SECONDS, said);
    serde_json::from_slice(&ecs::document(&Logged::new("custody.example.com/log", &entry))).unwrap()
}
