//! `--at`: the log's state as it was, by the time of appending.

use anyhow::anyhow;
use clap::Args;
use custody_core::clock::{Clock as _, SystemClock};
use jiff::{SignedDuration, Timestamp};

/// A moment of the past.
#[derive(Args, Clone, Debug, Default)]
pub struct At {
    /// As it was then, by the log's own time: RFC 3339 (2026-11-25T09:30:00Z), or how long ago (90m, 36h)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<String>,
}

impl At {
    /// What is added to a question to the server.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        self.at.iter().map(|at| ("at", at.clone())).collect()
    }
}

fn now() -> Timestamp {
    let nanos = i128::from(SystemClock::new().wall().0);
    Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time as the server reads it.
pub fn moment(text: &str) -> Result<String, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_string());
    }
    let ago = text.parse::<SignedDuration>().ok().filter(|ago| !ago.is_negative());
    ago.and_then(|ago| now().checked_sub(ago).ok())
        .map(|time| time.to_string())
        .ok_or_else(|| anyhow!("a time is 2026-11-25T09:30:00Z, or how long ago: 90m, 36h").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_how_long_ago() {
        assert_eq!(moment("2026-11-25T09:30:00Z").unwrap(), "2026-11-25T09:30:00Z");
        assert_eq!(moment("2026-11-25T10:30:00+01:00").unwrap(), "2026-11-25T09:30:00Z");
        let ago = moment("90m").unwrap().parse::<Timestamp>().unwrap();
        let since = now().duration_since(ago);
        assert!((since - SignedDuration::from_mins(90)).abs() < SignedDuration::from_mins(1), "{since}");
        for wrong in ["", "yesterday", "-5m", "2026-13-01T00:00:00Z"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
