//! The bytes of a record in a segment.
//!
//! All integers are little-endian.
//!
//! ```text
//! u32 length of the payload | u32 CRC-32C of all other fields | u64 position | u32 place in its batch | u8 flags | payload
//! ```
//!
//! The place says where the batch began, and so what was durable before this record was written: a bad record is a torn
//! write only if no later record began its batch behind it. The flag "last of its batch" makes a batch all or nothing.

/// The longest record; bytes. The log takes no longer event either.
pub const RECORD_BYTES_MAX: usize = 65_535;
/// What a record takes beside its payload; bytes.
pub(super) const FRAME_BYTES: usize = 4 + 4 + 8 + 4 + 1;
/// The longest frame; bytes.
pub(super) const FRAMED_BYTES_MAX: usize = FRAME_BYTES + RECORD_BYTES_MAX;

const LAST_OF_BATCH: u8 = 1;
const CARRIED: u8 = 2;

/// A record in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub position: u64,
    /// Records of the same batch before this one.
    pub place: u32,
    pub last_of_batch: bool,
    /// A copy of the record before the segment's first: it isn't sent, it only stays readable.
    pub carried: bool,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Appends the frame to `out`. The payload's length was checked when it was handed in.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = (self.payload.len() as u32).to_le_bytes();
        let mut fields = Vec::with_capacity(FRAME_BYTES);
        fields.extend_from_slice(&self.position.to_le_bytes());
        fields.extend_from_slice(&self.place.to_le_bytes());
        fields.push(
            if self.last_of_batch { LAST_OF_BATCH } else { 0 } | if self.carried { CARRIED } else { 0 },
        );
        let crc = crc32c::crc32c_append(crc32c::crc32c(&length), &fields);
        let crc = crc32c::crc32c_append(crc, self.payload);
        out.extend_from_slice(&length);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&fields);
        out.extend_from_slice(self.payload);
    }

    /// The position of its batch's first record: all before it was durable when this one was written.
    pub fn batch(&self) -> u64 {
        self.position.saturating_sub(u64::from(self.place))
    }

    /// Bytes that the frame takes.
    pub fn bytes(&self) -> usize {
        FRAME_BYTES + self.payload.len()
    }
}

/// What lies at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<'a> {
    /// A whole record.
    Record(Frame<'a>),
    /// Its length may be right, the rest isn't; the next one could begin after this many bytes.
    Bad(usize),
    /// Nothing that could be a record: it was cut off, or its length is absurd.
    Nothing,
}

/// Looks at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Decoded<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Decoded::Nothing };
    let payload_bytes = u32::from_le_bytes(*length) as usize;
    if !(1..=RECORD_BYTES_MAX).contains(&payload_bytes) {
        return Decoded::Nothing;
    }
    let Some((crc, rest)) = rest.split_first_chunk::<4>() else { return Decoded::Nothing };
    let Some(body) = rest.get(..FRAME_BYTES - 8 + payload_bytes) else { return Decoded::Nothing };
    let bad = Decoded::Bad(FRAME_BYTES + payload_bytes);
    if crc32c::crc32c_append(crc32c::crc32c(length), body) != u32::from_le_bytes(*crc) {
        return bad;
    }
    let Some((position, rest)) = body.split_first_chunk::<8>() else { return bad };
    let Some((place, rest)) = rest.split_first_chunk::<4>() else { return bad };
    let Some((&flags, payload)) = rest.split_first() else { return bad };
    let frame = Frame {
        position: u64::from_le_bytes(*position),
        place: u32::from_le_bytes(*place),
        last_of_batch: flags & LAST_OF_BATCH != 0,
        carried: flags & CARRIED != 0,
        payload,
    };
    // A position that has no next one can't have been given.
    if flags > LAST_OF_BATCH | CARRIED || frame.position == u64::MAX { bad } else { Decoded::Record(frame) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(position in 0..u64::MAX, place: u32, flags in 0..4u8, payload in proptest::collection::vec(any::<u8>(), 1..300), behind: Vec<u8>) {
            let frame = Frame { position, place, last_of_batch: flags & 1 != 0, carried: flags & 2 != 0, payload: &payload };
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), frame.bytes());
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(decode(&bytes), Decoded::Record(frame));
        }

        #[test]
        fn one_changed_bit_makes_it_another_and_never_a_record(payload in proptest::collection::vec(any::<u8>(), 1..60), bit: prop::sample::Index) {
            let mut bytes = Vec::new();
            Frame { position: 7, place: 0, last_of_batch: true, carried: false, payload: &payload }.encode(&mut bytes);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(decode(&bytes), Decoded::Record(_)));
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes: Vec<u8>) {
            if let Decoded::Record(frame) = decode(&bytes) {
                prop_assert!(frame.bytes() <= bytes.len());
            }
        }
    }

    #[test]
    fn every_cut_and_zeroes_are_no_record() {
        let mut bytes = Vec::new();
        Frame { position: 1, place: 0, last_of_batch: true, carried: false, payload: b"event" }
            .encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Decoded::Nothing, "{cut}");
        }
        assert_eq!(decode(&[0; 100]), Decoded::Nothing);
    }
}
