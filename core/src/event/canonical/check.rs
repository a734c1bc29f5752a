//! Whether bytes are canonical already, without making anything of what they say.

use super::{DEPTH_MAX, INTEGER_MAX, plain_bytes};

/// Whether the bytes are what [`super::to_bytes`] would write of the value that they are: RFC 8785, and no number but
/// integers of at most 53 bits.
///
/// Who hands on what others wrote asks this, since evidence that reads differently by two readers is none: of two equal
/// keys some take the first and some the last.
#[must_use]
pub fn is_canonical(bytes: &[u8]) -> bool {
    is_canonical_within(bytes, DEPTH_MAX)
}

/// The same of values that are nested at most `levels` deep. A part says nothing of how deep the whole is: who asks of an
/// event asks of all its bytes.
#[must_use]
pub fn is_canonical_within(bytes: &[u8], levels: usize) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut rest = Rest(text);
    rest.value(levels.min(DEPTH_MAX)).is_some() && rest.0.is_empty()
}

/// What wasn't looked at yet. Each step takes what it names, or there is nothing more to say: `None`.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// A value of at most so many levels.
    fn value(&mut self, levels: usize) -> Option<()> {
        match self.0.as_bytes().first()? {
            b'{' => self.object(levels.checked_sub(1)?),
            b'[' => self.array(levels.checked_sub(1)?),
            b'"' => self.string().map(drop),
            b't' => self.take("true"),
            b'f' => self.take("false"),
            b'n' => self.take("null"),
            b'-' | b'0'..=b'9' => self.integer(),
            _ => None,
        }
    }

    fn object(&mut self, below: usize) -> Option<()> {
        self.take("{")?;
        if self.take("}").is_some() {
            return Some(());
        }
        let mut before = None;
        loop {
            let key = self.string()?;
            if before.is_some_and(|before| !precedes(before, key)) {
                return None;
            }
            before = Some(key);
            self.take(":")?;
            self.value(below)?;
            if self.take("}").is_some() {
                return Some(());
            }
            self.take(",")?;
        }
    }

    fn array(&mut self, below: usize) -> Option<()> {
        self.take("[")?;
        if self.take("]").is_some() {
            return Some(());
        }
        loop {
            self.value(below)?;
            if self.take("]").is_some() {
                return Some(());
            }
            self.take(",")?;
        }
    }

    /// What stands between the quotes, with its escapes: those that have to be, each in its one form (RFC 8785, 3.2.2.2).
    fn string(&mut self) -> Option<&'a str> {
        self.take("\"")?;
        let bytes = self.0.as_bytes();
        let mut at = 0;
        loop {
            at += plain_bytes(bytes.get(at..)?);
            match bytes.get(at..)? {
                [b'"', ..] => break,
                [b'\\', b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => at += 2,
                [b'\\', b'u', b'0', b'0', high, low, ..] if escaped_so(*high, *low) => at += 6,
                _ => return None,
            }
        }
        let (string, rest) = self.0.split_at_checked(at)?;
        self.0 = rest.strip_prefix('"')?;
        Some(string)
    }

    fn integer(&mut self) -> Option<()> {
        let digits_from = usize::from(self.0.starts_with('-'));
        let digits = self.0.get(digits_from..)?;
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        let digits = digits.get(..length)?;
        let shortest = !digits.starts_with('0') || (digits.len() == 1 && digits_from == 0);
        if !shortest || digits.parse::<u64>().ok()? > INTEGER_MAX {
            return None;
        }
        self.0 = self.0.get(digits_from + length..)?;
        Some(())
    }
}

/// Whether `\u00` and these digits stand for a control character that has no shorter escape.
fn escaped_so(high: u8, low: u8) -> bool {
    match (high, low) {
        (b'0', b'8' | b'9' | b'a' | b'c' | b'd') => false,
        (b'0' | b'1', b'0'..=b'9' | b'a'..=b'f') => true,
        _ => false,
    }
}

