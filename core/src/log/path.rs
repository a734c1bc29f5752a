//! Which subtrees a proof is made of (RFC 6962, section 2.1): arithmetic on sizes, without a hash.
//!
//! The log answers from its own tree, a client from the tiles that it fetched: both walk the same paths.

/// The leaves `low..high` of one node on a path.
pub(super) type Range = (u64, u64);

/// The audit path of leaf `index` in a tree of `size` leaves, in the order of the proof (RFC 6962, 2.1.1).
/// `index` must be below `size`.
pub(super) fn inclusion(index: u64, size: u64) -> Vec<Range> {
    let mut siblings = Vec::new();
    let (mut low, mut high) = (0, size);
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            siblings.push((middle, high));
            high = middle;
        } else {
            siblings.push((low, middle));
            low = middle;
        }
    }
    siblings.reverse();
    siblings
}

/// The consistency proof between trees of `old` and `new` leaves, in its order (RFC 6962, 2.1.2). `old` is at most
/// `new`; nothing needs to be shown if it is zero or equal.
pub(super) fn consistency(old: u64, new: u64) -> Vec<Range> {
    if old == 0 || old == new {
        return Vec::new();
    }
    let mut parts = Vec::new();
    let (mut low, mut high) = (0, new);
    // Whether the subtree at hand is still the whole old tree, which the verifier knows.
    let mut whole = true;
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            parts.push((middle, high));
            high = middle;
        } else {
            parts.push((low, middle));
            low = middle;
            whole = false;
        }
    }
    if !whole {
        parts.push((low, high));
    }
    parts.reverse();
    parts
}

/// The complete subtrees, as height and number, that make up `low..high` from left (largest) to right. `low` is a
/// multiple of the largest power of two that is at most `high - low`.
pub(super) fn subtrees(mut low: u64, high: u64) -> impl Iterator<Item = (u32, u64)> {
    std::iter::from_fn(move || {
        let height = high.checked_sub(low)?.checked_ilog2()?;
        let number = low >> height;
        low += 1 << height;
        Some((height, number))
    })
}

/// Largest power of two smaller than `n`, for `n` of two or more.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_the_rfcs_example() {
        // RFC 6962, section 2.1.3: seven leaves.
        assert_eq!(inclusion(0, 7), [(1, 2), (2, 4), (4, 7)]);
        assert_eq!(inclusion(3, 7), [(2, 3), (0, 2), (4, 7)]);
        assert_eq!(inclusion(6, 7), [(4, 6), (0, 4)]);
        assert_eq!(consistency(3, 7), [(2, 3), (3, 4), (0, 2), (4, 7)]);
        assert_eq!(consistency(4, 7), [(4, 7)]);
        assert_eq!(consistency(6, 7), [(4, 6), (6, 7), (0, 4)]);
        assert_eq!(subtrees(4, 7).collect::<Vec<_>>(), [(1, 2), (0, 6)]);
        assert_eq!(subtrees(0, 0).count(), 0);
        assert!(consistency(0, 7).is_empty() && consistency(7, 7).is_empty());
    }
}
