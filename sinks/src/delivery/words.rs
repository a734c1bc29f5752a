//! What of a destination's words becomes an event. Destinations repeat what they were sent, and an event goes to all sinks: also to one
//! that is told less of the first event, or by a redaction nothing of it. The dead letter has the whole.

/// How stores call what they repeat.
const PREVIEW: &str = "Preview of ";
const LEFT_OUT: char = '…';

/// Without what is quoted. What is quoted may have quotes in it: it ends at the last one.
pub(super) fn without_quotes(words: &str) -> String {
    let words = match words.split_once(PREVIEW) {
        Some((before, _)) => format!("{before}{LEFT_OUT}"),
        None => words.to_owned(),
    };
    ['"', '`', '\''].into_iter().fold(words, |words, quote| {
        let Some(first) = first_quote(&words, quote) else { return words };
        let (before, quoted) = words.split_at(first);
        let after = match quoted.rsplit_once(quote) {
            // Never closed: it may have been cut.
            Some(("", _)) | None => "",
            Some((_, after)) => after,
        };
        format!("{before}{quote}{LEFT_OUT}{quote}{after}")
    })
}

/// Where something begins to be quoted; an apostrophe within a word quotes nothing.
fn first_quote(words: &str, quote: char) -> Option<usize> {
    let mut before = ' ';
    words.char_indices().find_map(|(at, c)| {
        let begins = c == quote && !(quote == '\'' && before.is_alphanumeric());
        before = c;
        begins.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_quoted_is_left_out_and_the_rest_is_not() {
        for (words, left) in [
            ("it wasn't made ready: the store isn't there", "it wasn't made ready: the store isn't there"),
            (
                "mapper_parsing_exception: failed to parse field [process.command_line] of type [long]. Preview of field's value: 'mysql -pS3cret'",
                "mapper_parsing_exception: failed to parse field [process.command_line] of type [long]. …",
            ),
            (r#"HTTP 400: {"error": "bad", "value": "mysql -pS3cret"}"#, r#"HTTP 400: {"…"}"#),
            ("for 'a' b' -pS3cret' there is no field", "for '…' there is no field"),
            ("for \"mysql -pS3cret", "for \"…\""),
            ("'", "'…'"),
            ("", ""),
        ] {
            assert_eq!(without_quotes(words), left);
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_quotes_is_not_told(before in "[a-z :]{0,20}", secret in "[0-9'\"` ]{0,20}", after in "[a-z ]{0,20}") {
            for quote in ['"', '\'', '`'] {
                let left = without_quotes(&format!("{before} {quote}1234{secret}5678{quote}{after}"));
                prop_assert!(!left.contains("1234") && !left.contains("5678"), "{left}");
            }
        }
    }
}
