//! From the start of `ssh HOST true` to its end: one at a time, and many at once.

use super::Plan;
use super::compare::{Question, Samples, at_most};
use super::stage::{GCM, Stage, Way};
use crate::table::Row;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Logins of a round.
const LOGINS: usize = 10;

pub fn rows(stage: &Stage, plan: &Plan) -> Vec<Row> {
    let (mut single, mut storm) = (Samples::default(), Samples::default());
    for round in 0..plan.rounds {
        for n in 0..LOGINS {
            for way in stage.three(n) {
                single.add(way, seconds(stage, way, 1) * 1e3);
            }
        }
        for way in stage.three(round) {
            storm.add(way, seconds(stage, way, plan.sessions));
        }
    }
    let (what, unit) = ("login to exit of `true`".to_owned(), "ms");
    let question = Question { what, unit, more_is_better: false, direct: None, jumped: at_most(0.6) };
    let mut rows = single.rows(&question);
    let what = format!("{} logins at once", plan.sessions);
    let question = Question { what, unit: "s", more_is_better: false, direct: None, jumped: None };
    rows.extend(storm.rows(&question));
    rows
}

/// Until the last of `count` logins that start at once is through: all have to be.
pub fn seconds(stage: &Stage, way: Way, count: usize) -> f64 {
    let commands: Vec<Command> = (0..count).map(|_| stage.ssh(way, GCM, "true")).collect();
    stage.quiet();
    let start = Instant::now();
    let spawn = |mut command: Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("ssh")
    };
    let children: Vec<Child> = commands.into_iter().map(spawn).collect();
    let outputs: Vec<_> = children.into_iter().map(Child::wait_with_output).collect();
    let took = start.elapsed().as_secs_f64();
    let failed: Vec<_> = outputs
        .into_iter()
        .map(|output| output.expect("a child"))
        .filter(|output| !output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
        .collect();
    assert!(failed.is_empty(), "{way:?}: {} of {count} logins failed, one so: {}", failed.len(), failed[0]);
    took
}
