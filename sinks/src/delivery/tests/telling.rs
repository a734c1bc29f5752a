//! A log that doesn't take what a delivery has to tell: it is told later, and nothing moves over it.

use super::unreadable::Damaged;
use super::*;
use custody_core::event::{Actor, Draft, log};
use custody_core::log::{ProducerKey, Record};

/// Has the log refuse the next event of the story's producer: another one has that number.
async fn refuses_next(story: &Story) {
    let told =
        story.producer.append(Draft::new(Actor::system("test"), log::Sealed { size: 0 })).await.unwrap();
    let producer = &told.envelope().producer;
    let producer = ProducerKey { id: producer.id.clone(), boot: producer.boot, seq: producer.seq + 1 };
    let bytes = story.log.read(0, 1, 0).unwrap()[0].bytes.clone();
    drop(story.log.submit(vec![Record { producer, tag: 0, bytes }]).unwrap().await.unwrap());
}

/// Of which events the log says that they were refused: the first of each row, and how many.
fn refused(story: &Story) -> Vec<(u64, u64)> {
    let told = events(story).into_iter().filter_map(|payload| match payload {
        Payload::SinkRejected(told) => Some((told.first, told.count)),
        _ => None,
    });
    told.collect()
}

/// A log of fifty events, and a store that has lost some of them, and refuses them by now.
async fn lost(refuses: fn(u64) -> bool) -> (Story, Arc<Store>) {
    let story = Story::with(50).await;
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    run.stop().await;
    let mut documents = store.documents.lock().unwrap().clone();
    documents.retain(|document| !refuses(document.index));
    (story, Arc::new(Store { refuses, documents: Lock::new(documents), ..Store::new(1) }))
}

/// Else a comparison says for ever that it is missing, and each repair is refused without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_met_by_a_replay_that_the_log_does_not_take_is_told_later() {
    let (story, store) = lost(|index| index == 20).await;
    let run = start(&story, &store);
    refuses_next(&story).await;
    run.delivered(&story).await;
    run.control.replay(0..50).await.unwrap();
    until("it is told", || !refused(&story).is_empty()).await;
    run.replayed().await;
    run.delivered(&story).await;
    assert_eq!(refused(&story), [(20, 1)]);
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (0, 1), "{report:?}");
    run.stop().await;
}

/// A crash came between the file and the log, and then somebody has ended that replay.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_which_the_log_says_nothing_is_told_by_the_next_replay_that_meets_it() {
    let (story, store) = lost(|index| index == 20 || index == 30).await;
    let mut letters = DeadLetters::open(&story.dir.path().join("sink/dead-letters.ndjson")).unwrap();
    let dead = custody_core::delivery::DeadLetter::new(20, "log.sealed", "400");
    drop(letters.add(vec![dead]).unwrap());
    let run = start(&story, &store);
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (2, 0), "{report:?}");
    for _ in 0..2 {
        run.control.replay(20..31).await.unwrap();
        run.replayed().await;
    }
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (0, 2), "{report:?}");
    assert_eq!(refused(&story), [(20, 1), (30, 1)], "once");
    run.stop().await;
}

/// Whoever has lost the position of a sink with many dead letters must not wait for as many passes over the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_read_once_however_many_batches_are_refused_again() {
    let mut story = Story::with(700).await;
    let store = Arc::new(Store { refuses: |index| index % 10 == 3, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    run.stop().await;
    let told = refused(&story);
    std::fs::remove_file(story.dir.path().join("sink/position.json")).unwrap();
    let log = Damaged::log_of(&mut story);
    let run = start(&story, &store);
    run.delivered(&story).await;
    let (read, size) = (log.read.load(Relaxed), story.log.size());
    assert!(read < 3 * size, "{read} entries of a log of {size}");
    assert!(told.len() >= 70 && refused(&story) == told, "none is told again");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_the_log_does_not_take_is_told_later() {
    let story = Story::with(20).await;
    refuses_next(&story).await;
    let store = Arc::new(Store { refuses: |index| index == 3, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    assert_eq!(refused(&story), [(3, 1)]);
    assert!(store.times().values().all(|times| *times == 1), "{:?}", store.times());
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_the_log_does_not_take_is_told_later() {
    let story = Story::with(5).await;
    refuses_next(&story).await;
    let store = Arc::new(Store::new(1));
    store.hangs.store(true, Relaxed);
    let run = start(&story, &store);
    let stalls = |what: &Payload| matches!(what, Payload::SinkStalled(_));
    until("it is told that it stalls", || events(&story).iter().any(stalls)).await;
    run.stop().await;
}

/// As behind a wrong key: it goes on, so that nobody can hold up what others do by events that are refused, but not without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_refuses_each_event_is_told_and_passed_over() {
    let story = Story::with(40).await;
    let store = Arc::new(Store { refuses: |index| index < 100, says_which: false, ..Store::new(1) });
    let run = start(&story, &store);
    let stalls = |what: &Payload| matches!(what, Payload::SinkStalled(told) if told.reason == "it refuses each event: one of them");
    until("the log tells of it", || events(&story).iter().any(stalls)).await;
    story.tell(80).await;
    until("the log tells that something was taken", || {
        events(&story).iter().any(|what| matches!(what, Payload::SinkResumed(_)))
    })
    .await;
    run.delivered(&story).await;
    assert_eq!(run.control.health().numbers().dead_letters, 100);
    run.stop().await;
}
