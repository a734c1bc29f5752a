//! The file's header and its blocks: bounds, check sums and the chain of hashes.
//!
//! ```text
//! header, 40 bytes                          block head, 48 bytes, then the payload
//!  0  8  magic "CUSTREC\n"                   0  4  CRC-32C of everything behind it, payload included
//!  8  2  version, 1                          4  4  stored: bytes of the payload in the file
//! 10  1  level, see `Level`                  8  4  raw: bytes of the frames in it
//! 11  1  0                                  12  1  codec: 0 stored, 1 LZ4 block
//! 12 16  session, a UUID                    13  3  0
//! 28  8  start, ns since 1970 UTC           16 32  SHA-256 of the block before, head and payload;
//! 36  4  CRC-32C of what precedes                  of the header for the first one
//! ```
//! Integers are little-endian. A block's hash covers its head, so the hash of the last block (the *head*
//! of the recording) commits to every byte before it.

use std::cell::RefCell;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use super::level::Level;

/// First bytes of every recording.
pub const MAGIC: [u8; 8] = *b"CUSTREC\n";
/// The version that is written, and the only one that is read.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 40;
/// Bytes of a block before its payload.
pub const BLOCK_HEAD_BYTES: usize = 48;
/// Most bytes of frames in a block: what a reader must hold at once. A block is written as soon as it has
/// more than half of this, so that the longest frame always fits.
pub const BLOCK_RAW_BYTES_MAX: usize = 2 * super::frame::FRAME_BODY_BYTES_MAX + 1024;
/// Below this LZ4 gains nothing that is worth the time.
const COMPRESSED_FROM_BYTES: usize = 128;

const CODEC_STORED: u8 = 0;
const CODEC_LZ4: u8 = 1;

/// SHA-256.
pub type Hash = [u8; 32];

/// What the file says of itself first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The session that is recorded.
    pub session: Uuid,
    /// Its start, nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// How much of it is kept.
    pub level: Level,
}

/// What a block's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHead {
    crc32c: u32,
    /// Bytes of the payload in the file.
    pub stored: u32,
    /// Bytes of its frames.
    pub raw: u32,
    codec: u8,
    previous: Hash,
}

