//! In whose words an entry is told: our own around the canonical bytes, or those of a standard that SIEMs read
//! (docs/mappings.md, docs/siem.md). A page has the same entries and the same cursor in each.

use super::events::entry_line;
use custody_core::log::Entry;
use custody_core::mapping::ocsf::Version;
use custody_core::mapping::{Logged, cef, ecs, ocsf};
use serde::Deserialize;

/// `format=` of a question for entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The canonical bytes, verbatim, with index and time of appending.
    #[default]
    Custody,
    /// Elastic Common Schema.
    Ecs,
    /// OCSF, of the usual version.
    Ocsf,
    /// A CEF line.
    Cef,
}

impl Format {
    /// What a page of lines is.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Cef => "text/plain; charset=utf-8",
            // JSON is UTF-8 anyway; but some programs take text that doesn't say so for ISO-8859-1.
            _ => "application/x-ndjson; charset=utf-8",
        }
    }

    /// An entry of the log `origin` as one line, without a line end.
    #[must_use]
    pub fn line(self, origin: &str, entry: &Entry) -> Vec<u8> {
        match self {
            Self::Custody => entry_line(entry),
            Self::Ecs => ecs::document(&Logged::new(origin, entry)),
            Self::Ocsf => ocsf::event(&Logged::new(origin, entry), Version::default()),
            Self::Cef => cef::line(&Logged::new(origin, entry)).into_bytes(),
        }
    }

    /// An entry as an item of a JSON list.
    #[must_use]
    pub fn item(self, origin: &str, entry: &Entry) -> Vec<u8> {
        match self {
            Self::Cef => {
                serde_json::Value::from(cef::line(&Logged::new(origin, entry))).to_string().into_bytes()
            }
            other => other.line(origin, entry),
        }
    }
}
