//! An orderly end in the middle of something: nothing is sent twice for it, and nothing new is begun.

use super::*;
use custody_core::clock::{Clock, ManualClock};
use custody_core::event::{Draft, ProducerKind, producer};
use custody_core::log::Numbering;
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use std::sync::Condvar;

/// A clock that makes whoever asks it for the time wait: a log that asks it takes what it is given, and doesn't answer.
struct Gate {
    clock: ManualClock,
    is_shut: Lock<bool>,
    opened: Condvar,
}

/// Opens it again, also where a test fails.
struct Shut<'a>(&'a Gate);

impl Gate {
    fn shut(&self) -> Shut<'_> {
        *self.is_shut.lock().unwrap() = true;
        Shut(self)
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        *self.0.is_shut.lock().unwrap() = false;
        self.0.opened.notify_all();
    }
}

impl Clock for Gate {
    fn wall(&self) -> Nanos {
        let is_shut = self.is_shut.lock().unwrap();
        drop(self.opened.wait_while(is_shut, |is_shut| *is_shut).unwrap());
        self.clock.wall()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// A log that can be made to keep everybody waiting.
async fn story_behind_a_gate(entries: u64) -> (Story, Arc<Gate>) {
    let dir = tempfile::tempdir().unwrap();
    let signer = Arc::new(Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());
    let time = Nanos(1_764_000_000_000_000_000);
    let gate =
        Arc::new(Gate { clock: ManualClock::new(time), is_shut: Lock::new(false), opened: Condvar::new() });
    let options = Options::new(signer, Arc::clone(&gate) as Arc<dyn Clock>);
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
    let numbering = Numbering {
        log: Arc::clone(&log),
        // Whoever numbers doesn't wait.
        clock: Arc::new(ManualClock::new(time)),
        id: "custody".to_owned(),
        kind: ProducerKind::Log,
        previous: None,
        program: "test".to_owned(),
    };
    let nothing = Vec::<Draft<producer::Started>>::new();
    let producer = Arc::new(Producer::start(numbering, nothing).await.unwrap());
    let story = Story { dir, log, producer };
    story.tell(entries - 1).await;
    (story, gate)
}

fn refused(story: &Story) -> Vec<(u64, u64)> {
    let events = events(story);
    let told = events.iter().filter_map(|what| match what {
        Payload::SinkRejected(told) => Some((told.first, told.last)),
        _ => None,
    });
    told.collect()
}

/// Nothing that stalls is told to a log that doesn't answer.
fn never_stalling(story: &Story, store: &Arc<Store>) -> Delivery<Store> {
    Delivery { stall: Duration::MAX, ..delivery(story, store) }
}

/// The destination has answered, and the log doesn't: what was sent is in doubt at the next start, and not as good as never sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_the_log_was_not_told_in_time_is_not_sent_again() {
    let (story, gate) = story_behind_a_gate(5).await;
    let store = Arc::new(Store { refuses: |index| index == 6 || index == 8, ..Store::new(1) });
    let run = begin(never_stalling(&story, &store));
    run.delivered(&story).await;
    run.stop().await;
    // One batch of five, which is under way when the delivery is to end.
    let run = begin_held(never_stalling(&story, &store));
    story.tell(5).await;
    store.hangs.store(true, Relaxed);
    run.control.pause(false);
    until("it is under way", || run.control.health().numbers().retries > 0).await;
    let shut = gate.shut();
    run.stop.send_replace(true);
    store.hangs.store(false, Relaxed);
    until("two are refused", || run.control.health().numbers().dead_letters == 2).await;
    run.task.await.unwrap().unwrap();
    assert_eq!(story.log.size(), 10, "nobody was told");
    drop(shut);
    // Both were handed over together.
    until("the log has it", || refused(&story).len() == 2).await;

    let run = begin(never_stalling(&story, &store));
    run.delivered(&story).await;
    run.stop().await;
    assert!(store.times().values().all(|times| *times == 1), "{:?}", store.times());
    assert_eq!(refused(&story), [(6, 6), (8, 8)]);
}

/// Dead letters that lie far apart are sent one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_begins_nothing_new_when_the_delivery_ends() {
    let story = Story::with(400).await;
    let refusing = Arc::new(Store { refuses: |index| index == 5 || index == 390, ..Store::new(1) });
    let run = start(&story, &refusing);
    run.delivered(&story).await;
    run.stop().await;
    let documents = refusing.documents.lock().unwrap().clone();
    let store = Arc::new(Store { documents: Lock::new(documents), ..Store::new(1) });
    store.hangs.store(true, Relaxed);
    let run = start(&story, &store);
    let meanwhile = async {
        until("the first is under way", || run.control.health().numbers().retries > 0).await;
        run.stop.send_replace(true);
        store.hangs.store(false, Relaxed);
    };
    let (redriven, ()) = tokio::join!(run.control.redrive(), meanwhile);
    assert_eq!(redriven.unwrap_err(), "the delivery was ended meanwhile: 1 dead letters are left");
    run.task.await.unwrap().unwrap();
    assert_eq!((store.times().get(&5), store.times().get(&390)), (Some(&1), None));
}
