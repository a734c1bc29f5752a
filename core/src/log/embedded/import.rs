//! A copy of a log: entries that were appended elsewhere, with the times that they have there, under the log's own
//! checkpoint. A witness's copy grows like this, a backup is put back like this, and what a witness has is brought back
//! like this.
//!
//! The copy is a log directory like any other. What isn't sealed by a checkpoint of the log is nobody's evidence yet:
//! [`EmbeddedLog::open`](super::EmbeddedLog::open) refuses a directory that was never sealed, and one in which more lies
//! than is sealed ([`finished`]); and a copy that turns out to be wrong is taken back to its last seal
//! ([`Import::rewind`]), or to what was there before ([`Import::own`]).

use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::durable::{self, Disk, RealDisk};
use super::recover::{self, OpenError, OpenSegment};
use super::scan::{ScanError, scan};
use super::segment::{HEADER_BYTES, SegmentId, Stored};
use super::unfinished::{self, Note};
use super::view::{Published, Shown, View};
use crate::event::{Event, Family};
use crate::log::tree::{TILE_LEAVES, Tree, leaf_hash};
use crate::log::{
    Checkpoint, EVENT_BYTES_MAX, Entry, Hash, Log, Nanos, PRODUCER_ID_BYTES_MAX, Pending, ReadError, Record,
    Statistics, SubmitError, VerifierKey,
};

/// A segment of a copy that is this long gets a successor; bytes.
const SEGMENT_BYTES: u64 = 64 << 20;
/// So much is written and synced at once; bytes.
const WRITE_BYTES: usize = 4 << 20;
/// The tag of a family that this program doesn't know: the tag isn't in the event, and no family has it.
const TAG_UNKNOWN: u8 = 0;
/// What is told of an import that its caller didn't name.
const UNNAMED: &str = "a copy";

