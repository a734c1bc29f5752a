//! The loop against a destination that does to it whatever a destination can do.
#![allow(clippy::disallowed_methods, reason = "what a test damages needn't last")]

mod errands;
mod held_up;
mod lengths;
mod letters;
mod standing;
mod stopped;
mod telling;
mod turns;
mod unreadable;
mod waits;

use super::*;
use crate::proof::prove;
use crate::sink::{Answer, Found, Held, Limits, Trouble, Unproven, Window};
use crate::testing::{Story, events, until};
use custody_core::clock::Nanos;
use custody_core::event::Payload;
use custody_core::log::Hash;
use custody_core::log::tree::leaf_hash;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[derive(Clone)]
struct Document {
    index: u64,
    appended: Nanos,
    leaf: Hash,
    bytes: Vec<u8>,
}

/// A store that keeps each copy that it gets, as the worst of them do.
struct Store {
    documents: Lock<Vec<Document>>,
    random: Lock<Random>,
    /// Of a hundred sendings and look-ups so many go wrong.
    faults: AtomicU64,
    /// Refuses these for what they are.
    refuses: fn(u64) -> bool,
    /// Whether it says which one it refuses.
    says_which: bool,
    bytes_max: usize,
    /// Says that it is busy to more bytes than that, however often.
    burst: usize,
    reads_back: bool,
    /// So many documents of a window, or none.
    shows_max: usize,
    /// Says of these that something is there already.
    taken: Lock<Vec<u64>>,
    /// What lies below can't be shown.
    hidden_below: AtomicU64,
    /// So many times it has read a part only of what it is asked for.
    parts: AtomicU64,
    /// How long it reads each part.
    part: Duration,
    /// How long an answer may take.
    timeout: Duration,
    /// Answers nothing at all.
    hangs: AtomicBool,
    /// How long each byte takes, in microseconds.
    slow: AtomicU64,
    prepared: AtomicU64,
    /// Events that were read for it.
    encoded: AtomicU64,
}

impl Store {
    fn new(seed: u64) -> Self {
        Self {
            documents: Lock::default(),
            random: Lock::new(Random(seed)),
            faults: AtomicU64::new(0),
            refuses: |_| false,
            says_which: true,
            bytes_max: usize::MAX,
            burst: usize::MAX,
            reads_back: true,
            shows_max: usize::MAX,
            taken: Lock::default(),
            hidden_below: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            part: Duration::ZERO,
            timeout: Duration::from_millis(300),
            hangs: AtomicBool::new(false),
            slow: AtomicU64::new(0),
            prepared: AtomicU64::new(0),
            encoded: AtomicU64::new(0),
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.random.lock().unwrap().below(n)
    }

    fn goes_wrong(&self) -> bool {
        self.below(100) < self.faults.load(Relaxed)
    }

    fn keep<'a>(&self, documents: impl IntoIterator<Item = &'a Document>) {
        self.documents.lock().unwrap().extend(documents.into_iter().cloned());
    }

    fn times(&self) -> BTreeMap<u64, u64> {
        let mut times = BTreeMap::new();
        for document in self.documents.lock().unwrap().iter() {
            *times.entry(document.index).or_default() += 1;
        }
        times
    }
}

impl Sink for Store {
    type Encoded = Document;

    fn limits(&self) -> Limits {
        Limits {
            batch_events: 7,
            batch_bytes: 1 << 20,
            in_flight: 3,
            linger: Duration::from_millis(1),
            timeout: self.timeout,
            ..Limits::default()
        }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        if self.goes_wrong() {
            return Err(Trouble::Refused { reason: "not now".into(), retry_after: None });
        }
        self.prepared.fetch_add(1, Relaxed);
        Ok(())
    }

    fn encode(&self, item: &Item) -> Result<Document, String> {
        self.encoded.fetch_add(1, Relaxed);
        if item.bytes.is_empty() {
            return Err("nothing in it".into());
        }
        Ok(Document {
            index: item.index,
            appended: item.appended,
            leaf: item.leaf,
            bytes: item.bytes.to_vec(),
        })
    }

