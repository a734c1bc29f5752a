//! What the log tells of dead letters that were in the file before: a crash may have come between the file and the log, or the log
//! took nothing then.

use super::super::Shared;
use crate::dead_letters::Told;
use crate::health::{At, Health};
use crate::sink::Sink;
use custody_core::log::{Log, ReadError};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// What the log tells of what was refused from one event on. It is read where something is refused again that was dead before, once,
/// and beside the loop: there may be much of it.
pub(super) struct Tellings {
    log: Arc<dyn Log>,
    sink: String,
    health: Arc<Health>,
    from: u64,
    told: OnceCell<Told>,
}

impl Tellings {
    /// Of dead letters the first of which is that one, if there are any.
    pub fn since<S: Sink>(shared: &Shared<S>, first: Option<&u64>) -> Option<Arc<Self>> {
        let from = *first?;
        let (log, sink, health) = (Arc::clone(&shared.log), shared.name.clone(), Arc::clone(&shared.health));
        Some(Arc::new(Self { log, sink, health, from, told: OnceCell::new() }))
    }

    /// Those of these dead letters of which the log says nothing.
    pub async fn lack(&self, at: At, letters: Vec<u64>) -> Result<BTreeSet<u64>, ReadError> {
        if letters.is_empty() {
            return Ok(BTreeSet::new());
        }
        let told = self.told.get_or_try_init(|| self.read(at)).await?;
        Ok(letters.into_iter().filter(|index| !told.of(*index)).collect())
    }

    /// A part at a time, so that it ends soon where nobody waits for it any more.
    async fn read(&self, at: At) -> Result<Told, ReadError> {
        let (mut told, mut next) = (Told::default(), Some(self.from));
        while let Some(from) = next {
            let (log, sink) = (Arc::clone(&self.log), self.sink.clone());
            let read = tokio::task::spawn_blocking(move || {
                let next = told.read_on(&*log, &sink, from)?;
                Ok::<_, ReadError>((told, next))
            });
            (told, next) =
                read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
            // It isn't the destination that is waited for.
            self.health.heard(at);
        }
        Ok(told)
    }
}
