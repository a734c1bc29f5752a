//! A log that takes the place of the one that was there: the last step of `custodyd restore` and of `custodyd new-epoch`.
//!
//! It is put together beside the old one, and last of all a note in it says that it is whole. Then the old one is moved
//! aside and the new one gets its name. A crash before these two renames leaves the log as it was. One between them
//! leaves none, and then nobody may begin another under the same key: who would says instead how to finish.

use crate::data::{DataDir, RESTORED};
use anyhow::Context as _;
use custody_core::log::durable;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the names of directories begin with that were a log, or were to become one.
const BESIDE: &str = "log.";

/// A log that was put together to take the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// What `custodyd restore` puts together; its note says what from, and is for the next start too.
    Restored,
    /// What `custodyd new-epoch` does; its note is the new origin.
    Epoch,
}

impl Successor {
    /// Where it is put together.
    pub fn path(self, data: &DataDir) -> PathBuf {
        data.path().join(match self {
            Self::Restored => "log.restored",
            Self::Epoch => "log.new",
        })
    }

    fn note(self, log: &Path) -> PathBuf {
        log.join(match self {
            Self::Restored => RESTORED,
            Self::Epoch => "epoch",
        })
    }

    /// Says durably that it is whole: nothing is written into it after that.
    pub fn mark_whole(self, data: &DataDir, note: &str) -> anyhow::Result<()> {
        let path = self.note(&self.path(data));
        durable::write_file(&path, format!("{note}\n").as_bytes(), 0o600)
            .with_context(|| format!("{} can't be written", path.display()))
    }

