//! Who only reads: changes nothing, and gets no more at once than there is room for.

use super::*;
use crate::restore::{self, Walk};
use bytes::Bytes;
use std::io::Write as _;
use std::pin::Pin;

/// All that lies in a folder, and when it was changed last.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let (mut found, mut open) = (vec![], vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        let metadata = std::fs::metadata(&path).unwrap();
        let mut bytes = vec![];
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            bytes = std::fs::read(&path).unwrap();
        }
        found.push((path, bytes, metadata.modified().unwrap()));
    }
    found.sort();
    found
}

/// Whoever restores a log may have no more than a copy that can't be written.
#[test]
fn what_is_only_read_is_not_changed() {
    let by_time = Window { indexes: 0..0, ..window(0..100) };
    for is_lake in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let files = ready(settings(dir.path(), is_lake));
        send(&files, (0..100).map(hourly)).unwrap();
        let reader = Files::new(settings(dir.path(), is_lake), ORIGIN);
        let trouble = runtime().block_on(reader.prepare_to_read()).unwrap_err();
        assert!(trouble.to_string().contains("writes there"), "{trouble}");
        drop(files);
        // As a crash leaves it, and a copy has it that left out what it didn't know.
        if is_lake {
            let spool = dir.path().join("spool");
            std::fs::rename(spool.join("current.ndjson"), spool.join("rolling.ndjson")).unwrap();
        }
        let torn = if is_lake { "spool/current.ndjson" } else { "custody-2025-11-28.ndjson" };
        let mut file = OpenOptions::new().append(true).create(true).open(dir.path().join(torn)).unwrap();
        file.write_all(b"{\"index\":").unwrap();
        std::fs::remove_file(dir.path().join(LOCK)).unwrap();
        let before = snapshot(dir.path());
        runtime().block_on(reader.prepare_to_read()).unwrap();
        let held: Vec<u64> = found(&reader, &by_time).iter().filter_map(|held| held.index).collect();
        assert_eq!(held, (0..100).collect::<Vec<_>>());
        assert_eq!(snapshot(dir.path()), before);
        // Others may read at the same time, and who writes comes after them.
        drop(ready(settings(dir.path(), is_lake)));
        let other = Files::new(settings(dir.path(), is_lake), ORIGIN);
        for reader in [&reader, &other] {
            runtime().block_on(reader.prepare_to_read()).unwrap();
        }
        let writer = Files::new(settings(dir.path(), is_lake), ORIGIN);
        assert!(runtime().block_on(writer.prepare()).is_err());
    }
    let nowhere = settings(Path::new("/nowhere/at/all"), false);
    let trouble = runtime().block_on(Files::new(nowhere, ORIGIN).prepare_to_read()).unwrap_err();
    assert!(trouble.to_string().contains("/nowhere/at/all"), "{trouble}");
}

/// A walk by time doesn't know how much lies in a window: too much is no answer, and no gap either.
#[test]
fn more_than_there_is_room_for_is_not_shown() {
    for is_lake in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let files = ready(settings(dir.path(), is_lake));
        send(&files, (0..100).map(hourly)).unwrap();
        let mut store = files.folder.store.try_lock().unwrap();
        let mut read = |window: &Window, turn| store.kind.shown(window, Sought::Any, turn).unwrap();
        let by_time = |indexes| Window { indexes: 0..0, ..window(indexes) };
        let unproven = read(&by_time(0..100), Turn::narrow(10_000)).unwrap_err();
        assert!(
            matches!(&unproven, Unproven::TooMuch(reason) if reason.contains("not all of it can be looked at")),
            "{unproven:?}"
        );
        let shown = read(&by_time(0..2), Turn::narrow(10_000)).unwrap();
        assert_eq!((shown.documents.len(), shown.perhaps_more), (2, None));
        // A comparison asks for what it knows to be so much.
        assert_eq!(read(&window(0..100), Turn::narrow(10_000)).unwrap().documents.len(), 100);
    }
}

