//! Which of several entries for one index is the log's: the one with which all leaves together give the root that was signed.
//!
//! The tree is built once for all ways to choose. A subtree without such an index is hashed once; only what lies above one
//! has a hash for each way. So a log of millions of entries costs hardly more with 256 ways than with one. And most choices
//! are no way at all, since the log's times never decrease: a lost end whose indexes were used again is one entry behind
//! the other of the one history, and then of the other.

use super::Copied;
use custody_core::clock::Nanos;
use custody_core::log::Hash;
use custody_core::log::tree::{leaf_hash, node_hash};

/// Ways that are followed at once.
const WAYS_MAX: usize = 256;

/// The tree over the entries so far, for each way to choose among them.
#[derive(Debug)]
pub struct Ways {
    ways: Vec<Way>,
    /// Complete subtrees, the largest first.
    subtrees: Vec<Subtree>,
    is_pruned: bool,
}

/// A way to choose.
#[derive(Debug, Default)]
struct Way {
    /// When its last entry was appended.
    last: Nanos,
    /// What it has picked, of each index of which there are several entries.
    picks: Vec<u8>,
}

#[derive(Debug)]
struct Subtree {
    height: u32,
    hashes: Hashes,
}

#[derive(Clone, Debug)]
enum Hashes {
    /// The same for all ways.
    Same(Hash),
    /// One for each.
    Each(Vec<Hash>),
}

impl Default for Ways {
    fn default() -> Self {
        Self { ways: vec![Way::default()], subtrees: Vec::new(), is_pruned: false }
    }
}

impl Ways {
    /// Adds the next entry, of which there is one.
    pub fn push(&mut self, appended: Nanos, bytes: &[u8]) {
        if self.ways.iter().any(|way| way.last > appended) {
            let kept = self.ways.iter().enumerate().filter(|(_, way)| way.last <= appended);
            let kept: Vec<usize> = kept.map(|(number, _)| number).collect();
            self.spread(&kept);
            self.ways.retain(|way| way.last <= appended);
        }
        for way in &mut self.ways {
            way.last = appended;
        }
        self.add(Hashes::Same(leaf_hash(bytes)));
    }

    /// Adds the next entry, of which there are several: each way goes on with each of them that isn't before its last.
    pub fn branch(&mut self, entries: &[Copied]) {
        let leaves: Vec<Hash> = entries.iter().map(Copied::leaf).collect();
        let mut next: Vec<(usize, u8)> = Vec::new();
        for (number, way) in self.ways.iter().enumerate() {
            let possible = (0_u8..).zip(entries).filter(|(_, copied)| copied.appended >= way.last);
            next.extend(possible.map(|(pick, _)| (number, pick)));
        }
        if next.len() > WAYS_MAX {
            // Those that keep to what was taken, and those that keep to the others.
            next.drain(WAYS_MAX / 2..next.len() - WAYS_MAX / 2);
            self.is_pruned = true;
        }
        let from: Vec<usize> = next.iter().map(|(number, _)| *number).collect();
        self.spread(&from);
        let leaf = |(_, pick): &(usize, u8)| leaves.get(usize::from(*pick)).copied();
        let hashes = next.iter().filter_map(leaf).collect();
        let way = |(number, pick): &(usize, u8)| {
            let (before, entry) = (self.ways.get(*number)?, entries.get(usize::from(*pick))?);
            let mut picks = before.picks.clone();
            picks.push(*pick);
            Some(Way { last: entry.appended, picks })
        };
        self.ways = next.iter().filter_map(way).collect();
        self.add(Hashes::Each(hashes));
    }

    /// Whether there were more ways than were followed.
    #[must_use]
    pub fn is_pruned(&self) -> bool {
        self.is_pruned
    }

    /// What the way picks under which the root over all entries is this one: a number for each [`Ways::branch`].
    #[must_use]
    pub fn giving(&self, root: Hash) -> Option<&[u8]> {
        let (last, before) = self.subtrees.split_last()?;
        let all = before.iter().rev().fold(last.hashes.clone(), |right, left| join(&left.hashes, &right));
        let number = match &all {
            Hashes::Same(hash) => (*hash == root).then_some(0),
            Hashes::Each(hashes) => hashes.iter().position(|hash| *hash == root),
        };
        self.ways.get(number?).map(|way| way.picks.as_slice())
    }

    /// Lets each subtree have its hashes for other ways than before, of which each comes from the one of that number.
    fn spread(&mut self, from: &[usize]) {
        for subtree in &mut self.subtrees {
            if let Hashes::Each(hashes) = &mut subtree.hashes {
                *hashes = from.iter().filter_map(|number| hashes.get(*number).copied()).collect();
            }
        }
    }

    /// Adds the next leaf.
    fn add(&mut self, leaf: Hashes) {
        let mut right = Subtree { height: 0, hashes: leaf };
        while let Some(left) = self.subtrees.pop_if(|left| left.height == right.height) {
            right = Subtree { height: right.height + 1, hashes: join(&left.hashes, &right.hashes) };
        }
        self.subtrees.push(right);
    }
}

