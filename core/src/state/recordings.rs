//! What proves a session's recording: its anchors and its seal.

use crate::event::hex::{hash_from_hex, to_hex};
use crate::event::recording::{Anchored, Sealed};
use serde::Serialize;

/// How many anchors of one recording are kept: more than a day of one a second. Beyond it every second one is let
/// go; all of them stay in the log.
pub const ANCHORS_MAX: usize = 1 << 17;

/// One anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Hash of the last block.
    pub head: [u8; 32],
    /// The index of the event.
    pub index: u64,
}

/// What is known of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Anchors in the order of the log.
    pub anchors: Vec<Anchor>,
    /// The seal, and its index.
    pub sealed: Option<(u64, Seal)>,
    /// How often it was handed out.
    pub views: u64,
}

/// The seal of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Number of frames.
    pub frames: u64,
    /// Hash of the last block.
    pub head: [u8; 32],
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

const SEALED: &str = "the recording is sealed";
const NO_HASH: &str = "that is no hash";

impl Recording {
    pub(super) fn anchored(&mut self, index: u64, data: &Anchored) -> Result<(), &'static str> {
        if self.sealed.is_some() {
            return Err(SEALED);
        }
        if self.anchors.last().is_some_and(|last| last.bytes > data.bytes) {
            return Err("the recording has become shorter");
        }
        let anchor = Anchor { bytes: data.bytes, head: hash_from_hex(&data.head).ok_or(NO_HASH)?, index };
        if self.anchors.len() >= ANCHORS_MAX {
            let mut keep = false;
            self.anchors.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.anchors.push(anchor);
        Ok(())
    }

    pub(super) fn sealed(&mut self, index: u64, data: &Sealed) -> Result<(), &'static str> {
        if self.sealed.is_some() {
            return Err(SEALED);
        }
        if self.anchors.last().is_some_and(|last| last.bytes > data.bytes) {
            return Err("the recording has become shorter");
        }
        let (Some(head), Some(sha256)) = (hash_from_hex(&data.head), hash_from_hex(&data.sha256)) else {
            return Err(NO_HASH);
        };
        self.sealed = Some((index, Seal { bytes: data.bytes, frames: data.frames, head, sha256 }));
        Ok(())
    }
}

impl Serialize for Anchor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            bytes: u64,
            head: String,
            index: u64,
        }
        Shown { bytes: self.bytes, head: to_hex(&self.head), index: self.index }.serialize(serializer)
    }
}

impl Serialize for Seal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Sealed {
            bytes: self.bytes,
            frames: self.frames,
            head: to_hex(&self.head),
            sha256: to_hex(&self.sha256),
        }
        .serialize(serializer)
    }
}

/// In the document of the whole state: how many anchors, and the last one. The others are asked for by session.
impl Serialize for Recording {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            anchors: usize,
            #[serde(skip_serializing_if = "Option::is_none")]
            last_anchor: Option<&'a Anchor>,
            #[serde(skip_serializing_if = "Option::is_none")]
            sealed: Option<&'a (u64, Seal)>,
            views: u64,
        }
        Shown {
            anchors: self.anchors.len(),
            last_anchor: self.anchors.last(),
            sealed: self.sealed.as_ref(),
            views: self.views,
        }
        .serialize(serializer)
    }
}
