//! Events for tests of what reads events: every type in many ways, and as nobody should write them.

use custody_core::clock::Nanos;
use custody_core::event::{TYPES, Timestamp, TypeInfo};
use custody_core::log::Entry;
use custody_core::log::tree::leaf_hash;
use custody_core::mapping::Logged;
use serde_json::{Value, json};

/// Every type as its example, and in all the ways that change how it is mapped: with a full envelope and each outcome, of
/// a person and of a part of Custody, at targets of other kinds; then a type that nobody knows, and bytes that are no event.
///
/// # Panics
/// When an example can't be made.
#[must_use]
pub fn every() -> Vec<Vec<u8>> {
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

/// Every type with one thing in it replaced at a time ([`replaced`]), then what is too long, too deep and too much ([`extreme`]).
///
/// # Panics
/// When an example can't be made.
#[must_use]
pub fn hostile() -> Vec<Vec<u8>> {
    [replaced(), extreme()].concat()
}

/// Every type with one thing in it replaced at a time, wherever there is something, by what doesn't belong there.
///
/// # Panics
/// When an example can't be made.
#[must_use]
pub fn replaced() -> Vec<Vec<u8>> {
    let others = [
        json!(null),
        json!([]),
        json!({}),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("10.0.0.1:443"),
        json!("[fe80::1%eth0]:22"),
        json!("2300-01-01T00:00:00Z"),
        json!("a\u{0}b\r\n\u{202e}\"\\|= c=d"),
        json!([["a", 1], {"b": [true, null]}]),
        json!({"addr": "10.0.0.1:443", "addr.local": "10.0.0.1:5", "": {"..": " "}, "\u{0}": 0}),
    ];
    let mut events = Vec::new();
    for bytes in events_of_all_types() {
        let event: Value = serde_json::from_slice(&bytes).unwrap();
        let mut places = Vec::new();
        places_in(&event, "", &mut places);
        for place in places {
            for other in &others {
                let mut changed = event.clone();
                *changed.pointer_mut(&place).unwrap() = other.clone();
                events.push(serde_json::to_vec(&changed).unwrap());
            }
        }
    }
    events
}

/// Keys in one event: about as many as fit into it.
pub const KEYS: usize = 2_000;
/// Events that bring one key each which no other has: more than an index has fields for by default.
pub const KEYS_ONE_EACH: usize = 1_200;

/// What is too long, too deep and too much for whoever keeps it, and still an event that a log takes: a long command, a long key, deep
/// data, and labels with keys that a user chose, [`KEYS`] in one event and another one in each of [`KEYS_ONE_EACH`].
///
/// # Panics
/// When an example can't be made.
#[must_use]
pub fn extreme() -> Vec<Vec<u8>> {
    let long = |data: Value| {
        json!({"type": "command.requested", "version": 1, "data": data}).to_string().into_bytes()
    };
    let node = example(type_named("node.added"));
    let labelled = |labels: Value| {
        let mut event = node.clone();
        event["data"]["labels"] = labels;
        serde_json::to_vec(&event).unwrap()
    };
    let label = |n: usize| format!("app.kubernetes.io/x{n}");
    let mut events = vec![
        long(json!({"command": "𝕏".repeat(10_001)})),
        long(json!({"k".repeat(33_000): "v".repeat(30_000)})),
        long((0..60).fold(json!("x"), |inner, n| json!({ format!("level-{n}"): [inner] }))),
        labelled((0..KEYS).map(|n| (label(n), json!("v"))).collect()),
    ];
    events.extend((KEYS..KEYS + KEYS_ONE_EACH).map(|n| labelled(json!({ label(n): "v" }))));
    events
}

fn type_named(kind: &str) -> &'static TypeInfo {
    TYPES.iter().find(|info| info.name == kind).unwrap_or_else(|| panic!("there is no type {kind}"))
}

fn example(info: &TypeInfo) -> Value {
    serde_json::from_slice(&(info.example)().expect("an example")).expect("an event")
}

/// Each type's example with a full envelope.
fn events_of_all_types() -> Vec<Vec<u8>> {
    every().into_iter().skip(1).step_by(11).filter(|bytes| bytes != b"\xff").collect()
}

fn places_in(value: &Value, at: &str, places: &mut Vec<String>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        let place = format!("{at}/{key}");
        places_in(inner, &place, places);
        places.push(place);
    }
}

/// `bytes` as entry 41 of a log.
#[must_use]
pub fn logged(bytes: &[u8]) -> Logged<'_> {
    let appended = Timestamp::from_nanos(1_764_028_801_000_000_007);
    Logged { origin: "custody.example.com/log", index: 41, appended, leaf: leaf_hash(bytes), bytes }
}

/// An entry that says only what matters, as the test events of detection rules and alerts do: the example of its type, with
/// what is said in its place, appended `seconds` (as it says itself) after the start.
///
/// # Panics
/// When there is no such type.
#[must_use]
pub fn entry(index: u64, start_seconds: u64, said: &Value) -> Entry {
    let info = type_named(said["type"].as_str().expect("it says its type"));
    let mut event = example(info);
    let mut said = said.clone();
    let seconds = said.as_object_mut().and_then(|said| said.remove("seconds")).and_then(|s| s.as_u64());
    put_over(&mut event, said);
    Entry {
        index,
        appended: Nanos((start_seconds + seconds.unwrap_or(0)) * 1_000_000_000),
        tag: info.family.tag(),
        bytes: serde_json::to_vec(&event).expect("bytes").into(),
    }
}

fn put_over(event: &mut Value, said: Value) {
    match (event, said) {
        (Value::Object(event), Value::Object(said)) => {
            for (key, value) in said {
                put_over(event.entry(key).or_insert(Value::Null), value);
            }
        }
        (event, said) => *event = said,
    }
}
