//! Compares the layouts with the types that the compiler wrote into the object's BTF.

use super::{ALL, LAYOUT_VERSION, kind, net};
use std::collections::BTreeMap;

const KIND_STRUCT: u32 = 4;

struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
}

/// Name, offset in bytes.
type Members = BTreeMap<String, usize>;

impl Btf {
    fn of_object() -> Btf {
        let object = super::super::load::OBJECT;
        let section = section(object, ".BTF");
        let word = |at: usize| u32::from_le_bytes(section[at..at + 4].try_into().unwrap()) as usize;
        let (head, types, types_len, strings, strings_len) = (word(4), word(8), word(12), word(16), word(20));
        Btf {
            types: section[head + types..head + types + types_len].to_vec(),
            strings: section[head + strings..head + strings + strings_len].to_vec(),
        }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.types[at..at + 4].try_into().unwrap())
    }

    fn name(&self, at: u32) -> String {
        let bytes = &self.strings[at as usize..];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }

    /// All structs with their sizes and members.
    fn read(&self) -> BTreeMap<String, (usize, Members)> {
        let mut structs = BTreeMap::new();
        let mut at = 0;
        while at < self.types.len() {
            let (name, info, size) = (self.word(at), self.word(at + 4), self.word(at + 8));
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            at += 12;
            if kind == KIND_STRUCT {
                let members = (0..count).map(|index| at + index * 12);
                let members = members
                    .map(|at| (self.name(self.word(at)), (self.word(at + 8) & 0xff_ffff) as usize / 8))
                    .collect();
                structs.insert(self.name(name), (size as usize, members));
            }
            at += match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => count * 12,
                6 | 13 => count * 8,
                _ => 0,
            };
        }
        structs
    }
}

/// A section of a 64-bit little-endian ELF file.
fn section<'a>(object: &'a [u8], wanted: &str) -> &'a [u8] {
    let u64_at = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(object[at..at + 4].try_into().unwrap()) as usize;
    let u16_at = |at: usize| u16::from_le_bytes(object[at..at + 2].try_into().unwrap()) as usize;
    let (table, count, names) = (u64_at(40), u16_at(60), u16_at(62));
    let header = |index: usize| table + index * 64;
    let names = u64_at(header(names) + 24);
    let found = (0..count)
        .map(header)
        .find(|at| object[names + u32_at(*at)..].starts_with(format!("{wanted}\0").as_bytes()))
        .unwrap();
    &object[u64_at(found + 24)..u64_at(found + 24) + u64_at(found + 32)]
}

#[test]
fn rust_and_the_compiled_programs_agree_on_every_field() {
    let structs = Btf::of_object().read();
    for (name, size, fields) in ALL {
        let (compiled_size, members) =
            structs.get(*name).unwrap_or_else(|| panic!("struct {name} isn't in the object"));
        assert_eq!(compiled_size, size, "size of {name}");
        let ours: Members = fields.iter().map(|(field, at, _)| (field.to_lowercase(), *at)).collect();
        assert_eq!(members, &ours, "fields of {name}");
        let mut sorted = fields.to_vec();
        sorted.sort_by_key(|field| field.1);
        for pair in sorted.windows(2) {
            assert!(pair[0].1 + pair[0].2 <= pair[1].1, "{name}: {} runs into {}", pair[0].0, pair[1].0);
        }
    }
}

#[test]
fn numbers_are_the_headers() {
    let header = include_str!("../../bpf/shared.h");
    for (number, name) in kind::NAMES {
        let enumerator = format!("KIND_{} = {number},", name.to_uppercase().replace(' ', "_"));
        assert!(header.contains(&enumerator), "{enumerator}");
    }
    for line in [
        format!("#define LAYOUT_VERSION {LAYOUT_VERSION}\n"),
        format!("KIND_COUNT = {},", kind::COUNT),
        format!("#define RANGES_MAX {}\n", net::RANGES_MAX),
        format!("#define LISTS_MAX {}\n", net::LISTS_MAX),
        format!("#define RULE_UNRESOLVED {:#x}u", net::UNRESOLVED),
        format!("#define POLICY_SELF_TEST {:#x}u", super::POLICY_SELF_TEST),
        format!("#define POLICY_SELF_TEST_MAPS {:#x}u", super::POLICY_SELF_TEST_MAPS),
        format!("#define POLICY_RESERVED {:#x}u", super::POLICY_RESERVED),
        format!("#define POLICY_NO_SCRIPTS {}u", net::NO_SCRIPTS),
        format!("#define POLICY_UNFOLLOWED {}u", net::UNFOLLOWED),
        format!("TRIED_CONNECT = {},", super::tried::CONNECT),
        format!("REACH_DEBUGGING = {},", super::reach::NAMES.len()),
        "CLOCK_SET = 11,\n\tCLOCK_ADJUSTED = 12,\n}".to_owned(),
        "#define EXEC_MEMFD 512u".to_owned(),
        "CONTROL_ACCEPTED = 8,".to_owned(),
        format!("KIND_ANSWERED = {},", kind::ANSWERED),
        format!("#define PLACES_EACH {} ", super::super::load::PLACES_EACH),
    ] {
        assert!(header.contains(&line), "{line}");
    }
}
