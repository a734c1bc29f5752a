//! Proofs of long logs, and of logs that grow meanwhile: what is wrong with single documents is in the delivery's tests.

mod replaced;

use super::*;
use crate::delivery::{Delivery, Parts};
use crate::filter::Filter;
use crate::redaction::Redaction;
use crate::sink::{Answer, Limits, Trouble};
use crate::testing::Story;
use custody_core::event::{Actor, Draft, log};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::watch;

/// How many documents are shown at once, as OpenSearch has a limit.
const SHOWN_MAX: usize = 3_000;

/// A store that doesn't show much at once.
#[derive(Default)]
struct Shelf {
    documents: Mutex<Vec<Held>>,
    /// The longest answer that was asked for.
    longest: AtomicUsize,
    /// So often it says that it is still reading.
    turns: AtomicUsize,
    /// Why it may hold more than it shows.
    hides: Mutex<Option<String>>,
}

impl Sink for Shelf {
    type Encoded = Held;

    fn limits(&self) -> Limits {
        Limits { linger: Duration::from_millis(1), ..Limits::default() }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        Ok(())
    }

    fn encode(&self, item: &Item) -> Result<Held, String> {
        Ok(Held {
            index: Some(item.index),
            leaf: Some(item.leaf),
            original: Some(item.bytes.to_vec()),
            appended: Some(item.appended),
            document: None,
        })
    }

    fn bytes(encoded: &Held) -> usize {
        encoded.original.as_ref().map_or(0, Vec::len)
    }

    async fn send(&self, batch: &[&Held]) -> Result<Vec<Answer>, Trouble> {
        self.documents.lock().unwrap().extend(batch.iter().copied().cloned());
        Ok(vec![Answer::Stored; batch.len()])
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        if self.turns.fetch_update(Relaxed, Relaxed, |turns| turns.checked_sub(1)).is_ok() {
            return Err(Unproven::Unfinished("it is still being read".to_owned()));
        }
        let documents = self.documents.lock().unwrap();
        let within = |held: &&Held| {
            held.index.is_some_and(|index| window.indexes.contains(&index))
                || held.appended.is_some_and(|appended| window.appended.contains(&appended))
        };
        let found: Vec<Held> = documents.iter().filter(within).cloned().collect();
        self.longest.fetch_max(found.len(), Relaxed);
        if found.len() > SHOWN_MAX {
            return Err(Unproven::Now(format!("it shows {SHOWN_MAX} of {} documents", found.len())));
        }
        Ok(Found { documents: found, perhaps_more: self.hides.lock().unwrap().clone() })
    }
}

/// A log that is delivered to a shelf.
struct Delivered {
    story: Story,
    shelf: Arc<Shelf>,
    control: Control<Shelf>,
    _stop: watch::Sender<bool>,
}

async fn delivered(events: u64) -> Delivered {
    let story = Story::with(1).await;
    grow(&story, events).await;
    delivered_of(story).await
}

async fn delivered_of(story: Story) -> Delivered {
    let shelf = Arc::new(Shelf::default());
    let parts = Parts {
        name: "shelf".to_owned(),
        sink: Arc::clone(&shelf),
        log: Arc::clone(&story.log),
        producer: Arc::clone(&story.producer),
        filter: Filter::default(),
        redaction: Redaction::default(),
        directory: story.dir.path().join("sink"),
        stall: Duration::MAX,
    };
    let delivery = Delivery::open(parts).unwrap();
    let (control, inbox) = delivery.control(false);
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(delivery.run(inbox, stopping));
    let delivered = Delivered { story, shelf, control, _stop: stop };
    delivered.catches_up().await;
    delivered
}

async fn grow(story: &Story, events: u64) {
    for n in 0..events / 500 {
        let drafts: Vec<_> =
            (0..500).map(|k| Draft::new(Actor::system("test"), log::Sealed { size: n * 500 + k })).collect();
        drop(story.producer.append(drafts).await.unwrap());
    }
}

