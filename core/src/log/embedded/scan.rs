//! Reads a log directory from beginning to end and judges it; changes nothing.
//!
//! Recovery and offline verification are this same function. Memory doesn't depend on the log's length, but for
//! the tree's upper levels.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::durable::{Disk, UNFINISHED};
use super::segment::{Decoded, HEADER_BYTES, RECORD_BYTES_MAX, SegmentId, Stored, decode, first_index};
use crate::log::tree::{Tree, empty_root};
use crate::log::{Checkpoint, Hash, Nanos};

const READ_BYTES: usize = 1 << 20;

/// Why a directory isn't believed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The disk doesn't give the bytes back. Never taken for the end of the log.
    #[error("entry {index} can't be read: {path}, byte {position}: {source}")]
    Io {
        /// The first entry that can't be read.
        index: u64,
        /// The file or directory.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What the system says.
        source: io::Error,
    },
    /// What was durable once is not what is there.
    #[error("entry {index} is damaged: {path}, byte {position}: {reason}")]
    Damaged {
        /// The first entry that is wrong.
        index: u64,
        /// The segment.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What doesn't fit.
        reason: &'static str,
    },
    /// Every record fits its checksum, but together they aren't what was signed.
    #[error(
        "the entries before {size} don't give the root that was signed for them; those before {agreed} do: \
         an entry from {agreed} on was replaced"
    )]
    Root {
        /// The size of the checkpoint that fails.
        size: u64,
        /// The size of the last checkpoint that holds.
        agreed: u64,
    },
    /// Acknowledged entries are missing at the end.
    #[error("entry {have} is missing: the signed checkpoint covers {signed} entries, here are {have}")]
    Short {
        /// How many entries are here.
        have: u64,
        /// How many were signed.
        signed: u64,
    },
}

/// What a scan met on its way, for reports and so that a test can prove that a branch was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// The last record is incomplete or didn't reach the disk whole.
    TornRecord,
    /// The last batch isn't there whole, though its first records are.
    TornBatch,
    /// Good records of the same unfinished write lie behind the torn one.
    TornWriteWithGoodRecords,
    /// Bytes of an earlier life of the log lie behind the end.
    StaleRecords,
    /// The newest segment has no whole header: it was just being created.
    UnfinishedSegment,
    /// Files that were being written when the log died.
    LeftoverFiles,
    /// Records behind the last checkpoint were written and synced again.
    TailRewritten,
    /// What lay behind the last whole batch was cut off.
    TailCut,
    /// Zeroes lie behind the end of a segment: space made ready for a writer that didn't close it.
    SpaceReady,
}

/// One record of a whole batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub index: u64,
    /// Where it starts in its segment.
    pub offset: u64,
    pub appended: Nanos,
    pub seq: u64,
    pub boot: Uuid,
    pub producer: &'a str,
    pub tag: u8,
    /// The canonical event.
    pub event: &'a [u8],
}

/// A segment and how much of it is good.
#[derive(Clone, Debug)]
pub(crate) struct ScannedSegment {
    pub id: SegmentId,
    pub path: PathBuf,
    /// The end of the last whole batch.
    pub end: u64,
    /// Bytes behind it up to the last one that isn't zero: of an unfinished write. What follows is space that was made
    /// ready.
    pub torn: u64,
    /// The file's length.
    pub length: u64,
    /// Where the first record behind the last checkpoint starts, if it is in this segment.
    pub unsigned_from: Option<u64>,
}

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub tree: Tree,
    pub segments: Vec<ScannedSegment>,
    pub unfinished: Option<PathBuf>,
    pub leftovers: Vec<PathBuf>,
    /// The largest epoch seen anywhere, in what is cut too.
    pub epoch: u32,
    pub first_appended: Option<Nanos>,
    pub last_appended: Nanos,
    pub marks: Vec<Mark>,
}

impl Scan {
    /// Bytes behind the last whole batch.
    pub fn torn_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.torn).sum()
    }
}

