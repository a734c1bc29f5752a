//! A bounded queue on disk between the agent and the log: what the kernel told isn't lost while the log is away.
//!
//! ```text
//! <directory>/lock                                held by the process that uses the spool
//! <directory>/00000000000000000000.seg            records; the name is the first one's position
//! <directory>/acknowledged                        how far the log has them; may be lost at no cost but sending again
//! ```
//!
//! A record's position counts from 0 and is never given twice. What [`Spool::append`] has taken survives the loss of
//! power; what it refused isn't there. Whole segments go when all their records are acknowledged; the newest one stays
//! always, so the last record can be read after all was sent and after a restart: numbering goes on from it.

mod acknowledged;
mod disk;
mod frame;
mod recover;
pub mod reserve;
mod segment;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::acknowledged::Acknowledged;
pub(crate) use self::disk::is_full;
use self::disk::{Disk, RealDisk};
pub use self::frame::RECORD_BYTES_MAX;
use self::frame::{Decoded, FRAME_BYTES, FRAMED_BYTES_MAX, Frame, decode};
use self::segment::{HEADER_BYTES, Mark, file_name, header, mark};

/// The least limit of a spool: some of the longest records must fit into it; bytes.
pub const LIMIT_BYTES_MIN: u64 = 1 << 20;
/// The most that one append may take: what is written at once is in memory at once; bytes.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// A segment gets no further batch when it is as long as this: what is acknowledged lies on the disk for so long; bytes.
const SEGMENT_BYTES: u64 = 1 << 20;
/// The longest segment that there can be: header, carried record, and a last batch that begins just below the limit.
const SEGMENT_BYTES_MAX: usize = HEADER_BYTES + FRAMED_BYTES_MAX + SEGMENT_BYTES as usize + BATCH_BYTES_MAX;
/// What is read at once; bytes. The longest record fits into it.
const READ_BYTES: usize = 256 << 10;

/// Why the spool doesn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("the spool {directory} is in use by another process: stop that agent first")]
    InUse {
        /// The spool's directory.
        directory: PathBuf,
    },
    /// Its limit is too small.
    #[error("a spool needs a limit of at least {LIMIT_BYTES_MIN} bytes, not {limit}: raise it")]
    Limit {
        /// What was asked for; bytes.
        limit: u64,
    },
    /// A newer program wrote it.
    #[error(
        "{path} has the format {version} of another version of this program: start that one, or let it send all first"
    )]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// A record or a batch of a length that isn't taken. Nothing was appended.
    #[error(
        "{what} of {bytes} bytes can't be spooled: a record has 1 to {RECORD_BYTES_MAX} bytes, a batch at most {BATCH_BYTES_MAX}"
    )]
    Length {
        /// `record` or `batch`.
        what: &'static str,
        /// Its length; bytes.
        bytes: usize,
    },
    /// The limit would be passed. Nothing was appended.
    #[error(
        "the spool is full: {bytes} of {limit} bytes are used and the log has not acknowledged them; is the log reachable?"
    )]
    Full {
        /// On the disk now; bytes.
        bytes: u64,
        /// The limit; bytes.
        limit: u64,
    },
    /// The disk has no more room. Nothing was appended; it may be tried again.
    #[error("the disk is full at {path}: {source}; make room")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A record that was whole when the spool was opened isn't any more.
    #[error(
        "{path} is damaged at position {position}: the disk loses data; a restart keeps what is whole and tells what is missing"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// The record that can't be read.
        position: u64,
    },
    /// The system refuses something.
    #[error("{what} {path} failed: {source}")]
    Io {
        /// What was tried, as `syncing`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An earlier failure left it unknown what is on the disk, so nothing is taken any more.
    #[error("the spool takes nothing since {reason}: check the disk and restart the agent")]
    Poisoned {
        /// What failed.
        reason: String,
    },
}

/// What was found at the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes that belonged to no whole record and were cut off: an append that a crash interrupted, or damage.
    pub cut_bytes: u64,
    /// Records that wait for their acknowledgement.
    pub records: u64,
    /// Positions between `first` and `next` of which there is no record: the disk has lost what it had.
    pub missing: u64,
    /// The first position that isn't acknowledged.
    pub first: u64,
    /// The position of the next record.
    pub next: u64,
}

/// The queue. One process has it at a time.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    limit_bytes: u64,
    /// A segment gets no further batch when it is as long as this.
    segment_bytes: u64,
    /// By position; none only as long as nothing was ever appended.
    segments: Vec<Segment>,
    /// The newest segment, open for writing.
    active: Option<File>,
    first: u64,
    next: u64,
    last: Option<Vec<u8>>,
    acknowledged: Acknowledged,
    poisoned: Option<String>,
    /// Held as long as this value lives.
    _lock: File,
}

/// A segment file that is in order from its start to `bytes`.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    first: u64,
    /// Behind the last record.
    next: u64,
    bytes: u64,
    marks: Vec<Mark>,
}

