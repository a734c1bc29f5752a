//! Lines of the Common Event Format, version 0 (ArcSight CEF Implementation Standard), for SIEMs that read nothing else
//! (`schemas/cef/mapping.json`).
//!
//! A line is a pointer to the evidence, not a copy: it is short, and names the log, the index and the leaf hash.
//! Limits of the standard's dictionary are kept in bytes, and what was cut to them is named, so that nobody hides a command by
//! making it long. A line has no line end of any standard and no other control character in it,
//! so that it can't be taken for two.

use super::Logged;
use super::convert::cut;
use super::json::Value;
use super::message::{MESSAGE_BYTES_MAX, Message};
use super::rule::{Field, Rules};
use super::view::View;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

const FILE: &str = include_str!("../../../schemas/cef/mapping.json");
/// The custom key that names the keys whose values were cut, and what it is called.
const CUT: (&str, &str) = ("cs6", "cut");
/// What the standard's header takes of an event's id.
const EVENT_CLASS_BYTES_MAX: usize = 1_023;

static MAPPING: LazyLock<Mapping> =
    // A part of the program; a test holds that it can be read.
    LazyLock::new(|| serde_json::from_str(FILE).unwrap_or_default());

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    /// What text is cut to, in bytes, by key; keys of numbers and addresses have none.
    limits: BTreeMap<String, usize>,
    /// What the custom keys mean.
    labels: BTreeMap<String, String>,
    /// Rules for every event.
    every: Rules,
    /// Rules that each type has instead or besides.
    types: BTreeMap<String, Rules>,
}

/// The CEF line of an entry, without a line end. It is the same however often it is made.
#[must_use]
pub fn line(entry: &Logged<'_>) -> String {
    let view = View::new(entry);
    let kind = view.text("type").unwrap_or("unknown");
    let Message { name, line: said, severity } = Message::of(&view);
    let mut line = format!(
        "CEF:0|Custody|custodyd|{}|{}|{}|{}|",
        env!("CARGO_PKG_VERSION"),
        header(cut(kind, EVENT_CLASS_BYTES_MAX)),
        header(&name),
        severity.cef()
    );
    let mut extension = extension(&view);
    extension.insert("msg", cut(&said, MESSAGE_BYTES_MAX).into());
    let mut between = "";
    let mut shortened: Vec<&str> = Vec::new();
    for (key, value) in extension {
        // An empty value says nothing.
        let Some(text) = value.scalar().filter(|text| !text.is_empty()) else { continue };
        let bytes_max = MAPPING.limits.get(key).copied().unwrap_or(usize::MAX);
        let short = cut(&text, bytes_max);
        if short.len() < text.len() {
            shortened.push(key);
        }
        push(&mut line, &mut between, key, short);
        if let Some(label) = MAPPING.labels.get(key) {
            push(&mut line, &mut between, &format!("{key}Label"), label);
        }
    }
    if !shortened.is_empty() {
        push(&mut line, &mut between, CUT.0, &shortened.join(", "));
        push(&mut line, &mut between, &format!("{}Label", CUT.0), CUT.1);
    }
    line
}

fn extension<'v>(view: &'v View<'_>) -> BTreeMap<&'static str, Value<'v>> {
    let of_type = view.text("type").and_then(|name| MAPPING.types.get(name));
    let rules = MAPPING.every.iter().chain(of_type.into_iter().flatten());
    let value = |(field, rule): (&'static Field, &'static super::rule::Rule)| {
        Some((field.name.as_str(), rule.value(view, &mut Vec::new())?))
    };
    rules.filter_map(value).collect()
}

