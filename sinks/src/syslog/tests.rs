//! What is written, read back as RFC 5424 says: tests/sinks has the real receiver.

use super::*;
use bytes::Bytes;
use custody_core::clock::Nanos;
use custody_core::event::{TYPES, hex::to_hex};
use custody_core::log::Entry;
use custody_core::log::tree::leaf_hash;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ORIGIN: &str = "custody.test/log";

fn settings() -> Settings {
    Settings {
        server: "siem.example:6514".to_owned(),
        transport: Transport::Tls,
        tls: TlsSettings::default(),
        format: Format::Custody,
        facility: FACILITY,
        enterprise: ENTERPRISE,
        hostname: None,
        message_bytes_max: MESSAGE_BYTES,
    }
}

fn syslog(settings: Settings, origin: &str) -> Syslog {
    Syslog::new(settings, Secrets::new(std::path::Path::new("/nowhere")), origin)
}

fn item(index: u64, bytes: &[u8]) -> Item {
    Item::new(Entry {
        index,
        appended: Nanos(1_764_000_000_123_456_789 + index),
        tag: 1,
        bytes: Bytes::copy_from_slice(bytes),
    })
}

/// A message as a receiver reads it.
#[derive(Debug)]
struct Read {
    priority: u32,
    header: Vec<String>,
    name: String,
    parameters: BTreeMap<String, String>,
    text: Vec<u8>,
}

/// Strictly by the grammar of RFC 5424, 6.
fn read(frame: &[u8]) -> Read {
    let blank = frame.iter().position(|byte| *byte == b' ').unwrap();
    let length: usize = str::from_utf8(&frame[..blank]).unwrap().parse().unwrap();
    let message = &frame[blank + 1..];
    assert_eq!(message.len(), length, "octet counting");
    let end = message.iter().position(|byte| *byte == b'>').unwrap();
    let priority = str::from_utf8(&message[1..end]).unwrap().parse().unwrap();
    let mut rest = &message[end + 1..];
    let mut header = Vec::new();
    for _ in 0..6 {
        let blank = rest.iter().position(|byte| *byte == b' ').unwrap();
        let field = str::from_utf8(&rest[..blank]).unwrap();
        assert!(!field.is_empty() && field.bytes().all(|byte| byte.is_ascii_graphic()), "{field:?}");
        header.push(field.to_owned());
        rest = &rest[blank + 1..];
    }
    assert_eq!(rest[0], b'[');
    let (mut at, mut parameters) = (1, BTreeMap::new());
    let end_of_name = rest.iter().position(|byte| *byte == b' ').unwrap();
    let name = str::from_utf8(&rest[at..end_of_name]).unwrap().to_owned();
    at = end_of_name;
    while rest[at] != b']' {
        assert_eq!(rest[at], b' ');
        let equals = at + rest[at..].iter().position(|byte| *byte == b'=').unwrap();
        let key = str::from_utf8(&rest[at + 1..equals]).unwrap().to_owned();
        assert_eq!(rest[equals + 1], b'"');
        at = equals + 2;
        let mut value = Vec::new();
        while rest[at] != b'"' {
            assert_ne!(rest[at], b']', "an unescaped bracket");
            if rest[at] == b'\\' {
                at += 1;
            }
            value.push(rest[at]);
            at += 1;
        }
        at += 1;
        assert!(parameters.insert(key, String::from_utf8(value).unwrap()).is_none());
    }
    assert_eq!(rest[at + 1], b' ');
    Read { priority, header, name, parameters, text: rest[at + 2..].to_vec() }
}

#[test]
fn every_type_of_event_becomes_a_message_with_its_place_in_the_log() {
    let syslog = syslog(settings(), ORIGIN);
    for (index, info) in (0..).zip(TYPES) {
        let bytes = (info.example)().unwrap();
        let read = read(&syslog.encode(&item(index, &bytes)).unwrap());
        assert_eq!((read.priority / 8, read.text.as_slice()), (13, bytes.as_slice()));
        assert!((2..=6).contains(&(read.priority % 8)));
        assert_eq!(read.header[0], "1");
        assert!(read.header[1].starts_with("2025-11-24T16:00:00.123456") && read.header[1].ends_with('Z'));
        assert_eq!(read.header[2..5], ["custody.test", "custody", "-"]);
        assert_eq!(read.header[5], info.name[..info.name.len().min(32)]);
        assert_eq!(read.name, "custody@32473");
        let get = |key: &str| read.parameters.get(key).map(String::as_str);
        assert_eq!(get("index"), Some(index.to_string().as_str()));
        assert_eq!(get("leaf"), Some(to_hex(&leaf_hash(&bytes).0).as_str()));
        assert_eq!((get("origin"), get("length"), get("redacted")), (Some(ORIGIN), None, None));
    }
}

