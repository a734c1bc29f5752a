//! An event as a record of Kafka, and back.
//!
//! The value is the canonical event. What it claims to be stands in headers: ours (`custody-…`), and those of CloudEvents'
//! Kafka binding in its binary mode (`ce_…`, section 3.2). Kafka's own timestamp is the time of appending in
//! milliseconds; the header has it whole.

use bytes::Bytes;
use custody_core::clock::Nanos;
use custody_core::event::{Head, hex};
use custody_core::log::Hash;
use custody_sinks::item::Item;
use custody_sinks::sink::Held;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use std::fmt::{Display, Write as _};
use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};

const ORIGIN: &str = "custody-origin";
const INDEX: &str = "custody-index";
const LEAF: &str = "custody-leaf";
const APPENDED: &str = "custody-appended";

/// What a record is longer than all its parts, at most: lengths, offsets and a batch's head (KIP-98).
const FRAME_BYTES: usize = 128;
const HEADER_BYTES: usize = 8;
const MILLISECOND: u64 = 1_000_000;

/// An event as Kafka takes it. One after the other is written into the same memory: tens of thousands are made for a transaction, and
/// memory for each of them was a good part of what that took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The canonical bytes, less what was taken out.
    pub value: Bytes,
    /// When it was appended, in milliseconds since the epoch.
    pub timestamp: i64,
    /// The key, and behind it the headers' values, one after the other.
    text: String,
    /// Where the key ends.
    key: usize,
    /// The headers' names, in a fixed order, and where their values end.
    headers: Vec<(&'static str, usize)>,
}

impl Record {
    /// A pure function of the entry.
    pub fn new(item: &Item, origin: &str) -> Self {
        let mut record = Self::default();
        record.become_of(item, origin);
        record
    }

    /// Becomes the one of another entry.
    pub fn become_of(&mut self, item: &Item, origin: &str) {
        self.value = item.bytes.clone();
        self.timestamp = i64::try_from(item.appended.0 / MILLISECOND).unwrap_or(i64::MAX);
        self.text.clear();
        self.headers.clear();
        let head = item.head();
        match &head {
            Some(Head { session: Some(session), .. }) => self.push(session),
            Some(head) => self.push(&*head.producer.id),
            // What is no event belongs to no session and no producer: it goes with the log.
            None => self.push(origin),
        }
        self.key = self.text.len();
        match &head {
            Some(head) => {
                self.header("custody-type", &*head.kind);
                self.header("custody-version", head.version);
            }
            None => {
                self.header("custody-type", "");
                self.header("custody-version", "");
            }
        }
        self.header(ORIGIN, origin);
        self.header(INDEX, item.index);
        self.header(LEAF, hex::to_hex(&item.leaf.0));
        self.header(APPENDED, item.appended.0);
        if item.redacted {
            self.header("custody-redacted", true);
        }
        self.header("content-type", "application/json");
        if let Some(head) = head {
            self.header("ce_specversion", "1.0");
            self.header("ce_id", head.id);
            self.header("ce_source", origin);
            self.header("ce_type", &*head.kind);
            self.header("ce_time", head.time);
        }
    }

    fn push(&mut self, value: impl Display) {
        let written = write!(self.text, "{value}");
        debug_assert!(written.is_ok(), "writing into a string doesn't fail");
    }

    fn header(&mut self, name: &'static str, value: impl Display) {
        self.push(value);
        self.headers.push((name, self.text.len()));
    }

    /// Those of a session, and else those of a producer, stay in order.
    pub fn key(&self) -> &str {
        self.text.get(..self.key).unwrap_or_default()
    }

    /// Its headers, in a fixed order.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().scan(self.key, |begin, (name, end)| {
            Some((*name, self.text.get(replace(begin, *end)..*end).unwrap_or_default()))
        })
    }

    /// At most so long on the wire, before it is packed.
    pub fn bytes(&self) -> usize {
        let names = self.headers.iter().map(|(name, _)| name.len() + HEADER_BYTES).sum::<usize>();
        self.text.len() + self.value.len() + names + FRAME_BYTES
    }

    /// The headers as librdkafka has them.
    pub fn native_headers(&self) -> OwnedHeaders {
        let empty = OwnedHeaders::new_with_capacity(self.headers.len());
        self.headers().fold(empty, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_bytes()) })
        })
    }
}

