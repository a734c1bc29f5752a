//! Lines, columns, spool and what is found again: tests/sinks has deliveries that are killed and readers by others.
#![allow(clippy::disallowed_methods, reason = "what a test damages needn't last")]

mod overdue;
mod reading;
mod removed;

use super::*;
use crate::format::envelope;
use crate::sink::{Fields, Held};
use arrow_json::LineDelimitedWriter;
use bytes::Bytes;
use custody_core::event::{Outcome, TYPES};
use custody_core::log::Entry;
use custody_core::mapping::ocsf::{self, Version};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write as _;

const ORIGIN: &str = "custody.test/log";
/// 2025-11-24T16:00:00Z
const BEGIN: u64 = 1_764_000_000_000_000_000;
const HOUR: u64 = 3_600_000_000_000;

fn settings(folder: &Path, lake: bool) -> Settings {
    let lake = lake.then(|| LakeSettings {
        source: "custody".into(),
        source_version: None,
        region: "eu-central-1".into(),
        account: "123456789012".into(),
        ocsf_version: "1.7.0".into(),
        roll_events: 40,
        roll_megabytes: 32,
        roll_seconds: 3_600,
    });
    Settings { folder: folder.to_owned(), format: Format::Custody, lake }
}

fn item(index: u64, appended: u64, bytes: &[u8]) -> Item {
    Item::new(Entry { index, appended: Nanos(appended), tag: 1, bytes: Bytes::copy_from_slice(bytes) })
}

fn example(which: u64) -> Vec<u8> {
    (TYPES[usize::try_from(which).unwrap() % TYPES.len()].example)().unwrap()
}

