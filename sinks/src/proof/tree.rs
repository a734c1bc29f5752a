//! What is read of the log, held against its tree. The log checked its files when it was opened, and signs what it has in
//! memory; what somebody wrote beneath it since then has right sums, and would be taken for what is signed.

use super::ProofError;
use crate::item::Item;
use custody_core::log::tree::{TILE_LEAVES, Tree, leaf_hash};
use custody_core::log::{Hash, Log, ReadError};

/// Of whole tiles, and of all above them, the log has the hashes in memory.
const TILE_HEIGHT: u32 = TILE_LEAVES.trailing_zeros();
/// Events that are read at once only for their hashes.
const BYTES: usize = 4 << 20;

/// The leaf hashes of the tile that is being read.
pub(super) struct Leaves {
    /// The tile's first entry.
    first: u64,
    hashes: Vec<Hash>,
}

impl Leaves {
    /// For entries from `from` on. What its tile has before them is read.
    pub(super) fn before(log: &dyn Log, from: u64) -> Result<Self, ReadError> {
        let mut leaves = Self { first: from - from % TILE_LEAVES, hashes: Vec::new() };
        leaves.read(log, from)?;
        Ok(leaves)
    }

    /// Takes the entries that come next, and compares each tile that is whole with them.
    pub(super) fn take(&mut self, log: &dyn Log, items: &[Item]) -> Result<(), ProofError> {
        for item in items {
            self.hashes.push(item.leaf);
            if self.hashes.len() as u64 == TILE_LEAVES {
                self.compare(log)?;
            }
        }
        Ok(())
    }

    /// Compares those of the last tile, of which only a part was taken. What the log has behind it in that tile is read.
    pub(super) fn end(mut self, log: &dyn Log) -> Result<(), ProofError> {
        if self.hashes.is_empty() {
            return Ok(());
        }
        let kept = log.nodes(0, self.first..self.next())?;
        // The log has single leaves in memory until their tile is whole. From then on it reads them where the entries were
        // read too, and they say nothing.
        if self.whole(log)?.is_some() {
            self.read(log, self.first + TILE_LEAVES)?;
            return self.compare(log);
        }
        match (self.first..).zip(self.hashes.iter().zip(&kept)).find(|(_, (read, kept))| read != kept) {
            Some((index, _)) => Err(ProofError::Replaced { first: index, last: index }),
            None => Ok(()),
        }
    }

    /// The entry that comes next.
    fn next(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }

    /// Reads what is left before `end`, which is no further than the tile's.
    fn read(&mut self, log: &dyn Log, end: u64) -> Result<(), ReadError> {
        while self.next() < end {
            let most = usize::try_from(end - self.next()).unwrap_or(usize::MAX);
            let entries = log.read(self.next(), most, BYTES)?;
            if entries.is_empty() {
                return Err(ReadError::OutOfRange { wanted: self.next(), size: log.size() });
            }
            self.hashes.extend(entries.iter().map(|entry| leaf_hash(&entry.bytes)));
        }
        Ok(())
    }

    /// Compares a tile that was read to its end, and goes on to the next one.
    fn compare(&mut self, log: &dyn Log) -> Result<(), ProofError> {
        let (first, whole) = (self.first, self.whole(log)?);
        let mut tree = Tree::new();
        self.hashes.drain(..).for_each(|leaf| tree.push(leaf));
        self.first += TILE_LEAVES;
        if whole == Some(tree.root()) {
            Ok(())
        } else {
            Err(ProofError::Replaced { first, last: self.first - 1 })
        }
    }

    /// The tile's hash, once the log has all of it.
    fn whole(&self, log: &dyn Log) -> Result<Option<Hash>, ReadError> {
        let tile = self.first / TILE_LEAVES;
        match log.nodes(TILE_HEIGHT, tile..tile + 1) {
            Ok(nodes) => Ok(nodes.first().copied()),
            Err(ReadError::OutOfRange { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
