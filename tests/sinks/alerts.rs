//! Alert rules on events, in the real Loki: each on the events that are to fire it and on those that are not, and its
//! ruler with the whole file.

use crate::loki_now;
use custody_core::clock::SystemClock;
use custody_sinks::http::Endpoint;
use custody_sinks::item::Item;
use custody_sinks::loki::Settings;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::{Answer, Sink as _};
use custody_tests::pictures::alerts;
use custody_tests::servers::{Loki, http};
use custody_tests::wait::until_true;
use custody_tests::{events, root};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const RULES: &str = "schemas/loki/alerts.yaml";

/// Has Loki take events as our sink sends them, the last one appended at `now` (seconds).
pub fn send(loki: &Loki, tenant: &str, said: &[Value], now: u64) {
    let after = |event: &Value| event["seconds"].as_u64().unwrap_or(0);
    let start = now - said.iter().map(after).max().expect("test events");
    let settings = Settings {
        endpoint: Endpoint { url: loki.url(), ca: None, auth: None },
        tenant: Some(tenant.to_owned()),
        sends_old_again: false,
        job: "custody".to_owned(),
    };
    let secrets = Secrets::new(Path::new("/nowhere"));
    let sink = custody_sinks::loki::Loki::new(
        settings,
        secrets,
        "custody.test/alerts",
        Arc::new(SystemClock::new()),
    );
    let entry = |(index, event)| Item::new(events::entry(index, start, event));
    let encoded: Vec<_> = (0..)
        .zip(said)
        .map(entry)
        .map(|item| sink.encode(&item).expect("an event that Loki takes"))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let batch: Vec<_> = encoded.iter().collect();
    let answers = runtime.block_on(sink.send(&batch)).expect("Loki takes them");
    assert!(answers.iter().all(|answer| *answer == Answer::Stored), "{answers:?}");
}

/// What an expression finds at a time in seconds.
fn found(loki: &Loki, tenant: &str, expression: &str, seconds: u64) -> Vec<Value> {
    let mut url = reqwest::Url::parse(&format!("{}/loki/api/v1/query", loki.url())).expect("a URL");
    url.query_pairs_mut().append_pair("query", expression).append_pair("time", &seconds.to_string());
    let answer = http::get(url.as_str(), &[("x-scope-orgid", tenant)]).expect("an answer").ok().json();
    answer["data"]["result"].as_array().expect("a vector").clone()
}

fn cases(name: &str) -> Value {
    let path = root().join(format!("schemas/loki/tests/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("test events")).expect("JSON")
}

/// What is sent for an alert, each to a tenant of its own, and whether it fires: all that together fires it, each that does so
/// alone, and what doesn't.
fn sent(alert: &str) -> Vec<(String, Vec<Value>, bool)> {
    let cases = cases(alert);
    let list = |case: &str| cases[case].as_array().cloned().unwrap_or_default();
    let together = [("fires", true), ("silent", false)]
        .map(|(case, fires)| (format!("{alert}-{case}"), list(case), fires));
    let alone =
        (0..).zip(list("each")).map(|(n, event): (u32, _)| (format!("{alert}-each-{n}"), vec![event], true));
    together.into_iter().chain(alone).collect()
}

#[test]
fn each_alert_fires_on_what_it_is_for_and_on_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut loki = Loki::prepare(dir.path(), &[]);
    loki.start();
    let now = loki_now();
    let mut wrong = Vec::new();
    for alert in alerts(RULES) {
        for (tenant, events, fires) in sent(&alert.name) {
            send(&loki, &tenant, &events, now);
            let rows = found(&loki, &tenant, &alert.expression, now + 1);
            if rows.is_empty() == fires {
                wrong.push(format!("{tenant}: {rows:?}"));
            }
            // An alert that names somebody must know whom.
            for row in &rows {
                let labels = row["metric"].as_object().expect("labels");
                for part in alert.json["annotations"].as_object().expect("texts").values() {
                    for piece in part.as_str().unwrap_or_default().split("$labels.").skip(1) {
                        let end =
                            piece.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(piece.len());
                        if labels.get(&piece[..end]).is_none_or(|value| value == "") {
                            wrong.push(format!("{tenant}: no {} in {row}", &piece[..end]));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The file as an operator mounts it, but that it is evaluated each second.
#[test]
fn loki_s_ruler_takes_the_file_and_raises_its_alarms() {
    const TENANT: &str = "custody";
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("data/rules").join(TENANT);
    std::fs::create_dir_all(&rules).unwrap();
    let text = std::fs::read_to_string(root().join(RULES)).unwrap();
    assert!(text.contains("interval: 1m"));
    std::fs::write(rules.join("alerts.yaml"), text.replace("interval: 1m", "interval: 1s")).unwrap();
    let mut loki = Loki::prepare(dir.path(), &[]);
    loki.start();
    let (gap, lock) = ("CustodyLogGap", "CustodyLockPlaced");
    for (name, ago) in [(gap, 20), (lock, 10)] {
        send(&loki, TENANT, cases(name)["fires"].as_array().unwrap(), loki_now() - ago);
    }
    let ask = |path: &str| {
        let url = format!("{}/prometheus/api/v1/{path}", loki.url());
        http::get(&url, &[("x-scope-orgid", TENANT)]).expect("an answer").json()
    };
    let firing = || -> Vec<String> {
        let alerts = ask("alerts")["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let named = alerts.iter().filter(|alert| alert["state"] == "firing");
        let mut names: Vec<String> =
            named.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    until_true("both alarms are raised", Duration::from_secs(120), || firing() == [lock, gap]);
    until_true("all rules are evaluated, and well", Duration::from_secs(60), || {
        let groups = ask("rules")["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> =
            groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
        rules.len() == alerts(RULES).len() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    let raised = ask("alerts")["data"]["alerts"].as_array().cloned().unwrap();
    let gap = raised.iter().find(|alert| alert["labels"]["alertname"] == gap).unwrap();
    assert_eq!(gap["annotations"]["summary"], "Events of web-1 are missing");
    assert_eq!(gap["value"].as_str().unwrap().parse::<f64>().unwrap(), 1.0, "one gap, of three numbers");
}