/// Event `index`, one an hour.
fn hourly(index: u64) -> Item {
    item(index, BEGIN + index * HOUR, &example(index))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn send(files: &Files, items: impl Iterator<Item = Item>) -> Result<(), Trouble> {
    let encoded: Vec<Encoded> = items.map(|item| files.encode(&item).unwrap()).collect();
    let batch: Vec<&Encoded> = encoded.iter().collect();
    runtime().block_on(files.send(&batch)).map(drop)
}

fn ready(settings: Settings) -> Files {
    settings.check().unwrap();
    let files = Files::new(settings, ORIGIN);
    runtime().block_on(files.prepare()).unwrap();
    files
}

fn window(indexes: std::ops::Range<u64>) -> Window {
    let time = |index: u64| Nanos(BEGIN.saturating_add(index.saturating_mul(HOUR)));
    Window { appended: time(indexes.start)..time(indexes.end), indexes }
}

fn found(files: &Files, window: &Window) -> Vec<Held> {
    let mut found = runtime().block_on(files.read_back(window)).unwrap().documents;
    found.sort_by_key(|held| held.index);
    found
}

/// All the documents are those of the log, in order.
fn assert_holds(files: &Files, indexes: std::ops::Range<u64>) {
    let held = found(files, &window(indexes.clone()));
    assert_eq!(held.iter().filter_map(|held| held.index).collect::<Vec<_>>(), indexes.collect::<Vec<_>>());
    for held in held {
        let item = hourly(held.index.unwrap());
        assert_eq!((held.leaf, held.appended), (Some(item.leaf), Some(item.appended)));
        assert_eq!(held.original.as_deref(), Some(&*item.bytes));
    }
}

fn parquet(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "parquet") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// What is said of the fields of each event.
fn fields(files: &Files, indexes: std::ops::Range<u64>) -> Vec<Fields> {
    let held = found(files, &window(indexes));
    held.iter().map(|held| files.fields(&hourly(held.index.unwrap()), held)).collect()
}

fn times(fields: &[Fields], wanted: Fields) -> usize {
    fields.iter().filter(|found| **found == wanted).count()
}

#[test]
fn a_field_that_was_changed_in_a_line_of_a_standard_is_seen() {
    let name = ["\"user\":{\"name\":\"alice\"", "\"user\":{\"name\":\"mallo\""];
    let cases = [
        (Format::Ecs, name, "\"mapping\":\""),
        (Format::Ocsf, ["\"name\":\"alice\"", "\"name\":\"mallo\""], "\"mapping\":\""),
        (Format::Ocsf, ["\"message\":\"", "\"message\":\"Nothing: "], "\"version\":\"1.7"),
    ];
    for (format, [before, after], version) in cases {
        let dir = tempfile::tempdir().unwrap();
        let settings = || Settings { format, ..settings(dir.path(), false) };
        let files = ready(settings());
        send(&files, (0..3).map(hourly)).unwrap();
        assert_eq!(fields(&files, 0..3), [Fields::AsSent; 3]);
        drop(files);
        let path = dir.path().join("custody-2025-11-24.ndjson");
        let lines = std::fs::read_to_string(&path).unwrap();
        let altered = lines.replacen(before, after, 1);
        assert_ne!(altered, lines);
        std::fs::write(&path, &altered).unwrap();
        let files = ready(settings());
        let seen = fields(&files, 0..3);
        assert_eq!((times(&seen, Fields::Altered), times(&seen, Fields::AsSent)), (1, 2), "{format:?}");
        drop(files);
        // What says that another version of the mapping made it may be right.
        std::fs::write(&path, altered.replace(version, &format!("{version}0"))).unwrap();
        assert_eq!(fields(&ready(settings()), 0..3), [Fields::OfAnotherVersion; 3], "{format:?}");
    }
}

#[test]
fn a_column_that_was_changed_in_a_lake_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), true));
    send(&files, (0..130).map(hourly)).unwrap();
    assert_eq!(times(&fields(&files, 0..130), Fields::AsSent), 130);
    // A whole file is written anew by somebody who knows how, with another name in one of its rows.
    let is_named = |row: &Value| row["actor"]["user"]["name"] == "alice";
    let of_several = |path: &&PathBuf| rows(&std::fs::read(path).unwrap()).iter().any(is_named);
    let path = parquet(dir.path()).iter().find(of_several).unwrap().clone();
    let mut altered = rows(&std::fs::read(&path).unwrap());
    for row in &mut altered {
        row["unmapped"] = serde_json::from_str(row["unmapped"].as_str().unwrap()).unwrap();
    }
    altered.iter_mut().find(|row| is_named(row)).unwrap()["actor"]["user"]["name"] = json!("mallory");
    let class = altered[0]["class_uid"].as_u64().unwrap();
    let documents: Vec<Vec<u8>> = altered.iter().map(|row| row.to_string().into_bytes()).collect();
    let documents: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
    std::fs::write(&path, columns::write(class, &documents).unwrap()).unwrap();
    let seen = fields(&files, 0..130);
    assert_eq!((times(&seen, Fields::Altered), times(&seen, Fields::AsSent)), (1, 129));
    // Who restores a log asks for none.
    let by_time = Window { indexes: 0..0, ..window(0..130) };
    assert!(found(&files, &by_time).iter().all(|held| held.document.is_none()));
}

#[test]
fn lines_of_each_form_are_found_again_by_day() {
    for format in [Format::Custody, Format::Ecs, Format::Ocsf] {
        let dir = tempfile::tempdir().unwrap();
        let files = ready(Settings { format, ..settings(dir.path(), false) });
        send(&files, (0..60).map(hourly)).unwrap();
        send(&files, (60..61).map(hourly)).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != LOCK)
            .collect();
        names.sort();
        let days = ["24", "25", "26", "27"].map(|day| format!("custody-2025-11-{day}.ndjson"));
        assert_eq!(names, days);
        assert_holds(&files, 0..61);
        assert_holds(&files, 5..20);
    }
}

#[test]
fn lines_of_before_the_format_was_changed_are_still_the_logs() {
    let dir = tempfile::tempdir().unwrap();
    let forms = [Format::Custody, Format::Ecs, Format::Ocsf];
    for (n, format) in (0..).zip(forms) {
        let files = ready(Settings { format, ..settings(dir.path(), false) });
        send(&files, (10 * n..10 * n + 10).map(hourly)).unwrap();
    }
    for format in forms {
        let files = ready(Settings { format, ..settings(dir.path(), false) });
        assert_holds(&files, 0..30);
        let seen = fields(&files, 0..30);
        assert_eq!(
            (times(&seen, Fields::AsSent), times(&seen, Fields::OfAnotherVersion)),
            (10, 20),
            "{format:?}"
        );
    }
    let of_another_log = envelope(&logged(&hourly(0), "other/log"), false);
    assert_eq!(claims::of_line(&of_another_log, Format::Ecs, ORIGIN), None);
}

