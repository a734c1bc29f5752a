//! The proof that bytes were recorded before anybody gets them.

use super::frame::Direction;

/// Bytes, or the message that carries them, that the recorder has recorded as the session's level wants it
/// and written to its file: the only thing that may be delivered.
///
/// Only [`Recorder`](super::Recorder) makes one, at level `none` too. It knows the channel and the direction
/// that it was recorded for, and is used up by [`Released::into_inner`].
///
/// ```
/// use custody_core::recording::{Direction, Level, Recorder, Released};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let session = uuid::Uuid::from_u128(1);
/// fn deliver(chunk: Released<&[u8]>) -> usize {
///     chunk.into_inner().len()
/// }
/// let mut recorder = Recorder::create(dir.path(), session, 0, Level::Terminal)?;
/// let bytes = &b"hello"[..];
/// let released = recorder.release(1, 0, Direction::Output, bytes)?;
/// assert_eq!(deliver(released), 5);
/// # Ok(())
/// # }
/// ```
/// Bytes that weren't recorded can't be delivered:
/// ```compile_fail
/// use custody_core::recording::{Direction, Level, Recorder, Released};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let session = uuid::Uuid::from_u128(1);
/// fn deliver(chunk: Released<&[u8]>) -> usize {
///     chunk.into_inner().len()
/// }
/// let mut recorder = Recorder::create(dir.path(), session, 0, Level::Terminal)?;
/// let bytes = &b"hello"[..];
/// let released = bytes;
/// assert_eq!(deliver(released), 5);
/// # Ok(())
/// # }
/// ```
/// Nobody else makes a `Released`:
/// ```compile_fail
/// use custody_core::recording::{Direction, Level, Recorder, Released};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let session = uuid::Uuid::from_u128(1);
/// fn deliver(chunk: Released<&[u8]>) -> usize {
///     chunk.into_inner().len()
/// }
/// let mut recorder = Recorder::create(dir.path(), session, 0, Level::Terminal)?;
/// let bytes = &b"hello"[..];
/// let released = Released { channel: 0, direction: Direction::Output, inner: bytes };
/// assert_eq!(deliver(released), 5);
/// # Ok(())
/// # }
/// ```
/// What was released once is delivered once:
/// ```compile_fail
/// use custody_core::recording::{Direction, Level, Recorder, Released};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let session = uuid::Uuid::from_u128(1);
/// fn deliver(chunk: Released<&[u8]>) -> usize {
///     chunk.into_inner().len()
/// }
/// let mut recorder = Recorder::create(dir.path(), session, 0, Level::Terminal)?;
/// let bytes = &b"hello"[..];
/// let released = recorder.release(1, 0, Direction::Output, bytes)?;
/// assert_eq!(deliver(released) + deliver(released), 10);
/// # Ok(())
/// # }
/// ```
/// Nor is there a copy of it:
/// ```compile_fail
/// use custody_core::recording::{Direction, Level, Recorder, Released};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let session = uuid::Uuid::from_u128(1);
/// fn deliver(chunk: Released<&[u8]>) -> usize {
///     chunk.into_inner().len()
/// }
/// let mut recorder = Recorder::create(dir.path(), session, 0, Level::Terminal)?;
/// let bytes = &b"hello"[..];
/// let released: Released<&[u8]> = Clone::clone(&recorder.release(1, 0, Direction::Output, bytes)?);
/// assert_eq!(deliver(released), 5);
/// # Ok(())
/// # }
/// ```
#[must_use = "what is released and not delivered is lost to the person, though the recording has it"]
#[derive(Debug)]
pub struct Released<B> {
    channel: u32,
    direction: Direction,
    inner: B,
}

impl<B> Released<B> {
    /// For the recorder alone.
    pub(super) fn new(channel: u32, direction: Direction, inner: B) -> Self {
        Self { channel, direction, inner }
    }

    /// The channel that it was recorded for.
    pub fn channel(&self) -> u32 {
        self.channel
    }

    /// The direction that it was recorded for.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// What is to be delivered.
    pub fn into_inner(self) -> B {
        self.inner
    }
}
