use super::*;
use crate::event::TYPES;
use crate::mapping::hostile::{any_entry, entry, hashes_to};
use proptest::prelude::*;
use serde_json::{Value, json};

fn of(event: &Value) -> Value {
    let bytes = serde_json::to_vec(event).unwrap();
    serde_json::from_slice(&super::event(&entry(&bytes), Version::default())).unwrap()
}

#[test]
fn the_file_can_be_read_and_knows_every_type_and_no_other() {
    let mapping: Mapping = serde_json::from_str(FILE).unwrap();
    let known: Vec<&str> = mapping.types.keys().map(String::as_str).collect();
    let mut wanted: Vec<&str> = TYPES.iter().map(|info| info.name).collect();
    wanted.sort_unstable();
    assert_eq!(known, wanted);
    for class in mapping.types.values().flatten().map(|candidate| candidate.class) {
        assert!(
            mapping.classes.contains_key(&class) && mapping.categories.contains_key(&(class / 1_000)),
            "{class}"
        );
    }
    for name in mapping.classes.values().flat_map(|class| &class.takes) {
        assert!(mapping.shared.contains_key(name), "{name}");
    }
}

#[test]
fn every_example_has_a_class_of_its_own() {
    for info in TYPES {
        let bytes = (info.example)().unwrap();
        let got: Value = serde_json::from_slice(&super::event(&entry(&bytes), Version::default())).unwrap();
        assert_ne!(got["class_uid"], 0, "{}", info.name);
    }
}

#[test]
fn an_example_says_who_what_where_and_keeps_the_evidence() {
    let event = json!({
        "actor": {"user": "alice", "roles": ["operator"], "mfa": true, "identity_provider": "local"},
        "cause": "c", "data": {"claimed_user": "alice", "method": "password", "reason": "wrong password", "more": [1]},
        "id": "i", "outcome": "failure", "producer": {"boot": "b", "id": "custody", "kind": "log", "seq": 7},
        "source": {"address": "[fe80::1%eth0]:7", "port": 50_022}, "target": {"kind": "user", "name": "alice"},
        "time": "2025-11-25T00:00:00.123456789Z", "type": "login.failed", "version": 1
    });
    let bytes = serde_json::to_vec(&event).unwrap();
    let got: Value = serde_json::from_slice(&super::event(&entry(&bytes), Version::V1_5)).unwrap();
    let wanted = json!({
        "activity_id": 1,
        "actor": {"idp": {"name": "local"}, "user": {"has_mfa": true, "name": "alice", "type_id": 1}},
        "auth_protocol": "password", "auth_protocol_id": 99, "category_name": "Identity & Access Management",
        "category_uid": 3, "class_name": "Authentication", "class_uid": 3002, "is_remote": true, "logon_type_id": 3,
        "message": "Login as alice by password from [fe80::1%eth0]:7 failed: wrong password",
        "metadata": {
            "event_code": "login.failed", "log_name": "custody.example.com/log", "log_provider": "custody",
            "logged_time": 1_764_028_801_000_u64, "original_time": "2025-11-25T00:00:00.123456789Z",
            "product": {"name": "Custody", "vendor_name": "Custody"}, "profiles": ["host", "security_control"],
            "uid": "custody.example.com/log#41", "version": "1.5.0"
        },
        "raw_data": String::from_utf8(bytes.clone()).unwrap(), "service": {"name": "Custody"}, "severity": "Low",
        "severity_id": 2, "src_endpoint": {"ip": "fe80::1", "port": 50_022}, "status": "Failure", "status_code": "failure",
        "status_detail": "wrong password", "status_id": 2, "time": 1_764_028_801_000_u64, "type_uid": 300_201,
        "unmapped": {"custody": {
            "cause": "c", "data": {"more": 1}, "id": "i",
            "log": {"appended": "2025-11-25T00:00:01.000000007Z", "index": 41, "leaf": to_hex(&entry(&bytes).leaf.0), "origin": "custody.example.com/log"},
            "mapping": MAPPED_BY.as_str(), "outcome": "failure",
            "producer": {"boot": "b", "id": "custody", "kind": "log", "seq": 7},
            "target": {"kind": "user", "name": "alice"}, "type": "login.failed", "version": 1
        }},
        "user": {"name": "alice", "type_id": 1}
    });
    assert_eq!(got, wanted);
}

