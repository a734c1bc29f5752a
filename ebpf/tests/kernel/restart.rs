//! The agent goes and comes; what it attached stays.

use crate::node::{Node, options};
use custody_node::sensor::{Record, Sensor, SensorOptions};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The numbers that a session's /bin/echo was given, as they were told.
fn numbers(records: &[Record]) -> Vec<u32> {
    let number = |record: &Record| match record {
        Record::Executed(executed) if executed.path.ends_with(b"/echo") => {
            String::from_utf8_lossy(executed.args.last()?).strip_prefix("number-")?.parse().ok()
        }
        _ => None,
    };
    records.iter().filter_map(number).collect()
}

#[test]
fn sessions_go_on_while_the_agent_is_away_and_nothing_is_lost_or_doubled() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run("/bin/echo number-1");
    let id = session.id;
    let mut told = Vec::new();
    for round in 0..5 {
        node.drain();
        told.extend(numbers(&node.records));
        let options = node.abandon();
        session.run(&format!("/bin/echo number-{}", 2 + round));
        node = Node::with(options);
        session.run(&format!("/bin/echo number-{}", 100 + round));
    }
    node.wait_until("the last", |records| numbers(records).contains(&104).then_some(()));
    told.extend(numbers(&node.records));
    assert_eq!(told, [1, 2, 100, 3, 101, 4, 102, 5, 103, 6, 104]);
    assert!(node.records.iter().all(|record| record.who().unwrap().session == id));
    let mut other = node.session();
    other.run("/bin/true");
}

/// Who is root in a session may remove pins, where the kernel has no programs that refuse it.
#[test]
fn pins_that_are_removed_come_back_and_nothing_is_missed() {
    let mut node = Node::start();
    let mut session = node.session();
    session.run(&format!("rm -rf {}", node.options.pins.display()));
    let refused = node.has("file delete");
    session.run("/bin/echo number-1");
    let missing = node.sensor().keep_pinned().unwrap();
    assert_eq!(missing == 0, refused, "{missing} pins were gone");
    assert_eq!(node.sensor().keep_pinned().unwrap(), 0);
    session.run("/bin/echo number-2");
    node.wait_until("the second", |records| numbers(records).contains(&2).then_some(()));
    let mut told = numbers(&node.records);
    // What is pinned is the same as before: the next agent goes on with it.
    let mut node = Node::with(node.abandon());
    session.run("/bin/echo number-3");
    node.wait_until("the third", |records| numbers(records).contains(&3).then_some(()));
    told.extend(numbers(&node.records));
    assert_eq!(told, [1, 2, 3]);
}

#[test]
fn what_takes_the_place_of_a_pin_goes_and_the_pin_comes_back() {
    let mut node = Node::start();
    let mut session = node.session();
    let generation = std::fs::read_dir(&node.options.pins).unwrap().next().unwrap().unwrap().path();
    let printed = session.python(&format!(
        "import os\n\
         os.chdir('{}/maps')\n\
         for change in [lambda: os.rename('seen', 'lost'), lambda: os.symlink('lost', 'new'), lambda: os.link('lost', 'linked')]:\n\
         \ttry: change()\n\
         \texcept OSError as error: print(error.errno)\n\
         \telse: print(0)",
        generation.display()
    ));
    let refused = node.has("file rename");
    let outcomes: Vec<&str> = printed.split_whitespace().collect();
    // Of both a bpffs makes no hard links.
    assert_eq!(outcomes[..2], if refused { ["1", "1"] } else { ["0", "0"] }, "{printed}");
    let missing = node.sensor().keep_pinned().unwrap();
    assert_eq!(missing, if refused { 0 } else { 2 });
    assert_eq!(node.sensor().keep_pinned().unwrap(), 0);
    // Each is what it was: the next agent counts on.
    let before = node.sensor().counters().unwrap();
    let mut node = Node::with(node.abandon());
    let after = node.sensor().counters().unwrap();
    assert_eq!((after.since, after.lost), (before.since, before.lost));
    session.run("/bin/echo number-1");
    node.wait_until("what runs then", |records| numbers(records).contains(&1).then_some(()));
}

