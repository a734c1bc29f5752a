//! Dead letters: events that a destination refused for what they are. One line of JSON for each, in a file that people
//! can read; the event itself stands in the log.

use custody_core::delivery::DeadLetter;
use custody_core::log::durable::{sync_directory, write_file};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const MODE: u32 = 0o600;

/// A sink's dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    file: File,
    indexes: BTreeSet<u64>,
}

impl DeadLetters {
    /// Opens the file, or makes it. A line that was cut off by a crash is taken back: its event is sent again.
    ///
    /// # Errors
    /// What the system says, or that a line in the middle is no dead letter.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (letters, length) = match File::open(path) {
            Ok(file) => read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (vec![], 0),
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
        let indexes = letters.iter().map(|letter| letter.index).collect();
        Ok(Self { path: path.to_owned(), file, indexes })
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
        Ok(read(File::open(&self.path)?)?.0)
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

    /// Keeps only these.
    ///
    /// # Errors
    /// What the system says; the old ones are still there then.
    pub fn replace(&mut self, letters: &[DeadLetter]) -> io::Result<()> {
        write_file(&self.path, &lines(letters)?, MODE)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.indexes = letters.iter().map(|letter| letter.index).collect();
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

/// The letters, and the length of the file up to the end of the last whole one.
fn read(file: File) -> io::Result<(Vec<DeadLetter>, u64)> {
    let (mut letters, mut length) = (Vec::new(), 0);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok((letters, length));
        }
        let letter = serde_json::from_slice(&line).map_err(|error| {
            let reason = format!("line {} is no dead letter: {error}", letters.len() + 1);
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        letters.push(letter);
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
        letters.replace(&[letter(6)]).unwrap();
        letters.add(vec![letter(9)]).unwrap();
        assert_eq!(DeadLetters::open(&path).unwrap().read().unwrap(), [letter(6), letter(9)]);
    }

    #[test]
    fn a_line_that_is_none_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.ndjson");
        custody_core::log::durable::write_file(&path, b"{}\n", MODE).unwrap();
        assert!(DeadLetters::open(&path).unwrap_err().to_string().contains("line 1"));
    }
}
