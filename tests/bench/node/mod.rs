//! What the agent costs the sessions that it watches, beside what they are without it, and beside auditd.

mod auditd;
mod stage;

use crate::environment::count;
use crate::table::{self, Row};
use crate::usage;
use auditd::Auditd;
use stage::{Stage, Watcher, Worked};
use std::time::{Duration, Instant};

/// A folder below which the agent and auditd watch, and how many of its files are opened in turn: more than the kernel's
/// programs remember of a process, so that each opening is told.
const FOLDER: &str = "/etc";
const FILES: u64 = 40;
/// For so long nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// Of a core, that the agent may use when nothing happens.
const IDLE_SHARE: f64 = 0.01;
/// What processor time is counted in, at least: what is less than one tick is as good as one.
const TICK: f64 = 0.01;

/// What sessions do.
struct Work {
    /// Its name in the table.
    name: &'static str,
    steps: u64,
    line: String,
    /// The least share of the rate without an agent that is aimed at.
    aim: Option<f64>,
}

/// What a piece of work came to, round by round.
#[derive(Default)]
struct Rounds(Vec<(Watcher, Vec<Worked>)>);

/// What whoever watches takes when nothing happens, and memory after the rounds' work.
#[derive(Clone, Copy)]
struct Resting {
    resident: f64,
    most: f64,
    processor: f64,
}

/// All of it.
pub fn rows() -> Vec<Row> {
    let mut stage = Stage::start();
    let works = works(&stage);
    let mut ways = vec![Watcher::Nobody, Watcher::Elsewhere, Watcher::Agent, Watcher::Auditd];
    if let Err(why) = Auditd::possible() {
        println!("node: nothing is measured beside auditd: {why}");
        ways.retain(|way| *way != Watcher::Auditd);
    }
    let lost_before = Auditd::lost();
    let mut rounds: Vec<Rounds> = works.iter().map(|_| Rounds::default()).collect();
    let (mut agent, mut auditd) = (Vec::new(), Vec::new());
    for round in 0..count("CUSTODY_BENCH_ROUNDS", 5) {
        let start = Instant::now();
        // Between, before and after the one that it stands beside: what slows the machine down for a while slows all.
        let mut ways = ways.clone();
        if round % 2 == 1 {
            ways.reverse();
        }
        for way in ways {
            if let Err(why) = stage.watched_by(way) {
                println!("node: {way:?} can't be measured: {why}");
                continue;
            }
            let processor =
                if way == Watcher::Agent || way == Watcher::Auditd { stage.idle(IDLE) } else { 0.0 };
            let resident = memory(&stage).0;
            for (work, rounds) in works.iter().zip(&mut rounds) {
                rounds.add(way, stage.work(way, &work.line, work.steps));
            }
            let resting = Resting { resident, most: memory(&stage).1, processor };
            match way {
                Watcher::Agent => agent.push(resting),
                Watcher::Auditd => auditd.push(resting),
                Watcher::Nobody | Watcher::Elsewhere => {}
            }
        }
        println!("node, round {}: {:.0} s", round + 1, start.elapsed().as_secs_f64());
    }
    let (watched, unwatched) = stage.sessions();
    assert_eq!(
        watched,
        rounds.iter().map(|r| r.of(Watcher::Agent).len()).sum::<usize>(),
        "{unwatched} unwatched"
    );
    println!("node: {} events were told as lost by the agent", stage.dropped());
    println!("node: {} records were lost by the audit system", Auditd::lost() - lost_before);
    drop(stage);
    let mut rows: Vec<Row> = works.iter().zip(&rounds).flat_map(|(work, rounds)| rounds.rows(work)).collect();
    rows.extend(resting(&agent, &auditd));
    println!("{}", table::text(&rows));
    rows
}

fn works(stage: &Stage) -> Vec<Work> {
    let load = &stage.load;
    let work = |name, steps, line, aim| Work { name, steps, line, aim };
    vec![
        work("fork and exec", 2_000, load.exec(2_000), Some(0.95)),
        work("fork and exec, the log's machine taken out", 2_000, stage.alone(&load.exec(2_000)), Some(0.95)),
        work("connect", 5_000, load.connect(5_000), None),
        work("open of one file of /etc", 20_000, load.open(20_000, FOLDER, 1), None),
        work("open of 40 files of /etc in turn", 20_000, load.open(20_000, FOLDER, FILES), None),
    ]
}

