//! A log beneath which somebody writes while it runs: its files give another entry, with right sums, than it signs.

use super::*;
use crate::testing::misread::{Misread, misread};
use bytes::Bytes;
use custody_core::log::Hash;
use custody_core::log::tree::TILE_LEAVES;
use std::sync::atomic::AtomicU64;

/// A log one entry of which was replaced in its files.
struct Replaced {
    /// Which; none has that number where none was.
    index: AtomicU64,
}

impl Replaced {
    /// In the place of a story's log. Nothing is replaced yet.
    fn log_of(story: &mut Story) -> Arc<Self> {
        misread(story, Self { index: AtomicU64::new(u64::MAX) })
    }
}

/// What stands in its place: another event.
fn forged(log: &dyn Log) -> Bytes {
    log.read(1, 1, 0).unwrap()[0].bytes.clone()
}

impl Misread for Replaced {
    fn read(&self, log: &dyn Log, _: u64, mut entries: Vec<Entry>) -> Result<Vec<Entry>, ReadError> {
        let index = self.index.load(Relaxed);
        for entry in entries.iter_mut().filter(|entry| entry.index == index) {
            entry.bytes = forged(log);
        }
        Ok(entries)
    }

    /// Leaves of a tree that is whole are read from where the entries are.
    fn nodes(&self, log: &dyn Log, height: u32, range: Range<u64>) -> Result<Vec<Hash>, ReadError> {
        let mut nodes = log.nodes(height, range.clone())?;
        let index = self.index.load(Relaxed);
        let is_read = height == 0 && index / TILE_LEAVES < log.size() / TILE_LEAVES;
        for (_, node) in range.zip(&mut nodes).filter(|(number, _)| is_read && *number == index) {
            *node = leaf_hash(&forged(log));
        }
        Ok(nodes)
    }
}

/// In the second tile, and in the last one, which isn't whole.
const WHOLE: u64 = 300;
const LAST: u64 = 1_400;

async fn replaced(all: &Delivered, indexes: Range<u64>) -> Option<(u64, u64)> {
    match prove_part(&all.control, indexes, |_| ()).await {
        Ok(report) => {
            assert!(report.is_proven(), "{report:?}");
            None
        }
        Err(ProofError::Replaced { first, last }) => Some((first, last)),
        Err(error) => panic!("{error}"),
    }
}

async fn assert_an_entry_that_was_replaced_ends_it(before_it_was_delivered: bool) {
    for (index, is_named) in [(WHOLE, (256, 511)), (LAST, (LAST, LAST))] {
        let mut story = Story::with(1).await;
        grow(&story, 1_500).await;
        let log = Replaced::log_of(&mut story);
        if before_it_was_delivered {
            log.index.store(index, Relaxed);
        }
        let all = delivered_of(story).await;
        let size = all.story.log.size();
        let forged = forged(&*all.story.log);
        let has_the_forged_one = all
            .shelf
            .documents
            .lock()
            .unwrap()
            .iter()
            .any(|held| held.index == Some(index) && held.original.as_deref() == Some(&*forged));
        assert_eq!(has_the_forged_one, before_it_was_delivered);
        log.index.store(index, Relaxed);
        assert_eq!(replaced(&all, 0..size).await, Some(is_named));
        // A part that ends or begins within its tile.
        assert_eq!(replaced(&all, 0..index + 10).await, Some(is_named));
        assert_eq!(replaced(&all, index - 1..size).await, Some(is_named));
        // One that lies elsewhere.
        assert_eq!(replaced(&all, 0..200).await, None);
        assert_eq!(replaced(&all, 1_100..1_270).await, None);
        let said = prove(&all.control, size, |_| ()).await.unwrap_err().to_string();
        assert!(said.contains("custody log check") && !said.contains('\n'), "{said}");
        assert!(said.contains(&is_named.0.to_string()), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_replaced_in_the_logs_files_is_not_proven_by_its_copy() {
    assert_an_entry_that_was_replaced_ends_it(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_the_true_entry_is_not_blamed_for_one_that_was_replaced_in_the_logs_files() {
    assert_an_entry_that_was_replaced_ends_it(false).await;
}

/// Once its tile is whole, the log's own hash of a single entry is of what its files give.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_replaced_at_the_end_shows_also_when_the_log_has_grown() {
    let mut story = Story::with(1).await;
    grow(&story, 1_500).await;
    let log = Replaced::log_of(&mut story);
    let all = delivered_of(story).await;
    let size = all.story.log.size();
    assert_eq!(replaced(&all, 0..size).await, None);
    grow(&all.story, 500).await;
    all.catches_up().await;
    assert_eq!(replaced(&all, 0..size).await, None);
    log.index.store(LAST, Relaxed);
    assert_eq!(replaced(&all, 0..size).await, Some((1_280, 1_535)));
    // Behind what is compared, and within its tile.
    log.index.store(1_530, Relaxed);
    assert_eq!(replaced(&all, 0..size).await, Some((1_280, 1_535)));
    log.index.store(u64::MAX, Relaxed);
    assert_eq!(replaced(&all, 0..all.story.log.size()).await, None);
}
