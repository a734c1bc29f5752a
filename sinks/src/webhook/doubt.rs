//! Which bodies a receiver may have had before. Receivers that pass over a `webhook-id` that they know answer 409 to it: of a body
//! that may have arrived before that means that they have it, of any other one it is a refusal.

use super::{Encoded, settled};
use crate::http::Answered;
use crate::sink::Trouble;
use custody_core::event::Timestamp;
use reqwest::StatusCode;
use std::collections::VecDeque;

/// Bodies of which is remembered that they may have arrived: one of what is new, one of an errand, and what was cut since.
const OPEN_MAX: usize = 8;
/// Batches that count as an earlier life's. It had one of what is new under way and one of an errand, and before those what was
/// answered since the position was written last, which happens several times a second.
const EARLIER_MAX: u32 = 8;

/// What may have arrived without an answer that says so.
#[derive(Debug)]
pub(super) struct Doubt {
    /// The newest of those bodies, by `webhook-id`.
    open: VecDeque<String>,
    /// When this life began.
    begun: Timestamp,
    /// How many batches more may be an earlier life's.
    earlier: u32,
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct Attempt {
    id: String,
    /// Its first event and its last one.
    indexes: (u64, u64),
    /// Whether an attempt before this one may have arrived.
    was_open: bool,
    /// Whether all of it was in the log before this life began.
    is_old: bool,
}

impl Doubt {
    pub(super) fn new(begun: Timestamp) -> Self {
        Self { open: VecDeque::new(), begun, earlier: EARLIER_MAX }
    }

    /// Notes that a body may arrive, before it is sent: who gives up waiting for the answer drops the attempt, and it stays noted.
    pub(super) fn begin(&mut self, id: String, batch: &[&Encoded]) -> Attempt {
        let was_open = self.open.contains(&id);
        self.forget(&id);
        self.open.truncate(OPEN_MAX - 1);
        self.open.push_front(id.clone());
        let index = |encoded: Option<&&Encoded>| encoded.map_or(0, |encoded| encoded.index);
        let is_old = batch.last().is_some_and(|newest| newest.appended < self.begun);
        Attempt { id, indexes: (index(batch.first()), index(batch.last())), was_open, is_old }
    }

    /// What the end of an attempt means. A body that may have arrived stays noted until the receiver says that it has it: what a later
    /// attempt ends with, say without a connection, is no word about an earlier one.
    pub(super) fn ended(
        &mut self,
        attempt: &Attempt,
        ended: Result<Answered, Trouble>,
    ) -> Result<(), Trouble> {
        if let Ok(answered) = &ended
            && answered.status == StatusCode::CONFLICT
            && (attempt.was_open || self.is_earlier(attempt))
        {
            self.forget(&attempt.id);
            return Ok(());
        }
        let settled = ended.and_then(|answered| settled(&answered));
        match &settled {
            Ok(()) => {
                self.earlier = 0;
                self.forget(&attempt.id);
            }
            Err(trouble) if attempt.was_open || may_have_arrived(trouble) => {}
            Err(_) => self.forget(&attempt.id),
        }
        settled
    }

    /// Whether it counts as sent by an earlier life, which had the same id for the same body: taken for a refusal, 409 would make dead
    /// letters of what was delivered, or copies. Where a receiver says it for a reason of its own, that hides a loss. So it is kept to
    /// what an earlier life can have sent: a few batches, none with an event of this life, and none once the receiver has taken
    /// one as new, since they come in the log's order. One that says 409 to whatever comes is found out by the batch after those, and which
    /// they were is said.
    fn is_earlier(&mut self, attempt: &Attempt) -> bool {
        if !attempt.is_old || self.earlier == 0 {
            return false;
        }
        self.earlier -= 1;
        let (first, last) = attempt.indexes;
        tracing::warn!(
            "a webhook's receiver has events {first} to {last} already, by its own words (409): they count as sent before the start"
        );
        true
    }

