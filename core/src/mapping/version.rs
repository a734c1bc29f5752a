//! Which version of a mapping made a document: it stands in it, so that a document of another one isn't taken for an altered
//! one.

use super::Logged;
use crate::clock::Nanos;
use crate::event::TYPES;
use crate::event::hex::to_hex;
use crate::log::Hash;
use crate::log::tree::leaf_hash;
use sha2::{Digest as _, Sha256};

/// How much of a hash tells versions apart.
const DIGITS: usize = 16;
/// The leaf of no example.
const NO_LEAF: Hash = Hash([0; 32]);

/// Of this program's version, and of what `made` makes of each type's example.
pub(super) fn of(made: impl Fn(&Logged<'_>) -> Vec<u8>) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    for bytes in TYPES.iter().filter_map(|info| (info.example)().ok()) {
        // Whole, and as one of which something was taken out.
        for leaf in [leaf_hash(&bytes), NO_LEAF] {
            hash.update(made(&Logged {
                origin: "",
                index: 0,
                appended: Nanos(0).into(),
                leaf,
                bytes: &bytes,
            }));
        }
    }
    let mut version = to_hex(&hash.finalize());
    version.truncate(DIGITS);
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else what an earlier version sent of redacted events would be taken for altered.
    #[test]
    fn what_is_made_of_redacted_events_makes_a_version() {
        let whole = |_: &Logged<'_>| b"{}".to_vec();
        let marked = |entry: &Logged<'_>| if entry.is_redacted() { b"{1}".to_vec() } else { whole(entry) };
        assert_ne!(of(whole), of(marked));
    }
}
