//! HTTP/1.1 messages (RFC 9112) as they stand on the wire: where one ends, and no more.

use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Tests send no longer heads.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A connection, and what was read from it beyond the last message.
pub struct Reader {
    stream: TcpStream,
    rest: Vec<u8>,
}

/// A message, both parts as they came.
pub struct Message {
    /// With the empty line.
    pub head: Vec<u8>,
    /// With the lines of its chunks, when it is chunked.
    pub body: Vec<u8>,
}

/// How far a body goes (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(usize),
    /// Until the last chunk.
    Chunked,
    /// Until the connection ends: an answer only.
    End,
}

impl Reader {
    /// Nothing read yet.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, rest: vec![] }
    }

    /// Writes all of it.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The head of the next message; nothing when the connection ends before it.
    pub async fn head(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok(Some(self.take(at + 4)));
            }
            if self.rest.len() > HEAD_BYTES_MAX {
                return Err(Error::new(ErrorKind::InvalidData, "a head without an end"));
            }
            if !self.more().await? {
                return if self.rest.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// A body, or its first `max` bytes and `false`.
    pub async fn body(&mut self, framing: Framing, max: usize) -> Result<(Vec<u8>, bool)> {
        let mut seen = 0;
        loop {
            let end = match framing {
                Framing::Length(length) => (self.rest.len() >= length).then_some(length),
                Framing::Chunked => chunks_end(&self.rest, &mut seen)?,
                Framing::End => None,
            };
            if let Some(end) = end.filter(|end| *end <= max) {
                return Ok((self.take(end), true));
            }
            if self.rest.len() > max {
                return Ok((self.take(max), false));
            }
            if !self.more().await? {
                return match framing {
                    Framing::End => Ok((std::mem::take(&mut self.rest), true)),
                    _ => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Waits until the other side ends the connection.
    pub async fn until_end(&mut self) -> Result<()> {
        while self.more().await? {
            self.rest.clear();
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.rest.split_off(length);
        std::mem::replace(&mut self.rest, rest)
    }

    async fn more(&mut self) -> Result<bool> {
        self.rest.reserve(16 << 10);
        Ok(self.stream.read_buf(&mut self.rest).await? > 0)
    }
}

/// The first line of a head.
pub fn first_line(head: &[u8]) -> String {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}

/// The first value of a header, by its name in lower case.
pub fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
}

/// How far the body of a request goes.
pub fn request_framing(head: &[u8]) -> Result<Framing> {
    Ok(declared(head)?.unwrap_or(Framing::Length(0)))
}

/// How far the body of an answer goes, to a request with this first line.
pub fn answer_framing(head: &[u8], request: &str) -> Result<Framing> {
    if request.starts_with("HEAD ") || matches!(status(head), 204 | 304) {
        return Ok(Framing::Length(0));
    }
    Ok(declared(head)?.unwrap_or(Framing::End))
}

/// The status of an answer, 0 when it has none.
pub fn status(head: &[u8]) -> u16 {
    first_line(head).split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn declared(head: &[u8]) -> Result<Option<Framing>> {
    if header(head, "transfer-encoding")
        .is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"))
    {
        return Ok(Some(Framing::Chunked));
    }
    let invalid = |_| Error::new(ErrorKind::InvalidData, "a Content-Length that isn't a number");
    header(head, "content-length")
        .map(|length| length.parse().map(Framing::Length))
        .transpose()
        .map_err(invalid)
}

/// Where the chunks end (RFC 9112, section 7.1), once they are all there; `seen` keeps how far whole ones go.
fn chunks_end(bytes: &[u8], seen: &mut usize) -> Result<Option<usize>> {
    let invalid = || Error::new(ErrorKind::InvalidData, "a chunk without a size");
    while let Some(line) = bytes[*seen..].windows(2).position(|window| window == b"\r\n") {
        let text = std::str::from_utf8(&bytes[*seen..*seen + line]).map_err(|_| invalid())?;
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid())?;
        let next = *seen + line + 2 + size + 2;
        if bytes.len() < next {
            return Ok(None);
        }
        *seen = next;
        if size == 0 {
            // Nobody here sends trailers.
            return Ok(Some(next));
        }
    }
    Ok(None)
}
