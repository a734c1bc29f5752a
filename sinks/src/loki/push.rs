//! Loki's push request (`logproto.PushRequest`), protobuf and snappy.
//!
//! `loki-api` has its messages but for structured metadata: field 3 of an entry, pairs that are `LabelPair` on the wire.
//! So an entry is written as `loki-api` has it, and the pairs behind it; a stream is written in the same way.

use custody_core::clock::Nanos;
use loki_api::logproto::{EntryAdapter, StreamAdapter};
use loki_api::prost::Message;
use loki_api::prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use loki_api::prost_types::Timestamp;
use std::borrow::Cow;

/// One entry with its metadata.
pub fn encode_entry(time: Nanos, line: &str, metadata: &[(&str, Cow<'_, str>)]) -> Vec<u8> {
    let seconds = i64::try_from(time.0 / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.0 % 1_000_000_000).unwrap_or(0);
    // The line, field 2, is written from where it lies.
    let head = EntryAdapter { timestamp: Some(Timestamp { seconds, nanos }), line: String::new() };
    let pair_bytes =
        |(name, value): &(&str, Cow<'_, str>)| field_bytes(name.len()) + field_bytes(value.len());
    let pairs: usize = metadata.iter().map(|pair| field_bytes(pair_bytes(pair))).sum();
    let mut bytes = Vec::with_capacity(head.encoded_len() + field_bytes(line.len()) + pairs);
    bytes.extend_from_slice(&head.encode_to_vec());
    put(2, line.as_bytes(), &mut bytes);
    for pair in metadata {
        put_length(3, pair_bytes(pair), &mut bytes);
        put(1, pair.0.as_bytes(), &mut bytes);
        put(2, pair.1.as_bytes(), &mut bytes);
    }
    bytes
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