/// Files of which no more than so many bytes are shown at once.
struct Narrow {
    files: Files,
    bytes: usize,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl restore::Archive for Narrow {
    fn prepare(&self) -> Answer<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>> {
        Box::pin(async move {
            let mut store = self.files.folder.store.lock().await;
            store.kind.shown(window, Sought::Any, Turn::narrow(self.bytes)).unwrap()
        })
    }
}

/// Whoever restores a log gets all of it in shorter windows, and isn't told of trouble: there is nothing to wait for.
#[test]
fn what_there_is_no_room_for_at_once_is_shown_in_shorter_windows() {
    for is_lake in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let files = ready(settings(dir.path(), is_lake));
        send(&files, (0..100).map(hourly)).unwrap();
        let all = 100 * 200 + (0..100).map(|index| hourly(index).bytes.len()).sum::<usize>();
        let archives: Vec<Box<dyn restore::Archive>> = vec![Box::new(Narrow { files, bytes: all / 4 })];
        let mut walk = Walk::new(&archives, window(0..100).appended);
        let (mut found, mut told) = (vec![], vec![]);
        let mut tell = |reason: Option<&str>| told.push(reason.map(str::to_owned));
        while let Some(documents) = runtime().block_on(walk.next(&mut tell)).unwrap() {
            found.extend(documents.into_keys());
        }
        assert_eq!(found, (0..100).collect::<Vec<_>>());
        assert_eq!(told, vec![]);
    }
}

/// As after a crash: an archive of years isn't read for it.
#[test]
fn a_line_that_was_sent_is_looked_up_in_the_file_of_its_day() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), false));
    // The first day has eight hours of them, nine have them all.
    send(&files, (0..224).map(hourly)).unwrap();
    let mut store = files.folder.store.try_lock().unwrap();
    let Kind::Lines(lines) = &mut store.kind else { panic!("it has lines") };
    let mut looked_up = |indexes: std::ops::Range<u64>, sought: Sought| {
        let mut turns = 0;
        loop {
            match lines.read_back(&window(indexes.clone()), sought, &mut Turn::short()).unwrap() {
                Some(found) => {
                    let found = found.documents.iter().filter_map(|held| held.index).collect::<Vec<_>>();
                    return (found, turns);
                }
                None => turns += 1,
            }
            assert!(turns < 100, "it begins anew each time");
        }
    };
    // The last hour of a day, the first one of the next, and both.
    assert_eq!(looked_up(223..224, Sought::Sent), (vec![223], 1));
    assert_eq!(looked_up(8..9, Sought::Sent), (vec![8], 1));
    assert_eq!(looked_up(7..9, Sought::Sent), (vec![7, 8], 1));
    // Of ten files three are known by then.
    assert_eq!(looked_up(223..224, Sought::Any), (vec![223], 7));
}

/// Whoever reads a line has no means to tell what of it was sent.
#[test]
fn what_was_added_to_a_line_of_the_event_itself_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let files = ready(settings(dir.path(), false));
    send(&files, (0..3).map(hourly)).unwrap();
    assert_eq!(fields(&files, 0..3), [Fields::AsSent; 3]);
    let path = dir.path().join("custody-2025-11-24.ndjson");
    let lines = std::fs::read_to_string(&path).unwrap();
    for (before, after) in [
        ("{\"index\":1,", "{\"x\":1,\"index\":1,"),
        ("{\"index\":1,", "{\"index\":1,\"redacted\":true,"),
        ("{\"index\":1,", "{ \"index\":1,"),
    ] {
        let altered = lines.replacen(before, after, 1);
        assert_ne!(altered, lines);
        std::fs::write(&path, altered).unwrap();
        assert_eq!(fields(&files, 0..3), [Fields::AsSent, Fields::Altered, Fields::AsSent], "{after}");
    }
}

/// What was redacted is marked, wherever it stands, and is as it was sent.
#[test]
fn what_was_redacted_says_so_in_each_form() {
    let redacted = |index: u64| hourly(index).redacted_to(Bytes::from_static(b"{\"type\":\"log.sealed\"}"));
    for (format, is_lake) in
        [(Format::Custody, false), (Format::Ecs, false), (Format::Ocsf, false), (Format::Custody, true)]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path(), is_lake);
        settings.format = format;
        if let Some(lake) = settings.lake.as_mut() {
            lake.roll_events = 2;
        }
        let files = ready(settings);
        send(&files, [redacted(0), hourly(1)].into_iter()).unwrap();
        assert_eq!(parquet(dir.path()).is_empty(), !is_lake);
        let held = found(&files, &window(0..2));
        assert_eq!(held.len(), 2, "{format:?}");
        for (held, item) in held.iter().zip([redacted(0), hourly(1)]) {
            assert_eq!(files.fields(&item, held), Fields::AsSent, "{format:?}");
            let text = String::from_utf8(held.document.clone().unwrap()).unwrap();
            assert_eq!(text.contains("\"redacted\":true"), item.redacted, "{format:?}: {text}");
        }
    }
}
