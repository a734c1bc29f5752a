//! Questions with a filter while the search projection doesn't follow the log.

use super::log::{pieces, subscribe};
use super::subscribe::subscriptions;
use super::world::World;
use crate::login::rate::LoginLimits;
use custody_core::log::{
    Checkpoint, Entry, Hash, Log, Pending, ReadError, Record, Statistics, SubmitError, VerifierKey,
};
use reqwest::StatusCode;
use serde_json::json;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The log as a projection sees it whose disk gives nothing back while `shut`.
struct Gated {
    log: Arc<dyn Log>,
    shut: Arc<AtomicBool>,
}

impl Log for Gated {
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
        if self.shut.load(Ordering::SeqCst) {
            let source = std::io::Error::other("the gate is shut");
            return Err(ReadError::Io { index: from, path: "gate".into(), source });
        }
        self.log.read(from, max_entries, max_bytes)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_by_a_filter_is_told_that_the_projection_stopped() {
    let shut = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&shut);
    let world = World::with(LoginLimits::default(), |log| Arc::new(Gated { log, shut: gate })).await;
    let admin = world.admin().await;
    let mut stream = subscribe(&admin, "type=nothing", None).await;
    let waiting = {
        let admin = admin.clone();
        tokio::spawn(async move { admin.get("/v1/events?type=nothing&wait=60s").await })
    };
    subscriptions(&admin, 2).await;
    shut.store(true, Ordering::SeqCst);
    admin.done("create-role", json!({ "name": "r" })).await;

    let last = pieces(&mut stream, &mut String::new(), 1).await;
    assert_eq!(last[0].0, "behind");
    assert!(last[0].1["error"].as_str().unwrap().contains("has stopped"), "{}", last[0].1);
    assert_eq!(stream.chunk().await.unwrap(), None);
    let (status, body) = waiting.await.unwrap();
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("has stopped"), "{status}: {body}");
    // Nor does one begin.
    let asked = admin.request("/v1/events?type=nothing").header("accept", "text/event-stream");
    assert_eq!(asked.send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);

    shut.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while admin.get("/v1/events?type=nothing").await.0 != StatusCode::OK {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(subscribe(&admin, "type=nothing", None).await);
}
