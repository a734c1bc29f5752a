//! Bodies, keys and signatures: tests/sinks has receivers by others.

use super::*;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use custody_core::clock::{ManualClock, Nanos};
use custody_core::event::TYPES;
use custody_core::log::Entry;
use proptest::prelude::*;
use reqwest::header::{HeaderMap, RETRY_AFTER};

const ORIGIN: &str = "custody.test/log";

fn webhook() -> Webhook {
    let endpoint = Endpoint { url: "http://127.0.0.1:1/hook".into(), ca: None, auth: None };
    let settings = Settings { endpoint, sign_with: vec!["key".into()], events_max: EVENTS };
    let secrets = Secrets::new(std::path::Path::new("/nowhere"));
    Webhook::new(settings, secrets, ORIGIN, Arc::new(ManualClock::new(Nanos(1_764_000_000_000_000_000))))
}

fn encoded(bytes: &[u8], index: u64) -> Encoded {
    let appended = Nanos(1_764_000_000_123_456_789 + index);
    webhook()
        .encode(&Item::new(Entry { index, appended, tag: 1, bytes: Bytes::copy_from_slice(bytes) }))
        .unwrap()
}

#[test]
fn the_standards_own_example_has_the_signature_that_it_says() {
    // From the specification's test vectors, as its libraries have them.
    let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let body = br#"{"test": 2432232314}"#;
    let message = Message { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(), timestamp: 1_614_265_330, body };
    assert_eq!(message.signatures(&[key]).unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn keys_have_the_standards_forms_and_no_others() {
    let made = make().unwrap();
    assert_ne!(*made, *make().unwrap());
    let public = public(&made).unwrap();
    let bytes = STANDARD.decode(made.strip_prefix("whsk_").unwrap()).unwrap();
    assert_eq!(public, format!("whpk_{}", STANDARD.encode(&bytes[32..])));
    // The seed alone is the same key.
    assert_eq!(super::public(&format!("whsk_{}", STANDARD.encode(&bytes[..32]))).unwrap(), public);
    let other = [&bytes[..32], &[7; 32][..]].concat();
    for (wrong, why) in [
        (format!("whsk_{}", STANDARD.encode(other)), KeyError::Halves),
        (format!("whsk_{}", STANDARD.encode([1; 31])), KeyError::Length),
        (format!("whsk_{}", STANDARD.encode([1; 48])), KeyError::Length),
        (format!("whsec_{}", STANDARD.encode([1; 23])), KeyError::Length),
        ("whsk_!".to_owned(), KeyError::Form),
        ("secret".to_owned(), KeyError::Form),
        (public.clone(), KeyError::Form),
        (format!("whsec_{}", STANDARD.encode([1; 24])), KeyError::Shared),
    ] {
        assert_eq!(super::public(&wrong).unwrap_err(), why, "{wrong}");
    }
}

#[test]
fn a_body_holds_each_event_as_it_is_in_the_log() {
    let examples: Vec<Vec<u8>> = TYPES.iter().map(|info| (info.example)().unwrap()).collect();
    let encoded: Vec<Encoded> = (0..).zip(&examples).map(|(index, bytes)| encoded(bytes, index)).collect();
    let body = Webhook::body(&encoded.iter().collect::<Vec<_>>());
    let text = String::from_utf8(body.clone()).unwrap();
    for example in &examples {
        assert!(text.contains(str::from_utf8(example).unwrap()));
    }
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value["type"], KIND);
    let entries = value["data"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), examples.len());
    assert_eq!((&entries[3]["index"], &entries[3]["origin"]), (&3.into(), &ORIGIN.into()));
}

#[test]
fn an_id_follows_from_the_body_and_from_nothing_else() {
    let id = |body: &[u8], now| Message::new(ORIGIN, Nanos(now), body).id;
    assert_eq!(id(b"a", 1), id(b"a", 2_000_000_000));
    // A batch that begins with the same event and ends with another one is another message.
    assert_ne!(id(b"a", 1), id(b"ab", 1));
    assert!(!id(b"a", 1).contains('.'));
}

#[test]
fn what_an_answer_means() {
    let answered = |status: u16, wait: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER, wait.parse().unwrap());
        }
        settled(&Answered { status: StatusCode::from_u16(status).unwrap(), headers, body: vec![] })
    };
    assert!(answered(200, None).is_ok() && answered(204, None).is_ok());
    for status in [301, 307, 401, 403, 404, 405, 407, 410, 415] {
        assert!(matches!(answered(status, None), Err(Trouble::Denied { .. })), "{status}");
    }
    let seconds = |trouble: &Trouble| trouble.retry_after().map(|wait| wait.as_secs());
    let busy = answered(429, Some("3")).unwrap_err();
    assert!(matches!(&busy, Trouble::Refused { .. }) && seconds(&busy) == Some(3), "{busy}");
    // Somebody in between may say so of what the receiver took.
    for (status, wait) in [(500, None), (502, None), (502, Some("3")), (503, None), (503, Some("3"))] {
        let trouble = answered(status, wait).unwrap_err();
        assert!(matches!(&trouble, Trouble::Unclear { .. }), "{status}");
        assert_eq!(seconds(&trouble), wait.map(|_| 3));
    }
    assert!(matches!(answered(413, None), Err(Trouble::TooLarge { .. })));
    for (slow, wait) in [(408, None), (504, None), (504, Some("3"))] {
        assert!(matches!(answered(slow, wait), Err(Trouble::Late { in_doubt: true, .. })), "{slow}");
    }
}

proptest! {
    #[test]
    fn whatever_is_in_the_log_a_receiver_gets_it_and_the_signature_is_over_it(
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..5)
    ) {
        let encoded: Vec<Encoded> = (0..).zip(&entries).map(|(index, bytes)| encoded(bytes, index)).collect();
        let body = Webhook::body(&encoded.iter().collect::<Vec<_>>());
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for (entry, bytes) in value["data"]["entries"].as_array().unwrap().iter().zip(&entries) {
            let held = match entry["base64"].as_str() {
                Some(text) => STANDARD.decode(text).unwrap(),
                None => bytes.clone(),
            };
            prop_assert_eq!(&held, bytes);
            prop_assert!(entry["base64"].is_string() || serde_json::from_slice::<serde_json::Value>(bytes).unwrap() == entry["event"]);
        }
        let secret = make().unwrap();
        let message = Message::new(ORIGIN, Nanos(5_000_000_000), &body);
        let signatures = message.signatures(&[Key::parse(&secret).unwrap()]).unwrap();
        let signature = STANDARD.decode(signatures.strip_prefix("v1a,").unwrap()).unwrap();
        let public = STANDARD.decode(public(&secret).unwrap().strip_prefix("whpk_").unwrap()).unwrap();
        let content = [format!("{}.5.", message.id).as_bytes(), body.as_slice()].concat();
        prop_assert!(UnparsedPublicKey::new(&ED25519, public).verify(&content, &signature).is_ok());
    }
}
