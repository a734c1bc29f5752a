//! The file of dead letters: there may be millions of them, and a restart brings none back.

use super::*;

fn file(story: &Story) -> PathBuf {
    story.dir.path().join("sink/dead-letters.ndjson")
}

fn written(story: &Story) -> usize {
    std::fs::read_to_string(file(story)).unwrap().lines().count()
}

/// A log of so many events that the store has, but for those that it refuses.
async fn delivered(entries: u64, refuses: fn(u64) -> bool) -> (Story, Arc<Store>, Run) {
    let story = Story::with(entries).await;
    let store = Arc::new(Store { refuses, ..Store::new(1) });
    let run = start(&story, &store);
    run.delivered(&story).await;
    (story, store, run)
}

/// Takes all by now, and has what another one has.
fn willing(store: &Store) -> Arc<Store> {
    let documents = store.documents.lock().unwrap().clone();
    Arc::new(Store { documents: Lock::new(documents), ..Store::new(1) })
}

/// It knows by itself which there are: what was said of millions is gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_does_not_read_what_was_said_of_dead_letters() {
    let (story, _store, run) = delivered(50, |index| index == 20).await;
    std::fs::remove_file(file(&story)).unwrap();
    let report = prove(&run.control, 50, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (0, 1), "{report:?}");
    assert!(
        run.control
            .dead_letters()
            .await
            .unwrap_err()
            .contains("the dead letters of the sink store can't be read")
    );
    run.stop().await;
}

/// A pipe that nobody writes into: whoever opens it to read waits for somebody who does.
struct Pipe(PathBuf);

impl Pipe {
    fn in_place_of(path: PathBuf) -> Self {
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }

    /// Whoever waits goes on, and finds nothing.
    fn open(&self) {
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&self.0));
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.open();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_take_long_to_read_hold_up_nothing() {
    let (story, store, run) = delivered(50, |index| index == 20).await;
    let pipe = Pipe::in_place_of(file(&story));
    {
        let listed = run.control.dead_letters();
        tokio::pin!(listed);
        let meanwhile = async {
            // It was asked for them before this.
            assert_eq!(run.control.replaying().await, Ok(None));
            story.tell(30).await;
            run.delivered(&story).await;
        };
        tokio::select! {
            biased;
            listed = &mut listed => panic!("nobody has written them: {listed:?}"),
            () = meanwhile => {}
        }
        let opened = async {
            for _ in 0..10_000 {
                pipe.open();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            listed = &mut listed => assert_eq!(listed, Ok(vec![])),
            () = opened => panic!("they are never read"),
        }
    }
    assert_eq!(store.times().len() as u64, story.log.size() - 1);
    run.stop().await;
}

/// Of so few the file isn't written anew at once.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_have_arrived_by_a_replay_do_not_come_back() {
    let (story, store, run) = delivered(220, |index| index < 200 && index % 2 == 1).await;
    run.stop().await;
    let store = willing(&store);
    let run = start(&story, &store);
    run.control.replay(20..40).await.unwrap();
    run.replayed().await;
    assert_eq!((run.control.health().numbers().dead_letters, written(&story)), (90, 90));
    run.stop().await;
    let run = start(&story, &store);
    assert_eq!(run.control.dead_letters().await.unwrap().len(), 90);
    store.documents.lock().unwrap().retain(|document| document.index != 21);
    let report = prove(&run.control, 220, |_| ()).await.unwrap();
    assert_eq!((report.missing.count, report.rejected), (1, 90), "{report:?}");
    run.stop().await;
}

/// Those that were dead before a crash arrive with all that comes again after it.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_have_arrived_are_gone_from_the_file_after_an_orderly_stop() {
    let story = Story::with(10).await;
    create_directories(&story.dir.path().join("sink")).unwrap();
    let mut letters = DeadLetters::open(&file(&story)).unwrap();
    let dead = (0..100).map(|index| custody_core::delivery::DeadLetter::new(index, "log.sealed", "400"));
    letters.add(dead.collect()).unwrap();
    let store = Arc::new(Store::new(1));
    let run = start(&story, &store);
    run.delivered(&story).await;
    assert_eq!((run.control.health().numbers().dead_letters, written(&story)), (90, 100));
    run.stop().await;
    assert_eq!(written(&story), 90);
}

/// Its disk was full, or somebody has moved it.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_begins_anew_counts_its_dead_letters_anew() {
    let (story, store, run) = delivered(50, |index| index == 20).await;
    run.stop().await;
    let all = written(&story);
    let store = willing(&store);
    let run = start(&story, &store);
    let (directory, aside) = (story.dir.path().join("sink"), story.dir.path().join("aside"));
    std::fs::rename(&directory, &aside).unwrap();
    std::fs::write(&directory, "").unwrap();
    story.tell(10).await;
    until("it stands still", || run.control.health().numbers().trouble.is_some()).await;
    let mut letters = DeadLetters::open(&aside.join("dead-letters.ndjson")).unwrap();
    letters.add(vec![custody_core::delivery::DeadLetter::new(0, "log.sealed", "400")]).unwrap();
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(&aside, &directory).unwrap();
    run.delivered(&story).await;
    assert_eq!(run.control.health().numbers().dead_letters, all as u64 + 1);
    run.stop().await;
}
