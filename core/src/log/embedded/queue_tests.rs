use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::log::{Counter, ProducerKey};

/// A record of the producer whose numbers are counted, and the claim on its number.
fn numbered(counter: &Arc<Counter>, seq: u64) -> (Vec<Record>, Option<Claim>) {
    let producer = ProducerKey { id: "log".to_owned(), boot: Uuid::from_u128(1), seq };
    let record = Record { producer, tag: 1, bytes: vec![b'x'; 10].into() };
    (vec![record], Some(Claim::new(counter, seq, seq + 1)))
}

fn submit(
    queue: &Queue,
    (records, claim): (Vec<Record>, Option<Claim>),
    from_reserve: bool,
) -> Result<Pending, SubmitError> {
    queue.submit(records, claim, from_reserve)
}

/// Who speaks from the reserve had read his number before the one that waited was refused: he is to say it again, not to
/// hear that the disk is full, which he knows.
#[test]
fn a_last_word_whose_number_was_given_back_meanwhile_is_said_again() {
    let (queue, counter) = (Queue::new(1_000), Arc::default());
    let probe = submit(&queue, numbered(&counter, 0), false).unwrap();
    let word = numbered(&counter, 1);
    for waiting in queue.fill_up(Vec::new(), false) {
        refuse(waiting.answer, AppendError::DiskFull);
    }
    assert_eq!(probe.wait_blocking(), Err(AppendError::DiskFull));
    let refused = submit(&queue, word, true).unwrap_err();
    assert!(matches!(refused, SubmitError::Overloaded { .. }), "{refused}");
    assert_eq!(counter.next_number(), 0);
    let _said = submit(&queue, numbered(&counter, 0), true).unwrap();
    assert_eq!((counter.next_number(), queue.depth().0), (1, 1));
}

/// There is room for a moment, so that the log's word waits behind an event of its producer; then the disk is full again.
#[test]
fn a_last_word_behind_what_is_refused_is_refused_with_it_and_leaves_no_hole() {
    let (queue, counter) = (Queue::new(1_000), Arc::default());
    drop(queue.fill_up(Vec::new(), false));
    queue.has_room();
    let _event = submit(&queue, numbered(&counter, 0), false).unwrap();
    let _word = submit(&queue, numbered(&counter, 1), true).unwrap();
    assert_eq!(queue.fill_up(Vec::new(), false).len(), 2);
    assert_eq!((counter.next_number(), queue.depth().0), (0, 0));

    // The same where the writer has both already.
    queue.has_room();
    let _event = submit(&queue, numbered(&counter, 0), false).unwrap();
    let _word = submit(&queue, numbered(&counter, 1), true).unwrap();
    let taken = queue.take(None, &mut Herd::default()).batches;
    assert_eq!(taken.iter().map(|batch| batch.from_reserve).collect::<Vec<_>>(), [false, false]);
    drop(queue.fill_up(taken.into_iter().map(|batch| batch.waiting).collect(), false));
    assert_eq!(counter.next_number(), 0);

    // On a disk that is full it has the reserve, and nothing before it.
    let _word = submit(&queue, numbered(&counter, 0), true).unwrap();
    assert!(queue.fill_up(Vec::new(), false).is_empty());
    assert_eq!((counter.next_number(), queue.depth().0), (1, 1));
}
