//! What of a destination's words becomes an event. Destinations repeat what they were sent, and an event goes to all sinks: also to one
//! that is told less of the first event, or by a redaction nothing of it. The dead letter has more of them.

/// How stores call what they repeat.
const PREVIEW: &str = "Preview of ";
/// How a refusal begins of which nothing but the number is known: whatever else it says may repeat what was sent.
const STATUS: &str = "HTTP ";
const LEFT_OUT: char = '…';

/// Up to where something is quoted. Where that ends nobody knows: there may be quotes in it, and what a destination said was cut.
pub(super) fn without_quotes(words: &str) -> String {
    let ends = [words.find(PREVIEW), first_quote(words), first_bracket(words), after_status(words)];
    let end = ends.into_iter().flatten().min();
    match end.and_then(|end| words.get(..end)) {
        Some(before) => format!("{before}{LEFT_OUT}"),
        None => words.to_owned(),
    }
}

/// Where something begins to be quoted. An apostrophe quotes nothing: it stands in a word, behind more than the letter that some languages
/// put before what they quote (`b'…'`).
fn first_quote(words: &str) -> Option<usize> {
    let mut letters = 0;
    words.char_indices().find_map(|(at, c)| {
        let is_apostrophe = c == '\'' && letters > 1;
        let begins = matches!(c, '"' | '\'' | '`' | '‘' | '“' | '«') && !is_apostrophe;
        letters = if c.is_alphanumeric() { letters + 1 } else { 0 };
        begins.then_some(at)
    })
}

/// Where a bracket begins that isn't around the name of a field or a type: search stores quote values so, too.
fn first_bracket(words: &str) -> Option<usize> {
    words.match_indices('[').map(|(at, _)| at).find(|at| {
        let (before, after) = words.split_at(*at);
        let inside = after.get(1..).and_then(|inside| inside.split_once(']')).map(|(inside, _)| inside);
        let is_name =
            |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@'));
        let names = before.ends_with("field ") || before.ends_with("type ");
        !(names && inside.is_some_and(is_name))
    })
}

/// Where the words end that say by what number it was refused, if something follows.
fn after_status(words: &str) -> Option<usize> {
    let at = words.find(STATUS)? + STATUS.len();
    let digits = words.get(at..)?.bytes().take_while(u8::is_ascii_digit).count();
    (digits == 3 && at + digits < words.len()).then_some(at + digits)
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
            (r#"HTTP 400: {"error": "bad", "value": "mysql -pS3cret"}"#, "HTTP 400…"),
            (r#"HTTP 422: {"input":"mysql -pS3cret --host"#, "HTTP 422…"),
            ("it answered HTTP 422: no mysql -pS3cret here", "it answered HTTP 422…"),
            ("HTTP 503", "HTTP 503"),
            (
                "Grok expressions do not match field value: [mysql -pS3cret]",
                "Grok expressions do not match field value: …",
            ),
            ("unable to convert [mysql -pS3cret] to integer", "unable to convert …"),
            ("failed to parse field [mysql -pS3cret] of type", "failed to parse field …"),
            ("no field [", "no field …"),
            ("for 'a' b' -pS3cret' there is no field", "for …"),
            ("invalid bytes b'mysql -pS3cret'", "invalid bytes b…"),
            ("'", "…"),
            ("", ""),
        ] {
            assert_eq!(without_quotes(words), left);
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_quotes_is_not_told(before in "[a-z :]{0,20}", secret in "[0-9'\"` ]{0,20}", after in "[a-z ]{0,20}", cut in 0..80_usize) {
            for quote in ['"', '\'', '`'] {
                let words = format!("{before} {quote}1234{secret}5678{quote}{after}");
                let left = without_quotes(words.get(..cut).unwrap_or(&words));
                prop_assert!(!left.contains("1234") && !left.contains("5678"), "{left}");
            }
        }
    }
}
