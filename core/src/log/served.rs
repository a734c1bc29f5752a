//! A log as it is served to others (C2SP tlog-tiles), seen by whoever reads it: what to fetch, and what follows from it.
//!
//! Nothing here is believed because it was sent: proofs are checked against a signed root by whoever gets them, and
//! [`Recomputed`] takes the whole log and computes the roots itself. No networking: bytes come in, verdicts go out.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::Checkpoint;
use super::path::{self, Range};
use super::tile::{Tile, WIDTH_FULL, parse_bundle, parse_hashes};
use super::tree::{Hash, Tiles, Tree, fold_complete, fold_range, leaf_hash};

/// Why a served log isn't what was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServedError {
    /// There is nothing in it: that proves nothing.
    #[error("nothing to check: the log {0} is empty")]
    Nothing(String),
    /// A checkpoint of another log.
    #[error("the checkpoint is of the log {got}, expected {expected}")]
    Origin {
        /// The log that is read.
        expected: String,
        /// The log of the known checkpoint.
        got: String,
    },
    /// Somebody has seen more of this log than it has now.
    #[error(
        "known up to {known} entries, have {have}: the log was cut back, or an old copy was put in its place"
    )]
    Short {
        /// What was seen elsewhere.
        known: u64,
        /// What the log has.
        have: u64,
    },
    /// The entries don't give a root that was signed.
    #[error(
        "the entries before {size} don't give the root that was signed for them; those before {agreed} do: \
         an entry from {agreed} on was replaced, or the log was forked there"
    )]
    Root {
        /// The size of the checkpoint that fails.
        size: u64,
        /// The size of the last checkpoint that holds.
        agreed: u64,
    },
    /// An entry isn't the one that its leaf was made of.
    #[error("entry {index} isn't the one that stands in the tree")]
    Entry {
        /// The first such entry.
        index: u64,
    },
    /// A tile or bundle isn't one, or isn't what the entries give.
    #[error("{tile} is wrong: {reason}")]
    Tile {
        /// Its path.
        tile: String,
        /// What doesn't fit.
        reason: String,
    },
}

impl ServedError {
    /// The first index that is wrong, where there is one. If only a root is wrong, the first that may be.
    #[must_use]
    pub fn first_wrong(&self) -> Option<u64> {
        match self {
            ServedError::Entry { index }
            | ServedError::Root { agreed: index, .. }
            | ServedError::Short { have: index, .. } => Some(*index),
            _ => None,
        }
    }
}

/// Proofs that a client makes itself, of tiles that it fetched.
#[derive(Debug)]
pub struct Prover {
    size: u64,
    tiles: BTreeMap<Tile, Vec<Hash>>,
}

impl Prover {
    /// For the tree of `size` entries.
    #[must_use]
    pub fn new(size: u64) -> Prover {
        Prover { size, tiles: BTreeMap::new() }
    }

    /// The tiles that are still to be fetched for inclusion proofs of these entries.
    #[must_use]
    pub fn wanted(&self, indices: impl IntoIterator<Item = u64>) -> BTreeSet<Tile> {
        let ranges = indices.into_iter().filter(|index| *index < self.size);
        let nodes = ranges.flat_map(|index| path::inclusion(index, self.size)).flat_map(subtrees);
        let tiles = nodes.filter_map(|(height, number)| self.holder(height, number));
        tiles.filter(|tile| !self.tiles.contains_key(tile)).collect()
    }

    /// The tiles that are still to be fetched for the proof that the first `old` entries are a beginning of this tree.
    #[must_use]
    pub fn wanted_for_consistency(&self, old: u64) -> BTreeSet<Tile> {
        let nodes = path::consistency(old.min(self.size), self.size).into_iter().flat_map(subtrees);
        let tiles = nodes.filter_map(|(height, number)| self.holder(height, number));
        tiles.filter(|tile| !self.tiles.contains_key(tile)).collect()
    }

    /// The proof that the first `old` entries are a beginning of this tree; `None` if tiles are missing or there are
    /// fewer entries.
    #[must_use]
    pub fn consistency(&self, old: u64) -> Option<Vec<Hash>> {
        if old > self.size {
            return None;
        }
        path::consistency(old, self.size).into_iter().map(|range| self.range(range)).collect()
    }

    /// Takes a tile as it was sent.
    ///
    /// # Errors
    /// [`ServedError::Tile`] if it has another length. Whether its hashes are right shows when the proof is checked.
    pub fn insert(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), ServedError> {
        let hashes = parse_hashes(bytes, tile.width).map_err(|wrong| malformed(&tile, &wrong))?;
        self.tiles.insert(tile, hashes);
        Ok(())
    }

    /// The audit path of entry `index`; `None` if tiles are missing or there is no such entry.
    #[must_use]
    pub fn inclusion(&self, index: u64) -> Option<Vec<Hash>> {
        if index >= self.size {
            return None;
        }
        path::inclusion(index, self.size).into_iter().map(|range| self.range(range)).collect()
    }

    /// The tile that a node is in, or whose hashes it is made of.
    fn holder(&self, height: u32, number: u64) -> Option<Tile> {
        let level = u8::try_from(height / 8).ok()?;
        let first = number << (height % 8);
        Tile::of(Some(level), first / u64::from(WIDTH_FULL), self.size)
    }

