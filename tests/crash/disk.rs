//! Disks that fail, fill up and lose power.

use super::events::EVEN_BOOT;
use super::ledger::Ledger;
use super::stepping::Stepping;
use custody_tests::servers::World;
use custody_tests::volume::{Journal, Volume};
use custody_tests::wait::{self, DEADLINE};
use std::path::Path;

const LARGE_SEGMENTS: &str = "segment_bytes=67108864";
const SMALL_SEGMENTS: &str = "segment_bytes=600";

fn start(directory: &Path, segment_bytes: &str) -> Stepping {
    let mut appender = Stepping::start(directory, &[segment_bytes]);
    assert!(appender.step("open"), "it opens");
    appender
}

/// Appends until one isn't acknowledged.
fn append_until_it_fails(appender: &mut Stepping) {
    let failures = |ledger: &Ledger| ledger.unknown.len() + ledger.refused.len();
    let before = failures(&appender.ledger);
    for _ in 0..20_000 {
        assert!(appender.step("append"), "the appender died");
        if failures(&appender.ledger) > before {
            return;
        }
    }
    panic!("20,000 appends went well");
}

/// The disk fails while the log syncs, and is well again later. The kernel has told the error once, shows pages that
/// never reached the disk, and would say OK to a second sync: what is shown then must get there after all.
#[test]
fn a_failed_sync_is_final_and_the_next_start_does_not_believe_the_cache() {
    let volume = Volume::new(64, 24, Journal::Without);
    let directory = volume.disk().join("log");
    let mut appender = Stepping::start(&directory, &[LARGE_SEGMENTS, &format!("boot={EVEN_BOOT}")]);
    assert!(appender.step("open"), "it opens");
    for _ in 0..51 {
        appender.step("append");
    }
    appender.step("sign");
    // Space lies ready behind the log's end, and that must fail too. The next record begins a block: of a write that
    // begins in a block that is there and ends in one that isn't, a loop device says that it went well.
    let segment = std::fs::read_dir(directory.join("segments")).unwrap().next().unwrap().unwrap().path();
    let written = std::fs::read(&segment).unwrap();
    let end = written.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    assert_eq!((end + 1) % 4096, 0, "records of another length");
    let failing = volume.wear_out(&segment, end + 1);
    append_until_it_fails(&mut appender);
    assert_eq!(
        (appender.ledger.unknown.len(), appender.ledger.refused.len()),
        (1, 0),
        "what the sync was for"
    );
    append_until_it_fails(&mut appender);
    assert_eq!(appender.ledger.refused.len(), 1, "a failed sync is final");
    assert!(
        appender.ledger.reasons.iter().all(|why| why.contains("syncing")),
        "{:?}",
        appender.ledger.reasons
    );
    let (_, said) = appender.end();
    assert_eq!(said, "");
    let told = appender.ledger.clone();
    let shown = told.verify(&directory, "by the cache");
    let there = told.verify(&volume.after_power_loss().disk().join("log"), "by the disk");
    assert!(there < shown, "the premise: the cache shows {shown} entries, the disk has {there}");

    // While it still fails, a start is refused, with one line.
    let mut refused = Stepping::start(&directory, &[LARGE_SEGMENTS]);
    refused.step("open");
    let (status, said) = refused.end();
    assert!(!status.success() && said.lines().count() == 1, "{status}: {said}");
    drop(failing);

    // Now it takes blocks again, and the pages would still look clean.
    let again = start(&directory, LARGE_SEGMENTS);
    let [entries, _, rewritten] = again.ledger.opened[0];
    assert!(rewritten > 0, "what no checkpoint covers was believed");
    let there =
        told.verify(&volume.after_power_loss().disk().join("log"), "by the disk, after the second start");
    assert_eq!((entries, there), (shown, shown), "what the second start shows isn't on the disk");
    drop(again);
    told.check(&directory, "after a failed sync");
}

/// After each acknowledgement the power fails: a copy of what the disk has then holds all that was acknowledged, over
/// records, rotations and checkpoints. Without a journal nothing gets there that nobody synced, names least of all.
#[test]
fn what_is_acknowledged_survives_the_loss_of_power() {
    for journal in [Journal::Without, Journal::With] {
        let volume = Volume::new(32, 48, journal);
        let directory = volume.disk().join("data").join("log");
        let mut appender = start(&directory, SMALL_SEGMENTS);
        for n in 0..16 {
            assert!(appender.step(if n % 5 == 4 { "sign" } else { "append" }));
            let lost = volume.after_power_loss();
            let directory = lost.disk().join("data").join("log");
            appender.ledger.verify(&directory, &format!("power lost after step {n}"));
            if n % 4 == 3 {
                appender.ledger.check(&directory, &format!("power lost after step {n}"));
            }
        }
        assert_eq!((appender.ledger.durable.len(), appender.ledger.unsigned), (13, 0));
        let (status, said) = appender.end();
        assert!(status.success(), "{said}");
    }
}

