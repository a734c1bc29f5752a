//! Loki's push request (`logproto.PushRequest`), protobuf and snappy.
//!
//! `loki-api` has its messages but for structured metadata: field 3 of an entry, pairs that are `LabelPair` on the wire.
//! So an entry is written as `loki-api` has it, and the pairs behind it; a stream is written in the same way.

use super::stream::Stream;
use custody_core::clock::Nanos;
use loki_api::logproto::{EntryAdapter, StreamAdapter};
use loki_api::prost::Message;
use loki_api::prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use loki_api::prost_types::Timestamp;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::mem;

/// The longest value in structured metadata, in bytes; the line has it whole.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Room for what stands before a stream in a request: a field's number, and the longest of its lengths.
const BEFORE_BYTES: usize = 11;

/// How many times as long as the requests that were written last what is held for the next ones may be. They are packed, to a
/// quarter mostly.
const HELD_MOST: usize = 64;

/// An entry without its line while it is written.
#[derive(Default)]
pub struct Entry {
    /// The time, as `loki-api` has it.
    time: Vec<u8>,
    /// Metadata.
    pairs: Vec<u8>,
    /// A value that isn't a text yet.
    value: String,
}

impl Entry {
    /// Adds a pair, its value cut to [`VALUE_BYTES_MAX`]; an empty value is none for Loki.
    pub fn add(&mut self, name: &str, value: &str) {
        let value = value.get(..value.floor_char_boundary(VALUE_BYTES_MAX)).unwrap_or(value);
        if value.is_empty() {
            return;
        }
        put_length(3, field_bytes(name.len()) + field_bytes(value.len()), &mut self.pairs);
        put(1, name.as_bytes(), &mut self.pairs);
        put(2, value.as_bytes(), &mut self.pairs);
    }

    /// Adds a pair whose value is how something is shown.
    pub fn add_shown(&mut self, name: &str, value: impl Display) {
        let mut text = mem::take(&mut self.value);
        text.clear();
        if write!(text, "{value}").is_ok() {
            self.add(name, &text);
        }
        self.value = text;
    }

    fn begin(&mut self, time: Nanos) {
        let seconds = i64::try_from(time.0 / 1_000_000_000).unwrap_or(i64::MAX);
        let nanos = i32::try_from(time.0 % 1_000_000_000).unwrap_or(0);
        // The line, field 2, is written from where it lies.
        let head = EntryAdapter { timestamp: Some(Timestamp { seconds, nanos }), line: String::new() };
        self.time.clear();
        // A vector takes whatever is written.
        head.encode(&mut self.time).unwrap_or_default();
        self.pairs.clear();
    }
}

/// A request while it is written: entries of one stream, in their order. Loki answers to a request of several streams by what
/// became of the last one.
#[derive(Default)]
struct Request {
    /// The stream, behind [`BEFORE_BYTES`]; empty where none is begun.
    bytes: Vec<u8>,
}

impl Request {
    fn begin(&mut self, labels: String) {
        let head = StreamAdapter { labels, entries: vec![], hash: 0 };
        self.bytes.resize(BEFORE_BYTES, 0);
        self.bytes.extend_from_slice(&head.encode_to_vec());
    }

    fn add(&mut self, entry: &Entry, line: &[u8]) {
        let length = entry.time.len() + field_bytes(line.len()) + entry.pairs.len();
        self.bytes.reserve(field_bytes(length));
        put_length(2, length, &mut self.bytes);
        self.bytes.extend_from_slice(&entry.time);
        put(2, line, &mut self.bytes);
        self.bytes.extend_from_slice(&entry.pairs);
    }

    /// All of it, with the stream's length, which is known only now.
    fn whole(&mut self) -> &[u8] {
        let mut before = Vec::with_capacity(BEFORE_BYTES);
        put_length(1, self.bytes.len().saturating_sub(BEFORE_BYTES), &mut before);
        let start = BEFORE_BYTES.saturating_sub(before.len());
        if let Some(room) = self.bytes.get_mut(start..BEFORE_BYTES) {
            room.copy_from_slice(&before);
        }
        self.bytes.get(start..).unwrap_or_default()
    }
}

/// Writes requests. The memory that this takes is there for the next ones, and still in the processor's caches.
pub struct Packer {
    requests: BTreeMap<Stream, Request>,
    entry: Entry,
    packed: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl Packer {
    /// Without requests.
    pub fn new() -> Self {
        let (requests, entry, packed) = (BTreeMap::new(), Entry::default(), Vec::new());
        Self { requests, entry, packed, encoder: snap::raw::Encoder::new() }
    }

    /// Adds an entry to its stream's request, which is begun with the `labels` where there is none. `line` is UTF-8.
    pub fn add(
        &mut self,
        stream: Stream,
        labels: impl FnOnce() -> String,
        (time, line): (Nanos, &[u8]),
        describe: impl FnOnce(&mut Entry),
    ) {
        self.entry.begin(time);
        describe(&mut self.entry);
        let request = self.requests.entry(stream).or_default();
        if request.bytes.is_empty() {
            request.begin(labels());
        }
        request.add(&self.entry, line);
    }

    /// The requests that were begun, as they are sent.
    ///
    /// # Errors
    /// When one is longer than snappy can say.
    pub fn finish(&mut self) -> Vec<Result<Vec<u8>, String>> {
        let Self { requests, packed, encoder, .. } = self;
        let begun = requests.values_mut().filter(|request| !request.bytes.is_empty());
        let finished = begun.map(|request| {
            let whole = request.whole();
            packed.resize(packed.len().max(snap::raw::max_compress_len(whole.len())), 0);
            let length = encoder.compress(whole, packed).map_err(|error| error.to_string());
            request.bytes.clear();
            Ok(packed.get(..length?).unwrap_or_default().to_vec())
        });
        let finished: Vec<Result<Vec<u8>, String>> = finished.collect();
        // There is one for each hour of the past.
        requests.retain(|stream, _| matches!(stream, Stream::Live { .. }));
        let held = requests.values().map(|request| request.bytes.capacity()).sum::<usize>() + packed.len();
        if held > HELD_MOST * finished.iter().flatten().map(Vec::len).sum::<usize>() {
            // Much was on its way, and isn't any more.
            (*requests, *packed) = Default::default();
        }
        finished
    }
}

/// How long a field is that holds so much. The number of each field here takes one byte.
fn field_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// A field that holds a message or a text.
fn put(field: u32, message: &[u8], out: &mut Vec<u8>) {
    put_length(field, message.len(), out);
    out.extend_from_slice(message);
}

/// What stands before such a field's content.
#[inline]
fn put_length(field: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}
