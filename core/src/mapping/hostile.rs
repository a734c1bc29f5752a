//! Entries as nobody should write them, for property tests of every standard.

use crate::event::{TYPES, Timestamp, hex::to_hex};
use crate::log::{Hash, tree::leaf_hash};
use crate::mapping::Logged;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Text that breaks what is careless: quotes, line ends, escapes, other alphabets, addresses, nothing, very much.
pub(super) fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<String>(),
        8 => prop::sample::select(vec![
            "",
            " ",
            "=",
            "|",
            "\\",
            "\\xff",
            "a=b|c\\d\r\n",
            "\u{0}",
            "\u{1b}[2J",
            "\u{2028}",
            "a\u{2029}b",
            "a\u{85}b",
            "\u{202e}gpj",
            "10.0.0.1:443",
            "[fe80::1%eth0]:22",
            "::1",
            "localhost",
            "2300-01-01T00:00:00Z",
            "2025-11-25T00:00:00.123456789Z",
            "denied",
            "success",
            "failure",
            "node",
            "user",
            "{\"a\":1}",
            "𝕏",
        ])
        .prop_map(str::to_owned),
        1 => ("[a-z]|𝕏|\"|\u{1}", 1_usize..12_000).prop_map(|(one, times)| one.repeat(times)),
    ]
}

/// Any JSON value.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(12, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any_text(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A place in an event that something else is put into.
fn any_place() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/actor",
        "/actor/user",
        "/actor/roles",
        "/data",
        "/id",
        "/outcome",
        "/producer",
        "/producer/id",
        "/producer/seq",
        "/session",
        "/source",
        "/source/address",
        "/source/port",
        "/source/client",
        "/target",
        "/target/address",
        "/target/kind",
        "/target/login",
        "/target/name",
        "/time",
        "/version",
        "/cause",
        "/type",
        "/data/reason",
        "/data/command",
        "/data/name",
        "/data/exit_status",
        "/data/allowed",
        "/data/policies",
        "/data/matches",
        "/data/roles",
        "/data/labels",
        "/data/address",
        "/data/valid_until",
        "/data/serial",
        "/data/bytes",
    ])
}

/// The bytes of an entry: an example of some type with other things in it, or anything.
pub(super) fn any_entry() -> impl Strategy<Value = Vec<u8>> {
    let changed = (0..TYPES.len(), prop::collection::vec((any_place(), any_json()), 0..6)).prop_map(
        |(which, changes)| {
            let mut event = whole(which);
            for (place, value) in changes {
                if let Some(old) = event.pointer_mut(place) {
                    *old = value;
                }
            }
            serde_json::to_vec(&event).unwrap()
        },
    );
    prop_oneof![
        8 => changed,
        1 => any_json().prop_map(|value| serde_json::to_vec(&value).unwrap()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// The example of a type with everything in its envelope.
fn whole(which: usize) -> Value {
    let mut event: Value = serde_json::from_slice(&(TYPES[which].example)().unwrap()).unwrap();
    event["cause"] = json!("01900000-0000-7000-8000-000000000003");
    event["session"] = json!("01900000-0000-7000-8000-000000000005");
    event["outcome"] = json!("success");
    event["source"] = json!({"address": "192.0.2.7", "port": 50_022, "client": "SSH-2.0-OpenSSH_9.2p1"});
    event["target"] = json!({"address": "192.0.2.10:22", "kind": "node", "login": "root", "name": "web-1"});
    event
}

/// `bytes` as an entry of a log.
pub(super) fn entry(bytes: &[u8]) -> Logged<'_> {
    let appended = Timestamp::from_nanos(1_764_028_801_000_000_007);
    Logged { origin: "custody.example.com/log", index: 41, appended, leaf: leaf_hash(bytes), bytes }
}

/// Whether `text` or `base64` of a mapped event is what was hashed.
pub(super) fn hashes_to(leaf: Hash, original: &[u8]) -> bool {
    to_hex(&leaf_hash(original).0) == to_hex(&leaf.0)
}
