//! Events, answers and what a search shows: tests/sinks has a collector that is played after the documentation.

use super::*;
use crate::testing::answering;
use bytes::Bytes;
use custody_core::event::TYPES;
use custody_core::log::Entry;
use proptest::prelude::*;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

const ORIGIN: &str = "custody.test/log";

fn settings() -> Settings {
    Settings {
        endpoint: Endpoint { url: "http://127.0.0.1:1".into(), ca: None, auth: None },
        acknowledged: true,
        acknowledge_seconds: 60,
        index: Some("audit".into()),
        source: source(),
        sourcetype: sourcetype(),
        host: None,
        format: Format::Custody,
        search: None,
        shown_seconds: 30,
    }
}

fn item(index: u64, bytes: &[u8]) -> Item {
    let appended = Nanos(1_764_000_000_000_456_789 + index);
    Item::new(Entry { index, appended, tag: 1, bytes: Bytes::copy_from_slice(bytes) })
}

fn encoded(index: u64, bytes: &[u8]) -> Value {
    encoded_as(Format::Custody, &item(index, bytes))
}

fn encoded_as(format: Format, item: &Item) -> Value {
    let settings = Settings { format, ..settings() };
    let hec = Hec::new(settings, Secrets::new(std::path::Path::new("/nowhere")), ORIGIN);
    let encoded = hec.encode(item).unwrap().event;
    assert!(
        encoded.ends_with(b"\n") && str::from_utf8(&encoded).unwrap().contains("\"time\":1764000000.00045")
    );
    serde_json::from_slice(&encoded).unwrap()
}

fn answered(status: u16, body: &str) -> crate::http::Answered {
    crate::http::Answered {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: body.as_bytes().to_vec(),
    }
}

#[test]
fn every_type_of_event_stands_there_byte_by_byte() {
    for (index, info) in (0..).zip(TYPES) {
        let bytes = (info.example)().unwrap();
        let event = encoded(index, &bytes);
        assert_eq!(event["event"].as_str().unwrap().as_bytes(), bytes);
        assert_eq!(event["fields"]["log_index"], index.to_string());
        assert_eq!(event["fields"]["log_type"], info.name);
        assert_eq!((&event["index"], &event["host"]), (&"audit".into(), &ORIGIN.into()));
    }
}

/// Splunk reads the event's own fields too: of a name that is there twice it has two values, and counts both.
#[test]
fn no_field_has_the_name_of_one_of_the_events() {
    for format in [Format::Custody, Format::Ecs, Format::Ocsf] {
        for info in TYPES {
            let redacted = item(7, b"{}").redacted_to((info.example)().unwrap().into());
            let sent = encoded_as(format, &redacted);
            let own: Value = serde_json::from_str(sent["event"].as_str().unwrap()).unwrap();
            let own = own.as_object().unwrap();
            let fields = sent["fields"].as_object().unwrap();
            assert!(fields.len() == 6 && own.len() > 6, "{sent}");
            assert!(!fields.keys().any(|name| own.contains_key(name)), "{format:?}: {sent}");
        }
    }
}

/// The bytes of what was redacted don't give the leaf hash beside them: whoever checks that has to know why.
#[test]
fn what_was_redacted_says_so_and_nothing_else_does() {
    let whole = item(7, &(TYPES[0].example)().unwrap());
    assert_eq!(encoded_as(Format::Custody, &whole)["fields"].get("redacted"), None);
    let redacted = whole.redacted_to(Bytes::from_static(b"{}"));
    assert_eq!(encoded_as(Format::Custody, &redacted)["fields"]["redacted"], "true");
}

