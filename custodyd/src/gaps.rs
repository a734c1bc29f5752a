//! Tells what is missing: each gap in a producer's numbering becomes one `producer.gap`.
//!
//! The fold finds the gaps, so that one which showed just before a crash is told at the next start.

use custody_core::event::{Actor, Draft, Outcome};
use custody_core::log::Producer;
use custody_core::state::follow::Replica;
use std::sync::Arc;
use std::time::Duration;

/// How long a log that refuses is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells gaps until the log stops.
pub async fn tell(producer: Arc<Producer>, replica: Arc<Replica>) {
    let mut size = producer.log().follow();
    loop {
        let seen = *size.borrow_and_update();
        if let Some(last) = seen.checked_sub(1)
            && replica.at_least(last).await.is_err()
        {
            return;
        }
        let untold: Vec<_> = replica.read(|state| state.producers().untold_gaps().cloned().collect());
        for gap in untold {
            let count = if gap.unknown { "an unknown number of".to_owned() } else { gap.count.to_string() };
            tracing::warn!(
                "{count} events of the producer {} are missing, from number {} of its boot {} on",
                gap.producer,
                gap.first,
                gap.boot
            );
            let draft = Draft::new(Actor::system("custodyd"), gap).outcome(Outcome::Failure);
            match producer.append(draft).await {
                Ok(told) if replica.at_least(told.index()).await.is_ok() => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!("a gap could not be told, will be tried again: {error}");
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            }
        }
        if size.changed().await.is_err() {
            return;
        }
    }
}
