//! What `custody connect` says in front of SSH: which node is meant. SSH itself has no field for it.

use super::stream::Stream;
use std::io;
use std::time::Duration;

const PREAMBLE: &[u8] = b"CUSTODY-NODE ";
/// Longest preamble, in bytes: the word, a name of 128 bytes and the line's end.
const PREAMBLE_BYTES_MAX: usize = 160;

/// Between two looks at a preamble that hasn't come whole: at first, and for those who dawdle.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Why the first line can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PreambleError {
    /// The connection.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The client left.
    #[error("the connection was closed")]
    Closed,
    /// It is neither SSH nor a preamble.
    #[error("the first line is no preamble of `custody connect`: expected «CUSTODY-NODE name», got {got:?}")]
    Wrong {
        /// What came.
        got: String,
    },
}

/// Reads `CUSTODY-NODE name\r\n` if the client begins with it, and nothing else.
///
/// # Errors
/// See [`PreambleError`].
pub async fn read(stream: &Stream) -> Result<Option<String>, PreambleError> {
    let mut seen = [0_u8; PREAMBLE_BYTES_MAX];
    let mut before = 0;
    let mut pause = PAUSE_MIN;
    loop {
        let count = stream.peek(&mut seen).await?;
        let bytes = seen.get(..count).unwrap_or_default();
        if count == 0 {
            return Err(PreambleError::Closed);
        }
        let common = bytes.len().min(PREAMBLE.len());
        if bytes.get(..common) != PREAMBLE.get(..common) {
            return Ok(None);
        }
        if let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let line = bytes.get(PREAMBLE.len()..end).unwrap_or_default();
            let name = std::str::from_utf8(line.trim_ascii_end()).ok().and_then(node).map(str::to_owned);
            let mut consumed = vec![0; end + 1];
            // These bytes were just seen: they are there.
            let _count = stream.try_read(&mut consumed)?;
            return name.map(Some).ok_or_else(|| PreambleError::Wrong { got: shown(line) });
        }
        if count == seen.len() {
            return Err(PreambleError::Wrong { got: shown(bytes) });
        }
        if count == before {
            // A peek returns at once while bytes lie there: wait for more of them without spinning, and the longer
            // the slower they come.
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
        before = count;
    }
}

/// The node of a name that people use for it: `web-1` and `web-1.custody` are the same. `None`: it can't be a node's.
#[must_use]
pub fn node(name: &str) -> Option<&str> {
    let node = name.strip_suffix(".custody").unwrap_or(name);
    let plain = node.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    (!node.is_empty() && plain).then_some(node)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes)).into_owned()
}
