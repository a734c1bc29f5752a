//! Says that the log's disk is full: `log.filled`, once each time, into the space that was kept for it.

use custody_core::event::{Actor, Draft, log};
use custody_core::log::Producer;
use custody_core::log::embedded::RESERVE_BYTES;
use std::sync::Arc;
use tokio::sync::watch;

/// Tells until the log stops.
pub async fn tell(producer: Arc<Producer>, mut filled: watch::Receiver<bool>) {
    while filled.wait_for(|full| *full).await.is_ok() {
        tracing::error!(
            "the log's disk is full: nothing is appended, so nothing is allowed; free space on it"
        );
        let said = log::Filled { reserve_bytes: RESERVE_BYTES };
        if let Err(error) = producer.append_from_reserve(Draft::new(Actor::system("custodyd"), said)).await {
            tracing::error!("that the log's disk is full could not be recorded: {error}");
        }
        if filled.wait_for(|full| !*full).await.is_err() {
            return;
        }
        tracing::info!("there is room for the log again");
    }
}
