//! Where a session's recording lies.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

/// `<recordings>/<yyyy>/<mm>/<dd>/<session>.rec`, by the UTC day of the session's start (ns since 1970).
pub fn recording_path(recordings: &Path, session: Uuid, started_ns: u64) -> PathBuf {
    // A u64 of nanoseconds ends in 2554, within jiff's range.
    let started = Timestamp::from_nanosecond(i128::from(started_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    let day = started.to_zoned(TimeZone::UTC).date();
    recordings
        .join(format!("{:04}", day.year()))
        .join(format!("{:02}", day.month()))
        .join(format!("{:02}", day.day()))
        .join(format!("{session}.rec"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_day() {
        let session = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let path = |ns| recording_path(Path::new("r"), session, ns).to_str().unwrap().to_owned();
        let day = 86_400_000_000_000;
        assert_eq!(path(0), "r/1970/01/01/01900000-0000-7000-8000-000000000001.rec");
        assert_eq!(path(day * 31 - 1), "r/1970/01/31/01900000-0000-7000-8000-000000000001.rec");
        assert_eq!(path(day * 31), "r/1970/02/01/01900000-0000-7000-8000-000000000001.rec");
        assert_eq!(path(u64::MAX), "r/2554/07/21/01900000-0000-7000-8000-000000000001.rec");
    }
}
