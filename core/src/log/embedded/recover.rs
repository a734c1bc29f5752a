//! What happens between the opening of a directory and the first append.
//!
//! First everything is read and judged ([`scan`]), then everything that a crash left is put in order. Whatever
//! is refused is refused before the first change. Each step may be cut short by a crash and is then done again.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::dedupe::Dedupe;
use super::durable::{Disk, replace_file_on, write_either_on, write_file_on};
use super::preallocate::{EXTENT_BYTES_MIN, RESERVE_BYTES};
use super::scan::{Mark, Scan, ScanError, ScannedSegment, scan};
use super::segment::{HEADER_BYTES, SegmentId};
use super::view::Published;
use crate::log::checkpoint::CheckpointError;
use crate::log::tree::{TILE_LEAVES, empty_root};
use crate::log::{Checkpoint, Nanos, Signer, cosigned};

/// A checkpoint is public; so are the entries to those who may read the directory.
const CHECKPOINT_MODE: u32 = 0o644;
const SEGMENT_MODE: u32 = 0o600;
const CHECKPOINT_BYTES_MAX: u64 = 1 << 20;
const COPY_BYTES: usize = 1 << 20;

/// Why a log isn't opened. The directory is as it was, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the log {directory} is in use by process {pid}: only one may write; stop it first")]
    InUse {
        /// The log's directory.
        directory: PathBuf,
        /// Who says that it uses it; `unknown` if it didn't say.
        pid: String,
    },
    /// Acknowledged entries are missing or changed.
    #[error(
        "{source}. Nothing was changed; don't delete anything: bring it back from a sink's copy with \
         `custody log restore --from SINK`, or put back the file from another (a witness's, a backup newer than the \
         checkpoint), and start again"
    )]
    Damaged {
        /// What is wrong, and where.
        source: ScanError,
    },
    /// Entries were being brought here, and nothing vouches for them yet.
    #[error(
        "{directory} has entries behind the first {own} that are of {what}, which was cut off: nothing vouches for them yet. \
         Nothing was changed: run the same command again, which goes on with them or takes them back"
    )]
    Unfinished {
        /// The log's directory.
        directory: PathBuf,
        /// How many entries were there before.
        own: u64,
        /// What has brought the others.
        what: String,
    },
    /// There are segments, but no checkpoint says how many entries they should hold.
    #[error(
        "{path} is missing though there are entries, so nothing says how long the log was. Nothing was changed: \
         put back the newest checkpoint from a copy and start again"
    )]
    NoCheckpoint {
        /// Where it should be.
        path: PathBuf,
    },
    /// The checkpoint isn't by this key, or isn't one.
    #[error("{path} isn't a checkpoint of this log: {source}. Nothing was changed: is it the right key?")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// The key couldn't sign.
    #[error("the log's first checkpoint can't be signed: {0}")]
    Signing(CheckpointError),
    /// The system refuses something. Recovery was cut short, and is done again at the next start.
    #[error("opening the log failed at {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What was found and put in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries in the log.
    pub entries: u64,
    /// Bytes of an unfinished write that were cut off; nobody had a receipt for them. Zeroes that lay ready don't count.
    pub cut_bytes: u64,
    /// Bytes behind the last checkpoint that were written and synced again.
    pub rewritten_bytes: u64,
    /// What else was met.
    pub marks: Vec<Mark>,
}

/// A log that is in order, ready for its writer.
pub(super) struct Opened {
    pub published: Published,
    pub dedupe: Dedupe,
    pub segment: OpenSegment,
    pub checkpoint: Checkpoint,
    pub epoch: u32,
    /// Bytes of headers and records in all segments.
    pub disk_bytes: u64,
    pub last_appended: Nanos,
    pub recovery: Recovery,
}

/// The segment that is written to.
pub(super) struct OpenSegment {
    pub id: SegmentId,
    pub path: PathBuf,
    pub file: File,
    /// The end of the last record.
    pub end: u64,
    /// The end of the zeroes behind it, which lie ready for the next ones.
    pub ready: u64,
}