impl Spool {
    /// Opens the spool in `directory`, makes it if it isn't there, and puts in order what a crash left. It will take up
    /// to `limit_bytes` of the disk, and a segment more while one replaces another. What lies there beyond a limit that
    /// has become smaller stays until it is acknowledged.
    ///
    /// # Errors
    /// [`SpoolError::InUse`], [`SpoolError::Limit`], [`SpoolError::Version`]; [`SpoolError::DiskFull`] when there is no
    /// room for the last batch to be written again; [`SpoolError::Io`], and [`SpoolError::Poisoned`] when what was
    /// acknowledged can't be removed. No record is lost by any of them.
    pub fn open(directory: &Path, limit_bytes: u64) -> Result<(Spool, Recovery), SpoolError> {
        if limit_bytes < LIMIT_BYTES_MIN {
            return Err(SpoolError::Limit { limit: limit_bytes });
        }
        recover::open(Arc::new(RealDisk), directory, limit_bytes, SEGMENT_BYTES)
    }

    /// Appends records of 1 to [`RECORD_BYTES_MAX`] bytes. When it returns they are durable; after a crash before that,
    /// either all are there or none.
    ///
    /// # Errors
    /// [`SpoolError::Full`], [`SpoolError::DiskFull`] and [`SpoolError::Length`]: nothing was appended, and the spool
    /// goes on. Any other: it isn't known whether they were, the spool takes nothing more ([`SpoolError::Poisoned`]),
    /// and the next opening tells. A failed sync isn't tried again, since the kernel would say that all is well.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<(), SpoolError> {
        if let Some(reason) = &self.poisoned {
            return Err(SpoolError::Poisoned { reason: reason.clone() });
        }
        let Some(last) = records.last() else { return Ok(()) };
        let batch = self.encode(records)?;
        let mut segment_is_full =
            self.segments.last().is_none_or(|newest| newest.bytes >= self.segment_bytes);
        let beginning = (HEADER_BYTES + self.last.as_ref().map_or(0, |last| FRAME_BYTES + last.len())) as u64;
        let added = batch.len() as u64 + if segment_is_full { beginning } else { 0 };
        if self.bytes().saturating_add(added) > self.limit_bytes {
            // When all is acknowledged a new segment makes room: the old ones go.
            if self.first < self.next || batch.len() as u64 + beginning > self.limit_bytes {
                return Err(SpoolError::Full { bytes: self.bytes(), limit: self.limit_bytes });
            }
            segment_is_full = true;
        }
        if segment_is_full {
            self.begin_segment(&batch)?
        } else {
            self.extend_segment(&batch)?
        }

