//! A log of which an old entry can't be read any more: whoever asks for that one hears of it, and all others arrive.

use super::*;
use crate::testing::misread::{Misread, misread};
use custody_core::log::ReadError;

/// A log with one damaged entry, of which is counted what is read.
pub(super) struct Damaged {
    /// Which; none has that number where there is none.
    index: AtomicU64,
    /// Entries that it has given.
    pub(super) read: AtomicU64,
}

impl Damaged {
    /// In the place of a story's log. Nothing is damaged yet.
    pub(super) fn log_of(story: &mut Story) -> Arc<Self> {
        misread(story, Self { index: AtomicU64::new(u64::MAX), read: AtomicU64::new(0) })
    }
}

impl Misread for Damaged {
    fn read(&self, _: &dyn Log, from: u64, mut entries: Vec<Entry>) -> Result<Vec<Entry>, ReadError> {
        let index = self.index.load(Relaxed);
        if from == index && !entries.is_empty() {
            let path = PathBuf::from("segment");
            return Err(ReadError::Damaged { index, path, position: 0, reason: "its sum is another" });
        }
        entries.retain(|entry| from > index || entry.index < index);
        self.read.fetch_add(entries.len() as u64, Relaxed);
        Ok(entries)
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
