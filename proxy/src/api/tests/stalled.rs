//! Questions with a filter while the search projection doesn't follow the log.

use super::log::{pieces, subscribe};
use super::subscribe::subscriptions;
use super::world::{Plan, World};
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

/// The log of a disk that doesn't give back what is read from an index on while that is shut.
pub struct Gated {
    pub log: Arc<dyn Log>,
    pub is_shut: Box<dyn Fn(u64) -> bool + Send + Sync>,
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
        if (self.is_shut)(from) {
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
    let is_shut = Box::new(move |_: u64| gate.load(Ordering::SeqCst));
    let indexed = Box::new(|log: Arc<dyn Log>| Arc::new(Gated { log, is_shut }) as Arc<dyn Log>);
    let world = World::planned(Plan { indexed, ..Plan::default() }).await;
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

/// To Prometheus a counter that begins anew is a restart, and all that it counts then is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_not_counted_from_a_projection_that_is_being_made() {
    let shut = Arc::new(AtomicBool::new(true));
    let gate = Arc::clone(&shut);
    let is_shut = Box::new(move |_: u64| gate.load(Ordering::SeqCst));
    let indexed = Box::new(|log: Arc<dyn Log>| Arc::new(Gated { log, is_shut }) as Arc<dyn Log>);
    let world = World::planned(Plan { indexed, ..Plan::default() }).await;
    let admin = world.admin().await;
    assert!(!admin.get("/metrics").await.1.contains("\ncustody_events_total{"));
    shut.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while !admin.get("/metrics").await.1.contains("\ncustody_events_total{") {
        assert!(begun.elapsed() < Duration::from_secs(30), "they are never counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
