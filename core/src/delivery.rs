//! What is known of deliveries: the words that sinks, the API and the client have in common.

pub use crate::event::sink::{Errand, Verdict};

use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::pin::Pin;

/// Findings of each kind that are listed; all are counted.
pub const LISTED: usize = 1_000;
/// Missing events that are so near to each other are repaired together: the few between that are there cost one look.
const NEAR: u64 = 100;
/// Parts of the log that are repaired at once; the last one takes in whatever comes after it.
const RANGES_MAX: usize = 10_000;
/// Dead letters that are listed, the newest; all are counted ([`Numbers::dead_letters`]), and stand in the sink's own file.
pub const DEAD_LETTERS_LISTED: usize = 10_000;
/// The longest reason of a dead letter that is kept, in bytes: destinations like to repeat what they were sent.
pub const REASON_BYTES_MAX: usize = 512;

/// How a sink does at one moment: counted since the program started, but for the position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Bytes that were confirmed, as they are on the wire.
    pub bytes: u64,
    /// Events that were confirmed.
    pub confirmed: u64,
    /// When the last confirmed event was appended, nanoseconds since the epoch; 0 before the first.
    pub confirmed_appended: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Events in doubt that the destination had.
    pub found: u64,
    /// Events in doubt that were looked up.
    pub looked_up: u64,
    /// The first event that isn't confirmed.
    pub next: u64,
    /// Events a second that were confirmed lately.
    #[serde(default)]
    pub per_second: u64,
    /// Events that the destination refused.
    pub rejected: u64,
    /// What doesn't work of a replay or a redrive right now.
    #[serde(default)]
    pub replay_trouble: Option<String>,
    /// Replays that have come to their end.
    #[serde(default)]
    pub replays: u64,
    /// Attempts that came to nothing.
    pub retries: u64,
    /// What doesn't work right now.
    pub trouble: Option<String>,
}

/// An event that a destination refused for what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// The event's index.
    pub index: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the destination said.
    pub reason: String,
}

impl DeadLetter {
    /// With as much of the reason as is kept.
    #[must_use]
    pub fn new(index: u64, kind: &str, reason: &str) -> Self {
        let (reason, _) = reason.split_at(reason.floor_char_boundary(REASON_BYTES_MAX));
        Self { index, kind: kind.to_owned(), reason: reason.to_owned() }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The first index that was compared: what is older may be gone, for its age.
    #[serde(default)]
    pub from: u64,
    /// Up to which size of the log: a signed checkpoint's.
    pub size: u64,
    /// Events from there up to here that the sink lets through.
    pub expected: u64,
    /// Events that stand there, once and unaltered.
    pub proven: u64,
    /// Of those: without all of their bytes, so by index and leaf hash.
    pub redacted: u64,
    /// Of those: made by another version of the mapping, so that their other fields couldn't be compared.
    #[serde(default)]
    pub by_original: u64,
    /// Dead letters, which the destination refused: known not to stand there.
    pub rejected: u64,
    /// Events that don't stand there; see [`Report::lacks`].
    pub missing: Findings,
    /// The parts of the log that have to be delivered again so that nothing is missing: of all events, not only of those
    /// that are listed.
    #[serde(default)]
    pub to_repair: Vec<Range<u64>>,
    /// Events that stand there otherwise than in the log.
    pub altered: Findings,
    /// Events that stand there more than once.
    pub duplicated: Findings,
    /// What stands there and isn't the log's, or not what the sink lets through.
    pub extra: Findings,
    /// Parts that the destination didn't show in full.
    pub unproven: Vec<Unshown>,
}

/// One kind of finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Finding>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The event's index; none where a document claims none.
    pub index: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// A part of the log of which the destination didn't show everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unshown {
    /// From this index.
    pub from: u64,
    /// To this one, exclusive.
    pub to: u64,
    /// Why.
    pub reason: String,
}

impl Findings {
    /// Counts it, and lists it while there is room.
    pub fn add(&mut self, index: Option<u64>, what: impl Into<String>) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push(Finding { index, what: what.into() });
        }
    }
}

impl Report {
    /// What it comes to. What a destination refused it doesn't have, whosever fault that is: so that isn't proven either.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let wrong = [&self.missing, &self.altered, &self.duplicated, &self.extra];
        if !self.unproven.is_empty() || wrong.iter().any(|findings| findings.count > 0) {
            Verdict::NotProven
        } else if self.rejected > 0 {
            Verdict::Incomplete
        } else {
            Verdict::Proven
        }
    }

    /// Whether everything was shown, is there and is right.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.verdict() == Verdict::Proven
    }

    /// An event doesn't stand there. They are told in the log's order.
    pub fn lacks(&mut self, index: u64, what: impl Into<String>) {
        self.missing.add(Some(index), what);
        let is_full = self.to_repair.len() == RANGES_MAX;
        match self.to_repair.last_mut() {
            Some(range) if is_full || index < range.end.saturating_add(NEAR) => range.end = index + 1,
            _ => self.to_repair.push(index..index + 1),
        }
    }
}

