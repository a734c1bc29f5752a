//! One event on its way to a destination.

use bytes::Bytes;
use custody_core::clock::Nanos;
use custody_core::event::Head;
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Entry, Hash};

/// An entry of the log with what destinations ask of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its index: with the log's origin, its identity everywhere.
    pub index: u64,
    /// When it was appended: its time everywhere.
    pub appended: Nanos,
    /// Its leaf hash in the log's tree, whatever was taken out of it.
    pub leaf: Hash,
    /// Its canonical bytes, less what the sink's redaction takes out.
    pub bytes: Bytes,
    /// Whether something was taken out: then `bytes` don't give `leaf`.
    pub redacted: bool,
}

impl Item {
    /// From an entry, whole.
    #[must_use]
    pub fn new(entry: Entry) -> Self {
        Self {
            index: entry.index,
            appended: entry.appended,
            leaf: leaf_hash(&entry.bytes),
            bytes: entry.bytes,
            redacted: false,
        }
    }

    /// With these bytes in the place of its own.
    #[must_use]
    pub fn redacted_to(self, bytes: Bytes) -> Self {
        Self { bytes, redacted: true, ..self }
    }

    /// What stores find it by, where the bytes are an event. It is read each time.
    #[must_use]
    pub fn head(&self) -> Option<Head<'_>> {
        Head::parse(&self.bytes).ok()
    }

    /// Its type; empty where the bytes are no event. It is read each time.
    #[must_use]
    pub fn kind(&self) -> String {
        self.head().map_or_else(String::new, |head| head.kind.to_string())
    }
}