#[test]
fn what_failed_is_worse_than_what_succeeded() {
    let of = |name: &str| TYPES.iter().find(|info| info.name == name).unwrap();
    let syslog = syslog(settings(), ORIGIN);
    let severity = |name: &str| {
        let bytes = (of(name).example)().unwrap();
        read(&syslog.encode(&item(0, &bytes)).unwrap()).priority % 8
    };
    assert!(severity("login.failed") < severity("login.succeeded"));
}

#[test]
fn the_other_formats_are_one_line_each() {
    for (format, begins) in [(Format::Cef, "CEF:0|Custody|"), (Format::Ecs, "{"), (Format::Ocsf, "{")] {
        let syslog = syslog(Settings { format, message_bytes_max: 1 << 20, ..settings() }, ORIGIN);
        for info in TYPES {
            let bytes = (info.example)().unwrap();
            let read = read(&syslog.encode(&item(3, &bytes)).unwrap());
            let text = String::from_utf8(read.text).unwrap();
            assert!(text.starts_with(begins) && !text.contains('\n'), "{text}");
            assert!(!read.parameters.contains_key("encoding"));
        }
    }
}

#[test]
fn what_a_configuration_may_not_say() {
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        settings.check()
    };
    assert_eq!(with(&|_| ()), Ok(()));
    assert_eq!(with(&|s| (s.transport, s.server) = (Transport::Tcp, "[::1]:514".into())), Ok(()));
    type Change<'a> = (&'a dyn Fn(&mut Settings), &'a str);
    let wrong: [Change<'_>; 9] = [
        (&|s| s.server = "siem.example".into(), "host:port"),
        (&|s| s.server = "siem.example:x".into(), "host:port"),
        (&|s| s.transport = Transport::Tcp, "only to this machine"),
        (
            &|s| {
                (s.transport, s.server) = (Transport::Tcp, "localhost:514".into());
                s.tls.ca = Some("ca.pem".into());
            },
            "no use for tls",
        ),
        (&|s| s.facility = 24, "facility"),
        (&|s| s.message_bytes_max = 480, "message_bytes_max"),
        (&|s| s.hostname = Some("a b".into()), "hostname"),
        (&|s| s.tls.key = Some("key".into()), "belong together"),
        (&|s| s.tls.server_name = Some("a b".into()), "server_name"),
    ];
    for (change, says) in wrong {
        let error = with(change).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    #[test]
    fn whatever_an_entry_holds_it_is_one_message_that_can_be_read(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3_000),
            "[ -~é\u{1F600}\"\\]\\\\]{0,3000}".prop_map(String::into_bytes),
        ],
        origin in "[!-~é]{1,200}",
        bytes_max in 1_024..4_000_usize,
        redacted in any::<bool>(),
    ) {
        let syslog = syslog(Settings { message_bytes_max: bytes_max, ..settings() }, &origin);
        let mut item = item(7, &bytes);
        item.redacted = redacted;
        let frame = syslog.encode(&item).unwrap();
        let read = read(&frame);
        prop_assert!(frame.len() <= bytes_max + 8, "{} bytes", frame.len());
        prop_assert_eq!(&read.parameters["origin"], &origin);
        prop_assert_eq!(read.parameters.contains_key("redacted"), redacted);
        let text = String::from_utf8(read.text).unwrap();
        prop_assert!(!text.bytes().any(|byte| byte < b' '));
        let plain = String::from_utf8(bytes.clone()).ok().filter(|text| !text.bytes().any(|byte| byte < b' '));
        prop_assert_eq!(read.parameters.contains_key("encoding"), plain.is_none());
        let whole = plain.unwrap_or_else(|| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(&bytes)
        });
        match read.parameters.get("length") {
            None => prop_assert_eq!(text, whole),
            Some(length) => {
                prop_assert_eq!(length, &whole.len().to_string());
                prop_assert!(whole.starts_with(&text) && text.len() < whole.len());
                prop_assert_eq!(read.parameters["sha256"].len(), 64);
            }
        }
    }
}
