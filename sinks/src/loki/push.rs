//! Loki's push request (`logproto.PushRequest`), protobuf and snappy.
//!
//! `loki-api` has its messages but for structured metadata: field 3 of an entry, pairs that are `LabelPair` on the wire.
//! So an entry is written as `loki-api` has it, and the pairs behind it; a stream is written in the same way.

use custody_core::clock::Nanos;
use loki_api::logproto::{EntryAdapter, StreamAdapter};
use loki_api::prost::Message;
use loki_api::prost::encoding::{WireType, encode_key, encode_varint};
use loki_api::prost_types::Timestamp;
use std::collections::BTreeMap;

/// An encoded entry, and the labels of the stream that it belongs to.
pub struct LokiEntry<'a> {
    pub labels: String,
    pub bytes: &'a [u8],
}

/// One entry with its metadata.
pub fn encode_entry(time: Nanos, line: &str, metadata: &[(&str, String)]) -> Vec<u8> {
    let seconds = i64::try_from(time.0 / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.0 % 1_000_000_000).unwrap_or(0);
    // The line, field 2, is written from where it lies.
    let head = EntryAdapter { timestamp: Some(Timestamp { seconds, nanos }), line: String::new() };
    let mut bytes = head.encode_to_vec();
    put(2, line.as_bytes(), &mut bytes);
    let mut pair = Vec::new();
    for (name, value) in metadata {
        pair.clear();
        put(1, name.as_bytes(), &mut pair);
        put(2, value.as_bytes(), &mut pair);
        put(3, &pair, &mut bytes);
    }
    bytes
}

/// A whole request with its entries sorted into streams; their order within a stream stays.
///
/// # Errors
/// When it is longer than snappy can say.
pub fn encode_push<'a>(entries: impl Iterator<Item = LokiEntry<'a>>) -> Result<Vec<u8>, String> {
    let mut streams: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for LokiEntry { labels, bytes } in entries {
        put(2, bytes, streams.entry(labels).or_default());
    }
    let mut request = Vec::new();
    for (labels, entries) in streams {
        let stream = StreamAdapter { labels, entries: vec![], hash: 0 };
        let mut stream = stream.encode_to_vec();
        stream.extend_from_slice(&entries);
        put(1, &stream, &mut request);
    }
    snap::raw::Encoder::new().compress_vec(&request).map_err(|error| error.to_string())
}

/// A field that holds a message or a text.
fn put(field: u32, message: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}
