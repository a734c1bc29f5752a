//! What a delivery waits for: the time that a destination asks for, and for a batch to become longer.

use super::*;
use custody_core::event::{Actor, Draft, log};
use std::time::Instant;

/// A store with other limits, that may not take the first batch, and that notes when it is sent how many events.
pub(super) struct Noting {
    pub(super) store: Store,
    limits: Limits,
    /// What it says instead of taking the first batch.
    first: Lock<Option<Trouble>>,
    sent: Lock<Vec<(Instant, usize)>>,
}

impl Noting {
    fn new(limits: Limits, first: Option<Trouble>) -> Arc<Self> {
        Self::with(Store::new(1), limits, first)
    }

    pub(super) fn with(store: Store, limits: Limits, first: Option<Trouble>) -> Arc<Self> {
        Arc::new(Self { store, limits, first: Lock::new(first), sent: Lock::default() })
    }

    pub(super) fn sent(&self) -> Vec<(Instant, usize)> {
        self.sent.lock().unwrap().clone()
    }
}

impl Sink for Noting {
    type Encoded = Document;

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        self.store.prepare().await
    }

    fn encode(&self, item: &Item) -> Result<Document, String> {
        self.store.encode(item)
    }

    fn bytes(encoded: &Document) -> usize {
        Store::bytes(encoded)
    }

    async fn send(&self, batch: &[&Document]) -> Result<Vec<Answer>, Trouble> {
        self.sent.lock().unwrap().push((Instant::now(), batch.len()));
        let first = self.first.lock().unwrap().take();
        match first {
            Some(trouble) => Err(trouble),
            None => self.store.send(batch).await,
        }
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        self.store.read_back(window).await
    }
}

/// Nothing is told of it behind a test's back.
fn begin_noting(story: &Story, sink: &Arc<Noting>) -> Run<Noting> {
    begin(Delivery { stall: Duration::MAX, ..delivery(story, sink) })
}

/// By itself it would try again after a tenth of a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_not_asked_again_before_the_time_that_it_asks_for() {
    let asked = Duration::from_secs(1);
    let (reason, retry_after) = (|| "429".to_owned(), Some(asked));
    for trouble in [
        Trouble::Refused { reason: reason(), retry_after },
        Trouble::Unclear { reason: reason(), retry_after },
    ] {
        let story = Story::with(5).await;
        let sink = Noting::new(Limits::default(), Some(trouble));
        let run = begin_noting(&story, &sink);
        run.delivered(&story).await;
        run.stop().await;
        let sent = sink.sent();
        assert_eq!(sent.iter().map(|(_, events)| *events).collect::<Vec<_>>(), [5, 5]);
        assert!(sent[1].0 - sent[0].0 >= asked, "{sent:?}");
        assert!(sink.store.times().values().all(|times| *times == 1), "{:?}", sink.store.times());
    }
}

/// Else each event of a quiet log would be a request of its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_within_the_time_of_a_batch_goes_into_one() {
    let linger = Duration::from_millis(300);
    let story = Story::with(1).await;
    let sink = Noting::new(Limits { linger, ..Limits::default() }, None);
    let begun = Instant::now();
    let run = begin_noting(&story, &sink);
    for _ in 0..50 {
        story.tell(1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run.delivered(&story).await;
    let batches = u32::try_from(sink.sent().len()).unwrap();
    // However slow this machine is.
    assert!(linger * batches <= begun.elapsed(), "{batches} batches in {:?}", begun.elapsed());
    // What comes alone doesn't wait for others.
    story.tell(1).await;
    run.delivered(&story).await;
    let (_, events) = sink.sent().pop().unwrap();
    assert_eq!((sink.sent().len(), events), (batches as usize + 1, 1));
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_long_enough_does_not_wait() {
    let story = Story::with(5).await;
    let limits = Limits { linger: Duration::from_secs(86_400), batch_events: 30, ..Limits::default() };
    let sink = Noting::new(limits, None);
    let run = begin_noting(&story, &sink);
    // At once: what is seen of fewer would be a batch, and those that are left too few for another.
    let more = (0..25).map(|size| Draft::new(Actor::system("test"), log::Sealed { size }));
    drop(story.producer.append(more.collect::<Vec<_>>()).await.unwrap());
    run.delivered(&story).await;
    assert_eq!(sink.sent().iter().map(|(_, events)| *events).collect::<Vec<_>>(), [30]);
    run.stop().await;
}