fn join(left: &Hashes, right: &Hashes) -> Hashes {
    match (left, right) {
        (Hashes::Same(left), Hashes::Same(right)) => Hashes::Same(node_hash(left, right)),
        (Hashes::Same(left), Hashes::Each(right)) => {
            Hashes::Each(right.iter().map(|right| node_hash(left, right)).collect())
        }
        (Hashes::Each(left), Hashes::Same(right)) => {
            Hashes::Each(left.iter().map(|left| node_hash(left, right)).collect())
        }
        (Hashes::Each(left), Hashes::Each(right)) => {
            Hashes::Each(left.iter().zip(right).map(|(left, right)| node_hash(left, right)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::log::tree::Tree;

    fn entry(what: u64, appended: u64) -> Copied {
        Copied { appended: Nanos(appended), bytes: what.to_be_bytes().to_vec() }
    }

    /// The root over what these picks mean.
    fn root(log: &[Vec<Copied>], picks: &[u8]) -> Hash {
        let (mut tree, mut picks) = (Tree::new(), picks.iter());
        for entries in log {
            let pick = if entries.len() > 1 { *picks.next().unwrap() } else { 0 };
            tree.push(entries[usize::from(pick)].leaf());
        }
        tree.root()
    }

    fn followed(log: &[Vec<Copied>]) -> Ways {
        let mut ways = Ways::default();
        for entries in log {
            match entries.as_slice() {
                [one] => ways.push(one.appended, &one.bytes),
                several => ways.branch(several),
            }
        }
        ways
    }

    #[test]
    fn whatever_is_picked_is_told_by_its_root() {
        for size in 1..40_u64 {
            for (first, second) in [(0, size - 1), (size / 3, size / 2), (size / 2, size.saturating_sub(2))] {
                let log: Vec<Vec<Copied>> = (0..size)
                    .map(|index| match index {
                        _ if index == first => vec![entry(index, 7), entry(100, 7)],
                        _ if index == second => vec![entry(index, 7), entry(200, 7), entry(201, 7)],
                        _ => vec![entry(index, 7)],
                    })
                    .collect();
                let counts: Vec<u8> =
                    log.iter().map(|entries| entries.len() as u8).filter(|count| *count > 1).collect();
                let ways = followed(&log);
                for one in 0..counts[0] {
                    for other in 0..counts.get(1).copied().unwrap_or(1) {
                        let both = [one, other];
                        let picks = &both[..counts.len()];
                        assert_eq!(ways.giving(root(&log, picks)), Some(picks), "{size}: {first}, {second}");
                    }
                }
                assert_eq!(ways.giving(Hash([7; 32])), None);
                assert!(!ways.is_pruned());
            }
        }
        assert_eq!(Ways::default().giving(Hash([0; 32])), None);
    }

    #[test]
    fn a_lost_end_whose_indexes_were_used_again_has_a_way_for_each_place_where_it_may_end() {
        // Ten entries, then a hundred of two histories, the later of which goes on.
        let log: Vec<Vec<Copied>> = (0..150)
            .map(|index| match index {
                0..10 => vec![entry(index, index)],
                10..110 => vec![entry(index, index), entry(1_000 + index, 1_000 + index)],
                _ => vec![entry(1_000 + index, 1_000 + index)],
            })
            .collect();
        let ways = followed(&log);
        assert_eq!((ways.ways.len(), ways.is_pruned()), (101, false));
        let picks = [1; 100];
        assert_eq!(ways.giving(root(&log, &picks)), Some(&picks[..]));
        // A later entry that is before them leaves the first of them only.
        let mut ways = followed(&log[..110]);
        ways.push(Nanos(500), b"an entry of the first history");
        assert_eq!(ways.ways.len(), 1);
        let mut longer = log[..110].to_vec();
        longer.push(vec![Copied { appended: Nanos(500), bytes: b"an entry of the first history".to_vec() }]);
        assert_eq!(ways.giving(root(&longer, &[0; 100])), Some(&[0; 100][..]));
    }

    #[test]
    fn of_too_many_the_first_and_the_last_are_followed() {
        let log: Vec<Vec<Copied>> =
            (0..20).map(|index| vec![entry(index, 7), entry(1_000 + index, 7)]).collect();
        let ways = followed(&log);
        assert_eq!((ways.ways.len(), ways.is_pruned()), (WAYS_MAX, true));
        for pick in [0, 1] {
            let picks = [pick; 20];
            assert_eq!(ways.giving(root(&log, &picks)), Some(&picks[..]));
        }
        let mixed: Vec<u8> = (0..20).map(|n| n % 2).collect();
        assert_eq!(ways.giving(root(&log, &mixed)), None);
        assert!(!followed(&log[..8]).is_pruned() && followed(&log[..9]).is_pruned());
    }
}
