//! Numbers: each event gets the next one of this run, and what the kernel couldn't tell uses numbers up too, so that it
//! shows as a gap in the log. A batch ends with the node's signature.

use super::scribe::PREFIX_BYTES;
use crate::spool::RECORD_BYTES_MAX;
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

/// The longest event that the spool takes: the log takes some bytes more.
const EVENT_BYTES_MAX: usize = RECORD_BYTES_MAX - PREFIX_BYTES;

/// So long a part of a batch gets a signature of its own: each is to fit into one frame to the log, and into the smallest spool; bytes.
/// What a session may make of a record is many times longer than the record.
const PART_BYTES: usize = 512 << 10;

/// Events that belong together.
#[derive(Debug)]
pub struct Batch {
    numbering: Numbering,
    /// Those that are long enough, each with the number that its signature gets.
    full: Vec<(Part, u64)>,
    part: Part,
}

/// Events that one signature speaks of.
#[derive(Debug, Default)]
struct Part {
    numbers: Vec<u64>,
    events: Vec<Vec<u8>>,
    bytes: usize,
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
        Batch { numbering: self.clone(), full: Vec::new(), part: Part::default() }
    }

    /// Uses up a number.
    fn take(&mut self) -> u64 {
        let seq = self.next;
        self.next = seq.saturating_add(1);
        seq
    }

    /// The event of that number.
    fn event<D: EventData>(
        &self,
        seq: u64,
        draft: Draft<D>,
        at: Timestamp,
    ) -> Result<Vec<u8>, CanonicalError> {
        let producer = ProducerRef { boot: self.boot, id: self.id.clone(), kind: ProducerKind::Node, seq };
        let event = canonical::event_bytes(&draft.numbered(producer, at))?;
        if event.len() > EVENT_BYTES_MAX {
            return Err(CanonicalError::TooLong { got: event.len() });
        }
        Ok(event)
    }
}

/// Events, the last of which signs those before it.
pub type SignedEvents = Vec<Vec<u8>>;

impl Batch {
    /// Adds an event that happened `at` that time.
    ///
    /// # Errors
    /// When it can't be written: it is too long. Nothing was numbered.
    pub fn push<D: EventData>(&mut self, draft: Draft<D>, at: Timestamp) -> Result<(), CanonicalError> {
        let event = self.numbering.event(self.numbering.next, draft, at)?;
        self.part.bytes = self.part.bytes.saturating_add(event.len());
        self.part.numbers.push(self.numbering.take());
        self.part.events.push(event);
        // Behind the event, so that the next one's number is known before it is written.
        if self.part.bytes >= PART_BYTES {
            self.end_part();
        }
        Ok(())
    }

    fn end_part(&mut self) {
        let signature = self.numbering.take();
        self.full.push((std::mem::take(&mut self.part), signature));
    }

    /// Uses up the numbers of events that are lost.
    pub fn skip(&mut self, lost: u64) {
        self.numbering.next = self.numbering.next.saturating_add(lost);
    }

    /// Whether it has no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.part.events.is_empty()
    }

    /// The number that the next event gets.
    #[must_use]
    pub fn next(&self) -> Previous {
        Previous { boot: self.numbering.boot, seq: self.numbering.next }
    }

    /// Signs it with the node's key: its parts, of which nearly every batch has one, each with its events, the last of which is the
    /// signature; and the numbering behind it.
    ///
    /// # Errors
    /// Never for a batch that has an event; the writer could say so.
    pub fn sign(
        mut self,
        key: &Ed25519KeyPair,
        at: Timestamp,
    ) -> Result<(Vec<SignedEvents>, Numbering), CanonicalError> {
        if !self.part.events.is_empty() {
            self.end_part();
        }
        let Self { numbering, full, .. } = self;
        let parts = full.into_iter().map(|(part, number)| part.sign(&numbering, number, key, at));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok((parts, numbering))
    }
}

impl Part {
    /// Its events, and the signature with that number.
    fn sign(
        self,
        numbering: &Numbering,
        number: u64,
        key: &Ed25519KeyPair,
        at: Timestamp,
    ) -> Result<SignedEvents, CanonicalError> {
        let Self { numbers, mut events, .. } = self;
        if let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) {
            let root = signature::root(events.iter().map(Vec::as_slice));
            let text = signature::statement(&numbering.id, numbering.boot, first, last, &root);
            let signature = to_hex(key.sign(&text).as_ref());
            let signed = Draft::new(Actor::system(&numbering.id), Signed { first, last, root, signature });
            events.push(numbering.event(number, signed, at)?);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::KeyPair as _;
    use custody_core::event::producer::Started;

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
        let (parts, behind) = batch.sign(&key, Timestamp::from_seconds(1)).unwrap();
        let [events] = parts.as_slice() else { unreachable!() };
        let checked = signature::check(events, "node/web-1", &public).unwrap();
        assert_eq!(checked.numbers().collect::<Vec<_>>(), [0, 4, 5]);
        assert_eq!(behind.last().unwrap().seq, 5);
        assert_eq!(numbering.last(), None, "numbers are used up only by what takes its place");
    }

    #[test]
    fn a_long_batch_is_signed_in_parts_and_leaves_out_no_number() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        let mut batch = Numbering::begin("web-1").batch();
        let accepted = || Draft::new(Actor::system("node/web-1"), node::SessionAccepted { pid: 1 });
        let mut foretold = Vec::new();
        while batch.full.len() < 2 {
            foretold.push(batch.next().seq);
            batch.push(accepted(), Timestamp::from_seconds(1)).unwrap();
        }
        assert!(batch.part.events.is_empty(), "nothing is left that would want a third signature");
        let (parts, behind) = batch.sign(&key, Timestamp::from_seconds(1)).unwrap();
        assert_eq!(parts.len(), 2);
        let (mut numbers, mut events) = (Vec::new(), Vec::new());
        for part in &parts {
            assert!(part.iter().map(Vec::len).sum::<usize>() < PART_BYTES + 4_096);
            let checked = signature::check(part, "node/web-1", &public).unwrap();
            numbers.extend(checked.numbers());
            events.extend(checked.numbers().take(part.len() - 1));
        }
        assert!(numbers.iter().copied().eq(0..=behind.last().unwrap().seq));
        assert_eq!(events, foretold);
    }

    /// What the log just takes, and the spool doesn't, would end the agent.
    #[test]
    fn no_event_is_too_long_for_the_spool() {
        let mut batch = Numbering::begin("web-1").batch();
        let mut push = |length: usize| {
            let started = Started { previous: None, program: "a".repeat(length) };
            batch.push(Draft::new(Actor::system("node/web-1"), started), Timestamp::from_seconds(1))?;
            Ok::<usize, CanonicalError>(batch.part.events.last().unwrap().len())
        };
        let around = push(1_000).unwrap() - 1_000;
        let longest = EVENT_BYTES_MAX - around;
        assert_eq!(push(longest).unwrap(), EVENT_BYTES_MAX);
        assert!(matches!(push(longest + 1), Err(CanonicalError::TooLong { .. })));
    }
}
