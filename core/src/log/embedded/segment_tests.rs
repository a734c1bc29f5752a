use super::*;
use proptest::prelude::*;

fn stored<'a>(producer: &'a str, event: &'a [u8]) -> Stored<'a> {
    Stored {
        batch_end: true,
        tag: 3,
        epoch: 2,
        index: 1_000,
        write_start: 990,
        appended: Nanos(1_800_000_000_000_000_000),
        seq: 17,
        boot: Uuid::from_u128(5),
        producer,
        event,
    }
}

fn encoded(segment: &SegmentId, stored: &Stored<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    stored.encode(segment, &mut bytes);
    bytes
}

#[test]
fn the_longest_and_the_shortest_record_have_the_lengths_that_are_assumed() {
    let segment = SegmentId::new("o", 0);
    let id = "p".repeat(PRODUCER_ID_BYTES_MAX);
    assert_eq!(encoded(&segment, &stored(&id, &vec![b'x'; EVENT_BYTES_MAX])).len(), RECORD_BYTES_MAX);
    assert_eq!(encoded(&segment, &stored("p", b"x")).len(), RECORD_BYTES_MIN);
}

#[test]
fn a_record_of_another_segment_or_log_is_none() {
    let bytes = encoded(&SegmentId::new("o", 0), &stored("p", b"{}"));
    for other in [SegmentId::new("o", 1), SegmentId::new("other", 0)] {
        assert_eq!(decode(&other, &bytes), Decoded::Bad("the checksum doesn't fit"));
    }
}

#[test]
fn a_header_says_what_is_wrong_with_it() {
    let segment = SegmentId::new("o", 7);
    assert_eq!(segment.check_header(&segment.header()), Ok(()));
    let refused = |header: &[u8]| segment.check_header(header).unwrap_err();
    assert_eq!(refused(&SegmentId::new("x", 7).header()), "it belongs to a log with another origin");
    assert_eq!(refused(&SegmentId::new("o", 8).header()), "its header is damaged");
    assert_eq!(refused(&[0; HEADER_BYTES]), "it is not a segment of a Custody log");
    let mut newer = segment.header();
    newer[8] = 2;
    assert_eq!(refused(&newer), "its format is of another version");
    assert_eq!(refused(&[]), "its header is damaged");
}

#[test]
fn file_names_lead_back() {
    for first in [0, 1, u64::MAX] {
        assert_eq!(first_index(&SegmentId::new("o", first).file_name()), Some(first));
    }
    for name in
        ["1.seg", "0000000000000000000x.seg", "99999999999999999999.seg", "00000000000000000001.seg.tmp"]
    {
        assert_eq!(first_index(name), None);
    }
}

proptest! {
    #[test]
    fn a_record_leads_back(
        batch_end: bool, tag: u8, epoch: u32, index: u64, before in 0u64..100, appended: u64, seq: u64,
        boot: u128, producer in "[a-z\u{e4}]{1,64}", event in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let segment = SegmentId::new("o", 3);
        let write_start = index.saturating_sub(before);
        let boot = Uuid::from_u128(boot);
        let stored = Stored {
            batch_end, tag, epoch, index, write_start, appended: Nanos(appended), seq, boot, producer: &producer, event: &event,
        };
        let mut bytes = encoded(&segment, &stored);
        prop_assert_eq!(bytes.len(), stored.encoded_bytes());
        let length = bytes.len();
        bytes.extend_from_slice(b"what follows");
        prop_assert_eq!(decode(&segment, &bytes), Decoded::Record(stored, length));
    }

    #[test]
    fn a_cut_record_is_short_and_a_flipped_bit_is_none(event in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, bit in 0u8..8) {
        let segment = SegmentId::new("o", 3);
        let mut bytes = encoded(&segment, &stored("p", &event));
        let cut = at.index(bytes.len());
        prop_assert!(matches!(decode(&segment, &bytes[..cut]), Decoded::Short(_)));
        bytes[cut] ^= 1 << bit;
        prop_assert!(!matches!(decode(&segment, &bytes), Decoded::Record(..)));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!matches!(decode(&SegmentId::new("o", 0), &bytes), Decoded::Record(..)));
    }
}
