//! A stall that ends by a restart, or doesn't: each is told of once, and so is its end.

use super::*;

/// How often the log tells that it stalls, and after how many seconds each time that it goes on.
fn told(story: &Story) -> (usize, Vec<u64>) {
    let events = events(story);
    let stalled = events.iter().filter(|what| matches!(what, Payload::SinkStalled(_))).count();
    let resumed = events.iter().filter_map(|what| match what {
        Payload::SinkResumed(resumed) => Some(resumed.stalled_seconds),
        _ => None,
    });
    (stalled, resumed.collect())
}

/// A store that doesn't answer, and that this was told of, was stopped.
async fn stalled() -> (Story, Arc<Store>) {
    let story = Story::with(5).await;
    let store = Arc::new(Store::new(1));
    store.hangs.store(true, Relaxed);
    let run = start(&story, &store);
    until("it is told that it stalls", || told(&story).0 == 1).await;
    run.stop().await;
    assert_eq!(told(&story), (1, vec![]));
    (story, store)
}

/// As the log's state has it.
fn after_a_minute(story: &Story, store: &Arc<Store>) -> Run {
    begin(delivery(story, store).stalled_for(Some(Duration::from_secs(61))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_that_ends_by_a_restart_is_told_to_be_over_once() {
    let (story, store) = stalled().await;
    store.hangs.store(false, Relaxed);
    let run = after_a_minute(&story, &store);
    until("it is told that it goes on", || !told(&story).1.is_empty()).await;
    run.delivered(&story).await;
    run.stop().await;
    // Each run that follows knows that it is over.
    let run = start(&story, &store);
    story.tell(5).await;
    run.delivered(&story).await;
    run.stop().await;
    let (stalled, resumed) = told(&story);
    assert_eq!((stalled, resumed.len()), (1, 1));
    assert!(resumed[0] >= 61, "{resumed:?}");
}

/// It is the same stall, whoever is restarted meanwhile; that nothing has failed yet is no sign that it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_that_outlasts_a_restart_is_neither_over_nor_another_one() {
    let (story, store) = stalled().await;
    let run = after_a_minute(&story, &store);
    until("it would be told to stall", || {
        run.control.health().ailing().is_some_and(|ailing| ailing.since.elapsed() > Duration::from_secs(2))
    })
    .await;
    assert_eq!(told(&story), (1, vec![]));
    store.hangs.store(false, Relaxed);
    until("it is told that it goes on", || !told(&story).1.is_empty()).await;
    run.delivered(&story).await;
    // The next one is told of again.
    store.hangs.store(true, Relaxed);
    story.tell(1).await;
    until("it is told that it stalls", || told(&story).0 == 2).await;
    run.stop().await;
    assert_eq!(told(&story).1.len(), 1);
}

/// There is nothing by which it could show that it works.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_over_where_nothing_is_to_be_delivered() {
    let story = Story::with(5).await;
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    run.stop().await;
    let run = after_a_minute(&story, &store);
    until("it is told that it goes on", || told(&story).1.len() == 1).await;
    run.delivered(&story).await;
    run.stop().await;
}
