//! Numbers: each event gets the next one of this run, and what the kernel couldn't tell uses numbers up too, so that it
//! shows as a gap in the log. A batch ends with the node's signature.

use aws_lc_rs::signature::Ed25519KeyPair;
use custody_core::event::canonical::{self, CanonicalError};
use custody_core::event::hex::to_hex;
use custody_core::event::producer::{Previous, Signed};
use custody_core::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp, node};
use custody_core::ingest::signature;
use uuid::Uuid;

/// The next number of this run.
#[derive(Clone, Debug)]
pub struct Numbering {
    id: String,
    boot: Uuid,
    next: u64,
}

/// Events that become durable together.
#[derive(Debug)]
pub struct Batch {
    numbering: Numbering,
    numbers: Vec<u64>,
    events: Vec<Vec<u8>>,
}

impl Numbering {
    /// A fresh run of the agent of `node`.
    #[must_use]
    pub fn begin(node: &str) -> Self {
        Self { id: node::producer(node), boot: Uuid::now_v7(), next: 0 }
    }

    /// This run, and the last number that it has given.
    #[must_use]
    pub fn last(&self) -> Option<Previous> {
        Some(Previous { boot: self.boot, seq: self.next.checked_sub(1)? })
    }

    /// A batch of events with the next numbers; they are used up once the batch's own numbering takes the place of this.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch { numbering: self.clone(), numbers: Vec::new(), events: Vec::new() }
    }

    fn one<D: EventData>(
        &mut self,
        draft: Draft<D>,
        at: Timestamp,
    ) -> Result<(u64, Vec<u8>), CanonicalError> {
        let seq = self.next;
        let producer = ProducerRef { boot: self.boot, id: self.id.clone(), kind: ProducerKind::Node, seq };
        let bytes = canonical::event_bytes(&draft.numbered(producer, at))?;
        self.next = seq.saturating_add(1);
        Ok((seq, bytes))
    }
}

impl Batch {
    /// Adds an event that happened `at` that time.
    ///
    /// # Errors
    /// When it can't be written: it is too long. Nothing was numbered.
    pub fn push<D: EventData>(&mut self, draft: Draft<D>, at: Timestamp) -> Result<(), CanonicalError> {
        let (seq, bytes) = self.numbering.one(draft, at)?;
        self.numbers.push(seq);
        self.events.push(bytes);
        Ok(())
    }

    /// Uses up the numbers of events that are lost.
    pub fn skip(&mut self, lost: u64) {
        self.numbering.next = self.numbering.next.saturating_add(lost);
    }

    /// Whether it has no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The number that the next event gets.
    #[must_use]
    pub fn next(&self) -> Previous {
        Previous { boot: self.numbering.boot, seq: self.numbering.next }
    }

    /// Signs it with the node's key: its events, the last of which is the signature, and the numbering behind it.
    ///
    /// # Errors
    /// Never for a batch that has an event; the writer could say so.
    pub fn sign(
        mut self,
        key: &Ed25519KeyPair,
        at: Timestamp,
    ) -> Result<(Vec<Vec<u8>>, Numbering), CanonicalError> {
        if let (Some(&first), Some(&last)) = (self.numbers.first(), self.numbers.last()) {
            let root = signature::root(self.events.iter().map(Vec::as_slice));
            let text = signature::statement(&self.numbering.id, self.numbering.boot, first, last, &root);
            let signature = to_hex(key.sign(&text).as_ref());
            let actor = Actor::system(&self.numbering.id);
            let (_, bytes) =
                self.numbering.one(Draft::new(actor, Signed { first, last, root, signature }), at)?;
            self.events.push(bytes);
        }
        Ok((self.events, self.numbering))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::KeyPair as _;

    #[test]
    fn the_log_takes_what_it_signs_and_lost_events_are_a_gap() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        let numbering = Numbering::begin("web-1");
        let mut batch = numbering.batch();
        let accepted = || Draft::new(Actor::system("node/web-1"), node::SessionAccepted { pid: 1 });
        batch.push(accepted(), Timestamp::from_seconds(1)).unwrap();
        batch.skip(3);
        batch.push(accepted(), Timestamp::from_seconds(1)).unwrap();
        let (events, behind) = batch.sign(&key, Timestamp::from_seconds(1)).unwrap();
        let checked = signature::check(&events, "node/web-1", &public).unwrap();
        assert_eq!(checked.numbers().collect::<Vec<_>>(), [0, 4, 5]);
        assert_eq!(behind.last().unwrap().seq, 5);
        assert_eq!(numbering.last(), None, "numbers are used up only by what takes its place");
    }
}
