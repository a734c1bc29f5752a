//! What is still good in a log directory that isn't whole: every record that its checksum vouches for, wherever it lies
//! between damage. Changes nothing.
//!
//! A log with damage below its checkpoint isn't opened ([`super::OpenError::Damaged`]). What it still has is taken from
//! here, what it lacks from a copy, and the signed checkpoint says whether the two together are the log.

use bytes::Bytes;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::durable::{Disk, RealDisk};
use super::recover::OpenError;
use super::segment::{Decoded, HEADER_BYTES, RECORD_BYTES_MAX, SegmentId, Stored, decode, first_index};
use super::unfinished::Note;
use crate::log::{Entry, Nanos};

/// So much of a segment is looked at once; bytes.
const READ_BYTES: usize = 4 << 20;
/// A run is no longer, so that one of its records is soon found; records.
const RUN_RECORDS: u64 = 1_024;
/// What is passed over where the disk gives nothing; bytes.
const PAGE_BYTES: u64 = 4_096;

/// A directory that is being salvaged. Whoever has it is the only one who uses the log.
pub struct Salvage {
    disk: Arc<dyn Disk>,
    runs: Vec<Run>,
    /// How many entries are the log's own, where others were being brought when that was cut off.
    own: Option<u64>,
    _lock: File,
}

/// Consecutive good records in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    id: SegmentId,
    path: PathBuf,
    /// Where the first of them starts, and the last one ends.
    bytes: Range<u64>,
    indexes: Range<u64>,
    /// When the first and the last of them were appended.
    appended: (Nanos, Nanos),
}

/// A part of the log, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is here.
    Here(Range<u64>),
    /// It isn't.
    Missing {
        /// The indexes.
        indexes: Range<u64>,
        /// Between which times its entries were appended, both inclusive.
        appended: (Nanos, Nanos),
    },
}

impl Salvage {
    /// Looks through the log of `origin` in `directory`, which may lack anything, even all.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when a process has the log open, [`OpenError::Io`] when the directory can't be listed. A
    /// segment that can't be read counts as missing from where that is so.
    pub fn begin(directory: &Path, origin: &str) -> Result<Salvage, OpenError> {
        Salvage::begin_on(Arc::new(RealDisk), directory, origin)
    }

    fn begin_on(disk: Arc<dyn Disk>, directory: &Path, origin: &str) -> Result<Salvage, OpenError> {
        let segments = directory.join("segments");
        let failed = |source| OpenError::Io { path: segments.clone(), source };
        super::durable::create_directories(&segments).map_err(failed)?;
        let lock = super::lock(directory)?;
        let own = Note::read(directory)?.map(|note| note.own);
        let mut found = Vec::new();
        for item in fs::read_dir(&segments).map_err(failed)? {
            let path = item.map_err(failed)?.path();
            if let Some(first) = path.file_name().and_then(|name| name.to_str()).and_then(first_index) {
                found.push((first, path));
            }
        }
        found.sort();
        let mut salvage = Salvage { disk, runs: Vec::new(), own, _lock: lock };
        for (first, path) in found {
            salvage.segment(SegmentId::new(origin, first), &path);
        }
        Ok(salvage)
    }

    /// What of the first `size` entries is here, and what isn't.
    #[must_use]
    pub fn parts(&self, size: u64) -> Vec<Part> {
        let (mut parts, mut next, mut since) = (Vec::new(), 0, Nanos(0));
        for run in &self.runs {
            let (from, to) = (run.indexes.start, run.indexes.end.min(size));
            if from >= size {
                break;
            }
            if from > next {
                parts.push(Part::Missing { indexes: next..from, appended: (since, run.appended.0) });
            }
            match parts.last_mut() {
                Some(Part::Here(before)) if before.end == from => before.end = to,
                _ => parts.push(Part::Here(from..to)),
            }
            (next, since) = (run.indexes.end, run.appended.1);
        }
        if next < size {
            parts.push(Part::Missing { indexes: next..size, appended: (since, Nanos(u64::MAX)) });
        }
        parts
    }

    /// Between which times the first `size` entries were appended, both inclusive, as far as their ends are here.
    #[must_use]
    pub fn appended(&self, size: u64) -> (Nanos, Nanos) {
        let first = self.runs.first().filter(|run| run.indexes.start == 0);
        let last = self.runs.iter().find(|run| run.indexes.end >= size && run.indexes.start < size);
        (first.map_or(Nanos(0), |run| run.appended.0), last.map_or(Nanos(u64::MAX), |run| run.appended.1))
    }

    /// How many entries follow without a gap on the first `size`: they were appended after the checkpoint was signed. What
    /// was brought here from elsewhere and isn't sealed doesn't count.
    #[must_use]
    pub fn beyond(&self, size: u64) -> u64 {
        let end = self.runs.iter().fold(
            size,
            |end, run| {
                if run.indexes.contains(&end) { run.indexes.end } else { end }
            },
        );
        self.own.map_or(end, |own| end.min(own)).saturating_sub(size)
    }

