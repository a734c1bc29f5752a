//! What of a destination's words becomes an event. Destinations repeat what they were sent, and an event goes to all sinks: also to one
//! that is told less of the first event, or by a redaction nothing of it. The dead letter has more of them.

/// How stores call what they repeat.
const PREVIEW: &str = "Preview of ";
/// What stands before the number of an answer, how many digits that has at least and at most, and what comes behind it: whatever else
/// such an answer says may repeat what was sent. Splunk's collectors have numbers of their own.
const NUMBERS: [(&str, usize, usize, &str); 2] = [("HTTP ", 3, 3, ""), ("code ", 1, 4, ":")];
const LEFT_OUT: char = '…';

/// Up to where something is quoted. Where that ends nobody knows: there may be quotes in it, and what a destination said was cut.
pub(super) fn without_quotes(words: &str) -> String {
    let ends = [words.find(PREVIEW), first_quote(words), first_bracket(words), after_number(words)];
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
fn after_number(words: &str) -> Option<usize> {
    let ends = NUMBERS.iter().flat_map(|(before, least, most, behind)| {
        words.match_indices(*before).filter_map(move |(at, before)| {
            let at = at + before.len();
            let digits = words.get(at..)?.bytes().take_while(u8::is_ascii_digit).count();
            let rest = words.get(at + digits..)?;
            let is_number = (*least..=*most).contains(&digits) && rest.starts_with(*behind);
            (is_number && !rest.is_empty()).then_some(at + digits)
        })
    });
    ends.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hec::answer::{Outcome, outcome};
    use crate::http::Answered;
    use proptest::prelude::*;
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

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
            ("HTTP 1.1 isn't spoken", "HTTP 1.1 isn't spoken"),
            ("HTTP 1.1 gave HTTP 503: mysql -pS3cret", "HTTP 1.1 gave HTTP 503…"),
            ("code 6: Invalid event: mysql -pS3cret", "code 6…"),
            ("see the code and index: code 7: mysql -pS3cret", "see the code and index: code 7…"),
            ("it ended with code 3 at once", "it ended with code 3 at once"),
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

    #[test]
    fn what_a_collector_says_of_an_event_stays_between_it_and_us() {
        for body in [
            r#"{"text":"Invalid event: mysql -pS3cret","code":6,"invalid-event-number":0}"#,
            r#"{"text":"Incorrect index: mysql -pS3cret","code":7}"#,
            r#"{"text":"Server is busy with mysql -pS3cret","code":9}"#,
            r#"{"text":"Who knows mysql -pS3cret","code":8}"#,
            "mysql -pS3cret",
        ] {
            let status = StatusCode::from_u16(503).unwrap();
            let answered = Answered { status, headers: HeaderMap::new(), body: body.into() };
            let reason = match outcome(&answered) {
                Ok(Outcome::Invalid { reason, .. }) => reason,
                Ok(Outcome::Taken(_)) => panic!("it isn't taken: {body}"),
                Err(trouble) => trouble.to_string(),
            };
            assert!(reason.contains("S3cret"), "the dead letter has it: {reason}");
            let left = without_quotes(&reason);
            assert!(left.ends_with('…') && !left.contains("S3cret"), "{left}");
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
