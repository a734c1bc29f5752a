//! What panels must count: for each of them which of the log's events.

use serde_json::Value;
use std::collections::BTreeMap;

/// Which events a panel counts.
type Wanted = fn(&Value) -> bool;

fn is(event: &Value, kind: &str) -> bool {
    event["type"] == kind
}

fn denied(event: &Value) -> bool {
    is(event, "decision.made") && event["data"]["allowed"] == false
}

/// With another status than 0, or without one, as after a signal.
fn failed(event: &Value) -> bool {
    is(event, "command.completed") && event["data"]["exit_status"] != 0
}

fn text(event: &Value, field: &str) -> String {
    event["data"][field].as_str().unwrap_or_default().to_owned()
}

const SUCCEEDED: Wanted = |e| is(e, "login.succeeded");
const FAILED: Wanted = |e| is(e, "login.failed");
const LOGINS: Wanted = |e| SUCCEEDED(e) || FAILED(e);
const STARTED: Wanted = |e| is(e, "session.started");
const ENDED: Wanted = |e| is(e, "session.ended");
const COMMANDS: Wanted = |e| is(e, "command.requested");
const LINES: Wanted = |e| COMMANDS(e) && e["data"]["command"].is_string();
const STALLED: Wanted = |e| is(e, "sink.stalled");
const VERIFIED: Wanted = |e| is(e, "sink.verified");
const DIFFERS: Wanted = |e| VERIFIED(e) && e["data"]["proven"] == false;
const SINKS: Wanted = |e| e["type"].as_str().is_some_and(|kind| kind.starts_with("sink."));

/// Dashboards of Loki: dashboard, panel, and what all of its numbers, or its lines, add up to.
pub const LOKI: &[(&str, &str, Wanted)] = &[
    ("logins", "Logins", SUCCEEDED),
    ("logins", "Failed logins", FAILED),
    ("logins", "Logins by outcome", LOGINS),
    ("logins", "Failed logins by reason", FAILED),
    ("logins", "Who, from where, how", SUCCEEDED),
    ("logins", "Failed logins, each", FAILED),
    ("sessions", "Started", STARTED),
    ("sessions", "Ended", ENDED),
    ("sessions", "Cut", |e| ENDED(e) && text(e, "reason") == "locked"),
    ("sessions", "Started and ended", |e| STARTED(e) || ENDED(e)),
    ("sessions", "By node", STARTED),
    ("sessions", "How they ended", ENDED),
    ("sessions", "Sessions", STARTED),
    ("denied", "Denied", denied),
    ("denied", "Decisions", |e| is(e, "decision.made")),
    ("denied", "Host keys refused", |e| is(e, "node.host-key-refused")),
    ("denied", "Denied by action", denied),
    ("denied", "By policy", denied),
    ("denied", "Who, what, where", denied),
    ("denied", "Denied, each", denied),
    ("commands", "Commands", COMMANDS),
    ("commands", "Shells", |e| COMMANDS(e) && text(e, "kind") == "shell"),
    ("commands", "Ended with an error", failed),
    ("commands", "Never ran", |e| is(e, "command.failed")),
    ("commands", "Commands by kind", COMMANDS),
    ("commands", "Commands by node", COMMANDS),
    ("commands", "Top commands", LINES),
    ("commands", "Who runs most", COMMANDS),
    ("commands", "How they ended", |e| is(e, "command.completed")),
    ("commands", "Commands, each", COMMANDS),
    ("sinks", "Stalled", STALLED),
    ("sinks", "Copies not proven", DIFFERS),
    ("sinks", "Gaps", |e| is(e, "producer.gap")),
    ("sinks", "Events of sinks", SINKS),
    ("sinks", "Events delivered, by type", |_| true),
    ("sinks", "Proven copies", VERIFIED),
];

/// Saved searches and visualisations, by their ids: how many documents they are made of.
pub const SAVED: &[(&str, Wanted)] = &[
    ("custody-logins-count", SUCCEEDED),
    ("custody-logins-failed", FAILED),
    ("custody-logins-over-time", LOGINS),
    ("custody-logins-who", SUCCEEDED),
    ("custody-failed-logins", FAILED),
    ("custody-sessions-started", STARTED),
    ("custody-sessions-ended", ENDED),
    ("custody-sessions-over-time", |e| STARTED(e) || ENDED(e)),
    ("custody-sessions-by-node", STARTED),
    ("custody-sessions-times", |e| STARTED(e) || ENDED(e)),
    ("custody-started-sessions", STARTED),
    ("custody-denied-count", denied),
    ("custody-decisions-count", |e| is(e, "decision.made")),
    ("custody-denied-over-time", denied),
    ("custody-denied-who", denied),
    ("custody-denied-decisions", denied),
    ("custody-commands-count", COMMANDS),
    ("custody-commands-shells", |e| COMMANDS(e) && e["data"]["terminal"] == true),
    ("custody-commands-failed", failed),
    ("custody-commands-over-time", COMMANDS),
    ("custody-commands-top", LINES),
    ("custody-requested-commands", COMMANDS),
    ("custody-sinks-stalled", STALLED),
    ("custody-sinks-rejected", |e| is(e, "sink.rejected")),
    ("custody-sinks-differ", DIFFERS),
    ("custody-log-gaps", |e| is(e, "producer.gap")),
    ("custody-sinks-over-time", SINKS),
    ("custody-events-over-time", |_| true),
];

/// What the panel of rare commands has a line for: commands that nobody else has asked for, anywhere.
pub fn rare(events: impl Iterator<Item = Value>) -> u64 {
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for event in events.filter(LINES) {
        *times.entry(text(&event, "command")).or_default() += 1;
    }
    times.into_values().filter(|times| *times == 1).count() as u64
}

/// The numbers that panels of Loki add up which stand in events: dashboard, panel, type and field.
pub const SUMS: &[(&str, &str, &str, &str)] = &[("sinks", "Refused events", "sink.rejected", "count")];
