//! What a session did to files: told from its events, as their contents are in no recording.

use crate::client::Client;
use crate::events;
use crate::table::{self, field};
use serde_json::Value;
use std::collections::BTreeMap;

/// Prints a table of the session's operations on files, in the order in which they ended or were denied. Gives how many
/// there are.
pub async fn print(client: &Client, session: &str) -> anyhow::Result<usize> {
    let mut rows = BTreeMap::new();
    let of = |kind: &str| vec![("type", kind.to_owned()), ("session", session.to_owned())];
    let denied = ("outcome", "denied".to_owned());
    for query in [of("file"), [of("decision.made"), vec![denied]].concat()] {
        events::pages(client, &query, usize::MAX, |line| {
            let entry: Value = serde_json::from_str(line)?;
            rows.extend(row(&entry["event"]).map(|row| (entry["index"].as_u64(), row)));
            Ok(())
        })
        .await?;
    }
    let count = rows.len();
    let header = ["time", "operation", "path", "bytes", "sha256", "outcome"];
    table::print(&header, rows.into_values().collect(), "This session did nothing to files.");
    Ok(count)
}

/// The end of an operation, or that it was denied; `None` for what was asked for only.
fn row(event: &Value) -> Option<Vec<String>> {
    let empty = String::new;
    let outcome = match field(event, "/type").as_str() {
        "file.completed" => "ok".to_owned(),
        "file.failed" => field(event, "/data/reason"),
        "file.unparsed" => {
            let (time, reason) = (time(event), field(event, "/data/reason"));
            return Some(vec![time, "not understood".to_owned(), empty(), empty(), empty(), reason]);
        }
        "decision.made" => {
            let operation = field(event, "/data/action").strip_prefix("ssh:sftp-")?.to_owned();
            let (path, reason) = (field(event, "/data/context/path"), field(event, "/data/reason"));
            return Some(vec![time(event), operation, path, empty(), empty(), format!("denied: {reason}")]);
        }
        _ => return None,
    };
    let mut path = field(event, "/data/path");
    // By scp: the file is `path`, or lies in it by that name; only the target knows.
    let (name, to) = (field(event, "/data/name"), field(event, "/data/to"));
    if !name.is_empty() {
        path = format!("{path} (sent as {name})");
    }
    if !to.is_empty() {
        path = format!("{path} → {to}");
    }
    // Each way that bytes went; one of them, most often.
    let moved = ["/data/read", "/data/written"].map(|way| event.pointer(way));
    let join = |name: &str| {
        let fields = moved.iter().flatten().map(|way| field(way, name));
        fields.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    };
    Some(vec![time(event), field(event, "/data/operation"), path, join("/bytes"), join("/sha256"), outcome])
}

fn time(event: &Value) -> String {
    let time = field(event, "/time");
    time.get(11..23).unwrap_or(&time).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_ended_is_a_row_and_what_was_asked_for_is_none() {
        let event = |kind: &str, data: Value| json!({"type": kind, "time": "2026-01-02T03:04:05.678901234Z", "data": data});
        let moved = json!({"bytes": 5, "sha256": "ab"});
        let data = json!({"operation": "write", "path": "/srv/a", "name": "b", "written": moved});
        let written = row(&event("file.completed", data.clone())).unwrap();
        assert_eq!(written, ["03:04:05.678", "write", "/srv/a (sent as b)", "5", "ab", "ok"]);
        let data = json!({"operation": "rename", "path": "/a", "to": "/b", "reason": "Permission denied"});
        let renamed = row(&event("file.failed", data.clone())).unwrap();
        assert_eq!(renamed, ["03:04:05.678", "rename", "/a → /b", "", "", "Permission denied"]);
        assert_eq!(row(&event("file.requested", data)), None);
        let decision = |action: &str| json!({"action": action, "context": {"path": "/srv/a"}, "reason": "no policy allows it"});
        let denied = row(&event("decision.made", decision("ssh:sftp-write"))).unwrap();
        assert_eq!(denied, ["03:04:05.678", "write", "/srv/a", "", "", "denied: no policy allows it"]);
        assert_eq!(row(&event("decision.made", decision("ssh:shell"))), None);
    }
}