#[test]
fn a_line_that_a_crash_has_cut_is_taken_back_and_its_event_counts_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), false));
    send(&files, (0..5).map(hourly)).unwrap();
    drop(files);
    let path = dir.path().join("custody-2025-11-24.ndjson");
    let length = std::fs::metadata(&path).unwrap().len();
    for cut in [1, 2, 150, 300] {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - cut).unwrap();
        let files = ready(settings(dir.path(), false));
        let held = found(&files, &window(0..5));
        assert!(held.len() < 5 && held.iter().all(|held| held.index.is_some()), "{cut}: {held:?}");
        let missing = held.len() as u64..5;
        send(&files, missing.map(hourly)).unwrap();
        assert_holds(&files, 0..5);
        drop(files);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
    }
}

#[test]
fn a_folder_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), false));
    let other = Files::new(settings(dir.path(), false), ORIGIN);
    let refused = runtime().block_on(other.prepare()).unwrap_err();
    assert!(
        matches!(&refused, Trouble::Refused { reason, .. } if reason.contains("another sink")),
        "{refused}"
    );
    drop(files);
    runtime().block_on(other.prepare()).unwrap();
}

#[test]
fn a_write_that_fails_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let mut appender = lines::Appender::default();
    appender.append(&path, b"one\n").unwrap();
    // As after a failed sync that couldn't be taken back at once.
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"two").unwrap();
    appender.torn = Some((path.clone(), 4));
    appender.append(&path, b"three\n").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one\nthree\n");
    // What can't be taken back stops everything.
    appender.torn = Some((dir.path().to_owned(), 4));
    assert!(appender.append(&path, b"four\n").is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"one\nthree\n");
    // What somebody has removed, since the disk was full, has nothing to be taken back from.
    appender.torn = Some((dir.path().join("gone"), 4));
    appender.append(&path, b"four\n").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one\nthree\nfour\n");
    // Nor has what somebody has emptied: zeros in its place would be a part of the next line.
    std::fs::write(&path, b"").unwrap();
    appender.torn = Some((path.clone(), 4));
    appender.append(&path, b"five\n").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"five\n");
}

#[test]
fn what_others_did_to_lines_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), false));
    send(&files, (0..8).map(hourly)).unwrap();
    assert_holds(&files, 0..8);
    let path = dir.path().join("custody-2025-11-24.ndjson");
    let text = std::fs::read_to_string(&path).unwrap();
    let foreign = text.lines().next().unwrap().replace(ORIGIN, "other/log");
    let altered = text.replacen("\"index\":3,", "\"index\":9000,", 1);
    std::fs::write(&path, format!("{altered}rubbish\n{foreign}\n")).unwrap();
    let held = found(&files, &window(0..8));
    let indexes: Vec<_> = held.iter().map(|held| held.index).collect();
    // What claims another index is there by its time. Rubbish claims nothing: it counts as of the beginning of its day, which
    // is before this window.
    assert_eq!(indexes, [0, 1, 2, 4, 5, 6, 7, 9_000].map(Some));
    let others = Window { indexes: 8..u64::MAX, appended: Nanos(0)..Nanos(BEGIN) };
    let held = found(&files, &others);
    assert_eq!(held.iter().map(|held| held.index).collect::<Vec<_>>(), [None, Some(9_000)]);
}

