//! Frames: a length (u32, big-endian) of what follows, and that many bytes.

use super::SILENCE_MILLISECONDS_MAX;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// The longest frame, in bytes: a batch of events and what stands around it.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

const SILENCE: Duration = Duration::from_millis(SILENCE_MILLISECONDS_MAX);

/// How much of a frame has to get through between two silences, in bytes: as much as TLS puts into one record, which comes whole or
/// not at all. A long frame may take its time on a slow line (26 kbit/s will do); whoever sends a byte now and then is silent.
const PIECE_BYTES: usize = 16 << 10;

/// Why there are no more frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The network, or the other side.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// A frame that no other side of ours sends.
    #[error("a frame of {0} bytes: at most {FRAME_BYTES_MAX} are sent")]
    TooLong(usize),
    /// No frame came, or none that was sent was taken; or next to nothing of it.
    #[error("nothing was heard for {} s", SILENCE.as_secs())]
    Silence,
}

/// The body of the next frame.
///
/// # Errors
/// See [`FrameError`].
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, FrameError> {
    read_within(from, SILENCE, PIECE_BYTES).await
}

/// Sends a frame with this body.
///
/// # Errors
/// See [`FrameError`].
pub async fn write(to: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<(), FrameError> {
    write_within(to, body, SILENCE, PIECE_BYTES).await
}

/// Reads a frame of which the head and each `piece_bytes` of the body come within `silence`.
async fn read_within(
    from: &mut (impl AsyncRead + Unpin),
    silence: Duration,
    piece_bytes: usize,
) -> Result<Vec<u8>, FrameError> {
    let head = timeout(silence, from.read_u32()).await.map_err(|_| FrameError::Silence)??;
    let length = usize::try_from(head).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let mut body = vec![0; length];
    for piece in body.chunks_mut(piece_bytes) {
        timeout(silence, from.read_exact(piece)).await.map_err(|_| FrameError::Silence)??;
    }
    Ok(body)
}

/// Sends a frame of which each `piece_bytes` are taken within `silence`.
async fn write_within(
    to: &mut (impl AsyncWrite + Unpin),
    body: &[u8],
    silence: Duration,
    piece_bytes: usize,
) -> Result<(), FrameError> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLong(body.len()))?;
    let frame = [&length.to_be_bytes(), body].concat();
    for piece in frame.chunks(piece_bytes) {
        let sent = async {
            to.write_all(piece).await?;
            // Each by itself: what TLS keeps back of several would have to go out within one silence.
            to.flush().await
        };
        timeout(silence, sent).await.map_err(|_| FrameError::Silence)??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const SHORT: Duration = Duration::from_secs(1);
    const STEP: Duration = Duration::from_millis(200);

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

    #[tokio::test]
    async fn a_frame_may_take_longer_than_a_silence_as_long_as_it_gets_on() {
        let body: Vec<u8> = (0..64).collect();
        // A line that takes eight bytes at a time: it takes nearly two seconds for all.
        let (mut here, mut line_in) = tokio::io::duplex(8);
        let (mut line_out, mut there) = tokio::io::duplex(8);
        let line = tokio::spawn(async move {
            let mut piece = [0; 8];
            while let Ok(read @ 1..) = line_in.read(&mut piece).await {
                sleep(STEP).await;
                line_out.write_all(&piece[..read]).await.unwrap();
            }
        });
        let sending = tokio::spawn({
            let body = body.clone();
            async move { write_within(&mut here, &body, SHORT, 8).await }
        });
        assert_eq!(read_within(&mut there, SHORT, 8).await.unwrap(), body);
        sending.await.unwrap().unwrap();
        line.await.unwrap();
    }

    #[tokio::test]
    async fn who_sends_or_takes_a_byte_now_and_then_is_silent() {
        let (mut here, mut there) = tokio::io::duplex(1);
        let trickle = tokio::spawn(async move {
            let frame = [1_024_u32.to_be_bytes().as_slice(), &[7; 1_024]].concat();
            for byte in frame {
                if here.write_u8(byte).await.is_err() {
                    return;
                }
                sleep(STEP / 10).await;
            }
        });
        assert!(matches!(read_within(&mut there, SHORT, 1_024).await, Err(FrameError::Silence)));
        drop(there);
        trickle.await.unwrap();

        let (mut here, mut there) = tokio::io::duplex(1);
        let trickle = tokio::spawn(async move {
            while there.read_u8().await.is_ok() {
                sleep(STEP / 10).await;
            }
        });
        let sent = write_within(&mut here, &[7; 1_024], SHORT, 1_024).await;
        assert!(matches!(sent, Err(FrameError::Silence)));
        drop(here);
        trickle.await.unwrap();
    }
}
