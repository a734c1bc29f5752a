//! One batch at a time, also of a replay.

use super::*;
use std::sync::atomic::AtomicUsize;

/// Takes long for each batch, and notes how many it has at once, and what came first in each.
struct Alone {
    store: Store,
    under_way: AtomicUsize,
    most: AtomicUsize,
    sent: Lock<Vec<u64>>,
}

/// More than half of the time that it has: with a wait for another one before it, it would be late.
const EACH: Duration = Duration::from_millis(1_200);
const TIMEOUT: Duration = Duration::from_secs(2);

impl Sink for Alone {
    type Encoded = Document;

    fn limits(&self) -> Limits {
        Limits {
            batch_events: 10,
            in_flight: 1,
            takes_turns: true,
            linger: Duration::from_millis(1),
            timeout: TIMEOUT,
            ..Limits::default()
        }
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
        self.most.fetch_max(self.under_way.fetch_add(1, Relaxed) + 1, Relaxed);
        self.sent.lock().unwrap().push(batch[0].index);
        tokio::time::sleep(EACH).await;
        self.under_way.fetch_sub(1, Relaxed);
        self.store.send(batch).await
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        self.store.read_back(window).await
    }
}

/// Two connections at once are more than some receivers of syslog can tell apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_takes_turns_with_what_is_new_and_nobody_is_late_for_it() {
    let story = Story::with(40).await;
    let store = Store { reads_back: false, ..Store::new(1) };
    let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sink = Arc::new(Alone { store, under_way, most, sent: Lock::default() });
    let run = begin(Delivery { stall: Duration::MAX, ..delivery(&story, &sink) });
    run.delivered(&story).await;
    let before = sink.sent.lock().unwrap().len();
    let size = story.log.size();
    run.control.replay(0..40).await.unwrap();
    until("the replay has begun", || sink.sent.lock().unwrap().len() > before).await;
    story.tell(20).await;
    run.delivered(&story).await;
    run.replayed().await;
    let numbers = run.control.health().numbers();
    run.stop().await;
    assert_eq!((sink.most.load(Relaxed), numbers.retries), (1, 0), "{numbers:?}");
    let sent = sink.sent.lock().unwrap()[before..].to_vec();
    // What is new waits for one batch of the replay, and not for all of it.
    assert!(sent[1] >= size, "{sent:?}, from {size} on they are new");
    for (index, times) in sink.store.times() {
        assert_eq!(times, if index < 40 { 2 } else { 1 }, "{index}");
    }
}
