//! Bytes that are mostly text: arguments, paths, statements, names that a client sent.
//!
//! JSON strings are Unicode and such bytes needn't be, so one lossless and reversible form serves everywhere:
//! each byte that isn't part of valid UTF-8 becomes `\xHH` (lower-case hex), and a real backslash is written
//! `\x5c` only where an `x` follows it. So ordinary text, Windows paths included, stands as it is.

use super::hex::digit;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Bytes that are written as text; see the module for the form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteString(Vec<u8>);

impl ByteString {
    /// The bytes themselves.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The reversible text form, as it stands in events.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            let valid = chunk.valid();
            let mut rest = valid;
            while let Some(at) = rest.find("\\x") {
                let (before, after) = rest.split_at(at);
                text.push_str(before);
                text.push_str("\\x5c");
                rest = after.get(1..).unwrap_or_default();
            }
            text.push_str(rest);
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        text
    }

    /// The bytes that `text` stands for.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match escaped(bytes.get(at..).unwrap_or_default()) {
                Some(value) => {
                    out.push(value);
                    at += 4;
                }
                None => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        Self(out)
    }

    /// At most `bytes_max` of the bytes, for an event that can't hold them all; the caller marks the cut.
    #[must_use]
    pub fn cut(bytes: &[u8], bytes_max: usize) -> Self {
        Self(bytes.get(..bytes_max).unwrap_or(bytes).to_vec())
    }
}

/// The byte that a leading `\xHH` stands for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'\\', b'x', high, low, ..] = bytes else { return None };
    Some(digit(*high)? << 4 | digit(*low)?)
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_text(), f)
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_text(&Cow::<str>::deserialize(deserializer)?))
    }
}

impl schemars::JsonSchema for ByteString {
    fn schema_name() -> Cow<'static, str> {
        "ByteString".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Bytes as text: a byte that isn't UTF-8 is \\xHH, and a backslash before an x is \\x5c."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'5')], 0..64)) {
            let text = ByteString::from(bytes.as_slice()).to_text();
            let back = ByteString::from_text(&text);
            prop_assert_eq!(back.as_bytes(), bytes.as_slice());
        }
    }

    #[test]
    fn ordinary_text_stands_as_it_is() {
        for text in ["ls -l", r"C:\Users\me", "naïve ✓", r"printf '\n'"] {
            assert_eq!(ByteString::from(text).to_text(), text);
        }
        assert_eq!(ByteString::from(&b"a\xffb"[..]).to_text(), r"a\xffb");
        assert_eq!(ByteString::from(r"printf '\x41'").to_text(), r"printf '\x5cx41'");
        assert_eq!(ByteString::from(&b"\\\xff"[..]).to_text(), r"\\xff");
    }
}
