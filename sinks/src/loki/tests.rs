//! What goes to Loki and what comes back, without Loki: tests/sinks has the real one.

use super::push::VALUE_BYTES_MAX;
use super::*;
use crate::testing::answering;
use bytes::Bytes;
use custody_core::clock::SystemClock;
use custody_core::event::{Outcome, TYPES};
use custody_core::log;
use loki_api::logproto::PushRequest;
use loki_api::prost::Message as _;
use loki_api::prost::encoding::{WireType, decode_key, decode_varint};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn loki() -> Loki {
    loki_at("http://127.0.0.1:1".into())
}

fn loki_at(url: String) -> Loki {
    let endpoint = Endpoint { url, ca: None, auth: None };
    let settings = Settings { endpoint, tenant: None, job: "custody".into(), sends_old_again: false };
    Loki::new(
        settings,
        Secrets::new(std::path::Path::new("/nowhere")),
        "custody.test/log",
        Arc::new(SystemClock),
    )
}

fn item(index: u64, tag: u8, bytes: &[u8]) -> Item {
    Item::new(log::Entry {
        index,
        appended: Nanos(1_764_000_000_123_456_789 + index),
        tag,
        bytes: Bytes::copy_from_slice(bytes),
    })
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

fn decoded(body: &[u8]) -> PushRequest {
    PushRequest::decode(unpacked(body).as_slice()).unwrap()
}

/// The metadata of a request's first entry, which `loki-api` has no field for: field 3, of a name and a value each.
fn pairs_of(body: &[u8]) -> BTreeMap<String, String> {
    let request = unpacked(body);
    let (_, mut stream) = next_field(&mut request.as_slice()).unwrap();
    let mut entry = iter::from_fn(|| next_field(&mut stream)).find(|(field, _)| *field == 2).unwrap().1;
    let mut pairs = BTreeMap::new();
    while let Some((field, bytes)) = next_field(&mut entry) {
        if field == 3 {
            let mut pair = bytes;
            let mut text = || String::from_utf8(next_field(&mut pair).unwrap().1.to_vec()).unwrap();
            pairs.insert(text(), text());
        }
    }
    pairs
}

/// The request of one entry.
fn packed(line: &str, describe: impl FnOnce(&mut Entry)) -> Vec<u8> {
    let mut packer = Packer::new();
    packer.add(Stream::live(None), || "{a=\"b\"}".into(), (Nanos(7), line.as_bytes()), describe);
    packer.finish().remove(0).unwrap()
}

/// A field of protobuf that has a length: its number, and what it holds.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    if bytes.is_empty() {
        return None;
    }
    let (field, kind) = decode_key(bytes).unwrap();
    assert_eq!(kind, WireType::LengthDelimited);
    let length = usize::try_from(decode_varint(bytes).unwrap()).unwrap();
    let (held, rest) = bytes.split_at(length);
    *bytes = rest;
    Some((field, held))
}

#[test]
fn every_type_of_event_goes_into_one_of_few_streams() {
    let loki = loki();
    let sent = |item: &Item| {
        let encoded = loki.encode(item).unwrap();
        decoded(loki.packed(&[&encoded], false)[0].as_ref().unwrap())
    };
    let mut labels = BTreeSet::new();
    for (index, info) in (0..).zip(TYPES) {
        let bytes = (info.example)().unwrap();
        let request = sent(&item(index, info.family.tag(), &bytes));
        let [stream] = request.streams.as_slice() else { panic!("{request:?}") };
        let entry = &stream.entries[0];
        assert_eq!(entry.line.as_bytes(), bytes);
        assert_eq!(entry.timestamp.as_ref().unwrap().nanos as u64, 123_456_789 + index);
        labels.insert(stream.labels.clone());
    }
    // A stream or two for each family.
    assert!(labels.len() <= 24, "{labels:?}");
    let stranger = br#"{"type":"galaxy.formed"}"#;
    assert!(sent(&item(1, 99, stranger)).streams[0].labels.contains("family=\"other\""));
}

fn answered(status: u16, body: &str) -> Result<Answered, Trouble> {
    let status = StatusCode::from_u16(status).unwrap();
    Ok(Answered { status, headers: Default::default(), body: body.as_bytes().to_vec() })
}

