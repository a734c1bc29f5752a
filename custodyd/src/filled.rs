//! Says that the log's disk is full: `log.filled`, once each time, into the space that was kept for it. And looks whether
//! there is room again, since nobody else may: who asks first whether the log takes events appends nothing.

use custody_core::event::{Actor, Draft, log};
use custody_core::log::embedded::{EmbeddedLog, RESERVE_BYTES};
use custody_core::log::{Producer, ProducerError, SubmitError};
use std::sync::Arc;
use std::time::Duration;

/// How often that is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// How long a log that tries just then whether there is room again is left alone.
const BUSY: Duration = Duration::from_millis(10);

/// Tells until the log stops.
pub async fn tell(producer: Arc<Producer>, embedded: Arc<EmbeddedLog>) {
    let mut filled = embedded.filled();
    while filled.wait_for(|full| *full).await.is_ok() {
        tracing::error!(
            "the log's disk is full: nothing is appended, so nothing is allowed; free space on it"
        );
        let mut said = say(&producer).await;
        if let Err(error) = &said {
            tracing::error!("that the log's disk is full could not be recorded: {error}");
        }
        loop {
            let waited = tokio::time::timeout(LOOK, filled.wait_for(|full| !*full)).await;
            // What it saw isn't held meanwhile.
            match waited.map(|seen| seen.map(drop)) {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
                Err(_) => {
                    // It may have been refused with what waited before it, when there was room for just a moment.
                    if said.is_err() {
                        said = say(&producer).await;
                    }
                    embedded.look_for_room();
                }
            }
        }
        tracing::info!("there is room for the log again");
    }
}

async fn say(producer: &Producer) -> Result<(), ProducerError> {
    loop {
        let said = log::Filled { reserve_bytes: RESERVE_BYTES };
        match producer.append_from_reserve(Draft::new(Actor::system("custodyd"), said)).await {
            Err(ProducerError::Refused(SubmitError::Overloaded { .. })) => tokio::time::sleep(BUSY).await,
            answer => return answer.map(drop),
        }
    }
}