#[test]
fn a_lake_has_a_file_for_each_class_and_day_and_what_is_younger_in_its_spool() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), true));
    send(&files, (0..5).map(hourly)).unwrap();
    assert_eq!(parquet(dir.path()).len(), 0, "too few for a file");
    assert_holds(&files, 0..5);
    // The next day begins, and more.
    send(&files, (5..130).map(hourly)).unwrap();
    let written = parquet(dir.path());
    assert!(written.len() > 20, "{written:?}");
    for path in &written {
        let name = path.strip_prefix(dir.path()).unwrap().to_str().unwrap();
        let parts: Vec<&str> = name.split('/').collect();
        assert!(parts[0] == "ext" && parts[1].starts_with("custody-"), "{name}");
        assert_eq!(parts[2..4], ["region=eu-central-1", "accountId=123456789012"]);
        assert!(parts[4].starts_with("eventDay=202511"), "{name}");
    }
    assert_holds(&files, 0..130);
    assert_holds(&files, 17..44);
    drop(files);
    let files = ready(settings(dir.path(), true));
    assert_holds(&files, 0..130);
    assert_eq!(parquet(dir.path()), written, "nothing is written twice");
}

#[test]
fn whatever_stops_while_parquet_is_written_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), true));
    send(&files, (0..8).map(hourly)).unwrap();
    drop(files);
    let (spool, rolling) = (dir.path().join("spool/current.ndjson"), dir.path().join("spool/rolling.ndjson"));
    let lines = std::fs::read(&spool).unwrap();
    // It stopped after the spool was taken aside.
    std::fs::rename(&spool, &rolling).unwrap();
    let files = ready(settings(dir.path(), true));
    let written = parquet(dir.path());
    assert!(!written.is_empty() && !rolling.exists());
    assert_holds(&files, 0..8);
    drop(files);
    // After some of the files were written, and one was begun.
    std::fs::write(&rolling, &lines).unwrap();
    std::fs::remove_file(&written[0]).unwrap();
    std::fs::write(format!("{}.tmp", written[0].display()), b"half").unwrap();
    let files = ready(settings(dir.path(), true));
    assert_eq!(parquet(dir.path()), written);
    assert!(!PathBuf::from(format!("{}.tmp", written[0].display())).exists());
    assert_holds(&files, 0..8);
    drop(files);
    // After all of them, before the lines were removed.
    std::fs::write(&rolling, &lines).unwrap();
    let files = ready(settings(dir.path(), true));
    assert_holds(&files, 0..8);
    drop(files);
    // After the first of them, and what goes on makes other files of the same lines, or puts them elsewhere.
    let changes: [fn(&mut LakeSettings); 3] = [
        |lake| lake.ocsf_version = "1.8.0".into(),
        |lake| lake.region = "eu-west-1".into(),
        |lake| lake.source = "other".into(),
    ];
    for change in changes {
        std::fs::write(&rolling, &lines).unwrap();
        let others = parquet(dir.path()).into_iter().filter(|path| *path != written[0]);
        others.for_each(|path| std::fs::remove_file(path).unwrap());
        let mut settings = settings(dir.path(), true);
        change(settings.lake.as_mut().unwrap());
        let files = ready(settings);
        assert!(!rolling.exists() && parquet(dir.path()).len() == written.len());
        assert_holds(&files, 0..8);
    }
}

#[test]
fn a_lake_that_can_not_be_written_stops_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), true));
    // Something stands in the place of the folder.
    std::fs::write(dir.path().join("ext"), b"").unwrap();
    send(&files, (0..8).map(hourly)).unwrap();
    let trouble = send(&files, (8..20).map(hourly)).unwrap_err();
    assert!(
        matches!(&trouble, Trouble::Unclear { reason, .. } if reason.contains("ext") || reason.contains("directory")),
        "{trouble}"
    );
    std::fs::remove_file(dir.path().join("ext")).unwrap();
    runtime().block_on(files.prepare()).unwrap();
    assert_holds(&files, 0..8);
    send(&files, (8..20).map(hourly)).unwrap();
    assert_holds(&files, 0..20);
}