#[test]
fn a_batch_is_stored_when_each_of_its_streams_is() {
    let stored = || answered(204, "");
    assert_eq!(outcome(vec![stored(), stored()]), Ok(()));
    for refused in [answered(429, "limit"), answered(500, "x"), answered(401, ""), answered(260, "blocked")] {
        let trouble = outcome(vec![stored(), refused, stored()]).unwrap_err();
        assert!(trouble.leaves_doubt(), "the others are stored: {trouble}");
    }
    let page = outcome(vec![answered(200, "<html>log in</html>")]).unwrap_err();
    assert!(
        matches!(&page, Trouble::Denied { reason } if reason.contains("log in")),
        "Loki has no page to show: {page}"
    );
    assert_eq!(outcome(vec![answered(200, "")]), Ok(()), "as it was before version 2");
    let nobody = || Err(Trouble::Refused { reason: "no connection".into(), retry_after: None });
    assert!(!outcome(vec![nobody(), nobody()]).unwrap_err().leaves_doubt());
    assert!(outcome(vec![nobody(), stored()]).unwrap_err().leaves_doubt());
    let large = || answered(413, "");
    assert!(matches!(outcome(vec![large()]), Err(Trouble::TooLarge { .. })));
    assert!(matches!(outcome(vec![large(), stored()]), Err(Trouble::Poisoned { .. })));
    // As Loki's parts say it to each other (gRPC), and it to us.
    for way in ["received message larger than max", "trying to send message larger than max"] {
        let text = format!("rpc error: code = ResourceExhausted desc = grpc: {way} (5242880 vs. 4194304)");
        let larger = || answered(500, &text);
        assert!(matches!(outcome(vec![larger()]), Err(Trouble::TooLarge { .. })));
        assert!(matches!(outcome(vec![larger(), stored()]), Err(Trouble::Poisoned { .. })));
    }
    assert!(outcome(vec![answered(429, "lines of it may fit")]).unwrap_err().leaves_doubt());
    let long =
        "Max entry size '1024' bytes exceeded for stream '{}' while adding an entry with length '2048' bytes";
    assert!(matches!(outcome(vec![answered(400, long)]), Err(Trouble::Poisoned { .. })));
    for (outside, advice) in [
        ("entry for stream '{}' has timestamp too old: 2025-01-01T00:00:00Z", "reject_old_samples: false"),
        ("entry for stream '{}' has timestamp too new: 2099-01-01T00:00:00Z", "clock"),
    ] {
        let trouble = outcome(vec![answered(400, outside)]).unwrap_err();
        assert!(
            matches!(&trouble, Trouble::Unclear { reason, .. } if reason.contains(advice)),
            "{trouble:?}"
        );
    }
    for (status, configured) in [
        (400, "stream '{}' includes structured metadata, but this feature is disallowed. Please see"),
        (400, "stream '{}' has too many structured metadata labels: '12', limit: '5'. Please see"),
        (400, "stream '{}' has label value too long: 'custody'"),
        (400, "stream '{}' has label name too long: 'producer'"),
        (400, "ingestion blocked for user 'acme' until '2099-01-01T00:00:00Z' with status code '400'"),
        (409, "ingestion blocked for user 'acme' until '2099-01-01T00:00:00Z' with status code '409'"),
        (422, "ingestion blocked for user 'acme' (policy: 'x') until '2099-01-01T00:00:00Z'"),
    ] {
        let trouble = outcome(vec![answered(status, configured)]);
        assert!(matches!(trouble, Err(Trouble::Unclear { .. })), "no event's fault: {trouble:?}");
    }
}

#[test]
fn lines_are_sent_for_one_tenant() {
    let settings = |tenant: &str| {
        let endpoint = Endpoint { url: "http://127.0.0.1:1".into(), ca: None, auth: None };
        Settings { endpoint, tenant: Some(tenant.into()), job: job(), sends_old_again: false }.check()
    };
    assert_eq!(settings("acme"), Ok(()));
    assert!(settings("acme|others").unwrap_err().contains("names several"));
}

