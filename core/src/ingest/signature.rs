//! How an agent's events are its own: each batch ends with a `producer.signed`, so that nobody who carries them can make
//! one up, not even whoever operates the log.
//!
//! What is signed (Ed25519, RFC 8032) is this text, each line with its line feed:
//! ```text
//! custody.signed/v1
//! <the producer's id>
//! <boot, a UUID in lower case>
//! <the first number of the batch> <the last>
//! <the root, 64 digits of lower-case hex>
//! ```
//! The root is that of a Merkle tree (RFC 6962, 2.1) over the batch's events in the order of their numbers. The event that
//! carries the signature isn't among them: its number is the one after the last.

use crate::event::hex::{digit, hash_from_hex, to_hex};
use crate::event::producer::Signed;
use crate::event::{Event, EventData as _, ProducerKind, ProducerRef};
use crate::log::tree::{Tree, leaf_hash};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use uuid::Uuid;

/// The text that is signed.
#[must_use]
pub fn statement(producer: &str, boot: Uuid, first: u64, last: u64, root: &str) -> Vec<u8> {
    format!("custody.signed/v1\n{producer}\n{boot}\n{first} {last}\n{root}\n").into_bytes()
}

/// The root over the bytes of events, in lower-case hex.
#[must_use]
pub fn root<'a>(events: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut tree = Tree::new();
    events.into_iter().for_each(|event| tree.push(leaf_hash(event)));
    to_hex(&tree.root().0)
}

/// A batch of one agent's run, whose signature was checked: nothing else makes one.
#[derive(Debug)]
pub struct Checked<'a> {
    events: Vec<(u64, Option<Event>, &'a [u8])>,
}

impl<'a> Checked<'a> {
    /// The events in the order of their numbers, each with its bytes; the last is the signature. Where there are bytes only,
    /// they have a number and the node's signature, and are no event.
    pub fn events(&self) -> impl ExactSizeIterator<Item = (Option<&Event>, &'a [u8])> {
        self.events.iter().map(|(_, event, bytes)| (event.as_ref(), *bytes))
    }

    /// Their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.events.iter().map(|(number, ..)| *number)
    }
}

/// Why a batch isn't what the node's agent made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// It has no events.
    #[error("a batch is empty")]
    Empty,
    /// One of them can't be read.
    #[error("event {0} of a batch is none")]
    NoEvent(usize),
    /// One is another producer's, of another run, or out of order.
    #[error("event {0} of a batch isn't the next one of its producer")]
    Stranger(usize),
    /// The last event doesn't sign the others.
    #[error("a batch isn't signed by its last event")]
    Unsigned,
    /// The signature is somebody else's.
    #[error("a batch is signed by another key than the node's")]
    WrongKey,
}

/// Who numbered it and what it is, of bytes that need be no event.
#[derive(Deserialize)]
struct Head {
    producer: ProducerRef,
    #[serde(rename = "type")]
    kind: String,
}

/// Checks that these events are one batch of `producer` and signed by `key`.
///
/// # Errors
/// See [`BatchError`]: then none of them may be appended.
pub fn check<'a>(events: &'a [Vec<u8>], producer: &str, key: &[u8; 32]) -> Result<Checked<'a>, BatchError> {
    let (_, signed_events) = events.split_last().ok_or(BatchError::Empty)?;
    let mut checked: Vec<(u64, Option<Event>, &[u8])> = Vec::with_capacity(events.len());
    let mut boot = None;
    for (at, bytes) in events.iter().enumerate() {
        let event = Event::parse(bytes).ok();
        let foreign: Head;
        let (made_by, kind) = match &event {
            Some(event) => (&event.producer, &event.kind),
            None => {
                foreign = serde_json::from_slice(bytes).map_err(|_| BatchError::NoEvent(at))?;
                (&foreign.producer, &foreign.kind)
            }
        };
        let next = checked.last().is_none_or(|(last, ..)| *last < made_by.seq);
        let same_run = *boot.get_or_insert(made_by.boot) == made_by.boot;
        if made_by.id != producer || made_by.kind != ProducerKind::Node || !same_run || !next {
            return Err(BatchError::Stranger(at));
        }
        let is_signature = kind == Signed::TYPE;
        if is_signature != (at + 1 == events.len()) {
            return Err(BatchError::Unsigned);
        }
        checked.push((made_by.seq, event, bytes));
    }
    let boot = boot.ok_or(BatchError::Empty)?;
    let signed = match checked.last() {
        Some((_, Some(event), _)) => serde_json::from_str::<Signed>(event.data.get()),
        _ => return Err(BatchError::Unsigned),
    };
    let signed = signed.map_err(|_| BatchError::Unsigned)?;
    let covered = match checked.as_slice() {
        [(first, ..), .., (last, ..), _] => signed.first == *first && signed.last == *last,
        [(only, ..), _] => signed.first == *only && signed.last == *only,
        _ => false,
    };
    let root = root(signed_events.iter().map(Vec::as_slice));
    if !covered || signed.root != root || hash_from_hex(&signed.root).is_none() {
        return Err(BatchError::Unsigned);
    }
    let text = statement(producer, boot, signed.first, signed.last, &root);
    let raw = signature_from_hex(&signed.signature).ok_or(BatchError::Unsigned)?;
    UnparsedPublicKey::new(&ED25519, key).verify(&text, &raw).map_err(|_| BatchError::WrongKey)?;
    Ok(Checked { events: checked })
}

