//! Whether a document's fields are those that were sent: people search by them, and not by the event that stands beside them.

use crate::sink::Fields;
use serde_json::Value;

/// Of ECS documents, as JSON. One of another version of the mapping may have other fields.
#[must_use]
pub fn of_ecs(stored: &[u8], sent: &[u8]) -> Fields {
    let read = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
    let (stored, sent) = (read(stored), read(sent));
    if stored == sent {
        Fields::AsSent
    } else if stored.pointer("/custody/mapping") == sent.pointer("/custody/mapping") {
        Fields::Altered
    } else {
        Fields::OfAnotherVersion
    }
}
