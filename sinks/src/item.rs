//! One event on its way to a destination.

use custody_core::clock::Nanos;
use custody_core::event::Event;
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Entry, Hash};
use std::sync::{Arc, OnceLock};

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
    pub bytes: Arc<[u8]>,
    /// Whether something was taken out: then `bytes` don't give `leaf`.
    pub redacted: bool,
    /// Read when it is asked for first: not each destination does.
    event: OnceLock<Option<Box<Event>>>,
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
            event: OnceLock::new(),
        }
    }

    /// With these bytes in the place of its own; the envelope is theirs then too.
    #[must_use]
    pub fn redacted_to(self, bytes: Arc<[u8]>) -> Self {
        Self { bytes, redacted: true, event: OnceLock::new(), ..self }
    }

    /// Without the envelope that was read, which takes more room than all else: of those that wait there are thousands.
    #[must_use]
    pub fn unread(self) -> Self {
        Self { event: OnceLock::new(), ..self }
    }

    /// The envelope, where the bytes are an event.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        self.event.get_or_init(|| Event::parse(&self.bytes).ok().map(Box::new)).as_deref()
    }

    /// Its type; empty where the bytes are no event.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.event().map_or("", |event| &event.kind)
    }
}
