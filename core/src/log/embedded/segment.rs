//! The bytes of a segment file: a header, then records one after the other.
//!
//! All integers are little-endian.
//!
//! ```text
//! header   magic "CUSTLOG\0" | u32 version | u32 zero | [32] SHA-256 of the origin | u64 first index
//!          | u32 zero | u32 CRC-32C of all before
//! record   u32 length of what follows the CRC | u32 CRC-32C | u8 flags | u8 tag | u32 epoch
//!          | u32 index minus the first index of the same write | u64 index | u64 appended (ns)
//!          | u64 seq | [16] boot | u8 length of the id | id | event
//! ```
//!
//! What each field rules out:
//! - The CRC is seeded with the origin and the segment's first index, and the record holds its own index: a
//!   record that lies in another place than it was written to is not a record.
//! - `epoch` grows with each opening of the log and never decreases in it: bytes of an earlier life that lie
//!   behind a cut can't come alive.
//! - The first index of the write says what was durable *before* this record was written. So a bad record with
//!   a later good one is damage if the good one's write began behind it, and a torn write otherwise.
//! - The flag "last of its batch" makes a batch all or nothing.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::log::{EVENT_BYTES_MAX, Hash, Nanos, PRODUCER_ID_BYTES_MAX};

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"CUSTLOG\0";
const VERSION: u32 = 1;
const FLAG_BATCH_END: u8 = 1;
/// Length and CRC.
const PREFIX_BYTES: usize = 8;
/// Fixed fields between the CRC and the producer's id.
const FIXED_BYTES: usize = 1 + 1 + 4 + 4 + 8 + 8 + 8 + 16 + 1;
/// The longest record.
pub(crate) const RECORD_BYTES_MAX: usize =
    PREFIX_BYTES + FIXED_BYTES + PRODUCER_ID_BYTES_MAX + EVENT_BYTES_MAX;
/// The shortest record: one byte of id, one of event.
pub(crate) const RECORD_BYTES_MIN: usize = PREFIX_BYTES + FIXED_BYTES + 2;

/// What a record of an event takes.
pub(crate) const fn record_bytes(producer_bytes: usize, event_bytes: usize) -> usize {
    PREFIX_BYTES + FIXED_BYTES + producer_bytes + event_bytes
}

/// The identity of a segment, under each of its records' CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    origin: [u8; 32],
    pub first: u64,
    seed: u32,
}

impl SegmentId {
    /// The segment of `origin` that starts with index `first`.
    pub fn new(origin: &str, first: u64) -> SegmentId {
        let origin: [u8; 32] = Sha256::digest(origin.as_bytes()).into();
        let seed = crc32c::crc32c_append(crc32c::crc32c(&origin), &first.to_le_bytes());
        SegmentId { origin, first, seed }
    }

    /// The file's name.
    pub fn file_name(&self) -> String {
        format!("{:020}.seg", self.first)
    }

    /// The header.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&self.origin);
        header.extend_from_slice(&self.first.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        let crc = crc32c::crc32c(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        let mut fixed = [0; HEADER_BYTES];
        fixed.copy_from_slice(&header);
        fixed
    }

    /// What is wrong with a header that should be this segment's.
    pub fn check_header(&self, header: &[u8]) -> Result<(), &'static str> {
        if header == self.header() {
            return Ok(());
        }
        Err(match (header.get(..8), header.get(8..12), header.get(16..48)) {
            (Some(magic), _, _) if magic != MAGIC => "it is not a segment of a Custody log",
            (_, Some(version), _) if version != VERSION.to_le_bytes() => "its format is of another version",
            (_, _, Some(origin)) if origin != self.origin => "it belongs to a log with another origin",
            _ => "its header is damaged",
        })
    }
}

