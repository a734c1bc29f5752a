//! What happens between the opening of a directory and the first append.
//!
//! Segment by segment is read and judged, and what a crash tore is cut off. The last batch is written anew, into a
//! segment of its own: a sync that failed in an earlier life may have left it in the cache only, and a second one would
//! call it durable. All before it was synced before it was written. So a start needs room for a batch and no more, on a
//! disk that may be full of what waits here. A crash in between is recovered from in the same way.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use custody_core::log::durable;

use super::acknowledged::Acknowledged;
use super::disk::{Disk, FILE_MODE, is_full};
use super::frame::Frame;
use super::segment::{self, Contents, file_name, first_position, header, mark};
use super::{Recovery, SEGMENT_BYTES_MAX, Segment, Spool, SpoolError};

/// How often a lock is tried that another has: an agent that is just ending, or a child that it is just starting.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// [`Spool::open`] on a disk.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    directory: &Path,
    limit_bytes: u64,
    segment_bytes: u64,
) -> Result<(Spool, Recovery), SpoolError> {
    durable::create_directories(directory).map_err(failed("making", directory))?;
    let lock = lock(directory)?;
    let (acknowledged, acknowledged_to) = Acknowledged::open(directory)
        .map_err(failed("opening the file of acknowledgements in", directory))?;
    let names = list(&*disk, directory)?;

    let mut recovery = Recovery::default();
    let mut spool = Spool {
        disk,
        directory: directory.to_owned(),
        limit_bytes,
        segment_bytes,
        segments: Vec::new(),
        active: None,
        first: acknowledged_to,
        next: 0,
        last: None,
        acknowledged,
        poisoned: None,
        _lock: lock,
    };
    for (number, &first) in names.iter().enumerate() {
        spool.take_up(first, names.get(number + 1).copied(), &mut recovery)?;
    }
    if let Some(oldest) = spool.segments.first() {
        spool.first = spool.first.max(oldest.first);
    }
    // What was acknowledged was there, even if the disk has lost it: its positions aren't given again.
    spool.next = spool.next.max(spool.first);
    recovery.first = spool.first;
    recovery.next = spool.next;
    recovery.missing = (spool.next - spool.first).saturating_sub(recovery.records);
    spool.remove_acknowledged();
    match spool.poisoned.take() {
        Some(reason) => Err(SpoolError::Poisoned { reason }),
        None => Ok((spool, recovery)),
    }
}

impl Spool {
    /// Takes up the segment that begins with `first`, behind those that were taken up before, up to where the `next` one
    /// begins; the newest has none.
    fn take_up(&mut self, first: u64, next: Option<u64>, recovery: &mut Recovery) -> Result<(), SpoolError> {
        let path = self.directory.join(file_name(first));
        let bytes = self.disk.read(&path, 0, SEGMENT_BYTES_MAX).map_err(failed("reading", &path))?;
        if let Some(version) = segment::foreign_version(&bytes) {
            return Err(SpoolError::Version { path, version });
        }
        let mut contents = segment::read(&bytes, first, next);
        recovery.cut_bytes += contents.cut_bytes as u64;
        recovery.records +=
            contents.records.iter().filter(|frame| frame.position >= self.first).count() as u64;
        if let Some(last) = contents.records.last().or(contents.carried.as_ref()) {
            self.last = Some(last.payload.to_vec());
        }
        if next.is_none() {
            let before = contents.records.len() - segment::last_batch(&contents.records);
            let last_batch = contents.records.split_off(before);
            let mut renewed = Contents { carried: contents.carried, records: last_batch, cut_bytes: 0 };
            let mut start = first;
            if let (Some(before), Some(batch)) = (contents.records.last(), renewed.records.first()) {
                start = batch.position;
                renewed.carried = Some(Frame { place: 0, last_of_batch: true, carried: true, ..*before });
            }
            let (newest, whole) = Segment::lay_out(self.directory.join(file_name(start)), start, &renewed);
            self.active = Some(replace(&*self.disk, &newest.path, &whole)?);
            // A crash here leaves the batch in both; the newer one's name tells.
            if start != first {
                self.keep(path, first, &contents, &bytes)?;
            }
            self.next = self.next.max(newest.next);
            self.segments.push(newest);
            return Ok(());
        }
        self.keep(path, first, &contents, &bytes)
    }