    fn range(&self, range: Range) -> Option<Hash> {
        let parts: Option<Vec<Hash>> = subtrees(range)
            .map(|(height, number)| {
                let hashes = self.tiles.get(&self.holder(height, number)?)?;
                let at = usize::try_from((number << (height % 8)) % u64::from(WIDTH_FULL)).ok()?;
                Some(fold_complete(hashes.get(at..at + (1 << (height % 8)))?.to_vec()))
            })
            .collect();
        fold_range(&parts?)
    }
}

fn subtrees((low, high): Range) -> impl Iterator<Item = (u32, u64)> {
    path::subtrees(low, high)
}

fn malformed(tile: &Tile, reason: &dyn std::fmt::Display) -> ServedError {
    ServedError::Tile { tile: tile.to_string(), reason: reason.to_string() }
}

/// The whole log, as one who doesn't believe it computes it: leaf by leaf from tile to tile, comparing the root at each
/// size for which there is a checkpoint.
#[derive(Debug)]
pub struct Recomputed {
    tree: Tree,
    /// Those that are not reached yet, by size.
    checkpoints: Vec<Checkpoint>,
    agreed: u64,
    signed: u64,
}

impl Recomputed {
    /// For the log whose `newest` checkpoint was just fetched, and `known` checkpoints of it from elsewhere.
    ///
    /// # Errors
    /// [`ServedError::Nothing`], [`ServedError::Origin`], [`ServedError::Short`].
    pub fn new(newest: &Checkpoint, known: &[Checkpoint]) -> Result<Recomputed, ServedError> {
        if let Some(other) = known.iter().find(|known| known.origin() != newest.origin()) {
            let (expected, got) = (newest.origin().to_owned(), other.origin().to_owned());
            return Err(ServedError::Origin { expected, got });
        }
        if let Some(largest) = known.iter().map(Checkpoint::size).max().filter(|size| *size > newest.size()) {
            return Err(ServedError::Short { known: largest, have: newest.size() });
        }
        if newest.size() == 0 {
            return Err(ServedError::Nothing(newest.origin().to_owned()));
        }
        let mut checkpoints = known.to_vec();
        checkpoints.push(newest.clone());
        // The next one is at the end.
        checkpoints.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size()));
        let mut it = Recomputed { tree: Tree::new(), checkpoints, agreed: 0, signed: newest.size() };
        it.compare()?;
        Ok(it)
    }

    /// How many entries there are to go through.
    #[must_use]
    pub fn signed(&self) -> u64 {
        self.signed
    }

    /// How many entries are done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.tree.size()
    }

    /// The tile of leaves that comes next; the bundle of the same number and width holds its entries. `None` at the end.
    #[must_use]
    pub fn next_tile(&self) -> Option<Tile> {
        let number = self.tree.size() / u64::from(WIDTH_FULL);
        let is_done = self.tree.size() >= self.signed;
        Tile::of(Some(0), number, self.signed).filter(|_| !is_done)
    }

    /// Takes the next tile of leaves, and gives the entries of the bundle that was fetched with it, if one was.
    ///
    /// # Errors
    /// [`ServedError::Tile`], [`ServedError::Entry`], [`ServedError::Root`].
    pub fn take<'b>(
        &mut self,
        tile: Tile,
        hashes: &[u8],
        bundle: Option<&'b [u8]>,
    ) -> Result<Vec<&'b [u8]>, ServedError> {
        let leaves = parse_hashes(hashes, tile.width).map_err(|wrong| malformed(&tile, &wrong))?;
        let entries = match bundle {
            Some(bytes) => {
                let place = Tile { level: None, ..tile };
                parse_bundle(bytes, tile.width).map_err(|wrong| malformed(&place, &wrong))?
            }
            None => Vec::new(),
        };
        for (index, (entry, leaf)) in (tile.first()..).zip(entries.iter().zip(&leaves)) {
            if leaf_hash(entry) != *leaf {
                return Err(ServedError::Entry { index });
            }
        }
        for leaf in leaves {
            self.tree.push(leaf);
            self.compare()?;
        }
        Ok(entries)
    }

    /// The tiles above the leaves, which follow from them: to be compared once all leaves are there.
    pub fn upper(&self) -> impl Iterator<Item = Tile> + use<> {
        let size = self.signed;
        (1..=7).flat_map(move |level| Tile::all(Some(level), size))
    }

    /// Compares a tile above the leaves with what the leaves give.
    ///
    /// # Errors
    /// [`ServedError::Tile`].
    pub fn compare_upper(&self, tile: Tile, bytes: &[u8]) -> Result<(), ServedError> {
        let hashes = parse_hashes(bytes, tile.width).map_err(|wrong| malformed(&tile, &wrong))?;
        for (number, hash) in (tile.first()..).zip(hashes) {
            // A node of a level above the leaves needs no leaves.
            let expected = self.tree.node(tile.height(), number, &Tiles::new());
            if expected != Ok(hash) {
                return Err(malformed(&tile, &format!("its hash {number} isn't what the entries give")));
            }
        }
        Ok(())
    }

    /// Compares the root with all checkpoints of the present size.
    fn compare(&mut self) -> Result<(), ServedError> {
        let size = self.tree.size();
        while self.checkpoints.last().is_some_and(|checkpoint| checkpoint.size() == size) {
            let Some(checkpoint) = self.checkpoints.pop() else { break };
            if checkpoint.root() != self.tree.root() {
                return Err(ServedError::Root { size, agreed: self.agreed });
            }
            self.agreed = size;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "served_tests.rs"]
mod tests;