/// KiB that whoever watches has now, and had at most.
fn memory(stage: &Stage) -> (f64, f64) {
    // The kernel's own thread has none.
    let each = stage.watching().into_iter().map(usage::resident_kib);
    each.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

impl Rounds {
    fn add(&mut self, watcher: Watcher, worked: Worked) {
        match self.0.iter_mut().find(|(known, _)| *known == watcher) {
            Some((_, all)) => all.push(worked),
            None => self.0.push((watcher, vec![worked])),
        }
    }

    fn of(&self, watcher: Watcher) -> &[Worked] {
        self.0.iter().find(|(known, _)| *known == watcher).map_or(&[], |(_, all)| all)
    }

    /// The rows of a piece of work: its rates, what is added to each step, and what that costs those who watch.
    fn rows(&self, work: &Work) -> Vec<Row> {
        let name = work.name;
        let (nobody, elsewhere) = (self.of(Watcher::Nobody), self.of(Watcher::Elsewhere));
        let (agent, auditd) = (self.of(Watcher::Agent), self.of(Watcher::Auditd));
        let rates = |what: String, ours, theirs, beside, aim| Row {
            name: what,
            pairs: pairs(ours, theirs, |worked| 1.0 / worked.each),
            beside,
            more_is_better: true,
            aim,
        };
        let mut rows = vec![
            rates(format!("{name}, watched, /s"), agent, nobody, "nobody watches", work.aim),
            rates(format!("{name}, agent elsewhere, /s"), elsewhere, nobody, "nobody watches", None),
        ];
        if !auditd.is_empty() {
            rows.push(rates(format!("{name}, auditd, /s"), auditd, nobody, "nobody watches", None));
            // What each adds to a step. Round by round, since the machine is another one from round to round.
            let added = |watched: &[Worked]| -> Vec<f64> {
                watched.iter().zip(nobody).map(|(with, without)| (with.each - without.each) * 1e6).collect()
            };
            rows.push(Row {
                name: format!("{name}, added, µs"),
                pairs: added(agent).into_iter().zip(added(auditd)).collect(),
                beside: "added by auditd",
                more_is_better: false,
                aim: Some(2.0),
            });
        }
        let micros = |seconds: f64| seconds.max(TICK) / work.steps as f64 * 1e6;
        if !auditd.is_empty() {
            rows.push(Row {
                name: format!("{name}, CPU of the agent, µs"),
                pairs: pairs(agent, auditd, |worked| micros(worked.watcher)),
                beside: "CPU of auditd and kauditd",
                more_is_better: false,
                aim: None,
            });
        }
        rows.push(Row {
            name: format!("{name}, CPU of custodyd, µs"),
            pairs: pairs(agent, nobody, |worked| micros(worked.custodyd)),
            beside: "for the unwatched session",
            more_is_better: false,
            aim: None,
        });
        rows
    }
}

fn pairs(ours: &[Worked], theirs: &[Worked], figure: impl Fn(&Worked) -> f64) -> Vec<(f64, f64)> {
    ours.iter().zip(theirs).map(|(ours, theirs)| (figure(ours), figure(theirs))).collect()
}

/// The rows of what whoever watches takes by itself.
fn resting(agent: &[Resting], auditd: &[Resting]) -> Vec<Row> {
    let beside = |name: &str, figure: fn(&Resting) -> f64| Row {
        name: name.to_owned(),
        pairs: agent.iter().zip(auditd).map(|(ours, theirs)| (figure(ours), figure(theirs))).collect(),
        beside: "auditd",
        more_is_better: false,
        aim: None,
    };
    let share = |one: &Resting| one.processor.max(TICK) / IDLE.as_secs_f64();
    let mut rows = vec![Row {
        name: "idle agent, share of a core".to_owned(),
        pairs: agent.iter().map(|one| (share(one), IDLE_SHARE)).collect(),
        beside: "the goal",
        more_is_better: false,
        aim: Some(1.0),
    }];
    if !auditd.is_empty() {
        rows.push(beside("idle agent, memory, MiB", |one| one.resident / 1024.0));
        rows.push(beside("agent under load, most memory, MiB", |one| one.most / 1024.0));
    }
    rows
}