/// Why bytes are no header or no block of this recording.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockError {
    /// The file doesn't start as a recording does.
    #[error("not a recording: it doesn't start with its mark")]
    Magic,
    /// A version this program can't read.
    #[error("version {0} is not known to this program; read it with a newer one")]
    Version(u16),
    /// A field that can't have this value.
    #[error("{field} can't be {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it is.
        value: u64,
    },
    /// The check sum doesn't fit.
    #[error("its bytes changed (check sum {found:08x}, {expected:08x} stands in it)")]
    CheckSum {
        /// What stands there.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// The chain is broken: the block before isn't the one that this one was written after.
    #[error("the block before it is not the one it was written after")]
    Chain,
    /// The payload can't be uncompressed, or not to the length that it promises.
    #[error("its payload can't be uncompressed to the {raw} bytes that it promises")]
    Payload {
        /// The promise.
        raw: u32,
    },
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.level as u8;
        out[12..28].copy_from_slice(self.session.as_bytes());
        out[28..36].copy_from_slice(&self.started_ns.to_le_bytes());
        let crc = crc32c::crc32c(&out[..36]);
        out[36..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads it back.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BlockError> {
        let mut fields = Fields(bytes);
        if fields.take::<8>() != MAGIC {
            return Err(BlockError::Magic);
        }
        let version = u16::from_le_bytes(fields.take());
        if version != VERSION {
            return Err(BlockError::Version(version));
        }
        let [level, zero] = fields.take();
        let session = Uuid::from_bytes(fields.take());
        let started_ns = u64::from_le_bytes(fields.take());
        let expected = u32::from_le_bytes(fields.take());
        let found = crc32c::crc32c(&bytes[..36]);
        if expected != found {
            return Err(BlockError::CheckSum { expected, found });
        }
        if zero != 0 {
            return Err(BlockError::Field { field: "the reserved byte", value: u64::from(zero) });
        }
        let level =
            Level::from_u8(level).ok_or(BlockError::Field { field: "the level", value: u64::from(level) })?;
        Ok(Self { session, started_ns, level })
    }
}

/// The hash that the first block holds.
pub fn header_hash(header: &[u8; HEADER_BYTES]) -> Hash {
    Sha256::digest(header).into()
}

/// Makes blocks out of frames, and keeps the chain.
pub struct BlockWriter {
    /// Room for the head, then the frames of the block that is being filled: a block that is stored as
    /// it is goes out of this buffer without being copied again. Between blocks it is the thread's.
    frames: Vec<u8>,
    head: Hash,
}

/// What making a block takes. It belongs to the thread, so that a recording that waits holds none.
#[derive(Default)]
struct Press {
    /// For the frames of the next block.
    frames: Vec<u8>,
    packed: Vec<u8>,
    table: CompressTable,
}

thread_local! {
    static PRESS: RefCell<Press> = RefCell::default();
}

impl BlockWriter {
    /// A chain that starts at this header.
    pub fn new(header: &[u8; HEADER_BYTES]) -> Self {
        Self { frames: Vec::new(), head: header_hash(header) }
    }

    /// Where frames are appended to, and nothing else.
    pub fn frames(&mut self) -> &mut Vec<u8> {
        if self.frames.is_empty() {
            self.frames = PRESS.with_borrow_mut(|press| std::mem::take(&mut press.frames));
            self.frames.resize(BLOCK_HEAD_BYTES, 0);
        }
        &mut self.frames
    }

    /// Bytes of frames in the block that is being filled.
    pub fn raw_bytes(&self) -> usize {
        self.frames.len().saturating_sub(BLOCK_HEAD_BYTES)
    }

    /// Hash of the last block that was finished.
    pub fn head(&self) -> Hash {
        self.head
    }

    /// Finishes the block, if a frame is in it, and hands its bytes to `write`. The next one starts empty and hangs
    /// on it, whatever `write` says: after an error this writer must not be used again.
    pub fn finish<E>(&mut self, write: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let raw = self.raw_bytes();
        if raw == 0 {
            return Ok(());
        }
        PRESS.with_borrow_mut(|press| {
            let (codec, block) = match press.pack(&self.frames) {
                Some(block) => (CODEC_LZ4, block),
                None => (CODEC_STORED, self.frames.as_mut_slice()),
            };
            let stored = (block.len() - BLOCK_HEAD_BYTES) as u32;
            block[4..8].copy_from_slice(&stored.to_le_bytes());
            block[8..12].copy_from_slice(&(raw as u32).to_le_bytes());
            block[12..16].copy_from_slice(&[codec, 0, 0, 0]);
            block[16..48].copy_from_slice(&self.head);
            let crc = crc32c::crc32c(&block[4..]);
            block[..4].copy_from_slice(&crc.to_le_bytes());
            self.head = Sha256::digest(&*block).into();
            let written = write(block);
            press.frames = std::mem::take(&mut self.frames);
            press.frames.clear();
            written
        })
    }
}

impl Press {
    /// Compresses the frames behind the room for the head, and leaves the same room in the result; `None` where that
    /// gains nothing.
    fn pack(&mut self, frames: &[u8]) -> Option<&mut [u8]> {
        let raw = &frames[BLOCK_HEAD_BYTES..];
        if raw.len() < COMPRESSED_FROM_BYTES {
            return None;
        }
        let most = BLOCK_HEAD_BYTES + get_maximum_output_size(raw.len());
        if self.packed.len() < most {
            self.packed.resize(most, 0);
        }
        let length =
            compress_into_with_table(raw, &mut self.packed[BLOCK_HEAD_BYTES..], &mut self.table).ok()?;
        (length < raw.len()).then(|| &mut self.packed[..BLOCK_HEAD_BYTES + length])
    }
}

impl BlockHead {
    /// Reads a head and checks its bounds, so that whoever reads the payload allocates no more than
    /// [`BLOCK_RAW_BYTES_MAX`].
    pub fn decode(bytes: &[u8; BLOCK_HEAD_BYTES]) -> Result<Self, BlockError> {
        let mut fields = Fields(bytes);
        let crc32c = u32::from_le_bytes(fields.take());
        let stored = u32::from_le_bytes(fields.take());
        let raw = u32::from_le_bytes(fields.take());
        let [codec, zeros @ ..] = fields.take::<4>();
        let previous = fields.take();
        let wrong = |field, value| Err(BlockError::Field { field, value });
        if raw as usize > BLOCK_RAW_BYTES_MAX || raw == 0 {
            return wrong("the length of a block's frames", u64::from(raw));
        }
        // A block that doesn't get smaller is stored as it is.
        if stored > raw || stored == 0 || (codec == CODEC_STORED && stored != raw) {
            return wrong("the length of a block's payload", u64::from(stored));
        }
        if codec > CODEC_LZ4 {
            return wrong("a block's codec", u64::from(codec));
        }
        if zeros != [0; 3] {
            return wrong("a block's reserved bytes", u64::from(zeros[0] | zeros[1] | zeros[2]));
        }
        Ok(Self { crc32c, stored, raw, codec, previous })
    }

    /// Checks a whole block (`bytes`: head and payload) behind the block whose hash is `previous`; puts its
    /// frames into `frames` and returns its own hash.
    pub fn open(&self, bytes: &[u8], previous: &Hash, frames: &mut Vec<u8>) -> Result<Hash, BlockError> {
        let found = crc32c::crc32c(bytes.get(4..).unwrap_or_default());
        if found != self.crc32c {
            return Err(BlockError::CheckSum { expected: self.crc32c, found });
        }
        if *previous != self.previous {
            return Err(BlockError::Chain);
        }
        let payload = bytes.get(BLOCK_HEAD_BYTES..).unwrap_or_default();
        frames.clear();
        if self.codec == CODEC_STORED {
            frames.extend_from_slice(payload);
        } else {
            frames.resize(self.raw as usize, 0);
            match decompress_into(payload, frames) {
                Ok(length) if length == frames.len() => {}
                _ => return Err(BlockError::Payload { raw: self.raw }),
            }
        }
        Ok(Sha256::digest(bytes).into())
    }
}

/// Fixed fields, read one after the other out of a buffer that is long enough by its type; behind its end
/// stand zeros.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { session: Uuid::from_u128(7), started_ns: 1_700_000_000_000_000_000, level: Level::Terminal }
    }

    fn block(writer: &mut BlockWriter, frames: &[u8]) -> Vec<u8> {
        writer.frames().extend_from_slice(frames);
        let mut out = Vec::new();
        writer
            .finish(|bytes| {
                out = bytes.to_vec();
                Ok::<(), ()>(())
            })
            .unwrap();
        out
    }

    fn open(bytes: &[u8], previous: &Hash) -> Result<(Vec<u8>, Hash), BlockError> {
        let head = BlockHead::decode(bytes.first_chunk().unwrap())?;
        assert_eq!(head.stored as usize + BLOCK_HEAD_BYTES, bytes.len());
        let mut frames = Vec::new();
        let hash = head.open(bytes, previous, &mut frames)?;
        Ok((frames, hash))
    }

    #[test]
    fn a_recording_that_waits_keeps_no_buffer() {
        let mut writer = BlockWriter::new(&header().encode());
        for frames in [vec![7; 40_000], vec![7; 10]] {
            writer.frames().extend_from_slice(&frames);
            assert_eq!(writer.raw_bytes(), frames.len());
            writer.finish(|_| Ok::<(), ()>(())).unwrap();
            assert_eq!((writer.raw_bytes(), writer.frames.capacity()), (0, 0));
        }
        writer.finish(|_| Err("there is no frame to be written")).unwrap();
    }

    #[test]
    fn header_comes_back_and_every_flip_shows() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_flip_of_a_block_shows() {
        let mut writer = BlockWriter::new(&header().encode());
        let start = writer.head();
        for frames in [&b"abc"[..], &[b'x'; 300]] {
            let previous = writer.head();
            let bytes = block(&mut writer, frames);
            assert_eq!(open(&bytes, &previous).unwrap(), (frames.to_vec(), writer.head()));
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let head = BlockHead::decode(bad.first_chunk().unwrap());
                let opened = head.and_then(|head| head.open(&bad, &previous, &mut Vec::new()));
                assert!(opened.is_err(), "bit {bit}");
            }
        }
        let second = block(&mut writer, b"abc");
        assert_eq!(open(&second, &start), Err(BlockError::Chain));
    }

    proptest! {
        #[test]
        fn blocks_come_back(
            blocks in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 1..2000),
                    (any::<u8>(), 1usize..200_000).prop_map(|(byte, count)| vec![byte; count]),
                ],
                1..6,
            ),
        ) {
            let mut writer = BlockWriter::new(&header().encode());
            let mut previous = writer.head();
            for frames in blocks {
                let bytes = block(&mut writer, &frames);
                prop_assert!(bytes.len() <= frames.len() + BLOCK_HEAD_BYTES);
                let (back, hash) = open(&bytes, &previous).unwrap();
                prop_assert_eq!(back, frames);
                previous = hash;
            }
            prop_assert_eq!(previous, writer.head());
        }

        /// A payload that was made by somebody else (check sum and chain in order) is refused or read
        /// within its bounds, never more.
        #[test]
        fn hostile_payloads_stay_in_bounds(payload in prop::collection::vec(any::<u8>(), 1..400), raw in 1u32..600) {
            let mut bytes = vec![0; BLOCK_HEAD_BYTES];
            bytes.extend_from_slice(&payload);
            bytes[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            bytes[8..12].copy_from_slice(&raw.to_le_bytes());
            bytes[12] = CODEC_LZ4;
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            if let Ok((frames, _)) = open(&bytes, &[0; 32]) {
                prop_assert_eq!(frames.len(), raw as usize);
            }
        }
    }
}