/// Why a copy can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The directory isn't a copy that can be gone on with.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was given isn't an event of a Custody log. Nothing of it was kept.
    #[error("entry {index} can't be kept: {reason}")]
    Entry {
        /// Where it would have stood.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// The entries aren't those that the checkpoint covers.
    #[error("the {size} entries give the root {got}, and {expected} was signed")]
    Root {
        /// How many entries there are.
        size: u64,
        /// The root over them.
        got: Hash,
        /// The checkpoint's.
        expected: Hash,
    },
    /// The checkpoint covers another number of entries.
    #[error("the checkpoint covers {signed} entries, here are {size}")]
    Size {
        /// How many entries are here.
        size: u64,
        /// How many it covers.
        signed: u64,
    },
    /// What is here can't be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk failed. Nothing more is believed until the copy is opened again.
    #[error("the copy can't be written at {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A copy that is being written. Whoever has it is the only one who writes to its directory.
pub struct Import {
    directory: PathBuf,
    key: VerifierKey,
    view: Arc<View>,
    segment: OpenSegment,
    epoch: u32,
    segment_bytes: u64,
    last_appended: Nanos,
    buffer: Vec<u8>,
    staged: Vec<Shown>,
    /// The tree with what is staged.
    tree: Tree,
    sealed: Option<watch::Sender<Checkpoint>>,
    /// A checkpoint of the log that covers more than is here: the end was lost, and is expected back.
    lost: Option<Checkpoint>,
    /// How many entries are vouched for: by a seal, by the caller, or since they were here before all imports.
    own: u64,
    /// Whether the note stands that says that there are more.
    noted: bool,
    /// What is being done, for that note.
    what: String,
    failed: bool,
    _lock: File,
}

impl Import {
    /// Begins a copy of the log whose key is `key` in `directory`, or goes on with one: with all whole entries that are
    /// there, sealed or not. Each of them is shown to `visit` first. The directory of a log that isn't running is as
    /// good as a copy's; and one whose end is lost, though its checkpoint covers it, is one to go on with: see
    /// [`Import::lost`]. Where an import was cut off, what it has written is gone on with as well: see [`Import::own`].
    ///
    /// # Errors
    /// [`OpenError`], as for a log.
    pub fn begin(
        directory: &Path,
        key: &VerifierKey,
        visit: &mut dyn FnMut(u64, Nanos, &[u8]),
    ) -> Result<Import, OpenError> {
        let segments = directory.join("segments");
        durable::create_directories(&segments)
            .map_err(|source| OpenError::Io { path: segments.clone(), source })?;
        let lock = super::lock(directory)?;
        let note = Note::read(directory)?;
        let found = Found::read(directory, key, visit)?;
        let (here, sealed) = (found.tree.size(), found.checkpoint.as_ref().map_or(0, Checkpoint::size));
        let view = Arc::new(View::new(Arc::new(RealDisk), segments, found.published));
        Ok(Import {
            directory: directory.to_owned(),
            key: key.clone(),
            view,
            segment: found.segment,
            epoch: found.epoch,
            segment_bytes: SEGMENT_BYTES,
            last_appended: found.last_appended,
            buffer: Vec::new(),
            staged: Vec::new(),
            tree: found.tree,
            sealed: found.checkpoint.map(|checkpoint| watch::channel(checkpoint).0),
            lost: found.lost,
            own: note.as_ref().map_or(here, |note| note.own.max(sealed).min(here)),
            noted: note.is_some(),
            what: note.map_or_else(|| UNNAMED.to_owned(), |note| note.what),
            failed: false,
            _lock: lock,
        })
    }

    /// The same, and whoever finds it cut off is told that it was `what`: a command, in one line.
    #[must_use]
    pub fn named(mut self, what: &str) -> Import {
        what.clone_into(&mut self.what);
        self
    }

    /// How many entries the copy has, sealed or not: the index of the next one.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The root over all of them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// When the last of them was appended.
    #[must_use]
    pub fn last_appended(&self) -> Nanos {
        self.last_appended
    }

    /// The checkpoint that seals the copy, once there is one.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.sealed.as_ref().map(|sealed| sealed.borrow().clone())
    }

    /// How many entries, from the first on, are vouched for: those that are sealed, and those that were here before
    /// anything was brought. The others may be anything, and are to be sealed or taken back ([`Import::rewind_to`]).
    #[must_use]
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Whether entries may be on the disk that nothing vouches for: until they are sealed or taken back, the directory
    /// isn't opened as a log. So it is also right after [`Import::begin`] where an import was cut off.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.noted
    }

    /// The checkpoint that covers more entries than are here, where there is one. Nothing is sealed then until they are
    /// back.
    #[must_use]
    pub fn lost(&self) -> Option<&Checkpoint> {
        self.lost.as_ref()
    }

    /// Entries from index `from` on that were flushed, sealed or not; as [`Log::read`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        self.view.read(from, max_entries, max_bytes)
    }

    /// Adds the next entry: `event` as the log has it, appended there at `appended`. It is durable at the next
    /// [`Import::seal`] at the latest.
    ///
    /// # Errors
    /// [`ImportError::Entry`] for what no log has; then the copy is as before. [`ImportError::Io`] ends it.
    pub fn push(&mut self, appended: Nanos, event: &[u8]) -> Result<u64, ImportError> {
        let index = self.size();
        let refused = |reason: &str| ImportError::Entry { index, reason: reason.to_owned() };
        if event.is_empty() || event.len() > EVENT_BYTES_MAX {
            return Err(refused("an event has 1 to 65,535 bytes"));
        }
        if appended < self.last_appended {
            return Err(refused("it was appended before the one before it"));
        }
        let parsed = Event::parse(event).map_err(|error| refused(&format!("it is no event: {error}")))?;
        let producer = &parsed.producer;
        if producer.id.is_empty() || producer.id.len() > PRODUCER_ID_BYTES_MAX {
            return Err(refused("a producer's id has 1 to 128 bytes"));
        }
        let tag = Family::of(&parsed.kind).map_or(TAG_UNKNOWN, Family::tag);
        if self.segment.end + self.buffer.len() as u64 >= self.segment_bytes {
            self.write_noted()?;
            self.rotate()?;
        }
        let offset = self.segment.end + self.buffer.len() as u64;
        let stored = Stored {
            batch_end: true,
            tag,
            epoch: self.epoch,
            index,
            write_start: index - self.staged.len() as u64,
            appended,
            seq: producer.seq,
            boot: producer.boot,
            producer: &producer.id,
            event,
        };
        stored.encode(&self.segment.id, &mut self.buffer);
        let leaf = leaf_hash(event);
        self.tree.push(leaf);
        self.last_appended = appended;
        let bytes = Bytes::copy_from_slice(event);
        self.staged.push(Shown { entry: Entry { index, appended, tag, bytes }, leaf, offset });
        if self.buffer.len() >= WRITE_BYTES {
            self.write_noted()?;
        }
        Ok(index)
    }

    /// Makes durable what was pushed, and vouches for it: it is the log's, though nothing seals it. For what was in this
    /// log before, and for what is held against a checkpoint otherwise. A crash before leaves whole entries up to some
    /// index.
    ///
    /// # Errors
    /// [`ImportError::Io`]: nothing more is believed until the copy is opened again.
    pub fn flush(&mut self) -> Result<(), ImportError> {
        self.write()?;
        self.vouch()
    }

    /// Writes what nothing vouches for yet; first of all it is noted.
    fn write_noted(&mut self) -> Result<(), ImportError> {
        if !self.noted && !self.buffer.is_empty() {
            let note = Note { own: self.own, what: self.what.clone() };
            if let Err(source) = note.leave(&self.directory) {
                self.failed = true;
                return Err(ImportError::Io { path: unfinished::path(&self.directory), source });
            }
            self.noted = true;
        }
        self.write()
    }

    /// All that is here is the log's.
    fn vouch(&mut self) -> Result<(), ImportError> {
        self.own = self.size();
        self.forget_note()
    }

    fn forget_note(&mut self) -> Result<(), ImportError> {
        if self.noted {
            if let Err(source) = unfinished::forget(&self.directory) {
                self.failed = true;
                return Err(ImportError::Io { path: unfinished::path(&self.directory), source });
            }
            self.noted = false;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), ImportError> {
        let path = self.segment.path.clone();
        let failed = |source| ImportError::Io { path, source };
        if self.failed {
            return Err(failed(io::Error::other("an earlier write failed: open the copy again")));
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = RealDisk
            .write_at(&self.segment.file, &self.buffer, self.segment.end)
            .and_then(|()| RealDisk.sync(&self.segment.file));
        if let Err(source) = written {
            self.failed = true;
            return Err(failed(source));
        }
        self.segment.end += self.buffer.len() as u64;
        self.buffer.clear();
        self.view.publish(std::mem::take(&mut self.staged));
        Ok(())
    }

    /// Says that the copy is what `checkpoint` covers: durable, and from here on what its readers see.
    ///
    /// # Errors
    /// [`ImportError::Size`] and [`ImportError::Root`] if it isn't, or if it isn't what was lost ([`Import::lost`]);
    /// then the last seal stands. [`ImportError::Io`] ends the copy.
    pub fn seal(&mut self, checkpoint: &Checkpoint) -> Result<(), ImportError> {
        let size = self.size();
        if checkpoint.size() != size {
            return Err(ImportError::Size { size, signed: checkpoint.size() });
        }
        if checkpoint.root() != self.root() {
            return Err(ImportError::Root { size, got: self.root(), expected: checkpoint.root() });
        }
        // A crash from here on leaves no more than what the log has signed.
        self.write()?;
        if let Some(lost) = &self.lost {
            let (signed, expected) = (lost.size(), lost.root());
            if signed > size {
                return Err(ImportError::Size { size, signed });
            }
            let got = self.root_at(signed)?;
            if got != expected {
                return Err(ImportError::Root { size: signed, got, expected });
            }
        }
        let path = self.directory.join("checkpoint");
        if let Err(source) = recover::write_checkpoint(&RealDisk, &path, checkpoint) {
            self.failed = true;
            return Err(ImportError::Io { path, source });
        }
        match &self.sealed {
            Some(sealed) => {
                sealed.send_replace(checkpoint.clone());
            }
            None => self.sealed = Some(watch::channel(checkpoint.clone()).0),
        }
        self.lost = None;
        self.vouch()
    }

    /// Takes the copy back to its last seal (to nothing, if it has none; where its end is lost, to what was here before),
    /// durably: what came after it was wrong. Each entry that is left is shown to `visit` again. Readers go on, since
    /// they see only what is sealed.
    ///
    /// # Errors
    /// [`ImportError::Io`] and [`ImportError::Open`] end the copy.
    pub fn rewind(&mut self, visit: &mut dyn FnMut(u64, Nanos, &[u8])) -> Result<(), ImportError> {
        let unsealed = if self.lost.is_some() { self.own } else { 0 };
        self.rewind_to(self.checkpoint().map_or(unsealed, |checkpoint| checkpoint.size()), visit)
    }

    /// As [`Import::rewind`], to the first `size` entries, if more than these are sealed to the last seal.
    ///
    /// # Errors
    /// As [`Import::rewind`].
    pub fn rewind_to(
        &mut self,
        size: u64,
        visit: &mut dyn FnMut(u64, Nanos, &[u8]),
    ) -> Result<(), ImportError> {
        let size = size.max(self.checkpoint().map_or(0, |checkpoint| checkpoint.size()));
        self.buffer.clear();
        self.staged.clear();
        // Until the end nothing else may be written.
        self.failed = true;
        cut(&self.directory.join("segments"), &self.key, size)?;
        let found = Found::read(&self.directory, &self.key, visit)?;
        self.view.replace(found.published);
        self.segment = found.segment;
        self.epoch = found.epoch;
        self.last_appended = found.last_appended;
        self.tree = found.tree;
        self.failed = false;
        self.own = self.own.min(self.size());
        if self.size() > self.own { Ok(()) } else { self.forget_note() }
    }

    /// What is sealed, for readers; `None` before the first seal.
    #[must_use]
    pub fn log(&self) -> Option<CopiedLog> {
        let checkpoint = self.sealed.as_ref()?.subscribe();
        Some(CopiedLog { view: self.view.clone(), key: self.key.clone(), checkpoint })
    }

    /// The root that the copy had when it held `size` entries, sealed or not.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn root_at(&self, size: u64) -> Result<Hash, ReadError> {
        if size == self.size() {
            return Ok(self.root());
        }
        self.view.ask(|tree, tiles| tree.root_at(size, tiles))
    }

    fn rotate(&mut self) -> Result<(), ImportError> {
        let segments = self.directory.join("segments");
        match recover::create_segment(&RealDisk, &segments, self.key.name(), self.size(), 0) {
            Ok(segment) => {
                self.view.add_segment(segment.id);
                self.segment = segment;
                Ok(())
            }
            Err(source) => {
                self.failed = true;
                Err(ImportError::Io { path: segments, source })
            }
        }
    }
}

