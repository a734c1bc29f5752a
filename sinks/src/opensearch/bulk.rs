//! Bulk requests and their answers: one status for each item.

use super::Encoded;
use super::product::Product;
use crate::sink::Answer;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;

/// What of the answer is wanted.
const FILTER: &str = "errors,items.*.status,items.*.result,items.*._index,items.*.error.type,items.*.error.reason,items.*.failure_store";

/// Where it is sent. A stream is named there and nowhere else: many clusters refuse requests whose lines name one
/// (`rest.action.multi.allow_explicit_index`), so that a path says who may write where.
pub fn path(stream: &str, product: Product) -> String {
    let index = if product.has_streams { format!("/{stream}") } else { String::new() };
    format!("{index}/_bulk?filter_path={FILTER}")
}

/// NDJSON: an action and a document for each event.
pub fn request(batch: &[&Encoded], stream: &str, product: Product) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.iter().map(|encoded| encoded.document.len() + 256).sum());
    for Encoded { id, day, document, .. } in batch {
        let mut create = json!({ "_id": id });
        if !product.has_streams {
            create["_index"] = format!("{stream}-{day}").into();
        }
        body.extend_from_slice(json!({ "create": create }).to_string().as_bytes());
        body.push(b'\n');
        body.extend_from_slice(document);
        body.push(b'\n');
    }
    body
}

/// What came of a request.
#[derive(Deserialize)]
pub struct Response {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    result: Option<String>,
    #[serde(rename = "_index")]
    index: Option<String>,
    error: Option<Error>,
    failure_store: Option<String>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: String,
}

impl Response {
    /// Reads one to so many documents.
    ///
    /// # Errors
    /// When it isn't that.
    pub fn read(body: &[u8], events: usize) -> Result<Self, String> {
        let response: Self =
            serde_json::from_slice(body).map_err(|error| format!("its answer can't be read: {error}"))?;
        if response.items.len() != events {
            return Err(format!("{} answers came to {events} documents", response.items.len()));
        }
        Ok(response)
    }

    /// The indices that it says it has put documents into.
    pub fn indices(&self) -> BTreeSet<&str> {
        let stored = self.items.iter().filter(|item| item.create.status == 201);
        stored.filter_map(|item| item.create.index.as_deref()).collect()
    }

    /// One answer for each event. `elsewhere`: those of [`Self::indices`] that aren't ours.
    pub fn answers(self, elsewhere: &BTreeSet<String>) -> Vec<Answer> {
        let outcomes: Vec<Outcome> = self.items.into_iter().map(|item| item.create).collect();
        // What could be one document's fault, and is said of each of several: that is nobody's but the store's.
        let of_all =
            outcomes.len() > 1 && outcomes.iter().all(|outcome| outcome.fault() == Some(Fault::Perhaps));
        outcomes.into_iter().map(|outcome| answer(outcome, of_all, elsewhere)).collect()
    }
}

/// Whose fault it is that a document wasn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Its own.
    Document,
    /// The store's, or its settings': there is no such index, it is closed, no more may be made.
    Store,
    /// One or the other.
    Perhaps,
}

impl Outcome {
    /// Of what is refused for good (4xx); of all else, none.
    fn fault(&self) -> Option<Fault> {
        if !(400..500).contains(&self.status) || matches!(self.status, 403 | 409 | 429) {
            return None;
        }
        let Error { kind, reason } = self.error.as_ref()?;
        Some(match kind.as_str() {
            "document_parsing_exception"
            | "mapper_parsing_exception"
            | "max_bytes_length_exceeded_exception"
            | "parsing_exception"
            | "strict_dynamic_mapping_exception"
            | "x_content_parse_exception" => Fault::Document,
            "illegal_argument_exception" if reason.contains("immense term") => Fault::Document,
            // The index's own setting names a pipeline that isn't there.
            "illegal_argument_exception" if reason.contains("pipeline with id") => Fault::Store,
            "index_closed_exception"
            | "index_not_found_exception"
            | "invalid_index_name_exception"
            | "no_shard_available_action_exception"
            | "security_exception"
            | "validation_exception" => Fault::Store,
            _ => Fault::Perhaps,
        })
    }
}

fn answer(outcome: Outcome, of_all: bool, elsewhere: &BTreeSet<String>) -> Answer {
    let fault = outcome.fault();
    let Outcome { status, result, index, error, failure_store } = outcome;
    let reason = error
        .map_or_else(|| format!("status {status}"), |Error { kind, reason }| format!("{kind}: {reason}"));
    match status {
        // Put aside as a document that doesn't fit: it isn't where it can be found.
        201 if failure_store.as_deref() == Some("used") => {
            Answer::Rejected("it went to the failure store".to_owned())
        }
        // A pipeline that drops documents, or puts them elsewhere, is no failure to the store.
        200 | 201 if result.as_deref() == Some("noop") => {
            Answer::Rejected("a pipeline of the store dropped it".to_owned())
        }
        200 | 201 => match index {
            Some(index) if elsewhere.contains(&index) => {
                Answer::Rejected(format!("a pipeline of the store put it into {index}"))
            }
            _ => Answer::Stored,
        },
        // In memory at least: of a document whose own request failed since then, the disk may know nothing.
        409 => Answer::Exists,
        // Too busy, a block on a nearly full disk: nothing was done.
        403 | 429 => Answer::Later(reason),
        // A shard on the move or one that failed, with or without the document.
        500..=599 => Answer::Unclear(reason),
        _ if of_all || fault == Some(Fault::Store) => Answer::Later(reason),
        _ => Answer::Rejected(reason),
    }
}