    fn bytes(encoded: &Document) -> usize {
        encoded.bytes.len()
    }

    async fn send(&self, batch: &[&Document]) -> Result<Vec<Answer>, Trouble> {
        if self.hangs.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        let bytes = batch.iter().map(|document| document.bytes.len()).sum::<usize>();
        let slow = self.slow.load(Relaxed);
        if slow > 0 {
            tokio::time::sleep(Duration::from_micros(slow) * u32::try_from(bytes).unwrap()).await;
        }
        if bytes > self.bytes_max {
            return Err(Trouble::TooLarge { reason: "413".into() });
        }
        if bytes > self.burst {
            return Err(Trouble::Refused { reason: "429".into(), retry_after: None });
        }
        if !self.says_which && batch.iter().any(|document| (self.refuses)(document.index)) {
            // As Loki does it: the good ones are stored all the same.
            self.keep(batch.iter().filter(|document| !(self.refuses)(document.index)).copied());
            return Err(Trouble::Poisoned { reason: "one of them".into() });
        }
        if self.goes_wrong() {
            let part = usize::try_from(self.below(batch.len() as u64 + 1)).unwrap();
            return match self.below(5) {
                0 => Err(Trouble::Refused { reason: "busy".into(), retry_after: Some(Duration::ZERO) }),
                1 => {
                    self.keep(batch.iter().take(part).copied());
                    Err(Trouble::unclear("the connection broke"))
                }
                2 => {
                    self.keep(batch.iter().copied());
                    Err(Trouble::unclear("the answer is lost"))
                }
                3 => {
                    self.keep(batch.iter().take(part).copied());
                    let answer = |n| if n < part { Answer::Stored } else { Answer::Later("429".into()) };
                    Ok((0..batch.len()).map(answer).collect())
                }
                _ => {
                    // All are stored, and it doesn't know that of some.
                    self.keep(batch.iter().copied());
                    let answer = |n| if n < part { Answer::Stored } else { Answer::Unclear("503".into()) };
                    Ok((0..batch.len()).map(answer).collect())
                }
            };
        }
        let answer = |document: &&Document| match document.index {
            index if (self.refuses)(index) => Answer::Rejected("400".into()),
            index if self.taken.lock().unwrap().contains(&index) => Answer::Exists,
            _ => Answer::Stored,
        };
        self.keep(batch.iter().filter(|document| answer(document) == Answer::Stored).copied());
        Ok(batch.iter().map(answer).collect())
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        if !self.reads_back {
            return Err(Unproven::Never("it is a pipe"));
        }
        if self.goes_wrong() {
            return Err(Unproven::Now("a shard is missing".into()));
        }
        if window.indexes.start < self.hidden_below.load(Relaxed) {
            return Err(Unproven::Now("it is hidden".into()));
        }
        if self.parts.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            tokio::time::sleep(self.part).await;
            return Err(Unproven::Unfinished("it is still being read".into()));
        }
        let documents = self.documents.lock().unwrap();
        let within = documents.iter().filter(|document| {
            window.indexes.contains(&document.index) || window.appended.contains(&document.appended)
        });
        let held = |document: &Document| Held {
            index: Some(document.index),
            leaf: Some(document.leaf),
            original: Some(document.bytes.clone()),
            appended: Some(document.appended),
            document: None,
        };
        let shown: Vec<Held> = within.map(held).collect();
        if shown.len() > self.shows_max {
            return Err(Unproven::Now(format!("it shows {} of {} documents", self.shows_max, shown.len())));
        }
        Ok(shown.into())
    }
}

fn delivery<S: Sink>(story: &Story, store: &Arc<S>) -> Delivery<S> {
    filtered(story, store, Filter::default())
}

fn filtered<S: Sink>(story: &Story, store: &Arc<S>, filter: Filter) -> Delivery<S> {
    let parts = Parts {
        name: "store".to_owned(),
        sink: Arc::clone(store),
        log: Arc::clone(&story.log),
        producer: Arc::clone(&story.producer),
        filter,
        redaction: Redaction::default(),
        directory: story.dir.path().join("sink"),
        stall: Duration::from_millis(700),
    };
    Delivery::open(parts).unwrap()
}

