//! Dead letters: events that a destination refused for what they are. One line of JSON for each, in a file that people
//! can read; the event itself stands in the log.

mod told;

pub use told::Told;

use custody_core::delivery::DeadLetter;
use custody_core::log::durable::{replace_file, sync_directory};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MODE: u32 = 0o600;

/// Once the lines of those that have arrived since are so large a part of the rest, the file is written anew: not each time, or
/// many dead letters would be written again and again.
const GONE_PART: usize = 8;

/// A sink's dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    file: File,
    /// Shared with those who read the file meanwhile.
    indexes: Arc<BTreeSet<u64>>,
    /// Lines in the file whose events have arrived since. After a crash they are dead letters again, and looked up.
    gone: usize,
    /// Lines in the file behind which another one speaks of the same event.
    superseded: usize,
}

/// Dead letters as they were at one moment, for others to read: there may be millions, and whoever writes them doesn't wait.
#[derive(Clone, Debug)]
pub struct Listing {
    path: PathBuf,
    indexes: Arc<BTreeSet<u64>>,
}

impl Listing {
    /// The indexes.
    #[must_use]
    pub fn indexes(&self) -> &BTreeSet<u64> {
        &self.indexes
    }

    /// The newest of them, so many at most, from the file. Waits for the disk.
    ///
    /// # Errors
    /// What the system says, or that a line is no dead letter.
    pub fn read(&self, most: usize) -> io::Result<Vec<DeadLetter>> {
        let mut letters = BTreeMap::new();
        each(File::open(&self.path)?, Tear::AtTheEnd, |line| {
            if self.indexes.contains(&line.letter.index) {
                // Of one that was refused more than once, what was said last.
                letters.insert(line.letter.index, line.letter);
                if letters.len() > most {
                    letters.pop_first();
                }
            }
            Ok(())
        })?;
        Ok(letters.into_values().collect())
    }
}

impl DeadLetters {
    /// Opens the file, or makes it. A line that was cut off by a crash is taken back, and so is one that never reached the disk, with
    /// all behind it: their events are sent again.
    ///
    /// # Errors
    /// What the system says, or that a line in the middle is no dead letter.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (mut indexes, mut superseded) = (BTreeSet::new(), 0);
        let length = match File::open(path) {
            // The reasons of millions would take more memory than there may be, and nobody asks for them yet.
            Ok(file) => each(file, Tear::Anywhere, |line| {
                superseded += usize::from(!indexes.insert(line.letter.index));
                Ok(())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let torn = file.metadata()?.len().saturating_sub(length);
        if torn > 0 {
            tracing::warn!("{}: {torn} bytes at its end weren't written in full: cut off", path.display());
            file.set_len(length)?;
        }
        file.sync_all()?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { path: path.to_owned(), file, indexes: Arc::new(indexes), gone: 0, superseded })
    }

    /// The indexes.
    #[must_use]
    pub fn indexes(&self) -> &BTreeSet<u64> {
        &self.indexes
    }

    /// All of them as they are now, for others to read.
    #[must_use]
    pub fn listing(&self) -> Listing {
        Listing { path: self.path.clone(), indexes: Arc::clone(&self.indexes) }
    }

    /// Adds them durably; of those that are there already, what is said of them now. Gives those that weren't there.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&mut self, mut letters: Vec<DeadLetter>) -> io::Result<Vec<DeadLetter>> {
        if letters.is_empty() {
            return Ok(letters);
        }
        self.file.write_all(&lines(&letters)?)?;
        self.file.sync_data()?;
        let (indexes, written) = (Arc::make_mut(&mut self.indexes), letters.len());
        letters.retain(|letter| indexes.insert(letter.index));
        self.superseded += written - letters.len();
        Ok(letters)
    }

    /// Says anew, durably, why those of them are dead that are.
    ///
    /// # Errors
    /// What the system says.
    pub fn renew(&mut self, mut letters: Vec<DeadLetter>) -> io::Result<()> {
        letters.retain(|letter| self.indexes.contains(&letter.index));
        self.add(letters).map(drop)
    }

