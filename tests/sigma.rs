//! Each Sigma rule on events that it is for and on events that it isn't for, run by Sigma's own tools.

use custody_core::mapping::{Logged, ecs};
use custody_tests::{events, python, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// When the first event of a test is appended.
const START_SECONDS: u64 = 1_764_028_800;

#[test]
fn every_rule_fires_on_what_it_is_for_and_on_nothing_else() {
    let mut input = Vec::new();
    let mut converted = 0;
    for (rule, cases) in rules() {
        for (name, fires) in [("fires", true), ("silent", false)] {
            let documents: Vec<Value> = cases[name]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
                .map(|(index, e)| document(index, e))
                .collect();
            assert!(!documents.is_empty(), "{} has no test event that {name}", rule.display());
            input.extend(
                json!({"rule": rule, "fires": fires, "documents": documents}).to_string().into_bytes(),
            );
            input.push(b'\n');
        }
        // Into ES|QL all, into Lucene's language what doesn't correlate; once for each of the two cases.
        let correlates = std::fs::read_to_string(&rule).unwrap().contains("\ncorrelation:");
        converted += if correlates { 2 } else { 4 };
    }
    let said = python::run_with("run_sigma.py", &[], &input);
    let (right, rest) = said.trim().split_once(" right, ").unwrap();
    assert_eq!(rest, format!("0 wrong, {converted} converted"), "{said}");
    assert!(right.parse::<usize>().unwrap() >= 2 * rules().len(), "{said}");
}

/// Each rule's file with its test events; a rule without any, and test events without a rule, are wrong.
fn rules() -> Vec<(PathBuf, Value)> {
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
    let cases = |name: &String| {
        let text = std::fs::read_to_string(folder.join(format!("tests/{name}.json"))).unwrap();
        (folder.join(format!("{name}.yml")), serde_json::from_str(&text).unwrap())
    };
    found.iter().map(cases).collect()
}

/// The ECS document of a test event.
fn document(index: usize, said: &Value) -> Value {
    let entry = events::entry(index as u64, START_SECONDS, said);
    serde_json::from_slice(&ecs::document(&Logged::new("custody.example.com/log", &entry))).unwrap()
}
