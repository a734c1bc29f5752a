//! Replays and redrives: beside what is new, one of them at a time, and not for ever.

use super::*;
use custody_core::delivery::Errand;

/// A log of fifty events that the store has, but for number 20, which it refuses.
async fn delivered() -> (Story, Arc<Store>, Run) {
    delivered_but_for(|index| index == 20).await
}

async fn delivered_but_for(refuses: fn(u64) -> bool) -> (Story, Arc<Store>, Run) {
    let story = Story::with(50).await;
    let store = Arc::new(Store { refuses, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    (story, store, run)
}

/// Takes an event out of the store, and writes it into the file of dead letters.
fn forge(story: &Story, store: &Store, index: u64) {
    let mut letters = DeadLetters::open(&story.dir.path().join("sink/dead-letters.ndjson")).unwrap();
    letters.add(vec![custody_core::delivery::DeadLetter::new(index, "log.sealed", "400")]).unwrap();
    store.documents.lock().unwrap().retain(|document| document.index != index);
}

/// Longer than what counts as a stall.
async fn tries_in_vain(run: &Run) {
    let before = run.control.health().numbers().retries;
    until("it has been tried for long", || run.control.health().numbers().retries >= before + 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_cannot_end_holds_up_nothing_and_can_be_cancelled() {
    let (story, store, run) = delivered().await;
    store.hidden_below.store(50, Relaxed);
    run.control.replay(0..50).await.unwrap();
    tries_in_vain(&run).await;
    story.tell(60).await;
    run.delivered(&story).await;
    let numbers = run.control.health().numbers();
    assert_eq!((numbers.trouble, numbers.replay_trouble.as_deref()), (None, Some("it is hidden")));
    assert!(!events(&story).iter().any(|what| matches!(what, Payload::SinkStalled(_))));

    // Two at once would both find an event absent, and send it.
    for refused in [run.control.redrive().await.map(drop), run.control.replay(0..5).await] {
        assert!(refused.unwrap_err().contains("a replay is under way"));
    }
    assert_eq!(run.control.replaying().await.unwrap(), Some(0..50));
    assert_eq!(run.control.cancel().await, Ok(()));
    assert!(run.control.cancel().await.unwrap_err().contains("neither"));
    let numbers = run.control.health().numbers();
    assert_eq!((numbers.replay_trouble, numbers.replays), (None, 0));
    run.stop().await;

    let run = start(&story, &store);
    assert_eq!(run.control.replaying().await.unwrap(), None, "also after a restart");
    store.hidden_below.store(0, Relaxed);
    store.documents.lock().unwrap().retain(|document| document.index != 7);
    run.control.replay(0..50).await.unwrap();
    run.replayed().await;
    assert_eq!(run.control.health().numbers().replays, 1);
    assert!(store.times().values().all(|times| *times == 1) && store.times().contains_key(&7));
    run.stop().await;
}

/// Whoever asked for it would take it for one that can't go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_only_takes_long_is_no_trouble() {
    let story = Story::with(50).await;
    let (part, timeout) = (Duration::from_millis(5), Duration::from_secs(20));
    let store = Arc::new(Store { part, timeout, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    let left = u64::MAX / 2;
    store.parts.store(left, Relaxed);
    run.control.replay(0..50).await.unwrap();
    // Longer than what counts as a stall.
    until("it has been read for long", || {
        let numbers = run.control.health().numbers();
        assert_eq!((numbers.trouble, numbers.replay_trouble), (None, None));
        store.parts.load(Relaxed) <= left - 200
    })
    .await;
    assert_eq!(run.control.replaying().await.unwrap(), Some(0..50));
    store.parts.store(0, Relaxed);
    run.replayed().await;
    assert_eq!(run.control.health().numbers().replays, 1);
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_cannot_end_holds_up_nothing_and_can_be_cancelled() {
    let (story, store, run) = delivered().await;
    store.hidden_below.store(50, Relaxed);
    let meanwhile = async {
        while run.control.errand().await.unwrap() != Some(Errand::Redrive) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = run.control.replay(0..50).await.unwrap_err();
        assert!(refused.contains("dead letters are being sent again"), "{refused}");
        story.tell(60).await;
        run.delivered(&story).await;
        assert_eq!(run.control.cancel().await, Ok(()));
    };
    let (redriven, ()) = tokio::join!(run.control.redrive(), meanwhile);
    assert_eq!(redriven.unwrap_err(), "it was cancelled: 1 dead letters are left");
    assert_eq!(run.control.errand().await.unwrap(), None);
    store.hidden_below.store(0, Relaxed);
    assert_eq!(run.control.redrive().await, Ok(1), "it is refused as before");
    run.stop().await;
}

/// An altered event between two that are missing stays what it is: altered, and once the forgery is gone, missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_an_events_place_makes_no_dead_letter_of_a_repair() {
    let (_story, store, run) = delivered().await;
    {
        let mut documents = store.documents.lock().unwrap();
        documents.retain(|document| document.index != 30 && document.index != 45);
        documents.iter_mut().find(|document| document.index == 40).unwrap().bytes = b"forged".to_vec();
        store.taken.lock().unwrap().push(40);
    }
    run.control.replay(30..46).await.unwrap();
    run.replayed().await;
    let dead = run.control.dead_letters().await.unwrap();
    assert_eq!(dead.iter().map(|letter| letter.index).collect::<Vec<_>>(), [20]);
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.altered.count, report.missing.count, report.rejected), (1, 0, 1), "{report:?}");
    store.documents.lock().unwrap().retain(|document| document.index != 40);
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.altered.count, report.missing.count, report.rejected), (0, 1, 1), "{report:?}");
    run.stop().await;
}

/// The file of dead letters is under no hash: what the log doesn't tell of isn't known to be refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_somebody_else_wrote_hides_nothing() {
    let (story, store, run) = delivered().await;
    run.stop().await;
    forge(&story, &store, 30);
    let run = start(&story, &store);
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (1, 1), "{report:?}");
    assert_eq!(report.missing.first[0].index, Some(30));
    run.stop().await;
}

