use super::*;
use crate::event::TYPES;
use crate::event::decision::Made;
use proptest::prelude::*;

/// What both readings say of the bytes: the same, whether it is an event or not.
fn assert_alike(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (whole, view) = (Event::parse(bytes), EventView::parse(bytes));
    let (whole, view, data) = match (whole, view) {
        (Ok(whole), Ok((view, data))) => (whole, view, data),
        (Err(_), Err(_)) => return,
        (whole, view) => panic!("{:?} and {:?}: {text}", whole.err(), view.err()),
    };
    assert_eq!(
        (view.id, view.cause, view.session, &*view.kind, view.version),
        (whole.id, whole.cause, whole.session, whole.kind.as_str(), whole.version),
        "{text}"
    );
    let (seen, made) = (&view.producer, &whole.producer);
    assert_eq!((seen.boot, &*seen.id, seen.kind, seen.seq), (made.boot, &*made.id, made.kind, made.seq));
    assert_eq!(view.data, whole.data.get());
    assert_eq!(
        view.target.map(|target| target.name.into_owned()),
        whole.target.clone().map(|target| target.name)
    );
    match (data, whole.payload()) {
        (DataView::Decision(seen), Payload::DecisionMade(made)) => {
            let Made { action, allowed, context, resource, .. } = made;
            assert_eq!((&*seen.action, seen.allowed, &*seen.resource), (&*action, allowed, &*resource));
            assert_eq!(seen.circumstances(), Circumstances::from_context(&context.0), "{text}");
        }
        (DataView::Other(seen), made) => assert_eq!(format!("{seen:?}"), format!("{made:?}"), "{text}"),
        (DataView::Decision(_), made) => panic!("{made:?}: {text}"),
    }
}

fn examples() -> Vec<String> {
    TYPES.iter().map(|info| String::from_utf8((info.example)().unwrap()).unwrap()).collect()
}

#[test]
fn every_example_reads_alike_and_is_an_event() {
    for text in examples() {
        assert!(canonical::read(text.as_bytes()).is_some(), "it takes the slow way: {text}");
        assert_alike(text.as_bytes());
    }
}

/// Values that stand where others should: each of them in the place of each field, at any depth.
const ODD: [&str; 26] = [
    "[null,\"l\",true,[],\"u\"]",
    "[null,\"l\",true,[],\"s\",\"u\"]",
    "[5,true,\"::1\",7]",
    "[5,true,\"::1\",7,8]",
    "null",
    "true",
    "0",
    "-1",
    "1.0",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"x\"",
    "\"\\u0041\"",
    "\"\\ud800\"",
    "[]",
    "[1]",
    "[\"x\"]",
    "{}",
    "{\"system\":\"x\"}",
    "{\"system\":\"x\",\"user\":5}",
    "{\"system\":\"x\",\"system\":\"x\"}",
    "{\"system\":\"x\",\"odd\":1e999}",
    "{\"name\":\"n\",\"kind\":\"k\",\"login\":null}",
    "{\"address\":\"a\",\"port\":65536}",
];

/// Where values begin and end in a text of JSON: found by trying.
fn values(text: &str) -> Vec<(usize, usize)> {
    let starts = text.match_indices([':', ',', '[']).map(|(at, _)| at + 1);
    let value = |start: usize| {
        let mut values =
            serde_json::Deserializer::from_str(text.get(start..)?).into_iter::<serde_json::Value>();
        values.next()?.ok()?;
        Some((start, start + values.byte_offset()))
    };
    starts.filter_map(value).collect()
}

#[test]
fn odd_values_in_every_place_read_alike() {
    for text in examples() {
        for (start, end) in values(&text) {
            for odd in ODD {
                assert_alike(format!("{}{odd}{}", &text[..start], &text[end..]).as_bytes());
            }
        }
    }
}

