//! What a log does when nothing goes wrong.

use super::*;
use crate::log::proof::ProofFile;
use crate::log::tree::{leaf_hash, verify_consistency, verify_inclusion};
use crate::log::{EVENT_BYTES_MAX, SubmitError, verify};
use bytes::Bytes;

#[test]
fn what_is_appended_is_read_proved_and_there_after_reopening() {
    let place = Place::new();
    let events: Vec<Vec<u8>> = (0..700).map(event).collect();
    {
        let log = place.open_small(20_000);
        let pending: Vec<_> = (0..700).map(|seq| log.submit(vec![record(1, seq)]).unwrap()).collect();
        for (index, pending) in pending.into_iter().enumerate() {
            let receipts = pending.wait_blocking().unwrap();
            assert_eq!((receipts[0].index, receipts[0].gap, receipts[0].repeat), (index as u64, 0, false));
        }
        assert_holds(&log, &events);
    }
    let log = place.open();
    assert_eq!(log.recovery().entries, 700);
    assert_eq!((log.recovery().cut_bytes, log.recovery().rewritten_bytes), (0, 0), "it was closed properly");
    assert_holds(&log, &events);
    let checkpoint = log.checkpoint();
    assert_eq!(checkpoint.size(), 700);
    for index in [0, 1, 255, 256, 511, 512, 699] {
        let proof = log.inclusion_proof(index, 700).unwrap();
        assert!(verify_inclusion(
            &leaf_hash(&events[index as usize]),
            index,
            700,
            &proof,
            &checkpoint.root()
        ));
        let file = ProofFile::new(index, proof, &checkpoint).to_string();
        ProofFile::parse(&file).unwrap().check(&events[index as usize], log.verifier_key()).unwrap();
    }
    for old in [1, 255, 256, 257, 600, 700] {
        let proof = log.consistency_proof(old, 700).unwrap();
        assert!(verify_consistency(old, &log.root(old).unwrap(), 700, &checkpoint.root(), &proof), "{old}");
    }
    assert!(log.inclusion_proof(700, 700).is_err());
    assert!(log.root(701).is_err());
}

