//! What moves of one file, one way: counted, and hashed as long as it is one piece.
//!
//! Clients ask for many parts ahead, and answers may come in another order; what comes early waits in a window that all
//! files of a channel share. What doesn't fit ends the hash, never the transfer.

use custody_core::event::file::Moved;
use custody_core::event::hex::to_hex;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Bytes that wait on one channel for what comes before them in their file: more than the 64 parts of 32 KiB that ssh2 of npm
/// writes at once, in the order in which its disk gives them.
pub(super) const EARLY_BYTES_MAX: usize = 3 << 20;
/// What a waiting part costs besides its bytes.
const EARLY_ENTRY_BYTES: usize = 64;

/// One file, one way.
#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: u64,
    /// Where the piece begins, once that is known.
    from: Option<u64>,
    /// `None` once the parts are no longer one piece.
    piece: Piece,
}

#[derive(Debug)]
enum Piece {
    Whole { next: u64, hash: Box<Sha256>, early: BTreeMap<u64, Vec<u8>> },
    Broken,
}

impl Default for Piece {
    fn default() -> Self {
        Piece::Whole { next: 0, hash: Box::default(), early: BTreeMap::new() }
    }
}

impl Content {
    /// The first part that is asked for begins at `offset`.
    pub fn begins(&mut self, offset: u64) {
        if self.from.is_none() {
            self.from = Some(offset);
            if let Piece::Whole { next, .. } = &mut self.piece {
                *next = offset;
            }
        }
    }

    /// `data` moved, which stands at `offset`. `room`: what is left of the channel's [`EARLY_BYTES_MAX`].
    ///
    /// Where nobody said where it begins, that is the lowest offset that comes before the room is used up: clients that
    /// write several parts at once do so in any order (ssh2 of npm).
    pub fn moved(&mut self, offset: u64, data: &[u8], room: &mut usize) {
        if data.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        let cost = data.len() + EARLY_ENTRY_BYTES;
        if offset == 0 || cost > *room {
            self.begins_lowest(offset, room);
        }
        let Piece::Whole { next, hash, early } = &mut self.piece else { return };
        if offset == *next {
            hash.update(data);
            *next = next.saturating_add(data.len() as u64);
            self.catch_up(room);
        } else if offset > *next && cost <= *room && !early.contains_key(&offset) {
            *room -= cost;
            early.insert(offset, data.to_vec());
        } else {
            self.begins_lowest(offset, room);
            self.break_up(room);
        }
    }

    /// Unless it is known where it begins: that is at `offset`, or at what came and is lower.
    fn begins_lowest(&mut self, offset: u64, room: &mut usize) {
        if self.from.is_none() {
            let lowest = self.lowest().map_or(offset, |lowest| lowest.min(offset));
            self.begins(lowest);
            self.catch_up(room);
        }
    }

    fn lowest(&self) -> Option<u64> {
        match &self.piece {
            Piece::Whole { early, .. } => early.keys().next().copied(),
            Piece::Broken => None,
        }
    }

    /// Hashes what came early and is next.
    fn catch_up(&mut self, room: &mut usize) {
        let Piece::Whole { next, hash, early } = &mut self.piece else { return };
        while let Some(entry) = early.first_entry().filter(|entry| entry.key() == next) {
            let part = entry.remove();
            *room += part.len() + EARLY_ENTRY_BYTES;
            hash.update(&part);
            *next = next.saturating_add(part.len() as u64);
        }
    }

    /// Something of it can't be followed: there will be no hash.
    pub fn break_up(&mut self, room: &mut usize) {
        if let Piece::Whole { early, .. } = std::mem::replace(&mut self.piece, Piece::Broken) {
            *room += early.values().map(|part| part.len() + EARLY_ENTRY_BYTES).sum::<usize>();
        }
    }

