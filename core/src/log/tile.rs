//! Tiles (C2SP tlog-tiles): how others read the tree and the entries. Their names, what is in them, and when they exist.

use std::fmt;

use super::tree::Hash;
use super::{Log, ReadError};

/// Hashes in a full tile and entries in a full bundle.
pub const WIDTH_FULL: u16 = 256;
const LEVEL_MAX: u8 = 63;
/// A tile of a level above this would take more than 2^64 entries.
const LEVEL_REACHED: u8 = 7;

/// A tile of hashes or a bundle of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// The level of a tile of hashes, 0 to 63; `None` for a bundle of entries.
    pub level: Option<u8>,
    /// Its number in its level.
    pub number: u64,
    /// Its width: 256 is full, less is partial, never zero.
    pub width: u16,
}

impl Tile {
    /// Reads a path like `tile/0/x001/x234/067.p/12` or `tile/entries/000`; `None` if it isn't exactly one.
    #[must_use]
    pub fn parse(path: &str) -> Option<Tile> {
        let rest = path.strip_prefix("tile/")?;
        let (level, rest) = rest.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(u8::try_from(plain(level)?).ok().filter(|level| *level <= LEVEL_MAX)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => {
                (number, u16::try_from(plain(width)?).ok().filter(|w| (1..WIDTH_FULL).contains(w))?)
            }
            None => (rest, WIDTH_FULL),
        };
        let mut value: u64 = 0;
        let groups: Vec<&str> = number.split('/').collect();
        let (last, before) = groups.split_last()?;
        let digits = before.iter().map(|group| group.strip_prefix('x')).chain([Some(*last)]);
        for group in digits {
            let group = group.filter(|g| g.len() == 3 && g.bytes().all(|b| b.is_ascii_digit()))?;
            value = value.checked_mul(1000)?.checked_add(group.parse().ok()?)?;
        }
        let tile = Tile { level, number: value, width };
        // Leading groups of zeroes would be a second name for the same tile.
        if tile.to_string() == path { Some(tile) } else { None }
    }

    /// Tile `number` of its level as a tree of `size` entries has it: full, partial, or not at all.
    #[must_use]
    pub fn of(level: Option<u8>, number: u64, size: u64) -> Option<Tile> {
        let hashes = size.checked_shr(u32::from(level.unwrap_or(0)) * 8).unwrap_or(0);
        let there = hashes.checked_sub(number.checked_mul(u64::from(WIDTH_FULL))?)?;
        let width = u16::try_from(there).map_or(WIDTH_FULL, |there| there.min(WIDTH_FULL));
        (width > 0).then_some(Tile { level, number, width })
    }

    /// All tiles of one level, or all bundles, of a tree of `size` entries.
    pub fn all(level: Option<u8>, size: u64) -> impl Iterator<Item = Tile> {
        (0..).map_while(move |number| Tile::of(level, number, size))
    }

    /// The level of its hashes in the tree; a bundle lies beside level 0.
    #[must_use]
    pub fn height(&self) -> u32 {
        u32::from(self.level.unwrap_or(0)) * 8
    }

    /// The number of its first hash in its level, or of its first entry.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.number.saturating_mul(u64::from(WIDTH_FULL))
    }

    /// How many entries a log has once this tile exists; `None` if no log will ever have so many.
    #[must_use]
    pub fn entries_needed(&self) -> Option<u64> {
        if self.level.is_some_and(|level| level > LEVEL_REACHED) {
            return None;
        }
        let hashes = self.number.checked_mul(u64::from(WIDTH_FULL))?.checked_add(u64::from(self.width))?;
        hashes.checked_mul(1 << self.height())
    }
}

/// What is in `tile`, in a log whose newest published checkpoint covers `covered` entries; `None` as long as that isn't
/// enough for it: nobody could check it.
///
/// It is made of the records each time. They are the truth, and a file beside them would be a second one that can rot
/// or lag; a bundle is a copy of at most 256 records, a tile 256 hashes that are mostly in memory.
///
/// # Errors
/// See [`ReadError`]: a damaged record is named, and nothing is made up for it.
pub fn render(log: &dyn Log, tile: Tile, covered: u64) -> Result<Option<Vec<u8>>, ReadError> {
    if tile.entries_needed().is_none_or(|needed| needed > covered) {
        return Ok(None);
    }
    let (first, end) = (tile.first(), tile.first().saturating_add(u64::from(tile.width)));
    match tile.level {
        Some(_) => {
            let hashes = log.nodes(tile.height(), first..end)?;
            Ok(Some(hashes.iter().flat_map(|hash| hash.0).collect()))
        }
        None => bundle(log, first, end).map(Some),
    }
}

/// Entries one after the other, each behind its length (two bytes, big-endian).
fn bundle(log: &dyn Log, first: u64, end: u64) -> Result<Vec<u8>, ReadError> {
    let (mut bytes, mut next) = (Vec::new(), first);
    while next < end {
        let room = usize::try_from(end - next).unwrap_or(usize::MAX);
        let entries = log.read(next, room, usize::MAX)?;
        if entries.is_empty() {
            return Err(ReadError::OutOfRange { wanted: next, size: log.size() });
        }
        for entry in entries {
            // The log takes no entry that is longer.
            let length = u16::try_from(entry.bytes.len())
                .map_err(|_| ReadError::OutOfRange { wanted: entry.index, size: log.size() })?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&entry.bytes);
            next += 1;
        }
    }
    Ok(bytes)
}

/// What another log sent isn't the tile that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has not the {0} parts that it should have, or more")]
pub struct WrongWidth(pub u16);

/// The entries of a bundle of `width`.
///
/// # Errors
/// [`WrongWidth`] if it is cut off, or has more or fewer.
pub fn parse_bundle(mut bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, WrongWidth> {
    let mut entries = Vec::with_capacity(usize::from(width));
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (entry, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(WrongWidth(width))?;
        entries.push(entry);
        bytes = rest;
    }
    let is_whole = bytes.is_empty() && entries.len() == usize::from(width);
    if is_whole { Ok(entries) } else { Err(WrongWidth(width)) }
}

/// The hashes of a tile of `width`.
///
/// # Errors
/// [`WrongWidth`] if it has another length.
pub fn parse_hashes(bytes: &[u8], width: u16) -> Result<Vec<Hash>, WrongWidth> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    let is_whole = rest.is_empty() && hashes.len() == usize::from(width);
    if is_whole { Ok(hashes.iter().copied().map(Hash).collect()) } else { Err(WrongWidth(width)) }
}

/// The path below the log's prefix.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "tile/{level}/")?,
            None => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![format!("{:03}", self.number % 1000)];
        let mut rest = self.number / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        f.write_str(&groups.join("/"))?;
        if self.width < WIDTH_FULL { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

fn plain(text: &str) -> Option<u64> {
    super::checkpoint::parse_decimal(text)
}

#[cfg(test)]
#[path = "tile_tests.rs"]
pub(super) mod tests;
