use super::*;
use crate::event::TYPES;
use crate::mapping::hostile::{any_entry, entry, hashes_to};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the largest event becomes at most: its text twice (whole and cut), each character escaped.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;

fn of(event: &Value) -> Value {
    let bytes = serde_json::to_vec(event).unwrap();
    serde_json::from_slice(&document(&entry(&bytes))).unwrap()
}

#[test]
fn the_file_can_be_read_and_knows_every_type_and_no_other() {
    let mapping: Mapping = serde_json::from_str(FILE).unwrap();
    let known: Vec<&str> = mapping.types.keys().map(String::as_str).collect();
    let mut wanted: Vec<&str> = TYPES.iter().map(|info| info.name).collect();
    wanted.sort_unstable();
    assert_eq!(known, wanted);
    assert_eq!(json!(mapping._version), document_of_example("log.sealed")["ecs"]["version"]);
}

fn document_of_example(name: &str) -> Value {
    let info = TYPES.iter().find(|info| info.name == name).unwrap();
    serde_json::from_slice(&document(&entry(&(info.example)().unwrap()))).unwrap()
}

#[test]
fn an_example_says_who_what_where_and_keeps_the_evidence() {
    let event = json!({
        "actor": {"user": "alice", "roles": ["operator"], "mfa": true, "identity_provider": "local"},
        "data": {"channel": 0, "command": "id", "environment": [{"name": "LANG", "value": "C"}, {"name": "X"}],
                 "kind": "exec", "terminal": false},
        "id": "01900000-0000-7000-8000-000000000002",
        "producer": {"boot": "b", "id": "proxy-1", "kind": "proxy", "seq": 7},
        "session": "s",
        "source": {"address": "fe80::1%eth0", "port": 50_022},
        "target": {"address": "[2001:db8::2]:22", "kind": "node", "login": "root", "name": "web-1"},
        "time": "2025-11-25T00:00:00.123456789Z", "type": "command.requested", "version": 1
    });
    let bytes = serde_json::to_vec(&event).unwrap();
    let got: Value = serde_json::from_slice(&document(&entry(&bytes))).unwrap();
    let wanted = json!({
        "@timestamp": "2025-11-25T00:00:01.000000007Z",
        "custody": {
            "actor": {"identity_provider": "local", "mfa": true},
            "data": {"channel": 0, "environment": {"name": ["LANG", "X"], "value": "C"}, "kind": "exec"},
            "id": "01900000-0000-7000-8000-000000000002",
            "log": {"index": 41, "leaf": crate::event::hex::to_hex(&entry(&bytes).leaf.0),
                    "origin": "custody.example.com/log"},
            "mapping": *VERSION,
            "producer": {"boot": "b", "id": "proxy-1", "kind": "proxy", "seq": 7},
            "session": {"id": "s"},
            "target": {"kind": "node", "login": "root", "name": "web-1"},
            "type": "command.requested", "version": 1
        },
        "destination": {"address": "2001:db8::2", "ip": "2001:db8::2", "port": 22},
        "ecs": {"version": "8.11.0"},
        "event": {
            "action": "command.requested", "category": ["process"], "created": "2025-11-25T00:00:00.123456789Z",
            "dataset": "custody.events", "id": "custody.example.com/log#41", "kind": "event", "module": "custody",
            "original": String::from_utf8(bytes.clone()).unwrap(), "outcome": "unknown", "provider": "proxy",
            "sequence": 41, "severity": 1, "type": ["start"]
        },
        "host": {"name": "web-1"},
        "message": "alice as root on web-1 asked for exec: id",
        "observer": {"name": "proxy-1", "product": "Custody", "type": "proxy", "vendor": "Custody"},
        "process": {"command_line": "id", "entity_id": "01900000-0000-7000-8000-000000000002", "interactive": false},
        "related": {"hosts": ["web-1"], "ip": ["fe80::1", "2001:db8::2"], "user": ["alice", "root"]},
        "source": {"address": "fe80::1%eth0", "ip": "fe80::1", "port": 50_022},
        "user": {"effective": {"name": "root"}, "name": "alice", "roles": ["operator"]}
    });
    assert_eq!(got, wanted);
}

