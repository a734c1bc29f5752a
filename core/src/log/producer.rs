//! How an event gets into the log: a producer numbers it, the log makes it durable, and only then is there a
//! [`Durable`] that other code can ask for as proof.

use super::{AppendError, Claim, Counter, Log, Pending, ProducerKey, Receipt, Record, SubmitError};
use crate::clock::Clock;
use crate::event::canonical::{self, CanonicalError};
use crate::event::{
    Actor, Draft, Envelope, EventData, EventId, Outcome, ProducerKind, ProducerRef, Timestamp, producer, who,
};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// Proof that an event is durable in the log. Only the log makes one, after the sync that covers it.
///
/// Whoever has an effect to cause asks for this, not for a promise. It can't be made by hand:
///
/// ```
/// use custody_core::{event::lock::Lifted, log::Durable};
/// fn effect(evidence: Durable<Lifted>) -> u64 { evidence.index() }
/// ```
/// ```compile_fail
/// use custody_core::{event::lock::Lifted, log::Durable};
/// fn effect(evidence: Lifted) -> u64 { Durable { envelope: evidence, receipt: 0 }.index() }
/// ```
/// nor copied, so that one event is used up by the one effect that it is for:
///
/// ```
/// use custody_core::{event::lock::Lifted, log::Durable};
/// fn use_up(evidence: Durable<Lifted>) { fn once<T>(_: T) {} once(evidence); }
/// ```
/// ```compile_fail
/// use custody_core::{event::lock::Lifted, log::Durable};
/// fn use_up(evidence: Durable<Lifted>) { fn once<T>(_: T) {} once(evidence.clone()); once(evidence); }
/// ```
#[must_use = "evidence that nobody uses allows nothing"]
#[derive(Debug)]
pub struct Durable<D> {
    envelope: Envelope<D>,
    receipt: Receipt,
}

impl<D> Durable<D> {
    /// Its index in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.receipt.index
    }

    /// When the log took it.
    #[must_use]
    pub fn appended(&self) -> Timestamp {
        self.receipt.appended.into()
    }

    /// The event's id: what later events name as their cause.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.envelope.id
    }

    /// The event as it was written.
    #[must_use]
    pub fn envelope(&self) -> &Envelope<D> {
        &self.envelope
    }

    /// Its typed data.
    #[must_use]
    pub fn data(&self) -> &D {
        &self.envelope.data
    }
}

/// Why an event isn't known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// The event can't be written; nothing was numbered.
    #[error(transparent)]
    Unwritable(#[from] CanonicalError),
    /// This kind of producer may not speak of that; nothing was numbered.
    #[error("a {kind:?} producer may not say {event}: it is for another part of Custody to say")]
    MayNotSay {
        /// What it is.
        kind: ProducerKind,
        /// What it tried to say.
        event: &'static str,
    },
    /// The log didn't take it; nothing was numbered.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// It was taken, and whether it is durable is unknown: no effect may follow.
    #[error(transparent)]
    Unknown(#[from] AppendError),
}

/// Who numbers, and where its events go.
pub struct Numbering {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The producer's clock.
    pub clock: Arc<dyn Clock>,
    /// The program's name.
    pub id: String,
    /// Its kind.
    pub kind: ProducerKind,
    /// The end of the boot before, as the log knows it.
    pub previous: Option<producer::Previous>,
    /// The program and its version.
    pub program: String,
}

/// Numbers the events of one program, without gaps, and hands them to the log.
pub struct Producer {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    id: String,
    kind: ProducerKind,
    boot: Uuid,
    /// Shared with the log, which takes a batch's numbers when it takes the batch.
    counter: Arc<Counter>,
    /// Whoever holds the lock is the only one who numbers, encodes and enqueues: so numbers reach the log in their order,
    /// and a batch that is refused uses none up.
    order: Mutex<()>,
}

impl Producer {
    /// Begins a numbering with `producer.started`, which names the end of the one before. What stands in `first`
    /// comes before it, in the same batch: a log's own beginning.
    ///
    /// # Errors
    /// See [`ProducerError`]; without this first event there is no producer.
    pub async fn start<B: Batch>(numbering: Numbering, first: B) -> Result<Self, ProducerError> {
        let Numbering { log, clock, id, kind, previous, program } = numbering;
        let (counter, order) = (Arc::default(), Mutex::default());
        let this = Self { log, clock, id, kind, boot: Uuid::now_v7(), counter, order };
        let started = Draft::new(Actor::system(&this.id), producer::Started { previous, program });
        let _durable = this.append((first, started)).await?;
        Ok(this)
    }

    /// Numbers a batch and hands it over. What follows is fixed, whether or not anyone waits for it.
    ///
    /// # Errors
    /// When the batch was refused: nothing was numbered, and nothing of it will be in the log.
    pub fn submit<B: Batch>(&self, batch: B) -> Result<Submitted<B>, ProducerError> {
        let submitted = self.number_and_submit(batch, false);
        if let Err(ProducerError::MayNotSay { event, .. }) = &submitted {
            // Somebody tried to say what is not for this part to say: that is evidence too. If the log can't take even
            // that, the caller still gets the refusal.
            let attempted = producer::Refused {
                attempted: (*event).to_owned(),
                producer: self.id.clone(),
                reason: format!("a {:?} producer may not say it", self.kind),
            };
            let draft = Draft::new(Actor::system(&self.id), attempted).outcome(Outcome::Denied);
            let _told = self.number_and_submit(draft, false);
        }
        submitted
    }

    fn number_and_submit<B: Batch>(
        &self,
        batch: B,
        from_reserve: bool,
    ) -> Result<Submitted<B>, ProducerError> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.counter.next_number();
        let mut numbering = Numbers { producer: self, seq: first, records: Vec::new() };
        let numbered = batch.number(&mut numbering)?;
        let claim = Claim::new(&self.counter, first, numbering.seq);
        let pending = self.log.submit_claimed(numbering.records, claim, from_reserve)?;
        Ok(Submitted { pending, numbered })
    }

    /// [`Producer::submit`], and waits until the log says durable.
    ///
    /// # Errors
    /// See [`ProducerError`]. Dropping the future takes nothing back.
    pub async fn append<B: Batch>(&self, batch: B) -> Result<B::Durable, ProducerError> {
        self.submit(batch)?.durable().await
    }

    /// [`Producer::append`] into the space that is kept for the log's last words when its disk is full.
    ///
    /// # Errors
    /// See [`ProducerError`].
    pub async fn append_from_reserve<B: Batch>(&self, batch: B) -> Result<B::Durable, ProducerError> {
        self.number_and_submit(batch, true)?.durable().await
    }

    /// The log that it speaks to.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }
}

