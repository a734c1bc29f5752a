//! From the log to the state.

use crate::growth::anonymous_mib;
use crate::log::{fill, open};
use crate::table::Row;
use bytes::Bytes;
use custody_core::event::{TYPES, Timestamp};
use custody_core::log::tree::leaf_hash;
use custody_core::state::{State, replay};
use custody_tests::story::Story;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use uuid::Uuid;

const ROUNDS: usize = 3;
const REPLAYED: u64 = 1_000_000;
/// Of a fold without a disk.
const FOLDED: u64 = 200_000;
/// The goal: events a second on one core.
const GOAL: f64 = 1e6;

/// Events into state in a second of one core's time, which is what others on the machine can't take away: with reading
/// and checking them from the disk, and the fold alone. Beside the goal, and beside hashing them, which tells how fast the
/// core is just now.
pub fn rows() -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    fill(&*log, Uuid::new_v4(), 0, &mut Story::new(), REPLAYED);
    let story: Vec<_> = Story::new().take(FOLDED as usize).collect();
    let before = anonymous_mib();
    let mut pairs = Vec::new();
    for round in 0..ROUNDS {
        let start = core_time();
        let state = replay::replay(&*log, None, |_, _| ()).expect("a state");
        let replayed = REPLAYED as f64 / (core_time() - start).as_secs_f64();
        if round == 0 {
            println!("state of {REPLAYED} events: {:.1} MiB", anonymous_mib() - before);
        }
        let refused = state.refused();
        assert_eq!((state.size(), refused.count()), (REPLAYED, 0), "{:?}", refused.iter().next());
        pairs.push((replayed, hashed(&story)));
    }
    let to_goal = |pairs: &[(f64, f64)]| pairs.iter().map(|(ours, _)| (*ours, GOAL)).collect();
    let row = |name: &str, pairs, beside, aim| Row {
        name: format!("{name}, events/s"),
        pairs,
        beside,
        more_is_better: true,
        aim,
    };
    let examples: Vec<_> =
        TYPES.iter().map(|info| (info.family.tag(), (info.example)().expect("an example").into())).collect();
    vec![
        row("replay from the disk into state", to_goal(&pairs), "the goal", Some(1.0)),
        row("replay from the disk into state", pairs, "SHA-256 of each", None),
        row("fold alone", folded(&story), "the goal", Some(1.0)),
        row("fold alone, all types alike", folded(&examples), "the goal", None),
    ]
}

fn folded(events: &[(u8, Bytes)]) -> Vec<(f64, f64)> {
    let fold = |_| {
        let start = core_time();
        let mut state = State::new();
        for (index, (tag, bytes)) in (0..FOLDED).zip(events.iter().cycle()) {
            state.apply_bytes(index, Timestamp::from_seconds(index), *tag, bytes).expect("in order");
        }
        (FOLDED as f64 / (core_time() - start).as_secs_f64(), GOAL)
    };
    (0..ROUNDS).map(fold).collect()
}

/// Hashes in a second of one core's time.
fn hashed(events: &[(u8, Bytes)]) -> f64 {
    let start = core_time();
    for (_, bytes) in events {
        std::hint::black_box(leaf_hash(bytes));
    }
    events.len() as f64 / (core_time() - start).as_secs_f64()
}

/// How long this thread has run.
pub fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