#[test]
fn fields_that_are_twice_there_or_missing_read_alike() {
    for text in examples() {
        for field in
            ["actor", "cause", "data", "id", "outcome", "producer", "session", "source", "target", "time"]
        {
            let key = format!("\"{field}\":");
            assert_alike(text.replacen(&key, "\"other\":", 1).as_bytes());
            for value in ["null", "5", "{\"system\":\"x\"}"] {
                assert_alike(text.replacen('{', &format!("{{{key}{value},"), 1).as_bytes());
            }
        }
    }
}

#[test]
fn an_event_as_a_list_of_its_fields_reads_alike() {
    for text in examples() {
        let fields: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names =
            ["actor", "cause", "data", "id", "outcome", "producer", "session", "source", "target", "time"];
        let listed: Vec<_> = names.into_iter().chain(["type", "version"]).map(|name| &fields[name]).collect();
        for length in [listed.len(), listed.len() - 1] {
            assert_alike(serde_json::to_string(&listed[..length]).unwrap().as_bytes());
        }
    }
}

#[test]
fn times_read_alike() {
    let text = examples().remove(0);
    let event = Event::parse(text.as_bytes()).unwrap();
    let written = event.time.to_string();
    for time in [
        "1969-12-31T23:59:59.999999999Z",
        "1970-01-01T00:00:00.000000000Z",
        "2024-02-29T00:00:00.000000000Z",
        "2023-02-29T00:00:00.000000000Z",
        "2023-02-28T24:00:00.000000000Z",
        "2023-02-28T23:60:00.000000000Z",
        "2023-02-28T23:59:60.000000000Z",
        "2023-13-01T00:00:00.000000000Z",
        "2023-00-10T00:00:00.000000000Z",
        "2023-10-00T00:00:00.000000000Z",
        "2553-12-28T00:00:00.000000000Z",
        "2554-07-21T23:34:33.709551616Z",
        "2554-07-21T23:34:33.709551615Z",
        "9999-01-01T00:00:00.000000000Z",
        "2023-02-28T23:59:00Z",
        "2023-02-28T23:59:00.5+01:00",
        "2023-02-28 23:59:00.000000000Z",
        "yesterday",
    ] {
        assert_alike(text.replace(&written, time).as_bytes());
    }
}

#[test]
fn contexts_read_alike() {
    let text = examples().into_iter().find(|text| text.contains("decision.made")).unwrap();
    let start = text.find("\"context\":").unwrap() + 10;
    let (_, end) = values(&text).into_iter().find(|(at, _)| *at == start).unwrap();
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let good = r#""certificate_seconds":5,"mfa":true,"source":"::1","time":7"#;
    let contexts = [
        format!("{{{good}}}"),
        format!("{{{good},\"mfa\":false}}"),
        format!("{{{good},\"mfa\":\"x\"}}"),
        format!("{{{good},\"x\":1e999}}"),
        format!("{{{good},\"x\":{{\"time\":9,\"y\":[{{\"mfa\":false}}]}}}}"),
        format!("{{{good},\"time\":-7}}"),
        format!("{{{good},\"time\":7.0}}"),
        format!("{{{good},\"source\":\"1.2.3.4\"}}"),
        format!("{{{good},\"source\":\"1.2.3\"}}"),
        format!("{{{good},\"s\\u006furce\":\"::2\"}}"),
        format!("{{{good},\"x\":{}}}", deep(120)),
        format!("{{{good},\"x\":{}}}", deep(124)),
        format!("{{{good},\"x\":{}}}", deep(125)),
        format!("{{{good},\"x\":{}}}", deep(126)),
        format!("{{{good},\"x\":{}}}", deep(127)),
        format!("{{{good},\"x\":{}}}", deep(200)),
        "[5,true,\"::1\",7]".to_owned(),
    ];
    for context in contexts {
        assert_alike(format!("{}{context}{}", &text[..start], &text[end..]).as_bytes());
    }
}

proptest! {
    #[test]
    fn damaged_events_read_alike(which in 0..TYPES.len(), cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = (TYPES[which].example)().unwrap();
        for (at, with) in cuts {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        assert_alike(&bytes);
    }
}