/// Reads all of `directory` (the one with the segments). `checkpoints` are in the order of their sizes.
/// `visit` gets each record of each whole batch, in order.
pub(crate) fn scan(
    disk: &dyn Disk,
    directory: &Path,
    origin: &str,
    checkpoints: &[Checkpoint],
    visit: &mut dyn FnMut(&Seen<'_>),
) -> Result<Scan, ScanError> {
    let listing = list(directory)?;
    let mut scanner = Scanner {
        disk,
        checkpoints,
        agreed: 0,
        signed: checkpoints.last().map_or(0, Checkpoint::size),
        unsigned_after: checkpoints.last().map_or(0, Checkpoint::size),
        last_write_start: 0,
        good_epoch: 0,
        batch: Vec::new(),
        out: Scan {
            tree: Tree::new(),
            segments: Vec::new(),
            unfinished: None,
            leftovers: listing.leftovers,
            epoch: 0,
            first_appended: None,
            last_appended: Nanos(0),
            marks: Vec::new(),
        },
    };
    scanner.check_roots()?;
    let count = listing.segments.len();
    for (position, (first, path)) in listing.segments.into_iter().enumerate() {
        let id = SegmentId::new(origin, first);
        let expected = scanner.out.tree.size();
        if first != expected {
            let path = directory.join(SegmentId::new(origin, expected).file_name());
            let reason = "the segment that starts here is missing";
            return Err(ScanError::Damaged { index: expected, path, position: 0, reason });
        }
        scanner.segment(id, path, position + 1 == count, visit)?;
    }
    let have = scanner.out.tree.size();
    if have < scanner.signed {
        return Err(ScanError::Short { have, signed: scanner.signed });
    }
    if !scanner.out.leftovers.is_empty() {
        scanner.out.marks.push(Mark::LeftoverFiles);
    }
    Ok(scanner.out)
}

/// A record of a batch whose end hasn't been met yet.
struct Waiting {
    leaf: Hash,
    index: u64,
    offset: u64,
    appended: Nanos,
    seq: u64,
    boot: Uuid,
    producer: String,
    tag: u8,
    event: Box<[u8]>,
}

struct Scanner<'a> {
    disk: &'a dyn Disk,
    /// Those not yet reached.
    checkpoints: &'a [Checkpoint],
    agreed: u64,
    signed: u64,
    unsigned_after: u64,
    last_write_start: u64,
    good_epoch: u32,
    batch: Vec<Waiting>,
    out: Scan,
}