    fn forget(&mut self, id: &str) {
        self.open.retain(|open| open != id);
    }
}

/// Whether the receiver may have taken the body of an attempt that ended so. Who refuses one of its events has taken none.
fn may_have_arrived(trouble: &Trouble) -> bool {
    trouble.leaves_doubt() && !matches!(trouble, Trouble::Poisoned { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderMap;

    const BEGUN: u64 = 1_000;
    const REFUSED: u16 = 0;
    const CUT: u16 = 1;

    fn doubt() -> Doubt {
        Doubt::new(Timestamp::from_nanos(BEGUN))
    }

    /// Begins to send an event of that time.
    fn begin(doubt: &mut Doubt, id: &str, appended: u64) -> Attempt {
        let event = Encoded { index: 7, appended: Timestamp::from_nanos(appended), entry: vec![] };
        doubt.begin(id.to_owned(), &[&event])
    }

    /// Sends it, with that status as the answer, or with none.
    fn send_old(doubt: &mut Doubt, id: &str, appended: u64, status: u16) -> Result<(), Trouble> {
        let attempt = begin(doubt, id, appended);
        let ended = match status {
            REFUSED => Err(Trouble::Refused { reason: "connection refused".into(), retry_after: None }),
            CUT => Err(Trouble::unclear("the connection broke")),
            status => Ok(Answered {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: vec![],
            }),
        };
        doubt.ended(&attempt, ended)
    }

    fn send(doubt: &mut Doubt, id: &str, status: u16) -> Result<(), Trouble> {
        send_old(doubt, id, BEGUN, status)
    }

    fn is_refused(sent: Result<(), Trouble>) -> bool {
        matches!(sent, Err(Trouble::Poisoned { .. }))
    }

    #[test]
    fn what_may_have_arrived_is_there_when_the_receiver_says_so_whatever_came_between() {
        for unclear in [CUT, 408, 500, 502, 503, 504] {
            for between in [REFUSED, CUT, 400, 401, 425, 429, 502, 503] {
                let mut doubt = doubt();
                assert!(send(&mut doubt, "a", unclear).is_err(), "{unclear}");
                assert!(send(&mut doubt, "a", between).is_err(), "{between}");
                assert_eq!(send(&mut doubt, "a", 409), Ok(()), "{unclear}, {between}");
                // Of another body it says nothing, and this one is settled.
                assert!(is_refused(send(&mut doubt, "b", 409)) && is_refused(send(&mut doubt, "a", 409)));
            }
        }
    }

    #[test]
    fn what_was_given_up_may_have_arrived() {
        let mut doubt = doubt();
        drop(begin(&mut doubt, "a", BEGUN));
        assert!(send(&mut doubt, "a", REFUSED).is_err());
        assert_eq!(send(&mut doubt, "a", 409), Ok(()));
    }

    #[test]
    fn what_never_arrived_or_is_settled_is_refused() {
        for status in [REFUSED, 200, 400, 401, 409, 413, 422, 425, 429] {
            let mut doubt = doubt();
            drop(send(&mut doubt, "a", status));
            assert!(is_refused(send(&mut doubt, "a", 409)), "{status}");
        }
        let mut doubt = doubt();
        assert!(send(&mut doubt, "a", CUT).is_err());
        assert_eq!(send(&mut doubt, "a", 200), Ok(()));
        assert!(is_refused(send(&mut doubt, "a", 409)));
    }

    #[test]
    fn only_the_first_batches_of_a_life_may_be_an_earlier_ones() {
        let old = |doubt: &mut Doubt, n: u64| send_old(doubt, &n.to_string(), n, 409);
        let mut one_that_knows_none = doubt();
        let taken = (0..20).take_while(|n| old(&mut one_that_knows_none, *n).is_ok()).count();
        assert_eq!(taken, EARLIER_MAX as usize);
        let mut one_that_takes_the_next = doubt();
        assert_eq!(old(&mut one_that_takes_the_next, 0), Ok(()));
        assert_eq!(send_old(&mut one_that_takes_the_next, "1", 1, 200), Ok(()));
        assert!(is_refused(old(&mut one_that_takes_the_next, 2)));
        assert!(is_refused(send(&mut doubt(), "new", 409)), "no earlier life had it");
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut doubt = doubt();
        for n in 0..100 {
            drop(begin(&mut doubt, &n.to_string(), BEGUN));
            // One that is tried again and again isn't forgotten for the others.
            drop(begin(&mut doubt, "again", BEGUN));
        }
        assert_eq!(doubt.open.len(), OPEN_MAX);
        assert_eq!(send(&mut doubt, "again", 409), Ok(()));
        assert_eq!(send(&mut doubt, "99", 409), Ok(()));
        assert!(is_refused(send(&mut doubt, "0", 409)));
    }
}