#[test]
fn what_others_did_to_a_lake_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), true));
    send(&files, (0..100).map(hourly)).unwrap();
    assert_holds(&files, 0..100);
    let written = parquet(dir.path());
    // Damaged: what it may hold can't be told, and what it can't hold still can.
    let name = written[0].file_stem().unwrap().to_str().unwrap().to_owned();
    let first: u64 = name.split('-').next().unwrap().parse().unwrap();
    let last: u64 = name.split('-').nth(1).unwrap().parse().unwrap();
    let whole = std::fs::read(&written[0]).unwrap();
    std::fs::write(&written[0], &whole[..whole.len() / 2]).unwrap();
    let unproven = runtime().block_on(files.read_back(&window(first..last + 1))).unwrap_err();
    assert!(matches!(&unproven, Unproven::Now(reason) if reason.contains(&name)), "{unproven}");
    let outside = if first > 3 { 0..first } else { last + 1..last + 4 };
    assert!(runtime().block_on(files.read_back(&window(outside))).is_ok());
    // Gone.
    std::fs::remove_file(&written[0]).unwrap();
    let held = found(&files, &window(0..100));
    assert!(held.len() < 100 && !held.iter().any(|held| held.index == Some(first)));
    // Copied to another name: it is there twice.
    std::fs::write(&written[0], &whole).unwrap();
    std::fs::write(written[0].with_file_name("copy.parquet"), &whole).unwrap();
    let held = found(&files, &window(0..100));
    assert_eq!(held.iter().filter(|held| held.index == Some(first)).count(), 2);
}

/// As who rebuilds a log asks, which has lost its indexes.
#[test]
fn everything_is_found_by_its_time_alone_and_a_damaged_file_is_no_gap() {
    let by_time = |indexes: std::ops::Range<u64>| Window { indexes: 0..0, ..window(indexes) };
    for is_lake in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let files = ready(settings(dir.path(), is_lake));
        send(&files, (0..100).map(hourly)).unwrap();
        for part in [0..100, 0..1, 30..55] {
            let held = found(&files, &by_time(part.clone()));
            let wanted: Vec<Option<u64>> = part.clone().map(Some).collect();
            assert_eq!(held.iter().map(|held| held.index).collect::<Vec<_>>(), wanted);
            for (held, index) in held.iter().zip(part) {
                assert_eq!(held.appended, Some(hourly(index).appended));
                assert_eq!(held.original.as_deref(), Some(&*hourly(index).bytes));
            }
        }
        assert!(found(&files, &by_time(100..200)).is_empty());
    }
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), true));
    send(&files, (0..100).map(hourly)).unwrap();
    let first = parquet(dir.path()).remove(0);
    let name = first.file_stem().unwrap().to_str().unwrap();
    let index: u64 = name.split('-').next().unwrap().parse().unwrap();
    std::fs::write(&first, b"PAR1").unwrap();
    // However often it is asked for, and what other files have of that day is there.
    let day = index - 8..index + 24;
    for _ in 0..2 {
        let shown = runtime().block_on(files.read_back(&by_time(day.clone()))).unwrap();
        assert!(shown.perhaps_more.is_some_and(|reason| reason.contains(name)));
        let shown: Vec<u64> = shown.documents.iter().filter_map(|held| held.index).collect();
        assert!(!shown.contains(&index) && shown.len() > 10, "{shown:?}");
    }
    let other = if index < 40 { 90..95 } else { 0..3 };
    assert_eq!(runtime().block_on(files.read_back(&by_time(other))).unwrap().perhaps_more, None);
}

#[test]
fn a_time_that_was_changed_in_a_row_shows() {
    let item = hourly(7);
    let logged = logged(&item, ORIGIN);
    let document: Value = serde_json::from_slice(&ocsf::event(&logged, Version::default())).unwrap();
    let held = |document: &Value| {
        claims::of_line(document.to_string().as_bytes(), Format::Ocsf, ORIGIN).unwrap().appended
    };
    assert_eq!(held(&document), Some(item.appended));
    let mut changed = document.clone();
    changed["time"] = json!(1_764_000_000_000_u64);
    assert_eq!(held(&changed), Some(Nanos(0)));
    let mut changed = document.clone();
    changed["unmapped"]["custody"]["log"]["appended"] = json!("2025-11-24T16:00:00Z");
    assert_eq!(held(&changed), Some(Nanos(0)));
    changed["time"] = Value::Null;
    assert_eq!(held(&changed), Some(Nanos(0)));
}

