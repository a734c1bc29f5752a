//! UTF-8 out of a stream of chunks.

/// Decodes a stream whose chunks may end within a character. What isn't UTF-8 becomes U+FFFD, one for each
/// maximal broken part, as the Unicode standard recommends (3.9, U+FFFD substitution of maximal subparts).
#[derive(Debug, Default, Clone)]
pub struct Utf8Decoder {
    /// The start of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// Adds the text of the next chunk to `out`; holds back the start of a character at its end.
    pub fn push(&mut self, chunk: &[u8], out: &mut String) {
        let joined;
        let mut rest = if self.pending.is_empty() {
            chunk
        } else {
            self.pending.extend_from_slice(chunk);
            joined = std::mem::take(&mut self.pending);
            joined.as_slice()
        };
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    return;
                }
                Err(error) => {
                    let (valid, behind) = rest.split_at(error.valid_up_to());
                    out.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(length) = error.error_len() else {
                        self.pending = behind.to_vec();
                        return;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = behind.get(length..).unwrap_or_default();
                }
            }
        }
    }

    /// The stream has ended: a character that never got whole becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.pending).is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Text for a person's terminal out of text that somebody else chose: control characters (but for line ends
/// and tabs) are shown as `\x1b` and do nothing, nor do the characters that turn the direction of writing.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\t' => out.push(char),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(char.escape_unicode()),
            char if char.is_control() => {
                let code = u32::from(char);
                out.push_str(&format!("\\x{code:02x}"));
            }
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut decoder, mut out) = (Utf8Decoder::default(), String::new());
        for chunk in chunks {
            decoder.push(chunk, &mut out);
            assert!(decoder.pending.len() <= 3);
        }
        decoder.finish(&mut out);
        out
    }

    proptest! {
        /// However it is cut, the text is what the standard library makes of it in one piece.
        #[test]
        fn cuts_change_nothing(
            text in prop_oneof![
                any::<String>().prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..60),
                prop::collection::vec(prop::sample::select(b"\xf0\x9f\x98\x80\xe4\xc3a".to_vec()), 0..40),
            ],
            size in 1usize..7,
        ) {
            prop_assert_eq!(decode(text.chunks(size)), String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn nothing_reaches_the_terminal() {
        assert_eq!(
            harmless("a\x1b]52;c;x\x07\r\n\u{9b}2J\tü\u{202e}"),
            "a\\x1b]52;c;x\\x07\\x0d\n\\x9b2J\tü\\u{202e}"
        );
    }
}