#[test]
fn what_a_collector_says_means() {
    let of = |status, code: u64| {
        answer::outcome(&answered(status, &format!("{{\"text\":\"so\\nwhat\",\"code\":{code}}}")))
    };
    assert_eq!(of(200, 0), Ok(Outcome::Taken(None)));
    let taken = answer::outcome(&answered(200, r#"{"text":"Success","code":0,"ackId":7}"#));
    assert_eq!(taken, Ok(Outcome::Taken(Some(7))));
    let invalid = answer::outcome(&answered(400, r#"{"text":"x","code":6,"invalid-event-number":3}"#));
    assert!(matches!(invalid, Ok(Outcome::Invalid { event: Some(3), .. })));
    for (status, code) in [(403, 1), (401, 2), (401, 3), (403, 4), (400, 7), (400, 10), (400, 11), (400, 14)]
    {
        let trouble = of(status, code).unwrap_err();
        assert!(
            matches!(&trouble, Trouble::Denied { reason } if reason.ends_with(&format!("code {code}: so what"))),
            "{code}: {trouble}"
        );
    }
    for code in [9, 18, 23] {
        assert!(matches!(of(503, code), Err(Trouble::Refused { .. })), "{code}");
    }
    // Near what it can hold it says so of what it has taken: sent again it would be there twice, and the next time thrice.
    for code in [24, 25] {
        let body = format!(r#"{{"text":"HEC is approaching queue capacity","code":{code},"ackId":7}}"#);
        assert_eq!(answer::outcome(&answered(200, &body)), Ok(Outcome::Taken(Some(7))));
        assert!(matches!(of(429, code), Err(Trouble::Refused { .. })), "{code}");
    }
    assert!(matches!(of(200, 9), Err(Trouble::Unclear { .. })), "who knows");
    assert!(matches!(of(413, 26), Err(Trouble::TooLarge { .. })), "whatever else it says");
    let part =
        answer::outcome(&answered(503, r#"{"text":"Server is busy","code":9,"invalid-event-number":10}"#));
    assert!(part.unwrap_err().leaves_doubt(), "the first ten are taken");
    let none =
        answer::outcome(&answered(503, r#"{"text":"Server is busy","code":9,"invalid-event-number":0}"#));
    assert!(!none.unwrap_err().leaves_doubt());
    assert!(matches!(of(500, 8), Err(Trouble::Unclear { .. })));
    assert!(matches!(answer::outcome(&answered(413, "too long")), Err(Trouble::TooLarge { .. })));
    assert!(matches!(answer::outcome(&answered(200, "<html>")), Err(Trouble::Unclear { .. })));
    assert!(matches!(answer::outcome(&answered(502, "<html>")), Err(Trouble::Unclear { .. })));
}

#[test]
fn an_acknowledgement_is_yes_or_not_yet_or_unsaid_or_unknown() {
    let of = |status, body: &str| answer::acknowledged(Ok(answered(status, body)), 5);
    assert_eq!(of(200, r#"{"acks":{"5":true}}"#), Ok(Acknowledged::Yes));
    assert_eq!(of(200, r#"{"acks":{"5":false}}"#), Ok(Acknowledged::NotYet));
    for (status, body) in [(200, r#"{"acks":{"4":true}}"#), (200, "{}"), (200, "<html>")] {
        assert!(matches!(of(status, body), Err(Trouble::Unclear { .. })), "{status} {body}");
    }
    // It is asked again where no answer can have been lost.
    for (status, body) in [
        (429, ""),
        (502, "<html>"),
        (503, r#"{"text":"Server is busy","code":9}"#),
        (403, r#"{"text":"Invalid token","code":4}"#),
        (400, r#"{"text":"ACK is disabled","code":14}"#),
    ] {
        assert!(matches!(of(status, body), Ok(Acknowledged::Unsaid { .. })), "{status} {body}");
    }
    let mut busy = answered(503, "busy");
    busy.headers.insert("retry-after", "7".parse().unwrap());
    let retry_after = Some(Duration::from_secs(7));
    let reason = "HTTP 503: busy".to_owned();
    assert_eq!(answer::acknowledged(Ok(busy), 5), Ok(Acknowledged::Unsaid { reason, retry_after }));
    let reason = || "connection refused".to_owned();
    let refused = Trouble::Refused { reason: reason(), retry_after: None };
    let unsaid = Acknowledged::Unsaid { reason: reason(), retry_after: None };
    assert_eq!(answer::acknowledged(Err(refused), 5), Ok(unsaid));
    for lost in [Trouble::unclear("it broke"), Trouble::Late { reason: reason(), in_doubt: true }] {
        let trouble = answer::acknowledged(Err(lost), 5).unwrap_err();
        assert!(matches!(trouble, Trouble::Unclear { .. }), "{trouble}");
    }
}

#[test]
fn whether_a_token_has_acknowledgement_is_known_before_anything_is_sent() {
    let of = |status, body: &str| answer::acknowledges(&answered(status, body));
    assert_eq!(of(200, r#"{"acks":{}}"#), Ok(()));
    assert_eq!(of(400, r#"{"text":"No data","code":5}"#), Ok(()), "it says nothing against the token");
    let denied = of(400, r#"{"text":"ACK is disabled","code":14}"#).unwrap_err();
    assert!(
        matches!(&denied, Trouble::Denied { reason } if reason.contains("acknowledged = false")),
        "{denied}"
    );
    assert!(matches!(of(403, r#"{"text":"Invalid token","code":4}"#), Err(Trouble::Denied { .. })));
    assert!(matches!(of(503, r#"{"text":"busy","code":9}"#), Err(Trouble::Refused { .. })));
    assert!(matches!(of(404, "<html>"), Err(Trouble::Denied { .. })));
}

#[test]
fn a_channel_is_used_again_only_when_nothing_is_open_in_it() {
    let hec = Hec::new(settings(), Secrets::new(std::path::Path::new("/nowhere")), ORIGIN);
    let (first, second) = (hec.channel(), hec.channel());
    assert_ne!(first, second, "one for each batch under way");
    hec.give_back(first.clone());
    assert_eq!(hec.channel(), first);
    assert!(![first, second].contains(&hec.channel()), "what became of the second isn't known");
}

#[test]
fn a_batch_whose_answer_nobody_waited_for_may_be_there_and_one_that_was_refused_is_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let of = |port: u16, patience: Duration| {
        let endpoint = Endpoint { url: format!("http://127.0.0.1:{port}"), ca: None, auth: None };
        let secrets = Secrets::new(std::path::Path::new("/nowhere"));
        let hec = Hec::new(Settings { endpoint, ..settings() }, secrets, ORIGIN);
        // Then nothing counts any more that a former life may have sent.
        let later = Instant::now() + Duration::from_secs(settings().shown_seconds);
        let encoded = Encoded { index: 7, event: b"{}".to_vec() };
        let sent =
            runtime.block_on(async { tokio::time::timeout(patience, hec.send(&[&encoded])).await.ok() });
        (sent, hec.sent.hides(&(7..8), later), hec.sent.hides(&(8..9), later))
    };
    assert_eq!(of(silent.local_addr().unwrap().port(), Duration::ZERO), (None, true, false));
    let (sent, hidden, _) = of(closed, Duration::from_secs(30));
    assert!(matches!(sent, Some(Err(Trouble::Refused { .. }))), "{sent:?}");
    assert!(!hidden, "it never got there");
}

#[test]
fn an_answer_of_a_search_that_is_not_whole_is_none() {
    let window = Window { indexes: 5..9, appended: Nanos(1_000_000_000)..Nanos(3_000_000_000) };
    let row = r#"{"preview":false,"offset":0,"result":{"_time":"2.000000","_raw":"{}","log_index":"5","log_origin":"custody.test/log","log_appended":"1970-01-01T00:00:02.000000400Z"}}"#;
    let other = r#"{"preview":false,"result":{"_time":"2.5","_raw":"x","log_origin":"another"}}"#;
    let edge = r#"{"preview":false,"result":{"_time":"1970-01-01T00:00:03.500+00:00","log_index":"9","log_origin":"custody.test/log"}}"#;
    let nobodys = r#"{"preview":false,"result":{"_time":"2.5","_raw":"y"}}"#;
    let last = r#"{"preview":false,"lastrow":true}"#;
    let of = |lines: &[&str]| search::documents(lines.join("\n").as_bytes(), &window, ORIGIN);
    let held = of(&[row, other, edge, nobodys, last]).unwrap();
    assert_eq!(held.iter().map(|held| held.index).collect::<Vec<_>>(), [Some(5), None]);
    assert_eq!(
        (held[0].appended, held[0].original.as_deref()),
        (Some(Nanos(2_000_000_400)), Some(&b"{}"[..]))
    );
    // What a stranger's event says of a field twice, it doesn't say; and the rest can be read all the same.
    for (name, twice) in [
        (r#""log_index":"5""#, r#""log_index":["5","6"]"#),
        (r#""log_origin":"custody.test/log""#, r#""log_origin":["custody.test/log","another"]"#),
    ] {
        let held = of(&[row, &row.replace(name, twice), last]).unwrap();
        assert_eq!(held.iter().map(|held| held.index).collect::<Vec<_>>(), [Some(5), None], "{name}");
    }
    assert!(of(&[row]).is_err(), "no last row");
    assert!(of(&[row, &last[..10]]).is_err());
    assert!(of(&[r#"{"messages":[{"type":"FATAL","text":"no"}]}"#, last]).unwrap_err().contains("FATAL no"));
    assert!(of(&[&row.replace("false", "true"), last]).is_err());
}

#[test]
fn more_than_one_answer_of_a_search_holds_is_too_much() {
    let search = Some(Endpoint { url: answering(|_| None), ca: None, auth: None });
    let secrets = Secrets::new(std::path::Path::new("/nowhere"));
    let hec = Hec::new(Settings { search, ..settings() }, secrets, ORIGIN);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let window = Window { indexes: 0..0, appended: Nanos(1_000_000_000)..Nanos(3_000_000_000) };
    let unproven = runtime.block_on(hec.read_back(&window)).unwrap_err();
    assert!(matches!(unproven, Unproven::TooMuch(_)), "{unproven}");
}

#[test]
fn a_question_is_a_form() {
    let window = Window { indexes: 0..1, appended: Nanos(7_500_000_000)..Nanos(u64::MAX) };
    let form = String::from_utf8(search::form(&window, "audit", "custody:event", "a\"b")).unwrap();
    let url = reqwest::Url::parse(&format!("http://x/?{form}")).unwrap();
    let fields: std::collections::BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    assert!(fields["search"].starts_with("search index=\"audit\" sourcetype=\"custody:event\""));
    assert!(fields["search"].contains(r#"log_origin="a\"b""#));
    assert_eq!((fields["earliest_time"].as_str(), fields["latest_time"].as_str()), ("6", "2147483647"));
}

#[test]
fn what_a_configuration_may_not_say() {
    assert!(settings().check().is_ok());
    let search = Some(settings().endpoint);
    for (wrong, says) in [
        (Settings { index: Some("a b".into()), ..settings() }, "index"),
        (Settings { acknowledge_seconds: 0, ..settings() }, "acknowledge_seconds"),
        (Settings { index: None, search: search.clone(), ..settings() }, "set index"),
        (Settings { format: Format::Ecs, search, ..settings() }, "custody"),
    ] {
        let error = wrong.check().unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    #[test]
    fn whatever_an_entry_holds_it_is_an_event_of_one_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let event = encoded(0, &bytes);
        let text = event["event"].as_str().unwrap();
        prop_assert!(!text.trim().is_empty());
        let held = if event["fields"]["encoding"] == "base64" {
            STANDARD.decode(text.strip_prefix("base64:").unwrap()).unwrap()
        } else {
            text.as_bytes().to_vec()
        };
        prop_assert_eq!(held, bytes);
    }
}
