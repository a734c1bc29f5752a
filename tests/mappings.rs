//! Mapped events against what others publish of the standards: every type in all the ways that change how it is mapped,
//! and with what doesn't belong there in each of its places.

use custody_core::mapping::ocsf::Version;
use custody_core::mapping::{cef, ecs, ocsf};
use custody_tests::events::{every, hostile, logged};
use custody_tests::{node, python, root};

fn lines(mapped: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    mapped.flat_map(|line| [line, b"\n".to_vec()]).flatten().collect()
}

#[test]
fn every_ecs_document_and_template_is_what_elastic_publishes() {
    let mut events = every();
    // Five and twelve have no common divisor: each place meets other things in each type.
    events.extend(hostile().into_iter().step_by(5));
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
    let events = every();
    // All for the usual version; for the others every fifth, which meets each type in two or three ways.
    let mut mapped = Vec::new();
    for version in Version::ALL {
        let step = if version == Version::default() { 1 } else { 5 };
        mapped.extend(events.iter().step_by(step).map(|bytes| ocsf::event(&logged(bytes), version)));
    }
    // A prime, so that each kind of change and each place has its turn.
    mapped.extend(hostile().iter().step_by(41).map(|bytes| ocsf::event(&logged(bytes), Version::default())));
    let count = mapped.len();
    let said = python::run_with("validate_ocsf.py", &[], &lines(mapped.into_iter()));
    // Ten classes by the models of four versions; there are none of 1.8, and none of the base event.
    let wanted = format!("{count} events, 0 wrong; 8 of 8 broken ones are refused; 44 classes by models too");
    assert_eq!(said.trim(), wanted);
}

#[test]
fn every_cef_line_is_what_the_dictionary_allows() {
    let mut events = every();
    events.extend(hostile().into_iter().step_by(7));
    let mapped = lines(events.iter().map(|bytes| cef::line(&logged(bytes)).into_bytes()));
    let said = python::run_with("validate_cef.py", &[], &mapped);
    assert_eq!(said.trim(), format!("{} lines, 0 wrong; 5 of 5 broken ones are refused", events.len()));
}