fn push(line: &mut String, between: &mut &str, key: &str, value: &str) {
    line.push_str(between);
    *between = " ";
    line.push_str(key);
    line.push('=');
    for c in value.chars() {
        match c {
            '\\' | '=' => line.extend(['\\', c]),
            c if ends_line(c) => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            c if c.is_control() => {
                // As events write a byte that is no text. Writing to a string can't fail.
                let _infallible = write!(line, "\\\\x{:02x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
}

/// What ends a line for some reader: Unicode has three more beside that of Unix.
const fn ends_line(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Text in the header, where there is no way to write a control character.
fn header(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' => out.extend(['\\', c]),
            c if c.is_control() || ends_line(c) => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::hostile::{any_entry, entry};
    use proptest::prelude::*;
    use serde_json::json;

    /// Reads a line back: its header's eight parts, and the extension by keys.
    fn read(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
        let mut parts = vec![String::new()];
        let mut chars = line.chars();
        while parts.len() < 8 {
            match chars.next().expect("a header has seven bars") {
                '\\' => parts.last_mut().unwrap().push(chars.next().unwrap()),
                '|' => parts.push(String::new()),
                c => parts.last_mut().unwrap().push(c),
            }
        }
        let (mut fields, mut key, mut text) = (BTreeMap::new(), None, String::new());
        while let Some(c) = chars.next() {
            match c {
                '\\' => text.push(match chars.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    c @ ('\\' | '=') => c,
                    other => panic!("\\{other} is no escape"),
                }),
                '=' => {
                    let (before, next) = text.rsplit_once(' ').unwrap_or(("", &text));
                    if let Some(key) = key.replace(next.to_owned()) {
                        assert_eq!(fields.insert(key, before.to_owned()), None);
                    }
                    text = String::new();
                }
                c => text.push(c),
            }
        }
        fields.extend(key.map(|key| (key, text)));
        (parts, fields)
    }

    #[test]
    fn the_file_can_be_read_and_names_what_custom_keys_hold() {
        let mapping: Mapping = serde_json::from_str(FILE).unwrap();
        let keys =
            || mapping.every.keys().chain(mapping.types.values().flat_map(BTreeMap::keys)).map(|f| &f.name);
        assert!(mapping.labels.keys().all(|key| keys().any(|k| k == key)));
        for key in keys().filter(|key| key.starts_with('c') && key.ends_with(|c: char| c.is_ascii_digit())) {
            assert!(mapping.labels.contains_key(key), "{key} is custom and has no label");
        }
    }

    #[test]
    fn an_example_says_who_what_where() {
        let event = json!({
            "actor": {"user": "alice|x", "roles": ["a=b", "c"]}, "data": {"command": "echo 'a=b|c\\d'\nid\u{1b}"},
            "outcome": "denied", "producer": {"id": "proxy-1", "kind": "proxy"}, "session": "s",
            "source": {"address": "192.0.2.7", "port": 50_022},
            "target": {"address": "[2001:db8::2]:22", "kind": "node", "login": "root", "name": "web-1"},
            "time": "2025-11-25T00:00:00.123456789Z", "type": "command.requested"
        });
        let bytes = serde_json::to_vec(&event).unwrap();
        let line = line(&entry(&bytes));
        let version = env!("CARGO_PKG_VERSION");
        let wanted = format!("CEF:0|Custody|custodyd|{version}|command.requested|Command requested|1|");
        let extension = line.strip_prefix(&wanted).unwrap();
        assert!(extension.contains(r"cs3=echo 'a\=b|c\\d'\nid\\x1b cs3Label=command "), "{extension}");
        let (_, fields) = read(&line);
        for (key, value) in [
            ("act", "denied"),
            ("app", "ssh"),
            ("c6a3", "2001:db8::2"),
            ("cat", "command"),
            ("cs1", "s"),
            ("cs1Label", "session"),
            ("deviceExternalId", "custody.example.com/log"),
            ("dhost", "web-1"),
            ("dpt", "22"),
            ("duser", "root"),
            ("dvchost", "proxy-1"),
            ("externalId", "41"),
            ("outcome", "failure"),
            ("rt", "1764028801000"),
            ("spriv", "a=b, c"),
            ("spt", "50022"),
            ("src", "192.0.2.7"),
            ("start", "1764028800123"),
            ("suser", "alice|x"),
        ] {
            assert_eq!(fields.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(!fields.contains_key("dst") && !fields.contains_key("c6a2"));
    }

    #[test]
    fn line_ends_of_unicode_end_no_line() {
        let event = json!({"data": {"command": "a\u{2028}b\u{2029}c\u{85}d"}, "type": "command.requested"});
        let told = line(&entry(&serde_json::to_vec(&event).unwrap()));
        assert!(told.contains(r"cs3=a\nb\nc\nd "), "{told}");
        let event = json!({"type": "of\u{2028}another\u{2029}galaxy\u{85}"});
        let (header, _) = read(&line(&entry(&serde_json::to_vec(&event).unwrap())));
        assert_eq!(header[4], "of another galaxy ");
    }

    #[test]
    fn what_was_cut_is_named() {
        let line_of = |command: &str| {
            let event = json!({"data": {"command": command}, "type": "command.requested"});
            line(&entry(&serde_json::to_vec(&event).unwrap()))
        };
        let (_, fields) = read(&line_of(&format!("{}; rm -rf /var/log", "x".repeat(4_000))));
        assert_eq!(
            (fields["cs3"].len(), fields["cs6"].as_str(), fields["cs6Label"].as_str()),
            (4_000, "cs3", "cut")
        );
        let (_, fields) = read(&line_of("rm -rf /var/log"));
        assert!(!fields.contains_key("cs6") && !fields.contains_key("cs6Label"));
    }

    #[test]
    fn types_that_nobody_knows_and_bytes_that_are_no_event_become_lines() {
        let (header, fields) = read(&line(&entry(br#"{"type":"galaxy|formed"}"#)));
        assert_eq!(header[4..7], ["galaxy|formed", "Other event", "1"]);
        assert_eq!(fields["externalId"], "41");
        let (header, fields) = read(&line(&entry(b"\xff")));
        assert_eq!((header[4].as_str(), fields["cs2Label"].as_str()), ("unknown", "leaf"));
    }

    proptest! {
        #[test]
        fn whatever_an_entry_holds_it_becomes_one_line_that_can_be_read(bytes in any_entry()) {
            let line = line(&entry(&bytes));
            prop_assert!(!line.chars().any(|c| c.is_control() || ends_line(c)), "{line:?}");
            let (header, fields) = read(&line);
            prop_assert_eq!(&header[0], "CEF:0");
            for (key, value) in &fields {
                prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric()), "{} is no key", key);
                // Escapes for control characters come after the cut.
                prop_assert!(MAPPING.limits.get(key).is_none_or(|max| value.len() <= 4 * max), "{}: too long", key);
            }
            prop_assert_eq!(&fields["externalId"], "41");
        }
    }
}
