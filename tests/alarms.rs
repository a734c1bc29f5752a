//! Alarms as files: what we call an alarm ourselves has an alert and a detection rule, and what alerts and panels list by hand
//! is whole.

use crate::picture_files::types_in;
use custody_core::event::session::{EndReason, Ended};
use custody_core::event::{EventData as _, Family, TYPES};
use custody_core::log::SYNC_BOUNDS_NS;
use custody_tests::pictures::{Alert, alerts, dashboards, yaml};
use custody_tests::root;
use serde_json::Value;
use std::collections::BTreeSet;

const LOKI: &str = "schemas/loki/alerts.yaml";

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every way in which a session ends, by its word.
fn end_reasons() -> Vec<(String, EndReason)> {
    let schema = schemars::schema_for!(EndReason).to_value();
    let words = schema["oneOf"].as_array().expect("a word for each").iter().map(|one| one["const"].clone());
    let reasons: Vec<(String, EndReason)> = words
        .map(|word| (word.as_str().unwrap().to_owned(), serde_json::from_value(word).unwrap()))
        .collect();
    assert!(reasons.len() > 10, "{reasons:?}");
    reasons
}

/// Whether a session that ends so was cut: after it had begun, and by neither side.
fn is_cut(reason: EndReason) -> bool {
    match reason {
        EndReason::Locked
        | EndReason::Terminated
        | EndReason::NodeLost
        | EndReason::LogUnavailable
        | EndReason::RecordingFailed
        | EndReason::ProxyCrashed
        | EndReason::Expired => true,
        // A side left, or broke the protocol; it never began; somebody stopped the proxy, after it had drained.
        EndReason::ClientClosed
        | EndReason::TargetClosed
        | EndReason::ProtocolError
        | EndReason::TargetUnavailable
        | EndReason::HostKeyRefused
        | EndReason::ProxyStopped => false,
    }
}

#[test]
fn the_panel_of_sessions_that_were_cut_knows_each_way_of_it() {
    let dashboards = dashboards("loki");
    let sessions = dashboards.iter().find(|dashboard| dashboard.name() == "sessions").unwrap();
    let query = sessions.panel("Cut")["targets"][0]["expr"].as_str().unwrap();
    let (_, reasons) = query.split_once("reason=~\"").expect("it looks at reasons");
    let shown: BTreeSet<&str> = reasons.split('"').next().unwrap().split('|').collect();
    let all = end_reasons();
    let wanted: BTreeSet<&str> =
        all.iter().filter(|(_, reason)| is_cut(*reason)).map(|(word, _)| word.as_str()).collect();
    assert_eq!(shown, wanted);
}

/// Types whose ECS documents are alerts.
fn alerts_of_ecs() -> BTreeSet<String> {
    let mapping: Value = serde_json::from_str(&file("schemas/ecs/mapping.json")).unwrap();
    let types = mapping["types"].as_object().unwrap().iter();
    types.filter(|(_, rule)| rule["event"]["kind"] == "alert").map(|(name, _)| name.clone()).collect()
}

/// Types, and ways in which a session ends, that docs/operate.md calls worth an alarm.
fn worth_an_alarm() -> (BTreeSet<String>, BTreeSet<String>) {
    let page = file("docs/operate.md");
    let listed = page
        .split("\n\n")
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .find_map(|text| text.split_once("Events worth an alarm:").map(|(_, listed)| listed.to_owned()));
    let listed = listed.expect("docs/operate.md lists events that are worth an alarm");
    let words: BTreeSet<String> = listed.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let types: BTreeSet<String> = words.iter().filter(|word| Family::of(word).is_some()).cloned().collect();
    let known: BTreeSet<&str> = TYPES.iter().map(|info| info.name).collect();
    assert!(types.iter().all(|name| known.contains(name.as_str())), "there is no such type: {types:?}");
    let ends = end_reasons().into_iter().map(|(word, _)| word).filter(|word| words.contains(word)).collect();
    (types, ends)
}