        // All of it is durable: now it exists.
        if let Some(newest) = self.segments.last_mut() {
            for record in records {
                mark(&mut newest.marks, self.next, newest.bytes);
                newest.bytes += (FRAME_BYTES + record.len()) as u64;
                self.next += 1;
            }
            newest.next = self.next;
        }
        self.last = Some(last.to_vec());
        self.remove_acknowledged();
        Ok(())
    }

    /// Up to `max_records` records from position `from` on, or from the first that isn't acknowledged, with their
    /// positions, which have gaps where [`Recovery::missing`] told of some. At most `max_bytes` of them, but one at
    /// least if there is one.
    ///
    /// # Errors
    /// [`SpoolError::Io`] and [`SpoolError::Damaged`]: the disk doesn't give back what it took.
    pub fn read(
        &self,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, SpoolError> {
        let from = from.max(self.first);
        let mut read = Vec::new();
        if max_records == 0 {
            return Ok(read);
        }
        let mut left = max_bytes;
        for segment in self.segments.iter().skip_while(|segment| segment.next <= from) {
            let more = segment.read(&*self.disk, from, |position, payload| {
                if payload.len() > left && !read.is_empty() {
                    return false;
                }
                left = left.saturating_sub(payload.len());
                read.push((position, payload.to_vec()));
                read.len() < max_records && left > 0
            })?;
            if !more {
                break;
            }
        }
        Ok(read)
    }

    /// Tells that the log has everything before position `next` durably: it may go. After a crash some of it may be
    /// sent again, never less than all that wasn't acknowledged.
    pub fn acknowledge(&mut self, next: u64) {
        let next = next.min(self.next);
        if next <= self.first {
            return;
        }
        self.first = next;
        // Should this fail, a restart sends again what was sent already.
        self.acknowledged.set(next).ok();
        self.remove_acknowledged();
    }

    /// The first position that isn't acknowledged; [`Spool::next`] when all is.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The position that the next record gets.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What lies on the disk; bytes. It counts against the limit, and falls by whole segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The last record that was ever appended, acknowledged or not.
    #[must_use]
    pub fn last(&self) -> Option<&[u8]> {
        self.last.as_deref()
    }

    /// The bytes of a batch that begins at the next position.
    fn encode(&self, records: &[&[u8]]) -> Result<Vec<u8>, SpoolError> {
        if let Some(record) = records.iter().find(|record| !(1..=RECORD_BYTES_MAX).contains(&record.len())) {
            return Err(SpoolError::Length { what: "a record", bytes: record.len() });
        }
        let bytes = records.iter().map(|record| FRAME_BYTES + record.len()).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(SpoolError::Length { what: "a batch", bytes });
        }
        let mut batch = Vec::with_capacity(bytes);
        for (place, payload) in (0..).zip(records) {
            let last_of_batch = place as usize + 1 == records.len();
            let position = self.next + u64::from(place);
            Frame { position, place, last_of_batch, carried: false, payload }.encode(&mut batch);
        }
        Ok(batch)
    }

    /// Writes a batch behind the newest segment's end and syncs it. A crash up to the end of the sync leaves a batch
    /// that isn't whole, or is; both are known by its frames.
    fn extend_segment(&mut self, batch: &[u8]) -> Result<(), SpoolError> {
        let (Some(newest), Some(file)) = (self.segments.last(), &self.active) else {
            return Err(self.poison("writing to", self.directory.clone(), io::ErrorKind::NotFound.into()));
        };
        let path = newest.path.clone();
        if let Err(source) = self.disk.write_at(file, batch, newest.bytes) {
            if !is_full(&source) {
                return Err(self.poison("writing to", path, source));
            }
            // What was refused must not come alive after a crash.
            let undone = self.disk.truncate(file, newest.bytes).and_then(|()| self.disk.sync(file));
            return Err(match undone {
                Ok(()) => SpoolError::DiskFull { path, source },
                Err(source) => self.poison("taking back what the full disk took of", path, source),
            });
        }
        self.disk.sync(file).map_err(|source| self.poison("syncing", path, source))
    }

    /// Makes a segment with a batch in it. A crash up to the rename leaves a file that the next opening removes.
    fn begin_segment(&mut self, batch: &[u8]) -> Result<(), SpoolError> {
        let mut bytes = header().to_vec();
        if let (Some(payload), Some(position)) = (&self.last, self.next.checked_sub(1)) {
            Frame { position, place: 0, last_of_batch: true, carried: true, payload }.encode(&mut bytes);
        }
        let beginning = bytes.len() as u64;
        bytes.extend_from_slice(batch);
        let path = self.directory.join(file_name(self.next));
        match recover::replace(&*self.disk, &path, &bytes) {
            Ok(file) => self.active = Some(file),
            Err(SpoolError::Io { what, path, source }) => return Err(self.poison(what, path, source)),
            Err(other) => return Err(other),
        }
        self.segments.push(Segment {
            path,
            first: self.next,
            next: self.next,
            bytes: beginning,
            marks: Vec::new(),
        });
        Ok(())
    }

    /// Removes the segments of which all is acknowledged, but the newest. The oldest first, each durably: what a crash
    /// leaves has no gap in it.
    fn remove_acknowledged(&mut self) {
        while let [oldest, _, ..] = self.segments.as_slice() {
            if oldest.next > self.first || self.poisoned.is_some() {
                return;
            }
            let path = oldest.path.clone();
            let removed = match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.disk.sync_directory(&self.directory),
            };
            if let Err(source) = removed {
                // The next append tells it.
                drop(self.poison("removing", path, source));
                return;
            }
            self.segments.remove(0);
        }
    }

    /// From now on nothing is taken.
    fn poison(&mut self, what: &'static str, path: PathBuf, source: io::Error) -> SpoolError {
        let error = SpoolError::Io { what, path, source };
        self.poisoned = Some(error.to_string());
        error
    }
}

impl Segment {
    /// Hands the records from position `from` on to `take`, as long as it wants more; says whether it still does.
    fn read(
        &self,
        disk: &dyn Disk,
        from: u64,
        mut take: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<bool, SpoolError> {
        let before = self.marks.partition_point(|mark| mark.position <= from);
        let Some(start) = before.checked_sub(1).and_then(|at| self.marks.get(at)).or(self.marks.first())
        else {
            return Ok(true);
        };
        let (mut offset, mut position) = (start.offset, start.position);
        while offset < self.bytes {
            let bytes = disk.read(&self.path, offset, READ_BYTES).map_err(|source| SpoolError::Io {
                what: "reading",
                path: self.path.clone(),
                source,
            })?;
            let mut at = 0;
            while offset + (at as u64) < self.bytes
                && let Decoded::Record(frame) = decode(bytes.get(at..).unwrap_or_default())
            {
                at += frame.bytes();
                position = frame.position + 1;
                if frame.position >= from && !frame.carried && !take(frame.position, frame.payload) {
                    return Ok(false);
                }
            }
            if at == 0 {
                return Err(SpoolError::Damaged { path: self.path.clone(), position });
            }
            offset += at as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
