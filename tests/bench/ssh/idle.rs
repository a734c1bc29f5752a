//! Memory of sessions in which nothing happens, after much has.

use super::compare::{Question, Samples};
use super::stage::{GCM, Stage, Way};
use super::{Plan, login, transfer};
use crate::table::Row;
use crate::usage;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// KiB that one may cost.
const KIB_MAX: f64 = 24.0;
/// What each session moves where it moves something.
const MOVED_BYTES: usize = 3 << 20;
/// Memory is asked for so often, and has settled once it has stayed the same as many times.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: usize = 4;
const SAME_KIB: f64 = 64.0;
/// What hasn't settled by then is taken as it is.
const SETTLING_MAX: Duration = Duration::from_secs(20);

/// All from the memory of a daemon that has just started: what an allocator doesn't give back is counted, and what the
/// state remembers of each session as well.
pub fn rows(stage: &mut Stage, plan: &Plan) -> Vec<Row> {
    stage.restart();
    let stage = &*stage;
    let mut found = [
        ("that came at once", Samples::default()),
        ("after a storm and bulk", Samples::default()),
        ("that moved 3 MiB each", Samples::default()),
    ];
    for way in [stage.custody(), Way::Jumped] {
        login::seconds(stage, way, 1);
        let fresh = settled(stage, way);
        for (n, (_, samples)) in found.iter_mut().enumerate() {
            if n == 1 {
                login::seconds(stage, way, plan.sessions);
                transfer::both_ways(stage, way, plan.mib);
            }
            let sessions = open(stage, way, plan.sessions, if n == 2 { MOVED_BYTES } else { 0 });
            samples.add(way, (settled(stage, way) - fresh) / plan.sessions as f64);
            close(sessions);
        }
    }
    let mut rows = Vec::new();
    for (name, samples) in found {
        let what = format!("idle session {name}");
        let question = Question { what, unit: "KiB", more_is_better: false, direct: None, jumped: None };
        rows.extend(samples.beside_goal(&question, KIB_MAX));
        rows.extend(samples.rows(&question));
    }
    rows
}

/// Sessions that all start at once, bring so many bytes, and then wait for input.
fn open(stage: &Stage, way: Way, count: usize, bytes: usize) -> Vec<Child> {
    let script = format!("head -c {bytes} /dev/zero; echo; exec cat");
    let spawn = |_| {
        let mut command = stage.ssh(way, GCM, &script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh")
    };
    let mut sessions: Vec<Child> = (0..count).map(spawn).collect();
    let mut output = vec![0; bytes + 1];
    for session in &mut sessions {
        session.stdout.as_mut().expect("piped").read_exact(&mut output).expect("a session");
    }
    sessions
}

/// Ends them: each has to be there still.
fn close(mut sessions: Vec<Child>) {
    for session in &mut sessions {
        drop(session.stdin.take());
    }
    for mut session in sessions {
        let status = session.wait().expect("a child");
        assert!(status.success(), "a session ended with {status}");
    }
}

/// Memory of what stands between, once it no longer changes.
fn settled(stage: &Stage, way: Way) -> f64 {
    let pid = stage.between(way).expect("there is something between");
    let (start, mut last, mut same) = (Instant::now(), usage::memory_kib(pid), 0);
    while same < LOOKS && start.elapsed() < SETTLING_MAX {
        std::thread::sleep(LOOK);
        let now = usage::memory_kib(pid);
        same = if (now - last).abs() < SAME_KIB { same + 1 } else { 0 };
        last = now;
    }
    last
}