/// The first index of the segment with this file name.
pub(crate) fn first_index(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".seg")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// A record as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub batch_end: bool,
    pub tag: u8,
    pub epoch: u32,
    pub index: u64,
    /// Everything before this index was durable when the record was written.
    pub write_start: u64,
    pub appended: Nanos,
    pub seq: u64,
    pub boot: Uuid,
    pub producer: &'a str,
    pub event: &'a [u8],
}

/// What lies at some place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// A record, and how many bytes it takes.
    Record(Stored<'a>, usize),
    /// It could be one, if this many bytes were there.
    Short(usize),
    /// It isn't one.
    Bad(&'static str),
}

impl Stored<'_> {
    /// Bytes that [`Stored::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        record_bytes(self.producer.len(), self.event.len())
    }

    /// Appends the record to `out`. The limits of id and event were checked at submission.
    pub fn encode(&self, segment: &SegmentId, out: &mut Vec<u8>) {
        let start = out.len();
        let length = (self.encoded_bytes() - PREFIX_BYTES) as u32;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(if self.batch_end { FLAG_BATCH_END } else { 0 });
        out.push(self.tag);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&((self.index - self.write_start) as u32).to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.appended.0.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(self.boot.as_bytes());
        out.push(self.producer.len() as u8);
        out.extend_from_slice(self.producer.as_bytes());
        out.extend_from_slice(self.event);
        let crc = checksum(segment, length, &out[start + PREFIX_BYTES..]);
        out[start + 4..start + PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// The leaf of the tree.
    pub fn leaf(&self) -> Hash {
        crate::log::tree::leaf_hash(self.event)
    }
}

/// Looks at the start of `bytes`. Only the record itself is judged, not whether it follows the one before.
pub(crate) fn decode<'a>(segment: &SegmentId, bytes: &'a [u8]) -> Decoded<'a> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Decoded::Short(PREFIX_BYTES) };
    let length = u32::from_le_bytes(*length);
    let total = (length as usize).saturating_add(PREFIX_BYTES);
    if total < RECORD_BYTES_MIN {
        return Decoded::Bad(if length == 0 {
            "zeroes where a record should be"
        } else {
            "a length too small"
        });
    }
    if total > RECORD_BYTES_MAX {
        return Decoded::Bad("an absurd length");
    }
    let Some((crc, rest)) = rest.split_first_chunk::<4>() else { return Decoded::Short(total) };
    let Some(body) = rest.get(..length as usize) else { return Decoded::Short(total) };
    if checksum(segment, length, body) != u32::from_le_bytes(*crc) {
        return Decoded::Bad("the checksum doesn't fit");
    }
    match fields(body) {
        Some(stored) => Decoded::Record(stored, total),
        None => Decoded::Bad("the checksum fits, the fields don't"),
    }
}

fn fields(body: &[u8]) -> Option<Stored<'_>> {
    let (&[flags, tag], rest) = body.split_first_chunk::<2>()?;
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let (in_write, rest) = rest.split_first_chunk::<4>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let (appended, rest) = rest.split_first_chunk::<8>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (&id_bytes, rest) = rest.split_first()?;
    let (producer, event) = rest.split_at_checked(usize::from(id_bytes))?;
    let index = u64::from_le_bytes(*index);
    let plausible = flags <= FLAG_BATCH_END
        && (1..=PRODUCER_ID_BYTES_MAX).contains(&producer.len())
        && (1..=EVENT_BYTES_MAX).contains(&event.len());
    if !plausible {
        return None;
    }
    Some(Stored {
        batch_end: flags == FLAG_BATCH_END,
        tag,
        epoch: u32::from_le_bytes(*epoch),
        index,
        write_start: index.checked_sub(u64::from(u32::from_le_bytes(*in_write)))?,
        appended: Nanos(u64::from_le_bytes(*appended)),
        seq: u64::from_le_bytes(*seq),
        boot: Uuid::from_bytes(*boot),
        producer: std::str::from_utf8(producer).ok()?,
        event,
    })
}

fn checksum(segment: &SegmentId, length: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(segment.seed, &length.to_le_bytes()), body)
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
