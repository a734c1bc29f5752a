//! Grafana's dashboards of Prometheus, and its alerts, by Prometheus' own engine on what the day's daemon shows.

use super::day::Day;
use custody_tests::golang;
use custody_tests::pictures::{alerts, dashboards, substituted};
use custody_tests::process::run;
use custody_tests::wait::{DEADLINE, until};
use serde_json::{Value, json};

/// What is wrong with them.
pub fn wrong(day: &Day) -> Vec<String> {
    let scrape = || day.world.admin.request("/metrics", &[]).text();
    let before = scrape();
    // Something happens between two scrapes.
    day.world.ssh(&[], "true", b"").ok();
    let after = until("only the session that stays is live, and all sinks are well", DEADLINE, || {
        let text = scrape();
        let mut sinks = text.lines().filter(|line| line.starts_with("custody_sink_up{"));
        let is_well = sinks.all(|line| line.ends_with(" 1"));
        (is_well && text.contains("\ncustody_sessions_live 1\n")).then_some(text)
    });
    let panels: Vec<(String, String)> = dashboards("prometheus")
        .iter()
        .flat_map(|dashboard| dashboard.queries())
        .map(|query| {
            let place = format!("{}: {}", query.dashboard, query.panel);
            let variables = [("instance", ".*"), ("__rate_interval", "1m")];
            (place, substituted(&query.expression, &variables))
        })
        .collect();
    let alerts = alerts("schemas/prometheus/alerts.yaml");
    let queries: Vec<&str> = panels
        .iter()
        .map(|(_, query)| query.as_str())
        .chain(alerts.iter().map(|alert| alert.expression.as_str()))
        .collect();
    let asked = json!({
        "target": { "job": "custody", "instance": "custody" },
        "scrapes": [{ "seconds": 1_000_000, "text": before }, { "seconds": 1_000_015, "text": after }],
        "queries": queries,
    });
    let said =
        run(golang::reader("promql").arg("queries"), asked.to_string().as_bytes(), DEADLINE).ok().text();
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), queries.len());
    let mut wrong = Vec::new();
    let (of_panels, of_alerts) = answers.split_at(panels.len());
    for ((place, _), answer) in panels.iter().zip(of_panels) {
        let rows = answer["rows"].as_array().expect("rows");
        if answer.get("error").is_some() || rows.is_empty() {
            wrong.push(format!("{place} shows nothing: {answer}"));
        }
    }
    for (alert, answer) in alerts.iter().zip(of_alerts) {
        // The day has a gap, which isn't known from an hour ago; everything else is well.
        let fires = !answer["rows"].as_array().expect("rows").is_empty();
        // Of two scrapes it tells how slow this machine's disk is just now.
        let may_fire = alert.name == "CustodyLogSlow";
        let is_wrong = !may_fire && fires != (alert.name == "CustodyEventsMissing");
        if answer.get("error").is_some() || is_wrong {
            wrong.push(format!("{}: {answer}", alert.name));
        }
    }
    // And what is shown is so.
    let live = of_panels.iter().zip(&panels).find(|(_, (place, _))| place == "log: Live sessions");
    if live.is_none_or(|(answer, _)| answer["rows"][0]["value"] != 1.0) {
        wrong.push(format!("live sessions: {live:?}"));
    }
    wrong
}