/// Whether one key comes before another: by UTF-16 code units (RFC 8785, 3.2.3), which for letters of ASCII is by bytes.
fn precedes(before: &str, key: &str) -> bool {
    let plain = |key: &str| key.bytes().all(|byte| byte.is_ascii() && byte != b'\\');
    if plain(before) && plain(key) {
        return before < key;
    }
    let said = |key: &str| serde_json::from_str::<String>(&format!("\"{key}\"")).ok();
    match (said(before), said(key)) {
        (Some(before), Some(key)) => before.encode_utf16().lt(key.encode_utf16()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Json, tests::any_json, to_bytes};
    use super::*;
    use crate::event::TYPES;
    use proptest::prelude::*;

    /// What an independent crate writes of the value, if it is one that events may hold.
    fn theirs(bytes: &[u8]) -> Option<Vec<u8>> {
        let value = serde_json::from_slice::<serde_json::Value>(bytes).ok()?;
        to_bytes(&Json(value.clone())).ok()?;
        serde_json_canonicalizer::to_vec(&value).ok()
    }

    fn assert_alike(bytes: &[u8]) {
        let same = theirs(bytes).is_some_and(|canonical| canonical == bytes);
        assert_eq!(is_canonical(bytes), same, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn every_example_is() {
        for info in TYPES {
            assert!(is_canonical(&(info.example)().unwrap()), "{}", info.name);
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_not() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let texts = [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a": 1}"#,
            r#" {"a":1}"#,
            "{\"a\":1}\n",
            r#"{"a":1,}"#,
            r#"{"":1}"#,
            "{\"\u{e000}\":1,\"\u{1f600}\":2}",
            "{\"\u{1f600}\":1,\"\u{e000}\":2}",
            r#"{"\n":1,"a":2}"#,
            r#"{"a":1,"\n":2}"#,
            r#""\u000a""#,
            r#""\n""#,
            r#""\u001F""#,
            r#""\u001f""#,
            r#""\u000b""#,
            r#""\u0041""#,
            r#""\ud83d\ude00""#,
            r#""\ud800""#,
            r#""\/""#,
            "\"\u{7f}\u{2028}\"",
            "\"\t\"",
            "0",
            "-0",
            "01",
            "-1",
            "-01",
            "1.0",
            "1e3",
            "9007199254740991",
            "9007199254740992",
            "-9007199254740991",
            "-9007199254740992",
            "18446744073709551616",
            "-",
            "null",
            "nul",
            "truefalse",
            "[1,2]",
            "[1, 2]",
            "[,]",
            "[]",
            "{}",
            "",
            "{",
            "\"",
            "\"\\",
            "\"\\u00",
            &deep(127),
            &deep(128),
        ];
        for text in texts {
            assert_alike(text.as_bytes());
        }
        assert!(!is_canonical(b"\"\xff\""));
    }

    #[test]
    fn each_level_counts_whatever_it_is() {
        for (text, levels) in [
            ("1", 0),
            ("[]", 1),
            ("{}", 1),
            ("[1,[],2]", 2),
            (r#"[["[[[["]]"#, 2),
            (r#"{"a":{"b":[{}]}}"#, 4),
        ] {
            assert!(is_canonical_within(text.as_bytes(), levels), "{text}");
            assert!(levels == 0 || !is_canonical_within(text.as_bytes(), levels - 1), "{text}");
        }
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(is_canonical_within(deep(127).as_bytes(), 1_000));
        assert!(!is_canonical_within(deep(128).as_bytes(), 1_000), "no more than others read");
    }

    proptest! {
        #[test]
        fn what_is_written_is_and_what_an_independent_crate_would_write_otherwise_is_not(
            value in any_json(), cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut bytes = to_bytes(&Json(value)).unwrap();
            prop_assert!(is_canonical(&bytes));
            for (at, with) in cuts {
                let at = at.index(bytes.len());
                bytes[at] = with;
            }
            assert_alike(&bytes);
        }
    }
}
