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

/// As the log's state has it, of a stall that was told before it delivered the event `next`.
fn begin_after(story: &Story, store: &Arc<Store>, before: Duration, next: u64) -> Run {
    begin(delivery(story, store).told_to_stall(Some(ToldStall { before, next })))
}

fn after_a_minute(story: &Story, store: &Arc<Store>) -> Run {
    begin_after(story, store, Duration::from_secs(61), story.log.size())
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

/// Earlier programs told of no end of a stall that a restart had ended: months later it would be told as an outage of months, and a new
/// one wouldn't be told at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_been_delivered_since_a_stall_was_told_ends_it_and_the_next_one_is_told() {
    let months = Duration::from_secs(240 * 86_400);
    let story = Story::with(20).await;
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    run.stop().await;
    story.tell(1).await;
    store.hangs.store(true, Relaxed);
    let run = begin_after(&story, &store, months, 5);
    until("the new one is told", || told(&story).0 == 1).await;
    assert_eq!(told(&story), (1, vec![]));
    store.hangs.store(false, Relaxed);
    until("it is told that it goes on", || told(&story).1.len() == 1).await;
    run.delivered(&story).await;
    run.stop().await;
    // Nor does one that is well say that it was ill for months.
    let run = begin_after(&story, &store, months, 5);
    until("it is told that it goes on", || told(&story).1.len() == 2).await;
    run.delivered(&story).await;
    run.stop().await;
    let (stalled, resumed) = told(&story);
    assert_eq!(stalled, 1);
    assert!(resumed.iter().all(|seconds| *seconds < 3_600), "{resumed:?}");
}

/// As it is told of one that stands still since its position can't be read: how far it had come isn't known then.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_that_was_told_at_the_end_of_the_log_has_lasted_since_then() {
    let story = Story::with(20).await;
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    run.stop().await;
    story.tell(10).await;
    let run = begin_after(&story, &store, Duration::from_secs(3_600), story.log.size());
    until("it is told that it goes on", || told(&story).1.len() == 1).await;
    run.delivered(&story).await;
    run.stop().await;
    let (stalled, resumed) = told(&story);
    assert!(stalled == 0 && resumed[0] >= 3_600, "{resumed:?}");
}

/// Each answer that it isn't done yet would be taken for a sign that it delivers.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_goes_on_in_long_turns_is_one_stall() {
    let story = Story::with(5).await;
    let (part, timeout) = (Duration::from_millis(1_250), Duration::from_secs(20));
    let store = Arc::new(Store { part, timeout, parts: AtomicU64::new(6), ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    until("it is told that it goes on", || !told(&story).1.is_empty()).await;
    run.delivered(&story).await;
    run.stop().await;
    let (stalled, resumed) = told(&story);
    assert_eq!((stalled, resumed.len()), (1, 1), "{resumed:?}");
}

/// Nothing is delivered meanwhile, however soon each answer comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_goes_on_in_short_turns_is_a_stall_too() {
    let story = Story::with(5).await;
    let (part, timeout) = (Duration::from_millis(100), Duration::from_secs(20));
    let store = Arc::new(Store { part, timeout, parts: AtomicU64::new(u64::MAX), ..Store::new(1) });
    let run = start(&story, &store);
    until("it is told that it stalls", || told(&story).0 == 1).await;
    let numbers = run.control.health().numbers();
    assert_eq!(numbers.trouble.as_deref(), Some("it is still being read"));
    assert_eq!(numbers.retries, 0, "nothing is tried again");
    store.parts.store(0, Relaxed);
    until("it is told that it goes on", || !told(&story).1.is_empty()).await;
    run.delivered(&story).await;
    assert_eq!(run.control.health().numbers().trouble, None);
    run.stop().await;
    let (stalled, resumed) = told(&story);
    assert_eq!((stalled, resumed.len()), (1, 1), "{resumed:?}");
}
