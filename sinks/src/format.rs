//! In which form destinations that take any text get events.

use crate::item::Item;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::event::hex::to_hex;
use custody_core::mapping::ocsf::Version;
use custody_core::mapping::{Logged, cef, ecs, ocsf};
use serde::Deserialize;
use std::borrow::Cow;

/// The form of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The event itself: its canonical bytes, which the leaf hash is over.
    #[default]
    Custody,
    /// A line of the Common Event Format.
    Cef,
    /// A document of the Elastic Common Schema.
    Ecs,
    /// An event of the Open Cybersecurity Schema Framework.
    Ocsf,
}

impl Format {
    /// The event in this form: a pure function of the entry.
    #[must_use]
    pub fn of<'a>(self, logged: &Logged<'a>) -> Cow<'a, [u8]> {
        match self {
            Self::Custody => logged.bytes.into(),
            Self::Cef => cef::line(logged).into_bytes().into(),
            Self::Ecs => ecs::document(logged).into(),
            Self::Ocsf => ocsf::event(logged, Version::default()).into(),
        }
    }
}

/// What mappings need of an item of the log with this origin.
#[must_use]
pub fn logged<'a>(item: &'a Item, origin: &'a str) -> Logged<'a> {
    Logged { origin, index: item.index, appended: item.appended.into(), leaf: item.leaf, bytes: &item.bytes }
}

/// Whether there is no line end in it, nor anything else below the blank. All of it is looked at, many bytes at once: an event has none
/// mostly, and to look at each by itself took a seventh of what files do.
pub fn is_one_line(text: &str) -> bool {
    text.bytes().fold(true, |is_one, byte| is_one & (byte >= b' '))
}

/// The event's own bytes behind what the log knows of them, as one line of JSON without its end: whoever cuts them out can
/// check the leaf hash. What isn't one line of JSON by itself stands there in base64. Its form stays as it is: lines that were
/// written long ago are compared with it.
#[must_use]
pub fn envelope(logged: &Logged<'_>, redacted: bool) -> Vec<u8> {
    let origin = serde_json::Value::from(logged.origin);
    let mut line = format!(
        "{{\"index\":{},\"appended\":\"{}\",\"leaf\":\"{}\",\"origin\":{origin},",
        logged.index,
        logged.appended,
        to_hex(&logged.leaf.0)
    )
    .into_bytes();
    if redacted {
        line.extend_from_slice(b"\"redacted\":true,");
    }
    // The line's end, too.
    line.reserve(logged.bytes.len() + 16);
    let is_line = |text: &str| {
        is_one_line(text)
            && text.trim() == text
            && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    };
    if str::from_utf8(logged.bytes).is_ok_and(is_line) {
        line.extend_from_slice(b"\"event\":");
        line.extend_from_slice(logged.bytes);
    } else {
        line.extend_from_slice(b"\"base64\":\"");
        line.extend_from_slice(STANDARD.encode(logged.bytes).as_bytes());
        line.push(b'"');
    }
    line.push(b'}');
    line
}
