//! Loki's push request (`logproto.PushRequest`), protobuf and snappy.
//!
//! `loki-api` has its messages but for structured metadata: field 3 of an entry, pairs that are `LabelPair` on the wire.
//! So an entry is written as `loki-api` has it, and the pairs behind it; a stream is written in the same way.

use custody_core::clock::Nanos;
use loki_api::logproto::{EntryAdapter, StreamAdapter};
use loki_api::prost::Message;
use loki_api::prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use loki_api::prost_types::Timestamp;
use std::fmt::{Display, Write as _};
use std::mem;

/// The longest value in structured metadata, in bytes; the line has it whole.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Room for a value that is written: an id, a time, a number.
const VALUE_BYTES: usize = 64;
/// Room for an entry's metadata, in bytes: more than most have.
const METADATA_BYTES: usize = 640;

/// An entry as it is sent, to which pairs of metadata are added.
pub struct Entry {
    bytes: Vec<u8>,
    /// Where a value is written that isn't a text yet: an entry has several.
    value: String,
}

impl Entry {
    /// Without metadata.
    pub fn new(time: Nanos, line: &str) -> Self {
        let seconds = i64::try_from(time.0 / 1_000_000_000).unwrap_or(i64::MAX);
        let nanos = i32::try_from(time.0 % 1_000_000_000).unwrap_or(0);
        // The line, field 2, is written from where it lies.
        let head = EntryAdapter { timestamp: Some(Timestamp { seconds, nanos }), line: String::new() };
        let mut bytes = Vec::with_capacity(line.len() + METADATA_BYTES);
        bytes.extend_from_slice(&head.encode_to_vec());
        put(2, line.as_bytes(), &mut bytes);
        Self { bytes, value: String::with_capacity(VALUE_BYTES) }
    }

    /// Adds a pair, its value cut to [`VALUE_BYTES_MAX`]; an empty value is none for Loki.
    pub fn add(&mut self, name: &str, value: &str) {
        let value = value.get(..value.floor_char_boundary(VALUE_BYTES_MAX)).unwrap_or(value);
        if value.is_empty() {
            return;
        }
        put_length(3, field_bytes(name.len()) + field_bytes(value.len()), &mut self.bytes);
        put(1, name.as_bytes(), &mut self.bytes);
        put(2, value.as_bytes(), &mut self.bytes);
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

    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A whole request: entries of one stream, in their order. Loki answers to a request of several streams by what became of the
/// last one.
///
/// # Errors
/// When it is longer than snappy can say.
pub fn encode_push<'a>(
    labels: &str,
    entries: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Vec<u8>, String> {
    let head = StreamAdapter { labels: labels.to_owned(), entries: vec![], hash: 0 }.encode_to_vec();
    let length = head.len() + entries.clone().map(|entry| field_bytes(entry.len())).sum::<usize>();
    let mut request = Vec::with_capacity(field_bytes(length));
    put_length(1, length, &mut request);
    request.extend_from_slice(&head);
    for entry in entries {
        put(2, entry, &mut request);
    }
    snap::raw::Encoder::new().compress_vec(&request).map_err(|error| error.to_string())
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
fn put_length(field: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}
