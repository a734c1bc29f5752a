//! Reads a recording back: checks every block and the chain, and plays what a killed proxy left up to its
//! last whole block.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::block::{BLOCK_HEAD_BYTES, BlockError, BlockHead, HEADER_BYTES, Hash, Header};
use super::frame::{Direction, Frame, FrameError, Kind};

/// Why a recording can't be read (on).
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file can't be opened.
    #[error("the recording {path} can't be opened: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can't be read.
    #[error("the recording can't be read at byte {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// The file ends within its header.
    #[error("the recording is cut short within its first {HEADER_BYTES} bytes, it has {bytes}")]
    HeaderShort {
        /// Its length.
        bytes: u64,
    },
    /// The header is damaged, or it is no recording.
    #[error("the recording's header is damaged: {0}")]
    Header(BlockError),
    /// A block isn't what was written there.
    #[error("the recording is damaged in block {block} at byte {at}: {source}")]
    Block {
        /// The block's number; the header is 0.
        block: u64,
        /// Where it starts in the file.
        at: u64,
        /// What is wrong.
        source: BlockError,
    },
    /// A block is sound, but its frames aren't.
    #[error("the recording holds a wrong frame in block {block} at byte {at}: {source}")]
    Frame {
        /// The block's number.
        block: u64,
        /// Where the block starts in the file.
        at: u64,
        /// What is wrong.
        source: FrameError,
    },
    /// Something stands behind the end.
    #[error("the recording goes on at byte {at} behind its end")]
    BehindEnd {
        /// Where.
        at: u64,
    },
}

/// How a recording that could be read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was closed as it should.
    Closed,
    /// It stops after a whole block: the session is going on, or its proxy was killed.
    Open,
    /// It stops within a block, `bytes` bytes of which stand at `at`: a write that was cut off.
    Torn {
        /// Where the rest starts.
        at: u64,
        /// How long it is.
        bytes: u64,
    },
}

/// A place between two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Bytes up to here.
    pub bytes: u64,
    /// Hash of the block that ends here.
    pub head: Hash,
    /// Frames up to here.
    pub frames: u64,
}

/// A recording that is being read; an iterator over its frames. It holds one block at a time. After an
/// error it is at its end.
pub struct Reader<R> {
    input: R,
    header: Header,
    head: Hash,
    block: u64,
    /// Start of the block that was read last, and its end.
    at: u64,
    next_at: u64,
    frames: u64,
    bytes: Vec<u8>,
    raw: Vec<u8>,
    raw_position: usize,
    closed: bool,
    ending: Option<Ending>,
    failed: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        match File::open(path) {
            Ok(file) => Self::new(BufReader::with_capacity(64 * 1024, file)),
            Err(source) => Err(ReadError::Open { path: path.to_owned(), source }),
        }
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut header = [0; HEADER_BYTES];
        let length = fill(&mut input, &mut header).map_err(|source| ReadError::Io { at: 0, source })?;
        if length < HEADER_BYTES {
            return Err(ReadError::HeaderShort { bytes: length as u64 });
        }
        Ok(Self {
            input,
            header: Header::decode(&header).map_err(ReadError::Header)?,
            head: super::block::header_hash(&header),
            block: 0,
            at: 0,
            next_at: HEADER_BYTES as u64,
            frames: 0,
            bytes: Vec::new(),
            raw: Vec::new(),
            raw_position: 0,
            closed: false,
            ending: None,
            failed: false,
        })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the recording ends, once the iterator has given its last frame without an error.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// The end of the last block that was read and found sound (of the header, at first).
    pub fn boundary(&self) -> Boundary {
        Boundary { bytes: self.next_at, head: self.head, frames: self.frames }
    }

    /// Reads and checks the next block as a whole, skipping what is left of this one; its frames come from
    /// the iterator. `None` at the end.
    pub fn next_block(&mut self) -> Option<Result<Boundary, ReadError>> {
        if self.failed || self.ending.is_some() {
            return None;
        }
        match self.read_block() {
            Ok(true) => Some(Ok(self.boundary())),
            Ok(false) => None,
            Err(error) => {
                self.failed = true;
                self.raw.clear();
                self.raw_position = 0;
                Some(Err(error))
            }
        }
    }

