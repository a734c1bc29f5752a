//! Places in the log as people name them: an index, or a time of appending.

use super::error::ApiError;
use super::{Api, blocking};
use custody_core::event::Timestamp;
use custody_core::log::Log;
use serde::Deserialize;
use std::str::FromStr;
use std::sync::Arc;

/// Where in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Place {
    /// At this index.
    Index(u64),
    /// At the first entry that was appended then or later.
    Time(Timestamp),
}

/// As it stands in a query string: a number is an index.
impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let index = text.parse().map_err(|_| "an index has at most twenty digits".to_owned())?;
            return Ok(Self::Index(index));
        }
        text.parse().map(Self::Time)
    }
}

/// The index that a place means: for a time the first entry that was appended then or later, and `otherwise` for none.
pub(super) async fn index_at(api: &Api, place: Option<Place>, otherwise: u64) -> Result<u64, ApiError> {
    let time = match place {
        None => return Ok(otherwise),
        Some(Place::Index(index)) => return Ok(index),
        Some(Place::Time(time)) => time,
    };
    let log = Arc::clone(&api.context.log);
    blocking("read the log", move || {
        let (mut low, mut high) = (0, log.size());
        while low < high {
            let middle = low + (high - low) / 2;
            match appended(&*log, middle)? {
                Some(appended) if appended < time => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    })
    .await?
}

/// When an entry was appended.
pub(super) fn appended(log: &dyn Log, index: u64) -> Result<Option<Timestamp>, ApiError> {
    let entries = log.read(index, 1, 0).map_err(|error| ApiError::failed("read the log", error))?;
    Ok(entries.first().map(|entry| entry.appended.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_an_index_and_everything_else_a_time() {
        assert_eq!("40".parse(), Ok(Place::Index(40)));
        let time = Timestamp::from_seconds(1_764_028_800);
        assert_eq!("2025-11-25T00:00:00Z".parse(), Ok(Place::Time(time)));
        for wrong in ["", "-1", "yesterday", "999999999999999999999", "0x10"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
