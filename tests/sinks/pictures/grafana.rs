//! Grafana's dashboards of Loki: each panel's query, asked as Grafana asks it.

use super::day::{Day, TENANT};
use super::expected::{LOKI, SUMS, rare};
use custody_tests::pictures::{Query, dashboards, substituted};
use custody_tests::process::run;
use custody_tests::servers::custodyd::Entry;
use custody_tests::servers::{Loki, http};
use custody_tests::wait::DEADLINE;
use serde_json::Value;
use std::ops::Range;

/// The step of graphs, in seconds.
const STEP: u64 = 60;

/// What Loki found.
pub struct Found {
    /// Lines, or series.
    pub rows: Vec<Value>,
    /// How many lines there are, or what all numbers add up to.
    pub total: f64,
}

/// A query about the whole `day`, which is in nanoseconds: when its first event was appended, and its last.
pub fn ask(loki: &Loki, day: &Range<u64>, query: &Query) -> Result<Found, String> {
    const SECOND: u64 = 1_000_000_000;
    // So many steps that the first event lies in one, and the last at the end of one.
    let steps = (day.end - day.start) / (STEP * SECOND) + 2;
    let span = format!("{}s", steps * STEP);
    let step = format!("{STEP}s");
    let variables =
        [("job", "custody"), ("user", ".*"), ("node", ".*"), ("__range", &span), ("__auto", &step)];
    let expression = substituted(&query.expression, &variables);
    let end = day.end;
    let path = if query.instant { "query" } else { "query_range" };
    let mut url = reqwest::Url::parse(&format!("{}/loki/api/v1/{path}", loki.url())).expect("a URL");
    url.query_pairs_mut().append_pair("query", &expression).append_pair("limit", "5000");
    if query.instant {
        url.query_pairs_mut().append_pair("time", &end.to_string());
    } else {
        // Of numbers the end is part of the span, of lines it isn't.
        let is_metric = expression.contains("_over_time(");
        let end = if is_metric { end } else { end + 1 };
        let start = end - steps * STEP * SECOND;
        url.query_pairs_mut()
            .append_pair("start", &start.to_string())
            .append_pair("end", &end.to_string())
            .append_pair("step", &step);
    }
    let answer = http::get(url.as_str(), &[("x-scope-orgid", TENANT)])?;
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, answer.text));
    }
    let data = answer.json()["data"].clone();
    let rows = data["result"].as_array().cloned().unwrap_or_default();
    let number = |point: &Value| point[1].as_str().and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let points = |row: &Value| row["values"].as_array().cloned().unwrap_or_default();
    let total = match data["resultType"].as_str() {
        Some("streams") => rows.iter().map(|row| points(row).len() as f64).sum(),
        Some("matrix") => rows.iter().flat_map(points).map(|point| number(&point)).sum(),
        _ => rows.iter().map(|row| number(&row["value"])).sum(),
    };
    Ok(Found { rows, total })
}

/// What is wrong with the panels.
pub fn wrong(day: &Day) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut counted = 0;
    for query in dashboards("loki").iter().flat_map(|dashboard| dashboard.queries()) {
        let place = format!("{}: {}", query.dashboard, query.panel);
        let found = match ask(&day.loki, &(day.first..day.last), &query) {
            Ok(found) => found,
            Err(reason) => {
                wrong.push(format!("{place}: {reason}"));
                continue;
            }
        };
        if found.rows.is_empty() || found.total.is_nan() {
            wrong.push(format!("{place} shows nothing"));
            continue;
        }
        let is = |dashboard: &str, panel: &str| dashboard == query.dashboard && panel == query.panel;
        let events = LOKI.iter().find(|(dashboard, panel, _)| is(dashboard, panel));
        let sum = SUMS.iter().find(|(dashboard, panel, ..)| is(dashboard, panel));
        let expected = match (events, sum) {
            _ if is("commands", "Rare commands") => rare(day.entries.iter().map(|entry| entry.event.clone())),
            (Some((.., wanted)), _) => day.count(wanted),
            (None, Some((.., kind, field))) => {
                let of_kind = day.entries.iter().filter(|entry| entry.kind() == *kind);
                of_kind.map(|entry| entry.event["data"][field].as_u64().unwrap()).sum()
            }
            _ => continue,
        };
        counted += 1;
        if found.total != expected as f64 || expected == 0 {
            wrong.push(format!("{place} counts {}, and the log has {expected}", found.total));
        }
    }
    if counted != LOKI.len() + SUMS.len() + 1 {
        wrong.push(format!("{counted} panels were counted: expected.rs names others"));
    }
    wrong
}

/// Where a session's links lead, and whether what stands in the column `play` plays it.
pub fn wrong_links(day: &Day) -> Vec<String> {
    let dashboards = dashboards("loki");
    let sessions = dashboards.iter().find(|dashboard| dashboard.name() == "sessions").expect("a dashboard");
    let query = sessions.queries().into_iter().find(|query| query.panel == "Sessions").expect("a panel");
    let rows = ask(&day.loki, &(day.first..day.last), &query).expect("an answer").rows;
    // One that is over: its recording is whole.
    let recorded = |row: &&Value| {
        let of_row = |kind: &str| {
            let session = row["stream"]["session"].as_str();
            day.entries.iter().any(|entry| entry.kind() == kind && entry.session() == session)
        };
        of_row("recording.sealed") && of_row("session.ended")
    };
    let row = &rows.iter().find(recorded).expect("a session that is over")["stream"];
    let session = row["session"].as_str().expect("an id");
    let mut wrong = Vec::new();
    let links = sessions.session_links();
    if links.len() != 3 {
        wrong.push(format!("links of a session: {links:?}"));
    }
    for (title, url) in links {
        let url = url.replace("${api}", "").replace("${__value.raw}", session);
        let answer = day.world.admin.request(&url, &[]);
        if answer.status != 200 || answer.body.is_empty() {
            wrong.push(format!("{title}: {url}: {} {}", answer.status, answer.text()));
        } else if url.starts_with("/v1/events?") {
            // What was told of it since then is there too.
            let (page, of_day) = (answer.json(), |entry: &&Entry| entry.session() == Some(session));
            let shown = page["entries"].as_array().map_or(0, Vec::len);
            if shown < day.entries.iter().filter(of_day).count() {
                wrong.push(format!("{title}: {url} shows {shown} events"));
            }
        }
    }
    let typed: Vec<&str> = row["play"].as_str().unwrap_or_default().split(' ').collect();
    match typed[..] {
        ["custody", "play", id] if id == session => {
            let mut play = day.world.admin.command(&["play", id, "--speed", "100"]);
            let said = run(&mut play, b"", DEADLINE);
            if said.code != 0 {
                wrong.push(format!("custody play {id}: {}", said.err));
            }
        }
        _ => wrong.push(format!("what is to be typed: {typed:?}")),
    }
    wrong
}