/// Reads, judges and repairs the log in `directory`.
pub(super) fn open(disk: &dyn Disk, directory: &Path, signer: &dyn Signer) -> Result<Opened, OpenError> {
    let key = signer.verifier_key();
    let segments = directory.join("segments");
    let checkpoint_path = directory.join("checkpoint");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };

    let stored = read_checkpoint(disk, &checkpoint_path)?;
    let stored = stored
        .map(|note| Checkpoint::verify(&note, &key))
        .transpose()
        .map_err(|source| OpenError::Checkpoint { path: checkpoint_path.clone(), source })?;
    let mut dedupe = Dedupe::new();
    let mut offsets = Vec::new();
    // What a witness has cosigned was signed, too, whatever became of the checkpoint since.
    let cosigned = read_checkpoint(disk, &directory.join(cosigned::FILE))?;
    let cosigned = cosigned.and_then(|note| Checkpoint::verify(&note, &key).ok());
    let mut known: Vec<Checkpoint> = stored.iter().cloned().chain(cosigned).collect();
    known.sort_by_key(Checkpoint::size);
    let mut found = scan(disk, &segments, key.name(), &known, &mut |seen| {
        if seen.index % TILE_LEAVES == 0 {
            offsets.push(seen.offset);
        }
        dedupe.recover(seen.producer, seen.boot, seen.seq, seen.index);
    })
    .map_err(|source| OpenError::Damaged { source })?;
    let checkpoint = match stored {
        Some(checkpoint) => checkpoint,
        None if found.segments.is_empty() && found.unfinished.is_none() => {
            // A new log. It is signed as empty before it holds anything, so a missing checkpoint always tells.
            let empty = Checkpoint::sign(0, empty_root(), signer).map_err(OpenError::Signing)?;
            write_checkpoint(disk, &checkpoint_path, &empty).map_err(failed(&checkpoint_path))?;
            empty
        }
        None => return Err(OpenError::NoCheckpoint { path: checkpoint_path }),
    };

    // From here on things are changed.
    let mut recovery = Recovery { entries: found.tree.size(), ..Recovery::default() };
    for path in found.leftovers.iter().chain(&found.unfinished) {
        disk.remove(path).map_err(failed(path))?;
    }
    for segment in &found.segments {
        let (cut, rewritten) = repair(disk, segment).map_err(failed(&segment.path))?;
        recovery.cut_bytes += cut;
        recovery.rewritten_bytes += rewritten;
    }
    // Names: those just removed, and those whose sync a crash may have forestalled.
    disk.sync_directory(&segments).map_err(failed(&segments))?;
    disk.sync_directory(directory).map_err(failed(directory))?;
    if recovery.cut_bytes > 0 {
        found.marks.push(Mark::TailCut);
    }
    if recovery.rewritten_bytes > 0 {
        found.marks.push(Mark::TailRewritten);
    }

    let segment = match found.segments.last() {
        Some(last) => OpenSegment {
            id: last.id,
            path: last.path.clone(),
            file: open_for_writing(&last.path).map_err(failed(&last.path))?,
            end: last.end,
            ready: last.end,
        },
        None => create_segment(disk, &segments, key.name(), 0, RESERVE_BYTES + EXTENT_BYTES_MIN)
            .map_err(failed(&segments))?,
    };
    let mut ids: Vec<SegmentId> = found.segments.iter().map(|segment| segment.id).collect();
    if ids.is_empty() {
        ids.push(segment.id);
    }
    let checkpoint = if found.tree.size() > checkpoint.size() {
        let newer =
            Checkpoint::sign(found.tree.size(), found.tree.root(), signer).map_err(OpenError::Signing)?;
        write_checkpoint(disk, &checkpoint_path, &newer).map_err(failed(&checkpoint_path))?;
        newer
    } else {
        checkpoint
    };
    let disk_bytes = match found.segments.as_slice() {
        [] => segment.end,
        segments => segments.iter().map(|segment| segment.end).sum(),
    };
    let Scan { tree, epoch, last_appended, marks, .. } = found;
    recovery.marks = marks;
    Ok(Opened {
        published: Published::new(tree, ids, offsets),
        dedupe,
        segment,
        checkpoint,
        epoch: epoch.saturating_add(1),
        disk_bytes,
        last_appended,
        recovery,
    })
}