#[test]
fn what_a_configuration_may_not_say() {
    let good = |lake| settings(Path::new("/srv/custody"), lake);
    assert!(good(false).check().is_ok() && good(true).check().is_ok());
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = good(true);
        change(&mut settings);
        settings.check().unwrap_err()
    };
    fn lake(settings: &mut Settings) -> &mut LakeSettings {
        settings.lake.as_mut().unwrap()
    }
    type Change<'a> = (&'a dyn Fn(&mut Settings), &'a str);
    let wrong: [Change<'_>; 7] = [
        (&|s| s.folder = "here".into(), "whole path"),
        (&|s| s.format = Format::Cef, "CEF"),
        (&|s| s.format = Format::Ecs, "leave format out"),
        (&|s| lake(s).region = "a/b".into(), "lake.region"),
        (&|s| lake(s).source = "..".into(), "lake.source"),
        (&|s| lake(s).ocsf_version = "9".into(), "1.7.0"),
        (&|s| lake(s).roll_events = 0, "roll_events"),
    ];
    for (change, says) in wrong {
        let error = with(change);
        assert!(error.contains(says), "{error}");
    }
}

/// Rows as JSON, as anybody reads them out of the columns; without what is null.
fn rows(file: &[u8]) -> Vec<Value> {
    let mut scratch = tempfile::tempfile().unwrap();
    scratch.write_all(file).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(scratch).unwrap().build().unwrap();
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in reader {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Nothing of an event is lost on its way through the columns.
fn assert_comes_back(bytes: &[u8]) {
    let item = item(7, BEGIN + 1_234_567, bytes);
    let document = ocsf::event(&logged(&item, ORIGIN), Version::default());
    let wanted: Value = serde_json::from_slice(&document).unwrap();
    let class = wanted["class_uid"].as_u64().unwrap();
    let file = columns::write(class, &[&document]).unwrap();
    let [mut got] = <[Value; 1]>::try_from(rows(&file)).unwrap();
    let unmapped = got["unmapped"].as_str().unwrap().to_owned();
    got["unmapped"] = serde_json::from_str(&unmapped).unwrap();
    assert_eq!(without_empty(got), without_empty(wanted));
    let mut scratch = tempfile::tempfile().unwrap();
    scratch.write_all(&file).unwrap();
    let held = columns::read(&scratch, ORIGIN, &(7..8)).unwrap();
    assert_eq!(held[0].document, Some(columns::as_read(class, &document).unwrap()));
    assert_eq!(
        (held[0].index, held[0].leaf, held[0].appended),
        (Some(7), Some(item.leaf), Some(item.appended))
    );
    assert_eq!(held[0].original.as_deref(), Some(bytes));
}

/// A structure that isn't there and one without anything in it are the same for a reader of columns.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, without_empty(value)));
            fields.filter(|(_, value)| *value != json!({}) && !value.is_null()).collect()
        }
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        other => other,
    }
}

#[test]
fn every_type_of_event_comes_back_from_its_columns() {
    for info in TYPES {
        let bytes = (info.example)().unwrap();
        assert_comes_back(&bytes);
        // With everything in its envelope.
        let mut event: Value = serde_json::from_slice(&bytes).unwrap();
        event["cause"] = json!("01900000-0000-7000-8000-000000000003");
        event["session"] = json!("01900000-0000-7000-8000-000000000005");
        event["outcome"] = serde_json::to_value(Outcome::Denied).unwrap();
        event["source"] = json!({"address": "192.0.2.7", "port": 50_022, "client": "SSH-2.0-OpenSSH_9.2p1"});
        event["target"] =
            json!({"address": "192.0.2.10:22", "kind": "node", "login": "root", "name": "web-1"});
        event["actor"] = json!({"user": "alice", "mfa": true, "identity_provider": "local"});
        assert_comes_back(event.to_string().as_bytes());
    }
}