    /// Takes out those that have arrived.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&mut self, arrived: impl IntoIterator<Item = u64>) -> io::Result<()> {
        let indexes = Arc::make_mut(&mut self.indexes);
        self.gone += arrived.into_iter().filter(|index| indexes.remove(index)).count();
        if self.gone > self.indexes.len() / GONE_PART { self.tidy() } else { Ok(()) }
    }

    /// Leaves one line in the file for each, and none of what has arrived. One line at a time is in memory.
    ///
    /// # Errors
    /// What the system says, or that a line is no dead letter; the old lines are still there then.
    pub fn tidy(&mut self) -> io::Result<()> {
        if self.gone == 0 && self.superseded == 0 {
            return Ok(());
        }
        // Where the line begins that was written last.
        let mut last = BTreeMap::new();
        each(File::open(&self.path)?, Tear::AtTheEnd, |line| {
            if self.indexes.contains(&line.letter.index) {
                last.insert(line.letter.index, line.at);
            }
            Ok(())
        })?;
        replace_file(&self.path, MODE, |file| {
            let mut out = BufWriter::new(file);
            each(File::open(&self.path)?, Tear::AtTheEnd, |line| {
                if last.get(&line.letter.index) == Some(&line.at) {
                    out.write_all(line.bytes)
                } else {
                    Ok(())
                }
            })?;
            out.flush()
        })?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        (self.gone, self.superseded) = (0, 0);
        Ok(())
    }
}

fn lines(letters: &[DeadLetter]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for letter in letters {
        serde_json::to_writer(&mut out, letter)?;
        out.push(b'\n');
    }
    Ok(out)
}

/// A line of the file.
struct Line<'a> {
    /// Where it begins.
    at: u64,
    bytes: &'a [u8],
    letter: DeadLetter,
}

/// Where a line may be that isn't whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tear {
    /// The last one: it was being written.
    AtTheEnd,
    /// The power may have failed: a file can have become longer by what then never reached the disk, which is zeroes.
    Anywhere,
}