/// What stands in the detections of a Sigma rule.
fn words_of(rule: &str) -> BTreeSet<String> {
    let detections = rule.split("\ndetection:").skip(1);
    let lines = detections.flat_map(|text| text.lines().skip(1).take_while(|line| line.starts_with(' ')));
    lines.flat_map(str::split_whitespace).map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
}

/// What stands in quotes in an alert's expression.
fn quoted(alert: &Alert) -> BTreeSet<&str> {
    alert.expression.split('"').skip(1).step_by(2).flat_map(|words| words.split('|')).collect()
}

#[test]
fn what_is_an_alarm_has_an_alert_and_a_detection_rule() {
    let (mut types, ends) = worth_an_alarm();
    types.extend(alerts_of_ecs());
    assert!(types.len() > 12 && ends.len() > 2, "{types:?} {ends:?}");
    let alerts = alerts(LOKI);
    let files = std::fs::read_dir(root().join("schemas/sigma")).unwrap().map(|file| file.unwrap().path());
    let rules: Vec<BTreeSet<String>> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .map(|path| words_of(&std::fs::read_to_string(path).unwrap()))
        .collect();
    let mut lacking = Vec::new();
    for name in &types {
        if !alerts.iter().any(|alert| types_in(&alert.expression).contains(name)) {
            lacking.push(format!("no alert of Loki is on {name}"));
        }
        if !rules.iter().any(|words| words.contains(name)) {
            lacking.push(format!("no Sigma rule is on {name}"));
        }
    }
    for reason in &ends {
        let ended = |alert: &Alert| types_in(&alert.expression).contains(Ended::TYPE);
        if !alerts.iter().any(|alert| ended(alert) && quoted(alert).contains(reason.as_str())) {
            lacking.push(format!("no alert of Loki is on sessions that end by {reason}"));
        }
        if !rules.iter().any(|words| words.contains(Ended::TYPE) && words.contains(reason)) {
            lacking.push(format!("no Sigma rule is on sessions that end by {reason}"));
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
}

/// Nodes and locks aside, which have alerts of their own.
#[test]
fn the_alert_on_administration_knows_each_type_that_changes_who_may_do_what() {
    let alerts = alerts(LOKI);
    let alert = alerts.iter().find(|alert| alert.name == "CustodyAdministration").unwrap();
    let families = ["user.", "role.", "policy.", "service.", "restriction."];
    let wanted: BTreeSet<String> = TYPES
        .iter()
        .filter(|info| families.iter().any(|family| info.name.starts_with(family)))
        .map(|info| info.name.to_owned())
        .collect();
    assert_eq!(types_in(&alert.expression), wanted);
    let tests: Value = serde_json::from_str(&file("schemas/loki/tests/CustodyAdministration.json")).unwrap();
    let each =
        tests["each"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned());
    assert_eq!(each.collect::<BTreeSet<String>>(), wanted, "each has an event that fires it");
}

/// A quantile is known as exactly as the bounds around it: one that isn't there would say more than the daemon does.
#[test]
fn alerts_on_syncs_are_tested_with_buckets_that_there_are() {
    let mut looked_at = 0;
    for test in yaml("schemas/prometheus/tests.yaml")["tests"].as_array().unwrap() {
        for series in test["input_series"].as_array().unwrap() {
            let series = series["series"].as_str().unwrap();
            let bucket = series.strip_prefix("custody_log_sync_seconds_bucket{");
            let Some((_, le)) = bucket.and_then(|labels| labels.split_once("le=\"")) else { continue };
            let le = le.split('"').next().unwrap();
            if le == "+Inf" {
                continue;
            }
            looked_at += 1;
            let nanos = (le.parse::<f64>().unwrap() * 1e9).round() as u64;
            assert!(SYNC_BOUNDS_NS.contains(&nanos), "{series}: there is no such bound");
        }
    }
    assert!(looked_at > 3, "only {looked_at} buckets");
}