/// Who numbered a batch, as its first event says: nothing is proved by that.
#[must_use]
pub fn claimed(events: &[Vec<u8>]) -> Option<ProducerRef> {
    let head: Head = serde_json::from_slice(events.first()?).ok()?;
    Some(head.producer)
}

/// The 64 bytes that 128 digits write.
fn signature_from_hex(text: &str) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Actor, Draft, EventId, Timestamp, canonical, node};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    const ID: &str = "node/web-1";

    fn numbered<D: crate::event::EventData>(data: D, seq: u64) -> Vec<u8> {
        let producer = ProducerRef { boot: Uuid::nil(), id: ID.into(), kind: ProducerKind::Node, seq };
        let mut draft = Draft::new(Actor::system("node"), data);
        draft.id = EventId(Uuid::from_u128(u128::from(seq)));
        canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(1))).unwrap()
    }

    fn batch(pair: &Ed25519KeyPair) -> Vec<Vec<u8>> {
        let mut events: Vec<_> =
            [3, 4, 7].map(|seq| numbered(node::SessionAccepted { pid: 1 }, seq)).into_iter().collect();
        let root = root(events.iter().map(Vec::as_slice));
        let text = statement(ID, Uuid::nil(), 3, 7, &root);
        let signature = to_hex(pair.sign(&text).as_ref());
        events.push(numbered(Signed { first: 3, last: 7, root, signature }, 8));
        events
    }

    #[test]
    fn a_batch_is_its_nodes_or_it_is_nothing() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let whole = batch(&pair);
        assert_eq!(check(&whole, ID, &key).unwrap().numbers().collect::<Vec<_>>(), [3, 4, 7, 8]);
        assert_eq!(check(&whole, ID, &[9; 32]).unwrap_err(), BatchError::WrongKey);
        assert_eq!(check(&whole, "node/web-2", &key).unwrap_err(), BatchError::Stranger(0));
        assert_eq!(check(&[], ID, &key).unwrap_err(), BatchError::Empty);
        let first = claimed(&whole).unwrap();
        assert_eq!((first.id.as_str(), first.boot, first.seq), (ID, Uuid::nil(), 3));
        assert!(claimed(&[]).is_none() && claimed(&[b"{}".to_vec()]).is_none());
        for at in 0..whole.len() {
            let mut less = whole.clone();
            less.remove(at);
            assert!(check(&less, ID, &key).is_err(), "without event {at}");
            let mut twice = whole.clone();
            twice.insert(at, whole[at].clone());
            assert!(check(&twice, ID, &key).is_err(), "event {at} twice");
        }
        let mut changed = whole.clone();
        let text = String::from_utf8(changed[1].clone()).unwrap().replace("\"pid\":1", "\"pid\":2");
        changed[1] = text.into_bytes();
        assert_eq!(check(&changed, ID, &key).unwrap_err(), BatchError::Unsigned);
    }

    #[test]
    fn what_a_node_signs_and_is_no_event_has_its_number_all_the_same() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let event = numbered(node::SessionAccepted { pid: 1 }, 3);
        let odd = String::from_utf8(event).unwrap().replace("\"actor\"", "\"acter\"").into_bytes();
        let root = root([odd.as_slice()]);
        let text = statement(ID, Uuid::nil(), 3, 3, &root);
        let signature = to_hex(pair.sign(&text).as_ref());
        let events = [odd, numbered(Signed { first: 3, last: 3, root, signature }, 4)];
        let checked = check(&events, ID, &key).unwrap();
        let read: Vec<bool> = checked.events().map(|(event, _)| event.is_some()).collect();
        assert_eq!((checked.numbers().collect::<Vec<_>>(), read), (vec![3, 4], vec![false, true]));
    }
}