#[test]
fn each_class_has_columns_and_what_ocsf_requires_can_not_be_null() {
    for class in ocsf::classes() {
        let schema = columns::schema(class);
        for required in ["time", "class_uid", "type_uid", "severity_id", "metadata"] {
            assert!(!schema.field_with_name(required).unwrap().is_nullable(), "{class}: {required}");
        }
        for name in ocsf::attributes(class) {
            let top = name.split(['.', '[']).next().unwrap();
            assert!(schema.field_with_name(top).is_ok(), "{class}: {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_an_entry_holds_it_comes_back_from_its_columns(
        which in 0..TYPES.len(),
        place in prop::sample::select(vec!["/data", "/data/reason", "/actor", "/target/address", "/source/port", "/outcome", "/type"]),
        value in prop_oneof![
            any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from), Just(json!([{"a": [1]}, "b"])), Just(Value::Null),
        ],
    ) {
        let mut event: Value = serde_json::from_slice(&(TYPES[which].example)().unwrap()).unwrap();
        if let Some(old) = event.pointer_mut(place) {
            *old = value;
        }
        assert_comes_back(event.to_string().as_bytes());
    }

    #[test]
    fn whatever_bytes_an_entry_has_its_line_gives_them_back(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[ \n\r\t{}\"a1:,é]{0,40}".prop_map(String::into_bytes),
        ],
        redacted in any::<bool>(),
    ) {
        let item = item(3, BEGIN, &bytes);
        let line = envelope(&logged(&item, ORIGIN), redacted);
        prop_assert!(!line.contains(&b'\n'));
        let held = claims::of_line(&line, Format::Custody, ORIGIN).unwrap();
        prop_assert_eq!(held, Held {
            index: Some(3), leaf: Some(item.leaf), original: Some(bytes), appended: Some(item.appended),
            document: None,
        });
        prop_assert_eq!(claims::of_line(&line, Format::Custody, "other/log"), None);
    }
}

/// Where a file system hangs, one thread hangs with it, however often it is tried.
#[test]
fn a_file_system_that_hangs_takes_one_thread() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), false));
    // Whoever opens it to write waits for a reader.
    let hangs = dir.path().join("custody-2025-11-24.ndjson");
    assert!(std::process::Command::new("mkfifo").arg(&hangs).status().unwrap().success());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..6 {
            let encoded = files.encode(&hourly(0)).unwrap();
            let sent = tokio::time::timeout(LOOK / 20, files.send(&[&encoded])).await;
            assert!(sent.is_err(), "it hangs");
        }
        let others = tokio::time::timeout(LOOK * 30, tokio::task::spawn_blocking(|| 7)).await;
        assert_eq!(others.expect("there is a thread for others").unwrap(), 7);
    });
    // Its end comes when there is a reader, as long as there is one.
    let _reader = File::open(&hangs).unwrap();
    drop(runtime);
}

/// Whoever appends gets a turn while long files are read for the first time.
#[test]
fn files_are_read_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), false));
    // Twenty-four a day, and so five files.
    send(&files, (0..100).map(hourly)).unwrap();
    let (window, mut turns) = (window(0..100), 0);
    let found = loop {
        let mut store = files.folder.store.try_lock().unwrap();
        let Kind::Lines(lines) = &mut store.kind else { panic!("it has lines") };
        match lines.read_back(&window, Sought::Any, &mut Turn::short()).unwrap() {
            Some(found) => break found,
            None => turns += 1,
        }
        assert!(turns < 100, "it begins anew each time");
    };
    assert_eq!((found.documents.len(), turns), (100, 5));
}

/// What is in doubt lies in files that say so by their names: after a crash no lake of years is read for it.
#[test]
fn what_was_sent_is_looked_up_in_the_files_that_may_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), true));
    for from in (0..200).step_by(40) {
        send(&files, (from..from + 40).map(hourly)).unwrap();
    }
    let mut store = files.folder.store.try_lock().unwrap();
    let Kind::Lake(lake) = &mut store.kind else { panic!("it is a lake") };
    let mut turns_of = |sought: Sought| {
        let mut turns = 0;
        while lake.read_back(&window(199..200), sought, &mut Turn::short()).unwrap().is_none() {
            turns += 1;
            assert!(turns < 1_000, "it begins anew each time");
        }
        turns
    };
    let (sent, any) = (turns_of(Sought::Sent), turns_of(Sought::Any));
    assert!(sent > 0 && any > 3 * sent, "{sent} of {any}");
    let found = lake.read_back(&window(199..200), Sought::Sent, &mut Turn::begin()).unwrap().unwrap();
    assert_eq!(found.documents.iter().map(|held| held.index).collect::<Vec<_>>(), [Some(199)]);
}