    fn read_block(&mut self) -> Result<bool, ReadError> {
        let at = self.next_at;
        let block = self.block + 1;
        self.raw_position = self.raw.len();
        let mut head = [0; BLOCK_HEAD_BYTES];
        let length = self.fill(at, Some(&mut head), 0)?;
        if length == 0 {
            self.ending = Some(if self.closed { Ending::Closed } else { Ending::Open });
            return Ok(false);
        }
        if self.closed {
            return Err(ReadError::BehindEnd { at });
        }
        if length < BLOCK_HEAD_BYTES {
            self.ending = Some(Ending::Torn { at, bytes: length as u64 });
            return Ok(false);
        }
        let damaged = |source| ReadError::Block { block, at, source };
        let decoded = BlockHead::decode(&head).map_err(damaged)?;
        self.bytes.clear();
        self.bytes.extend_from_slice(&head);
        let stored = decoded.stored as usize;
        let length = self.fill(at, None, stored)?;
        if length < stored {
            self.ending = Some(Ending::Torn { at, bytes: (BLOCK_HEAD_BYTES + length) as u64 });
            return Ok(false);
        }
        let hash = decoded.open(&self.bytes, &self.head, &mut self.raw).map_err(damaged)?;
        let (frames, closed) = survey(&self.raw).map_err(|source| ReadError::Frame { block, at, source })?;
        self.raw_position = 0;
        self.head = hash;
        self.block = block;
        self.at = at;
        self.next_at = at + self.bytes.len() as u64;
        self.frames += frames;
        self.closed = closed;
        Ok(true)
    }

    /// Fills a head, or appends `payload` bytes to the block; says how many there were.
    fn fill(
        &mut self,
        at: u64,
        head: Option<&mut [u8; BLOCK_HEAD_BYTES]>,
        payload: usize,
    ) -> Result<usize, ReadError> {
        let result = match head {
            Some(head) => fill(&mut self.input, head),
            None => self.input.by_ref().take(payload as u64).read_to_end(&mut self.bytes),
        };
        result.map_err(|source| ReadError::Io { at, source })
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Starts again at the first frame; the input must be the recording from its first byte on.
    pub fn rewind(&mut self) -> Result<(), ReadError> {
        self.input.seek(SeekFrom::Start(0)).map_err(|source| ReadError::Io { at: 0, source })?;
        let Reader { header, head, block, at, next_at, frames, closed, ending, failed, .. } =
            Reader::new(&mut self.input)?;
        (self.header, self.head, self.block, self.at, self.next_at) = (header, head, block, at, next_at);
        (self.frames, self.closed, self.ending, self.failed) = (frames, closed, ending, failed);
        self.raw.clear();
        self.raw_position = 0;
        Ok(())
    }

    /// The channel that people mean when they name none: the first with a terminal and output, else the
    /// first with output. What can't be read counts as its end. Leaves the reader at the first frame.
    pub fn main_channel(&mut self) -> Result<Option<u32>, ReadError> {
        self.rewind()?;
        let mut plain = None;
        let mut terminals = std::collections::BTreeSet::new();
        let mut found = None;
        for frame in self.by_ref().map_while(Result::ok) {
            match (frame.kind, frame.direction) {
                (Kind::TerminalStarted { .. }, _) if terminals.len() < super::writer::CHANNELS_OPEN_MAX => {
                    terminals.insert(frame.channel);
                }
                (Kind::Data(_), Direction::Output | Direction::ErrorOutput) => {
                    if terminals.contains(&frame.channel) {
                        found = Some(frame.channel);
                        break;
                    }
                    plain = plain.or(Some(frame.channel));
                }
                _ => {}
            }
        }
        self.rewind()?;
        Ok(found.or(plain))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Frame<'static>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut rest = self.raw.get(self.raw_position..).unwrap_or_default();
            if !rest.is_empty() {
                let before = rest.len();
                let frame = Frame::read(&mut rest).map(Frame::into_owned);
                self.raw_position += before - rest.len();
                // The block was surveyed when it was read, so this doesn't fail; if it did, the rest of
                // the block is skipped rather than looked at again.
                if frame.is_err() {
                    self.failed = true;
                    self.raw_position = self.raw.len();
                }
                let (block, at) = (self.block, self.at);
                return Some(frame.map_err(|source| ReadError::Frame { block, at, source }));
            }
            match self.next_block()? {
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Looks through a block's frames: how many there are, and whether they end with the recording's end.
fn survey(mut raw: &[u8]) -> Result<(u64, bool), FrameError> {
    let mut frames = 0;
    let mut closed = false;
    while !raw.is_empty() {
        let frame = Frame::read(&mut raw)?;
        // Nothing may stand behind the end, not even in its own block.
        if closed {
            return Err(FrameError::BehindEnd);
        }
        closed = matches!(frame.kind, Kind::End);
        frames += 1;
    }
    Ok((frames, closed))
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
