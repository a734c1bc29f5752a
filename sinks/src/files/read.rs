//! Finds what files hold of a part of the log without reading all of them each time.
//!
//! A file is read once, and it is remembered which indexes and times its blocks hold; a block is read anew whenever it is
//! asked for. A file that was changed by anybody else is another file.

use super::stamp::Stamp;
use crate::sink::{Held, Room, Window};
use custody_core::clock::Nanos;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a block of lines is, in bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// How long files are read for the first time before whoever wants to append gets a turn.
const TURN: Duration = Duration::from_secs(5);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// What was sent from here: it lies in files whose names say so.
    Sent,
    /// Whatever claims to be it.
    Any,
}

/// Whether something of a window was appended on the day that begins at `since`.
pub fn is_of_day(window: &Window, since: Nanos) -> bool {
    since < window.appended.end && window.appended.start < since.saturating_add(DAY)
}

/// A part of a file, and what it claims to hold.
#[derive(Clone, Debug)]
struct Block {
    bytes: Range<u64>,
    /// The indexes that its documents claim.
    indexes: Option<Range<u64>>,
    /// Their times.
    times: Option<Range<u64>>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    blocks: Vec<Block>,
    /// Up to where it was read.
    read: u64,
}

/// How long may be read for the first time at once, and how much may be found.
#[derive(Debug)]
pub struct Turn {
    length: Duration,
    /// Since something was.
    until: Option<Instant>,
    room: Room,
}

impl Turn {
    pub fn begin() -> Self {
        Self { length: TURN, until: None, room: Room::default() }
    }

    /// Something is read for the first time.
    fn begins(&mut self) {
        self.until.get_or_insert_with(|| Instant::now() + self.length);
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// These were found. Who asks by time alone restores a log, and doesn't know how much lies in a window.
    fn found(&mut self, held: &[Held]) -> io::Result<()> {
        held.iter().try_for_each(|held| self.room.take(held)).map_err(io::Error::other)
    }

    /// Whether more was found than may be.
    pub fn found_too_much(&self) -> bool {
        self.room.is_exceeded()
    }

    /// One that is over once something was read.
    #[cfg(test)]
    pub fn short() -> Self {
        Self { length: Duration::ZERO, ..Self::begin() }
    }

    /// One in which no more than these bytes may be found.
    #[cfg(test)]
    pub fn narrow(bytes: usize) -> Self {
        Self { room: Room::of(bytes), ..Self::begin() }
    }
}

/// What is known of files.
#[derive(Debug, Default)]
pub struct Index {
    files: HashMap<PathBuf, Known>,
}

/// Opens a file, unless it is.
fn open<'a>(path: &Path, opened: &'a mut Option<File>) -> io::Result<&'a mut File> {
    match opened {
        Some(file) => Ok(file),
        None => Ok(opened.insert(File::open(path)?)),
    }
}

/// Reads the documents of a part of a file.
pub type Reader<'a> = &'a dyn Fn(&mut File, Range<u64>) -> io::Result<Vec<Held>>;

impl Index {
    /// We have appended to a file: what is known of it stays true.
    pub fn appended(&mut self, path: &Path, before: Stamp, after: Stamp) {
        match self.files.get_mut(path) {
            Some(known) if known.stamp == before => known.stamp = after,
            Some(_) => drop(self.files.remove(path)),
            None => {}
        }
    }

    /// Forgets files that aren't there any more.
    pub fn keep(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.files.retain(|path, _| is_there(path));
    }

    /// What a file holds of a window: by the index that a document claims, or by its time; without one it counts as of
    /// `since`, the beginning of the file's day. `whole`: it is read as a whole or not at all. Nothing where the turn was over
    /// before all of it was known: what was read until then is remembered.
    pub fn find(
        &mut self,
        path: &Path,
        window: &Window,
        since: Nanos,
        whole: bool,
        turn: &mut Turn,
        read: Reader<'_>,
    ) -> io::Result<Option<Vec<Held>>> {
        let metadata = std::fs::metadata(path)?;
        let (stamp, length) = (Stamp::of(&metadata), metadata.len());
        if self.files.get(path).is_none_or(|known| known.stamp != stamp) {
            self.files.insert(path.to_owned(), Known { stamp, blocks: Vec::new(), read: 0 });
        }
        let Some(known) = self.files.get_mut(path) else { return Ok(Some(vec![])) };
        // Most files hold nothing of a window: they aren't opened.
        let mut opened = None;
        while known.read < length {
            turn.begins();
            let file = open(path, &mut opened)?;
            let bytes = if whole { 0..length } else { next_block(file, known.read, length)? };
            // What can't be read is no more known the next time.
            let held = read(file, bytes.clone())?;
            known.read = bytes.end;
            known.blocks.push(block(bytes, &held, since));
            if turn.is_over() {
                return Ok(None);
            }
        }
        let mut found = Vec::new();
        for Block { bytes, indexes, times } in &known.blocks {
            let by_index = indexes.as_ref().is_some_and(|indexes| meet(indexes, &window.indexes));
            let by_time = times.as_ref().is_some_and(|times| meet(times, &nanos(window)));
            if by_index || by_time {
                let held = read(open(path, &mut opened)?, bytes.clone())?;
                let before = found.len();
                found.extend(held.into_iter().filter(|held| {
                    held.index.is_some_and(|index| window.indexes.contains(&index))
                        || window.appended.contains(&held.appended.unwrap_or(since))
                }));
                if window.indexes.is_empty() {
                    turn.found(found.get(before..).unwrap_or_default())?;
                }
            }
        }
        Ok(Some(found))
    }
}

fn nanos(window: &Window) -> Range<u64> {
    window.appended.start.0..window.appended.end.0
}

fn meet(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

fn block(bytes: Range<u64>, held: &[Held], since: Nanos) -> Block {
    let mut block = Block { bytes, indexes: None, times: None };
    for held in held {
        if let Some(index) = held.index {
            widen(&mut block.indexes, index);
        }
        widen(&mut block.times, held.appended.unwrap_or(since).0);
    }
    block
}

fn widen(range: &mut Option<Range<u64>>, value: u64) {
    let range = range.get_or_insert(value..value.saturating_add(1));
    *range = range.start.min(value)..range.end.max(value.saturating_add(1));
}

/// Whole lines from `from` on; a longer line is a block by itself, and so is what is left at the end.
fn next_block(file: &mut File, from: u64, length: u64) -> io::Result<Range<u64>> {
    let mut bytes = Vec::new();
    loop {
        let at = from + bytes.len() as u64;
        file.seek(SeekFrom::Start(at))?;
        let mut piece = vec![0; BLOCK_BYTES.min(usize::try_from(length - at).unwrap_or(BLOCK_BYTES))];
        file.read_exact(&mut piece)?;
        bytes.extend_from_slice(&piece);
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from..from + end as u64 + 1);
        }
        if from + bytes.len() as u64 >= length {
            return Ok(from..length);
        }
    }
}

/// The bytes of a part of a file.
pub fn bytes(file: &mut File, part: Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
    file.seek(SeekFrom::Start(part.start))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
