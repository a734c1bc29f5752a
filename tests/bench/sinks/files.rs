//! Files: a day's lines, on the disk before they count.

use super::{Filled, ORIGIN, delivered, events, rate, rounds};
use crate::table::Row;
use custody_sinks::files::Files;
use custody_sinks::sink::{Limits, Sink as _};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Beside a loop that appends the same lines to one file, as many at once, and syncs as often.
pub fn row() -> Row {
    let chunks = chunks();
    let mut pairs = Vec::new();
    for _ in 0..rounds() {
        let dir = tempfile::tempdir().expect("a folder");
        let ours = delivered(sink(dir.path()), Filled::Later);
        pairs.push((rate(ours), rate(appended(&chunks))));
    }
    Row {
        name: "files, events/s".to_owned(),
        pairs,
        beside: "the same lines from a bare loop",
        more_is_better: true,
        aim: Some(0.9),
    }
}

fn sink(folder: &Path) -> Files {
    let settings = serde_json::json!({ "folder": folder });
    Files::new(serde_json::from_value(settings).expect("settings"), ORIGIN)
}

/// What the sink writes of a log: its first line, and then what it appends at once.
fn chunks() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a folder");
    let sink = sink(dir.path());
    let Limits { batch_events, batch_bytes, .. } = sink.limits();
    delivered(sink, Filled::Later);
    let entries = std::fs::read_dir(dir.path()).expect("its folder");
    let mut days: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    days.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    days.sort();
    let text: Vec<u8> = days.iter().flat_map(|day| std::fs::read(day).expect("a day's lines")).collect();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len() as u64, events(), "a line for each event");
    let (first, rest) = lines.split_at(1);
    let mut chunks = vec![first.concat(), Vec::new()];
    let mut lines = 0;
    for line in rest {
        if lines == batch_events || chunks.last().is_some_and(|chunk| chunk.len() + line.len() > batch_bytes)
        {
            chunks.push(Vec::new());
            lines = 0;
        }
        chunks.last_mut().expect("there is one").extend_from_slice(line);
        lines += 1;
    }
    chunks
}

/// How long it takes to append them; the first not counted, as ours isn't.
fn appended(chunks: &[Vec<u8>]) -> Duration {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = File::create(dir.path().join("lines")).expect("a file");
    let mut append = |chunk: &Vec<u8>| {
        file.write_all(chunk).expect("written");
        file.sync_data().expect("synced");
    };
    let (first, rest) = chunks.split_first().expect("there is one");
    append(first);
    let begun = Instant::now();
    rest.iter().for_each(append);
    begun.elapsed()
}