/// A batch that the log has taken and may not have synced yet.
#[must_use = "until `durable` says so this is no evidence"]
pub struct Submitted<B: Batch> {
    pending: Pending,
    numbered: B::Numbered,
}

impl<B: Batch> Submitted<B> {
    /// Waits for the sync that covers the batch.
    ///
    /// # Errors
    /// [`ProducerError::Unknown`]: evidence without effect may be there, effect without evidence must not follow.
    pub async fn durable(self) -> Result<B::Durable, ProducerError> {
        let receipts = self.pending.await?;
        Ok(B::prove(self.numbered, &mut receipts.into_iter())?)
    }
}

/// One or several drafts that become durable together or not at all.
pub trait Batch: Sized {
    /// The events as they were written.
    type Numbered: Send;
    /// Their proofs.
    type Durable;
    #[doc(hidden)]
    fn number(self, numbering: &mut Numbers<'_>) -> Result<Self::Numbered, ProducerError>;
    #[doc(hidden)]
    fn prove(
        numbered: Self::Numbered,
        receipts: &mut std::vec::IntoIter<Receipt>,
    ) -> Result<Self::Durable, AppendError>;
}

/// Where a batch gets its numbers.
#[doc(hidden)]
pub struct Numbers<'a> {
    producer: &'a Producer,
    seq: u64,
    records: Vec<Record>,
}

impl<D: EventData> Batch for Draft<D> {
    type Numbered = Envelope<D>;
    type Durable = Durable<D>;

    fn number(self, numbering: &mut Numbers<'_>) -> Result<Envelope<D>, ProducerError> {
        let Producer { id, kind, boot, clock, .. } = numbering.producer;
        if !who::may_say_type(*kind, D::FAMILY, D::TYPE) {
            return Err(ProducerError::MayNotSay { kind: *kind, event: D::TYPE });
        }
        let seq = numbering.seq;
        let envelope =
            self.numbered(ProducerRef { boot: *boot, id: id.clone(), kind: *kind, seq }, clock.wall().into());
        // Kept in memory for a while: without the room that it was written in.
        let bytes = Bytes::copy_from_slice(&canonical::event_bytes(&envelope)?);
        let producer = ProducerKey { id: id.clone(), boot: *boot, seq };
        numbering.records.push(Record { producer, tag: D::FAMILY.tag(), bytes });
        numbering.seq += 1;
        Ok(envelope)
    }

    fn prove(
        envelope: Envelope<D>,
        receipts: &mut std::vec::IntoIter<Receipt>,
    ) -> Result<Durable<D>, AppendError> {
        match receipts.next() {
            Some(receipt) => Ok(Durable { envelope, receipt }),
            None => Err(AppendError::Unknown("the log gave fewer receipts than records".to_owned())),
        }
    }
}

impl<B: Batch> Batch for Vec<B> {
    type Numbered = Vec<B::Numbered>;
    type Durable = Vec<B::Durable>;

    fn number(self, numbering: &mut Numbers<'_>) -> Result<Self::Numbered, ProducerError> {
        self.into_iter().map(|batch| batch.number(numbering)).collect()
    }

    fn prove(
        numbered: Self::Numbered,
        receipts: &mut std::vec::IntoIter<Receipt>,
    ) -> Result<Self::Durable, AppendError> {
        numbered.into_iter().map(|one| B::prove(one, receipts)).collect()
    }
}

macro_rules! tuple_batch {
    ($($letter:ident $name:ident),*) => {
        impl<$($letter: Batch),*> Batch for ($($letter,)*) {
            type Numbered = ($($letter::Numbered,)*);
            type Durable = ($($letter::Durable,)*);

            fn number(self, numbering: &mut Numbers<'_>) -> Result<Self::Numbered, ProducerError> {
                let ($($name,)*) = self;
                Ok(($($name.number(numbering)?,)*))
            }

            fn prove(numbered: Self::Numbered, receipts: &mut std::vec::IntoIter<Receipt>) -> Result<Self::Durable, AppendError> {
                let ($($name,)*) = numbered;
                Ok(($($letter::prove($name, receipts)?,)*))
            }
        }
    };
}
tuple_batch!(A a, B b);
tuple_batch!(A a, B b, C c);
tuple_batch!(A a, B b, C c, D d);

#[cfg(test)]
mod tests;