#[test]
fn another_size_of_the_ring_hands_over_and_back() {
    let mut node = Node::start();
    let mut session = node.session();
    let mut told = Vec::new();
    for round in 0..4_u32 {
        session.run(&format!("/bin/echo number-{}", round * 2));
        let mut options = node.abandon();
        session.run(&format!("/bin/echo number-{}", round * 2 + 1));
        options.ring_bytes = if round % 2 == 0 { 1 << 19 } else { 1 << 20 };
        node = Node::with(options);
        node.wait_until("what was in the old ring", |records| {
            numbers(records).contains(&(round * 2 + 1)).then_some(())
        });
        told.extend(numbers(&node.records));
        let generations = std::fs::read_dir(&node.options.pins).unwrap().count();
        assert_eq!(generations, 1, "the old programs are gone with their last record");
    }
    assert_eq!(told, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn without_an_agent_sessions_can_do_nothing_new() {
    let mut options = options();
    options.heartbeat_limit = Duration::from_secs(3);
    let mut node = Node::with(options);
    let mut session = node.session();
    let gate = tempfile::tempdir().unwrap();
    let at = gate.path().display();
    session.run(&format!("mkfifo {at}/gate"));
    node.sensor().heartbeat().unwrap();
    session.start(&format!(
        "python3 -c 'import socket; open(\"{at}/gate\").read(); print(socket.socket().connect_ex((\"127.0.0.1\", 9)))' >{at}/out &"
    ));
    node.wait_for("python", |record| matches!(record, Record::Executed(executed) if executed.args.get(1).is_some_and(|arg| arg == b"-c")));
    let options = node.abandon();
    while session.run("/bin/true && echo ran; true") == "ran" {}
    session.run(&format!(": >{at}/gate; wait"));
    assert_eq!(std::fs::read_to_string(gate.path().join("out")).unwrap(), "1\n");
    let mut node = Node::with(options);
    node.sensor().heartbeat().unwrap();
    assert_eq!(session.run("/bin/true && echo ran; true"), "ran");
}

const PINS: &str = "CUSTODY_TEST_PINS";

/// An agent in a process of its own, which says what it has been told until it is killed; without PINS in its environment, nothing.
#[test]
fn agent() {
    let Some(pins) = std::env::var_os(PINS) else { return };
    let mut options = options();
    options.pins = pins.into();
    let mut sensor = Sensor::start(options).unwrap();
    let mut reader = sensor.reader().unwrap();
    println!("ready");
    loop {
        while let Some(told) = reader.keep(|record| {
            for number in numbers(&[record]) {
                println!("told {number}");
            }
            Ok::<(), ()>(())
        }) {
            told.unwrap();
        }
        rustix::event::poll(&mut [rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN)], None)
            .unwrap();
    }
}

#[test]
fn killed_under_load_again_and_again_nothing_is_lost() {
    const ROUNDS: u32 = 20;
    let mut node = Node::start();
    let mut session = node.session();
    node.drain();
    let options = node.abandon();
    let folder = tempfile::tempdir().unwrap();
    let stop = folder.path().join("stop");
    let mut told = Vec::new();
    // A buffer that is full while nobody reads it refuses: what was refused didn't run.
    let refused = folder.path().join("refused");
    session.start(&format!(
        "STOP={}; n=0; while [ ! -e $STOP ]; do n=$((n+1)); /bin/echo number-$n >/dev/null || echo $n >>{}; done 2>/dev/null; echo last $n",
        stop.display(),
        refused.display()
    ));
    for _ in 0..ROUNDS {
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restart::agent", "--nocapture"])
            .env(PINS, &options.pins)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 30 {
            let line = lines.next().unwrap().unwrap();
            if let Some(number) = line.strip_prefix("told ") {
                told.push(number.parse::<u32>().unwrap());
                seen += 1;
            }
        }
        agent.kill().unwrap();
        agent.wait().unwrap();
        told.extend(
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("told ")?.parse::<u32>().ok()),
        );
    }
    std::fs::File::create(&stop).unwrap();
    let printed = session.run("true");
    let last: u32 = printed.split("last ").last().unwrap().trim().parse().unwrap();
    let refused = std::fs::read_to_string(&refused).unwrap_or_default();
    let refused: BTreeSet<u32> = refused.lines().map(|line| line.parse().unwrap()).collect();
    let ran: BTreeSet<u32> = (1..=last).filter(|number| !refused.contains(number)).collect();
    let mut node = Node::with(options);
    node.wait_until("the last that ran", |records| {
        numbers(records).iter().chain(&told).any(|number| Some(number) == ran.last()).then_some(())
    });
    told.extend(numbers(&node.records));
    let once: BTreeSet<u32> = told.iter().copied().collect();
    let untold: Vec<_> = ran.difference(&once).collect();
    assert!(untold.is_empty(), "{untold:?} ran and were not told");
    assert!(once.iter().all(|number| *number <= last) && !ran.is_empty());
    // One record may come again after each kill: it was kept, and not yet released.
    assert!(told.len() - once.len() <= ROUNDS as usize);
}

#[test]
fn what_a_killed_trial_left_goes_with_the_next_start() {
    let node = Node::start();
    // No process ever has that number.
    let killed = node.options.pins.join("trial-4194305");
    let living = node.options.pins.join(format!("probe-{}", std::process::id()));
    for pins in [&killed, &living] {
        drop(Sensor::start(SensorOptions { pins: pins.clone(), ..node.options.clone() }).unwrap());
    }
    let mut node = Node::with(node.abandon());
    assert!(!killed.exists());
    assert!(living.exists());
    node.session().run("/bin/true");
    let tried = Sensor::start(SensorOptions { pins: living.clone(), ..node.options.clone() }).unwrap();
    tried.detach().unwrap();
    assert!(!living.exists());
}

#[test]
fn a_pinned_map_of_another_layout_is_named_and_not_taken() {
    let node = Node::start();
    let options = node.abandon();
    let generation = std::fs::read_dir(&options.pins).unwrap().next().unwrap().unwrap().path();
    let maps = generation.join("maps");
    std::fs::rename(maps.join("policies"), maps.join("kept")).unwrap();
    std::fs::rename(maps.join("denied"), maps.join("policies")).unwrap();
    let refused = Sensor::start(options.clone()).err().unwrap().to_string();
    assert!(refused.contains("maps/policies: another version made it"), "{refused}");
    std::fs::rename(maps.join("policies"), maps.join("denied")).unwrap();
    std::fs::rename(maps.join("kept"), maps.join("policies")).unwrap();
    let mut node = Node::with(options);
    node.session().run("/bin/true");
}
