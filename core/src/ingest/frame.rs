//! Frames: a length (u32, big-endian) of what follows, and that many bytes.

/// The longest frame, in bytes: a batch of events and what stands around it.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// A frame that no other side of ours sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes: at most {FRAME_BYTES_MAX} are sent")]
pub struct TooLong(pub usize);

/// `body` with its length before it.
///
/// # Errors
/// When it is longer than [`FRAME_BYTES_MAX`].
pub fn encode(body: &[u8]) -> Result<Vec<u8>, TooLong> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(TooLong(body.len()))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// The length of the frame whose first four bytes these are.
///
/// # Errors
/// When it is longer than [`FRAME_BYTES_MAX`].
pub fn length(head: [u8; 4]) -> Result<usize, TooLong> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX { Err(TooLong(length)) } else { Ok(length) }
}