/// Nor is what lies between two of which the log tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_between_two_that_were_refused_hides_nothing() {
    let (story, store, run) = delivered_but_for(|index| index == 21 || index == 23).await;
    run.stop().await;
    forge(&story, &store, 22);
    let run = start(&story, &store);
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (1, 2), "{report:?}");
    run.stop().await;
}

/// Else who deletes it later finds that it counts as refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_arrives_by_a_replay_is_none_any_more() {
    let (story, refusing, run) = delivered().await;
    run.stop().await;
    let documents = refusing.documents.lock().unwrap().clone();
    let store = Arc::new(Store { documents: Lock::new(documents), ..Store::new(1) });
    let run = start(&story, &store);
    run.control.replay(0..50).await.unwrap();
    run.replayed().await;
    assert!(run.control.dead_letters().await.unwrap().is_empty());
    assert_eq!(run.control.health().numbers().dead_letters, 0);
    assert!(prove(&run.control, 50, |_| ()).await.unwrap().is_proven());
    store.documents.lock().unwrap().retain(|document| document.index != 20);
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (1, 0), "{report:?}");
    run.stop().await;
}

/// Nobody can have been sent what wasn't there when the delivery ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_after_a_restart_is_not_looked_up() {
    let (story, store, run) = delivered().await;
    run.stop().await;
    let run = start(&story, &store);
    story.tell(30).await;
    run.delivered(&story).await;
    assert_eq!(run.control.health().numbers().looked_up, 0);
    run.stop().await;
}

/// It isn't sent, and so it hasn't arrived.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_the_filter_holds_back_by_now_stays_one() {
    let (story, refusing, run) = delivered().await;
    run.stop().await;
    let documents = refusing.documents.lock().unwrap().clone();
    let store = Arc::new(Store { documents: Lock::new(documents), ..Store::new(1) });
    let filter = Filter { exclude: vec!["log.sealed".into()], ..Filter::default() };
    let run = begin(filtered(&story, &store, filter));
    assert_eq!(run.control.redrive().await, Ok(1));
    assert_eq!(run.control.dead_letters().await.unwrap().len(), 1);
    assert!(!store.times().contains_key(&20));
    run.stop().await;
    let run = start(&story, &store);
    assert_eq!(run.control.redrive().await, Ok(0));
    assert!(store.times().contains_key(&20));
    run.stop().await;
}

/// As long as somebody moves the store, say.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_sink_is_sent_no_dead_letters_until_it_is_released() {
    let (story, refusing, run) = delivered_but_for(|index| index == 5 || index == 20).await;
    run.stop().await;
    let documents = refusing.documents.lock().unwrap().clone();
    let store = Arc::new(Store { documents: Lock::new(documents), ..Store::new(1) });
    let run = begin_held(delivery(&story, &store));
    let meanwhile = async {
        while run.control.errand().await.unwrap() != Some(Errand::Redrive) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // They would be sent at once.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((store.encoded.load(Relaxed), store.prepared.load(Relaxed)), (0, 0));
        assert_eq!(run.control.errand().await, Ok(Some(Errand::Redrive)), "it waits");
        run.control.pause(false);
    };
    let (redriven, ()) = tokio::join!(run.control.redrive(), meanwhile);
    assert_eq!(redriven, Ok(0));
    assert!(store.times().contains_key(&5) && store.times().contains_key(&20));
    // It can be ended meanwhile.
    run.control.pause(true);
    run.control.replay(0..50).await.unwrap();
    assert_eq!(run.control.cancel().await, Ok(()));
    run.stop().await;
}

/// Else a person mends for ever what isn't wrong any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_says_why_it_was_refused_last() {
    let (story, refusing, run) = delivered().await;
    run.stop().await;
    let documents = refusing.documents.lock().unwrap().clone();
    let store = |says_which| {
        let documents = Lock::new(documents.clone());
        Arc::new(Store { documents, refuses: |index| index == 20, says_which, ..Store::new(1) })
    };
    let reason = async |run: &Run| run.control.dead_letters().await.unwrap()[0].reason.clone();
    let run = start(&story, &store(false));
    assert_eq!(reason(&run).await, "400");
    assert_eq!(run.control.redrive().await, Ok(1));
    assert_eq!(reason(&run).await, "one of them");
    run.stop().await;
    // By a replay as well, and there is one line of it.
    let run = start(&story, &store(true));
    assert_eq!(reason(&run).await, "one of them");
    run.control.replay(0..50).await.unwrap();
    run.replayed().await;
    assert_eq!(reason(&run).await, "400");
    run.stop().await;
    let lines = std::fs::read_to_string(story.dir.path().join("sink/dead-letters.ndjson")).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
}
