//! Which version of a mapping made a document: it stands in it, so that a document of another one isn't taken for an altered
//! one.

use super::Logged;
use crate::clock::Nanos;
use crate::event::TYPES;
use crate::event::hex::to_hex;
use crate::log::tree::leaf_hash;
use sha2::{Digest as _, Sha256};

/// How much of a hash tells versions apart.
const DIGITS: usize = 16;

/// Of this program's version, and of what `made` makes of each type's example.
pub(super) fn of(made: impl Fn(&Logged<'_>) -> Vec<u8>) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    for bytes in TYPES.iter().filter_map(|info| (info.example)().ok()) {
        let leaf = leaf_hash(&bytes);
        hash.update(made(&Logged { origin: "", index: 0, appended: Nanos(0).into(), leaf, bytes: &bytes }));
    }
    let mut version = to_hex(&hash.finalize());
    version.truncate(DIGITS);
    version
}
