//! Mapped events against what others publish of the standards: every type, bare and with a full envelope, with each
//! outcome, of a person and of a part of Custody.

use custody_core::event::{TYPES, Timestamp};
use custody_core::log::tree::leaf_hash;
use custody_core::mapping::ocsf::Version;
use custody_core::mapping::{Logged, cef, ecs, ocsf};
use custody_tests::{node, python, root};
use serde_json::{Value, json};

/// Every type as its example, and in all the ways that change how it is mapped.
fn events() -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    for info in TYPES {
        let bare = (info.example)().unwrap();
        let mut whole: Value = serde_json::from_slice(&bare).unwrap();
        events.push(bare);
        whole["cause"] = json!("01900000-0000-7000-8000-000000000003");
        whole["session"] = json!("01900000-0000-7000-8000-000000000005");
        whole["source"] =
            json!({"address": "2001:db8::7", "client": "SSH-2.0-OpenSSH_9.2p1", "port": 50_022});
        for (kind, name, address) in [
            ("node", "web-1", Some("[fe80::1%eth0]:22")),
            ("node", "web-1", Some("web-1.example.com:22")),
            ("user", "alice", None),
        ] {
            whole["target"] = json!({"kind": kind, "login": "root", "name": name});
            if let Some(address) = address {
                whole["target"]["address"] = json!(address);
            }
            for outcome in ["success", "failure", "denied"] {
                whole["outcome"] = json!(outcome);
                events.push(serde_json::to_vec(&whole).unwrap());
            }
        }
        whole["actor"] = json!({"system": "custodyd"});
        events.push(serde_json::to_vec(&whole).unwrap());
    }
    events.push(
        br#"{"type":"galaxy.formed","version":3,"data":{"stars":["a",{"b":1}]},"actor":{"user":"x"}}"#
            .to_vec(),
    );
    events.push(b"\xff".to_vec());
    events
}

fn logged(bytes: &[u8]) -> Logged<'_> {
    let appended = Timestamp::from_nanos(1_764_028_801_000_000_007);
    Logged { origin: "custody.example.com/log", index: 41, appended, leaf: leaf_hash(bytes), bytes }
}

fn lines(mapped: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    mapped.flat_map(|line| [line, b"\n".to_vec()]).flatten().collect()
}

#[test]
fn every_ecs_document_and_template_is_what_elastic_publishes() {
    let events = events();
    let documents = lines(events.iter().map(|bytes| ecs::document(&logged(bytes))));
    let templates: Vec<String> = ["elasticsearch", "opensearch"]
        .map(|product| root().join(format!("schemas/{product}/mappings.json")).display().to_string())
        .to_vec();
    let said = node::run("validate_ecs.js", &templates, &documents);
    let wanted = format!("{} documents, 0 wrong; 9 of 9 broken ones are refused", events.len());
    assert!(said.starts_with(&wanted), "{said}");
    let fields: usize = said.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(fields > 80, "{said}");
}

#[test]
fn every_ocsf_event_is_what_its_version_asks_for() {
    let events = events();
    // All for the usual version; for the others every fifth, which meets each type in two or three ways.
    let mut mapped = Vec::new();
    for version in Version::ALL {
        let step = if version == Version::default() { 1 } else { 5 };
        mapped.extend(events.iter().step_by(step).map(|bytes| ocsf::event(&logged(bytes), version)));
    }
    let count = mapped.len();
    let said = python::run_with("validate_ocsf.py", &[], &lines(mapped.into_iter()));
    // Ten classes by the models of four versions; there are none of 1.8, and none of the base event.
    let wanted = format!("{count} events, 0 wrong; 8 of 8 broken ones are refused; 40 classes by models too");
    assert_eq!(said.trim(), wanted);
}

#[test]
fn every_cef_line_is_what_the_dictionary_allows() {
    let events = events();
    let mapped = lines(events.iter().map(|bytes| cef::line(&logged(bytes)).into_bytes()));
    let said = python::run_with("validate_cef.py", &[], &mapped);
    assert_eq!(said.trim(), format!("{} lines, 0 wrong; 5 of 5 broken ones are refused", events.len()));
}
