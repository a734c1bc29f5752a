//! What happened, in one line for people, and how bad it is: the same in every standard.
//!
//! A sentence of `schemas/messages.json` has `{path}` where a value goes, `{path|path}` for the first that is there,
//! and `[…]` around what is left out when a value in it is missing.

use super::convert::{cut, items};
use super::rule::Path;
use super::view::View;
use crate::event::{Head, Outcome};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

const FILE: &str = include_str!("../../../schemas/messages.json");
/// A longer value is cut: the whole stands in a field of its own or in the event.
const VALUE_BYTES_MAX: usize = 512;
/// What a line is cut to; CEF's `msg` takes 1,023 characters.
pub(super) const MESSAGE_BYTES_MAX: usize = 1_023;

/// How bad an event is, in the words that OCSF and most others use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    #[default]
    Informational,
    /// Of interest when there are many.
    Low,
    /// Somebody should look at it.
    Medium,
    /// Somebody should look at it now.
    High,
    /// The evidence itself is in danger.
    Critical,
}

impl Severity {
    /// Of an event, by its head alone: what [`super::severity`] says of the whole.
    #[must_use]
    pub fn of(head: &Head<'_>) -> Self {
        let is_bad = matches!(head.outcome, Some(Outcome::Failure | Outcome::Denied));
        MESSAGES.get(&*head.kind).map(|about| about.severity(is_bad)).unwrap_or_default()
    }

    /// OCSF's `severity_id`, 1 to 5.
    #[must_use]
    pub const fn ocsf(self) -> u8 {
        match self {
            Self::Informational => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
            Self::Critical => 5,
        }
    }

    /// CEF's severity, 0 to 10; 0–3 low, 4–6 medium, 7–8 high, 9–10 very high. ECS takes it as `event.severity`.
    #[must_use]
    pub const fn cef(self) -> u8 {
        match self {
            Self::Informational => 1,
            Self::Low => 3,
            Self::Medium => 5,
            Self::High => 8,
            Self::Critical => 10,
        }
    }
}

/// What the file says of one type.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// In two or three words: CEF's name.
    name: String,
    /// The sentence.
    text: Sentence,
    /// How bad, usually.
    severity: Severity,
    /// How bad where it failed or was denied.
    #[serde(default)]
    otherwise: Option<Severity>,
}

impl About {
    fn severity(&self, is_bad: bool) -> Severity {
        self.otherwise.filter(|_| is_bad).unwrap_or(self.severity)
    }
}

static MESSAGES: LazyLock<BTreeMap<String, About>> =
    // A part of the program; a test holds that it can be read and knows every type.
    LazyLock::new(|| serde_json::from_str(FILE).unwrap_or_default());

/// What is said of an event.
pub(super) struct Message {
    /// In two or three words.
    pub(super) name: String,
    /// In one line.
    pub(super) line: String,
    /// How bad it is.
    pub(super) severity: Severity,
}

impl Message {
    pub(super) fn of(view: &View<'_>) -> Self {
        let kind = view.text("type").unwrap_or_default();
        let Some(about) = MESSAGES.get(kind) else {
            let line = format!("An event of the type «{}», which isn't mapped", safe(kind));
            return Self::new("Other event", &line, Severity::Informational);
        };
        let is_bad = matches!(view.text("outcome"), Some("failure" | "denied"));
        Self::new(&about.name, &about.text.said(view), about.severity(is_bad))
    }

    fn new(name: &str, line: &str, severity: Severity) -> Self {
        Self { name: name.to_owned(), line: cut(line, MESSAGE_BYTES_MAX).to_owned(), severity }
    }
}

/// A sentence with places for values.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Sentence(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Words(String),
    Value(Vec<Path>),
    Optional(Vec<Piece>),
}

impl TryFrom<String> for Sentence {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let mut rest = text.as_str();
        let pieces = pieces(&mut rest, false).ok_or_else(|| format!("{text}: its brackets don't match"))?;
        Ok(Self(pieces))
    }
}

/// The pieces up to the end, or up to the bracket that ends an optional part.
fn pieces(rest: &mut &str, inner: bool) -> Option<Vec<Piece>> {
    let mut found = Vec::new();
    loop {
        let at = rest.find(['{', '[', ']', '}']).unwrap_or(rest.len());
        let (words, after) = rest.split_at(at);
        if !words.is_empty() {
            found.push(Piece::Words(words.to_owned()));
        }
        let mut marks = after.chars();
        let mark = marks.next();
        *rest = marks.as_str();
        match mark {
            Some('{') => {
                let (paths, after) = rest.split_once('}')?;
                found.push(Piece::Value(paths.split('|').map(|p| Path::from(p.to_owned())).collect()));
                *rest = after;
            }
            Some('[') => found.push(Piece::Optional(pieces(rest, true)?)),
            Some(']') => return inner.then_some(found),
            Some(_) => return None,
            None => return (!inner).then_some(found),
        }
    }
}