    /// Keeps these contents of a segment that has `bytes`, and nothing else.
    fn keep(
        &mut self,
        path: PathBuf,
        first: u64,
        contents: &Contents<'_>,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        let (segment, whole) = Segment::lay_out(path, first, contents);
        if bytes.starts_with(&whole) && bytes.len() > whole.len() {
            let path = &segment.path;
            let file = self.disk.open(path).map_err(failed("opening", path))?;
            self.disk.truncate(&file, segment.bytes).map_err(failed("cutting", path))?;
            self.disk.sync(&file).map_err(failed("syncing", path))?;
        } else if bytes != whole {
            replace(&*self.disk, &segment.path, &whole)?;
        }
        self.next = self.next.max(segment.next);
        self.segments.push(segment);
        Ok(())
    }
}

impl Segment {
    /// A segment with these contents, and its bytes.
    fn lay_out(path: PathBuf, first: u64, contents: &Contents<'_>) -> (Segment, Vec<u8>) {
        let mut segment = Segment { path, first, next: first, bytes: 0, marks: Vec::new() };
        let mut bytes = header().to_vec();
        for frame in contents.carried.iter().chain(&contents.records) {
            if !frame.carried {
                mark(&mut segment.marks, frame.position, bytes.len() as u64);
                segment.next = frame.position + 1;
            }
            frame.encode(&mut bytes);
        }
        segment.bytes = bytes.len() as u64;
        (segment, bytes)
    }
}

/// Makes `path` a file with `bytes` in it: after a crash it is the one before, if any, or this one, whole and durable.
///
/// # Errors
/// [`SpoolError::DiskFull`]: nothing has changed. [`SpoolError::Io`]: it isn't known which of the two a crash would leave.
pub(super) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<File, SpoolError> {
    let unfinished = path.with_extension(durable::UNFINISHED);
    let written = write_unfinished(disk, &unfinished, bytes);
    if written.is_err() {
        // What is left over is removed at the next opening or attempt.
        disk.remove(&unfinished).ok();
    }
    let file = written?;
    disk.rename(&unfinished, path).map_err(failed("renaming to", path))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    disk.sync_directory(directory).map_err(failed("syncing the directory", directory))?;
    Ok(file)
}

fn write_unfinished(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<File, SpoolError> {
    let full = |source: io::Error, what| {
        let path = path.to_owned();
        if is_full(&source) {
            SpoolError::DiskFull { path, source }
        } else {
            SpoolError::Io { what, path, source }
        }
    };
    if let Err(source) = disk.remove(path)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(failed("removing", path)(source));
    }
    let file = disk.create(path).map_err(|source| full(source, "making"))?;
    disk.write_at(&file, bytes, 0).map_err(|source| full(source, "writing to"))?;
    // Full or not: after a failed sync nothing is known.
    disk.sync(&file).map_err(failed("syncing", path))?;
    Ok(file)
}

/// The first positions of the segments that are there, in order. Removes what isn't finished.
fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, SpoolError> {
    let mut firsts = Vec::new();
    for item in fs::read_dir(directory).map_err(failed("reading", directory))? {
        let path = item.map_err(failed("reading", directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if let Some(first) = first_position(name) {
            firsts.push(first);
        } else if path.extension().is_some_and(|extension| extension == durable::UNFINISHED) {
            disk.remove(&path).map_err(failed("removing", &path))?;
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Makes this process the only one that uses the spool.
fn lock(directory: &Path) -> Result<File, SpoolError> {
    let path = directory.join("lock");
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = options.open(&path).map_err(failed("opening", &path))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(failed("locking", &path)(source)),
        }
    }
    Err(SpoolError::InUse { directory: directory.to_owned() })
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path: PathBuf = path.to_owned();
    move |source| SpoolError::Io { what, path, source }
}
