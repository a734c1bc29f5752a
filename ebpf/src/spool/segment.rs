//! A segment file: a header, perhaps a copy of the record before, then records.
//!
//! ```text
//! header   magic "CUSTSPL\0" | u32 version (little-endian) | u32 zero
//! ```
//!
//! Its name is the position of its first record. A damaged header costs nothing: name and records say all that counts.

use super::frame::{Decoded, Frame, decode};

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 16;
/// How far apart the places are that are remembered of a segment, so that a read needn't begin at its start; bytes.
pub(super) const MARK_BYTES: usize = 64 << 10;
const MAGIC: [u8; 8] = *b"CUSTSPL\0";
const VERSION: u32 = 1;

/// The header that every segment has.
pub(super) fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let fields = MAGIC.into_iter().chain(VERSION.to_le_bytes());
    header.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    header
}

/// The version of a segment that another program wrote, which must not be touched.
pub(super) fn foreign_version(bytes: &[u8]) -> Option<u32> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let version = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    // Zero is what damage makes of it; no program has it.
    (*magic == MAGIC && version != VERSION && version != 0).then_some(version)
}

/// The name of the segment that starts with position `first`.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// The first position of the segment with this file name.
pub(super) fn first_position(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".seg")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// What a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents<'a> {
    /// The copy of the record before its first.
    pub carried: Option<Frame<'a>>,
    /// Its whole records, by growing positions.
    pub records: Vec<Frame<'a>>,
    /// Bytes that belong to none of them.
    pub cut_bytes: usize,
}

/// Reads a segment that begins with position `first` and ends before `end`, where the next segment begins; the newest has
/// no end.
///
/// In the newest segment a crash may have torn the last batch: if so, none of it counts. In any other, and before the
/// newest's last batch, all was durable once: what is bad there is damage, and costs only itself where the next
/// record's start can still be told.
pub(super) fn read(bytes: &[u8], first: u64, end: Option<u64>) -> Contents<'_> {
    let (mut carried, mut records) = (None, Vec::<Frame<'_>>::new());
    let mut next = first;
    let (mut at, mut whole_bytes) = (HEADER_BYTES, 0);
    loop {
        match decode(bytes.get(at..).unwrap_or_default()) {
            Decoded::Record(frame) => {
                at += frame.bytes();
                whole_bytes += frame.bytes();
                if frame.carried {
                    carried = (frame.position.checked_add(1) == Some(first)).then_some(frame);
                } else if frame.position >= next && end.is_none_or(|end| frame.position < end) {
                    next = frame.position + 1;
                    records.push(frame);
                }
            }
            Decoded::Bad(framed_bytes) => at += framed_bytes,
            Decoded::Nothing => break,
        }
    }
    if end.is_none() {
        let batch = last_batch(&records);
        let complete = records
            .last()
            .is_some_and(|last| last.last_of_batch && batch as u64 == u64::from(last.place) + 1);
        if !complete {
            let torn = records.split_off(records.len() - batch);
            whole_bytes -= torn.iter().map(Frame::bytes).sum::<usize>();
        }
    }
    let cut_bytes = bytes.len().saturating_sub(HEADER_BYTES + whole_bytes);
    Contents { carried, records, cut_bytes }
}

/// How many records at the end belong to the last batch.
pub(super) fn last_batch(records: &[Frame<'_>]) -> usize {
    let Some(last) = records.last() else { return 0 };
    records.iter().rev().take_while(|frame| frame.batch() == last.batch()).count()
}

/// Where a position lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: u64,
    pub offset: u64,
}

/// Remembers where `position` lies, if the last mark is far enough away.
pub(super) fn mark(marks: &mut Vec<Mark>, position: u64, offset: u64) {
    if marks.last().is_none_or(|last| offset >= last.offset + MARK_BYTES as u64) {
        marks.push(Mark { position, offset });
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FRAME_BYTES;
    use super::*;
    use proptest::prelude::*;

    /// Batches of these sizes, from position `first` on.
    fn segment(first: u64, batches: &[u32]) -> Vec<u8> {
        let mut bytes = header().to_vec();
        let mut position = first;
        for &records in batches {
            for place in 0..records {
                let payload = position.to_string();
                let last_of_batch = place + 1 == records;
                Frame { position, place, last_of_batch, carried: false, payload: payload.as_bytes() }
                    .encode(&mut bytes);
                position += 1;
            }
        }
        bytes
    }

    fn positions(bytes: &[u8], first: u64, end: Option<u64>) -> Vec<u64> {
        read(bytes, first, end).records.iter().map(|frame| frame.position).collect()
    }

    #[test]
    fn a_batch_is_all_or_nothing_in_the_newest_segment() {
        let whole = segment(10, &[1, 3]);
        let one = segment(10, &[1]).len();
        assert_eq!(positions(&whole, 10, None), [10, 11, 12, 13]);
        for cut in one..whole.len() {
            assert_eq!(positions(&whole[..cut], 10, None), [10], "cut at {cut}");
            assert_eq!(read(&whole[..cut], 10, None).cut_bytes, cut - one);
        }
    }

    #[test]
    fn damage_costs_only_the_damaged_record() {
        let mut bytes = segment(0, &[1, 2, 1]);
        let third = segment(0, &[1, 1]).len();
        bytes[third + FRAME_BYTES] ^= 1;
        assert_eq!(positions(&bytes, 0, None), [0, 1, 3], "a later batch proves that it was durable");
        assert_eq!(positions(&bytes, 0, Some(9)), [0, 1, 3]);
        let torn = &bytes[..segment(0, &[1, 2]).len()];
        assert_eq!(positions(torn, 0, None), [0], "nothing proves it");
        assert_eq!(positions(torn, 0, Some(9)), [0, 1], "a newer segment proves it");
    }

    #[test]
    fn a_zeroed_header_costs_nothing() {
        let mut bytes = segment(5, &[2]);
        bytes[..HEADER_BYTES].fill(0);
        assert_eq!(positions(&bytes, 5, None), [5, 6]);
        assert_eq!(foreign_version(&bytes), None);
        bytes[..HEADER_BYTES].copy_from_slice(&header());
        assert_eq!(foreign_version(&bytes), None);
        bytes[8] = 2;
        assert_eq!(foreign_version(&bytes), Some(2));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, first: u64, end: Option<u64>) {
            let contents = read(&bytes, first, end);
            prop_assert!(contents.records.is_sorted_by(|a, b| a.position < b.position));
        }

        #[test]
        fn names_come_back(first: u64) {
            prop_assert_eq!(first_position(&file_name(first)), Some(first));
        }
    }
}