/// The disk fills up: in the middle of a record, of a new segment, of a checkpoint.
#[test]
fn a_full_disk_refuses_and_the_log_goes_on_when_there_is_space_again() {
    for segment_bytes in [LARGE_SEGMENTS, SMALL_SEGMENTS] {
        let volume = Volume::new(32, 48, Journal::With);
        let directory = volume.disk().join("log");
        let mut appender = start(&directory, segment_bytes);
        for _ in 0..20 {
            appender.step("append");
        }
        appender.step("sign");
        assert_eq!(appender.ledger.signed, 20);
        let checkpoint = std::fs::read(directory.join("checkpoint")).unwrap();
        for round in 0..3 {
            let what = format!("{segment_bytes}, full for the {round}th time");
            let full = volume.fill();
            append_until_it_fails(&mut appender);
            assert!(appender.ledger.unknown.is_empty(), "{what}: {:?}", appender.ledger.reasons);
            append_until_it_fails(&mut appender);
            let why: Vec<&String> = appender.ledger.reasons.iter().collect();
            assert!(why.len() == 1 && why[0].contains("full"), "{what}: {why:?}");
            // The old checkpoint stays, whole; what was acknowledged is there.
            appender.step("sign");
            appender.ledger.verify(&directory, &what);
            if round == 0 && appender.ledger.unsigned > 0 {
                assert_eq!(std::fs::read(directory.join("checkpoint")).unwrap(), checkpoint, "{what}");
            }
            drop(full);
            // Nobody restarts anything.
            let before = appender.ledger.durable.len() as u64;
            appender.step("append");
            appender.step("sign");
            assert_eq!(
                appender.ledger.durable.len() as u64,
                before + 1,
                "{what}: {:?}",
                appender.ledger.reasons
            );
            assert_eq!(appender.ledger.signed, before + 1, "{what}");
        }
        // Full, killed, and started while it is full: in order, or refused with one line.
        let full = volume.fill();
        append_until_it_fails(&mut appender);
        let mut told = appender.ledger.clone();
        // Dropping it kills it.
        drop(appender);
        told.verify(&directory, "full and killed");
        let mut again = Stepping::start(&directory, &[segment_bytes]);
        let opened = again.step("open");
        let (status, said) = again.end();
        assert!(
            opened == status.success() && said.lines().count() == usize::from(!opened),
            "{status}: {said}"
        );
        drop(full);
        told.unknown.extend(again.ledger.unknown.clone());
        told.check(&directory, "full, killed, and space again");
    }
}

/// The same for people: no session begins that couldn't be recorded, they are told so in a line, and it goes on.
#[test]
fn with_a_full_disk_no_session_begins_and_with_space_they_do_again() {
    let volume = Volume::new(96, 160, Journal::With);
    let mut world = World::start_in(&volume.disk(), &[]);
    world.ssh(&[], "true", b"").ok();
    let mark = std::env::temp_dir().join(format!("custody-effect-{}", std::process::id()));
    let touch = format!("touch {}", mark.display());
    let full = volume.fill();
    // What lay ready behind the log's end is used up by and by.
    let mut number = 0;
    let description = "x".repeat(1_000);
    wait::until_true("the log takes nothing", 3 * DEADLINE, || {
        number += 1;
        let role = serde_json::json!({"name": format!("late-{number}"), "description": description});
        let answer = world.admin.post("create-role", &role);
        answer.status == 503 && answer.text().contains("takes no evidence")
    });
    let said = world.ssh(&[], &touch, b"");
    assert!(said.code != 0, "it went on");
    assert!(said.err.contains("takes no evidence") && said.err.lines().count() == 1, "{}", said.err);
    assert!(!mark.exists(), "an effect without evidence");
    drop(full);
    world.ssh(&[], &touch, b"").ok();
    assert!(mark.exists());
    std::fs::remove_file(&mark).unwrap();
    world.custodyd.stop();
    world.custodyd.start();
    world.ssh(&[], "true", b"").ok();
    assert_eq!(world.admin.custody(&["verify", world.custodyd.data().to_str().unwrap()]).code, 0);
}