impl Scanner<'_> {
    fn segment(
        &mut self,
        id: SegmentId,
        path: PathBuf,
        newest: bool,
        visit: &mut dyn FnMut(&Seen<'_>),
    ) -> Result<(), ScanError> {
        let broken = |index, position, source| ScanError::Io { index, path: path.clone(), position, source };
        let damaged =
            |index, position, reason| ScanError::Damaged { index, path: path.clone(), position, reason };
        let file = File::open(&path).map_err(|error| broken(id.first, 0, error))?;
        let length = file.metadata().map_err(|error| broken(id.first, 0, error))?.len();
        let mut window =
            Window { disk: self.disk, file: &file, length, bytes: Vec::new(), start: 0, whole: false };
        let header = window.at(0, HEADER_BYTES).map_err(|error| broken(id.first, 0, error))?;
        if newest && header.len() < HEADER_BYTES {
            // Its name came before its contents: no record was ever in it. If one was, the checkpoint knows.
            self.out.marks.push(Mark::UnfinishedSegment);
            self.out.unfinished = Some(path);
            return Ok(());
        }
        let header = header.get(..HEADER_BYTES).unwrap_or(header);
        id.check_header(header).map_err(|reason| damaged(id.first, 0, reason))?;

        let mut position = HEADER_BYTES as u64;
        let mut unsigned_from = None;
        let bad = loop {
            let expected = self.out.tree.size() + self.batch.len() as u64;
            if position >= length {
                break None;
            }
            let failed = |error| broken(expected, position, error);
            if window.is_space(position).map_err(failed)? {
                // In a full segment as well as in the newest one. If records should be there, the next segment's first
                // index knows it, or the checkpoint.
                self.mark(Mark::SpaceReady);
                break None;
            }
            let bytes = window.at(position, RECORD_BYTES_MAX).map_err(failed)?;
            let (stored, taken) = match decode(&id, bytes) {
                Decoded::Record(stored, taken) => (stored, taken),
                Decoded::Short(_) => break Some("the file ends within this record"),
                Decoded::Bad(reason) => break Some(reason),
            };
            if let Err(reason) = self.follows(&stored, expected) {
                break Some(reason);
            }
            if stored.index == self.unsigned_after {
                unsigned_from = Some(position);
            }
            self.take(&stored, position, visit)?;
            position += taken as u64;
        };
        let expected = self.out.tree.size() + self.batch.len() as u64;
        if let Some(reason) = bad {
            if !newest || expected < self.signed {
                return Err(damaged(expected, position, reason));
            }
            self.out.marks.push(Mark::TornRecord);
            let data_end = window.end_of_data(position).map_err(|error| broken(expected, position, error))?;
            let synced = self
                .look_behind(&id, &mut window, position + 1, data_end, expected)
                .map_err(|(at, error)| broken(expected, at, error))?;
            if synced {
                return Err(damaged(expected, position, reason));
            }
        }
        let mut end = position;
        if let Some(first) = self.batch.first() {
            if !newest {
                return Err(damaged(first.index, first.offset, "its batch doesn't end in this segment"));
            }
            end = first.offset;
            self.batch.clear();
            self.out.marks.push(Mark::TornBatch);
        }
        let data_end = window.end_of_data(end).map_err(|error| broken(expected, end, error))?;
        let torn = data_end.saturating_sub(end);
        unsigned_from = unsigned_from.filter(|from| *from < end);
        if id.first > self.unsigned_after && end > HEADER_BYTES as u64 {
            unsigned_from = Some(HEADER_BYTES as u64);
        }
        self.out.segments.push(ScannedSegment { id, path, end, torn, length, unsigned_from });
        Ok(())
    }

    /// Whether a record may come after those before it.
    fn follows(&mut self, stored: &Stored<'_>, expected: u64) -> Result<(), &'static str> {
        self.out.epoch = self.out.epoch.max(stored.epoch);
        if stored.epoch < self.good_epoch {
            self.out.marks.push(Mark::StaleRecords);
            return Err("a record of an earlier life of the log");
        }
        if stored.index != expected {
            return Err("the record is another entry's");
        }
        if stored.write_start < self.last_write_start {
            return Err("the record's write began before the one before it");
        }
        let last = self.batch.last().map_or(self.out.last_appended, |waiting| waiting.appended);
        if stored.appended < last {
            return Err("the time of appending decreases");
        }
        self.last_write_start = stored.write_start;
        self.good_epoch = stored.epoch;
        Ok(())
    }

    fn take(
        &mut self,
        stored: &Stored<'_>,
        offset: u64,
        visit: &mut dyn FnMut(&Seen<'_>),
    ) -> Result<(), ScanError> {
        let Stored { index, appended, seq, boot, producer, batch_end, tag, event, .. } = *stored;
        if batch_end && self.batch.is_empty() {
            let seen = Seen { index, offset, appended, seq, boot, producer, tag, event };
            return self.keep(stored.leaf(), &seen, visit);
        }
        let (producer, event) = (producer.to_owned(), event.into());
        let leaf = stored.leaf();
        self.batch.push(Waiting { leaf, index, offset, appended, seq, boot, producer, tag, event });
        if batch_end {
            for waiting in std::mem::take(&mut self.batch) {
                let Waiting { leaf, index, offset, appended, seq, boot, tag, ref producer, ref event } =
                    waiting;
                let seen = Seen { index, offset, appended, seq, boot, producer, tag, event };
                self.keep(leaf, &seen, visit)?;
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        leaf: Hash,
        seen: &Seen<'_>,
        visit: &mut dyn FnMut(&Seen<'_>),
    ) -> Result<(), ScanError> {
        self.out.tree.push(leaf);
        self.out.first_appended.get_or_insert(seen.appended);
        self.out.last_appended = seen.appended;
        visit(seen);
        self.check_roots()
    }

    /// Compares the tree with the checkpoints of its present size.
    fn check_roots(&mut self) -> Result<(), ScanError> {
        let size = self.out.tree.size();
        while let Some((checkpoint, rest)) = self.checkpoints.split_first() {
            if checkpoint.size() > size {
                break;
            }
            let root = if size == 0 { empty_root() } else { self.out.tree.root() };
            if checkpoint.root() != root {
                return Err(ScanError::Root { size, agreed: self.agreed });
            }
            self.agreed = size;
            self.checkpoints = rest;
        }
        Ok(())
    }

    /// Looks for good records behind a bad one: whether one of them proves that the bad one was durable.
    ///
    /// An event can't play a record: its bytes are canonical JSON, which has no zero bytes, and a record has.
    fn look_behind(
        &mut self,
        id: &SegmentId,
        window: &mut Window<'_>,
        from: u64,
        length: u64,
        expected: u64,
    ) -> Result<bool, (u64, io::Error)> {
        let mut position = from;
        while position < length {
            let bytes = window.at(position, RECORD_BYTES_MAX).map_err(|error| (position, error))?;
            let Decoded::Record(stored, taken) = decode(id, bytes) else {
                position += 1;
                continue;
            };
            self.out.epoch = self.out.epoch.max(stored.epoch);
            let mark = if stored.epoch < self.good_epoch || stored.index < expected {
                Mark::StaleRecords
            } else if stored.write_start > expected {
                return Ok(true);
            } else {
                Mark::TornWriteWithGoodRecords
            };
            self.mark(mark);
            position += taken as u64;
        }
        Ok(false)
    }

    fn mark(&mut self, mark: Mark) {
        if !self.out.marks.contains(&mark) {
            self.out.marks.push(mark);
        }
    }
}

/// A file, read in large pieces.
struct Window<'a> {
    disk: &'a dyn Disk,
    file: &'a File,
    /// As far as is known.
    length: u64,
    bytes: Vec<u8>,
    start: u64,
    /// Whether the end of the file is in it.
    whole: bool,
}

impl Window<'_> {
    /// The bytes from `position` on: `need` of them or more, fewer only at the end of the file.
    fn at(&mut self, position: u64, need: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || (position + need as u64 > end && !self.whole) {
            self.whole = false;
            let kept = position.checked_sub(self.start).and_then(|skip| self.bytes.get(skip as usize..));
            let mut bytes = kept.map(<[u8]>::to_vec).unwrap_or_default();
            let mut filled = bytes.len();
            // One more than there should be: then the end shows.
            let left = usize::try_from(self.length.saturating_sub(position)).unwrap_or(usize::MAX);
            let room = (filled.max(need) + READ_BYTES).min(left.saturating_add(1));
            bytes.resize(room.max(filled + 1), 0);
            while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
                match self.disk.read_at(self.file, room, position + filled as u64)? {
                    0 => {
                        self.whole = true;
                        break;
                    }
                    read => filled += read,
                }
            }
            bytes.truncate(filled);
            self.bytes = bytes;
            self.start = position;
        }
        Ok(self.bytes.get((position - self.start) as usize..).unwrap_or_default())
    }

    /// Whether there is something at `position`, and it is zeroes up to the end of the file.
    fn is_space(&mut self, position: u64) -> io::Result<bool> {
        // No record begins with a length of zero: most positions are answered by their first bytes.
        let bytes = self.at(position, RECORD_BYTES_MAX)?;
        let blank = !bytes.is_empty() && bytes.iter().take(size_of::<u32>()).all(|byte| *byte == 0);
        Ok(blank && self.end_of_data(position)? == position)
    }

    /// Where the zeroes begin that reach to the end of the file; `from` if there is nothing else behind it.
    fn end_of_data(&mut self, from: u64) -> io::Result<u64> {
        let (mut end, mut position) = (from, from);
        loop {
            let bytes = self.at(position, 1)?;
            if bytes.is_empty() {
                return Ok(end);
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                end = position + last as u64 + 1;
            }
            position += bytes.len() as u64;
        }
    }
}

struct Listing {
    segments: Vec<(u64, PathBuf)>,
    leftovers: Vec<PathBuf>,
}

fn list(directory: &Path) -> Result<Listing, ScanError> {
    let broken = |source| ScanError::Io { index: 0, path: directory.to_owned(), position: 0, source };
    let mut listing = Listing { segments: Vec::new(), leftovers: Vec::new() };
    for item in fs::read_dir(directory).map_err(broken)? {
        let path = item.map_err(broken)?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            listing.leftovers.push(path);
        } else if let Some(first) = path.file_name().and_then(|name| name.to_str()).and_then(first_index) {
            listing.segments.push((first, path));
        }
    }
    listing.segments.sort();
    listing.leftovers.sort();
    Ok(listing)
}
