//! A sink that can't begin, for what its files or its secrets are: it stands still and says why, to people and in the log.
//! The others, the log and the sessions don't wait until somebody has mended it.

use custody_core::delivery::{Asked, DeadLetter, Errand, Numbers, Report, Running};
use custody_core::event::sink::Stalled;
use custody_core::event::{Actor, Draft};
use std::ops::Range;

/// In the place of a delivery.
pub struct Still {
    name: String,
    reason: String,
}

impl Still {
    /// Of the sink with that name.
    pub fn new(name: &str, error: &anyhow::Error) -> Self {
        let reason = format!("it can't begin: {error:#}; mend that and restart custodyd");
        Self { name: name.to_owned(), reason }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Says so in the log, as of any sink that doesn't deliver. Once it can begin, the delivery says that it goes on.
    /// `next` is the first event that isn't delivered; where that isn't known, it is the log's size.
    pub fn stalled(&self, next: u64) -> Draft<Stalled> {
        Draft::new(
            Actor::system("sink"),
            Stalled { next, reason: self.reason.clone(), sink: self.name.clone() },
        )
    }

    fn nothing<T: Send + 'static>(&self) -> Asked<'_, T> {
        let refused = format!("the sink {} stands still: {}", self.name, self.reason);
        Box::pin(async move { Err(refused) })
    }
}

impl Running for Still {
    fn name(&self) -> &str {
        &self.name
    }

    /// Nothing is known of what was delivered, so nothing counts as it.
    fn numbers(&self) -> Numbers {
        Numbers { trouble: Some(self.reason.clone()), ..Numbers::default() }
    }

    /// It is held already; the log remembers it for the next start.
    fn pause(&self, _: bool) {}

    fn replay(&self, _: Range<u64>) -> Asked<'_, ()> {
        self.nothing()
    }

    fn replaying(&self) -> Asked<'_, Option<Range<u64>>> {
        self.nothing()
    }

    fn redrive(&self) -> Asked<'_, usize> {
        self.nothing()
    }

    fn cancel(&self) -> Asked<'_, ()> {
        self.nothing()
    }

    fn errand(&self) -> Asked<'_, Option<Errand>> {
        self.nothing()
    }

    fn dead_letters(&self) -> Asked<'_, Vec<DeadLetter>> {
        self.nothing()
    }

    fn verify<'a>(&'a self, _: Range<u64>, _: Box<dyn FnMut(u64) + Send + 'a>) -> Asked<'a, Report> {
        self.nothing()
    }
}