impl Delivered {
    async fn catches_up(&self) {
        let begun = Instant::now();
        while self.control.health().numbers().next < self.story.log.size()
            || self.control.replaying().await.unwrap().is_some()
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain until all is delivered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_repair_brings_all_that_is_missing() {
    let all = delivered(6_000).await;
    let size = all.story.log.size();
    all.shelf.documents.lock().unwrap().retain(|held| !(500..5_500).contains(&held.index.unwrap()));
    let report = prove(&all.control, size, |_| ()).await.unwrap();
    assert_eq!(report.missing.count, 5_000);
    assert_eq!(report.to_repair, vec![Range { start: 500, end: 5_500 }]);
    all.control.replay(500..5_500).await.unwrap();
    all.catches_up().await;
    let report = prove(&all.control, size, |_| ()).await.unwrap();
    assert!(report.is_proven() && report.proven == size, "{:?}", report.missing.count);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_a_log_is_proven_however_much_came_afterwards() {
    let all = delivered(8_000).await;
    let size = 1_000;
    let report = prove(&all.control, size, |_| ()).await.unwrap();
    assert!(report.is_proven() && report.proven == size, "{report:?}");
    assert!(all.shelf.longest.load(Relaxed) <= WINDOW_EVENTS, "no answer is longer than a window");

    // What doesn't belong there is found all the same.
    {
        let mut documents = all.shelf.documents.lock().unwrap();
        let late = documents.iter().find(|held| held.index == Some(7_500)).unwrap().clone();
        documents.push(Held { index: None, ..late.clone() });
        documents.push(Held { index: Some(999_999), ..late.clone() });
        documents.push(Held { index: Some(999_999), ..late.clone() });
        documents.push(Held { index: Some(7), ..late });
    }
    let report = prove(&all.control, size, |_| ()).await.unwrap();
    // One that shows by its index and by its time is one, and two that claim the same are two.
    let extra: Vec<_> = report.extra.first.iter().map(|finding| finding.index).collect();
    assert_eq!(extra.iter().filter(|index| **index == Some(999_999)).count(), 2, "{report:?}");
    assert_eq!((report.extra.count, extra.len()), (4, 4), "{report:?}");
    for index in [None, Some(999_999), Some(7)] {
        assert!(report.extra.first.iter().any(|finding| finding.index == index), "{report:?}");
    }
    assert!(report.unproven.is_empty(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_while_it_is_compared_is_proven() {
    let all = delivered(1_000).await;
    let size = all.story.log.size();
    let mut grown = false;
    let told = |_| {
        if !std::mem::replace(&mut grown, true) {
            let growing = async {
                grow(&all.story, 8_000).await;
                all.catches_up().await;
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(growing));
        }
    };
    let report = prove(&all.control, size, told).await.unwrap();
    assert!(report.is_proven() && report.proven == size, "{report:?}");
    assert!(all.shelf.longest.load(Relaxed) <= WINDOW_EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_comparison_goes_on_at_a_time_and_what_takes_several_turns_is_proven() {
    let all = delivered(2_000).await;
    let size = all.story.log.size();
    all.shelf.turns.store(40, Relaxed);
    let (mut second, mut first_told) = (None, false);
    let told = |_| {
        if !std::mem::replace(&mut first_told, true) {
            let asked = prove(&all.control, size, |_| ());
            second = Some(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asked)));
        }
    };
    let report = prove(&all.control, size, told).await.unwrap();
    assert!(report.is_proven() && report.proven == size, "{report:?}");
    assert!(matches!(second, Some(Err(ProofError::Busy))), "{second:?}");
    assert!(prove(&all.control, size, |_| ()).await.unwrap().is_proven());
}

/// Where a destination keeps events for a shorter time than the log, what is older is left out of the comparison, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_log_is_proven_where_what_is_older_is_gone() {
    let all = delivered(3_000).await;
    let size = all.story.log.size();
    all.shelf.documents.lock().unwrap().retain(|held| held.index.unwrap() >= 1_200);
    let part = async |from| prove_part(&all.control, from..size, |_| ()).await.unwrap();
    assert_eq!(prove(&all.control, size, |_| ()).await.unwrap().missing.count, 1_200);
    // Those of one batch have times that follow each other, or one.
    let report = part(1_700).await;
    assert!(report.is_proven() && report.from <= 1_700 && report.from >= 1_200, "{report:?}");
    assert_eq!(report.proven, size - report.from);
    all.shelf.documents.lock().unwrap().retain(|held| held.index != Some(2_000));
    let report = part(1_700).await;
    assert_eq!((report.missing.count, report.to_repair), (1, vec![Range { start: 2_000, end: 2_001 }]));
}

/// Where all that is wanted shows once, a second copy may be what doesn't show.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_proven_to_be_there_once_where_copies_may_not_show() {
    let all = delivered(4_000).await;
    let size = all.story.log.size();
    *all.shelf.hides.lock().unwrap() = Some("it is looking".to_owned());
    let report = prove_where(&all.control, 0..size, true, |_| ()).await.unwrap();
    assert!(!report.is_proven() && report.proven == size, "{report:?}");
    let reason = "copies or strangers may not show: it is looking".to_owned();
    let all_of_it = Unshown { from: 0, to: u64::MAX, reason };
    assert_eq!(report.unproven, [all_of_it], "one row, with what comes behind");
    // Behind the part that was asked for.
    let report = prove_where(&all.control, 0..10, true, |_| ()).await.unwrap();
    assert!(!report.is_proven() && report.unproven[0].to == u64::MAX, "{report:?}");
    // What isn't visible yet is missed, or isn't.
    let report = prove_where(&all.control, 0..size, false, |_| ()).await.unwrap();
    assert!(report.is_proven(), "{report:?}");
    all.shelf.documents.lock().unwrap().retain(|held| held.index != Some(7));
    let report = prove_where(&all.control, 0..size, false, |_| ()).await.unwrap();
    assert!(!report.is_proven() && report.missing.count == 0, "{report:?}");
    assert_eq!(report.unproven[0].reason, "1 events don't show: it is looking");
}
