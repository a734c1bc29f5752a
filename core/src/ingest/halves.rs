//! The two halves of a connection, each for a task of its own: what comes in is handed on, what is handed over goes out.

use super::frame::{self, FrameError};
use super::message::MessageError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Why a half ended.
#[derive(Debug, thiserror::Error)]
pub enum HalfError {
    /// The connection.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side sent what none of ours sends.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// This side has ended.
    #[error("the connection is no longer wanted")]
    Unwanted,
}

/// Hands on each message that comes, read by `decode`, until there are none.
pub async fn hear<T>(
    mut read: impl AsyncRead + Unpin,
    to: mpsc::Sender<T>,
    decode: impl Fn(&[u8]) -> Result<T, MessageError>,
) -> HalfError {
    loop {
        let message = match frame::read(&mut read).await {
            Ok(body) => decode(&body),
            Err(error) => return error.into(),
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => return error.into(),
        };
        if to.send(message).await.is_err() {
            return HalfError::Unwanted;
        }
    }
}

/// Sends each body that is handed over, until there are none.
pub async fn speak(mut write: impl AsyncWrite + Unpin, mut from: mpsc::Receiver<Vec<u8>>) -> HalfError {
    while let Some(body) = from.recv().await {
        if let Err(error) = frame::write(&mut write, &body).await {
            return error.into();
        }
    }
    HalfError::Unwanted
}
