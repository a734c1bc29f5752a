//! How much of a session is recorded: the annotation `@recording("…")` on a `permit`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// From least to most recorded, so that the greater of two is the stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingLevel {
    /// Nothing but the events.
    None,
    /// Lengths and hashes, no content.
    Metadata,
    /// What terminals show, and the beginning of other output.
    #[default]
    Terminal,
    /// Everything, what goes in included.
    Full,
}

impl RecordingLevel {
    /// All of them, from least to most.
    pub const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Terminal, Self::Full];

    /// Its name in policies and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Metadata => "metadata",
            Self::Terminal => "terminal",
            Self::Full => "full",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl fmt::Display for RecordingLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