/// Whoever checks the leaf hash has to know why the bytes don't give it.
#[test]
fn what_was_redacted_says_so_and_nothing_else_does() {
    let whole = entry(br#"{"type":"login.succeeded"}"#);
    let of = |entry: &Logged<'_>| -> Value {
        serde_json::from_slice(&super::event(entry, Version::default())).unwrap()
    };
    assert_eq!(of(&whole)["unmapped"]["custody"].get("redacted"), None);
    let redacted = Logged { bytes: b"{}", ..whole };
    assert_eq!(of(&redacted)["unmapped"]["custody"]["redacted"], true);
}

#[test]
fn the_first_class_is_taken_that_the_event_is_complete_enough_for() {
    let class =
        |matches: Value| of(&json!({"type": "lock.created", "data": {"matches": matches, "name": "l"}}));
    assert_eq!(class(json!({"user": "mallory"}))["type_uid"], 300_109);
    assert_eq!(class(json!({"node": "web-1"}))["type_uid"], 300_401);
    let incomplete = of(&json!({"type": "lock.created", "data": {"name": ["l"]}}));
    assert_eq!((&incomplete["class_uid"], &incomplete["type_uid"]), (&json!(0), &json!(99)));
    assert_eq!(incomplete["unmapped"]["custody"]["data"]["name"], "l");
}

#[test]
fn what_a_class_may_have_is_told() {
    let authentication = attributes(3002);
    for name in
        ["actor.user.name", "actor.user.type_id", "is_mfa", "src_endpoint.port", "user.name", "user.type_id"]
    {
        assert!(authentication.contains(name), "{name}");
    }
    assert!(!authentication.contains("file.name") && !authentication.contains("file.type_id"));
    assert!(attributes(1001).contains("file.hashes[0].value"));
    assert!(attributes(0).contains("metadata.uid") && classes().any(|class| class == 0));
}

#[test]
fn denied_is_a_failure_that_was_blocked() {
    let data = json!({"allowed": false, "action": "a"});
    let producer = json!({"id": "custody"});
    let got = of(&json!({"type": "decision.made", "outcome": "denied", "data": data, "producer": producer}));
    assert_eq!(got["src_endpoint"], json!({"svc_name": "custody"}));
    for (name, value) in [("status_id", 2), ("action_id", 2), ("disposition_id", 2), ("severity_id", 3)] {
        assert_eq!(got[name], value, "{name}");
    }
    assert_eq!(got["authorizations"], json!([{"decision": "denied"}]));
}

/// Whoever called is the source, and what it sent went out; nobody is told a direction that an old event doesn't say.
#[test]
fn the_source_of_a_connection_is_who_called() {
    let ends = json!({"local": {"address": "192.0.2.1", "port": 22}, "name": "a.example", "protocol": "tcp", "remote": {"address": "192.0.2.2", "port": 50_022}});
    let seen = |kind: &str, direction: Option<&str>| {
        let mut data = json!({"bytes_in": 1, "bytes_out": 2, "ends": ends});
        if let Some(direction) = direction {
            data["direction"] = json!(direction);
        }
        let event = of(&json!({"type": kind, "data": data}));
        assert_eq!(event["class_uid"], 4001, "{event}");
        let end = |name: &str| (event[name]["port"].clone(), event[name]["hostname"].clone());
        let traffic = event["traffic"]["bytes_out"].clone();
        (event["connection_info"]["direction_id"].clone(), end("src_endpoint"), end("dst_endpoint"), traffic)
    };
    let (here, there) = ((json!(22), json!(null)), (json!(50_022), json!("a.example")));
    let inbound = |traffic| (json!(1), there.clone(), here.clone(), traffic);
    let outbound = |traffic| (json!(2), here.clone(), there.clone(), traffic);
    assert_eq!(seen("connection.accepted", None), inbound(json!(null)));
    assert_eq!(seen("connection.opened", None), outbound(json!(null)));
    assert_eq!(seen("connection.closed", Some("inbound")), inbound(json!(1)));
    assert_eq!(seen("connection.closed", Some("outbound")), outbound(json!(2)));
    assert_eq!(seen("connection.denied", Some("inbound")), inbound(json!(null)));
    assert_eq!(seen("connection.denied", Some("outbound")), outbound(json!(null)));
    let nameless = (json!(50_022), json!(null));
    assert_eq!(seen("connection.closed", None), (json!(0), here, nameless, json!(2)));
}

