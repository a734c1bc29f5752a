//! Names and places of tiles (C2SP tlog-tiles): how others read the tree and the entries.

use std::fmt;

/// Hashes in a full tile and entries in a full bundle.
const WIDTH_FULL: u16 = 256;
const LEVEL_MAX: u8 = 63;

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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = Tile { level: Some(0), number: 1_234_067, width: 256 };
        assert_eq!(tile.to_string(), "tile/0/x001/x234/067");
        let partial = Tile { level: Some(1), number: 0, width: 1 };
        assert_eq!(partial.to_string(), "tile/1/000.p/1");
        assert_eq!(Tile { level: None, number: 5, width: 256 }.to_string(), "tile/entries/005");
    }

    #[test]
    fn second_names_and_nonsense_are_refused() {
        for path in [
            "tile/0/x000/001",
            "tile/00/001",
            "tile/64/001",
            "tile/0/1",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/x001",
            "tile/0/001/002",
            "tile/data/001",
            "tile/0/",
            "/tile/0/001",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_leads_back(level in proptest::option::of(0u8..=63), number: u64, width in 1u16..=256) {
            let tile = Tile { level, number, width };
            prop_assert_eq!(Tile::parse(&tile.to_string()), Some(tile));
        }

        #[test]
        fn no_path_panics(path in "tile/.{0,40}") {
            if let Some(tile) = Tile::parse(&path) {
                prop_assert_eq!(tile.to_string(), path);
            }
        }
    }
}
