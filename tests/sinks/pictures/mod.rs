//! Each picture of `schemas/` on a day's events: of a daemon with people, nodes and trouble, delivered to the real Loki and
//! OpenSearch by its sinks. Every panel shows something, and what counts shows what the log has.

mod crowd;
mod day;
mod expected;
mod grafana;
mod metrics;
mod saved;

use self::day::Day;

/// One test, since the day takes a while: what is wrong is told all at once.
#[test]
fn every_picture_shows_what_the_log_has() {
    let day = Day::live();
    let mut wrong = Vec::new();
    wrong.extend(grafana::wrong(&day));
    wrong.extend(grafana::wrong_links(&day));
    wrong.extend(saved::wrong(&day));
    wrong.extend(metrics::wrong(&day));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