/// The source of a session is its client: what comes from there goes out to the destination.
#[test]
fn what_the_client_sent_went_out() {
    for kind in ["session.ended", "connection.completed"] {
        let data = json!({"bytes_in": 1, "bytes_out": 2});
        let source = json!({"address": "192.0.2.7"});
        let got = of(&json!({"type": kind, "data": data, "source": source, "producer": {"id": "proxy-1"}}));
        assert_eq!(got["src_endpoint"], json!({"ip": "192.0.2.7"}));
        assert_eq!(got["traffic"], json!({"bytes_in": 2, "bytes_out": 1}));
    }
}

#[test]
fn what_one_process_does_is_of_one_process() {
    let process = |kind: &str, node: &str, pid: Value, started: Value| {
        let data = json!({"arguments": ["sh", "-c", "id"], "executable": {"path": "/usr/bin/dash"},
                          "process": {"name": "sh", "pid": pid, "started_us": started}});
        let got = of(&json!({"type": kind, "data": data, "id": kind, "producer": {"id": node}}));
        assert_eq!(got["class_uid"], 1007, "{got}");
        got["process"].clone()
    };
    let executed = process("command.executed", "web-1", json!(7), json!(9));
    assert_eq!(executed["uid"], "web-1/7/9");
    assert_eq!(executed["cmd_line"], "sh -c id");
    let file = json!({"name": "dash", "path": "/usr/bin/dash", "type_id": 1});
    assert_eq!(executed["file"], file);
    assert_eq!(process("command.exited", "web-1", json!(7), json!(9))["uid"], executed["uid"]);
    for (node, pid, started) in [("web-2", 7, 9), ("web-1", 8, 9), ("web-1", 7, 10)] {
        assert_ne!(
            process("command.exited", node, json!(pid), json!(started))["uid"],
            executed["uid"],
            "{node} {pid} {started}"
        );
    }
    // With less it is still a process, though others may be called the same.
    let nameless = process("command.exited", "web-1", json!(7), Value::Null);
    assert_eq!((&nameless["pid"], &nameless["uid"]), (&json!(7), &Value::Null));
}

#[test]
fn a_file_is_named_by_the_end_of_its_path() {
    let data = json!({"operation": "write", "path": "/srv/www/index.html"});
    let got = of(&json!({"type": "file.completed", "data": data, "producer": {"id": "proxy-1"}}));
    assert_eq!(got["file"], json!({"name": "index.html", "path": "/srv/www/index.html", "type_id": 1}));
}

#[test]
fn types_that_nobody_knows_and_bytes_that_are_no_event_become_base_events() {
    let got =
        of(&json!({"type": "galaxy.formed", "version": 9, "actor": {"user": "eve"}, "data": {"stars": 7}}));
    assert_eq!((&got["class_uid"], &got["activity_name"]), (&json!(0), &json!("Other")));
    assert_eq!(got["unmapped"]["custody"]["data"], json!({"stars": 7}));
    let got: Value = serde_json::from_slice(&super::event(&entry(b"\xff"), Version::default())).unwrap();
    assert_eq!(got["unmapped"]["custody"]["original_base64"], "/w==");
}

proptest! {
    #[test]
    fn whatever_an_entry_holds_it_becomes_an_event_of_a_class_it_is_complete_for(bytes in any_entry()) {
        let entry = entry(&bytes);
        let got: Value = serde_json::from_slice(&super::event(&entry, Version::default())).unwrap();
        let class = got["class_uid"].as_u64().unwrap();
        for name in &MAPPING.classes[&class].needs {
            prop_assert!(!got[name].is_null(), "{} lacks {}", class, name);
        }
        prop_assert_eq!(got["type_uid"].as_u64().unwrap(), class * 100 + got["activity_id"].as_u64().unwrap());
        let custody = &got["unmapped"]["custody"];
        let original = match got["raw_data"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(custody["original_base64"].as_str().unwrap()).unwrap(),
        };
        prop_assert!(original == bytes && hashes_to(entry.leaf, &original));
    }
}
