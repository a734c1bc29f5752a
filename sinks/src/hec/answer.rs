//! What a collector answers ("HTTP Event Collector response codes" in Splunk's documentation).

use crate::http::Answered;
use crate::sink::Trouble;
use reqwest::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What became of a request with events.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are in the collector's memory; with the number by which is asked whether they are indexed.
    Taken(Option<u64>),
    /// One of them isn't what the collector takes.
    Invalid {
        /// Which, from zero, if it says so.
        event: Option<usize>,
        /// What it says.
        reason: String,
    },
}

/// Whether a batch is indexed.
#[derive(Debug, PartialEq, Eq)]
pub enum Acknowledged {
    Yes,
    /// Or never.
    NotYet,
    /// Nobody who knows has heard the question: it can be asked again.
    Unsaid {
        /// What came instead.
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    text: String,
    code: u64,
    #[serde(rename = "ackId")]
    acknowledgement: Option<u64>,
    #[serde(rename = "invalid-event-number")]
    invalid: Option<usize>,
}

impl Said {
    /// The number first: what stands behind it may repeat what was sent, and is told to nobody but whoever asks for the dead letter.
    fn reason(&self) -> String {
        format!("code {}: {}", self.code, one_line(&self.text))
    }
}

#[derive(Deserialize)]
struct Acknowledgements {
    acks: BTreeMap<String, bool>,
}

/// Reads an answer to events.
///
/// # Errors
/// [`Trouble`] for everything but these two outcomes.
pub fn outcome(answered: &Answered) -> Result<Outcome, Trouble> {
    let Ok(said) = serde_json::from_slice::<Said>(&answered.body) else {
        // What stands between us and the collector, perhaps.
        return Err(if answered.status.is_success() {
            Trouble::unclear(format!("no answer of a collector: {}", answered.reason()))
        } else {
            answered.trouble()
        });
    };
    let reason = said.reason();
    match said.code {
        // 24 and 25: near what it can hold, and taken.
        0 | 24 | 25 if answered.status.is_success() => Ok(Outcome::Taken(said.acknowledgement)),
        5 | 6 | 12 | 13 | 15 => Ok(Outcome::Invalid { event: said.invalid, reason }),
        // Those before that one were taken.
        code if is_busy(code) && said.invalid.is_some_and(|event| event > 0) => {
            Err(Trouble::Unclear { reason, retry_after: answered.retry_after() })
        }
        code => Err(trouble(code, reason, answered)),
    }
}

/// Reads what came of the question whether a batch is indexed. Whoever is too busy to say so, and a connection that never came
/// about, have taken no answer away: to give up for that would be to send a batch again that is about to be acknowledged.
///
/// # Errors
/// [`Trouble`] where an answer may have been lost, which isn't given twice, as a collector forgets what it has acknowledged; and
/// where it knows nothing of the batch.
pub fn acknowledged(asked: Result<Answered, Trouble>, id: u64) -> Result<Acknowledged, Trouble> {
    let unclear = Trouble::unclear;
    let answered = match asked {
        Ok(answered) => answered,
        Err(trouble) if trouble.leaves_doubt() => {
            return Err(unclear(format!("its acknowledgement can't be asked for: {trouble}")));
        }
        Err(trouble) => {
            let (reason, retry_after) = (trouble.to_string(), trouble.retry_after());
            return Ok(Acknowledged::Unsaid { reason, retry_after });
        }
    };
    if !answered.status.is_success() {
        let (reason, retry_after) = (answered.reason(), answered.retry_after());
        return Ok(Acknowledged::Unsaid { reason, retry_after });
    }
    let said: Acknowledgements = serde_json::from_slice(&answered.body)
        .map_err(|error| unclear(format!("its acknowledgement can't be read: {error}")))?;
    match said.acks.get(&id.to_string()) {
        Some(true) => Ok(Acknowledged::Yes),
        Some(false) => Ok(Acknowledged::NotYet),
        None => Err(unclear("it knows nothing of an acknowledgement that it promised".to_owned())),
    }
}

/// Reads an answer to the question for nothing, which only asks whether the token has acknowledgement.
///
/// # Errors
/// [`Trouble`] where it has none, or isn't let in, or nobody answers who could know.
pub fn acknowledges(answered: &Answered) -> Result<(), Trouble> {
    if answered.status.is_success() {
        return Ok(());
    }
    match serde_json::from_slice::<Said>(&answered.body) {
        // It is the question that it doesn't like, which says nothing against the token.
        Ok(Said { code: 5 | 6 | 12 | 13 | 15, .. }) => Ok(()),
        Ok(said) => {
            let reason = said.reason();
            Err(trouble(said.code, reason, answered))
        }
        Err(_) => Err(answered.trouble()),
    }
}

fn trouble(code: u64, reason: String, answered: &Answered) -> Trouble {
    match code {
        // The token: disabled, missing, of a wrong form, unknown; query strings.
        1..=4 | 16 => {
            Trouble::Denied { reason: format!("see endpoint.auth and the token in Splunk: {reason}") }
        }
        // One index that the token may not write to makes the whole batch invalid, and all of ours name the same.
        7 => Trouble::Denied { reason: format!("see index, and which ones the token allows: {reason}") },
        10 | 11 => Trouble::Denied { reason },
        14 => Trouble::Denied {
            reason: format!(
                "switch indexer acknowledgement on in Splunk, or set acknowledged = false: {reason}"
            ),
        },
        _ if answered.status == StatusCode::PAYLOAD_TOO_LARGE => answered.trouble(),
        // Who says so and that all went well may have taken it.
        code if is_busy(code) && !answered.status.is_success() => {
            Trouble::Refused { reason, retry_after: answered.retry_after() }
        }
        _ => answered.trouble(),
    }
}

/// Busy, unhealthy, going down, full.
const fn is_busy(code: u64) -> bool {
    matches!(code, 9 | 18..=27)
}

fn one_line(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
