//! What readers see: only what is durable. They never hold up the writer for longer than a copy in memory.

use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::durable::Disk;
use super::segment::{Decoded, HEADER_BYTES, RECORD_BYTES_MAX, SegmentId, decode};
use crate::log::tree::{TILE_LEAVES, Tiles, Tree, TreeError, leaf_hash};
use crate::log::{Entry, Hash, ReadError};

/// Events kept in memory for readers that follow the end; bytes.
const TAIL_BYTES_MAX: usize = 4 << 20;
/// What is read of a segment at once: a record fits into it.
const READ_BYTES: usize = 96 << 10;
const _: () = assert!(READ_BYTES >= RECORD_BYTES_MAX);

/// The durable log, as far as it is in memory.
pub(super) struct Published {
    tree: Tree,
    segments: Vec<SegmentId>,
    /// For each 256th entry, where it starts in its segment.
    offsets: Vec<u64>,
    /// The newest entries.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
}

impl Published {
    pub fn new(tree: Tree, segments: Vec<SegmentId>, offsets: Vec<u64>) -> Published {
        Published { tree, segments, offsets, tail: VecDeque::new(), tail_bytes: 0 }
    }

    /// The segment that holds `index`, and a place at or before it: an index and where it starts.
    fn place(&self, index: u64) -> Option<(SegmentId, u64, u64)> {
        let after = self.segments.partition_point(|segment| segment.first <= index);
        let segment = *self.segments.get(after.checked_sub(1)?)?;
        let anchor = index - index % TILE_LEAVES;
        let offset = self.offsets.get((anchor / TILE_LEAVES) as usize);
        match offset {
            Some(offset) if anchor >= segment.first => Some((segment, anchor, *offset)),
            _ => Some((segment, segment.first, HEADER_BYTES as u64)),
        }
    }
}

/// A durable entry to be shown.
pub(super) struct Shown {
    pub entry: Entry,
    pub leaf: Hash,
    pub offset: u64,
}

/// The published log, shared by the writer and all readers.
pub(super) struct View {
    disk: Arc<dyn Disk>,
    segments: PathBuf,
    /// Held for moments only, and never over a read from the disk.
    published: RwLock<Published>,
}

impl View {
    pub fn new(disk: Arc<dyn Disk>, segments: PathBuf, published: Published) -> View {
        View { disk, segments, published: RwLock::new(published) }
    }

    /// Shows entries that are durable now.
    pub fn publish(&self, shown: Vec<Shown>) -> u64 {
        let mut published = self.write();
        for Shown { entry, leaf, offset } in shown {
            if entry.index % TILE_LEAVES == 0 {
                published.offsets.push(offset);
            }
            published.tree.push(leaf);
            published.tail_bytes += entry.bytes.len();
            published.tail.push_back(entry);
        }
        while published.tail_bytes > TAIL_BYTES_MAX {
            let Some(entry) = published.tail.pop_front() else { break };
            published.tail_bytes -= entry.bytes.len();
        }
        published.tree.size()
    }

    /// Shows something else from now on: a copy was taken back to what is sealed of it.
    pub fn replace(&self, published: Published) {
        *self.write() = published;
    }

    /// A segment that is durable, still without records.
    pub fn add_segment(&self, id: SegmentId) {
        self.write().segments.push(id);
    }

    /// The durable size and its root.
    pub fn head(&self) -> (u64, Hash) {
        let published = self.read_lock();
        (published.tree.size(), published.tree.root())
    }

    pub fn size(&self) -> u64 {
        self.read_lock().tree.size()
    }