struct Run<S = Store> {
    control: Control<S>,
    task: tokio::task::JoinHandle<Result<(), Stopped>>,
    stop: watch::Sender<bool>,
}

fn start<S: Sink>(story: &Story, store: &Arc<S>) -> Run<S> {
    begin(delivery(story, store))
}

fn begin<S: Sink>(delivery: Delivery<S>) -> Run<S> {
    begin_where(delivery, false)
}

fn begin_held(delivery: Delivery<Store>) -> Run {
    begin_where(delivery, true)
}

fn begin_where<S: Sink>(delivery: Delivery<S>, is_held: bool) -> Run<S> {
    let (control, inbox) = delivery.control(is_held);
    let (stop, stopping) = watch::channel(false);
    Run { control, task: tokio::spawn(delivery.run(inbox, stopping)), stop }
}

impl<S: Sink> Run<S> {
    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }

    async fn replayed(&self) {
        while self.control.replaying().await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn delivered(&self, story: &Story) {
        until("everything is delivered", || self.control.health().numbers().next == story.log.size()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_once_whatever_goes_wrong() {
    for seed in 0..4 {
        let story = Story::with(120).await;
        let store = Arc::new(Store { bytes_max: 1_500, ..Store::new(seed) });
        store.faults.store(30, Relaxed);
        for round in 0..12 {
            let run = start(&story, &store);
            story.tell(10).await;
            tokio::time::sleep(Duration::from_millis(store.below(60))).await;
            if round % 3 == 2 {
                run.stop().await;
            } else {
                // As kill -9 would: nothing is said any more.
                run.task.abort();
                assert!(run.task.await.is_err_and(|error| error.is_cancelled()));
                // What it had under way ends a moment later, and until then may still store something.
                drop(run.control);
                until("nothing of it is left", || Arc::strong_count(&store) == 1).await;
            }
        }
        store.faults.store(5, Relaxed);
        let run = start(&story, &store);
        run.delivered(&story).await;
        store.faults.store(0, Relaxed);
        let size = story.log.size();
        let report = prove(&run.control, size, |_| ()).await.unwrap();
        assert!(report.is_proven() && report.proven == size, "seed {seed}: {report:?}");
        assert!(store.times().values().all(|times| *times == 1), "seed {seed}: {:?}", store.times());
        run.stop().await;
    }
}

/// Where a disk is full, or its directory is gone, a delivery stands still, says so, and goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_whose_files_cannot_be_written_goes_on_when_they_can() {
    let story = Story::with(60).await;
    let store = Arc::new(Store { refuses: |index| index == 70, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    let (directory, aside) = (story.dir.path().join("sink"), story.dir.path().join("aside"));
    std::fs::rename(&directory, &aside).unwrap();
    // What is no directory keeps even root from writing into it.
    std::fs::write(&directory, "").unwrap();
    story.tell(30).await;
    let stalls = |what: &Payload| matches!(what, Payload::SinkStalled(_));
    until("the log tells of it", || events(&story).iter().any(stalls)).await;
    let numbers = run.control.health().numbers();
    assert!(numbers.trouble.is_some_and(|trouble| trouble.contains("sink")), "{:?}", run.control.health());
    let asked = run.control.dead_letters().await.unwrap_err();
    assert!(asked.contains("the sink store stands still: "), "{asked}");
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(&aside, &directory).unwrap();
    run.delivered(&story).await;
    until("the log tells that it goes on", || {
        events(&story).iter().any(|what| matches!(what, Payload::SinkResumed(_)))
    })
    .await;
    run.delivered(&story).await;
    assert!(run.control.dead_letters().await.unwrap().iter().any(|letter| letter.index == 70));
    assert!(store.times().values().all(|times| *times == 1), "{:?}", store.times());
    run.stop().await;
}

/// What can't be its own file any more ends it, and that is told too.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_whose_position_is_damaged_while_it_runs_ends_and_says_so() {
    let story = Story::with(10).await;
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    let directory = story.dir.path().join("sink");
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::write(&directory, "").unwrap();
    story.tell(10).await;
    until("it has trouble", || run.control.health().numbers().trouble.is_some()).await;
    std::fs::remove_file(&directory).unwrap();
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("position.json"), "{").unwrap();
    let Run { control, task, stop: _stop } = run;
    let error = task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(control.health().numbers().trouble.unwrap().contains("damaged"));
    assert!(
        events(&story)
            .iter()
            .any(|what| matches!(what, Payload::SinkStalled(told) if told.reason.contains("sink")))
    );
}

/// What somebody else has put into an event's place, and what claims its index, keeps it from nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_only_claims_an_index_is_not_taken_for_the_event() {
    let story = Story::with(40).await;
    let store = Arc::new(Store::new(1));
    let entries = story.log.read(0, 40, usize::MAX).unwrap();
    // A new sink of an old log asks for everything first.
    for entry in entries.iter().filter(|entry| entry.index % 4 == 0) {
        let bytes = if entry.index % 8 == 0 { b"forged".to_vec() } else { entry.bytes.to_vec() };
        let leaf = leaf_hash(&entry.bytes);
        store.keep(&[Document { index: entry.index, appended: entry.appended, leaf, bytes }]);
    }
    let run = start(&story, &store);
    run.delivered(&story).await;
    run.stop().await;
    for entry in entries {
        let documents = store.documents.lock().unwrap();
        let is = |document: &&Document| document.index == entry.index && document.bytes == *entry.bytes;
        assert_eq!(documents.iter().filter(is).count(), 1, "{}", entry.index);
    }
}

/// Dead letters that lie far apart are asked for by themselves: a store shows so many documents at once, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_lie_far_apart_arrive() {
    let story = Story::with(2_000).await;
    let store =
        Arc::new(Store { refuses: |index| index == 5 || index == 1_900, shows_max: 300, ..Store::new(1) });
    let run = start(&story, &store);
    until("they are refused", || run.control.health().numbers().dead_letters == 2).await;
    run.delivered(&story).await;
    run.stop().await;
    let kept = store.documents.lock().unwrap().clone();
    let store = Arc::new(Store { shows_max: 300, documents: Lock::new(kept), ..Store::new(1) });
    let run = start(&story, &store);
    assert_eq!(run.control.redrive().await, Ok(0));
    assert!(store.times().values().all(|times| *times == 1) && store.times().contains_key(&1_900));
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_a_dead_letter_and_told_once_and_the_others_arrive() {
    for says_which in [true, false] {
        let story = Story::with(60).await;
        let store = Arc::new(Store { refuses: |index| index % 10 == 3, says_which, ..Store::new(1) });
        let run = start(&story, &store);
        until("all are refused or stored", || run.control.health().numbers().next >= 60).await;
        let letters = run.control.dead_letters().await.unwrap();
        run.stop().await;
        let mut refused: Vec<u64> =
            letters.iter().map(|letter| letter.index).filter(|index| *index < 60).collect();
        // Two batches on their way come back in any order.
        refused.sort_unstable();
        assert_eq!(refused, [3, 13, 23, 33, 43, 53]);
        assert!((0..60).all(|index| store.times().get(&index).copied() == (index % 10 != 3).then_some(1)));
        let told: Vec<_> = events(&story)
            .into_iter()
            .filter_map(|payload| match payload {
                Payload::SinkRejected(told) => Some(told),
                _ => None,
            })
            .collect();
        // What tells of a sink may be refused too, and that isn't told again.
        assert_eq!(told.iter().map(|told| told.count).sum::<u64>(), 6, "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_was_not_told_before_a_crash_is_told_after_it() {
    let story = Story::with(5).await;
    let store = Arc::new(Store { refuses: |index| index == 3 || index == 4, ..Store::new(1) });
    // The crash came after the file and before the log.
    let directory = story.dir.path().join("sink");
    create_directories(&directory).unwrap();
    let mut letters = DeadLetters::open(&directory.join("dead-letters.ndjson")).unwrap();
    drop(letters.add(vec![custody_core::delivery::DeadLetter::new(3, "log.sealed", "400")]).unwrap());
    for _ in 0..2 {
        let run = start(&story, &store);
        run.delivered(&story).await;
        run.stop().await;
    }
    let told = events(&story).into_iter().filter_map(|payload| match payload {
        Payload::SinkRejected(told) => Some((told.first, told.last, told.count)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    // The one that stood in the file already, and another of the same batch: each once, in the log's order.
    assert_eq!(told, [(3, 4, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_when_it_lasts_and_when_it_ends() {
    let story = Story::with(5).await;
    let store = Arc::new(Store::new(1));
    store.hangs.store(true, Relaxed);
    let run = start(&story, &store);
    let stalled = |story: &Story| {
        events(story).iter().filter(|payload| matches!(payload, Payload::SinkStalled(_))).count()
    };
    until("it is told that it stalls", || stalled(&story) == 1).await;
    assert!(run.control.health().numbers().trouble.unwrap().contains("no answer"));
    store.hangs.store(false, Relaxed);
    run.delivered(&story).await;
    until("it is told that it goes on", || {
        events(&story).iter().any(|payload| matches!(payload, Payload::SinkResumed(_)))
    })
    .await;
    assert_eq!(stalled(&story), 1);
    assert!(store.prepared.load(Relaxed) >= 2, "it is made ready again after an outage");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_sink_delivers_nothing_and_then_everything() {
    let story = Story::with(5).await;
    let store = Arc::new(Store::new(1));
    let delivery = delivery(&story, &store);
    let (control, inbox) = delivery.control(true);
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(delivery.run(inbox, stopping));
    story.tell(5).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(store.times().is_empty());
    control.pause(false);
    until("all is delivered", || store.times().len() == 10).await;
    stop.send_replace(true);
    task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_batch_is_read_ahead_and_waits_while_the_sink_is_held() {
    let story = Story::with(100).await;
    let store = Arc::new(Store::new(1));
    store.hangs.store(true, Relaxed);
    let run = start(&story, &store);
    let Limits { batch_events, in_flight, .. } = store.limits();
    let under_way = (batch_events * in_flight) as u64;
    let read = under_way + batch_events as u64;
    until("one more is read than are under way", || store.encoded.load(Relaxed) >= read).await;
    run.control.pause(true);
    store.hangs.store(false, Relaxed);
    until("those arrive", || run.control.health().numbers().next >= under_way).await;
    // It would be sent at once.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(store.times().len() as u64, under_way);
    assert_eq!(store.encoded.load(Relaxed), read);
    run.control.pause(false);
    run.delivered(&story).await;
    assert_eq!(store.encoded.load(Relaxed), story.log.size(), "each is read once");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_sends_what_is_missing_and_a_redrive_what_was_refused() {
    let story = Story::with(50).await;
    let store = Arc::new(Store { refuses: |index| index == 20, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    let lost = |index: u64| (10..15).contains(&index) || index == 30;
    store.documents.lock().unwrap().retain(|document| !lost(document.index));
    let size = story.log.size();
    let report = prove(&run.control, size, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected, report.is_proven()), (6, 1, false));
    assert!(run.control.replay(0..size + 1).await.unwrap_err().contains("only what is delivered"));
    run.control.replay(0..size).await.unwrap();
    run.replayed().await;
    assert_eq!(store.times().range(..size).count() as u64, size - 1);
    assert!(store.times().values().all(|times| *times == 1));
    assert_eq!(run.control.redrive().await.unwrap(), 1, "it is refused as before");
    run.stop().await;

    // A replay goes on where it was after a crash; and what is taken now arrives.
    store.documents.lock().unwrap().retain(|document| !lost(document.index));
    let documents = std::mem::take(&mut *store.documents.lock().unwrap());
    let willing = Arc::new(Store { documents: Lock::new(documents), ..Store::new(2) });
    let run = start(&story, &willing);
    willing.hangs.store(true, Relaxed);
    run.control.replay(0..size).await.unwrap();
    run.task.abort();
    drop(run.task.await);
    willing.hangs.store(false, Relaxed);
    let run = start(&story, &willing);
    run.replayed().await;
    assert_eq!(willing.times().range(..size).count() as u64, size, "what was refused before too");
    assert_eq!(run.control.redrive().await.unwrap(), 0);
    assert!(run.control.dead_letters().await.unwrap().is_empty());
    run.delivered(&story).await;
    let report = prove(&run.control, story.log.size(), |_| ()).await.unwrap();
    assert!(report.is_proven(), "{report:?}");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tampering_is_named() {
    let story = Story::with(40).await;
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    {
        let mut documents = store.documents.lock().unwrap();
        documents.sort_by_key(|document| document.index);
        documents[5].bytes = b"{}".to_vec();
        // Bytes and hash, so that they fit each other.
        documents[6].bytes = b"{}".to_vec();
        documents[6].leaf = leaf_hash(b"{}");
        documents[7].appended = Nanos(documents[8].appended.0);
        let twice = documents[9].clone();
        documents.push(twice);
        documents.push(Document {
            index: 4_000,
            appended: Nanos(5),
            leaf: leaf_hash(b"x"),
            bytes: b"x".to_vec(),
        });
        documents.retain(|document| document.index != 11);
    }
    let report = prove(&run.control, story.log.size(), |_| ()).await.unwrap();
    let named = |findings: &custody_core::delivery::Findings| {
        findings.first.iter().map(|finding| finding.index.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(named(&report.missing), [11]);
    assert_eq!(named(&report.altered), [5, 6, 7]);
    assert_eq!(named(&report.duplicated), [9]);
    assert!(named(&report.extra).contains(&4_000), "{report:?}");
    assert!(!report.is_proven());
    assert_eq!(report.to_repair, vec![Range { start: 11, end: 12 }]);
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_shown_proves_nothing() {
    let story = Story::with(10).await;
    let store = Arc::new(Store { reads_back: false, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    let report = prove(&run.control, story.log.size(), |_| ()).await.unwrap();
    assert!(!report.is_proven() && report.missing.count == 0, "{report:?}");
    run.stop().await;

    let store = Arc::new(Store::new(1));
    let other = Story::with(10).await;
    let run = start(&other, &store);
    run.delivered(&other).await;
    store.faults.store(100, Relaxed);
    let report = prove(&run.control, other.log.size(), |_| ()).await.unwrap();
    assert!(!report.is_proven() && report.missing.count == 0 && !report.unproven.is_empty(), "{report:?}");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filter_and_redaction_are_known_to_the_proof() {
    let story = Story::with(10).await;
    let store = Arc::new(Store::new(1));
    let parts = Parts {
        name: "store".to_owned(),
        sink: Arc::clone(&store),
        log: Arc::clone(&story.log),
        producer: Arc::clone(&story.producer),
        filter: Filter { exclude: vec!["producer.*".into()], ..Filter::default() },
        redaction: Redaction::new(
            vec![crate::redaction::Rule { field: "data.size".into(), with: Default::default() }],
            None,
        )
        .unwrap(),
        directory: story.dir.path().join("sink"),
        stall: Duration::from_secs(10),
    };
    let delivery = Delivery::open(parts).unwrap();
    let (control, inbox) = delivery.control(false);
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(delivery.run(inbox, stopping));
    until("all is delivered", || control.health().numbers().next == 10).await;
    assert_eq!(store.times().len(), 9);
    assert!(
        store
            .documents
            .lock()
            .unwrap()
            .iter()
            .all(|document| { String::from_utf8_lossy(&document.bytes).contains(crate::redaction::DROPPED) })
    );
    let report = prove(&control, 10, |_| ()).await.unwrap();
    assert!(report.is_proven(), "{report:?}");
    assert_eq!((report.expected, report.proven, report.redacted), (9, 9, 9));
    stop.send_replace(true);
    task.await.unwrap().unwrap();
}