/// A sink as the API tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Events that aren't delivered yet.
    pub lag_events: u64,
    /// How old the oldest of them is, in seconds; unknown where the log can't read it.
    pub lag_seconds: Option<u64>,
    /// Its name.
    pub name: String,
    /// Its numbers.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// Why somebody holds it.
    pub paused: Option<String>,
    /// What is left of a replay.
    pub replaying: Option<Range<u64>>,
}

/// A line of the API's answer while a destination is compared with the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparing {
    /// Compared so far.
    Compared {
        /// Events.
        events: u64,
        /// Of so many.
        of: u64,
    },
    /// What was found.
    Report(Box<Report>),
    /// Ranges that are delivered again.
    Repairing(Vec<Range<u64>>),
    /// It came to nothing.
    Error(String),
}

impl Errand {
    /// Why nothing else can be begun.
    #[must_use]
    pub fn is_under_way(self) -> String {
        let what = match self {
            Self::Replay => "a replay is under way",
            Self::Redrive => "dead letters are being sent again",
        };
        format!("{what}: wait for its end, or end it (custody sinks cancel)")
    }
}

/// What a question to a delivery comes to; `Err` is one line.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// A delivery that runs, whatever its destination is: what the daemon and the API hold of it.
pub trait Running: Send + Sync + 'static {
    /// The sink's name.
    fn name(&self) -> &str;
    /// Its numbers.
    fn numbers(&self) -> Numbers;
    /// Holds it, or lets it go on. What is under way is finished.
    fn pause(&self, paused: bool);
    /// Delivers a part of the log once more; what the destination has of it isn't sent. Comes back when it has begun.
    fn replay(&self, indexes: Range<u64>) -> Asked<'_, ()>;
    /// What is left of a replay.
    fn replaying(&self) -> Asked<'_, Option<Range<u64>>>;
    /// Sends dead letters again; gives how many are left.
    fn redrive(&self) -> Asked<'_, usize>;
    /// Ends a replay or a redrive where it is.
    fn cancel(&self) -> Asked<'_, ()>;
    /// What is under way beside the delivery of what is new.
    fn errand(&self) -> Asked<'_, Option<Errand>>;
    /// The dead letters, the newest [`DEAD_LETTERS_LISTED`] of them.
    fn dead_letters(&self) -> Asked<'_, Vec<DeadLetter>>;
    /// Reads the destination back and compares it with this part of the log. `told` hears how far it is.
    fn verify<'a>(&'a self, indexes: Range<u64>, told: Box<dyn FnMut(u64) + Send + 'a>) -> Asked<'a, Report>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let letter = DeadLetter::new(1, "x", &"é".repeat(REASON_BYTES_MAX));
        assert_eq!(letter.reason.len(), REASON_BYTES_MAX);
        assert_eq!(DeadLetter::new(1, "x", &format!("a{}", "é".repeat(REASON_BYTES_MAX))).reason.len(), 511);
    }

    #[test]
    fn what_was_refused_is_not_proven_and_has_a_verdict_of_its_own() {
        let mut report = Report { expected: 3, proven: 3, ..Report::default() };
        assert!(report.is_proven());
        report.rejected = 1;
        assert_eq!((report.verdict(), report.is_proven()), (Verdict::Incomplete, false));
        report.lacks(3, "gone");
        assert_eq!(report.verdict(), Verdict::NotProven);
    }

    #[test]
    fn what_is_missing_is_repaired_in_few_ranges() {
        let mut report = Report::default();
        for index in [3, 4, 90, 500] {
            report.lacks(index, "gone");
        }
        assert_eq!(report.to_repair, [3..91, 500..501]);
    }

    #[test]
    fn all_that_is_missing_is_repaired_and_not_only_what_is_listed() {
        let mut report = Report::default();
        (0..5_000).for_each(|index| report.lacks(index, "gone"));
        assert_eq!((report.missing.count, report.missing.first.len()), (5_000, LISTED));
        assert_eq!(report.to_repair, vec![Range { start: 0, end: 5_000 }]);
        // However they lie, there are not too many ranges, and each of them is in one.
        let mut report = Report::default();
        (0..30_000).for_each(|n| report.lacks(n * NEAR * 2, "gone"));
        assert_eq!(report.to_repair.len(), RANGES_MAX);
        assert_eq!(report.to_repair.last().unwrap().end, 29_999 * NEAR * 2 + 1);
    }
}
