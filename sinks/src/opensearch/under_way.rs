//! Requests of ours that the store is still busy with. What they leave there can't be looked up yet, and once the stream
//! has rolled over, no `_id` keeps them from leaving it a second time: so they are waited for before anything is sent again.

use aws_lc_rs::digest::{SHA256, digest};
use custody_core::event::hex::to_hex;
use serde::Deserialize;
use std::ops::RangeInclusive;

/// The header that names a request in the list of tasks.
pub const HEADER: &str = "X-Opaque-Id";

/// What gives the tasks that write, on all nodes.
pub const QUESTION: &str = "/_tasks?actions=indices:data/write/bulk*&group_by=none";

/// The names of requests that write one log into one stream.
pub struct Names(String);

impl Names {
    pub fn new(origin: &str, stream: &str) -> Self {
        // Origins may have letters that no header takes.
        let log = digest(&SHA256, format!("{origin}\n{stream}").as_bytes());
        Self(format!("custody-{}", to_hex(log.as_ref().get(..8).unwrap_or_default())))
    }

    /// The name of a request with events out of these.
    pub fn of(&self, indexes: &RangeInclusive<u64>) -> String {
        format!("{}-{}-{}", self.0, indexes.start(), indexes.end())
    }

    /// What a name says that is ours.
    fn indexes(&self, name: &str) -> Option<RangeInclusive<u64>> {
        let (first, last) = name.strip_prefix(&self.0)?.strip_prefix('-')?.split_once('-')?;
        Some(first.parse().ok()?..=last.parse().ok()?)
    }

    /// Whether the store is busy with none of these events.
    ///
    /// # Errors
    /// That it is, or why that isn't known.
    pub fn none_of(&self, indexes: &RangeInclusive<u64>, tasks: &[u8]) -> Result<(), String> {
        let list: List = serde_json::from_slice(tasks)
            .map_err(|error| format!("its list of tasks can't be read: {error}"))?;
        if !(list.node_failures.is_empty() && list.task_failures.is_empty()) {
            return Err("not all nodes told their tasks".to_owned());
        }
        let mut ours = list.tasks.iter().filter_map(|task| self.indexes(task.headers.name.as_deref()?));
        match ours.find(|its| its.start() <= indexes.end() && indexes.start() <= its.end()) {
            Some(its) => Err(format!(
                "it is still busy with an earlier request of ours, for the events {} to {}",
                its.start(),
                its.end()
            )),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct List {
    tasks: Vec<Task>,
    #[serde(default)]
    node_failures: Vec<serde_json::Value>,
    #[serde(default)]
    task_failures: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Task {
    #[serde(default)]
    headers: Headers,
}

#[derive(Default, Deserialize)]
struct Headers {
    #[serde(rename = "X-Opaque-Id")]
    name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn list(names: &[String]) -> Vec<u8> {
        let tasks: Vec<_> = names.iter().map(|name| json!({ "headers": { "X-Opaque-Id": name } })).collect();
        json!({ "tasks": tasks }).to_string().into_bytes()
    }

    #[test]
    fn only_what_has_the_same_events_of_the_same_log_in_the_same_stream_is_waited_for() {
        let names = Names::new("custody.test/log", "s");
        let busy = |name: String| names.none_of(&(10..=19), &list(&[name]));
        for (indexes, free) in
            [(0..=9, true), (20..=20, true), (0..=10, false), (19..=30, false), (12..=13, false)]
        {
            assert_eq!(busy(names.of(&indexes)).is_ok(), free, "{indexes:?}");
        }
        for (origin, stream) in [("custody.test/log", "t"), ("other", "s"), ("custody.test/log\ns", "")] {
            assert!(busy(Names::new(origin, stream).of(&(10..=19))).is_ok(), "{origin} {stream}");
        }
        for name in ["", "kibana", "custody-", "custody-0011223344556677-1-2-3"] {
            assert!(busy(name.to_owned()).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_list_that_is_not_whole_says_nothing() {
        let names = Names::new("o", "s");
        assert!(names.none_of(&(0..=9), br#"{"tasks":[{"node":"a"}]}"#).is_ok());
        for list in [
            r#"{"tasks":[],"node_failures":[{"type":"failed_node_exception"}]}"#,
            r#"{"tasks":[],"task_failures":[{}]}"#,
            r#"{"nodes":{}}"#,
            "<html>",
        ] {
            assert!(names.none_of(&(0..=9), list.as_bytes()).is_err(), "{list}");
        }
    }

    proptest! {
        #[test]
        fn names_are_read_as_they_were_given(first: u64, last: u64, origin: String) {
            let names = Names::new(&origin, "s");
            let name = names.of(&(first..=last));
            prop_assert!(name.is_ascii() && name.len() < 128);
            prop_assert_eq!(names.indexes(&name), Some(first..=last));
        }
    }
}
