//! Session recordings: what a person saw, in one file a session, so chained that whatever is missing,
//! swapped, shortened or changed shows against the anchors that the log holds.
//!
//! The way of a byte: `Recorder::release` records it and gives it back as [`Released`], which is all that
//! a proxy delivers. docs/design/recording.md describes the file for those who want to read it by other
//! means than ours.

pub mod asciicast;
pub mod block;
pub mod check;
pub mod find;
pub mod frame;
pub mod level;
mod medium;
pub mod path;
pub mod reader;
mod released;
pub mod sealed;
pub mod terminal;
pub mod text;
mod writer;

pub use check::{Finding, Point, Verdict, check};
pub use frame::{CHANNEL_SESSION, Direction, Frame, Kind, TerminalSize};
pub use level::{Cut, Level};
pub use path::recording_path;
pub use reader::{Ending, ReadError, Reader};
pub use released::Released;
pub use writer::{Anchor, HASHED_BYTES_MIN, PendingAnchor, Recorder, RecorderError, Sealed};
