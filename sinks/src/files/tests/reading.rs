//! Who only reads: changes nothing, and gets no more at once than there is room for.

use super::*;
use std::io::Write as _;

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
        let mut read = |window: &Window, turn| match &mut store.kind {
            Kind::Lines(lines) => lines.read_back(window, turn),
            Kind::Lake(lake) => lake.read_back(window, Sought::Any, turn),
        };
        let by_time = |indexes| Window { indexes: 0..0, ..window(indexes) };
        let error = read(&by_time(0..100), Turn::narrow(10_000)).unwrap_err();
        assert!(error.to_string().contains("not all of it can be looked at"), "{error}");
        let shown = read(&by_time(0..2), Turn::narrow(10_000)).unwrap().unwrap();
        assert_eq!((shown.documents.len(), shown.perhaps_more), (2, None));
        // A comparison asks for what it knows to be so much.
        assert_eq!(read(&window(0..100), Turn::narrow(10_000)).unwrap().unwrap().documents.len(), 100);
    }
}