#[test]
fn denied_is_a_failure_of_a_kind_that_says_denied() {
    let mut event: Value =
        serde_json::from_str(r#"{"type":"decision.made","data":{"allowed":false}}"#).unwrap();
    event["outcome"] = json!("denied");
    let denied = of(&event);
    assert_eq!(denied["event"]["outcome"], "failure");
    assert_eq!(denied["event"]["type"], json!(["access", "denied"]));
    assert_eq!(denied["custody"]["outcome"], "denied");
    event["outcome"] = json!("success");
    assert_eq!(of(&event)["event"]["type"], json!(["access", "allowed"]));
}

/// Whoever looks for what was changed, made or deleted finds what came by SFTP too.
#[test]
fn what_is_done_to_a_file_is_told_by_its_kind() {
    let kind = |name: &str, key: &str, what: Value| {
        let got = of(&json!({"type": name, "data": {key: what}}));
        assert_eq!(got["event"]["category"], json!(["file"]));
        got["event"]["type"].clone()
    };
    for (operation, wanted) in [
        ("read", json!(["access"])),
        ("list", json!(["access"])),
        ("write", json!(["change"])),
        ("read-write", json!(["access", "change"])),
        ("rename", json!(["change"])),
        ("set-attributes", json!(["change"])),
        ("mkdir", json!(["creation"])),
        ("symlink", json!(["creation"])),
        ("hardlink", json!(["creation"])),
        ("copy", json!(["creation"])),
        ("remove", json!(["deletion"])),
        ("rmdir", json!(["deletion"])),
        ("what a later program knows", json!(["access"])),
    ] {
        assert_eq!(kind("file.completed", "operation", json!(operation)), wanted, "{operation}");
        assert_eq!(kind("file.failed", "operation", json!(operation)), wanted, "{operation}");
        // It is opened to be written; what is written, the target hasn't heard of.
        let opens = operation.ends_with("write");
        let wanted = if opens { json!(["access"]) } else { wanted };
        assert_eq!(kind("file.requested", "operation", json!(operation)), wanted, "{operation}");
    }
    assert_eq!(kind("file.denied", "tried", json!("delete")), json!(["deletion"]));
    assert_eq!(kind("file.denied", "tried", json!("connect")), json!(["access"]));
    assert_eq!(kind("file.completed", "operation", json!([1])), json!(["access"]));
}

/// Who logged in to Custody and in whose name a process runs are two.
#[test]
fn the_user_of_a_process_is_not_the_person() {
    let got = document_of_example("command.executed");
    assert_eq!((&got["user"]["name"], &got["user"]["id"]), (&json!("alice"), &Value::Null));
    assert_eq!(got["process"]["real_user"], json!({"id": "1000"}));
    assert_eq!(got["process"]["user"], json!({"id": "1000"}));
}

/// Whoever checks the leaf hash has to know why the bytes don't give it.
#[test]
fn what_was_redacted_says_so_and_nothing_else_does() {
    let whole = entry(br#"{"type":"login.succeeded"}"#);
    let of = |entry: &Logged<'_>| serde_json::from_slice::<Value>(&document(entry)).unwrap();
    assert_eq!(of(&whole)["custody"].get("redacted"), None);
    let redacted = Logged { bytes: b"{}", ..whole };
    assert_eq!(of(&redacted)["custody"]["redacted"], true);
}

/// An attacker can't hide a command by making it long: its beginning is found, and the cut is told.
#[test]
fn long_text_is_found_by_its_beginning() {
    let got = of(&json!({"type": "command.requested", "data": {"command": "𝕏".repeat(10_001)}}));
    assert_eq!(got["process"]["command_line"], "𝕏".repeat(8_000));
    assert_eq!(got["custody"]["cut"], json!(["process.command_line"]));
    let got = of(
        &json!({"type": "user.created", "data": {"name": "n", "roles": ["r".repeat(2_000)], "x": "y".repeat(2_000)}}),
    );
    assert_eq!(got["user"]["target"]["roles"], json!(["r".repeat(1_024)]));
    assert_eq!(got["custody"]["cut"], json!(["user.target.roles", "custody.data"]));
}

/// H4 of what others had: a field that is text, list or object by turns, an address with a port, none at all.
#[test]
fn values_that_do_not_fit_are_left_out_of_their_fields() {
    for (address, ip, port, kept) in [
        ("10.0.0.1:443", json!("10.0.0.1"), json!(443), "10.0.0.1"),
        ("[fe80::1%eth0]:22", json!("fe80::1"), json!(22), "fe80::1%eth0"),
        ("", Value::Null, Value::Null, ""),
        ("localhost", Value::Null, Value::Null, "localhost"),
        ("10.0.0.1:port", Value::Null, Value::Null, "10.0.0.1:port"),
    ] {
        let got = of(&json!({"type": "login.succeeded", "source": {"address": address}}));
        assert_eq!((&got["source"]["ip"], &got["source"]["port"]), (&ip, &port), "{address}");
        assert_eq!(got["source"]["address"], kept);
    }
    let with = |name: Value| of(&json!({"type": "user.created", "data": {"name": name}}));
    assert_eq!(with(json!("a"))["user"]["target"]["name"], "a");
    for other in [json!(["a", "b"]), json!({"id": 1})] {
        let got = with(other.clone());
        assert_eq!(got["user"]["target"], Value::Null);
        assert_eq!(got["custody"]["data"], json!({ "name": other }));
    }
}

#[test]
fn types_that_nobody_knows_and_bytes_that_are_no_event_keep_a_generic_shape() {
    let got =
        of(&json!({"type": "galaxy.formed", "version": 9, "actor": {"user": "eve"}, "data": {"stars": 7}}));
    assert_eq!(got["event"]["action"], "galaxy.formed");
    assert_eq!(got["event"]["kind"], "event");
    assert_eq!(got["event"]["category"], Value::Null);
    assert_eq!(got["user"]["name"], "eve");
    assert_eq!(got["custody"]["data"], json!({"stars": 7}));
    let bytes = b"\xff\x00{";
    let got: Value = serde_json::from_slice(&document(&entry(bytes))).unwrap();
    assert_eq!(got["event"]["id"], "custody.example.com/log#41");
    assert_eq!(STANDARD.decode(got["custody"]["original_base64"].as_str().unwrap()).unwrap(), bytes);
}

/// What each field of a document may hold, whatever the event was.
fn assert_fits(name: &str, value: &Value) {
    match value {
        Value::Object(fields) if name != "custody.data" => {
            for (key, value) in fields {
                assert_fits(format!("{name}.{key}").trim_start_matches('.'), value);
            }
        }
        Value::Object(_) => {}
        Value::Array(items) => {
            assert!(!items.is_empty() && items.iter().all(|i| !i.is_array() && !i.is_object()), "{name}");
            items.iter().for_each(|item| assert_fits(name, item));
        }
        Value::String(text) => {
            if name.ends_with(".ip") {
                assert!(text.parse::<std::net::IpAddr>().is_ok(), "{name}: {text}");
            }
            let limit = match name {
                "event.original" | "custody.original_base64" => usize::MAX,
                _ => MAPPING.limits.get(name).copied().unwrap_or(KEYWORD_BYTES_MAX),
            };
            assert!(text.len() <= limit, "{name}: {} bytes", text.len());
        }
        Value::Number(number) => {
            assert!(number.is_i64(), "{name}: {number}");
            assert!(
                !name.ends_with(".port") || number.as_u64().is_some_and(|n| n <= 65_535),
                "{name}: {number}"
            );
        }
        Value::Bool(_) => assert!(["custody.actor.mfa", "process.interactive"].contains(&name), "{name}"),
        Value::Null => panic!("{name} is null"),
    }
}

proptest! {
    #[test]
    fn whatever_an_entry_holds_it_becomes_a_document_that_an_index_takes(bytes in any_entry()) {
        let entry = entry(&bytes);
        let text = document(&entry);
        prop_assert!(text.len() <= DOCUMENT_BYTES_MAX);
        prop_assert_eq!(&text, &document(&entry));
        let got: Value = serde_json::from_slice(&text).unwrap();
        assert_fits("", &got);
        let original = match got["event"]["original"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(got["custody"]["original_base64"].as_str().unwrap()).unwrap(),
        };
        prop_assert!(original == bytes && hashes_to(entry.leaf, &original));
    }
}
