//! A batch that doesn't get through: it is told, others pass it, and what keeps it may be its length.

use super::*;

/// Others get through, and so nothing seemed wrong: the position stood still unseen, and all that passed was in doubt after a crash.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_held_up_is_told_and_passed_by_so_many() {
    let story = Story::with(400).await;
    let store = Arc::new(Store::new(1));
    // A new sink looks everything up. Of the first batch it hears nothing.
    store.hidden_below.store(1, Relaxed);
    let run = start(&story, &store);
    let stalls = |what: &Payload| matches!(what, Payload::SinkStalled(told) if told.reason == "it is hidden");
    until("the log tells of it", || events(&story).iter().any(stalls)).await;
    let passed = 16 * 7;
    until("others have passed", || store.times().len() >= passed - 7).await;
    story.tell(10).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(store.times().len() <= passed, "{}", store.times().len());
    assert_eq!(run.control.health().numbers().next, 0);
    store.hidden_below.store(0, Relaxed);
    run.delivered(&story).await;
    until("the log tells that it goes on", || {
        events(&story).iter().any(|what| matches!(what, Payload::SinkResumed(_)))
    })
    .await;
    assert!(store.times().values().all(|times| *times == 1), "{:?}", store.times());
    run.stop().await;
}

/// As a limiter does whose burst is below what is sent at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_a_destination_takes_at_once_is_sent_in_pieces() {
    let story = Story::with(20).await;
    let longest = story.log.read(0, 20, usize::MAX).unwrap().iter().map(|entry| entry.bytes.len()).max();
    let store = Arc::new(Store { burst: 2 * longest.unwrap(), ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    assert!(store.times().values().all(|times| *times == 1), "{:?}", store.times());
    run.stop().await;
}

/// Waiting between the parts, longer each time, an archive of years was read for hours.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_up_in_parts_is_asked_for_without_waiting() {
    let story = Story::with(7).await;
    let store = Arc::new(Store::new(1));
    store.parts.store(40, Relaxed);
    let run = start(&story, &store);
    run.delivered(&story).await;
    assert!(store.times().values().all(|times| *times == 1), "{:?}", store.times());
    run.stop().await;
}
