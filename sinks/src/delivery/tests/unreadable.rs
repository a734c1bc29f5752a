//! A log of which an old entry can't be read any more: whoever asks for that one hears of it, and all others arrive.

use super::*;
use custody_core::log::{Checkpoint, Pending, ReadError, Record, Statistics, SubmitError, VerifierKey};

/// A log with one damaged entry, of which is counted what is read.
pub(super) struct Damaged {
    log: Arc<dyn Log>,
    /// Which; none has that number where there is none.
    index: AtomicU64,
    /// Entries that it has given.
    pub(super) read: AtomicU64,
}

impl Damaged {
    /// In the place of a story's log. Nothing is damaged yet.
    pub(super) fn log_of(story: &mut Story) -> Arc<Self> {
        let log = Arc::clone(&story.log);
        let damaged = Arc::new(Self { log, index: AtomicU64::new(u64::MAX), read: AtomicU64::new(0) });
        story.log = Arc::clone(&damaged) as Arc<dyn Log>;
        damaged
    }
}

impl Log for Damaged {
    fn submit(&self, batch: Vec<Record>) -> Result<Pending, SubmitError> {
        self.log.submit(batch)
    }

    fn size(&self) -> u64 {
        self.log.size()
    }

    fn follow(&self) -> watch::Receiver<u64> {
        self.log.follow()
    }

    fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let (mut entries, index) = (self.log.read(from, max_entries, max_bytes)?, self.index.load(Relaxed));
        if from == index && !entries.is_empty() {
            let path = PathBuf::from("segment");
            return Err(ReadError::Damaged { index, path, position: 0, reason: "its sum is another" });
        }
        entries.retain(|entry| from > index || entry.index < index);
        self.read.fetch_add(entries.len() as u64, Relaxed);
        Ok(entries)
    }

    fn checkpoint(&self) -> Checkpoint {
        self.log.checkpoint()
    }

    fn checkpoints(&self) -> watch::Receiver<Checkpoint> {
        self.log.checkpoints()
    }

    fn sign_now(&self) -> Pending<Checkpoint> {
        self.log.sign_now()
    }

    fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        self.log.inclusion_proof(index, size)
    }

    fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        self.log.consistency_proof(old, new)
    }

    fn nodes(&self, height: u32, range: Range<u64>) -> Result<Vec<Hash>, ReadError> {
        self.log.nodes(height, range)
    }

    fn root(&self, size: u64) -> Result<Hash, ReadError> {
        self.log.root(size)
    }

    fn verifier_key(&self) -> &VerifierKey {
        self.log.verifier_key()
    }

    fn statistics(&self) -> Statistics {
        self.log.statistics()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_cannot_be_read_ends_and_what_is_new_arrives() {
    let mut story = Story::with(50).await;
    let damaged = Damaged::log_of(&mut story);
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    damaged.index.store(20, Relaxed);
    run.control.replay(0..50).await.unwrap();
    until("it is told why the replay was ended", || {
        run.control.health().numbers().replay_trouble.is_some_and(|why| why.contains("entry 20 is damaged"))
    })
    .await;
    assert_eq!(run.control.replaying().await, Ok(None));
    let numbers = run.control.health().numbers();
    assert_eq!((numbers.trouble, numbers.replays), (None, 0));
    story.tell(30).await;
    run.delivered(&story).await;
    run.stop().await;

    let run = start(&story, &store);
    assert_eq!(run.control.replaying().await, Ok(None), "it doesn't begin again");
    damaged.index.store(u64::MAX, Relaxed);
    run.control.replay(0..50).await.unwrap();
    run.replayed().await;
    let numbers = run.control.health().numbers();
    assert_eq!((numbers.replay_trouble, numbers.replays), (None, 1));
    assert!(store.times().values().all(|times| *times == 1), "{:?}", store.times());
    run.stop().await;
}

/// The one that can't be read comes first, and would keep all others from being sent for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_read_is_left_out_of_a_redrive_which_says_so() {
    let mut story = Story::with(400).await;
    let refusing = Arc::new(Store { refuses: |index| [20, 30, 390].contains(&index), ..Store::new(1) });
    let run = start(&story, &refusing);
    run.delivered(&story).await;
    run.stop().await;
    let documents = refusing.documents.lock().unwrap().clone();
    let store = Arc::new(Store { documents: Lock::new(documents), ..Store::new(1) });
    let damaged = Damaged::log_of(&mut story);
    let run = start(&story, &store);
    damaged.index.store(20, Relaxed);
    let said = run.control.redrive().await.unwrap_err();
    assert!(said.starts_with("1 dead letters weren't sent") && said.ends_with("1 are left"), "{said}");
    assert!(said.contains("entry 20 is damaged"), "{said}");
    assert_eq!(run.control.health().numbers().replay_trouble, Some(said), "whoever asked may have gone");
    let sent = store.times();
    assert!(sent.contains_key(&30) && sent.contains_key(&390) && !sent.contains_key(&20));
    damaged.index.store(u64::MAX, Relaxed);
    assert_eq!(run.control.redrive().await, Ok(0));
    assert_eq!(run.control.health().numbers().replay_trouble, None);
    assert!(store.times().values().all(|times| *times == 1) && store.times().contains_key(&20));
    run.stop().await;
}