/// Takes the lines one after the other, of which no more than one is in memory. Gives the length of the file up to the end of the
/// last whole one.
fn each(file: File, tear: Tear, mut take: impl FnMut(Line<'_>) -> io::Result<()>) -> io::Result<u64> {
    let (mut count, mut length) = (0_u64, 0);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        // No letter has a zero in it. What comes behind was written together with it, and so nobody was told of it.
        let never_written = tear == Tear::Anywhere && line.contains(&0);
        if read == 0 || line.last() != Some(&b'\n') || never_written {
            return Ok(length);
        }
        count += 1;
        let letter = serde_json::from_slice(&line).map_err(|error| {
            let reason = format!("line {count} is no dead letter: {error}");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        take(Line { at: length, bytes: &line, letter })?;
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(letters: &DeadLetters) -> Vec<DeadLetter> {
        letters.listing().read(usize::MAX).unwrap()
    }

    #[test]
    fn each_once_and_a_torn_line_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.ndjson");
        let letter = |index| DeadLetter::new(index, "login.failed", "too\nlong");
        let mut letters = DeadLetters::open(&path).unwrap();
        assert_eq!(letters.add(vec![letter(3), letter(5)]).unwrap().len(), 2);
        assert_eq!(letters.add(vec![letter(5), letter(6)]).unwrap(), [letter(6)]);
        drop(letters);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"index\":7,\"ty").unwrap();
        let mut letters = DeadLetters::open(&path).unwrap();
        assert_eq!(letters.indexes().iter().copied().collect::<Vec<_>>(), [3, 5, 6]);
        letters.add(vec![letter(7)]).unwrap();
        assert_eq!(all(&letters).len(), 4);
        letters.remove([3, 5, 7]).unwrap();
        letters.add(vec![letter(9)]).unwrap();
        assert_eq!(all(&DeadLetters::open(&path).unwrap()), [letter(6), letter(9)]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        /// Who opens them keeps the indexes, who reads them all of it: whatever happened before, and wherever a crash has cut.
        #[test]
        fn who_opens_them_knows_those_that_are_read(
            steps in proptest::collection::vec((0_u64..10, proptest::bool::ANY, "\\PC{0,20}"), 0..20),
            cut in 0_u64..200,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("dead.ndjson");
            let mut letters = DeadLetters::open(&path).unwrap();
            for (index, is_refused, reason) in &steps {
                if *is_refused {
                    letters.add(vec![DeadLetter::new(*index, "login.failed", reason)]).unwrap();
                } else {
                    letters.remove([*index]).unwrap();
                }
            }
            drop(letters);
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let length = file.metadata().unwrap().len().saturating_sub(cut);
            file.set_len(length).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let letters = DeadLetters::open(&path).unwrap();
            let read: Vec<u64> = all(&letters).iter().map(|letter| letter.index).collect();
            proptest::prop_assert_eq!(letters.indexes().iter().copied().collect::<Vec<_>>(), read);
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            proptest::prop_assert_eq!(std::fs::read(&path).unwrap(), &bytes[..whole]);
        }
    }

    #[test]
    fn what_has_arrived_is_gone_at_once_and_its_lines_soon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.ndjson");
        let letter = |index, reason| DeadLetter::new(index, "login.failed", reason);
        let mut letters = DeadLetters::open(&path).unwrap();
        letters.add((0..100).map(|index| letter(index, "too long")).collect()).unwrap();
        let written = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        letters.remove([3, 200]).unwrap();
        assert_eq!((letters.indexes().len(), all(&letters).len(), written(&path)), (99, 99, 100));
        // Refused once more, for another reason.
        letters.add(vec![letter(3, "too old")]).unwrap();
        assert_eq!(all(&letters)[3], letter(3, "too old"));
        letters.remove(20..40).unwrap();
        assert_eq!((letters.indexes().len(), written(&path)), (80, 80));
    }

    /// A redrive of a million that are refused again must not leave two million lines.
    #[test]
    fn what_was_said_last_is_listed_and_the_rest_is_gone_when_the_file_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.ndjson");
        let letter = |index, reason| DeadLetter::new(index, "login.failed", reason);
        let mut letters = DeadLetters::open(&path).unwrap();
        letters.add((0..10).map(|index| letter(index, "too long")).collect()).unwrap();
        letters.renew(vec![letter(3, "too old"), letter(8, "too old"), letter(20, "too old")]).unwrap();
        assert_eq!(letters.listing().read(2).unwrap(), [letter(8, "too old"), letter(9, "too long")]);
        let said: Vec<_> =
            (0..10).map(|index| letter(index, if index % 5 == 3 { "too old" } else { "too long" })).collect();
        assert_eq!(all(&letters), said);
        let written = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!(written(&path), 12);
        // Also where it was ended before.
        letters = DeadLetters::open(&path).unwrap();
        letters.tidy().unwrap();
        assert_eq!((written(&path), all(&letters)), (10, said.clone()));
        letters.add(vec![letter(11, "too new")]).unwrap();
        assert_eq!(all(&DeadLetters::open(&path).unwrap())[..10], said);
    }

    #[test]
    fn who_lists_them_has_them_as_they_were_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.ndjson");
        let letter = |index| DeadLetter::new(index, "login.failed", "too long");
        let mut letters = DeadLetters::open(&path).unwrap();
        letters.add((0..4).map(letter).collect()).unwrap();
        let listing = letters.listing();
        letters.add(vec![letter(9)]).unwrap();
        assert_eq!(listing.indexes().len(), 4);
        assert_eq!(listing.read(usize::MAX).unwrap().len(), 4);
        // What has arrived meanwhile is none, if its line is gone.
        letters.remove([0, 1]).unwrap();
        assert_eq!(listing.read(usize::MAX).unwrap(), [letter(2), letter(3)]);
    }

    /// The power failed: the file is longer, and a part of what was written last is zeroes.
    #[test]
    fn what_never_reached_the_disk_is_cut_off_with_all_that_was_written_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.ndjson");
        let line = |index| format!("{{\"index\":{index},\"type\":\"login.failed\",\"reason\":\"400\"}}\n");
        for zeroes in ["\0\0\0\0\n", "\0\0\0", "\0\0\":\"400\"}\n", "{\"index\":5,\0\0\0\"}\n"] {
            let lines = format!("{}{zeroes}{}", line(3), line(7));
            custody_core::log::durable::write_file(&path, lines.as_bytes(), MODE).unwrap();
            let mut letters = DeadLetters::open(&path).unwrap();
            assert_eq!(letters.indexes().iter().copied().collect::<Vec<_>>(), [3], "{zeroes:?}");
            letters.add(vec![DeadLetter::new(9, "login.failed", "400")]).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        }
        // While it is open it has no such lines, and so that is damage.
        let letters = DeadLetters::open(&path).unwrap();
        custody_core::log::durable::write_file(&path, b"\0\n", MODE).unwrap();
        assert_eq!(letters.listing().read(9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_that_is_none_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.ndjson");
        custody_core::log::durable::write_file(&path, b"{}\n", MODE).unwrap();
        assert!(DeadLetters::open(&path).unwrap_err().to_string().contains("line 1"));
        // Its index isn't all there is to a dead letter.
        let whole = "{\"index\":3,\"type\":\"login.failed\",\"reason\":\"400\"}\n";
        let (more, other) = (whole.replace('}', ",\"more\":1}"), whole.replace('3', "\"3\""));
        for wrong in ["{\"index\":4}\n", "\n", &more, &other] {
            let lines = format!("{whole}{wrong}{whole}");
            custody_core::log::durable::write_file(&path, lines.as_bytes(), MODE).unwrap();
            let error = DeadLetters::open(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("line 2 is no dead letter"), "{error}");
        }
    }
}
