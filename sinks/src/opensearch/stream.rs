//! What the stream's own indices are, and whether events can be found in them.

use custody_core::clock::Nanos;
use serde::Deserialize;
use std::collections::BTreeMap;

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

/// Where the stream says which template its next index is made by.
pub fn template_path(stream: &str) -> String {
    format!("/_data_stream/{stream}?filter_path=data_streams.template")
}

/// The name of that template, of the answer to [`template_path`], where it can stand in a path as it is.
pub fn template(body: &[u8]) -> Option<String> {
    let shown: serde_json::Value = serde_json::from_slice(body).ok()?;
    let name = shown.pointer("/data_streams/0/template")?.as_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:~".contains(c);
    (!name.is_empty() && name.chars().all(plain)).then(|| name.to_owned())
}

/// The names of its indices, of the answer to [`indices_path`]; the last one is written to.
///
/// # Errors
/// When it is none.
pub fn indices(body: &[u8]) -> Result<Vec<String>, String> {
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

/// Where the stream says since when each of its indices is there, and which are closed.
pub fn ages_path(stream: &str) -> String {
    format!(
        "/{stream}/_settings/index.creation_date,index.verified_before_close?expand_wildcards=open,closed"
    )
}

/// Whether what was appended at that time may lie in an index that is closed, by the answer to [`ages_path`]. What is written goes
/// into the newest index: what was appended when an open one had followed all that are closed lies in none of these.
///
/// # Errors
/// When it is no answer to that.
pub fn may_be_closed(body: &[u8], appended: Nanos) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Index {
        settings: Settings,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Settings {
        index: Ages,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Ages {
        /// Milliseconds since 1970.
        creation_date: String,
        verified_before_close: String,
    }
    let indices: BTreeMap<String, Index> =
        serde_json::from_slice(body).map_err(|error| format!("which are closed can't be read: {error}"))?;
    let (mut closed, mut open) = (Vec::new(), Vec::new());
    for Index { settings: Settings { index } } in indices.into_values() {
        let begun = index.creation_date.parse::<u64>().unwrap_or(0);
        if index.verified_before_close == "true" { closed.push(begun) } else { open.push(begun) }
    }
    let Some(last) = closed.into_iter().max() else { return Ok(false) };
    let next = open.into_iter().filter(|begun| *begun > last).min();
    Ok(next.is_none_or(|next| appended < Nanos(next.saturating_mul(1_000_000))))
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
        assert_eq!(indices(body).unwrap(), [".ds-s-000001", "moved"]);
        assert!(indices(b"{}").is_err());
        let by = |name: &str| template(format!(r#"{{"data_streams":[{{"template":"{name}"}}]}}"#).as_bytes());
        assert_eq!(by("logs@custody-events.x").as_deref(), Some("logs@custody-events.x"));
        assert_eq!((by("50%?"), by(""), template(b"{}"), template(b"<html>")), (None, None, None, None));
    }

    #[test]
    fn what_is_older_than_what_follows_all_closed_indices_may_lie_in_one_of_them() {
        let answer = |indices: &[(u64, bool)]| {
            let index = |(number, (begun, is_closed)): (usize, &(u64, bool))| {
                let closed = if *is_closed { r#","verified_before_close":"true""# } else { "" };
                format!(
                    r#"".ds-s-{number:06}":{{"settings":{{"index":{{"creation_date":"{begun}"{closed}}}}}}}"#
                )
            };
            format!("{{{}}}", indices.iter().enumerate().map(index).collect::<Vec<_>>().join(","))
        };
        let may_be = |indices: &[(u64, bool)], milliseconds: u64| {
            may_be_closed(answer(indices).as_bytes(), Nanos(milliseconds * 1_000_000)).unwrap()
        };
        let first_closed = [(1_000, true), (2_000, false), (3_000, false)];
        assert_eq!((may_be(&first_closed, 1_999), may_be(&first_closed, 2_000)), (true, false));
        let middle_closed = [(1_000, false), (2_000, true), (3_000, false)];
        assert_eq!((may_be(&middle_closed, 2_999), may_be(&middle_closed, 3_001)), (true, false));
        assert!(may_be(&middle_closed, 500), "what was sent late");
        assert!(may_be(&[(1_000, false), (2_000, true)], 9_000), "nothing is written to");
        assert!(!may_be(&[(1_000, false)], 500) && !may_be(&[], 500));
        assert!(may_be_closed(b"<html>", Nanos(0)).is_err());
    }
}
