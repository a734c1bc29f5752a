//! Dead letters: events that a destination refused for what they are. One line of JSON for each, in a file that people
//! can read; the event itself stands in the log.

use custody_core::delivery::DeadLetter;
use custody_core::event::{Event, Family, Payload};
use custody_core::log::durable::{sync_directory, write_file};
use custody_core::log::{Log, ReadError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const MODE: u32 = 0o600;
/// How much of the log is read at once, in bytes.
const BYTES: usize = 4 << 20;

/// Once the lines of those that have arrived since are so large a part of the rest, the file is written anew: not each time, or
/// many dead letters would be written again and again.
const GONE_PART: usize = 8;

/// A sink's dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    file: File,
    indexes: BTreeSet<u64>,
    /// Lines in the file whose events have arrived since. After a crash they are dead letters again, and looked up.
    gone: usize,
}

impl DeadLetters {
    /// Opens the file, or makes it. A line that was cut off by a crash is taken back: its event is sent again.
    ///
    /// # Errors
    /// What the system says, or that a line in the middle is no dead letter.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut indexes = BTreeSet::new();
        let length = match File::open(path) {
            // The reasons of millions would take more memory than there may be, and nobody asks for them yet.
            Ok(file) => each(file, |letter| {
                indexes.insert(letter.index);
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
        file.sync_all()?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { path: path.to_owned(), file, indexes, gone: 0 })
    }

    /// The indexes.
    #[must_use]
    pub fn indexes(&self) -> &BTreeSet<u64> {
        &self.indexes
    }

    /// All of them, from the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self) -> io::Result<Vec<DeadLetter>> {
        let mut letters = BTreeMap::new();
        each(File::open(&self.path)?, |letter| {
            if self.indexes.contains(&letter.index) {
                // Of one that arrived and was refused once more, what was said last.
                letters.insert(letter.index, letter);
            }
        })?;
        Ok(letters.into_values().collect())
    }

    /// Adds those that aren't there yet, durably; gives them.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&mut self, letters: Vec<DeadLetter>) -> io::Result<Vec<DeadLetter>> {
        let new: Vec<_> =
            letters.into_iter().filter(|letter| !self.indexes.contains(&letter.index)).collect();
        if new.is_empty() {
            return Ok(new);
        }
        self.file.write_all(&lines(&new)?)?;
        self.file.sync_data()?;
        self.indexes.extend(new.iter().map(|letter| letter.index));
        Ok(new)
    }

    /// Takes out those that have arrived.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&mut self, arrived: impl IntoIterator<Item = u64>) -> io::Result<()> {
        self.gone += arrived.into_iter().filter(|index| self.indexes.remove(index)).count();
        if self.gone > self.indexes.len() / GONE_PART { self.tidy() } else { Ok(()) }
    }

    /// Leaves no line in the file of what has arrived.
    ///
    /// # Errors
    /// What the system says; the old lines are still there then.
    pub fn tidy(&mut self) -> io::Result<()> {
        if self.gone == 0 {
            return Ok(());
        }
        write_file(&self.path, &lines(&self.read()?)?, MODE)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.gone = 0;
        Ok(())
    }
}

/// Of which events the log says that a sink refused them. The file lies beside the log, where nobody would notice who else
/// writes into it: what it says alone proves nothing.
///
/// Ranges that don't touch, the last of each by its first.
#[derive(Default)]
pub struct Told(BTreeMap<u64, u64>);

impl Told {
    /// Of events from `from` on: what tells of one comes after it.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read(log: &dyn Log, sink: &str, from: u64) -> Result<Self, ReadError> {
        let (mut told, mut next) = (Self::default(), from);
        loop {
            let entries = log.read(next, 1_000, BYTES)?;
            let Some(last) = entries.last() else { return Ok(told) };
            next = last.index + 1;
            for entry in entries.iter().filter(|entry| entry.tag == Family::Sink.tag()) {
                if let Ok(event) = Event::parse(&entry.bytes)
                    && let Payload::SinkRejected(rejected) = event.payload()
                    && rejected.sink == sink
                    // Else nobody knows which of them.
                    && rejected.last.checked_sub(rejected.first).map(|more| more + 1) == Some(rejected.count)
                {
                    told.add(rejected.first, rejected.last);
                }
            }
        }
    }

    /// Takes in what it overlaps, and what it touches.
    fn add(&mut self, mut first: u64, mut last: u64) {
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back()
            && to.saturating_add(1) >= first
        {
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
    }

    /// Whether it says so of this one.
    #[must_use]
    pub fn of(&self, index: u64) -> bool {
        self.0.range(..=index).next_back().is_some_and(|(_, last)| index <= *last)
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

/// Takes the letters one after the other, of which no more than one is in memory. Gives the length of the file up to the end of the
/// last whole one.
fn each(file: File, mut take: impl FnMut(DeadLetter)) -> io::Result<u64> {
    let (mut count, mut length) = (0_u64, 0);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok(length);
        }
        count += 1;
        let letter = serde_json::from_slice(&line).map_err(|error| {
            let reason = format!("line {count} is no dead letter: {error}");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        take(letter);
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(letters.read().unwrap().len(), 4);
        letters.remove([3, 5, 7]).unwrap();
        letters.add(vec![letter(9)]).unwrap();
        assert_eq!(DeadLetters::open(&path).unwrap().read().unwrap(), [letter(6), letter(9)]);
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
            let read: Vec<u64> = letters.read().unwrap().iter().map(|letter| letter.index).collect();
            proptest::prop_assert_eq!(letters.indexes().iter().copied().collect::<Vec<_>>(), read);
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            proptest::prop_assert_eq!(std::fs::read(&path).unwrap(), &bytes[..whole]);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_told_is_known_whatever_its_order_and_overlaps(
            ranges in proptest::collection::vec((0_u64..60, 0_u64..9), 0..20),
        ) {
            let mut told = Told::default();
            ranges.iter().for_each(|(first, more)| told.add(*first, first + more));
            for index in 0..70 {
                let among = ranges.iter().any(|(first, more)| (*first..=first + more).contains(&index));
                proptest::prop_assert_eq!(told.of(index), among);
            }
            let apart = told.0.iter().zip(told.0.keys().skip(1)).all(|((_, last), next)| last + 1 < *next);
            proptest::prop_assert!(apart);
        }
    }

    #[test]
    fn what_was_told_of_all_there_can_be_is_one_range() {
        let mut told = Told::default();
        told.add(3, u64::MAX);
        told.add(0, 2);
        assert!(told.of(0) && told.of(u64::MAX) && told.0.len() == 1);
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
        assert_eq!((letters.indexes().len(), letters.read().unwrap().len(), written(&path)), (99, 99, 100));
        // Refused once more, for another reason.
        letters.add(vec![letter(3, "too old")]).unwrap();
        assert_eq!(letters.read().unwrap()[3], letter(3, "too old"));
        letters.remove(20..40).unwrap();
        assert_eq!((letters.indexes().len(), written(&path)), (80, 80));
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