/// Whether all that is in a log's directory is the log's, as far as is known: nothing was being brought there when it was
/// cut off.
///
/// # Errors
/// [`OpenError::Unfinished`] where something was; [`OpenError::Io`] when that can't be read.
pub fn finished(directory: &Path) -> Result<(), OpenError> {
    match Note::read(directory)? {
        Some(Note { own, what }) => Err(OpenError::Unfinished { directory: directory.to_owned(), own, what }),
        None => Ok(()),
    }
}

/// What a directory holds when a copy is begun or gone on with.
struct Found {
    published: Published,
    segment: OpenSegment,
    checkpoint: Option<Checkpoint>,
    lost: Option<Checkpoint>,
    tree: Tree,
    epoch: u32,
    last_appended: Nanos,
}

impl Found {
    fn read(
        directory: &Path,
        key: &VerifierKey,
        visit: &mut dyn FnMut(u64, Nanos, &[u8]),
    ) -> Result<Found, OpenError> {
        let segments = directory.join("segments");
        let path = directory.join("checkpoint");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        let checkpoint = recover::read_checkpoint(&RealDisk, &path)?
            .map(|note| Checkpoint::verify(&note, key))
            .transpose()
            .map_err(|source| OpenError::Checkpoint { path, source })?;
        let (mut offsets, mut lost) = (Vec::new(), None);
        let mut checkpoint = checkpoint;
        let mut found = scan(&RealDisk, &segments, key.name(), checkpoint.as_slice(), &mut |seen| {
            if seen.index % TILE_LEAVES == 0 {
                offsets.push(seen.offset);
            }
            visit(seen.index, seen.appended, seen.event);
        });
        if let Err(ScanError::Short { .. }) = found {
            // What is here is whole, all of it was shown, and it isn't all: it is gone on with from where it ends.
            lost = checkpoint.take();
            found = scan(&RealDisk, &segments, key.name(), &[], &mut |_| {});
        }
        let found = found.map_err(|source| OpenError::Damaged { source })?;
        for path in found.leftovers.iter().chain(&found.unfinished) {
            RealDisk.remove(path).map_err(failed(path))?;
        }
        for segment in &found.segments {
            recover::repair(&RealDisk, segment).map_err(failed(&segment.path))?;
        }
        durable::sync_directory(&segments).map_err(failed(&segments))?;
        let segment = match found.segments.last() {
            Some(last) => OpenSegment {
                id: last.id,
                path: last.path.clone(),
                file: recover::open_for_writing(&last.path).map_err(failed(&last.path))?,
                end: last.end,
                ready: last.end,
            },
            None => {
                recover::create_segment(&RealDisk, &segments, key.name(), 0, 0).map_err(failed(&segments))?
            }
        };
        let mut ids: Vec<SegmentId> = found.segments.iter().map(|segment| segment.id).collect();
        if ids.is_empty() {
            ids.push(segment.id);
        }
        Ok(Found {
            published: Published::new(found.tree.clone(), ids, offsets),
            segment,
            checkpoint,
            lost,
            tree: found.tree,
            epoch: found.epoch.saturating_add(1),
            last_appended: found.last_appended,
        })
    }
}

