//! A lake that has events and can't make Parquet of them: it takes no more, that is told, and it has everything once it can.

use super::*;
use crate::delivery::{Delivery, Parts};
use crate::filter::Filter;
use crate::proof::prove;
use crate::redaction::Redaction;
use crate::testing::{Story, events, until};
use custody_core::event::Payload;
use std::time::Instant;
use tokio::sync::watch;

/// After a second there is a file, however few events there are.
fn hasty(folder: &Path) -> Settings {
    let mut settings = settings(folder, true);
    let lake = settings.lake.as_mut().unwrap();
    (lake.roll_events, lake.roll_seconds) = (20_000, 1);
    settings
}

/// Nothing can be made where the folders of the classes are to be; the spool beside it can be written, and there is nothing to read.
fn in_the_way(folder: &Path) -> PathBuf {
    let external = folder.join("ext");
    std::os::unix::fs::symlink("nowhere/at/all", &external).unwrap();
    external
}

fn rolling(folder: &Path) -> PathBuf {
    folder.join("spool/rolling.ndjson")
}

fn is_told(story: &Story, what: impl Fn(&Payload) -> bool) -> bool {
    events(story).iter().any(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_has_no_parquet_when_it_is_due_stalls_and_has_everything_once_it_can() {
    let (story, dir) = (Story::with(10).await, tempfile::tempdir().unwrap());
    let external = in_the_way(dir.path());
    let parts = Parts {
        name: "lake".to_owned(),
        sink: Arc::new(Files::new(hasty(dir.path()), ORIGIN)),
        log: Arc::clone(&story.log),
        producer: Arc::clone(&story.producer),
        filter: Filter::default(),
        redaction: Redaction::default(),
        directory: story.dir.path().join("sink"),
        stall: Duration::from_millis(700),
    };
    let delivery = Delivery::open(parts).unwrap();
    let (control, inbox) = delivery.control(false);
    let (stop, stopping) = watch::channel(false);
    let run = tokio::spawn(delivery.run(inbox, stopping));
    let rolling = rolling(dir.path());
    until("what has arrived is taken aside", || rolling.exists()).await;
    story.tell(1).await;
    until("it is told that it stalls", || {
        is_told(&story, |payload| {
            matches!(payload, Payload::SinkStalled(stalled) if stalled.reason.contains("no Parquet is written"))
        })
    })
    .await;
    let numbers = control.health().numbers();
    assert!(numbers.trouble.is_some() && numbers.next < story.log.size(), "{numbers:?}");
    std::fs::remove_file(&external).unwrap();
    until("it is told that it goes on", || {
        is_told(&story, |payload| matches!(payload, Payload::SinkResumed(_)))
    })
    .await;
    until("everything is delivered", || control.health().numbers().next == story.log.size()).await;
    assert!(!rolling.exists() && !parquet(dir.path()).is_empty());
    let size = control.health().numbers().next;
    let report = prove(&control, size, |_| ()).await.unwrap();
    assert!(report.is_proven() && report.proven == size, "{report:?}");
    stop.send_replace(true);
    run.await.unwrap().unwrap();
}

#[test]
fn what_could_not_become_parquet_does_so_without_another_event() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever looked after the spool has ended with the runtime on which it was made ready.
    let files = ready(hasty(dir.path()));
    let (external, rolling) = (in_the_way(dir.path()), rolling(dir.path()));
    runtime().block_on(async {
        files.prepare().await.unwrap();
        let encoded: Vec<Encoded> = (0..5).map(|index| files.encode(&hourly(index)).unwrap()).collect();
        files.send(&encoded.iter().collect::<Vec<_>>()).await.unwrap();
        let begun = Instant::now();
        let refused = loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing was due");
            match files.prepare().await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(trouble) => break trouble,
            }
        };
        let says = "no Parquet is written";
        assert!(
            matches!(&refused, Trouble::Refused { reason, .. } if reason.contains(says)),
            "it is to be asked again: {refused}"
        );
        assert!(rolling.exists());
        std::fs::remove_file(&external).unwrap();
        until("they are Parquet", || !rolling.exists()).await;
    });
    assert!(!parquet(dir.path()).is_empty());
    assert_holds(&files, 0..5);
    send(&files, (5..8).map(hourly)).unwrap();
    assert_holds(&files, 0..8);
}
