//! When entries were appended, served as entries are: what the tree doesn't hold and a whole copy needs.
//!
//! `<prefix>/appended/<N>[.p/<W>]` is to times what `<prefix>/tile/entries/<N>[.p/<W>]` (C2SP tlog-tiles) is to entries:
//! for each of them eight bytes, big-endian, nanoseconds since 1970. They aren't under the log's signature; whoever
//! copies them checks that they never decrease and don't lie in his future.

use super::tile::Tile;
use super::{Log, Nanos, ReadError};

const PREFIX: &str = "appended/";
const ENTRIES: &str = "tile/entries/";

/// The path of the times of the bundle `number`, below the log's prefix.
#[must_use]
pub fn path(number: u64, width: u16) -> String {
    Tile { level: None, number, width }.to_string().replacen(ENTRIES, PREFIX, 1)
}

/// The bundle that a path like `appended/x001/234.p/5` names; `None` if it isn't exactly one.
#[must_use]
pub fn parse_path(path: &str) -> Option<Tile> {
    let rest = path.strip_prefix(PREFIX)?;
    Tile::parse(&format!("{ENTRIES}{rest}")).filter(|tile| tile.level.is_none())
}

/// When the entries of the bundle `tile` were appended; `None` if they aren't all among the first `covered` entries.
///
/// # Errors
/// See [`ReadError`].
pub fn render(log: &dyn Log, tile: Tile, covered: u64) -> Result<Option<Vec<u8>>, ReadError> {
    if tile.level.is_some() || tile.entries_needed().is_none_or(|needed| needed > covered) {
        return Ok(None);
    }
    let (mut bytes, mut next) = (Vec::new(), tile.first());
    let end = next.saturating_add(u64::from(tile.width));
    while next < end {
        let room = usize::try_from(end - next).unwrap_or(usize::MAX);
        let entries = log.read(next, room, usize::MAX)?;
        if entries.is_empty() {
            return Err(ReadError::OutOfRange { wanted: next, size: log.size() });
        }
        next += entries.len() as u64;
        bytes.extend(entries.iter().flat_map(|entry| entry.appended.0.to_be_bytes()));
    }
    Ok(Some(bytes))
}

/// The times in what [`render`] made; `None` if it isn't exactly `width` of them.
#[must_use]
pub fn parse(bytes: &[u8], width: u16) -> Option<Vec<Nanos>> {
    let (times, rest) = bytes.as_chunks::<8>();
    let is_whole = rest.is_empty() && times.len() == usize::from(width);
    is_whole.then(|| times.iter().map(|time| Nanos(u64::from_be_bytes(*time))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_path_leads_back(number: u64, width in 1u16..=256) {
            let tile = Tile { level: None, number, width };
            prop_assert_eq!(parse_path(&path(number, width)), Some(tile));
        }

        #[test]
        fn times_lead_back(times in prop::collection::vec(any::<u64>(), 0..20)) {
            let bytes: Vec<u8> = times.iter().flat_map(|time| time.to_be_bytes()).collect();
            let expected: Vec<Nanos> = times.iter().copied().map(Nanos).collect();
            let width = times.len() as u16;
            prop_assert_eq!(parse(&bytes, width), Some(expected));
            prop_assert_eq!(parse(&bytes, width + 1), None);
            prop_assert_eq!(parse(&[&bytes[..], &[0]].concat(), width), None);
        }
    }

    #[test]
    fn other_paths_are_none() {
        for path in [
            "appended/0",
            "appended/0/000",
            "appended/x000/001",
            "tile/entries/000",
            "appended/",
            "appended/000.p/0",
        ] {
            assert_eq!(parse_path(path), None, "{path}");
        }
    }
}
