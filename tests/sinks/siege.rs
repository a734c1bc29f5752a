//! A store under siege: a real custodyd delivers a long log of all kinds of events and goes on having sessions, while both
//! are killed, connections break, answers come late, wrong or never, and the store's disk fills up. Afterwards
//! `custody sinks verify` proves that all of it is there, and the store itself counts as many as the log has.
//!
//! Between one failure and the way to the next one all that is sent is held back: else the log would be delivered while servers start
//! again, and what fails afterwards would meet single sessions only.
//!
//! `CUSTODY_SINK_EVENTS` says how long the log is; `make soak` asks for 100,000. `CUSTODY_SEED` takes a seed that was printed.

use custody_core::clock::SystemClock;
use custody_core::event::{Event, TYPES};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::{Log, ProducerKey, Record};
use custody_sinks::sink::Limits;
use custody_tests::events;
use custody_tests::process::run;
use custody_tests::random::Random;
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::story::Story;
use custody_tests::volume::{Journal, Volume};
use custody_tests::wait::{DEADLINE, until, until_true};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Times that something fails.
const ROUNDS: u64 = 12;
/// How long the delivery may take from one round to the next, and to its end.
const PATIENCE: Duration = Duration::from_secs(300);
/// What each answer is late by, so that what fails does so in the middle of something.
const LATE: Duration = Duration::from_millis(30);

/// A store that can be besieged.
pub trait Store {
    /// Events of the log before it begins: for each time that something fails a batch at least, and what gets through meanwhile.
    const EVENTS: u64 = 24_000;
    /// Whether it can say that it is too busy.
    const SPEAKS_HTTP: bool = true;
    /// The table of custodyd's configuration that sends to it by way of a port of loopback.
    fn table(&self, port: u16) -> String;
    /// What that sink sends at once.
    fn limits(&self) -> Limits;
    /// What is put between it and custodyd.
    fn proxy(&mut self) -> Flaky;
    /// SIGKILL.
    fn kill(&mut self);
    /// From what is on its disk.
    fn start(&mut self);
    /// What its operator does once there is room on the disk again.
    fn relieve(&mut self);
    /// Whether it may lose what it has acknowledged when its disk is full. Then its operator has what is missing sent again.
    fn may_lose(&self) -> bool {
        false
    }
    /// What it does by itself with time: a rollover, a flush.
    fn age(&self);
    /// How many of the log's events it has by its own count, repeats counted.
    fn count(&self) -> u64;
}

/// Its data is on a small disk of its own. `make` gets the disk's folder.
pub fn besiege<S: Store>(make: impl FnOnce(&Path) -> S) {
    let seed = std::env::var("CUSTODY_SEED")
        .map_or_else(|_| Uuid::new_v4().as_u128() as u64, |seed| seed.parse().unwrap());
    let length = std::env::var("CUSTODY_SINK_EVENTS").map_or(S::EVENTS, |events| events.parse().unwrap());
    println!("CUSTODY_SEED={seed} CUSTODY_SINK_EVENTS={length}");
    let mut random = Random(seed);
    let volume = Volume::new(1_024, 1_100, Journal::With);
    let mut store = make(&volume.disk());
    let least = ROUNDS * store.limits().batch_events as u64;
    assert!(length >= least, "{length} events are too few: {least} have a batch for each failure");
    store.start();
    let proxy = store.proxy();
    let mut world = World::start();
    world.custodyd.stop();
    fill(&world, length);
    world
        .custodyd
        .configure(&format!("[[sink]]\nname = \"store\"\nstall_seconds = 1\n{}", store.table(proxy.port)));
    proxy.set(Fault::Hold);
    world.custodyd.start();
    let share = length / ROUNDS;
    let mut under_way = 0;
    for round in 0..ROUNDS {
        let place = round * share + random.below(share);
        proxy.stand(Fault::Delay(LATE));
        let confirmed = until("the delivery gets to where the next thing fails", PATIENCE, || {
            Some(next(&world)).filter(|next| *next >= place)
        });
        println!("round {round}: {confirmed} events are confirmed");
        // Of what the log had at first something is always on its way, of sessions only for a moment.
        under_way += u64::from(confirmed < length);
        match round % 4 {
            0 => {
                world.custodyd.kill_now();
                proxy.stand(Fault::Hold);
                proxy.next(3, Fault::Swallow);
                world.custodyd.start();
            }
            1 => {
                store.kill();
                // Sessions don't notice, and there is something to deliver.
                world.ssh(&[], "echo while the store is away", b"").ok();
                // Told at the soonest after a second.
                until_true("the outage is told", DEADLINE, || {
                    last(&world, "type=sink.stalled") > last(&world, "type=sink.resumed")
                });
                proxy.stand(Fault::Hold);
                store.start();
            }
            2 => {
                proxy.stand(Fault::Hold);
                proxy.next(4, Fault::Cut);
                if S::SPEAKS_HTTP {
                    proxy.next(2, Fault::Answer(429, Some(1)));
                }
            }
            _ => {
                // First: filling takes its time, in which all might be delivered.
                proxy.stand(Fault::Hold);
                let full = volume.fill();
                proxy.next(4, Fault::Delay(LATE));
                // Sessions don't notice.
                world.ssh(&[], "echo while the store is full", b"").ok();
                std::thread::sleep(Duration::from_secs(1));
                drop(full);
                store.relieve();
                world.custodyd.kill_now();
                world.custodyd.start();
            }
        }
        store.age();
        world.ssh(&[], "echo during the siege", b"").ok();
    }
    assert!(under_way * 2 >= ROUNDS, "a long log was under way {under_way} of {ROUNDS} times only");
    proxy.stand(Fault::Delay(LATE));
    let busy = u64::from(S::SPEAKS_HTTP) * ROUNDS / 4 * 2;
    until_true("it has said often enough that it is too busy", PATIENCE, || {
        // What is swallowed is looked up, and asks for nothing more: only what is new is sent.
        proxy.counts().answered >= busy || world.ssh(&[], "echo after the siege", b"").ok().code != 0
    });
    proxy.set(Fault::Pass);
    if store.may_lose() {
        size(&world);
        until_true("what it lost is there again", PATIENCE, || {
            let mut repair = world.admin.command(&["sinks", "verify", "store", "--repair"]);
            run(&mut repair, b"", PATIENCE).code == 0
        });
    }
    proven(&mut world);
    store.age();
    // What the log tells of the proof itself is on its way.
    until_true("the store counts what the log has", PATIENCE, || store.count() == size(&world));
    proven(&mut world);
}