    /// What it came to.
    pub fn end(mut self, room: &mut usize) -> Moved {
        if let Some(lowest) = self.lowest() {
            self.begins_lowest(lowest, room);
        }
        if matches!(&self.piece, Piece::Whole { early, .. } if !early.is_empty()) {
            self.break_up(room);
        }
        let offset = self.from.unwrap_or_default();
        let sha256 = match self.piece {
            Piece::Whole { hash, .. } => Some(to_hex(&hash.finalize())),
            Piece::Broken => None,
        };
        Moved { bytes: self.bytes, offset, partial: sha256.is_none() || offset > 0, sha256 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sha256(bytes: &[u8]) -> Option<String> {
        Some(to_hex(&Sha256::digest(bytes)))
    }

    #[test]
    fn a_part_of_a_file_is_marked_and_a_hole_has_no_hash() {
        let mut room = EARLY_BYTES_MAX;
        let mut content = Content::default();
        content.moved(7, b"behind", &mut room);
        let moved = content.end(&mut room);
        assert_eq!((moved.bytes, moved.offset, moved.partial), (6, 7, true));
        assert_eq!(moved.sha256, sha256(b"behind"));

        let mut content = Content::default();
        content.moved(0, b"one", &mut room);
        content.moved(5, b"three", &mut room);
        assert!(room < EARLY_BYTES_MAX);
        let moved = content.end(&mut room);
        assert_eq!((moved.bytes, moved.partial, moved.sha256), (8, true, None));
        assert_eq!(room, EARLY_BYTES_MAX);

        let empty = Content::default().end(&mut room);
        assert_eq!((empty.bytes, empty.partial, empty.sha256), (0, false, sha256(b"")));
    }

    /// A resumed upload: the window fills up, and it begins where the lowest part does.
    #[test]
    fn what_begins_behind_the_start_is_hashed_from_there() {
        let mut room = EARLY_BYTES_MAX;
        let mut content = Content::default();
        let file = vec![7; 3 * EARLY_BYTES_MAX];
        for (n, part) in file.chunks(EARLY_BYTES_MAX / 3).enumerate() {
            content.moved(100 + (n * (EARLY_BYTES_MAX / 3)) as u64, part, &mut room);
        }
        let moved = content.end(&mut room);
        assert_eq!((moved.bytes, moved.offset, moved.partial), (file.len() as u64, 100, true));
        assert_eq!((moved.sha256, room), (sha256(&file), EARLY_BYTES_MAX));
    }

    #[test]
    fn what_comes_too_early_or_twice_ends_the_hash_and_gives_its_room_back() {
        let mut room = EARLY_BYTES_MAX;
        let mut content = Content::default();
        content.begins(0);
        content.moved(1 << 30, &vec![0; EARLY_BYTES_MAX / 2], &mut room);
        content.moved(1 << 31, &vec![0; EARLY_BYTES_MAX], &mut room);
        assert_eq!(room, EARLY_BYTES_MAX);
        assert_eq!(content.end(&mut room).sha256, None);
        let mut content = Content::default();
        content.moved(0, b"ab", &mut room);
        content.moved(1, b"b", &mut room);
        assert_eq!(content.end(&mut room).sha256, None);
        let mut content = Content::default();
        content.moved(u64::MAX, b"ab", &mut room);
        content.moved(u64::MAX, b"ab", &mut room);
        assert_eq!(content.end(&mut room).bytes, 4);
    }

    proptest! {
        /// Whatever the order, the hash is the file's; and the room is whole again.
        #[test]
        fn parts_in_any_order_are_one_piece(
            file in prop::collection::vec(any::<u8>(), 0..2000),
            part in 1usize..300,
            order in any::<prop::sample::Index>(),
            // Where it begins, as far as that is said.
            base in 0u64..3,
            is_said: bool,
        ) {
            let mut parts: Vec<(u64, &[u8])> =
                file.chunks(part).enumerate().map(|(n, chunk)| (base + (n * part) as u64, chunk)).collect();
            let count = parts.len();
            if count > 0 {
                parts.rotate_left(order.index(count));
            }
            let mut room = EARLY_BYTES_MAX;
            let mut content = Content::default();
            if is_said {
                content.begins(base);
            }
            for (offset, chunk) in parts {
                content.moved(offset, chunk, &mut room);
            }
            let moved = content.end(&mut room);
            prop_assert_eq!(moved.sha256, sha256(&file));
            prop_assert_eq!(moved.bytes, file.len() as u64);
            prop_assert_eq!(moved.offset, if is_said || count > 0 { base } else { 0 });
            prop_assert_eq!(moved.partial, moved.offset > 0);
            prop_assert_eq!(room, EARLY_BYTES_MAX);
        }
    }
}
