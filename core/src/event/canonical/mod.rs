//! The one way in which an event becomes bytes: canonical JSON, RFC 8785 (JCS).
//!
//! Canonical *by construction*: every struct declares its fields in sorted order, so serde_json's own
//! writer already yields JCS at 2.5 M events/s, where a general canonicaliser reaches 0.1 M/s. What a struct
//! can't promise is checked here: no floats (none of our fields is one) and no integer beyond 2^53 − 1,
//! which JCS readers would silently round. A test holds every event type against an independent crate.

mod check;
mod plain;

pub use check::{is_canonical, is_canonical_within};
pub(crate) use plain::plain_bytes;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;
use std::io;

pub use crate::log::EVENT_BYTES_MAX;

/// The largest integer that every JSON reader keeps exactly: 2^53 − 1 (RFC 8785, appendix D).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Values may be nested so deep: what `serde_json` reads.
const DEPTH_MAX: usize = 127;

/// Why an event can't be written.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// A value that RFC 8785 can't carry exactly.
    #[error("the event can't be written as canonical JSON: {0}")]
    Unrepresentable(#[from] serde_json::Error),
    /// Longer than a log entry may be.
    #[error(
        "the event is {got} bytes long, the log takes {EVENT_BYTES_MAX}: cut its longest field and mark it as cut"
    )]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
}

/// Writes `value` as canonical JSON.
///
/// # Errors
/// [`CanonicalError::Unrepresentable`] for floats, for integers beyond ±(2^53 − 1), and for what is nested deeper than
/// readers go.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::with_capacity(768);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Exact { depth: 0 }))?;
    Ok(out)
}

/// [`to_bytes`], refused beyond [`EVENT_BYTES_MAX`].
///
/// # Errors
/// See [`CanonicalError`].
pub fn event_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let bytes = to_bytes(value)?;
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(CanonicalError::TooLong { got: bytes.len() });
    }
    Ok(bytes)
}

/// Refuses the numbers that JSON readers don't agree about, and what is nested so deep that some read it and others don't.
/// What is JSON already ([`serde_json::value::RawValue`]) isn't looked into: see [`is_canonical`].
struct Exact {
    /// How many arrays and objects are open.
    depth: usize,
}

impl Exact {
    fn open<W: ?Sized + io::Write>(&mut self, writer: &mut W, with: &[u8]) -> io::Result<()> {
        if self.depth == DEPTH_MAX {
            let what = format!("it is nested deeper than {DEPTH_MAX} levels");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.depth += 1;
        writer.write_all(with)
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W, with: &[u8]) -> io::Result<()> {
        self.depth = self.depth.saturating_sub(1);
        writer.write_all(with)
    }
}

fn inexact<T>(what: impl std::fmt::Display) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not an integer of at most 53 bits")))
}

impl serde_json::ser::Formatter for Exact {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }
    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }
    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }
    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }
    fn write_u64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if value > INTEGER_MAX {
            return inexact(value);
        }
        serde_json::ser::CompactFormatter.write_u64(writer, value)
    }
    fn write_i64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        if value.unsigned_abs() > INTEGER_MAX {
            return inexact(value);
        }
        serde_json::ser::CompactFormatter.write_i64(writer, value)
    }
    fn write_f64<W: ?Sized + io::Write>(&mut self, _: &mut W, value: f64) -> io::Result<()> {
        inexact(value)
    }
    fn write_f32<W: ?Sized + io::Write>(&mut self, _: &mut W, value: f32) -> io::Result<()> {
        inexact(value)
    }
}

/// A JSON value of any shape inside an event, written with its keys sorted by UTF-16 code units, as JCS asks.
///
/// `serde_json::Map` can't be relied on for that: a dependency's `preserve_order` feature changes its order
/// for the whole program.
#[derive(Clone, Debug, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Json(pub Value);

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Borrowed(&self.0).serialize(serializer)
    }
}

struct Borrowed<'a>(&'a Value);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Borrowed)),
            Value::Object(fields) => {
                let mut sorted: Vec<_> = fields.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (key, value) in sorted {
                    map.serialize_entry(key, &Borrowed(value))?;
                }
                map.end()
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..=INTEGER_MAX).prop_map(Value::from),
            (-(INTEGER_MAX as i64)..0).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_an_independent_canonicaliser(value in any_json()) {
            let ours = to_bytes(&Json(value.clone())).unwrap();
            let theirs = serde_json_canonicalizer::to_vec(&value).unwrap();
            prop_assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs).unwrap());
        }
    }

    #[test]
    fn refuses_what_readers_would_round() {
        for bad in [
            serde_json::json!(INTEGER_MAX + 1),
            serde_json::json!(-9_007_199_254_740_992_i64),
            serde_json::json!(0.5),
        ] {
            assert!(matches!(to_bytes(&Json(bad)), Err(CanonicalError::Unrepresentable(_))));
        }
        let deep = |levels: usize| {
            (0..levels).fold(serde_json::json!(1), |inner, level| match level % 2 {
                0 => serde_json::json!([inner, 2]),
                _ => serde_json::json!({"a": inner, "b": 3}),
            })
        };
        assert!(is_canonical(&to_bytes(&Json(deep(DEPTH_MAX))).unwrap()));
        let error = to_bytes(&Json(deep(DEPTH_MAX + 1))).unwrap_err();
        assert!(error.to_string().contains("deeper than 127 levels"), "{error}");
        let long = "x".repeat(EVENT_BYTES_MAX);
        assert!(matches!(event_bytes(&long), Err(CanonicalError::TooLong { got: 65_537 })));
    }
}
