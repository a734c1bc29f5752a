//! Frames: a length (u32, big-endian) of what follows, and that many bytes.

use super::SILENCE_MILLISECONDS_MAX;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// The longest frame, in bytes: a batch of events and what stands around it.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

const SILENCE: Duration = Duration::from_millis(SILENCE_MILLISECONDS_MAX);

/// Why there are no more frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The network, or the other side.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// A frame that no other side of ours sends.
    #[error("a frame of {0} bytes: at most {FRAME_BYTES_MAX} are sent")]
    TooLong(usize),
    /// No frame came, or none that was sent was taken.
    #[error("nothing was heard for {} s", SILENCE.as_secs())]
    Silence,
}

/// The body of the next frame.
///
/// # Errors
/// See [`FrameError`].
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, FrameError> {
    let next = async {
        let length = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        Ok(body)
    };
    timeout(SILENCE, next).await.unwrap_or(Err(FrameError::Silence))
}

/// Sends a frame with this body.
///
/// # Errors
/// See [`FrameError`].
pub async fn write(to: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLong(body.len()))?;
    let frame = [&length.to_be_bytes(), body].concat();
    let sent = async {
        to.write_all(&frame).await?;
        Ok(to.flush().await?)
    };
    timeout(SILENCE, sent).await.unwrap_or(Err(FrameError::Silence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_and_too_long_ones_are_refused_by_their_heads() {
        let (mut here, mut there) = tokio::io::duplex(64);
        write(&mut here, b"body").await.unwrap();
        write(&mut here, b"").await.unwrap();
        assert_eq!(read(&mut there).await.unwrap(), b"body");
        assert_eq!(read(&mut there).await.unwrap(), b"");
        here.write_u32(u32::MAX).await.unwrap();
        assert!(matches!(read(&mut there).await, Err(FrameError::TooLong(_))));
        drop(here);
        assert!(matches!(read(&mut there).await, Err(FrameError::Io(_))));
    }
}