#[test]
fn many_producers_share_writes_and_get_the_order_they_submitted_in() {
    let place = Place::new();
    let log = Arc::new(place.open());
    let threads: Vec<_> = (0..16u128)
        .map(|boot| {
            let log = log.clone();
            std::thread::spawn(move || {
                let mut last = None;
                for seq in 0..50 {
                    let receipt = append(&log, vec![record(boot, seq)]).unwrap()[0];
                    assert!(last < Some(receipt.index));
                    last = Some(receipt.index);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.size(), 800);
    log.close();
    let verified =
        verify::directory(&place.directory, log.verifier_key(), &[], &mut |_, _| {}, &mut |_| {}).unwrap();
    assert_eq!((verified.signed, verified.entries), (800, 800));
}

#[test]
fn what_is_counted_is_what_happened() {
    let place = Place::new();
    let log = place.open_small(1_000);
    append(&log, (0..5).map(|seq| record(1, seq)).collect()).unwrap();
    append_all(&log, 1, 5..8);
    let repeat = append(&log, vec![record(1, 7)]).unwrap();
    assert!(repeat[0].repeat, "nothing was written for it");
    let counted = log.statistics();
    assert_eq!((counted.sync_ns.count(), counted.write_events.count(), counted.write_events.sum), (4, 4, 8));
    assert_eq!((counted.write_events.counts[0], counted.write_events.counts[3]), (3, 1));
    assert!(counted.sync_ns.sum > 0);
    assert_eq!((counted.entries, counted.queued_batches, counted.queued_bytes), (8, 0, 0));
    drop(log);
    // After a close the files hold just that.
    let segments = std::fs::read_dir(place.directory.join("segments")).unwrap();
    let bytes: u64 = segments.map(|item| item.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(counted.disk_bytes, bytes);
    let counted = place.open().statistics();
    assert_eq!((counted.disk_bytes, counted.entries, counted.sync_ns.count()), (bytes, 8, 0));
}

#[test]
fn a_read_keeps_its_limits_and_gives_at_least_one() {
    let place = Place::new();
    let log = place.open();
    append_all(&log, 1, 0..20);
    assert_eq!(log.read(3, 5, usize::MAX).unwrap().len(), 5);
    assert_eq!(log.read(3, 5, 0).unwrap().len(), 1);
    assert_eq!(log.read(3, 0, usize::MAX).unwrap().len(), 0);
    assert_eq!(log.read(20, 5, usize::MAX).unwrap().len(), 0);
    assert_eq!(log.read(u64::MAX, 5, usize::MAX).unwrap().len(), 0);
    drop(log);
    let log = place.open();
    assert_eq!(log.read(3, 5, usize::MAX).unwrap().len(), 5);
    assert_eq!(log.read(3, 5, 0).unwrap().len(), 1);
}

/// Across what is read of a file at once, and across files; short ones and long ones beside each other.
#[test]
fn whatever_is_read_of_the_log_is_what_was_appended_there() {
    let place = Place::new();
    let length = |seq: u64| if seq % 41 == 7 { EVENT_BYTES_MAX } else { 1 + (seq * 997 % 2_000) as usize };
    let event = |seq: u64| Bytes::from(vec![b'a' + (seq % 26) as u8; length(seq)]);
    let events: Vec<Bytes> = (0..400).map(event).collect();
    let log = place.open_small(1 << 20);
    for (seq, bytes) in (0..).zip(&events) {
        append(&log, vec![Record { bytes: bytes.clone(), ..record(1, seq) }]).unwrap();
    }
    drop(log);
    let log = place.open();
    let limits = [0, 1, 3_000, 70_000, 96 << 10, 1 << 20, usize::MAX];
    for (from, bytes_max) in (0..400).step_by(3).flat_map(|from| limits.map(|limit| (from, limit))) {
        for entries_max in [1, 17, usize::MAX] {
            let read = log.read(from, entries_max, bytes_max).unwrap();
            let mut bytes = 0;
            let fits =
                events[from as usize..].iter().take(entries_max).enumerate().take_while(|(place, event)| {
                    bytes += event.len();
                    *place == 0 || bytes <= bytes_max
                });
            let expected: Vec<_> = (from..).zip(fits.map(|(_, event)| event)).collect();
            let read: Vec<_> = read.iter().map(|entry| (entry.index, &entry.bytes)).collect();
            assert!(
                read == expected,
                "{from}, {entries_max}, {bytes_max}: {} and {}",
                read.len(),
                expected.len()
            );
        }
    }
}

#[test]
fn a_repeat_gets_its_old_receipt_and_other_bytes_are_refused() {
    let place = Place::new();
    let log = place.open();
    append_all(&log, 1, 0..3);
    let first = append(&log, vec![record(1, 3)]).unwrap()[0];
    let again = append(&log, vec![record(1, 3)]).unwrap()[0];
    assert_eq!((again.index, again.appended, again.repeat), (first.index, first.appended, true));
    let liar = Record { bytes: b"{}"[..].into(), ..record(1, 3) };
    let refused = append(&log, vec![record(1, 4), liar.clone()]).unwrap_err();
    assert!(matches!(refused, AppendError::Conflict { index: 3, .. }), "{refused}");
    assert!(!refused.is_unknown());
    // The refused batch used nothing up.
    assert_eq!(append(&log, vec![record(1, 4)]).unwrap()[0].index, 4);
    // A batch that repeats its beginning.
    let mixed = append(&log, vec![record(1, 3), record(1, 4), record(1, 5)]).unwrap();
    assert_eq!(
        mixed.iter().map(|r| (r.index, r.repeat)).collect::<Vec<_>>(),
        [(3, true), (4, true), (5, false)]
    );
    drop(log);
    let log = place.open();
    assert_eq!(append(&log, vec![record(1, 3)]).unwrap()[0].appended, first.appended);
    assert!(matches!(append(&log, vec![liar]), Err(AppendError::Conflict { index: 3, .. })));
    // Another boot counts by itself.
    assert!(!append(&log, vec![record(2, 0)]).unwrap()[0].repeat);
    assert_eq!(log.size(), 7);
}

#[test]
fn a_jump_is_a_gap_and_what_it_skipped_is_refused_later() {
    let place = Place::new();
    let log = place.open();
    assert_eq!(append(&log, vec![record(1, 2)]).unwrap()[0].gap, 2);
    assert_eq!(append(&log, vec![record(1, 3), record(1, 7)]).unwrap()[1].gap, 3);
    assert!(matches!(append(&log, vec![record(1, 5)]), Err(AppendError::Backwards { last: 7, .. })));
    drop(log);
    let log = place.open();
    assert!(matches!(append(&log, vec![record(1, 5)]), Err(AppendError::Backwards { last: 7, .. })));
    assert_eq!(append(&log, vec![record(1, 8)]).unwrap()[0].gap, 0);
}

#[test]
fn limits_are_refused_at_submission() {
    let place = Place::new();
    let log = place.open();
    let longest = Record { bytes: vec![b'x'; EVENT_BYTES_MAX].into(), ..record(1, 0) };
    let longer = Record { bytes: vec![b'x'; EVENT_BYTES_MAX + 1].into(), ..record(1, 1) };
    let empty = Record { bytes: Bytes::new(), ..record(1, 1) };
    assert!(matches!(
        log.submit(vec![longest.clone(), longer]),
        Err(SubmitError::Invalid { position: 1, .. })
    ));
    assert!(matches!(log.submit(vec![empty]), Err(SubmitError::Invalid { position: 0, .. })));
    assert!(matches!(log.submit(Vec::new()), Err(SubmitError::Invalid { .. })));
    for id in [String::new(), "x".repeat(129)] {
        let mut nameless = record(1, 1);
        nameless.producer.id = id;
        assert!(matches!(log.submit(vec![nameless]), Err(SubmitError::Invalid { .. })));
    }
    append(&log, vec![longest]).unwrap();
    drop(log);
    assert_eq!(place.open().read(0, 1, 0).unwrap()[0].bytes.len(), EVENT_BYTES_MAX);
}

#[test]
fn the_queue_is_bounded_and_a_refusal_uses_nothing_up() {
    let place = Place::new();
    let options = Options { queue_bytes_max: 1_000, ..options() };
    let log = EmbeddedLog::open(&place.directory, options).unwrap();
    let large = Record { bytes: vec![b'x'; 1_001].into(), ..record(1, 0) };
    assert!(matches!(log.submit(vec![large]), Err(SubmitError::Overloaded { .. })));
    assert_eq!(append(&log, vec![record(1, 0)]).unwrap()[0].index, 0);
}

#[test]
fn dropping_the_future_cancels_nothing() {
    let place = Place::new();
    let log = place.open();
    drop(log.submit(vec![record(1, 0)]).unwrap());
    drop(log);
    assert_holds(&place.open(), &[event(0)]);
}

#[test]
fn a_second_writer_is_refused_and_told_who_has_it() {
    let place = Place::new();
    let log = place.open();
    let error = EmbeddedLog::open(&place.directory, options()).err().unwrap();
    assert!(matches!(&error, OpenError::InUse { pid, .. } if *pid == std::process::id().to_string()));
    drop(log);
    place.open();
}

#[test]
fn a_closed_log_refuses_and_still_reads() {
    let place = Place::new();
    let log = place.open();
    append_all(&log, 1, 0..3);
    log.close();
    log.close();
    assert!(matches!(log.submit(vec![record(1, 3)]), Err(SubmitError::Stopped(_))));
    assert!(matches!(log.sign_now().wait_blocking(), Err(AppendError::Stopped(_))));
    assert_eq!((log.size(), log.checkpoint().size()), (3, 3));
    assert_holds(&log, &[event(0), event(1), event(2)]);
}

#[tokio::test]
async fn followers_see_sizes_and_checkpoints() {
    let place = Place::new();
    let log = place.open();
    let (mut size, mut checkpoints) = (log.follow(), log.checkpoints());
    assert_eq!(*size.borrow_and_update(), 0);
    let receipts = log.submit(vec![record(1, 0), record(1, 1)]).unwrap().await.unwrap();
    assert_eq!(receipts[1].index, 1);
    size.changed().await.unwrap();
    assert_eq!(*size.borrow_and_update(), 2);
    let signed = log.sign_now().await.unwrap();
    assert_eq!(signed.size(), 2);
    checkpoints.wait_for(|checkpoint| checkpoint.size() == 2).await.unwrap();
}

#[test]
fn checkpoints_are_signed_at_most_ten_times_a_second() {
    let place = Place::new();
    let log = place.open();
    let mut seen = log.checkpoints();
    let (started, mut changes, mut seq) = (std::time::Instant::now(), 0, 0);
    // Longer only where a busy machine hasn't signed any by then.
    while started.elapsed() < std::time::Duration::from_millis(450)
        || (changes == 0 && started.elapsed() < std::time::Duration::from_secs(30))
    {
        append(&log, vec![record(1, seq)]).unwrap();
        seq += 1;
        if seen.has_changed().unwrap() {
            seen.borrow_and_update();
            changes += 1;
        }
    }
    let allowed = started.elapsed().as_millis() / 100 + 2;
    assert!((1..=allowed).contains(&changes), "{changes} checkpoints, {allowed} allowed");
}

#[test]
fn an_idle_log_signs_what_was_appended_last() {
    let place = Place::new();
    let log = place.open();
    append_all(&log, 1, 0..2);
    for _ in 0..1_500 {
        if log.checkpoint().size() == 2 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no checkpoint covers the last entry");
}
