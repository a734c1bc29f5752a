//! Events as others want them: Elastic Common Schema, OCSF and CEF.
//!
//! What goes where is data (`schemas/{ecs,ocsf,cef}/mapping.json`, `schemas/messages.json`), read once by this program
//! and printed in docs/mappings.md; here lie the pure functions that carry it out. A mapped event is a copy for searching
//! and alerting, and holds the evidence unchanged beside it, so that a reader can check it against the log.
//!
//! Whatever bytes an entry has, it becomes a document that its reader takes: types and fields that nobody here knows
//! keep a generic shape, values that can't be what a field asks for are left out of it, and none is longer than an
//! index takes. What was shortened is named beside it.

mod address;
pub mod cef;
mod convert;
pub mod ecs;
mod json;
mod message;
pub mod ocsf;
mod plain;
mod rule;
mod version;
mod view;

#[cfg(test)]
mod hostile;

pub use message::Severity;

use crate::event::Timestamp;
use crate::log::{Entry, Hash, tree};

/// How bad an entry is: what its type usually is, or what it is where it failed or was denied.
#[must_use]
pub fn severity(entry: &Logged<'_>) -> Severity {
    message::Message::of(&view::View::new(entry)).severity
}

/// One entry of a log, as a mapping needs it.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    /// The origin of the log (C2SP tlog-checkpoint).
    pub origin: &'a str,
    /// The entry's index.
    pub index: u64,
    /// When it was appended.
    pub appended: Timestamp,
    /// The entry's hash in the tree.
    pub leaf: Hash,
    /// The event's canonical bytes, less what was taken out of them.
    pub bytes: &'a [u8],
}

impl<'a> Logged<'a> {
    /// An entry of the log `origin`.
    #[must_use]
    pub fn new(origin: &'a str, entry: &'a Entry) -> Self {
        Self {
            origin,
            index: entry.index,
            appended: entry.appended.into(),
            leaf: tree::leaf_hash(&entry.bytes),
            bytes: &entry.bytes,
        }
    }

    /// Whether something was taken out of its bytes: then they don't give its leaf.
    #[must_use]
    pub fn is_redacted(&self) -> bool {
        tree::leaf_hash(self.bytes) != self.leaf
    }

    /// What names this entry in the whole world, however often and from whatever copy it is sent: `ORIGIN#INDEX`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}#{}", self.origin, self.index)
    }
}
