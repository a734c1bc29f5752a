//! What is too long for a destination, or for its line: it is cut, down to one event.

use super::waits::Noting;
use super::*;
use custody_core::event::{Actor, Draft, login};

/// Over a slow line nothing arrives as a whole that is too long for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_too_long_is_sent_in_pieces() {
    let story = Story::with(60).await;
    let store = Arc::new(Store::new(1));
    let longest = story.log.read(0, 60, usize::MAX).unwrap().iter().map(|entry| entry.bytes.len()).max();
    // Two or three of them have the time.
    let each = store.limits().timeout / 3;
    store.slow.store(u64::try_from(each.as_micros()).unwrap() / longest.unwrap() as u64, Relaxed);
    let run = start(&story, &store);
    until("all are there", || run.control.health().numbers().next >= 60).await;
    run.stop().await;
    assert!((0..60).all(|index| store.times().get(&index) == Some(&1)), "{:?}", store.times());
}

/// Where nobody can ask what has arrived, what was too long comes again: so the first batch is a short one, and each that has arrived
/// is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_slow_line_to_a_receiver_that_cannot_be_asked_each_event_comes_once() {
    let story = Story::with(200).await;
    let entries = story.log.read(0, 200, usize::MAX).unwrap();
    let bytes = entries.iter().map(|entry| entry.bytes.len()).sum::<usize>();
    let timeout = Duration::from_millis(400);
    let store = Store { reads_back: false, ..Store::new(1) };
    // All of it at once would be late five times over.
    store.slow.store(u64::try_from(5 * timeout.as_micros() / bytes as u128).unwrap(), Relaxed);
    let first_bytes = bytes / 100;
    let limits = Limits { batch_events: 200, in_flight: 1, first_bytes, timeout, ..Limits::default() };
    let sink = Noting::with(store, limits, None);
    let run = begin(Delivery { stall: Duration::MAX, ..delivery(&story, &sink) });
    until("some of it is confirmed", || run.control.health().numbers().next > 0).await;
    assert!(sink.store.documents.lock().unwrap().len() < 100, "the whole batch was waited for");
    until("all are there", || run.control.health().numbers().next >= 200).await;
    assert_eq!(run.control.health().numbers().retries, 0);
    run.stop().await;
    assert!((0..200).all(|index| sink.store.times().get(&index) == Some(&1)), "{:?}", sink.store.times());
    let sent: Vec<usize> = sink.sent().into_iter().map(|(_, events)| events).collect();
    assert!(sent[0] <= 3 && sent.iter().any(|events| *events > 3 * sent[0]), "{sent:?}");
}

/// An event more, longer than that. Gives its index.
async fn tell_long(story: &Story, bytes: usize) -> u64 {
    let failed = login::Failed {
        claimed_user: Some("x".repeat(bytes)),
        method: login::Attempt::Password,
        reason: "wrong password".to_owned(),
    };
    let index = story.log.size();
    drop(story.producer.append(Draft::new(Actor::system("test"), failed)).await.unwrap());
    index
}

/// Sent again and again, one long command would end the delivery of everything for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_alone_is_a_dead_letter_and_its_neighbours_are_there_once() {
    let story = Story::with(20).await;
    let long = tell_long(&story, 5_000).await;
    story.tell(20).await;
    let store = Arc::new(Store { bytes_max: 4_000, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    let letters = run.control.dead_letters().await.unwrap();
    let letters: Vec<_> = letters.iter().map(|letter| (letter.index, letter.reason.as_str())).collect();
    assert_eq!(letters, [(long, "413")]);
    let size = run.control.health().numbers().next;
    assert!((0..size).all(|index| store.times().get(&index).copied() == (index != long).then_some(1)));
    let report = prove(&run.control, size, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected, report.proven), (0, 1, size - 1), "{report:?}");
    run.stop().await;
}

/// Takes ten events at once, each of which is longer there than in the log, and notes how many it got. It would wait for more.
struct Swelling {
    store: Store,
    sent: Lock<Vec<usize>>,
}

impl Sink for Swelling {
    type Encoded = Document;

    fn limits(&self) -> Limits {
        let linger = Duration::from_secs(86_400);
        Limits { batch_bytes: 100_000, batch_events: 25, in_flight: 1, linger, ..Limits::default() }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        self.store.prepare().await
    }

    fn encode(&self, item: &Item) -> Result<Document, String> {
        self.store.encode(item)
    }

    fn bytes(_: &Document) -> usize {
        10_000
    }

    async fn send(&self, batch: &[&Document]) -> Result<Vec<Answer>, Trouble> {
        self.sent.lock().unwrap().push(batch.len());
        self.store.send(batch).await
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        self.store.read_back(window).await
    }
}

/// A rest would wait for a request of its own, however short it is, and nothing waits for what doesn't fit.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_where_a_request_is_full() {
    let story = Story::with(200).await;
    let sink = Arc::new(Swelling { store: Store::new(1), sent: Lock::default() });
    let run = begin(Delivery { stall: Duration::MAX, ..delivery(&story, &sink) });
    until("all whole ones are there", || run.control.health().numbers().next >= 200).await;
    run.stop().await;
    let sent = sink.sent.lock().unwrap().clone();
    assert_eq!(sent, [10; 20]);
    // What didn't fit was encoded once in vain.
    assert!(sink.store.encoded.load(Relaxed) <= 200 + 20, "{} times", sink.store.encoded.load(Relaxed));
    assert!((0..200).all(|index| sink.store.times().get(&index) == Some(&1)), "{:?}", sink.store.times());
}
