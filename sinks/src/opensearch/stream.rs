//! What the stream's own indices are, and whether events can be found in them.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// By which fields events are looked up, and the types of fields that such a question finds. It fails nowhere else: it finds
/// nothing, as if nothing were there.
const FOUND_BY: [(&str, &[&str]); 3] = [
    ("@timestamp", &["date", "date_nanos"]),
    ("custody.log.index", &["long", "unsigned_long"]),
    ("custody.log.origin", &["constant_keyword", "keyword"]),
];

/// Where an index says how it knows these fields. What is closed isn't asked: nothing is looked up there.
pub fn mapping_path(everything: &str) -> String {
    let fields = FOUND_BY.map(|(name, _)| name).join(",");
    format!("/{everything}/_mapping/field/{fields}?ignore_unavailable=true")
}

#[derive(Deserialize)]
struct Index {
    mappings: BTreeMap<String, Field>,
}

#[derive(Deserialize)]
struct Field {
    /// By the last part of its name.
    mapping: BTreeMap<String, Mapping>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "type", default)]
    kind: String,
}

/// Whether events can be found in each index by what the answer to [`mapping_path`] says.
///
/// # Errors
/// Where not, and what to do about it.
pub fn finds(body: &[u8]) -> Result<(), String> {
    let indices: BTreeMap<String, Index> =
        serde_json::from_slice(body).map_err(|error| format!("its mapping can't be read: {error}"))?;
    for (name, index) in indices {
        for (field, types) in FOUND_BY {
            let mapped = index.mappings.get(field).and_then(|field| field.mapping.values().next());
            let kind = mapped.map(|mapping| mapping.kind.as_str());
            if !kind.is_some_and(|kind| types.contains(&kind)) {
                return Err(format!(
                    "the index {name} has {field} as {}, by which no event is found: another index template is before Custody's \
                     (GET _index_template), or the stream was there before; mend that and roll the stream over, or set another stream",
                    kind.unwrap_or("nothing")
                ));
            }
        }
    }
    Ok(())
}

/// Where the stream says which indices it consists of.
pub fn indices_path(stream: &str) -> String {
    format!("/_data_stream/{stream}?filter_path=data_streams.indices.index_name")
}

/// The names of its indices, of the answer to [`indices_path`].
///
/// # Errors
/// When it is none.
pub fn indices(body: &[u8]) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Answer {
        data_streams: Vec<Stream>,
    }
    #[derive(Deserialize)]
    struct Stream {
        indices: Vec<Name>,
    }
    #[derive(Deserialize)]
    struct Name {
        index_name: String,
    }
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| format!("its indices can't be read: {error}"))?;
    let names = answer.data_streams.into_iter().flat_map(|stream| stream.indices);
    Ok(names.map(|name| name.index_name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_find_nothing_are_named() {
        let answer = |origin: &str| {
            format!(
                r#"{{"a":{{"mappings":{{
                "@timestamp":{{"full_name":"@timestamp","mapping":{{"@timestamp":{{"type":"date_nanos"}}}}}},
                "custody.log.index":{{"full_name":"custody.log.index","mapping":{{"index":{{"type":"long"}}}}}}{origin}}}}}}}"#
            )
        };
        let origin = |kind: &str| {
            answer(&format!(r#","custody.log.origin":{{"mapping":{{"origin":{{"type":"{kind}"}}}}}}"#))
        };
        assert_eq!(finds(origin("keyword").as_bytes()), Ok(()));
        let text = finds(origin("text").as_bytes()).unwrap_err();
        assert!(text.starts_with("the index a has custody.log.origin as text"), "{text}");
        assert!(finds(answer("").as_bytes()).unwrap_err().contains("as nothing"));
        assert_eq!(finds(b"{}"), Ok(()), "no index, and so nothing that isn't found");
        assert!(finds(b"[]").is_err());
    }

    #[test]
    fn a_streams_indices_are_read() {
        let body =
            br#"{"data_streams":[{"indices":[{"index_name":".ds-s-000001"},{"index_name":"moved"}]}]}"#;
        assert_eq!(indices(body).unwrap().into_iter().collect::<Vec<_>>(), [".ds-s-000001", "moved"]);
        assert!(indices(b"{}").is_err());
    }
}