impl Sentence {
    fn said(&self, view: &View<'_>) -> String {
        let mut line = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Optional(inner) => {
                    let mut part = String::new();
                    if inner.iter().all(|piece| say(piece, view, &mut part)) {
                        line.push_str(&part);
                    }
                }
                other => {
                    if !say(other, view, &mut line) {
                        line.push('?');
                    }
                }
            }
        }
        line
    }
}

/// Adds a piece to `line`; whether it could be said.
fn say(piece: &Piece, view: &View<'_>, line: &mut String) -> bool {
    match piece {
        Piece::Words(words) => line.push_str(words),
        Piece::Value(paths) => {
            let Some(text) = paths.iter().find_map(|path| items(view.at(&path.0)?)) else { return false };
            line.push_str(&safe(&text.join(", ")));
        }
        Piece::Optional(inner) => return inner.iter().all(|piece| say(piece, view, line)),
    }
    true
}

/// A value in a line: short, and without characters that would end the line or turn the text around.
fn safe(text: &str) -> String {
    let short = cut(text, VALUE_BYTES_MAX);
    let mut out = String::with_capacity(short.len());
    for c in short.chars() {
        match c {
            c if c.is_control() => out.extend(c.escape_default()),
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    if short.len() < text.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{TYPES, Timestamp};
    use crate::log::tree::leaf_hash;
    use crate::mapping::Logged;
    use serde_json::Value;

    fn of(bytes: &[u8]) -> Message {
        let appended = Timestamp::from_seconds(1);
        Message::of(&View::new(&Logged { origin: "o", index: 3, appended, leaf: leaf_hash(bytes), bytes }))
    }

    #[test]
    fn every_type_has_a_line_that_says_something_of_its_example() {
        let messages: BTreeMap<String, About> = serde_json::from_str(FILE).unwrap();
        assert_eq!(messages.len(), TYPES.len(), "a message of no type");
        for info in TYPES {
            let message = of(&(info.example)().unwrap());
            assert!(message.name != "Other event", "{} has no message", info.name);
            assert!(
                !message.line.contains('?') && message.line.len() > 10,
                "{}: {}",
                info.name,
                message.line
            );
        }
    }

    #[test]
    fn a_head_is_as_bad_as_its_event() {
        let outcomes = [None, Some("success"), Some("failure"), Some("denied")];
        for (info, outcome) in TYPES.iter().flat_map(|info| outcomes.map(|outcome| (info, outcome))) {
            let mut event: Value = serde_json::from_slice(&(info.example)().unwrap()).unwrap();
            event["outcome"] = outcome.into();
            let bytes = event.to_string().into_bytes();
            let head = Head::parse(&bytes).unwrap();
            assert_eq!(Severity::of(&head), of(&bytes).severity, "{} {outcome:?}", info.name);
        }
    }

    #[test]
    fn values_stand_in_their_places_and_what_misses_one_is_left_out() {
        let sentence = Sentence::try_from("{a|b.c} met {d}[ at {e}][ near {b.c}]".to_owned()).unwrap();
        let bytes = br#"{"b":{"c":"x\ny\u202e"},"d":["p",1]}"#;
        let entry = Logged {
            origin: "o",
            index: 3,
            appended: Timestamp::from_seconds(1),
            leaf: leaf_hash(bytes),
            bytes,
        };
        let said = sentence.said(&View::new(&entry));
        assert_eq!(said, r"x\ny\u{202e} met p, 1 near x\ny\u{202e}");
        for wrong in ["{a", "a}", "[a", "a]", "[{a]"] {
            assert!(Sentence::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_failed_is_worse_and_what_is_unknown_is_said_to_be() {
        let plain = of(br#"{"type":"decision.made","data":{},"outcome":"success"}"#);
        let denied = of(br#"{"type":"decision.made","data":{},"outcome":"denied"}"#);
        assert!(plain.severity < denied.severity);
        assert!(
            plain.severity.cef() < denied.severity.cef() && plain.severity.ocsf() < denied.severity.ocsf()
        );
        assert_eq!(
            of(br#"{"type":"galaxy.formed"}"#).line,
            "An event of the type «galaxy.formed», which isn't mapped"
        );
        assert_eq!(of(b"\xff").name, "Other event");
        for what in ["x", r"\u0001"] {
            let long = format!(r#"{{"type":"{}"}}"#, what.repeat(300));
            assert!(of(long.as_bytes()).line.len() <= MESSAGE_BYTES_MAX);
            let long = format!(r#"{{"type":"{}"}}"#, what.repeat(10_000));
            assert!(of(long.as_bytes()).line.len() <= MESSAGE_BYTES_MAX);
        }
    }
}
