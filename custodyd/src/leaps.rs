//! Tells when the machine's clock leaps ahead and the log's time doesn't follow: `log.clock-refused`, once for each leap.

use custody_core::event::{Actor, Draft, Outcome, log};
use custody_core::log::Producer;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Tells leaps until the log stops. One that is confirmed, or taken back, is over; the next is told again.
pub async fn tell(producer: Arc<Producer>, mut ahead: watch::Receiver<Option<Duration>>) {
    loop {
        let leapt = match ahead.wait_for(Option::is_some).await {
            Ok(leapt) => leapt.unwrap_or_default(),
            Err(_) => return,
        };
        tracing::error!(
            "the machine's clock is {} s ahead of the time that has passed; the log's time doesn't follow it until \
             somebody says that it is right: custody log confirm-clock",
            leapt.as_secs()
        );
        let refused = log::ClockRefused { ahead_seconds: leapt.as_secs() };
        let draft = Draft::new(Actor::system("custodyd"), refused).outcome(Outcome::Denied);
        if let Err(error) = producer.append(draft).await {
            tracing::error!("a leap of the clock could not be told: {error}");
        }
        if ahead.wait_for(Option::is_none).await.is_err() {
            return;
        }
    }
}