/// Cuts the segments behind the first `size` entries, durably, from the end: a crash in between leaves a shorter copy.
fn cut(segments: &Path, key: &VerifierKey, size: u64) -> Result<(), ImportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError::Io { path, source }
    };
    let mut place = None;
    let found = scan(&RealDisk, segments, key.name(), &[], &mut |seen| {
        if seen.index == size {
            place = Some(seen.offset);
        }
    })
    .map_err(|source| OpenError::Damaged { source })?;
    for segment in found.segments.iter().rev() {
        if segment.id.first >= size && segment.id.first > 0 {
            RealDisk.remove(&segment.path).map_err(failed(&segment.path))?;
            durable::sync_directory(segments).map_err(failed(segments))?;
            if segment.id.first == size {
                // The one before it ends where this one began.
                place = None;
            }
            continue;
        }
        let end = if size == 0 { HEADER_BYTES as u64 } else { place.unwrap_or(segment.end) };
        let file = recover::open_for_writing(&segment.path).map_err(failed(&segment.path))?;
        RealDisk.truncate(&file, end).and_then(|()| RealDisk.sync(&file)).map_err(failed(&segment.path))?;
        break;
    }
    Ok(())
}

/// What is sealed of a copy: a log that takes nothing.
#[derive(Clone)]
pub struct CopiedLog {
    view: Arc<View>,
    key: VerifierKey,
    checkpoint: watch::Receiver<Checkpoint>,
}

