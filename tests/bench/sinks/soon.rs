//! How soon an event is found.

use super::Searched;
use super::source::Source;
use crate::table::{Row, median};
use custody_core::event::{Actor, Draft, log};
use custody_core::log::Log as _;
use std::time::{Duration, Instant};

/// Events a second while it is measured, and for how long.
const RATE: u64 = 2_000;
const LASTS: Duration = Duration::from_secs(10);

/// From the append to the moment when a query finds it, while events come at a steady rate: the longest that an event
/// took of those that were looked for one after the other. Beside what is aimed at.
pub fn row<S: Searched>(aim: f64) -> Row {
    let source = Source::new();
    let dir = tempfile::tempdir().expect("a folder");
    let store = S::start(dir.path());
    let delivering = source.deliver(store.sink(store.port()));
    delivering.control.pause(false);
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let begun = Instant::now();
            let mut done = 0;
            while begun.elapsed() < LASTS {
                let due = (begun.elapsed().as_secs_f64() * RATE as f64) as u64;
                let batch: Vec<_> = (done..due)
                    .map(|size| Draft::new(Actor::system("bench"), log::Sealed { size }))
                    .collect();
                if !batch.is_empty() {
                    drop(source.runtime.block_on(source.producer.append(batch)).expect("appended"));
                    done = due;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // The first ones also wait for what is made ready once.
        delivering.wait_for(RATE, || ());
        while !appending.is_finished() {
            let (newest, begun) = (source.log.size() - 1, Instant::now());
            while !store.shows(newest) {
                std::thread::sleep(Duration::from_millis(5));
            }
            all.push(begun.elapsed().as_secs_f64());
        }
    });
    println!("{}: found after {:.3} s (middle), {} looked for", S::NAME, median(all.clone()), all.len());
    Row {
        name: format!("{}, longest until it is found, s", S::NAME),
        pairs: vec![(all.into_iter().fold(0.0, f64::max), aim)],
        beside: "the goal, at 2,000 events/s",
        more_is_better: false,
        aim: Some(1.0),
    }
}