/// Cuts what lies behind the last whole batch (an unfinished write, and the space that lay ready), and writes again
/// what no checkpoint covers. Gives the bytes of the unfinished write and those rewritten.
///
/// After a sync that failed, the kernel shows blocks that never reached the disk, and says so only once. Writing the
/// same bytes to the same place doesn't help: ext4 has the blocks down as never written, and goes on to have them so
/// when a later sync succeeds. So the good part is copied into a new file, whose own sync tells the truth, and takes
/// the old one's name. A segment without records is made anew for the same reason: its name may not be durable.
pub(super) fn repair(disk: &dyn Disk, segment: &ScannedSegment) -> io::Result<(u64, u64)> {
    let cut = segment.length - segment.end;
    let from = segment.unsigned_from.unwrap_or(segment.end);
    if segment.torn == 0 && from >= segment.end && segment.end > HEADER_BYTES as u64 {
        // All that counts was synced before it was signed: only space that lay ready goes.
        if cut > 0 {
            let file = open_for_writing(&segment.path)?;
            disk.truncate(&file, segment.end)?;
            disk.sync(&file)?;
        }
        return Ok((0, 0));
    }
    let old = File::open(&segment.path)?;
    replace_file_on(disk, &segment.path, SEGMENT_MODE, |new| {
        let mut bytes = vec![0; COPY_BYTES];
        let mut position = 0;
        while position < segment.end {
            let want = usize::try_from(segment.end - position).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let read = match bytes.get_mut(..want) {
                Some(room) => disk.read_at(&old, room, position)?,
                None => 0,
            };
            let Some(piece) = bytes.get(..read).filter(|piece| !piece.is_empty()) else {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter meanwhile",
                ));
            };
            disk.write_at(new, piece, position)?;
            position += read as u64;
        }
        Ok(())
    })?;
    Ok((segment.torn, segment.end - from))
}

/// Creates the segment that starts with index `first`: whole under its name, or not at all. Its first `ready` bytes of
/// space lie ready.
pub(super) fn create_segment(
    disk: &dyn Disk,
    segments: &Path,
    origin: &str,
    first: u64,
    ready: u64,
) -> io::Result<OpenSegment> {
    let id = SegmentId::new(origin, first);
    let path = segments.join(id.file_name());
    let mut bytes = id.header().to_vec();
    bytes.resize(HEADER_BYTES.saturating_add(usize::try_from(ready).unwrap_or(0)), 0);
    let file = write_file_on(disk, &path, &bytes, SEGMENT_MODE)?;
    Ok(OpenSegment { id, path, file, end: HEADER_BYTES as u64, ready: bytes.len() as u64 })
}

/// Replaces the checkpoint durably. The old one stays as true as the new one, so a disk that is full is no more than that,
/// whichever step says so.
pub(super) fn write_checkpoint(disk: &dyn Disk, path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    write_either_on(disk, path, checkpoint.to_string().as_bytes(), CHECKPOINT_MODE)
}

/// The text of the checkpoint file; `None` if there is no such file.
pub(super) fn read_checkpoint(disk: &dyn Disk, path: &Path) -> Result<Option<String>, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let length = file.metadata().map_err(failed)?.len().min(CHECKPOINT_BYTES_MAX);
    let mut bytes = vec![0; length as usize];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match disk.read_at(&file, room, filled as u64).map_err(failed)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    // What isn't UTF-8 isn't a note; its reader says so.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

pub(super) fn open_for_writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}
