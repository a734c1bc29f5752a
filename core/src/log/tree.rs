//! The Merkle tree of RFC 6962 (section 2.1) over the entries' bytes, with SHA-256.
//!
//! [`Tree`] keeps what can't be recomputed cheaply: the roots of complete subtrees of 256 leaves and more (64
//! bytes for 256 entries), and the leaves after the last of them. Hashes below that are recomputed from the
//! entries themselves, 256 at most for a tile, so memory hardly grows with the log and no second file has to
//! agree with the first.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::path;

/// Leaves in a full tile of level 0: C2SP tlog-tiles fixes the height of a tile at 8.
pub const TILE_LEAVES: u64 = 256;
const TILE_HEIGHT: u32 = 8;

/// A SHA-256 hash: of a leaf, a node or a root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash in padded standard base64, as signed notes and proofs have it.
    #[must_use]
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads what [`Hash::to_base64`] wrote; `None` if it isn't exactly one hash.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Hash> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Hash)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

/// The hash of one entry: `SHA-256(0x00 || entry)`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(Sha256::new_with_prefix([0]).chain_update(entry).finalize().into())
}

/// The hash of two subtrees: `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new_with_prefix([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root of a tree without leaves: `SHA-256("")`.
#[must_use]
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// Why the tree can't answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A hash below a full tile is wanted whose leaves weren't given along.
    #[error("the leaf hashes of tile {0} are needed")]
    TileNeeded(u64),
    /// The question is about more than the tree holds, or is about nothing.
    #[error("no such proof: wanted {wanted}, the tree has {size} leaves")]
    OutOfRange {
        /// The first number that doesn't fit.
        wanted: u64,
        /// The size that was asked about or that there is.
        size: u64,
    },
}

/// Leaf hashes of full tiles, by the tile's number: what [`Tree`] needs besides itself for proofs.
pub type Tiles = BTreeMap<u64, Vec<Hash>>;

/// The tree as it grows.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    size: u64,
    /// `levels[k][i]` is the root of the i-th complete subtree of `2^(8+k)` leaves.
    levels: Vec<Vec<Hash>>,
    /// The leaves after the last full tile.
    rest: Vec<Hash>,
}

impl Tree {
    /// A tree without leaves.
    #[must_use]
    pub fn new() -> Tree {
        Tree::default()
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next leaf's hash.
    pub fn push(&mut self, leaf: Hash) {
        self.rest.push(leaf);
        self.size += 1;
        if self.rest.len() < TILE_LEAVES as usize {
            return;
        }
        let mut carry = fold_complete(std::mem::take(&mut self.rest));
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(carry);
            match row.len() % 2 {
                0 => carry = node_hash(&row[row.len() - 2], &row[row.len() - 1]),
                _ => return,
            }
        }
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        // No tile is needed: what lies below a full tile is all in `rest`.
        self.root_at(self.size, &Tiles::new()).unwrap_or_else(|_| empty_root())
    }

    /// The root that the tree had when it held `size` leaves.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn root_at(&self, size: u64, tiles: &Tiles) -> Result<Hash, TreeError> {
        self.check_size(size)?;
        if size == 0 { Ok(empty_root()) } else { self.range(0, size, tiles) }
    }

    /// The audit path of leaf `index` in the tree of `size` leaves (RFC 6962, section 2.1.1).
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn inclusion_proof(&self, index: u64, size: u64, tiles: &Tiles) -> Result<Vec<Hash>, TreeError> {
        self.check_size(size)?;
        if index >= size {
            return Err(TreeError::OutOfRange { wanted: index, size });
        }
        path::inclusion(index, size).into_iter().map(|(low, high)| self.range(low, high, tiles)).collect()
    }

    /// The proof that the tree of `old` leaves is a prefix of the one of `new` leaves (RFC 6962, 2.1.2).
    /// Empty if `old` is zero or equal to `new`.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn consistency_proof(&self, old: u64, new: u64, tiles: &Tiles) -> Result<Vec<Hash>, TreeError> {
        self.check_size(new)?;
        if old > new {
            return Err(TreeError::OutOfRange { wanted: old, size: new });
        }
        path::consistency(old, new).into_iter().map(|(low, high)| self.range(low, high, tiles)).collect()
    }

    /// The hash of the complete subtree number `number` of `2^height` leaves; tiles are made of these.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn node(&self, height: u32, number: u64, tiles: &Tiles) -> Result<Hash, TreeError> {
        let out_of_range = TreeError::OutOfRange { wanted: number, size: self.size };
        if height >= TILE_HEIGHT {
            let row = self.levels.get((height - TILE_HEIGHT) as usize).ok_or(out_of_range)?;
            return row.get(number as usize).copied().ok_or(out_of_range);
        }
        let first = number.checked_shl(height).ok_or(out_of_range)?;
        let tile = first / TILE_LEAVES;
        let leaves = if tile == self.size / TILE_LEAVES {
            &self.rest
        } else {
            tiles.get(&tile).ok_or(TreeError::TileNeeded(tile))?
        };
        let at = (first % TILE_LEAVES) as usize;
        let leaves = leaves.get(at..at + (1 << height)).ok_or(out_of_range)?;
        Ok(fold_complete(leaves.to_vec()))
    }

    /// MTH over `low..high`; `low` is a multiple of the largest power of two below `high - low`.
    fn range(&self, low: u64, high: u64, tiles: &Tiles) -> Result<Hash, TreeError> {
        let parts: Result<Vec<Hash>, TreeError> =
            path::subtrees(low, high).map(|(height, number)| self.node(height, number, tiles)).collect();
        fold_range(&parts?).ok_or(TreeError::OutOfRange { wanted: low, size: high })
    }

    fn check_size(&self, wanted: u64) -> Result<(), TreeError> {
        if wanted > self.size { Err(TreeError::OutOfRange { wanted, size: self.size }) } else { Ok(()) }
    }
}

/// The root over complete subtrees, from left (largest) to right; `None` if there are none.
pub(super) fn fold_range(subtrees: &[Hash]) -> Option<Hash> {
    let (last, before) = subtrees.split_last()?;
    Some(before.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// The root over `2^k` hashes.
pub(super) fn fold_complete(mut row: Vec<Hash>) -> Hash {
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    row.pop().unwrap_or_else(empty_root)
}

/// Whether `proof` shows that `leaf` is number `index` in the tree of `size` leaves with this `root`
/// (RFC 9162, section 2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the first tree is a prefix of the second (RFC 9162, section 2.1.4.2).
/// The empty tree is a prefix of every tree.
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (first, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        match proof.split_first() {
            Some(parts) => parts,
            None => return false,
        }
    };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for part in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(part, &old_hash);
            new_hash = node_hash(part, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, part);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
