//! Whether a document's fields are those that were sent: people search by them, and not by the event that stands beside them.

use crate::sink::Fields;
use serde_json::Value;

/// Of ECS documents, as JSON. One of another version of the mapping may have other fields.
#[must_use]
pub fn of_ecs(stored: &[u8], sent: &[u8]) -> Fields {
    compare(stored, sent, &["/custody/mapping"])
}

/// Of OCSF events, as JSON. One of another version of the mapping, or of OCSF, may have other attributes.
#[must_use]
pub fn of_ocsf(stored: &[u8], sent: &[u8]) -> Fields {
    compare(stored, sent, &["/unmapped/custody/mapping", "/metadata/version"])
}

/// `versions`: where it stands what made a document.
fn compare(stored: &[u8], sent: &[u8], versions: &[&str]) -> Fields {
    let read = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
    let (stored, sent) = (read(stored), read(sent));
    if stored == sent {
        Fields::AsSent
    } else if versions.iter().all(|version| stored.pointer(version) == sent.pointer(version)) {
        Fields::Altered
    } else {
        Fields::OfAnotherVersion
    }
}