/// What a record claims, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The index; `None` where it claims none of this log.
    pub index: Option<u64>,
    /// The leaf hash.
    pub leaf: Option<Hash>,
    /// When it was appended. What two places say of it must agree; else it is what all clients go by.
    pub appended: Nanos,
}

impl Claim {
    /// Of a record; nothing where it is another log's.
    pub fn of<M: Message>(message: &M, origin: &str) -> Option<Self> {
        let headers = message.headers().map(read).unwrap_or_default();
        if headers.origin.as_deref().is_some_and(|claimed| claimed != origin.as_bytes()) {
            return None;
        }
        let index = headers.origin.as_ref().and(headers.index.as_deref()).and_then(number);
        let leaf = headers.leaf.as_deref().and_then(|leaf| std::str::from_utf8(leaf).ok());
        let leaf = leaf.and_then(hex::hash_from_hex).map(Hash);
        let milliseconds = message.timestamp().to_millis().and_then(|time| u64::try_from(time).ok());
        let milliseconds = milliseconds.unwrap_or(0);
        let whole = headers.appended.as_deref().and_then(number);
        let appended = whole
            .filter(|whole| whole / MILLISECOND == milliseconds)
            .unwrap_or_else(|| milliseconds.saturating_mul(MILLISECOND));
        Some(Self { index, leaf, appended: Nanos(appended) })
    }

    /// With the record's value.
    pub fn held<M: Message>(self, message: &M) -> Held {
        // A record without a value has other bytes than any event, and isn't a store that doesn't keep them.
        let original = message.payload().unwrap_or_default().to_vec();
        let (original, appended) = (Some(original), Some(self.appended));
        Held { index: self.index, leaf: self.leaf, original, appended, document: None }
    }
}

/// Those of a record's headers that are ours; one that stands there twice says nothing.
#[derive(Default)]
struct Ours {
    origin: Option<Vec<u8>>,
    index: Option<Vec<u8>>,
    leaf: Option<Vec<u8>>,
    appended: Option<Vec<u8>>,
}

/// The crate gives a header's name as `&str` and panics where it isn't one; anybody who may write to the topic can make it
/// so. Such a record claims nothing, and is told as what it is: a stranger's.
fn read<H: Headers>(headers: &H) -> Ours {
    catch_unwind(AssertUnwindSafe(|| {
        let mut ours = Ours::default();
        let mut twice = Vec::new();
        for Header { key, value } in headers.iter() {
            let place = match key {
                ORIGIN => &mut ours.origin,
                INDEX => &mut ours.index,
                LEAF => &mut ours.leaf,
                APPENDED => &mut ours.appended,
                _ => continue,
            };
            if place.replace(value.unwrap_or_default().to_vec()).is_some() {
                twice.push(key.to_owned());
            }
        }
        for key in twice {
            match key.as_str() {
                ORIGIN => ours.origin = None,
                INDEX => ours.index = None,
                LEAF => ours.leaf = None,
                _ => ours.appended = None,
            }
        }
        ours
    }))
    .unwrap_or_default()
}

