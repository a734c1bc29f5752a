//! A log that doesn't take what a delivery has to tell: it is told later, and nothing moves over it.

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

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_the_log_does_not_take_is_told_later() {
    let story = Story::with(20).await;
    refuses_next(&story).await;
    let store = Arc::new(Store { refuses: |index| index == 3, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    let told = events(&story).into_iter().filter_map(|payload| match payload {
        Payload::SinkRejected(told) => Some((told.first, told.count)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(3, 1)]);
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