    /// What its note says; `None` where there is none that is whole.
    pub fn whole(self, data: &DataDir) -> anyhow::Result<Option<String>> {
        let path = self.note(&self.path(data));
        match fs::read_to_string(&path) {
            Ok(note) => Ok(Some(note.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
        }
    }

    /// As [`Successor::whole`], where nothing has the log's place: it was cut off between the two renames.
    pub fn waiting(self, data: &DataDir) -> anyhow::Result<Option<String>> {
        let log = data.log();
        let is_there = log.try_exists().with_context(|| format!("{} can't be looked at", log.display()))?;
        if is_there { Ok(None) } else { self.whole(data) }
    }

    /// Gives it the place of the log, which is kept as `aside`. Whatever fails, the same command finishes it.
    pub fn take_place(self, data: &DataDir, aside: &Path) -> anyhow::Result<()> {
        // A crash before this leaves the old log, and one after it leaves none.
        rename(&data.log(), aside)?;
        self.get_name(data)
    }

    /// Gives it the place of the log, which nothing has.
    pub fn get_name(self, data: &DataDir) -> anyhow::Result<()> {
        let log = data.log();
        rename(&self.path(data), &log)?;
        if self == Self::Epoch {
            // In the log's place its note says nothing: one that stays does no harm.
            fs::remove_file(self.note(&log)).ok();
        }
        Ok(())
    }

    /// Removes one that isn't to take the place. Its note goes first: what is left of it by a crash isn't whole.
    pub fn remove(self, data: &DataDir) -> anyhow::Result<()> {
        let path = self.path(data);
        let remove = || -> io::Result<()> {
            if !path.try_exists()? {
                return Ok(());
            }
            match fs::remove_file(self.note(&path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => {
                    removed?;
                    durable::sync_directory(&path)?;
                }
            }
            fs::remove_dir_all(&path)
        };
        remove().with_context(|| format!("{} can't be removed", path.display()))
    }
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    durable::rename(from, to)
        .with_context(|| format!("{} can't be renamed to {}", from.display(), to.display()))
}

/// Why nothing may begin a log here, where there is none and something is left of one: what happened and what finishes it,
/// in one line.
pub fn left_over(data: &DataDir) -> anyhow::Result<Option<String>> {
    let place = data.path().display();
    if let Some(note) = Successor::Restored.whole(data)? {
        let sinks = note.strip_prefix("sink ").unwrap_or(&note).replace(", ", " --from ");
        return Ok(Some(format!(
            "`custody log restore` was cut off before its last step: what it put together is whole, in {}, and \
             `custody log restore --config CONFIG --from {sinks}` makes it the log",
            Successor::Restored.path(data).display()
        )));
    }
    if let Some(origin) = Successor::Epoch.whole(data)? {
        return Ok(Some(format!(
            "`custodyd new-epoch` was cut off before its last step: the log {origin} is whole, in {}, and \
             `custodyd new-epoch --config CONFIG --origin {origin} --reason REASON` gives it its place",
            Successor::Epoch.path(data).display()
        )));
    }
    let mut unfinished = Vec::new();
    let mut left = Vec::new();
    for path in beside(data.path()).with_context(|| format!("{place} can't be read"))? {
        let is_successor = [Successor::Restored, Successor::Epoch].iter().any(|it| it.path(data) == path);
        let names = if is_successor { &mut unfinished } else { &mut left };
        names.push(path.display().to_string());
    }
    if !left.is_empty() {
        return Ok(Some(format!(
            "{place} holds no log, and {} is left of one: move it (the newest) back to {} and get back what it lacks with \
             `custody log restore --config CONFIG --from SINK`, or move it out of {place} if another log is to begin",
            left.join(", "),
            data.log().display()
        )));
    }
    Ok((!unfinished.is_empty()).then(|| {
        format!(
            "{place} holds no log, and {} isn't whole: `custody log restore --config CONFIG --from SINK --checkpoint \
             FILE` puts the log together; move that out of {place} if another log is to begin",
            unfinished.join(", ")
        )
    }))
}

/// That there is no log here, and what to do about it.
pub fn no_log(data: &DataDir) -> anyhow::Error {
    match left_over(data) {
        Ok(Some(line)) => anyhow::Error::msg(line),
        Ok(None) => anyhow::Error::msg(format!(
            "{} holds no log yet: begin one with `custodyd init`",
            data.path().display()
        )),
        Err(error) => error,
    }
}

/// The directories beside the log that have a name like one.
fn beside(data: &Path) -> io::Result<Vec<PathBuf>> {
    let items = match fs::read_dir(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items?,
    };
    let mut found = Vec::new();
    for item in items {
        let path = item?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(BESIDE)) && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn place() -> (TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        (dir, data)
    }

    /// A directory of a log in which this stands.
    fn log(path: &Path, what: &str) {
        durable::create_directories(&path.join("segments")).unwrap();
        durable::write_file(&path.join("checkpoint"), what.as_bytes(), 0o644).unwrap();
    }

    fn checkpoint(data: &DataDir) -> Option<String> {
        fs::read_to_string(data.log().join("checkpoint")).ok()
    }

    const BOTH: [(Successor, &str, &str); 2] = [
        (Successor::Restored, "sink lines, kafka", "log restore --config CONFIG --from lines --from kafka`"),
        (
            Successor::Epoch,
            "custody.test/log-2",
            "new-epoch --config CONFIG --origin custody.test/log-2 --reason",
        ),
    ];

    #[test]
    fn wherever_it_stops_there_is_a_log_or_it_is_said_how_to_get_it() {
        for (successor, note, says) in BOTH {
            let (_dir, data) = place();
            let aside = data.path().join("log.damaged");
            log(&data.log(), "old");
            log(&successor.path(&data), "new");
            // Before its note it is nothing, and nobody waits for it.
            assert_eq!(successor.whole(&data).unwrap(), None);
            successor.mark_whole(&data, note).unwrap();
            assert_eq!(successor.whole(&data).unwrap().as_deref(), Some(note));
            // With the log in its place nothing is finished unasked.
            assert_eq!(successor.waiting(&data).unwrap(), None);
            assert_eq!(checkpoint(&data).as_deref(), Some("old"));

            // Between the renames.
            rename(&data.log(), &aside).unwrap();
            assert!(!data.is_begun());
            let line = no_log(&data).to_string();
            assert!(line.contains(says) && line.contains("was cut off"), "{line}");
            assert!(!line.contains("custodyd init") && !line.contains('\n'), "{line}");
            assert_eq!(left_over(&data).unwrap(), Some(line));
            assert_eq!(successor.waiting(&data).unwrap().as_deref(), Some(note));
            successor.get_name(&data).unwrap();
            assert_eq!(checkpoint(&data).as_deref(), Some("new"));
            assert_eq!(successor.waiting(&data).unwrap(), None);
            assert!(!successor.path(&data).exists() && aside.exists());
            // For the next start only the one note is of interest.
            assert_eq!(data.restored_from().unwrap().is_some(), successor == Successor::Restored);
            assert!(!data.log().join("epoch").exists());
        }
    }

    #[test]
    fn what_can_not_be_moved_aside_stays_and_nothing_is_lost() {
        for (successor, note, _) in BOTH {
            let (_dir, data) = place();
            let aside = data.path().join("log.damaged");
            log(&data.log(), "old");
            log(&aside, "older");
            log(&successor.path(&data), "new");
            successor.mark_whole(&data, note).unwrap();
            let error = successor.take_place(&data, &aside).unwrap_err();
            assert!(format!("{error:#}").contains("can't be renamed"), "{error:#}");
            assert_eq!(checkpoint(&data).as_deref(), Some("old"));
            assert_eq!(successor.whole(&data).unwrap().as_deref(), Some(note));
            successor.take_place(&data, &data.path().join("log.damaged-2")).unwrap();
            assert_eq!(checkpoint(&data).as_deref(), Some("new"));
        }
    }

    #[test]
    fn no_log_is_begun_beside_what_is_left_of_one() {
        for (name, says) in [
            ("log.damaged", "move it (the newest) back"),
            ("log.damaged-2", "move it (the newest) back"),
            ("log.custody.test-log", "move it (the newest) back"),
            ("log.restored", "isn't whole"),
            ("log.new", "isn't whole"),
        ] {
            let (_dir, data) = place();
            assert!(no_log(&data).to_string().contains("custodyd init"));
            log(&data.path().join(name), "left");
            let line = left_over(&data).unwrap().unwrap();
            assert!(line.contains(says) && line.contains(name), "{line}");
        }
        let (_dir, data) = place();
        durable::write_file(&data.path().join("log.txt"), b"a file", 0o600).unwrap();
        assert_eq!(left_over(&data).unwrap(), None);
        assert_eq!(left_over(&DataDir::new(&data.path().join("nowhere"))).unwrap(), None);
    }

    #[test]
    fn what_is_removed_is_not_whole_any_more() {
        for (successor, note, _) in BOTH {
            let (_dir, data) = place();
            successor.remove(&data).unwrap();
            log(&successor.path(&data), "new");
            successor.mark_whole(&data, note).unwrap();
            successor.remove(&data).unwrap();
            assert!(!successor.path(&data).exists() && successor.whole(&data).unwrap().is_none());
        }
    }
}
