use super::{Record, decode, join, split_args};
use crate::sensor::layout::{executed, kind};
use proptest::prelude::{Just, Strategy, any, proptest};
use proptest::prop_oneof;

/// Bytes that begin like a record of some kind, with lengths that may be anything.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![any::<u16>(), 0..kind::COUNT as u16, Just(kind::EXECUTED)];
    let lengths = proptest::array::uniform5(prop_oneof![0..64_u32, any::<u32>()]);
    (kinds, lengths, proptest::collection::vec(any::<u8>(), 0..600)).prop_map(|(kind, lengths, mut bytes)| {
        super::put(&mut bytes, 0, &kind.to_ne_bytes());
        let fields = [
            executed::PATH_LEN,
            executed::GIVEN_LEN,
            executed::INTERPRETER_LEN,
            executed::CWD_LEN,
            executed::ARGS_LEN,
        ];
        for (field, length) in fields.into_iter().zip(lengths) {
            super::put(&mut bytes, field, &length.to_ne_bytes());
        }
        bytes
    })
}

proptest! {
    #[test]
    fn whatever_the_bytes_there_is_a_record(bytes in records()) {
        let record = decode(&bytes);
        if let Record::Undecoded { length, .. } = record {
            assert_eq!(length, bytes.len());
        }
    }

    #[test]
    fn arguments_survive(args in proptest::collection::vec(proptest::collection::vec(1..=u8::MAX, 0..5), 1..9)) {
        let bytes: Vec<u8> = args.iter().flat_map(|arg| arg.iter().copied().chain([0])).collect();
        assert_eq!(split_args(&bytes), args);
    }

    #[test]
    fn paths_are_turned_round(path in proptest::collection::vec("[a-z]{1,4}", 1..6)) {
        let leaf_first: Vec<u8> = path.iter().rev().flat_map(|name| name.bytes().chain([0])).collect();
        assert_eq!(join(&leaf_first, false), format!("/{}", path.join("/")).into_bytes());
    }
}

#[test]
fn the_root_and_names_outside_of_directories_are_paths_too() {
    assert_eq!(join(b"", false), b"/");
    assert_eq!(join(b"memfd:x\0", true), b"memfd:x");
    assert_eq!(split_args(b""), Vec::<Vec<u8>>::new());
    assert_eq!(split_args(b"\0"), [b""]);
    assert_eq!(split_args(b"cut\0of"), [&b"cut"[..], b"of"]);
}