    /// See [`crate::log::Log::read`].
    pub fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        while entries.len() < max_entries {
            let next = from.saturating_add(entries.len() as u64);
            let room = max_entries - entries.len();
            let more = {
                let published = self.read_lock();
                let size = published.tree.size();
                if next >= size {
                    break;
                }
                let oldest = published.tail.front().map_or(size, |entry| entry.index);
                if next >= oldest {
                    let skip = (next - oldest) as usize;
                    Ok(published.tail.iter().skip(skip).take(room).cloned().collect::<Vec<_>>())
                } else {
                    let end = published.segments.iter().find(|segment| segment.first > next);
                    let end = end.map_or(size, |segment| segment.first.min(size));
                    Err((published.place(next), end))
                }
            };
            let more = match more {
                Ok(more) => Ok(more),
                Err((Some(place), end)) => {
                    let budget = max_bytes.saturating_sub(bytes);
                    self.read_segment(place, next, end, room, budget)
                }
                Err((None, _)) => Err(ReadError::OutOfRange { wanted: next, size: 0 }),
            };
            let more = match more {
                Ok(more) => more,
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            };
            for entry in more {
                bytes += entry.bytes.len();
                if bytes > max_bytes && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// Entries `from..end` of one segment, or the first of them: enough to reach `max_bytes`.
    fn read_segment(
        &self,
        (segment, mut index, mut offset): (SegmentId, u64, u64),
        from: u64,
        end: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let path = self.segments.join(segment.file_name());
        let broken = |index, source| ReadError::Io { index, path: path.clone(), source };
        let file = File::open(&path).map_err(|source| broken(from, source))?;
        let mut entries = Vec::new();
        let mut taken_bytes = 0;
        while index < end && entries.len() < max_entries && (entries.is_empty() || taken_bytes <= max_bytes) {
            let piece = piece(&*self.disk, &file, offset).map_err(|e| broken(index.max(from), e))?;
            let mut rest = &*piece;
            let (before, of_this_piece, taken_before) = (index, entries.len(), taken_bytes);
            while index < end
                && entries.len() < max_entries
                && (entries.is_empty() || taken_bytes <= max_bytes)
            {
                let (stored, taken) = match decode(&segment, rest) {
                    Decoded::Record(stored, taken) if stored.index == index => (stored, taken),
                    Decoded::Short(_) if index > before => break,
                    other => {
                        let reason = match other {
                            Decoded::Bad(reason) => reason,
                            Decoded::Short(_) => "the file is shorter than it was",
                            Decoded::Record(..) => "the record is another entry's",
                        };
                        return if entries.is_empty() {
                            Err(ReadError::Damaged { index, path, position: offset, reason })
                        } else {
                            Ok(entries)
                        };
                    }
                };
                if index >= from {
                    taken_bytes += stored.event.len();
                    let bytes = piece.slice_ref(stored.event);
                    entries.push(Entry { index, appended: stored.appended, tag: stored.tag, bytes });
                }
                index += 1;
                offset += taken as u64;
                rest = rest.get(taken..).unwrap_or_default();
            }
            if taken_bytes - taken_before < piece.len() / 2 {
                // Few of them would hold the whole piece in memory.
                for entry in entries.iter_mut().skip(of_this_piece) {
                    entry.bytes = Bytes::copy_from_slice(&entry.bytes);
                }
            }
        }
        Ok(entries)
    }

    /// Asks the tree; gives it the leaves of the few full tiles that it needs for that.
    pub fn ask<T>(&self, question: impl Fn(&Tree, &Tiles) -> Result<T, TreeError>) -> Result<T, ReadError> {
        let mut tiles = Tiles::new();
        loop {
            let answer = question(&self.read_lock().tree, &tiles);
            match answer {
                Err(TreeError::TileNeeded(tile)) if !tiles.contains_key(&tile) => {
                    tiles.insert(tile, self.leaves(tile)?);
                }
                answer => return Ok(answer?),
            }
        }
    }

    /// The leaf hashes of a full tile.
    fn leaves(&self, tile: u64) -> Result<Vec<Hash>, ReadError> {
        let first = tile * TILE_LEAVES;
        let mut leaves = Vec::with_capacity(TILE_LEAVES as usize);
        while (leaves.len() as u64) < TILE_LEAVES {
            let room = TILE_LEAVES as usize - leaves.len();
            let entries = self.read(first + leaves.len() as u64, room, usize::MAX)?;
            if entries.is_empty() {
                return Err(ReadError::OutOfRange { wanted: first, size: self.size() });
            }
            leaves.extend(entries.iter().map(|entry| leaf_hash(&entry.bytes)));
        }
        Ok(leaves)
    }

    // A panic of another thread can't leave half a change behind: each change is a few pushes in order.
    fn read_lock(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the segments are.
impl AsRef<Path> for View {
    fn as_ref(&self) -> &Path {
        &self.segments
    }
}

/// What a file holds from `offset` on, [`READ_BYTES`] of it at most.
fn piece(disk: &dyn Disk, file: &File, offset: u64) -> std::io::Result<Bytes> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match disk.read_at(file, room, offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}