#[test]
fn counts_are_read_or_refused() {
    let counts = |result: &str, more: &str| {
        let answer =
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}{more}}}"#);
        parse_counts(answer.as_bytes())
    };
    let one = r#"{"metric":{"log_index":"7"},"value":[1764000000.5,"2"]}"#;
    assert_eq!(counts(one, "").unwrap(), BTreeMap::from([("7".to_owned(), 2)]));
    assert_eq!(counts(r#"{"metric":{},"value":[1,"9"]}"#, "").unwrap().values().sum::<usize>(), 9);
    assert!(counts("", "").unwrap().is_empty());
    assert!(counts(one, r#","warnings":["partial"]"#).is_err());
    assert!(counts(r#"{"metric":{},"value":[1,"NaN"]}"#, "").is_err());
    assert!(parse_counts(b"{}").is_err());
}

#[test]
fn what_is_old_has_a_stream_for_each_hour() {
    let stream = Stream::backfill(Nanos(1_764_000_000_123_456_789), HOUR);
    assert_eq!(stream.labels("custody"), r#"{hour="2025-11-24T16", job="custody", origin="backfill"}"#);
}

/// Where Loki takes only what lies less far behind, an hour has several.
#[test]
fn no_line_lies_farther_behind_another_of_its_stream_than_loki_takes_it() {
    let (begins, minute) = (1_764_000_000_000_000_000, 60_000_000_000);
    let hour = |minutes: u64, behind: u64| {
        let stream = Stream::backfill(Nanos(begins + minutes * minute), Duration::from_secs(behind * 60));
        stream.labels("custody").split('"').nth(1).unwrap().to_owned()
    };
    assert_eq!((hour(29, 30), hour(30, 30)), ("2025-11-24T16:00".into(), "2025-11-24T16:30".into()));
    assert_eq!((hour(44, 20), hour(45, 20)), ("2025-11-24T16:30".into(), "2025-11-24T16:45".into()));
    assert_eq!(hour(59, 0), "2025-11-24T16:59");
}

#[test]
fn a_young_log_is_not_taken_for_one_that_is_as_old_as_what_is_looked_through_before_it() {
    let loki = loki();
    let held = |index, appended| Held { index, appended: Some(appended), ..Held::default() };
    let (begun, day) = (Nanos(1_764_000_000_000_000_000), 86_400_000_000_000);
    let end = begun.saturating_add(Duration::from_secs(60));
    let first = Window { indexes: 0..60, appended: Nanos(0)..end };
    let others = [held(Some(1), end), held(None, Nanos(end.0 - day))];
    assert_eq!(loki.since(&first, &others), Nanos(end.0 - 30 * day), "its first event doesn't show");
    let all = [held(Some(0), begun), others[0].clone(), others[1].clone()];
    assert_eq!(loki.since(&first, &all), begun);
    let second = Window { indexes: 60..90, appended: end..Nanos(u64::MAX) };
    assert_eq!(loki.since(&second, &all), end);
}

#[test]
fn long_values_are_cut_at_a_character_and_empty_ones_left_out() {
    let bytes = (TYPES[0].example)().unwrap();
    let pairs = |origin: &str| {
        let first = item(0, 1, &bytes);
        pairs_of(&packed("line", |entry| describe(&first, first.head().as_ref(), origin, entry)))
    };
    let cut = pairs(&format!("a{}", "é".repeat(2_000)));
    assert_eq!(cut["log_origin"].len(), VALUE_BYTES_MAX - 1);
    assert!(!cut.contains_key("log_redacted"));
    let without = pairs("");
    assert!(!without.contains_key("log_origin") && without.values().all(|value| !value.is_empty()));
}

#[test]
fn what_was_taken_out_of_is_marked() {
    let redacted = item(0, 1, b"{}").redacted_to(Bytes::from_static(b"{}"));
    let body = packed("{}", |entry| describe(&redacted, None, "custody.test/log", entry));
    assert_eq!(pairs_of(&body)["log_redacted"], "true");
}

#[test]
fn an_answer_that_is_not_whole_is_none() {
    let answer = |more: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"streams","result":[{{"stream":{{}},"values":[
                ["5","{{}}",{{"structuredMetadata":{{"log_index":"3","log_origin":"custody.test/log"}}}}],
                ["6","x",{{}}],["7","y",{{"structuredMetadata":{{"log_origin":"other"}}}}],["8","z"]]}}]}}{more}}}"#
        )
    };
    let page = parse(answer("").as_bytes()).unwrap();
    let held: Vec<Held> = page.lines.into_iter().filter_map(|line| line.held("custody.test/log")).collect();
    assert_eq!(held.iter().map(|held| held.index).collect::<Vec<_>>(), [Some(3), None, None]);
    assert_eq!(held[0].appended, Some(Nanos(5)));
    assert!(parse(answer(r#","warnings":["partial"]"#).as_bytes()).is_err());
    assert!(parse(b"{}").is_err());
    assert!(parse(br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#).is_err());
}

#[test]
fn more_than_one_page_holds_is_too_much() {
    let loki = loki_at(answering(|path| if path.contains("/query_range?") { None } else { Some("") }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Nanos(1_764_000_000_000_000_000);
    let window = Window { indexes: 0..0, appended: begun..begun.saturating_add(HOUR) };
    let unproven = runtime.block_on(loki.read_back(&window)).unwrap_err();
    assert!(matches!(unproven, Unproven::TooMuch(_)), "{unproven}");
}

/// A proxy may leave out the header by which we ask for metadata apart from labels.
#[test]
fn metadata_among_the_labels_is_read_as_well() {
    let answer = br#"{"status":"success","data":{"resultType":"streams","result":[
        {"stream":{"job":"custody","log_index":"3","log_origin":"custody.test/log"},"values":[["5","{}"]]},
        {"stream":{"job":"custody","log_index":"4","log_origin":"another.log"},"values":[["6","{}"]]},
        {"stream":{"job":"custody"},"values":[["7","{}",{"structuredMetadata":{"log_index":"5","log_origin":"custody.test/log"}}]]}]}}"#;
    let held: Vec<Held> =
        parse(answer).unwrap().lines.into_iter().filter_map(|line| line.held("custody.test/log")).collect();
    assert_eq!(held.iter().map(|held| held.index).collect::<Vec<_>>(), [Some(3), Some(5)]);
}

proptest! {
    #[test]
    fn each_entry_is_in_its_streams_request_in_order(
        entries in prop::collection::vec((0..4_usize, ".{0,40}"), 1..60), more in prop::collection::vec((0..4_usize, ".{0,40}"), 1..9)
    ) {
        let success = Stream::Live { family: None, outcome: Some(Outcome::Success), producer: None };
        let backfill = |hour: u64| Stream::backfill(Nanos(hour * 3_600_000_000_000), HOUR);
        let streams = [Stream::live(None), success, backfill(1), backfill(2)];
        let mut packer = Packer::new();
        for entries in [entries, more] {
            let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (stream, line) in entries {
                let labels = streams[stream].labels("custody");
                packer.add(streams[stream], || labels.clone(), (Nanos(7), line.as_bytes()), |_| ());
                expected.entry(labels).or_default().push(line);
            }
            let packed: Vec<_> = packer.finish().into_iter().map(|body| decoded(&body.unwrap())).collect();
            let got = packed.iter().map(|request| {
                let [stream] = request.streams.as_slice() else { panic!("{request:?}") };
                (stream.labels.clone(), stream.entries.iter().map(|entry| entry.line.clone()).collect())
            });
            prop_assert_eq!(got.collect::<BTreeMap<_, Vec<String>>>(), expected.clone());
            prop_assert_eq!(packed.len(), expected.len());
            prop_assert!(packer.finish().is_empty());
        }
    }

    #[test]
    fn whatever_the_line_it_comes_back(
        line in ".{0,200}", values in prop::collection::vec(".{0,40}", 0..6), times in prop::collection::vec(any::<u32>(), 1..9)
    ) {
        // The second time with what the first has left behind.
        let mut packer = Packer::new();
        let mut body = || {
            for time in &times {
                let time = Nanos(u64::from(*time) * 1_000_003);
                packer.add(Stream::live(None), || "{a=\"b\"}".into(), (time, line.as_bytes()), |entry| {
                    for (number, value) in values.iter().enumerate() {
                        entry.add_shown(&format!("name_{number}"), value);
                    }
                });
            }
            packer.finish().remove(0).unwrap()
        };
        let first = body();
        prop_assert_eq!(&body(), &first);
        let kept = values.iter().enumerate().filter(|(_, value)| !value.is_empty());
        let kept: BTreeMap<_, _> = kept.map(|(number, value)| (format!("name_{number}"), value.clone())).collect();
        prop_assert_eq!(pairs_of(&first), kept);
        let request = decoded(&first);
        prop_assert_eq!(request.streams.len(), 1);
        prop_assert_eq!(request.streams[0].entries.len(), times.len());
        for (entry, time) in request.streams[0].entries.iter().zip(times) {
            prop_assert_eq!(&entry.line, &line);
            let got = entry.timestamp.as_ref().unwrap();
            prop_assert_eq!(got.seconds as u64 * 1_000_000_000 + got.nanos as u64, u64::from(time) * 1_000_003);
        }
    }
}