impl CopiedLog {
    fn sealed(&self, wanted: u64) -> Result<(), ReadError> {
        let size = self.checkpoint.borrow().size();
        if wanted > size { Err(ReadError::OutOfRange { wanted, size }) } else { Ok(()) }
    }
}

impl Log for CopiedLog {
    fn submit(&self, _batch: Vec<Record>) -> Result<Pending, SubmitError> {
        Err(SubmitError::Stopped("this is a copy: only the log itself takes entries".to_owned()))
    }

    fn size(&self) -> u64 {
        self.checkpoint.borrow().size()
    }

    fn follow(&self) -> watch::Receiver<u64> {
        // A copy's readers ask again; nobody follows one.
        watch::channel(self.size()).1
    }

    fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let left = usize::try_from(self.size().saturating_sub(from)).unwrap_or(usize::MAX);
        self.view.read(from, max_entries.min(left), max_bytes)
    }

    fn checkpoint(&self) -> Checkpoint {
        self.checkpoint.borrow().clone()
    }

    fn checkpoints(&self) -> watch::Receiver<Checkpoint> {
        self.checkpoint.clone()
    }

    fn sign_now(&self) -> Pending<Checkpoint> {
        let (answer, pending) = Pending::new();
        // Whoever asked may be gone.
        answer.send(Ok(self.checkpoint())).ok();
        pending
    }

    fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        self.sealed(size)?;
        self.view.ask(|tree, tiles| tree.inclusion_proof(index, size, tiles))
    }

    fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        self.sealed(new)?;
        self.view.ask(|tree, tiles| tree.consistency_proof(old, new, tiles))
    }

    fn root(&self, size: u64) -> Result<Hash, ReadError> {
        self.sealed(size)?;
        self.view.ask(|tree, tiles| tree.root_at(size, tiles))
    }

    fn nodes(&self, height: u32, numbers: Range<u64>) -> Result<Vec<Hash>, ReadError> {
        let end = numbers.end.checked_shl(height).filter(|end| end >> height == numbers.end);
        self.sealed(end.unwrap_or(u64::MAX))?;
        self.view.ask(|tree, tiles| numbers.clone().map(|number| tree.node(height, number, tiles)).collect())
    }

    fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    fn statistics(&self) -> Statistics {
        Statistics { entries: self.size(), ..Statistics::default() }
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
