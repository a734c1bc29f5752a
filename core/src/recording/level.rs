//! How much of a session is kept, and how much of one channel.

use std::fmt;

use sha2::{Digest, Sha256};

use super::frame::Direction;

/// How much of what a channel without a terminal says is kept at [`Level::Terminal`], bytes for each
/// direction: enough for what people read, not for what machines copy.
pub const PLAIN_OUTPUT_BYTES_MAX: u64 = 1024 * 1024;

/// How much of a session is kept, as policy decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Nothing but that nothing is kept.
    None = 0,
    /// What happened to channels, and how much passed; no bytes.
    Metadata = 1,
    /// All output of terminals; of other channels the first bytes, then length and SHA-256.
    Terminal = 2,
    /// All output of every channel, and all input, [sealed](super::sealed) to the auditors: it holds passwords that no
    /// echo betrays.
    Full = 3,
}

impl Level {
    /// The level with this number in a recording's header.
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Metadata),
            2 => Some(Self::Terminal),
            3 => Some(Self::Full),
            _ => None,
        }
    }

    /// The level that policies and events call by this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Metadata, Self::Terminal, Self::Full]
            .into_iter()
            .find(|level| level.name() == name)
    }

    /// Its name in policies and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Metadata => "metadata",
            Self::Terminal => "terminal",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What of a channel's output is kept: one for each channel, fed with everything that passes.
///
/// Whether a channel has a terminal is what happened to it (it was given one), never how its command is
/// spelled.
#[derive(Debug)]
pub struct ChannelRecording {
    level: Level,
    terminal: bool,
    limit: u64,
    output: Passed,
    error_output: Passed,
}

/// What passed in one direction of a channel.
#[derive(Debug, Default)]
struct Passed {
    bytes: u64,
    kept: u64,
    /// How many bytes `sha256` has seen, from the first.
    hashed: u64,
    sha256: Sha256,
}

/// What one direction of a channel came to, where not all was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Which direction.
    pub direction: Direction,
    /// Bytes that passed.
    pub bytes: u64,
    /// Bytes that were kept, from the first.
    pub kept: u64,
    /// SHA-256 of all that passed.
    pub sha256: [u8; 32],
}

impl ChannelRecording {
    /// A channel without a terminal so far. `limit`: bytes kept of each direction at `Level::Terminal`.
    pub fn new(level: Level, limit: u64) -> Self {
        Self { level, terminal: false, limit, output: Passed::default(), error_output: Passed::default() }
    }

    /// The channel was given a terminal.
    pub fn terminal_started(&mut self) {
        self.terminal = true;
    }

    /// Counts bytes that are about to pass, and says how many of them, from the first, are to be kept.
    pub fn keep(&mut self, direction: Direction, bytes: &[u8]) -> usize {
        let passed = match direction {
            Direction::Output => &mut self.output,
            Direction::ErrorOutput => &mut self.error_output,
            Direction::Input | Direction::Control => return 0,
        };
        let length = bytes.len() as u64;
        // What was cut once isn't taken up again, not even by a terminal that comes later: kept is a prefix.
        let uncut = passed.kept == passed.bytes;
        let (whole, room) = match self.level {
            Level::None => return 0,
            Level::Metadata => (false, 0),
            Level::Terminal if !uncut => (false, 0),
            Level::Terminal if self.terminal => (true, length),
            Level::Terminal => (false, self.limit.saturating_sub(passed.kept)),
            Level::Full => (true, length),
        };
        let kept = length.min(room);
        // What stays whole to its end needs no hash of its own, the blocks have theirs; what may be cut
        // later is hashed from its first byte.
        if !whole {
            passed.sha256.update(bytes);
            passed.hashed = passed.hashed.saturating_add(length);
        }
        passed.bytes = passed.bytes.saturating_add(length);
        passed.kept = passed.kept.saturating_add(kept);
        kept as usize
    }

    /// SHA-256 of all output so far, where it was reckoned: not of a terminal, nor where everything is kept.
    pub fn output_sha256(&self) -> Option<[u8; 32]> {
        let Passed { bytes, hashed, sha256, .. } = &self.output;
        (*bytes > 0 && hashed == bytes).then(|| sha256.clone().finalize().into())
    }

    /// At the channel's end: the directions of which not everything was kept.
    pub fn end(self) -> impl Iterator<Item = Cut> {
        [(Direction::Output, self.output), (Direction::ErrorOutput, self.error_output)]
            .into_iter()
            .filter(|(_, passed)| passed.kept < passed.bytes)
            .map(|(direction, passed)| Cut {
                direction,
                bytes: passed.bytes,
                kept: passed.kept,
                sha256: passed.sha256.finalize().into(),
            })
    }
}
