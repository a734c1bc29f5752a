//! The index for searches: how fast it catches up with a log.

use crate::log::{fill, open};
use crate::replay::core_time;
use crate::table::Row;
use crate::usage::thread_time;
use custody_core::log::Log;
use custody_core::search::Search;
use custody_core::state::replay;
use custody_tests::story::Story;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const ROUNDS: usize = 3;
const INDEXED: u64 = 300_000;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Events into the index in a second of its thread's time on a core, beside the state's replay of the same log.
pub fn rows() -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a folder");
    let log: Arc<dyn Log> = open(dir.path());
    fill(&*log, Uuid::new_v4(), 0, &mut Story::new(), INDEXED);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pairs = (0..ROUNDS).map(|round| {
        let projections = dir.path().join(format!("projections-{round}"));
        let search = Search::open(&projections, Arc::clone(&log)).expect("an index");
        runtime.block_on(search.at_least(INDEXED, PATIENCE)).expect("it catches up");
        let indexed = INDEXED as f64 / thread_time("search-index").expect("its thread").as_secs_f64();
        if round == 0 {
            let bytes = std::fs::metadata(search.path()).map_or(0, |file| file.len());
            println!("index of {INDEXED} events: {:.0} MiB", bytes as f64 / f64::from(1 << 20));
        }
        drop(search);
        let start = core_time();
        assert_eq!(replay::replay(&*log, None, |_, _| ()).expect("a state").size(), INDEXED);
        (indexed, INDEXED as f64 / (core_time() - start).as_secs_f64())
    });
    vec![Row {
        name: "a new index for searches, events/s".to_owned(),
        pairs: pairs.collect(),
        beside: "replay into state",
        more_is_better: true,
        aim: None,
    }]
}
