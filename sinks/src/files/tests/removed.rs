//! A folder that isn't the one any more in which the sink has begun.

use super::*;

/// Whoever writes into a folder that is gone holds a lock that keeps nobody out.
#[test]
fn a_folder_that_somebody_has_removed_is_made_again_and_has_one_writer() {
    for is_lake in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("archive");
        let files = ready(settings(&folder, is_lake));
        send(&files, (0..3).map(hourly)).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        send(&files, (3..5).map(hourly)).unwrap();
        assert_holds(&files, 3..5);
        assert!(found(&files, &window(0..3)).is_empty());
        let other = Files::new(settings(&folder, is_lake), ORIGIN);
        let refused = runtime().block_on(other.prepare()).unwrap_err();
        assert!(refused.to_string().contains("another sink"), "{refused}");
    }
}

/// As when a volume is mounted late, and when it is taken away: what was written to one of the two is found there again.
#[test]
fn a_folder_in_the_place_of_another_is_what_it_should_be_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let [folder, aside] = ["archive", "aside"].map(|name| dir.path().join(name));
    for is_lake in [false, true] {
        drop(ready(settings(&folder, is_lake)));
        let torn = if is_lake { "spool/current.ndjson" } else { "custody-2025-11-24.ndjson" };
        std::fs::write(folder.join(torn), b"{\"index\":").unwrap();
        std::fs::rename(&folder, &aside).unwrap();
        let files = ready(settings(&folder, is_lake));
        send(&files, (0..3).map(hourly)).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(&aside, &folder).unwrap();
        send(&files, (3..5).map(hourly)).unwrap();
        assert_holds(&files, 3..5);
        let text = std::fs::read_to_string(folder.join(torn)).unwrap();
        assert!(text.lines().count() == 2 && text.starts_with("{\"index\":3,"), "{text}");
        drop(files);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