/// Appends a long log to the daemon's own, offline.
pub fn fill(world: &World, events: u64) {
    let signer = layout::log_signer(&world.custodyd.data(), "custody.test/log");
    let options = Options::new(Arc::new(signer), Arc::new(SystemClock::new()));
    let log = EmbeddedLog::open(&world.custodyd.data().join("log"), options).unwrap();
    let boot = Uuid::now_v7();
    // All that are logged, in all forms, but for those that would change who may do what here.
    let strange: Vec<_> =
        events::every().into_iter().filter_map(|bytes| Some((tag(&bytes)?, bytes.into()))).collect();
    let mixed =
        Story::new().zip(strange.iter().cloned().cycle()).flat_map(|(plain, strange)| [plain, strange]);
    let mut records = (0..events).zip(mixed).map(|(seq, (tag, bytes))| Record {
        producer: ProducerKey { id: "besieger".to_owned(), boot, seq },
        tag,
        bytes,
    });
    loop {
        let batch: Vec<_> = records.by_ref().take(500).collect();
        if batch.is_empty() {
            break;
        }
        drop(log.submit(batch).unwrap().wait_blocking().unwrap());
    }
    log.close();
}

/// The family's tag; `None` for what nobody but the log itself may say.
fn tag(bytes: &[u8]) -> Option<u8> {
    let event = Event::parse(bytes).ok()?;
    let info = TYPES.iter().find(|info| info.name == event.kind)?;
    let harmless = ["login", "certificate", "session", "command", "decision", "recording"];
    harmless.contains(&info.name.split('.').next().unwrap_or_default()).then(|| info.family.tag())
}

fn sink(world: &World) -> Value {
    let sinks: Value = serde_json::from_str(&world.admin.custody(&["sinks", "ls", "--json"]).text()).unwrap();
    sinks[0].clone()
}

/// The newest event of a query.
fn last(world: &World, query: &str) -> Option<u64> {
    world.entries(query).last().map(|entry| entry.index)
}

/// The first event that isn't confirmed.
fn next(world: &World) -> u64 {
    sink(world)["next"].as_u64().unwrap()
}

/// The log's length once nothing is on its way any more.
fn size(world: &World) -> u64 {
    until_true("all is delivered", PATIENCE, || sink(world)["lag_events"] == 0);
    next(world)
}

fn proven(world: &mut World) {
    size(world);
    let mut verify = world.admin.command(&["sinks", "verify", "store", "--json"]);
    let said = run(&mut verify, b"", PATIENCE);
    assert_eq!(said.code, 0, "{}{}", said.err, said.text());
    let report: Value = serde_json::from_str(&said.text()).unwrap();
    assert_eq!((&report["proven"], &report["rejected"]), (&report["expected"], &0.into()), "{report}");
}