    /// Entries from index `from` on, at most up to `to`: some of those that lie together, and none where the first isn't
    /// here.
    ///
    /// # Errors
    /// When the disk doesn't give back what it gave a moment ago.
    pub fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let at = self.runs.partition_point(|run| run.indexes.end <= from);
        let Some(run) = self.runs.get(at).filter(|run| run.indexes.contains(&from)) else {
            return Ok(Vec::new());
        };
        let changed = |index| {
            io::Error::other(format!("{}: entry {index} isn't as it was a moment ago", run.path.display()))
        };
        let mut window = Window::open(&*self.disk, &run.path)?;
        let (mut offset, mut entries) = (run.bytes.start, Vec::new());
        for index in run.indexes.start..run.indexes.end.min(to) {
            let Decoded::Record(stored, taken) = decode(&run.id, window.at(offset)?) else {
                return Err(changed(index));
            };
            if stored.index != index {
                return Err(changed(index));
            }
            if index >= from {
                let Stored { appended, tag, event, .. } = stored;
                entries.push(Entry { index, appended, tag, bytes: Bytes::copy_from_slice(event) });
            }
            offset += taken as u64;
        }
        Ok(entries)
    }

    /// Finds the good records of a segment, also behind bad bytes.
    fn segment(&mut self, id: SegmentId, path: &Path) {
        let disk = Arc::clone(&self.disk);
        let Ok(mut window) = Window::open(&*disk, path) else { return };
        let (mut offset, mut epoch) = (HEADER_BYTES as u64, 0);
        while offset < window.length {
            let Ok(bytes) = window.at(offset) else {
                offset += PAGE_BYTES - offset % PAGE_BYTES;
                continue;
            };
            let Decoded::Record(stored, taken) = decode(&id, bytes) else {
                // No record begins with more than three zeroes.
                let zeroes = bytes.iter().take_while(|byte| **byte == 0).count() as u64;
                offset += zeroes.saturating_sub(3).max(1);
                continue;
            };
            let (next, last) =
                self.runs.last().map_or((0, Nanos(0)), |run| (run.indexes.end, run.appended.1));
            let end = offset + taken as u64;
            // Else it is of an earlier life of the log, or a copy of one that was met already.
            if stored.index >= next && stored.epoch >= epoch && stored.appended >= last {
                epoch = stored.epoch;
                let (index, appended) = (stored.index, stored.appended);
                self.keep(id, path, offset..end, index, appended);
            }
            offset = end;
        }
    }

    fn keep(&mut self, id: SegmentId, path: &Path, bytes: Range<u64>, index: u64, appended: Nanos) {
        if let Some(run) = self.runs.last_mut()
            && run.id == id
            && run.indexes.end == index
            && run.bytes.end == bytes.start
            && index - run.indexes.start < RUN_RECORDS
        {
            run.indexes.end = index + 1;
            run.bytes.end = bytes.end;
            run.appended.1 = appended;
            return;
        }
        let indexes = index..index.saturating_add(1);
        let path = path.to_owned();
        self.runs.push(Run { id, path, bytes, indexes, appended: (appended, appended) });
    }
}

/// A segment, read in large pieces.
struct Window<'a> {
    disk: &'a dyn Disk,
    file: File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Whether the disk gave nothing behind these bytes.
    cut: bool,
}

impl<'a> Window<'a> {
    fn open(disk: &'a dyn Disk, path: &Path) -> io::Result<Window<'a>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Window { disk, file, length, start: 0, bytes: Vec::new(), cut: false })
    }

    /// The bytes from `offset` on: as many as a record may have, fewer only at the end of the file and before what the disk
    /// doesn't give. It fails where it gives nothing from `offset` on.
    fn at(&mut self, offset: u64) -> io::Result<&[u8]> {
        let want = self.length.saturating_sub(offset).min(RECORD_BYTES_MAX as u64);
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset >= end || (offset + want > end && !self.cut) {
            self.bytes.clear();
            (self.bytes, self.cut) = self.read(offset)?;
            self.start = offset;
        }
        let skip = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }

    /// A large piece from `offset` on, and whether it should have been larger.
    fn read(&self, offset: u64) -> io::Result<(Vec<u8>, bool)> {
        let room = self.length.saturating_sub(offset).min(READ_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(room).unwrap_or(READ_BYTES)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.disk.read_at(&self.file, rest, offset + filled as u64) {
                Ok(0) if filled == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if filled == 0 => return Err(error),
                // What lies before it is good all the same.
                Err(_) => break,
            }
        }
        let cut = filled < bytes.len();
        bytes.truncate(filled);
        Ok((bytes, cut))
    }
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod tests;