/// A number as we write it: no sign, no zeros in front.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::{Event, TYPES};
    use custody_core::log::Entry;
    use proptest::prelude::*;
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;

    const LOG: &str = "custody.test/log";

    fn item(index: u64, appended: u64, bytes: &[u8]) -> Item {
        Item::new(Entry { index, appended: Nanos(appended), tag: 1, bytes: Bytes::copy_from_slice(bytes) })
    }

    fn message(value: Option<&[u8]>, timestamp: i64, headers: &[(&str, &[u8])]) -> OwnedMessage {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        });
        let time = Timestamp::CreateTime(timestamp);
        OwnedMessage::new(value.map(<[u8]>::to_vec), None, "t".to_owned(), time, 0, 0, Some(headers))
    }

    fn sent(record: &Record) -> OwnedMessage {
        let headers: Vec<(&str, &[u8])> =
            record.headers().map(|(key, value)| (key, value.as_bytes())).collect();
        message(Some(&record.value), record.timestamp, &headers)
    }

    fn header<'a>(record: &'a Record, name: &str) -> &'a str {
        let mut found = record.headers().filter(|(key, _)| *key == name);
        let value = found.next().unwrap().1;
        assert!(found.next().is_none());
        value
    }

    #[test]
    fn every_type_of_event_is_a_record_and_a_cloud_event() {
        for info in TYPES {
            let bytes = (info.example)().unwrap();
            let item = item(7, 1_764_000_000_123_456_789, &bytes);
            let record = Record::new(&item, LOG);
            assert_eq!(*record.value, bytes);
            assert_eq!(record.timestamp, 1_764_000_000_123);
            assert_eq!(header(&record, "custody-type"), info.name);
            assert_eq!(header(&record, "custody-version"), info.version.to_string());
            assert_eq!(header(&record, "custody-leaf"), hex::to_hex(&item.leaf.0));
            let event = Event::parse(&bytes).unwrap();
            assert_eq!(header(&record, "ce_specversion"), "1.0");
            assert_eq!(header(&record, "ce_id"), event.id.to_string());
            assert_eq!((header(&record, "ce_type"), header(&record, "ce_source")), (info.name, LOG));
            let key = event.session.map_or(event.producer.id.clone(), |session| session.to_string());
            assert_eq!(record.key(), key);
            assert!(record.bytes() > bytes.len());
        }
    }

    #[test]
    fn what_was_taken_out_of_is_marked() {
        let whole = item(7, 5, b"{}");
        assert!(Record::new(&whole, LOG).headers().all(|(name, _)| name != "custody-redacted"));
        let record = Record::new(&whole.redacted_to(Bytes::from_static(b"{}")), LOG);
        assert_eq!(header(&record, "custody-redacted"), "true");
    }

    #[test]
    fn what_is_no_event_is_a_record_all_the_same() {
        let record = Record::new(&item(0, 5, b"\xff"), LOG);
        assert_eq!((record.key(), header(&record, "custody-type")), (LOG, ""));
        assert!(record.headers().all(|(name, _)| !name.starts_with("ce_")));
        assert_eq!(Claim::of(&sent(&record), LOG).unwrap().index, Some(0));
    }

    #[test]
    fn who_claims_otherwise_is_known_by_it() {
        let leaf = hex::to_hex(&[7; 32]);
        let whole: [(&str, &[u8]); 4] =
            [(ORIGIN, LOG.as_bytes()), (INDEX, b"20"), (LEAF, leaf.as_bytes()), (APPENDED, b"5000001")];
        let claim = |headers: &[(&str, &[u8])], time| Claim::of(&message(Some(b"{}"), time, headers), LOG);
        let good = claim(&whole, 5).unwrap();
        assert_eq!((good.index, good.leaf, good.appended), (Some(20), Some(Hash([7; 32])), Nanos(5_000_001)));
        assert_eq!(claim(&whole, 6).unwrap().appended, Nanos(6_000_000), "what clients go by counts");
        assert_eq!(claim(&whole, -1).unwrap().appended, Nanos(0));
        assert_eq!(claim(&whole[1..], 5).unwrap().index, None, "an index of no log is none");
        assert_eq!(claim(&[], 5).unwrap(), Claim { index: None, leaf: None, appended: Nanos(5_000_000) });
        assert_eq!(claim(&[(ORIGIN, b"another/log"), (INDEX, b"1")], 5), None);
        for wrong in ["", "+1", "01", "-1", "18446744073709551616", "1 "] {
            assert_eq!(claim(&[whole[0], (INDEX, wrong.as_bytes())], 5).unwrap().index, None, "{wrong}");
        }
        let twice = [whole[0], (INDEX, b"20".as_slice()), (INDEX, b"21")];
        assert_eq!(claim(&twice, 5).unwrap().index, None);
        let origins = [whole[0], (ORIGIN, b"another/log".as_slice()), whole[1]];
        assert_eq!(claim(&origins, 5).unwrap().index, None);
        let empty = message(None, 5, &whole);
        assert_eq!(Claim::of(&empty, LOG).unwrap().held(&empty).original, Some(vec![]));
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_comes_back(
            index in any::<u64>(), appended in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let item = item(index, appended, &bytes);
            let message = sent(&Record::new(&item, LOG));
            let held = Claim::of(&message, LOG).unwrap().held(&message);
            prop_assert_eq!(held.index, Some(index));
            prop_assert_eq!(held.leaf, Some(item.leaf));
            prop_assert_eq!(held.appended, Some(item.appended));
            prop_assert_eq!(held.original, Some(bytes));
            prop_assert_eq!(Claim::of(&message, "another/log"), None);
        }

        #[test]
        fn no_headers_break_it(
            headers in prop::collection::vec(("(custody-(index|origin|leaf|appended)|x)", prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            time in any::<i64>(),
        ) {
            let headers: Vec<(&str, &[u8])> =
                headers.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
            let _claim = Claim::of(&message(Some(b"x"), time, &headers), LOG);
        }
    }
}
